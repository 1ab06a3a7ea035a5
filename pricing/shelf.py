"""The approved versions of the price book: which one held when, and what we knew when.

Must never hold more than a few whole books in memory, and never answer with a version that was not
known yet.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from pricing.book import Book, BookVersion

BOOKS_MAX: Final = 3


class NoSuchVersion(LookupError):
    """No version has the name, or none is as old as the question."""


class BookShelf:
    """Approved versions in the order they were approved.

    Two times belong to a version. From ``effective_from`` on calls are priced with it. Since
    ``recorded_at`` we know of it: a later version may correct what an earlier one said of the same
    days, so what a call should have cost depends on when the question is asked.
    """

    def __init__(
        self,
        versions: Iterable[BookVersion],
        load: Callable[[BookVersion], Book],
        *,
        books_max: int = BOOKS_MAX,
    ) -> None:
        """Take the approved versions.

        Args:
            versions: Oldest first.
            load: Loads one of them; may be called again for one that was put away.
            books_max: Most books kept in memory; at least one.

        Raises:
            ValueError: A name is given twice, or a version was recorded before the one in front of
                it.
        """
        self.versions = tuple(versions)
        self._load = load
        self._books_max = max(1, books_max)
        self._by_name = {v.version: v for v in self.versions}
        self._books: OrderedDict[str, Book] = OrderedDict()
        if len(self._by_name) < len(self.versions):
            raise ValueError(f"a version is given twice: {[v.version for v in self.versions]}")
        if list(self.versions) != sorted(self.versions, key=lambda v: v.recorded_at):
            raise ValueError("versions are in the order in which they were recorded")

    def current_at(self, at: datetime) -> BookVersion:
        """Find the version calls are priced with at an instant.

        Args:
            at: Aware instant.

        Returns:
            The one approved last of those in effect.

        Raises:
            NoSuchVersion: None was in effect yet.
        """
        for version in reversed(self.versions):
            if version.effective_from <= at:
                return version
        raise NoSuchVersion(f"no price book version was in effect at {at.isoformat()}")

    def known_at(self, at: datetime) -> BookVersion:
        """Find what was known of prices at an instant.

        Args:
            at: Aware instant.

        Returns:
            The one recorded last until then, in effect or not: it says best what every price was,
            is and will be.

        Raises:
            NoSuchVersion: None was recorded yet.
        """
        for version in reversed(self.versions):
            if version.recorded_at <= at:
                return version
        raise NoSuchVersion(f"no price book version was recorded by {at.isoformat()}")

    def next_change(self, at: datetime) -> datetime | None:
        """Find when another version comes into effect.

        Args:
            at: Aware instant.

        Returns:
            The first instant after it at which ``current_at`` can answer otherwise; ``None`` when
            no approved version is still to come.
        """
        return min((v.effective_from for v in self.versions if v.effective_from > at), default=None)

    def load_book(self, version: str) -> Book:
        """Load a version, or find it among those that were used last.

        Args:
            version: Its name.

        Returns:
            The book. Threads that ask for one version at the same time may each load it.

        Raises:
            NoSuchVersion: No approved version has the name.
            BookBroken: Its content is not what it was.
        """
        described = self._by_name.get(version)
        if described is None:
            known = ", ".join(self._by_name) or "none"
            raise NoSuchVersion(f"no price book version {version}; there are: {known}")
        book = self._books.pop(version, None)
        if book is None:
            # Room is made first, so that one book more than allowed is never alive.
            while len(self._books) >= self._books_max:
                self._books.popitem(last=False)
            book = self._load(described)
        self._books[version] = book
        return book
