"""Which prices a call has: those of the model and the tier that were served, as far as told.

Live calls and calls of the past are priced by the same few functions. Must never price what was
served as what was asked, nor let what was asked choose the cheaper of two tiers.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Final

import msgspec

from pricing.agreements import Payer
from pricing.book import Book
from pricing.meters import Meter
from pricing.rates import NO_VARIANTS, RateCard
from pricing.rating import RatedLine, rate_usage, total_cost
from pricing.sku import STANDARD_TIER
from pricing.usage import Quantity

# A dated or numbered snapshot: gpt-5-2026-12-01, gemini-2.5-pro-002. A word would be another model.
_SNAPSHOT: Final = re.compile(r"-[0-9][0-9-]*")


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider says it served, beside what was asked.

    Attributes:
        priced_as: Catalog provider.
        asked: Model asked for, under the provider's own name.
        behind: Model behind that name, where it is a deployment; ``None`` where they are one.
        model: Model served; ``None`` when the provider does not say.
        tier: Tier served; ``None`` when the provider does not say.
        tier_asked: Tier asked for; ``None`` when left to the provider.
        region: Region class served; ``None`` where it does not change the price.
        at: When the call began, which decides the price.
        payer: Who pays, which decides what was agreed.
        variants: In which make a meter was sold, as far as it is known.
        prompt_tokens: Largest prompt, where the counts are the sum of several calls; ``None`` where
            they are those of one.
    """

    priced_as: str
    asked: str
    behind: str | None = None
    model: str | None
    tier: str | None
    tier_asked: str | None = None
    region: str | None
    at: datetime
    payer: Payer | None = None
    variants: Mapping[Meter, str] = NO_VARIANTS
    prompt_tokens: int | None = None

    @property
    def open_tier(self) -> str | None:
        """The tier that may have been served beside the standard one; ``None`` where none may."""
        if self.tier is not None or self.tier_asked == STANDARD_TIER:
            return None
        return self.tier_asked


def find_card_asked(served: Served, book: Book) -> RateCard | None:
    """Find the prices of the model behind what was asked for.

    Args:
        served: What was asked, by whom and when.
        book: The prices.

    Returns:
        The card; ``None`` when the book has none.
    """
    name = served.behind or served.asked
    return book.find_card(served.priced_as, name, served.at, served.payer)


def find_card_served(
    served: Served, card: RateCard | None, book: Book
) -> tuple[RateCard | None, tuple[str, ...]]:
    """Find the prices of the model served, which need not be the one asked for.

    Args:
        served: Model asked for and model served.
        card: As ``find_card_asked`` finds it in the same book.
        book: Where the prices of another model are found.

    Returns:
        The card, or ``None`` when it has no price; and what was odd, in words. A name that was
        asked for is a deployment's or the model's own, whatever else the book has by that name.
    """
    if served.model is None or served.model == served.asked:
        return card, ()
    other = book.find_card(served.priced_as, served.model, served.at, served.payer)
    if other is not None:
        return other, ()
    if card is not None and is_snapshot_of(served.model, (served.asked, card.model)):
        # A new snapshot of the alias that was asked for: the provider bills it as the alias.
        return card, (f"snapshot {served.model} is not in the price book: priced as {card.model}",)
    return None, (f"served model {served.model} has no price",)


def name_unpriced(served: Served) -> str:
    """Name the model whose price would have applied.

    Args:
        served: Model asked for and model served.

    Returns:
        A name to show and to look for.
    """
    behind = served.behind or served.asked
    if served.model in (None, served.asked):
        return behind
    return behind if is_snapshot_of(served.model, (served.asked, behind)) else served.model


def rate_served(
    counts: Mapping[Meter, Quantity], served: Served, card: RateCard
) -> tuple[str, tuple[RatedLine, ...]]:
    """Rate at the tier served.

    Args:
        counts: Disjoint counts by meter.
        served: Tier and region served, and the makes.
        card: As ``find_card_served`` finds it.

    Returns:
        The tier and the lines. Where the tier served is not told it is the one asked for or the
        standard one, whichever costs more: asking for a tier does not make a provider serve it, one
        that knows no tiers says nothing, and a client must not choose its own price.

    Raises:
        UnpricedSku: A meter has no price. Nothing is priced partially.
    """
    rate = partial(
        rate_usage,
        counts,
        card,
        region=served.region,
        variants=served.variants,
        prompt_tokens=served.prompt_tokens,
    )
    tier = served.tier
    asked = served.open_tier if tier is None else None
    if asked is None:
        tier = tier or STANDARD_TIER
        return tier, rate(tier=tier)
    rated = [(tier, rate(tier=tier)) for tier in (asked, STANDARD_TIER)]
    return max(rated, key=lambda pair: total_cost(pair[1], card.currency).pico)


def is_snapshot_of(model: str, names: tuple[str, ...]) -> bool:
    """Tell whether a model is a dated or numbered snapshot of another.

    Args:
        model: Its name.
        names: Names of the other.

    Returns:
        Whether it has one of the names with a date or a number behind it.
    """
    return any(
        model.startswith(name) and _SNAPSHOT.fullmatch(model, len(name)) is not None
        for name in names
    )
