"""Bedrock's Converse, whole or streamed: request facts, usage, tier and text as they pass.

Must never change a body: the request is signed as it stands.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gateway.wire.bedrock_dialect import BedrockDialect
from gateway.wire.bedrock_frames import FrameFold, keep_text, keep_unread
from gateway.wire.bedrock_requests import (
    INPUT_TOKENS_SPARE,
    bad_json,
    bytes_of,
    hides_prompt,
    may_think,
    meters_of,
    model_of,
    refuse_repeats,
    texts_of,
    tier_of,
    tier_served,
)
from gateway.wire.bedrock_usage import GUARDRAIL_FLAG, free_where_blocked, read_converse
from gateway.wire.endpoints import Endpoint
from gateway.wire.eventstream import CONTENT_TYPE, EventFrame, FrameCutter
from gateway.wire.facts import Answer, Asked, BadRequest, ReplyHead, RequestFacts
from gateway.wire.openai_answer import ABSENT, NAME_CHARS_MAX, NULLS, UNREADABLE
from gateway.wire.tap import Tap
from pricing.meters import Meter
from pricing.usage import Basis, unknown_usage

# More searches than any answer was seen to make; what was made is billed as the answer tells it.
SEARCHES_MAX: Final = 16
BEDROCK: Final = frozenset({"bedrock"})
_SINGLE: Final = frozenset(
    {
        "messages",
        "system",
        "inferenceConfig",
        "toolConfig",
        "additionalModelRequestFields",
        "performanceConfig",
        "serviceTier",
        "guardrailConfig",
        "promptVariables",
    }
)
# Nothing that a model's own fields say may raise a limit that was read elsewhere.
_LIMIT: Final = re.compile(rb"(?i)max|limit|budget|\\u00")


class _Text(msgspec.Struct):
    text: str | None = None


class _GuardText(msgspec.Struct, forbid_unknown_fields=True):
    text: msgspec.Raw = ABSENT


class _Result(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a tool's result that is text."""

    json: msgspec.Raw = ABSENT
    text: str | None = None
    searchResult: msgspec.Raw = ABSENT  # noqa: N815 - on the wire


class _ToolResult(msgspec.Struct):
    content: list[_Result] = []


class _Block(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message that is text; any other kind does not decode.

    Of a field given twice every value is checked, so no other reader can find what is not text.
    """

    text: str | None = None
    toolUse: msgspec.Raw = ABSENT  # noqa: N815 - on the wire
    toolResult: _ToolResult | None = None  # noqa: N815
    guardContent: _GuardText | None = None  # noqa: N815
    cachePoint: msgspec.Raw = ABSENT  # noqa: N815
    reasoningContent: msgspec.Raw = ABSENT  # noqa: N815
    citationsContent: msgspec.Raw = ABSENT  # noqa: N815
    searchResult: msgspec.Raw = ABSENT  # noqa: N815
    toolAddition: msgspec.Raw = ABSENT  # noqa: N815
    toolRemoval: msgspec.Raw = ABSENT  # noqa: N815


class _Message(msgspec.Struct):
    content: list[_Block] = []


class _Tool(msgspec.Struct, forbid_unknown_fields=True):
    """A tool of the caller's own; one of the provider's does not decode."""

    toolSpec: msgspec.Raw = ABSENT  # noqa: N815 - on the wire
    cachePoint: msgspec.Raw = ABSENT  # noqa: N815


class _Tools(msgspec.Struct):
    tools: list[_Tool] | None = None


class _Inference(msgspec.Struct):
    maxTokens: int | None = None  # noqa: N815 - on the wire


class _Performance(msgspec.Struct):
    latency: str | None = None


class _Tier(msgspec.Struct):
    type: str | None = None


class _Request(msgspec.Struct):
    messages: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    inferenceConfig: _Inference | None = None  # noqa: N815 - on the wire
    toolConfig: msgspec.Raw = ABSENT  # noqa: N815
    additionalModelRequestFields: msgspec.Raw = ABSENT  # noqa: N815
    promptVariables: msgspec.Raw = ABSENT  # noqa: N815
    performanceConfig: _Performance | None = None  # noqa: N815
    serviceTier: _Tier | None = None  # noqa: N815


class _Reply(msgspec.Struct):
    """A whole answer, or the last event of a streamed one, with every field unread."""

    output: msgspec.Raw = ABSENT
    stopReason: msgspec.Raw = ABSENT  # noqa: N815 - on the wire
    usage: msgspec.Raw = ABSENT
    trace: msgspec.Raw = ABSENT
    performanceConfig: msgspec.Raw = ABSENT  # noqa: N815
    serviceTier: msgspec.Raw = ABSENT  # noqa: N815


class _ToolInput(msgspec.Struct):
    input: str | None = None


class _Delta(msgspec.Struct):
    text: str | None = None
    toolUse: _ToolInput | None = None  # noqa: N815 - on the wire
    reasoningContent: _Text | None = None  # noqa: N815


class _DeltaEvent(msgspec.Struct):
    delta: _Delta


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_messages = msgspec.json.Decoder(list[_Message]).decode
_decode_system = msgspec.json.Decoder(list[_Block]).decode
_decode_tools = msgspec.json.Decoder(_Tools).decode
_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_delta = msgspec.json.Decoder(_DeltaEvent).decode


class BedrockConverse(BedrockDialect):
    """The wire format of ``POST /model/{id}/converse`` and ``/converse-stream``."""

    api = "bedrock.converse"
    stream_types: tuple[str, ...] = (CONTENT_TYPE,)

    def __init__(self, *, streams: bool) -> None:
        """Take which of the two addresses it is.

        Args:
            streams: Whether its answers are streams.
        """
        self._streams = streams

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts; bounds are never too small.

        Raises:
            BadRequest: Not JSON, not an object, or a field given twice, which two readers could
                read differently.

        Source:
            https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html,
            checked 2026-11-23.
        """
        body, model = asked.body, model_of(asked.names)
        try:
            request = _decode_request(body)
        except UNREADABLE as broken:
            raise bad_json("a Converse request", broken) from None
        refuse_repeats(body, _SINGLE)
        further = bytes(request.additionalModelRequestFields)
        has_tools = _has_system_tools(bytes(request.toolConfig))
        is_sized = not (
            has_tools
            or hides_prompt(model)
            or b'"tools"' in further
            or b"\\u00" in further
            or _has_unsized(request)
        )
        limit = request.inferenceConfig.maxTokens if request.inferenceConfig else None
        if _LIMIT.search(further) is not None:
            limit = None
        tier = request.serviceTier.type if request.serviceTier else None
        latency = request.performanceConfig.latency if request.performanceConfig else None
        return RequestFacts(
            model=model,
            stream=self._streams,
            wants_usage=True,
            tier=tier_of(tier, latency),
            input_tokens_max=bytes_of(body) + INPUT_TOKENS_SPARE if is_sized else None,
            output_tokens_max=limit if limit is not None and limit > 0 else None,
            choices=1,
            extra_output_max=0,
            meters=meters_of(model, body),
            fees={Meter.WEB_SEARCH: SEARCHES_MAX} if has_tools else {},
        )

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send.

        Args:
            asked: The request as it came.
            facts: What was read of it.
            model: The provider's own name of the model; the address holds it.

        Returns:
            The same bytes.
        """
        return asked.body

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> Tap:
        """Begin to read a streamed answer.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for the bytes of the answer.
        """
        return Tap(FrameCutter(), _ConverseFold(facts))

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says; not readable when it is no answer of Converse.
        """
        answer = Answer(tells_fees=True)
        try:
            reply = _decode_reply(body)
        except UNREADABLE:
            return answer
        answer.is_readable = answer.is_complete = bytes(reply.output) not in NULLS
        _fold_end(answer, reply, facts, _text_in(reply.stopReason))
        if answer.usage is None or answer.usage.basis is Basis.UNKNOWN:
            keep_output(answer, reply.output)
        return answer

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown.

        Args:
            model: Under the provider's own name.

        Returns:
            False only for the families known not to.
        """
        return may_think(model)

    def read_prompt(self, asked: Asked) -> list[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The request as it came.

        Returns:
            Texts of messages, system and tools; ``None`` when a part is not text.
        """
        try:
            request = _decode_request(asked.body)
            if _has_unsized(request) or hides_prompt(model_of(asked.names)):
                return None
            parts = (request.system, request.messages, request.toolConfig)
            shown = [msgspec.json.decode(part) for part in parts if bytes(part) not in NULLS]
        except (*UNREADABLE, BadRequest):
            return None
        return [text for text in texts_of(shown) if text]


def _has_unsized(request: _Request) -> bool:
    """Tell whether the prompt holds what its bytes do not bound, by any reading of it."""
    try:
        if bytes(request.messages) not in NULLS:
            _decode_messages(request.messages)
        if bytes(request.system) not in NULLS:
            _decode_system(request.system)
    except UNREADABLE:
        return True
    return False


def _has_system_tools(tools: bytes) -> bool:
    """Tell whether the provider runs tools of its own, such as a search."""
    if tools in NULLS:
        return False
    try:
        _decode_tools(tools)
    except UNREADABLE:
        return True
    return False


def keep_output(answer: Answer, output: msgspec.Raw) -> None:
    """Keep the text of a whole answer for counting.

    Args:
        answer: Takes it.
        output: The ``output`` of Converse, or a body of Nova's.
    """
    try:
        for text in texts_of(msgspec.json.decode(output)):
            keep_text(answer, text)
    except UNREADABLE:
        keep_unread(answer, bytes(output))


def _fold_end(answer: Answer, reply: _Reply, facts: RequestFacts, stop: str | None) -> None:
    """Take in what an answer says once it is done: usage, tier, the model that served."""
    is_blocked = stop == "guardrail_intervened"
    if bytes(reply.usage) not in NULLS:
        fields = _fields_in(reply.usage)
        usage = unknown_usage("usage of an odd shape") if fields is None else read_converse(fields)
        answer.usage = free_where_blocked(
            usage, is_blocked=is_blocked, is_refused=stop == "refusal"
        )
        answer.usage_chars = answer.text_chars
    trace = _fields_in(reply.trace) or {}
    if is_blocked or trace.get("guardrail"):
        answer.flags = (*answer.flags, GUARDRAIL_FLAG)
    router = trace.get("promptRouter")
    if isinstance(router, dict) and (served := _name(router.get("invokedModelId"))):
        answer.model = served
    tier = (_fields_in(reply.serviceTier) or {}).get("type")
    latency = (_fields_in(reply.performanceConfig) or {}).get("latency")
    answer.tier = tier_served(_name(tier), _name(latency), facts.tier)


def _fields_in(raw: msgspec.Raw) -> dict[str, Any] | None:
    if bytes(raw) in NULLS:
        return None
    try:
        value = msgspec.json.decode(raw)
    except UNREADABLE:
        return None
    return value if isinstance(value, dict) else None


def _text_in(raw: msgspec.Raw) -> str | None:
    try:
        return msgspec.json.decode(raw, type=str)
    except UNREADABLE:
        return None


def _name(value: object) -> str | None:
    return value[:NAME_CHARS_MAX] if isinstance(value, str) and value else None


class _ConverseFold(FrameFold):
    """Reads the events of ConverseStream."""

    def __init__(self, facts: RequestFacts) -> None:
        super().__init__()
        self.answer.tells_fees = True
        self._facts = facts
        self._stop: str | None = None

    def _take_event(self, name: str, frame: EventFrame) -> bool:
        answer = self.answer
        if name == "contentBlockDelta":
            for text in _texts_of_delta(frame.payload):
                keep_text(answer, text)
        elif name == "contentBlockStart":
            keep_unread(answer, frame.payload)
        elif name == "messageStop":
            answer.is_finished = True
            self._stop = _text_in(_decode_reply(frame.payload).stopReason)
        elif name == "metadata":
            answer.is_complete = True
            _fold_end(answer, _decode_reply(frame.payload), self._facts, self._stop)
            return True
        return False


def _texts_of_delta(payload: bytes) -> Iterator[str]:
    try:
        delta = _decode_delta(payload).delta
    except UNREADABLE:
        yield payload.decode("utf-8", "replace")
        return
    if delta.text:
        yield delta.text
    if delta.toolUse is not None and delta.toolUse.input:
        yield delta.toolUse.input
    if delta.reasoningContent is not None and delta.reasoningContent.text:
        yield delta.reasoningContent.text


ENDPOINTS: Final = (
    Endpoint(
        kinds=BEDROCK,
        path="/model/{model...}/converse",
        format=BedrockConverse(streams=False),
        is_strict=True,
    ),
    Endpoint(
        kinds=BEDROCK,
        path="/model/{model...}/converse-stream",
        format=BedrockConverse(streams=True),
        is_strict=True,
    ),
)
