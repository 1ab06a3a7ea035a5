"""Budgets in memory: what the stories cannot show - bounds, races, and what is refused outright."""

from datetime import datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.budgets.counters import ROLLING_STEPS, WINDOWS_KEPT, RollingAccount
from gateway.budgets.holds import Hold
from gateway.budgets.memory import PLANS_KEPT, MemoryBudgets
from gateway.budgets.rules import Budget, BudgetExhausted
from gateway.budgets.windows import RollingWindow
from tests.budgets.builders import at_once, budget, demand, instant, subject

AT = instant("2026-11-23T10:00:00+00:00")
MINUTE = timedelta(minutes=1)


def memory_of(*budgets: Budget) -> MemoryBudgets:
    memory = MemoryBudgets()
    memory.install(budgets, AT)
    return memory


def test_a_hold_id_is_open_once() -> None:
    """Two holds of one id would be ended by either; ended, the id is free again."""
    memory = memory_of(budget("B day 3 requests"))
    hold = at_once(memory.reserve("H", subject(), demand(), AT))

    with pytest.raises(ValueError, match="hold 'H' is open already"):
        at_once(memory.reserve("H", subject(), demand(), AT))

    assert isinstance(hold, Hold)
    assert memory.settle(hold, demand())
    again = at_once(memory.reserve("H", subject(), demand(), AT))
    assert not memory.settle(hold, demand())
    assert isinstance(again, Hold)
    assert again.is_open
    assert 1 == memory.open_holds


def test_what_costs_nothing_fits_a_budget_that_is_spent() -> None:
    """A count endpoint is not refused, whatever was spent; a single pico more is."""
    memory = memory_of(budget("B day 3 tokens"))
    spent = at_once(memory.reserve("H", subject(), demand(tokens=3), AT))
    assert isinstance(spent, Hold)
    memory.settle(spent, demand(tokens=5))

    free = at_once(memory.reserve("free", subject(), demand(tokens=0), AT))

    assert isinstance(free, Hold)
    assert isinstance(
        at_once(memory.reserve("more", subject(), demand(tokens=1), AT)), BudgetExhausted
    )


def test_two_budgets_of_one_id_change_nothing() -> None:
    """The installed budgets go on as they were."""
    memory = memory_of(budget("B day 1 requests"))

    with pytest.raises(ValueError, match="two budgets have one id"):
        memory.install([budget("C day 1 requests"), budget("C day 2 requests")], AT)

    assert ["B"] == [status.budget.id for status in memory.status(AT)]


@pytest.mark.parametrize("back", range(1, WINDOWS_KEPT))
def test_a_clock_that_steps_back_finds_recent_windows(back: int) -> None:
    """Every window among the last sixteen used is still full."""
    memory = memory_of(budget("B minute 1 requests"))
    for minute in range(40):
        hold = at_once(memory.reserve("H", subject(), demand(), AT + minute * MINUTE))
        assert isinstance(hold, Hold)
        memory.settle(hold, demand())

    late = at_once(memory.reserve("H", subject(), demand(), AT + (39 - back) * MINUTE))

    assert isinstance(late, BudgetExhausted)
    assert 1 == late.spent


def test_a_window_the_clock_went_back_to_is_in_use_again() -> None:
    """What is dropped first is what was used longest ago, not what is oldest."""
    memory = memory_of(budget("B minute 2 requests"))
    for minute in (*range(WINDOWS_KEPT), 0, WINDOWS_KEPT):
        hold = at_once(memory.reserve("H", subject(), demand(), AT + minute * MINUTE))
        assert isinstance(hold, Hold)
        memory.settle(hold, demand())

    assert 2 == memory.status(AT)[0].spent
    assert 0 == memory.status(AT + MINUTE)[0].spent


def test_windows_long_out_of_use_are_dropped_unless_held() -> None:
    """Memory has a bound; a window with an open call stays until the call ends."""
    memory = memory_of(budget("B minute 2 requests"))
    old = at_once(memory.reserve("old", subject(), demand(), AT))
    assert isinstance(old, Hold)
    for minute in range(1, 40):
        hold = at_once(memory.reserve("H", subject(), demand(), AT + minute * MINUTE))
        assert isinstance(hold, Hold)
        memory.settle(hold, demand())

    assert 1 == memory.status(AT)[0].held
    assert 0 == memory.status(AT + MINUTE)[0].spent
    memory.settle(old, demand())
    assert 1 == memory.status(AT)[0].spent


def test_a_dropped_window_is_dropped_for_every_caller() -> None:
    """No caller goes on counting where the others no longer look."""
    memory = memory_of(budget("B minute 2 requests"))
    hold = at_once(memory.reserve("H", subject(key="a"), demand(), AT))
    assert isinstance(hold, Hold)
    memory.settle(hold, demand())
    for minute in range(1, 40):
        hold = at_once(memory.reserve("H", subject(key="b"), demand(), AT + minute * MINUTE))
        assert isinstance(hold, Hold)
        memory.settle(hold, demand())

    outcomes = [
        at_once(memory.reserve(f"H{number}", subject(key=key), demand(), AT))
        for number, key in enumerate("abab")
    ]

    assert [True, True, False, False] == [isinstance(one, Hold) for one in outcomes]


def test_more_kinds_of_call_than_are_remembered() -> None:
    """Plans are dropped when full; counters are not."""
    memory = memory_of(
        budget("B day 20000 requests", scope={"provider": "openai"}),
        budget("ANN day 1 requests", scope={"user": "u5"}),
    )
    callers = PLANS_KEPT + 10

    for number in range(callers):
        at_once(memory.reserve(f"H{number}", subject(user=f"u{number}"), demand(), AT))
    again = at_once(memory.reserve("H", subject(user="u5"), demand(), AT))

    assert callers == memory.status(AT)[0].held
    assert isinstance(again, BudgetExhausted)
    assert "ANN" == again.budget.id


def test_a_rolling_window_keeps_a_bounded_number_of_steps() -> None:
    """However many calls it sees, however long it runs."""
    rule = RollingWindow(60)
    account = RollingAccount(budget("R rolling:60 1000000 requests"), rule, AT)
    for call in range(60_000):
        at = AT + call * timedelta(milliseconds=10)
        account.counter_at(at).post(at, 1, 0)

    assert account.counter.size < 8 * ROLLING_STEPS
    assert 6_000 <= account.counter.spent <= 6_000 * (1 + 1 / ROLLING_STEPS) + 1


# Ticks of 10 ms, four to a step; the looks let go of all, of some or of none of the posts.
@given(
    posts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=30),
    looks=st.lists(st.integers(0, 60) | st.integers(990, 1060), min_size=1, max_size=10),
)
@example(posts=[(8, 1), (5, 2)], looks=[1005])  # too old to count, but joins what counts
@example(posts=[(5, 2), (8, 1)], looks=[1006])  # counts, though close to what has aged out
@example(posts=[(5, 2), (3, 4), (8, 1)], looks=[0, 0, 0, 1007])  # steps grow both ways
def test_a_rolling_counter_is_never_early_and_hardly_late(
    posts: list[tuple[int, int]], looks: list[int]
) -> None:
    """Posts and looks in any order, clocks going both ways."""
    span, tick = timedelta(seconds=10), timedelta(milliseconds=10)
    counter = RollingAccount(budget("R rolling:10 1 tokens"), RollingWindow(10), AT).counter
    posted: list[tuple[datetime, int]] = []
    for number, (time, amount) in enumerate(posts):
        counter.advance(AT + looks[number % len(looks)] * tick)
        counter.post(AT + time * tick, amount, amount)
        posted.append((AT + time * tick, amount))

    for look in looks:
        at = AT + look * tick
        counter.advance(at)
        exact = sum(amount for when, amount in posted if when > at - span)
        slack = sum(amount for when, amount in posted if when > at - span - span / ROLLING_STEPS)
        assert exact <= counter.spent <= slack
        assert (counter.spent, counter.parked) == counter.spent_at(at)
