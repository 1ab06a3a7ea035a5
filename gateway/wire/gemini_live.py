"""Gemini's Live API: what its messages begin, end and cost.

Must never lose a turn: nothing announces one, so it begins with the first thing the model says.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from gateway.wire.endpoints import Endpoint
from gateway.wire.facts import NO_NAMES, Answer, BadRequest, ErrorBody, RequestFacts
from gateway.wire.gemini_answer import UNREAD_GROUNDING, Grounding
from gateway.wire.gemini_request import SEARCHES_MAX
from gateway.wire.gemini_usage import parts_of, read_usage
from gateway.wire.google_dialect import GoogleDialect
from gateway.wire.live import (
    Asks,
    Begun,
    Conversation,
    Finished,
    Frame,
    LiveFormat,
    Tells,
    bytes_of,
)
from gateway.wire.openai_answer import ABSENT, NAME_CHARS_MAX, NULLS, UNREADABLE
from gateway.wire.openai_responses_usage import count_of, fields_of
from pricing.meters import Meter
from pricing.usage import NOTHING, Basis, Quantity, Usage

_METERS: Final = frozenset(
    {
        Meter.INPUT,
        Meter.INPUT_AUDIO,
        Meter.INPUT_IMAGE,
        Meter.INPUT_VIDEO,
        Meter.CACHE_READ,
        Meter.CACHE_READ_AUDIO,
        Meter.CACHE_READ_IMAGE,
        Meter.CACHE_READ_VIDEO,
        Meter.OUTPUT,
        Meter.OUTPUT_AUDIO,
        Meter.REASONING,
    }
)
_SEARCH: Final = b"oogleSearch"
# Base64 has no quotation marks: sound holds none of these.
_TYPED: Final = b'"text"'
_PLAIN: Final[Mapping[Meter, Quantity]] = MappingProxyType({})
_SEARCHED: Final[Mapping[Meter, Quantity]] = MappingProxyType({Meter.WEB_SEARCH: SEARCHES_MAX})


class _ClientMessage(msgspec.Struct, gc=False):
    setup: Any = None
    client_content: Any = msgspec.field(default=None, name="clientContent")
    client_snake: Any = msgspec.field(default=None, name="client_content")
    realtime_input: msgspec.Raw = msgspec.field(default=ABSENT, name="realtimeInput")
    realtime_snake: msgspec.Raw = msgspec.field(default=ABSENT, name="realtime_input")
    tool_response: msgspec.Raw = msgspec.field(default=ABSENT, name="toolResponse")
    tool_snake: msgspec.Raw = msgspec.field(default=ABSENT, name="tool_response")


class _ServerContent(msgspec.Struct, gc=False):
    model_turn: msgspec.Raw = msgspec.field(default=ABSENT, name="modelTurn")
    output: msgspec.Raw = msgspec.field(default=ABSENT, name="outputTranscription")
    grounding: msgspec.Raw = msgspec.field(default=ABSENT, name="groundingMetadata")
    turn_complete: bool | None = msgspec.field(default=None, name="turnComplete")


class _ServerMessage(msgspec.Struct, gc=False):
    content: _ServerContent | None = msgspec.field(default=None, name="serverContent")
    tool_call: msgspec.Raw = msgspec.field(default=ABSENT, name="toolCall")
    usage: Any = msgspec.field(default=None, name="usageMetadata")


_decode_client = msgspec.json.Decoder(_ClientMessage).decode
_decode_server = msgspec.json.Decoder(_ServerMessage).decode


class GeminiLive(LiveFormat, GoogleDialect):
    """The wire format of ``BidiGenerateContent``."""

    api = "gemini.live"
    names_model_late = True

    def open_conversation(self, model: str) -> Conversation:
        """Begin to read a session.

        Args:
            model: Unknown yet: the first message names it.

        Returns:
            Its reader.
        """
        return LiveConversation()


class LiveConversation:
    """Reads one session."""

    def __init__(self) -> None:
        """Begin."""
        self._model = ""
        self._limit: int | None = None
        self._searches = False
        self._grounding = Grounding()
        self._flags: tuple[str, ...] = ()
        self._number = 0
        self._is_open = False
        self._is_over = False
        self._usage: Usage | None = None

    @property
    def facts(self) -> RequestFacts:
        """What any turn comes to: the window of the session is read again for each."""
        return RequestFacts(
            model=self._model,
            stream=True,
            wants_usage=True,
            tier=None,
            input_tokens_max=None,
            output_tokens_max=self._limit,
            choices=1,
            extra_output_max=0,
            meters=_METERS,
            fees=_SEARCHED if self._searches else _PLAIN,
        )

    def read_client(self, frame: Frame) -> Asks:
        """Read what a client's frame asks for.

        Args:
            frame: As it came.

        Returns:
            A turn, that one may begin, or nothing.

        Raises:
            BadRequest: It cannot be read, or comes before the model is known.

        Source:
            https://ai.google.dev/api/live#bidigeneratecontentclientmessage, checked 2026-11-23.
        """
        data = bytes_of(frame)
        try:
            message = _decode_client(data)
        except UNREADABLE:
            raise BadRequest("the frame is not a message of the Live API") from None
        setup = fields_of(message.setup)
        if setup is not None:
            self._searches = _SEARCH in data or b"google_search" in data
            return self._set_up(setup)
        if not self._model:
            raise BadRequest("the first message has to be the setup, which names the model")
        content = fields_of(message.client_content) or fields_of(message.client_snake)
        if content is not None and True in (
            content.get("turnComplete"),
            content.get("turn_complete"),
        ):
            return Asks(facts=self.facts, is_begun=True, has_words=True)
        is_answer = message.tool_response is not ABSENT or message.tool_snake is not ABSENT
        has_words = is_answer or content is not None or _TYPED in data
        return Asks(facts=self.facts, is_begun=is_answer, has_words=has_words)

    def read_server(self, frame: Frame) -> Tells | None:
        """Read what a provider's frame tells; it comes as text or as bytes.

        Args:
            frame: As it came.

        Returns:
            The beginning or the end of a turn. A turn ends with ``turnComplete`` or where tools
            are called; its usage comes with that or after it, and the last report before that is
            the turn's. Every turn reads the session again, so turns add up.

        Source:
            https://ai.google.dev/api/live#bidigeneratecontentservermessage, checked 2026-11-23.
        """
        try:
            message = _decode_server(bytes_of(frame))
        except UNREADABLE:
            return None
        content = message.content
        calls_tools = message.tool_call is not ABSENT
        speaks = calls_tools or (
            content is not None
            and (content.model_turn is not ABSENT or content.output is not ABSENT)
        )
        is_over = calls_tools or (content is not None and content.turn_complete is True)
        raw = fields_of(message.usage)
        if speaks and self._is_over:
            # What was over has told nothing: the next turn begins with what ends the last one.
            tells = self._end()
            self._note_grounding(content)
            self._is_open, self._is_over = True, is_over
            self._note_usage(raw)
            return tells
        self._note_grounding(content)
        self._note_usage(raw)
        self._is_over = self._is_over or is_over
        if self._usage is not None and (self._is_over or not (self._is_open or speaks)):
            return self._end()
        if speaks and not self._is_open:
            self._is_open = True
            return Begun(key=self._key)
        return None

    def cancel(self, key: str) -> Frame | None:
        """Write the frame that ends a turn early: there is none.

        Args:
            key: The turn.

        Returns:
            ``None``.
        """
        return None

    def open_answer(self, key: str) -> Answer:
        """Tell what is known of a turn that has not ended.

        Args:
            key: The turn.

        Returns:
            What it had reported: where it goes on, that is not all.
        """
        usage = self._usage if key == self._key else None
        if usage is not None and usage.basis is Basis.REPORTED:
            flag = "the turn broke off after this was reported"
            usage = Usage(counts=usage.counts, basis=Basis.PARTIAL, flags=(*usage.flags, flag))
        return Answer(model=self._model, usage=usage)

    def shape_error(self, error: ErrorBody) -> Frame:
        """Write a refusal as Google's APIs do; the close frame after it has its code, too.

        Args:
            error: The refusal.

        Returns:
            A message.
        """
        return GoogleDialect().shape_error(error).decode()

    @property
    def _key(self) -> str:
        return f"turn_{self._number}"

    def _set_up(self, setup: Mapping[str, Any]) -> Asks:
        named = setup.get("model")
        if not isinstance(named, str) or not named or len(named) > NAME_CHARS_MAX * 2:
            raise BadRequest("name the model in setup.model")
        model = named.rpartition("/")[2]
        if self._model not in ("", model):
            raise BadRequest("a session has one model: open another one")
        self._model = model
        config = fields_of(setup.get("generationConfig") or setup.get("generation_config"))
        told = (config or NO_NAMES).get("maxOutputTokens") or (config or NO_NAMES).get(
            "max_output_tokens"
        )
        limit = count_of(told)
        self._limit = limit if limit is not None and limit > 0 else None
        return Asks(model=model)

    def _note_usage(self, raw: Mapping[str, Any] | None) -> None:
        parts = None if raw is None else parts_of(raw)
        if parts is not None and not parts.is_empty:
            self._usage = read_usage(parts)

    def _end(self) -> Finished:
        usage = self._usage
        if usage is not None and usage.basis is Basis.REPORTED:
            searches = self._grounding.count(self._model)
            counts = {**usage.counts, Meter.WEB_SEARCH: searches} if searches else usage.counts
            usage = Usage(counts=counts, basis=usage.basis, flags=usage.flags)
            usage = usage if counts else NOTHING
        answer = Answer(
            model=self._model,
            usage=usage,
            # Without usage nobody knows what was searched for either: the most is booked.
            tells_fees=usage is not None,
            flags=self._flags,
            is_readable=True,
            is_complete=True,
        )
        ended = Finished(key=self._key, answer=answer)
        self._number += 1
        self._is_open = self._is_over = False
        self._usage = None
        self._grounding, self._flags = Grounding(), ()
        return ended

    def _note_grounding(self, content: _ServerContent | None) -> None:
        raw = ABSENT if content is None else content.grounding
        if bytes(raw) not in NULLS and not self._grounding.fold(raw):
            self._flags = (UNREAD_GROUNDING,)


_FORMAT: Final = GeminiLive()
_READ: Final = frozenset({"GET"})
ENDPOINTS: Final = (
    Endpoint(
        kinds=frozenset({"gemini"}),
        path="/ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent",
        format=_FORMAT,
        methods=_READ,
    ),
    Endpoint(
        kinds=frozenset({"vertex"}),
        path="/ws/google.cloud.aiplatform.{version}.LlmBidiService/BidiGenerateContent",
        format=_FORMAT,
        methods=_READ,
    ),
)
