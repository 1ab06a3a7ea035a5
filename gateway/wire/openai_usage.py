"""OpenAI's usage object, turned into disjoint counts.

Must never count a token twice, and never turn a missing count into zero.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from pricing.meters import Meter
from pricing.usage import Basis, Quantity, Usage, unknown_usage

# Far above any context; a larger count is an error, and its cost might not fit 64 bits.
TOKENS_MAX: Final = 10**10
_DETAILS: Final = ("prompt_tokens_details", "completion_tokens_details")
_NO_OTHERS: Final = (None, None, None)


class PromptDetails(msgspec.Struct):
    """Parts of the prompt; each is inside ``prompt_tokens``.

    Attributes:
        cached_tokens: Read from the provider's cache.
        cache_write_tokens: Written to it.
        audio_tokens: Audio.
        image_tokens: Images.
    """

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """Parts of the completion; each is inside ``completion_tokens``, but see ``read_usage``.

    Attributes:
        reasoning_tokens: Thought, not shown.
        audio_tokens: Audio.
    """

    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class UsageObject(msgspec.Struct):
    """The ``usage`` of a chat completion, as far as it is billed.

    Attributes:
        prompt_tokens: All input; ``None`` when missing, like the rest.
        completion_tokens: All output.
        total_tokens: Their sum, as the provider counts.
        prompt_tokens_details: Parts of the prompt.
        completion_tokens_details: Parts of the completion.
        cached_tokens: Read from the cache, as Moonshot, Together and Anthropic's compatible
            address spell it. The next two likewise.
        num_cached_tokens: As Mistral spelt it.
        prompt_cache_hit_tokens: As DeepSeek spells it.
        reasoning_tokens: Thought, as Perplexity spells it.
        prompt_audio_seconds: Audio heard, as Mistral bills it.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
    cached_tokens: int | None = None
    num_cached_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None
    reasoning_tokens: int | None = None
    prompt_audio_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """How a provider counts where its numbers alone do not tell.

    Attributes:
        thinks_outside: Reasoning is not part of the completion unless the total says that it is.
        thinks_beside: Reasoning stands beside the completion and in no total.
        has_no_output: There is nothing but input, and some tell the total alone.
        total_has_thought: What the total has beyond prompt and completion is reasoning.
    """

    thinks_outside: bool = False
    thinks_beside: bool = False
    has_no_output: bool = False
    total_has_thought: bool = False


OPENAI_COUNTING: Final = Counting()


def read_usage(raw: UsageObject, counting: Counting = OPENAI_COUNTING) -> Usage:
    """Turn a usage object into disjoint counts.

    Args:
        raw: As the provider sent it: cached and written tokens are part of the prompt, reasoning
            and audio are part of the completion.
        counting: What else is known of the provider's way to count.

    Returns:
        Disjoint counts whose sums are the provider's totals. A contradiction keeps the totals,
        marks them ``estimated`` and says both numbers in a flag. A side without a count: unknown.

    Source:
        https://platform.openai.com/docs/api-reference/chat/object;
        https://docs.x.ai/docs/api-reference, whose ``completion_tokens`` leave reasoning out, which
        shows in the total; https://api-docs.deepseek.com/api/create-chat-completion;
        https://docs.mistral.ai/api; https://platform.moonshot.ai/docs. Checked 2026-11-23.
    """
    prompt, completion = raw.prompt_tokens, raw.completion_tokens
    if counting.has_no_output:
        prompt = raw.total_tokens if prompt is None else prompt
        completion = completion or 0
    elif completion is None and prompt is not None and raw.total_tokens is not None:
        completion = raw.total_tokens - prompt
    if (
        prompt is None
        or completion is None
        or not 0 <= prompt <= TOKENS_MAX
        or not 0 <= completion <= TOKENS_MAX
    ):
        return unknown_usage(
            f"usage without usable counts: prompt {prompt}, completion {completion}, "
            f"total {raw.total_tokens}"
        )
    inside = raw.prompt_tokens_details or PromptDetails()
    outside = raw.completion_tokens_details or CompletionDetails()
    reasoning = outside.reasoning_tokens or 0
    seconds = raw.prompt_audio_seconds or 0
    flags: list[str] = []
    contradictions: list[str] = []
    beyond = 0 if raw.total_tokens is None else raw.total_tokens - prompt - completion
    if raw.total_tokens is None:
        completion += reasoning if counting.thinks_outside else 0
    # Mistral's total holds what it hears, and that is billed by the second.
    elif beyond and not seconds:
        if beyond == reasoning:
            completion += reasoning
        elif counting.total_has_thought and beyond > 0 and not reasoning:
            reasoning = beyond
            completion = min(completion + beyond, TOKENS_MAX)
        else:
            flags.append(f"total_tokens {raw.total_tokens} is not {prompt} + {completion}")
            # Some leave thinking out of the completion and in the total: the total is billed.
            completion = max(completion, min(raw.total_tokens - prompt, TOKENS_MAX))
    if counting.thinks_beside and raw.reasoning_tokens:
        reasoning += raw.reasoning_tokens
        completion += raw.reasoning_tokens
    counts = _split_prompt(prompt, _cached_of(raw, contradictions), inside, contradictions)
    counts |= _split_completion(completion, reasoning, outside.audio_tokens or 0, contradictions)
    if 0 < seconds <= TOKENS_MAX:
        counts[Meter.AUDIO_SECOND] = seconds
    return Usage(
        counts={meter: count for meter, count in counts.items() if count},
        basis=Basis.ESTIMATED if contradictions else Basis.REPORTED,
        flags=(*flags, *contradictions),
    )


def read_odd_usage(raw: bytes) -> UsageObject:
    """Read a usage object some of whose fields are not what they should be.

    Args:
        raw: JSON.

    Returns:
        The counts that can be read; the others are missing.
    """
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return UsageObject()
    if not isinstance(fields, dict):
        return UsageObject()
    inside, outside = (fields.pop(name, None) for name in _DETAILS)
    return UsageObject(
        prompt_tokens_details=PromptDetails(**_counts_in(inside, PromptDetails)),
        completion_tokens_details=CompletionDetails(**_counts_in(outside, CompletionDetails)),
        **_counts_in(fields, UsageObject),
    )


def whole_of(value: object) -> int | None:
    """Read a count, however it is spelt.

    Args:
        value: As decoded.

    Returns:
        Whole numbers, also those written as text or with a fraction of zero; ``None`` for the rest.
    """
    if isinstance(value, str):
        value = value.strip()
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value == value // 1 else None


def _counts_in(fields: object, shape: type[msgspec.Struct]) -> dict[str, Any]:
    if not isinstance(fields, dict):
        return {}
    found = {name: whole_of(fields.get(name)) for name in shape.__struct_fields__}
    return {name: count for name, count in found.items() if count is not None}


def _cached_of(raw: UsageObject, contradictions: list[str]) -> int:
    """Cached tokens, in whichever field the provider has them; the fewest where they differ."""
    inside = raw.prompt_tokens_details
    own = None if inside is None else inside.cached_tokens
    others = (raw.cached_tokens, raw.num_cached_tokens, raw.prompt_cache_hit_tokens)
    if others == _NO_OTHERS:
        return own or 0
    told = {count for count in (own, *others) if count}
    if len(told) > 1:
        contradictions.append(f"cached tokens differ: {', '.join(map(str, sorted(told)))}")
    return min(told, default=0)


def _split_prompt(
    prompt: int, cached: int, inside: PromptDetails, contradictions: list[str]
) -> dict[Meter, Quantity]:
    written = inside.cache_write_tokens or 0
    audio, image = inside.audio_tokens or 0, inside.image_tokens or 0
    plain = prompt - cached - written
    if not (audio or image) and cached >= 0 and written >= 0 and plain >= 0:
        # Nearly every answer.
        return {Meter.INPUT: plain, Meter.CACHE_READ: cached, Meter.CACHE_WRITE: written}
    if min(cached, written, audio, image) < 0 or plain < 0 or audio + image > prompt:
        contradictions.append(
            f"prompt parts contradict the total: cached {cached}, written {written}, "
            f"audio {audio}, image {image} of {prompt}"
        )
        return {Meter.INPUT: prompt}
    # Audio or images that do not fit beside the cached tokens were cached themselves.
    cached_audio = min(cached, max(0, audio - plain))
    cached_image = min(cached - cached_audio, max(0, audio + image - plain - cached_audio))
    fresh_audio, fresh_image = audio - cached_audio, image - cached_image
    if fresh_audio + fresh_image > plain:
        contradictions.append(
            f"prompt parts contradict the total: cache writes {written} leave no room for "
            f"audio {audio} and image {image} of {prompt}"
        )
        return {Meter.INPUT: prompt}
    return {
        Meter.INPUT: plain - fresh_audio - fresh_image,
        Meter.INPUT_AUDIO: fresh_audio,
        Meter.INPUT_IMAGE: fresh_image,
        Meter.CACHE_READ: cached - cached_audio - cached_image,
        Meter.CACHE_READ_AUDIO: cached_audio,
        Meter.CACHE_READ_IMAGE: cached_image,
        Meter.CACHE_WRITE: written,
    }


def _split_completion(
    completion: int, reasoning: int, audio: int, contradictions: list[str]
) -> dict[Meter, Quantity]:
    if reasoning < 0 or audio < 0 or reasoning + audio > completion:
        contradictions.append(
            f"completion parts contradict the total: reasoning {reasoning}, audio {audio} "
            f"of {completion}"
        )
        return {Meter.OUTPUT: completion}
    return {
        Meter.OUTPUT: completion - reasoning - audio,
        Meter.OUTPUT_AUDIO: audio,
        Meter.REASONING: reasoning,
    }
