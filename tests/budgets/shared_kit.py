"""Workers that share budgets over a real server, in one event loop, with a clock moved by hand.

Their ledger is a list of what was recorded; it answers the questions that the real one is asked.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from gateway.budgets.holds import Hold
from gateway.budgets.rules import (
    Budget,
    BudgetExhausted,
    BudgetStatus,
    Demand,
    Subject,
    Unit,
    is_in_scope,
)
from gateway.budgets.shared import SharedBudgets
from gateway.budgets.shared_link import SharedLink
from gateway.budgets.shared_past import SharedPast
from gateway.budgets.shared_sync import SharedSync
from gateway.clock import epoch_us
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.filters import NO_OTHERS
from gateway.ledger.workers import Worker
from tests.budgets.builders import demand, subject
from tests.valkey import Valkey

T = TypeVar("T")
CALLER = subject()


class HandClock:
    """A clock that is set."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return self.at.timestamp()

    def move(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass(frozen=True)
class Row:
    """One record of the ledger."""

    writer: str
    seq: int
    at: datetime
    subject: Subject
    settled: Demand
    parked: Demand


@dataclass(frozen=True)
class Sums:
    """What a span came to."""

    settled: int
    parked: int
    first_us: int | None = None


@dataclass
class ListLedger:
    """Every record, and corrections by number: when the call was, how much, and what it frees."""

    rows: list[Row] = field(default_factory=list)
    corrections: list[tuple[datetime, int, int]] = field(default_factory=list)
    is_down: bool = False

    def seqs(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.writer] = max(row.seq, found.get(row.writer, 0))
        if self.corrections:
            found["corrections"] = len(self.corrections)
        return found

    def sum_spent(
        self,
        scope: Mapping[str, str],
        unit: Unit,
        start_us: int,
        end_us: int | None,
        up_to: Mapping[str, int],
    ) -> Sums:
        if self.is_down:
            raise StoreUnavailable("the ledger is away")
        rest = 0 if NO_OTHERS in up_to else 1 << 62
        rows = [
            row
            for row in self.rows
            if is_in_scope(scope, row.subject)
            and start_us <= epoch_us(row.at)
            and (end_us is None or epoch_us(row.at) < end_us)
            and row.seq <= up_to.get(row.writer, rest)
        ]
        made = self.corrections[: up_to.get("corrections", rest)] if unit is Unit.USD else []
        corrected = sum(one[1] for one in made if start_us <= epoch_us(one[0]))
        return Sums(
            corrected + sum(row.settled.amount(unit) or 0 for row in rows),
            sum(row.parked.amount(unit) or 0 for row in rows),
        )

    def sum_corrected(
        self,
        scope: Mapping[str, str],
        unit: Unit,
        start_us: int,
        end_us: int | None,
        span: tuple[int, int],
    ) -> Sums:
        made = self.corrections[span[0] : span[1]] if unit is Unit.USD else []
        found = [
            one
            for one in made
            if start_us <= epoch_us(one[0]) and (end_us is None or epoch_us(one[0]) < end_us)
        ]
        return Sums(sum(one[1] for one in found), sum(one[2] for one in found))


class ListWorkers:
    """The list of workers, in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, Worker] = {}

    def load(self) -> tuple[Worker, ...]:
        return tuple(self.rows.values())

    def register(self, writer: str, from_seq: int, now_us: int) -> None:
        self.rows[writer] = Worker(
            writer=writer,
            from_seq=from_seq,
            started_at_us=now_us,
            seen_at_us=now_us,
            retired_at_us=None,
        )

    def see(self, writer: str, now_us: int) -> None:
        old = self.rows[writer]
        self.rows[writer] = Worker(
            writer=writer,
            from_seq=old.from_seq,
            started_at_us=old.started_at_us,
            seen_at_us=now_us,
            retired_at_us=old.retired_at_us,
        )

    def retire(self, writer: str, now_us: int) -> bool:
        old = self.rows[writer]
        self.rows[writer] = Worker(
            writer=writer,
            from_seq=old.from_seq,
            started_at_us=old.started_at_us,
            seen_at_us=old.seen_at_us,
            retired_at_us=now_us,
        )
        return True


class Crew:
    """A deployment: a server, a ledger, and workers that come and go.

    Attributes:
        clock: Everybody's.
        ledger: What was recorded.
        workers: The list of workers.
        budgets: What is in force for workers that start.
        journals: What each worker has recorded and the ledger does not have yet.
        is_lagging: Whether records stay in the journals until they are shipped.
    """

    is_lagging = False

    def __init__(self, server: Valkey, at: datetime, budgets: Iterable[Budget]) -> None:
        self.server = server
        self.clock = HandClock(at)
        self.ledger = ListLedger()
        self.workers = ListWorkers()
        self.budgets = tuple(budgets)
        self.runner = asyncio.Runner()
        self.seqs: dict[str, int] = {}
        self.journals: dict[str, list[Row]] = {}
        self.mates: list[Mate] = []
        server.empty()

    def run(self, one: Coroutine[Any, Any, T]) -> T:
        """Run something in the loop that all workers live in."""
        return self.runner.run(one)

    def start(self, name: str) -> "Mate":
        """Start a worker, or start it again."""
        mate = Mate(self, name)
        self.mates.append(mate)
        self.run(mate.begin())
        return mate

    def ship(self, name: str) -> None:
        """Bring a journal to the ledger."""
        self.ledger.rows += self.journals.pop(name, [])

    def close(self) -> None:
        """End everybody."""
        for mate in self.mates:
            self.run(mate.die())
        self.runner.close()


class Mate:
    """One worker.

    Attributes:
        name: That of its journal.
        budgets: Its budgets.
        sync: What keeps them in agreement.
        open_link: Makes its way to Redis.
    """

    open_link: Callable[..., SharedLink] = SharedLink

    def __init__(self, crew: Crew, name: str) -> None:
        self.crew = crew
        self.name = name
        self.is_alive = True

    async def begin(self) -> None:
        """Agree, install the budgets, learn their past, and listen."""
        await self.join()
        await self.install(self.crew.budgets)
        await self.sync.tick()
        self.ear = asyncio.create_task(self.sync.listen())
        await self._heard()

    async def join(self) -> None:
        """Agree, without a budget yet."""
        crew = self.crew
        now_us = epoch_us(crew.clock.now())
        self.link = self.open_link(
            [crew.server.url], "acme", self.name, crew.seqs.get(self.name, 0), now_us
        )
        self.budgets = SharedBudgets(self.link, crew.clock)
        self.past = SharedPast(self.budgets, crew.ledger, crew.workers, crew.clock)
        self.sync = SharedSync(self.budgets, self.past, crew.workers, crew.clock)
        await self.sync.register()
        await self.sync.tick()

    async def _heard(self) -> None:
        """Wait until the server knows that this worker listens."""
        client = self.link._listener
        channel = self.link._channel
        wanted = sum(mate.is_alive for mate in self.crew.mates)
        for _ in range(2000):
            if (await client.pubsub_numsub(channel))[0][1] >= wanted:
                return
            await asyncio.sleep(0)
        raise AssertionError("the worker does not listen")

    async def install(self, budgets: Iterable[Budget]) -> tuple[Budget, ...]:
        """Put budgets in force, their past included; tells which begin to count."""
        crew = self.crew
        cut = {self.name: crew.seqs.get(self.name, 0)}
        new = self.budgets.install(budgets, crew.clock.now())
        if new:
            crew.ship(self.name)
        await self.past.load(new, cut, crew.clock.now())
        return new

    def hold(self, name: str, caller: Subject, asked: Demand) -> Hold | BudgetExhausted:
        """Ask for a hold, now."""
        crew = self.crew
        return crew.run(self.budgets.reserve(name, caller, asked, crew.clock.now()))

    def tick(self) -> None:
        """Let it tell and hear."""
        self.crew.run(self.sync.tick())

    def record(self, hold: Hold, used: Demand) -> None:
        """Write what a call used into the ledger, as its own journal would."""
        parked = Demand(
            cost_pico=hold.held[0] if used.cost_pico is None else 0,
            tokens=hold.held[1] if used.tokens is None else 0,
            requests=0,
        )
        seq = self.crew.seqs[self.name] = self.crew.seqs.get(self.name, 0) + 1
        row = Row(self.name, seq, hold.at, hold.subject, used, parked)
        self.crew.journals.setdefault(self.name, []).append(row)
        if not self.crew.is_lagging:
            self.crew.ship(self.name)

    def settle(self, hold: Hold, used: Demand) -> None:
        """End a hold and record the call."""
        assert self.budgets.settle(hold, used)
        self.record(hold, used)

    async def die(self) -> None:
        """End without a word."""
        if self.is_alive:
            self.is_alive = False
            self.ear.cancel()
            await asyncio.gather(self.ear, return_exceptions=True)
            await self.link.close()

    async def leave(self, *, is_shipped: bool = True) -> None:
        """End as a gateway does that is told to stop."""
        self.is_alive = False
        self.ear.cancel()
        await asyncio.gather(self.ear, return_exceptions=True)
        self.crew.ship(self.name)
        await self.sync.stop(is_shipped=is_shipped)


def status(mate: Mate) -> BudgetStatus:
    return mate.budgets.status(mate.crew.clock.now())[0]


def held(mate: Mate, name: str, cost: str, tokens: int = 0) -> Hold:
    came_out = mate.hold(name, CALLER, demand(cost, tokens=tokens))
    assert isinstance(came_out, Hold), came_out
    return came_out


def refused(mate: Mate, name: str, cost: str) -> BudgetExhausted:
    came_out = mate.hold(name, CALLER, demand(cost))
    assert isinstance(came_out, BudgetExhausted), came_out
    return came_out


def agree(*mates: Mate) -> None:
    """Let workers notice, tell and hear."""
    for mate in (*mates, *mates, *mates):
        mate.tick()
