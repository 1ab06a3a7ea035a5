"""Budgets as gauges: limit, counters, window and what they are for.

Must never label by key, user or tag: a scope may name those, a metric does not.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from gateway.budgets.rules import BudgetStatus, Unit
from gateway.budgets.windows import RollingWindow
from gateway.clock import EPOCH
from gateway.exposition import Labels, MetricFamily, gauge
from pricing.money import PICO_PER_UNIT

_NAMES: Final = ("budget", "unit")
_SCOPES: Final = ("team", "project", "provider", "model")


def read_budgets(statuses: Iterable[BudgetStatus]) -> Iterator[MetricFamily]:
    """Describe every budget.

    Args:
        statuses: Of now.

    Yields:
        One family per metric name.
    """
    known = tuple(statuses)
    yield gauge(
        "llm_budget_limit", "Limit of the window.", _NAMES, _amounts((s, s.limit) for s in known)
    )
    yield gauge(
        "llm_budget_spent", "Spent in the window.", _NAMES, _amounts((s, s.spent) for s in known)
    )
    yield gauge(
        "llm_budget_reserved", "Held by open calls.", _NAMES, _amounts((s, s.held) for s in known)
    )
    yield gauge(
        "llm_budget_parked",
        "Part of what was spent whose true amount is not known.",
        _NAMES,
        _amounts((s, s.parked) for s in known),
    )
    bounded = [s for s in known if _is_calendar(s)]
    yield gauge(
        "llm_budget_window_start_timestamp_seconds",
        "When the window began.",
        _NAMES,
        [(_labels(s), s.window.start.timestamp()) for s in bounded],
    )
    yield gauge(
        "llm_budget_window_end_timestamp_seconds",
        "When the window ends.",
        _NAMES,
        [(_labels(s), s.window.end.timestamp()) for s in bounded if s.window.end],
    )
    yield gauge(
        "llm_budget_info",
        "What a budget is for.",
        (*_NAMES, "window", "mode", *_SCOPES),
        [(_described(s), 1) for s in known],
    )


def _is_calendar(status: BudgetStatus) -> bool:
    """Whether the window has a beginning and an end that stand still."""
    window = status.window
    is_rolling = isinstance(status.budget.window, RollingWindow)
    return not is_rolling and window.end is not None and window.start != EPOCH


def _amounts(rows: Iterable[tuple[BudgetStatus, int]]) -> Iterator[tuple[Labels, float]]:
    for status, amount in rows:
        scale = PICO_PER_UNIT if status.budget.unit is Unit.USD else 1
        yield _labels(status), amount / scale


def _labels(status: BudgetStatus) -> Labels:
    return status.budget.id, status.budget.unit.value


def _described(status: BudgetStatus) -> Labels:
    budget = status.budget
    scope = (budget.scope.get(name, "") for name in _SCOPES)
    return (*_labels(status), budget.window.text, budget.mode.value, *scope)
