"""Exact pricing of metered LLM usage, usable alone.

Must never open a socket, read a clock, await anything or hold money in a float.
"""
