"""Windows that take over what the one before left, over a real server and several workers."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.budgets.holds import Hold
from gateway.budgets.rules import BudgetExhausted, BudgetId, Unit
from tests.budgets.builders import budget, demand, instant, usd
from tests.budgets.shared_kit import CALLER, Crew, agree, held, status
from tests.valkey import Valkey

AT = instant("2026-11-23T10:00:00+00:00")
ROLLING_OVER = budget("M minute 10 requests", rollover=True, valid_from=AT)


@pytest.fixture
def crew(valkey: Valkey) -> Iterator[Crew]:
    """A deployment without a budget yet."""
    with closing(Crew(valkey, AT, [])) as made:
        yield made


def test_all_take_over_what_all_left(crew: Crew) -> None:
    """Two workers spent three of ten: the next minute has seventeen, and not one more."""
    crew.budgets = (ROLLING_OVER,)
    mates = [crew.start("w-a"), crew.start("w-b")]
    for number, mate in enumerate((*mates, mates[0])):
        mate.settle(held(mate, f"H{number}", "0"), demand("0"))
    crew.clock.at = AT + timedelta(minutes=1)
    agree(*mates)

    assert [(17, 7)] * 2 == [(status(one).limit, status(one).rolled_over) for one in mates]
    got = [mates[n % 2].hold(f"N{n}", CALLER, demand("0")) for n in range(24)]
    assert 17 == sum(isinstance(one, Hold) for one in got)


def test_a_call_that_is_still_open_leaves_nothing_until_it_ends(crew: Crew) -> None:
    """What it holds is not taken over, and what it gives back is, on every worker."""
    one_minute = replace(ROLLING_OVER, id=BudgetId("T"), unit=Unit.TOKENS, limit=100)
    crew.budgets = (replace(one_minute, rollover_max=100),)
    first, second = crew.start("w-a"), crew.start("w-b")
    late = first.hold("H1", CALLER, demand(tokens=60))
    assert isinstance(late, Hold)
    crew.clock.at = AT + timedelta(minutes=1)

    assert isinstance(second.hold("H2", CALLER, demand(tokens=141)), BudgetExhausted)
    assert isinstance(second.hold("H3", CALLER, demand(tokens=140)), Hold)
    first.settle(late, demand(tokens=50))
    agree(first, second)
    assert [150, 150] == [status(first).limit, status(second).limit]
    # Ended above what it held: then less was left than was taken over, and nothing more is given.
    assert isinstance(second.hold("H4", CALLER, demand(tokens=10)), Hold)
    crew.clock.at = AT + timedelta(seconds=59)
    assert isinstance(first.hold("H5", CALLER, demand(tokens=1)), BudgetExhausted)


def test_a_late_overrun_takes_back_what_was_handed_on(crew: Crew) -> None:
    """A call of the window before that comes to more than it held leaves less for the next."""
    crew.budgets = (replace(ROLLING_OVER, unit=Unit.TOKENS, limit=100, rollover_max=100),)
    first, second = crew.start("w-a"), crew.start("w-b")
    late = first.hold("H1", CALLER, demand(tokens=10))
    assert isinstance(late, Hold)
    crew.clock.at = AT + timedelta(minutes=1)
    assert isinstance(second.hold("H2", CALLER, demand(tokens=150)), Hold)
    first.settle(late, demand(tokens=45))
    agree(first, second)

    assert 155 == status(second).limit
    assert isinstance(second.hold("H3", CALLER, demand(tokens=6)), BudgetExhausted)
    assert isinstance(first.hold("H4", CALLER, demand(tokens=5)), Hold)


def test_a_correction_of_the_window_before_counts_in_what_it_left(crew: Crew) -> None:
    """Dearer after the fact: the next window takes over less."""
    crew.budgets = (budget("B minute 10 USD", rollover=True, valid_from=AT),)
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "4"), demand("4"))
    crew.clock.at = AT + timedelta(minutes=1)
    agree(first, second)
    crew.ledger.corrections.append((AT, usd("3"), 0))
    for mate in (first, second):
        crew.run(mate.past.correct((0, 1), crew.clock.now()))
    agree(first, second)

    assert [usd("13")] * 2 == [status(mate).limit for mate in (first, second)]
    assert [0, 0] == [status(mate).spent for mate in (first, second)]


def test_what_was_taken_over_is_worked_out_again_after_redis_was_emptied(crew: Crew) -> None:
    """From the ledger and from every worker; until then nothing is, and nothing is overspent."""
    crew.budgets = (ROLLING_OVER,)
    first, second = crew.start("w-a"), crew.start("w-b")
    for number in range(4):
        first.settle(held(first, f"H{number}", "0"), demand("0"))
    crew.clock.at = AT + timedelta(minutes=1)
    for number in range(4, 16):
        second.settle(held(second, f"H{number}", "0"), demand("0"))
    crew.server.empty()
    agree(first, second)

    got = [first.hold(f"N{n}", CALLER, demand("0")) for n in range(9)]
    assert 4 == sum(isinstance(one, Hold) for one in got)
    # The minute before has given all it had: a late call does not get it again.
    crew.clock.at = AT + timedelta(seconds=59)
    assert isinstance(second.hold("H99", CALLER, demand("0")), BudgetExhausted)


def test_what_a_dead_worker_claimed_is_not_taken_over(crew: Crew) -> None:
    """Nobody knows what it did before it is back."""
    crew.budgets = (ROLLING_OVER,)
    first, second = crew.start("w-a"), crew.start("w-b")
    held(first, "H1", "0")
    crew.run(first.die())
    crew.clock.at = AT + timedelta(minutes=1)
    agree(second)
    before = status(second).rolled_over

    assert 0 <= before < 10
    agree(crew.start("w-a"), second)
    assert 10 == status(second).rolled_over


def test_a_claim_that_outlived_its_worker_is_given_back(crew: Crew) -> None:
    """It claimed more than it used and died; back in the next minute, it knows what was used."""
    tokens = replace(ROLLING_OVER, unit=Unit.TOKENS, limit=30, rollover_max=25)
    crew.budgets = (tokens,)
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "0", tokens=20), demand(tokens=20))
    crew.clock.at = AT + timedelta(seconds=61)
    crew.run(first.die())
    again = crew.start("w-a")
    agree(again, second)

    assert [10, 10] == [status(again).rolled_over, status(second).rolled_over]


def test_nothing_is_taken_over_before_all_have_said_what_they_hold(crew: Crew) -> None:
    """A gateway that has not heard of a new budget may hold calls of the window before."""
    other = budget("O total 100 USD")
    crew.budgets = (other,)
    first, second = crew.start("w-a"), crew.start("w-b")
    held(second, "H1", "0")
    crew.clock.at = AT + timedelta(minutes=1)
    crew.run(first.install((other, ROLLING_OVER)))
    agree(first, second)
    shown = first.budgets.status(crew.clock.now())[1]
    assert (10, 0) == (shown.limit, shown.rolled_over)

    crew.run(second.install((other, ROLLING_OVER)))
    agree(second, first)
    assert 9 == first.budgets.status(crew.clock.now())[1].rolled_over
