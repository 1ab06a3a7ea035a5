"""Bedrock's InvokeModel, whole or streamed, of whatever family of models.

Must never add up what headers, body and metrics each tell of the same tokens.
"""

from typing import Final

import msgspec

from gateway.wire import anthropic_usage
from gateway.wire.bedrock_converse import BEDROCK
from gateway.wire.bedrock_dialect import BedrockDialect
from gateway.wire.bedrock_families import SINGLE, InvokeRequest, bounds_of
from gateway.wire.bedrock_frames import FrameFold, keep_text, keep_unread
from gateway.wire.bedrock_requests import (
    INPUT_TOKENS_SPARE,
    bad_json,
    bytes_of,
    may_think,
    meters_of,
    model_of,
    read_header,
    refuse_repeats,
    texts_of,
    tier_of,
    tier_served,
)
from gateway.wire.bedrock_usage import (
    GUARDRAIL_FLAG,
    Told,
    free_where_blocked,
    read_family,
    read_headers,
    read_metrics,
    settle_sources,
    to_count,
    to_usage,
)
from gateway.wire.endpoints import Endpoint
from gateway.wire.eventstream import CONTENT_TYPE, EventFrame, FrameCutter
from gateway.wire.facts import Answer, Asked, ReplyHead, RequestFacts, header_of
from gateway.wire.openai_answer import ABSENT, NULLS, UNREADABLE
from gateway.wire.tap import Tap
from pricing.meters import Meter
from pricing.usage import Basis, Usage

_TIER: Final = "x-amzn-bedrock-service-tier"
_LATENCY: Final = "x-amzn-bedrock-performanceconfig-latency"
_INTERVENED: Final = "INTERVENED"


class _Result(msgspec.Struct):
    tokenCount: msgspec.Raw = ABSENT  # noqa: N815 - on the wire


class _Body(msgspec.Struct, rename={"guard": "amazon-bedrock-guardrailAction"}):
    """Where the families keep what they tell, with every field unread."""

    usage: msgspec.Raw = ABSENT
    stop_reason: msgspec.Raw = ABSENT
    inputTextTokenCount: msgspec.Raw = ABSENT  # noqa: N815 - on the wire
    results: msgspec.Raw = ABSENT
    prompt_token_count: msgspec.Raw = ABSENT
    generation_token_count: msgspec.Raw = ABSENT
    embedding: msgspec.Raw = ABSENT
    embeddings: msgspec.Raw = ABSENT
    embeddingsByType: msgspec.Raw = ABSENT  # noqa: N815
    images: msgspec.Raw = ABSENT
    artifacts: msgspec.Raw = ABSENT
    guard: msgspec.Raw = ABSENT


class _Outer(msgspec.Struct):
    bytes: bytes


class _Spoken(msgspec.Struct):
    """Text in a delta, in the families' spellings."""

    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Spoken | None = None
    text: str | None = None


class _Start(msgspec.Struct):
    usage: msgspec.Raw = ABSENT


class _NovaDelta(msgspec.Struct):
    delta: _Spoken | None = None


class _NovaEnd(msgspec.Struct):
    usage: msgspec.Raw = ABSENT


class _Event(
    msgspec.Struct,
    rename={
        "metrics": "amazon-bedrock-invocationMetrics",
        "guard": "amazon-bedrock-guardrailAction",
    },
):
    """One event of a model inside of a frame, of any family."""

    type: str | None = None
    message: _Start | None = None
    usage: msgspec.Raw = ABSENT
    delta: _Spoken | None = None
    contentBlockDelta: _NovaDelta | None = None  # noqa: N815 - on the wire
    metadata: _NovaEnd | None = None
    generation: str | None = None
    prompt_token_count: int | None = None
    generation_token_count: int | None = None
    outputText: str | None = None  # noqa: N815
    inputTextTokenCount: int | None = None  # noqa: N815
    totalOutputTextTokenCount: int | None = None  # noqa: N815
    stop_reason: str | None = None
    completionReason: str | None = None  # noqa: N815
    outputs: list[_Spoken] | None = None
    choices: list[_Choice] | None = None
    text: str | None = None
    completion: str | None = None
    metrics: msgspec.Raw = ABSENT
    guard: str | None = None


class _Stop(msgspec.Struct):
    stop_reason: str | None = None


class _StopEvent(msgspec.Struct):
    delta: _Stop | None = None


class _Metrics(msgspec.Struct, rename={"metrics": "amazon-bedrock-invocationMetrics"}):
    metrics: msgspec.Raw = ABSENT


_decode_request = msgspec.json.Decoder(InvokeRequest).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_results = msgspec.json.Decoder(list[_Result]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_outer = msgspec.json.Decoder(_Outer).decode
_decode_event = msgspec.json.Decoder(_Event, strict=False).decode
_decode_stop = msgspec.json.Decoder(_StopEvent).decode
_decode_metrics = msgspec.json.Decoder(_Metrics).decode


class BedrockInvoke(BedrockDialect):
    """The wire format of ``/model/{id}/invoke`` and ``/invoke-with-response-stream``."""

    api = "bedrock.invoke"
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
            BadRequest: Not JSON, not an object, a field given twice, or priced by what no answer
                tells.

        Source:
            https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html,
            checked 2026-11-23.
        """
        body, model = asked.body, model_of(asked.names)
        try:
            request = _decode_request(body)
        except UNREADABLE as broken:
            raise bad_json("a request of InvokeModel", broken) from None
        refuse_repeats(body, SINGLE)
        bounds = bounds_of(model, body, request)
        inputs = bytes_of(body) + INPUT_TOKENS_SPARE if bounds.is_sized else None
        limit = bounds.output_max
        return RequestFacts(
            model=model,
            stream=self._streams,
            wants_usage=True,
            tier=tier_of(read_header(asked.headers, _TIER), read_header(asked.headers, _LATENCY)),
            input_tokens_max=inputs if bounds.has_tokens else 0,
            output_tokens_max=None if limit is None else limit * bounds.choices,
            choices=bounds.choices,
            extra_output_max=0,
            meters=meters_of(model, body) if bounds.has_tokens else frozenset(),
            fees=bounds.fees,
            variants=bounds.variants,
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
        fold = _InvokeFold()
        fold.answer.tier = _tier_in(head, facts)
        return Tap(FrameCutter(), fold)

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What it says; its headers are believed where the body says something else.
        """
        answer = Answer(tier=_tier_in(head, facts))
        try:
            read = _decode_body(body)
        except UNREADABLE:
            # What a model answers need not be JSON; what Bedrock counted stands all the same.
            read = _Body()
        answer.is_readable = answer.is_complete = True
        is_blocked = _text_in(read.guard) == _INTERVENED
        if is_blocked:
            answer.flags = (GUARDRAIL_FLAG,)
        usage = settle_sources(_told_outside(read_headers(head), read, facts), _told_inside(read))
        is_refused = _text_in(read.stop_reason) == "refusal"
        answer.usage = free_where_blocked(usage, is_blocked=is_blocked, is_refused=is_refused)
        _take_fees(answer, read, facts)
        if answer.usage is None or answer.usage.basis is Basis.UNKNOWN:
            _keep_body(answer, body)
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
            Every text in it; ``None`` when a part is not text.
        """
        if self.read_facts(asked).input_tokens_max is None:
            return None
        return [text for text in texts_of(msgspec.json.decode(asked.body)) if text]


def _tier_in(head: ReplyHead, facts: RequestFacts) -> str | None:
    return tier_served(header_of(head, _TIER), header_of(head, _LATENCY), facts.tier)


def _told_outside(told: Told, read: _Body, facts: RequestFacts) -> Told:
    """What the headers say; of an embedding they leave the output out, because there is none."""
    if told.plain is None or told.output is not None or facts.output_tokens_max != 0:
        return told
    return told._replace(output=0)


def _told_inside(read: _Body) -> Usage | None:
    """What the body says, wherever its family has it."""
    if bytes(read.usage) not in NULLS:
        is_refused = _text_in(read.stop_reason) == "refusal"
        return read_family(read.usage, is_refused=is_refused)
    if bytes(read.prompt_token_count) not in NULLS:
        return to_usage(
            Told(
                plain=_count_in(read.prompt_token_count),
                output=_count_in(read.generation_token_count),
            )
        )
    if bytes(read.inputTextTokenCount) in NULLS:
        return None
    plain = _count_in(read.inputTextTokenCount)
    if bytes(read.embedding) not in NULLS or bytes(read.embeddingsByType) not in NULLS:
        return to_usage(Told(plain=plain, output=0))
    try:
        counts = [_count_in(one.tokenCount) for one in _decode_results(read.results)]
    except UNREADABLE:
        return to_usage(Told(plain=plain))
    output = None if None in counts or not counts else sum(filter(None, counts))
    return to_usage(Told(plain=plain, output=output))


def _take_fees(answer: Answer, read: _Body, facts: RequestFacts) -> None:
    """Count what is not tokens: images that came, units of a rerank."""
    fees = dict(facts.fees)
    if Meter.WEB_SEARCH in fees:
        answer.tells_fees = True
        return
    if Meter.SEARCH_UNIT in fees:
        answer.tells_fees = True
        inside = answer.usage.counts if answer.usage is not None else {}
        answer.usage = Usage(counts={**inside, **fees}, basis=Basis.REPORTED)
        return
    if facts.meters or Meter.IMAGE not in fees:
        return
    answer.tells_fees = True
    made = read.images if bytes(read.images) not in NULLS else read.artifacts
    try:
        count = len(_decode_list(made))
    except UNREADABLE:
        return
    counts = {Meter.IMAGE: count} if count else {}
    answer.usage = Usage(counts=counts, basis=Basis.REPORTED if count else Basis.NONE)


def _keep_body(answer: Answer, body: bytes) -> None:
    try:
        for text in texts_of(msgspec.json.decode(body)):
            keep_text(answer, text)
    except UNREADABLE:
        keep_unread(answer, body)


def _count_in(raw: msgspec.Raw) -> int | None:
    try:
        return to_count(msgspec.json.decode(raw))
    except UNREADABLE:
        return None


def _text_in(raw: msgspec.Raw) -> str | None:
    try:
        return msgspec.json.decode(raw, type=str)
    except UNREADABLE:
        return None


class _InvokeFold(FrameFold):
    """Reads the events of a model inside of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.answer.tells_fees = True
        self._claude: dict[str, object] = {}
        self._inside: Usage | None = None
        self._is_refused = False
        self._is_blocked = False

    def _take_event(self, name: str, frame: EventFrame) -> bool:
        if name != "chunk":
            return False
        inner = _decode_outer(frame.payload).bytes
        try:
            event = _decode_event(inner)
        except UNREADABLE:
            keep_unread(self.answer, inner)
            metrics = _decode_metrics(inner).metrics
            return self._take_metrics(metrics)
        if event.guard == _INTERVENED:
            self._is_blocked = True
        self._take_text(event)
        self._take_usage(event, inner)
        return self._take_metrics(event.metrics)

    def _take_text(self, event: _Event) -> None:
        spoken = [event.delta, *(event.outputs or ())]
        if event.contentBlockDelta is not None:
            spoken.append(event.contentBlockDelta.delta)
        for choice in event.choices or ():
            spoken.append(choice.delta)
            keep_text(self.answer, choice.text or "")
        for one in spoken:
            if one is not None:
                for text in (one.text, one.partial_json, one.thinking, one.content):
                    keep_text(self.answer, text or "")
        for text in (event.generation, event.outputText, event.text, event.completion):
            keep_text(self.answer, text or "")

    def _take_usage(self, event: _Event, inner: bytes) -> None:
        usage = self._read_usage(event, inner)
        if usage is None:
            return
        self._inside = usage
        self.answer.usage = free_where_blocked(
            usage, is_blocked=self._is_blocked, is_refused=self._is_refused
        )
        self.answer.usage_chars = self.answer.text_chars

    def _read_usage(self, event: _Event, inner: bytes) -> Usage | None:
        """Read the newest report; each replaces the one before, none is added."""
        if event.message is not None:
            return self._overwrite(event.message.usage, is_final=False)
        if event.type == "message_delta":
            stop = _decode_stop(inner).delta
            self._is_refused = stop is not None and stop.stop_reason == "refusal"
            self.answer.is_finished = stop is not None and stop.stop_reason is not None
            return self._overwrite(event.usage, is_final=self.answer.is_finished)
        if event.metadata is not None:
            return read_family(event.metadata.usage)
        if bytes(event.usage) not in NULLS:
            return read_family(event.usage)
        if event.generation_token_count is not None or event.totalOutputTextTokenCount is not None:
            return self._read_total(event)
        return None

    def _read_total(self, event: _Event) -> Usage:
        """Read a running total, which is a part until the answer says that it ended."""
        plain = _first(event.prompt_token_count, event.inputTextTokenCount)
        before = self._inside.input_total if self._inside is not None else None
        output = _first(event.generation_token_count, event.totalOutputTextTokenCount)
        usage = to_usage(Told(plain=_first(plain, before), output=output))
        if event.stop_reason or event.completionReason or usage.basis is not Basis.REPORTED:
            return usage
        return Usage(counts=usage.counts, basis=Basis.PARTIAL, flags=usage.flags)

    def _overwrite(self, raw: msgspec.Raw, *, is_final: bool) -> Usage | None:
        if bytes(raw) in NULLS:
            return None
        fields = msgspec.json.decode(raw)
        if not isinstance(fields, dict):
            return None
        anthropic_usage.overwrite(self._claude, fields)
        told = anthropic_usage.read_usage(
            self._claude, is_final=is_final, is_refused=self._is_refused
        )
        return told.usage

    def _take_metrics(self, raw: msgspec.Raw) -> bool:
        """Take Bedrock's own count in, which ends the answer."""
        if bytes(raw) in NULLS:
            return False
        answer = self.answer
        answer.is_finished = answer.is_complete = True
        fields = msgspec.json.decode(raw)
        outside = read_metrics(fields) if isinstance(fields, dict) else Told()
        usage = settle_sources(outside, self._inside)
        if self._is_blocked:
            answer.flags = (*answer.flags, GUARDRAIL_FLAG)
        answer.usage = free_where_blocked(
            usage, is_blocked=self._is_blocked, is_refused=self._is_refused
        )
        answer.usage_chars = answer.text_chars
        return True


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


ENDPOINTS: Final = (
    Endpoint(
        kinds=BEDROCK,
        path="/model/{model...}/invoke",
        format=BedrockInvoke(streams=False),
        is_strict=True,
    ),
    Endpoint(
        kinds=BEDROCK,
        path="/model/{model...}/invoke-with-response-stream",
        format=BedrockInvoke(streams=True),
        is_strict=True,
    ),
)
