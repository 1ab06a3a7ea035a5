"""How a ledger record is laid out in the tables, there and back without loss.

Must never compute: what is not in the record is not in its rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
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


def to_row(record: LedgerRecord) -> dict[str, Any]:
    """Lay a record out as a row of ``records``.

    Args:
        record: Any record.

    Returns:
        Every column but ``writer``, ``prev_hash`` and ``hash``, which the store knows.
    """
    row = {name: getattr(record, name) for name in _PLAIN_FIELDS}
    row["tags"] = record.tags
    row["usage"] = record.usage
    row["flags"] = list(record.flags)
    for name in _PRICED_TEXTS:
        value = getattr(record, name)
        row[name] = None if value is UNSET else value
    for name in _MAPS:
        value = getattr(record, name)
        row[name] = None if value is UNSET else value
    return row


def to_line_rows(record: LedgerRecord) -> list[dict[str, Any]]:
    """Lay the meters of a record out as rows of ``record_lines``.

    Args:
        record: Any record.

    Returns:
        Its rated lines, then every counted meter that has no rated line, with null price and cost.
        The lines of a correction may count what the record it corrects has counted without a price:
        then a row without a price takes that count back, so that no sum has it twice.
    """
    rows = [
        {
            "record_id": record.id,
            "line": number,
            "started_at_us": record.started_at_us,
            "meter": line.meter,
            "quantity": line.quantity,
            "sku": line.sku,
            "price_id": line.price_id,
            "unit_price": line.unit_price,
            "per": line.per,
            "list_cost_pico": line.list_cost_pico,
            "cost_pico": line.cost_pico,
        }
        for number, line in enumerate(record.lines)
    ]
    unrated = _unrated(record)
    rows += [
        {
            "record_id": record.id,
            "line": number,
            "started_at_us": record.started_at_us,
            "meter": meter,
            "quantity": str(unrated[meter]),
            "sku": None,
            "price_id": None,
            "unit_price": None,
            "per": None,
            "list_cost_pico": None,
            "cost_pico": None,
        }
        for number, meter in enumerate(sorted(unrated, key=_rank), start=len(rows))
    ]
    return rows


def _unrated(record: LedgerRecord) -> Mapping[str, int | str | Decimal]:
    if record.corrects is None:
        rated = {line.meter for line in record.lines}
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
        The record that ``to_row`` and ``to_line_rows`` were given. Tags are sorted by name and
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
