"""Where a call can be at its dearest: the tier, the context band and the meters of a ceiling.

Must never leave out a case that some usage could make the dearest one.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.rates import (
    BASE_BAND,
    NO_VARIANTS,
    Candidates,
    CompiledRate,
    RateCard,
    first_in_band,
)
from pricing.sku import STANDARD_TIER
from pricing.usage import Quantity

_STANDARD: Final = frozenset({STANDARD_TIER})
WorstKey = tuple[
    frozenset[Meter],
    frozenset[str],
    str | None,
    int,
    tuple[tuple[Meter, str | None], ...],
    tuple[bool, bool],
]

_FEE_METERS: Final = tuple(m for m in Meter if m not in INPUT_METERS and m not in OUTPUT_METERS)


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What a call can come to, as far as its request tells.

    Attributes:
        input_tokens_max: Most input tokens; ``None`` when the request does not bound them.
        output_tokens_max: Most output tokens over all choices; ``None`` when nothing bounds them.
        meters: Token meters the call can touch.
        fees: Largest quantity of each meter that is not tokens, such as searches.
        tiers: Service tiers the provider may serve it at; empty for the standard one.
        region: Region class.
        variants: In which make a meter is sold, as far as the request says; one that is not named
            can be sold in any.
    """

    input_tokens_max: int | None
    output_tokens_max: int | None
    meters: frozenset[Meter]
    fees: Mapping[Meter, Quantity]
    tiers: frozenset[str]
    region: str | None = None
    variants: Mapping[Meter, str] = NO_VARIANTS


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """A service tier and a context band in which a call can be at its dearest.

    Attributes:
        tier: Service tier.
        input_tokens_top: Largest prompt of the band; ``None`` in the band of the largest prompt.
        input_meter: The reachable input meter with the highest price there; ``None`` for a call
            without input tokens.
        output_meter: The reachable output meter with the highest price there, likewise.
        variants: The dearest make of every meter that is sold in several, or the one asked for.
    """

    tier: str
    input_tokens_top: int | None
    input_meter: Meter | None
    output_meter: Meter | None
    variants: Mapping[Meter, str] = field(default_factory=dict)


def find_worst(card: RateCard, reach: Reach, input_tokens_max: int) -> tuple[WorstCase, ...]:
    """Find where a call can be at its dearest.

    Args:
        card: Prices in force.
        reach: What the call can come to.
        input_tokens_max: Most tokens of the prompt, by the request or by the model.

    Returns:
        Cases of which one is the dearest, whatever the quantities. A case that another one
        exceeds in every price is left out, so mostly there is one. A case without a price for
        plain input or output stands alone, because nothing bounds it.
    """
    tiers, region, variants = reach.tiers or _STANDARD, reach.region, reach.variants
    reached = bisect_left(card.edges, input_tokens_max)
    if region not in card.regions:
        region = None
    # A make the card does not know has the plain prices, whatever its name.
    named = (
        tuple(
            sorted(
                (meter, name if name in card.makes[meter] else None)
                for meter, name in variants.items()
                if meter in card.makes
            )
        )
        if variants and card.makes
        else ()
    )
    # A call without tokens, such as a search, needs no price for them.
    counts = (input_tokens_max > 0, reach.output_tokens_max != 0)
    key = (reach.meters, tiers, region, reached, named, counts)
    found = card.worst.get(key)
    if found is not None:
        return found
    search = _Search(card, reach.meters, region, card.edges[:reached], dict(named), counts)
    found = _undominated(option for tier in sorted(tiers) for option in search.options(tier))
    if tiers <= card.tiers:
        card.worst[key] = found
    return found


_Best = tuple[Meter, str | None, CompiledRate | None]
_NOT_COUNTED: Final = (None, None, None)


@dataclass(frozen=True, slots=True)
class _Search:
    """One question for the worst case."""

    card: RateCard
    meters: frozenset[Meter]
    region: str | None
    edges: tuple[int, ...]
    named: Mapping[Meter, str | None]
    counts: tuple[bool, bool]

    def options(self, tier: str) -> "Iterator[_Option]":
        """One option for every band up to the one of the largest prompt."""
        for above, top in zip((BASE_BAND, *self.edges), (*self.edges, None), strict=True):
            shortest = above + 1
            found = [
                self._dearest(tier, self.meters & meters, plain, shortest)
                if is_counted
                else _NOT_COUNTED
                for is_counted, meters, plain in (
                    (self.counts[0], INPUT_METERS, Meter.INPUT),
                    (self.counts[1], OUTPUT_METERS, Meter.OUTPUT),
                )
            ]
            fees = [self._dearest(tier, frozenset({fee}), fee, shortest) for fee in _FEE_METERS]
            yield _Option(
                case=WorstCase(
                    tier=tier,
                    input_tokens_top=top,
                    input_meter=found[0][0],
                    output_meter=found[1][0],
                    variants={meter: name for meter, name, _ in (*found, *fees) if meter and name},
                ),
                sides=tuple(rate for meter, _, rate in found if meter),
                fees=tuple(rate for _, _, rate in fees),
            )

    def _dearest(
        self, tier: str, meters: frozenset[Meter], plain: Meter, input_total: int
    ) -> _Best:
        """The reachable meter and make with the highest unit price.

        A meter without a price cannot be reached at a price, except the plain one of its direction,
        which must have it.
        """
        best: _Best = (plain, None, None)
        for meter in sorted(meters):
            for name, candidates in self._makes(tier, meter):
                rate = first_in_band(candidates[meter], input_total)
                if rate is not None and (best[2] is None or best[2].is_below(rate)):
                    best = (meter, name, rate)
        if best[2] is None:
            for name, candidates in self._makes(tier, plain):
                rate = first_in_band(candidates[plain], input_total)
                if rate is not None and (best[2] is None or best[2].is_below(rate)):
                    best = (plain, name, rate)
        return best

    def _makes(self, tier: str, meter: Meter) -> Iterator[tuple[str | None, Candidates]]:
        """Every make the meter can be sold in, with the prices there."""
        if meter in self.named:
            names: Iterable[str | None] = (self.named[meter],)
        else:
            names = (None, *self.card.makes.get(meter, ()))
        for name in names:
            variants = NO_VARIANTS if name is None else {meter: name}
            yield name, self.card.find_candidates(tier, self.region, variants)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Option:
    """A case with its prices.

    Attributes:
        case: The case.
        sides: Price of the dearest input and of the dearest output meter, where one is counted.
        fees: Price of every meter that is not tokens.
    """

    case: WorstCase
    sides: tuple[CompiledRate | None, ...]
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


def _undominated(options: Iterable[_Option]) -> tuple[WorstCase, ...]:
    kept: list[_Option] = []
    for option in options:
        if None in option.sides:
            return (option.case,)
        if not any(other.dominates(option) for other in kept):
            kept = [other for other in kept if not option.dominates(other)] + [option]
    return tuple(option.case for option in kept)
