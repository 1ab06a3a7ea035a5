"""How a ledger record is laid out in the tables, there and back without loss.

Must never compute: what is not in the record is not in its rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import UNSET

from gateway.ledger.record import LedgerLine, LedgerRecord
from pricing.meters import Meter

_LIST_FIELDS: Final = ("tags", "usage", "flags", "lines")
# Null in the tables where they are unset in the record.
_PRICED_TEXTS: Final = (
    *("priced_as", "priced_model", "tier", "region"),
    *("model_asked", "model_behind", "tier_asked"),
)
_MAPS: Final = ("variants", "input_parts")
_PLAIN_FIELDS: Final = tuple(
    name
    for name in LedgerRecord.__struct_fields__
    if name not in (*_LIST_FIELDS, *_PRICED_TEXTS, *_MAPS)
)
_LINE_FIELDS: Final = (
    *("meter", "quantity", "sku", "price_id"),
    *("unit_price", "per", "list_cost_pico", "cost_pico"),
)
# What a row holds, as it is laid out here: all columns but those of the chain and of the writer.
RECORD_COLUMNS: Final = (*_PLAIN_FIELDS, *_PRICED_TEXTS, "tags", "usage", "flags", *_MAPS)
LINE_COLUMNS: Final = ("record_id", "line", "started_at_us", *_LINE_FIELDS)
# All values at once in C: one by one they take longer than writing them.
_PLAIN_OF: Final = attrgetter(*_PLAIN_FIELDS)
_PRICED_OF: Final = attrgetter(*_PRICED_TEXTS)
_JSON_OF: Final = attrgetter("tags", "usage")
_LINE_OF: Final = attrgetter(*_LINE_FIELDS)
_NO_PRICE: Final = (None,) * (len(_LINE_FIELDS) - 2)
_ENCODE: Final = msgspec.json.Encoder().encode
_RANK: Final[Mapping[str, int]] = {meter.value: rank for rank, meter in enumerate(Meter)}
_INT64_MAX: Final = 2**63 - 1
_NUMBER_FIELDS: Final = (
    "input_total",
    "output_total",
    "user_input_tokens",
    "cost_pico",
    "list_cost_pico",
    "provider_cost_pico",
)
_CEILING_FIELDS: Final = ("ceiling_pico", "ceiling_tokens")
_UNKNOWN: Final[Mapping[str, Any]] = {
    **dict.fromkeys(_NUMBER_FIELDS),
    "usage": {},
    "lines": (),
    "basis": "unknown",
    "cost_status": "unknown",
}


def to_values(record: LedgerRecord) -> tuple[Any, ...]:
    """Lay a record out as a row of ``records``.

    Args:
        record: Any record.

    Returns:
        What ``RECORD_COLUMNS`` name, in that order, as a driver takes it.
    """
    return (
        *_PLAIN_OF(record),
        *[None if value is UNSET else value for value in _PRICED_OF(record)],
        *["{}" if not value else _to_json(value) for value in _JSON_OF(record)],
        "[]" if not record.flags else _to_json(record.flags),
        None if record.variants is UNSET else _to_json(record.variants),
        None if record.input_parts is UNSET else _to_json(record.input_parts),
    )


def to_line_values(record: LedgerRecord) -> list[tuple[Any, ...]]:
    """Lay the meters of a record out as rows of ``record_lines``.

    Args:
        record: Any record.

    Returns:
        What ``LINE_COLUMNS`` name, in that order: its rated lines, then every counted meter that
        has no rated line, with null price and cost. The lines of a correction may count what the
        record it corrects has counted without a price: then a row without a price takes that count
        back, so that no sum has it twice.
    """
    id_, at_us = record.id, record.started_at_us
    rows = [(id_, n, at_us, *_LINE_OF(line)) for n, line in enumerate(record.lines)]
    unrated = _unrated(record)
    if unrated:
        rows += [
            (id_, n, at_us, meter, str(unrated[meter]), *_NO_PRICE)
            for n, meter in enumerate(sorted(unrated, key=_rank), start=len(rows))
        ]
    return rows


def to_line_rows(record: LedgerRecord) -> list[dict[str, Any]]:
    """Lay the meters of a record out as the database gives them back.

    Args:
        record: Any record.

    Returns:
        As ``to_line_values``, by name.
    """
    return [dict(zip(LINE_COLUMNS, row, strict=True)) for row in to_line_values(record)]


def _unrated(record: LedgerRecord) -> Mapping[str, int | str | Decimal]:
    if record.corrects is None:
        rated = {line.meter for line in record.lines}
        if rated.issuperset(record.usage):
            return {}
        return {meter: count for meter, count in record.usage.items() if meter not in rated}
    left = {meter: Decimal(count) for meter, count in record.usage.items()}
    for line in record.lines:
        left[line.meter] = left.get(line.meter, Decimal(0)) - Decimal(line.quantity)
    return {meter: f"{count:f}" for meter, count in left.items() if count}


def from_row(row: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> LedgerRecord:
    """Read a record back from its rows.

    Args:
        row: One row of ``records``.
        lines: Its rows of ``record_lines``, in the order of ``line``.

    Returns:
        The record that ``to_values`` and ``to_line_values`` were given. Tags are sorted by name and
        meters stand in the order of the catalog, whatever order the database keeps.
    """
    values = {name: row[name] for name in _PLAIN_FIELDS}
    values |= {name: row[name] for name in _PRICED_TEXTS if row[name] is not None}
    values |= {name: dict(sorted(row[name].items())) for name in _MAPS if row[name] is not None}
    usage = row["usage"]
    return LedgerRecord(
        **values,
        tags=dict(sorted(row["tags"].items())),
        usage={meter: usage[meter] for meter in sorted(usage, key=_rank)},
        flags=tuple(row["flags"]),
        lines=tuple(
            LedgerLine(**{name: line[name] for name in LedgerLine.__struct_fields__})
            for line in lines
            if line["sku"] is not None
        ),
    )


def storable(record: LedgerRecord) -> LedgerRecord:
    """Rewrite what no database can hold, so that one odd record cannot stop all later ones.

    Args:
        record: A record a database refused.

    Returns:
        The record with NUL characters shown as U+FFFD. When a number needs more than 64 bits, what
        was used and what it cost are unknown, never clamped, and ``flags`` tells the numbers. The
        same record when nothing was wrong with it.
    """
    excess = [f"{name} {number}" for name, number in _numbers(record) if abs(number) > _INT64_MAX]
    if excess:
        told = f"too large for the ledger, so left out: {', '.join(excess)}"
        # What was held stays, where it fits: it counts as spent while the cost is unknown.
        ceilings = {name: _fitting(getattr(record, name)) for name in _CEILING_FIELDS}
        changes = {**_UNKNOWN, **ceilings, "flags": (*record.flags, told)}
        record = msgspec.structs.replace(record, **changes)
    return msgspec.convert(_without_nul(msgspec.to_builtins(record)), LedgerRecord)


def _fitting(number: int | None) -> int | None:
    return None if number is None or abs(number) > _INT64_MAX else number


def _numbers(record: LedgerRecord) -> Iterator[tuple[str, int]]:
    for name in (*_NUMBER_FIELDS, *_CEILING_FIELDS):
        value = getattr(record, name)
        if value is not None:
            yield name, value
    for meter, quantity in record.usage.items():
        yield meter, int(Decimal(quantity))
    for line in record.lines:
        yield f"{line.meter} per", line.per
        yield f"{line.meter} list cost", line.list_cost_pico
        yield f"{line.meter} cost", line.cost_pico


def _without_nul(value: object) -> object:
    match value:
        case str():
            return value.replace("\x00", "\ufffd")
        case dict():
            return {_without_nul(name): _without_nul(part) for name, part in value.items()}
        case list() | tuple():
            return [_without_nul(part) for part in value]
        case _:
            return value


def _rank(meter: str) -> tuple[int, str]:
    return (_RANK.get(meter, len(_RANK)), meter)


def _to_json(value: object) -> str:
    return _ENCODE(value).decode()
