"""Grafana's dashboards as code: ``python -m grafana.generate`` writes ``grafana/dashboards``.

Must never be needed to run the gateway.
"""
