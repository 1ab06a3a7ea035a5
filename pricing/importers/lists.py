"""JSON price lists, parsed without floats; every way to be broken is one error.

Must never let a float, a duplicate key or an endless nesting pass.
"""

import json
from collections import Counter
from decimal import Decimal, InvalidOperation

from pricing.manifest import BookBroken


def parse_list(text: str, file: str) -> object:
    """Parse a JSON price list.

    Args:
        text: Its content.
        file: Its name, for the problem.

    Returns:
        JSON values with ``Decimal`` for every number that is not whole.

    Raises:
        BookBroken: Not JSON, a key twice in one object, NaN or infinity, or nested too deep.
    """
    try:
        parsed: object = json.loads(
            text, parse_float=_decimal, parse_constant=_refuse, object_pairs_hook=_once
        )
    except RecursionError:
        raise BookBroken([f"{file}: nested too deep to be a price list"]) from None
    except ValueError as broken:
        raise BookBroken([f"{file}: {broken}"]) from None
    return parsed


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:40]} is not a number any price has") from None


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is not a price")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = sorted(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"an object has the same key twice: {', '.join(twice)}")
    return found
