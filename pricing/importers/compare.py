"""Two sources side by side: where both have a price for the same thing and do not agree.

Must never call a price wrong: it says who says what.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

from pricing.importers.catalogs import Catalog
from pricing.importers.draft import Amount, Slot
from pricing.rates import Rate

_HALF_HOUR: Final = timedelta(minutes=30)
_HALF_HOURS_A_WEEK: Final = 336
_PERCENT: Final = Context(prec=40, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """One price two sources state differently.

    Attributes:
        provider: Catalog provider.
        model: Catalog model, as the first source calls it.
        slot: Which price, hours aside.
        at: First instant at which they differ, of those compared.
        ours: The first source's rate then.
        theirs: The second source's.
    """

    provider: str
    model: str
    slot: Slot
    at: datetime
    ours: Rate
    theirs: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sources, compared.

    Attributes:
        models_common: Models both price.
        prices_common: Prices of these that both state.
        prices_alone: Prices of these that only one of them states.
        disagreements: Prices both state differently.
    """

    models_common: int
    prices_common: int
    prices_alone: int
    disagreements: tuple[Disagreement, ...]


def slot_of(rate: Rate) -> Slot:
    """Say which price of its model a rate is.

    Args:
        rate: Any rate.

    Returns:
        What tells it from the model's other prices, apart from the dates.
    """
    return Slot(rate.meter, rate.tier, rate.over, rate.region, rate.variant, rate.hours)


def compare_catalogs(ours: Catalog, theirs: Catalog, at: datetime) -> Comparison:
    """Compare the prices in force at an instant; those with hours, in the week that follows.

    Args:
        ours: One source.
        theirs: The other; its models are looked up in ``ours`` by any name.
        at: Aware instant.

    Returns:
        Every price both state differently, once, in the order of ``theirs``.
    """
    models = prices = alone = 0
    found: dict[tuple[object, ...], Disagreement] = {}
    for model in theirs.models:
        mine = ours.named.get((model.provider, model.model.casefold()))
        if mine is None:
            continue
        models += 1
        left = ours.rates_of[mine.provider, mine.model]
        right = theirs.rates_of[model.provider, model.model]
        for instant in _instants((*left, *right), at):
            a, b = in_force(left, instant), in_force(right, instant)
            if instant == at:
                prices += len(a.keys() & b.keys())
                alone += len(a.keys() ^ b.keys())
            for slot, rate in b.items():
                if slot in a and not _amount(a[slot]).is_same_as(_amount(rate)):
                    pair = (a[slot].amount, a[slot].per, rate.amount, rate.per)
                    found.setdefault(
                        (mine.provider, mine.model, slot, *pair),
                        Disagreement(
                            provider=mine.provider,
                            model=mine.model,
                            slot=slot,
                            at=instant,
                            ours=a[slot],
                            theirs=rate,
                        ),
                    )
    return Comparison(
        models_common=models,
        prices_common=prices,
        prices_alone=alone,
        disagreements=tuple(found.values()),
    )


def _instants(rates: Iterable[Rate], at: datetime) -> Iterable[datetime]:
    """One instant, or every half hour of the week after it where prices have hours."""
    if all(rate.hours is None for rate in rates):
        return [at]
    return [at + _HALF_HOUR * step for step in range(_HALF_HOURS_A_WEEK)]


def in_force(rates: Iterable[Rate], at: datetime) -> Mapping[Slot, Rate]:
    """Choose the rates that hold at an instant.

    Args:
        rates: Of one model.
        at: Aware instant.

    Returns:
        Rates by what they are the price of, hours aside: a price whose window is open goes before
        the one without.
    """
    found: dict[Slot, Rate] = {}
    for rate in rates:
        if not rate.holds_at(at):
            continue
        slot = slot_of(rate)._replace(hours=None)
        if rate.hours is None:
            found.setdefault(slot, rate)
        elif rate.hours.holds_at(at):
            found[slot] = rate
    return found


def _amount(rate: Rate) -> Amount:
    return Amount(rate.amount, rate.per)


def percent_between(before: Rate, after: Rate) -> Decimal | None:
    """Say by how much a price differs from another.

    Args:
        before: The price that is 100 percent.
        after: The other.

    Returns:
        Signed percent to one decimal, for people; ``None`` from a price of zero.
    """
    if before.amount == 0:
        return None
    old = _PERCENT.multiply(before.amount, Decimal(after.per))
    new = _PERCENT.multiply(after.amount, Decimal(before.per))
    ratio = _PERCENT.divide(_PERCENT.multiply(_PERCENT.subtract(new, old), Decimal(100)), old)
    return _PERCENT.quantize(ratio, Decimal("0.1"))


def slot_text(slot: Slot) -> str:
    """Name a price inside its model, for people.

    Args:
        slot: Which price.

    Returns:
        Such as ``input batch over 200000``.
    """
    parts: Sequence[str | None] = (
        slot.meter.value,
        None if slot.tier == "standard" else slot.tier,
        None if slot.over is None else f"over {slot.over}",
        slot.region,
        slot.variant,
        None if slot.hours is None else str(slot.hours),
    )
    return " ".join(part for part in parts if part)


def price_text(rate: Rate) -> str:
    """Write a price for people.

    Args:
        rate: Any rate.

    Returns:
        Such as ``2.5 per 1M``.
    """
    names = {1: "each", 60: "per minute", 3600: "per hour", 1000: "per 1k", 1_000_000: "per 1M"}
    return f"{rate.amount:f} {names.get(rate.per, f'per {rate.per}')}"
