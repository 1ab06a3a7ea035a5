"""A record's cost worked out again, line by line, from the price book it was billed under.

Must never take a price from the record: what stands there is what is being checked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from gateway.clock import from_epoch_us
from gateway.ledger.record import LedgerLine, LedgerRecord
from pricing.agreements import Payer
from pricing.book import Book, BookBroken
from pricing.money import pico_to_text, round_to_pico
from pricing.rates import CompiledRate, RateCard
from pricing.sku import REPORTED_TIER

FindBook = Callable[[str, str], Book]


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedLine:
    """One line, and what its price book says of it.

    Attributes:
        line: As booked.
        price: The price of that name; ``None`` where the book cannot tell, or the provider said
            what the call costs.
        problem: Why it cannot, or what differs; ``None`` where everything agrees.
    """

    line: LedgerLine
    price: CompiledRate | None
    problem: str | None


def derive_lines(record: LedgerRecord, find_book: FindBook) -> tuple[DerivedLine, ...]:
    """Look every price up again, and multiply.

    Args:
        record: As in the ledger; not a correction, whose lines are differences.
        find_book: Finds a version with the prices of one catalog provider.

    Returns:
        One entry per line, in the same order.
    """
    return tuple(_derive(record, line, find_book) for line in record.lines)


def _derive(record: LedgerRecord, line: LedgerLine, find_book: FindBook) -> DerivedLine:
    if line.price_id == f"{line.sku}/{REPORTED_TIER}":
        return DerivedLine(line=line, price=None, problem=_difference_reported(record, line))
    try:
        card = _find_card(record, line, find_book)
    except BookBroken as broken:
        return DerivedLine(line=line, price=None, problem=f"{line.meter}: {broken.problems[0]}")
    prices = () if card is None else card.all_prices()
    price = next((price for price in prices if price.price_id == line.price_id), None)
    if price is None:
        text = f"{line.meter}: price book {record.price_version} has no {line.price_id} then"
        return DerivedLine(line=line, price=None, problem=text)
    return DerivedLine(line=line, price=price, problem=_difference(line, price))


def _find_card(record: LedgerRecord, line: LedgerLine, find_book: FindBook) -> RateCard | None:
    provider, _, rest = line.sku.partition("/")
    model = rest.rpartition("/")[0]
    return find_book(record.price_version or "", provider).find_card(
        provider,
        model,
        from_epoch_us(record.started_at_us),
        Payer(record.organization, record.team, record.project),
    )


def _difference_reported(record: LedgerRecord, line: LedgerLine) -> str | None:
    """What the provider itself said is in no price book, but in the record."""
    told = record.provider_cost_pico
    if told == line.cost_pico:
        return None
    said = "nothing" if told is None else pico_to_text(told)
    return f"{line.meter}: the provider said {said}, {pico_to_text(line.cost_pico)} booked"


def _difference(line: LedgerLine, price: CompiledRate) -> str | None:
    cost, list_cost = cost_at(line, price), cost_at(line, price.listed or price)
    if cost != line.cost_pico:
        return (
            f"{line.meter}: {pico_to_text(cost)} at {price.amount_text} per {price.per} in the "
            f"price book, {pico_to_text(line.cost_pico)} booked"
        )
    if list_cost != line.list_cost_pico:
        return (
            f"{line.meter}: {pico_to_text(list_cost)} at the published price, "
            f"{pico_to_text(line.list_cost_pico)} booked"
        )
    return None


def cost_at(line: LedgerLine, price: CompiledRate) -> int:
    """Multiply.

    Args:
        line: For its quantity.
        price: Of one unit.

    Returns:
        10^-12 currency units, half to even.
    """
    exact = Fraction(line.quantity) * price.pico_numerator / price.pico_denominator
    return round_to_pico(exact.numerator, exact.denominator)
