"""The catalog and the rating against another price library, usage by usage.

Every model both know must cost the same to the last digit, or stand in the table below with the
reason why ours differs. A reason that no longer holds fails too.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from random import Random

import pytest
from genai_prices import Usage, calc_price
from genai_prices.types import ModelInfo, Provider

from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.rating import rate_usage, total_cost
from tests.pricing.cards import PUBLISHED

USAGES_PER_MODEL = 300
THEIR_PROVIDER = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}
# Their tiers hold from the days they were read, the last of them on 2026-10-26.
TIERS_FROM = datetime(2026, 11, 10, tzinfo=UTC)
HORIZON = datetime(2027, 6, 1, tzinfo=UTC)
CONTEXT = {
    "standard": {},
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"speed": "fast"},
}
METERS = (
    Meter.INPUT,
    Meter.CACHE_READ,
    Meter.CACHE_WRITE,
    Meter.CACHE_WRITE_1H,
    Meter.OUTPUT,
    Meter.REASONING,
)

# Models whose cost differs somewhere, and why ours is what it is: docs/pricing-sources.md.
EXPLAINED = {
    "anthropic/claude-sonnet-4-0": "theirs misses the long-context beta",
    "anthropic/claude-sonnet-5-5": "theirs misses the cache price before 2026-10-07",
    "gemini/gemini-3.6-flash": "theirs misses the launch price before 2026-08-13",
    "openai/gpt-4o-mini-search-preview": "theirs is the card of gpt-4o-mini, with a cache discount",
    "openai/gpt-5.5-pro": "theirs misses the long-context price of flex and batch",
    "openai/gpt-5.6-cyber": "theirs misses the long-context price",
    "openai/o3": "theirs has the later cache price before 2025-06-10",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One model as both libraries have it."""

    provider: str
    model: str
    theirs: ModelInfo
    their_provider: Provider
    starts: datetime
    tiers: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    def their_cost(self, counts, at, tier) -> Decimal:
        """The same usage in their words: totals that include their parts."""
        long_writes = counts.get(Meter.CACHE_WRITE_1H, 0)
        usage = Usage(
            input_tokens=sum(n for m, n in counts.items() if m in INPUT_METERS),
            cache_read_tokens=counts.get(Meter.CACHE_READ, 0),
            cache_write_tokens=counts.get(Meter.CACHE_WRITE, 0) + long_writes,
            cache_write_1h_tokens=long_writes,
            output_tokens=sum(n for m, n in counts.items() if m in OUTPUT_METERS),
        )
        priced = self.theirs.calc_price(
            usage, self.their_provider, genai_request_timestamp=at, price_context=CONTEXT[tier]
        )
        return priced.total_price

    def draw(self, random):
        """A usage, an instant and a tier that both price."""
        tier = random.choice(self.tiers)
        earliest = self.starts if tier == "standard" else TIERS_FROM
        at = earliest + random.random() * (HORIZON - earliest)
        card = PUBLISHED.find_card(self.provider, self.model, at)
        candidates = card.find_candidates(tier, None)
        priced = [meter for meter in METERS if candidates[meter]]
        largest = random.choice([100, 100_000, 300_000])
        chosen = random.sample(priced, random.randint(0, len(priced)))
        return card, {meter: random.randint(0, largest) for meter in chosen}, at, tier


def _pairs():
    """Every model both know, in the tiers both have prices of their own for."""
    starts = {}
    for rate in PUBLISHED.rates:
        key = (rate.provider, rate.model)
        starts[key] = min(rate.valid_from, starts.get(key, rate.valid_from))
    for entry in PUBLISHED.models:
        if entry.provider not in THEIR_PROVIDER:
            continue
        try:
            found = calc_price(Usage(), entry.model, provider_id=THEIR_PROVIDER[entry.provider])
        except LookupError:
            continue
        variants = [variant.when.items() for variant in found.model.price_variants or ()]
        card = PUBLISHED.find_card(entry.provider, entry.model, TIERS_FROM)
        yield Pair(
            provider=entry.provider,
            model=entry.model,
            theirs=found.model,
            their_provider=found.provider,
            starts=starts[entry.provider, entry.model],
            tiers=tuple(
                tier
                for tier in sorted(card.tiers & CONTEXT.keys())
                if tier == "standard" or any(when >= CONTEXT[tier].items() for when in variants)
            ),
        )


COMMON = list(_pairs())


@pytest.mark.parametrize("pair", COMMON, ids=lambda pair: pair.name)
def test_another_library_finds_the_same_cost(pair):
    """Hundreds of random usages at random instants, in every tier both know."""
    random = Random(pair.name)
    different = []
    for _ in range(USAGES_PER_MODEL):
        card, counts, at, tier = pair.draw(random)
        ours = total_cost(rate_usage(counts, card, tier=tier), "USD")
        theirs = pair.their_cost(counts, at, tier)
        if Decimal(str(ours)) != theirs:
            different.append((at.isoformat(), tier, counts, str(ours), str(theirs)))

    assert (pair.name in EXPLAINED) == bool(different), different[:3]


def test_the_comparison_covers_most_of_the_catalog():
    """A renamed provider or model would empty the comparison without a failure."""
    assert 90 <= len(COMMON)
    assert EXPLAINED.keys() <= {pair.name for pair in COMMON}
    assert set(CONTEXT) == {tier for pair in COMMON for tier in pair.tiers}
