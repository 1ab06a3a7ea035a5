"""The prices of one row of the litellm map, field by field.

Must never skip a field: each has a rule, or the row is refused by name.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from pricing.importers.amounts import AmountRefused, clean_unit_price, parse_amount
from pricing.importers.draft import Reason, Slot
from pricing.importers.keys import KEYS, NOT_PRICES, Refused, Shape, Shaped, Supported
from pricing.importers.slots import Prices, add_regions, add_tier, fill_tiers
from pricing.importers.windows import WindowRefused, parse_utc_windows
from pricing.meters import TRAITS, Meter

_AUDIO_MODES: Final = frozenset({"audio_speech", "audio_transcription", "realtime"})
_SIZES: Final = ("low", "medium", "high")
_REGIONS: Final = {
    Shape.REGION_EU: "eu",
    Shape.REGION_US: "us",
    Shape.REGIONAL: "regional",
}
# Entries of `provider_specific_entry` that steer calls and price nothing.
_STEERING: Final = frozenset(
    {"bedrock_invocation_schema", "dashscope_video_reference_input", "volcengine_video_frames"}
)
# In a batch, tokens without a price of their own are billed as plain input of the batch: that is
# the fallback of a card as well. Other tiers take the standard price.
_BARE_TIERS: Final = frozenset({"batch"})
_WINDOW_FIELDS: Final = frozenset({"windows", "hours_utc", "weekday_timezone"})


class RowRefused(ValueError):
    """A row that cannot be taken as a whole.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


class RowBroken(ValueError):
    """A row no list would have on purpose: a wrong type, a negative price, a huge one."""


class RowReader:
    """Reads one row.

    Attributes:
        left_out: Prices that are left out although the model is taken, with the reason.
    """

    def __init__(self, row: Mapping[str, object], *, is_inclusive: bool) -> None:
        """Prepare to read.

        Args:
            row: Fields by name.
            is_inclusive: The provider bills a band from its threshold on, not above it.
        """
        self.left_out: list[str] = []
        self._row = row
        self._mode = row.get("mode")
        self._is_inclusive = is_inclusive
        self._each: dict[Slot, Decimal] = {}
        self._beside: set[Slot] = set()
        self._regions: list[tuple[str, Decimal]] = []
        self._fast: Decimal | None = None

    def read(self) -> Prices:
        """Read every field.

        Returns:
            Prices by slot, tiers and regions written out.

        Raises:
            RowRefused: A field has no rule, or a price left out would bill the others wrong.
            RowBroken: A field is of a wrong type, or no price.
        """
        for key, value in self._row.items():
            if key in NOT_PRICES or key.startswith("supports_") or value is None:
                continue
            match KEYS.get(key):
                case None:
                    raise RowRefused(Reason.FIELD_UNKNOWN, f"{key} = {str(value)[:80]}")
                case Supported() as rule:
                    self._put(_slot_of(rule), _number(key, value), key)
                    if rule.beside:
                        self._beside.add(_slot_of(rule))
                case Refused() as rule:
                    self._refuse(key, value, rule)
                case Shaped(shape=shape):
                    self._read_shape(shape, key, value)
        return self._write_out()

    def _write_out(self) -> Prices:
        plain = {(slot.meter, slot.tier) for slot in self._each if slot.variant is None}
        prices: Prices = {}
        for written, each in self._each.items():
            slot = written
            if slot in self._beside and (slot.meter, slot.tier) not in plain:
                slot = slot._replace(variant=None)
            if self._is_inclusive and slot.over is not None:
                slot = slot._replace(over=slot.over - 1)
            try:
                prices[slot] = clean_unit_price(each, slot.meter)
            except AmountRefused as noise:
                raise RowRefused(Reason.NOISE, f"{slot.meter}: {noise}") from None
        if self._fast is not None:
            add_tier(prices, "fast", self._fast)
        prices = fill_tiers(prices, bare=_BARE_TIERS)
        add_regions(prices, self._regions)
        return prices

    def _put(self, slot: Slot, each: Decimal, key: str) -> None:
        if each == 0 and TRAITS[slot.meter].unit != "token":
            return  # a placeholder: a fee of nothing is no fee
        before = self._each.setdefault(slot, each)
        if before != each:
            raise RowRefused(
                Reason.CONTRADICTION, f"{key} is {each:f}, another field says {before:f}"
            )

    def _refuse(self, key: str, value: object, rule: Refused) -> None:
        if isinstance(value, int | Decimal) and value == 0:
            return
        if rule.whole_model:
            raise RowRefused(Reason.KEY_REFUSED, f"{key}: {rule.reason}")
        self.left_out.append(f"{key}: {rule.reason}")

    def _read_shape(self, shape: Shape, key: str, value: object) -> None:  # noqa: C901 - one guard per shape
        match shape:
            case Shape.SECONDS_IN:
                if self._mode not in _AUDIO_MODES:
                    raise RowRefused(Reason.KEY_REFUSED, f"{key}: seconds of what, nobody says")
                self._put(Slot(Meter.AUDIO_SECOND), _number(key, value), key)
            case Shape.SECONDS_OUT:
                is_audio = self._mode in _AUDIO_MODES
                meter = Meter.AUDIO_SECOND if is_audio else Meter.VIDEO_SECOND
                self._put(Slot(meter), _number(key, value), key)
            case Shape.QUERY:
                meter = Meter.SEARCH_UNIT if self._mode == "rerank" else Meter.REQUEST
                self._put(Slot(meter), _number(key, value), key)
            case Shape.SEARCH_SIZES:
                self._read_sizes(key, _mapping(key, value))
            case Shape.BANDS:
                self._read_bands(key, value)
            case Shape.OFF_PEAK:
                self._read_off_peak(key, _mapping(key, value))
            case Shape.REGION_EU | Shape.REGION_US | Shape.REGIONAL:
                self._regions.append((_REGIONS[shape], _number(key, value)))
            case Shape.EXTRAS:
                self._read_extras(key, _mapping(key, value))
            case Shape.PER_QUERY:
                if value != "per_query":
                    raise RowRefused(Reason.KEY_REFUSED, f"{key}: searches count per {value}")

    def _read_sizes(self, key: str, sizes: Mapping[str, object]) -> None:
        names = {f"search_context_size_{size}": size for size in _SIZES}
        if sizes.keys() - names.keys():
            raise RowRefused(Reason.FIELD_UNKNOWN, f"{key}: {', '.join(sorted(sizes))}")
        found = {names[name]: _number(name, amount) for name, amount in sizes.items()}
        if len(found) == len(_SIZES) and len(set(found.values())) == 1:
            self._put(Slot(Meter.WEB_SEARCH), next(iter(found.values())), key)
            return
        for size, each in found.items():
            self._put(Slot(Meter.WEB_SEARCH, variant=size), each, key)

    def _read_bands(self, key: str, value: object) -> None:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise RowBroken(f"{key} is a list of ranges, not {str(value)[:40]}")
        rows = [_mapping(key, row) for row in value]
        if any("range" not in row for row in rows):
            raise RowRefused(
                Reason.KEY_REFUSED, f"{key}: what chooses the price is not the length of the prompt"
            )
        end = 0
        for row in rows:
            start, end = _range(key, row["range"], end)
            for name, amount in row.items():
                if name != "range":
                    slot = self._plain_slot(key, name)
                    self._put(slot._replace(over=start or None), _number(name, amount), name)

    def _read_off_peak(self, key: str, block: Mapping[str, object]) -> None:
        try:
            windows = parse_utc_windows(block)
        except WindowRefused as refused:
            raise RowRefused(Reason.KEY_REFUSED, f"{key}: {refused}") from None
        for name, amount in block.items():
            if name not in _WINDOW_FIELDS:
                slot = self._plain_slot(key, name)
                for window in windows:
                    self._put(slot._replace(hours=window), _number(name, amount), name)

    def _read_extras(self, key: str, extras: Mapping[str, object]) -> None:
        for name, value in extras.items():
            if name == "us":
                self._regions.append(("us", _number(name, value)))
            elif name == "fast":
                self._fast = _number(name, value)
            elif name == "minimax_free_input_images":
                raise RowRefused(Reason.KEY_REFUSED, f"{key}: the first images of a call are free")
            elif name not in _STEERING:
                raise RowRefused(Reason.FIELD_UNKNOWN, f"{key}.{name} = {str(value)[:80]}")

    def _plain_slot(self, key: str, name: str) -> Slot:
        rule = KEYS.get(name)
        if not isinstance(rule, Supported):
            raise RowRefused(Reason.FIELD_UNKNOWN, f"{key}.{name}")
        return _slot_of(rule)


def _slot_of(rule: Supported) -> Slot:
    return Slot(rule.meter, tier=rule.tier, over=rule.over, variant=rule.variant)


def _number(key: str, value: object) -> Decimal:
    try:
        return parse_amount(value)
    except AmountRefused as refused:
        raise RowBroken(f"{key}: {refused}") from None


def _mapping(key: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise RowBroken(f"{key} is an object, not {str(value)[:40]}")
    return value


def _range(key: str, value: object, start_expected: int) -> tuple[int, int]:
    """A range of prompt lengths that begins where the one before it ended."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len("ab"):
        raise RowBroken(f"{key}: a range has two ends, not {str(value)[:40]}")
    start, end = (_number(key, edge) for edge in value)
    if start != start_expected or end <= start or end != int(end):
        raise RowBroken(f"{key}: the range {start:f} to {end:f} does not follow {start_expected}")
    return int(start), int(end)
