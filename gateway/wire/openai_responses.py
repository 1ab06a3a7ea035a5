"""OpenAI's Responses API: request facts, the body to send and the error shape.

Must never re-encode a body; bytes are spliced or passed on.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from gateway.wire.cutters import SseCutter
from gateway.wire.endpoints import Endpoint
from gateway.wire.facts import Answer, Asked, BadRequest, ErrorBody, ReplyHead, RequestFacts
from gateway.wire.openai_answer import ABSENT, NAME_CHARS_MAX, NULLS, UNREADABLE, read_tier
from gateway.wire.openai_chat import INPUT_TOKENS_SPARE, OpenAIChat, bytes_of
from gateway.wire.openai_dialect import OpenAIDialect
from gateway.wire.openai_free import FreeCalls, rename_model
from gateway.wire.openai_further import runs_tools
from gateway.wire.openai_responses_answer import ResponsesFold, read_response
from gateway.wire.reading import has_repeats
from gateway.wire.splice import scan_members
from gateway.wire.tap import Tap
from pricing.meters import Meter
from pricing.rates import NO_VARIANTS
from pricing.usage import Quantity

_TEXT_METERS: Final = frozenset(
    {
        Meter.INPUT,
        Meter.CACHE_READ,
        Meter.CACHE_WRITE,
        Meter.CACHE_WRITE_12H,
        Meter.OUTPUT,
        Meter.REASONING,
    }
)
_PART_METERS: Final = frozenset(
    {
        Meter.INPUT_IMAGE,
        Meter.INPUT_AUDIO,
        Meter.CACHE_READ_IMAGE,
        Meter.CACHE_READ_AUDIO,
        Meter.OUTPUT_AUDIO,
    }
)
# Names whose repetition would let the provider read another value than we did.
_SINGLE: Final = frozenset(
    {
        "model",
        "input",
        "stream",
        "background",
        "max_output_tokens",
        "max_tool_calls",
        "service_tier",
        "tools",
        "previous_response_id",
        "conversation",
        "prompt",
        "context_management",
        "models",
        "plugins",
        "preset",
        "search_parameters",
    }
)
_NOTABLE: Final = re.compile(b'"(?:%s)"' % "|".join(sorted(_SINGLE)).encode())
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[0-7]")
# Items and parts whose tokens the bytes of the request bound; anything else may point elsewhere.
_SIZED_ITEMS: Final = frozenset(
    {
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
    }
)
# Items that say something; a reference to one need not say that it is one.
# Source: https://platform.openai.com/docs/api-reference/responses/create, checked 2026-11-23.
_SPOKEN: Final = frozenset({None, "message"})
_SIZED_PARTS: Final = frozenset({"input_text", "output_text", "text", "refusal"})
# Tools the client runs, described by nothing but the request; and those it runs whose description
# the provider adds. Any other one the provider runs itself, as often as it likes.
_OWN_TOOLS: Final = frozenset({"function", "custom"})
_CLIENT_TOOLS: Final = frozenset({"computer", "computer_use_preview", "local_shell", "apply_patch"})
# Tools with a bill of their own that no limit of the request bounds.
_BILLED_TOOLS: Final = frozenset({"image_generation", "code_interpreter", "shell"})
_SEARCH: Final = "web_search"
_SEARCH_SIZES: Final = MappingProxyType(
    {size: MappingProxyType({Meter.WEB_SEARCH: size}) for size in ("low", "medium", "high")}
)
_NO_FEES: Final[Mapping[Meter, Quantity]] = MappingProxyType({})


class _Request(msgspec.Struct):
    model: str | None = None
    input: msgspec.Raw = ABSENT
    stream: bool | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    service_tier: str | None = None
    tools: msgspec.Raw = ABSENT
    instructions: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT
    previous_response_id: msgspec.Raw = ABSENT
    conversation: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    context_management: msgspec.Raw = ABSENT
    # What other compatible providers act on.
    models: msgspec.Raw = ABSENT
    plugins: msgspec.Raw = ABSENT
    preset: msgspec.Raw = ABSENT
    search_parameters: msgspec.Raw = ABSENT


class _Part(msgspec.Struct):
    """A part as far as its type, and what it would hold were it of another one."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    image_url: msgspec.Raw = ABSENT
    file_id: msgspec.Raw = ABSENT
    file_url: msgspec.Raw = ABSENT
    file_data: msgspec.Raw = ABSENT
    input_audio: msgspec.Raw = ABSENT


class _Item(msgspec.Struct):
    type: str | None = None
    content: msgspec.Raw = ABSENT
    output: msgspec.Raw = ABSENT
    encrypted_content: msgspec.Raw = ABSENT
    name: str | None = None
    arguments: str | None = None
    input: str | None = None


class _Tool(msgspec.Struct):
    type: str | None = None
    search_context_size: str | None = None


class _Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What the tools of a request do to its bounds.

    Attributes:
        is_sized: Whether the bytes of the request bound what they add to the prompt.
        rounds: How often the model may be asked; ``None`` when nothing bounds it.
        fees: Largest quantity of what is billed apart.
        variants: In which make it is sold.
    """

    is_sized: bool = True
    rounds: int | None = 1
    fees: Mapping[Meter, Quantity] = _NO_FEES
    variants: Mapping[Meter, str] = NO_VARIANTS


_NO_TOOLS: Final = _Tools()

_decode_request = msgspec.json.Decoder(_Request).decode
_decode_items = msgspec.json.Decoder(list[_Item]).decode
_decode_parts = msgspec.json.Decoder(list[_Part]).decode
_decode_tools = msgspec.json.Decoder(list[_Tool]).decode
_decode_text = msgspec.json.Decoder(str).decode


class OpenAIResponses(OpenAIDialect):
    """The wire format of ``POST /responses`` and ``POST /responses/compact``."""

    api = "openai.responses"
    stream_types: tuple[str, ...] = ("text/event-stream",)

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts; bounds are never too small.

        Raises:
            BadRequest: Not JSON, not an object, no model, a field of the wrong type, or a field
                given twice, which two readers could read differently.

        Source:
            https://platform.openai.com/docs/api-reference/responses/create, checked 2026-11-23.
        """
        body = asked.body
        request = _read_request(body)
        model = request.model
        if bytes(request.models) not in NULLS:
            raise BadRequest("'models' names other models to fall back to: name the one to call")
        if not model:
            raise BadRequest(
                "name the model in 'model': its prices decide whether it may be called"
            )
        if len(model) > NAME_CHARS_MAX:
            raise BadRequest(f"the model name is longer than {NAME_CHARS_MAX} characters")
        notable = _NOTABLE.findall(body)
        if len(notable) > len(set(notable)) or _has_escapes(body):
            _refuse_repeats(body)
        tools = _read_tools(request)
        has_parts = _has_unsized(request.input)
        is_sized = tools.is_sized and not has_parts and not _refers(request)
        limit = request.max_output_tokens
        return RequestFacts(
            model=model,
            stream=bool(request.stream),
            wants_usage=True,
            tier=read_tier(request.service_tier),
            input_tokens_max=bytes_of(body) + INPUT_TOKENS_SPARE if is_sized else None,
            output_tokens_max=limit if limit is not None and limit > 0 else None,
            choices=1,
            extra_output_max=0,
            meters=_TEXT_METERS if is_sized else _TEXT_METERS | _PART_METERS,
            fees=tools.fees,
            variants=tools.variants,
            rounds=tools.rounds,
        )

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send.

        Args:
            asked: The request as it came.
            facts: What was read of it.
            model: The provider's own name of the model.

        Returns:
            The same bytes, but for the model name where it differs.
        """
        return rename_model(asked.body, facts.model, model)

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> Tap:
        """Begin to read a streamed answer.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for the bytes of the answer.
        """
        return Tap(SseCutter(), ResponsesFold())

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says; not readable when it is not a response.
        """
        return read_response(body)

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown.

        Args:
            model: Under the provider's own name.

        Returns:
            False only for the families known not to.
        """
        return _CHAT.may_think(model)

    def read_prompt(self, asked: Asked) -> Sequence[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            Instructions, texts, calls and tool definitions; ``None`` when an item or a part is not
            text, or when what is sent is not all there is.
        """
        try:
            request = _decode_request(asked.body)
            if _refers(request) or not _read_tools(request).is_sized:
                return None
            texts = [*_texts_of_input(request.input)]
            if bytes(request.instructions) not in NULLS:
                texts.append(_decode_text(request.instructions))
            texts += [bytes(request.tools).decode(), bytes(request.text).decode()]
        except (*UNREADABLE, _MoreThanText):
            return None
        return [text for text in texts if text]

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as an event inside a stream that has begun.

        Args:
            error: What went wrong.

        Returns:
            One ``error`` event as the API writes it, with the error object beside it, which makes
            OpenAI's SDKs raise.
        """
        shaped = {
            "type": "error",
            "code": error.code,
            "message": error.message,
            "param": None,
            "sequence_number": 0,
            "error": {
                "message": error.message,
                "type": error.kind,
                "param": None,
                "code": error.code,
                **error.details,
            },
        }
        return b"event: error\ndata: " + msgspec.json.encode(shaped) + b"\n\n"


class StoredResponses(FreeCalls):
    """The wire format of responses that were made before: fetched, followed or cancelled.

    Fetching costs nothing. What it tells of the use completes the record of the call that made the
    response, where that is not known yet.
    """

    def __init__(self) -> None:
        super().__init__("openai.responses.stored")

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            That it costs nothing, and whether the events of the response are asked for.
        """
        is_stream = ("stream", "true") in parse_qsl(asked.query)
        return msgspec.structs.replace(super().read_facts(asked), stream=is_stream)

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> Tap:
        """Begin to read the events of a response, from its beginning or from some event on.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for the bytes of the answer.
        """
        return Tap(SseCutter(), ResponsesFold(is_earlier=True))

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a response that was made before.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says.
        """
        return read_response(body, is_earlier=True)

    def shape_stream_error(self, error: ErrorBody) -> bytes:
        """Write trouble as an event inside a stream that has begun.

        Args:
            error: What went wrong.

        Returns:
            One ``error`` event, as of the call that made the response.
        """
        return _RESPONSES.shape_stream_error(error)


_CHAT: Final = OpenAIChat()
_RESPONSES: Final = OpenAIResponses()
_STORED: Final = StoredResponses()
_FREE: Final = FreeCalls("openai.responses.free")


def _read_request(body: bytes) -> _Request:
    try:
        return _decode_request(body)
    except (msgspec.ValidationError, UnicodeDecodeError) as wrong:
        raise BadRequest(f"the request body is not a request for a response: {wrong}") from None
    except msgspec.DecodeError as broken:
        raise BadRequest(f"the request body is not JSON: {broken}") from None
    except RecursionError:
        raise BadRequest("the request body is nested too deeply") from None


def _read_tools(request: _Request) -> _Tools:
    """Read what the tools do to the bounds of a request."""
    is_searching = not (
        bytes(request.plugins) in NULLS
        and bytes(request.search_parameters) in NULLS
        and bytes(request.preset) in NULLS
    )
    if bytes(request.tools) in NULLS or not runs_tools(request.tools):
        return _Tools(is_sized=False, rounds=None) if is_searching else _NO_TOOLS
    try:
        tools = _decode_tools(request.tools)
    except UNREADABLE as wrong:
        raise BadRequest(f"the tools are not tools: {wrong}") from None
    if has_repeats(request.tools, "type"):
        raise BadRequest("a tool gives its 'type' more than once; give it once")
    hosted = [tool for tool in tools if tool.type not in _OWN_TOOLS | _CLIENT_TOOLS]
    is_sized = all(tool.type in _OWN_TOOLS for tool in tools)
    if not hosted and not is_searching:
        return _Tools(is_sized=is_sized)
    calls = request.max_tool_calls
    if calls is None or calls < 0 or is_searching or {t.type for t in hosted} & _BILLED_TOOLS:
        return _Tools(is_sized=False, rounds=None)
    searches = [tool for tool in hosted if (tool.type or "").startswith(_SEARCH)]
    if not searches or not calls:
        return _Tools(is_sized=False, rounds=calls + 1)
    sizes = {tool.search_context_size or "medium" for tool in searches}
    return _Tools(
        is_sized=False,
        rounds=calls + 1,
        fees={Meter.WEB_SEARCH: calls},
        variants=_SEARCH_SIZES.get(sizes.pop(), NO_VARIANTS) if len(sizes) == 1 else NO_VARIANTS,
    )


def _refers(request: _Request) -> bool:
    """Tell whether a prompt holds what was sent before, or is rewritten on the way."""
    held = (
        request.previous_response_id,
        request.conversation,
        request.prompt,
        request.context_management,
    )
    return any(bytes(one) not in NULLS for one in held)


def _has_escapes(body: bytes) -> bool:
    """Tell whether a name may be spelt with escapes."""
    return b"\\" in body and _ESCAPED_ASCII.search(body) is not None


def _refuse_repeats(body: bytes) -> None:
    """Refuse a field given twice; asked only when a cheap look found that it could be so."""
    names = Counter(member.name for member in scan_members(body))
    for name, count in names.items():
        if count > 1 and name in _SINGLE:
            raise BadRequest(f"the request body gives {name!r} more than once; give it once")


def _has_unsized(raw: msgspec.Raw) -> bool:
    """Tell whether the input holds what its bytes do not bound, by any reading of it."""
    given = bytes(raw)
    if given in NULLS or given.startswith(b'"'):
        return False
    try:
        items = _decode_items(given)
        names = 0
        for item in items:
            if not _is_sized(item):
                return True
            names += item.type is not None
            for held in (item.content, item.output):
                if bytes(held).startswith(b"["):
                    parts = _decode_parts(held)
                    if not all(map(_is_sized_part, parts)):
                        return True
                    names += len(parts)
    except UNREADABLE as wrong:
        raise BadRequest(f"the input is neither a text nor a list of items: {wrong}") from None
    contents = sum(1 for item in items if item.content is not ABSENT)
    # Of a repeated name another reader may take another value than we do.
    is_plain = given.count(b'"type"') <= names and given.count(b'"content"') <= contents
    return not (is_plain and not _has_escapes(given)) and _repeats_names(given)


def _is_sized(item: _Item) -> bool:
    if item.type in _SPOKEN and bytes(item.content) in NULLS:
        return False  # nothing but an id: it stands for an item that is kept at the provider
    return item.type in (None, *_SIZED_ITEMS) and bytes(item.encrypted_content) in NULLS


def _is_sized_part(part: _Part) -> bool:
    held = (part.image_url, part.file_id, part.file_url, part.file_data, part.input_audio)
    return part.type in _SIZED_PARTS and all(bytes(one) in NULLS for one in held)


class _Repeated(Exception):
    """An object gives a name twice."""


def _repeats_names(given: bytes) -> bool:
    try:
        json.loads(given, object_pairs_hook=_check_names)
    except (_Repeated, ValueError, RecursionError):
        return True
    return False


def _check_names(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Repeated


class _MoreThanText(Exception):
    """An item holds what cannot be counted as text."""


def _texts_of_input(raw: msgspec.Raw) -> Iterator[str]:
    given = bytes(raw)
    if given in NULLS:
        return
    if given.startswith(b'"'):
        yield _decode_text(given)
        return
    for item in _decode_items(given):
        if not _is_sized(item):
            raise _MoreThanText
        yield from _texts_of_parts(item.content)
        yield from _texts_of_parts(item.output)
        for text in (item.name, item.arguments, item.input):
            yield text or ""


def _texts_of_parts(raw: msgspec.Raw) -> Iterator[str]:
    held = bytes(raw)
    if held in NULLS:
        return
    if not held.startswith(b"["):
        yield _decode_text(held)
        return
    for part in _decode_parts(held):
        if not _is_sized_part(part):
            raise _MoreThanText
        yield part.text or part.refusal or ""


def _rows() -> Iterator[Endpoint]:
    """List every address, below the base address of each kind that has it."""
    makes = {
        "/responses": frozenset(
            {"openai", "xai", "groq", "fireworks", "openrouter", "vllm", "ollama", "deepseek"}
        ),
        "/v1/responses": frozenset({"perplexity", "ollama", "deepseek"}),
        "/openai/responses": frozenset({"azure"}),
        "/openai/v1/responses": frozenset({"azure"}),
    }
    stores = frozenset({"openai", "azure", "xai", "fireworks", "vllm"})
    counts = frozenset({"openai", "azure"})
    for path, kinds in makes.items():
        yield Endpoint(kinds=kinds, path=path, format=_RESPONSES)
        if kinds & counts:
            own = kinds & counts
            yield Endpoint(kinds=own, path=f"{path}/compact", format=_RESPONSES)
            yield Endpoint(kinds=own, path=f"{path}/input_tokens", format=_FREE)
        if kinds & stores:
            own = kinds & stores
            one = f"{path}/{{response_id}}"
            fetched = frozenset({"GET", "DELETE"})
            yield Endpoint(kinds=own, path=one, format=_STORED, methods=fetched)
            yield Endpoint(kinds=own, path=f"{one}/cancel", format=_STORED)
            items = frozenset({"GET"})
            yield Endpoint(kinds=own, path=f"{one}/input_items", format=_FREE, methods=items)


ENDPOINTS: Final = tuple(_rows())
