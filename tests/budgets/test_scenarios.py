"""Scenarios of holds and budgets, written so that an accountant can review them.

Each file in ``scenarios`` is a story of lines ``<verb> <words> -> <what must come out>``:

- ``at <instant>`` moves the clock, also back.
- ``budget <id> <scope> <window> <limit> <unit> [field=value ...]`` adds or replaces a budget; the
  scope is ``all`` or ``part=value,part=value``; comes out as ``new`` or ``kept``. A field is one of
  the configuration; ``rollover=2`` means at most two of the budget's unit.
- ``topup <id> <instant> <amount>`` adds to the window of that instant.
- ``drop <id>`` removes one.
- ``base <id> <window start> <settled> <parked>`` adds what the ledger knows.
- ``open <hold> <call> <cost> [<tokens>t]`` asks for a hold; the call is written like a scope.
- ``settle <hold> <cost> [<tokens>t]``, ``release <hold>`` end one.
- ``show <id>``, ``tight <hold>``, ``holds`` read. ``?`` is an amount nobody knows.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.budgets.holds import Hold
from gateway.budgets.memory import MemoryBudgets
from gateway.budgets.protocol import BudgetStore
from gateway.budgets.rules import (
    Budget,
    BudgetExhausted,
    BudgetId,
    BudgetStatus,
    Demand,
    Subject,
    TopUp,
    Unit,
    amount_to_text,
)
from gateway.budgets.shared import share_of
from tests.budgets.builders import at_once, budget, instant, subject, usd
from tests.budgets.shared_kit import Crew
from tests.valkey import Valkey

SCENARIOS: Final = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


class Story:
    """Plays the lines of one scenario against budgets of one process."""

    def __init__(self, memory: MemoryBudgets | None = None) -> None:
        self.budgets: dict[str, Budget] = {}
        self.holds: dict[str, Hold] = {}
        self.memory = memory or MemoryBudgets()
        self.store: BudgetStore = self.memory
        self.at = instant("2026-11-23T10:00:00+00:00")
        self.verbs: dict[str, Callable[..., str]] = {
            "at": self.move,
            "budget": self.add_budget,
            "topup": self.top_up,
            "drop": self.drop,
            "base": self.add_base,
            "open": self.open,
            "settle": self.settle,
            "release": self.release,
            "show": self.show,
            "tight": self.tight,
            "holds": lambda: str(self.memory.open_holds),
        }

    def play(self, line: str) -> str:
        verb, *words = line.split()
        return self.verbs[verb](*words)

    def move(self, text: str) -> str:
        self.at = instant(text)
        return ""

    def add_budget(self, name: str, scope: str, window: str, *rest: str) -> str:
        amount, unit, *fields = rest
        given: dict[str, Any] = dict(field.split("=") for field in fields)
        if "rollover" in given:
            cap = given["rollover"]
            given["rollover"] = cap == "true" or f"{cap} {unit}"
        for bound in {"valid_from", "valid_to"} & given.keys():
            given[bound] = instant(given[bound])
        made = budget(f"{name} {window} {amount} {unit}", scope=_parts(scope), **given)
        kept = self.budgets.get(name)
        self.budgets[name] = replace(made, top_ups=kept.top_ups if kept else ())
        return self._install(name)

    def top_up(self, name: str, at: str, amount: str) -> str:
        one = self.budgets[name]
        pico = usd(amount) if one.unit is Unit.USD else int(amount)
        added = TopUp(at=instant(at), amount=pico)
        self.budgets[name] = replace(one, top_ups=(*one.top_ups, added))
        return self._install(name)

    def drop(self, name: str) -> str:
        del self.budgets[name]
        return self._install(name)

    def _install(self, name: str) -> str:
        new = self.memory.install(self.budgets.values(), self.at)
        return "new" if name in {one.id for one in new} else "kept"

    def add_base(self, name: str, start: str, settled: str, parked: str) -> str:
        unit = self.budgets[name].unit if name in self.budgets else Unit.USD
        amounts = [usd(text) if unit is Unit.USD else int(text) for text in (settled, parked)]
        self.memory.add_base(BudgetId(name), instant(start), *amounts)
        return ""

    def open(self, name: str, call: str, *amounts: str) -> str:
        caller = subject(**{part.replace(".", "_"): one for part, one in _parts(call).items()})
        match self.reserve(name, caller, _demand(*amounts)):
            case BudgetExhausted() as refusal:
                unit = refusal.budget.unit
                asked = "?" if refusal.asked is None else amount_to_text(refusal.asked, unit)
                return (
                    f"{refusal.budget.id} exhausted: spent {amount_to_text(refusal.spent, unit)} "
                    f"held {amount_to_text(refusal.held, unit)} asked {asked}, "
                    f"room {_when(refusal.room_at)}"
                )
            case hold:
                self.holds[name] = hold
                return "open"

    def reserve(self, name: str, caller: Subject, asked: Demand) -> Hold | BudgetExhausted:
        return at_once(self.store.reserve(name, caller, asked, self.at))

    def settle(self, name: str, *amounts: str) -> str:
        ended = self.store.settle(self.holds[name], _demand(*amounts))
        return "settled" if ended else "ended before"

    def release(self, name: str) -> str:
        return "released" if self.store.release(self.holds[name]) else "ended before"

    def show(self, name: str) -> str:
        return _shown({one.budget.id: one for one in self.memory.status(self.at)}[BudgetId(name)])

    def tight(self, name: str) -> str:
        status = self.store.tightest(self.holds[name])
        return f"{status.budget.id} {_shown(status)}" if status else "no budget"


class SharedStory(Story):
    """Plays them against budgets that are shared, where another worker sits on what it can."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.other = crew.start("w-other")
        self.mate = crew.start("w-this")
        super().__init__(self.mate.budgets)
        self.move(self.at.isoformat())

    def move(self, text: str) -> str:
        super().move(text)
        self.crew.clock.at = self.at
        return ""

    def _install(self, name: str) -> str:
        self.crew.run(self.other.install(self.budgets.values()))
        self.other.tick()
        new = self.crew.run(self.mate.install(self.budgets.values()))
        self.mate.tick()
        return "new" if name in {one.id for one in new} else "kept"

    def show(self, name: str) -> str:
        if self.budgets[name].rollover_max is not None:
            # What was taken over is as of the last look, half a second old at most, and within a
            # third of a second nobody is called upon again: both have passed.
            self.mate.budgets._recalls.clear()
            for account in self.mate.budgets.accounts():
                for counter in account.counters():
                    share_of(counter).full_until_s = 0
            for mate in (self.mate, self.other, self.mate):
                mate.tick()
        return super().show(name)

    def reserve(self, name: str, caller: Subject, asked: Demand) -> Hold | BudgetExhausted:
        self.other.hold(f"{name}-other", caller, Demand(cost_pico=1, tokens=1, requests=1))
        for held in tuple(self.other.budgets._open.values()):
            self.other.budgets.release(held)
        self.other.tick()
        return self.mate.hold(name, caller, asked)


def _parts(text: str) -> dict[str, str]:
    return {} if text == "all" else dict(part.split("=") for part in text.split(","))


def _demand(cost: str, tokens: str = "0t") -> Demand:
    return Demand(
        cost_pico=None if cost == "?" else usd(cost),
        tokens=None if tokens == "?t" else int(tokens.removesuffix("t")),
    )


def _when(at: datetime | None) -> str:
    return at.isoformat().replace("+00:00", "Z") if at else "never or unknown"


def _shown(status: BudgetStatus) -> str:
    amounts = {
        "spent": status.spent,
        "held": status.held,
        "remaining": status.remaining,
        "parked": status.parked,
    }
    unit = status.budget.unit
    shown = [
        f"{name} {amount_to_text(amount, unit)}"
        for name, amount in amounts.items()
        if amount or name != "parked"
    ]
    if status.topped_up:
        shown.append(f"topped up {amount_to_text(status.topped_up, unit)}")
    if status.rolled_over:
        shown.append(f"rolled over {amount_to_text(status.rolled_over, unit)}")
    return " ".join(shown if status.is_in_force else [*shown, "not in force"])


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_story_goes_as_told(path: Path) -> None:
    """Every line of the scenario comes out as written."""
    check(Story(), path)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_story_goes_as_told_where_budgets_are_shared(path: Path, valkey: Valkey) -> None:
    """The same over Redis, while another worker holds claims that it does not use."""
    with closing(Crew(valkey, instant("2026-11-23T10:00:00+00:00"), [])) as crew:
        check(SharedStory(crew), path)


def check(story: Story, path: Path) -> None:
    """Play a scenario and compare what comes out."""
    told = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words, _, expected = line.partition("#")[0].partition("->")
        if words.strip():
            told.append((f"{number}: {words.strip()}", expected.strip(), story.play(words)))

    assert [row[:2] for row in told] == [(row[0], row[2]) for row in told]


def test_every_verb_is_told_somewhere() -> None:
    """The stories use the whole notation."""
    verbs = {
        line.split()[0] for path in SCENARIOS for line in path.read_text().splitlines() if line
    }

    assert set(Story().verbs) <= verbs
