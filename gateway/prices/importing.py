"""From price lists to a candidate: read, checked, put together with the prices there are.

Must never reach a network, and never let a list that is broken or has shrunk become a candidate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pricing.book import Book, BookBroken
from pricing.importers.catalogs import (
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What lists make of the prices there are.

    Attributes:
        lists: The lists, as read.
        catalog: The next prices.
        contents: The same as digest and text by provider.
    """

    lists: tuple[Candidate, ...]
    catalog: Catalog
    contents: Mapping[str, tuple[str, str]]


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


def make_candidate(
    book: Book, lists: Sequence[Candidate], day: date, *, may_shrink: Iterable[str] = ()
) -> Imported:
    """Put lists together with the prices there are.

    Args:
        book: The version in force, whole.
        lists: The most trusted one first.
        day: Today.
        may_shrink: Providers that may lose models.

    Returns:
        The next prices: what was checked by hand, then each list, then what other lists said.

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
    layers = [
        keep_checked_by_hand(current),
        *(_of_list(current, name) for name in trusted[:first] if name not in read),
        *layers,
        *(_of_list(current, name) for name in trusted[first:] if name not in read),
    ]
    since = start_of(day)
    merged = merge_catalogs(layers, since, source=", ".join(one.source for one in lists))
    catalog = continue_history(current, merged, since)
    refuse_shrinkage(current, catalog, since, allowed=may_shrink)
    return Imported(lists=tuple(lists), catalog=catalog, contents=contents_of(catalog))


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
