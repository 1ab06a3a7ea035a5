"""From what was seen of an answer to a settled record: usage, rated lines, cost. Pure.

Must never book an unknown as zero. ``pricing.served`` says which prices apply.
"""

from decimal import Decimal
from typing import Final

import msgspec

from gateway.ledger.record import CostStatus
from pricing.book import Book
from pricing.money import Money
from pricing.rates import RateCard
from pricing.rating import RatedLine, UnpricedSku, rate_reported, total_cost, total_list_cost
from pricing.served import Served, find_card_served, name_unpriced, rate_served
from pricing.sku import STANDARD_TIER
from pricing.usage import Basis, Usage


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What a call costs.

    Attributes:
        lines: Rated lines; empty when nothing was billable or no price is known.
        cost: Sum of the lines; ``None`` when unknown.
        list_cost: What they cost at published prices; ``None`` when unknown.
        version: Book version asked; ``None`` when nothing was to be priced.
        status: How final the cost is.
        flags: What was odd, in words.
        served: What was to be priced; ``None`` when nothing was.
        provider_cost: What the provider says the call costs, where that is what it is booked at.
        priced_model: Catalog model whose prices applied, or the name to look them up by when there
            are some; empty when nothing was to be priced.
        tier: Tier it was priced at, or would have been; empty when nothing was to be priced.
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
    tier: str = ""


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
    billed, flags = find_card_served(served, card, book)
    name = name_unpriced(served) if billed is None else billed.model
    if usage.basis is Basis.UNKNOWN:
        return _unknown(book, "unknown", (), served, name)
    if billed is None:
        return _unknown(book, "unpriced", flags, served, name)
    try:
        tier, lines = rate_served(usage.counts, served, billed)
    except UnpricedSku as gap:
        return _unknown(book, "unpriced", (*flags, str(gap)), served, name)
    status: CostStatus = "final" if usage.basis is Basis.REPORTED else "estimated"
    if served.tier is None and served.open_tier is not None:
        flags = (*flags, f"the tier served is not known: billed as {tier}")
        status = "estimated"
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
        tier=tier,
    )


def bill_reported(bill: Bill, cost: Decimal, *, is_final: bool = True) -> Bill:
    """Put the provider's own word in the place of prices.

    Args:
        bill: The call by the price book.
        cost: What the provider says it costs, in US dollars.
        is_final: Whether it said so at the end of the answer.

    Returns:
        The bill with one line; the same where nothing was to be priced, or nobody knows
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
        status="final" if is_final else "estimated",
        flags=(),
        provider_cost=line.cost,
    )


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
        tier=served.tier or STANDARD_TIER,
    )
