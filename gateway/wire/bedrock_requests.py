"""What requests to Bedrock have in common: tiers, guards, fields given twice, text that is sized.

Must never let a request look smaller than the provider could read it.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final
from unicodedata import is_normalized, normalize

import msgspec

from gateway.headers import RawHeaders
from gateway.wire.facts import BadRequest
from gateway.wire.splice import scan_members
from pricing.meters import Meter
from pricing.names import bedrock_base
from pricing.sku import STANDARD_TIER

# What a provider adds to a prompt by itself: framing, and the instructions that come with tools.
# The largest published for any model is 804 tokens. Source:
# https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview, checked 2026-11-23.
INPUT_TOKENS_SPARE: Final = 1024
NAME_CHARS_MAX: Final = 2048
FAST_TIER: Final = "fast"
OPTIMIZED: Final = "optimized"
# Wire words for a service tier, in the words of the catalog. What was reserved is paid for apart;
# a price for it is the operator's to set.
_TIERS: Final[Mapping[str, str]] = MappingProxyType({"default": STANDARD_TIER})
# Names whose models write to a cache without being asked to; of the others only those asked to do.
_ASKED_TO_CACHE: Final = ("anthropic.", "amazon.", "meta.", "mistral.", "cohere.", "ai21.")
_READS: Final = frozenset({Meter.INPUT, Meter.CACHE_READ, Meter.OUTPUT, Meter.REASONING})
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[0-7]")
# Models that never produce output they do not show.
_NEVER_THINKS: Final = (
    "ai21.",
    "amazon.nova-canvas",
    "amazon.nova-lite-v1",
    "amazon.nova-micro-v1",
    "amazon.nova-premier-v1",
    "amazon.nova-pro-v1",
    "amazon.titan",
    "anthropic.claude-3-5",
    "anthropic.claude-3-haiku",
    "anthropic.claude-3-opus",
    "anthropic.claude-3-sonnet",
    "anthropic.claude-instant",
    "anthropic.claude-v",
    "cohere.",
    "meta.",
    "mistral.mi",
    "stability.",
)


def model_of(names: Mapping[str, str]) -> str:
    """Read the model a path names.

    Args:
        names: What the path names.

    Returns:
        The id or ARN.

    Raises:
        BadRequest: It is longer than any.
    """
    model = names.get("model", "")
    if len(model) > NAME_CHARS_MAX:
        raise BadRequest(f"the model id is longer than {NAME_CHARS_MAX} characters")
    return model


def hides_prompt(model: str) -> bool:
    """Tell whether an id stands for a stored prompt, whose text is not in the request.

    Args:
        model: Id or ARN.

    Returns:
        Whether it is the ARN of a prompt.
    """
    return model.startswith("arn:") and ":prompt/" in model


def may_think(model: str) -> bool:
    """Tell whether a model can produce output that is billed and never shown.

    Args:
        model: Id or ARN.

    Returns:
        False only for the families known not to.

    Source:
        https://docs.aws.amazon.com/bedrock/latest/userguide/inference-reasoning.html, checked
        2026-11-23.
    """
    return not bedrock_base(model).startswith(_NEVER_THINKS)


def tier_of(service_tier: str | None, latency: str | None) -> str | None:
    """Translate what was asked for, or served, to the catalog's words.

    Args:
        service_tier: ``default``, ``priority``, ``flex`` or ``reserved``.
        latency: ``standard`` or ``optimized``.

    Returns:
        Optimized latency is the tier ``fast``; ``None`` when nothing is said.

    Source:
        https://docs.aws.amazon.com/bedrock/latest/userguide/service-tiers-inference.html and
        latency-optimized-inference.html, checked 2026-11-23.
    """
    if latency == OPTIMIZED:
        return FAST_TIER
    if service_tier is None:
        return None
    return _TIERS.get(service_tier, service_tier[:64])


def tier_served(
    service_tier: str | None, latency: str | None, tier_asked: str | None
) -> str | None:
    """Translate what was served to the catalog's words.

    Args:
        service_tier: As the answer says it.
        latency: Likewise.
        tier_asked: Tier asked for, in the catalog's words.

    Returns:
        The tier; standard where optimized latency was asked for and the answer says it was not
        given.
    """
    served = tier_of(service_tier, latency)
    if served is None and latency == "standard" and tier_asked == FAST_TIER:
        return STANDARD_TIER
    return served


def meters_of(model: str, body: bytes) -> frozenset[Meter]:
    """List the token meters a call can touch.

    Args:
        model: Id or ARN.
        body: The request; a cache that is to be written is asked for in it.

    Returns:
        Writes to a cache only where one can happen.
    """
    is_asked = b"cache" in body or _ESCAPED_ASCII.search(body) is not None
    if not is_asked and bedrock_base(model).startswith(_ASKED_TO_CACHE):
        return _READS
    return _READS | {Meter.CACHE_WRITE} | ({Meter.CACHE_WRITE_1H} if is_asked else set())


def read_header(headers: RawHeaders, name: str) -> str | None:
    """Read a header that may be given once.

    Args:
        headers: Of the request.
        name: In lower case.

    Returns:
        Its value, or ``None``.

    Raises:
        BadRequest: It is given twice, which two readers could read differently.
    """
    values = [value for key, value in headers if key == name]
    if len(values) > 1:
        raise BadRequest(f"the header {name} is given more than once; give it once")
    return values[0] if values else None


def refuse_repeats(body: bytes, single: frozenset[str]) -> None:
    """Refuse a field that is given twice, which two readers could read differently.

    Args:
        body: A valid JSON object.
        single: Names that matter.

    Raises:
        BadRequest: One of them is there more than once.
    """
    for name, count in Counter(member.name for member in scan_members(body)).items():
        if count > 1 and name in single:
            raise BadRequest(f"the request body gives {name!r} more than once; give it once")


def bytes_of(body: bytes) -> int:
    """Count the bytes a tokenizer sees: some compose the text first, and a few signs grow.

    Args:
        body: A request.

    Returns:
        Its size, or that of the composed text where it is larger.
    """
    if body.isascii():
        return len(body)  # an escaped sign is never shorter than what becomes of it
    text = body.decode("utf-8", "replace")
    if is_normalized("NFC", text):
        return len(body)
    return max(len(body), len(normalize("NFC", text).encode("utf-8", "replace")))


def bad_json(what: str, broken: Exception) -> BadRequest:
    """Say why a body is no request.

    Args:
        what: The request it should be.
        broken: What the decoder raised.

    Returns:
        To be raised.
    """
    if isinstance(broken, RecursionError):
        return BadRequest("the request body is nested too deeply")
    if isinstance(broken, msgspec.ValidationError | UnicodeDecodeError):
        return BadRequest(f"the request body is not {what}: {broken}")
    return BadRequest(f"the request body is not JSON: {broken}")


# Fields whose text is no part of a prompt.
_NOT_TEXT: Final = frozenset(
    {"role", "type", "id", "toolUseId", "tool_use_id", "format", "media_type", "anthropic_version"}
)


def texts_of(value: object) -> Iterator[str]:
    """List every text of a prompt, whatever its shape.

    Args:
        value: Decoded JSON.

    Yields:
        Texts and what numbers and names of tools come to.
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in _NOT_TEXT:
                yield from texts_of(item)
