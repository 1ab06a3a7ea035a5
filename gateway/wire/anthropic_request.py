"""Requests of Anthropic's Messages API: what they ask for, and the most they can come to.

Must never give a bound that is too small.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final, Literal
from unicodedata import is_normalized, normalize

import msgspec

from gateway.wire.anthropic_answer import ABSENT, NULLS, UNREADABLE
from gateway.wire.anthropic_usage import FAST_TIER, NAME_CHARS_MAX
from gateway.wire.facts import BadRequest, RequestFacts
from gateway.wire.reading import has_repeats
from gateway.wire.splice import scan_members
from pricing.meters import Meter
from pricing.sku import STANDARD_TIER
from pricing.usage import Quantity

# Tokens of a byte-level BPE text never outnumber its UTF-8 bytes. The constant covers what the
# provider adds by itself: the prompt that explains tools is the longest, at 804 tokens.
# https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview, checked 2026-11-23.
INPUT_TOKENS_SPARE: Final = 1024
# Tools the provider describes itself, 735 tokens at most; same page.
_TOOL_TOKENS_MAX: Final = 1024
_KNOWN_TOOLS: Final = ("bash_", "text_editor_")
_SEARCH_TOOL: Final = "web_search_"
# Tools that the provider runs in rounds of its own, each reading the whole prompt, as often as
# ``max_uses`` says.
_COUNTED_TOOLS: Final = (_SEARCH_TOOL, "web_fetch_")
_ADVISOR_TOOL: Final = "advisor_"
_COMPACTION: Final = b"compact"
# Every tool of the provider's own has its date in its type.
_DATED: Final = b"_20"

# Content blocks whose tokens the bytes of the request bound; anything else may point elsewhere.
_SIZED_BLOCKS: Final = frozenset(
    {"text", "thinking", "redacted_thinking", "tool_use", "tool_result", "fallback"}
)
_TOOL_RESULT: Final = "tool_result"
_BASE_METERS: Final = frozenset({Meter.INPUT, Meter.CACHE_READ, Meter.OUTPUT, Meter.REASONING})
_WRITE_METERS: Final = _BASE_METERS | {Meter.CACHE_WRITE}
_ALL_METERS: Final = _WRITE_METERS | {Meter.CACHE_WRITE_1H}
_NO_FEES: Final[Mapping[Meter, Quantity]] = MappingProxyType({})

# Names whose repetition would let the provider read another value than we did.
_SINGLE: Final = frozenset(
    {
        "model",
        "messages",
        "system",
        "tools",
        "max_tokens",
        "stream",
        "speed",
        "service_tier",
        "inference_geo",
        "mcp_servers",
        "fallbacks",
        "compaction",
        "context_management",
        "models",
        "plugins",
        "preset",
    }
)
_NOTABLE: Final = re.compile(
    rb'"(model|messages|system|tools|max_tokens|stream|speed|service_tier|inference_geo'
    rb'|mcp_servers|fallbacks|compaction|context_management)"'
)
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[0-7]")


class _Tool(msgspec.Struct, gc=False):
    type: str | None = None
    model: str | None = None
    max_uses: int | None = None


class _Fallback(msgspec.Struct, gc=False):
    model: str | None = None


class Request(msgspec.Struct, kw_only=True):
    """The fields of a request that metering needs.

    Attributes:
        model: Model asked for; ``None`` where the address names it. The rest likewise as the API
            names them; what is not read here is kept as bytes.
        messages: Turns of the conversation.
        system: Instructions.
        max_tokens: Most output tokens, thinking included.
        stream: Whether a stream is asked for.
        speed: ``fast`` or ``standard``.
        service_tier: ``auto`` or ``standard_only``.
        inference_geo: Geography asked for.
        tools: Tools, the provider's own among them.
        mcp_servers: Tool servers the provider calls.
        fallbacks: Models that may serve instead.
        compaction: Whether context may be summarised by a further call.
        context_management: The same, as an edit.
        models: Models to fall back to, as OpenRouter has them. The next two likewise.
        plugins: Searches and readers of files.
        preset: Stored settings.
    """

    model: str | None = None
    messages: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    max_tokens: int | None = None
    stream: bool | None = None
    speed: str | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    tools: list[_Tool] | None = None
    mcp_servers: msgspec.Raw = ABSENT
    fallbacks: list[_Fallback] | str | None = None
    compaction: msgspec.Raw = ABSENT
    context_management: msgspec.Raw = ABSENT
    models: msgspec.Raw = ABSENT
    plugins: msgspec.Raw = ABSENT
    preset: msgspec.Raw = ABSENT


class _RawTools(msgspec.Struct):
    tools: msgspec.Raw = ABSENT


class _Turn(msgspec.Struct, gc=False):
    content: msgspec.Raw = ABSENT


class _SizedPart(msgspec.Struct, gc=False):
    """A block of text: what is anything else does not decode."""

    type: Literal["text", "thinking", "redacted_thinking", "tool_use", "tool_result", "fallback"]
    source: None = None
    content: "str | list[_SizedPart] | None" = None


class _SizedTurn(msgspec.Struct, gc=False):
    content: str | list[_SizedPart] | None = None


class _Part(msgspec.Struct, gc=False):
    type: str | None = None
    source: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT
    text: str | None = None
    thinking: str | None = None
    input: msgspec.Raw = ABSENT


_decode_request = msgspec.json.Decoder(Request).decode
_decode_sized = msgspec.json.Decoder(list[_SizedTurn]).decode
_decode_turns = msgspec.json.Decoder(list[_Turn]).decode
_decode_parts = msgspec.json.Decoder(list[_Part]).decode
_decode_text = msgspec.json.Decoder(str).decode


class _Rounds(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider's own tools can add.

    Attributes:
        most: Most times a model reads the prompt; ``None`` where nothing bounds it.
        searches: Most web searches that are billed.
        own_tokens: Most tokens of descriptions the provider adds.
        models: Other models that may be asked.
    """

    most: int | None
    searches: int
    own_tokens: int
    models: tuple[str, ...]


def decode_request(body: bytes | msgspec.Raw) -> Request:
    """Decode a request.

    Args:
        body: The request as it came.

    Returns:
        Its fields.

    Raises:
        BadRequest: Not JSON, not an object, or a field of the wrong type.
    """
    try:
        return _decode_request(body)
    except (msgspec.ValidationError, UnicodeDecodeError) as wrong:
        raise BadRequest(f"the request body is not a Messages request: {wrong}") from None
    except msgspec.DecodeError as broken:
        raise BadRequest(f"the request body is not JSON: {broken}") from None
    except RecursionError:
        raise BadRequest("the request body is nested too deeply") from None


def read_request(body: bytes, *, named: str | None, is_streaming: bool = False) -> RequestFacts:
    """Read what metering needs of a request.

    Args:
        body: The request as it came.
        named: Model that the address names; ``None`` where the body does.
        is_streaming: Whether the address alone asks for a stream.

    Returns:
        The facts; bounds are never too small.

    Raises:
        BadRequest: Not JSON, not an object, no model, a field of the wrong type, or a field given
            twice, which two readers could read differently.

    Source:
        https://platform.claude.com/docs/en/api/messages, checked 2026-11-23.
    """
    request = decode_request(body)
    notable = _NOTABLE.findall(body)
    has_escapes = b"\\" in body and _ESCAPED_ASCII.search(body) is not None
    has_further = not (
        request.models is ABSENT and request.plugins is ABSENT and request.preset is ABSENT
    )
    if has_further or has_escapes or len(notable) > len(set(notable)):
        _refuse_repeats(body)
    model = request.model if named is None else named
    if request.models is not ABSENT and bytes(request.models) not in NULLS:
        raise BadRequest("'models' names other models to fall back to: name the one to call")
    if not model:
        raise BadRequest("the request names no model: give 'model'")
    if len(model) > NAME_CHARS_MAX:
        raise BadRequest(f"the model name is longer than {NAME_CHARS_MAX} characters")
    if request.tools and (has_escapes or _DATED in body):
        _refuse_repeats_in_tools(body)
    rounds = _read_rounds(request)
    limit = request.max_tokens
    output = None if limit is None or limit < 0 or rounds.most is None else limit * rounds.most
    return RequestFacts(
        model=model,
        stream=is_streaming or bool(request.stream),
        wants_usage=True,
        tier=_read_tier(request),
        input_tokens_max=_bound_input(body, request, rounds),
        output_tokens_max=output,
        choices=1,
        extra_output_max=0,
        meters=_read_meters(body, rounds, has_escapes=has_escapes),
        fees={Meter.WEB_SEARCH: rounds.searches} if rounds.searches else _NO_FEES,
        region="us" if request.inference_geo == "us" else None,
        further_models=rounds.models,
        rounds=rounds.most,
    )


def refuse_repeats(body: bytes) -> None:
    """Refuse a request that gives a field twice, where a look shows that it could.

    Args:
        body: The request as it came.

    Raises:
        BadRequest: A field that metering needs is given twice.
    """
    notable = _NOTABLE.findall(body)
    if len(notable) > len(set(notable)) or (b"\\" in body and _ESCAPED_ASCII.search(body)):
        _refuse_repeats(body)


def _refuse_repeats(body: bytes) -> None:
    names = Counter(member.name for member in scan_members(body))
    for name, count in names.items():
        if count > 1 and name in _SINGLE:
            raise BadRequest(f"the request body gives {name!r} more than once; give it once")


def _refuse_repeats_in_tools(body: bytes) -> None:
    """Refuse a tool that is the provider's own by one reading and the caller's by another."""
    tools = msgspec.json.decode(body, type=_RawTools).tools
    for name in ("type", "max_uses"):
        if has_repeats(tools, name):
            raise BadRequest(f"a tool gives {name!r} more than once; give it once")


def _read_tier(request: Request) -> str | None:
    """The tier asked for; committed capacity, which ``auto`` may use, has no price of its own."""
    if request.speed == FAST_TIER:
        return FAST_TIER
    return STANDARD_TIER if request.service_tier == "standard_only" else None


def _read_rounds(request: Request) -> _Rounds:
    searches, own_tokens = 0, 0
    models: list[str] = []
    most = None if _is_open_ended(request) else 1
    if isinstance(request.fallbacks, list):
        models += [one.model for one in request.fallbacks if one.model]
    for tool in request.tools or ():
        kind, uses = tool.type, tool.max_uses
        if kind is None or kind == "custom":
            continue
        if kind.startswith(_KNOWN_TOOLS):
            own_tokens += _TOOL_TOKENS_MAX
            continue
        if kind.startswith(_SEARCH_TOOL):
            searches += 1 if uses is None else max(0, uses)
        if kind.startswith(_ADVISOR_TOOL) and tool.model:
            models.append(tool.model)
        is_counted = uses is not None and kind.startswith(_COUNTED_TOOLS)
        most = most + max(0, uses or 0) if most is not None and is_counted else None
    return _Rounds(
        most=most, searches=searches, own_tokens=own_tokens, models=tuple(dict.fromkeys(models))
    )


def _is_open_ended(request: Request) -> bool:
    """Tell whether other models, tool servers, summaries or searches can join in."""
    return (
        bool(request.fallbacks)
        or bytes(request.mcp_servers) not in (*NULLS, b"[]")
        or bytes(request.compaction) not in NULLS
        or bytes(request.plugins) not in NULLS
        or bytes(request.preset) not in NULLS
        or _COMPACTION in bytes(request.context_management)
    )


def _read_meters(body: bytes, rounds: _Rounds, *, has_escapes: bool) -> frozenset[Meter]:
    """Meters the call can touch: nothing is written to the cache that nobody asks to write."""
    if has_escapes or rounds.most != 1:
        return _ALL_METERS
    if b'"cache_control"' not in body:
        return _BASE_METERS
    return _ALL_METERS if b'"ttl"' in body else _WRITE_METERS


def _bound_input(body: bytes, request: Request, rounds: _Rounds) -> int | None:
    """Most input tokens; ``None`` where a round of tools, an image or a file joins in."""
    if rounds.most != 1 or not _is_sized(request):
        return None
    return _bytes_of(body) + INPUT_TOKENS_SPARE + rounds.own_tokens


def _bytes_of(body: bytes) -> int:
    """Count the bytes a tokenizer sees: some compose the text first, and a few signs grow."""
    if body.isascii():
        return len(body)  # an escaped sign is never shorter than what becomes of it
    text = body.decode("utf-8", "replace")
    if is_normalized("NFC", text):
        return len(body)
    return max(len(body), len(normalize("NFC", text).encode("utf-8", "replace")))


def _is_sized(request: Request) -> bool:
    """Tell whether all content is text, by any reading of it."""
    with suppress(*UNREADABLE):
        # One pass tells of nearly every request.
        turns = _decode_sized(request.messages)
        if bytes(request.messages).count(b'"content"') <= len(turns) + sum(map(_names, turns)):
            return True
    try:
        read = _decode_turns(request.messages)
    except UNREADABLE as wrong:
        raise BadRequest(f"the messages are not messages: {wrong}") from None
    seen = [len(read)]
    is_sized = all([_is_sized_content(bytes(turn.content), seen) for turn in read])
    # Of a repeated name another reader may take another value than we do.
    return is_sized and bytes(request.messages).count(b'"content"') <= sum(seen)


def _names(turn: _SizedTurn | _SizedPart) -> int:
    """Count the parts of a turn that have content of their own."""
    if not isinstance(turn.content, list):
        return 0
    return sum(1 + _names(part) for part in turn.content if part.content is not None)


def _is_sized_content(content: bytes, seen: list[int]) -> bool:
    if content in NULLS or content.startswith(b'"'):
        return True
    try:
        parts = _decode_parts(content)
    except UNREADABLE:
        return False
    is_sized = True
    for part in parts:
        is_sized = is_sized and part.type in _SIZED_BLOCKS and bytes(part.source) in NULLS
        if bytes(part.content) not in NULLS:
            seen.append(1)
            is_sized = (
                is_sized
                and part.type == _TOOL_RESULT
                and _is_sized_content(bytes(part.content), seen)
            )
        if b'"content"' in bytes(part.input):
            # The arguments of a tool may use the name as they like.
            seen.append(bytes(part.input).count(b'"content"'))
    return is_sized


class _MoreThanText(Exception):
    """A message holds what cannot be counted as text."""


def read_prompt_texts(body: bytes) -> list[str] | None:
    """Read the texts of a prompt for counting.

    Args:
        body: The request as it came.

    Returns:
        Instructions, texts of the turns, calls of tools and their results, and tool definitions;
        ``None`` when a part, such as an image, is not text, or when anything cannot be read so.
    """
    try:
        request = msgspec.json.decode(body, type=_Prompt)
        texts = [*_texts_of(bytes(request.system))]
        for turn in _decode_turns(request.messages):
            texts += _texts_of(bytes(turn.content))
        texts.append(bytes(request.tools).decode())
    except (*UNREADABLE, _MoreThanText):
        return None
    return [text for text in texts if text]


class _Prompt(msgspec.Struct):
    messages: msgspec.Raw
    system: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT


def _texts_of(content: bytes) -> Iterator[str]:
    if content in NULLS:
        return
    if content.startswith(b'"'):
        yield _decode_text(content)
        return
    yield from _texts_of_parts(_decode_parts(content))


def _texts_of_parts(parts: Iterable[_Part]) -> Iterator[str]:
    for part in parts:
        if part.type not in _SIZED_BLOCKS:
            raise _MoreThanText
        yield part.text or part.thinking or ""
        yield bytes(part.input).decode()
        yield from _texts_of(bytes(part.content))
