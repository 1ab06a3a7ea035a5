"""What a window may spend beside the limit: what was topped up, and what the one before left. Pure.

Must never make money: what one window takes over, the window before has not spent.
"""

from datetime import timedelta
from typing import Final

from gateway.budgets.rules import Budget, window_of
from gateway.budgets.windows import BudgetWindow, RollingWindow

_TICK: Final = timedelta(microseconds=1)


def window_before(budget: Budget, window: BudgetWindow) -> BudgetWindow | None:
    """Find the window that one takes over from.

    Args:
        budget: Any budget.
        window: One of its windows.

    Returns:
        The window before; ``None`` for the first, and where nothing is rolled over.
    """
    if budget.rollover_max is None or window.start == budget.valid_from:
        return None
    return window_of(budget, window.start - _TICK)


def topped_up(budget: Budget, window: BudgetWindow) -> int:
    """Add up what was added to one window.

    Args:
        budget: Any budget.
        window: One of its windows.

    Returns:
        In the budget's unit; nothing for a rolling window, which is another one all the time.
    """
    if isinstance(budget.window, RollingWindow):
        return 0
    return sum(
        one.amount
        for one in budget.top_ups
        if window.start <= one.at and (window.end is None or one.at < window.end)
    )


def rolled_over(budget: Budget, left: int) -> int:
    """Tell what a window takes over.

    Args:
        budget: Any budget.
        left: Limit and top-ups of the window before, less what was spent and is held in it. What
            that one took over itself is not handed on.

    Returns:
        Never less than nothing, nor more than the cap.
    """
    return max(0, min(left, budget.rollover_max or 0))
