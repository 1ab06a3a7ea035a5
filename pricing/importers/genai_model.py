"""One model of genai-prices: its conditional prices and variants become dated rates.

Must never reorder its conditions: the last one that holds wins, as the list defines it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final, NamedTuple

from pricing.hours import Hours
from pricing.importers.amounts import AmountRefused, clean_amount, parse_amount
from pricing.importers.draft import Amount, DraftRate, Reason, Slot
from pricing.importers.slots import Prices
from pricing.importers.windows import WindowRefused, daily_window
from pricing.meters import TRAITS, Meter
from pricing.money import decimal_from_text
from pricing.sku import STANDARD_TIER

_MILLION: Final = 1_000_000
_HOUR_S: Final = 3600


class Unit(NamedTuple):
    """What one price field of the list is for.

    Attributes:
        meter: What is counted.
        per: The quantity its amount is for.
        variant: Make of what is sold.
    """

    meter: Meter
    per: int = _MILLION
    variant: str | None = None


UNITS: Final[Mapping[str, Unit]] = MappingProxyType(
    {
        "input_mtok": Unit(Meter.INPUT),
        "output_mtok": Unit(Meter.OUTPUT),
        "cache_read_mtok": Unit(Meter.CACHE_READ),
        "cache_write_mtok": Unit(Meter.CACHE_WRITE),
        "cache_write_1h_mtok": Unit(Meter.CACHE_WRITE_1H),
        "input_audio_mtok": Unit(Meter.INPUT_AUDIO),
        "input_image_mtok": Unit(Meter.INPUT_IMAGE),
        "input_video_mtok": Unit(Meter.INPUT_VIDEO),
        "cache_audio_read_mtok": Unit(Meter.CACHE_READ_AUDIO),
        "cache_image_read_mtok": Unit(Meter.CACHE_READ_IMAGE),
        "cache_video_read_mtok": Unit(Meter.CACHE_READ_VIDEO),
        "output_audio_mtok": Unit(Meter.OUTPUT_AUDIO),
        "output_image_mtok": Unit(Meter.OUTPUT_IMAGE),
        "output_video_mtok": Unit(Meter.OUTPUT_VIDEO),
        "output_reasoning_mtok": Unit(Meter.REASONING),
        "output_citation_mtok": Unit(Meter.OUTPUT, variant="citation"),
        "web_searches_kcount": Unit(Meter.WEB_SEARCH, 1000),
        "storage_searches_kcount": Unit(Meter.SEARCH_UNIT, 1000, "file_search"),
        "requests_kcount": Unit(Meter.REQUEST, 1000),
        "input_text_messages_kcount": Unit(Meter.REQUEST, 1000, "text_message"),
        "input_mchars": Unit(Meter.CHARACTER),
        "input_document_kpages": Unit(Meter.PAGE, 1000),
        "input_annotated_document_kpages": Unit(Meter.PAGE, 1000, "annotated"),
        "audio_hours": Unit(Meter.AUDIO_SECOND, _HOUR_S),
        "input_audio_hours": Unit(Meter.AUDIO_SECOND, _HOUR_S),
    }
)
# What a request's context selects here. The provider that has ``fast`` as a service tier calls the
# same thing priority.
_CONTEXTS: Final[Mapping[tuple[str, str], Slot]] = MappingProxyType(
    {
        ("processing", "batch"): Slot(Meter.INPUT, tier="batch"),
        ("service_tier", "default"): Slot(Meter.INPUT),
        ("service_tier", "flex"): Slot(Meter.INPUT, tier="flex"),
        ("service_tier", "priority"): Slot(Meter.INPUT, tier="priority"),
        ("service_tier", "fast"): Slot(Meter.INPUT, tier="priority"),
        ("speed", "fast"): Slot(Meter.INPUT, tier="fast"),
        ("route", "mistral/eu"): Slot(Meter.INPUT, region="eu"),
        ("search_type", "web"): Slot(Meter.INPUT),
        ("search_type", "fast"): Slot(Meter.INPUT, variant="fast"),
    }
)
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::00)?(?:Z|\+00:00)?")

Fields = Mapping[str, object]


class ModelRefused(ValueError):
    """A model that cannot be taken as a whole.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


class _Condition(NamedTuple):
    """Prices and when they hold.

    Attributes:
        starts: First day, UTC; ``None`` for always.
        hours: Window of the day; ``None`` for all of it.
        when: Context of a request; ``None`` for the standard prices.
        prices: Prices by field.
    """

    starts: date | None
    hours: Hours | None
    when: tuple[str, str] | None
    prices: Fields


class ModelReader:
    """Reads one model."""

    def __init__(self, entry: Mapping[str, object], since: datetime) -> None:
        """Prepare to read.

        Args:
            entry: The model as the list has it.
            since: First instant of prices without a start date.
        """
        self._entry = entry
        self._since = since

    def read(self) -> tuple[DraftRate, ...]:
        """Cut the model's history where a price starts, and write out every piece.

        Returns:
            Dated rates; equal neighbours are one.

        Raises:
            ModelRefused: A condition or a unit no rule is known for.
            ValueError: A wrong type, or an impossible price.
        """
        standard, variants = self._read_conditions()
        days = {c.starts for c in [*standard, *variants] if c.starts is not None}
        starts: list[date | None] = [None, *sorted(days)]
        pieces = [(self._instant(day), _prices_on(day, standard, variants)) for day in starts]
        open_rates: dict[Slot, DraftRate] = {}
        done: list[DraftRate] = []
        for at, prices in pieces:
            for slot, rate in list(open_rates.items()):
                amount = prices.get(slot)
                if amount is None or not amount.is_same_as(rate.amount):
                    done.append(open_rates.pop(slot)._replace(valid_to=at))
            for slot, amount in prices.items():
                if slot not in open_rates:
                    open_rates[slot] = DraftRate(slot, amount, at)
        return (*done, *open_rates.values())

    def _instant(self, day: date | None) -> datetime:
        return self._since if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC)

    def _read_conditions(self) -> tuple[list[_Condition], list[_Condition]]:
        prices = self._entry.get("prices")
        if isinstance(prices, Mapping):
            prices = [{"prices": prices}]
        standard = [_read_condition(row) for row in _rows("prices", prices)]
        variants = [_read_condition(row) for row in _rows("price_variants", self._variants())]
        if any(c.hours is not None or c.when is None for c in variants):
            raise ModelRefused(Reason.FIELD_UNKNOWN, "a variant by the time of day, or of nothing")
        if any(c.when is not None for c in standard):
            raise ModelRefused(Reason.FIELD_UNKNOWN, "a standard price with a context")
        return standard, variants

    def _variants(self) -> object:
        found = self._entry.get("price_variants")
        return [] if found is None else found


def _rows(name: str, value: object) -> Iterator[Mapping[str, object]]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{name} is a list, not {str(value)[:40]}")  # noqa: TRY004 - one error type for bad catalog text
    for row in value:
        if not isinstance(row, Mapping):
            raise ValueError(f"{name} holds objects, not {str(row)[:40]}")  # noqa: TRY004 - likewise
        yield row


def _read_condition(row: Mapping[str, object]) -> _Condition:
    unknown = row.keys() - {"constraint", "prices", "when"}
    prices, constraint = row.get("prices"), row.get("constraint")
    if unknown or not isinstance(prices, Mapping):
        raise ModelRefused(Reason.FIELD_UNKNOWN, ", ".join(sorted(map(str, unknown))) or "prices")
    starts, hours = None, None
    match constraint:
        case None:
            pass
        case {"start_date": str() as day, **rest} if not rest:
            starts = date.fromisoformat(day)
        case {"start_time": start, "end_time": end, **rest} if not rest:
            try:
                (hours,) = daily_window(_read_clock(start), _read_clock(end))
            except WindowRefused as refused:
                raise ModelRefused(Reason.FIELD_UNKNOWN, str(refused)) from None
        case _:
            raise ModelRefused(Reason.FIELD_UNKNOWN, f"constraint {str(constraint)[:80]}")
    return _Condition(starts, hours, _read_when(row.get("when")), prices)


def _read_when(when: object) -> tuple[str, str] | None:
    if when is None:
        return None
    pairs = list(when.items()) if isinstance(when, Mapping) else []
    if len(pairs) != 1 or pairs[0] not in _CONTEXTS:
        raise ModelRefused(Reason.FIELD_UNKNOWN, f"when {str(when)[:80]}")
    return pairs[0]


def _read_clock(text: object) -> tuple[int, int]:
    found = _CLOCK.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise WindowRefused(f"{str(text)[:40]!r} is not a time of day in UTC")
    return int(found[1]), int(found[2])


def _prices_on(day: date | None, standard: list[_Condition], variants: list[_Condition]) -> Prices:
    """Every price that holds from a day on, until the next day something starts."""
    base, windows = _find_standard(day, standard)
    prices: Prices = {}
    _put_all(prices, base, Slot(Meter.INPUT), None)
    for window in windows:
        if window.prices.keys() != base.keys():
            raise ModelRefused(Reason.FIELD_UNKNOWN, "a window that prices other things")
        _put_all(prices, window.prices, Slot(Meter.INPUT), window.hours)
    overrides: dict[Slot, dict[str, object]] = {}
    for variant in variants:
        if variant.when is not None and (
            variant.starts is None or (day is not None and day >= variant.starts)
        ):
            own = {name: value for name, value in variant.prices.items() if value is not None}
            # Of two prices for one field the first holds, as the list defines it.
            known = overrides.setdefault(_CONTEXTS[variant.when], {})
            known.update({name: value for name, value in own.items() if name not in known})
    for place, own in overrides.items():
        if place == Slot(Meter.INPUT) or not own:
            continue
        _put_all(prices, own, place, None)
        if place.tier != STANDARD_TIER:
            inherited = {name: value for name, value in base.items() if name not in own}
            _put_all(prices, inherited, place, None)
            for window in windows:
                later = {n: v for n, v in window.prices.items() if n not in own}
                _put_all(prices, later, place, window.hours)
    return prices


def _find_standard(
    day: date | None, conditions: list[_Condition]
) -> tuple[Fields, list[_Condition]]:
    """The price that holds all day, and the windows listed after it, which win over it."""
    windows: list[_Condition] = []
    for condition in reversed(conditions):
        if condition.hours is not None:
            windows.append(condition)
        elif condition.starts is None or (day is not None and day >= condition.starts):
            return condition.prices, windows
    return (conditions[0].prices, windows) if conditions else ({}, [])


def _put_all(prices: Prices, fields: Fields, place: Slot, hours: Hours | None) -> None:
    for name, value in fields.items():
        if value is None:
            continue
        unit = UNITS.get(name)
        if unit is None:
            raise ModelRefused(Reason.FIELD_UNKNOWN, f"{name} = {str(value)[:80]}")
        variant = unit.variant if place.variant is None else place.variant
        slot = Slot(unit.meter, place.tier, None, place.region, variant, hours)
        for over, number in _steps(name, value):
            try:
                amount = clean_amount(number, unit.per)
            except AmountRefused as noise:
                raise ModelRefused(Reason.NOISE, f"{name}: {noise}") from None
            if amount.value or TRAITS[unit.meter].unit == "token":
                _put(prices, slot._replace(over=over), amount, name)


def _put(prices: Prices, slot: Slot, amount: Amount, name: str) -> None:
    if not prices.setdefault(slot, amount).is_same_as(amount):
        raise ModelRefused(Reason.CONTRADICTION, f"{name}: {amount.value:f}, and another price")


def _steps(name: str, value: object) -> Iterator[tuple[int | None, Decimal]]:
    """A price, or the base price and those above each length of prompt."""
    if not isinstance(value, Mapping):
        yield None, _number(name, value)
        return
    if value.keys() != {"base", "tiers"}:
        raise ModelRefused(Reason.FIELD_UNKNOWN, f"{name}: {', '.join(map(str, value))}")
    yield None, _number(name, value["base"])
    for row in _rows(name, value["tiers"]):
        start = row.get("start")
        if row.keys() != {"start", "price"} or type(start) is not int or start < 0:
            raise ValueError(f"{name}: a tier has a start and a price, not {str(row)[:60]}")
        yield start, _number(name, row["price"])


def _number(name: str, value: object) -> Decimal:
    try:
        return parse_amount(decimal_from_text(value) if isinstance(value, str) else value)
    except ValueError as refused:
        raise ValueError(f"{name}: {refused}") from None
