"""Off-peak windows of a price list, turned into weekly hours.

Must never move a window: hours in UTC with weekdays of another zone are converted only where the
two keep the same distance all year.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from pricing.hours import MINUTES_A_DAY, Hours

_EVERY_DAY: Final = frozenset(range(7))
_SPAN: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
# The two halves of a year: a zone that has the same distance to UTC in both has no summer time.
_WINTER: Final = datetime(2026, 1, 1, tzinfo=UTC)
_SUMMER: Final = datetime(2026, 7, 1, tzinfo=UTC)


class WindowRefused(ValueError):
    """Windows that cannot be written as weekly hours; the text says why."""


def parse_utc_windows(block: Mapping[str, object]) -> tuple[Hours, ...]:
    """Read the windows of an off-peak block.

    Args:
        block: ``hours_utc`` for every day, or ``windows`` with ``hours_utc`` and ``weekdays`` (1 is
            Monday), whose weekdays are those of ``weekday_timezone``, UTC unless given.

    Returns:
        Weekly hours, none of which crosses midnight.

    Raises:
        WindowRefused: Not such a block, or weekdays of a zone with summer time.
    """
    if block.keys() & {"hours_utc"} and "windows" in block:
        raise WindowRefused("windows for every day and for some days at once")
    zone = block.get("weekday_timezone", "UTC")
    shift = _offset_minutes(zone)
    rules = block.get("windows", [{"hours_utc": block.get("hours_utc")}])
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise WindowRefused("windows are a list")
    found = [hours for rule in rules for hours in _read_rule(rule, str(zone), shift)]
    if not found:
        raise WindowRefused("there is no window")
    return tuple(found)


def daily_window(start: tuple[int, int], end: tuple[int, int]) -> tuple[Hours, ...]:
    """Write a span of every day in UTC.

    Args:
        start: Hour and minute.
        end: Hour and minute, before ``start`` when the span crosses midnight.

    Returns:
        One window; its days do not matter at midnight, because it opens on all of them.

    Raises:
        WindowRefused: It has no length.
    """
    first, last = start[0] * 60 + start[1], end[0] * 60 + end[1]
    if first == last:
        raise WindowRefused("a window that ends when it starts has no length")
    return (Hours(zone="UTC", days=_EVERY_DAY, start=first, end=last or MINUTES_A_DAY),)


def _offset_minutes(zone: object) -> int:
    try:
        found = ZoneInfo(zone) if isinstance(zone, str) else None
    except (KeyError, OSError, ValueError):
        found = None
    if found is None:
        raise WindowRefused(f"{str(zone)[:40]!r} is not a time zone")
    offsets = {at.astimezone(found).utcoffset() for at in (_WINTER, _SUMMER)}
    offset = offsets.pop()
    if offsets or offset is None:
        raise WindowRefused(f"hours in UTC with weekdays of {zone}, which has summer time")
    return int(offset.total_seconds()) // 60


def _read_rule(rule: object, zone: str, shift: int) -> Iterator[Hours]:
    if not isinstance(rule, Mapping) or not rule.keys() <= {"hours_utc", "weekdays"}:
        raise WindowRefused(f"a window has hours_utc and weekdays, not {str(rule)[:60]}")
    days = _read_days(rule.get("weekdays"))
    spans = rule.get("hours_utc")
    for span in [spans] if isinstance(spans, str) else spans or ():
        first, last = _read_span(span)
        for start, end in _shifted(first, last, shift):
            yield Hours(zone=zone, days=days, start=start, end=end)


def _read_days(value: object) -> frozenset[int]:
    if value is None:
        return _EVERY_DAY
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise WindowRefused(f"weekdays are numbers from 1 to 7, not {str(value)[:40]}")
    days = {day - 1 for day in value if type(day) is int}
    if not days or len(days) != len(value) or not days <= _EVERY_DAY:
        raise WindowRefused(f"weekdays are numbers from 1 to 7, not {str(value)[:40]}")
    return frozenset(days)


def _read_span(text: object) -> tuple[int, int]:
    found = _SPAN.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise WindowRefused(f"hours are written 16:30-00:30, not {str(text)[:40]!r}")
    start, end = (int(found[i]) * 60 + int(found[i + 1]) for i in (1, 3))
    return start, end or MINUTES_A_DAY


def _shifted(first: int, last: int, shift: int) -> Iterator[tuple[int, int]]:
    """Cut a span of the UTC day at local midnight: the weekday is that of the instant."""
    length = (last - first) % MINUTES_A_DAY or MINUTES_A_DAY
    if length == MINUTES_A_DAY:
        yield 0, MINUTES_A_DAY
        return
    start = (first + shift) % MINUTES_A_DAY
    end = start + length
    yield start, min(end, MINUTES_A_DAY)
    if end > MINUTES_A_DAY:
        yield 0, end - MINUTES_A_DAY
