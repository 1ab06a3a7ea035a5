"""Pictures of the boards, drawn from their JSON and from what their queries answer.

Must never be taken for Grafana: it shows what is where, and that every panel has something to show.
"""
