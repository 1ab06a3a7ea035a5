"""Answers of Cohere, whole or streamed, in both versions: billed units and text as they pass.

Must never change an event, and never let an odd field hide the billed units beside it.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from gateway.wire.cohere_usage import decode_usage, read_usage
from gateway.wire.facts import Answer
from gateway.wire.reading import (
    ABSENT,
    NAME_CHARS_MAX,
    UNREADABLE,
    is_given,
    keep_text,
    keep_unread,
    mend_surrogates,
    read_name,
    try_read,
)
from gateway.wire.sse import data_of
from pricing.usage import unknown_usage

_FAILED: Final = frozenset({"ERROR", "TIMEOUT"})


class _Content(msgspec.Struct, gc=False):
    text: str | None = None
    thinking: str | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: _Content | list[_Content] | str | None = None
    tool_plan: str | None = None
    tool_calls: _Call | list[_Call] | None = None


class _Delta(msgspec.Struct, gc=False):
    message: _Message | None = None
    finish_reason: str | None = None
    error: str | None = None
    usage: msgspec.Raw = ABSENT


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    id: str | None = None
    delta: _Delta | None = None


class _OddEvent(msgspec.Struct, gc=False):
    """An event with every field unread, to be read one by one where some are odd."""

    type: msgspec.Raw = ABSENT
    id: msgspec.Raw = ABSENT
    delta: msgspec.Raw = ABSENT
    message: msgspec.Raw = ABSENT


class _OddDelta(msgspec.Struct, gc=False):
    finish_reason: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT


class _Whole(msgspec.Struct, gc=False):
    """A whole answer of either version, its text unread."""

    id: msgspec.Raw = ABSENT
    generation_id: msgspec.Raw = ABSENT
    response_id: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    meta: msgspec.Raw = ABSENT
    message: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT
    summary: msgspec.Raw = ABSENT
    generations: msgspec.Raw = ABSENT
    tool_calls: msgspec.Raw = ABSENT
    finish_reason: msgspec.Raw = ABSENT


class _V1Event(msgspec.Struct, gc=False):
    """An event of version 1; only its text is read before the last."""

    event_type: str | None = None
    text: str | None = None
    finish_reason: str | None = None
    is_finished: bool = False
    generation_id: msgspec.Raw = ABSENT
    tool_call_delta: msgspec.Raw = ABSENT
    response: msgspec.Raw = ABSENT
    err: msgspec.Raw = ABSENT
    message: msgspec.Raw = ABSENT


class _V1Odd(msgspec.Struct, gc=False):
    event_type: msgspec.Raw = ABSENT
    finish_reason: msgspec.Raw = ABSENT
    response: msgspec.Raw = ABSENT
    err: msgspec.Raw = ABSENT


_decode_event: Final = msgspec.json.Decoder(_Event).decode
_decode_odd_event: Final = msgspec.json.Decoder(_OddEvent).decode
_decode_odd_delta: Final = msgspec.json.Decoder(_OddDelta).decode
_decode_message: Final = msgspec.json.Decoder(_Message).decode
_decode_whole: Final = msgspec.json.Decoder(_Whole).decode
_decode_v1: Final = msgspec.json.Decoder(_V1Event).decode
_decode_v1_odd: Final = msgspec.json.Decoder(_V1Odd).decode
_decode_contents: Final = msgspec.json.Decoder(list[_Content]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


class ChatFold:
    """Reads the events of a v2 chat.

    Attributes:
        answer: What has been seen so far.
    """

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer = Answer(tells_fees=True)

    def take(self, event: bytes) -> bool:
        """Read one event.

        Args:
            event: With its framing.

        Returns:
            Whether it is the ``message-end``.
        """
        data = data_of(event)
        if data is None or not data.strip():
            return False
        if data.strip() == b"[DONE]":
            return True
        try:
            seen = _decode_event(data)
        except UNREADABLE:
            return self._take_odd(data)
        answer = self.answer
        answer.is_readable = True
        if seen.id:
            answer.request_id = seen.id[:NAME_CHARS_MAX]
        delta = seen.delta
        if delta is None:
            return self._take_other(seen.type, data)
        if delta.message is not None:
            _keep_message(answer, delta.message)
        if seen.type != "message-end":
            return False
        _end(answer, delta.usage, delta.finish_reason, is_error=delta.error is not None)
        return True

    def _take_other(self, kind: str | None, data: bytes) -> bool:
        """Read an event without a delta: a pause between parts, an end, or an error."""
        if kind == "message-end":
            _end(self.answer, ABSENT, None, is_error=False)
            return True
        if kind is None:
            odd = try_read(_decode_odd_event, msgspec.Raw(data))
            self.answer.is_error |= odd is not None and is_given(odd.message)
        return False

    def _take_odd(self, data: bytes) -> bool:
        """Read what can be read of an event with an odd field; the rest counts by its size."""
        seen = try_read(_decode_odd_event, msgspec.Raw(mend_surrogates(data)))
        if seen is None:
            return False
        keep_unread(self.answer, data)
        self.answer.request_id = read_name(seen.id) or self.answer.request_id
        if read_name(seen.type) != "message-end":
            return False
        delta = try_read(_decode_odd_delta, seen.delta) or _OddDelta()
        reason = read_name(delta.finish_reason)
        _end(self.answer, delta.usage, reason, is_error=is_given(delta.error))
        return True


class V1Fold:
    """Reads the events of a v1 chat or a generation.

    Attributes:
        answer: What has been seen so far.
    """

    __slots__ = ("_unframe", "answer")

    def __init__(self, unframe: Callable[[bytes], bytes | None]) -> None:
        """Begin.

        Args:
            unframe: Takes the framing off an event: server-sent events or lines of JSON.
        """
        self.answer = Answer(tells_fees=True)
        self._unframe = unframe

    def take(self, event: bytes) -> bool:
        """Read one event.

        Args:
            event: With its framing.

        Returns:
            Whether it is the ``stream-end``.
        """
        data = self._unframe(event)
        if data is None or not data.strip():
            return False
        try:
            seen = _decode_v1(data)
        except UNREADABLE:
            return self._take_odd(data)
        answer = self.answer
        answer.is_readable = True
        if is_given(seen.generation_id):
            answer.request_id = read_name(seen.generation_id) or answer.request_id
        if is_given(seen.err) or (seen.event_type is None and is_given(seen.message)):
            answer.is_error = True
        if seen.event_type == "text-generation" or seen.event_type is None:
            keep_text(answer, seen.text)
        elif seen.event_type == "tool-calls-chunk":
            keep_unread(answer, bytes(seen.tool_call_delta))
        if seen.event_type != "stream-end":
            return False
        self._end(seen.response, seen.finish_reason)
        return True

    def _take_odd(self, data: bytes) -> bool:
        seen = try_read(_decode_v1_odd, msgspec.Raw(mend_surrogates(data)))
        if seen is None:
            return False
        if read_name(seen.event_type) != "stream-end":
            keep_unread(self.answer, data)
            return False
        self._end(seen.response, read_name(seen.finish_reason))
        return True

    def _end(self, response: msgspec.Raw, reason: str | None) -> None:
        whole = try_read(_decode_whole, response) or _Whole()
        _end(self.answer, whole.meta, reason, is_error=False)
        self.answer.request_id = _id_of(whole) or self.answer.request_id


def read_answer(body: bytes) -> Answer:
    """Read a whole answer of either version.

    Args:
        body: The answer as it came.

    Returns:
        What it says, with its text only if it tells no usable usage; not readable when it is no
        answer of Cohere's.
    """
    answer = Answer(tells_fees=True)
    whole = try_read(_decode_whole, msgspec.Raw(body))
    if whole is None:
        whole = try_read(_decode_whole, msgspec.Raw(mend_surrogates(body)))
    if whole is None:
        return answer
    answer.request_id = _id_of(whole)
    is_answer = any(
        is_given(field)
        for field in (whole.usage, whole.meta, whole.text, whole.generations, whole.summary)
    )
    _end(
        answer,
        whole.usage if is_given(whole.usage) else whole.meta,
        read_name(whole.finish_reason),
        is_error=not is_answer and bytes(whole.message).startswith(b'"'),
    )
    answer.is_readable = not answer.is_error and (is_answer or is_given(whole.message))
    answer.is_complete = answer.is_readable
    if answer.usage is None or not answer.usage.counts:
        _keep_whole(answer, whole)
    return answer


def _id_of(whole: _Whole) -> str | None:
    return read_name(whole.id) or read_name(whole.response_id) or read_name(whole.generation_id)


def _end(answer: Answer, usage: msgspec.Raw, reason: str | None, *, is_error: bool) -> None:
    """Fold what stands at the end of an answer."""
    if is_given(usage):
        told = try_read(decode_usage, usage)
        answer.usage = (
            unknown_usage("the usage cannot be read") if told is None else read_usage(told)
        )
    answer.usage_chars = answer.text_chars
    answer.is_finished = answer.is_complete = True
    answer.is_error |= is_error or reason in _FAILED


def _keep_message(answer: Answer, message: _Message) -> None:
    content = message.content
    if type(content) is _Content:
        keep_text(answer, content.text)
        keep_text(answer, content.thinking)
    elif isinstance(content, list):
        for part in content:
            keep_text(answer, part.text)
            keep_text(answer, part.thinking)
    elif isinstance(content, str):
        keep_text(answer, content)
    keep_text(answer, message.tool_plan)
    calls = message.tool_calls
    for call in calls if isinstance(calls, list) else (calls,):
        if call is not None and call.function is not None:
            keep_text(answer, call.function.name)
            keep_text(answer, call.function.arguments)


def _keep_whole(answer: Answer, whole: _Whole) -> None:
    """Keep the text of an answer that tells no usage."""
    if is_given(whole.message):
        message = try_read(_decode_message, whole.message)
        if message is None:
            keep_unread(answer, bytes(whole.message))
        else:
            _keep_message(answer, message)
    for field in (whole.text, whole.summary):
        keep_text(answer, try_read(_decode_text, field))
    for part in try_read(_decode_contents, whole.generations) or ():
        keep_text(answer, part.text)
    if is_given(whole.tool_calls):
        keep_unread(answer, bytes(whole.tool_calls))
