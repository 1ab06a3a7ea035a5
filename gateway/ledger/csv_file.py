"""Writes tables as CSV, in constant memory, safe to open with a spreadsheet program.

Must never change a number, nor a text in a way that a program cannot take back.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import BinaryIO, Final

# A spreadsheet program runs a cell that begins like this as a formula; an apostrophe stops it.
# Source: https://owasp.org/www-community/attacks/CSV_Injection, checked 2026-11-23. A cell that
# begins with an apostrophe gets another one, so that taking one off gives every text back.
_UNSAFE: Final = ("=", "+", "-", "@", "\t", "\r", "'")
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def write_csv(columns: Sequence[str], rows: Iterable[Iterable[object]], out: BinaryIO) -> int:
    """Write a table.

    Args:
        columns: Names of the columns.
        rows: Cells in their order; taken one after the other.
        out: Where to write; stays open.

    Returns:
        Number of rows written.
    """
    text = io.TextIOWrapper(out, encoding="utf-8", newline="")
    try:
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(columns)
        count = 0
        for row in rows:
            writer.writerow(map(to_cell, row))
            count += 1
    finally:
        text.detach()
    return count


def to_cell(value: object) -> object:
    """Write one value.

    Args:
        value: Any.

    Returns:
        What is unknown as an empty cell, never a zero; text that a spreadsheet program would run
        behind an apostrophe, numbers as they are.
    """
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str() if value.startswith(_UNSAFE) and not _NUMBER.fullmatch(value):
            return "'" + value
        case _:
            return value
