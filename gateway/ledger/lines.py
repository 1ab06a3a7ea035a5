"""Rated lines and counts, written the way the ledger keeps them. Pure.

Must never compute a cost: what is written here was rated in ``pricing``.
"""

from collections.abc import Mapping
from typing import Final

from gateway.ledger.record import LedgerLine
from pricing.meters import Meter
from pricing.rating import RatedLine
from pricing.usage import Quantity

# Reading ``value`` of an enum member costs more than rating a line.
_NAMES: Final = {meter: meter.value for meter in Meter}


def to_ledger_lines(lines: tuple[RatedLine, ...]) -> tuple[LedgerLine, ...]:
    """Write rated lines the way the ledger keeps them.

    Args:
        lines: Rated lines.

    Returns:
        The same lines as text and integers.
    """
    return tuple(
        [
            LedgerLine(
                sku=line.sku,
                price_id=line.rate.price_id,
                meter=_NAMES[line.meter],
                quantity=str(line.quantity),
                unit_price=line.rate.amount_text,
                per=line.rate.per,
                list_cost_pico=line.list_cost_pico,
                cost_pico=line.cost_pico,
            )
            for line in lines
        ]
    )


def to_ledger_usage(counts: Mapping[Meter, Quantity]) -> dict[str, int | str]:
    """Write counts the way the ledger keeps them.

    Args:
        counts: Quantities by meter.

    Returns:
        Whole numbers as they are, fractions as decimal text.
    """
    return {
        _NAMES[meter]: count if isinstance(count, int) else str(count)
        for meter, count in counts.items()
    }


def to_ledger_variants(variants: Mapping[Meter, str]) -> dict[str, str]:
    """Write the makes that were sold the way the ledger keeps them.

    Args:
        variants: Variant by meter.

    Returns:
        The same by the meter's name.
    """
    return {_NAMES[meter]: variant for meter, variant in variants.items()}
