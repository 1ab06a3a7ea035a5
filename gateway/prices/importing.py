"""From price lists to a candidate: read, checked, put together with the prices there are.

Must never reach a network, and never let a list that is broken or has shrunk become a candidate.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from gateway.prices.store import PriceStore
from pricing.book import Book, BookBroken, object_name
from pricing.importers.by_hand import Lists, OwnPrice, lay_own_prices
from pricing.importers.catalogs import (
    LIST_SOURCES,
    Catalog,
    catalog_of_book,
    check_candidate,
    keep_checked_by_hand,
)
from pricing.importers.diff import refuse_shrinkage
from pricing.importers.draft import Candidate
from pricing.importers.history import continue_history
from pricing.importers.merge import merge_catalogs
from pricing.importers.publish import contents_of
from pricing.importers.sources import GENAI, LITELLM, SOURCES, load_candidate, start_of
from pricing.rates import Rate
from pricing.rows import parse_prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What lists make of the prices there are.

    Attributes:
        lists: The lists, as read.
        catalog: The next prices.
        contents: The same as digest and text by provider.
        own: Prices set by hand that hold now or later: kept, or replaced.
    """

    lists: tuple[Candidate, ...]
    catalog: Catalog
    contents: Mapping[str, tuple[str, str]]
    own: tuple[OwnPrice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What an import may do that it does not do unasked.

    Attributes:
        may_shrink: Providers that may lose models.
        replaces_own: Whether lists replace the prices that were set by hand.
    """

    may_shrink: Sequence[str] = ()
    replaces_own: bool = False


def read_lists(sources: Sequence[str], day: date) -> tuple[Candidate, ...]:
    """Read price lists.

    Args:
        sources: Names of installed lists, or files; the more trusted one first.
        day: Today.

    Returns:
        The lists.

    Raises:
        BookBroken: One is not there or is no price list; every problem at once.
    """
    found = []
    for source in sources:
        if source in SOURCES:
            found.append(load_candidate(source, checked_at=day))
        else:
            file = Path(source)
            found.append(load_candidate(_kind_of(file), file, checked_at=day))
    return tuple(found)


def find_own_prices(store: PriceStore, book: Book) -> tuple[Rate, ...]:
    """Find the prices that somebody set here: neither of a list nor of a shipped version.

    Args:
        store: The versions of the price book.
        book: One of them, whole.

    Returns:
        Rates of the book.

    Raises:
        BookBroken: A shipped version is not what it was.
        StoreUnavailable: The database cannot be reached.
    """
    shipped = [one.manifest for one in store.list_versions() if one.origin == "shipped"]
    by_provider: dict[str, list[Rate]] = defaultdict(list)
    for rate in book.rates:
        if not rate.source.startswith(LIST_SOURCES):
            by_provider[rate.provider].append(rate)
    own: list[Rate] = []
    for provider, rates in sorted(by_provider.items()):
        digests = {one.providers[provider] for one in shipped if provider in one.providers}
        if book.version.manifest.providers.get(provider) in digests:
            continue
        known = {_published(rate) for each in digests for rate in _read(store, provider, each)}
        own += [rate for rate in rates if _published(rate) not in known]
    return tuple(own)


def _read(store: PriceStore, provider: str, digest: str) -> Iterable[Rate]:
    file = object_name(provider, digest)
    return parse_prices(file, store.open_object(provider, digest)).rates


def _published(rate: Rate) -> tuple[object, ...]:
    """What stays of a published price where somebody cut its time short."""
    return rate.price_id, rate.amount, rate.per, rate.currency, rate.source


def make_candidate(
    book: Book,
    lists: Sequence[Candidate],
    day: date,
    *,
    own: Collection[Rate] = (),
    allowed: Allowed = Allowed(),
) -> Imported:
    """Put lists together with the prices there are.

    Args:
        book: The version in force, whole.
        lists: The most trusted one first.
        day: Today.
        own: The rates of that version that somebody set here.
        allowed: What else it may do.

    Returns:
        The next prices: what was set or checked by hand, then each list, then what other lists
        said.

    Raises:
        BookBroken: A list has impossible prices, or a provider lost models: every problem at once.
    """
    current = catalog_of_book(book)
    problems: list[str] = []
    layers = []
    for candidate in lists:
        try:
            layers.append(check_candidate(candidate))
        except BookBroken as broken:
            problems += broken.problems
    if problems:
        raise BookBroken(problems)
    trusted = list(SOURCES)
    first = min(trusted.index(_name_of(candidate)) for candidate in lists)
    read = {_name_of(candidate) for candidate in lists}
    listed = [
        *(_of_list(current, name) for name in trusted[:first] if name not in read),
        *layers,
        *(_of_list(current, name) for name in trusted[first:] if name not in read),
    ]
    since = start_of(day)
    source = ", ".join(one.source for one in lists)
    merged = merge_catalogs([keep_checked_by_hand(current), *listed], since, source=source)
    catalog = continue_history(current, merged, since)
    kept: tuple[OwnPrice, ...] = ()
    if own:
        said = merge_catalogs(listed, since, source=source)
        saying = Lists(said=said, since=since, win=allowed.replaces_own)
        catalog, kept = lay_own_prices(catalog, current, own, saying)
    refuse_shrinkage(current, catalog, since, allowed=allowed.may_shrink)
    contents = contents_of(catalog)
    return Imported(lists=tuple(lists), catalog=catalog, contents=contents, own=kept)


def to_row_own(own: OwnPrice) -> dict[str, str | None]:
    """Write down a price that was kept although a list was read, for the candidate.

    Args:
        own: The price.

    Returns:
        JSON.
    """
    mine, listed = own.rate, own.listed
    return {
        "price_id": mine.price_id,
        "amount": f"{mine.amount:f}",
        "per": str(mine.per),
        "valid_from": mine.valid_from.isoformat(),
        "valid_to": None if mine.valid_to is None else mine.valid_to.isoformat(),
        "source": mine.source,
        "list_amount": None if listed is None else f"{listed.amount:f}",
        "list_per": None if listed is None else str(listed.per),
        "list_source": None if listed is None else listed.source,
    }


def _name_of(candidate: Candidate) -> str:
    """Name the list; its source goes on with a version or a file."""
    return candidate.source.partition(" ")[0]


def _of_list(catalog: Catalog, name: str) -> Catalog:
    """What a list that was not read now said before: it was not asked, so nothing of it is gone."""
    rates = tuple(rate for rate in catalog.rates if rate.source.startswith(f"{name} "))
    named = {(rate.provider, rate.model) for rate in rates}
    return Catalog(
        source=name,
        models=tuple(m for m in catalog.models if (m.provider, m.model) in named),
        rates=rates,
    )


def _kind_of(file: Path) -> str:
    """Tell which list a file is: genai-prices is a list, or a module; litellm's is an object."""
    try:
        with file.open("rb") as opened:
            start = opened.read(4096).lstrip()
    except OSError as broken:
        known = ", ".join(SOURCES)
        raise BookBroken([f"{file}: {broken.strerror}; name a file, or one of {known}"]) from broken
    return LITELLM if start.startswith(b"{") else GENAI
