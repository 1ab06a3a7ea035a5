"""The usage of OpenAI's Responses API, and of the tools it runs, turned into disjoint counts.

Must never count a token twice, and never turn a missing count into zero.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from gateway.wire.facts import OtherUse
from gateway.wire.openai_answer import UNREADABLE
from gateway.wire.openai_usage import (
    TOKENS_MAX,
    CompletionDetails,
    PromptDetails,
    UsageObject,
    read_usage,
)
from gateway.wire.told_cost import COST_MAX
from pricing.meters import Meter
from pricing.usage import Basis, Quantity, Usage, unknown_usage

# What the image tool runs on unless the request says otherwise.
# Source: https://platform.openai.com/docs/api-reference/responses/create, tools of the type
# image_generation, checked 2026-11-23.
IMAGE_MODEL: Final = "gpt-image-1"
# xAI counts its bill in these. Source: https://docs.x.ai/docs/api-reference, checked 2026-11-23.
_TICKS_PER_USD: Final = 10**10

Fields = Mapping[str, Any]


def fields_of(raw: msgspec.Raw | bytes | object) -> Fields | None:
    """Read an object whose fields may be anything.

    Args:
        raw: Its JSON, or what it was read as.

    Returns:
        Its fields; ``None`` for what is not an object.
    """
    read = raw
    if isinstance(raw, (msgspec.Raw, bytes)):
        try:
            read = msgspec.json.decode(raw)
        except UNREADABLE:
            return None
    return read if isinstance(read, dict) else None


def count_of(value: object) -> int | None:
    """Read a count, however it is written.

    Args:
        value: A whole number, as a number, a float or a text.

    Returns:
        The count; ``None`` when there is none, -1 for what cannot be one.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = int(value) if value.isdecimal() and len(value) <= 20 else -1
    if isinstance(value, float):
        value = int(value) if value.is_integer() else -1
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def read_responses_usage(fields: Fields | None) -> Usage:
    """Turn the ``usage`` of a response into disjoint counts.

    Args:
        fields: The usage object: cached and written tokens are part of the input, reasoning is part
            of the output; ``None`` where it is not an object.

    Returns:
        Disjoint counts whose sums are the provider's totals, as ``read_usage``. Writes that are
        kept for twelve hours stand apart from those that are kept for thirty minutes.

    Source:
        https://platform.openai.com/docs/api-reference/responses/object, checked 2026-11-23.
    """
    if fields is None:
        return unknown_usage("usage is not an object")
    inside = fields_of(fields.get("input_tokens_details")) or {}
    outside = fields_of(fields.get("output_tokens_details")) or {}
    writes = fields_of(inside.get("cache_write_tokens_details")) or {}
    short, long = count_of(writes.get("ttl_30m_tokens")), count_of(writes.get("ttl_12h_tokens"))
    written = count_of(inside.get("cache_write_tokens"))
    if written is None and (short or long):
        written = (short or 0) + (long or 0)
    usage = read_usage(
        UsageObject(
            prompt_tokens=count_of(fields.get("input_tokens")),
            completion_tokens=count_of(fields.get("output_tokens")),
            total_tokens=count_of(fields.get("total_tokens")),
            prompt_tokens_details=PromptDetails(
                cached_tokens=count_of(inside.get("cached_tokens")),
                cache_write_tokens=written,
                audio_tokens=count_of(inside.get("audio_tokens")),
                image_tokens=count_of(inside.get("image_tokens")),
            ),
            completion_tokens_details=CompletionDetails(
                reasoning_tokens=count_of(outside.get("reasoning_tokens")),
                audio_tokens=count_of(outside.get("audio_tokens")),
            ),
        )
    )
    return _split_writes(usage, short or 0, long or 0)


def _split_writes(usage: Usage, short: int, long: int) -> Usage:
    """Set the writes apart that are kept for twelve hours, which cost twice as much."""
    written = usage.counts.get(Meter.CACHE_WRITE)
    if not long or written is None:
        return usage
    counts = dict(usage.counts)
    if short < 0 or not 0 < long <= written:
        # The dearer of the two for all of it: nobody can tell them apart.
        counts[Meter.CACHE_WRITE_12H] = counts.pop(Meter.CACHE_WRITE)
        told = f"cache writes of {short} for 30 m and {long} for 12 h are not the {written} written"
        return Usage(counts=counts, basis=Basis.ESTIMATED, flags=(*usage.flags, told))
    counts = {}
    for meter, count in usage.counts.items():
        if meter is not Meter.CACHE_WRITE:
            counts[meter] = count
            continue
        counts |= {Meter.CACHE_WRITE: written - long} if written > long else {}
        counts[Meter.CACHE_WRITE_12H] = long
    if short in (0, written - long):
        return Usage(counts=counts, basis=usage.basis, flags=usage.flags)
    told = f"cache writes of {short} for 30 m and {long} for 12 h are not the {written} written"
    return Usage(counts=counts, basis=Basis.ESTIMATED, flags=(*usage.flags, told))


def read_charge(fields: Fields | None) -> Decimal | None:
    """Read what a provider says the answer costs.

    Args:
        fields: The usage object.

    Returns:
        US dollars; ``None`` where it does not say. Where the caller's own contract with the
        provider behind an aggregator pays for the tokens, both bills together, or none.

    Source:
        https://docs.x.ai/docs/api-reference (``cost_in_usd_ticks``),
        https://openrouter.ai/docs/use-cases/usage-accounting (``cost``),
        https://docs.perplexity.ai/api-reference (``cost.total_cost``); checked 2026-11-23.
    """
    fields = fields or {}
    ticks = count_of(fields.get("cost_in_usd_ticks"))
    if ticks is not None and ticks >= 0:
        return Decimal(ticks) / _TICKS_PER_USD
    cost = fields.get("cost")
    if isinstance(cost, dict):
        return _amount_of(cost.get("total_cost"))
    charged = _amount_of(cost)
    if charged is None or fields.get("is_byok") is not True:
        return charged
    details = fields_of(fields.get("cost_details")) or {}
    beside = _amount_of(details.get("upstream_inference_cost"))
    return None if beside is None else charged + beside


def _amount_of(value: object) -> Decimal | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= COST_MAX:
        return None
    return Decimal(repr(value))


def read_searches(tools: Fields | None) -> int | None:
    """Read how many searches are billed.

    Args:
        tools: What the tools used.

    Returns:
        The number; ``None`` where it is not told.
    """
    search = fields_of((tools or {}).get("web_search")) or {}
    count = count_of(search.get("num_requests"))
    return count if count is not None and 0 <= count <= TOKENS_MAX else None


def read_images(tools: Fields | None, model: str | None) -> OtherUse | None:
    """Read what the image tool used: another model's bill in the same answer.

    Args:
        tools: What the tools used.
        model: Model of the tool, where it was named.

    Returns:
        Its use; ``None`` where it was not used.

    Source:
        https://platform.openai.com/docs/guides/tools-image-generation, checked 2026-11-23.
    """
    fields = fields_of((tools or {}).get("image_gen"))
    if not fields:
        return None
    inside = fields_of(fields.get("input_tokens_details")) or {}
    outside = fields_of(fields.get("output_tokens_details"))
    usage = read_usage(
        UsageObject(
            prompt_tokens=count_of(fields.get("input_tokens")),
            completion_tokens=count_of(fields.get("output_tokens")),
            total_tokens=count_of(fields.get("total_tokens")),
            prompt_tokens_details=PromptDetails(
                cached_tokens=count_of(fields.get("cached_tokens", inside.get("cached_tokens"))),
                image_tokens=count_of(inside.get("image_tokens")),
            ),
        )
    )
    if usage.basis is Basis.REPORTED and not usage.counts:
        return None
    return OtherUse(model=model or IMAGE_MODEL, usage=_as_images(usage, outside))


def _as_images(usage: Usage, outside: Fields | None) -> Usage:
    """Take what was put out as images, but for what the provider says is text."""
    output = int(usage.counts.get(Meter.OUTPUT, 0))
    told = None if outside is None else count_of(outside.get("text_tokens"))
    text = told if told is not None and 0 <= told <= output else 0
    counts: dict[Meter, Quantity] = dict(usage.counts)
    counts.pop(Meter.OUTPUT, None)
    counts |= {Meter.OUTPUT: text, Meter.OUTPUT_IMAGE: output - text}
    counts = {meter: count for meter, count in counts.items() if count}
    return Usage(counts=counts, basis=usage.basis, flags=usage.flags)
