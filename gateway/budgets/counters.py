"""The counters behind budgets: what is spent, held and parked, window by window. Pure state.

Must never decide whether a call may go on, nor ask for the time.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Final

from gateway.budgets.rules import Budget, BudgetStatus, Mode, Subject, Unit
from gateway.budgets.windows import BudgetWindow, RollingWindow

# Where a unit stands in a tuple of amounts, one per unit.
UNIT_INDEX: Final = {Unit.USD: 0, Unit.TOKENS: 1, Unit.REQUESTS: 2}
Amounts = tuple[int, int, int]

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
        unit: Place of the budget's unit in a tuple of amounts.
        spent: Settled plus parked.
        held: Held by open calls.
        parked: The part of ``spent`` whose true amount is not known.
    """

    __slots__ = ("account", "held", "parked", "spent", "unit")

    def __init__(self, account: "Account") -> None:
        self.account = account
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
        )


class CalendarCounter(Counter):
    """A counter that starts anew with each window; every window has its own.

    Attributes are those of ``Counter``; ``window`` is fixed.
    """

    __slots__ = ("_window",)

    def __init__(self, account: "Account", window: BudgetWindow) -> None:
        super().__init__(account)
        self._window = window

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
        return self._window.end if asked <= self.account.limit else None


class _Lump:
    """Amounts posted so close together that they age out as one.

    Attributes:
        first: Instant of the oldest.
        last: Instant of the newest; the lump ages out with it.
        amount: Their sum.
        parked: The parked part of it.
    """

    __slots__ = ("amount", "first", "last", "parked")

    def __init__(self, at: datetime, amount: int, parked: int) -> None:
        self.first = at
        self.last = at
        self.amount = amount
        self.parked = parked


_last_of: Final = attrgetter("last")


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
        self._lumps: list[_Lump] = []
        self._live = 0
        self._cut = at.astimezone(UTC) - self._span

    @property
    def window(self) -> BudgetWindow:
        """The span that ended with the last ``advance``."""
        return BudgetWindow(self._cut + _TICK, self._cut + self._span + _TICK)

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

    def _count(self, lump: _Lump, sign: int) -> None:
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

    def _lump_for(self, at: datetime) -> _Lump:
        # Calls settle in another order than they came, so this need not be the newest lump. Two
        # neighbours together always span more than a step, which bounds their number.
        lumps = self._lumps
        place = bisect_left(lumps, at, key=_last_of)
        if place < len(lumps) and lumps[place].last - at < self._step:
            lumps[place].first = min(lumps[place].first, at)
            return lumps[place]
        if place > self._live and at - lumps[place - 1].first < self._step:
            lumps[place - 1].last = at
            return lumps[place - 1]
        lumps.insert(place, _Lump(at, 0, 0))
        self._live += at <= self._cut
        return lumps[place]

    def room_at(self, asked: int) -> datetime | None:
        """Find when enough will have aged out; see ``Counter.room_at``."""
        missing = self.spent + self.held + asked - self.account.limit
        for lump in self._lumps[self._live :]:
            missing -= lump.amount
            if missing <= 0:
                return lump.last + self._span
        return None

    def spent_at(self, at: datetime) -> tuple[int, int]:
        """Read the counter as of an instant without moving it.

        Args:
            at: Aware instant.

        Returns:
            Spent and the parked part of it.
        """
        cut = at.astimezone(UTC) - self._span
        live = [lump for lump in tuple(self._lumps) if lump.last > cut]
        return sum(lump.amount for lump in live), sum(lump.parked for lump in live)


class Account(ABC):
    """One installed budget and its counters, whatever its kind of window.

    Attributes:
        budget: The budget as installed last.
        limit: Its limit, at hand for the check of every call.
        is_hard: Whether it refuses.
        rank: Its place among the installed budgets.
    """

    __slots__ = ("budget", "is_hard", "limit", "rank")

    def __init__(self, budget: Budget) -> None:
        self.adopt(budget, 0)

    def adopt(self, budget: Budget, rank: int) -> None:
        """Go on counting under another limit, mode or place.

        Args:
            budget: Same scope, unit and window as before.
            rank: Its place among the installed budgets.
        """
        self.budget = budget
        self.limit = budget.limit
        self.is_hard = budget.mode is Mode.HARD
        self.rank = rank

    def add_base(self, at: datetime, amount: int, parked: int) -> None:
        """Count what was spent before the account was opened.

        Args:
            at: An instant of the window; for a rolling window, when it was spent.
            amount: In the budget's unit.
            parked: The part of it whose true amount is not known.
        """
        self.counter_at(at).post(at, amount, parked)

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


class CalendarAccount(Account):
    """A budget whose counter starts anew with each window.

    Attributes are those of ``Account``.
    """

    __slots__ = ("_counters",)

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        # By start of window, least recently used first.
        self._counters: dict[datetime, CalendarCounter] = {}

    def counter_at(self, at: datetime) -> CalendarCounter:
        """Give the counter of the window an instant falls in; opens it at need.

        Args:
            at: Aware instant.

        Returns:
            The window's counter.
        """
        window = self.budget.window.window_at(at)
        counter = self._counters.pop(window.start, None) or CalendarCounter(self, window)
        self._counters[window.start] = counter
        return counter

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
        window = self.budget.window.window_at(at)
        counter = self._counters.get(window.start)
        return (counter or CalendarCounter(self, window)).status()


class RollingAccount(Account):
    """A budget over the last so many seconds.

    Attributes are those of ``Account``, and:

    Attributes:
        counter: The only counter.
    """

    __slots__ = ("counter",)

    def __init__(self, budget: Budget, rule: RollingWindow, at: datetime) -> None:
        super().__init__(budget)
        self.counter = RollingCounter(self, rule, at)

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
            window=self.budget.window.window_at(at),
            spent=spent,
            held=self.counter.held,
            parked=parked,
        )


class Hold:
    """Money, tokens and requests set aside for one call, in every budget it falls under.

    Attributes:
        id: Id of the call.
        subject: The call.
        at: When it was taken; decides the windows.
        held: What is held, one amount per unit; 0 where nothing bounded it.
        counters: Where it is held.
        is_open: Whether it has not ended yet.
    """

    __slots__ = ("at", "counters", "held", "id", "is_open", "subject")

    def __init__(
        self,
        hold_id: str,
        subject: Subject,
        at: datetime,
        held: Amounts,
        counters: tuple[Counter, ...],
    ) -> None:
        self.id = hold_id
        self.subject = subject
        self.at = at
        self.held = held
        self.counters = counters
        self.is_open = True
