"""Keeps a worker in agreement with the others: tells, gives back, and begins again after a loss.

Must never let claims be given while a worker that may have spent something has not said so.
"""

import asyncio
import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, Protocol

from gateway.budgets.counters import Counter
from gateway.budgets.shared import SharedBudgets, live_counters, need_of, share_of
from gateway.budgets.shared_link import AgreementLost, NoAgreement, NotOpen, RedisDown
from gateway.budgets.shared_past import SharedPast
from gateway.clock import Clock, epoch_us, from_epoch_us
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.workers import Worker

log = logging.getLogger("taximeter.budgets")

# How often a worker tells what it has spent, and hears what the others have.
TELL_S: Final = 0.5
# Looks in a row that find nothing changed before what is not used is given back.
IDLE_TELLS: Final = 6
# How often it shows itself in the database, and looks who has gone.
SEE_S: Final = 5.0
# Between two tries while Redis does not answer.
RETRY_S: Final = 0.25
# Counters told of in one command.
_CHUNK: Final = 100


class WorkersList(Protocol):
    """The list of workers in the database; raises ``StoreUnavailable``."""

    def load(self) -> tuple[Worker, ...]:
        """Read every worker there ever was."""
        ...

    def register(self, writer: str, from_seq: int, now_us: int) -> None:
        """Note that a worker has started, before it counts anything."""
        ...

    def see(self, writer: str, now_us: int) -> None:
        """Note that a worker is there."""
        ...

    def retire(self, writer: str, now_us: int) -> bool:
        """Note that a worker has gone, and that the ledger holds everything it did."""
        ...


class SharedSync:
    """One worker's side of the agreement.

    Attributes:
        is_open: Whether claims are given, as of the last look.
    """

    def __init__(
        self, budgets: SharedBudgets, past: SharedPast, workers: WorkersList, clock: Clock
    ) -> None:
        """Prepare; nothing is sent before ``start``."""
        self._budgets = budgets
        self._link = budgets.link
        self._past = past
        self._workers = workers
        self._clock = clock
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._folded: set[tuple[str, int]] = set()
        self._waited_for: frozenset[str] = frozenset()
        self.is_open = False
        budgets.founder = past
        budgets.on_trouble = self._wake.set

    @property
    def is_up(self) -> bool:
        """Whether Redis answers and hard budgets can be held."""
        return self.is_open and self._budgets.is_agreed and not self._budgets.is_down

    async def start(self) -> None:
        """Register, agree if Redis is there, and keep to it from now on.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        await self.register()
        await self.tick()
        for one in (self._run(), self.listen(), self._see()):
            self._tasks.append(asyncio.create_task(one))

    async def register(self) -> None:
        """Note in the database what this worker counts itself; before it counts anything.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        link, now_us = self._link, self._now_us()
        await asyncio.to_thread(self._workers.register, link.worker, link.from_seq, now_us)

    async def stop(self, *, is_shipped: bool) -> None:
        """Give back what is not used, and go.

        Args:
            is_shipped: Whether the ledger holds everything this worker did.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(RedisDown, NoAgreement):
            await self.give_back()
            await self._link.leave(self._now_us())
        with suppress(StoreUnavailable):
            if is_shipped:
                # Whoever reads this takes the records into the base and the claims out; a word of
                # this worker after that would be taken for a Redis that has lost its claim.
                await asyncio.to_thread(self._workers.retire, self._link.worker, self._now_us())
        await self._link.close()

    async def give_back(self) -> None:
        """Keep no claim above what is used.

        Raises:
            RedisDown: Redis does not answer.
            AgreementLost: It does not know the epoch.
        """
        if self._budgets.is_agreed:
            counters = list(live_counters(self._budgets, self._clock.now()))
            self._budgets.idle_counters(counters)
            await self._tell(counters)

    async def tick(self) -> None:
        """Agree if this worker does not, then tell and hear how everything stands."""
        try:
            if not self._budgets.is_agreed:
                await self._agree()
            if not self.is_open:
                await self._open()
            counters = list(live_counters(self._budgets, self._clock.now()))
            for counter in counters:
                self._weigh(counter)
            await self._tell(counters)
            self._budgets.is_down = False
            if self.is_open:
                await self._found(counters)
        except RedisDown as down:
            if not self._budgets.is_down:
                log.warning("redis does not answer: %s", down)
            self._budgets.is_down = True
        except AgreementLost:
            log.warning("redis has lost what budgets agreed on; it is told again")
            self._lose()
        except StoreUnavailable as down:
            log.warning("what shared budgets had spent cannot be read: %s", down)

    async def answer(self, caller: str, key: str) -> None:
        """Give back what is not used of a counter, because another worker needs it.

        Args:
            caller: That worker.
            key: The counter.
        """
        counters = self._budgets.counters_about(key)
        try:
            if counters and self._budgets.is_agreed:
                self._budgets.idle_counters(counters)
                await self._tell(counters)
            await self._link.give_word(caller, key)
        except RedisDown:
            self._budgets.is_down = True
        except AgreementLost:
            self._lose()

    async def look_around(self) -> None:
        """Show this worker in the database, and take the records of those that went into bases.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        await asyncio.to_thread(self._workers.see, self._link.worker, self._now_us())
        known = await asyncio.to_thread(self._workers.load)
        for worker in known:
            if worker.writer == self._link.worker and worker.retired_at_us is not None:
                log.warning("this worker was said to have gone, and is still there")
                await self.register()
        retired = {(w.writer, w.retired_at_us) for w in known if w.retired_at_us is not None}
        if retired <= self._folded or not self._budgets.is_agreed:
            return
        with suppress(RedisDown, NoAgreement):
            await self._past.fold(live_counters(self._budgets, self._clock.now()))
            if not self._budgets.unread:
                self._folded = retired

    async def _agree(self) -> None:
        """Take part in the epoch that holds: say everything this worker has, then join."""
        self.is_open = False
        async with self._budgets.turn:
            now_us = self._now_us()
            await self._link.begin(secrets.token_hex(8), now_us)
            counters = [c for one in self._budgets.accounts() for c in one.counters()]
            for counter in counters:
                share_of(counter).forget()
            self._budgets.idle_counters(counters)
            unread = self._budgets.unread
            for chunk in _chunks([c for c in counters if c.account.budget.id not in unread]):
                await self._budgets.tell(chunk)
            fields = await self._link.join(now_us)
            self._budgets.agree(from_epoch_us(int(fields["born"])))

    async def _open(self) -> None:
        """Let claims be given once every worker that may have spent something has said so."""
        fields = await self._link.join(self._now_us())
        if fields["open"] != "1":
            known = await asyncio.to_thread(self._workers.load)
            waiting = frozenset(
                worker.writer
                for worker in known
                if worker.retired_at_us is None
                and fields.get(f"w:{worker.writer}") != str(worker.from_seq)
            )
            if waiting:
                if waiting != self._waited_for:
                    log.warning(
                        "hard budgets wait for workers that have not said what they spent: %s",
                        ", ".join(sorted(waiting)),
                    )
                self._waited_for = waiting
                return
            await self._link.open_epoch(self._now_us())
        self.is_open = True
        self._waited_for = frozenset()

    async def _found(self, counters: Sequence[Counter]) -> None:
        with suppress(NotOpen):
            await self._past.catch_up(self._clock.now())
            for counter in counters:
                if not share_of(counter).is_laid and not self._budgets.is_calm(counter):
                    await self._past.found(counter)

    def _weigh(self, counter: Counter) -> None:
        """Decide which claim this worker keeps: what it needs at least, nothing idle for long."""
        share, need = share_of(counter), need_of(counter)
        used = counter.spent - share.spent, counter.held - share.held
        share.idle = share.idle + 1 if used == share.told[:2] else 0
        # What a window leaves is for the next one, as far as nobody claims it.
        end = counter.window.end if share.near else None
        is_over = end is not None and end <= self._clock.now()
        is_idle = is_over or share.idle >= IDLE_TELLS or not counter.account.is_hard
        if need > share.claim or is_idle:
            share.claim = max(need, 0)
            self._budgets.set_ceiling(counter)

    async def _tell(self, counters: Sequence[Counter]) -> None:
        for chunk in _chunks(counters):
            async with self._budgets.turn:
                await self._budgets.tell(chunk)

    def _lose(self) -> None:
        self.is_open = False
        self._budgets.lose()

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TELL_S):
                    await self._wake.wait()
            self._wake.clear()
            await self.tick()
            if self._budgets.is_down or not self.is_open:
                await asyncio.sleep(RETRY_S)

    async def listen(self) -> None:
        """Answer the other workers, for ever."""
        while True:
            with suppress(RedisDown):
                async for kind, worker, key in self._link.listen():
                    if kind == "R" and worker != self._link.worker:
                        await self.answer(worker, key)
                    else:
                        self._budgets.hear(kind, worker, key)
            await asyncio.sleep(RETRY_S)

    async def _see(self) -> None:
        while True:
            await asyncio.sleep(SEE_S)
            try:
                await self.look_around()
            except StoreUnavailable as down:
                log.warning("the list of workers cannot be read: %s", down)

    def _now_us(self) -> int:
        return epoch_us(self._clock.now())


def _chunks(counters: Sequence[Counter]) -> Iterator[list[Counter]]:
    rest = iter(counters)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
