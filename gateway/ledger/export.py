"""Writes records out as JSON lines, CSV or Parquet, in constant memory.

Must never write money as a float: amounts are decimal text in every format.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import islice
from typing import Any, BinaryIO, Final, Literal, get_args

import msgspec

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
_ROW_GROUP_ROWS: Final = 10_000

# Optional and heavy, so no dependency: loaded where it is installed.
_PYARROW: Any = None
if find_spec("pyarrow") is not None:
    import pyarrow.parquet  # type: ignore[import-not-found,import-untyped,unused-ignore]

    _PYARROW = pyarrow


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
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    try:
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(COLUMNS)
        count = 0
        for record in records:
            writer.writerow(_csv_cell(value) for value in to_flat(record).values())
            count += 1
    finally:
        text.detach()
    return count


def _csv_cell(value: object) -> object:
    # An unknown value is an empty cell, never a zero.
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case _:
            return value


def _write_parquet(records: Iterable[LedgerRecord], out: BinaryIO) -> int:
    if _PYARROW is None:
        raise ExportRefused(
            "parquet needs pyarrow, which is not installed: pip install pyarrow; "
            "or use jsonl or csv"
        )
    schema = _PYARROW.schema([(name, _parquet_type(name)) for name in COLUMNS])
    count = 0
    with _PYARROW.parquet.ParquetWriter(out, schema) as writer:
        for batch in _batches(map(to_flat, records)):
            writer.write_table(_PYARROW.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _parquet_type(name: str) -> object:
    if name in _INT_COLUMNS:
        return _PYARROW.int64()
    if name in _BOOL_COLUMNS:
        return _PYARROW.bool_()
    return _PYARROW.string()


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, _ROW_GROUP_ROWS)):
        yield batch
