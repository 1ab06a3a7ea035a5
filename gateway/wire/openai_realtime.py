"""OpenAI's Realtime API, and those made like it: what its events begin, end and cost.

Must never lose a response that the provider began by itself.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from gateway.wire.endpoints import Endpoint
from gateway.wire.facts import Answer, Asked, BadRequest, ErrorBody, RequestFacts
from gateway.wire.live import (
    Aside,
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
from gateway.wire.openai_answer import NAME_CHARS_MAX, UNREADABLE
from gateway.wire.openai_dialect import OpenAIDialect
from gateway.wire.openai_places import rows
from gateway.wire.openai_realtime_usage import read_realtime_usage, read_transcript_usage
from gateway.wire.openai_responses_usage import count_of, fields_of
from pricing.meters import Meter
from pricing.usage import NOTHING, Basis, Quantity

METERS: Final = frozenset(
    {
        Meter.INPUT,
        Meter.INPUT_AUDIO,
        Meter.INPUT_IMAGE,
        Meter.CACHE_READ,
        Meter.CACHE_READ_AUDIO,
        Meter.CACHE_READ_IMAGE,
        Meter.OUTPUT,
        Meter.OUTPUT_AUDIO,
    }
)
_NO_FEES: Final[Mapping[Meter, Quantity]] = MappingProxyType({})
# xAI bills its voice by the second and ends a session after half an hour.
# Source: https://docs.x.ai/docs/guides/voice, checked 2026-11-23.
_VOICE_SECONDS: Final[Mapping[Meter, Quantity]] = MappingProxyType({Meter.AUDIO_SECOND: 1800})
# Frames of sound are most of a session; where one is something else the provider's own events
# tell, and a response is held for either way.
_APPEND: Final = b'"input_audio_buffer.append"'
_HEAD_BYTES: Final = 256
# The events that mean money, as they stand in a frame; all others pass unread.
_NOTABLE: Final = (
    b"response.created",
    b"response.done",
    b"input_audio_transcription.completed",
    b"session.",
    b'"error"',
    # An escape could hide any of them.
    b"\\u00",
)
_TRANSCRIBED: Final = "conversation.item.input_audio_transcription.completed"


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    event_id: str | None = None
    response: Any = None
    session: Any = None
    error: Any = None
    usage: Any = None
    item_id: str | None = None


_decode = msgspec.json.Decoder(_Event).decode


class OpenAIRealtime(LiveFormat, OpenAIDialect):
    """The wire format of ``wss://.../realtime``."""

    api = "openai.realtime"
    # Whether the provider bills its sessions by the second.
    by_second = False

    def read_handshake(self, asked: Asked) -> str:
        """Read the model of a session.

        Args:
            asked: The handshake.

        Returns:
            The model, or the deployment on Azure.

        Raises:
            BadRequest: It names none, or two.

        Source:
            https://platform.openai.com/docs/guides/realtime-websocket;
            https://learn.microsoft.com/azure/ai-foundry/openai/realtime-audio-reference; checked
            2026-11-23.
        """
        query = parse_qs(asked.query)
        names = [name for field in ("model", "deployment") for name in query.get(field, ())]
        if len(set(names)) > 1:
            raise BadRequest("the address names two models: name one")
        if "call_id" in query:
            raise BadRequest("a call's own socket tells what others began: it is not metered here")
        if not names and query.get("intent") == ["transcription"]:
            return ""
        if not names or len(names[0]) > NAME_CHARS_MAX:
            raise BadRequest("name the model in the address: ?model=")
        return names[0]

    def open_conversation(self, model: str) -> Conversation:
        """Begin to read a session.

        Args:
            model: Under the provider's own name; empty for one that only transcribes.

        Returns:
            Its reader.
        """
        return RealtimeConversation(model, by_second=self.by_second)


class XaiRealtime(OpenAIRealtime):
    """The wire format of xAI's voice sessions."""

    by_second = True


class RealtimeConversation:
    """Reads one session."""

    def __init__(self, model: str, *, by_second: bool = False) -> None:
        """Begin.

        Args:
            model: Under the provider's own name.
            by_second: Whether the provider bills the session by the second.
        """
        self._model = model
        self._by_second = by_second
        self._served: str | None = None
        self._limit: int | None = None
        self._transcriber: str | None = None

    @property
    def facts(self) -> RequestFacts:
        """What a response comes to that the provider begins by itself."""
        return self._facts_within(self._limit)

    def read_client(self, frame: Frame) -> Asks:
        """Read what a client's frame asks for.

        Args:
            frame: As it came.

        Returns:
            A response; that the provider may begin one by itself, once it has heard something; or
            nothing.

        Source:
            https://platform.openai.com/docs/api-reference/realtime-client-events, 2026-11-23.
        """
        data = bytes_of(frame)
        if _APPEND in data[:_HEAD_BYTES]:
            return Asks(facts=self.facts)
        event = _read(data)
        if event is None:
            return Asks(facts=self.facts)
        if event.type == "response.create":
            response = fields_of(event.response) or {}
            limit = count_of(response.get("max_output_tokens"))
            own = self._limit if limit is None or limit <= 0 else limit
            return Asks(
                facts=self._facts_within(own),
                is_begun=True,
                event=event.event_id,
                has_words=bool(response.get("input")),
            )
        if event.type in ("session.update", "transcription_session.update"):
            session = fields_of(event.session) or {}
            self._note_limit(session, is_sure=False)
            named = _transcriber_of(session)
            self._transcriber = named or self._transcriber
            return Asks(further_models=(named,) if named else ())
        if event.type == "input_audio_buffer.commit":
            return Asks(facts=self.facts)
        return Asks(has_words=event.type == "conversation.item.create")

    def read_server(self, frame: Frame) -> Tells | None:
        """Read what a provider's frame tells.

        Args:
            frame: As it came.

        Returns:
            The beginning or the end of a response, an error, or what hearing has cost.

        Source:
            https://platform.openai.com/docs/api-reference/realtime-server-events, 2026-11-23.
        """
        data = bytes_of(frame)
        if not any(name in data for name in _NOTABLE):
            return None
        event = _read(data)
        if event is None:
            return None
        return self._read_event(event, fields_of(event.response) or {})

    def _read_event(self, event: _Event, response: Mapping[str, Any]) -> Tells | None:
        tells: Tells | None = None
        kind = event.type or ""
        if kind == "response.created":
            tells = Begun(key=str(response.get("id")))
        elif kind == "response.done":
            tells = Finished(key=str(response.get("id")), answer=self._read_done(event, response))
        elif kind == "error":
            told = (fields_of(event.error) or {}).get("event_id")
            tells = Failed(event=told if isinstance(told, str) else None)
        elif kind == _TRANSCRIBED:
            tells = self._read_transcript(event)
        elif "session." in kind:
            self._note_session(fields_of(event.session) or {})
        return tells

    def cancel(self, key: str) -> Frame | None:
        """Write the frame that ends a response early; its end tells what it has used.

        Args:
            key: The response.

        Returns:
            A client's event.
        """
        return msgspec.json.encode({"type": "response.cancel", "response_id": key}).decode()

    def open_answer(self, key: str) -> Answer:
        """Tell what is known of a response that has not ended.

        Args:
            key: The response.

        Returns:
            Its name and model.
        """
        return Answer(model=self._served, request_id=key[:NAME_CHARS_MAX] or None)

    def shape_error(self, error: ErrorBody) -> Frame:
        """Write a refusal as an ``error`` event.

        Args:
            error: The refusal.

        Returns:
            A server's event.

        Source:
            https://platform.openai.com/docs/api-reference/realtime-server-events/error, 2026-11-23.
        """
        return error_event(error)

    def _facts_within(self, limit: int | None) -> RequestFacts:
        return RequestFacts(
            model=self._model,
            stream=True,
            wants_usage=True,
            tier=None,
            input_tokens_max=0 if self._by_second else None,
            output_tokens_max=0 if self._by_second else limit,
            choices=1,
            extra_output_max=0,
            meters=frozenset() if self._by_second else METERS,
            fees=_VOICE_SECONDS if self._by_second else _NO_FEES,
        )

    def _read_done(self, event: _Event, response: Mapping[str, Any]) -> Answer:
        status = response.get("status")
        answer = self.open_answer(str(response.get("id")))
        answer.is_readable = answer.is_complete = answer.is_finished = answer.tells_fees = True
        answer.is_error = status == "failed"
        raw = response.get("usage", event.usage)
        if raw is None:
            raw = event.usage
        if raw is not None:
            answer.usage = read_realtime_usage(fields_of(raw), by_second=self._by_second)
            if answer.usage.basis is Basis.REPORTED and not answer.usage.counts:
                answer.usage = NOTHING
        elif answer.is_error:
            answer.usage = NOTHING
        return answer

    def _read_transcript(self, event: _Event) -> Aside:
        usage = read_transcript_usage(fields_of(event.usage))
        tokens_in, tokens_out = usage.totals()
        fees: dict[Meter, Quantity] = {
            meter: n for meter, n in usage.counts.items() if meter is Meter.AUDIO_SECOND
        }
        return Aside(
            facts=RequestFacts(
                model=self._transcriber or self._model,
                stream=True,
                wants_usage=True,
                tier=None,
                input_tokens_max=tokens_in,
                output_tokens_max=tokens_out,
                choices=1,
                extra_output_max=0,
                meters=frozenset(usage.counts) - {Meter.AUDIO_SECOND},
                fees=fees,
            ),
            answer=Answer(
                usage=usage,
                tells_fees=True,
                request_id=(event.item_id or "")[:NAME_CHARS_MAX] or None,
                is_readable=True,
                is_complete=True,
            ),
        )

    def _note_session(self, session: Mapping[str, Any]) -> None:
        served = session.get("model")
        if isinstance(served, str) and served:
            self._served = served[:NAME_CHARS_MAX]
        self._note_limit(session, is_sure=True)
        self._transcriber = _transcriber_of(session) or self._transcriber

    def _note_limit(self, session: Mapping[str, Any], *, is_sure: bool) -> None:
        """Note the limit of a response; one that is only asked for never lowers it."""
        for name in ("max_output_tokens", "max_response_output_tokens"):
            if name not in session:
                continue
            told = session[name]
            limit = told if isinstance(told, int) and told > 0 else None
            if is_sure or limit is None or (self._limit is not None and limit > self._limit):
                self._limit = limit


def error_event(error: ErrorBody) -> str:
    """Write a refusal as an ``error`` event of OpenAI's.

    Args:
        error: The refusal.

    Returns:
        The event; the refusal's facts stand in the error object.
    """
    shaped = {
        "type": error.kind,
        "code": error.code,
        "message": error.message,
        "param": None,
        "event_id": None,
        **error.details,
    }
    event = {"type": "error", "event_id": "event_taximeter", "status": error.status}
    return msgspec.json.encode({**event, "error": shaped}).decode()


def _read(data: bytes) -> _Event | None:
    try:
        return _decode(data)
    except UNREADABLE:
        return None


def _transcriber_of(session: Mapping[str, Any]) -> str | None:
    """Find the model that writes down what is heard, in today's spelling or the older one."""
    heard = fields_of((fields_of(session.get("audio")) or {}).get("input")) or {}
    told = fields_of(heard.get("transcription")) or fields_of(
        session.get("input_audio_transcription")
    )
    model = (told or {}).get("model")
    return model[:NAME_CHARS_MAX] if isinstance(model, str) and model else None


class GoesAround(LiveFormat, OpenAIDialect):
    """Addresses that give out keys, or begin calls, which would go past the gateway: refused."""

    api = "openai.realtime"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Refuse.

        Args:
            asked: The request as it came.

        Returns:
            Never anything.

        Raises:
            BadRequest: Always.
        """
        raise BadRequest(
            "keys and calls made here speak to the provider past this gateway, and nobody would "
            "meter them: connect a WebSocket to /realtime with your own key instead"
        )


_REALTIME: Final = OpenAIRealtime()
_FORMATS: Final = MappingProxyType(
    {"openai": _REALTIME, "azure": _REALTIME, "xai": XaiRealtime(), "demo": _REALTIME}
)
_READ: Final = frozenset({"GET"})
_AROUND: Final = GoesAround()


def _rows() -> Iterator[Endpoint]:
    yield from rows("/realtime", _FORMATS, methods=_READ)
    yield Endpoint(
        kinds=frozenset({"azure"}), path="/openai/realtime", format=_REALTIME, methods=_READ
    )
    kinds = dict.fromkeys(("openai", "azure", "xai"), _AROUND)
    for path in ("client_secrets", "sessions", "transcription_sessions", "calls"):
        yield from rows(f"/realtime/{path}", kinds)


ENDPOINTS: Final = tuple(_rows())
