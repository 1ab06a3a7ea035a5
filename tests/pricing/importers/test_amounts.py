"""Amounts: short decimals as they were meant, and no repair that could be another price."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.importers.amounts import (
    AmountRefused,
    clean_amount,
    clean_unit_price,
    multiply_amount,
    parse_amount,
)
from pricing.importers.draft import Amount
from pricing.meters import Meter


@pytest.mark.parametrize(
    ("each", "meter", "value", "per"),
    [
        ("1.5e-07", Meter.INPUT, "0.15", 1_000_000),
        ("0", Meter.OUTPUT, "0", 1_000_000),
        # Noise of a product of floats, on either side.
        ("4.5000000000000005e-06", Meter.INPUT, "4.5", 1_000_000),
        ("9.499999999999999e-07", Meter.INPUT, "0.95", 1_000_000),
        ("0.00007500003000000001", Meter.OUTPUT, "75.00003", 1_000_000),
        # Not noise: five decimals are a price, here one converted from another unit.
        ("2.99999e-06", Meter.INPUT, "2.99999", 1_000_000),
        # Five minutes of storage at a price per hour, a twelfth.
        ("8.333333333333334e-08", Meter.CACHE_WRITE, "0.25", 3_000_000),
        # Prices of a minute and of an hour, divided.
        ("0.0001", Meter.AUDIO_SECOND, "0.0001", 1),
        ("0.0000833333333333", Meter.AUDIO_SECOND, "0.005", 60),
        ("0.00003083333333333", Meter.AUDIO_SECOND, "0.00185", 60),
        ("0.01", Meter.WEB_SEARCH, "10", 1000),
        ("0.039", Meter.IMAGE, "0.039", 1),
        ("0.0000005", Meter.PAGE, "0.0005", 1000),
    ],
)
def test_a_unit_price_becomes_the_price_it_was_published_as(each, meter, value, per):
    """The quantity is the one for which the price is a short decimal."""
    assert Amount(Decimal(value), per) == clean_unit_price(Decimal(each), meter)


@pytest.mark.parametrize(
    ("each", "meter"),
    [
        ("0.0002777778", Meter.AUDIO_SECOND),  # an hour for 1.00000008, or for 1
        ("0.141942857", Meter.VIDEO_SECOND),
        ("0.00000123456789", Meter.INPUT),
        ("0.0015000000001", Meter.INPUT),  # above the price noise can be told from
    ],
)
def test_what_could_be_two_prices_is_refused(each, meter):
    """Ten digits that are no short decimal are not rounded to one."""
    with pytest.raises(AmountRefused, match="more than 6 decimals") as refused:
        clean_unit_price(Decimal(each), meter)

    assert refused.value.is_noise


@given(st.decimals(min_value=0, max_value=499, places=6))
def test_dividing_in_floats_is_undone(price):
    """Whatever a float made of a short price per million, the price comes back."""
    as_float = Decimal(repr(float(price) / 1e6))

    cleaned = clean_unit_price(as_float, Meter.INPUT)

    assert (price.normalize(), 1_000_000) == (cleaned.value.normalize(), cleaned.per)


@given(st.decimals(min_value=0, max_value=499, places=6), st.sampled_from([1000, 1_000_000]))
def test_a_short_decimal_stays_what_it_is(price, per):
    """Cleaning never changes a price that needs none."""
    cleaned = clean_amount(price, per)

    assert (price, per) == (cleaned.value, cleaned.per)


@pytest.mark.parametrize(
    ("value", "say"),
    [
        (Decimal("-0.1"), "negative"),
        (Decimal("NaN"), "not a finite number"),
        (Decimal("Infinity"), "not a finite number"),
        (Decimal("1e30"), "huge"),
        (10**30, "huge"),
        pytest.param(10**5000, "huge", id="five thousand digits"),
        (Decimal("1e-40"), "finer than any price"),
        (Decimal("0." + "1" * 50), "finer than any price"),
        (True, "not a number"),
        ("0.1", "not a number"),
        (None, "not a number"),
        ([1], "not a number"),
    ],
)
def test_what_is_no_price_is_refused(value, say):
    """Each with the reason."""
    with pytest.raises(AmountRefused, match=say):
        parse_amount(value)


def test_zero_has_no_exponent():
    """A zero with a huge exponent is zero, not a reason to overflow."""
    assert Decimal(0) == parse_amount(Decimal("0e999999"))


def test_a_multiplier_is_exact():
    """A regional price is written out to the last digit."""
    assert Amount(Decimal("0.003025"), 1) == multiply_amount(
        Amount(Decimal("0.00275"), 1), Decimal("1.1")
    )
