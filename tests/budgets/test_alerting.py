"""What a budget has to tell, and when: each thing once a window, and the highest first."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gateway.budgets.alerting import (
    AlertKind,
    DueAlert,
    Mark,
    due_alerts,
    ended_marks,
    forecast_to_tell,
    percent_of,
)
from gateway.budgets.rules import BudgetStatus
from tests.budgets.builders import budget, instant

NOON = instant("2026-11-23T12:00:00+00:00")
REFUSAL, FORECAST = Mark(AlertKind.REFUSAL), Mark(AlertKind.FORECAST)
THRESHOLDS = (50, 80, 100)


def reached(*thresholds: int) -> tuple[Mark, ...]:
    """Name thresholds."""
    return tuple(Mark(AlertKind.THRESHOLD, threshold) for threshold in thresholds)


def status(spent: int, text: str = "b month 1000 tokens", **fields: Any) -> BudgetStatus:
    """Make the counters of a budget of 1000 tokens, unless it says otherwise."""
    held = fields.pop("held", 0)
    made = budget(text, **{"thresholds": THRESHOLDS, **fields})
    window = made.window.window_at(NOON)
    return BudgetStatus(
        budget=made, window=window, spent=spent, held=held, parked=0, limit=made.limit
    )


def told(
    spent: int, fired: tuple[Mark, ...] = (), *, refuses: bool = False, **fields: Any
) -> list[str]:
    """Write what is due in words; what nobody is told stands in brackets."""
    due = due_alerts(status(spent, **fields), frozenset(fired), None, is_refusing=refuses)
    words = [f"{one.mark.kind.value} {one.mark.threshold}".removesuffix(" 0") for one in due]
    return [f"({word})" if one.is_silent else word for one, word in zip(due, words, strict=True)]


@pytest.mark.parametrize(
    ("spent", "fired", "refuses", "fields", "expected"),
    [
        (0, (), False, {}, []),
        (499, (), False, {}, []),
        (500, (), False, {}, ["threshold 50"]),
        (500, reached(50), False, {}, []),
        (799, reached(50), False, {}, []),
        (800, reached(50), False, {}, ["threshold 80"]),
        (1000, (), False, {}, ["threshold 100", "(threshold 80)", "(threshold 50)"]),
        (900, reached(100), False, {}, ["(threshold 80)", "(threshold 50)"]),
        (500, (), False, {"held": 500}, ["threshold 50"]),
        (700, (), False, {"thresholds": (50, 50)}, ["threshold 50"]),
        (2500, reached(100), False, {"thresholds": (100, 250)}, ["threshold 250"]),
        (1500, (), False, {"mode": "soft", "thresholds": ()}, ["threshold 100"]),
        (1500, (), False, {"mode": "observe", "thresholds": ()}, []),
        (950, reached(50, 80), True, {}, ["refusal"]),
        (950, (*reached(50, 80), REFUSAL), True, {}, []),
        (990, (), True, {}, ["threshold 80", "(threshold 50)", "refusal"]),
        (2000, reached(*THRESHOLDS), True, {"mode": "soft"}, []),
    ],
)
def test_a_budget_tells_what_is_new(spent, fired, refuses, fields, expected):
    """Highest threshold first; soft budgets tell that they are used up, hard ones that they refuse.

    What open calls hold is not spent, so it reaches no threshold.
    """
    assert expected == told(spent, fired, refuses=refuses, **fields)


@given(st.lists(st.integers(0, 3000), max_size=30), st.sets(st.integers(1, 300), max_size=6))
def test_each_threshold_is_recorded_once_a_window_and_told_in_order(spendings, thresholds):
    """However spending moves: told thresholds rise, none comes twice, and all reached are known."""
    fired: list[Mark] = []
    spoken: list[int] = []
    for spent in spendings:
        now = status(spent, thresholds=tuple(thresholds))
        due = due_alerts(now, frozenset(fired), None)
        assert sum(not one.is_silent for one in due) <= 1
        spoken += [one.mark.threshold for one in due if not one.is_silent]
        fired += [one.mark for one in due]

    highest = max(spendings, default=0)
    assert len(set(fired)) == len(fired)
    assert sorted(set(spoken)) == spoken
    assert {t for t in thresholds if highest * 100 >= t * 1000} == {m.threshold for m in fired}


@given(st.lists(st.integers(0, 3000), max_size=40))
def test_a_rolling_window_tells_again_only_after_falling_clearly_below(spendings):
    """Between two alerts of one threshold, less than nine tenths of it were spent."""
    fired: set[Mark] = set()
    lowest: dict[Mark, int] = {}
    for spent in spendings:
        now = status(spent, "b rolling:3600 1000 tokens")
        fired -= ended_marks(now, fired)
        for mark in lowest:
            lowest[mark] = min(lowest[mark], spent)
        for one in due_alerts(now, fired, None):
            again = lowest.get(one.mark)
            assert again is None or again * 1000 < one.mark.threshold * 900 * 10
            fired.add(one.mark)
            lowest[one.mark] = spent


@pytest.mark.parametrize(
    ("text", "spent", "held", "ended"),
    [
        ("b rolling:60 1000 tokens", 720, 0, ()),
        ("b rolling:60 1000 tokens", 719, 0, reached(80)),
        ("b rolling:60 1000 tokens", 100, 0, (*reached(50, 80), REFUSAL)),
        ("b rolling:60 1000 tokens", 100, 800, reached(50, 80)),
        ("b month 1000 tokens", 0, 0, ()),
    ],
)
def test_what_a_rolling_window_fell_below_ends(text, spent, held, ended):
    """With a margin, so that spending which hovers at a threshold does not ring on and on."""
    fired = frozenset((*reached(50, 80), REFUSAL))
    expected = set(ended)
    if spent + held < 900 and "rolling" in text:
        expected.add(REFUSAL)

    assert expected == ended_marks(status(spent, text, held=held), fired)


@pytest.mark.parametrize(
    ("spent", "fired", "refuses", "is_due"),
    [
        (900, (), False, True),
        (900, (FORECAST,), False, False),
        (900, (REFUSAL,), False, False),
        (900, (), True, False),
        (1000, (), False, False),
    ],
)
def test_a_forecast_is_told_once_and_not_about_what_has_happened(spent, fired, refuses, is_due):
    """Not once the budget is used up or refuses."""
    due = due_alerts(
        status(spent, thresholds=()),
        frozenset(fired),
        NOON + timedelta(days=1),
        is_refusing=refuses,
    )

    assert is_due == (DueAlert(FORECAST) in due)


@pytest.mark.parametrize(
    ("text", "spent", "at", "forecast"),
    [
        # A third of the month is gone with half the budget: the rest lasts ten days.
        ("b month 1000 tokens", 500, "2026-11-11T00:00:00Z", "2026-11-21T00:00:00Z"),
        ("b month 1000 tokens", 300, "2026-11-11T00:00:00Z", None),
        ("b month 1000 tokens", 900, "2026-11-03T00:00:00Z", None),
        ("b day 1000 tokens", 500, "2026-11-23T06:00:00Z", "2026-11-23T12:00:00Z"),
        ("b hour 1000 tokens", 500, "2026-11-23T12:15:00Z", None),
        ("b rolling:864000 1000 tokens", 900, "2026-11-23T12:00:00Z", None),
        ("b total 1000 tokens", 900, "2026-11-23T12:00:00Z", None),
    ],
)
def test_a_forecast_is_told_where_it_says_something(text, spent, at, forecast):
    """For windows of a day and more, once a tenth was counted, if it comes before their end."""
    made = budget(text)
    window = made.window.window_at(instant(at))
    now = BudgetStatus(budget=made, window=window, spent=spent, held=0, parked=0, limit=made.limit)

    assert (None if forecast is None else instant(forecast)) == forecast_to_tell(now, instant(at))


def test_a_budget_that_is_not_in_force_tells_nothing():
    """Before its validity and after it, whatever its counters say."""
    now = structs.replace(status(990), is_in_force=False)

    assert () == due_alerts(now, frozenset(), NOON, is_refusing=True)
    assert None is forecast_to_tell(now, NOON)


def test_percent_is_rounded_down():
    """99.9 percent is not all; a limit of nothing has no percentage."""
    assert 99 == percent_of(status(999))
    assert 150 == percent_of(status(1500))
