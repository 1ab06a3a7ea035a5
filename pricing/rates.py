"""Dated rates and the rate card: every price of one model that holds at one instant.

Must never hold a price finer than nine decimals: that is float noise, not a price.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from pricing.meters import INPUT_METERS, OUTPUT_METERS, PRICED_AS, Meter
from pricing.money import PICO_PER_UNIT
from pricing.sku import STANDARD_TIER, PriceId, SkuId, price_id, sku_id

AMOUNT_DECIMALS_MAX = 9
BASE_BAND = -1


class RateRefused(ValueError):
    """A rate that cannot be a price: wrong sign, too fine, no zone, an empty span of time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One dated price.

    Attributes:
        provider: Catalog provider.
        model: Catalog model.
        meter: What is counted.
        amount: Currency units for ``per`` quantity, exactly as published.
        per: The quantity the amount is for, such as 1,000,000 tokens.
        currency: ISO 4217 code.
        valid_from: First instant the price holds; aware.
        valid_to: First instant it no longer holds; ``None`` while it has no end.
        tier: Service tier served.
        over: Holds when the whole prompt has more tokens than this; ``None`` for the base band.
        region: Region class; ``None`` where the region does not change the price.
        source: Page the price was read from.
        checked_at: Day somebody last looked at that page.
    """

    provider: str
    model: str
    meter: Meter
    amount: Decimal
    per: int
    currency: str
    valid_from: datetime
    valid_to: datetime | None
    tier: str = STANDARD_TIER
    over: int | None = None
    region: str | None = None
    source: str
    checked_at: date

    def __post_init__(self) -> None:
        """Refuse what cannot be a price.

        Raises:
            RateRefused: Negative or too fine an amount, ``per`` below one, ``over`` below zero, a
                naive instant, or a span that ends before it starts. The message names the price.
        """
        exponent = self.amount.as_tuple().exponent
        if not isinstance(exponent, int) or -exponent > AMOUNT_DECIMALS_MAX:
            raise RateRefused(f"{self.price_id}: {self.amount} has more than nine decimals")
        if self.amount < 0:
            raise RateRefused(f"{self.price_id}: {self.amount} is negative")
        if self.per < 1:
            raise RateRefused(f"{self.price_id}: per {self.per} is below one")
        if self.over is not None and self.over < 0:
            raise RateRefused(f"{self.price_id}: over {self.over} is below zero")
        if self.valid_from.tzinfo is None or (self.valid_to and self.valid_to.tzinfo is None):
            raise RateRefused(f"{self.price_id}: valid_from and valid_to need a time zone")
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            raise RateRefused(f"{self.price_id}: ends {self.valid_to} before it starts")

    @property
    def sku(self) -> SkuId:
        """The thing this rate prices."""
        return sku_id(self.provider, self.model, self.meter)

    @property
    def price_id(self) -> PriceId:
        """The one price of that thing."""
        return price_id(self.sku, tier=self.tier, over=self.over, region=self.region)

    def holds_at(self, at: datetime) -> bool:
        """Tell whether the price holds at an instant (half-open span).

        Args:
            at: Aware instant.

        Returns:
            ``valid_from <= at < valid_to``.
        """
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRate:
    """A rate with everything the path needs already worked out.

    Attributes:
        rate: The dated rate.
        band: Holds when the whole prompt has more tokens than this; -1 for the base band.
        price_id: Name of the price.
        amount_text: The amount as decimal text without an exponent.
        pico_numerator: Numerator of the price of one unit in 10^-12 currency units.
        pico_denominator: Denominator of the same.
        pico_each: The same as a whole number; ``None`` where the price of one unit is not whole.
    """

    rate: Rate
    band: int
    price_id: PriceId
    amount_text: str
    pico_numerator: int
    pico_denominator: int
    pico_each: int | None

    def is_below(self, other: "CompiledRate") -> bool:
        """Tell whether this price is lower than another, per unit and exactly.

        Args:
            other: A price in the same currency.

        Returns:
            False when they are equal.
        """
        return (
            self.pico_numerator * other.pico_denominator
            < other.pico_numerator * self.pico_denominator
        )


def compile_rate(rate: Rate) -> CompiledRate:
    """Work out the integer price of one unit.

    Args:
        rate: Any valid rate.

    Returns:
        The same rate with an exact ratio of 10^-12 units.
    """
    numerator, denominator = rate.amount.as_integer_ratio()
    pico_numerator, pico_denominator = numerator * PICO_PER_UNIT, denominator * rate.per
    whole, rest = divmod(pico_numerator, pico_denominator)
    return CompiledRate(
        rate=rate,
        band=BASE_BAND if rate.over is None else rate.over,
        price_id=rate.price_id,
        amount_text=f"{rate.amount:f}",
        pico_numerator=pico_numerator,
        pico_denominator=pico_denominator,
        pico_each=None if rest else whole,
    )


CardKey = tuple[str, str | None, Meter]
Candidates = Mapping[Meter, tuple[CompiledRate, ...]]
_WorstKey = tuple[frozenset[Meter], frozenset[str], str | None, int]

_NO_CANDIDATES: Final[Candidates] = MappingProxyType({meter: () for meter in Meter})
_FEE_METERS: Final = tuple(m for m in Meter if m not in INPUT_METERS and m not in OUTPUT_METERS)


def first_in_band(candidates: Iterable[CompiledRate], input_total: int) -> CompiledRate | None:
    """Choose the price a prompt of some length takes.

    Args:
        candidates: Prices, the one to take first where several hold.
        input_total: Tokens of the whole prompt.

    Returns:
        The first price whose context band the prompt is in.
    """
    for compiled in candidates:
        if input_total > compiled.band:
            return compiled
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """A service tier and a context band in which a call can be at its dearest.

    Attributes:
        tier: Service tier.
        input_tokens_top: Largest prompt of the band; ``None`` in the band of the largest prompt.
        input_meter: The reachable input meter with the highest price there.
        output_meter: The reachable output meter with the highest price there.
    """

    tier: str
    input_tokens_top: int | None
    input_meter: Meter
    output_meter: Meter


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCard:
    """Every price of one model that holds from one instant to the next change.

    Attributes:
        provider: Catalog provider.
        model: Catalog model.
        version: Book version the prices were taken from.
        currency: ISO 4217 code of every price on the card.
        valid_from: First instant the card holds.
        valid_to: First instant it no longer holds; ``None`` while no change is known.
        context_tokens_max: Most tokens a prompt can have; ``None`` when not published.
        output_tokens_max: Most tokens an answer can have; ``None`` when not published.
        rates: Prices by (tier, region, meter), the highest context band first.
        skus: The SKU id of every meter.
    """

    provider: str
    model: str
    version: str
    currency: str
    valid_from: datetime
    valid_to: datetime | None
    context_tokens_max: int | None
    output_tokens_max: int | None
    rates: Mapping[CardKey, tuple[CompiledRate, ...]]
    skus: Mapping[Meter, SkuId]
    # Answers worked out once per card, because every call asks and cards live for months. Tiers and
    # regions the card does not name never become keys, so a caller cannot make them grow.
    _candidates: dict[tuple[str, str | None], Candidates] = field(
        init=False, repr=False, compare=False
    )
    _worst: dict[_WorstKey, tuple[WorstCase, ...]] = field(init=False, repr=False, compare=False)
    _edges: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _regions: frozenset[str | None] = field(init=False, repr=False, compare=False)
    _tiers: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out the price of every meter in every tier and region the card names."""
        regions = {region for _, region, _ in self.rates} | {None}
        bands = {compiled.band for prices in self.rates.values() for compiled in prices}
        candidates = {
            (tier, region): {meter: tuple(self._chain(meter, tier, region)) for meter in Meter}
            for tier in {tier for tier, _, _ in self.rates}
            for region in regions
        }
        object.__setattr__(self, "_candidates", candidates)
        object.__setattr__(self, "_worst", {})
        object.__setattr__(self, "_edges", tuple(sorted(bands - {BASE_BAND})))
        object.__setattr__(self, "_regions", frozenset(regions))
        object.__setattr__(self, "_tiers", frozenset(tier for tier, _, _ in self.rates))

    def _chain(self, meter: Meter, tier: str, region: str | None) -> Iterator[CompiledRate]:
        wanted: Meter | None = meter
        while wanted is not None:
            bands = self.rates.get((tier, region, wanted))
            if bands is None:
                bands = self.rates.get((tier, None, wanted), ())
            yield from bands
            wanted = PRICED_AS.get(wanted)

    @property
    def tiers(self) -> frozenset[str]:
        """Service tiers with at least one price."""
        return self._tiers

    def find_candidates(self, tier: str, region: str | None) -> Candidates:
        """Find every price a meter can have in a service tier and region, whatever the prompt.

        Args:
            tier: Service tier served.
            region: Region class served; falls back to the prices without a region.

        Returns:
            For every meter its prices, the one to take first: the highest context band of its own,
            down to the lowest, then those of the meters it is priced as. Empty where it has none.
        """
        found = self._candidates.get((tier, region))
        if found is None:
            found = self._candidates.get((tier, None), _NO_CANDIDATES)
        return found

    def find_rate(
        self, meter: Meter, *, tier: str, region: str | None, input_total: int
    ) -> CompiledRate | None:
        """Find the price of a meter in a call.

        Args:
            meter: What was counted.
            tier: Service tier served.
            region: Region class served; falls back to the price without a region.
            input_total: Tokens of the whole prompt, which choose the context band.

        Returns:
            The price, looked up under the meters it is priced as where it has none of its own,
            or ``None`` when the book does not price it.
        """
        return first_in_band(self.find_candidates(tier, region)[meter], input_total)

    def find_worst(
        self,
        meters: frozenset[Meter],
        *,
        tiers: frozenset[str],
        region: str | None,
        input_tokens_max: int,
    ) -> tuple[WorstCase, ...]:
        """Find where a call can be at its dearest.

        Args:
            meters: Token meters the call can touch.
            tiers: Service tiers the provider may serve it at.
            region: Region class.
            input_tokens_max: Most tokens of the prompt.

        Returns:
            Cases of which one is the dearest, whatever the quantities. A case that another one
            exceeds in every price is left out, so mostly there is one. A case without a price for
            plain input or output stands alone, because nothing bounds it.
        """
        reached = bisect_left(self._edges, input_tokens_max)
        if region is not None and region not in self._regions:
            region = None
        key = (meters, tiers, region, reached)
        found = self._worst.get(key)
        if found is not None:
            return found
        found = _undominated(self._options(meters, tiers, region, self._edges[:reached]))
        if all((tier, region) in self._candidates for tier in tiers):
            self._worst[key] = found
        return found

    def _options(
        self,
        meters: frozenset[Meter],
        tiers: frozenset[str],
        region: str | None,
        edges: tuple[int, ...],
    ) -> "Iterator[_Option]":
        """One option for every tier and every band up to the one of the largest prompt."""
        for tier in sorted(tiers):
            candidates = self.find_candidates(tier, region)
            for above, top in zip((BASE_BAND, *edges), (*edges, None), strict=True):
                shortest = above + 1
                input_meter, input_rate = _dearest(
                    candidates, meters & INPUT_METERS, Meter.INPUT, shortest
                )
                output_meter, output_rate = _dearest(
                    candidates, meters & OUTPUT_METERS, Meter.OUTPUT, shortest
                )
                yield _Option(
                    case=WorstCase(
                        tier=tier,
                        input_tokens_top=top,
                        input_meter=input_meter,
                        output_meter=output_meter,
                    ),
                    sides=(input_rate, output_rate),
                    fees=tuple(first_in_band(candidates[fee], shortest) for fee in _FEE_METERS),
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Option:
    """A case with its prices.

    Attributes:
        case: The case.
        sides: Price of the dearest input and of the dearest output meter.
        fees: Price of every meter that is not tokens.
    """

    case: WorstCase
    sides: tuple[CompiledRate | None, CompiledRate | None]
    fees: tuple[CompiledRate | None, ...]

    def dominates(self, other: "_Option") -> bool:
        """Tell whether no quantities make the other one dearer than this one.

        Where this one has no price, rating it refuses the call, and no bill exceeds that.
        """
        mine, its = self.case.input_tokens_top, other.case.input_tokens_top
        if mine is not None and (its is None or mine < its):
            return False
        pairs = zip((*self.sides, *self.fees), (*other.sides, *other.fees), strict=True)
        return all(a is None or (b is not None and not a.is_below(b)) for a, b in pairs)


def _dearest(
    candidates: Candidates, meters: frozenset[Meter], plain: Meter, input_total: int
) -> tuple[Meter, CompiledRate | None]:
    """The reachable meter of one direction with the highest unit price.

    A meter without a price cannot be reached at a price, except the plain one, which must have it.
    """
    best, best_rate = plain, None
    for meter in sorted(meters):
        rate = first_in_band(candidates[meter], input_total)
        if rate is not None and (best_rate is None or best_rate.is_below(rate)):
            best, best_rate = meter, rate
    return best, best_rate or first_in_band(candidates[plain], input_total)


def _undominated(options: Iterable[_Option]) -> tuple[WorstCase, ...]:
    kept: list[_Option] = []
    for option in options:
        if None in option.sides:
            return (option.case,)
        if not any(other.dominates(option) for other in kept):
            kept = [other for other in kept if not option.dominates(other)] + [option]
    return tuple(option.case for option in kept)
