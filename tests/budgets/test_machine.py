"""A machine that does anything to budgets in any order, beside a ledger that is only ever added to.

The model keeps no counters: it lists what happened and adds it up anew at every look.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.budgets.counters import ROLLING_STEPS, Hold
from gateway.budgets.memory import MemoryBudgets
from gateway.budgets.rules import Budget, BudgetExhausted, Demand, Mode, Subject, is_in_scope
from gateway.budgets.windows import RollingWindow
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
budgets = st.builds(
    lambda name, window, limit, scope, mode: budget(
        f"{name} {window} {limit}", scope=scope, mode=mode, timezone="Europe/Berlin"
    ),
    st.sampled_from("ABCD"),
    st.sampled_from(WINDOWS),
    st.sampled_from(LIMITS),
    st.sampled_from(SCOPES),
    st.sampled_from(["hard", "hard", "soft"]),
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
    # What may stand above the limit: overruns of single holds, and what was there before.
    excess: int = 0
    bases: list[tuple[datetime, int, int]] = field(default_factory=list)

    def counts(self, call: Call) -> bool:
        return call in self.calls


def _rule_of(one: Budget) -> tuple[object, ...]:
    return one.scope, one.unit, one.window


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
        self.now = self.latest = instant("2026-12-31T22:57:30+00:00")
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
            if book.budget.mode is Mode.HARD and is_in_scope(book.budget.scope, caller)
        ]
        if isinstance(came_out, BudgetExhausted):
            book = self.books[came_out.budget.id]
            assert book in hard
            amount = asked.amount(book.budget.unit)
            most = self._spent(book, self.now)[1] + self._held(book, self.now)
            assert amount is None or most + amount > book.budget.limit
            return
        for book in hard:
            amount = asked.amount(book.budget.unit)
            least = self._spent(book, self.now)[0] + self._held(book, self.now)
            assert amount is not None
            assert least + amount <= book.budget.limit
        call = Call(came_out, caller, self.now, asked)
        self.calls.append(call)
        for book in self.books.values():
            if is_in_scope(book.budget.scope, caller):
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
            assert book.budget.window.window_at(self.now) == status.window
            share = Fraction(status.remaining, status.budget.limit)
            for book in books:
                left = book.budget.limit - self._spent(book, self.now)[0]
                assert share <= Fraction(left - self._held(book, self.now), book.budget.limit)

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
    @rule(data=st.data(), settled=amounts, parked=amounts, age=st.integers(0, 100))
    def load(self, data: st.DataObject, settled: int, parked: int, age: int) -> None:
        book = self.books[data.draw(st.sampled_from(sorted(self.books)))]
        start = self.now - timedelta(seconds=age)
        if not isinstance(book.budget.window, RollingWindow):
            start = book.budget.window.window_at(self.now).start
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
                    if call.is_open and is_in_scope(one.scope, call.caller)
                ]
                book = Book(one, calls, one.limit)
                book.excess = sum(held_of(call, book) for call in calls)
            elif book.budget.mode is not Mode.HARD:
                book.excess += sum(post[1] for post in self._posts(book))
                book.excess += sum(held_of(call, book) for call in book.calls if call.is_open)
            book.budget = one
            book.limit_max = max(book.limit_max, one.limit)
            self.books[one.id] = book

    def _in_window(self, book: Book, at: datetime, now: datetime, late: timedelta) -> bool:
        window = book.budget.window
        if isinstance(window, RollingWindow):
            return at > now - timedelta(seconds=window.seconds) - late
        return window.window_at(at) == window.window_at(now)

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

    @invariant()
    def counters_are_what_happened(self) -> None:
        """Every counter equals the sum of what happened in its window."""
        shown = self.memory.status(self.now)
        for status, book in zip(shown, self.books.values(), strict=True):
            assert book.budget == status.budget
            assert book.budget.window.window_at(self.now) == status.window
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
                assert status.spent + status.held <= book.limit_max + book.excess

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
