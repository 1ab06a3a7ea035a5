"""Weekly time-of-day windows: hours in which another price holds, as clocks on a wall show them.

Must never ask what time it is, and never count hours by anything but the wall clock of the zone.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise, product
from typing import Final
from zoneinfo import ZoneInfo

DAY_NAMES: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY: Final = 1440
_MINUTES_A_WEEK: Final = 7 * MINUTES_A_DAY
_EVERY_DAY: Final = frozenset(range(7))
_RUN_MIN: Final = 3
_TEXT: Final = re.compile(
    r"(?P<days>[a-z,-]+) (?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d) (?P<zone>[A-Za-z0-9_+/-]+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """One weekly window.

    Attributes:
        zone: IANA name of the zone whose wall clocks count.
        days: Days on which the window opens, Monday is 0. A window over midnight belongs to the day
            on which it opens.
        start: First minute, counted from midnight on the wall clock.
        end: First minute that is outside again; 1440 is midnight at the end of the day. A window
            whose end comes before its start closes on the next day.
    """

    zone: str
    days: frozenset[int]
    start: int
    end: int

    def __post_init__(self) -> None:
        """Refuse what is no window.

        Raises:
            ValueError: Unknown zone, no day or another number than 0 to 6, minutes outside of the
                day, or a window without length.
        """
        try:
            ZoneInfo(self.zone)
        except (KeyError, OSError, ValueError):
            raise ValueError(f"{self.zone!r} is not an IANA time zone") from None
        if not self.days or not self.days <= _EVERY_DAY:
            raise ValueError(f"days are numbers from 0 (Monday) to 6, not {sorted(self.days)}")
        if not (0 <= self.start < MINUTES_A_DAY and 0 < self.end <= MINUTES_A_DAY):
            raise ValueError(f"a window lies between 0 and 1440, not {self.start} to {self.end}")
        if self.start == self.end:
            raise ValueError("a window that ends when it starts has no length")

    def __str__(self) -> str:
        """Write the window the way ``parse_hours`` reads it; equal windows have equal text."""
        end = 0 if self.end == MINUTES_A_DAY else self.end
        return f"{_days_text(self.days)} {_clock(self.start)}-{_clock(end)} {self.zone}"

    @property
    def name(self) -> str:
        """The part of a price id: the text without what separates or confuses there."""
        return "hours_" + str(self).translate(_NAME_SPELLING)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Cut the window into half-open spans of minutes of the week.

        Yields:
            First minute and first minute after, from Monday midnight on.
        """
        length = (self.end - self.start) % MINUTES_A_DAY or MINUTES_A_DAY
        for day in sorted(self.days):
            first = day * MINUTES_A_DAY + self.start
            last = first + length
            yield first, min(last, _MINUTES_A_WEEK)
            if last > _MINUTES_A_WEEK:
                yield 0, last - _MINUTES_A_WEEK

    def holds_at(self, at: datetime) -> bool:
        """Tell whether an instant is inside.

        Args:
            at: Aware instant.

        Returns:
            True from the first minute up to, not including, the end. Where clocks are put back, the
            repeated hour is inside both times; where they are put forward, the hour that does not
            exist is in no window.
        """
        minute = _minute_of_week(at, ZoneInfo(self.zone))
        return any(first <= minute < last for first, last in self.spans())

    def overlaps(self, other: "Hours") -> bool:
        """Tell whether there can be an instant inside both.

        Args:
            other: Any window.

        Returns:
            Exact for one zone. Two windows of different zones are taken to overlap, because their
            offset changes with the seasons.
        """
        if self.zone != other.zone:
            return True
        pairs = product(self.spans(), other.spans())
        return any(a < d and c < b for (a, b), (c, d) in pairs)


_NAME_SPELLING: Final = str.maketrans({" ": "_", "/": ".", ":": None})


def parse_hours(text: str) -> Hours:
    """Read a window from text.

    Args:
        text: Such as ``mon-fri,sun 16:30-00:30 Asia/Shanghai`` or ``daily 00:30-08:30 UTC``: days,
            wall-clock times, IANA zone.

    Returns:
        The window.

    Raises:
        ValueError: It is not one; the text says why.
    """
    found = _TEXT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"hours are written mon-fri 16:30-00:30 Asia/Shanghai, not {text!r}")
    return Hours(
        zone=found["zone"],
        days=_parse_days(found["days"]),
        start=_parse_clock(found["start"]),
        end=_parse_clock(found["end"]) or MINUTES_A_DAY,
    )


def _parse_days(text: str) -> frozenset[int]:
    if text == "daily":
        return _EVERY_DAY
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAY_NAMES or (last or first) not in DAY_NAMES:
            raise ValueError(f"days are daily, or of {', '.join(DAY_NAMES)}; not {part!r}")
        low, high = DAY_NAMES.index(first), DAY_NAMES.index(last or first)
        if low > high:
            raise ValueError(f"a run of days goes forward from Monday, not {part!r}")
        days.update(range(low, high + 1))
    return frozenset(days)


def _parse_clock(text: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    if hour > 23 or minute > 59:
        raise ValueError(f"{text} is not a time of day")
    return hour * 60 + minute


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _days_text(days: frozenset[int]) -> str:
    if days == _EVERY_DAY:
        return "daily"
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(_run_text(run) for run in runs)


def _run_text(run: list[int]) -> str:
    names = [DAY_NAMES[day] for day in run]
    return f"{names[0]}-{names[-1]}" if len(run) >= _RUN_MIN else ",".join(names)


def _minute_of_week(at: datetime, zone: ZoneInfo) -> int:
    local = at.astimezone(zone)
    return local.weekday() * MINUTES_A_DAY + local.hour * 60 + local.minute


class Week:
    """The windows of one model, cut so that an instant is found by one search per zone."""

    def __init__(self, windows: Iterable[Hours]) -> None:
        """Cut the week at every minute at which a window opens or closes.

        Args:
            windows: Any windows; none is a week in which nothing changes.
        """
        by_zone: dict[str, set[Hours]] = {}
        for window in windows:
            by_zone.setdefault(window.zone, set()).add(window)
        self._zones: list[tuple[ZoneInfo, list[int], list[frozenset[Hours]]]] = []
        for zone, inside in sorted(by_zone.items()):
            edges = sorted({0} | {edge for w in inside for span in w.spans() for edge in span})
            active = [
                frozenset(w for w in inside if any(a <= first < b for a, b in w.spans()))
                for first, _ in pairwise([*edges, _MINUTES_A_WEEK])
            ]
            self._zones.append((ZoneInfo(zone), edges, active))

    def find_open(self, at: datetime) -> frozenset[Hours]:
        """Find the windows an instant is inside of.

        Args:
            at: Aware instant.

        Returns:
            The open windows.
        """
        found: frozenset[Hours] = frozenset()
        for zone, edges, active in self._zones:
            index = bisect_right(edges, _minute_of_week(at, zone)) - 1
            # An edge at the very end of the week starts no piece of its own.
            found = found | active[index] if found else active[index]
        return found
