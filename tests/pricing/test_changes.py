"""What a new price does to the prices there are."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.changes import (
    ChangeRefused,
    prices_from,
    with_model,
    with_override,
    with_override_ended,
    with_rate,
)
from tests.pricing.cards import LATER, START, book_of, entry, override, rate

DAY = timedelta(days=1)


def amounts(rates, *instants):
    """The price of input at some instants."""
    found = []
    for at in instants:
        held = [r.amount for r in rates if r.holds_at(at)]
        assert len(held) <= 1
        found += [str(amount) for amount in held] or ["-"]
    return found


def test_the_price_before_ends_where_the_new_one_starts():
    """The old row stays in the old version as it is."""
    old = rate("input", "1")

    changed = with_rate([old], rate("input", "2", valid_from=LATER))

    assert old.valid_to is None
    assert ["1", "2"] == amounts(changed, LATER - DAY, LATER)
    book_of(*changed)


def test_other_prices_are_left_alone():
    """Another meter, tier or band is another price."""
    others = [rate("output", "9"), rate("input", "5", tier="batch"), rate("input", "3", over=200)]

    changed = with_rate(others, rate("input", "2", valid_from=LATER))

    assert set(others) < set(changed)


def test_a_price_with_an_end_gives_way_afterwards():
    """A promotion does not lose the price behind it."""
    promotion = rate("input", "0", valid_from=LATER, valid_to=LATER + DAY)

    changed = with_rate([rate("input", "1")], promotion)

    assert ["1", "0", "1"] == amounts(changed, LATER - DAY, LATER, LATER + DAY)


def test_a_price_of_the_same_day_is_put_right():
    """What was wrong from the start is not in the new version."""
    assert ["2"] == amounts(with_rate([rate("input", "1")], rate("input", "2")), START)


def test_the_price_there_is_changes_nothing():
    """However it is written."""
    old = rate("input", "1")

    assert (old,) == with_rate([old], rate("input", "0.001", per=1000, valid_from=LATER))


def test_a_known_later_price_is_not_lost_in_silence():
    """Nobody forgets an announced price by mistake."""
    announced = [rate("input", "1", valid_to=LATER), rate("input", "2", valid_from=LATER)]

    with pytest.raises(ChangeRefused, match=r"p/m/input.*2026-06-01.*valid_to"):
        with_rate(announced, rate("input", "3", valid_from=START + DAY))
    ended = with_rate(announced, rate("input", "3", valid_from=START + DAY, valid_to=LATER))
    assert ["1", "3", "2"] == amounts(ended, START, START + DAY, LATER)


days = st.integers(0, 30)


@given(st.lists(st.tuples(days, st.integers(1, 10)), max_size=6), days, st.integers(1, 10))
def test_the_new_price_holds_in_its_span_and_nothing_changes_outside(spans, start, length):
    """Whatever was there before."""
    rates = (rate("input", "1"),)
    for number, (first, count) in enumerate(spans, start=2):
        begin = START + first * DAY
        new = rate("input", str(number), valid_from=begin, valid_to=begin + count * DAY)
        rates = with_rate(rates, new)
    begin, end = START + start * DAY, START + (start + length) * DAY
    changed = with_rate(rates, rate("input", "99", valid_from=begin, valid_to=end))

    for number in range(45):
        at = START + number * DAY
        expected = ["99"] if begin <= at < end else amounts(rates, at)
        assert expected == amounts(changed, at)
    book_of(*changed)


def test_an_override_is_added_once():
    """Two contracts do not share a name."""
    one = override("a")

    assert (one, override("b")) == with_override([one], override("b"))
    with pytest.raises(ChangeRefused, match=r"'a' is there already"):
        with_override([one], override("a", percent="-1"))


def test_an_override_ends():
    """It is kept for the time it held, and dropped where there was none."""
    one, two = override("a"), override("b")

    kept = {o.id: o for o in with_override_ended([one, two], "a", LATER)}
    assert (LATER, None, Decimal(-15)) == (kept["a"].valid_to, two.valid_to, kept["a"].percent)
    assert (two,) == with_override_ended([one, two], "a", START)
    with pytest.raises(ChangeRefused, match=r"no override .c.*a, b"):
        with_override_ended([one, two], "c", LATER)
    with pytest.raises(ChangeRefused, match="already"):
        with_override_ended([override("a", valid_to=LATER)], "a", LATER)


def test_a_model_is_new_or_it_is_not():
    """A name that is known is not claimed again."""
    known = entry("m", aliases=["m-1"])

    assert (known, entry("n")) == with_model([known], entry("n"))
    with pytest.raises(ChangeRefused, match="as 'm'"):
        with_model([known], entry("m-1"))


def test_histories_that_say_the_same_are_the_same():
    """However many rates say it, and whatever held before the instant that is asked for."""
    one = [rate("input", "2", valid_to=LATER + DAY)]
    two = [
        rate("input", "9", valid_to=START + DAY),
        rate("input", "0.002", per=1000, valid_from=LATER, valid_to=LATER + DAY),
        rate("input", "2", valid_from=START + DAY, valid_to=LATER),
    ]

    assert prices_from(one, START + DAY) == prices_from(two, START + DAY)
    assert prices_from(one, START) != prices_from(two, START)
    assert prices_from([*one, rate("input", "3", valid_from=LATER + DAY)], LATER) != prices_from(
        two, LATER
    )
    assert () == prices_from(one, LATER + DAY)
