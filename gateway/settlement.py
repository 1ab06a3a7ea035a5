"""From what was seen of an answer to a settled record: usage, rated lines, cost. Pure.

Must never book an unknown as zero, and never price what was served as what was asked.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec

from gateway.ledger.record import CostStatus
from pricing.agreements import Payer
from pricing.book import Book
from pricing.meters import Meter
from pricing.money import Money
from pricing.rates import NO_VARIANTS, RateCard
from pricing.rating import (
    RatedLine,
    UnpricedSku,
    rate_reported,
    rate_usage,
    total_cost,
    total_list_cost,
)
from pricing.sku import STANDARD_TIER
from pricing.usage import Basis, Usage

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


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What a call costs.

    Attributes:
        lines: Rated lines; empty when nothing was billable or no price is known.
        cost: Sum of the lines; ``None`` when unknown.
        list_cost: What they cost at published prices; ``None`` when unknown.
        version: Book version asked; ``None`` when nothing was to be priced.
        status: How final the cost is.
        flags: What was odd, in words.
        served: What was priced; ``None`` when nothing was to be priced.
        provider_cost: What the provider says the call costs, where that is what it is booked at.
        priced_model: Catalog model whose prices applied, or the name to look them up by when there
            are some; empty when nothing was to be priced.
    """

    lines: tuple[RatedLine, ...]
    cost: Money | None
    list_cost: Money | None
    version: str | None
    status: CostStatus
    flags: tuple[str, ...] = ()
    served: Served | None = None
    provider_cost: Money | None = None
    priced_model: str = ""


NO_BILL: Final = Bill(lines=(), cost=Money(0), list_cost=Money(0), version=None, status="final")


def rate_call(usage: Usage, served: Served, card: RateCard | None, book: Book) -> Bill:
    """Price what a call used, by what was served.

    Args:
        usage: Disjoint counts and how sure they are.
        served: Model and tier served.
        card: The payer's prices of the model asked for; ``None`` when it has none.
        book: Where the prices of another model served are found.

    Returns:
        The bill. Unknown usage and unpriced meters have no cost, which is not a cost of zero.
    """
    if usage.basis is Basis.NONE:
        return NO_BILL
    billed, flags = _card_served(served, card, book)
    name = _name_unpriced(served) if billed is None else billed.model
    if usage.basis is Basis.UNKNOWN:
        return _unknown(book, "unknown", (), served, name)
    status: CostStatus = "final" if usage.basis is Basis.REPORTED else "estimated"
    if billed is None:
        return _unknown(book, "unpriced", flags, served, name)
    try:
        if served.tier is None and served.tier_asked not in (None, STANDARD_TIER):
            served, lines = _rate_dearer(usage, served, billed)
            flags = (*flags, f"the tier served is not known: billed as {served.tier}")
            status = "estimated"
        else:
            lines = _rate_at(usage, served, billed)
    except UnpricedSku as gap:
        return _unknown(book, "unpriced", (*flags, str(gap)), served, name)
    cost = total_cost(lines, billed.currency)
    return Bill(
        lines=lines,
        cost=cost,
        list_cost=total_list_cost(lines, billed.currency) if billed.agreements else cost,
        version=book.version.version,
        status=status,
        flags=flags,
        served=served,
        priced_model=name,
    )


def bill_reported(bill: Bill, cost: Decimal) -> Bill:
    """Put the provider's own word in the place of prices.

    Args:
        bill: The call by the price book.
        cost: What the provider says it costs, in US dollars.

    Returns:
        The bill with one line, final; the same where nothing was to be priced, or nobody knows
        what the call used.
    """
    served = bill.served
    if served is None or bill.status == "unknown":
        return bill
    line = rate_reported(cost, served.priced_as, bill.priced_model, served.at)
    return msgspec.structs.replace(
        bill,
        lines=(line,),
        cost=line.cost,
        list_cost=line.cost,
        status="final",
        flags=(),
        provider_cost=line.cost,
    )


def _rate_at(usage: Usage, served: Served, card: RateCard) -> tuple[RatedLine, ...]:
    return rate_usage(
        usage.counts,
        card,
        tier=served.tier or STANDARD_TIER,
        region=served.region,
        variants=served.variants,
    )


def _rate_dearer(
    usage: Usage, served: Served, card: RateCard
) -> tuple[Served, tuple[RatedLine, ...]]:
    """Rate at the tier asked for or at the standard one, whichever costs more.

    Asking for a tier does not make a provider serve it, and one that knows no tiers says nothing:
    a client must not choose its own price.
    """
    options = [
        msgspec.structs.replace(served, tier=tier) for tier in (served.tier_asked, STANDARD_TIER)
    ]
    rated = [(one, _rate_at(usage, one, card)) for one in options]
    return max(rated, key=lambda pair: total_cost(pair[1], card.currency).pico)


def _unknown(
    book: Book, status: CostStatus, flags: tuple[str, ...], served: Served, name: str
) -> Bill:
    return Bill(
        lines=(),
        cost=None,
        list_cost=None,
        version=book.version.version,
        status=status,
        flags=flags,
        served=served,
        priced_model=name,
    )


def _card_served(
    served: Served, card: RateCard | None, book: Book
) -> tuple[RateCard | None, tuple[str, ...]]:
    """The prices of the model served, which need not be the one asked for."""
    if served.model is None or served.model == served.asked:
        return card, ()
    other = book.find_card(served.priced_as, served.model, served.at, served.payer)
    if other is not None:
        return other, ()
    if card is not None and is_snapshot_of(served.model, (served.asked, card.model)):
        # A new snapshot of the alias that was asked for: the provider bills it as the alias.
        return card, (f"snapshot {served.model} is not in the price book: priced as {card.model}",)
    return None, (f"served model {served.model} has no price",)


def _name_unpriced(served: Served) -> str:
    """The name whose price would have applied."""
    behind = served.behind or served.asked
    if served.model in (None, served.asked):
        return behind
    return behind if is_snapshot_of(served.model, (served.asked, behind)) else served.model


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
