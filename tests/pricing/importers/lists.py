"""Small price lists for the importer tests, written the way the real ones are.

Must never copy a price from a real list: these tests check reading, not data.
"""

import json
from datetime import UTC, date, datetime

from pricing.importers.compare import slot_text
from pricing.importers.genai import read_genai_prices
from pricing.importers.genai_file import find_genai_data
from pricing.importers.litellm_map import find_litellm_map, read_litellm_map
from pricing.importers.sources import start_of

DAY = date(2026, 11, 23)
SINCE = datetime(2026, 11, 23, tzinfo=UTC)
ALWAYS = datetime(2020, 1, 1, tzinfo=UTC)


def litellm_text() -> str:
    """The installed map."""
    path = find_litellm_map()
    assert path is not None
    return path.read_text("utf-8")


def genai_text() -> str:
    """The installed list of genai-prices."""
    path = find_genai_data()
    assert path is not None
    return path.read_text("utf-8")


def read_map(text, file="map.json", at=DAY):
    return read_litellm_map(
        text, file=file, source="litellm 1.0", checked_at=at, since=start_of(at)
    )


def row_of(provider="openai", mode="chat", **fields):
    return {"litellm_provider": provider, "mode": mode} | fields


def map_of(*, key="m", **fields):
    """A map of one row, read; numbers are JSON text, so that nothing here is a float."""
    return read_map(json_text({key: row_of(**fields)}))


def json_text(value) -> str:
    """JSON in which text that begins with ``=`` is written as it is: ``=1e-06`` is a number."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {json_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(json_text, value)) + "]"
    if isinstance(value, str) and value.startswith("="):
        return value[1:]
    return json.dumps(value)


def read_genai(text, file="data.json"):
    return read_genai_prices(
        text, file=file, source="genai-prices 1.0", checked_at=DAY, since=ALWAYS
    )


def genai_of(*, provider="openai", **model):
    """A list of one model, read."""
    entry = {"id": "m", "match": {"equals": "m"}} | model
    return read_genai(json_text([{"id": provider, "models": [entry]}]))


def prices_of(candidate):
    """Prices of a candidate's only model, as people write them."""
    (model,) = candidate.models
    return {
        slot_text(rate.slot): f"{rate.amount.value:f}/{rate.amount.per}" for rate in model.rates
    }


def spans_of(candidate):
    """Dated prices of a candidate's only model: price, from, to."""
    (model,) = candidate.models
    return sorted(
        (
            slot_text(rate.slot),
            f"{rate.amount.value:f}",
            f"{rate.valid_from:%Y-%m-%d}",
            f"{rate.valid_to:%Y-%m-%d}" if rate.valid_to else "",
        )
        for rate in model.rates
    )


def reasons_of(candidate):
    return [left.reason.name for left in candidate.left_out]
