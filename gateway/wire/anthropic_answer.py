"""Answers of Anthropic's Messages API, whole or streamed: usage, names and text as they pass.

Must never change an event, never let an odd field hide the usage beside it, and never take a count
that was sent before the output for the last word.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from gateway.wire.anthropic_usage import NAME_CHARS_MAX, overwrite, read_usage
from gateway.wire.cutters import SseCutter
from gateway.wire.facts import Answer, RequestFacts
from gateway.wire.openai_responses_usage import read_charge
from gateway.wire.sse import data_of
from gateway.wire.tap import Tap
from pricing.usage import Basis

TEXT_KEPT_CHARS_MAX: Final = 256 * 1024
# What decoding raises on bytes that are not what they should be.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
ABSENT: Final = msgspec.Raw(b"")
NULLS: Final = frozenset({b"", b"null"})
# Before any report of output, even an empty answer is not counted in full.
_NOTHING_TOLD: Final = -1
_REFUSAL: Final = "refusal"
_HIDDEN_BLOCKS: Final = frozenset({"thinking", "redacted_thinking"})
_FALLBACK_BLOCK: Final = "fallback"
# How nearly every delta begins, so that what it cannot hold is not looked for.
_DELTA_EVENT: Final = b"event: content_block_delta\n"

# Regions that a request asks for by ``inference_geo``.
_GEOS: Final = frozenset({None, "us"})

_Usage = dict[str, Any]


class _Delta(msgspec.Struct, gc=False):
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    stop_reason: str | None = None


class _Hop(msgspec.Struct, gc=False):
    model: str | None = None


class _Block(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    input: msgspec.Raw = ABSENT
    to: _Hop | None = None


class _Sketch(msgspec.Struct, gc=False):
    """A message without its content, which is not needed once usage is there."""

    type: str | None = None
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Content(msgspec.Struct):
    content: list[msgspec.Raw] | None = None


class _DeltaEvent(msgspec.Struct, gc=False):
    delta: _Delta | None = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    message: _Sketch | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None


class _RawEvent(msgspec.Struct, gc=False):
    """An event with every field unread, to be read one by one where some are odd."""

    type: msgspec.Raw = ABSENT
    message: msgspec.Raw = ABSENT
    content_block: msgspec.Raw = ABSENT
    delta: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT


class _RawMessage(msgspec.Struct, gc=False):
    """A message likewise."""

    type: msgspec.Raw = ABSENT
    id: msgspec.Raw = ABSENT
    model: msgspec.Raw = ABSENT
    stop_reason: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT


_decode_delta_event = msgspec.json.Decoder(_DeltaEvent).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_raw_event = msgspec.json.Decoder(_RawEvent).decode
_decode_raw_message = msgspec.json.Decoder(_RawMessage).decode
_decode_sketch = msgspec.json.Decoder(_Sketch).decode
_decode_content = msgspec.json.Decoder(_Content).decode
_decode_block = msgspec.json.Decoder(_Block).decode
_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_text = msgspec.json.Decoder(str).decode

Read = TypeVar("Read")


class MessageFold:
    """Reads the events of one streamed message.

    Attributes:
        answer: What has been seen so far.

    Source:
        https://platform.claude.com/docs/en/build-with-claude/streaming, checked 2026-11-23.
    """

    __slots__ = ("_facts", "_is_told", "_seen", "_stop_reason", "answer")

    def __init__(self, facts: RequestFacts) -> None:
        # A stream shows every block it begins, so what is hidden is known to be there.
        self.answer = Answer(hides_output=False)
        self._facts = facts
        self._seen: _Usage = {}
        self._is_told = False
        self._stop_reason: str | None = None

    def take(self, event: bytes) -> bool:
        """Read one event.

        Args:
            event: With its framing.

        Returns:
            Whether the message ends with it.
        """
        if event.startswith(_DELTA_EVENT):
            data = event[len(_DELTA_EVENT) + 5 : -2]
            try:
                delta = _decode_delta_event(data).delta
            except UNREADABLE:
                pass  # another framing than the usual one, or an odd field
            else:
                if delta is not None:
                    self._fold_delta(delta)
                return False
        found = data_of(event)
        if found is None:
            return False
        try:
            seen = _decode_event(found)
        except UNREADABLE:
            seen = self._read_odd(found)
        return self._fold_event(seen)

    def _fold_event(self, seen: _Event) -> bool:
        kind = seen.type
        if kind is not None:
            self.answer.is_readable = True
        if kind == "message_start" and seen.message is not None:
            self._fold_start(seen.message)
        elif kind == "content_block_start" and seen.content_block is not None:
            self._fold_block(seen.content_block)
        elif kind == "content_block_delta" and seen.delta is not None:
            self._fold_delta(seen.delta)
        elif kind == "message_delta":
            self._fold_end(seen)
        elif kind == "message_stop":
            self._fold_stop()
            return True
        elif kind == "error":
            self._fold_error()
            return True
        return False

    def _fold_start(self, message: _Sketch) -> None:
        _take_names(self.answer, message, self._facts)
        if message.usage is not None:
            overwrite(self._seen, message.usage)
            self.answer.usage_chars = _NOTHING_TOLD
            self._report()

    def _fold_block(self, block: _Block) -> None:
        if block.type in _HIDDEN_BLOCKS:
            self.answer.hides_output = True
        elif block.type == _FALLBACK_BLOCK and block.to is not None and block.to.model:
            # The model asked for has declined; what follows is another one's.
            self.answer.model = block.to.model[:NAME_CHARS_MAX]
        keep_block(self.answer, block)

    def _fold_delta(self, delta: _Delta) -> None:
        for text in (delta.text, delta.partial_json, delta.thinking):
            if text:
                _keep(self.answer, text)

    def _fold_end(self, seen: _Event) -> None:
        answer = self.answer
        if seen.delta is not None and seen.delta.stop_reason:
            self._stop_reason = seen.delta.stop_reason
            answer.is_finished = True
        if seen.usage is None:
            return
        overwrite(self._seen, seen.usage)
        if seen.usage.get("output_tokens") is not None:
            self._is_told = True
            answer.usage_chars = answer.text_chars
        self._report()

    def _fold_stop(self) -> None:
        self.answer.is_complete = True
        if not self.answer.is_finished:
            self.answer.is_finished = True
            if self._seen:
                self._report()

    def _fold_error(self) -> None:
        self.answer.is_error = True
        if not self._seen and not self.answer.text_chars:
            # An overload or the like, told after the status: nothing was begun.
            self.answer.is_billed = False

    def _report(self) -> None:
        is_final = self._is_told and self.answer.is_finished
        take_usage(
            self.answer,
            self._seen,
            self._facts,
            is_final=is_final,
            is_refused=is_final and self._stop_reason == _REFUSAL and not self.answer.text_chars,
        )

    def _read_odd(self, data: bytes) -> _Event:
        """Read what can be read where some field is odd; what cannot be is counted by its size."""
        try:
            raw = _decode_raw_event(data)
        except UNREADABLE:
            return _Event()
        delta = _try_read(_decode_delta, raw.delta)
        if delta is None:
            keep_unread(self.answer, raw.delta)
        message = _try_read(_decode_sketch, raw.message)
        return _Event(
            type=_try_read(_decode_text, raw.type),
            message=_read_odd_message(bytes(raw.message)) if message is None else message,
            content_block=_try_read(_decode_block, raw.content_block),
            delta=delta,
            usage=_try_read(_decode_usage, raw.usage),
        )


def open_message_lane(facts: RequestFacts) -> Tap:
    """Begin to read a streamed message.

    Args:
        facts: What the client asked for.

    Returns:
        A lane for its bytes.
    """
    return Tap(SseCutter(), MessageFold(facts))


def read_message(body: bytes, facts: RequestFacts) -> Answer:
    """Read a whole message.

    Args:
        body: The answer as it came.
        facts: What the client asked for.

    Returns:
        What it says, with its text only if it has no usable usage; not readable when it is not a
        message, but usage and names are taken wherever they can be read.
    """
    answer = Answer()
    try:
        sketch: _Sketch | None = _decode_sketch(body)
    except UNREADABLE:
        sketch = _read_odd_message(body)
    if sketch is None:
        return answer
    _take_names(answer, sketch, facts)
    if sketch.type == "error":
        answer.is_error = True
        return answer
    answer.is_readable = sketch.type == "message" or sketch.usage is not None
    answer.is_complete = answer.is_finished = True
    is_refused = sketch.stop_reason == _REFUSAL
    if sketch.usage is not None:
        take_usage(answer, sketch.usage, facts, is_final=True, is_refused=is_refused)
    if answer.usage is None or answer.usage.basis is Basis.UNKNOWN or not answer.usage.counts:
        _fold_content(answer, body)
    return answer


def take_usage(
    answer: Answer, raw: _Usage, facts: RequestFacts, *, is_final: bool, is_refused: bool
) -> None:
    """Take a usage object in, with all it tells.

    Args:
        answer: Changed.
        raw: As decoded; of a stream, every field reported so far.
        facts: What the client asked for.
        is_final: Whether it was reported after all output.
        is_refused: Whether the answer is a refusal without any visible output.
    """
    told = read_usage(
        raw,
        asked=answer.model or facts.model,
        tier_asked=facts.tier,
        is_final=is_final,
        is_refused=is_refused,
    )
    answer.usage = told.usage
    answer.others = told.others
    answer.tells_fees = is_final
    answer.tier = told.tier
    answer.provider_cost = read_charge(raw) if is_final else None
    # An address that stands for a region class of its own tells better where the price is from.
    answer.region = told.region if facts.region in _GEOS else None
    if told.model is not None:
        answer.model = told.model


def _take_names(answer: Answer, seen: _Sketch, facts: RequestFacts) -> None:
    if seen.model:
        # Vertex writes a version as claude-x@20260101 in its path and with a dash in the answer.
        is_asked = "@" in facts.model and facts.model.replace("@", "-") == seen.model
        answer.model = facts.model if is_asked else seen.model[:NAME_CHARS_MAX]
    if seen.id:
        answer.request_id = seen.id[:NAME_CHARS_MAX]


def _fold_content(answer: Answer, body: bytes) -> None:
    """Keep the text of a message that has no usable usage."""
    try:
        blocks = _decode_content(body).content or []
    except UNREADABLE:
        keep_unread(answer, body)
        return
    answer.hides_output = False
    for raw in blocks:
        block = _try_read(_decode_block, raw)
        if block is None:
            keep_unread(answer, raw)
        else:
            answer.hides_output = answer.hides_output or block.type in _HIDDEN_BLOCKS
            keep_block(answer, block)


def _read_odd_message(body: bytes) -> _Sketch | None:
    try:
        raw = _decode_raw_message(body)
    except UNREADABLE:
        return None
    return _Sketch(
        type=_try_read(_decode_text, raw.type),
        id=_try_read(_decode_text, raw.id),
        model=_try_read(_decode_text, raw.model),
        stop_reason=_try_read(_decode_text, raw.stop_reason),
        # An odd usage is one without counts, not none.
        usage=_try_read(_decode_usage, raw.usage)
        if bytes(raw.usage) in NULLS
        else (_try_read(_decode_usage, raw.usage) or {}),
    )


def _try_read(decode: Callable[[msgspec.Raw], Read], raw: msgspec.Raw) -> Read | None:
    try:
        return decode(raw)
    except UNREADABLE:
        return None


def keep_block(answer: Answer, block: _Block) -> None:
    """Count what a block shows.

    Args:
        answer: Changed.
        block: Its texts, and the call of a tool.
    """
    for text in (block.text, block.thinking, block.name):
        if text:
            _keep(answer, text)
    if bytes(block.input) not in NULLS and bytes(block.input) != b"{}":
        keep_unread(answer, block.input)


def keep_unread(answer: Answer, raw: bytes | msgspec.Raw) -> None:
    """Count what is too odd to read as the text it is on the wire.

    Args:
        answer: Changed.
        raw: The bytes.
    """
    _keep(answer, bytes(raw).decode("utf-8", "replace"))


def _keep(answer: Answer, text: str) -> None:
    """Count a text, and keep as much of it as there is room for."""
    room = TEXT_KEPT_CHARS_MAX - answer.text_chars
    answer.text_chars += len(text)
    if room > 0 and text:
        answer.text.append(text[:room])
