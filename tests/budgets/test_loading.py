"""Loading: what the ledger knows reaches the counters once, in the right window."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from gateway.budgets.loading import ROLLING_PARTS, load_bases, read_corrected
from gateway.budgets.memory import MemoryBudgets
from gateway.budgets.rules import Unit
from gateway.clock import EPOCH, epoch_us
from tests.budgets.builders import budget, instant, usd

AT = instant("2026-11-23T10:00:00+00:00")


@dataclass(frozen=True)
class Sums:
    """What a span came to."""

    settled: int
    parked: int
    first_us: int | None = None


class SmallLedger:
    """Rows of time, scope, settled and parked; counts those of journals up to their cut."""

    def __init__(self, *rows: tuple[str, dict[str, str], int, int], seq: int = 1) -> None:
        self.rows = rows
        self.seq = seq

    def sum_spent(
        self,
        scope: Mapping[str, str],
        unit: Unit,
        start_us: int,
        end_us: int | None,
        up_to: Mapping[str, int],
    ) -> Sums:
        found = [
            row
            for row in self.rows
            if row[1] == scope
            and start_us <= epoch_us(instant(row[0]))
            and (end_us is None or epoch_us(instant(row[0])) < end_us)
            and self.seq <= up_to.get("w-1", self.seq)
        ]
        first_us = min((epoch_us(instant(row[0])) for row in found), default=None)
        return Sums(sum(row[2] for row in found), sum(row[3] for row in found), first_us)


TEAM = {"team": "search"}
LEDGER = SmallLedger(
    ("2020-01-01T00:00:00+00:00", TEAM, 100, 0),
    ("2026-10-31T22:59:59.999999+00:00", TEAM, 10, 0),
    ("2026-10-31T23:00:00+00:00", TEAM, 1, 0),
    ("2026-11-23T09:59:30+00:00", TEAM, 2, 4),
    ("2026-11-23T10:00:00+00:00", TEAM, 5, 0),
    ("2026-11-23T10:00:00+00:00", {"team": "ads"}, 1000, 0),
    ("2026-12-24T10:00:00+00:00", TEAM, 10_000, 0),  # by a machine whose clock is wrong
)


@pytest.mark.parametrize(
    ("window", "spent", "parked"),
    [
        ("month", 12, 4),
        ("day", 11, 4),
        ("minute", 5, 0),
        ("total", 10_122, 4),
        ("rolling:60", 11, 4),
    ],
)
def test_a_new_budget_starts_with_what_its_window_has_seen(
    window: str, spent: int, parked: int
) -> None:
    """Windows are those of the budget's zone; other scopes do not count."""
    memory = MemoryBudgets()
    one = budget(f"B {window} 5000 tokens", scope=TEAM, timezone="Europe/Berlin")
    new = memory.install([one], AT)

    asyncio.run(load_bases(memory, LEDGER, new, {"w-1": 1}, AT))

    status = memory.status(AT)[0]
    assert (spent, parked) == (status.spent, status.parked)


def test_records_after_the_cut_are_left_to_the_memory() -> None:
    """They were settled after the budget was installed, and counted then."""
    memory = MemoryBudgets()
    new = memory.install([budget("B total 5 USD", scope=TEAM)], AT)
    ledger = SmallLedger(("2026-11-23T09:00:00+00:00", TEAM, usd("3"), 0), seq=8)

    asyncio.run(load_bases(memory, ledger, new, {"w-1": 7}, AT))

    assert 0 == memory.status(AT)[0].spent


def test_a_rolling_window_forgets_part_by_part() -> None:
    """What was loaded ages out in parts: never early, at most a part of the window late."""
    memory = MemoryBudgets()
    new = memory.install([budget("B rolling:60 5000 tokens", scope=TEAM)], AT)
    asyncio.run(load_bases(memory, LEDGER, new, {}, AT))

    def spent_at(at: datetime) -> int:
        return memory.status(at)[0].spent

    assert 11 == spent_at(AT + timedelta(seconds=29.999999))
    assert 5 == spent_at(AT + timedelta(seconds=30 + 60 / ROLLING_PARTS))
    assert 5 == spent_at(AT + timedelta(seconds=59.999999))
    assert 0 == spent_at(AT + timedelta(seconds=60 + 60 / ROLLING_PARTS))


@pytest.mark.parametrize(
    ("window", "valid_from", "carried"),
    [
        ("month", "2026-01-01T00:00:00+00:00", 4990),
        ("month", "2026-10-31T23:00:00+00:00", 0),
        ("day", "2026-11-22T12:00:00+00:00", 5000),
        ("day", "2026-11-22T23:00:00+00:00", 0),
    ],
)
def test_a_budget_that_rolls_over_learns_what_the_window_before_left(
    window: str, valid_from: str, carried: int
) -> None:
    """The ledger knows both windows; before the budget was in force nothing was left."""
    memory = MemoryBudgets()
    one = budget(
        f"B {window} 5000 tokens",
        scope=TEAM,
        timezone="Europe/Berlin",
        rollover=True,
        valid_from=instant(valid_from),
    )
    new = memory.install([one], AT)

    asyncio.run(load_bases(memory, LEDGER, new, {}, AT))

    status = memory.status(AT)[0]
    assert (5000 + carried, carried) == (status.limit, status.rolled_over)
    assert {"month": 12, "day": 11}[window] == status.spent


@pytest.mark.parametrize(
    ("window", "spent"), [("month", 11), ("total", 11), ("rolling:86400", 11), ("minute", 5)]
)
def test_what_was_spent_before_a_budget_was_in_force_does_not_count(
    window: str, spent: int
) -> None:
    """However long the window had been going on."""
    memory = MemoryBudgets()
    first = instant("2026-11-23T09:00:00+00:00")
    last = instant("2026-11-24T00:00:00+00:00")
    one = budget(f"B {window} 5000 tokens", scope=TEAM, valid_from=first, valid_to=last)
    new = memory.install([one], AT)

    asyncio.run(load_bases(memory, LEDGER, new, {}, AT))

    assert spent == memory.status(AT)[0].spent
    # Once it is over it shows how its last window ended.
    assert last == memory.status(last)[0].window.end or window == "minute"


def test_a_window_for_all_time_knows_when_its_first_call_came() -> None:
    """Which is what a forecast needs; a later call does not change it, an earlier one does."""
    memory = MemoryBudgets()
    one = budget("B total 5000000 tokens", scope=TEAM)
    new = memory.install([one], AT)
    assert memory.status(AT)[0].since is None

    asyncio.run(load_bases(memory, LEDGER, new, {}, AT))

    assert instant("2020-01-01T00:00:00+00:00") == memory.status(AT)[0].since
    memory.add_base(one.id, AT, settled=1, parked=0)
    memory.add_base(one.id, EPOCH, settled=1, parked=0)
    assert instant("2020-01-01T00:00:00+00:00") == memory.status(AT)[0].since
    memory.add_base(one.id, instant("2019-01-01T00:00:00+00:00"), settled=1, parked=0)
    assert instant("2019-01-01T00:00:00+00:00") == memory.status(AT)[0].since


class Corrections:
    """Corrections of calls by time, all of one scope."""

    def __init__(self, *rows: tuple[str, int, int]) -> None:
        self.rows = rows

    def sum_corrected(
        self,
        scope: Mapping[str, str],
        unit: Unit,
        start_us: int,
        end_us: int | None,
        span: tuple[int, int],
    ) -> Sums:
        assert ({}, Unit.USD, (3, 5)) == (scope, unit, span)
        found = [
            row
            for row in self.rows
            if start_us <= epoch_us(instant(row[0]))
            and (end_us is None or epoch_us(instant(row[0])) < end_us)
        ]
        return Sums(sum(row[1] for row in found), sum(row[2] for row in found))


@pytest.mark.parametrize("window", ["day", "rolling:86400"])
def test_corrections_change_what_a_window_has_spent(window: str) -> None:
    """Calls of the window alone count; one that became known is parked no longer."""
    memory = MemoryBudgets()
    one = budget(f"B {window} 5 USD")
    memory.install([one], AT)
    memory.add_base(one.id, AT, settled=100, parked=40)
    reader = Corrections(
        ("2026-11-23T09:00:00+00:00", 7, 0),
        ("2026-11-23T05:00:00+00:00", -3, 0),
        ("2026-11-23T03:00:00+00:00", 30, -40),
        ("2026-11-21T09:00:00+00:00", 1000, 0),
    )
    for base in read_corrected(reader, [one], (3, 5), AT):
        memory.add_base(base.budget_id, base.window_start, base.settled, base.parked)

    status = memory.status(AT)[0]
    assert (134, 0) == (status.spent, status.parked)


def test_a_cheaper_call_is_never_forgotten_before_its_correction() -> None:
    """A rolling window may count too much for a moment, never too little."""
    memory = MemoryBudgets()
    one = budget("B rolling:60 5 USD")
    memory.install([one], AT)
    call_at = AT - timedelta(seconds=1)
    memory.add_base(one.id, call_at, settled=100, parked=0)
    reader = Corrections((call_at.isoformat(), -30, 0))
    for base in read_corrected(reader, [one], (3, 5), AT):
        memory.add_base(base.budget_id, base.window_start, base.settled, base.parked)

    seen = [memory.status(call_at + timedelta(seconds=n / 2))[0].spent for n in range(2, 130)]
    assert 70 == seen[0]
    assert {70, 100, 0} >= set(seen)
    assert sorted(seen[:118]) == seen[:118]
    assert 0 == seen[-1]
