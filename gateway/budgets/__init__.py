"""Budgets: pure rules and windows, and the stores that hold the counters."""
