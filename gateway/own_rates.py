"""The price book of this gateway: a published version, and the prices of GPUs of one's own.

Must never replace a published price.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache

from gateway.settings import Settings
from gateway.settings_costs import to_deployment
from pricing.book import Book, BookBroken
from pricing.book import load_book as load_shipped_book
from pricing.selfhosted import (
    NO_FLEET,
    DeploymentRefused,
    Fleet,
    add_to_book,
    derive_prices,
    fleets_of,
    published_name,
)

# Loads a published version, by name or the one in force, with these catalog providers or all.
LoadBook = Callable[[str | None, Iterable[str] | None], Book]


def load_shipped(version: str | None, providers: Iterable[str] | None) -> Book:
    """Load a version that came with the program, for those who have no database.

    Args:
        version: Its name; ``None`` for the newest.
        providers: Catalog providers to load; ``None`` for all.

    Returns:
        The book.

    Raises:
        BookBroken: There is no such version, or it is broken.
        OSError: A file cannot be read.
    """
    return load_shipped_book(version, providers=providers)


def open_book(
    settings: Settings,
    version: str | None = None,
    providers: Iterable[str] | None = None,
    *,
    load: LoadBook = load_shipped,
) -> Book:
    """Load a published version of the price book and lay the prices of the settings beside it.

    Args:
        settings: For GPUs of one's own.
        version: Name of the version, as a record has it; ``None`` for the one in force.
        providers: Catalog providers to load; ``None`` for all.
        load: Where published versions are found: those that came with the program, unless said
            otherwise.

    Returns:
        The book. Its version says when it has prices of one's own.

    Raises:
        BookBroken: There is no such version, or it is broken; or the own prices a name asks for are
            not those that the settings make.
        OSError: A file cannot be read.
    """
    published = load(None if version is None else published_name(version), providers)
    if version == published.version.version:
        return published
    book = add_own_prices(published, settings)
    if version not in (None, book.version.version):
        raise BookBroken(
            [
                f"no price book version {version}: with the prices under self_hosted in the "
                f"settings it is {book.version.version}"
            ]
        )
    return book


def book_finder(settings: Settings, load: LoadBook = load_shipped) -> Callable[[str, str], Book]:
    """Make what finds the books that open calls of an earlier run were admitted under.

    Args:
        settings: For GPUs of one's own.
        load: As for ``open_book``.

    Returns:
        A function of a version and a catalog provider, which loads each book once. It raises
        ``BookBroken`` as ``open_book`` does.
    """

    @lru_cache(maxsize=4)
    def find(version: str, provider: str) -> Book:
        return open_book(settings, version, [provider], load=load)

    return find


def add_own_prices(book: Book, settings: Settings) -> Book:
    """Lay the prices of the settings beside a published book.

    Args:
        book: A published version, or a part of it.
        settings: For GPUs of one's own.

    Returns:
        The book, with a version that says so; the same book when there are none.

    Raises:
        BookBroken: A name is claimed twice.
    """
    try:
        own = derive_prices(to_deployment(one) for one in settings.self_hosted)
    except DeploymentRefused as refused:
        raise BookBroken([f"self_hosted: {refused}"]) from refused
    return add_to_book(book, own)


def fleet_of(settings: Settings, provider: str) -> Fleet:
    """Tell how many GPUs the models of a provider run on.

    Args:
        settings: For GPUs of one's own.
        provider: Provider id.

    Returns:
        Its fleet; one GPU for everything where the settings say nothing.
    """
    deployments = [to_deployment(one) for one in settings.self_hosted]
    return fleets_of(deployments).get(provider, NO_FLEET)
