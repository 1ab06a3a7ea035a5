"""Requests of Gemini's ``generateContent``: the most they can come to.

Must never find a bound that is too small.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from gateway.wire.facts import Asked, BadRequest, RequestFacts
from gateway.wire.google_request import (
    INPUT_TOKENS_SPARE,
    decode_body,
    has_escapes,
    model_of,
    plain_spelling,
    refuse_masks,
    refuse_other_model,
    refuse_repeats,
    region_of_location,
    snake_of,
)
from gateway.wire.openai_answer import ABSENT, NULLS, UNREADABLE
from pricing.meters import Meter
from pricing.rates import NO_VARIANTS
from pricing.sku import STANDARD_TIER
from pricing.usage import Quantity

# Google publishes no limit; no answer seen came near it.
SEARCHES_MAX: Final = 100

TEXT_METERS: Final = frozenset({Meter.INPUT, Meter.CACHE_READ, Meter.OUTPUT, Meter.REASONING})
MEDIA_INPUT_METERS: Final = frozenset(
    {
        Meter.INPUT_AUDIO,
        Meter.INPUT_IMAGE,
        Meter.INPUT_VIDEO,
        Meter.CACHE_READ_AUDIO,
        Meter.CACHE_READ_IMAGE,
        Meter.CACHE_READ_VIDEO,
    }
)
# Some models make images or sound without being asked to, so only a request for text rules it out.
MEDIA_OUTPUT_METERS: Final = frozenset({Meter.OUTPUT_AUDIO, Meter.OUTPUT_IMAGE, Meter.OUTPUT_VIDEO})
NO_FEES: Final[Mapping[Meter, Quantity]] = MappingProxyType({})
_MAPS: Final = MappingProxyType({Meter.WEB_SEARCH: "google_maps"})
_TEXT_ONLY: Final = (["TEXT"], ["text"], [1])

_SINGLE: Final = (
    "model",
    "contents",
    "systemInstruction",
    "generationConfig",
    "tools",
    "cachedContent",
    "serviceTier",
)
_SINGLE_CONFIG: Final = (
    "maxOutputTokens",
    "candidateCount",
    "responseModalities",
    "routingConfig",
    "modelSelectionConfig",
)
# One pass over the body: quoted names that must be given once.
_NOTABLE: Final = re.compile(
    rb'"(?:model|contents|systemInstruction|system_instruction|generationConfig|generation_config'
    rb"|tools|cachedContent|cached_content|serviceTier|service_tier|maxOutputTokens"
    rb"|max_output_tokens|candidateCount|candidate_count|responseModalities|response_modalities"
    rb'|routingConfig|routing_config|modelSelectionConfig|model_selection_config)"'
)
# And those of what its bytes do not bound. Quotes inside a text are escaped, so a text never has
# them; a schema that has them is taken for more than it is.
_UNSIZED: Final = re.compile(rb'"(?:inlineData|inline_data|fileData|file_data)"')


# Tools of the provider's that are charged by use.
_MAPS_TOOLS: Final = frozenset({"google_maps"})
_SEARCH_TOOLS: Final = _MAPS_TOOLS | {
    "google_search",
    "google_search_retrieval",
    "enterprise_web_search",
}


class _Fields(
    msgspec.Struct,
    rename={
        "system": "systemInstruction",
        "system_snake": "system_instruction",
        "config": "generationConfig",
        "config_snake": "generation_config",
        "cached": "cachedContent",
        "cached_snake": "cached_content",
        "tier": "serviceTier",
        "tier_snake": "service_tier",
    },
):
    """A request, every field in both spellings."""

    model: str | None = None
    contents: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    system_snake: msgspec.Raw = ABSENT
    config: msgspec.Raw = ABSENT
    config_snake: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    cached: msgspec.Raw = ABSENT
    cached_snake: msgspec.Raw = ABSENT
    tier: str | int | None = None
    tier_snake: str | int | None = None


class _Config(
    msgspec.Struct,
    rename={
        "limit": "maxOutputTokens",
        "limit_snake": "max_output_tokens",
        "choices": "candidateCount",
        "choices_snake": "candidate_count",
        "modalities": "responseModalities",
        "modalities_snake": "response_modalities",
        "routing": "routingConfig",
        "routing_snake": "routing_config",
        "selection": "modelSelectionConfig",
        "selection_snake": "model_selection_config",
    },
):
    limit: int | None = None
    limit_snake: int | None = None
    choices: int | None = None
    choices_snake: int | None = None
    modalities: list[str | int] | None = None
    modalities_snake: list[str | int] | None = None
    routing: msgspec.Raw = ABSENT
    routing_snake: msgspec.Raw = ABSENT
    selection: msgspec.Raw = ABSENT
    selection_snake: msgspec.Raw = ABSENT


class _Part(
    msgspec.Struct,
    forbid_unknown_fields=True,
    gc=False,
    rename={
        "signature": "thoughtSignature",
        "signature_snake": "thought_signature",
        "call": "functionCall",
        "call_snake": "function_call",
        "response": "functionResponse",
        "response_snake": "function_response",
        "code": "executableCode",
        "code_snake": "executable_code",
        "result": "codeExecutionResult",
        "result_snake": "code_execution_result",
    },
):
    """A part whose tokens its bytes bound; any other does not decode."""

    text: str | None = None
    thought: bool | None = None
    signature: str | None = None
    signature_snake: str | None = None
    call: msgspec.Raw = ABSENT
    call_snake: msgspec.Raw = ABSENT
    response: msgspec.Raw = ABSENT
    response_snake: msgspec.Raw = ABSENT
    code: msgspec.Raw = ABSENT
    code_snake: msgspec.Raw = ABSENT
    result: msgspec.Raw = ABSENT
    result_snake: msgspec.Raw = ABSENT


class _Content(msgspec.Struct, gc=False):
    # Google's parser takes a single message or part where a list belongs.
    parts: list[_Part] | _Part | None = None


_fields: Final = msgspec.json.Decoder(_Fields)
_config: Final = msgspec.json.Decoder(_Config, strict=False)
_decode_contents: Final = msgspec.json.Decoder(list[_Content] | _Content).decode
_decode_content: Final = msgspec.json.Decoder(_Content).decode
_tools: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | dict[str, msgspec.Raw])
_OWN_TOOLS: Final = frozenset({"function_declarations"})
_NO_CONFIG: Final = _Config()


def read_facts(asked: Asked, *, stream: bool) -> RequestFacts:
    """Read what metering needs of a request for content.

    Args:
        asked: The request as it came; its address names the model.
        stream: Whether the address asks for a stream.

    Returns:
        The facts; bounds are never too small. The output limit holds thinking too.

    Raises:
        BadRequest: Not JSON, not an object, a field of the wrong type, a field given twice in
            either spelling, or something that would make the answer cost what it does not tell.

    Source:
        https://ai.google.dev/api/generate-content, checked 2026-11-23. That ``maxOutputTokens``
        bounds thinking and visible output together: googleapis/python-genai issues 811 and 2062.
    """
    body = asked.body
    refuse_masks(asked)
    request = decode_body(body, _fields, "a request for content")
    plain = body
    notable = [name.replace(b"_", b"").lower() for name in _NOTABLE.findall(body)]
    may_repeat = len(notable) > len(set(notable))
    if has_escapes(body):
        plain, may_repeat = plain_spelling(body), True
    if may_repeat:
        refuse_repeats(body, _SINGLE)
    model = model_named(asked.names)
    refuse_other_model(request.model, model)
    config = _read_config(_either(request.config, request.config_snake), may_repeat=may_repeat)
    is_sized = (
        _UNSIZED.search(plain) is None
        and bytes(_either(request.cached, request.cached_snake)) in NULLS
        and _are_sized(request)
    )
    tools = _read_tools(request.tools)
    searching = tools & _SEARCH_TOOLS
    choices = max(1, config.choices or config.choices_snake or 1)
    limit = config.limit or config.limit_snake or 0
    is_plain = is_sized and not tools
    meters = TEXT_METERS if is_plain else TEXT_METERS | MEDIA_INPUT_METERS
    if (config.modalities or config.modalities_snake) not in _TEXT_ONLY:
        meters = meters | MEDIA_OUTPUT_METERS
    return RequestFacts(
        model=model,
        stream=stream,
        wants_usage=True,
        tier=tier_asked(asked, request.tier if request.tier_snake is None else request.tier_snake),
        input_tokens_max=len(body) + INPUT_TOKENS_SPARE if is_plain else None,
        output_tokens_max=limit * choices if limit > 0 else None,
        choices=choices,
        extra_output_max=0,
        meters=meters,
        fees={Meter.WEB_SEARCH: SEARCHES_MAX * choices} if searching else NO_FEES,
        variants=_MAPS if searching == _MAPS_TOOLS else NO_VARIANTS,
        region=region_of_location(asked.names),
    )


def model_named(names: Mapping[str, str]) -> str:
    """Name the model of an address as the price book does.

    Args:
        names: What the address names: a model, a tuned model, or an endpoint of a tuned model.

    Returns:
        The model; ``tunedModels/x`` or ``endpoints/x`` for those that were tuned.

    Raises:
        BadRequest: The name is too long.
    """
    if "tuned" in names:
        return model_of(f"tunedModels/{names['tuned']}")
    if "endpoint" in names:
        return model_of(f"endpoints/{names['endpoint']}")
    return model_of(names.get("model", ""))


def tier_asked(asked: Asked, tier: str | int | None) -> str:
    """Find the service tier a request asks for.

    Args:
        asked: The request; on Vertex AI a header says it.
        tier: What its body says.

    Returns:
        In catalog words; Google serves at the standard tier unless asked.

    Raises:
        BadRequest: Two tiers are asked for, of which the provider could take either.

    Source:
        https://ai.google.dev/gemini-api/docs/flex-inference and
        https://cloud.google.com/vertex-ai/generative-ai/docs/priority-paygo, checked 2026-11-23.
    """
    words = {str(tier or "").lower().removeprefix("service_tier_")}
    for name, value in asked.headers:
        if name == "x-vertex-ai-llm-shared-request-type":
            words.add(value.strip().lower())
    named = [word[:32] for word in words if word not in ("", "unspecified", "default")]
    if len(named) > 1:
        raise BadRequest(f"the service tier is asked for as {' and as '.join(sorted(named))}")
    return named[0] if named else STANDARD_TIER


def _either(one: msgspec.Raw, other: msgspec.Raw) -> msgspec.Raw:
    """Take the spelling that was given; both at once have been refused."""
    return one if other is ABSENT else other


def _read_config(raw: msgspec.Raw, *, may_repeat: bool) -> _Config:
    given = bytes(raw)
    if given in NULLS:
        return _NO_CONFIG
    if may_repeat:
        refuse_repeats(given, _SINGLE_CONFIG)
    config = decode_body(given, _config, "a generationConfig")
    for routing in (config.routing, config.routing_snake, config.selection, config.selection_snake):
        if bytes(routing) not in NULLS:
            raise BadRequest("routingConfig lets another model answer: name the one to call")
    return config


def _are_sized(request: _Fields) -> bool:
    """Tell whether every part of the prompt is of a kind whose bytes bound its tokens."""
    system = bytes(_either(request.system, request.system_snake))
    try:
        if bytes(request.contents) not in NULLS:
            _decode_contents(request.contents)
        if system not in NULLS:
            _decode_content(system)
    except UNREADABLE:
        return False
    return True


def _read_tools(raw: msgspec.Raw) -> frozenset[str]:
    """Name the tools that the provider runs itself, as its proto spells them."""
    given = bytes(raw)
    if given in NULLS:
        return frozenset()
    tools = decode_body(given, _tools, "a list of tools")
    listed = tools if isinstance(tools, list) else [tools]
    return frozenset(snake_of(name) for tool in listed for name in tool) - _OWN_TOOLS


class _MoreThanText(Exception):
    """A prompt holds what cannot be counted as text."""


def read_prompt(body: bytes) -> list[str] | None:
    """Read the texts of a prompt for counting.

    Args:
        body: The request as it came.

    Returns:
        Texts, function calls and declarations; ``None`` when a part is not text, or when anything
        cannot be read as text.
    """
    try:
        said = msgspec.json.decode(body)
        return [text for text in _texts_of(said) if text]
    except (*UNREADABLE, _MoreThanText, AttributeError, TypeError):
        return None


def _texts_of(said: object) -> Iterator[str]:
    if not isinstance(said, dict):
        raise _MoreThanText
    fields: dict[str, Any] = {snake_of(name): value for name, value in said.items()}
    if fields.get("cached_content"):
        raise _MoreThanText
    for name in ("system_instruction", "contents", "content"):
        content = fields.get(name)
        for one in content if isinstance(content, list) else [content]:
            yield from _texts_of_content(one)
    for request in fields.get("requests") or ():
        yield from _texts_of(request)
    if fields.get("tools"):
        yield msgspec.json.encode(fields["tools"]).decode()


def _texts_of_content(content: object) -> Iterator[str]:
    if content is None:
        return
    if isinstance(content, str):
        yield content
        return
    if not isinstance(content, dict):
        raise _MoreThanText
    parts = content.get("parts")
    for part in parts if isinstance(parts, list) else [parts]:
        if part is not None:
            yield from _texts_of_part(part)


def _texts_of_part(part: object) -> Iterator[str]:
    if not isinstance(part, dict):
        raise _MoreThanText
    for name, value in part.items():
        match snake_of(name):
            case "inline_data" | "file_data":
                raise _MoreThanText
            case "text":
                yield str(value)
            case "function_call" | "function_response":
                yield msgspec.json.encode(value).decode()
            case _:
                pass
