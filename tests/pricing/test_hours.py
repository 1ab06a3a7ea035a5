"""Time-of-day windows: what the wall clock says, on days of any length and around midnight."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.agreements import Payer
from pricing.hours import MINUTES_A_DAY, Hours, Week, parse_hours
from pricing.meters import Meter
from tests.pricing.cards import LATER, START, book_of, cost_of, override, rate

NIGHT = parse_hours("daily 16:30-00:30 UTC")
BERLIN = "Europe/Berlin"


def local(text: str, zone: str = BERLIN, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


@pytest.mark.parametrize(
    ("hours", "at", "is_inside"),
    [
        ("daily 09:00-17:00 UTC", "2026-03-02T08:59:59.999999+00:00", False),
        ("daily 09:00-17:00 UTC", "2026-03-02T09:00:00+00:00", True),
        ("daily 09:00-17:00 UTC", "2026-03-02T16:59:59.999999+00:00", True),
        ("daily 09:00-17:00 UTC", "2026-03-02T17:00:00+00:00", False),
        # Over midnight, and the instant that belongs to another day in another zone.
        ("daily 16:30-00:30 UTC", "2026-03-02T16:29:59+00:00", False),
        ("daily 16:30-00:30 UTC", "2026-03-02T23:59:59+00:00", True),
        ("daily 16:30-00:30 UTC", "2026-03-03T00:00:00+00:00", True),
        ("daily 16:30-00:30 UTC", "2026-03-03T00:30:00+00:00", False),
        ("daily 00:30-08:30 Asia/Shanghai", "2026-03-02T16:30:00+00:00", True),
        ("daily 00:30-08:30 Asia/Shanghai", "2026-03-03T00:30:00+00:00", False),
        # Days: 2026-03-02 is a Monday. A window over midnight belongs to the day it opens on.
        ("mon 22:00-02:00 UTC", "2026-03-02T22:00:00+00:00", True),
        ("mon 22:00-02:00 UTC", "2026-03-03T01:59:00+00:00", True),
        ("mon 22:00-02:00 UTC", "2026-03-02T01:00:00+00:00", False),
        ("mon 22:00-02:00 UTC", "2026-03-03T22:00:00+00:00", False),
        ("sun 22:00-02:00 UTC", "2026-03-02T01:00:00+00:00", True),
        ("mon-fri 00:00-00:00 UTC", "2026-03-06T23:59:59+00:00", True),
        ("mon-fri 00:00-00:00 UTC", "2026-03-07T00:00:00+00:00", False),
        ("sat,sun 00:00-00:00 Asia/Shanghai", "2026-03-06T16:00:00+00:00", True),
    ],
)
def test_a_window_holds_from_its_first_minute_to_its_last(hours, at, is_inside):
    """Half-open, on the wall clock of its zone."""
    window, instant = parse_hours(hours), datetime.fromisoformat(at)

    assert is_inside == window.holds_at(instant)
    assert is_inside == (window in Week([window]).find_open(instant))


@pytest.mark.parametrize(
    ("day", "hours", "minutes"),
    [
        ("2026-03-28", "daily 01:00-04:00 Europe/Berlin", 180),
        ("2026-03-29", "daily 01:00-04:00 Europe/Berlin", 120),  # 02:00 to 03:00 is left out
        ("2026-03-29", "daily 02:00-03:00 Europe/Berlin", 0),
        ("2026-10-25", "daily 01:00-04:00 Europe/Berlin", 240),  # 02:00 to 03:00 comes twice
        ("2026-10-25", "daily 02:00-03:00 Europe/Berlin", 120),
        ("2026-03-29", "daily 00:00-00:00 Europe/Berlin", 1380),
        ("2026-10-25", "daily 00:00-00:00 Europe/Berlin", 1500),
        ("2026-10-25", "daily 23:00-01:00 Europe/Berlin", 120),
        ("2026-03-29", "daily 01:00-04:00 UTC", 180),  # a zone without summer time knows none
    ],
)
def test_days_of_23_and_25_hours(day, hours, minutes):
    """A window is as long as the wall clock makes it."""
    window = parse_hours(hours)
    zone = window.zone if window.zone != "UTC" else BERLIN
    start = local(f"{day}T00:00").astimezone(UTC)
    end = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=ZoneInfo(zone))
    length = int((end.astimezone(UTC) - start).total_seconds()) // 60
    inside = [window.holds_at(start + timedelta(minutes=n)) for n in range(length)]

    assert {"2026-03-28": 1440, "2026-03-29": 1380, "2026-10-25": 1500}[day] == length
    assert minutes == sum(inside)


def test_both_halves_of_a_repeated_hour_are_one_hour_of_the_clock():
    """The first and the second 02:30 of the long night have one price."""
    window = parse_hours("sun 02:00-03:00 Europe/Berlin")
    first, second = (local("2026-10-25T02:30", fold=fold) for fold in (0, 1))

    assert timedelta(hours=1) == second.astimezone(UTC) - first.astimezone(UTC)
    assert window.holds_at(first)
    assert window.holds_at(second)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("mon,tue,wed,thu,fri 08:00-12:00 UTC", "mon-fri 08:00-12:00 UTC"),
        ("mon-sun 08:00-12:00 UTC", "daily 08:00-12:00 UTC"),
        ("sun,sat 08:00-00:00 UTC", "sat,sun 08:00-00:00 UTC"),
        ("wed,mon-tue,fri 08:00-12:00 UTC", "mon-wed,fri 08:00-12:00 UTC"),
    ],
)
def test_equal_windows_have_one_text(text, same):
    """However it is written, it is one window with one name."""
    assert same == str(parse_hours(text))
    assert parse_hours(text) == parse_hours(same)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "hours are written"),
        ("daily 8-12 UTC", "hours are written"),
        ("daily 08:00-12:00", "hours are written"),
        ("weekdays 08:00-12:00 UTC", "days are daily, or of mon"),
        ("fri-mon 08:00-12:00 UTC", "a run of days goes forward"),
        ("mon- 08:60-12:00 UTC", "08:60 is not a time of day"),
        ("daily 08:00-24:00 UTC", "24:00 is not a time of day"),
        ("daily 08:00-08:00 UTC", "has no length"),
        ("daily 08:00-12:00 Nowhere", "'Nowhere' is not an IANA time zone"),
        ("daily 08:00-12:00 Europe", "'Europe' is not an IANA time zone"),
        ("daily 08:00-12:00 /etc", "'/etc' is not an IANA time zone"),
    ],
)
def test_what_is_no_window_is_refused(text, problem):
    """The message says what was expected."""
    with pytest.raises(ValueError, match=problem):
        parse_hours(text)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"days": frozenset()}, "days are numbers"),
        ({"days": frozenset({7})}, "days are numbers"),
        ({"start": -1}, "lies between 0 and 1440"),
        ({"start": MINUTES_A_DAY}, "lies between 0 and 1440"),
        ({"end": 0}, "lies between 0 and 1440"),
        ({"end": MINUTES_A_DAY + 1}, "lies between 0 and 1440"),
    ],
    ids=str,
)
def test_numbers_that_are_no_window_are_refused(changes, problem):
    """Minutes are of one day, days of one week."""
    fields = {"zone": "UTC", "days": frozenset({0}), "start": 60, "end": 120} | changes

    with pytest.raises(ValueError, match=problem):
        Hours(**fields)


MINUTES = st.integers(min_value=0, max_value=MINUTES_A_DAY - 1)


@st.composite
def windows(draw, zones=("UTC", BERLIN, "Asia/Shanghai", "America/New_York", "Asia/Kolkata")):
    start = draw(MINUTES)
    end = draw(st.integers(min_value=1, max_value=MINUTES_A_DAY).filter(lambda end: end != start))
    days = draw(st.frozensets(st.integers(min_value=0, max_value=6), min_size=1))
    return Hours(zone=draw(st.sampled_from(zones)), days=days, start=start, end=end)


INSTANTS = st.integers(min_value=0, max_value=2 * 366 * MINUTES_A_DAY).map(
    lambda minutes: START + timedelta(minutes=minutes)
)


@given(windows())
def test_a_window_is_read_as_it_is_written(window):
    """The text says all of it."""
    assert window == parse_hours(str(window))


@given(st.lists(windows(), max_size=6), INSTANTS)
def test_one_search_finds_the_windows_that_hold(several, at):
    """Cutting the week into pieces changes nothing."""
    assert {w for w in several if w.holds_at(at)} == Week(several).find_open(at)


@given(windows(zones=("UTC",)), windows(zones=("UTC",)), INSTANTS)
def test_windows_that_do_not_overlap_never_hold_together(one, other, at):
    """So two prices never hold at one instant."""
    assert one.overlaps(other) == other.overlaps(one)
    assert one.overlaps(other) or not (one.holds_at(at) and other.holds_at(at))


def test_windows_of_two_zones_are_taken_to_overlap():
    """Their offset changes with the seasons, so one model keeps its windows in one zone."""
    assert parse_hours("daily 00:00-01:00 UTC").overlaps(parse_hours(f"daily 12:00-13:00 {BERLIN}"))


# --- prices by the hour


@pytest.fixture(scope="module")
def timed():
    return book_of(
        rate("input", "2"),
        rate("output", "8"),
        rate("input", "4", over=100),
        rate("input", "1", hours=NIGHT, valid_to=LATER),
        rate("input", "0.5", hours=NIGHT, valid_from=LATER),
        rate("output", "6", hours=parse_hours("sat,sun 00:00-00:00 UTC")),
        rate("input", "3", tier="batch"),
    )


@pytest.mark.parametrize(
    ("at", "usage", "cost"),
    [
        ("2026-03-02T12:00:00+00:00", {"input": 100, "output": 10}, "0.00028"),
        ("2026-03-02T16:29:59+00:00", {"input": 100}, "0.0002"),
        ("2026-03-02T16:30:00+00:00", {"input": 100}, "0.0001"),
        ("2026-03-03T00:29:59+00:00", {"input": 100}, "0.0001"),
        ("2026-03-03T00:30:00+00:00", {"input": 100}, "0.0002"),
        ("2026-03-07T12:00:00+00:00", {"input": 100, "output": 10}, "0.00026"),
        ("2026-03-07T17:00:00+00:00", {"input": 100, "output": 10}, "0.00016"),
        # A band without a window price of its own keeps the one that always holds.
        ("2026-03-02T17:00:00+00:00", {"input": 101}, "0.000404"),
        # The window's own price changed on a day, at midnight UTC, while it was open.
        ("2026-05-31T23:59:59+00:00", {"input": 100}, "0.0001"),
        ("2026-06-01T00:00:00+00:00", {"input": 100}, "0.00005"),
    ],
)
def test_the_price_of_an_open_window_goes_first(timed, at, usage, cost):
    """It replaces the price of the same tier and band that holds at any time, and only that."""
    card = timed.find_card("p", "m", datetime.fromisoformat(at))

    assert cost == cost_of(usage, card)


def test_other_tiers_keep_their_prices_in_a_window(timed):
    """A window of the standard price says nothing of batch."""
    card = timed.find_card("p", "m", datetime(2026, 3, 2, 17, tzinfo=UTC))

    assert "0.0003" == cost_of({"input": 100}, card, tier="batch")


@given(INSTANTS)
def test_no_call_sees_a_price_out_of_its_time(at):
    """Of every rate by its own dates and hours, and of two for one thing the window's."""
    book = book_of(
        rate("input", "2", valid_to=LATER),
        rate("input", "3", valid_from=LATER),
        rate("input", "1", hours=NIGHT, valid_to=LATER),
        rate("input", "0.5", hours=NIGHT, valid_from=LATER),
        rate("output", "8", hours=parse_hours("sat,sun 00:00-00:00 Europe/Berlin")),
        overrides=[override(valid_from=LATER)],
    )
    card = book.find_card("p", "m", at, Payer("acme"))
    prices = list(card.all_prices())
    held = [r for r in book.rates if r.holds_at(at) and (r.hours is None or r.hours.holds_at(at))]
    timed = {r.meter for r in held if r.hours is not None}
    expected = [r for r in held if r.hours is not None or r.meter not in timed]

    assert sorted(map(str, expected)) == sorted(str(price.rate) for price in prices)
    assert sorted(map(str, expected)) == sorted(map(str, book.rates_at("p", "m", at)))
    assert {"o" if at >= LATER else None} == {price.agreement for price in prices}


def test_one_card_for_every_set_of_open_windows(timed):
    """Cards are kept: the same windows give the same card, other windows another one."""
    noon, night, later = (
        timed.find_card("p", "m", datetime(2026, 3, day, hour, tzinfo=UTC))
        for day, hour in ((2, 12), (2, 17), (3, 18))
    )

    assert noon is not night
    assert night is later
    assert (START, LATER) == (night.valid_from, night.valid_to)


def test_a_price_that_holds_in_a_window_only_is_none_outside():
    """A model sold at night has no price by day."""
    book = book_of(rate("input", "1", hours=NIGHT))

    assert book.find_card("p", "m", datetime(2026, 3, 2, 12, tzinfo=UTC)) is None
    assert book.find_card("p", "m", datetime(2026, 3, 2, 17, tzinfo=UTC)).rates.keys() == {
        ("standard", None, Meter.INPUT)
    }
