"""The lists prices come from, by name: where they lie, how they are read, what they make together.

Must never reach a network: a list is a file that is already here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pricing.importers.catalogs import Catalog, check_candidate, keep_checked_by_hand
from pricing.importers.draft import Candidate
from pricing.importers.genai import read_genai_prices
from pricing.importers.genai_file import find_genai_data, name_genai_data
from pricing.importers.history import continue_history
from pricing.importers.litellm_map import find_litellm_map, name_litellm_map, read_litellm_map
from pricing.importers.merge import merge_catalogs
from pricing.manifest import BookBroken

GENAI: Final = "genai-prices"
LITELLM: Final = "litellm"
# The list of genai-prices says that a price without a start date always held; this is before any
# call that was ever priced.
ALWAYS: Final = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One list.

    Attributes:
        find: Finds the installed list without importing it; ``None`` where there is none.
        name: Name and version of the installed list.
        read: Reads it.
        is_dated: It says since when a price holds.
    """

    find: Callable[[], Path | None]
    name: Callable[[], str]
    read: Callable[..., Candidate]
    is_dated: bool


# The more trusted one first: it has dates and sources of its own, and its calculation is exact.
SOURCES: Final[Mapping[str, Source]] = MappingProxyType(
    {
        GENAI: Source(
            find=find_genai_data, name=name_genai_data, read=read_genai_prices, is_dated=True
        ),
        LITELLM: Source(
            find=find_litellm_map, name=name_litellm_map, read=read_litellm_map, is_dated=False
        ),
    }
)


def start_of(day: date) -> datetime:
    """Say when prices without a date start that were read on a day.

    Args:
        day: Day a list was read.

    Returns:
        Its first instant, UTC.
    """
    return datetime.combine(day, time(), tzinfo=UTC)


def load_candidate(name: str, path: Path | None = None, *, checked_at: date) -> Candidate:
    """Read a list from a file.

    Args:
        name: One of ``SOURCES``.
        path: The file; ``None`` for the one in the installed package of that name.
        checked_at: Day it is read.

    Returns:
        Its prices, not checked yet.

    Raises:
        BookBroken: No such list, or not that list: every problem at once, with file and row.
    """
    source = SOURCES.get(name)
    if source is None:
        raise BookBroken([f"no price list is called {name}; there are: {', '.join(SOURCES)}"])
    file = source.find() if path is None else path
    if file is None:
        raise BookBroken([f"{name} is not installed here; name a file"])
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as broken:
        raise BookBroken([f"{file}: {broken}"]) from None
    return source.read(
        text,
        file=file.name,
        source=source.name() if path is None else f"{name} {file.name}",
        checked_at=checked_at,
        since=ALWAYS if source.is_dated else start_of(checked_at),
    )


def assemble(current: Catalog, candidates: Iterable[Candidate], *, checked_at: date) -> Catalog:
    """Make the next catalog: what was checked by hand, then each list, then what was before.

    Args:
        current: What is in force. Of it stay the models checked by hand, and the past.
        candidates: Lists, the most trusted one first.
        checked_at: Day they were read.

    Returns:
        The next catalog, for ``diff_catalogs`` and ``refuse_shrinkage``.

    Raises:
        BookBroken: A list has impossible prices: every problem of every list at once.
    """
    problems: list[str] = []
    layers = [keep_checked_by_hand(current)]
    for candidate in candidates:
        try:
            layers.append(check_candidate(candidate))
        except BookBroken as broken:
            problems += broken.problems
    if problems:
        raise BookBroken(problems)
    since = start_of(checked_at)
    merged = merge_catalogs(layers, since, source=", ".join(layer.source for layer in layers))
    return continue_history(current, merged, since)
