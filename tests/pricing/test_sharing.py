"""Shared costs are split to the last unit, and what nobody used is nobody's."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.months import Month
from pricing.sharing import SharedCost, split_amount, split_cost
from tests.pricing.commitment_kit import usd

NOVEMBER = Month(2026, 11)


def shared(amount_pico=100 * 10**12, **others):
    fields = {
        "id": "platform",
        "amount_pico": amount_pico,
        "measure": "tokens",
        "payers": "team",
        "zone": ZoneInfo("UTC"),
    }
    return SharedCost(**(fields | others))


@pytest.mark.parametrize(
    ("amount", "weights", "expected"),
    [
        (100, {"a": 1, "b": 1}, {"a": 50, "b": 50}),
        (100, {"a": 1, "b": 1, "c": 1}, {"a": 34, "b": 33, "c": 33}),
        (5, {"b": 3, "a": 3, "c": 1}, {"a": 2, "b": 2, "c": 1}),
        (2, {"x": 5, "y": 4, "z": 1}, {"x": 1, "y": 1, "z": 0}),
        (1, {None: 1, "z": 1}, {"z": 1, None: 0}),
        (7, {"a": 0, "b": 2}, {"a": 0, "b": 7}),
        (0, {"a": 1}, {"a": 0}),
        (7, {"a": 0}, {}),
        (7, {}, {}),
    ],
)
def test_remainders_go_to_the_largest_then_by_name(amount, weights, expected) -> None:
    """Worked by hand; nobody without use gets a remainder."""
    assert expected == split_amount(amount, weights)


def test_a_month_is_split_by_use() -> None:
    """The largest first, those that used nothing at the end, bearing nothing."""
    found = split_cost(shared(), NOVEMBER, {"search": 300, None: 100}, ["ads", "search"])

    assert [("search", 300, usd("75")), (None, 100, usd("25")), ("ads", 0, 0)] == [
        (share.payer, share.weight, share.amount_pico) for share in found.shares
    ]
    assert 0 == found.unallocated_pico


def test_what_nobody_used_stays_unallocated() -> None:
    """The amount is still there, and nobody bears it; corrections below zero are no use."""
    found = split_cost(shared(), NOVEMBER, {"search": -5}, ["ads"])

    assert usd("100") == found.unallocated_pico
    assert [0, 0] == [share.amount_pico for share in found.shares]


def test_a_cost_is_due_from_its_first_to_its_last_month() -> None:
    """Both included; open where no month is named."""
    months = [Month(2026, 10), NOVEMBER, Month(2026, 12), Month(2027, 1)]
    one = shared(first=NOVEMBER, last=Month(2026, 12))

    assert [False, True, True, False] == [one.is_due(month) for month in months]
    assert all(shared().is_due(month) for month in months)


@pytest.mark.parametrize(("amount", "weights"), [(-1, {"a": 1}), (1, {"a": -1})])
def test_less_than_nothing_cannot_be_split(amount, weights) -> None:
    """A caller that asks for it is wrong."""
    with pytest.raises(ValueError, match="negative"):
        split_amount(amount, weights)


_NAMES = st.none() | st.text("abcdef", min_size=1, max_size=3)
_WEIGHTS = st.dictionaries(_NAMES, st.integers(-(10**6), 10**18), max_size=8)


@given(st.integers(0, 10**18), _WEIGHTS, st.lists(st.text("abc", min_size=1, max_size=2)))
def test_parts_sum_to_the_whole(amount, weights, payers) -> None:
    """To the last 10^-12, whoever is listed; nobody is off by more than one unit."""
    found = split_cost(shared(amount), NOVEMBER, weights, payers)
    whole = sum(share.weight for share in found.shares)

    assert amount == found.unallocated_pico + sum(share.amount_pico for share in found.shares)
    assert (found.unallocated_pico == amount) == (whole == 0 or amount == 0)
    for share in found.shares:
        assert whole == 0 or abs(share.amount_pico * whole - amount * share.weight) < whole


@given(st.integers(0, 10**18), _WEIGHTS)
def test_the_order_of_payers_decides_nothing(amount, weights) -> None:
    """The same weights always split alike."""
    backwards = dict(reversed(weights.items()))

    assert split_cost(shared(amount), NOVEMBER, weights) == split_cost(
        shared(amount), NOVEMBER, backwards
    )
