"""What planned calls will cost, so that budgets can be set that some of them run into.

Must never be taken for what they did cost: the ledger says that.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from gateway.traffic.company import PROJECTS, CompanyCall
from pricing.book import Book
from pricing.meters import Meter
from pricing.money import PICO_PER_UNIT
from pricing.rating import UnpricedSku, rate_usage, total_cost

_TEAM_OF: Final = {project.id: project.team for project in PROJECTS}
_FAILED: Final = ("busy", "broken")


def usage_of(call: CompanyCall) -> Mapping[Meter, int]:
    """Tell what a call that ends well will be billed for.

    Args:
        call: The plan.

    Returns:
        Disjoint counts, none of them 0.
    """
    counts = {
        Meter.INPUT: call.input - call.cache_read - call.cache_write,
        Meter.CACHE_READ: call.cache_read,
        Meter.CACHE_WRITE: call.cache_write,
        Meter.OUTPUT: call.output - call.reasoning,
        Meter.REASONING: call.reasoning,
    }
    return {meter: count for meter, count in counts.items() if count}


def expected_costs(calls: Iterable[CompanyCall], book: Book, at: datetime) -> Mapping[str, Decimal]:
    """Add up what planned calls will cost.

    Args:
        calls: The plan.
        book: The prices.
        at: The instant whose prices hold.

    Returns:
        USD by team; calls of models without a price count as nothing, as do those that fail.
    """
    totals: Counter[str] = Counter()
    for call in calls:
        if call.trouble in _FAILED:
            continue
        workload = call.workload
        card = book.find_card(workload.provider, workload.model, at)
        if card is None:
            continue
        try:
            cost = total_cost(rate_usage(usage_of(call), card), card.currency)
        except UnpricedSku:
            continue
        totals[_TEAM_OF[workload.project]] += cost.pico
    return {team: Decimal(pico) / PICO_PER_UNIT for team, pico in totals.items()}
