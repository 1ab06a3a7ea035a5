"""Exact money: an integer count of 10^-12 currency units, and the one place that rounds.

Must never accept a float, a bool or a Decimal as an amount.
"""

from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

PICO_PER_UNIT: Final = 10**12
PICO_DIGITS: Final = 12


class CurrencyMismatch(ValueError):
    """Two amounts in different currencies met in one sum or comparison."""


class Money(msgspec.Struct, frozen=True):
    """A posted amount.

    Attributes:
        pico: Signed count of 10^-12 currency units.
        currency: ISO 4217 code.
    """

    pico: int
    currency: str = "USD"

    def __post_init__(self) -> None:
        """Refuse anything but a plain integer.

        Raises:
            TypeError: ``pico`` is a float, a bool, a Decimal or not a number at all.
        """
        if type(self.pico) is not int:
            raise TypeError(
                f"money is an integer of 10^-12 {self.currency}, not {type(self.pico).__name__}: "
                f"{self.pico!r}; parse text with money_from_text"
            )

    def __add__(self, other: "Money") -> "Money":
        self._same_currency(other)
        return Money(self.pico + other.pico, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        self._same_currency(other)
        return Money(self.pico - other.pico, self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.pico, self.currency)

    def __lt__(self, other: "Money") -> bool:
        self._same_currency(other)
        return self.pico < other.pico

    def __le__(self, other: "Money") -> bool:
        self._same_currency(other)
        return self.pico <= other.pico

    def __str__(self) -> str:
        """Show the amount as exact decimal text without an exponent or trailing zeros."""
        return pico_to_text(self.pico)

    def _same_currency(self, other: "Money") -> None:
        if self.currency != other.currency:
            raise CurrencyMismatch(f"cannot combine {self.currency} with {other.currency}")


def pico_to_text(pico: int) -> str:
    """Write a count of 10^-12 units as exact decimal text.

    Args:
        pico: Signed count of 10^-12 units.

    Returns:
        Decimal text such as ``0.002508`` or ``-3``: no exponent, no trailing zeros.
    """
    whole, fraction = divmod(abs(pico), PICO_PER_UNIT)
    sign = "-" if pico < 0 else ""
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:012d}".rstrip("0")


def money_from_text(text: str, currency: str = "USD") -> Money:
    """Parse exact decimal text.

    Args:
        text: Decimal text such as ``7.25``; at most twelve decimals.
        currency: ISO 4217 code.

    Returns:
        The same amount, exactly.

    Raises:
        ValueError: Not a finite decimal number, or finer than 10^-12.
    """
    amount = decimal_from_text(text)
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or -exponent > PICO_DIGITS:
        raise ValueError(f"{text!r} is finer than 10^-{PICO_DIGITS} {currency}")
    numerator, denominator = amount.as_integer_ratio()
    return Money(numerator * PICO_PER_UNIT // denominator, currency)


def decimal_from_text(text: str) -> Decimal:
    """Parse a finite decimal number from text, never from a float.

    Args:
        text: Decimal text.

    Returns:
        The number, unrounded.

    Raises:
        ValueError: ``text`` is not text, or not a finite decimal number.
    """
    if not isinstance(text, str):
        raise ValueError(f"write the number as text, not {type(text).__name__}: {text!r}")  # noqa: TRY004 - one error type for bad catalog text
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a decimal number") from None
    if not number.is_finite():
        raise ValueError(f"{text!r} is not a finite number")
    return number


def round_to_pico(numerator: int, denominator: int) -> int:
    """Round an exact ratio of 10^-12 units to an integer, half to even. Nothing else rounds.

    Args:
        numerator: Signed count of 10^-12 units, times ``denominator``.
        denominator: Positive.

    Returns:
        The nearest integer count of 10^-12 units; exact halves go to the even one.

    Source:
        docs/adr/0002-money-scale.md.
    """
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient
