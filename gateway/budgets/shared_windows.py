"""Where workers agree on a budget's windows, and which of them hand on what they leave.

Must never name two counts alike: what is agreed about one would be spent in the other.
"""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from hashlib import sha256
from typing import Final

from gateway.budgets.allowance import topped_up, window_before
from gateway.budgets.counters import Account, CalendarAccount, Counter
from gateway.budgets.rules import Budget, window_of
from gateway.budgets.share import Near, Share
from gateway.budgets.shared_link import NearPart
from gateway.budgets.windows import BudgetWindow, RollingWindow
from gateway.clock import epoch_us

# Windows that began so long after the budget and the epoch hold nothing from before either, even
# where the clocks of two machines disagree.
_CALM_S: Final = 60
# So many windows back a count is kept, an hour at least: clocks step back, and calls end late.
_WINDOWS_KEPT: Final = 16
_HOUR_S: Final = 3600

# Names a window by the digest of its budget and its start, microseconds since 1970.
NameKey = Callable[[str, int], str]


def digest_of(budget: Budget) -> str:
    """Name what a budget counts: another scope, unit or window is another count.

    Args:
        budget: Any budget.

    Returns:
        Text of fixed length.
    """
    window = budget.window
    scope = sorted(budget.scope.items())
    valid = [at and epoch_us(at) for at in (budget.valid_from, budget.valid_to)]
    rule = [window.text, window.timezone, window.anchor, budget.rollover_max is not None]
    counts = [budget.id, scope, budget.unit.value, *rule, *valid]
    return sha256(json.dumps(counts).encode()).hexdigest()[:24]


def make_share(budget: Budget, window: BudgetWindow, name_key: NameKey) -> Share:
    """Make a worker's share of one window, with nothing agreed yet.

    Args:
        budget: Any budget.
        window: One of its windows.
        name_key: Names windows.

    Returns:
        The share.
    """
    digest = digest_of(budget)
    if isinstance(budget.window, RollingWindow):
        return Share(name_key(digest, 0), 0)
    key = name_key(digest, epoch_us(window.start))
    if window.end is None:
        return Share(key, 0)
    length_s = (window.end - window.start).total_seconds()
    kept_s = max(_HOUR_S, _WINDOWS_KEPT * length_s)
    share = Share(key, epoch_us(window.end) // 1000 + int(kept_s * 1000))
    if budget.rollover_max is not None:
        earlier, later = window_before(budget, window), _window_after(budget, window)
        share.near = Near(
            earlier=earlier,
            earlier_key=None if earlier is None else name_key(digest, epoch_us(earlier.start)),
            later=later,
            later_key=None if later is None else name_key(digest, epoch_us(later.start)),
        )
    return share


def near_part(counter: Counter, near: Near, born_at: datetime | None) -> NearPart:
    """Say what the windows before and after one have of their own.

    Args:
        counter: Of a budget that rolls over.
        near: The windows before and after its own.
        born_at: Since when workers agree.

    Returns:
        What to tell with the counter.
    """
    budget, account = counter.account.budget, counter.account
    earlier, later = near.earlier, near.later
    return NearPart(
        carried_max=budget.rollover_max or 0,
        earlier_key=near.earlier_key,
        earlier_limit=0 if earlier is None else budget.limit + topped_up(budget, earlier),
        is_earlier_new=earlier is not None and is_calm(account, earlier, born_at),
        later_key=near.later_key,
        later_limit=0 if later is None else budget.limit + topped_up(budget, later),
        is_later_new=later is not None and is_calm(account, later, born_at),
    )


def earlier_of(counter: Counter) -> Counter | None:
    """Find the counter of the window that one takes over from; opens it at need.

    Args:
        counter: Any counter.

    Returns:
        ``None`` where nothing is taken over.
    """
    near = counter.share.near if counter.share else None
    if near is None or near.earlier is None:
        return None
    return counter.account.counter_at(near.earlier.start)


def counters_about(account: Account, key: str) -> Iterator[Counter]:
    """List what a worker has of a window, and of those that share money with it.

    Args:
        account: Any budget.
        key: Where workers agree on the window.

    Yields:
        The window's own counter, and those of the windows before and after, as far as it has them.
    """
    for counter in tuple(account.counters()):
        share = counter.share
        if share is None:
            continue
        near = share.near
        if share.key == key or (near and key in (near.earlier_key, near.later_key)):
            yield counter


def neighbours_of(counter: Counter) -> Iterator[Counter]:
    """List the counters a worker has of the windows before and after one that rolls over.

    Args:
        counter: Any counter.

    Yields:
        Those there are.
    """
    if counter.share is None or counter.share.near is None:
        return
    for one in counters_about(counter.account, counter.share.key):
        if one is not counter:
            yield one


def is_calm(account: Account, window: BudgetWindow, born_at: datetime | None) -> bool:
    """Tell whether a window began after everything that could have counted in it unseen.

    Args:
        account: The budget's account.
        window: One of its windows.
        born_at: Since when workers agree; ``None`` where they do not.

    Returns:
        Whether the ledger need not be asked about it.
    """
    if born_at is None or not isinstance(account, CalendarAccount):
        return False
    return (window.start - max(born_at, account.opened_at)).total_seconds() > _CALM_S


def _window_after(budget: Budget, window: BudgetWindow) -> BudgetWindow | None:
    if window.end is None or window.end == budget.valid_to:
        return None
    return window_of(budget, window.end)
