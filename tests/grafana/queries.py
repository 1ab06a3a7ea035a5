"""The queries of boards and rules, with Grafana's variables filled in.

Must never change what a query asks.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from grafana.generate.boards import BOARDS

_WORDS: Final = frozenset(
    {
        "and",
        "avg",
        "avg_over_time",
        "by",
        "clamp_max",
        "clamp_min",
        "count",
        "group_left",
        "increase",
    }
    | {"group_right", "histogram_quantile", "ignoring", "label_replace", "max", "max_over_time"}
    | {"min", "min_over_time", "offset", "on", "or", "rate", "sum", "time", "unless", "vector"}
)
_LABELS: Final = re.compile(r"\{([^}]*)\}")
_GROUPED: Final = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")


def each_target(*, is_sql: bool) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every query of every board: where it stands, its panel, and itself."""
    for board in BOARDS:
        for panel in board.to_json()["panels"]:
            for target in panel["targets"]:
                if ("rawSql" in target) == is_sql:
                    yield f"{board.name}: {panel['title']}: {target['refId']}", panel, target


def names_in(expr: str) -> tuple[set[str], set[str]]:
    """Metrics and labels that an expression names.

    Args:
        expr: PromQL, filled in.

    Returns:
        Both.
    """
    plain = re.sub(r"#.*", "", expr)
    labels = {
        name
        for inside in _LABELS.findall(plain)
        for name in re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", re.sub(r'"[^"]*"', '""', inside))
    }
    labels |= {
        name.strip()
        for inside in _GROUPED.findall(plain)
        for name in inside.split(",")
        if name.strip()
    }
    rest = _GROUPED.sub("", _LABELS.sub("", re.sub(r'"[^"]*"', '""', plain)))
    rest = re.sub(r"\[[^\]]*\]|\boffset \w+", "", rest)
    metrics = set(re.findall(r"\b[a-z_][a-z0-9_]*(?::[a-z0-9_]+)*\b", rest)) - _WORDS
    return metrics, labels
