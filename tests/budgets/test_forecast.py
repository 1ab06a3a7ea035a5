"""Forecasts: a straight line from what was spent in the window so far."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.budgets.forecast import burn_per_day, burn_per_window, forecast_exhaustion
from gateway.budgets.rules import BudgetStatus, amount_to_text, window_of
from tests.budgets.builders import budget, instant, usd

TICK = timedelta(microseconds=1)


def status_of(
    text: str, spent: str, at: datetime, since: datetime | None = None, held: int = 0
) -> BudgetStatus:
    """Read a budget of ``<id> <window> <limit>`` that has spent an amount."""
    one = budget(text)
    return BudgetStatus(
        budget=one,
        window=window_of(one, at),
        spent=usd(spent),
        held=held,
        parked=0,
        limit=one.limit,
        since=since,
    )


@pytest.mark.parametrize(
    ("text", "spent", "at", "per_day", "exhausted"),
    [
        # A third in ten days of thirty: used up with the last instant, which the reset forestalls.
        ("B month 300 USD", "100", "2026-11-11T00:00:00Z", "10", None),
        ("B month 299 USD", "100", "2026-11-11T00:00:00Z", "10", "2026-11-30T21:36:00Z"),
        ("B month 300 USD", "200", "2026-11-11T00:00:00Z", "20", "2026-11-16T00:00:00Z"),
        ("B day 24 USD", "18", "2026-11-11T12:00:00Z", "36", "2026-11-11T16:00:00Z"),
        # An hour says nothing about a day.
        ("B hour 60 USD", "0.5", "2026-11-11T12:30:00Z", None, None),
        # Nothing spent, nothing forecast; a rate of nothing is known all the same.
        ("B month 300 USD", "0", "2026-11-11T00:00:00Z", "0", None),
        # Spent to the last, or over: now.
        ("B month 300 USD", "300", "2026-11-16T00:00:00Z", "20", "2026-11-16T00:00:00Z"),
        ("B month 300 USD", "450", "2026-11-16T00:00:00Z", "30", "2026-11-16T00:00:00Z"),
        # The first instant of a window says nothing.
        ("B month 300 USD", "10", "2026-11-01T00:00:00Z", None, None),
        # A rolling window forgets as much as it counts.
        ("B rolling:86400 300 USD", "299", "2026-11-11T00:00:00Z", "299", None),
        ("B rolling:86400 300 USD", "300", "2026-11-11T00:00:00Z", "300", "2026-11-11T00:00:00Z"),
        # A window for all time has not been counting since 1970.
        ("B total 300 USD", "100", "2026-11-11T00:00:00Z", None, None),
    ],
)
def test_a_budget_is_used_up_when_the_line_meets_its_limit(
    text: str, spent: str, at: str, per_day: str | None, exhausted: str | None
) -> None:
    """Worked out by hand: spent over elapsed, carried on."""
    status = status_of(text, spent, instant(at))

    burnt = burn_per_day(status, instant(at))
    shown = None if burnt is None else amount_to_text(burnt, status.budget.unit)
    if "rolling" in text:  # the window begins a microsecond after what has aged out
        assert burnt is not None
        assert abs(burnt - usd(per_day or "0")) < 10**9
    else:
        assert per_day == shown
    assert (exhausted and instant(exhausted)) == forecast_exhaustion(status, instant(at))


@pytest.mark.parametrize(
    ("text", "spent", "at", "whole"),
    [
        ("B hour 60 USD", "0.5", "2026-11-11T12:30:00Z", "1"),
        ("B minute 60 USD", "10", "2026-11-11T12:30:40Z", "15"),
        ("B month 300 USD", "100", "2026-11-11T00:00:00Z", "300"),
        ("B rolling:30 90 USD", "12", "2026-11-11T00:00:00Z", "12"),
        ("B total 300 USD", "100", "2026-11-11T00:00:00Z", None),
        ("B hour 60 USD", "0.5", "2026-11-11T12:00:00Z", None),
    ],
)
def test_a_window_comes_to_its_rate_times_its_length(
    text: str, spent: str, at: str, whole: str | None
) -> None:
    """Rounded up; a rolling window is whole at any time, and one without an end never is."""
    status = status_of(text, spent, instant(at))

    found = burn_per_window(status, instant(at))

    assert whole == (None if found is None else amount_to_text(found, status.budget.unit))


def test_a_window_for_all_time_counts_since_its_first_call() -> None:
    """Ten a day since the first: twenty days are left."""
    at = instant("2026-11-11T00:00:00Z")
    status = status_of("B total 300 USD", "100", at, since=instant("2026-11-01T00:00:00Z"))

    assert usd("10") == burn_per_day(status, at)
    assert instant("2026-12-01T00:00:00Z") == forecast_exhaustion(status, at)


def test_what_is_beyond_all_calendars_is_not_forecast() -> None:
    """One part in a billion of a lifetime's limit: no date has room for that."""
    at = instant("2026-11-11T00:00:00Z")
    status = status_of(
        "B total 999999999 USD", "0.000000001", at, since=instant("2026-11-01T00:00:00Z")
    )

    assert forecast_exhaustion(status, at) is None


def test_held_money_is_not_spent() -> None:
    """Ceilings of open calls come and go; the line follows what was spent."""
    at = instant("2026-11-11T00:00:00Z")
    calm = status_of("B month 300 USD", "200", at)
    busy = status_of("B month 300 USD", "200", at, held=usd("99"))

    assert forecast_exhaustion(calm, at) == forecast_exhaustion(busy, at)


@given(
    spent=st.integers(min_value=1, max_value=10**15),
    elapsed=st.integers(min_value=1, max_value=86_400 * 10**6 - 1),
)
def test_the_forecast_lies_in_the_window_and_not_in_the_past(spent: int, elapsed: int) -> None:
    """And at that instant the line has just about reached the limit, never much more."""
    start = instant("2026-11-11T00:00:00Z")
    at = start + elapsed * TICK
    limit = usd("100")
    status = status_of("B day 100 USD", amount_to_text(spent, budget("B day 1 USD").unit), at)

    reached = forecast_exhaustion(status, at)

    if reached is None:
        assert spent * ((start + timedelta(days=1) - start) // TICK) // elapsed <= limit
    else:
        assert at <= reached < start + timedelta(days=1)
        assert spent >= limit or spent * ((reached - start) // TICK) <= limit * elapsed
