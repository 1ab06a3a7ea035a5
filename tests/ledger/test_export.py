"""Exports in every format: exact, complete and in constant memory."""

import csv
import io
import itertools
import json
import tracemalloc
from collections.abc import Iterator
from decimal import Decimal
from importlib.util import find_spec

import pytest

from gateway.ledger.export import COLUMNS, ExportRefused, export_records, to_flat
from gateway.ledger.record import LedgerRecord, to_public
from tests.contracts.records import make_record, make_unknown

HAS_PYARROW = find_spec("pyarrow") is not None

RECORDS = (
    make_record(cost_pico=2_508_000_001, stream=True, tags={"a": "x,y", "ü": 'say "hi"\n'}),
    make_unknown(user="=1+1", flags=("odd",)),
)


def written(export_format, records=RECORDS):
    """Export to memory."""
    out = io.BytesIO()

    assert len(records) == export_records(records, export_format, out)
    return out.getvalue()


def test_columns_are_the_public_fields():
    """Tables show what the API shows."""
    assert list(COLUMNS) == list(to_public(RECORDS[0]))


def test_json_lines_are_the_public_objects():
    """One object per line, as the API gives it."""
    lines = written("jsonl").decode().splitlines()

    assert [to_public(record) for record in RECORDS] == [json.loads(line) for line in lines]
    assert '"cost":"0.002508000001"' in lines[0]
    assert '"cost":null' in lines[1]


def test_csv_is_flat_and_exact():
    """Nested fields are JSON text, money decimal text, and unknown an empty cell."""
    text = written("csv").decode()
    first, second = csv.DictReader(io.StringIO(text, newline=""))

    assert text.startswith("id,started_at,ended_at,outcome,")
    assert text.count("\r\n") == 3
    assert ("0.002508000001", "true") == (first["cost"], first["stream"])
    assert RECORDS[0].tags == json.loads(first["tags"])
    assert {"input": 1000} == json.loads(first["usage"])
    assert "0.00125" == json.loads(first["lines"])[0]["cost"]
    assert ("", "", "false") == (second["cost"], second["input_total"], second["stream"])
    assert (["odd"], "'=1+1") == (json.loads(second["flags"]), second["user"])


@pytest.mark.parametrize(("export_format", "size"), [("jsonl", 0), ("csv", 1)])
def test_no_records_make_an_empty_file(export_format, size):
    """A table keeps its header."""
    assert size == len(written(export_format, ()).decode().splitlines())


def test_the_file_stays_open():
    """Whoever opened it closes it, and may write on."""
    out = io.BytesIO()
    export_records(RECORDS, "csv", out)
    out.write(b"more")

    assert out.getvalue().endswith(b"\r\nmore")


def test_a_failing_source_leaves_the_file_open():
    """Trouble in the middle of an export comes out as it is."""

    def broken() -> Iterator[LedgerRecord]:
        yield RECORDS[0]
        raise ConnectionError("gone")

    out = io.BytesIO()
    with pytest.raises(ConnectionError, match="gone"):
        export_records(broken(), "csv", out)

    assert not out.closed


@pytest.mark.parametrize("export_format", ["jsonl", "csv"])
def test_an_export_holds_few_records_at_a_time(export_format):
    """What was written is not kept."""
    taken = 0

    class Counting(io.RawIOBase):
        largest = 0

        def writable(self) -> bool:
            return True

        def write(self, data, /) -> int:
            self.largest = max(self.largest, len(data))
            return len(data)

    def many() -> Iterator[LedgerRecord]:
        nonlocal taken
        for _ in range(2000):
            taken += 1
            yield RECORDS[0]

    out = Counting()

    assert 2000 == export_records(many(), export_format, out) == taken
    assert 0 < out.largest < 50_000


def test_an_unknown_format_is_refused():
    """The message names the formats there are."""
    with pytest.raises(ExportRefused, match="jsonl, csv, parquet"):
        export_records(RECORDS, "xls", io.BytesIO())


@pytest.mark.skipif(HAS_PYARROW, reason="pyarrow is installed")
def test_parquet_says_what_it_needs():
    """Without pyarrow nothing is written, and the message says how to get it."""
    out = io.BytesIO()
    with pytest.raises(ExportRefused, match="pip install pyarrow"):
        export_records(RECORDS, "parquet", out)

    assert out.getvalue() == b""


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=SUM(A1)", "'=SUM(A1)"),
        ("+1 or so", "'+1 or so"),
        ("-x", "'-x"),
        ("@here", "'@here"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("'quoted", "''quoted"),
        ("plain", "plain"),
        ("-0.5", "-0.5"),
        ("-12", "-12"),
    ],
)
def test_csv_runs_nothing_in_a_spreadsheet_and_loses_nothing(text, cell):
    """A cell that would be a formula gets an apostrophe; taking one off gives the text back."""
    record = make_record(user=text, cost_pico=-500_000_000_000)
    (row,) = csv.DictReader(io.StringIO(written("csv", (record,)).decode(), newline=""))

    assert row["user"] == cell
    assert row["user"].removeprefix("'") == text
    assert row["cost"] == "-0.5"


def test_a_long_export_takes_no_more_memory_than_a_short_one():
    """Whatever the length of an export, a few records are in memory."""

    class Nowhere(io.BytesIO):
        def writable(self) -> bool:
            return True

        def write(self, data, /) -> int:
            return len(data)

    def peak(count: int) -> int:
        tracemalloc.start()
        export_records(itertools.repeat(RECORDS[0], count), "csv", Nowhere())
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # Tracing makes it slow: what is kept of 20,000 rows would be seen well before 200,000.
    assert peak(20_000) < peak(2_000) + 100_000


@pytest.mark.skipif(not HAS_PYARROW, reason="pyarrow is not installed")
def test_parquet_holds_the_same_rows():
    """Columns and values are those of the other formats; money is exact, unknown is null."""
    parquet = pytest.importorskip("pyarrow.parquet")
    huge = make_record(cost_pico=2**63 - 1, list_cost_pico=-1)
    table = parquet.read_table(io.BytesIO(written("parquet", (*RECORDS, huge))))
    rows = table.to_pylist()
    shown = [to_flat(record) for record in (*RECORDS, huge)]

    assert list(COLUMNS) == table.column_names
    for name in ("cost", "list_cost", "provider_cost"):
        amounts = [row.pop(name) for row in rows]
        told = [row.pop(name) for row in shown]
        assert str(table.schema.field(name).type) == "decimal128(38, 12)"
        assert [None if text is None else Decimal(text) for text in told] == amounts
    assert shown == rows
    assert table.column("cost")[2].as_py() == Decimal("9223372.036854775807")
