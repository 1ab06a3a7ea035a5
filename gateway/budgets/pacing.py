"""How far spending has run ahead of its window, for budgets that slow calls down. Pure.

Must never ask for more patience than the budget states.
"""

from datetime import datetime

from gateway.budgets.counters import UNIT_INDEX, Counter
from gateway.budgets.rules import Unit

_REQUESTS = UNIT_INDEX[Unit.REQUESTS]


def seconds_ahead(counter: Counter, at: datetime, waited_s: float) -> float:
    """Tell how long a call is to wait so that spending keeps in step with a window.

    In step means: of the limit no larger share is spent than of the window has passed. Money and
    tokens count once they are settled, because what is held is the most a call can come to;
    requests count from their beginning.

    Args:
        counter: Of the window that holds.
        at: Now; aware.
        waited_s: How long the call has waited already.

    Returns:
        Seconds until spending is in step, as far as the budget's own limit of the delay allows; 0
        or less where the call may go on.
    """
    patience_s = counter.account.budget.actions.throttle_s
    if not patience_s:
        return 0
    window = counter.window
    if window.end is None:
        return 0
    used = counter.spent + counter.held if counter.unit == _REQUESTS else counter.spent
    length_s = (window.end - window.start).total_seconds()
    passed_s = (at - window.start).total_seconds()
    due_s = length_s * used / counter.limit if counter.limit else length_s
    return min(min(due_s, length_s) - passed_s, patience_s - waited_s)
