"""Windows: calendar units in a zone, rolling spans, and how a configuration writes them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.budgets.windows import (
    BudgetWindow,
    RollingWindow,
    TotalWindow,
    parse_anchor,
    parse_window,
)
from tests.budgets.builders import instant

KINDS = ("minute", "hour", "day", "week", "month", "quarter", "year")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "America/Havana",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
)

TABLE = """
# window  zone              at                           start                 end
minute    Asia/Kolkata      2026-11-23T10:00:59.999999Z  2026-11-23T10:00:00Z  2026-11-23T10:01:00Z
hour      Asia/Kolkata      2026-11-23T10:00:00Z         2026-11-23T09:30:00Z  2026-11-23T10:30:00Z
day       Asia/Kolkata      2026-11-23T18:30:00Z         2026-11-23T18:30:00Z  2026-11-24T18:30:00Z
day       UTC               2026-11-23T00:00:00Z         2026-11-23T00:00:00Z  2026-11-24T00:00:00Z
day       UTC               2026-11-23T23:59:59.999999Z  2026-11-23T00:00:00Z  2026-11-24T00:00:00Z
# clocks go forward: 23 hours
day       Europe/Berlin     2026-03-29T12:00:00Z         2026-03-28T23:00:00Z  2026-03-29T22:00:00Z
day       America/New_York  2026-03-08T12:00:00Z         2026-03-08T05:00:00Z  2026-03-09T04:00:00Z
# clocks go back: 25 hours
day       Europe/Berlin     2026-10-25T12:00:00Z         2026-10-24T22:00:00Z  2026-10-25T23:00:00Z
day       America/New_York  2026-11-01T12:00:00Z         2026-11-01T04:00:00Z  2026-11-02T05:00:00Z
# the hour that comes twice is two windows
hour      Europe/Berlin     2026-10-25T00:30:00Z         2026-10-25T00:00:00Z  2026-10-25T01:00:00Z
hour      Europe/Berlin     2026-10-25T01:30:00Z         2026-10-25T01:00:00Z  2026-10-25T02:00:00Z
# a zone that shifts by half an hour: its long day ends with half an hour
hour      Australia/Lord_Howe 2026-04-05T13:15:00Z       2026-04-05T13:00:00Z  2026-04-05T13:30:00Z
# weeks start on Monday, also when the clocks change
week      Europe/Berlin     2026-03-29T21:59:59Z         2026-03-22T23:00:00Z  2026-03-29T22:00:00Z
week      Europe/Berlin     2026-03-29T22:00:00Z         2026-03-29T22:00:00Z  2026-04-05T22:00:00Z
# month ends, leap years, year end
month     Europe/Berlin     2026-03-31T21:59:59Z         2026-02-28T23:00:00Z  2026-03-31T22:00:00Z
month     Europe/Berlin     2026-03-31T22:00:00Z         2026-03-31T22:00:00Z  2026-04-30T22:00:00Z
month     UTC               2024-02-29T12:00:00Z         2024-02-01T00:00:00Z  2024-03-01T00:00:00Z
month     UTC               2100-02-28T12:00:00Z         2100-02-01T00:00:00Z  2100-03-01T00:00:00Z
day       UTC               2024-02-29T12:00:00Z         2024-02-29T00:00:00Z  2024-03-01T00:00:00Z
month     America/New_York  2027-01-01T04:59:59Z         2026-12-01T05:00:00Z  2027-01-01T05:00:00Z
quarter   America/New_York  2026-12-31T12:00:00Z         2026-10-01T04:00:00Z  2027-01-01T05:00:00Z
quarter   UTC               2026-05-31T12:00:00Z         2026-04-01T00:00:00Z  2026-07-01T00:00:00Z
year      Asia/Kolkata      2026-12-31T18:30:00Z         2026-12-31T18:30:00Z  2027-12-31T18:30:00Z
year      UTC               2024-12-31T23:59:59Z         2024-01-01T00:00:00Z  2025-01-01T00:00:00Z
# zones that skip midnight, the second from 23:30 to 00:30, and one that skipped a whole day
day       America/Sao_Paulo 2018-11-04T12:00:00Z         2018-11-04T03:00:00Z  2018-11-05T02:00:00Z
day       America/Toronto   1919-03-31T04:45:00Z         1919-03-30T05:00:00Z  1919-03-31T05:00:00Z
day       Pacific/Apia      2011-12-30T10:00:00Z         2011-12-30T10:00:00Z  2011-12-31T10:00:00Z
total     Europe/Berlin     2026-11-23T10:00:00Z         1970-01-01T00:00:00Z  never
"""
ROWS = [line.split() for line in TABLE.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize(("text", "zone", "at", "start", "end"), ROWS)
def test_windows_keep_the_calendar_of_their_zone(
    text: str, zone: str, at: str, start: str, end: str
) -> None:
    """Every row was worked out by hand; bounds are instants, whatever the wall clock does."""
    window = parse_window(text, zone).window_at(instant(at))

    assert BudgetWindow(instant(start), None if end == "never" else instant(end)) == window


ANCHORED = """
# window  anchor               zone              at                    start                 end
# the 31st falls on the last day of shorter months, and on the 31st again
month     2026-01-31T09:00:00  UTC               2026-02-28T08:59:59Z  2026-01-31T09:00:00Z  2026-02-28T09:00:00Z
month     2026-01-31T09:00:00  UTC               2026-02-28T09:00:00Z  2026-02-28T09:00:00Z  2026-03-31T09:00:00Z
month     2026-01-31T09:00:00  UTC               2026-04-30T12:00:00Z  2026-04-30T09:00:00Z  2026-05-31T09:00:00Z
month     2026-01-30           UTC               2026-03-01T00:00:00Z  2026-02-28T00:00:00Z  2026-03-30T00:00:00Z
# leap years, and a century without one
month     2026-01-31T09:00:00  UTC               2024-02-29T08:00:00Z  2024-01-31T09:00:00Z  2024-02-29T09:00:00Z
month     2026-01-29           UTC               2100-02-28T12:00:00Z  2100-02-28T00:00:00Z  2100-03-29T00:00:00Z
year      2024-02-29           UTC               2026-02-28T12:00:00Z  2026-02-28T00:00:00Z  2027-02-28T00:00:00Z
year      2024-02-29           UTC               2028-02-28T12:00:00Z  2027-02-28T00:00:00Z  2028-02-29T00:00:00Z
year      2026-04-06           Europe/London     2026-04-05T12:00:00Z  2025-04-05T23:00:00Z  2026-04-05T23:00:00Z
# quarters that begin in February
quarter   2026-02-15           UTC               2026-11-23T00:00:00Z  2026-11-15T00:00:00Z  2027-02-15T00:00:00Z
quarter   2025-11-30           UTC               2026-03-01T00:00:00Z  2026-02-28T00:00:00Z  2026-05-30T00:00:00Z
# the month of a payday, where clocks change in it
month     2026-01-25T09:00:00  Europe/Berlin     2026-03-29T12:00:00Z  2026-03-25T08:00:00Z  2026-04-25T07:00:00Z
# a week from Thursday morning, also over a change of clocks; the anchor lies in the future
week      2026-12-03T06:30     America/New_York  2026-11-01T12:00:00Z  2026-10-29T10:30:00Z  2026-11-05T11:30:00Z
week      2026-12-03T06:30     America/New_York  2026-11-05T11:29:59Z  2026-10-29T10:30:00Z  2026-11-05T11:30:00Z
# days of 23 and of 25 hours
day       2026-01-01T02:00:00  Europe/Berlin     2026-03-28T12:00:00Z  2026-03-28T01:00:00Z  2026-03-29T01:00:00Z
day       2026-01-01T12:00:00  Europe/Berlin     2026-03-29T00:00:00Z  2026-03-28T11:00:00Z  2026-03-29T10:00:00Z
day       2026-01-01T12:00:00  Europe/Berlin     2026-10-25T00:00:00Z  2026-10-24T10:00:00Z  2026-10-25T11:00:00Z
# a time that is skipped, and one that comes twice
day       2026-01-01T02:30:00  Europe/Berlin     2026-03-29T12:00:00Z  2026-03-29T01:30:00Z  2026-03-30T00:30:00Z
day       2026-01-01T02:30:00  Europe/Berlin     2026-10-25T12:00:00Z  2026-10-25T00:30:00Z  2026-10-26T01:30:00Z
# a whole day that never was
day       2011-12-01T09:00:00  Pacific/Apia      2011-12-30T20:00:00Z  2011-12-30T19:00:00Z  2011-12-31T19:00:00Z
"""  # noqa: E501 - a table
ANCHORED_ROWS = [line.split() for line in ANCHORED.splitlines() if line and line[0] != "#"]


@pytest.mark.parametrize("row", ANCHORED_ROWS, ids="-".join)
def test_windows_keep_their_anchor(row: list[str]) -> None:
    """Every row was worked out by hand; the wall clock of the zone says when."""
    text, anchor, zone, at, start, end = row
    window = parse_window(text, zone, anchor).window_at(instant(at))

    assert BudgetWindow(instant(start), instant(end)) == window


@given(
    kind=st.sampled_from(KINDS[2:]),
    zone=st.sampled_from(ZONES),
    anchor=st.datetimes(datetime(1970, 1, 1), datetime(2200, 12, 31)),  # noqa: DTZ001 - on a wall
    at=st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - aware by timezones
)
@example(
    kind="day",
    zone="Pacific/Apia",
    anchor=datetime(2011, 12, 1, 9),  # noqa: DTZ001 - on a wall
    at=instant("2011-12-30T20:00:00+00:00"),
)
def test_anchored_windows_tile_time_without_gaps(
    kind: str, zone: str, anchor: datetime, at: datetime
) -> None:
    """Whatever the anchor: every instant is in one window, and each begins where one ends."""
    rule = parse_window(kind, zone, anchor.replace(microsecond=0).isoformat())

    window = rule.window_at(at)

    assert window.end is not None
    assert window.start <= at < window.end
    assert window == rule.window_at(window.start)
    assert window == rule.window_at(window.end - timedelta(microseconds=1))
    assert window.end == rule.window_at(window.end).start
    assert window.start == rule.window_at(window.start - timedelta(microseconds=1)).end
    assert rule == parse_window(rule.text, rule.timezone, rule.anchor)


@pytest.mark.parametrize("kind", KINDS[2:])
def test_an_anchor_at_the_calendars_own_start_changes_nothing(kind: str) -> None:
    """A Monday and a first of January at midnight: the windows of the calendar."""
    anchor = "2024-01-01"
    for zone in ZONES:
        for month in range(1, 13):
            at = datetime(2026, month, 28, 15, tzinfo=UTC)
            plain = parse_window(kind, zone).window_at(at)

            assert plain == parse_window(kind, zone, anchor).window_at(at), (zone, at)


@pytest.mark.parametrize(
    ("window", "anchor", "says"),
    [
        ("month", "31", "anchor '31' is not accepted; write a day or a local time"),
        ("month", "2026-02-30", "anchor '2026-02-30'"),
        ("month", "2026-01-31T09:00:00Z", "without an offset: timezone says where"),
        ("month", "2026-01-31 09:00", "anchor '2026-01-31 09:00'"),
        ("month", "1969-12-31", "anchor '1969-12-31'"),
        ("month", "2201-01-01", "anchor '2201-01-01'"),
        ("hour", "2026-01-31", "does not fit the window 'hour'; give it with day, week, month"),
        ("total", "2026-01-31", "does not fit the window 'total'"),
        ("rolling:60", "2026-01-31", "does not fit the window 'rolling:60'"),
        ("fortnight", "2026-01-31", "window 'fortnight' is not known"),
    ],
)
def test_an_anchor_that_fits_nothing_says_what_is_accepted(
    window: str, anchor: str, says: str
) -> None:
    """Nothing is guessed: no day without a month, no offset beside the zone."""
    with pytest.raises(ValueError, match=r"anchor|window") as refused:
        parse_window(window, "UTC", anchor)

    assert says in str(refused.value)


def test_an_anchor_is_a_time_on_a_wall() -> None:
    """A day begins at midnight; seconds may be left out."""
    assert datetime(2026, 1, 31) == parse_anchor("2026-01-31")  # noqa: DTZ001 - on a wall
    assert parse_anchor("2026-01-31T09:00") == parse_anchor("2026-01-31T09:00:00")


@given(
    kind=st.sampled_from(KINDS),
    zone=st.sampled_from(ZONES),
    at=st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - aware by timezones
)
@example(kind="day", zone="America/St_Johns", at=instant("2006-10-29T02:30:00+00:00"))
@example(kind="hour", zone="Australia/Lord_Howe", at=instant("2026-04-04T15:15:00+00:00"))
def test_windows_tile_time_without_gaps(kind: str, zone: str, at: datetime) -> None:
    """An instant lies in its window, and the next window begins where it ends."""
    rule = parse_window(kind, zone)

    window = rule.window_at(at)

    assert window.end is not None
    assert window.start <= at < window.end
    assert window == rule.window_at(window.start)
    assert window == rule.window_at(window.end - timedelta(microseconds=1))
    assert window.end == rule.window_at(window.end).start
    before = rule.window_at(window.start - timedelta(microseconds=1))
    assert window.start == before.end


def test_odd_midnights_leave_no_gap() -> None:
    """St John's set its clocks back at 00:01: the date came twice, the day is one window."""
    rule = parse_window("day", "America/St_Johns")
    # 2006-10-29 began at 02:30 UTC; at 02:31 the wall showed 2006-10-28 23:01 again.
    first, again = instant("2006-10-29T02:30:30+00:00"), instant("2006-10-29T02:45:00+00:00")

    assert rule.window_at(again) == rule.window_at(first)
    assert instant("2006-10-29T02:30:00+00:00") == rule.window_at(first).start


@pytest.mark.parametrize("text", [*KINDS, "total", "rolling:1", "rolling:999999999"])
def test_a_rule_is_written_as_it_is_read(text: str) -> None:
    """Text to rule to text changes nothing; equal texts give equal rules."""
    rule = parse_window(text, "Europe/Berlin")

    assert text == rule.text
    assert rule == parse_window(rule.text, rule.timezone)


def test_only_a_calendar_keeps_its_zone() -> None:
    """Total and rolling windows have no midnight, so no zone."""
    zones = [parse_window(text, "Europe/Berlin").timezone for text in ("day", "total", "rolling:5")]

    assert ["Europe/Berlin", "UTC", "UTC"] == zones


@pytest.mark.parametrize(
    ("text", "zone", "says"),
    [
        ("fortnight", "UTC", "window 'fortnight' is not known; write minute, hour, day"),
        ("Month", "UTC", "window 'Month' is not known"),
        ("", "UTC", "window '' is not known"),
        ("rolling:", "UTC", "or rolling:<seconds> with a whole number of seconds"),
        ("rolling:0", "UTC", "from 1 to 999999999"),
        ("rolling:-5", "UTC", "window 'rolling:-5'"),
        ("rolling:1.5", "UTC", "window 'rolling:1.5'"),
        ("rolling:1000000000", "UTC", "window 'rolling:1000000000'"),
        ("day", "Mars/Olympus", "timezone 'Mars/Olympus' is not known; write an IANA name"),
        ("day", "", "timezone ''"),
        ("day", "America", "timezone 'America'"),
        ("day", "../etc/passwd", "timezone '../etc/passwd'"),
        ("total", "Nowhere", "timezone 'Nowhere'"),
    ],
)
def test_an_unknown_window_says_what_is_accepted(text: str, zone: str, says: str) -> None:
    """A refusal repeats what was written and lists what would do."""
    with pytest.raises(ValueError, match="is not known; write") as refused:
        parse_window(text, zone)

    assert says in str(refused.value)


@pytest.mark.parametrize("text", ["day", "total", "rolling:60"])
def test_an_instant_needs_a_zone(text: str) -> None:
    """A naive time would silently be taken as the machine's own."""
    naive = datetime(2026, 11, 23, 10)  # noqa: DTZ001 - the point of the test

    with pytest.raises(ValueError, match="has no zone; pass an aware instant"):
        parse_window(text).window_at(naive)


def test_a_rolling_window_ends_with_the_instant_asked_about() -> None:
    """That instant is inside; the one a whole length before is not any more."""
    at, tick = instant("2026-11-23T10:00:00+00:00"), timedelta(microseconds=1)

    window = parse_window("rolling:60").window_at(at)

    assert BudgetWindow(at - timedelta(seconds=60) + tick, at + tick) == window


def test_rolling_and_total_windows_are_plain_values() -> None:
    """Rules compare by what they say, which is how an unchanged budget is recognised."""
    assert parse_window("rolling:60") == RollingWindow(60) != RollingWindow(61)
    assert TotalWindow() == parse_window("total", "Asia/Kolkata")
    assert parse_window("day", "Asia/Kolkata") != parse_window("day", "UTC")
