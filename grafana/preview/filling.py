"""Grafana's variables in queries, with values put in their places.

Must never change what a query asks.
"""

import re


def fill(text: str, span_s: int, *, rate_s: int = 60) -> str:
    """Put values in the place of Grafana's variables, everything chosen.

    Args:
        text: PromQL.
        span_s: What ``$__range`` is.
        rate_s: What ``$__rate_interval`` is.

    Returns:
        What Prometheus would get.
    """
    text = text.replace("$__range_s", str(span_s)).replace("$__range", f"{span_s}s")
    text = text.replace("$__rate_interval", f"{rate_s}s")
    return re.sub(r"\$(team|project|provider|model|budget)\b", ".*", text)


def fill_sql(text: str, start_s: int, end_s: int) -> str:
    """Put values in the place of Grafana's variables, everything chosen.

    Args:
        text: SQL.
        start_s: Beginning of the span, seconds since 1970.
        end_s: Its end.

    Returns:
        What PostgreSQL would get.
    """
    text = text.replace("$__unixEpochFrom()", str(start_s)).replace("$__unixEpochTo()", str(end_s))
    return re.sub(r"\$\{(\w+):regex\}", ".*", text)
