"""The litellm price map, read as a file: candidate prices of every provider it covers.

Must never import litellm: importing it takes seconds and runs its code.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pricing.importers.bands import leave_out_bandless
from pricing.importers.corrections import find_wrong
from pricing.importers.draft import Candidate, DraftModel, DraftRate, LeftOut, Reason, Slot
from pricing.importers.lists import parse_list
from pricing.importers.litellm_row import RowBroken, RowReader, RowRefused
from pricing.importers.places import LOCAL_PROVIDERS, CatalogPlace, NotAModel, find_place
from pricing.importers.slots import Prices, is_all_zero
from pricing.manifest import BookBroken
from pricing.meters import Meter

FILE: Final = "model_prices_and_context_window_backup.json"
# Rows that describe the file itself.
_NOT_MODELS: Final = frozenset({"fallback_generalizations", "sample_spec"})
# Providers that bill a context band from its threshold on, where all others do above it.
_INCLUSIVE: Final = frozenset({"xai"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A row with its prices.

    Attributes:
        key: Name of the row.
        place: Catalog provider and model.
        prices: Prices by slot.
        context_tokens_max: Most tokens of a prompt.
        output_tokens_max: Most tokens of an answer.
    """

    key: str
    place: CatalogPlace
    prices: Prices
    context_tokens_max: int | None
    output_tokens_max: int | None


def find_litellm_map() -> Path | None:
    """Find the map inside the installed package without importing it.

    Returns:
        Its path, or ``None`` when the package is not installed.
    """
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name(FILE)
    return path if path.is_file() else None


def name_litellm_map() -> str:
    """Name the installed list and its version, as rates cite it.

    Returns:
        Such as ``litellm 1.106.2``.
    """
    return f"litellm {version('litellm')}"


def read_litellm_map(
    text: str, *, file: str, source: str, checked_at: date, since: datetime
) -> Candidate:
    """Read the map.

    Args:
        text: Content of the file.
        file: Its name, for problems.
        source: Name and version of the list, as every rate will cite it.
        checked_at: Day it was read.
        since: First instant its prices hold; the map has no dates and speaks of its own day only.

    Returns:
        Every price it has, and by name whatever did not become one.

    Raises:
        BookBroken: Not such a map, or a row has a wrong type or an impossible price: every problem
            at once, each with file and row.
    """
    document = parse_list(text, file)
    if not isinstance(document, Mapping) or not document:
        raise BookBroken([f"{file}: a price map is an object with one entry for each model"])
    rows: list[_Row] = []
    left_out: list[LeftOut] = []
    problems: list[str] = []
    for key, fields in document.items():
        where = f"{file}: {key}"
        try:
            rows.append(_read_row(key, fields, where, left_out))
        except RowBroken as broken:
            problems.append(f"{where}: {broken}")
        except RowRefused as refused:
            left_out.append(LeftOut(reason=refused.reason, where=where, detail=str(refused)))
    if problems:
        raise BookBroken(problems)
    models = _join(rows, file, since, left_out)
    return leave_out_bandless(
        Candidate(source=source, checked_at=checked_at, models=models, left_out=tuple(left_out))
    )


def _read_row(key: str, fields: object, where: str, left_out: list[LeftOut]) -> _Row:
    if not isinstance(fields, Mapping):
        raise RowBroken(f"an entry is an object, not {str(fields)[:40]}")
    if key in _NOT_MODELS:
        raise RowRefused(Reason.NOT_A_MODEL, "describes the map")
    wrong = find_wrong(key)
    if wrong is not None:
        raise RowRefused(wrong.reason, wrong.why)
    named = fields.get("litellm_provider")
    if not isinstance(named, str):
        raise RowBroken("litellm_provider is missing")
    try:
        place = find_place(key, named)
    except NotAModel as refused:
        raise RowRefused(Reason.NOT_A_MODEL, str(refused)) from None
    if place is None:
        raise RowRefused(Reason.PROVIDER_UNKNOWN, named)
    reader = RowReader(fields, is_inclusive=place.provider in _INCLUSIVE)
    prices = _placed(reader.read(), place)
    if not prices:
        raise RowRefused(Reason.NO_PRICE, "the row has no price")
    is_free = place.provider in LOCAL_PROVIDERS or key.endswith((":free", "-free"))
    if is_all_zero(prices) and not is_free:
        raise RowRefused(Reason.ONLY_ZEROS, ", ".join(sorted({slot.meter for slot in prices})))
    left_out.extend(
        LeftOut(reason=Reason.PRICE_LEFT_OUT, where=where, detail=detail)
        for detail in reader.left_out
    )
    return _Row(
        key=key,
        place=place,
        prices=prices,
        context_tokens_max=_limit(fields, "max_input_tokens"),
        output_tokens_max=_limit(fields, "max_output_tokens"),
    )


def _placed(prices: Prices, place: CatalogPlace) -> Prices:
    """Give the prices the region and the image size their row is for."""
    placed: Prices = {}
    for written, amount in prices.items():
        slot: Slot = written
        if place.region is not None:
            slot = slot._replace(region=place.region)
        if place.variant is not None and slot.meter is Meter.IMAGE:
            slot = slot._replace(variant=place.variant)
        placed[slot] = amount
    return placed


def _limit(fields: Mapping[str, object], name: str) -> int | None:
    value = fields.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or value != value // 1:
        raise RowBroken(f"{name} is a whole number, not {str(value)[:40]}")
    if not 0 <= value < 10**12:
        raise RowBroken(f"{name} is {str(value)[:40]}")
    return int(value) or None


def _join(
    rows: list[_Row], file: str, since: datetime, left_out: list[LeftOut]
) -> tuple[DraftModel, ...]:
    """One model from the rows of its regions and sizes; of two rows for one thing, one is taken."""
    taken: dict[tuple[str, str], dict[tuple[str | None, str | None], _Row]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: not row.place.is_prefixed):
        model = taken[row.place.provider, row.place.model]
        other = model.setdefault((row.place.region, row.place.variant), row)
        if other is not row and not _is_same(row.prices, other.prices):
            left_out.append(
                LeftOut(
                    reason=Reason.CONTRADICTION,
                    where=f"{file}: {row.key}",
                    detail=f"{other.key} prices {row.place.provider}/{row.place.model} otherwise",
                )
            )
    return tuple(
        DraftModel(
            provider=provider,
            model=model,
            context_tokens_max=_most(row.context_tokens_max for row in parts.values()),
            output_tokens_max=_most(row.output_tokens_max for row in parts.values()),
            rates=tuple(
                DraftRate(slot, amount, since)
                for row in parts.values()
                for slot, amount in row.prices.items()
            ),
            where=f"{file}: {', '.join(row.key for row in parts.values())}",
        )
        for (provider, model), parts in taken.items()
    )


def _is_same(ours: Prices, theirs: Prices) -> bool:
    return ours.keys() == theirs.keys() and all(
        amount.is_same_as(theirs[slot]) for slot, amount in ours.items()
    )


def _most(limits: Iterable[int | None]) -> int | None:
    known = [limit for limit in limits if limit is not None]
    return max(known, default=None)
