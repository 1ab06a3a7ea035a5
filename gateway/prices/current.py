"""The book calls are priced with, instant by instant; what the path asks once per call.

Must never wait for anything: books are opened by ``gateway.prices.follower`` before they hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pricing.book import Book

_EVER: Final = datetime.min.replace(tzinfo=UTC)
NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A half-open span of time in which one book holds.

    Attributes:
        book: The book.
        start: First instant.
        end: First instant after it.
    """

    book: Book
    start: datetime = _EVER
    end: datetime = NEVER


class Prices:
    """The books that hold now, held a moment ago and will hold next.

    A call asks once, by the instant it arrived, and carries the book from there on: it is held,
    billed and recorded under one version, whatever comes into force meanwhile.
    """

    def __init__(self, book: Book) -> None:
        """Hold one book for ever, until told otherwise.

        Args:
            book: The book.
        """
        self._term = Term(book=book)
        self._terms: tuple[Term, ...] = (self._term,)

    @property
    def terms(self) -> tuple[Term, ...]:
        """What holds when, the oldest first."""
        return self._terms

    def at(self, at: datetime) -> Book:
        """Find the book that holds at an instant.

        Args:
            at: Aware instant: when a call arrived, or now.

        Returns:
            The book; beyond what is known, the nearest.
        """
        term = self._term
        if term.start <= at < term.end:
            return term.book
        return self._turn(at)

    def put(self, terms: Sequence[Term], at: datetime) -> None:
        """Put other books in force.

        Args:
            terms: At least one, the oldest first, each starting where the one before ends.
            at: Now.
        """
        self._terms = tuple(terms)
        self._term = _find(self._terms, at)

    def _turn(self, at: datetime) -> Book:
        found = _find(self._terms, at)
        if found.start > self._term.start:
            # The clock has passed into it; a call that arrived before still finds its own.
            self._term = found
        return found.book


def _find(terms: Sequence[Term], at: datetime) -> Term:
    for term in reversed(terms):
        if term.start <= at:
            return term
    return terms[0]
