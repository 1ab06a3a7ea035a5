"""The catalog and the rating against the litellm map, by plain arithmetic on its own fields.

Must never use an importer to find a price: what is compared is the reading, not the reader.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from random import Random
from typing import Any

import pytest

from pricing.importers.places import NotAModel, find_place
from pricing.importers.publish import DOCS
from pricing.meters import INPUT_METERS, Meter
from pricing.rating import rate_usage, total_cost
from tests.pricing.cards import PUBLISHED
from tests.pricing.importers.lists import litellm_text

USAGES_PER_ROW = 200
ROWS_PER_TEST = 60
HALF_A_PICO = Decimal("0.5e-12")
READ_ON = datetime(2026, 11, 23, tzinfo=UTC)
# The map knows no announced prices; a week has every hour of the day and every weekday.
HORIZON = READ_ON + timedelta(days=7)
OUTPUT = "output_cost_per_token"
# A tier with an output price of its own bills thinking as that.
THINKING = "output_cost_per_reasoning_token"
# Their field without tier and threshold, and what it counts.
TOKENS = {
    "input_cost_per_token": Meter.INPUT,
    OUTPUT: Meter.OUTPUT,
    "cache_read_input_token_cost": Meter.CACHE_READ,
    "cache_creation_input_token_cost": Meter.CACHE_WRITE,
    "cache_creation_input_token_cost_above_1hr": Meter.CACHE_WRITE_1H,
    "input_cost_per_audio_token": Meter.INPUT_AUDIO,
    "input_cost_per_image_token": Meter.INPUT_IMAGE,
    "input_cost_per_video_token": Meter.INPUT_VIDEO,
    "cache_read_input_audio_token_cost": Meter.CACHE_READ_AUDIO,
    "cache_read_input_image_token_cost": Meter.CACHE_READ_IMAGE,
    "output_cost_per_audio_token": Meter.OUTPUT_AUDIO,
    "output_cost_per_image_token": Meter.OUTPUT_IMAGE,
    "output_cost_per_video_token": Meter.OUTPUT_VIDEO,
    THINKING: Meter.REASONING,
}
# Fields with one meaning whatever stands beside them: meter and variant.
FEES = {
    "ocr_cost_per_page": (Meter.PAGE, None),
    "annotation_cost_per_page": (Meter.PAGE, "annotated"),
    "output_cost_per_image": (Meter.IMAGE, None),
    "output_cost_per_image_2K": (Meter.IMAGE, "2K"),
    "output_cost_per_image_4K": (Meter.IMAGE, "4K"),
    "output_cost_per_video_per_second": (Meter.VIDEO_SECOND, None),
    "output_cost_per_second_480p": (Meter.VIDEO_SECOND, "480p"),
    "output_cost_per_second_720p": (Meter.VIDEO_SECOND, "720p"),
    "output_cost_per_second_1080p": (Meter.VIDEO_SECOND, "1080p"),
    "output_cost_per_second_4k": (Meter.VIDEO_SECOND, "4k"),
    "input_cost_per_character": (Meter.CHARACTER, None),
    "input_cost_per_request": (Meter.REQUEST, None),
    "google_maps_grounding_cost_per_query": (Meter.WEB_SEARCH, "google_maps"),
}
SUFFIX = {
    "standard": "",
    "batch": "_batches",
    "flex": "_flex",
    "priority": "_priority",
    "ultrafast": "_ultrafast",
    "balanced": "_balanced",
}
UPLIFTS = {
    "eu": "regional_processing_uplift_multiplier_eu",
    "us": "regional_processing_uplift_multiplier_us",
    "regional": "regional_endpoint_uplift_multiplier",
}


def _read_disputes():
    """Meters and tiers both price and do not agree on, by model.

    The page is built from the lists and checked for it. What else its models sell is compared.
    """
    found = {}
    for name, price in re.findall(r"^\| (\S+/.*?) \| (.*?) \|", DOCS.read_text("utf-8"), re.M):
        meter, *words = price.split()
        tier = next((word for word in words if word in SUFFIX), "standard")
        found.setdefault(name, set()).add((Meter(meter), tier))
    return found


DISPUTED = _read_disputes()
# Models that differ for another reason, and why ours is what it is.
EXPLAINED = {
    "anthropic/claude-sonnet-4-5": "ours keeps the retired long-context beta",
    "gemini/gemini-2.5-flash": "ours has one price of searches, with Google Maps or without",
    "gemini/gemini-2.5-flash-lite": "ours has one price of searches, with Google Maps or without",
    "gemini/gemini-2.5-pro": "theirs misses the long-context price of flex",
    "gemini/gemini-3.1-pro-preview": "theirs misses the long-context price of flex and batch",
    "gemini/gemini-exp-1206": "theirs has zeros in the second row of the model",
    "mistral/codestral": "theirs has zeros for another host of the model",
    "novita/minimax/minimax-m3": "only one list has a step at 512k",
    "openai/gpt-5.5-pro": "theirs misses the long-context price of flex and batch",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the map and the model of the catalog it is about."""

    key: str
    provider: str
    model: str
    region: str | None
    variant: str | None
    fields: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    @property
    def disputed(self):
        return DISPUTED.get(self.name, frozenset())

    def price(self, field, tier, total, at) -> Decimal | None:
        """What the map says one unit costs, in dollars for one."""
        peak = self.fields.get("off_peak_pricing", {})
        if tier == "standard" and field in peak and _is_off_peak(peak, at):
            return peak[field]
        for row in self.fields.get("tiered_pricing", ()):
            low, high = row["range"]
            is_last = row is self.fields["tiered_pricing"][-1]
            if field in row and (
                low < total <= high or (total > high and is_last) or total == low == 0
            ):
                return row[field]
        own = self._own_price(field, SUFFIX[tier], total)
        is_output = field == THINKING and OUTPUT + SUFFIX[tier] in self.fields
        if own is None and is_output and tier not in {"standard", "batch"}:
            return self._own_price(OUTPUT, SUFFIX[tier], total)
        return self._own_price(field, "", total) if own is None and tier != "batch" else own

    def _own_price(self, field, suffix, total):
        reached, found = -1, self.fields.get(f"{field}{suffix}")
        for step, name in _steps(frozenset(self.fields), field, suffix):
            first = step if self.provider == "xai" else step + 1
            if total >= first > reached:
                reached, found = first, self.fields[name]
        return found

    def tiers(self):
        """Tiers with a price of plain input or output of their own."""
        plain = ("input_cost_per_token", "output_cost_per_token")
        return [
            t for t, s in SUFFIX.items() if any(f"{field}{s}" in self.fields for field in plain)
        ]

    def draw(self, random):
        """A usage, an instant, a tier and a region, priced by the map's own fields."""
        at = READ_ON + random.random() * (HORIZON - READ_ON)
        tier = random.choice(self.tiers() or ["standard"])
        region, factor = self.region, Decimal(1)
        if region is None and random.random() < 0.3:
            for name, field in UPLIFTS.items():
                if field in self.fields:
                    region, factor = name, self.fields[field]
        largest = random.choice([100, 150_000, 400_000])
        bands = {field for row in self.fields.get("tiered_pricing", ()) for field in row}
        counts = {
            meter: random.randint(0, largest)
            for field, meter in TOKENS.items()
            if (field in self.fields or field in bands)
            and (meter, tier) not in self.disputed
            and random.random() < 0.6
        }
        total = sum(n for m, n in counts.items() if m in INPUT_METERS)
        cost, variants = Decimal(0), {}
        for field, meter in TOKENS.items():
            price = self.price(field, tier, total, at) if meter in counts else None
            if price is None:
                counts.pop(meter, None)
            else:
                cost += counts[meter] * _plain(price) * factor
        if total != sum(n for m, n in counts.items() if m in INPUT_METERS):
            return self.draw(random)  # a part of the prompt has no price in this tier
        for field, (meter, variant) in FEES.items():
            price = self.fields.get(field)
            is_agreed = meter not in counts and (meter, tier) not in self.disputed
            if price and is_agreed and random.random() < 0.5:
                counts[meter] = random.randint(0, 1000)
                if variant or (meter is Meter.IMAGE and self.variant):
                    variants[meter] = variant or self.variant
                cost += counts[meter] * _plain(price)
        return counts, at, tier, region, variants, cost


@cache
def _steps(names, field, suffix):
    """Thresholds of a field in a tier."""
    pattern = re.compile(re.escape(field) + r"_above_(\d+)k_tokens" + suffix)
    return [(int(found[1]) * 1000, name) for name in names if (found := pattern.fullmatch(name))]


def _plain(price) -> Decimal:
    """The price without the noise of a float: nine digits after the dollar for a million."""
    million = Decimal(price) * 1_000_000
    return (
        round(million, 6) if abs(million - round(million, 6)) < million / 10**9 else million
    ) / (1_000_000)


def _is_off_peak(block, at):
    hour = timedelta(hours=8) if block.get("weekday_timezone") == "Asia/Shanghai" else timedelta()
    weekday = (at + hour).isoweekday()
    minute = at.hour * 60 + at.minute
    for window in block["windows"]:
        spans = window["hours_utc"]
        for span in [spans] if isinstance(spans, str) else spans:
            start, end = (int(t[:2]) * 60 + int(t[3:]) for t in span.split("-"))
            if weekday in window["weekdays"] and start <= minute < (end or 1440):
                return True
    return False


def _rows():
    """Every row of a model the catalog has, the row with the provider's name where two are."""
    rows = json.loads(litellm_text(), parse_float=Decimal)
    found: dict[tuple[str, str, str | None, str | None], Row] = {}
    for key, fields in rows.items():
        try:
            place = find_place(key, fields.get("litellm_provider", ""))
        except NotAModel:
            continue
        entry = place and PUBLISHED.find_model(place.provider, place.model)
        if place is None or entry is None:
            continue
        row = Row(
            key=key,
            provider=place.provider,
            model=entry.model,
            region=place.region,
            variant=place.variant,
            fields=fields,
        )
        slot = (place.provider, place.model, place.region, place.variant)
        if slot not in found or place.is_prefixed:
            found[slot] = row
    return sorted(found.values(), key=lambda row: (row.name, row.key))


ROWS = _rows()
CHUNKS = [ROWS[n : n + ROWS_PER_TEST] for n in range(0, len(ROWS), ROWS_PER_TEST)]


def _states(card, meter, tier, region):
    plain = card.rates.keys() & {(tier, region, meter), (tier, None, meter)}
    made = {(t, r, m) for t, r, m, _ in card.variants}
    if meter is Meter.REASONING and (tier, region, meter) not in card.rates:
        meter = Meter.OUTPUT
    return bool(plain or made & {(tier, region, meter), (tier, None, meter)})


def _is_behind(rate, region):
    return region is not None and rate.region is None and rate.over is not None


def find_difference(row: Row) -> str | None:
    """The first of many random usages that does not cost what the map says."""
    random = Random(row.key)
    for _ in range(USAGES_PER_ROW):
        counts, at, tier, region, variants, theirs = row.draw(random)
        if not counts:
            continue
        card = PUBLISHED.find_card(row.provider, row.model, at)
        assert card is not None
        if not all(_states(card, meter, tier, region) for meter in counts):
            continue  # only one of the two has a price for it
        lines = rate_usage(counts, card, tier=tier, region=region, variants=variants)
        if any(_is_behind(line.rate.rate, region) for line in lines):
            continue  # a band of the world that the row of a region does not repeat
        ours = total_cost(lines, "USD")
        rounded = sum(line.rate.pico_each is None for line in lines)
        if abs(Decimal(str(ours)) - theirs) > rounded * HALF_A_PICO:
            where = f"{tier} {region} at {at.isoformat()}"
            return f"{row.key} {where}: {counts}: {ours}, theirs {theirs}"
    return None


@pytest.mark.parametrize("rows", CHUNKS, ids=lambda rows: f"from {rows[0].key}")
def test_the_map_comes_to_the_same_cost(rows):
    """Hundreds of random usages of every row, in every tier, band, region and hour it prices."""
    different = [
        difference
        for row in rows
        if row.name not in EXPLAINED and (difference := find_difference(row)) is not None
    ]

    assert [] == different


@pytest.mark.parametrize("name", EXPLAINED)
def test_what_is_explained_still_differs(name):
    """A row that was corrected needs no explanation any more."""
    assert any(find_difference(row) for row in ROWS if row.name == name)


def test_the_comparison_covers_the_map():
    """A renamed provider would empty the comparison without a failure."""
    assert 3900 <= len(ROWS)
    disputed = [row for row in ROWS if row.disputed]
    assert 60 <= len({row.name for row in disputed}) <= 120
    assert 40 <= sum(any(row.draw(Random(n))[0] for n in range(20)) for row in disputed)
    assert SUFFIX.keys() == {tier for row in ROWS for tier in row.tiers()}
