"""The published catalog: prices checked by hand against the providers' pages, and house rules."""

from datetime import UTC, datetime
from itertools import groupby
from urllib.parse import urlsplit

import pytest

from pricing.book import CATALOG_DIR, load_book, object_name, read_versions
from pricing.importers.catalogs import LIST_SOURCES, catalog_of_book, keep_checked_by_hand
from pricing.meters import INPUT_METERS, OUTPUT_METERS, TRAITS, Meter
from pricing.rates import compile_rate
from pricing.rating import UnpricedSku
from tests.pricing.cards import PUBLISHED, cost_of, published

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PAGES = {"developers.openai.com", "platform.claude.com", "ai.google.dev"}
# What lists of others say is held to less: tests/pricing/importers/ and the oracles beside this.
BY_HAND = keep_checked_by_hand(catalog_of_book(PUBLISHED))
BEFORE, AFTER = "2026-11-30T23:59:59.999999+00:00", "2026-12-01T00:00:00+00:00"


@pytest.mark.parametrize("version", read_versions(), ids=lambda v: v.version)
def test_every_published_version_is_what_it_was(version):
    """Each content has the digest the manifest promises, and the manifest that of the list."""
    book = load_book(version.version)

    assert version == book.version
    assert version.manifest.providers.keys() == book.providers


def test_every_object_belongs_to_a_version():
    """No file lies in the catalog that no version needs, and none is missing."""
    promised = {
        object_name(provider, digest)
        for version in read_versions()
        for provider, digest in version.manifest.providers.items()
    }

    assert promised == {path.name for path in (CATALOG_DIR / "objects").iterdir()}


def test_the_example_of_the_interface_costs_what_it_says():
    """224 in, 1024 cached, 146 out and 64 reasoning tokens of gpt-5."""
    usage = {"input": 224, "cache_read": 1024, "output": 146, "reasoning": 64}

    # 224 * 1.25 + 1024 * 0.125 + 210 * 10 = 280 + 128 + 2100 millionths
    assert "0.002508" == cost_of(usage, published("openai/gpt-5"))
    assert "0.002508" == cost_of(usage, published("openai/gpt-5-2025-08-07"))


@pytest.mark.parametrize(
    ("model", "usage", "where", "cost"),
    [
        ("openai/gpt-4o", {"input": 1000, "cache_read": 1000, "output": 1000}, {}, "0.01375"),
        ("openai/gpt-4o-2024-05-13", {"input": 1000, "output": 1000}, {}, "0.02"),
        ("openai/gpt-4o-2024-11-20", {"input": 1000, "output": 1000}, {}, "0.0125"),
        ("openai/gpt-4.1-mini", {"input": 10_000, "output": 1000}, {}, "0.0056"),
        ("openai/o4-mini", {"input": 100, "output": 10, "reasoning": 90}, {}, "0.00055"),
        ("openai/o4-mini", {"cache_read": 1000}, {"tier": "flex"}, "0.000138"),
        ("openai/gpt-5", {"input": 1000, "output": 1000}, {"tier": "flex"}, "0.005625"),
        ("openai/gpt-5", {"input": 1000, "output": 1000}, {"tier": "batch"}, "0.005625"),
        ("openai/gpt-5", {"input": 1000, "output": 1000}, {"tier": "priority"}, "0.0225"),
        ("openai/gpt-5.5", {"input": 272_000, "output": 1000}, {}, "1.39"),
        ("openai/gpt-5.5", {"input": 272_001, "output": 1000}, {}, "2.76501"),
        ("openai/gpt-5.5", {"input": 1000, "output": 1000}, {"region": "eu"}, "0.0385"),
        ("openai/gpt-6.1-sol", {"cache_write": 1000, "cache_write_12h": 1000}, {}, "0.0075"),
        ("openai/gpt-6.2-sol", {"input": 1000, "output": 1000}, {"tier": "ultrafast"}, "0.036"),
        ("openai/gpt-5-mini", {"input": 1, "cache_write": 1, "web_search": 2}, {}, "0.0200005"),
        ("anthropic/claude-haiku-4-5", {"input": 7, "output": 3}, {}, "0.000022"),
        # 1000 * 3 + 7000 * 0.30 + 500 * 3.75 + 1500 * 6 + 200 * 15 millionths
        (
            "anthropic/claude-sonnet-4-5",
            {
                "input": 1000,
                "cache_read": 7000,
                "cache_write": 500,
                "cache_write_1h": 1500,
                "output": 200,
            },
            {},
            "0.018975",
        ),
        ("anthropic/claude-opus-4-5-20251101", {"input": 1000, "output": 1000}, {}, "0.03"),
        ("anthropic/claude-opus-5-5", {"cache_read": 1000}, {}, "0.0002"),
        ("anthropic/claude-opus-5-5", {"input": 1000}, {"tier": "fast"}, "0.008"),
        ("anthropic/claude-opus-5-5", {"input": 1000}, {"region": "us"}, "0.0044"),
        ("anthropic/claude-opus-5-5", {"web_search": 1}, {"tier": "batch", "region": "us"}, "0.01"),
        ("anthropic/claude-haiku-5-5", {"input": 100_000, "output": 10}, {}, "0.010005"),
        ("anthropic/claude-haiku-5-5", {"input": 100_001, "output": 10}, {}, "0.0500255"),
        ("gemini/gemini-2.5-pro", {"input": 200_000}, {}, "0.25"),
        ("gemini/gemini-2.5-pro", {"input": 200_001}, {}, "0.5000025"),
        ("gemini/gemini-2.5-pro", {"input": 100_000, "cache_read": 100_001}, {}, "0.27500025"),
        ("gemini/gemini-2.5-pro", {"input": 200_001}, {"tier": "batch"}, "0.25000125"),
        ("gemini/gemini-2.5-flash", {"input_audio": 1000, "input_image": 1000}, {}, "0.0013"),
        ("gemini/gemini-2.5-flash", {"cache_read_audio": 1000, "web_search": 1}, {}, "0.0351"),
        ("gemini/gemini-3-pro-image", {"output_image": 1120, "output": 100}, {}, "0.1356"),
        ("gemini/gemma-4-31b-it", {"input": 10**6, "output": 10**6}, {}, "0"),
    ],
)
def test_prices_are_those_of_the_pages(model, usage, where, cost):
    """Worked out by hand from the published price of each model."""
    assert cost == cost_of(usage, published(model), **where)


@pytest.mark.parametrize(
    ("model", "usage", "before", "at", "after"),
    [
        ("openai/o3", {"input": 1000, "output": 1000}, "0.05", "2025-06-10", "0.01"),
        ("openai/gpt-5.6-luna", {"input": 1000}, "0.001", "2026-07-30", "0.0002"),
        ("openai/gpt-5.6", {"output": 1000}, "0.03", "2026-08-21", "0.02"),
        ("anthropic/claude-opus-4-6", {"input": 300_000}, "3", "2026-03-13", "1.5"),
        ("anthropic/claude-sonnet-5-5", {"cache_read": 1000}, "0.0002", "2026-10-07", "0.0001"),
        ("gemini/gemini-4-argon", {"input": 1000}, "0.002", "2026-12-01", "0.004"),
        ("gemini/gemini-3.8-flash", {"output": 1000}, "0.00375", "2027-01-01", "0.0075"),
    ],
)
def test_a_change_of_price_takes_effect_at_midnight_utc(model, usage, before, at, after):
    """The last microsecond of the day before has the old price, midnight the new one."""
    midnight = datetime.fromisoformat(f"{at}T00:00:00+00:00")
    last = datetime.fromtimestamp(midnight.timestamp() - 0.000_001, UTC)

    assert before == cost_of(usage, published(model, last.isoformat()))
    assert after == cost_of(usage, published(model, midnight.isoformat()))


def test_an_announced_rise_reaches_every_tier_at_the_same_instant():
    """The prices of 1 December are twice those of 30 November, in all four tiers."""
    for tier in ("standard", "batch", "flex", "priority"):
        now, then = (
            published("gemini/gemini-4-argon", at).rates[tier, None, Meter.OUTPUT][0].rate.amount
            for at in (BEFORE, AFTER)
        )

        assert 2 * now == then, tier


def test_a_tier_a_model_is_not_sold_in_has_no_price():
    """Better a refusal than the standard price by accident."""
    with pytest.raises(UnpricedSku):
        cost_of({"input": 1}, published("openai/gpt-4o"), tier="flex")


def test_every_model_states_both_limits():
    """Without them a call that names no bound could not be held."""
    unbounded = [
        m.model
        for m in BY_HAND.models
        if m.context_tokens_max is None or m.output_tokens_max is None
    ]

    assert [] == unbounded


def test_every_model_of_today_has_a_price_for_input_and_output():
    """A card that misses one of them could not be held or billed."""
    for model in BY_HAND.models:
        card = PUBLISHED.find_card(model.provider, model.model, NOW)

        assert card is not None, model.model
        for tier in card.tiers:
            assert (tier, None, Meter.INPUT) in card.rates, (model.model, tier)
            assert (tier, None, Meter.OUTPUT) in card.rates, (model.model, tier)


def test_every_price_cites_the_page_of_its_provider():
    """No registry and no third party stands between the page and the price."""
    sources = {(r.provider, r.source) for r in BY_HAND.rates}

    assert {"demo", "openai", "anthropic", "gemini"} == {provider for provider, _ in sources}
    for provider, source in sources:
        host = urlsplit(source).hostname
        assert (provider == "demo" and source.startswith("fictional")) or host in PAGES, source


def test_every_other_price_cites_a_list_and_its_version():
    """What nobody read on a page says so."""
    by_hand = {id(rate) for rate in BY_HAND.rates}
    others = {rate.source for rate in PUBLISHED.rates if id(rate) not in by_hand}

    assert 2 == len(others)
    assert all(source.startswith(LIST_SOURCES) for source in others)


def test_one_token_costs_a_whole_number_of_10_to_the_minus_12():
    """So no line of a token bill is ever rounded, and a ceiling is exact."""
    rounded = [r.price_id for r in BY_HAND.rates if compile_rate(r).pico_each is None]

    assert [] == rounded


def test_a_context_step_raises_every_token_price_of_its_tier():
    """A cliff that forgot cache reads would bill long prompts too little."""
    tokens = INPUT_METERS | OUTPUT_METERS
    for model in BY_HAND.models:
        card = PUBLISHED.find_card(model.provider, model.model, NOW)
        keys = sorted((k for k in card.rates if k[2] in tokens), key=lambda k: (k[0], k[1] or ""))
        for place, group in groupby(keys, key=lambda k: k[:2]):
            bands = {tuple(c.band for c in card.rates[k]) for k in group}

            assert 1 == len(bands), (model.model, place, bands)


def test_cheap_tiers_are_cheaper_and_fast_ones_dearer():
    """Batch and flex never cost more than standard, priority and the fast tiers never less."""
    for model in BY_HAND.models:
        card = PUBLISHED.find_card(model.provider, model.model, NOW)
        for (tier, region, meter), bands in card.rates.items():
            standard = {c.band: c for c in card.rates.get(("standard", region, meter), ())}
            for compiled in bands:
                other = standard.get(compiled.band)
                if other is None or tier == "standard" or TRAITS[meter].unit != "token":
                    continue
                dearer, cheaper = (
                    (other, compiled) if tier in {"batch", "flex"} else (compiled, other)
                )

                assert not dearer.is_below(cheaper), compiled.price_id


def test_a_cached_token_never_costs_more_than_a_plain_one():
    """A cache read above the input price is a slip of a column."""
    for model in BY_HAND.models:
        card = PUBLISHED.find_card(model.provider, model.model, NOW)
        for tier, region, _ in card.rates:
            for total in (1, 150_000, 250_000, 300_000):
                read, plain = (
                    card.find_rate(meter, tier=tier, region=region, input_total=total)
                    for meter in (Meter.CACHE_READ, Meter.INPUT)
                )

                assert not plain.is_below(read), (model.model, tier)


def test_thinking_costs_what_output_costs_in_every_tier_if_it_does_in_standard():
    """A standard price of thinking repeated in a tier with its own output bills it wrong."""
    compared, different = 0, []
    for model in catalog_of_book(PUBLISHED).models:
        card = PUBLISHED.find_card(model.provider, model.model, NOW)
        places = {key[:2] for key in card.rates if key[2] is Meter.OUTPUT} if card else ()
        for tier, region in places:
            for total in (1, 150_000, 250_000, 300_000):
                if _is_thinking_output(card, "standard", region, total):
                    compared += tier != "standard"
                    if not _is_thinking_output(card, tier, region, total):
                        different.append((model.provider, model.model, tier, region, total))

    assert [] == different
    assert 2000 < compared


def _is_thinking_output(card, tier, region, total):
    thinking, output = (
        card.find_rate(meter, tier=tier, region=region, input_total=total)
        for meter in (Meter.REASONING, Meter.OUTPUT)
    )
    return thinking is output or not (thinking.is_below(output) or output.is_below(thinking))
