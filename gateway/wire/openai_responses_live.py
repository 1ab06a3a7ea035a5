"""OpenAI's Responses API over a WebSocket: several responses one after another, each like a call.

Must never read a request otherwise than the HTTP format does.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.wire.facts import Answer, Asked, BadRequest, ErrorBody, RequestFacts, free_facts
from gateway.wire.live import (
    Asks,
    Begun,
    Conversation,
    Failed,
    Finished,
    Frame,
    LiveFormat,
    Tells,
    bytes_of,
)
from gateway.wire.openai_answer import UNREADABLE
from gateway.wire.openai_dialect import OpenAIDialect
from gateway.wire.openai_places import rows
from gateway.wire.openai_realtime import error_event
from gateway.wire.openai_responses import OpenAIResponses
from gateway.wire.openai_responses_answer import ResponsesFold
from gateway.wire.openai_responses_usage import fields_of

_RESPONSES: Final = OpenAIResponses()


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    event_id: str | None = None
    response: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Event).decode


class ResponsesLive(LiveFormat, OpenAIDialect):
    """The wire format of ``wss://.../responses``."""

    api = "openai.responses.live"
    names_model_late = True

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make a frame to send.

        Args:
            asked: The frame.
            facts: What was read of it.
            model: The provider's own name of the model.

        Returns:
            The same bytes, but for the model name where it differs.
        """
        return _RESPONSES.prepare_body(asked, facts, model)

    def may_think(self, model: str) -> bool:
        """Tell whether a model can produce output that is billed and never shown.

        Args:
            model: Under the provider's own name.

        Returns:
            As over HTTP.
        """
        return _RESPONSES.may_think(model)

    def read_prompt(self, asked: Asked) -> Sequence[str] | None:
        """Read the texts of a prompt for counting.

        Args:
            asked: The frame that began the response.

        Returns:
            As over HTTP.
        """
        return _RESPONSES.read_prompt(asked)

    def open_conversation(self, model: str) -> Conversation:
        """Begin to read a session.

        Args:
            model: Of the session; every frame names its own.

        Returns:
            Its reader.
        """
        return ResponsesConversation()


class ResponsesConversation:
    """Reads one session."""

    def __init__(self) -> None:
        """Begin."""
        self._facts = free_facts()
        self._fold = ResponsesFold()
        self._key: str | None = None

    @property
    def facts(self) -> RequestFacts:
        """What the last response came to that was asked for: none begins by itself."""
        return self._facts

    def read_client(self, frame: Frame) -> Asks:
        """Read what a client's frame asks for.

        Args:
            frame: As it came.

        Returns:
            A response, or nothing.

        Raises:
            BadRequest: A request the HTTP format refuses.

        Source:
            https://platform.openai.com/docs/guides/websocket-mode, checked 2026-11-23.
        """
        data = bytes_of(frame)
        try:
            event = _decode(data)
        except UNREADABLE:
            raise BadRequest("the frame is not a JSON object with a 'type'") from None
        if event.type != "response.create":
            return Asks()
        if fields_of(event.response):
            raise BadRequest("put the fields of the response beside 'type'")
        facts = _RESPONSES.read_facts(Asked(body=data))
        self._facts = msgspec.structs.replace(facts, stream=True)
        return Asks(
            facts=self._facts,
            is_begun=True,
            event=event.event_id,
            model=facts.model,
            has_words=True,
        )

    def read_server(self, frame: Frame) -> Tells | None:
        """Read what a provider's frame tells.

        Args:
            frame: As it came.

        Returns:
            The beginning or the end of a response, or an error outside one.
        """
        data = bytes_of(frame)
        try:
            event = _decode(data)
        except UNREADABLE:
            return None
        tells: Tells | None = None
        if event.type == "response.created":
            self._fold = ResponsesFold()
            named = (fields_of(event.response) or {}).get("id")
            self._key = named if isinstance(named, str) else "response"
            tells = Begun(key=self._key)
        try:
            is_end = self._fold.take(b"data: " + data.replace(b"\n", b" ") + b"\n\n")
        except (*UNREADABLE, ValueError, TypeError):
            return tells
        if event.type == "error" and self._key is None:
            return Failed(event=event.event_id)
        if self._key is not None and (is_end or event.type == "error"):
            tells = Finished(key=self._key, answer=self._fold.answer)
            self._key, self._fold = None, ResponsesFold()
        return tells

    def cancel(self, key: str) -> Frame | None:
        """Write the frame that ends a response early: there is none.

        Args:
            key: The response.

        Returns:
            ``None``.
        """
        return None

    def open_answer(self, key: str) -> Answer:
        """Tell what is known of a response that has not ended.

        Args:
            key: The response.

        Returns:
            What has been seen of it.
        """
        return self._fold.answer if key == self._key else Answer()

    def shape_error(self, error: ErrorBody) -> Frame:
        """Write a refusal as an ``error`` event.

        Args:
            error: The refusal.

        Returns:
            A server's event.
        """
        return error_event(error)


_FORMAT: Final = ResponsesLive()
ENDPOINTS: Final = tuple(
    rows(
        "/responses",
        dict.fromkeys(("openai", "azure", "xai", "openrouter", "vllm", "demo"), _FORMAT),
        methods=frozenset({"GET"}),
    )
)
