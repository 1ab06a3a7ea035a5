"""Amounts of a price list: exact decimals, and float noise removed where only one repair exists.

Must never round a price that could have been meant as it stands.
"""

from collections.abc import Mapping
from decimal import Context, Decimal
from types import MappingProxyType
from typing import Final

from pricing.importers.draft import Amount
from pricing.meters import TRAITS, Meter

# A published price has at most six decimals for its quantity; both lists hold nothing finer that
# is not noise (docs/pricing-sources.md has the counts).
SHORT_DECIMALS: Final = 6
# Binary floats are right to 1.1e-16, so a sum or product of a few is wrong by far less than this,
# while the shortest step between two short decimals below 500 is wider.
NOISE_PER_BILLION: Final = 1
_REPAIRED_BELOW: Final = 500
# Below a trillionth of a cent or above a billion is a slip of the unit, not a price.
_EXPONENT_MIN: Final = -20
_EXPONENT_MAX: Final = 9
_DIGITS_MAX: Final = 40
_EXACT: Final = Context(prec=80)
_STEP: Final = Decimal(1).scaleb(-SHORT_DECIMALS)

_TOKEN_PERS: Final = (1_000_000, 3_000_000)
_SECOND_PERS: Final = (1, 60, 3600)
_COUNT_PERS: Final = (1, 1000)
# Quantities a price of one unit may have been divided by, the usual one first. Three million stands
# for prices of five minutes of cache storage, a third of a short decimal.
_PERS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "token": _TOKEN_PERS,
        "character": (1_000_000,),
        "second": _SECOND_PERS,
        "web_search": (1000,),
        "search_unit": (1000,),
        "request": (1000,),
    }
)


class AmountRefused(ValueError):
    """An amount that is not a price: not a number, negative, huge or too fine.

    Attributes:
        is_noise: The amount is a number; only its last digits cannot be told from float noise.
    """

    def __init__(self, text: str, *, is_noise: bool = False) -> None:
        self.is_noise = is_noise
        super().__init__(text)


def parse_amount(value: object) -> Decimal:
    """Take a number of a price list as it is written.

    Args:
        value: A JSON value, parsed without floats.

    Returns:
        The same number.

    Raises:
        AmountRefused: Not a finite number, negative, or so large or small that a unit slipped.
    """
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise AmountRefused(f"{value!r} is not a number")
    if isinstance(value, int) and abs(value) > 10 ** (_EXPONENT_MAX + 1):
        raise AmountRefused("the amount is huge")
    number = Decimal(value)
    if not number.is_finite():
        raise AmountRefused(f"{number} is not a finite number")
    if number < 0:
        raise AmountRefused(f"{number} is negative")
    if not number:
        return Decimal(0)
    if number.adjusted() > _EXPONENT_MAX:
        raise AmountRefused(f"{number} is huge")
    if number.adjusted() < _EXPONENT_MIN or len(number.as_tuple().digits) > _DIGITS_MAX:
        raise AmountRefused(f"{number} is finer than any price")
    return number


def clean_unit_price(each: Decimal, meter: Meter) -> Amount:
    """Write the price of one unit for the quantity it was published for.

    Args:
        each: Price of one unit, maybe with float noise.
        meter: What is counted.

    Returns:
        A short decimal and its quantity.

    Raises:
        AmountRefused: No quantity gives a short decimal for sure.
    """
    return _clean(each, _PERS.get(TRAITS[meter].unit, _COUNT_PERS))


def clean_amount(value: Decimal, per: int) -> Amount:
    """Remove float noise from a price that states its quantity.

    Args:
        value: Price of ``per`` units, maybe with float noise.
        per: That quantity.

    Returns:
        A short decimal, for that quantity or three times it.

    Raises:
        AmountRefused: Neither gives a short decimal for sure.
    """
    amount = _clean(value, (1, 3))
    return Amount(amount.value, amount.per * per)


def _clean(each: Decimal, pers: tuple[int, ...]) -> Amount:
    scaled = [(_EXACT.multiply(each, Decimal(per)), per) for per in pers]
    for value, per in scaled:
        if _decimals(value) <= SHORT_DECIMALS:
            return Amount(_plain(value), per)
    for value, per in scaled:
        short = _EXACT.quantize(value, _STEP)
        off = _EXACT.multiply(abs(_EXACT.subtract(value, short)), Decimal(10**9))
        if 0 < short < _REPAIRED_BELOW and off <= short * NOISE_PER_BILLION:
            return Amount(_plain(short), per)
    value, per = scaled[0]
    raise AmountRefused(
        f"{value:f} per {per} has more than {SHORT_DECIMALS} decimals and is not within "
        f"10^-9 of one that has fewer",
        is_noise=True,
    )


def multiply_amount(amount: Amount, factor: Decimal) -> Amount:
    """Apply a published multiplier, exactly.

    Args:
        amount: A price.
        factor: Such as 1.1 for a regional host.

    Returns:
        The product for the same quantity.
    """
    return Amount(_plain(_EXACT.multiply(amount.value, factor)), amount.per)


def _decimals(value: Decimal) -> int:
    exponent = value.normalize(_EXACT).as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else SHORT_DECIMALS + 1


def _plain(value: Decimal) -> Decimal:
    """The number without trailing zeros and without an exponent."""
    return Decimal(f"{value.normalize(_EXACT):f}")
