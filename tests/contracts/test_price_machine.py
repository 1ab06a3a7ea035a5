"""A machine that does anything to the price book in any order, beside a list of what was asked.

The model knows no versions: what holds at an instant is everything asked for that had come by then,
laid over each other in the order it was asked for.
"""

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.ledger.store import open_engine
from gateway.prices.asked import PriceEdit, PriceRefused
from gateway.prices.desk import PriceDesk
from gateway.prices.store import PriceStore
from pricing.agreements import Payer
from pricing.book import Book
from pricing.changes import ChangeRefused, with_rate
from pricing.meters import Meter
from pricing.rates import Rate
from tests.contracts.desk_kit import SHIPPED, SIGNED, contents
from tests.contracts.test_price_store import Hands
from tests.pricing.cards import entry, override, rate
from tests.pricing.test_versions import publish

FIRST = datetime(2027, 1, 1, tzinfo=UTC)
DAYS = 14
SEARCH = Payer("acme", "search", "x")
# What is sold: provider and meter.
THINGS = (("p", "input"), ("p", "output"), ("q", "input"))
Thing = tuple[str, str]


def day(number: int) -> datetime:
    """An instant; the first day is long after the shipped prices began."""
    return FIRST + timedelta(days=number)


@dataclass(frozen=True)
class Layer:
    """A price from one day to another; ``None`` for ever."""

    first: int
    last: int | None
    amount: str

    def holds(self, at: int) -> bool:
        return self.first <= at and (self.last is None or at < self.last)


@dataclass(eq=False)
class State:
    """What is known at one instant: layers by thing, the last one on top, and agreements."""

    prices: dict[Thing, list[Layer]]
    agreed: dict[str, Layer]

    def amount(self, thing: Thing, at: int) -> str | None:
        found = [one.amount for one in self.prices[thing] if one.holds(at)]
        return found[-1] if found else None

    def paid(self, at: int) -> str | None:
        """What the team pays for input of p: the newest of its agreements."""
        found = [one for one in self.agreed.values() if one.holds(at)]
        newest = max(found, key=lambda one: one.first, default=None)
        return self.amount(("p", "input"), at) if newest is None else newest.amount

    def timeline(self, thing: Thing, start: int) -> list[str | None]:
        return [self.amount(thing, at) for at in range(start, DAYS + 1)]


@dataclass(eq=False)
class Change:
    """Something that was asked for, and the day it takes effect."""

    start: int
    layers: dict[Thing, Layer] = field(default_factory=dict)
    agreed: dict[str, Layer] = field(default_factory=dict)
    ended: tuple[str, int] | None = None
    listed: dict[Thing, list[Layer]] = field(default_factory=dict)
    version: str = ""

    def lay(self, state: State) -> None:
        for thing, layer in self.layers.items():
            state.prices[thing] = [*state.prices[thing], layer]
        state.prices |= {thing: list(layers) for thing, layers in self.listed.items()}
        if self.ended is not None and self.ended[0] in state.agreed:
            name, end = self.ended
            known = state.agreed.pop(name)
            if known.first < end:
                last = end if known.last is None else min(known.last, end)
                state.agreed[name] = Layer(known.first, last, known.amount)
        state.agreed |= self.agreed


def fold(changes: Iterable[Change], at: int) -> State:
    """Lay everything over each other that has come by a day."""
    always = {("p", "input"): "1", ("q", "input"): "5"}
    prices = {
        thing: [Layer(-1000, None, always[thing])] if thing in always else [] for thing in THINGS
    }
    state = State(prices, {})
    for one in changes:
        if one.start <= at:
            one.lay(state)
    return state


@dataclass(eq=False)
class Read:
    """A list that was read: from which version, what it says, and what had been asked by then."""

    base: str
    contents: dict[str, tuple[str, str]]
    before: State
    listed: dict[Thing, list[Layer]]
    version: str = ""


@dataclass(frozen=True)
class When:
    """When a change takes effect, and when what it says begins and ends, in days from today."""

    ahead: int
    later: int
    span: int | None

    def layer(self, today: int, amount: str) -> Layer:
        first = today + max(self.ahead, self.later)
        return Layer(first, None if self.span is None else first + self.span, amount)


days = st.integers(min_value=0, max_value=8)
amounts = st.sampled_from(["1", "2", "3"])
things = st.sampled_from(THINGS)
spans = st.none() | st.integers(min_value=1, max_value=6)
whens = st.builds(When, ahead=st.just(0) | days, later=st.just(0) | days, span=spans)


class PriceMachine(RuleBasedStateMachine):
    """Set, schedule, agree, end, import, approve, reject and wait, in any order."""

    def __init__(self, template: Path) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="taximeter-"))
        self.engine = open_engine(f"sqlite:///{shutil.copy(template, self.folder)}")
        self.clock = Hands(FIRST)
        catalog = publish(self.folder / "catalog", SHIPPED)
        self.store = PriceStore(self.engine, self.clock, catalog=catalog)
        self.store.record_shipped("taximeter 1.0")
        self.desk = PriceDesk(self.store)
        self.today = 0
        self.changes: list[Change] = []
        self.reads: list[Read] = []
        self.candidates: list[Read] = []
        self.books: dict[str, Book] = {}
        self.named = 0

    def teardown(self) -> None:
        self.engine.dispose()
        shutil.rmtree(self.folder)

    # --- what can be done

    @rule(by=st.integers(min_value=1, max_value=2))
    def wait(self, by: int) -> None:
        if self.today + by < DAYS - 4:
            self.today += by
            self.clock.at = day(self.today)

    @rule(thing=things, amount=amounts, when=whens)
    def put(self, thing: Thing, amount: str, when: When) -> None:
        layer = when.layer(self.today, amount)
        edit = PriceEdit(rates=(_rate(thing, layer),))
        self._post(Change(self.today + when.ahead, layers={thing: layer}), edit)

    @rule(amount=amounts, when=whens)
    def agree(self, amount: str, when: When) -> None:
        self.named += 1
        name = f"o{self.named}"
        layer = when.layer(self.today, f"0.{amount}")
        fields = {"provider": "p", "model": "m", "meter": "input", "amount": layer.amount}
        dates = {"valid_from": day(layer.first), "valid_to": _end(layer)}
        edit = PriceEdit(overrides=(override(name, team="search", **fields, **dates),))
        self._post(Change(self.today + when.ahead, agreed={name: layer}), edit)

    @precondition(lambda self: any(one.agreed for one in self.changes))
    @rule(data=st.data(), later=days)
    def end(self, data: st.DataObject, later: int) -> None:
        names = [name for one in self.changes for name in one.agreed]
        name = data.draw(st.sampled_from(names))
        last = self.today + later
        edit = PriceEdit(ends=((name, day(last)),))
        self._post(Change(self.today, ended=(name, last)), edit)

    @rule(provider=st.sampled_from("pq"), amount=amounts)
    def read_list(self, provider: str, amount: str) -> None:
        """Read the prices there are and a list; nothing is proposed yet."""
        book = self.store.load_book()
        new = rate("input", amount, provider=provider, valid_from=day(self.today))
        rates = [one for one in book.rates if one.provider == provider]
        try:
            rates = list(with_rate(rates, new))
        except ChangeRefused:
            return
        state = fold(self.changes, self.today)
        listed = {thing: list(state.prices[thing]) for thing in THINGS if thing[0] == provider}
        listed[provider, "input"].append(Layer(self.today, None, amount))
        said = contents([entry(provider=provider)], rates)
        # As an import does: every provider is in it, and most of them say what they said.
        rest = "q" if provider == "p" else "p"
        said |= contents([entry(provider=rest)], [r for r in book.rates if r.provider == rest])
        self.reads.append(Read(book.version.version, said, state, listed))

    @precondition(lambda self: self.reads)
    @rule()
    def propose(self) -> None:
        read = self.reads.pop()
        made = self.desk.propose(read.contents, SIGNED, read.base)
        if made is not None:
            read.version = made.version
            self.candidates.append(read)

    @precondition(lambda self: self.candidates)
    @rule(data=st.data(), ahead=days, replaces=st.booleans())
    def approve(self, data: st.DataObject, ahead: int, replaces: bool) -> None:
        read = data.draw(st.sampled_from(self.candidates))
        start = self.today + ahead
        lost = self._is_lost(read, start)
        change = Change(start, listed=read.listed)
        before = self._seen()
        try:
            made = self.desk.approve(read.version, SIGNED, day(start), replaces=replaces)
        except PriceRefused:
            assert before == self._seen()
            return
        assert replaces or not lost
        self.candidates.remove(read)
        change.version = made[0].version
        self.changes.append(change)

    @precondition(lambda self: self.candidates)
    @rule()
    def reject_a_candidate(self) -> None:
        self.desk.reject(self.candidates.pop().version, SIGNED)

    @precondition(lambda self: any(one.start > self.today for one in self.changes))
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        waiting = [one for one in self.changes if one.start > self.today]
        change = data.draw(st.sampled_from(waiting))
        before, refused = self._seen(), None
        try:
            self.desk.reject(self._now_called(change), SIGNED)
        except PriceRefused as no:
            refused = no.reason
        if refused is None:
            self.changes.remove(change)
        else:
            assert "cannot stand without it" in refused
            assert before == self._seen()

    @rule(data=st.data())
    def reject_anything_else(self, data: st.DataObject) -> None:
        """What holds, carries or was decided about cannot be rejected."""
        waiting = {self._now_called(one) for one in self.changes if one.start > self.today}
        waiting |= {read.version for read in self.candidates}
        rest = [v.version for v in self.store.list_versions() if v.version not in waiting]
        before = self._seen()
        try:
            self.desk.reject(data.draw(st.sampled_from(rest)), SIGNED)
        except PriceRefused:
            assert before == self._seen()
        else:
            raise AssertionError("it was rejected")

    # --- what has to hold

    @invariant()
    def prices_are_what_was_asked_for(self) -> None:
        """At every instant, past and future, for everybody and for the team."""
        for at in range(DAYS + 1):
            state = fold(self.changes, at)
            book = self._book_at(at)
            wanted = [state.amount(thing, at) for thing in THINGS]
            assert wanted == [_amount(book, thing, at) for thing in THINGS], at
            assert state.paid(at) == _amount(book, ("p", "input"), at, SEARCH), at

    @invariant()
    def what_waits_was_asked_for(self) -> None:
        """Whatever is scheduled is a change somebody asked for, or carries one."""
        live = {one.version: one for one in self.store.list_versions() if one.is_in_force}
        waiting = [one for one in live.values() if one.describe().effective_from > self.clock.at]
        asked = {self._now_called(one) for one in self.changes}
        for one in waiting:
            assert (one.carries or one.version) in asked
            if one.carries is not None:
                assert one.carries in live

    # --- how

    def _post(self, change: Change, edit: PriceEdit) -> None:
        overruled = self._overruled(change)
        must = self._must_accept(change)
        before = self._seen()
        try:
            made = self.desk.post(edit, SIGNED, day(change.start))
        except PriceRefused:
            assert before == self._seen()
            assert not must
            return
        assert not overruled, overruled
        change.version = made[0].version
        # What says nothing before a scheduled version takes effect with that one.
        change.start = (made[0].describe().effective_from - FIRST).days
        self.changes.append(change)

    def _lines(self, start: int) -> list[int]:
        return [start, *sorted({one.start for one in self.changes if one.start > start})]

    def _overruled(self, change: Change) -> list[tuple[Thing, int]]:
        """Scheduled prices that the change would undo."""
        found = []
        lines = self._lines(change.start)
        for thing, layer in change.layers.items():
            for earlier, line in pairwise(lines):
                old, new = fold(self.changes, earlier), fold(self.changes, line)
                is_scheduled = old.timeline(thing, line) != new.timeline(thing, line)
                span = [at for at in range(line, DAYS + 1) if layer.holds(at)]
                undoes = any(new.amount(thing, at) != layer.amount for at in span)
                if is_scheduled and undoes:
                    found.append((thing, line))
        return found

    def _must_accept(self, change: Change) -> bool:
        """Nothing is scheduled that it could be at odds with, and it says something new."""
        if not change.layers:
            return False
        ((thing, layer),) = change.layers.items()
        state = fold(self.changes, change.start)
        is_new = any(
            state.amount(thing, at) != layer.amount for at in range(DAYS + 8) if layer.holds(at)
        )
        later = self._lines(change.start)[1:]
        return is_new and layer.last is not None and all(layer.last <= line for line in later)

    def _is_lost(self, read: Read, start: int) -> bool:
        """Whether approval would undo a price that is not the one the list was compared with."""
        for line in self._lines(start):
            now = fold(self.changes, line)
            for thing, layers in read.listed.items():
                state = State({thing: layers}, {})
                said, was = state.timeline(thing, 0), read.before.timeline(thing, 0)
                if now.timeline(thing, 0) not in (said, was):
                    return True
        return False

    def _now_called(self, change: Change) -> str:
        versions = {one.version: one for one in self.store.list_versions()}
        name = change.version
        while (became := versions[name].became) is not None:
            name = became
        return name

    def _seen(self) -> Sequence[object]:
        return self.store.list_versions()

    def _book_at(self, at: int) -> Book:
        version = self.store.current_at(day(at))
        if version.version not in self.books:
            self.books[version.version] = self.store.open_book(version)
        return self.books[version.version]


def _rate(thing: Thing, layer: Layer) -> Rate:
    provider, meter = thing
    dates = {"valid_from": day(layer.first), "valid_to": _end(layer)}
    return rate(meter, layer.amount, provider=provider, **dates)


def _end(layer: Layer) -> datetime | None:
    return None if layer.last is None else day(layer.last)


def _amount(book: Book, thing: Thing, at: int, payer: Payer | None = None) -> str | None:
    provider, meter = thing
    card = book.find_card(provider, "m", day(at), payer)
    found = None
    if card is not None:
        found = card.find_rate(Meter(meter), tier="standard", region=None, input_total=1)
    return None if found is None else found.amount_text


def test_what_holds_is_what_was_asked_for(sqlite_template):
    """Whatever is set, scheduled, agreed, ended, imported, approved and rejected, in any order."""
    run_state_machine_as_test(
        lambda: PriceMachine(sqlite_template),
        settings=settings(max_examples=60, stateful_step_count=20, deadline=None),
    )
