"""Answers of OpenAI's Responses API, whole, streamed or fetched later: usage, names and text.

Must never change an event, and never let an odd field hide the usage beside it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from gateway.wire.facts import Answer, OtherUse
from gateway.wire.openai_answer import (
    ABSENT,
    NAME_CHARS_MAX,
    NULLS,
    TEXT_KEPT_CHARS_MAX,
    UNREADABLE,
    read_tier,
)
from gateway.wire.openai_responses_usage import (
    Fields,
    fields_of,
    read_charge,
    read_images,
    read_responses_usage,
    read_searches,
)
from gateway.wire.sse import data_of
from pricing.meters import Meter
from pricing.usage import Basis, Quantity, Usage

# The states in which a response has ended, and the events that say so.
# Source: https://platform.openai.com/docs/api-reference/responses-streaming, checked 2026-11-23.
_ENDED: Final = frozenset({"completed", "incomplete", "failed", "cancelled"})
_TERMINAL: Final = frozenset(f"response.{state}" for state in _ENDED)
# Sound is sent as base64, which is no text that could be counted.
_UNCOUNTED: Final = frozenset({"response.audio.delta"})
_TOOL_CALLS: Final = re.compile(rb'"(?:web_search|file_search|code_interpreter)_call"')
# Where an item of the output holds text that was generated.
_TEXTS: Final = frozenset({"text", "refusal", "arguments", "input", "code"})
# What a session of a code interpreter is sold as: one for each container that is made.
# Source: https://platform.openai.com/docs/pricing, built-in tools, checked 2026-11-23.
CONTAINER: Final = "container"
_CONTAINER_MAKE: Final[Mapping[Meter, str]] = MappingProxyType({Meter.REQUEST: "code_interpreter"})


class _Event(msgspec.Struct, gc=False):
    """An event with every field unread."""

    type: msgspec.Raw = ABSENT
    delta: msgspec.Raw = ABSENT
    response: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


class _Response(msgspec.Struct, gc=False):
    """A response with every field unread: an odd one hides no other."""

    id: msgspec.Raw = ABSENT
    model: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    status: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    tool_usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    output: msgspec.Raw = ABSENT
    tools: msgspec.Raw = ABSENT
    previous_response_id: msgspec.Raw = ABSENT
    conversation: msgspec.Raw = ABSENT


_decode_event = msgspec.json.Decoder(_Event)
_decode_response = msgspec.json.Decoder(_Response)
_decode_text = msgspec.json.Decoder(str).decode

Seen = TypeVar("Seen", _Event, _Response)


class ResponsesFold:
    """Reads the events of a response.

    Attributes:
        answer: What has been seen so far.
    """

    __slots__ = ("_is_earlier", "answer")

    def __init__(self, *, is_earlier: bool = False) -> None:
        """Begin.

        Args:
            is_earlier: The response was made by an earlier call and is only fetched.
        """
        self.answer = Answer()
        self._is_earlier = is_earlier

    def take(self, event: bytes) -> bool:
        """Read one event.

        Args:
            event: With its blank line.

        Returns:
            Whether the response ends with it.
        """
        answer = self.answer
        data = _data_of(event)
        if data is None:
            return False
        if not data.startswith(b"{"):
            # OpenAI sends none; some compatible servers do.
            answer.is_complete = answer.is_complete or data.strip() == b"[DONE]"
            return answer.is_complete
        seen = _decode(_decode_event, _Event, data)
        kind = _text(seen.type) or ""
        if seen.response is not ABSENT:
            _fold_response(answer, seen.response, is_earlier=self._is_earlier)
        elif kind.endswith(".delta"):
            answer.is_readable = True
            if kind not in _UNCOUNTED:
                _keep(answer, _text(seen.delta) or "")
        if kind == "error" or bytes(seen.error) not in NULLS:
            answer.is_readable = answer.is_error = True
        return kind in _TERMINAL


def read_response(body: bytes, *, is_earlier: bool = False) -> Answer:
    """Read a whole response.

    Args:
        body: As it came, decompressed.
        is_earlier: It was made by an earlier call and is only fetched.

    Returns:
        What it says, with its text only where it has no usable usage; not readable when it is not a
        response.
    """
    answer = Answer()
    try:
        seen = _fold_response(answer, body, is_earlier=is_earlier)
    except (*UNREADABLE, TypeError, ValueError):
        return answer
    if answer.usage is None or not answer.usage.counts:
        for text in _texts_of(seen.output):
            _keep(answer, text)
    return answer


def _fold_response(answer: Answer, raw: msgspec.Raw | bytes, *, is_earlier: bool) -> _Response:
    """Fold a response as it stands: the newest replaces the older."""
    seen = _decode(_decode_response, _Response, raw)
    name = _text(seen.id)
    if name:
        answer.request_id = answer.once = name[:NAME_CHARS_MAX]
        answer.is_earlier = is_earlier
    answer.is_readable = answer.is_readable or seen.output is not ABSENT
    model, tier = _text(seen.model), _text(seen.service_tier)
    if model:
        answer.model = model[:NAME_CHARS_MAX]
    if tier:
        answer.tier = read_tier(tier[:NAME_CHARS_MAX])
    status = _text(seen.status)
    if status == "failed" or bytes(seen.error) not in NULLS:
        answer.is_error = True
    if bytes(seen.usage) not in NULLS:
        fields = fields_of(seen.usage)
        usage = read_responses_usage(fields)
        if answer.usage is None or usage.counts:
            answer.usage = usage
            answer.usage_chars = answer.text_chars
            answer.provider_cost = read_charge(fields)
    if status is None or status in _ENDED:
        answer.is_finished = answer.is_complete = True
        _fold_tools(answer, seen)
    return seen


def _fold_tools(answer: Answer, seen: _Response) -> None:
    """Add what the provider's own tools are billed by."""
    told = None if bytes(seen.tool_usage) in NULLS else fields_of(seen.tool_usage)
    calls = _calls_of(seen.output)
    searches = read_searches(told)
    if searches is None:
        searches = sum(1 for call in calls if _is_search(call))
    answer.tells_fees = seen.output is not ABSENT or told is not None
    others = []
    tools = _tools_of(seen.tools)
    if told is not None:
        named = tools.get("image_generation", {}).get("model")
        images = read_images(told, named[:NAME_CHARS_MAX] if isinstance(named, str) else None)
        others += [] if images is None else [images]
    if calls:
        others += _containers(calls, tools, seen)
        files = sum(1 for call in calls if call.get("type") == "file_search_call")
        if files:
            flag = f"{files} file searches are billed apart and have no price here"
            answer.flags = (*answer.flags, flag)
    answer.others = tuple(others)
    usage = answer.usage
    if searches and usage is not None and usage.basis is not Basis.UNKNOWN:
        counts: dict[Meter, Quantity] = {**usage.counts, Meter.WEB_SEARCH: searches}
        answer.usage = Usage(counts=counts, basis=usage.basis, flags=usage.flags)


def _calls_of(output: msgspec.Raw) -> list[Fields]:
    """List the calls of tools that are billed apart; mostly there are none."""
    if _TOOL_CALLS.search(output) is None:
        return []
    try:
        items = msgspec.json.decode(output)
    except UNREADABLE:
        return []
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _is_search(call: Fields) -> bool:
    """Tell whether a call is a search: reading the pages it has found is not billed.

    Source:
        https://platform.openai.com/docs/guides/tools-web-search, checked 2026-11-23.
    """
    if call.get("type") != "web_search_call":
        return False
    action = call.get("action")
    return not isinstance(action, dict) or action.get("type") in (None, "search")


def _tools_of(raw: msgspec.Raw) -> dict[str, Fields]:
    """Read the tools the response was made with, by type; the first of each."""
    try:
        listed = msgspec.json.decode(raw) if bytes(raw) not in NULLS else []
    except UNREADABLE:
        return {}
    tools: dict[str, Fields] = {}
    for tool in listed if isinstance(listed, list) else ():
        if isinstance(tool, dict) and isinstance(tool.get("type"), str):
            tools.setdefault(tool["type"], tool)
    return tools


def _containers(
    calls: list[Fields], tools: Mapping[str, Fields], seen: _Response
) -> list[OtherUse]:
    """Count the containers that were made for a code interpreter."""
    tool = tools.get("code_interpreter", {})
    if not isinstance(tool.get("container"), dict):
        return []  # named by the request: it was paid for when it was made
    made = {
        str(call.get("container_id"))
        for call in calls
        if call.get("type") == "code_interpreter_call"
    }
    if not made:
        return []
    flags: tuple[str, ...] = ()
    if bytes(seen.previous_response_id) not in NULLS or bytes(seen.conversation) not in NULLS:
        flags = ("a container may have been made, and paid for, by an earlier response",)
    usage = Usage(
        counts={Meter.REQUEST: len(made)},
        basis=Basis.ESTIMATED if flags else Basis.REPORTED,
        flags=flags,
    )
    return [OtherUse(model=CONTAINER, usage=usage, variants=_CONTAINER_MAKE)]


def _decode(
    decoder: msgspec.json.Decoder[Seen], kind: type[Seen], raw: msgspec.Raw | bytes
) -> Seen:
    """Read an object field by field; half a character in a text must not hide the usage."""
    try:
        return decoder.decode(raw)
    except UNREADABLE:
        # Slower, and takes what is not quite JSON: halves of surrogate pairs, Infinity.
        read = json.loads(bytes(raw))
    if not isinstance(read, dict):
        raise TypeError(f"{type(read).__name__} is not an object")
    fields = {name: read[name] for name in kind.__struct_fields__ if name in read}
    return kind(**{name: msgspec.Raw(json.dumps(value).encode()) for name, value in fields.items()})


def _data_of(event: bytes) -> bytes | None:
    """Read the data of an event; most have a name, a line of data and nothing else."""
    if event.startswith(b"event: ") and b"\r" not in event:
        end = event.find(b"\n")
        if event.startswith(b"data: {", end + 1) and event.find(b"\n", end + 1) == len(event) - 2:
            return event[end + 7 : -2]
    return data_of(event)


def _text(raw: msgspec.Raw) -> str | None:
    if raw is ABSENT:
        return None
    try:
        return _decode_text(raw)
    except UNREADABLE:
        return None


def _texts_of(output: msgspec.Raw) -> Iterator[str]:
    """Find the texts of an output, wherever they are."""
    waiting: list[object] = []
    with suppress(ValueError, RecursionError):
        waiting = [json.loads(bytes(output))]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(reversed(one))
        elif isinstance(one, dict):
            for name, value in one.items():
                if isinstance(value, (dict, list)):
                    waiting.append(value)
                elif name in _TEXTS and isinstance(value, str):
                    yield value


def _keep(answer: Answer, text: str) -> None:
    """Count a text, and keep as much of it as there is room for."""
    room = TEXT_KEPT_CHARS_MAX - answer.text_chars
    answer.text_chars += len(text)
    if room > 0 and text:
        answer.text.append(text[:room])
