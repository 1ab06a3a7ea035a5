"""What a running gateway keeps up to date: keys and budgets as the directory changes.

Must never admit a call under a budget whose past is not known, once its maker was told it exists.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final, Protocol

from gateway.budgets.loading import Past
from gateway.budgets.memory import MemoryBudgets
from gateway.budgets.rules import Budget, BudgetId
from gateway.callers import Caller, Callers
from gateway.clock import Clock
from gateway.directory import Directory, Snapshot
from gateway.ledger.corrected import CORRECTIONS
from gateway.ledger.errors import StoreUnavailable

log = logging.getLogger("taximeter.directory")

# A revoked key stops working within a second, whoever revoked it.
POLL_S: Final = 0.5
FLUSH_S_MAX: Final = 30.0
# How long a call waits while the past of a new budget is read, before it is refused.
LEARN_S_MAX: Final = 2.0


class ShippedJournal(Protocol):
    """The journal and the shipper, as far as a cut through them needs."""

    @property
    def writer(self) -> str:
        """Name of the journal in the ledger."""
        ...

    def position_seq(self) -> int:
        """Number of the last record appended."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything appended so far is in the ledger; called in a thread."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unloaded:
    """Budgets in force whose past is still to be read, up to the cut at which they began."""

    budgets: tuple[Budget, ...]
    cut: Mapping[str, int]
    at: datetime

    def without(self, ids: set[BudgetId]) -> "_Unloaded":
        """Leave budgets out that have begun anew since."""
        return replace(self, budgets=tuple(b for b in self.budgets if b.id not in ids))


class DirectoryFollower:
    """Keeps the callers and the budgets of the data plane as the directory says.

    Attributes:
        callers: Every key that works, as of the last look.
        is_spending_known: Whether every budget in force knows what it had spent before. While it
            does not, because the ledger could not be read, calls are refused.
    """

    def __init__(
        self,
        *,
        directory: Directory,
        budgets: MemoryBudgets,
        past: Past,
        journal: ShippedJournal,
        clock: Clock,
    ) -> None:
        """Prepare; nothing is read before ``reload``.

        Args:
            directory: Where keys and budgets are.
            budgets: Where budgets are installed.
            past: Brings them up to what the ledger knows.
            journal: What this process records.
            clock: What time it is.
        """
        self._directory = directory
        self._budgets = budgets
        self._journal = journal
        self._clock = clock
        self._past = past
        self._version = -1
        self._corrections_seen = 0
        self._unloaded: list[_Unloaded] = []
        self.is_spending_known = False
        self._known = asyncio.Event()
        self._turn = asyncio.Lock()
        self.callers = Callers(_Nobody())

    async def reload(self) -> None:
        """Read the directory and put it in force, past spending of new budgets included.

        Raises:
            StoreUnavailable: The database cannot be reached; what was in force stays.
        """
        async with self._turn:
            snapshot = await asyncio.to_thread(self._directory.load_snapshot)
            await self._take_corrections()
            await self._put_in_force(snapshot)

    async def take_appended(self) -> None:
        """Count what was added to the ledger without a journal, at once instead of within a look.

        Raises:
            StoreUnavailable: The database cannot be reached; ``follow`` counts it later.
        """
        async with self._turn:
            await self._take_corrections()

    async def follow(self) -> None:
        """Look for changes by other processes, for ever."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                version = await asyncio.to_thread(self._directory.load_version)
                if version != self._version or not self.is_spending_known:
                    await self.reload()
                else:
                    async with self._turn:
                        await self._take_corrections()
            except StoreUnavailable as down:
                log.warning("directory not readable, the last one stays in force: %s", down)

    async def _put_in_force(self, snapshot: Snapshot) -> None:
        self.callers = Callers(snapshot)
        at = self._clock.now()
        # Calls wait from here until new budgets know their past, or a budget whose window or scope
        # has changed would start from nothing.
        self._forget_spending()
        # No await between the two: records after the cut are counted in memory from now on.
        cut = {
            self._journal.writer: self._journal.position_seq(),
            CORRECTIONS: self._corrections_seen,
        }
        fresh = self._budgets.install(snapshot.budgets, at)
        if fresh:
            again = {budget.id for budget in fresh}
            self._unloaded = [old.without(again) for old in self._unloaded]
            self._unloaded.append(_Unloaded(budgets=fresh, cut=cut, at=at))
        await self._load_past()
        self._version = snapshot.version

    async def _take_corrections(self) -> None:
        """Count corrections and outside usage since the last look, whichever process added them."""
        seqs = await asyncio.to_thread(self._past.seqs)
        span = (self._corrections_seen, seqs.get(CORRECTIONS, 0))
        if span[0] == span[1]:
            return
        await self._past.correct(span, self._clock.now())
        self._corrections_seen = span[1]

    async def _load_past(self) -> None:
        """Read what new budgets had spent before; what fails is read again, up to its old cut."""
        try:
            while self._unloaded:
                if not await asyncio.to_thread(self._journal.flush, FLUSH_S_MAX):
                    raise StoreUnavailable("the ledger is behind: past spending is not known yet")
                new = self._unloaded[0]
                await self._past.load(new.budgets, new.cut, new.at)
                self._unloaded.pop(0)
        finally:
            if not self._unloaded:
                self.is_spending_known = True
                self._known.set()

    def _forget_spending(self) -> None:
        self.is_spending_known = False
        self._known.clear()

    async def learn_spending(self) -> bool:
        """Wait a moment until every budget knows its past.

        Returns:
            Whether it does.
        """
        try:
            async with asyncio.timeout(LEARN_S_MAX):
                await self._known.wait()
        except TimeoutError:
            return False
        return True


class _Nobody:
    """The snapshot before the first one was read: no key works."""

    callers: Mapping[bytes, Caller] = MappingProxyType({})
