"""A machine that does anything to several workers that share budgets, over a real server.

What is true is added up from what happened to each call; no counter is asked for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.budgets.allowance import rolled_over, window_before
from gateway.budgets.counters import ROLLING_STEPS
from gateway.budgets.holds import Hold
from gateway.budgets.loading import ROLLING_PARTS
from gateway.budgets.protocol import BudgetsUnavailable
from gateway.budgets.rules import Budget, BudgetExhausted, Demand, Mode, Subject, is_in_scope
from gateway.budgets.windows import BudgetWindow, RollingWindow
from gateway.clock import epoch_us
from tests.budgets.builders import budget, instant, subject
from tests.budgets.shared_kit import Crew, Mate
from tests.valkey import Valkey, running_valkey

NAMES = ["w-1", "w-2", "w-3"]
CALLER = subject()
CALLERS = [CALLER, subject(team="ads")]
BEGIN = instant("2026-11-23T10:00:00+00:00")
# Clocks step back by at most this much behind the latest they ever showed.
BACK = timedelta(seconds=50)
BUDGETS = (
    budget("TOTAL total 300 tokens"),
    budget("CALLS rolling:60 12 requests"),
    budget("MINUTE minute 90 tokens"),
    budget("SOFT total 50 tokens", mode="soft"),
    budget(
        "ROLL minute 30 tokens",
        scope={"team": "ads"},
        rollover="25 tokens",
        valid_from=BEGIN - timedelta(hours=1),
    ),
)
LATER = budget("LATER total 200 tokens")
amounts = st.integers(min_value=0, max_value=40)


@dataclass(eq=False)
class Call:
    """What became of one admitted call."""

    mate: Mate
    hold: Hold
    is_open: bool = True
    used: int | None = None

    def amount(self, one: Budget) -> int:
        """What it takes from a budget: what it used, else what was held for it."""
        asked = 1 if one.unit.value == "requests" else self.hold.held[1]
        if one.unit.value == "requests" or self.used is None:
            return asked if self.is_open or self.used is not None or self.is_parked else 0
        return self.used

    is_parked: bool = False

    @property
    def overrun(self) -> int:
        """How far it went beyond what was held."""
        return max(0, (self.used or 0) - self.hold.held[1])


class SharedMachine(RuleBasedStateMachine):
    """Reserve, settle, park, release, tell, crash, restart, stop, lose Redis, move the clock.

    The ledger lags behind the journals, budgets change while workers run, and clocks step back.
    """

    server: ClassVar[Valkey]

    def __init__(self) -> None:
        super().__init__()
        self.crew = Crew(self.server, BEGIN, BUDGETS)
        self.crew.is_lagging = True
        self.latest = BEGIN
        # The largest limit a budget ever had, and what was there when it came.
        self.most = {one.id: one.limit for one in BUDGETS}
        self.excess = {one.id: 0 for one in BUDGETS}
        self.mates = {name: self.crew.start(name) for name in NAMES[:2]}
        self.calls: list[Call] = []
        self.minted = 0

    def teardown(self) -> None:
        """Once all is settled and everybody has spoken, the books balance and the rest is free."""
        try:
            self._balance()
        finally:
            self.crew.close()

    def _balance(self) -> None:
        self.crew.clock.at = self.latest
        self._all_speak()
        for mate in self.mates.values():
            for shown in mate.budgets.status(self.latest):
                if shown.budget.id not in ("CALLS", "MINUTE"):
                    assert (self._true(shown.budget), 0) == (shown.spent, shown.held)
        self._check_carried()
        self._spend_the_rest()

    def _all_speak(self) -> None:
        for name in NAMES:
            self.come(name)
        for call in self.calls:
            if call.is_open:
                self._settle(call, call.hold.held[1])
        for _ in range(4):
            for mate in self.mates.values():
                self.crew.ship(mate.name)
                self.crew.run(mate.install(self.crew.budgets))
                mate.tick()
                self.crew.run(mate.sync.look_around())

    def _spend_the_rest(self) -> None:
        lasting = [one for one in self.crew.budgets if one.id in ("TOTAL", "LATER")]
        left = min(one.limit - self._true(one) for one in lasting)
        # Minutes later only the budgets for all time have anything in them.
        self.crew.clock.move(600)
        mate = self.mates[NAMES[0]]
        is_hard = self.crew.budgets[0].mode is Mode.HARD
        if is_hard and 0 < left <= self.crew.budgets[2].limit:
            whole = Demand(cost_pico=0, tokens=left)
            assert isinstance(mate.hold("the rest", CALLER, whole), Hold)
            more = Demand(cost_pico=0, tokens=1)
            assert isinstance(self.mates[NAMES[1]].hold("more", CALLER, more), BudgetExhausted)

    def _check_carried(self) -> None:
        """Once everybody has spoken, all take over what all left, and exactly that."""
        one = self.crew.budgets[4]
        before = window_before(one, one.window.window_at(self.latest))
        assert before is not None
        carried = rolled_over(one, one.limit - self._used(one, before))
        shown = [mate.budgets.status(self.latest)[4] for mate in self.mates.values()]
        assert [carried] * len(shown) == [status.rolled_over for status in shown]

    def _start(self, name: str) -> None:
        """Start a worker, on its journal."""
        self._recover(name)
        self.mates[name] = self.crew.start(name)

    def _recover(self, name: str) -> None:
        """Calls that were open when a worker died become records of their ceiling, and all ship."""
        for call in self.calls:
            if call.is_open and call.mate.name == name:
                call.is_open, call.used = False, call.hold.held[1]
                used = Demand(cost_pico=0, tokens=call.used)
                call.mate.record(call.hold, used)
        self.crew.ship(name)

    def _settle(self, call: Call, used: int | None) -> None:
        call.mate.settle(call.hold, Demand(cost_pico=0, tokens=used))
        call.is_open, call.used, call.is_parked = False, used, used is None
        again = Demand(cost_pico=0, tokens=used)
        assert not call.mate.budgets.settle(call.hold, again)

    @rule(data=st.data(), asked=amounts, caller=st.sampled_from(CALLERS))
    def reserve(self, data: st.DataObject, asked: int, caller: Subject) -> None:
        if not self.mates:
            return
        mate = self.mates[data.draw(st.sampled_from(sorted(self.mates)))]
        self.minted += 1
        try:
            out = mate.hold(f"H{self.minted}", caller, Demand(cost_pico=0, tokens=asked))
        except BudgetsUnavailable:
            return
        if isinstance(out, Hold):
            self.calls.append(Call(mate, out))

    @rule(data=st.data(), asked=st.integers(20, 40))
    def fill(self, data: st.DataObject, asked: int) -> None:
        """A call that takes much of what rolls over."""
        self.reserve(data, asked, CALLERS[1])

    def _open_calls(self) -> list[Call]:
        alive = set(self.mates.values())
        return [call for call in self.calls if call.is_open and call.mate in alive]

    @precondition(lambda self: self._open_calls())
    @rule(data=st.data(), used=amounts | st.none())
    def settle(self, data: st.DataObject, used: int | None) -> None:
        self._settle(data.draw(st.sampled_from(self._open_calls())), used)

    @precondition(lambda self: self._open_calls())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self._open_calls()))
        assert call.mate.budgets.release(call.hold)
        call.is_open = False

    @rule(name=st.sampled_from(NAMES), again=st.sampled_from(["tell", "look", "ship", "install"]))
    def work(self, name: str, again: str) -> None:
        """What a worker does by itself, now and then."""
        if again == "ship":
            self.crew.ship(name)
        elif name in self.mates:
            mate = self.mates[name]
            if again == "tell":
                mate.tick()
            else:
                look = again == "look"
                doing = mate.sync.look_around() if look else mate.install(self.crew.budgets)
                self.crew.run(doing)

    @rule(name=st.sampled_from(NAMES), what=st.sampled_from(["come", "crash", "stop", "sweep"]))
    def happen(self, name: str, what: str) -> None:
        {"come": self.come, "crash": self.crash, "stop": self.stop, "sweep": self.sweep}[what](name)

    def come(self, name: str) -> None:
        if name not in self.mates:
            self._start(name)

    def crash(self, name: str) -> None:
        if name in self.mates:
            self.crew.run(self.mates.pop(name).die())

    def stop(self, name: str) -> None:
        if name in self.mates:
            for call in self._open_calls():
                if call.mate.name == name:
                    self._settle(call, call.hold.held[1])
            self.crew.run(self.mates.pop(name).leave())

    def sweep(self, name: str) -> None:
        """Another process empties the journal of a worker that died, and says that it is gone."""
        known = self.crew.workers.rows.get(name)
        if name not in self.mates and known is not None and known.retired_at_us is None:
            self._recover(name)
            self.crew.workers.retire(name, epoch_us(self.crew.clock.now()))

    @rule(which=st.sampled_from([0, 1, 2, 4]), limit=st.integers(1, 120))
    def change_limit(self, which: int, limit: int) -> None:
        """Somebody changes a limit; each worker hears of it when it does."""
        changed = replace(self.crew.budgets[which], limit=limit)
        self.most[changed.id] = max(self.most[changed.id], limit)
        kept = self.crew.budgets
        self.crew.budgets = (*kept[:which], changed, *kept[which + 1 :])

    @rule(mode=st.sampled_from([Mode.SOFT, Mode.HARD]))
    def change_mode(self, mode: Mode) -> None:
        """What a soft budget let through by then stays; everybody hears of the change at once."""
        old = self.crew.budgets[0]
        if old.mode is mode:
            return
        changed = replace(old, mode=mode)
        self.crew.budgets = (changed, *self.crew.budgets[1:])
        for mate in self.mates.values():
            self.crew.run(mate.install(self.crew.budgets))
        # Exact once everybody has told what was let through and heard it of all others.
        self.crew.clock.move(2)
        self.latest = max(self.latest, self.crew.clock.now())
        for _ in range(2):
            for mate in self.mates.values():
                mate.tick()
        if mode is Mode.HARD:
            self.excess[old.id] = max(self.excess[old.id], self._true(old))

    @rule()
    def change_later(self) -> None:
        """A budget comes, and everybody hears of it at once; or it goes."""
        if len(self.crew.budgets) > len(BUDGETS):
            self.crew.budgets = self.crew.budgets[:-1]
        else:
            self.crew.budgets = (*self.crew.budgets, LATER)
            self.most[LATER.id] = LATER.limit
            self.excess[LATER.id] = self._true(LATER)
        for mate in self.mates.values():
            self.crew.run(mate.install(self.crew.budgets))

    @rule()
    def lose_redis(self) -> None:
        self.server.empty()

    @rule(by=st.sampled_from([0.5, 3, 20, 40, 61]))
    def wait(self, by: float) -> None:
        self.crew.clock.move(by)
        self.latest = max(self.latest, self.crew.clock.now())

    @rule(by=st.sampled_from([1, 15, 45]))
    def step_back(self, by: int) -> None:
        self.crew.clock.at = max(self.crew.clock.now() - timedelta(seconds=by), self.latest - BACK)

    def _within(self, one: Budget, window: BudgetWindow) -> Iterator[Call]:
        """Calls that a budget must count in a window; those that may be forgotten late are not."""
        for call in self.calls:
            is_in = window.end is None or call.hold.at < window.end
            if is_in and window.start <= call.hold.at and is_in_scope(one.scope, call.hold.subject):
                yield call

    def _used(self, one: Budget, window: BudgetWindow) -> int:
        return sum(call.amount(one) for call in self._within(one, window))

    def _true(self, one: Budget) -> int:
        return self._used(one, one.window.window_at(self.crew.clock.now()))

    def _over(self, one: Budget, window: BudgetWindow) -> int:
        """What no hold could have stopped."""
        if one.unit.value != "tokens":
            return self.excess[one.id]
        return self.excess[one.id] + sum(call.overrun for call in self._within(one, window))

    @invariant()
    def nothing_is_overspent(self) -> None:
        """Whatever went wrong: settled and held of all workers are within the limit."""
        now = self.crew.clock.now()
        for one in (*self.crew.budgets[:3], *self.crew.budgets[5:]):
            if one.mode is Mode.SOFT and one.id == "TOTAL":
                continue
            if one.id != "CALLS" or now == self.latest:
                window = one.window.window_at(now)
                assert self._used(one, window) <= self.most[one.id] + self._over(one, window)

    @invariant()
    def rollover_makes_no_money(self) -> None:
        """A window never uses more than it has, and what the one before did not use."""
        one = self.crew.budgets[4]
        most = self.most[one.id]
        for at in self._minutes():
            window = one.window.window_at(at)
            before = one.window.window_at(window.start - timedelta(microseconds=1))
            left = max(0, min(one.rollover_max or 0, most - self._used(one, before)))
            over = self._over(one, window) + self._over(one, before)
            assert self._used(one, window) <= most + left + over

    def _minutes(self) -> set[datetime]:
        return {call.hold.at.replace(second=0, microsecond=0) for call in self.calls}


assert isinstance(BUDGETS[1].window, RollingWindow)
assert ROLLING_PARTS < ROLLING_STEPS


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with running_valkey() as server:
        SharedMachine.server = server
        yield


TestSharedMachine = SharedMachine.TestCase
TestSharedMachine.settings = settings(stateful_step_count=30)
