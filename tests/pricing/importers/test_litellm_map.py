"""The litellm map: every field by its rule, every row that is not taken by name."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from fnmatch import fnmatchcase
from fractions import Fraction
from statistics import median

import pytest

from pricing.importers.corrections import WRONG_ROWS
from pricing.importers.draft import Reason, Slot
from pricing.importers.keys import KEYS, NOT_PRICES, Refused, Supported
from pricing.importers.litellm_map import FILE
from pricing.meters import Meter
from tests.pricing.importers.lists import (
    json_text,
    litellm_text,
    map_of,
    prices_of,
    read_map,
    reasons_of,
    row_of,
    spans_of,
)

MAP = json.loads(litellm_text())
IN_OUT = {"input_cost_per_token": "=1e-06", "output_cost_per_token": "=2e-06"}


def test_every_price_field_of_the_map_has_a_rule_and_no_rule_is_idle():
    """The 149 fields that are prices or change one, and the others that are known not to."""
    models = [row for key, row in MAP.items() if key != "sample_spec"]
    fields = {name for row in models for name in row if not name.startswith("supports_")}

    assert 149 == len(KEYS)
    assert fields == KEYS.keys() | NOT_PRICES


def test_reading_the_map_imports_nothing_of_litellm():
    """Its code would take seconds and run in the gateway's process."""
    script = (
        "import sys\n"
        "from datetime import date\n"
        "from pricing.importers.sources import load_candidate\n"
        "found = load_candidate('litellm', checked_at=date(2026, 11, 23))\n"
        "load_candidate('genai-prices', checked_at=date(2026, 11, 23))\n"
        "assert len(found.models) > 3000\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('litellm', 'genai_prices')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert "[]" == done.stdout.strip()


@pytest.mark.parametrize(
    ("fields", "prices"),
    [
        (IN_OUT, {"input": "1/1000000", "output": "2/1000000"}),
        # Tiers, and what a tier inherits; a batch inherits no price of a token.
        (
            IN_OUT
            | {
                "input_cost_per_token_flex": "=5e-07",
                "input_cost_per_token_batches": "=5e-07",
                "ocr_cost_per_page": "=0.001",
            },
            {
                "input": "1/1000000",
                "output": "2/1000000",
                "page": "0.001/1",
                "input flex": "0.5/1000000",
                "output flex": "2/1000000",
                "page flex": "0.001/1",
                "input batch": "0.5/1000000",
                "page batch": "0.001/1",
            },
        ),
        # A free token stays free in a batch, so that embeddings have an output price there.
        (
            {
                "input_cost_per_token": "=1e-06",
                "input_cost_per_token_batches": "=5e-07",
                "output_cost_per_token": "=0.0",
            },
            {
                "input": "1/1000000",
                "output": "0/1000000",
                "input batch": "0.5/1000000",
                "output batch": "0/1000000",
            },
        ),
        # Lifetimes of a cache, modalities, thinking.
        (
            {
                "cache_read_input_token_cost": "=1e-07",
                "cache_creation_input_token_cost": "=1.25e-06",
                "cache_creation_input_token_cost_above_1hr": "=2e-06",
                "cache_read_input_audio_token_cost": "=3e-07",
                "input_cost_per_audio_token": "=4e-06",
                "input_cost_per_image_token": "=5e-06",
                "output_cost_per_video_token": "=6e-06",
                "output_cost_per_reasoning_token": "=7e-06",
            },
            {
                "cache_read": "0.1/1000000",
                "cache_write": "1.25/1000000",
                "cache_write_1h": "2/1000000",
                "cache_read_audio": "0.3/1000000",
                "input_audio": "4/1000000",
                "input_image": "5/1000000",
                "output_video": "6/1000000",
                "reasoning": "7/1000000",
            },
        ),
        # Multipliers of a region and of a speed: tokens only.
        (
            IN_OUT
            | {
                "ocr_cost_per_page": "=0.001",
                "provider_specific_entry": {"us": "=1.1", "fast": "=2.0"},
            },
            {
                "input": "1/1000000",
                "output": "2/1000000",
                "page": "0.001/1",
                "input fast": "2/1000000",
                "output fast": "4/1000000",
                "page fast": "0.001/1",
                "input us": "1.1/1000000",
                "output us": "2.2/1000000",
                "input fast us": "2.2/1000000",
                "output fast us": "4.4/1000000",
            },
        ),
        (
            IN_OUT | {"regional_processing_uplift_multiplier_eu": "=1.1"},
            {
                "input": "1/1000000",
                "output": "2/1000000",
                "input eu": "1.1/1000000",
                "output eu": "2.2/1000000",
            },
        ),
        # Searches by the size of their context; one price where all sizes cost the same.
        (
            {
                "search_context_cost_per_query": {
                    "search_context_size_low": "=0.01",
                    "search_context_size_medium": "=0.01",
                    "search_context_size_high": "=0.01",
                }
            },
            {"web_search": "10/1000"},
        ),
        (
            {
                "search_context_cost_per_query": {
                    "search_context_size_low": "=0.005",
                    "search_context_size_medium": "=0.008",
                    "search_context_size_high": "=0.012",
                },
                "google_maps_grounding_cost_per_query": "=0.014",
            },
            {
                "web_search low": "5/1000",
                "web_search medium": "8/1000",
                "web_search high": "12/1000",
                "web_search google_maps": "14/1000",
            },
        ),
        # Ranges of prompt lengths.
        (
            {
                "tiered_pricing": [
                    {"range": [0, "=32000.0"], "input_cost_per_token": "=1e-06"},
                    {"range": ["=32000.0", "=128000.0"], "input_cost_per_token": "=2e-06"},
                ]
            },
            {"input": "1/1000000", "input over 32000": "2/1000000"},
        ),
        # Off-peak windows: weekdays of Shanghai over hours of UTC, cut at midnight there.
        (
            {
                "input_cost_per_token": "=2e-06",
                "off_peak_pricing": {
                    "input_cost_per_token": "=1e-06",
                    "weekday_timezone": "Asia/Shanghai",
                    "windows": [
                        {"hours_utc": ["10:00-00:00"], "weekdays": [1, 2, 3, 4, 5]},
                        {"hours_utc": "00:00-00:00", "weekdays": [6, 7]},
                    ],
                },
            },
            {
                "input": "2/1000000",
                "input mon-fri 18:00-00:00 Asia/Shanghai": "1/1000000",
                "input mon-fri 00:00-08:00 Asia/Shanghai": "1/1000000",
                "input sat,sun 00:00-00:00 Asia/Shanghai": "1/1000000",
            },
        ),
        # What is made costs something else than what goes in; alone it needs no name.
        (
            {"input_cost_per_image": "=0.01", "output_cost_per_image": "=0.04"},
            {"image": "0.04/1", "image input": "0.01/1"},
        ),
        ({"input_cost_per_image": "=0.01"}, {"image": "0.01/1"}),
        (
            {"output_cost_per_image": "=0.04", "output_cost_per_image_2K": "=0.12"},
            {"image": "0.04/1", "image 2K": "0.12/1"},
        ),
        # A fee of nothing is a placeholder, beside a price and alone.
        (
            IN_OUT | {"output_cost_per_second": "=0.0"},
            {"input": "1/1000000", "output": "2/1000000"},
        ),
    ],
)
def test_fields_become_prices(fields, prices):
    """Each field by its rule."""
    assert prices == prices_of(map_of(**fields))


@pytest.mark.parametrize(
    ("mode", "fields", "prices"),
    [
        ("audio_transcription", {"input_cost_per_second": "=0.0001"}, {"audio_second": "0.0001/1"}),
        ("video_generation", {"output_cost_per_second": "=0.4"}, {"video_second": "0.4/1"}),
        ("audio_speech", {"output_cost_per_second": "=0.01"}, {"audio_second": "0.01/1"}),
        ("rerank", {"input_cost_per_query": "=0.002"}, {"search_unit": "2/1000"}),
        ("search", {"input_cost_per_query": "=0.002"}, {"request": "2/1000"}),
        (
            "audio_transcription",
            {"input_cost_per_second": "=0.0001", "output_cost_per_second": "=0.0001"},
            {"audio_second": "0.0001/1"},
        ),
    ],
)
def test_the_mode_says_what_seconds_and_queries_are(mode, fields, prices):
    """The same field means another thing in another mode."""
    assert prices == prices_of(map_of(mode=mode, **fields))


@pytest.mark.parametrize(
    ("thinking", "tier", "prices"),
    [
        ("=2e-06", {"output_cost_per_token_priority": "=3.6e-06"}, {"output priority": "3.6"}),
        ("=2e-06", {"output_cost_per_token_flex": "=1e-06"}, {"output flex": "1"}),
        # Whatever thinking costs in standard,
        ("=7e-06", {"output_cost_per_token_flex": "=1e-06"}, {"output flex": "1"}),
        # as long as the tier has a price of output.
        (
            "=7e-06",
            {"input_cost_per_token_flex": "=5e-07"},
            {"output flex": "2", "reasoning flex": "7"},
        ),
    ],
)
def test_a_tier_with_an_output_price_bills_thinking_as_output(thinking, tier, prices):
    """The standard price of thinking would be too low in a dearer tier and too high in flex."""
    found = prices_of(map_of(**IN_OUT, output_cost_per_reasoning_token=thinking, **tier))

    assert {name: f"{amount}/1000000" for name, amount in prices.items()} == {
        name: amount for name, amount in found.items() if name.startswith(("output ", "reasoning "))
    }


def test_a_provider_that_bills_from_the_threshold_on_has_the_step_one_token_earlier():
    """200,000 tokens are in the upper band there, and in the lower one elsewhere."""
    fields = IN_OUT | {"input_cost_per_token_above_200k_tokens": "=3e-06"}

    assert "input over 199999" in prices_of(map_of(provider="xai", **fields))
    assert "input over 200000" in prices_of(map_of(provider="openai", **fields))


def test_prices_hold_from_the_day_the_map_was_read():
    """It has no dates, so it says nothing about the day before."""
    assert [
        ("input", "1", "2026-11-23", ""),
        ("output", "2", "2026-11-23", ""),
    ] == spans_of(map_of(**IN_OUT))


@pytest.mark.parametrize(
    ("key", "provider", "named", "slots"),
    [
        ("gpt-5", "openai", "openai/gpt-5", {"input"}),
        ("azure/gpt-5", "azure", "azure/gpt-5", {"input"}),
        ("azure/eu/gpt-5", "azure", "azure/gpt-5", {"input eu"}),
        ("vertex_ai/claude-x@1", "vertex_ai-anthropic_models", "vertex/claude-x@1", {"input"}),
        ("bedrock/us-gov-west-1/a.b-v1:0", "bedrock", "bedrock/a.b-v1:0", {"input us-gov-west-1"}),
        ("us.a.b-v1:0", "bedrock_converse", "bedrock/us.a.b-v1:0", {"input"}),
        (
            "fireworks_ai/accounts/fireworks/models/x",
            "fireworks_ai",
            "fireworks/accounts/fireworks/models/x",
            {"input"},
        ),
        ("together_ai/meta-llama/X", "together_ai", "together/meta-llama/X", {"input"}),
        ("perplexity/perplexity/sonar", "perplexity", "perplexity/perplexity/sonar", {"input"}),
    ],
)
def test_a_key_tells_provider_model_and_region(key, provider, named, slots):
    """The catalog has the name the provider itself uses."""
    candidate = map_of(key=key, provider=provider, input_cost_per_token="=1e-06")
    (model,) = candidate.models

    assert named == f"{model.provider}/{model.model}"
    assert slots == prices_of(candidate).keys()


@pytest.mark.parametrize(
    ("key", "price"),
    [
        ("hd/1024-x-1792/dall-e-9", "image 1024x1792/hd"),
        ("1024-x-1024/dall-e-9", "image 1024x1024"),
        ("512-x-512/50-steps/dall-e-9", "image 512x512/50-steps"),
    ],
)
def test_sizes_and_qualities_of_an_image_are_variants(key, price):
    """The rows of one model become one model."""
    text = json_text(
        {
            key: row_of(mode="image_generation", output_cost_per_image="=0.04"),
            "dall-e-9": row_of(mode="image_generation", output_cost_per_image="=0.02"),
        }
    )

    assert {price: "0.04/1", "image": "0.02/1"} == prices_of(read_map(text))


@pytest.mark.parametrize(
    ("key", "fields", "reason", "detail"),
    [
        ("m", {"surcharge_per_moon_phase": "=1"}, Reason.FIELD_UNKNOWN, "surcharge_per_moon_phase"),
        ("m", {"input_cost_per_token_above_64k_tokens": "=1"}, Reason.FIELD_UNKNOWN, "64k"),
        ("m", {"litellm_provider": "moon"}, Reason.PROVIDER_UNKNOWN, "moon"),
        ("m", {"input_cost_per_pixel": "=1e-08"}, Reason.KEY_REFUSED, "counts pixels"),
        ("m", {"cost_per_second": "=1"}, Reason.KEY_REFUSED, "commitment"),
        ("m", {"input_cost_per_second": "=0.1"}, Reason.KEY_REFUSED, "seconds of what"),
        ("m", {"web_search_billing_unit": "per_prompt"}, Reason.KEY_REFUSED, "per_prompt"),
        (
            "m",
            {"tiered_pricing": [{"max_results_range": [0, 9], "input_cost_per_query": "=1"}]},
            Reason.KEY_REFUSED,
            "not the length of the prompt",
        ),
        ("m", {"search_context_cost_per_query": {"moon": "=2"}}, Reason.FIELD_UNKNOWN, "moon"),
        ("m", {"off_peak_pricing": {"moon": "=1e-06", "hours_utc": "01:00-02:00"}},
         Reason.FIELD_UNKNOWN, "moon"),
        ("m", {"tiered_pricing": [{"range": [0, 9], "tiered_pricing": 1}]},
         Reason.FIELD_UNKNOWN, "tiered_pricing.tiered_pricing"),
        ("m", {"provider_specific_entry": {"moon": "=2"}}, Reason.FIELD_UNKNOWN, "moon"),
        ("m", {"input_cost_per_token": "=1.23456789e-06"}, Reason.NOISE, "1.23456789"),
        ("m", {"input_cost_per_token_cache_hit": "=1e-07", "cache_read_input_token_cost": "=2e-07"},
         Reason.CONTRADICTION, "0.0000001"),
        ("m", {"output_vector_size": 5}, Reason.NO_PRICE, "no price"),
        ("m", {"input_cost_per_token": "=0.0"}, Reason.ONLY_ZEROS, "input"),
        ("sample_spec", {"mode": "chat"}, Reason.NOT_A_MODEL, "describes the map"),
        ("together-ai-4.1b-8b", IN_OUT, Reason.NOT_A_MODEL, "by size"),
        ("bedrock/us-east-1/1-month-commitment/m", IN_OUT, Reason.NOT_A_MODEL, "commitment"),
        ("m", {"off_peak_pricing": {"input_cost_per_token": "=1e-06", "hours_utc": "25:00-26:00"}},
         Reason.KEY_REFUSED, "16:30-00:30"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_taken_is_named(key, fields, reason, detail):
    """Nothing of it becomes a price, and the reason says why."""
    candidate = read_map(json_text({key: row_of() | fields, "ok": row_of(**IN_OUT)}))
    (left,) = candidate.left_out

    assert ["ok"] == [model.model for model in candidate.models]
    assert reason is left.reason
    assert detail in left.detail
    assert left.where == f"map.json: {key}"


def test_a_price_nothing_counts_is_left_out_by_name_and_the_others_are_taken():
    """A Databricks unit is not money; the price in money stands beside it."""
    candidate = map_of(**IN_OUT, input_dbu_cost_per_token="=1e-05")

    assert {"input", "output"} == prices_of(candidate).keys()
    assert ["PRICE_LEFT_OUT"] == reasons_of(candidate)


def test_zero_is_a_price_where_the_machine_is_the_users_own():
    """A local model costs nothing; elsewhere a row of zeros may as well be unknown."""
    assert prices_of(map_of(provider="ollama", input_cost_per_token="=0.0"))


def test_of_two_rows_for_one_model_the_one_with_the_providers_name_is_taken():
    """The other is named when it does not agree, and silent when it does."""
    rows = {
        "m": row_of("deepseek", input_cost_per_token="=1e-06"),
        "deepseek/m": row_of("deepseek", input_cost_per_token="=2e-06"),
    }
    different = read_map(json_text(rows))
    same = read_map(json_text(rows | {"m": rows["deepseek/m"]}))

    assert {"input": "2/1000000"} == prices_of(different) == prices_of(same)
    assert ["CONTRADICTION"] == reasons_of(different)
    assert [] == reasons_of(same)


def test_the_whole_map_is_read_or_named():
    """Every row is a price, part of one, or named among what was left out; the counts are known."""
    candidate = read_map(litellm_text(), FILE)
    kinds = Counter(type(rule).__name__ for rule in KEYS.values())
    refused = [rule for rule in KEYS.values() if isinstance(rule, Refused)]

    assert {"Supported": 127, "Shaped": 11, "Refused": 11} == kinds
    assert 7 == sum(rule.whole_model for rule in refused)
    assert all(
        rule.variant or not rule.beside for rule in KEYS.values() if isinstance(rule, Supported)
    )
    assert 3423 == len(candidate.models)
    assert {
        Reason.PRICE_LEFT_OUT: 184,
        Reason.NO_PRICE: 102,
        Reason.ONLY_ZEROS: 82,
        Reason.KEY_REFUSED: 47,
        Reason.NOT_A_MODEL: 46,
        Reason.CONTRADICTION: 17,
        Reason.NOISE: 6,
        Reason.TIER_WITHOUT_BAND: 37,
        Reason.SURCHARGE_OR_ZERO: 7,
        Reason.UNIT_SLIP: 3,
    } == candidate.count_left_out()


DEAR: set[str] = set()
LONG = "input_cost_per_token_above_200k_tokens"


@pytest.mark.parametrize("tier", ["batches", "priority"])
def test_a_tier_without_the_context_band_of_standard_is_left_out(tier):
    """Above the band its price would be too low; the tier goes as a whole, by name."""
    own = {f"input_cost_per_token_{tier}": "=5e-07", f"output_cost_per_token_{tier}": "=1e-06"}
    found = map_of(**IN_OUT, **{LONG: "=2e-06"}, **own)
    whole = map_of(**IN_OUT, **{LONG: "=2e-06", f"{LONG}_{tier}": "=1e-06"}, **own)

    assert {
        "input": "1/1000000",
        "input over 200000": "2/1000000",
        "output": "2/1000000",
    } == prices_of(found)
    assert ["TIER_WITHOUT_BAND"] == reasons_of(found)
    assert "input has no price over 200000" in found.left_out[0].detail
    assert [] == reasons_of(whole)
    assert 6 == len(prices_of(whole))


def test_every_row_that_is_known_to_be_wrong_is_still_there_and_is_left_out():
    """A list that was corrected takes its line out of the table."""
    candidate = read_map(litellm_text(), FILE)
    reasons = {left.where.removeprefix(f"{FILE}: "): left.reason for left in candidate.left_out}

    for wrong in WRONG_ROWS:
        found = {reasons.get(key) for key in MAP if fnmatchcase(key, wrong.keys)}
        assert {wrong.reason} == found, wrong.keys


def test_no_price_of_a_token_is_a_slip_of_the_unit():
    """Text above 1,000 for a million tokens, or above a hundred times what its provider takes."""
    candidate = read_map(litellm_text(), FILE)
    each = defaultdict(list)
    for model in candidate.models:
        for rate in model.rates:
            if rate.slot == Slot(Meter.INPUT) and rate.amount.value:
                each[model.provider].append((Fraction(*rate.amount.each) * 10**6, model.model))
    odd = {
        model
        for found in each.values()
        for amount, model in found
        if amount > 1000 or amount > 100 * median(price for price, _ in found)
    }

    assert DEAR == odd
