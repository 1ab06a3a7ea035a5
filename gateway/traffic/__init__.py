"""A made-up company that uses the gateway: its calls, the provider that plays along, the totals.

Must never reach a provider that bills: every answer has to say that it comes from the demo.
"""
