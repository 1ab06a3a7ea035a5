"""Off-peak windows: the same hours of the week, whatever zone the weekday is read in."""

from datetime import UTC, datetime, timedelta

import pytest

from pricing.importers.windows import WindowRefused, daily_window, parse_utc_windows

WORKDAYS = [1, 2, 3, 4, 5]
SHANGHAI = timedelta(hours=8)


def test_hours_of_utc_on_weekdays_of_another_zone_are_converted_exactly():
    """Every quarter of an hour of a week, against the rule written out."""
    spans = ["00:00-01:00", "04:00-06:00", "10:00-00:00"]
    windows = parse_utc_windows(
        {
            "weekday_timezone": "Asia/Shanghai",
            "windows": [
                {"hours_utc": spans, "weekdays": WORKDAYS},
                {"hours_utc": "00:00-00:00", "weekdays": [6, 7]},
            ],
        }
    )
    for quarter in range(7 * 24 * 4):
        at = datetime(2026, 11, 23, tzinfo=UTC) + timedelta(minutes=15 * quarter)
        is_workday = (at + SHANGHAI).isoweekday() in WORKDAYS
        is_cheap = at.hour < 1 or 4 <= at.hour < 6 or at.hour >= 10

        assert (not is_workday or is_cheap) == any(w.holds_at(at) for w in windows), at


def test_windows_of_every_day_need_no_weekday():
    """Without a zone the day is that of UTC, and midnight ends a window."""
    (window,) = parse_utc_windows({"hours_utc": "16:30-00:00"})

    assert "daily 16:30-00:00 UTC" == str(window)


def test_a_window_over_midnight_is_cut_there():
    """The weekday is that of the instant, not of the evening before."""
    windows = parse_utc_windows({"windows": [{"hours_utc": "16:30-00:30", "weekdays": [1]}]})

    assert ["mon 16:30-00:00 UTC", "mon 00:00-00:30 UTC"] == [str(window) for window in windows]


def test_a_daily_window_may_cross_midnight():
    """It opens on every day, so no day is wrong."""
    assert "daily 16:30-00:30 UTC" == str(daily_window((16, 30), (0, 30))[0])


@pytest.mark.parametrize(
    ("block", "say"),
    [
        ({}, "no window"),
        ({"windows": []}, "no window"),
        ({"windows": "always"}, "a list"),
        ({"hours_utc": "16:30-00:30", "windows": []}, "at once"),
        ({"hours_utc": "later"}, "16:30-00:30"),
        ({"hours_utc": [7]}, "16:30-00:30"),
        ({"windows": [{"hours_utc": "01:00-02:00", "weekdays": [8]}]}, "1 to 7"),
        ({"windows": [{"hours_utc": "01:00-02:00", "weekdays": [1, 1]}]}, "1 to 7"),
        ({"windows": [{"hours_utc": "01:00-02:00", "weekdays": "mon"}]}, "1 to 7"),
        ({"windows": [{"moon": "full"}]}, "hours_utc and weekdays"),
        ({"windows": [7]}, "hours_utc and weekdays"),
        ({"hours_utc": "01:00-02:00", "weekday_timezone": "Moon/Base"}, "not a time zone"),
        ({"hours_utc": "01:00-02:00", "weekday_timezone": 7}, "not a time zone"),
        ({"hours_utc": "01:00-02:00", "weekday_timezone": "Europe/Berlin"}, "summer time"),
    ],
)
def test_what_is_no_window_is_refused(block, say):
    """A zone with summer time as well: its distance to UTC is another one in July."""
    with pytest.raises(WindowRefused, match=say):
        parse_utc_windows(block)


def test_a_window_without_length_is_refused():
    """It would hold never, or always: nobody knows."""
    with pytest.raises(WindowRefused, match="no length"):
        daily_window((1, 0), (1, 0))
