"""A machine that does anything to budgets in any order, beside a ledger that is only ever added to.

The model keeps no counters: it lists what happened and adds it up anew at every look.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.budgets.allowance import rolled_over, topped_up, window_before
from gateway.budgets.counters import ROLLING_STEPS
from gateway.budgets.holds import Hold
from gateway.budgets.memory import MemoryBudgets
from gateway.budgets.rules import (
    Budget,
    BudgetExhausted,
    Demand,
    Mode,
    Subject,
    TopUp,
    is_in_scope,
    window_of,
)
from gateway.budgets.windows import BudgetWindow, RollingWindow
from tests.budgets.builders import at_once, budget, instant, subject

TICK = timedelta(microseconds=1)
# Clocks step back by at most this much behind the latest they ever showed.
BACK = timedelta(minutes=5)

CALLS = [
    subject(team=team, key=key, model=model)
    for team in ("search", "ads")
    for key in ("k1", "k2")
    for model in ("gpt-5", "claude")
]
SCOPES = [{}, {"team": "search"}, {"team": "search", "model": "gpt-5"}, {"key": "k1"}]
WINDOWS = ["minute", "hour", "day", "month", "total", "rolling:60", "rolling:7"]
LIMITS = ["0.000000000300 USD", "200 tokens", "4 requests", "25 tokens"]

amounts = st.integers(min_value=0, max_value=30)
demands = st.builds(Demand, cost_pico=amounts | st.none(), tokens=amounts | st.none())
bounded = st.builds(Demand, cost_pico=amounts, tokens=amounts)
BEGIN = instant("2026-12-31T22:57:30+00:00")
FIRST = [None, None, BEGIN - timedelta(days=40), BEGIN - TICK, BEGIN + timedelta(minutes=2)]
LAST = [None, None, BEGIN + timedelta(minutes=3), BEGIN + timedelta(days=41, seconds=9)]
ROLLOVER = [None, None, True, 100]


def make_budget(words: tuple[str, str, str], **fields: Any) -> Budget:
    """Make a budget in one of many ways, with only what fits its window."""
    window, rollover = words[1], fields.pop("rollover")
    if rollover is not None and not window.startswith(("total", "rolling")):
        fields["valid_from"] = fields["valid_from"] or BEGIN - timedelta(days=99)
        fields["rollover"] = True
    made = budget(" ".join(words), timezone="Europe/Berlin", **fields)
    if made.rollover_max is not None and rollover is not True:
        made = replace(made, rollover_max=rollover)
    return made


budgets = st.builds(
    make_budget,
    st.tuples(st.sampled_from("ABCD"), st.sampled_from(WINDOWS), st.sampled_from(LIMITS)),
    scope=st.sampled_from(SCOPES),
    mode=st.sampled_from(["hard", "hard", "soft"]),
    valid_from=st.sampled_from(FIRST),
    valid_to=st.sampled_from(LAST),
    rollover=st.sampled_from(ROLLOVER),
)


@dataclass(eq=False)
class Call:
    """What the model knows of one admitted call."""

    hold: Hold
    caller: Subject
    at: datetime
    asked: Demand
    is_open: bool = True
    used: Demand | None = None


@dataclass(eq=False)
class Book:
    """What the model knows of one budget since it was installed."""

    budget: Budget
    calls: list[Call]
    limit_max: int
    # Of windows before this one nothing is known.
    known_from: datetime
    # What may stand above the limit: overruns of single holds, and what was there before.
    excess: int = 0
    cap_max: int = 0
    bases: list[tuple[datetime, int, int]] = field(default_factory=list)

    def counts(self, call: Call) -> bool:
        return call in self.calls


def _rule_of(one: Budget) -> tuple[object, ...]:
    rolls_over = one.rollover_max is not None
    return one.scope, one.unit, one.window, one.valid_from, one.valid_to, rolls_over


def _applies(one: Budget, caller: Subject, at: datetime) -> bool:
    return is_in_scope(one.scope, caller) and one.is_in_force(at)


def held_of(call: Call, book: Book) -> int:
    return call.asked.amount(book.budget.unit) or 0


def used_of(call: Call, book: Book) -> tuple[int, int]:
    """Spent and parked of an ended call; a released one used nothing."""
    if call.used is None:
        return 0, 0
    used = call.used.amount(book.budget.unit)
    return (held_of(call, book), held_of(call, book)) if used is None else (used, 0)


class BudgetMachine(RuleBasedStateMachine):
    """Reserve, settle, park, release, install, load and move the clock, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = MemoryBudgets()
        self.now = self.latest = BEGIN
        self.books: dict[str, Book] = {}
        self.calls: list[Call] = []
        self.minted = 0

    @initialize(first=st.lists(budgets, min_size=1, max_size=4, unique_by=lambda one: one.id))
    def start(self, first: list[Budget]) -> None:
        self._install(first)

    @rule(by=st.sampled_from([0, 1, 3, 20, 60, 61, 3600, 86_400, 40 * 86_400]))
    def wait(self, by: int) -> None:
        self.now += timedelta(seconds=by, microseconds=by % 7)
        self.latest = max(self.latest, self.now)

    @rule(by=st.integers(min_value=1, max_value=200))
    def step_back(self, by: int) -> None:
        self.now = max(self.now - timedelta(seconds=by), self.latest - BACK)

    @rule(caller=st.sampled_from(CALLS), asked=bounded | demands)
    def reserve(self, caller: Subject, asked: Demand) -> None:
        self.minted += 1
        came_out = at_once(self.memory.reserve(f"H{self.minted}", caller, asked, self.now))
        hard = [
            book
            for book in self.books.values()
            if book.budget.mode is Mode.HARD and _applies(book.budget, caller, self.now)
        ]
        if isinstance(came_out, BudgetExhausted):
            book = self.books[came_out.budget.id]
            assert book in hard
            amount = asked.amount(book.budget.unit)
            most = self._spent(book, self.now)[1] + self._held(book, self.now)
            # A window that was left holds back what the next one has used of it.
            assert amount is None or most + amount > self._limit(book) or self.now < self.latest
            return
        for book in hard:
            amount = asked.amount(book.budget.unit)
            least = self._spent(book, self.now)[0] + self._held(book, self.now)
            assert amount is not None
            assert not amount or least + amount <= self._limit(book)
        call = Call(came_out, caller, self.now, asked)
        self.calls.append(call)
        for book in self.books.values():
            if _applies(book.budget, caller, self.now):
                book.calls.append(call)
        self._check_tightest(call)

    def _check_tightest(self, call: Call) -> None:
        """Right after a hold: the smallest share remaining, by the model's own sums."""
        status = self.memory.tightest(call.hold)
        books = [book for book in self.books.values() if book.counts(call)]
        assert (status is None) is (not books)
        if status is not None:
            book = self.books[status.budget.id]
            least, most = self._spent(book, self.now)
            assert least <= status.spent <= most
            assert self._held(book, self.now) == status.held
            assert window_of(book.budget, self.now) == status.window
            share = Fraction(status.remaining, status.limit)
            for book in books:
                limit = self._limit(book)
                left = limit - self._spent(book, self.now)[0]
                assert share <= Fraction(left - self._held(book, self.now), limit)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), used=demands)
    def settle(self, data: st.DataObject, used: Demand) -> None:
        call = data.draw(st.sampled_from(self.calls))
        assert self.memory.settle(call.hold, used) is call.is_open
        if call.is_open:
            call.is_open, call.used = False, used
            for book in self.books.values():
                if book.counts(call):
                    book.excess += max(0, used_of(call, book)[0] - held_of(call, book))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.calls))
        assert self.memory.release(call.hold) is call.is_open
        call.is_open = False

    @rule(changed=budgets, keep=st.booleans())
    def change_budget(self, changed: Budget, keep: bool) -> None:
        wanted = {name: book.budget for name, book in self.books.items()}
        wanted.pop(changed.id, None)
        if keep:
            wanted[changed.id] = changed
        self._install(list(wanted.values()))

    @precondition(lambda self: self.books)
    @rule(data=st.data())
    def change_limit(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.books)))
        limit = data.draw(st.integers(min_value=1, max_value=400))
        changed = {one: book.budget for one, book in self.books.items()}
        changed[name] = replace(changed[name], limit=limit)
        self._install(list(changed.values()))

    @precondition(lambda self: self.books)
    @rule(data=st.data(), amount=st.integers(1, 50), ahead=st.sampled_from([0, 0, 60, 3600]))
    def top_up(self, data: st.DataObject, amount: int, ahead: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.books)))
        changed = {one: book.budget for one, book in self.books.items()}
        added = TopUp(at=self.now + timedelta(seconds=ahead), amount=amount)
        changed[name] = replace(changed[name], top_ups=(*changed[name].top_ups, added))
        self._install(list(changed.values()))

    @precondition(lambda self: self.books)
    @rule(data=st.data(), settled=amounts, parked=amounts, age=st.integers(0, 100))
    def load(self, data: st.DataObject, settled: int, parked: int, age: int) -> None:
        book = self.books[data.draw(st.sampled_from(sorted(self.books)))]
        start = self.now - timedelta(seconds=age)
        if not isinstance(book.budget.window, RollingWindow):
            start = window_of(book.budget, self.now).start
        book.bases.append((start, settled, parked))
        book.excess += settled + parked
        self.memory.add_base(book.budget.id, start, settled, parked)

    def _install(self, wanted: list[Budget]) -> None:
        fresh = self.memory.install(wanted, self.now)
        old, self.books = self.books, {}
        for one in wanted:
            book = old.get(one.id)
            stays = book is not None and _rule_of(book.budget) == _rule_of(one)
            assert (one in fresh) is not stays
            if book is None or not stays:
                calls = [
                    call
                    for call in self.calls
                    if call.is_open and _applies(one, call.caller, call.at)
                ]
                window = window_of(one, self.now)
                known = window_before(one, window) or window
                book = Book(one, calls, one.limit, known.start)
                book.excess = sum(held_of(call, book) for call in calls)
            elif book.budget.mode is not Mode.HARD:
                book.excess += sum(post[1] for post in self._posts(book))
                book.excess += sum(held_of(call, book) for call in book.calls if call.is_open)
            book.budget = one
            book.limit_max = max(book.limit_max, one.limit)
            book.cap_max = max(book.cap_max, one.rollover_max or 0)
            self.books[one.id] = book

    def _in_window(self, book: Book, at: datetime, now: datetime, late: timedelta) -> bool:
        window = book.budget.window
        if isinstance(window, RollingWindow):
            return at > now - timedelta(seconds=window.seconds) - late
        return window_of(book.budget, at) == window_of(book.budget, now)

    def _posts(self, book: Book) -> Iterator[tuple[datetime, int, int]]:
        for call in book.calls:
            yield call.at, *used_of(call, book)
        for start, settled, parked in book.bases:
            yield start, settled + parked, parked

    def _spent(self, book: Book, now: datetime) -> tuple[int, int]:
        return self._sums(book, now)[0]

    def _sums(self, book: Book, now: datetime) -> tuple[tuple[int, int], tuple[int, int]]:
        """Least and most that may be spent, and parked, now: a rolling step ages out late."""
        window = book.budget.window
        late = timedelta(0)
        if isinstance(window, RollingWindow):
            late = timedelta(seconds=window.seconds) / ROLLING_STEPS
        sums = []
        for slack in (timedelta(0), late):
            inside = [one for one in self._posts(book) if self._in_window(book, one[0], now, slack)]
            sums.append((sum(one[1] for one in inside), sum(one[2] for one in inside)))
        (spent, parked), (spent_max, parked_max) = sums
        return (spent, spent_max), (parked, parked_max)

    def _held(self, book: Book, now: datetime) -> int:
        rolling = isinstance(book.budget.window, RollingWindow)
        return sum(
            held_of(call, book)
            for call in book.calls
            if call.is_open and (rolling or self._in_window(book, call.at, now, timedelta(0)))
        )

    def _used(self, book: Book, window: BudgetWindow) -> int:
        """Spent and held in one window of a calendar."""
        return self._spent(book, window.start)[0] + self._held(book, window.start)

    def _carried(self, book: Book, window: BudgetWindow) -> int:
        """Most that a window may have taken over."""
        one = book.budget
        before = window_before(one, window)
        if before is None or before.start < book.known_from:
            return 0
        return rolled_over(one, one.limit + topped_up(one, before) - self._used(book, before))

    def _limit(self, book: Book) -> int:
        window = window_of(book.budget, self.now)
        added = topped_up(book.budget, window)
        return book.budget.limit + added + self._carried(book, window)

    @invariant()
    def limits_are_what_was_added(self) -> None:
        """Limit, top-ups of the window, and what the one before left; nothing for a look back."""
        for status in self.memory.status(self.now):
            book = self.books[status.budget.id]
            carried = self._carried(book, status.window)
            assert topped_up(book.budget, status.window) == status.topped_up
            assert 0 <= status.rolled_over <= carried
            assert status.rolled_over == carried or self.now < self.latest
            assert book.budget.limit + status.topped_up + status.rolled_over == status.limit
            assert book.budget.is_in_force(self.now) is status.is_in_force

    @invariant()
    def rollover_makes_no_money(self) -> None:
        """Two windows in a row never use more than both have, but for what no hold could stop."""
        for book in self.books.values():
            one = book.budget
            if one.mode is not Mode.HARD or one.rollover_max is None:
                continue
            for window in {
                window_of(one, at).start: window_of(one, at) for at in self._times(book)
            }.values():
                before = window_before(one, window)
                left = 0
                if before is not None and before.start >= book.known_from:
                    had = book.limit_max + topped_up(one, before)
                    left = max(0, min(book.cap_max, had - self._used(book, before)))
                own = book.limit_max + topped_up(one, window)
                assert self._used(book, window) <= own + left + book.excess

    def _times(self, book: Book) -> Iterator[datetime]:
        yield from (call.at for call in book.calls)
        yield from (base[0] for base in book.bases)

    @invariant()
    def counters_are_what_happened(self) -> None:
        """Every counter equals the sum of what happened in its window."""
        shown = self.memory.status(self.now)
        for status, book in zip(shown, self.books.values(), strict=True):
            assert book.budget == status.budget
            assert window_of(book.budget, self.now) == status.window
            assert self._held(book, self.now) == status.held
            spent, parked = self._sums(book, self.now)
            assert spent[0] <= status.spent <= spent[1]
            assert parked[0] <= status.parked <= parked[1]

    @invariant()
    def hard_budgets_are_kept(self) -> None:
        """Settled plus held stays within the limit, but for what no hold could have stopped."""
        for status in self.memory.status(self.now):
            book = self.books[status.budget.id]
            if status.budget.mode is Mode.HARD:
                most = book.limit_max + status.topped_up + book.cap_max + book.excess
                assert status.spent + status.held <= most

    @invariant()
    def each_hold_ends_once(self) -> None:
        """As many holds are open as calls have not ended."""
        assert sum(call.is_open for call in self.calls) == self.memory.open_holds

    def teardown(self) -> None:
        """Once every call has ended nothing is held and the books still balance."""
        for call in self.calls:
            if call.is_open:
                assert self.memory.settle(call.hold, call.asked)
                call.is_open, call.used = False, call.asked
        assert 0 == self.memory.open_holds
        for at in (self.now, *(call.at for call in self.calls if call.at >= self.latest - BACK)):
            assert not any(status.held for status in self.memory.status(at))
        self.counters_are_what_happened()


TestBudgetMachine = BudgetMachine.TestCase
TestBudgetMachine.settings = settings(stateful_step_count=40)
