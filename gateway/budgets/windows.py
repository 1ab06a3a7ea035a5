"""When a budget's counter starts again: calendar, rolling and endless windows. Pure.

Must never ask for the time, nor do arithmetic on wall clocks: every bound is an instant in UTC.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from gateway.clock import EPOCH

_TICK: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)
_ROLLING: Final = re.compile(r"rolling:([1-9][0-9]{0,8})", re.ASCII)


class BudgetWindow(msgspec.Struct, frozen=True):
    """A half-open span of time: ``start <= t < end``.

    Attributes:
        start: First instant inside, in UTC.
        end: First instant after it, in UTC; ``None`` when it never ends.
    """

    start: datetime
    end: datetime | None


class WindowRule(Protocol):
    """Cuts time into windows. Equal rules cut alike."""

    @property
    def text(self) -> str:
        """The rule as a configuration writes it; ``parse_window`` reads it back."""
        ...

    @property
    def timezone(self) -> str:
        """IANA name of the zone the rule is kept in."""
        ...

    def window_at(self, at: datetime) -> BudgetWindow:
        """Find the window an instant falls in.

        Args:
            at: Aware instant.

        Returns:
            The window with ``start <= at < end``.

        Raises:
            ValueError: ``at`` is not aware.
        """
        ...


class CalendarKind(StrEnum):
    """Calendar units a window can have; weeks start on Monday."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


_SHORT_SPANS: Final = {
    CalendarKind.MINUTE: timedelta(minutes=1),
    CalendarKind.HOUR: timedelta(hours=1),
}
_MONTHS: Final = {CalendarKind.MONTH: 1, CalendarKind.QUARTER: 3, CalendarKind.YEAR: 12}


@dataclass(frozen=True, slots=True)
class CalendarWindow:
    """Calendar units of one zone; a day with a clock change has 23 or 25 hours.

    Minutes and hours are real ones counted from local midnight, so the hour that a clock change
    repeats is two windows, not one long one. Where a zone shifts by half an hour, the last hour of
    that day is short.

    Attributes:
        kind: The unit.
        zone: The zone whose calendar counts.
    """

    kind: CalendarKind
    zone: ZoneInfo

    @property
    def text(self) -> str:
        """The rule as a configuration writes it."""
        return self.kind.value

    @property
    def timezone(self) -> str:
        """IANA name of the zone."""
        return self.zone.key

    def window_at(self, at: datetime) -> BudgetWindow:
        """Find the calendar unit an instant falls in.

        Args:
            at: Aware instant.

        Returns:
            The window with ``start <= at < end``.

        Raises:
            ValueError: ``at`` is not aware.
        """
        instant = _in_utc(at)
        # Midnights decide, not the date on the wall: America/St_Johns set its clocks back at 00:01
        # until 2011, so that a date came, went and came again, and others skipped midnight. So look
        # from the day before on. Guarded by test_windows.py::test_odd_midnights_leave_no_gap.
        first = _first_day(self.kind, instant.astimezone(self.zone).date() - _DAY)
        start, end = self._midnight(first), self._midnight(_next_first_day(self.kind, first))
        while instant >= end:
            first = _next_first_day(self.kind, first)
            start, end = end, self._midnight(_next_first_day(self.kind, first))
        span = _SHORT_SPANS.get(self.kind)
        if span is None:
            return BudgetWindow(start, end)
        start += (instant - start) // span * span
        return BudgetWindow(start, min(start + span, end))

    def _midnight(self, day: date) -> datetime:
        # fold=0 is the first of two midnights, and the moment of the jump where a zone skips it.
        return datetime.combine(day, time(), self.zone).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class TotalWindow:
    """One window for all time."""

    @property
    def text(self) -> str:
        """The rule as a configuration writes it."""
        return "total"

    @property
    def timezone(self) -> str:
        """Always UTC: no midnight matters."""
        return "UTC"

    def window_at(self, at: datetime) -> BudgetWindow:
        """Give the only window there is.

        Args:
            at: Aware instant.

        Returns:
            The window from 1970 on, without an end.

        Raises:
            ValueError: ``at`` is not aware.
        """
        _in_utc(at)
        return BudgetWindow(EPOCH, None)


@dataclass(frozen=True, slots=True)
class RollingWindow:
    """The last so many seconds, seen from any instant.

    What happened at ``t`` counts until just before ``t + seconds``.

    Attributes:
        seconds: Length of the window.
    """

    seconds: int

    @property
    def text(self) -> str:
        """The rule as a configuration writes it."""
        return f"rolling:{self.seconds}"

    @property
    def timezone(self) -> str:
        """Always UTC: no midnight matters."""
        return "UTC"

    def window_at(self, at: datetime) -> BudgetWindow:
        """Give the span that ends with an instant.

        Args:
            at: Aware instant.

        Returns:
            The window whose last microsecond is ``at``.

        Raises:
            ValueError: ``at`` is not aware.
        """
        end = _in_utc(at) + _TICK
        return BudgetWindow(end - timedelta(seconds=self.seconds), end)


def parse_window(text: str, timezone: str = "UTC") -> WindowRule:
    """Read a window rule as a configuration writes it.

    Args:
        text: ``minute``, ``hour``, ``day``, ``week``, ``month``, ``quarter``, ``year``, ``total``
            or ``rolling:<seconds>``.
        timezone: IANA name of the zone whose midnights count.

    Returns:
        The rule.

    Raises:
        ValueError: ``text`` is none of these, or the zone is not known; says what is accepted.
    """
    zone = _parse_zone(timezone)
    if text == "total":
        return TotalWindow()
    rolling = _ROLLING.fullmatch(text)
    if rolling:
        return RollingWindow(int(rolling[1]))
    try:
        return CalendarWindow(CalendarKind(text), zone)
    except ValueError:
        raise ValueError(
            f"window {text!r} is not known; write minute, hour, day, week, month, quarter, year, "
            "total, or rolling:<seconds> with a whole number of seconds from 1 to 999999999"
        ) from None


def _parse_zone(timezone: str) -> ZoneInfo:
    try:
        return ZoneInfo(timezone)
    # A folder of the zone database is an OSError, a path that leaves it a ValueError.
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"timezone {timezone!r} is not known; write an IANA name such as Europe/Berlin or UTC"
        ) from None


def _in_utc(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(f"{at.isoformat()} has no zone; pass an aware instant")
    return at.astimezone(UTC)


def _first_day(kind: CalendarKind, day: date) -> date:
    if kind is CalendarKind.WEEK:
        return day - day.weekday() * _DAY
    months = _MONTHS.get(kind)
    if months is None:
        return day
    return date(day.year, (day.month - 1) // months * months + 1, 1)


def _next_first_day(kind: CalendarKind, first: date) -> date:
    if kind is CalendarKind.WEEK:
        return first + 7 * _DAY
    months = _MONTHS.get(kind)
    if months is None:
        return first + _DAY
    years, month = divmod(first.month - 1 + months, 12)
    return date(first.year + years, month + 1, 1)
