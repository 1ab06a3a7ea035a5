"""What a provider says an answer costs, where its word is the bill.

Must never take a figure that cannot be a cost.
"""

from decimal import Decimal
from typing import Any, Final

import msgspec

from gateway.wire.facts import Answer

# No call of any model comes near it; a larger figure is in other units, or an error.
COST_MAX: Final = Decimal(10_000)
# One tick of xAI is 10^-10 USD.
_TICK_EXPONENT: Final = -10
_DIGITS_MAX: Final = 40
# Finer than any price: the digits of a binary fraction written out.
_EXPONENT_MIN: Final = -30


class _Told(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"")


_decode_told = msgspec.json.Decoder(_Told).decode
# Numbers with a fraction keep every digit they were written with.
_decode_fields = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode


def usage_fields(data: bytes) -> dict[str, Any]:
    """Read the ``usage`` of a JSON object with everything that stands in it.

    Args:
        data: The object.

    Returns:
        Its fields, fractions as exact decimals; empty where there are none.
    """
    try:
        return _decode_fields(_decode_told(data).usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def fields_in(value: object) -> dict[str, Any]:
    """Take a value for an object.

    Args:
        value: As decoded.

    Returns:
        Its fields; none where it is something else.
    """
    return value if isinstance(value, dict) else {}


def cost_of(value: object) -> Decimal | None:
    """Read an amount.

    Args:
        value: A number as decoded, or decimal text.

    Returns:
        The amount; ``None`` where there is none.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | Decimal):
        return Decimal(value)
    if isinstance(value, str) and len(value) <= _DIGITS_MAX:
        try:
            return Decimal(value)
        except ArithmeticError:
            return None
    return None


def ticks_of(value: object) -> Decimal | None:
    """Read an amount in xAI's ticks of 10^-10 USD.

    Args:
        value: A number as decoded.

    Returns:
        The amount in USD; ``None`` where there is none.

    Source:
        https://docs.x.ai/docs/api-reference, ``cost_in_usd_ticks``, checked 2026-11-23.
    """
    ticks = cost_of(value)
    if ticks is None or not ticks.is_finite():
        return ticks
    return ticks.scaleb(_TICK_EXPONENT)


def take_cost(answer: Answer, cost: Decimal | None) -> None:
    """Keep what a provider says an answer costs, or say why not.

    Args:
        answer: Takes it; a newer word replaces an older one, also where it is none.
        cost: In US dollars.
    """
    answer.provider_cost = None
    if cost is None:
        return
    if not _can_be(cost):
        flag = f"the provider says it cost {cost} USD, which cannot be: priced by the book"
        if flag not in answer.flags:
            answer.flags = (*answer.flags, flag)
        return
    answer.provider_cost = cost


def _can_be(cost: Decimal) -> bool:
    exponent = cost.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= _EXPONENT_MIN and 0 <= cost <= COST_MAX
