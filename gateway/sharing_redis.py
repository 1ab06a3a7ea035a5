"""Budgets that several processes share over Redis, put together.

Must never be imported where budgets are not shared: its client takes 6 MB and 40 ms.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import Engine

from gateway.budgets.loading import Past
from gateway.budgets.memory import MemoryBudgets
from gateway.budgets.shared import SharedBudgets
from gateway.budgets.shared_link import SharedLink
from gateway.budgets.shared_past import SharedPast
from gateway.budgets.shared_sync import SharedSync
from gateway.clock import Clock, epoch_us
from gateway.ledger.journal import Journal
from gateway.ledger.queries import Queries
from gateway.ledger.workers import Workers

FLUSH_S_MAX: Final = 10.0


class _Shared:
    """Budgets that several processes fill together."""

    def __init__(self, link: SharedLink, queries: Queries, workers: Workers, clock: Clock) -> None:
        shared = SharedBudgets(link, clock)
        past = SharedPast(shared, queries, workers, clock)
        self.budgets: MemoryBudgets = shared
        self.past: Past = past
        self._sync = SharedSync(shared, past, workers, clock)
        self._workers, self._clock = workers, clock

    async def start(self) -> None:
        await self._sync.start()

    async def stop(self, flush: Callable[[float], bool]) -> None:
        is_shipped = await asyncio.to_thread(flush, FLUSH_S_MAX)
        await self._sync.stop(is_shipped=is_shipped)

    def retire(self, writer: str) -> None:
        self._workers.retire(writer, epoch_us(self._clock.now()))

    def stores_up(self) -> Mapping[str, bool]:
        return {"redis": self._sync.is_up}


def open_shared(
    urls: tuple[str, ...], organization: str, engine: Engine, journal: Journal, clock: Clock
) -> _Shared:
    """Make budgets that are shared.

    Args:
        urls: Where Redis is; several for a cluster.
        organization: Whose budgets they are.
        engine: The ledger's database.
        journal: Of this process; everything in it has been recovered.
        clock: What time it is.

    Returns:
        Budgets without a limit in force yet, as ``gateway.sharing.Sharing``.
    """
    link = SharedLink(
        urls, organization, journal.writer, journal.position().seq, epoch_us(clock.now())
    )
    return _Shared(link, Queries(engine), Workers(engine), clock)
