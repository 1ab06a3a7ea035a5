"""When a budget's counter starts again: calendar, anchored, rolling and endless windows. Pure.

Must never ask for the time, nor do arithmetic on wall clocks: every bound is an instant in UTC.
"""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from gateway.clock import EPOCH

_TICK: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 2200
_ANCHOR: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?)?", re.ASCII
)
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

    @property
    def anchor(self) -> str | None:
        """Where the borders lie, as ``parse_window`` reads it; ``None`` for the calendar's own."""
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
_DAYS: Final = {CalendarKind.DAY: 1, CalendarKind.WEEK: 7}
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

    @property
    def anchor(self) -> None:
        """None: the calendar says where units begin."""
        return

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
class AnchoredWindow:
    """Days, weeks, months, quarters or years that begin at a wall-clock time of one zone.

    They lie as if the one that begins at ``first`` had been repeated for ever, both ways. A month
    that has no such day begins on its last one: from the 31st to the 28th of February, and on the
    31st of March again. A time that a clock change skips is as long after midnight as it says; one
    that comes twice counts the first time.

    Attributes:
        kind: The unit: a day or longer.
        zone: The zone whose clocks and calendar count.
        first: Start of one of the windows, on the wall of the zone.
    """

    kind: CalendarKind
    zone: ZoneInfo
    first: datetime

    @property
    def text(self) -> str:
        """The rule as a configuration writes it, without the anchor."""
        return self.kind.value

    @property
    def timezone(self) -> str:
        """IANA name of the zone."""
        return self.zone.key

    @property
    def anchor(self) -> str:
        """Start of one of the windows: local time, without an offset."""
        return self.first.isoformat()

    def window_at(self, at: datetime) -> BudgetWindow:
        """Find the window an instant falls in.

        Args:
            at: Aware instant.

        Returns:
            The window with ``start <= at < end``.

        Raises:
            ValueError: ``at`` is not aware.
        """
        instant = _in_utc(at)
        # Clocks jump by up to a day (Pacific/Apia), so begin surely too early and go forward.
        number = self._number(instant.astimezone(self.zone).date() - 2 * _DAY)
        start, end = self._start(number), self._start(number + 1)
        while instant >= end:
            number += 1
            start, end = end, self._start(number + 1)
        return BudgetWindow(start, end)

    def _number(self, day: date) -> int:
        """Number of a window that begins on a day or before, counted from ``first``."""
        months = _MONTHS.get(self.kind)
        if months is None:
            return (day - self.first.date()).days // _DAYS[self.kind]
        passed = 12 * (day.year - self.first.year) + day.month - self.first.month
        return passed // months - 1

    def _start(self, number: int) -> datetime:
        months = _MONTHS.get(self.kind)
        if months is None:
            day = self.first.date() + number * _DAYS[self.kind] * _DAY
        else:
            years, month = divmod(self.first.month - 1 + number * months, 12)
            year = self.first.year + years
            last = monthrange(year, month + 1)[1]
            day = date(year, month + 1, min(self.first.day, last))
        # The zone's own rules, fold=0: guarded by test_windows.py::test_windows_keep_their_anchor.
        return datetime.combine(day, self.first.time(), self.zone).astimezone(UTC)


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

    @property
    def anchor(self) -> None:
        """None: it has no borders to place."""
        return

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

    @property
    def anchor(self) -> None:
        """None: it has no borders to place."""
        return

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


def parse_window(text: str, timezone: str = "UTC", anchor: str | None = None) -> WindowRule:
    """Read a window rule as a configuration writes it.

    Args:
        text: ``minute``, ``hour``, ``day``, ``week``, ``month``, ``quarter``, ``year``, ``total``
            or ``rolling:<seconds>``.
        timezone: IANA name of the zone whose midnights count.
        anchor: Day, or day and time, on which one of the windows begins: ``2026-01-31`` or
            ``2026-01-31T09:00:00``, on the wall of the zone; for windows of a day or longer.

    Returns:
        The rule.

    Raises:
        ValueError: ``text`` is none of these, the zone is not known, or the anchor cannot be read
            or does not fit; says what is accepted.
    """
    zone = _parse_zone(timezone)
    if anchor is not None:
        return _parse_anchored(text, zone, anchor)
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


def _parse_anchored(text: str, zone: ZoneInfo, anchor: str) -> AnchoredWindow:
    rule = parse_window(text, zone.key)
    if not isinstance(rule, CalendarWindow) or rule.kind in _SHORT_SPANS:
        raise ValueError(
            f"anchor {anchor!r} does not fit the window {text!r}; "
            "give it with day, week, month, quarter or year"
        )
    return AnchoredWindow(rule.kind, zone, parse_anchor(anchor))


def parse_anchor(text: str) -> datetime:
    """Read where windows begin.

    Args:
        text: ``2026-01-31`` or ``2026-01-31T09:00:00``.

    Returns:
        A time on the wall, so without a zone.

    Raises:
        ValueError: Another form, an offset, or a year far from ours; says what is accepted.
    """
    if _ANCHOR.fullmatch(text):
        try:
            first = datetime.fromisoformat(text)
        except ValueError:
            pass  # a day or a time that does not exist: said below
        else:
            if _FIRST_YEAR <= first.year <= _LAST_YEAR:
                return first
    raise ValueError(
        f"anchor {text!r} is not accepted; write a day or a local time such as 2026-01-31 or "
        "2026-01-31T09:00:00, without an offset: timezone says where"
    )


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
