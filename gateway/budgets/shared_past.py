"""Brings what the ledger knows of a window to where workers agree on it: its base.

The base of a window holds every record but those that a worker counts itself, which are the ones
its journal got since it started. Must never hold a record that a worker counts as well.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from gateway.budgets.counters import Counter
from gateway.budgets.loading import (
    Base,
    LedgerReader,
    Spent,
    SpentReader,
    read_bases,
    read_corrected,
)
from gateway.budgets.rules import Budget, Unit
from gateway.budgets.shared import SharedBudgets, need_of, share_of
from gateway.budgets.shared_link import Laid, NoAgreement, RedisDown
from gateway.budgets.shared_windows import earlier_of
from gateway.budgets.windows import BudgetWindow, RollingWindow
from gateway.clock import Clock, epoch_us
from gateway.ledger.corrected import CORRECTIONS
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.filters import NO_OTHERS
from gateway.ledger.workers import Worker

# Several workers may lay one base at once; only one at a time gets through.
_TRIES: Final = 20
# Parts of a base before it is read anew as a whole.
_PARTS_MAX: Final = 200


class WorkersReader(Protocol):
    """The list of workers."""

    def load(self) -> tuple[Worker, ...]:
        """Read every worker there ever was."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sum:
    settled: int
    parked: int
    first_us: int | None


class _OwnPast:
    """Reads what this worker has recorded since it started, up to a cut."""

    def __init__(self, reader: SpentReader, worker: str, span: tuple[int, int]) -> None:
        self._reader = reader
        self._worker = worker
        self._span = span

    def sum_spent(
        self,
        scope: Mapping[str, str],
        unit: Unit,
        start_us: int,
        end_us: int | None,
        up_to: Mapping[str, int],
    ) -> Spent:
        before, after = (
            self._reader.sum_spent(scope, unit, start_us, end_us, {self._worker: seq, NO_OTHERS: 0})
            for seq in self._span
        )
        return _Sum(
            settled=after.settled - before.settled,
            parked=after.parked - before.parked,
            first_us=after.first_us,
        )


class SharedPast:
    """Lays the bases of shared counters, and counts what a worker did before a budget came."""

    def __init__(
        self, budgets: SharedBudgets, reader: LedgerReader, workers: WorkersReader, clock: Clock
    ) -> None:
        self._budgets = budgets
        self._link = budgets.link
        self._reader = reader
        self._workers = workers
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        # Corrections that were not told because Redis was away.
        self._is_behind = False

    def seqs(self) -> Mapping[str, int]:
        """Tell how far each journal is in the ledger.

        Returns:
            Position of the last record, by writer.
        """
        return self._reader.seqs()

    async def load(self, budgets: Iterable[Budget], cut: Mapping[str, int], at: datetime) -> None:
        """Bring new budgets up to what was spent before; as ``loading.load_bases``.

        Args:
            budgets: Those ``install`` returned.
            cut: Each journal's position when they were.
            at: The instant given to ``install``.

        Raises:
            StoreUnavailable: The ledger cannot be read.
        """
        new = tuple(budgets)
        worker, from_seq = self._link.worker, self._link.from_seq
        if cut.get(worker, from_seq) > from_seq:
            past = _OwnPast(self._reader, worker, (from_seq, cut[worker]))
            for base in await asyncio.to_thread(read_bases, past, new, cut, at):
                self._budgets.add_base(base.budget_id, base.window_start, base.settled, base.parked)
        ids = {budget.id for budget in new}
        self._budgets.unread -= ids
        counters = []
        for account in self._budgets.accounts():
            if account.budget.id in ids and self._budgets.is_agreed:
                counters += _now_and_earlier(account.counter_at(at))
        try:
            # All at once: who answers at all has spoken of every window that hands something on.
            await self._introduce(counters)
            for counter in counters:
                await self.found(counter)
        except (RedisDown, NoAgreement):
            # Without Redis what is hard stays closed; bases are laid when it is back.
            self._budgets.on_trouble()

    async def found(self, counter: Counter) -> None:
        """Lay the base of a counter unless it is there, once, whoever else does so too.

        Args:
            counter: The counter.

        Raises:
            StoreUnavailable: The ledger cannot be read.
            RedisDown: Redis does not answer.
            NoAgreement: It does not know the epoch, or not every worker is there yet.
        """
        key = share_of(counter).key
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.create_task(self._found(counter))
            running.add_done_callback(lambda _: self._running.pop(key, None))
        await asyncio.shield(running)

    async def fold(self, counters: Iterable[Counter]) -> None:
        """Take the records of workers that have gone into the bases, and their claims out.

        Args:
            counters: Where to look for them.

        Raises:
            StoreUnavailable: The ledger cannot be read.
            RedisDown: Redis does not answer.
            NoAgreement: It does not know the epoch, or not every worker is there yet.
        """
        for counter in counters:
            for _ in range(_TRIES):
                fields = await self._look(counter)
                known = await asyncio.to_thread(self._workers.load)
                if not _gone(fields, known) or await self._lay(counter, fields):
                    break

    async def correct(self, span: tuple[int, int], at: datetime) -> None:
        """Count new corrections, once for all workers.

        Args:
            span: Last number of the corrections counted before, and of those to count now.
            at: Now.

        Raises:
            StoreUnavailable: The ledger cannot be read.
        """
        try:
            await self._correct(span, at)
        except (RedisDown, NoAgreement):
            self._is_behind = True
            self._budgets.on_trouble()

    async def catch_up(self, at: datetime) -> None:
        """Count the corrections that Redis was not told of.

        Args:
            at: Now.

        Raises:
            StoreUnavailable: The ledger cannot be read.
            RedisDown: Redis does not answer.
            NoAgreement: It does not know the epoch, or not every worker is there yet.
        """
        if self._is_behind:
            last = (await asyncio.to_thread(self._reader.seqs)).get(CORRECTIONS, 0)
            await self._correct((-1, last), at)
            self._is_behind = False

    async def _correct(self, span: tuple[int, int], at: datetime) -> None:
        accounts = self._budgets.accounts()
        budgets = [account.budget for account in accounts]
        changes: dict[str, list[Base]] = {}
        if span[0] >= 0:
            for base in await asyncio.to_thread(read_corrected, self._reader, budgets, span, at):
                changes.setdefault(base.budget_id, []).append(base)
        for counter in (one for a in accounts for one in _now_and_earlier(a.counter_at(at))):
            news = changes.get(counter.account.budget.id, [])
            for _ in range(_TRIES):
                fields = await self._look(counter)
                told = int(fields.get(f"n:{CORRECTIONS}", "0"))
                # What is not laid yet will be, with every correction there is by then.
                if "g" not in fields or told >= span[1]:
                    break
                if told == span[0] and await self._add(counter, fields, news, span[1]):
                    break
                if told != span[0] and await self._lay(counter, fields):
                    break

    async def _add(
        self, counter: Counter, fields: Mapping[str, str], changes: Sequence[Base], last: int
    ) -> bool:
        parts = [part for part in fields.get("b", "").split(";") if part]
        if len(parts) + len(changes) > _PARTS_MAX:
            return await self._lay(counter, fields)
        parts += _write(counter, changes)
        laid = Laid(fields["g"], ";".join(parts), {CORRECTIONS: last})
        return await self._send(counter, laid)

    async def _found(self, counter: Counter) -> None:
        if counter.account.budget.id in self._budgets.unread:
            raise StoreUnavailable("what this worker has spent itself is not read yet")
        await self._introduce([counter])
        mine = f"n:{self._link.worker}"
        for _ in range(_TRIES):
            fields = await self._look(counter)
            if "g" in fields and fields.get(mine, "0") == str(self._link.from_seq):
                share_of(counter).is_laid = True
                return
            await self._lay(counter, fields)
        raise StoreUnavailable("other workers keep changing what this one has to agree on")

    async def _introduce(self, counters: Iterable[Counter]) -> None:
        """Claim what this worker has of counters, before a base leaves it out."""
        async with self._budgets.turn:
            new = [counter for counter in counters if not share_of(counter).acked]
            for counter in new:
                share = share_of(counter)
                share.claim = max(share.claim, need_of(counter), 0)
            await self._budgets.tell(new)

    async def _look(self, counter: Counter) -> Mapping[str, str]:
        share = share_of(counter)
        return await self._link.look(share.key, share.expires_ms, epoch_us(self._clock.now()))

    async def _lay(self, counter: Counter, fields: Mapping[str, str]) -> bool:
        """Read the base from the ledger and say so, unless somebody else did since the look."""
        return await self._send(counter, await asyncio.to_thread(self._read, counter, fields))

    async def _send(self, counter: Counter, laid: Laid) -> bool:
        share, now_us = share_of(counter), epoch_us(self._clock.now())
        return await self._link.lay(share.key, share.expires_ms, now_us, laid)

    def _read(self, counter: Counter, fields: Mapping[str, str]) -> Laid:
        # In this order: a worker that starts in between is in neither list, and looks itself.
        known = self._workers.load()
        cut = self._cut(counter, fields, known)
        budget, at = counter.account.budget, self._clock.now()
        if not isinstance(budget.window, RollingWindow):
            at = counter.window.start
        bases = read_bases(self._reader, [budget], {**cut, NO_OTHERS: 0}, at)
        gone = _gone(fields, known)
        return Laid(fields.get("g", "0"), ";".join(_write(counter, bases)), cut, gone)

    def _cut(
        self, counter: Counter, fields: Mapping[str, str], known: Iterable[Worker]
    ) -> Mapping[str, int]:
        """Say up to where each journal belongs to the base.

        What a worker counts itself is left out only where its claim stands for it, and where the
        ledger has all that lies before: else the base would lack what it has not.
        """
        seqs, own = self._reader.seqs(), self._link.worker
        present = [one for one in known if one.retired_at_us is None or one.writer == own]
        for worker in present:
            if seqs.get(worker.writer, 0) < worker.from_seq:
                raise StoreUnavailable(
                    f"the ledger is behind what worker {worker.writer} did before it started"
                )
        counting = {one.writer: one.from_seq for one in present if f"c:{one.writer}" in fields}
        is_told = bool(share_of(counter).acked)
        return {**seqs, **counting, own: self._link.from_seq if is_told else seqs.get(own, 0)}


def _gone(fields: Mapping[str, str], known: Iterable[Worker]) -> Mapping[str, str]:
    """Workers with a part in a counter whose records are all in the ledger."""
    retired = {worker.writer for worker in known if worker.retired_at_us is not None}
    parts = {name[2:] for name in fields if name[:2] in {"c:", "s:"}}
    return {name: fields.get(f"v:{name}", "0") for name in sorted(parts & retired)}


def _write(counter: Counter, bases: Iterable[Base]) -> list[str]:
    window = counter.account.budget.window
    span_us = window.seconds * 1_000_000 if isinstance(window, RollingWindow) else None
    return [
        f"{0 if span_us is None else epoch_us(base.window_start) + span_us}"
        f":{base.settled + base.parked}:{base.parked}"
        for base in bases
        # Where something is rolled over the windows beside it were read as well.
        if span_us is not None or _is_in(counter.window, base.window_start)
    ]


def _is_in(window: BudgetWindow, at: datetime) -> bool:
    return window.start <= at and (window.end is None or at < window.end)


def _now_and_earlier(counter: Counter) -> list[Counter]:
    """List a counter and that of the window it takes over from, which must be known first."""
    earlier = earlier_of(counter)
    return [counter] if earlier is None else [earlier, counter]
