"""Budgets of one process: every hold and every counter, in memory, on one event loop.

Must never suspend between looking at a counter and changing it: that is what keeps a hard budget
from being overspent without a lock.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from gateway.budgets.carrying import CarryingAccount
from gateway.budgets.counters import (
    UNIT_INDEX,
    Account,
    CalendarAccount,
    Counter,
    RollingAccount,
    RollingCounter,
    ShareOf,
)
from gateway.budgets.holds import Hold
from gateway.budgets.pacing import seconds_ahead
from gateway.budgets.rules import (
    Budget,
    BudgetExhausted,
    BudgetId,
    BudgetStatus,
    Demand,
    Subject,
    is_in_scope,
    read_part,
)
from gateway.budgets.windows import RollingWindow

_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
# Plans of callers (and of the users, models or tags that scopes name), all dropped when full.
PLANS_KEPT: Final = 8192
# Parts every plan is kept by; a scope that names another adds it to the key.
_CALLER: Final = ("organization", "team", "project", "key")
# A budget is found by the one part of its scope that fewest calls share.
_SELECTIVE: Final = ("key", "user", "project", "team")


class _Plan:
    """The counters one kind of call goes through, good for calls between two instants.

    Attributes:
        accounts: Budgets that apply, in the order installed.
        counters: Their counters.
        hard: Those of hard budgets.
        rolling: Those to move before each look.
        told: Budgets that answers tell of in headers of their own.
        start: First instant the counters are right for.
        end: First instant they are not.
        epoch: Of the store, when they were looked up.
    """

    __slots__ = ("accounts", "counters", "end", "epoch", "hard", "rolling", "start", "told")

    def __init__(self, accounts: list[Account]) -> None:
        self.accounts = accounts
        self.counters: tuple[Counter, ...] = ()
        self.hard: tuple[Counter, ...] = ()
        self.rolling: tuple[RollingCounter, ...] = ()
        self.told: tuple[Account, ...] = ()
        self.start = _LAST
        self.end = _FIRST
        self.epoch = 0


class MemoryBudgets:
    """Keeps ``gateway.budgets.protocol.BudgetStore`` for one process.

    Everything runs on one event loop and nothing suspends; ``status`` and ``open_holds`` may be
    read from another thread too, where they can be a moment apart.
    """

    # Makes the shares of counters, where a subclass shares them.
    _share_of: ShareOf | None = None

    def __init__(self) -> None:
        self._accounts: dict[BudgetId, Account] = {}
        self._open: dict[str, Hold] = {}
        self._plans: dict[tuple[str | None, ...], _Plan] = {}
        # Whether any budget slows calls down.
        self.is_pacing = False
        # Grows when a counter is dropped, so that no plan goes on using it.
        self._epoch = 0
        # Budgets by the part and value they are found by; an empty scope under ("", None).
        self._index: dict[tuple[str, str | None], list[Account]] = {}
        self._index_parts: tuple[str, ...] = ()
        self._extra_parts: tuple[str, ...] = ()

    @property
    def open_holds(self) -> int:
        """Number of holds that have not ended."""
        return len(self._open)

    async def reserve(
        self, hold_id: str, subject: Subject, demand: Demand, at: datetime
    ) -> Hold | BudgetExhausted:
        """Hold a demand in every budget that applies, or in none; never suspends.

        Args:
            hold_id: Id of the call.
            subject: The call.
            demand: The most it can come to.
            at: When it was admitted: ``started_at`` of its record.

        Returns:
            The hold, or the first hard budget that had no room.

        Raises:
            ValueError: A hold of that id is open.
        """
        return self.hold_now(hold_id, subject, demand, at)

    def hold_now(
        self, hold_id: str, subject: Subject, demand: Demand, at: datetime
    ) -> Hold | BudgetExhausted:
        """Hold a demand by what is known here, at once.

        Args:
            hold_id: Id of the call.
            subject: The call.
            demand: The most it can come to.
            at: When it was admitted.

        Returns:
            As ``reserve``.

        Raises:
            ValueError: A hold of that id is open.
        """
        if hold_id in self._open:
            raise ValueError(f"hold {hold_id!r} is open already")
        plan = self._plan(subject, at)
        cost, tokens, requests = asked = demand.cost_pico, demand.tokens, demand.requests
        for counter in plan.hard:
            amount = asked[counter.unit]
            # What adds nothing fits even where a lowered limit is exceeded already.
            if amount is None or (
                amount and counter.spent + counter.held + amount > counter.ceiling
            ):
                return refuse(counter, amount)
        held = (cost or 0, tokens or 0, requests)
        for counter in plan.counters:
            counter.held += held[counter.unit]
        hold = self._open[hold_id] = Hold(hold_id, subject, at, held, plan.counters)
        hold.told = plan.told
        hold.is_hard = bool(plan.hard)
        return hold

    def lacking(self, subject: Subject, demand: Demand, at: datetime) -> tuple[Budget, ...]:
        """List the hard budgets without room for a demand; see ``BudgetStore.lacking``."""
        found = []
        for counter in self._plan(subject, at).hard:
            amount = demand.amount(counter.account.budget.unit)
            # Where others share a counter its ceiling is what this process has claimed.
            most = counter.ceiling if counter.share is None else counter.limit
            if amount is None or (amount and counter.spent + counter.held + amount > most):
                found.append(counter.account.budget)
        return tuple(found)

    def ahead_s(self, subject: Subject, at: datetime, waited_s: float) -> float:
        """Tell how long a call is to wait; see ``BudgetStore.ahead_s``."""
        plan = self._plan(subject, at)
        return max((seconds_ahead(one, at, waited_s) for one in plan.counters), default=0)

    def slowed_by(self, subject: Subject, at: datetime) -> BudgetId | None:
        """Tell which budget makes a call wait longest; see ``BudgetStore.slowed_by``."""
        waits = {
            one.account.budget.id: wait_s
            for one in self._plan(subject, at).counters
            if (wait_s := seconds_ahead(one, at, 0)) > 0
        }
        return max(waits, key=waits.__getitem__, default=None)

    def settle(self, hold: Hold, actual: Demand) -> bool:
        """End a hold by what was used; see ``BudgetStore.settle``."""
        if not hold.is_open:
            return False
        hold.is_open = False
        del self._open[hold.id]
        at, held = hold.at, hold.held
        used = actual.cost_pico, actual.tokens, actual.requests
        for counter in hold.counters:
            counter.settle(at, held[counter.unit], used[counter.unit])
        return True

    def release(self, hold: Hold) -> bool:
        """End a hold as if it had never been asked for; see ``BudgetStore.release``."""
        if not hold.is_open:
            return False
        hold.is_open = False
        del self._open[hold.id]
        for counter in hold.counters:
            counter.held -= hold.held[counter.unit]
        return True

    def correct(self, subject: Subject, at: datetime, change: Demand, freed: Demand) -> None:
        """Count what a call of the past came to beyond what was counted for it.

        Args:
            subject: The call.
            at: When it was admitted; decides the windows.
            change: Signed differences to what was settled; amounts are known.
            freed: What was parked for it and is parked no longer.
        """
        changes = change.cost_pico or 0, change.tokens or 0, change.requests
        parked = freed.cost_pico or 0, freed.tokens or 0, freed.requests
        for account in self._accounts_of(subject):
            if not account.budget.is_in_force(at):
                continue
            unit = UNIT_INDEX[account.budget.unit]
            account.add_base(at, changes[unit] - parked[unit], -parked[unit])

    def tightest(self, hold: Hold) -> BudgetStatus | None:
        """Find the budget of a call that is closest to its limit; see ``BudgetStore.tightest``."""
        best = None
        best_left = best_limit = 1
        for counter in hold.counters:
            limit = counter.limit
            left = limit - counter.spent - counter.held
            # Shares of the limits are compared crosswise, so that no division rounds.
            if best is None or left * best_limit < best_left * limit:
                best, best_left, best_limit = counter, left, limit
        return best.status() if best else None

    def status(self, at: datetime) -> tuple[BudgetStatus, ...]:
        """Read every budget without changing any.

        Args:
            at: Aware instant.

        Returns:
            One status per budget, in the order installed, for the window ``at`` falls in.
        """
        return tuple(account.status(at) for account in self._accounts.values())

    def install(self, budgets: Iterable[Budget], at: datetime) -> tuple[Budget, ...]:
        """Replace the set of budgets; open holds that match are held in new budgets too.

        A budget keeps its counters while its id, scope, unit, window and validity stay, and
        whether it rolls over; limit, mode, top-ups and thresholds may change. Loads of what was
        spent before must not overlap: add every base of
        one installation before the next.

        Args:
            budgets: All budgets from now on; a refusal names the first that has no room.
            at: Aware instant.

        Returns:
            Those that begin to count with nothing spent: the caller adds what the ledger knows,
            by ``add_base``. They refuse from now on, on what is known so far.

        Raises:
            ValueError: Two budgets have one id; nothing changed.
        """
        listed = tuple(budgets)
        if len({budget.id for budget in listed}) != len(listed):
            raise ValueError("two budgets have one id")
        accounts: dict[BudgetId, Account] = {}
        fresh = []
        for rank, budget in enumerate(listed):
            account = self._accounts.get(budget.id)
            if account is None or not _counts_alike(account.budget, budget):
                account = self._open_account(budget, at)
                fresh.append(account)
            account.adopt(budget, rank)
            accounts[budget.id] = account
        self._accounts = accounts
        self.is_pacing = any(budget.actions.throttle_s for budget in listed)
        self._plans.clear()
        self._index_scopes()
        self._move_holds(fresh)
        return tuple(account.budget for account in fresh)

    def _open_account(self, budget: Budget, at: datetime) -> Account:
        if isinstance(budget.window, RollingWindow):
            return RollingAccount(budget, budget.window, at, self._share_of)
        # What the window before left is known to one process alone: others take nothing over.
        if budget.rollover_max is not None and self._share_of is None:
            return CarryingAccount(budget, at)
        return CalendarAccount(budget, at, self._share_of)

    def add_base(
        self, budget_id: BudgetId, window_start: datetime, settled: int, parked: int
    ) -> None:
        """Add what the ledger knows of a window from before the budget was installed.

        Args:
            budget_id: From ``install``; a budget gone in the meantime is passed over.
            window_start: Start of the window; for a rolling window, when the amounts were spent.
            settled: Known amounts, in the budget's unit.
            parked: Amounts counted at their ceiling.
        """
        account = self._accounts.get(budget_id)
        if account is not None:
            account.add_base(window_start, settled + parked, parked)

    def _plan(self, subject: Subject, at: datetime) -> _Plan:
        """Find the counters of a call, in the windows of an instant."""
        key: tuple[str | None, ...] = (
            subject.organization,
            subject.team,
            subject.project,
            subject.key,
        )
        if self._extra_parts:
            key += tuple([read_part(part, subject) for part in self._extra_parts])
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
            plan = self._plans[key] = _Plan(self._accounts_of(subject))
        if plan.epoch != self._epoch or not plan.start <= at < plan.end:
            self._look_up(plan, at)
        for counter in plan.rolling:
            counter.advance(at)
        return plan

    def _look_up(self, plan: _Plan, at: datetime) -> None:
        counters = []
        start, end = _FIRST, _LAST
        for account in plan.accounts:
            first, last = account.budget.valid_from or _FIRST, account.budget.valid_to or _LAST
            if not first <= at < last:
                start, end = (start, min(end, first)) if at < first else (max(start, last), end)
                continue
            counter = account.counter_at(at)
            counters.append(counter)
            self._epoch += account.prune()
            if not isinstance(counter, RollingCounter):
                first, last = counter.window.start, counter.window.end or _LAST
            start, end = max(start, first), min(end, last)
        plan.counters = tuple(counters)
        plan.hard = tuple(counter for counter in counters if counter.account.is_hard)
        plan.rolling = tuple(one for one in counters if isinstance(one, RollingCounter))
        plan.told = tuple(one.account for one in counters if one.account.is_told)
        plan.start, plan.end, plan.epoch = start, end, self._epoch

    def _accounts_of(self, subject: Subject) -> list[Account]:
        found = list(self._index.get(("", None), ()))
        for part in self._index_parts:
            found += self._index.get((part, read_part(part, subject)), ())
        matching = [one for one in found if is_in_scope(one.budget.scope, subject)]
        return sorted(matching, key=lambda account: account.rank)

    def _index_scopes(self) -> None:
        self._index = {}
        parts: set[str] = set()
        for account in self._accounts.values():
            scope = account.budget.scope
            parts.update(scope)
            found_by = next((part for part in (*_SELECTIVE, *scope) if part in scope), "")
            self._index.setdefault((found_by, scope.get(found_by)), []).append(account)
        self._index_parts = tuple(sorted({part for part, _ in self._index if part}))
        self._extra_parts = tuple(sorted(parts.difference(_CALLER)))

    def _move_holds(self, fresh: list[Account]) -> None:
        for hold in self._open.values():
            kept = [
                counter
                for counter in hold.counters
                if self._accounts.get(counter.account.budget.id) is counter.account
            ]
            for account in fresh:
                budget = account.budget
                if is_in_scope(budget.scope, hold.subject) and budget.is_in_force(hold.at):
                    counter = account.counter_at(hold.at)
                    counter.held += hold.held[counter.unit]
                    kept.append(counter)
            hold.counters = tuple(kept)


def refuse(counter: Counter, asked: int | None) -> BudgetExhausted:
    """Say no for a counter as it stands.

    Args:
        counter: The one without room.
        asked: What was asked for; ``None`` when nothing bounds it.

    Returns:
        The refusal.
    """
    return BudgetExhausted(
        budget=counter.account.budget,
        window=counter.window,
        limit=counter.limit,
        spent=counter.spent,
        held=counter.held,
        asked=asked,
        room_at=None if asked is None else counter.room_at(asked),
    )


def _counts_alike(old: Budget, new: Budget) -> bool:
    return _counting(old) == _counting(new)


def _counting(budget: Budget) -> tuple[object, ...]:
    # A window that takes over must know what the one before spent, so rollover counts anew too.
    rolls_over = budget.rollover_max is not None
    rule = budget.scope, budget.unit, budget.window
    return *rule, budget.valid_from, budget.valid_to, rolls_over
