"""Dated rates and the rate card: every price of one model that holds at one instant.

Must never hold a price finer than nine decimals: that is float noise, not a price.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pricing.hours import Hours
from pricing.meters import PRICED_AS, Meter
from pricing.money import PICO_PER_UNIT
from pricing.sku import STANDARD_TIER, PriceId, SkuId, price_id, sku_id

if TYPE_CHECKING:
    from pricing.worst import WorstCase, WorstKey

AMOUNT_DECIMALS_MAX = 9
# Far above any price of anything counted here, so that a slip of units is refused, not billed.
AMOUNT_MAX: Final = 10**9
BASE_BAND = -1
# What a call was sold in where nothing says so.
NO_VARIANTS: Final[Mapping[Meter, str]] = MappingProxyType({})


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
        variant: The make it is the price of, where the make changes the price without changing the
            meter: ``1024x1024/hd``, ``720p``, ``low``; ``None`` for the plain price.
        hours: Window in which it holds, and goes before the price without one; ``None`` for always.
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
    variant: str | None = None
    hours: Hours | None = None
    source: str
    checked_at: date

    def __post_init__(self) -> None:
        """Refuse what cannot be a price.

        Raises:
            RateRefused: Negative, huge or too fine an amount, ``per`` below one, ``over`` below
                zero, a name that is empty, a naive instant, or a span that ends before it starts.
                The message names the price.
        """
        exponent = self.amount.as_tuple().exponent
        if not isinstance(exponent, int) or -exponent > AMOUNT_DECIMALS_MAX:
            raise RateRefused(f"{self.price_id}: {self.amount} has more than nine decimals")
        if self.amount < 0:
            raise RateRefused(f"{self.price_id}: {self.amount} is negative")
        if self.amount > AMOUNT_MAX:
            raise RateRefused(f"{self.price_id}: {self.amount} is above 10^9: no price is")
        if self.per < 1:
            raise RateRefused(f"{self.price_id}: per {self.per} is below one")
        if self.over is not None and self.over < 0:
            raise RateRefused(f"{self.price_id}: over {self.over} is below zero")
        if "" in (self.model, self.tier, self.region, self.variant):
            raise RateRefused(f"{self.price_id}: a model, tier, region or variant has a name")
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
        hours = None if self.hours is None else self.hours.name
        return price_id(
            self.sku, tier=self.tier, over=self.over, further=(self.region, self.variant, hours)
        )

    def holds_at(self, at: datetime) -> bool:
        """Tell whether the price holds at an instant (half-open span), its hours aside.

        Args:
            at: Aware instant.

        Returns:
            ``valid_from <= at < valid_to``.
        """
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRate:
    """A price with everything the path needs already worked out.

    Attributes:
        rate: The dated rate, as published.
        band: Holds when the whole prompt has more tokens than this; -1 for the base band.
        price_id: Name of the price.
        per: The quantity the amount is for.
        amount_text: The amount as decimal text without an exponent.
        pico_numerator: Numerator of the price of one unit in 10^-12 currency units.
        pico_denominator: Denominator of the same.
        pico_each: The same as a whole number; ``None`` where the price of one unit is not whole.
        listed: The published price, where this one was negotiated; ``None`` where they are one.
        agreement: Id of the override that made this price; ``None`` where there is none.
    """

    rate: Rate
    band: int
    price_id: PriceId
    per: int
    amount_text: str
    pico_numerator: int
    pico_denominator: int
    pico_each: int | None
    listed: "CompiledRate | None" = None
    agreement: str | None = None

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
    return compile_price(rate, rate.amount, rate.per)


def compile_price(
    rate: Rate,
    amount: Decimal,
    per: int,
    *,
    listed: CompiledRate | None = None,
    agreement: str | None = None,
) -> CompiledRate:
    """Work out the integer price of one unit of what a rate is for.

    Args:
        rate: The rate.
        amount: What is paid for ``per`` quantity: the rate's own amount, or a negotiated one.
        per: The quantity the amount is for.
        listed: The published price, where another one was negotiated.
        agreement: Id of the override that says so.

    Returns:
        The price with an exact ratio of 10^-12 units.
    """
    numerator, denominator = amount.as_integer_ratio()
    pico_numerator, pico_denominator = numerator * PICO_PER_UNIT, denominator * per
    whole, rest = divmod(pico_numerator, pico_denominator)
    return CompiledRate(
        rate=rate,
        band=BASE_BAND if rate.over is None else rate.over,
        price_id=rate.price_id,
        per=per,
        amount_text=f"{amount:f}",
        pico_numerator=pico_numerator,
        pico_denominator=pico_denominator,
        pico_each=None if rest else whole,
        listed=listed,
        agreement=agreement,
    )


CardKey = tuple[str, str | None, Meter]
VariantKey = tuple[str, str | None, Meter, str]
Prices = tuple[CompiledRate, ...]
Candidates = Mapping[Meter, Prices]
_Place = tuple[str, str | None]

_NO_CANDIDATES: Final[Candidates] = MappingProxyType({meter: () for meter in Meter})


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


def meters_behind(meter: Meter) -> Iterator[Meter]:
    """List the meters whose prices a meter can take.

    Args:
        meter: What was counted.

    Yields:
        The meter, then those it is priced as, the nearest first.
    """
    wanted: Meter | None = meter
    while wanted is not None:
        yield wanted
        wanted = PRICED_AS.get(wanted)


def _with_bands_behind(own: Prices, behind: Prices) -> Prices:
    """Prices of a region with the context bands that only the prices without region have.

    A region that states its base price alone would bill a long prompt at the price of a short one.
    Guarded by ``test_a_region_keeps_the_context_bands_it_does_not_price``.
    """
    bands = {compiled.band for compiled in own}
    missing = (compiled for compiled in behind if compiled.band not in bands)
    return tuple(sorted((*own, *missing), key=lambda compiled: compiled.band, reverse=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCard:
    """Every price of one model and one payer that holds at an instant.

    Attributes:
        provider: Catalog provider.
        model: Catalog model.
        version: Book version the prices were taken from.
        currency: ISO 4217 code of every price on the card.
        valid_from: First instant the card can hold.
        valid_to: First instant it no longer can; ``None`` while no change is known. Between the two
            a model with time-of-day prices has one card for every set of open windows.
        context_tokens_max: Most tokens a prompt can have; ``None`` when not published.
        output_tokens_max: Most tokens an answer can have; ``None`` when not published.
        rates: Plain prices by (tier, region, meter), the highest context band first.
        skus: The SKU id of every meter.
        variants: Prices of one make only by (tier, region, meter, variant), likewise.
        agreements: Ids of the overrides on it; empty where every price is the published one.
        worst: What ``find_worst`` found before, because every call asks and cards live for months.
            Names the card does not know never become keys, so a caller cannot make it grow.
    """

    provider: str
    model: str
    version: str
    currency: str
    valid_from: datetime
    valid_to: datetime | None
    context_tokens_max: int | None
    output_tokens_max: int | None
    rates: Mapping[CardKey, Prices]
    skus: Mapping[Meter, SkuId]
    variants: Mapping[VariantKey, Prices] = field(default_factory=dict)
    agreements: tuple[str, ...] = ()
    worst: "dict[WorstKey, tuple[WorstCase, ...]]" = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    # Answers worked out once per card, likewise.
    _candidates: dict[tuple[str, str | None], Candidates] = field(
        init=False, repr=False, compare=False
    )
    _named: dict[tuple[str, str | None], dict[tuple[Meter, str], Prices]] = field(
        init=False, repr=False, compare=False
    )
    _edges: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _regions: frozenset[str | None] = field(init=False, repr=False, compare=False)
    _tiers: frozenset[str] = field(init=False, repr=False, compare=False)
    _makes: Mapping[Meter, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out the price of every meter in every tier and region the card names."""
        places: list[_Place] = [(tier, region) for tier, region, _ in self.rates]
        places += [(tier, region) for tier, region, _, _ in self.variants]
        tiers = frozenset(tier for tier, _ in places)
        regions = frozenset(region for _, region in places) | {None}
        prices = [*self.rates.values(), *self.variants.values()]
        edges = {compiled.band for bands in prices for compiled in bands} - {BASE_BAND}
        makes = self._find_makes()
        keys = [(tier, region) for tier in tiers for region in regions]
        candidates = {
            key: {meter: tuple(self._chain(meter, key, None)) for meter in Meter} for key in keys
        }
        named = {
            key: {
                (meter, variant): tuple(self._chain(meter, key, variant))
                for meter, variants in makes.items()
                for variant in variants
            }
            for key in (keys if makes else ())
        }
        object.__setattr__(self, "_candidates", candidates)
        object.__setattr__(self, "_named", named)
        object.__setattr__(self, "_edges", tuple(sorted(edges)))
        object.__setattr__(self, "_regions", regions)
        object.__setattr__(self, "_tiers", tiers)
        object.__setattr__(self, "_makes", makes)

    def _find_makes(self) -> dict[Meter, tuple[str, ...]]:
        """Every variant that can change the price of a meter, its own or of one behind it."""
        sold: dict[Meter, set[str]] = {}
        for _, _, meter, variant in self.variants:
            sold.setdefault(meter, set()).add(variant)
        if not sold:
            return {}
        found = {
            meter: set().union(*(sold.get(behind, ()) for behind in meters_behind(meter)))
            for meter in Meter
        }
        return {meter: tuple(sorted(names)) for meter, names in found.items() if names}

    def _chain(self, meter: Meter, key: _Place, variant: str | None) -> Iterator[CompiledRate]:
        tier, region = key
        for wanted in meters_behind(meter):
            if variant is not None:
                yield from _with_bands_behind(
                    self.variants.get((tier, region, wanted, variant), ()),
                    self.variants.get((tier, None, wanted, variant), ()),
                )
            bands = _with_bands_behind(
                self.rates.get((tier, region, wanted), ()), self.rates.get((tier, None, wanted), ())
            )
            yield from bands
            if not bands and self._is_sold_in_makes(tier, region, wanted):
                return  # it has prices, so the price of another meter would be a guess

    def _is_sold_in_makes(self, tier: str, region: str | None, meter: Meter) -> bool:
        return any(
            key[0] == tier and key[1] in (region, None) and key[2] is meter for key in self.variants
        )

    @property
    def tiers(self) -> frozenset[str]:
        """Service tiers with at least one price."""
        return self._tiers

    @property
    def regions(self) -> frozenset[str | None]:
        """Region classes with at least one price, and ``None``."""
        return self._regions

    @property
    def edges(self) -> tuple[int, ...]:
        """Lengths of a prompt above which another price begins, the shortest first."""
        return self._edges

    @property
    def makes(self) -> Mapping[Meter, tuple[str, ...]]:
        """Variants that change the price of a meter; meters without any are left out."""
        return self._makes

    def sells(self, meter: Meter) -> bool:
        """Tell whether a meter has a price at the standard tier, its own or another's.

        Args:
            meter: What is counted.

        Returns:
            True too where it is sold in makes only.
        """
        return meter in self.makes or bool(self.find_candidates(STANDARD_TIER, None)[meter])

    def all_prices(self) -> Iterator[CompiledRate]:
        """List every price on the card.

        Yields:
            Plain prices, then those of variants.
        """
        for bands in (*self.rates.values(), *self.variants.values()):
            yield from bands

    def find_candidates(
        self, tier: str, region: str | None, variants: Mapping[Meter, str] = NO_VARIANTS
    ) -> Candidates:
        """Find every price a meter can have in a service tier and region, whatever the prompt.

        Args:
            tier: Service tier served.
            region: Region class served; falls back to the prices without a region.
            variants: In which make a meter was sold; one the card does not know has the plain
                prices.

        Returns:
            For every meter its prices, the one to take first: the highest context band of its own
            make, down to the lowest, then the plain ones, then those of the meters it is priced as.
            Empty where it has none, and where it is sold in makes only and none of them is named.
        """
        found = self._candidates.get((tier, region))
        if found is None:
            region = None
            found = self._candidates.get((tier, None), _NO_CANDIDATES)
        if variants and self._makes:
            named = self._named.get((tier, region), {})
            own = {key[0]: named[key] for key in variants.items() if key in named}
            return {**found, **own}
        return found

    def find_rate(
        self,
        meter: Meter,
        *,
        tier: str,
        region: str | None,
        input_total: int,
        variant: str | None = None,
    ) -> CompiledRate | None:
        """Find the price of a meter in a call.

        Args:
            meter: What was counted.
            tier: Service tier served.
            region: Region class served; falls back to the price without a region.
            input_total: Tokens of the whole prompt, which choose the context band.
            variant: In which make it was sold; ``None`` when nothing says so.

        Returns:
            The price, looked up under the meters it is priced as where it has none of its own,
            or ``None`` when the book does not price it.
        """
        variants = NO_VARIANTS if variant is None else {meter: variant}
        return first_in_band(self.find_candidates(tier, region, variants)[meter], input_total)
