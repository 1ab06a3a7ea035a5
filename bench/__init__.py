"""Measures the gateway against a bare pass-through on the same libraries; see ``bench.run``."""
