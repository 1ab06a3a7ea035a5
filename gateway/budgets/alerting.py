"""When a budget has something to tell: a threshold, a forecast, refusals. Pure.

Must never send anything, remember anything or ask for the time.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from gateway.budgets.forecast import forecast_exhaustion
from gateway.budgets.rules import BudgetStatus, Mode
from gateway.budgets.windows import RollingWindow

# A straight line through the first moments of a window says nothing, nor does one through minutes.
FORECAST_PART: Final = 10
_FORECAST_WINDOW_MIN: Final = timedelta(hours=23)  # a day, with the clocks set forward
_ALL: Final = 100


class AlertKind(StrEnum):
    """What an alert is about."""

    THRESHOLD = "threshold"
    FORECAST = "forecast"
    REFUSAL = "refusal"


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing a budget tells once in a window.

    Attributes:
        kind: What it is about.
        threshold: Percentage of the limit; 0 where the kind has none.
    """

    kind: AlertKind
    threshold: int = 0


@dataclass(frozen=True, slots=True)
class DueAlert:
    """Something to record now.

    Attributes:
        mark: What it is.
        is_silent: Whether nobody is told: a higher threshold speaks for it.
    """

    mark: Mark
    is_silent: bool = False


_REFUSAL: Final = Mark(AlertKind.REFUSAL)
_FORECAST: Final = Mark(AlertKind.FORECAST)


def due_alerts(
    status: BudgetStatus,
    fired: AbstractSet[Mark],
    forecast: datetime | None,
    *,
    is_refusing: bool = False,
) -> tuple[DueAlert, ...]:
    """Decide what a budget has to tell that it has not told in this window.

    Args:
        status: The budget's counters.
        fired: What was recorded for the window of ``status``.
        forecast: When it will be used up, as ``forecast_to_tell`` says.
        is_refusing: Whether it has refused calls in this window since the last look.

    Returns:
        The highest new threshold first; lower ones that were passed in the same step, or that lie
        below one told before, are silent. Nothing while the budget is not in force.
    """
    if not status.is_in_force:
        return ()
    due = _due_thresholds(status, fired)
    refuses = _REFUSAL in fired
    if is_refusing and not refuses and status.budget.mode is Mode.HARD:
        due.append(DueAlert(_REFUSAL))
        refuses = True
    # What is used up already, or refused, needs no forecast.
    is_foreseen = forecast is not None and status.spent < status.limit
    if is_foreseen and not refuses and _FORECAST not in fired:
        due.append(DueAlert(_FORECAST))
    return tuple(due)


def _due_thresholds(status: BudgetStatus, fired: AbstractSet[Mark]) -> list[DueAlert]:
    thresholds = set(status.budget.thresholds)
    if status.budget.mode is Mode.SOFT:
        # A soft budget does not refuse, so it says at least that it is used up.
        thresholds.add(_ALL)
    told = max((m.threshold for m in fired if m.kind is AlertKind.THRESHOLD), default=0)
    due: list[DueAlert] = []
    for threshold in sorted(thresholds, reverse=True):
        mark = Mark(AlertKind.THRESHOLD, threshold)
        if mark not in fired and _reaches(status, threshold):
            due.append(DueAlert(mark, is_silent=bool(due) or threshold < told))
    return due


def _reaches(status: BudgetStatus, threshold: int) -> bool:
    # Without a limit there is nothing to have a percentage of.
    return status.limit > 0 and status.spent * 100 >= threshold * status.limit


def ended_marks(status: BudgetStatus, fired: AbstractSet[Mark]) -> frozenset[Mark]:
    """Find what a rolling window may tell again: what it has fallen clearly below.

    Args:
        status: The budget's counters.
        fired: What was recorded and has not ended.

    Returns:
        Thresholds with less than nine tenths of them spent, and refusals once less than nine
        tenths of the limit are spent and held. Nothing for a calendar window: it ends by itself.
    """
    if not isinstance(status.budget.window, RollingWindow):
        return frozenset()
    return frozenset(mark for mark in fired if _is_clearly_below(status, mark))


def _is_clearly_below(status: BudgetStatus, mark: Mark) -> bool:
    match mark.kind:
        case AlertKind.THRESHOLD:
            return status.spent * 1000 < mark.threshold * status.limit * 9
        case _:
            return (status.spent + status.held) * 10 < status.limit * 9


def forecast_to_tell(status: BudgetStatus, at: datetime) -> datetime | None:
    """Forecast when a budget will be used up, where that says something.

    Args:
        status: The budget in the window of ``at``.
        at: Now.

    Returns:
        The instant, before the window ends; ``None`` when it is not foreseen, for windows shorter
        than a day, rolling or without an end, before a tenth of the window was counted, and while
        the budget is not in force.
    """
    window = status.window
    if (
        window.end is None
        or not status.is_in_force
        or isinstance(status.budget.window, RollingWindow)
    ):
        return None
    length = window.end - window.start
    counted = at - max(status.since or window.start, window.start)
    if length < _FORECAST_WINDOW_MIN or counted < length / FORECAST_PART:
        return None
    return forecast_exhaustion(status, at)


def percent_of(status: BudgetStatus) -> int | None:
    """Tell how much of the limit is spent.

    Args:
        status: The budget's counters.

    Returns:
        Whole percent, rounded down; ``None`` where the limit is nothing.
    """
    return status.spent * 100 // status.limit if status.limit > 0 else None
