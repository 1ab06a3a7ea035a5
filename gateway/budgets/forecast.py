"""When a budget will be used up if spending goes on as it has in this window. Pure.

Must never round towards spending less: a rate is rounded up, an instant down.
"""

from datetime import datetime, timedelta
from typing import Final

from gateway.budgets.rules import BudgetStatus
from gateway.budgets.windows import RollingWindow
from gateway.clock import EPOCH, epoch_us, from_epoch_us

_DAY_US: Final = 86_400_000_000
_DAY_S: Final = 86_400
_SHORT: Final = frozenset({"minute", "hour"})
_LAST_US: Final = 253_402_300_799_999_999  # the last microsecond of the year 9999


def forecast_exhaustion(status: BudgetStatus, at: datetime) -> datetime | None:
    """Tell when a budget will be used up, on a straight line through what was spent so far.

    The line runs from the first instant the window counts to ``at``; it knows nothing of nights or
    weekends, and says little in the first moments of a window. What open calls hold is not spent.

    Args:
        status: The budget in the window of ``at``.
        at: Now.

    Returns:
        The instant the limit is reached, never before ``at``: that is ``at`` itself once it is.
        ``None`` when the window ends first, when nothing was spent, when nobody knows since when
        a window without an end has been counting, and for a rolling window with anything left: at
        a steady rate it forgets as much as it counts.
    """
    left = status.limit - status.spent
    if left <= 0:
        return at
    elapsed = _elapsed_us(status, at)
    if isinstance(status.budget.window, RollingWindow) or not elapsed or status.spent <= 0:
        return None
    reached_us = epoch_us(at) + elapsed * left // status.spent
    last_us = _LAST_US if status.window.end is None else epoch_us(status.window.end) - 1
    return from_epoch_us(reached_us) if reached_us <= last_us else None


def burn_per_day(status: BudgetStatus, at: datetime) -> int | None:
    """Tell how much 24 hours cost at the rate of this window so far.

    Args:
        status: The budget in the window of ``at``.
        at: Now.

    Returns:
        In the budget's unit, rounded up; ``None`` when nobody knows since when it has counted, and
        for windows shorter than a day: a minute says nothing about one.
    """
    elapsed = _elapsed_us(status, at)
    if is_short(status) or not elapsed:
        return None
    return -(-status.spent * _DAY_US // elapsed)


def burn_per_window(status: BudgetStatus, at: datetime) -> int | None:
    """Tell how much the whole window comes to at its rate so far.

    Args:
        status: The budget in the window of ``at``.
        at: Now.

    Returns:
        In the budget's unit, rounded up; what is spent for a rolling window, which is always whole;
        ``None`` for a window without an end, or when nothing can have been counted yet.
    """
    if isinstance(status.budget.window, RollingWindow):
        return status.spent
    elapsed, end = _elapsed_us(status, at), status.window.end
    if end is None or not elapsed:
        return None
    length = (end - status.window.start) // timedelta(microseconds=1)
    return -(-status.spent * length // elapsed)


def is_short(status: BudgetStatus) -> bool:
    """Tell whether a window is shorter than a day.

    Args:
        status: The budget in any window.

    Returns:
        Whether its rate is told by the window and not by the day. A day of 23 hours is none, nor a
        month of which the validity of the budget leaves an hour.
    """
    rule = status.budget.window
    if isinstance(rule, RollingWindow):
        return rule.seconds < _DAY_S
    return rule.text in _SHORT


def _elapsed_us(status: BudgetStatus, at: datetime) -> int | None:
    """How long the window has been counting; ``None`` when not known or not at all."""
    since = status.since
    if since is None:
        if status.window.start == EPOCH:
            return None
        since = status.window.start
    elapsed = (at - since) // timedelta(microseconds=1)
    return elapsed if elapsed > 0 else None
