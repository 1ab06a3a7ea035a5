"""Counters whose windows take over what the one before left. Pure state.

Must never let the same money be spent in two windows: what a window has taken over and used, the
window before can no longer give to a call that comes late.
"""

from datetime import datetime

from gateway.budgets.allowance import rolled_over, window_before
from gateway.budgets.counters import Account, CalendarAccount, CalendarCounter
from gateway.budgets.rules import Budget, window_of
from gateway.budgets.windows import BudgetWindow


class CarryingCounter(CalendarCounter):
    """A counter that takes over what the window before left, and hands on what it leaves.

    Late ends of calls, corrections, top-ups and a clock that steps back change what the window
    before left, so every change of an amount is told to the neighbours.

    Attributes are those of ``CalendarCounter``, and:

    Attributes:
        earlier: The window before; ``None`` where nothing is known of it or there is none.
        later: The window after, once it was opened.
    """

    __slots__ = ("_held", "_spent", "earlier", "later")

    def __init__(
        self, account: Account, window: BudgetWindow, earlier: "CarryingCounter | None"
    ) -> None:
        self.earlier = earlier
        self.later: CarryingCounter | None = None
        self._spent = self._held = 0
        super().__init__(account, window)
        self.refresh()

    @property
    def spent(self) -> int:
        """Settled plus parked."""
        return self._spent

    @spent.setter
    def spent(self, amount: int) -> None:
        """Count another amount as spent.

        Args:
            amount: In the budget's unit.
        """
        self._spent = amount
        self._tell()

    @property
    def held(self) -> int:
        """Held by open calls."""
        return self._held

    @held.setter
    def held(self, amount: int) -> None:
        """Hold another amount.

        Args:
            amount: In the budget's unit.
        """
        self._held = amount
        self._tell()

    @property
    def own(self) -> int:
        """The part of the limit that was not taken over."""
        return self.account.budget.limit + self.topped_up

    @property
    def left(self) -> int:
        """What the next window may take over at most; negative when more was used."""
        return self.own - self._spent - self._held

    def refresh(self) -> None:
        """Read the limit of the window anew, and what is taken over; see ``Counter.refresh``."""
        self._take_over()
        super().refresh()
        self._tell()

    def _take_over(self) -> None:
        if self.earlier is not None:
            self.carried = rolled_over(self.account.budget, self.earlier.left)

    def _tell(self) -> None:
        later, earlier = self.later, self.earlier
        if later is not None:
            before = later.carried
            later._take_over()
            if later.carried != before:
                later.set_limit(later.own + later.carried)
                if later.later is not None:
                    later._keep_for(later.later)
            self._keep_for(later)
        if earlier is not None and earlier.later is self:
            earlier._keep_for(self)

    def _keep_for(self, later: "CarryingCounter") -> None:
        """Leave what the next window has used of what it took over."""
        used = later.spent + later.held - later.own
        self.ceiling = self.limit if used <= 0 else min(self.limit, self.own - used)


class CarryingAccount(CalendarAccount):
    """A budget whose windows take over what the one before left.

    Attributes are those of ``Account``.
    """

    __slots__ = ("_known_from",)

    def __init__(self, budget: Budget, at: datetime) -> None:
        """Open the account.

        Args:
            budget: One that rolls over.
            at: Now: of windows before the last one nothing will be known.
        """
        now = window_of(budget, at)
        self._known_from = (window_before(budget, now) or now).start
        super().__init__(budget, at)

    def _open(self, window: BudgetWindow) -> CarryingCounter:
        earlier = self._earlier(window)
        if earlier is not None:
            self._counters.setdefault(earlier.window.start, earlier)
        counter = CarryingCounter(self, window, earlier)
        if earlier is not None:
            earlier.later = counter
            counter.refresh()
        return counter

    def _look_into(self, window: BudgetWindow) -> CarryingCounter:
        return CarryingCounter(self, window, self._earlier(window))

    def _earlier(self, window: BudgetWindow) -> CarryingCounter | None:
        """Find the window before, if what was spent in it is known."""
        before = window_before(self.budget, window)
        if before is None or before.start < self._known_from:
            return None
        found = self._counters.get(before.start)
        # Nobody has called in a window that is known and has no counter: all of it is left.
        return found if isinstance(found, CarryingCounter) else CarryingCounter(self, before, None)

    def prune(self) -> bool:
        """Drop idle counters, and let their neighbours go; see ``CalendarAccount.prune``."""
        kept = dict(self._counters)
        if not super().prune():
            return False
        for start in kept.keys() - self._counters.keys():
            counter = kept[start]
            if isinstance(counter, CarryingCounter):
                self._forget(counter)
        return True

    def _forget(self, counter: CarryingCounter) -> None:
        # What the next window has taken over stays as it is.
        if counter.later is not None:
            counter.later.earlier = None
        if counter.earlier is not None:
            counter.earlier.later = None
        end = counter.window.end
        if end is not None and end > self._known_from:
            self._known_from = end
