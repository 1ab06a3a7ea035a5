"""Cohere's chat, both versions, and the older calls that write text.

Must never bound a prompt that the request does not hold, such as a conversation kept there.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.wire.cohere_answer import ChatFold, V1Fold, read_answer
from gateway.wire.cohere_dialect import CohereDialect, CohereV1Dialect
from gateway.wire.cutters import LineCutter, SseCutter, json_of
from gateway.wire.endpoints import Endpoint
from gateway.wire.facts import (
    Answer,
    Asked,
    BadRequest,
    ReplyHead,
    RequestFacts,
    StreamLane,
    header_of,
)
from gateway.wire.plain_format import EVENTS, LINES, PlainFormat
from gateway.wire.reading import (
    ABSENT,
    INPUT_TOKENS_SPARE,
    UNREADABLE,
    SingleFields,
    bytes_seen,
    checked_model,
    has_repeats,
    is_given,
    refusing,
    try_read,
)
from gateway.wire.sse import data_of
from gateway.wire.tap import Tap
from pricing.meters import Meter
from pricing.usage import Quantity

COHERE: Final = frozenset({"cohere"})
_TEXT_METERS: Final = frozenset({Meter.INPUT, Meter.OUTPUT})
_IMAGE_METERS: Final = frozenset({Meter.INPUT, Meter.INPUT_IMAGE, Meter.OUTPUT})
_NO_FEES: Final[Mapping[Meter, Quantity]] = MappingProxyType({})
# Content parts whose tokens the bytes of the request bound.
_SIZED_PARTS: Final = frozenset({"text", "thinking", "document"})
_V2_SINGLE: Final = SingleFields("model", "messages", "stream", "max_tokens", "thinking")
_V1_SINGLE: Final = SingleFields(
    "model", "stream", "max_tokens", "num_generations", "conversation_id", "connectors"
)


class _Thinking(msgspec.Struct):
    token_budget: int | None = None


class _V2Request(msgspec.Struct, kw_only=True):
    model: str
    messages: msgspec.Raw
    stream: bool | None = None
    max_tokens: int | None = None
    thinking: msgspec.Raw = ABSENT


class _V1Request(msgspec.Struct, kw_only=True):
    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    num_generations: int | None = None
    conversation_id: str | None = None
    connectors: msgspec.Raw = ABSENT


class _Message(msgspec.Struct):
    content: msgspec.Raw = ABSENT
    tool_plan: str | None = None
    tool_calls: msgspec.Raw = ABSENT


class _Part(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    document: msgspec.Raw = ABSENT
    image_url: msgspec.Raw = ABSENT


class _V2Prompt(msgspec.Struct):
    messages: list[_Message]
    tools: msgspec.Raw = ABSENT
    documents: msgspec.Raw = ABSENT
    response_format: msgspec.Raw = ABSENT


class _V1Prompt(msgspec.Struct):
    message: str | None = None
    prompt: str | None = None
    text: str | None = None
    preamble: str | None = None
    chat_history: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    tool_results: msgspec.Raw = ABSENT
    documents: msgspec.Raw = ABSENT
    conversation_id: str | None = None
    connectors: msgspec.Raw = ABSENT


_decode_v2: Final = msgspec.json.Decoder(_V2Request).decode
_decode_v1: Final = msgspec.json.Decoder(_V1Request).decode
_decode_thinking: Final = msgspec.json.Decoder(_Thinking).decode
_decode_messages: Final = msgspec.json.Decoder(list[_Message]).decode
_decode_parts: Final = msgspec.json.Decoder(list[_Part]).decode
_decode_v2_prompt: Final = msgspec.json.Decoder(_V2Prompt).decode
_decode_v1_prompt: Final = msgspec.json.Decoder(_V1Prompt).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


class CohereChat(PlainFormat, CohereDialect):
    """The wire format of ``POST /v2/chat``."""

    api = "cohere.chat"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts. Images leave the prompt unbounded. Tokens of thought are inside the limit of
            the answer, but their own budget is held on top of it all the same.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://docs.cohere.com/reference/chat, checked 2026-11-23.
        """
        with refusing("a chat request"):
            request = _decode_v2(asked.body)
            has_images = _has_images(request.messages)
        _V2_SINGLE.check(asked.body)
        limit = request.max_tokens or 0
        thinking = try_read(_decode_thinking, request.thinking)
        budget = 0 if thinking is None else max(0, thinking.token_budget or 0)
        return RequestFacts(
            model=checked_model(request.model),
            stream=bool(request.stream),
            wants_usage=True,
            tier=None,
            input_tokens_max=None if has_images else bytes_seen(asked.body) + INPUT_TOKENS_SPARE,
            output_tokens_max=limit if limit > 0 else None,
            choices=1,
            extra_output_max=budget,
            meters=_IMAGE_METERS if has_images else _TEXT_METERS,
            fees=_NO_FEES,
        )

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to read a streamed answer.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for its events.
        """
        return Tap(SseCutter(), ChatFold())

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says.
        """
        return read_answer(body)

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            Messages, documents and tools; ``None`` where there is an image, or anything that
            cannot be read as text.
        """
        try:
            prompt = _decode_v2_prompt(asked.body)
            texts = [text for message in prompt.messages for text in _texts_of(message)]
            for shown in (prompt.tools, prompt.documents, prompt.response_format):
                texts.append(bytes(shown).decode())
        except (*UNREADABLE, _MoreThanText):
            return None
        return [text for text in texts if text]


class CohereV1Text(PlainFormat, CohereV1Dialect):
    """The wire format of calls of version 1 that write text: chat, generate, summarize.

    Attributes:
        api: Its name in the ledger.
        stream_types: Content types, or how they begin, of an answer that is passed on as it comes.
    """

    stream_types: tuple[str, ...] = (EVENTS, *LINES)

    def __init__(self, api: str) -> None:
        """Take a name.

        Args:
            api: Of the call, in the ledger.
        """
        self.api = api

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts. A conversation kept by Cohere and connectors leave the prompt unbounded.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://docs.cohere.com/v1/reference/chat, /generate and /summarize, checked
            2026-11-23.
        """
        with refusing("a Cohere request"):
            request = _decode_v1(asked.body)
        _V1_SINGLE.check(asked.body)
        if not request.model:
            raise BadRequest("name the model: without one Cohere chooses it, and so its price")
        is_open = bool(request.conversation_id) or _is_filled(request.connectors)
        limit = request.max_tokens or 0
        choices = max(1, request.num_generations or 1)
        return RequestFacts(
            model=checked_model(request.model),
            stream=bool(request.stream),
            wants_usage=True,
            tier=None,
            input_tokens_max=None if is_open else bytes_seen(asked.body) + INPUT_TOKENS_SPARE,
            output_tokens_max=limit * choices if limit > 0 else None,
            choices=choices,
            extra_output_max=0,
            meters=_TEXT_METERS,
            fees=_NO_FEES,
        )

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to read a streamed answer: lines of JSON, or events where they were asked for.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for its events. Nothing of the gateway's own follows lines.
        """
        if (header_of(head, "content-type") or "").lower().startswith(EVENTS):
            return Tap(SseCutter(), V1Fold(data_of))
        lane = Tap(LineCutter(), V1Fold(json_of))
        lane.can_append = False
        return lane

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says.
        """
        return read_answer(body)

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            Everything that is text; ``None`` where Cohere adds more than the request holds.
        """
        try:
            prompt = _decode_v1_prompt(asked.body)
            shown = (prompt.chat_history, prompt.tools, prompt.tool_results, prompt.documents)
            texts = [bytes(field).decode() for field in shown]
        except UNREADABLE:
            return None
        if prompt.conversation_id or _is_filled(prompt.connectors):
            return None
        said = (prompt.message, prompt.prompt, prompt.text, prompt.preamble)
        return [text for text in (*said, *texts) if text]


class _MoreThanText(Exception):
    """A message holds what cannot be counted as text."""


def _is_filled(raw: msgspec.Raw) -> bool:
    return is_given(raw) and bytes(raw).replace(b" ", b"") != b"[]"


def _has_images(messages: msgspec.Raw) -> bool:
    """Tell whether a message holds what its bytes do not bound, by any reading of it."""
    read = _decode_messages(messages)
    if any(map(_holds_images, read)):
        return True
    # Of a repeated name another reader may take another value than we do.
    return bytes(messages).count(b'"content"') > len(read) and has_repeats(messages, "content")


def _holds_images(message: _Message) -> bool:
    content = bytes(message.content)
    if not is_given(message.content) or content.startswith(b'"'):
        return False
    try:
        parts = _decode_parts(content)
    except UNREADABLE:
        return True
    return any(part.type not in _SIZED_PARTS or is_given(part.image_url) for part in parts)


def _texts_of(message: _Message) -> Iterator[str]:
    content = bytes(message.content)
    if content.startswith(b"["):
        for part in _decode_parts(content):
            if part.type not in _SIZED_PARTS:
                raise _MoreThanText
            yield part.text or part.thinking or bytes(part.document).decode()
    elif is_given(message.content):
        yield _decode_text(content)
    yield message.tool_plan or ""
    if is_given(message.tool_calls):
        yield bytes(message.tool_calls).decode()


ENDPOINTS: Final = (
    Endpoint(kinds=COHERE, path="/v2/chat", format=CohereChat()),
    Endpoint(kinds=COHERE, path="/v1/chat", format=CohereV1Text("cohere.chat.v1")),
    Endpoint(kinds=COHERE, path="/v1/generate", format=CohereV1Text("cohere.generate")),
    Endpoint(kinds=COHERE, path="/v1/summarize", format=CohereV1Text("cohere.summarize")),
)
