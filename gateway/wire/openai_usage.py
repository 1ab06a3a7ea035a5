"""OpenAI's usage object, turned into disjoint counts.

Must never count a token twice, and never turn a missing count into zero.
"""

from typing import Final

import msgspec

from pricing.meters import Meter
from pricing.usage import Basis, Quantity, Usage, unknown_usage

# Far above any context; a larger count is an error, and its cost might not fit 64 bits.
TOKENS_MAX: Final = 10**10


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
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


def read_usage(raw: UsageObject) -> Usage:
    """Turn a usage object into disjoint counts.

    Args:
        raw: As the provider sent it: cached and written tokens are part of the prompt, reasoning
            and audio are part of the completion.

    Returns:
        Disjoint counts whose sums are the provider's totals. A contradiction keeps the totals,
        marks them ``estimated`` and says both numbers in a flag. A side without a count: unknown.

    Source:
        OpenAI ``CompletionUsage`` types; xAI leaves reasoning out of ``completion_tokens``, which
        shows in the total. Checked 2026-11-23.
    """
    prompt, completion = raw.prompt_tokens, raw.completion_tokens
    if completion is None and prompt is not None and raw.total_tokens is not None:
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
    flags: list[str] = []
    contradictions: list[str] = []
    if raw.total_tokens is not None and raw.total_tokens != prompt + completion:
        if reasoning > 0 and raw.total_tokens == prompt + completion + reasoning:
            completion += reasoning
        else:
            flags.append(f"total_tokens {raw.total_tokens} is not {prompt} + {completion}")
            # Some leave thinking out of the completion and in the total: the total is billed.
            completion = max(completion, min(raw.total_tokens - prompt, TOKENS_MAX))
    counts = _split_prompt(prompt, inside, contradictions) | _split_completion(
        completion, reasoning, outside.audio_tokens or 0, contradictions
    )
    return Usage(
        counts={meter: count for meter, count in counts.items() if count},
        basis=Basis.ESTIMATED if contradictions else Basis.REPORTED,
        flags=(*flags, *contradictions),
    )


def _split_prompt(
    prompt: int, inside: PromptDetails, contradictions: list[str]
) -> dict[Meter, Quantity]:
    cached, written = inside.cached_tokens or 0, inside.cache_write_tokens or 0
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
