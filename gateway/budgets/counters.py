"""The counters behind budgets: what is spent, held and parked, window by window. Pure state.

Must never decide whether a call may go on, nor ask for the time.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from msgspec.structs import replace

from gateway.budgets.allowance import topped_up
from gateway.budgets.lumps import Lump, last_of
from gateway.budgets.rules import (
    Budget,
    BudgetStatus,
    Mode,
    Unit,
    is_rate_budget,
    window_of,
)
from gateway.budgets.share import CLOSED, Share
from gateway.budgets.windows import BudgetWindow, RollingWindow
from gateway.clock import EPOCH

# Where a unit stands in a tuple of amounts, one per unit.
UNIT_INDEX: Final = {Unit.USD: 0, Unit.TOKENS: 1, Unit.REQUESTS: 2}

# Counters a budget keeps when no call holds anything in them. The clock may step back this many
# windows before a count is lost; one per budget would do if clocks never did.
WINDOWS_KEPT: Final = 16
# A rolling window forgets in steps of this part of its length: late, never early. So its memory
# has a bound however many calls it sees, and a call alone in its step ages out to the microsecond.
ROLLING_STEPS: Final = 256
# Aged-out steps kept for a clock that steps back, before the older half is dropped.
_AGED_KEPT: Final = 4 * ROLLING_STEPS

_TICK: Final = timedelta(microseconds=1)


class Counter(ABC):
    """What one budget counts in one window.

    Attributes:
        account: The budget's account.
        limit: Largest amount in this window, with what was topped up and rolled over.
        ceiling: How far it may be filled without asking anybody; the limit, where nobody shares it.
        topped_up: The part of ``limit`` that was added to this window alone.
        carried: The part of ``limit`` that the window before left.
        unit: Place of the budget's unit in a tuple of amounts.
        spent: Settled plus parked.
        held: Held by open calls.
        parked: The part of ``spent`` whose true amount is not known.
        share: What this process has of it; ``None`` where nobody shares it.
    """

    __slots__ = (
        "account",
        "carried",
        "ceiling",
        "held",
        "limit",
        "parked",
        "share",
        "spent",
        "topped_up",
        "unit",
    )

    def __init__(self, account: "Account") -> None:
        self.account = account
        self.share: Share | None = None
        self.limit: int = account.budget.limit
        self.topped_up = self.carried = 0
        self.set_limit(account.budget.limit)
        self.unit = UNIT_INDEX[account.budget.unit]
        self.spent = 0
        self.held = 0
        self.parked = 0

    @property
    @abstractmethod
    def window(self) -> BudgetWindow:
        """The window counted."""
        ...

    @abstractmethod
    def post(self, at: datetime, amount: int, parked: int) -> None:
        """Count an amount as spent.

        Args:
            at: When the call that spent it was admitted.
            amount: In the budget's unit.
            parked: The part of it whose true amount is not known.
        """
        ...

    @abstractmethod
    def room_at(self, asked: int) -> datetime | None:
        """Find when an amount would fit if nothing else came.

        Args:
            asked: An amount that does not fit now.

        Returns:
            The first such instant; ``None`` when there is none, or when it rests on open calls.
        """
        ...

    @property
    def since(self) -> datetime | None:
        """First instant counted, where the window's start does not tell it."""
        return None

    def set_limit(self, limit: int) -> None:
        """Give the window another limit; the only place where limits of windows change.

        Args:
            limit: Largest amount in this window, in all.
        """
        share = self.share
        if share is None:
            self.ceiling = limit
        elif limit < self.limit:
            # What was agreed under a higher limit may be too much now: only what is used stays.
            share.claim = min(share.claim, self.spent + self.held - share.spent - share.held)
            self.ceiling = min(self.ceiling, self.spent + self.held)
        elif limit > self.limit:
            share.full_until_s = 0.0
        self.limit = limit

    def refresh(self) -> None:
        """Read the limit of the window anew from the budget as installed last."""
        budget = self.account.budget
        self.topped_up = topped_up(budget, self.window) if budget.top_ups else 0
        self.set_limit(budget.limit + self.topped_up + self.carried)

    def settle(self, at: datetime, held: int, actual: int | None) -> None:
        """Turn a hold into what was spent.

        Args:
            at: When the hold was taken.
            held: What it held here.
            actual: What was spent; ``None`` parks the held amount.
        """
        self.held -= held
        if actual is None:
            self.post(at, held, held)
        else:
            self.post(at, actual, 0)

    def status(self) -> BudgetStatus:
        """Read the counter as it stands."""
        return BudgetStatus(
            budget=self.account.budget,
            window=self.window,
            spent=self.spent,
            held=self.held,
            parked=self.parked,
            limit=self.limit,
            topped_up=self.topped_up,
            rolled_over=self.carried,
            since=self.since,
        )


class CalendarCounter(Counter):
    """A counter that starts anew with each window; every window has its own.

    Attributes are those of ``Counter``; ``window`` is fixed.
    """

    __slots__ = ("_window",)

    def __init__(self, account: "Account", window: BudgetWindow) -> None:
        super().__init__(account)
        self._window = window
        if account.budget.top_ups:
            self.refresh()

    @property
    def window(self) -> BudgetWindow:
        """The window counted."""
        return self._window

    def post(self, at: datetime, amount: int, parked: int) -> None:
        """Count an amount as spent; see ``Counter.post``."""
        self.spent += amount
        self.parked += parked

    def room_at(self, asked: int) -> datetime | None:
        """Find when an amount would fit: in the next window, or never; see ``Counter.room_at``."""
        end, budget = self._window.end, self.account.budget
        # After its last window the budget limits nothing; the next one has no part in what was
        # topped up in this one.
        if end is None or end == budget.valid_to:
            return end
        following = budget.limit + topped_up(budget, window_of(budget, end))
        return end if asked <= following else None


class EndlessCounter(CalendarCounter):
    """A counter of a window that began before there were calls.

    Attributes are those of ``CalendarCounter``.
    """

    __slots__ = ("_since",)

    def __init__(self, account: "Account", window: BudgetWindow) -> None:
        super().__init__(account, window)
        self._since: datetime | None = None

    @property
    def since(self) -> datetime | None:
        """When the first call counted was admitted; ``None`` where nobody knows."""
        return self._since

    def post(self, at: datetime, amount: int, parked: int) -> None:
        """Count an amount as spent; see ``Counter.post``."""
        super().post(at, amount, parked)
        # The start of all time is where corrections of calls of unknown times are counted.
        if at > EPOCH and (self._since is None or at < self._since):
            self._since = at


class RollingCounter(Counter):
    """A counter that forgets each amount a fixed time after it was posted.

    Attributes are those of ``Counter``, as of the last ``advance``.
    """

    # _lumps is in order of time and none overlap; those before _live have aged out at _cut.
    __slots__ = ("_cut", "_live", "_lumps", "_span", "_step")

    def __init__(self, account: "Account", rule: RollingWindow, at: datetime) -> None:
        super().__init__(account)
        self._span = timedelta(seconds=rule.seconds)
        self._step = self._span / ROLLING_STEPS
        self._lumps: list[Lump] = []
        self._live = 0
        self._cut = at.astimezone(UTC) - self._span

    @property
    def window(self) -> BudgetWindow:
        """The span that ended with the last ``advance``, from when the budget was in force."""
        start, first = self._cut + _TICK, self.account.budget.valid_from
        end = start + self._span
        return BudgetWindow(start if first is None or start > first else first, end)

    @property
    def size(self) -> int:
        """Number of steps kept; bounded."""
        return len(self._lumps)

    def advance(self, at: datetime) -> None:
        """Let go of what has aged out at an instant, or take it back when the clock stepped back.

        Args:
            at: Aware instant.
        """
        self._cut = cut = at.astimezone(UTC) - self._span
        lumps, live = self._lumps, self._live
        while live < len(lumps) and lumps[live].last <= cut:
            self._count(lumps[live], -1)
            live += 1
        while live and lumps[live - 1].last > cut:
            live -= 1
            self._count(lumps[live], 1)
        if live > _AGED_KEPT:
            del lumps[: _AGED_KEPT // 2]
            live -= _AGED_KEPT // 2
        self._live = live

    def _count(self, lump: Lump, sign: int) -> None:
        self.spent += sign * lump.amount
        self.parked += sign * lump.parked

    def post(self, at: datetime, amount: int, parked: int) -> None:
        """Count an amount as spent from an instant on; see ``Counter.post``."""
        lump = self._lump_for(at.astimezone(UTC))
        lump.amount += amount
        lump.parked += parked
        if lump.last > self._cut:
            self.spent += amount
            self.parked += parked

    def _lump_for(self, at: datetime) -> Lump:
        # Calls settle in another order than they came, so this need not be the newest lump. Two
        # neighbours together always span more than a step, which bounds their number.
        lumps = self._lumps
        place = bisect_left(lumps, at, key=last_of)
        if place < len(lumps) and lumps[place].last - at < self._step:
            lumps[place].first = min(lumps[place].first, at)
            return lumps[place]
        if place > self._live and at - lumps[place - 1].first < self._step:
            lumps[place - 1].last = at
            return lumps[place - 1]
        lumps.insert(place, Lump(at, 0, 0))
        self._live += at <= self._cut
        return lumps[place]

    def room_at(self, asked: int) -> datetime | None:
        """Find when enough will have aged out; see ``Counter.room_at``."""
        missing = self.spent + self.held + asked - self.limit
        last = self.account.budget.valid_to
        for lump in self._lumps[self._live :]:
            missing -= lump.amount
            if missing <= 0:
                room = lump.last + self._span
                return room if last is None or room < last else last
        return last

    def fresh_at(self, at: datetime) -> datetime:
        """Find when everything counted now will have aged out, if open calls end now.

        Args:
            at: Aware instant.

        Returns:
            That instant; ``at`` itself where nothing is counted.
        """
        if self.held:
            return at + self._span
        newest = self._lumps[-1].last + self._span if self._lumps else at
        return max(at, newest)

    def spent_at(self, at: datetime) -> tuple[int, int]:
        """Read the counter as of an instant without moving it.

        Args:
            at: Aware instant.

        Returns:
            Spent and the parked part of it.
        """
        cut = at.astimezone(UTC) - self._span
        live = [lump for lump in tuple(self._lumps) if lump.last > cut]
        spent, parked = (self.share.spent, self.share.parked) if self.share else (0, 0)
        return (
            spent + sum(lump.amount for lump in live),
            parked + sum(lump.parked for lump in live),
        )


AnyCounter = TypeVar("AnyCounter", bound=Counter)


class Account(ABC):
    """One installed budget and its counters, whatever its kind of window.

    Attributes:
        budget: The budget as installed last.
        is_hard: Whether it refuses.
        is_rate: Whether it is a rate limit, of which answers tell.
        is_told: Whether answers to its calls tell of it in headers of their own.
        rank: Its place among the installed budgets.
        opened_at: Since when it counts.
        share_of: Makes the share of a new counter; ``None`` where nobody shares the budget.
    """

    __slots__ = ("budget", "is_hard", "is_rate", "is_told", "opened_at", "rank", "share_of")

    def __init__(self, budget: Budget, opened_at: datetime, share_of: "ShareOf | None") -> None:
        self.opened_at = opened_at
        self.share_of = share_of
        self.adopt(budget, 0)

    def adopt(self, budget: Budget, rank: int) -> None:
        """Go on counting under another limit, mode or place.

        Args:
            budget: Same scope, unit and window as before.
            rank: Its place among the installed budgets.
        """
        self.budget = budget
        self.is_hard = budget.mode is Mode.HARD
        self.is_rate = is_rate_budget(budget)
        self.is_told = self.is_rate or budget.actions.warns
        self.rank = rank
        for counter in self.counters():
            counter.refresh()

    def begin(self, counter: AnyCounter) -> AnyCounter:
        """Make a new counter ready.

        Args:
            counter: Nothing is in it.

        Returns:
            The same one; where others share it, nothing fits before they have agreed.
        """
        if self.share_of is not None:
            counter.share = self.share_of(self, counter)
            counter.ceiling = CLOSED
        return counter

    def add_base(self, at: datetime, amount: int, parked: int) -> None:
        """Count what was spent before the account was opened.

        Args:
            at: An instant of the window; for a rolling window, when it was spent.
            amount: In the budget's unit.
            parked: The part of it whose true amount is not known.
        """
        self.counter_at(at).post(at, amount, parked)

    @abstractmethod
    def counters(self) -> Iterable[Counter]:
        """Give every counter there is."""
        ...

    @abstractmethod
    def counter_at(self, at: datetime) -> Counter:
        """Give the counter that an instant falls in, ready to use.

        Args:
            at: Aware instant.

        Returns:
            The counter.
        """
        ...

    @abstractmethod
    def prune(self) -> bool:
        """Drop counters long out of use; tell whether any was."""
        ...

    @abstractmethod
    def status(self, at: datetime) -> BudgetStatus:
        """Read the counters as of an instant without changing anything.

        Args:
            at: Aware instant.

        Returns:
            The budget's status.
        """
        ...


# Makes the share of a counter that has just been opened.
ShareOf = Callable[[Account, Counter], Share]


class CalendarAccount(Account):
    """A budget whose counter starts anew with each window.

    Attributes are those of ``Account``.
    """

    __slots__ = ("_counters",)

    def __init__(
        self, budget: Budget, opened_at: datetime, share_of: "ShareOf | None" = None
    ) -> None:
        # By start of window, least recently used first.
        self._counters: dict[datetime, CalendarCounter] = {}
        super().__init__(budget, opened_at, share_of)

    def counters(self) -> Iterable[CalendarCounter]:
        """Give the counter of every window kept."""
        return self._counters.values()

    def counter_at(self, at: datetime) -> CalendarCounter:
        """Give the counter of the window an instant falls in; opens it at need.

        Args:
            at: Aware instant.

        Returns:
            The window's counter.
        """
        window = window_of(self.budget, at)
        counter = self._counters.pop(window.start, None) or self._open(window)
        self._counters[window.start] = counter
        return counter

    def _open(self, window: BudgetWindow) -> CalendarCounter:
        return self.begin(_calendar_counter(self, window))

    def prune(self) -> bool:
        """Drop idle counters beyond ``WINDOWS_KEPT``, least recently used first.

        Returns:
            Whether any was dropped.
        """
        if len(self._counters) <= WINDOWS_KEPT:
            return False
        old = list(self._counters.items())[:-WINDOWS_KEPT]
        idle = [start for start, counter in old if not counter.held]
        for start in idle:
            del self._counters[start]
        return bool(idle)

    def status(self, at: datetime) -> BudgetStatus:
        """Read the window an instant falls in without opening it.

        Args:
            at: Aware instant.

        Returns:
            Zero counts for a window nobody has used.
        """
        window = window_of(self.budget, at)
        counter = self._counters.get(window.start) or self._look_into(window)
        return replace(counter.status(), is_in_force=self.budget.is_in_force(at))

    def _look_into(self, window: BudgetWindow) -> CalendarCounter:
        """Make a counter for a window nobody has used, for a look at it."""
        return _calendar_counter(self, window)


def _calendar_counter(account: Account, window: BudgetWindow) -> CalendarCounter:
    kind = EndlessCounter if window.start == EPOCH else CalendarCounter
    return kind(account, window)


class RollingAccount(Account):
    """A budget over the last so many seconds.

    Attributes are those of ``Account``, and:

    Attributes:
        counter: The only counter.
    """

    __slots__ = ("counter",)

    def __init__(
        self,
        budget: Budget,
        rule: RollingWindow,
        at: datetime,
        share_of: "ShareOf | None" = None,
    ) -> None:
        self.budget = budget
        self.counter = RollingCounter(self, rule, at)
        super().__init__(budget, at, share_of)
        self.begin(self.counter)

    def counters(self) -> Iterable[RollingCounter]:
        """Give the only counter."""
        return (self.counter,)

    def counter_at(self, at: datetime) -> RollingCounter:
        """Give the counter, moved to an instant.

        Args:
            at: Aware instant.

        Returns:
            The only counter.
        """
        self.counter.advance(at)
        return self.counter

    def add_base(self, at: datetime, amount: int, parked: int) -> None:
        """Count what was spent before, without moving the counter; see ``Account.add_base``."""
        self.counter.post(at, amount, parked)

    def prune(self) -> bool:
        """Nothing to drop: the counter bounds itself."""
        return False

    def status(self, at: datetime) -> BudgetStatus:
        """Read the counter as of an instant without moving it.

        Args:
            at: Aware instant.

        Returns:
            The budget's status.
        """
        spent, parked = self.counter.spent_at(at)
        return BudgetStatus(
            budget=self.budget,
            window=window_of(self.budget, at),
            spent=spent,
            held=self.counter.held,
            parked=parked,
            limit=self.counter.limit,
            is_in_force=self.budget.is_in_force(at),
        )
