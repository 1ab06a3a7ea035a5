"""Puts together the budgets of this process: alone, or shared with others over Redis.

Must never hold a rule of its own.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Protocol

from sqlalchemy import Engine

from gateway.budgets.loading import LocalPast, Past
from gateway.budgets.memory import MemoryBudgets
from gateway.clock import Clock
from gateway.ledger.journal import Journal
from gateway.ledger.queries import Queries
from gateway.settings import Settings


class Sharing(Protocol):
    """Budgets, and what keeps them in agreement.

    Attributes:
        budgets: The budgets.
        past: Brings them up to what the ledger knows.
    """

    budgets: MemoryBudgets
    past: Past

    async def start(self) -> None:
        """Agree with the others; before budgets are installed."""
        ...

    async def stop(self, flush: Callable[[float], bool]) -> None:
        """Give back what is not used."""
        ...

    def retire(self, writer: str) -> None:
        """Note that a worker is gone and the ledger holds everything it did; call it in a thread.

        Args:
            writer: Name of its journal.
        """
        ...

    def stores_up(self) -> Mapping[str, bool]:
        """Tell which further stores answer."""
        ...


class _Alone:
    """Budgets of this process alone."""

    def __init__(self, queries: Queries) -> None:
        self.budgets = MemoryBudgets()
        self.past: Past = LocalPast(self.budgets, queries)

    async def start(self) -> None:
        """Nobody to agree with."""

    async def stop(self, flush: Callable[[float], bool]) -> None:
        """Nobody to tell."""

    def retire(self, writer: str) -> None:
        """Nobody counts on it."""

    def stores_up(self) -> Mapping[str, bool]:
        return {}


def open_sharing(settings: Settings, engine: Engine, journal: Journal, clock: Clock) -> Sharing:
    """Make the budgets the settings ask for.

    Args:
        settings: Checked.
        engine: The ledger's database.
        journal: Of this process; everything in it has been recovered.
        clock: What time it is.

    Returns:
        Budgets without a limit in force yet.
    """
    urls = settings.storage.redis_url
    if urls is None:
        return _Alone(Queries(engine))
    # house: lazy-import because Redis' client takes 6 MB, and most gateways share nothing.
    opened: Sharing = importlib.import_module("gateway.sharing_redis").open_shared(
        (urls,) if isinstance(urls, str) else urls, settings.organization, engine, journal, clock
    )
    return opened
