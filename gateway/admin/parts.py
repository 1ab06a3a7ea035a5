"""What the control plane is built from; everything that touches the world comes in here.

Must never be changed after the app is built.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, Protocol, cast

from fastapi import Depends, Request
from sqlalchemy import Engine

from gateway.budgets.rules import BudgetStatus
from gateway.callers import Caller
from gateway.clock import Clock
from gateway.directory import Directory
from gateway.ledger.queries import Queries
from gateway.ledger.record import LedgerRecord
from gateway.prices.current import Prices
from gateway.prices.store import PriceStore
from gateway.settings import Settings
from pricing.book import Book

Messages = Sequence[Mapping[str, Any]]

# Long enough for a healthy shipper to catch up; a reader of an unhealthy one gets what is there.
FLUSH_S_MAX: Final = 2.0
# Who the audit says it was: there is one admin token, so it cannot say more.
ACTOR: Final = "admin token"


class BudgetStatuses(Protocol):
    """The part of a budget store that reports; asked on the event loop only."""

    def status(self, at: datetime) -> tuple[BudgetStatus, ...]:
        """Tell every budget's counters at an instant."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlParts:
    """The control plane's dependencies.

    Attributes:
        settings: The settings in force.
        admin_token: What opens ``/api/v1``.
        version: Version of the program, for the OpenAPI document.
        engine: Of the ledger database, for answers kept by ``Idempotency-Key``.
        directory: Teams, projects, keys and budgets.
        queries: The ledger.
        budgets: Counters of budgets.
        prices: The part of the price book that calls are priced with, instant by instant.
        find_whole: Finds the whole of such a part; loads it the first time, so called in a thread.
        versions: Every version of the price book.
        on_price_change: Awaited on the event loop after every change of prices, likewise.
        clock: What time it is.
        flush: Waits up to so many seconds until everything journalled so far is in the ledger, and
            tells whether it is; called in a thread.
        on_change: Awaited on the event loop after every change of the directory, before the answer,
            so that the change holds when the client reads it.
        on_outside_usage: Awaited on the event loop after usage that did not pass the gateway was
            added to the ledger, before the answer, so that budgets and metrics know it.
        find_caller: Finds who holds the secret of a virtual key; ``None`` for nobody.
        is_ready: Tells of every store and of the price book, by name, whether it can be used;
            called in a thread.
        count_tokens: Counts the input tokens of chat messages for a model.
        bound_tokens: Bounds the same from above; ``None`` when they hold more than text.
    """

    settings: Settings
    admin_token: str = field(repr=False)
    version: str
    engine: Engine
    directory: Directory
    queries: Queries
    budgets: BudgetStatuses
    prices: Prices
    find_whole: Callable[[Book], Book]
    versions: PriceStore
    on_price_change: Callable[[], Awaitable[None]]
    clock: Clock
    flush: Callable[[float], bool]
    on_change: Callable[[], Awaitable[None]]
    on_outside_usage: Callable[[Sequence[LedgerRecord]], Awaitable[None]]
    find_caller: Callable[[str], Caller | None]
    is_ready: Callable[[], Mapping[str, bool]]
    count_tokens: Callable[[Messages, str], int]
    bound_tokens: Callable[[Messages, str], int | None]

    @property
    def book(self) -> Book:
        """The part of the price book that holds now."""
        return self.prices.at(self.clock.now())

    def whole_book(self) -> Book:
        """Find the whole of the price book that holds now; called in a thread."""
        return self.find_whole(self.book)


def book_with(parts: ControlParts, provider: str) -> Book:
    """Find the book that has the prices of a catalog provider.

    Args:
        parts: The control plane's.
        provider: Catalog provider.

    Returns:
        The part that is there where it has them, else the whole.
    """
    return parts.book if provider in parts.book.providers else parts.whole_book()


def parts_of(request: Request) -> ControlParts:
    """Find the parts of the app that serves a request.

    Args:
        request: Any.

    Returns:
        The parts given to ``build_control_app``.
    """
    return cast(ControlParts, request.app.state.parts)


Parts = Annotated[ControlParts, Depends(parts_of)]
