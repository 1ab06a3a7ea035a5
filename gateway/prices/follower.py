"""Keeps the prices of a running gateway as the database says.

Must never put a book in force that cannot be opened: what was in force stays, and the log says so.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from gateway.clock import Clock
from gateway.ledger.errors import StoreUnavailable
from gateway.prices.current import Prices, Term
from gateway.prices.store import Mark, PriceStore
from gateway.prices.terms import Span, spans_of
from pricing.book import Book, BookBroken, BookVersion
from pricing.shelf import NoSuchVersion

log = logging.getLogger("taximeter.prices")

# Another process's change is in force within a second.
POLL_S: Final = 0.5
# A call that arrived before a change may still be sending its body after it.
_PAST_KEPT: Final = timedelta(hours=1)
_PAST_MAX: Final = 2
# Changes that come this soon after each other are open before the first of them holds.
_NEXT_MAX: Final = 2

OpenBook = Callable[[BookVersion], Book]


class PricesFollower:
    """Looks for new versions and opens the books that are about to hold."""

    def __init__(self, *, store: PriceStore, open_book: OpenBook, clock: Clock) -> None:
        """Prepare; nothing is read before ``open``.

        Args:
            store: The versions.
            open_book: Opens the part of a version that calls need; called in a thread.
            clock: What time it is.
        """
        self._store = store
        self._prices: Prices | None = None
        self._open = open_book
        self._clock = clock
        self._mark: Mark | None = None
        self._known: dict[str, Book] = {}
        self._is_complete = True
        self._turn = asyncio.Lock()

    async def open(self) -> Prices:
        """Read which versions hold when, and put them in force.

        Returns:
            What the path asks; always the same object, kept up to date from here on.

        Raises:
            StoreUnavailable: The database cannot be reached; what was in force stays.
            BookBroken: A version cannot be opened; likewise.
            NoSuchVersion: None is recorded; likewise.
        """
        async with self._turn:
            mark = await asyncio.to_thread(self._store.load_mark)
            at = self._clock.now()
            spans = await asyncio.to_thread(self._plan, at)
            try:
                terms = await asyncio.to_thread(self._open_all, spans)
            except BookBroken:
                # Told of once, not twice a second.
                self._mark = mark
                raise
            self._mark = mark
            if self._prices is None:
                self._prices = Prices(terms[-1].book)
            self._prices.put(terms, at)
            return self._prices

    async def reload(self) -> None:
        """Do the same for whoever has ``Prices`` already."""
        await self.open()

    async def follow(self) -> None:
        """Look for changes by other processes, and for time that has passed, for ever."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        try:
            if not self._is_due() and await asyncio.to_thread(self._store.load_mark) == self._mark:
                return
            await self.reload()
        except StoreUnavailable as down:
            log.warning("prices not readable, those in force stay: %s", down)
        except (BookBroken, NoSuchVersion) as broken:
            log.error("a price book cannot be used, the one in force stays: %s", broken)  # noqa: TRY400 - a sentence, no traceback

    def _is_due(self) -> bool:
        """Whether the next book has come to hold and the one after it is not open yet."""
        terms = () if self._prices is None else self._prices.terms
        return bool(terms) and not self._is_complete and terms[-1].start <= self._clock.now()

    def _plan(self, at: datetime) -> list[Span]:
        """Find which version holds when, around an instant."""
        spans = spans_of(self._store.list_approved())
        if not spans:
            raise NoSuchVersion("no version of the price book is recorded")
        past = [span for span in spans if at - _PAST_KEPT < span[2] <= at]
        rest = [span for span in spans if span[2] > at]
        self._is_complete = len(rest) <= 1 + _NEXT_MAX
        return [*past[-_PAST_MAX:], *rest[: 1 + _NEXT_MAX]]

    def _open_all(self, spans: Sequence[Span]) -> list[Term]:
        # A book that is open already is kept: its cards are compiled.
        terms = []
        for version, start, end in spans:
            known = self._known.get(version.version)
            book = self._open(version) if known is None else known
            terms.append(Term(book=book, start=start, end=end))
        self._known = {
            version.version: term.book for (version, _, _), term in zip(spans, terms, strict=True)
        }
        return terms
