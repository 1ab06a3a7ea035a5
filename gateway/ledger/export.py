"""Writes records out as JSON lines, CSV or Parquet, in constant memory.

Must never write money as a float: amounts are decimal text, and decimals in Parquet.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, BinaryIO, Final, Literal, get_args

import msgspec

from gateway.ledger.csv_file import write_csv
from gateway.ledger.parquet_file import Kind, ParquetMissing, write_parquet
from gateway.ledger.record import LedgerRecord, to_public

ExportFormat = Literal["jsonl", "csv", "parquet"]

COLUMNS: Final = (
    "id",
    "started_at",
    "ended_at",
    "outcome",
    "http_status",
    "stream",
    "api",
    "provider",
    "model_requested",
    "model",
    "provider_request_id",
    "organization",
    "team",
    "project",
    "key",
    "user",
    "tags",
    "usage",
    "input_total",
    "output_total",
    "basis",
    "user_input_tokens",
    "input_parts",
    "currency",
    "cost",
    "list_cost",
    "provider_cost",
    "price_version",
    "cost_status",
    "lines",
    "corrects",
    "flags",
)
_INT_COLUMNS: Final = frozenset({"http_status", "input_total", "output_total", "user_input_tokens"})
_BOOL_COLUMNS: Final = frozenset({"stream"})
_NESTED_COLUMNS: Final = frozenset({"tags", "usage", "lines", "flags", "input_parts"})
_MONEY_COLUMNS: Final = ("cost", "list_cost", "provider_cost")


def _kind_of(name: str) -> Kind:
    if name in _INT_COLUMNS:
        return "int"
    if name in _BOOL_COLUMNS:
        return "bool"
    return "decimal" if name in _MONEY_COLUMNS else "text"


_KINDS: Final[dict[str, Kind]] = {name: _kind_of(name) for name in COLUMNS}


class ExportRefused(ValueError):
    """A format that cannot be written; the text says what to do about it."""


def export_records(records: Iterable[LedgerRecord], export_format: str, out: BinaryIO) -> int:
    """Write records to a file.

    Args:
        records: Any number; taken one after the other.
        export_format: ``jsonl``, ``csv`` or ``parquet``.
        out: Where to write; stays open. Need not be seekable.

    Returns:
        Number of records written.

    Raises:
        ExportRefused: No such format, or ``pyarrow`` is not installed. Nothing was written.
    """
    match export_format:
        case "jsonl":
            return _write_jsonl(records, out)
        case "csv":
            return _write_csv(records, out)
        case "parquet":
            return _write_parquet(records, out)
        case other:
            raise ExportRefused(f"no format {other!r}; use {', '.join(get_args(ExportFormat))}")


def to_flat(record: LedgerRecord) -> dict[str, Any]:
    """Write a record the way a table shows it.

    Args:
        record: Any record.

    Returns:
        The public fields by column; what is nested as JSON text.
    """
    return {
        name: msgspec.json.encode(value).decode() if name in _NESTED_COLUMNS else value
        for name, value in to_public(record).items()
    }


def _write_jsonl(records: Iterable[LedgerRecord], out: BinaryIO) -> int:
    encoder = msgspec.json.Encoder()
    line = bytearray()
    count = 0
    for record in records:
        encoder.encode_into(to_public(record), line)
        line += b"\n"
        out.write(line)
        count += 1
    return count


def _write_csv(records: Iterable[LedgerRecord], out: BinaryIO) -> int:
    return write_csv(COLUMNS, (to_flat(record).values() for record in records), out)


def _write_parquet(records: Iterable[LedgerRecord], out: BinaryIO) -> int:
    try:
        return write_parquet(_KINDS, map(_to_typed, records), out)
    except ParquetMissing as missing:
        raise ExportRefused(str(missing)) from missing


def _to_typed(record: LedgerRecord) -> dict[str, Any]:
    row = to_flat(record)
    for name in _MONEY_COLUMNS:
        row[name] = None if row[name] is None else Decimal(row[name])
    return row
