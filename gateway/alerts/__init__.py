"""Alerts of budgets: what is said, to whom, once, and until it arrives."""
