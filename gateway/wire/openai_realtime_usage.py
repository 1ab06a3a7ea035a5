"""The usage of Realtime responses and of transcripts beside them, turned into disjoint counts.

Must never count a token twice, and never turn a missing count into zero.
"""

from decimal import Decimal
from typing import Final

from gateway.wire.openai_responses_usage import Fields, count_of, fields_of
from gateway.wire.openai_usage import TOKENS_MAX, PromptDetails, UsageObject, read_usage
from pricing.meters import Meter
from pricing.usage import Basis, Quantity, Usage, unknown_usage

_MEDIA: Final = (
    ("audio_tokens", Meter.INPUT_AUDIO, Meter.CACHE_READ_AUDIO),
    ("image_tokens", Meter.INPUT_IMAGE, Meter.CACHE_READ_IMAGE),
)


def read_realtime_usage(fields: Fields | None, *, by_second: bool = False) -> Usage:
    """Turn the ``usage`` of a Realtime response into disjoint counts.

    Args:
        fields: The usage object: cached tokens are part of the input, and both are split by
            modality; ``None`` where it is not an object.
        by_second: Whether the provider bills seconds of sound instead, where it tells them.

    Returns:
        Disjoint counts whose sums are the provider's totals. A contradiction keeps the totals,
        marks them ``estimated`` and says both numbers in a flag. A side without a count: unknown.

    Source:
        https://platform.openai.com/docs/api-reference/realtime-server-events/response/done: the
        usage "will correspond to billing"; https://docs.x.ai/docs/guides/voice for
        ``billable_audio_seconds``. Checked 2026-11-23.
    """
    if fields is None:
        return unknown_usage("usage is not an object")
    if by_second:
        return _read_seconds(fields.get("billable_audio_seconds"))
    tokens_in = count_of(fields.get("input_tokens"))
    tokens_out = count_of(fields.get("output_tokens"))
    total = count_of(fields.get("total_tokens"))
    if tokens_in is None or tokens_out is None or not _are_counts(tokens_in, tokens_out):
        return unknown_usage(f"usage without usable counts: input {tokens_in}, output {tokens_out}")
    contradictions: list[str] = []
    flags: list[str] = []
    if total is not None and total != tokens_in + tokens_out:
        flags.append(f"total_tokens {total} is not {tokens_in} + {tokens_out}")
    counts = _split_input(tokens_in, fields_of(fields.get("input_token_details")), contradictions)
    outside = fields_of(fields.get("output_token_details")) or {}
    audio = count_of(outside.get("audio_tokens")) or 0
    if 0 <= audio <= tokens_out:
        counts |= {Meter.OUTPUT: tokens_out - audio, Meter.OUTPUT_AUDIO: audio}
    else:
        contradictions.append(f"audio {audio} is more than the output of {tokens_out}")
        counts[Meter.OUTPUT] = tokens_out
    return Usage(
        counts={meter: count for meter, count in counts.items() if count},
        basis=Basis.ESTIMATED if contradictions else Basis.REPORTED,
        flags=(*flags, *contradictions),
    )


def read_transcript_usage(fields: Fields | None) -> Usage:
    """Turn the ``usage`` of a transcript into disjoint counts.

    Args:
        fields: The usage object, in tokens or in seconds; ``None`` where it is not an object.

    Returns:
        Disjoint counts; unknown where nothing can be read.

    Source:
        https://platform.openai.com/docs/api-reference/realtime-server-events, the event
        ``conversation.item.input_audio_transcription.completed``: billed at the price of the
        transcription model. Checked 2026-11-23.
    """
    if fields is None:
        return unknown_usage("a transcript came without its usage")
    if "seconds" in fields:
        return _read_seconds(fields["seconds"])
    inside = fields_of(fields.get("input_token_details")) or {}
    return read_usage(
        UsageObject(
            prompt_tokens=count_of(fields.get("input_tokens")),
            completion_tokens=count_of(fields.get("output_tokens")),
            total_tokens=count_of(fields.get("total_tokens")),
            prompt_tokens_details=PromptDetails(audio_tokens=count_of(inside.get("audio_tokens"))),
        )
    )


def _are_counts(*values: int) -> bool:
    return all(0 <= value <= TOKENS_MAX for value in values)


def _read_seconds(value: object) -> Usage:
    """Read a length, exactly as it is written."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value < TOKENS_MAX:  # type: ignore[operator] # is a number
        return unknown_usage(f"a length that cannot be read: {str(value)[:40]}")
    seconds = Decimal(repr(value))
    counts: dict[Meter, Quantity] = {Meter.AUDIO_SECOND: seconds} if seconds else {}
    return Usage(counts=counts, basis=Basis.REPORTED)


def _split_input(
    total: int, inside: Fields | None, contradictions: list[str]
) -> dict[Meter, Quantity]:
    """Part the input by modality, and each by whether it was cached."""
    inside = inside or {}
    cached = count_of(inside.get("cached_tokens")) or 0
    told = fields_of(inside.get("cached_tokens_details"))
    counts: dict[Meter, Quantity] = {}
    text, cached_text = total, cached
    for name, fresh_meter, cached_meter in _MEDIA:
        count = count_of(inside.get(name)) or 0
        text -= count
        counts[fresh_meter] = count
        part = (count_of(told.get(name)) or 0) if told is not None else 0
        counts[cached_meter] = part
        cached_text -= part
    if told is None and cached_text > text >= 0:
        # Nothing says what was cached: what cannot be text is sound first, then images.
        for _, fresh_meter, cached_meter in _MEDIA:
            part = min(int(counts[fresh_meter]), cached_text - text)
            counts[cached_meter] = part
            cached_text -= part
    for _, fresh_meter, cached_meter in _MEDIA:
        counts[fresh_meter] -= counts[cached_meter]
    counts |= {Meter.INPUT: text - cached_text, Meter.CACHE_READ: cached_text}
    if min(counts.values()) >= 0:
        return counts
    contradictions.append(
        f"input parts contradict the total: cached {cached}, text {text} left of {total}"
    )
    if 0 <= cached <= total:
        return {Meter.INPUT: total - cached, Meter.CACHE_READ: cached}
    return {Meter.INPUT: total}
