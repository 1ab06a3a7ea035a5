"""Exact sums of 64-bit amounts, on databases whose own sums overflow.

Must never ask a database to add up whole amounts: SQLite fails beyond 9.2 million dollars.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Label, Row, func

# SQLite raises "integer overflow" when a sum leaves 64 bits. The high and the low part of an amount
# are added apart: a million of the largest amounts still fit. Both databases divide towards zero
# and give the remainder the sign of the amount, so the parts of negative amounts add up too.
_SPLIT: Final = 10**6


def sum_apart(amount: ColumnElement[int], name: str) -> Sequence[Label[Any]]:
    """Ask for the sum of a column in two parts.

    Args:
        amount: Integers; nulls do not count.
        name: What ``total`` is told to put them together.

    Returns:
        Two columns for the SELECT.
    """
    return (
        func.sum(amount // _SPLIT).label(f"{name}_high"),
        func.sum(amount % _SPLIT).label(f"{name}_low"),
    )


def total(row: Row[Any], name: str) -> int:
    """Put a sum together.

    Args:
        row: Of a SELECT with the columns of ``sum_apart``.
        name: The same as there.

    Returns:
        The exact sum, of any size; 0 when there was nothing to add.
    """
    high = getattr(row, f"{name}_high")
    low = getattr(row, f"{name}_low")
    return int(high or 0) * _SPLIT + int(low or 0)
