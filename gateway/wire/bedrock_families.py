"""What a request to InvokeModel asks for, by the family of its model.

Must never take a limit from a field the family does not know.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import msgspec

from gateway.wire.facts import BadRequest
from gateway.wire.openai_answer import ABSENT, NULLS, UNREADABLE
from pricing.meters import Meter
from pricing.names import bedrock_base
from pricing.rates import NO_VARIANTS
from pricing.usage import Quantity

# More searches than any answer was seen to make; what was made is billed as the answer tells it.
SEARCHES_MAX: Final = 16
# A document of a rerank that is longer is several. Source:
# https://aws.amazon.com/bedrock/pricing/, Rerank: up to 100 documents a query, each of up to 512
# tokens with the query. Checked 2026-11-23.
_DOCUMENTS_PER_UNIT: Final = 100
_DOCUMENT_TOKENS: Final = 512

_EMBEDS: Final = (
    "amazon.titan-embed",
    "cohere.embed",
    "amazon.nova-2-multimodal-embeddings",
    "twelvelabs.marengo",
)
_DRAWS: Final = ("amazon.titan-image", "amazon.nova-canvas", "stability.")
_RANKS: Final = ("amazon.rerank", "cohere.rerank")
# Media whose price is by the second, which no answer tells.
_SECONDS: Final = ("amazon.nova-2-multimodal-embeddings", "twelvelabs.")
_TIMED: Final = re.compile(rb'"(?:video|audio|inputType|mediaSource|media_source)"')
_UNTIMED: Final = re.compile(rb'"inputType"\s*:\s*"(?:text|image|text_image)"')

_UNSIZED: Final = re.compile(
    rb'"(?:image|images|image_url|input_image|inputImage|document|video|audio|input_audio|file)"'
)
_IMAGE_SIDE: Final = 1024
_STEPS: Final = 50
_Known = Literal["text", "tool_use", "tool_result", "thinking", "redacted_thinking", "refusal"]


class _Inner(msgspec.Struct):
    type: Literal["text"]


class _Part(msgspec.Struct):
    """A part of a message that is text; a part of any other kind does not decode.

    Of a field given twice every value is checked, so no other reader can find what is not text.
    """

    type: _Known
    content: str | list[_Inner] | None = None


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None


class _NovaPart(msgspec.Struct, forbid_unknown_fields=True):
    text: str | None = None
    toolUse: msgspec.Raw = ABSENT  # noqa: N815 - on the wire
    cachePoint: msgspec.Raw = ABSENT  # noqa: N815
    reasoningContent: msgspec.Raw = ABSENT  # noqa: N815


class _NovaMessage(msgspec.Struct):
    content: list[_NovaPart] = []


class _Tool(msgspec.Struct):
    type: Literal["custom", "function"] | None = None


class _NovaConfig(msgspec.Struct):
    maxTokens: int | None = None  # noqa: N815 - on the wire
    max_new_tokens: int | None = None


class _TitanConfig(msgspec.Struct):
    maxTokenCount: int | None = None  # noqa: N815 - on the wire


class InvokeRequest(msgspec.Struct):
    """The fields of any family's request that metering needs.

    Attributes:
        messages: As Anthropic, Nova and OpenAI have them.
        system: Anthropic's and Nova's.
        tools: Anthropic's and OpenAI's.
        toolConfig: Nova's.
        max_tokens: Output limit of Anthropic, Mistral, Cohere and most others.
        max_tokens_to_sample: That of Anthropic's text completions.
        max_completion_tokens: That of OpenAI's models.
        max_gen_len: That of Llama.
        maxTokens: That of AI21's older models.
        inferenceConfig: Nova's.
        textGenerationConfig: Titan's.
        n: Number of answers.
        num_generations: Cohere's.
        numResults: AI21's.
        anthropic_version: Every Anthropic request has it.
        imageGenerationConfig: Of Nova Canvas and Titan.
        width: Of Stability's diffusion models.
        height: Likewise.
        steps: Likewise.
        samples: Likewise, number of images.
        query: Of a rerank.
        documents: Likewise.
        inputImage: Of Titan's embeddings.
        singleEmbeddingParams: Of Nova's.
    """

    messages: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    toolConfig: msgspec.Raw = ABSENT  # noqa: N815 - on the wire
    max_tokens: int | None = None
    max_tokens_to_sample: int | None = None
    max_completion_tokens: int | None = None
    max_gen_len: int | None = None
    maxTokens: int | None = None  # noqa: N815
    inferenceConfig: _NovaConfig | None = None  # noqa: N815
    textGenerationConfig: _TitanConfig | None = None  # noqa: N815
    n: int | None = None
    num_generations: int | None = None
    numResults: int | None = None  # noqa: N815
    anthropic_version: str | None = None
    imageGenerationConfig: msgspec.Raw = ABSENT  # noqa: N815
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    samples: int | None = None
    query: msgspec.Raw = ABSENT
    documents: msgspec.Raw = ABSENT
    inputImage: msgspec.Raw = ABSENT  # noqa: N815
    singleEmbeddingParams: msgspec.Raw = ABSENT  # noqa: N815


SINGLE: Final = frozenset(InvokeRequest.__struct_fields__)


class Bounds(NamedTuple):
    """What a request can come to.

    Attributes:
        is_sized: Whether the bytes of the body bound the input tokens.
        has_tokens: Whether the call counts tokens at all.
        output_max: Most output tokens of one answer; ``None`` when the model decides.
        choices: Number of answers.
        fees: Largest quantity of every meter that is not tokens.
        variants: In which make a meter is sold.
    """

    is_sized: bool
    has_tokens: bool
    output_max: int | None
    choices: int
    fees: Mapping[Meter, Quantity]
    variants: Mapping[Meter, str] = NO_VARIANTS


_NO_FEES: Final[Mapping[Meter, Quantity]] = MappingProxyType({})
_decode_messages = msgspec.json.Decoder(list[_Message]).decode
_decode_nova = msgspec.json.Decoder(list[_NovaMessage]).decode
_decode_tools = msgspec.json.Decoder(list[_Tool]).decode


def bounds_of(model: str, body: bytes, request: InvokeRequest) -> Bounds:
    """Say what a request can come to.

    Args:
        model: Id or ARN.
        body: The request.
        request: Its fields.

    Returns:
        Bounds that are never too small. Of a model whose family its name does not tell, only
        Anthropic's limit is taken, from requests that only Anthropic's models understand.

    Raises:
        BadRequest: It is priced by what no answer tells.

    Source:
        https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html, checked
        2026-11-23.
    """
    base = bedrock_base(model)
    if base.startswith(_DRAWS):
        return _drawing(base, request)
    if base.startswith(_RANKS):
        return Bounds(True, True, 0, 1, {Meter.SEARCH_UNIT: _search_units(request)})
    if base.startswith(_SECONDS) and _TIMED.search(_UNTIMED.sub(b"", body)) is not None:
        raise BadRequest(
            f"{model} is priced by the second of its audio or video, which no answer tells: "
            "this version meters its text and images only"
        )
    if base.startswith(_EMBEDS):
        return _embedding(body)
    choices = max(1, request.n or 1, request.num_generations or 1, request.numResults or 1)
    is_sized, fees = _size_of(base, body, request)
    limit = _limit_of(base, request)
    return Bounds(is_sized, True, limit if limit and limit > 0 else None, choices, fees)


def _limit_of(base: str, request: InvokeRequest) -> int | None:
    nova = request.inferenceConfig or _NovaConfig()
    titan = request.textGenerationConfig or _TitanConfig()
    limit = None
    if base.startswith("anthropic.") or request.anthropic_version is not None:
        limit = _largest(request.max_tokens, request.max_tokens_to_sample)
    elif base.startswith("amazon.nova"):
        limit = _largest(nova.maxTokens, nova.max_new_tokens)
    elif base.startswith("amazon.titan"):
        limit = titan.maxTokenCount
    elif base.startswith("meta."):
        limit = request.max_gen_len
    elif base.startswith("ai21.j2"):
        limit = request.maxTokens
    elif base.startswith(_TAKES_MAX_TOKENS):
        limit = _largest(request.max_tokens, request.max_completion_tokens)
    return limit


_TAKES_MAX_TOKENS: Final = (
    "ai21.jamba",
    "cohere.command",
    "deepseek.",
    "google.",
    "minimax.",
    "mistral.",
    "moonshot",
    "nvidia.",
    "openai.",
    "qwen.",
    "writer.",
    "xai.",
    "zai.",
)


def _largest(*limits: int | None) -> int | None:
    return max((limit for limit in limits if limit is not None), default=None)


def _size_of(
    base: str, body: bytes, request: InvokeRequest
) -> tuple[bool, Mapping[Meter, Quantity]]:
    """Tell whether the bytes bound the prompt, and what searches of the provider can come to."""
    decode: Any = _decode_nova if base.startswith("amazon.nova") else _decode_messages
    fees = _NO_FEES
    try:
        if bytes(request.messages) not in NULLS:
            decode(request.messages)
        if bytes(request.tools) not in NULLS:
            _decode_tools(request.tools)
        if b'"systemTool"' in bytes(request.toolConfig):
            return False, {Meter.WEB_SEARCH: SEARCHES_MAX}
    except UNREADABLE:
        if b"web_search" in bytes(request.tools):
            fees = {Meter.WEB_SEARCH: SEARCHES_MAX}
        return False, fees
    if bytes(request.messages) in NULLS:
        return _UNSIZED.search(body) is None, fees
    if base.startswith("amazon.nova"):
        return True, fees
    beside = body.replace(bytes(request.messages), b"", 1).replace(bytes(request.tools), b"", 1)
    return _UNSIZED.search(beside) is None, fees


class _Canvas(msgspec.Struct):
    numberOfImages: int | None = None  # noqa: N815 - on the wire
    width: int | None = None
    height: int | None = None


def _drawing(base: str, request: InvokeRequest) -> Bounds:
    """Images: so many, in a make that the size and the steps decide."""
    width, height, count = request.width, request.height, request.samples
    if bytes(request.imageGenerationConfig) not in NULLS:
        try:
            config = msgspec.json.decode(request.imageGenerationConfig, type=_Canvas)
        except UNREADABLE as wrong:
            raise BadRequest(f"imageGenerationConfig: {wrong}") from None
        width, height, count = config.width, config.height, config.numberOfImages
    fees = {Meter.IMAGE: max(1, count or 1)}
    is_small = max(width or 0, height or 0) <= _IMAGE_SIDE
    steps = "50-steps" if (request.steps or 0) <= _STEPS else "max-steps"
    variants: Mapping[Meter, str] = NO_VARIANTS
    if base.startswith("stability.stable-diffusion-xl-v0"):
        is_tiny = max(width or 512, height or 512) <= 512
        variants = {Meter.IMAGE: f"{'512x512' if is_tiny else 'maxxmax'}/{steps}"}
    elif base.startswith("stability.stable-diffusion"):
        variants = {Meter.IMAGE: f"1024x1024/{steps}"}
    elif base.startswith("amazon.nova-canvas") and is_small:
        variants = {Meter.IMAGE: "1024x1024/50-steps"}
    return Bounds(True, False, 0, 1, fees, variants)


def _embedding(body: bytes) -> Bounds:
    """Embeddings have no output; an image among them has its own fee where one is charged."""
    has_image = _UNSIZED.search(body) is not None
    fees = {Meter.IMAGE: 1} if has_image else _NO_FEES
    return Bounds(not has_image, True, 0, 1, fees)


def _search_units(request: InvokeRequest) -> int:
    """Count the searches of a rerank by what its documents can come to at most."""
    try:
        documents = msgspec.json.decode(request.documents, type=list[msgspec.Raw])
    except UNREADABLE:
        return 1
    query = len(bytes(request.query))
    pieces = sum(-(-(len(bytes(one)) + query) // _DOCUMENT_TOKENS) for one in documents)
    return max(1, -(-pieces // _DOCUMENTS_PER_UNIT))
