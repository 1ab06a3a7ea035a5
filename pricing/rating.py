"""The one rating function: quantity times rate, rounded once. Bills, holds and estimates use it.

Must never price a call partially or fill a missing price in.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from pricing.meters import INPUT_METERS, Meter
from pricing.money import CurrencyMismatch, Money, round_to_pico
from pricing.rates import NO_VARIANTS, CompiledRate, Rate, RateCard, compile_price
from pricing.sku import REPORTED_TIER, STANDARD_TIER, SkuId
from pricing.usage import Quantity
from pricing.worst import Reach as Reach
from pricing.worst import WorstCase, find_worst


class UnpricedSku(LookupError):
    """The book has no price for something that was counted.

    Attributes:
        sku: What was counted.
        tier: Service tier served.
        version: Book version that was asked.
        variant: The make it was sold in; ``None`` where nothing says so.
    """

    def __init__(self, *, sku: SkuId, tier: str, version: str, variant: str | None = None) -> None:
        self.sku = sku
        self.tier = tier
        self.version = version
        self.variant = variant
        make = "" if variant is None else f" in the variant {variant}"
        super().__init__(f"price book {version} has no {tier} price for {sku}{make}")


class Unbounded(LookupError):
    """The most a call can cost cannot be stated; the text says which side has no limit."""


class RatedLine(NamedTuple):
    """One meter of one call, priced.

    A named tuple and not a dataclass: four are made for every call, and a frozen dataclass takes
    0.7 us where this takes 0.2.

    Attributes:
        sku: What was sold.
        meter: What was counted.
        quantity: How much, in whole units of the meter (fractions only for seconds).
        rate: The price applied.
        currency: ISO 4217 code of both costs.
        list_cost_pico: Cost at the published price, in 10^-12 currency units.
        cost_pico: Cost at the price that applies to this caller, likewise.
    """

    sku: SkuId
    meter: Meter
    quantity: Quantity
    rate: CompiledRate
    currency: str
    list_cost_pico: int
    cost_pico: int

    @property
    def list_cost(self) -> Money:
        """Cost at the published price."""
        return Money(self.list_cost_pico, self.currency)

    @property
    def cost(self) -> Money:
        """Cost at the price that applies to this caller."""
        return Money(self.cost_pico, self.currency)


# Past the generated constructor, which takes twice as long.
_new_line: Final = tuple.__new__


def rate_usage(  # noqa: PLR0913 - what a price depends on, each by its name
    counts: Mapping[Meter, Quantity],
    card: RateCard,
    *,
    tier: str = STANDARD_TIER,
    region: str | None = None,
    variants: Mapping[Meter, str] = NO_VARIANTS,
    prompt_tokens: int | None = None,
) -> tuple[RatedLine, ...]:
    """Price counted usage against one rate card.

    Args:
        counts: Disjoint quantities by meter; a zero quantity yields a line of cost zero.
        card: Prices in force at the time of the call.
        tier: Service tier served.
        region: Region class served.
        variants: In which make a meter was sold, such as an image size. A meter without a name here
            has its plain price, as has one whose name the card does not know.
        prompt_tokens: Largest prompt of the calls the counts are the sum of, which decides the
            context band; ``None`` where they are those of one call.

    Returns:
        One line per meter, same order; each cost rounded once at 10^-12, half to even. The sum of
        the lines is the cost of the call.

    Raises:
        UnpricedSku: A meter has no price on the card, or is sold in makes only and the one sold is
            not among them. Nothing is priced partially.
        ValueError: A quantity is negative.

    Source:
        docs/adr/0002-money-scale.md for rounding. Context bands are a cliff on the whole prompt,
        as OpenAI, Anthropic and Google publish them; pages are cited per rate in the catalog.
    """
    skus, currency = card.skus, card.currency
    lines = []
    rated = _rate_each(counts, card, tier, region, variants, prompt_tokens=prompt_tokens)
    for meter, rate, pico in rated:
        quantity = counts[meter]
        listed = pico if rate.listed is None else _pico_of(quantity, rate.listed)
        parts = (skus[meter], meter, quantity, rate, currency, listed, pico)
        lines.append(_new_line(RatedLine, parts))
    return tuple(lines)


def _rate_each(  # noqa: PLR0913 - as above
    counts: Mapping[Meter, Quantity],
    card: RateCard,
    tier: str,
    region: str | None,
    variants: Mapping[Meter, str],
    *,
    prompt_tokens: int | None = None,
) -> list[tuple[Meter, CompiledRate, int]]:
    """Find the rate of every count and what it comes to; every price in the house passes here."""
    input_total: Quantity = 0
    for meter, quantity in counts.items():
        if quantity < 0:
            raise ValueError(f"{meter}: a quantity cannot be negative: {quantity}")
        if meter in INPUT_METERS:
            input_total += quantity
    if prompt_tokens is not None:
        input_total = prompt_tokens
    candidates = card.find_candidates(tier, region, variants)
    rated = []
    for meter, quantity in counts.items():
        for rate in candidates[meter]:
            if input_total > rate.band:
                break
        else:
            raise UnpricedSku(
                sku=card.skus[meter], tier=tier, version=card.version, variant=variants.get(meter)
            )
        each = rate.pico_each
        if each is not None and type(quantity) is int:
            rated.append((meter, rate, quantity * each))  # whole times whole: nothing to round
        else:
            rated.append((meter, rate, _pico_of(quantity, rate)))
    return rated


def _pico_of(quantity: Quantity, rate: CompiledRate) -> int:
    numerator, denominator = quantity.as_integer_ratio()
    return round_to_pico(numerator * rate.pico_numerator, denominator * rate.pico_denominator)


def rate_reported(
    cost: Decimal, provider: str, model: str, at: datetime, currency: str = "USD"
) -> RatedLine:
    """Make the one line of a call whose provider says what it costs.

    Args:
        cost: What the provider says, exactly.
        provider: Catalog provider.
        model: Its model.
        at: When the call began; aware.
        currency: ISO 4217 code of the cost.

    Returns:
        One request at that price, rounded once like every other line.
    """
    text = f"{cost:f}"
    amount = Decimal(text.rstrip("0").rstrip(".") if "." in text else text)
    rate = Rate(
        provider=provider,
        model=model,
        meter=Meter.REQUEST,
        amount=Decimal(0),
        per=1,
        currency=currency,
        valid_from=at,
        valid_to=None,
        tier=REPORTED_TIER,
        source="the provider's own answer",
        checked_at=at.date(),
    )
    # The amount of a published rate has nine decimals at most; what a provider says may have more.
    price = compile_price(rate, amount, 1)
    pico = _pico_of(1, price)
    return RatedLine(rate.sku, Meter.REQUEST, 1, price, currency, pico, pico)


def total_cost(lines: Iterable[RatedLine], currency: str) -> Money:
    """Add lines up.

    Args:
        lines: Rated lines in one currency.
        currency: That currency; the answer for no lines is zero of it.

    Returns:
        The exact sum of the lines' costs.

    Raises:
        CurrencyMismatch: A line is in another currency.
    """
    pico = 0
    for line in lines:
        if line.currency != currency:
            raise CurrencyMismatch(f"cannot add {line.currency} to {currency}")
        pico += line.cost_pico
    return Money(pico, currency)


def total_list_cost(lines: Iterable[RatedLine], currency: str) -> Money:
    """Add lines up at published prices.

    Args:
        lines: Rated lines in one currency.
        currency: That currency; the answer for no lines is zero of it.

    Returns:
        The exact sum of the lines' list costs.

    Raises:
        CurrencyMismatch: A line is in another currency.
    """
    return sum((line.list_cost for line in lines), Money(0, currency))


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """The most a call can come to.

    Attributes:
        counts: Quantities by meter that come to it.
        tier: Service tier they are priced at.
        region: Region class likewise.
        cost_pico: What they cost, in 10^-12 currency units: the sum of ``rate_usage``'s lines, and
            what rounding can add where the price of one unit is finer than that.
        variants: The makes they are priced in: those asked for, else the dearest.
    """

    counts: dict[Meter, Quantity]
    tier: str
    region: str | None
    cost_pico: int
    variants: Mapping[Meter, str] = NO_VARIANTS


def prices_request(card: RateCard) -> bool:
    """Tell whether a call costs something by itself, whatever it counts.

    Args:
        card: Prices of a model.

    Returns:
        Whether a request has a plain price at the standard tier.
    """
    return bool(card.find_candidates(STANDARD_TIER, None)[Meter.REQUEST])


def prices_time(card: RateCard) -> bool:
    """Tell whether the time of a call has a price.

    Args:
        card: Prices of a model.

    Returns:
        Whether GPU seconds have one at the standard tier: deployments priced by time have no other.
    """
    return bool(card.find_candidates(STANDARD_TIER, None)[Meter.GPU_SECOND])


def find_ceiling(reach: Reach, card: RateCard) -> Ceiling:
    """Work out the most a call can cost.

    Args:
        reach: What the call can come to. Missing bounds are taken from the card.
        card: Prices in force at the time of the call.

    Returns:
        Counts whose cost no usage within ``reach`` exceeds: the dearest reachable meter of each
        direction, in the dearest reachable context band, tier and make, at the prices of the card's
        payer.

    Raises:
        Unbounded: Neither the request nor the card bounds one side, or time has a price and
            nothing bounds it.
        UnpricedSku: A reachable tier has no price for a fee, or for plain input or output where the
            call counts such tokens.
    """
    if Meter.GPU_SECOND not in reach.fees and prices_time(card):
        raise Unbounded("nothing bounds the time of this call, and time is what it costs")
    tokens_in = _bound("input", reach.input_tokens_max, card.context_tokens_max)
    tokens_out = _bound("output", reach.output_tokens_max, card.output_tokens_max)
    cases = find_worst(card, reach, tokens_in)
    best = _ceiling_in(cases[0], reach, card, (tokens_in, tokens_out))
    for case in cases[1:]:
        other = _ceiling_in(case, reach, card, (tokens_in, tokens_out))
        if other.cost_pico > best.cost_pico:
            best = other
    return best


def _ceiling_in(
    case: WorstCase, reach: Reach, card: RateCard, tokens_max: tuple[int, int]
) -> Ceiling:
    """What a call comes to in one tier and band, at its dearest meters and makes."""
    tokens_in, tokens_out = tokens_max
    counts: dict[Meter, Quantity] = {**reach.fees} if reach.fees else {}
    top = case.input_tokens_top
    # What is charged by the piece alone has no price per token, and needs none.
    if case.input_meter is not None and (tokens_in or not counts):
        counts[case.input_meter] = tokens_in if top is None else top
    if case.output_meter is not None and (tokens_out or not counts):
        counts[case.output_meter] = tokens_out
    cost_pico = 0
    for _, rate, pico in _rate_each(counts, card, case.tier, reach.region, case.variants):
        cost_pico += pico
        if rate.pico_each is None:
            # A bill can split this line over every meter, and each part can be rounded up by half
            # of 10^-12 where this one was rounded down by as much.
            cost_pico += len(reach.meters) + 1
    variants = case.variants
    if variants:
        variants = {meter: name for meter, name in variants.items() if meter in counts}
    return Ceiling(
        counts=counts,
        tier=case.tier,
        region=reach.region,
        cost_pico=cost_pico,
        variants=variants,
    )


def rate_ceiling(reach: Reach, card: RateCard) -> tuple[RatedLine, ...]:
    """Work out the most a call can cost, line by line.

    Args:
        reach: As for ``find_ceiling``.
        card: Prices in force at the time of the call.

    Returns:
        The rated lines of the ceiling.

    Raises:
        Unbounded: As ``find_ceiling``.
        UnpricedSku: As ``find_ceiling``.
    """
    ceiling = find_ceiling(reach, card)
    return rate_usage(
        ceiling.counts,
        card,
        tier=ceiling.tier,
        region=ceiling.region,
        variants=ceiling.variants,
    )


def _bound(side: str, asked: int | None, published: int | None) -> int:
    if asked is not None:
        return asked
    if published is not None:
        return published
    raise Unbounded(f"nothing bounds the {side} tokens of this call")
