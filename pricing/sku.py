"""Names of what is sold: SKU ids and the price ids under them.

Must never be parsed back for meaning; they are labels.
"""

from collections.abc import Iterable
from typing import NewType

from pricing.meters import Meter

SkuId = NewType("SkuId", str)
PriceId = NewType("PriceId", str)

STANDARD_TIER = "standard"
# Stands where a tier stands in the price id of what the provider itself says a call costs.
REPORTED_TIER = "reported"


def sku_id(provider: str, model: str, meter: Meter) -> SkuId:
    """Name the thing with a price.

    Args:
        provider: Catalog provider, such as ``openai``.
        model: Catalog model, such as ``gpt-5``.
        meter: What is counted.

    Returns:
        ``provider/model/meter``.
    """
    return SkuId(f"{provider}/{model}/{meter.value}")


def price_id(
    sku: SkuId, *, tier: str, over: int | None, further: Iterable[str | None] = ()
) -> PriceId:
    """Name one price of a SKU: what changes the price without changing the thing.

    Args:
        sku: The thing.
        tier: Service tier, such as ``standard``, ``flex``, ``priority`` or ``batch``.
        over: The price holds when the whole prompt has more tokens than this.
        further: What else it holds for only: region class, variant, name of the hours; ``None`` for
            those that do not matter.

    Returns:
        The SKU, the tier, then ``over_N``, the region, the variant and the hours where they apply,
        joined by ``/``.
    """
    parts = [sku, tier]
    if over is not None:
        parts.append(f"over_{over}")
    return PriceId("/".join([*parts, *filter(None, further)]))
