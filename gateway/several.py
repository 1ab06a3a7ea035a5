"""What a call costs that several models worked on: each at its own price, all in one record. Pure.

Must never leave out what another model used, nor price it as the model asked for.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.ledger.record import CostStatus
from gateway.settlement import Bill, rate_call
from gateway.wire.facts import OtherUse
from pricing.book import Book
from pricing.meters import Meter
from pricing.money import Money
from pricing.rates import RateCard
from pricing.served import Served
from pricing.usage import Basis, Quantity, Usage

# From sure to unsure; of several the least sure one holds.
_STATUSES: Final[tuple[CostStatus, ...]] = ("final", "estimated", "unpriced", "unknown")
_BASES: Final = (Basis.NONE, Basis.REPORTED, Basis.PARTIAL, Basis.ESTIMATED, Basis.UNKNOWN)


def sum_usage(usage: Usage, others: Sequence[OtherUse]) -> Usage:
    """Add up what all models used.

    Args:
        usage: Of the model that served.
        others: Of the others.

    Returns:
        Sums by meter, as sure as the least sure of them; unknown when one is.
    """
    each = (usage, *(other.usage for other in others))
    basis = max((one.basis for one in each), key=_BASES.index)
    counts: dict[Meter, Quantity] = {}
    if basis is not Basis.UNKNOWN:
        for one in each:
            for meter, count in one.counts.items():
                counts[meter] = counts.get(meter, 0) + count
    return Usage(counts=counts, basis=basis, flags=tuple(f for one in each for f in one.flags))


def rate_several(
    usage: Usage, others: Sequence[OtherUse], served: Served, card: RateCard | None, book: Book
) -> Bill:
    """Price what every model used.

    Args:
        usage: Of the model that served.
        others: Of the others; they are priced at the same instant, for the same payer.
        served: What was served.
        card: The payer's prices of the model asked for; ``None`` when it has none.
        book: Where the prices of other models are found.

    Returns:
        The lines of all models and their sum. Where one of them cannot be priced nothing is:
        unknown, not zero. It does not say what was priced, as that is no single model.
    """
    bills = [rate_call(usage, served, card, book)]
    for other in others:
        as_served = msgspec.structs.replace(
            served,
            model=other.model,
            tier=other.tier or served.tier,
            region=served.region if other.region is None else other.region or None,
            variants=other.variants or served.variants,
            prompt_tokens=other.prompt_tokens,
        )
        bills.append(rate_call(other.usage, as_served, card, book))
    status = max((bill.status for bill in bills), key=_STATUSES.index)
    flags = [flag for bill in bills for flag in bill.flags]
    names = ", ".join(dict.fromkeys(other.model for other in others))
    flags.append(f"several models: {names} at a price of its own")
    billed = [bill for bill in bills if bill.served is not None]
    cost = _sum_money([bill.cost for bill in billed])
    list_cost = _sum_money([bill.list_cost for bill in billed])
    if cost is None or list_cost is None:
        cost = list_cost = None
        status = max(status, "unpriced", key=_STATUSES.index)
    return Bill(
        lines=() if cost is None else tuple(line for bill in billed for line in bill.lines),
        cost=cost,
        list_cost=list_cost,
        version=book.version.version if billed else None,
        status=status,
        flags=tuple(flags),
    )


def _sum_money(amounts: Sequence[Money | None]) -> Money | None:
    """Add amounts up; ``None`` when one is not known, or in another currency than the rest."""
    known = [amount for amount in amounts if amount is not None]
    if len(known) < len(amounts) or len({amount.currency for amount in known}) > 1:
        return None
    return sum(known[1:], known[0]) if known else Money(0)
