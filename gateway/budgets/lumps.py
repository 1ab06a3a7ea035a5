"""Amounts that a rolling window forgets together. Pure state.

Must never ask for the time.
"""

from datetime import datetime
from operator import attrgetter
from typing import Final


class Lump:
    """Amounts posted so close together that they age out as one.

    Attributes:
        first: Instant of the oldest.
        last: Instant of the newest; the lump ages out with it.
        amount: Their sum.
        parked: The parked part of it.
    """

    __slots__ = ("amount", "first", "last", "parked")

    def __init__(self, at: datetime, amount: int, parked: int) -> None:
        self.first = at
        self.last = at
        self.amount = amount
        self.parked = parked


last_of: Final = attrgetter("last")
