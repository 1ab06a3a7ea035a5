"""The versions of the price book that a question about the past can name.

Must never answer with a version that was not known at the instant asked about.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final, Protocol

from gateway.own_rates import add_own_prices, open_book
from gateway.settings import Settings
from pricing.book import Book, BookBroken, BookVersion
from pricing.selfhosted import published_name
from pricing.shelf import NoSuchVersion

# One content each: more than the providers of any one installation.
_BOOKS_KEPT: Final = 64


class PriceVersions(Protocol):
    """Where approved versions are found."""

    def find_book(self, version: str, provider: str) -> Book:
        """Find a version with the prices of a catalog provider at least.

        Args:
            version: Its name, as a record has it.
            provider: Catalog provider; one the version does not have is passed over.

        Returns:
            The book.

        Raises:
            BookBroken: There is no such version, or it is broken.
            OSError: It cannot be read.
        """
        ...

    def known_at(self, at: datetime) -> BookVersion:
        """Find what was known of prices at an instant; raises ``NoSuchVersion``."""
        ...

    def list_versions(self) -> Sequence[BookVersion]:
        """List every approved version, oldest first."""
        ...


class KeptVersions(Protocol):
    """The part of ``gateway.prices.store.PriceStore`` that answers for the past."""

    def load_book(self, version: str | None = None, providers: Iterable[str] | None = None) -> Book:
        """Load a version by its name, with these catalog providers; raises ``BookBroken``."""
        ...

    def known_at(self, at: datetime) -> BookVersion:
        """Find the approved version recorded last until an instant; raises ``NoSuchVersion``."""
        ...

    def list_approved(self) -> Sequence[BookVersion]:
        """List every approved version, oldest first."""
        ...


class GatewayVersions:
    """The approved versions of this gateway, and the prices of its settings beside them."""

    def __init__(self, settings: Settings, kept: KeptVersions) -> None:
        """Take the settings and the store.

        Args:
            settings: For GPUs of one's own.
            kept: Where versions are kept.
        """
        self._settings = settings
        self._kept = kept
        self._find = lru_cache(maxsize=_BOOKS_KEPT)(self._open)

    def find_book(self, version: str, provider: str) -> Book:
        """Find a version; see ``PriceVersions.find_book``."""
        return self._find(version, provider)

    def _open(self, version: str, provider: str) -> Book:
        return open_book(self._settings, version, [provider], load=self._kept.load_book)

    def known_at(self, at: datetime) -> BookVersion:
        """Find what was known, with the prices of one's own beside it.

        Args:
            at: Aware instant.

        Returns:
            The version recorded last until then.

        Raises:
            NoSuchVersion: None was recorded yet.
            BookBroken: It is not what it was.
        """
        found = self._kept.known_at(at)
        return add_own_prices(self._kept.load_book(found.version, ()), self._settings).version

    def list_versions(self) -> Sequence[BookVersion]:
        """List every approved version, oldest first."""
        return self._kept.list_approved()


def check_version(versions: PriceVersions, name: str) -> str:
    """Make sure that a version can be asked for.

    Args:
        versions: Where they are.
        name: As a person wrote it.

    Returns:
        The same name.

    Raises:
        NoSuchVersion: There is none; the text names those there are.
    """
    known = [version.version for version in versions.list_versions()]
    if name not in known and published_name(name) not in known:
        raise NoSuchVersion(f"no price book version {name}; there are: {', '.join(known)}")
    try:
        versions.find_book(name, "")
    except BookBroken as broken:
        raise NoSuchVersion(str(broken)) from broken
    return name
