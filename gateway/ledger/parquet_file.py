"""Writes tables as Parquet, in constant memory. Needs ``pyarrow``, which is optional and heavy.

Must never write money as a float: amounts are decimals of twelve places, as they were booked.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from typing import Any, BinaryIO, Final, Literal

Kind = Literal["text", "int", "bool", "decimal"]

# More digits than an amount of 64 bits has.
DECIMAL_DIGITS: Final = 38
DECIMAL_PLACES: Final = 12
_ROW_GROUP_ROWS: Final = 10_000


class ParquetMissing(ValueError):
    """``pyarrow`` is not installed; the text says what to do about it."""


def write_parquet(
    columns: Mapping[str, Kind], rows: Iterable[Mapping[str, Any]], out: BinaryIO
) -> int:
    """Write a table.

    Args:
        columns: What each column holds, in their order.
        rows: Values by column; decimals as ``Decimal``; taken ten thousand at a time.
        out: Where to write; stays open. Need not be seekable.

    Returns:
        Number of rows written.

    Raises:
        ParquetMissing: ``pyarrow`` is not installed. Nothing was written.
    """
    if find_spec("pyarrow") is None:
        raise ParquetMissing(
            "parquet needs pyarrow, which is not installed: pip install pyarrow; "
            "or use jsonl or csv"
        )
    # house: lazy-import because it takes thirty megabytes, and a gateway imports this module too.
    parquet: Any = import_module("pyarrow.parquet")
    arrow: Any = sys.modules["pyarrow"]
    types = {
        "int": arrow.int64(),
        "bool": arrow.bool_(),
        "decimal": arrow.decimal128(DECIMAL_DIGITS, DECIMAL_PLACES),
        "text": arrow.string(),
    }
    schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()])
    count = 0
    with parquet.ParquetWriter(out, schema) as writer:
        for batch in _batches(iter(rows)):
            writer.write_table(arrow.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _batches(rows: Iterator[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    while batch := list(islice(rows, _ROW_GROUP_ROWS)):
        yield batch
