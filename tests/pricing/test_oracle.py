"""The catalog and the rating against another price library, usage by usage.

Every model both know must cost the same to the last digit, or stand in the table below with the
reason why ours differs. A reason that no longer holds fails too.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from random import Random

import pytest
from genai_prices import Usage
from genai_prices.data import providers
from genai_prices.types import ModelInfo, Provider

from pricing.importers.places import GENAI_PROVIDERS
from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.rating import rate_usage, total_cost
from tests.pricing.cards import PUBLISHED

USAGES_PER_MODEL = 200
HALF_A_PICO = Decimal("0.5e-12")
MODELS_PER_TEST = 30
# Their tiers hold from the days they were read, the last of them on 2026-10-26; ours that were
# checked by hand start with the model.
TIERS_FROM = datetime(2026, 11, 10, tzinfo=UTC)
HORIZON = datetime(2027, 6, 1, tzinfo=UTC)
CONTEXT = {
    "standard": {},
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"speed": "fast"},
}
# Their name of what a meter counts, as a total that includes its parts.
TOTALS = {
    "input_tokens": INPUT_METERS,
    "output_tokens": OUTPUT_METERS,
    "cache_read_tokens": {m for m in Meter if m.startswith("cache_read")},
    "cache_write_tokens": {Meter.CACHE_WRITE, Meter.CACHE_WRITE_1H},
    "cache_write_1h_tokens": {Meter.CACHE_WRITE_1H},
    "input_audio_tokens": {Meter.INPUT_AUDIO, Meter.CACHE_READ_AUDIO},
    "input_image_tokens": {Meter.INPUT_IMAGE, Meter.CACHE_READ_IMAGE},
    "input_video_tokens": {Meter.INPUT_VIDEO, Meter.CACHE_READ_VIDEO},
    "cache_audio_read_tokens": {Meter.CACHE_READ_AUDIO},
    "cache_image_read_tokens": {Meter.CACHE_READ_IMAGE},
    "cache_video_read_tokens": {Meter.CACHE_READ_VIDEO},
    "output_audio_tokens": {Meter.OUTPUT_AUDIO},
    "output_image_tokens": {Meter.OUTPUT_IMAGE},
    "output_video_tokens": {Meter.OUTPUT_VIDEO},
    "output_reasoning_tokens": {Meter.REASONING},
    "web_searches": {Meter.WEB_SEARCH},
    "audio_seconds": {Meter.AUDIO_SECOND},
    "input_audio_seconds": {Meter.AUDIO_SECOND},
    "input_characters": {Meter.CHARACTER},
    "input_document_pages": {Meter.PAGE},
}
METERS = set().union(*TOTALS.values()) - {Meter.CACHE_WRITE_12H, Meter.GPU_SECOND}
# They bill at least this much audio of some models, which is the provider's rounding, not a price.
AUDIO_SECONDS_MIN = 10

# A usage they have no price for costs nothing with them, so it is drawn only where they have one.
FEES = {
    Meter.WEB_SEARCH: "web_searches_kcount",
    Meter.AUDIO_SECOND: "audio_hours",
    Meter.CHARACTER: "input_mchars",
    Meter.PAGE: "input_document_kpages",
}

# Models whose cost differs somewhere, and why ours is what it is: docs/pricing-sources.md. A star
# stands for the models of one provider that differ for the same reason.
EXPLAINED = {
    "anthropic/claude-sonnet-4-0": "theirs misses the long-context beta",
    "anthropic/claude-sonnet-5-5": "theirs misses the cache price before 2026-10-07",
    "gemini/gemini-3.6-flash": "theirs misses the launch price before 2026-08-13",
    "huggingface_together/*": "theirs has float noise in the last digit of four models",
    "openai/gpt-4o-audio-preview": "theirs has no price of audio",
    "openai/gpt-4o-mini-audio-preview": "theirs has no price of audio",
    "openai/gpt-5.5-pro": "theirs misses the long-context price of flex and batch",
    "openai/gpt-5.6-cyber": "theirs misses the long-context price",
    "openai/o3": "theirs has the later cache price before 2025-06-10",
    "openrouter/*": "theirs writes a twelfth of a dollar as a decimal of seventeen digits",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One model as both libraries have it."""

    provider: str
    model: str
    theirs: ModelInfo
    their_provider: Provider
    starts: datetime
    is_listed: bool

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    def their_cost(self, counts, at, tier) -> Decimal:
        """The same usage in their words: totals that include their parts."""
        usage = Usage(
            **{name: sum(counts.get(m, 0) for m in meters) for name, meters in TOTALS.items()}
        )
        priced = self.theirs.calc_price(
            usage, self.their_provider, genai_request_timestamp=at, price_context=CONTEXT[tier]
        )
        return priced.total_price

    def draw(self, random):
        """A usage, an instant and a tier that both price."""
        tier = random.choice(self.tiers())
        earliest = self.starts if tier == "standard" else TIERS_FROM
        at = earliest + random.random() * (HORIZON - earliest)
        card = PUBLISHED.find_card(self.provider, self.model, at)
        if card is None:
            return self.draw(random)  # theirs has not noticed that its prices ended
        if tier not in card.tiers or at < TIERS_FROM:
            tier = "standard"
        priced = sorted(
            meter
            for (t, region, meter), rates in card.rates.items()
            if (t, region) == (tier, None) and not rates[0].rate.source.startswith("litellm")
        )
        largest = random.choice([100, 100_000, 300_000])
        known = self.their_fields(at)
        chosen = [
            m
            for m in priced
            if m in METERS and FEES.get(m, "input_mtok") in known and random.random() < 0.6
        ]
        counts = {m: random.randint(AUDIO_SECONDS_MIN, largest) for m in chosen}
        if Meter.REQUEST in priced:
            counts[Meter.REQUEST] = 1  # theirs bills one request, whatever the usage says
        return card, counts, at, tier

    def their_fields(self, at):
        """What theirs has a price for, and plain input, which stands for every token."""
        prices = self.theirs.get_prices(at).__dict__
        return {name for name, price in prices.items() if price is not None} | {"input_mtok"}

    def tiers(self):
        """Tiers that theirs has prices of its own for."""
        variants = [variant.when.items() for variant in self.theirs.price_variants or ()]
        return [
            tier
            for tier, context in CONTEXT.items()
            if not context or any(when >= context.items() for when in variants)
        ]


def _pairs():
    """Every model both know, under the name of theirs."""
    for provider in providers:
        catalog = GENAI_PROVIDERS[provider.id]
        for model in provider.models:
            ours = PUBLISHED.find_model(catalog, model.id)
            if ours is None:
                continue
            rates = PUBLISHED.rates_of(catalog, ours.model)
            yield Pair(
                provider=catalog,
                model=ours.model,
                theirs=model,
                their_provider=provider,
                starts=min(rate.valid_from for rate in rates),
                is_listed=rates[0].source.startswith("genai-prices"),
            )


COMMON = sorted(_pairs(), key=lambda pair: (pair.name, pair.theirs.id))
CHUNKS = [COMMON[n : n + MODELS_PER_TEST] for n in range(0, len(COMMON), MODELS_PER_TEST)]


@pytest.mark.parametrize("pairs", CHUNKS, ids=lambda pairs: f"from {pairs[0].name}")
def test_another_library_finds_the_same_cost(pairs):
    """Hundreds of random usages of every model at random instants, in every tier both know."""
    wrong = []
    for pair in pairs:
        random = Random(pair.name)
        different = []
        for _ in range(USAGES_PER_MODEL):
            card, counts, at, tier = pair.draw(random)
            lines = rate_usage(counts, card, tier=tier)
            ours = total_cost(lines, "USD")
            theirs = pair.their_cost(counts, at, tier)
            # Prices of an hour and thirds are rounded once a line, at 10^-12; theirs are not.
            rounded = sum(line.rate.pico_each is None for line in lines)
            if abs(Decimal(str(ours)) - theirs) > rounded * HALF_A_PICO:
                case = f"{pair.name} {tier} at {at.isoformat()}: {counts}"
                different.append((case, Decimal(str(ours)), theirs))
        by_name, by_provider = pair.name in EXPLAINED, f"{pair.provider}/*" in EXPLAINED
        if bool(different) != by_name and not by_provider:
            wrong.append(different[:1] or f"{pair.name} is explained and does not differ")
        if by_provider and not all(_is_noise(*ours_and_theirs) for ours_and_theirs in different):
            wrong.append(different)

    assert [] == wrong


def _is_noise(_, ours, theirs):
    return abs(ours - theirs) <= theirs * Decimal("1e-9") + HALF_A_PICO


def test_the_comparison_covers_the_whole_list():
    """A renamed provider or model would empty the comparison without a failure."""
    named = {pair.name for pair in COMMON}

    assert 2150 <= len(COMMON)
    assert 90 <= sum(not pair.is_listed for pair in COMMON)
    assert named >= {name for name in EXPLAINED if not name.endswith("*")}
    assert CONTEXT.keys() == {tier for pair in COMMON for tier in pair.tiers()}
    assert set(Meter) - METERS == {
        Meter.CACHE_WRITE_12H,
        Meter.GPU_SECOND,
        Meter.IMAGE,
        Meter.REQUEST,
        Meter.SEARCH_UNIT,
        Meter.VIDEO_SECOND,
    }


@pytest.mark.parametrize("provider", [name[:-2] for name in EXPLAINED if name.endswith("*")])
def test_noise_that_is_explained_is_still_there(provider):
    """A list that was cleaned up needs no explanation any more."""
    prices = [
        price
        for pair in COMMON
        if pair.provider == provider
        for price in pair.theirs.get_prices(TIERS_FROM).__dict__.values()
        if isinstance(price, Decimal)
    ]

    assert any(price != round(price, 9) for price in prices)
