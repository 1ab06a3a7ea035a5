"""Gemini's usage metadata, turned into disjoint counts.

Must never count a token twice, and never turn a missing count into zero where nothing says so.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from gateway.wire.openai_usage import TOKENS_MAX
from pricing.meters import Meter
from pricing.usage import Basis, Usage, unknown_usage

_DIGITS_MAX: Final = 19

# What is not text; documents are read as text and have no price of their own. With
# ``enum-encoding=int`` the wire has numbers. The order is that of `_share_cached`.
# Source: https://ai.google.dev/api/generate-content#Modality, checked 2026-11-23.
_MODALITIES: Final[Mapping[object, str]] = MappingProxyType(
    {"VIDEO": "video", 3: "video", "IMAGE": "image", 2: "image", "AUDIO": "audio", 4: "audio"}
)
_MEDIA: Final = ("video", "image", "audio")
_FRESH: Final = MappingProxyType(
    {"video": Meter.INPUT_VIDEO, "image": Meter.INPUT_IMAGE, "audio": Meter.INPUT_AUDIO}
)
_CACHED: Final = MappingProxyType(
    {
        "video": Meter.CACHE_READ_VIDEO,
        "image": Meter.CACHE_READ_IMAGE,
        "audio": Meter.CACHE_READ_AUDIO,
    }
)
_MADE: Final = MappingProxyType(
    {"video": Meter.OUTPUT_VIDEO, "image": Meter.OUTPUT_IMAGE, "audio": Meter.OUTPUT_AUDIO}
)

# Counts inside another one: unreadable, they leave the whole known.
_INSIDE: Final = ("cachedContentTokenCount", "total_cached_tokens")

Media = Mapping[str, int]
_NO_MEDIA: Final[Media] = MappingProxyType({})


class UsageParts(NamedTuple):
    """What a usage object says, whatever its names are on the wire.

    Attributes:
        prompt: All input but tool results, cached tokens included; ``None`` when missing, as all.
        cached: Read from a cache, part of the prompt.
        tools: Results of tools fed back, on top of the prompt.
        output: Visible output.
        thoughts: Thinking, on top of the visible output.
        total: Sum of prompt, tools, output and thoughts.
        prompt_media: Tokens of the prompt that are not text.
        cached_media: Cached tokens that are not text; ``None`` when the wire does not split them.
        tools_media: Tokens of tool results that are not text.
        output_media: Tokens of the visible output that are not text.
        odd: What could not be read, in words.
    """

    prompt: int | None
    cached: int | None
    tools: int | None
    output: int | None
    thoughts: int | None
    total: int | None
    prompt_media: Media = _NO_MEDIA
    cached_media: Media | None = None
    tools_media: Media = _NO_MEDIA
    output_media: Media = _NO_MEDIA
    odd: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was counted: some chunks hold only the kind of traffic."""
        return all(n is None for n in self[:6]) and not self.odd


def number_of(value: object) -> int | None:
    """Read a count, however it is written.

    Args:
        value: As JSON has it.

    Returns:
        The whole number; ``None`` for anything else.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        digits = value.removeprefix("-")
        if digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX:
            return int(value)
        return None
    return value if isinstance(value, int) else None


def read_counts(
    raw: Mapping[str, object], names: Iterable[str], odd: list[str]
) -> list[int | None]:
    """Read counts by name; what is there and is no count is noted.

    Args:
        raw: A usage object.
        names: Of the counts; several for one, parted by ``|``, where APIs spell it differently.
        odd: Takes what could not be read, in words.

    Returns:
        One per name; ``None`` for what is missing.
    """
    counts: list[int | None] = []
    for name in names:
        count = None
        for spelling in name.split("|"):
            value = raw.get(spelling)
            if value is None:
                continue
            count = number_of(value)
            if count is None or not 0 <= count <= TOKENS_MAX:
                odd.append(f"{spelling} is no count: {str(value)[:40]}")
                count = None
            break
        counts.append(count)
    return counts


def read_media(details: object, count_name: str) -> Media | None:
    """Read how many tokens are not text.

    Args:
        details: A list of modalities and counts.
        count_name: What the count is called there.

    Returns:
        Tokens by medium; ``None`` where the wire does not split them, or not readably.
    """
    if not isinstance(details, list):
        return None
    media: dict[str, int] = {}
    for one in details:
        if not isinstance(one, dict):
            continue
        modality = one.get("modality")
        medium = _MODALITIES.get(modality.upper() if isinstance(modality, str) else modality)
        count = number_of(one.get(count_name))
        if medium is not None and count is not None and 0 < count <= TOKENS_MAX:
            media[medium] = media.get(medium, 0) + count
    return media


def parts_of(raw: Mapping[str, object]) -> UsageParts:
    """Read the usage metadata of an answer.

    Args:
        raw: ``usageMetadata`` as decoded.

    Returns:
        What it says. Live sessions and embeddings spell some names differently.

    Source:
        https://ai.google.dev/api/generate-content#UsageMetadata, checked 2026-11-23.
    """
    odd: list[str] = []
    counts = read_counts(
        raw,
        (
            "promptTokenCount",
            "cachedContentTokenCount",
            "toolUsePromptTokenCount",
            "candidatesTokenCount|responseTokenCount",
            "thoughtsTokenCount",
            "totalTokenCount",
        ),
        odd,
    )
    return UsageParts(
        prompt=counts[0],
        cached=counts[1],
        tools=counts[2],
        output=counts[3],
        thoughts=counts[4],
        total=counts[5],
        prompt_media=_media_of(raw, "promptTokensDetails", "promptTokenDetails"),
        cached_media=read_media(raw.get("cacheTokensDetails"), "tokenCount"),
        tools_media=_media_of(raw, "toolUsePromptTokensDetails"),
        output_media=_media_of(raw, "candidatesTokensDetails", "responseTokensDetails"),
        odd=tuple(odd),
    )


def _media_of(raw: Mapping[str, object], *names: str) -> Media:
    return next((m for name in names if (m := read_media(raw.get(name), "tokenCount"))), _NO_MEDIA)


def read_usage(parts: UsageParts) -> Usage:
    """Turn what a usage object says into disjoint counts.

    Args:
        parts: As the provider sent them: cached tokens are part of the prompt, tool results and
            thinking come on top.

    Returns:
        Disjoint counts whose sum is the provider's total. Where the total is not the sum of its
        parts, the parts are billed and a flag says so. A contradiction inside a part keeps the
        part, marks the counts ``estimated`` and says both numbers. Without a count of the prompt:
        unknown.

    Source:
        https://ai.google.dev/api/generate-content#UsageMetadata: counts that are zero are left out,
        as proto3 JSON does. Checked 2026-11-23.
    """
    prompt, output, total = parts.prompt, parts.output, parts.total
    tools, thoughts = parts.tools or 0, parts.thoughts or 0
    flags: list[str] = []
    if prompt is None and total is not None and not parts.odd:
        prompt = total - tools - thoughts - (output or 0)
        flags.append(f"promptTokenCount is missing: {prompt} is what the total leaves")
    if prompt is None or prompt < 0 or not all(one.startswith(_INSIDE) for one in parts.odd):
        return unknown_usage(
            f"usage without usable counts: prompt {parts.prompt}, total {total}"
            + "".join(f", {one}" for one in parts.odd)
        )
    if output is None:
        output = max(0, (total or 0) - prompt - tools - thoughts)
        if output:
            flags.append(f"candidatesTokenCount is missing: {output} is what the total leaves")
    if total is not None and total != prompt + tools + output + thoughts:
        flags.append(f"totalTokenCount {total} is not {prompt} + {tools} + {output} + {thoughts}")
    contradictions: list[str] = [*parts.odd]
    counts = _split_prompt(prompt, parts.cached or 0, parts, contradictions)
    for meter, count in _split(tools, parts.tools_media, Meter.INPUT, _FRESH, contradictions):
        counts[meter] = counts.get(meter, 0) + count
    counts.update(_split(output, parts.output_media, Meter.OUTPUT, _MADE, contradictions))
    counts[Meter.REASONING] = thoughts
    return Usage(
        counts={meter: count for meter, count in counts.items() if count},
        basis=Basis.ESTIMATED if contradictions else Basis.REPORTED,
        flags=(*flags, *contradictions),
    )


def _split(
    count: int, media: Media, text: Meter, meters: Mapping[str, Meter], contradictions: list[str]
) -> list[tuple[Meter, int]]:
    """Part a count by medium; what no medium claims is text."""
    if not media:
        return [(text, count)]
    rest = count - sum(media.values())
    if rest < 0:
        contradictions.append(f"details contradict the count: {_say(media)} of {count}")
        return [(text, count)]
    return [(text, rest), *((meters[medium], n) for medium, n in media.items())]


def _split_prompt(
    prompt: int, cached: int, parts: UsageParts, contradictions: list[str]
) -> dict[Meter, int]:
    media = parts.prompt_media
    if cached > prompt:
        contradictions.append(f"cached {cached} is more than the prompt of {prompt}")
        return {Meter.INPUT: prompt}
    plain = {Meter.INPUT: prompt - cached, Meter.CACHE_READ: cached}
    if not media and not parts.cached_media:
        return plain  # nearly every answer
    told = parts.cached_media if cached else _NO_MEDIA
    if not media:
        media = told or _NO_MEDIA
    text = prompt - sum(media.values())
    if told is None:
        told = _share_cached(cached - max(0, min(cached, text)), media)
    cached_text = cached - sum(told.values())
    if (
        min(text, cached_text) < 0
        or cached_text > text
        or any(n > media.get(medium, 0) for medium, n in told.items())
    ):
        contradictions.append(
            f"details contradict the prompt: {_say(media)} of {prompt}, cached {_say(told)} "
            f"of {cached}"
        )
        return plain
    counts = {Meter.INPUT: text - cached_text}
    counts.update({_FRESH[medium]: n - told.get(medium, 0) for medium, n in media.items()})
    counts[Meter.CACHE_READ] = cached_text
    counts.update({_CACHED[medium]: n for medium, n in told.items()})
    return counts


def _share_cached(rest: int, media: Media) -> dict[str, int]:
    """Share cached tokens that cannot be text among the media, the dearest to read anew last."""
    shared: dict[str, int] = {}
    for medium in _MEDIA:
        taken = min(rest, media.get(medium, 0))
        if taken > 0:
            shared[medium] = taken
            rest -= taken
    return shared


def _say(media: Media) -> str:
    return " + ".join(f"{medium} {n}" for medium, n in media.items()) or "text"
