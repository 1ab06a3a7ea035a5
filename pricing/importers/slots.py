"""Rules that hold for every list: what a service tier inherits, and multipliers written out.

Must never let a tier or a region bill less than its list says.
"""

from collections.abc import Container, Iterable, Mapping
from decimal import Decimal

from pricing.importers.amounts import multiply_amount
from pricing.importers.draft import Amount, Slot
from pricing.meters import TRAITS, Meter
from pricing.sku import STANDARD_TIER

Prices = dict[Slot, Amount]


def fill_tiers(prices: Mapping[Slot, Amount], *, bare: Container[str] = ()) -> Prices:
    """Give every tier the standard price of what it does not price itself.

    Both lists mean it so: a tier is written as what differs from standard. A meter a tier does
    price takes no context bands and no hours from standard; only its base price, where the tier
    prices long prompts alone. Thinking is output to a tier with an output price of its own, as the
    litellm map calculates, whatever it costs in standard.

    Args:
        prices: As written.
        bare: Tiers that take only fees and free tokens from standard, no price of a token.

    Returns:
        The same and what the tiers inherit.
    """
    filled = dict(prices)
    bases = {(slot.tier, _thing(slot)) for slot in prices if slot.over is None}
    for tier in {slot.tier for slot in prices} - {STANDARD_TIER}:
        own = {_thing(slot) for slot in prices if slot.tier == tier}
        for slot, amount in prices.items():
            is_taken = tier not in bare or not amount.value or TRAITS[slot.meter].unit != "token"
            has_base = (tier, _thing(slot)) in bases
            is_missing = _thing(slot) not in own or (slot.over is None and not has_base)
            is_output = (
                slot.meter is Meter.REASONING and (tier, _thing(slot, Meter.OUTPUT)) in bases
            )
            if slot.tier == STANDARD_TIER and is_missing and is_taken and not is_output:
                filled[slot._replace(tier=tier)] = amount
    return filled


def _thing(slot: Slot, meter: Meter | None = None) -> tuple[str, str | None, str | None]:
    return meter or slot.meter, slot.region, slot.variant


def add_tier(prices: Prices, tier: str, factor: Decimal) -> None:
    """Write out a tier that is sold at a multiple of the standard token prices.

    Args:
        prices: Changed in place.
        tier: Name of the tier.
        factor: Of every standard token price.
    """
    for slot, amount in list(prices.items()):
        if slot.tier == STANDARD_TIER and TRAITS[slot.meter].unit == "token":
            prices.setdefault(slot._replace(tier=tier), multiply_amount(amount, factor))


def add_regions(prices: Prices, factors: Iterable[tuple[str, Decimal]]) -> None:
    """Write out regions where every token price is a multiple; fees stay as they are.

    Args:
        prices: Changed in place.
        factors: Region class and factor.
    """
    worldwide = [
        (slot, amount)
        for slot, amount in prices.items()
        if slot.region is None and TRAITS[slot.meter].unit == "token"
    ]
    for region, factor in factors:
        for slot, amount in worldwide:
            prices.setdefault(slot._replace(region=region), multiply_amount(amount, factor))


def is_all_zero(prices: Mapping[Slot, Amount]) -> bool:
    """Tell whether nothing costs anything.

    Args:
        prices: Any prices.

    Returns:
        True as well when there are none.
    """
    return all(amount.value == 0 for amount in prices.values())
