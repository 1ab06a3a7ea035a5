"""Calendar months and days of a zone, as half-open spans of instants.

Must never ask for the time, nor do arithmetic on wall clocks: every bound is an instant in UTC.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple, Self
from zoneinfo import ZoneInfo

_MONTH: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])", re.ASCII)
_DAY: Final = timedelta(days=1)
# Later years have no next month that a date can name.
_YEAR_MAX: Final = 9998


class Span(NamedTuple):
    """A half-open span of time: ``start <= t < end``.

    Attributes:
        start: First instant inside, in UTC.
        end: First instant after it, in UTC.
    """

    start: datetime
    end: datetime

    def holds(self, at: datetime) -> bool:
        """Tell whether an instant lies inside.

        Args:
            at: Aware instant.

        Returns:
            ``start <= at < end``.
        """
        return self.start <= at < self.end

    def meets(self, other: "Span") -> bool:
        """Tell whether two spans share an instant.

        Args:
            other: Any span.

        Returns:
            False when they only touch.
        """
        return self.start < other.end and other.start < self.end


class Month(NamedTuple):
    """A calendar month, of no zone yet.

    Attributes:
        year: Such as 2026.
        number: From 1 to 12.
    """

    year: int
    number: int

    def __str__(self) -> str:
        """Write it as ``2026-11``."""
        return f"{self.year:04d}-{self.number:02d}"

    @classmethod
    def of(cls, at: datetime, zone: ZoneInfo) -> Self:
        """Find the month an instant falls in.

        Args:
            at: Aware instant.
            zone: Whose calendar counts.

        Returns:
            The month.
        """
        local = at.astimezone(zone)
        return cls(local.year, local.month)

    def next(self) -> "Month":
        """Name the month after this one.

        Returns:
            The month.
        """
        years, number = divmod(self.number, 12)
        return Month(self.year + years, number + 1)

    def span(self, zone: ZoneInfo) -> Span:
        """Tell from when to when it lasts.

        Args:
            zone: Whose midnights count.

        Returns:
            From its first midnight to that of the next month; an hour longer or shorter than its
            days where the zone changes its clocks.
        """
        after = self.next()
        return Span(
            midnight(date(self.year, self.number, 1), zone),
            midnight(date(after.year, after.number, 1), zone),
        )


def parse_month(text: str) -> Month:
    """Read a month.

    Args:
        text: Such as ``2026-11``.

    Returns:
        The month.

    Raises:
        ValueError: Not a month.
    """
    found = _MONTH.fullmatch(text)
    if found is None or not 1970 <= int(found[1]) <= _YEAR_MAX:
        raise ValueError(f"{text!r} is not a month such as 2026-11")
    return Month(int(found[1]), int(found[2]))


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Find the instant a day begins.

    Args:
        day: Calendar day.
        zone: Whose midnight counts.

    Returns:
        The instant, in UTC: the first of two midnights, or the jump where a zone skips it.
    """
    return datetime.combine(day, time(), zone).astimezone(UTC)


def days_of(span: Span, zone: ZoneInfo) -> Iterator[tuple[date, Span]]:
    """Cut a span into calendar days.

    Args:
        span: Any span.
        zone: Whose midnights count.

    Yields:
        Each day and the part of it inside the span, without gaps or overlaps.
    """
    day = span.start.astimezone(zone).date()
    start = span.start
    while start < span.end:
        end = min(midnight(day + _DAY, zone), span.end)
        if end > start:
            yield day, Span(start, end)
            start = end
        day += _DAY
