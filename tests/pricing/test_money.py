"""Money: what it refuses, that text survives, and that one function rounds, half to even."""

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.money import (
    CurrencyMismatch,
    Money,
    decimal_from_text,
    money_from_text,
    pico_to_text,
    round_to_pico,
)

PICOS = st.integers(min_value=-(10**24), max_value=10**24)


@pytest.mark.parametrize("amount", [1.0, True, False, Decimal(1), "1", None], ids=repr)
def test_only_a_plain_integer_is_money(amount):
    """A float, a bool or a Decimal is refused, and the message says which it was."""
    with pytest.raises(TypeError, match=type(amount).__name__):
        Money(amount)


@pytest.mark.parametrize(
    "mix",
    [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a < b, lambda a, b: a <= b],
    ids=["add", "subtract", "less", "less or equal"],
)
def test_two_currencies_never_meet(mix):
    """Adding, subtracting and comparing across currencies raises and names both."""
    with pytest.raises(CurrencyMismatch, match="USD with EUR"):
        mix(Money(1, "USD"), Money(1, "EUR"))


def test_sums_and_order_are_those_of_the_integers():
    """Money adds, subtracts, negates and compares as the integers it holds."""
    assert Money(5) == Money(2) + Money(3)
    assert Money(-1) == Money(2) - Money(3)
    assert Money(-2) == -Money(2)
    assert Money(2) < Money(3)
    assert Money(3) <= Money(3)
    assert Money(2) != Money(2, "EUR")


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (0, "0"),
        (1, "0.000000000001"),
        (-1, "-0.000000000001"),
        (2_508_000_000, "0.002508"),
        (3 * 10**12, "3"),
        (-(10**13), "-10"),
        (10**12 + 10**11, "1.1"),
        (12_345_678_901_234_567_890, "12345678.90123456789"),
    ],
)
def test_amounts_are_shown_exactly(pico, text):
    """No exponent, no trailing zeros, nothing lost."""
    assert text == pico_to_text(pico)
    assert text == str(Money(pico))


@given(PICOS)
def test_text_survives_the_round_trip(pico):
    """Reading what was written gives the same amount."""
    assert Money(pico) == money_from_text(pico_to_text(pico))


def test_text_is_read_in_its_own_currency():
    """The currency is the caller's; dollars unless said otherwise."""
    assert Money(7_250_000_000_000, "EUR") == money_from_text("7.25", "EUR")
    assert Money(10**15) == money_from_text("1E+3")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.0000000000001", "finer than"),
        ("", "not a decimal number"),
        ("1,5", "not a decimal number"),
        ("NaN", "not a finite number"),
        ("-Infinity", "not a finite number"),
        (1.5, "not float"),
        (None, "not NoneType"),
    ],
)
def test_text_that_is_no_amount_is_refused(text, reason):
    """A float is refused as well as words, infinities and what is finer than 10^-12."""
    with pytest.raises(ValueError, match=reason):
        money_from_text(text)


def test_numbers_are_read_unrounded():
    """The text is kept digit by digit."""
    assert Decimal("0.1234567890123456789") == decimal_from_text("0.1234567890123456789")


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [(1, 2, 0), (3, 2, 2), (5, 2, 2), (-1, 2, 0), (-3, 2, -2), (1, 3, 0), (2, 3, 1), (7, 7, 1)],
)
def test_halves_go_to_the_even_neighbour(numerator, denominator, rounded):
    """0.5 goes to 0, 1.5 and 2.5 to 2; everything else to the nearest."""
    assert rounded == round_to_pico(numerator, denominator)


@given(PICOS, st.integers(min_value=1, max_value=10**15))
def test_rounding_is_that_of_decimal_arithmetic(numerator, denominator):
    """The integer rounding is ROUND_HALF_EVEN of the exact quotient."""
    scaled, rest = divmod(numerator * 2, denominator)
    # Twice the quotient, one digit behind the half: enough for Decimal to see which way to go.
    exact = (Decimal(scaled) / 2) if not rest else (Decimal(scaled) / 2 + Decimal("0.1"))

    assert int(exact.quantize(Decimal(1), ROUND_HALF_EVEN)) == round_to_pico(numerator, denominator)
