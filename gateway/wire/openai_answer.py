"""Answers of OpenAI Chat Completions, whole or streamed: usage, names and text as they pass.

Must never change an event, and never let an odd field hide the usage beside it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from gateway.wire.facts import Answer
from gateway.wire.openai_usage import (
    OPENAI_COUNTING,
    Counting,
    UsageObject,
    read_odd_usage,
    read_usage,
)
from gateway.wire.sse import SseSplitter, data_of, is_lone_object
from gateway.wire.tap import ODD, note_odd
from pricing.usage import Basis, Usage

TEXT_KEPT_CHARS_MAX: Final = 256 * 1024
EVENT_HELD_BYTES_MAX: Final = 256 * 1024
END_HELD_BYTES_MAX: Final = 64 * 1024

# What decoding raises on bytes that are not what they should be. A nesting too deep for Python's
# stack counts as that.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
ABSENT: Final = msgspec.Raw(b"")
NULLS: Final = frozenset({b"", b"null"})
# Names and ids are kept in records; what is longer is cut, so that a record stays small.
NAME_CHARS_MAX: Final = 256

# Wire words for a service tier, in the words of the catalog. ``auto`` and nothing at all leave the
# choice to the project's settings at the provider.
TIERS: Final[Mapping[str | None, str | None]] = MappingProxyType(
    {
        None: None,
        "auto": None,
        "default": "standard",
        "on_demand": "standard",
        "fast": "priority",
    }
)
# Where an answer has this and no usage, its usage stands in another place.
_COUNTED: Final = b'"prompt_tokens"'


class Make(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider does beside what OpenAI's API says.

    Attributes:
        counting: How it counts.
        tiers: Its words for service tiers, in the words of the catalog.
        publisher: What stands before the names of the catalog in its model names.
        note: Reads what stands beside its counts, such as the cost: called with every JSON object
            that has brought usage, after the usage has been read.
    """

    counting: Counting = OPENAI_COUNTING
    tiers: Mapping[str | None, str | None] = TIERS
    publisher: str = ""
    note: Callable[[Answer, bytes], None] | None = None


OPENAI_MAKE: Final = Make()


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    audio: msgspec.Raw = ABSENT


class _Choice(msgspec.Struct, gc=False):
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    # Of the older completions.
    text: str | None = None


class _Sketch(msgspec.Struct, gc=False):
    """An answer without its text, which is not needed once usage is there."""

    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    usage: UsageObject | None = None
    error: msgspec.Raw = ABSENT


class _Chunk(_Sketch, gc=False):
    choices: list[_Choice] | None = None


class _Outline(msgspec.Struct, gc=False):
    """An answer with every field unread, to be read one by one where some are odd."""

    id: msgspec.Raw = ABSENT
    model: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    choices: msgspec.Raw = ABSENT


class _Counted(msgspec.Struct, gc=False):
    usage: msgspec.Raw = ABSENT


class _Elsewhere(msgspec.Struct, gc=False):
    """Where usage stands when it does not stand at the top."""

    x_groq: _Counted | None = None
    choices: list[_Counted] | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk, strict=False).decode
_decode_sketch = msgspec.json.Decoder(_Sketch, strict=False).decode
_decode_outline = msgspec.json.Decoder(_Outline).decode
_decode_usage = msgspec.json.Decoder(UsageObject, strict=False).decode
_decode_elsewhere = msgspec.json.Decoder(_Elsewhere).decode
_decode_choice = msgspec.json.Decoder(_Choice).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode

Read = TypeVar("Read")


class ChatStream:
    """Passes a stream on and folds what it sees.

    Attributes:
        answer: What has been seen so far.
        can_append: Always: an event of the gateway's own may follow the provider's last.
    """

    __slots__ = (
        "_held",
        "_is_passing",
        "_make",
        "_splitter",
        "_strips_usage",
        "answer",
        "can_append",
    )

    def __init__(self, *, strips_usage: bool, make: Make = OPENAI_MAKE) -> None:
        self.answer = Answer()
        self._make = make
        self.can_append = True
        self._splitter = SseSplitter()
        self._strips_usage = strips_usage
        self._held = bytearray()
        self._is_passing = False

    @property
    def is_holding(self) -> bool:
        """Whether the end of the answer has come and is held back."""
        return bool(self._held)

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes and give those that may go to the client now.

        Args:
            chunk: The next bytes of the stream.

        Returns:
            Whole events, unchanged, without a stripped usage chunk and without the last events,
            which wait for the settlement. Providers end with ``[DONE]``; one that sends more than
            ``END_HELD_BYTES_MAX`` after it does not make the gateway hold it: all of it is passed
            on, ``[DONE]`` too, and only the end of the body still waits for the settlement.
        """
        splitter = self._splitter
        if is_lone_object(chunk) and not (splitter.held or self._held or self._is_passing):
            # What most providers send most of the time; all the rest is for the other times.
            try:
                is_usage = _fold_event(self.answer, chunk[6:-2], self._make)
            except ODD as odd:
                note_odd(self.answer, odd)
                return chunk
            return b"" if is_usage and self._strips_usage else chunk
        kept = [event for event in splitter.split(chunk) if self._is_for_now(event)]
        if self._held and len(self._held) + len(splitter.held) > END_HELD_BYTES_MAX:
            kept.append(self._take_held())
        if len(splitter.held) > EVENT_HELD_BYTES_MAX:
            # Far larger than any usage chunk: pass it on piece by piece rather than hold it.
            piece = splitter.take_piece()
            _keep_unread(self.answer, piece)
            kept.append(piece)
            self._is_passing = True
        return kept[0] if len(kept) == 1 else b"".join(kept)

    def finish(self, *, is_broken: bool = False) -> bytes:
        """End the stream.

        Args:
            is_broken: The stream broke off: an event without its blank line is half an event, and
                the client must not have it. What it says in full still counts.

        Returns:
            The bytes held back: the last events, and an event without its blank line if the
            stream ended with it. After a broken stream, what follows is an event of its own.
        """
        rest = self._splitter.take_rest()
        if not is_broken:
            if rest and self._is_for_now(rest):
                self._held += rest
            return self._take_held()
        # Half a huge event is with the client already: nothing may be glued to it.
        tail = b"\n\n" if self._is_passing else self._take_held()
        if rest:
            self._is_for_now(rest)
            self._held.clear()
        self._settle_total()
        return tail

    def _settle_total(self) -> None:
        """Take a running total for a part where the answer broke off that it counts."""
        answer = self.answer
        usage = answer.usage
        if usage is None or answer.is_finished or answer.is_complete:
            return
        if usage.basis is Basis.REPORTED:
            answer.usage = Usage(counts=usage.counts, basis=Basis.PARTIAL, flags=usage.flags)

    def _is_for_now(self, event: bytes) -> bool:
        """Fold one event and say whether it is passed on at once."""
        if self._is_passing:
            self._is_passing = False
            _keep_unread(self.answer, event)
        elif (data := data_of(event)) is not None:
            if not data.startswith(b"{") and data.strip() == b"[DONE]":
                self.answer.is_complete = True
                self._held += event
                return False
            try:
                is_usage = _fold_event(self.answer, data, self._make)
            except ODD as odd:
                note_odd(self.answer, odd)
            else:
                if is_usage and self._strips_usage:
                    return False
        if self._held:
            # Keep the order: once an event is held back, so is everything after it.
            self._held += event
            return False
        return True

    def _take_held(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held


def read_answer(body: bytes, make: Make = OPENAI_MAKE) -> Answer:
    """Read a whole answer.

    Args:
        body: The answer as it came.
        make: What is particular to the provider.

    Returns:
        What it says, with its text only if it has no usable usage; not readable when it is not a
        chat completion, but usage and names are taken wherever they can be read.
    """
    answer = Answer()
    try:
        sketch = _decode_sketch(body)
        if sketch.usage is not None:
            _fold(answer, sketch, make)
        elif _COUNTED in body:
            _fold_elsewhere(answer, body, make)
        if answer.usage is None or answer.usage.basis is Basis.UNKNOWN:
            chunk = _decode_chunk(body)
            _fold(answer, chunk, make)
            _fold_choices(answer, chunk.choices or ())
    except UNREADABLE:
        _fold_outline(answer, body, make)
        return answer
    if sketch.usage is not None and make.note is not None:
        make.note(answer, body)
        # What is told of a whole answer is told of all its text.
        answer.usage_chars = answer.text_chars
    answer.is_readable = True
    answer.is_complete = True
    return answer


def read_tier(word: str | None, tiers: Mapping[str | None, str | None] = TIERS) -> str | None:
    """Translate a service tier to the catalog's words.

    Args:
        word: As on the wire.
        tiers: What the provider's words mean.

    Returns:
        ``standard``, ``flex``, ``priority``, or the word itself; ``None`` when undecided.
    """
    return tiers.get(word, word)


def _fold_event(answer: Answer, data: bytes, make: Make) -> bool:
    """Fold one event and say whether it is the extra usage chunk: usage and no choices."""
    try:
        chunk = _decode_chunk(data)
    except UNREADABLE:
        return _fold_outline(answer, data, make)
    answer.is_readable = True
    has_brought = _fold(answer, chunk, make)
    if chunk.choices:
        _fold_choices(answer, chunk.choices)
    if chunk.usage is None:
        if _COUNTED in data:
            _fold_elsewhere(answer, data, make)
        return False
    # Text that comes after this is not in the count.
    answer.usage_chars = answer.text_chars
    if has_brought and make.note is not None:
        make.note(answer, data)
    return not chunk.choices and not answer.is_error


def _fold_elsewhere(answer: Answer, data: bytes, make: Make) -> None:
    """Fold usage that stands in another place: Groq's ``x_groq``, Moonshot's choices.

    Source:
        https://console.groq.com/docs/api-reference; https://platform.moonshot.ai/docs/api/chat,
        checked 2026-11-23.
    """
    try:
        found = _decode_elsewhere(data)
    except UNREADABLE:
        return
    for place in (found.x_groq, *(found.choices or ())):
        if place is not None and bytes(place.usage) not in NULLS:
            _take_usage(answer, _usage_of(bytes(place.usage), make))
            answer.usage_chars = answer.text_chars


def _fold_outline(answer: Answer, data: bytes, make: Make) -> bool:
    """Fold what can be read where some field is odd; what cannot be is counted by its size."""
    try:
        outline = _decode_outline(data)
    except UNREADABLE:
        return False
    _fold(
        answer,
        _Sketch(
            id=_try_read(_decode_text, outline.id),
            model=_try_read(_decode_text, outline.model),
            service_tier=_try_read(_decode_text, outline.service_tier),
            error=outline.error,
        ),
        make,
    )
    has_usage = bytes(outline.usage) not in NULLS
    if has_usage:
        has_brought = _take_usage(answer, _usage_of(bytes(outline.usage), make))
        if has_brought and make.note is not None:
            make.note(answer, data)
    elif _COUNTED in data:
        _fold_elsewhere(answer, data, make)
    if bytes(outline.choices) in NULLS:
        answer.usage_chars = answer.text_chars if has_usage else answer.usage_chars
        return has_usage
    choices = _try_read(_decode_list, outline.choices)
    for raw in [outline.choices] if choices is None else choices:
        choice = _try_read(_decode_choice, raw)
        if choice is None:
            _keep_unread(answer, bytes(raw))
        else:
            _fold_choices(answer, (choice,))
    if has_usage:
        answer.usage_chars = answer.text_chars
    return has_usage and choices == []


def _usage_of(raw: bytes, make: Make) -> Usage:
    """Read a usage object by itself; where a field is odd the others still count."""
    try:
        return read_usage(_decode_usage(raw), make.counting)
    except UNREADABLE:
        usage = read_usage(read_odd_usage(raw), make.counting)
    if usage.basis is not Basis.REPORTED:
        return usage
    odd = (*usage.flags, "a field of the usage could not be read")
    return Usage(counts=usage.counts, basis=Basis.ESTIMATED, flags=odd)


def _take_usage(answer: Answer, usage: Usage) -> bool:
    """Let the newest report replace the older: running totals are never summed.

    One without counts takes nothing back.
    """
    if answer.usage is not None and not usage.counts:
        return False
    answer.usage = usage
    return True


def _try_read(decode: Callable[[msgspec.Raw], Read], raw: msgspec.Raw) -> Read | None:
    try:
        return decode(raw)
    except UNREADABLE:
        return None


def _fold(answer: Answer, seen: _Sketch, make: Make) -> bool:
    """Fold everything but the text and say whether it brought usage."""
    has_brought = seen.usage is not None and _take_usage(
        answer, read_usage(seen.usage, make.counting)
    )
    if seen.model:
        answer.model = seen.model[:NAME_CHARS_MAX].removeprefix(make.publisher)
    if seen.id:
        answer.request_id = seen.id[:NAME_CHARS_MAX]
    if seen.service_tier:
        answer.tier = read_tier(seen.service_tier, make.tiers)
    if seen.error is not ABSENT and bytes(seen.error) not in NULLS:
        answer.is_error = True
    return has_brought


def _fold_choices(answer: Answer, choices: list[_Choice] | tuple[_Choice, ...]) -> None:
    for choice in choices:
        if choice.finish_reason is not None:
            answer.is_finished = True
        if choice.text:
            _keep(answer, choice.text)
        message = choice.delta or choice.message
        if message is None:
            continue
        if message.content:
            _keep(answer, message.content)
        for text in (message.refusal, message.reasoning_content, message.reasoning):
            if text:
                _keep(answer, text)
        if message.tool_calls or message.function_call is not None:
            _fold_calls(answer, message)
        if message.audio is not ABSENT and bytes(message.audio) not in NULLS:
            _keep_unread(answer, bytes(message.audio))


def _fold_calls(answer: Answer, message: _Message) -> None:
    called = [call.function for call in message.tool_calls or ()]
    for function in (*called, message.function_call):
        if function is not None:
            _keep(answer, function.name or "")
            _keep(answer, function.arguments or "")


def _keep(answer: Answer, text: str) -> None:
    """Count a text, and keep as much of it as there is room for."""
    room = TEXT_KEPT_CHARS_MAX - answer.text_chars
    answer.text_chars += len(text)
    if room > 0 and text:
        answer.text.append(text[:room])


def _keep_unread(answer: Answer, raw: bytes) -> None:
    """Count what is too large or too odd to read as the text it is on the wire."""
    _keep(answer, raw.decode("utf-8", "replace"))
