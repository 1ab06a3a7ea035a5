"""OpenAI's audio calls: speech, transcriptions and translations.

Must never hold a recording a second time, and never book one as free because nobody told its size.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from math import ceil
from typing import Final

import msgspec

from gateway.wire.cutters import SseCutter
from gateway.wire.facts import (
    Answer,
    Asked,
    BadRequest,
    ReplyHead,
    RequestFacts,
    StreamLane,
    header_of,
)
from gateway.wire.multipart import Part, field_of, scan_form, text_of
from gateway.wire.openai_answer import NULLS, UNREADABLE
from gateway.wire.openai_chat import INPUT_TOKENS_SPARE, OpenAIChat, bytes_of, model_of
from gateway.wire.openai_places import rows
from gateway.wire.openai_text import read_body
from gateway.wire.openai_usage import TOKENS_MAX, whole_of
from gateway.wire.sse import data_of
from gateway.wire.tap import Tap
from gateway.wire.told_cost import cost_of, fields_in, usage_fields
from pricing.meters import Meter
from pricing.usage import Basis, Quantity, Usage

_SUCCESS_BELOW: Final = 300
# Spoken slowly, with every pause written out, a character takes a second and a half at most, and a
# second of speech is some 21 tokens; usual speech has about 15 characters a second.
# Source: https://platform.openai.com/docs/pricing, estimated cost per minute, checked 2026-11-23.
_TOKENS_PER_CHARACTER_MAX: Final = 32
_TOKENS_PER_CHARACTER: Final = 2
# Below any rate at which speech is recorded, but for silence: one kilobit a second. Usual
# recordings have at least 32.
_BYTES_PER_SECOND_MIN: Final = 125
_BYTES_PER_SECOND: Final = 4000
# Where the request names an address instead of bringing a file: a whole day.
_LINKED_S_MAX: Final = 86_400
_WAV_HEAD_BYTES: Final = 44
_WAV_RATE: Final = slice(28, 32)
# The end of a caption of SubRip or WebVTT.
_CAPTION: Final = re.compile(rb"--> *(?:(\d+):)?(\d+):(\d+)[.,](\d{1,3})")
_MILLISECOND: Final = Decimal("0.001")
_DURATION: Final = b'"duration"'

_SPEECH_METERS: Final = frozenset({Meter.INPUT, Meter.OUTPUT, Meter.OUTPUT_AUDIO})
_HEARD_METERS: Final = frozenset({Meter.INPUT, Meter.INPUT_AUDIO, Meter.OUTPUT})


class _Speech(msgspec.Struct, kw_only=True):
    model: str | None = None
    input: str
    instructions: str | None = None
    stream_format: str | None = None


class _Heard(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"")
    duration: msgspec.Raw = msgspec.Raw(b"")


class _Event(msgspec.Struct):
    type: str | None = None
    error: msgspec.Raw = msgspec.Raw(b"")


_decode_speech = msgspec.json.Decoder(_Speech).decode
_decode_heard = msgspec.json.Decoder(_Heard).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_number = msgspec.json.Decoder(Decimal | None).decode
_OF_SPEECH: Final = frozenset(_Speech.__struct_fields__)


class AudioFacts(RequestFacts, frozen=True, kw_only=True):
    """What a request for speech or a transcript asks for.

    Attributes:
        likely: What the call comes to most likely, where the answer does not tell.
    """

    likely: Mapping[Meter, Quantity] = {}


class Through:
    """Passes bytes on that nobody can read, all but the last one at once.

    Attributes:
        answer: What was known before them.
        can_append: Never: nothing can follow a recording.
    """

    __slots__ = ("_held", "answer", "can_append")

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.can_append = False
        self._held = b""

    @property
    def is_holding(self) -> bool:
        """Whether the end of the answer has come: nobody can tell."""
        return False

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes and give those that may go to the client now.

        Args:
            chunk: The next bytes.

        Returns:
            All but the last byte, which waits for the settlement or for what follows.
        """
        if not chunk:
            return b""
        passed = self._held + chunk[:-1]
        self._held = chunk[-1:]
        return passed

    def finish(self, *, is_broken: bool = False) -> bytes:
        """End the answer.

        Args:
            is_broken: It broke off.

        Returns:
            The byte held back.
        """
        self.answer.is_complete = not is_broken
        held, self._held = self._held, b""
        return held


class EventFold:
    """Reads the events of a spoken or written-down answer: usage stands in the last one.

    Attributes:
        answer: What has been seen so far.
    """

    __slots__ = ("_end", "answer")

    def __init__(self, answer: Answer, end: bytes) -> None:
        """Begin.

        Args:
            answer: What is known beforehand.
            end: Type of the event that ends the answer.
        """
        self.answer = answer
        self._end = end

    def take(self, event: bytes) -> bool:
        """Read one event; tell whether the answer ends with it.

        Args:
            event: With its blank line.

        Returns:
            Whether it is the last.
        """
        if self._end not in event and b'"error"' not in event:
            return False
        data = data_of(event)
        if data is None:
            return False
        told = _decode_event(data)
        if told.error and bytes(told.error) not in NULLS:
            self.answer.is_error = True
        if told.type != self._end.decode():
            return False
        self.answer.is_readable = self.answer.is_complete = self.answer.is_finished = True
        _take(self.answer, read_audio_usage(data))
        return True


class OpenAISpeech(OpenAIChat):
    """The wire format of ``POST /audio/speech``."""

    api = "openai.speech"
    stream_types: tuple[str, ...] = (
        "text/event-stream",
        "audio/",
        "video/",
        "application/octet-stream",
    )

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts: characters for models sold by them, tokens for the others.

        Raises:
            BadRequest: Not JSON, no model or input, a field of the wrong type or given twice.

        Source:
            https://platform.openai.com/docs/api-reference/audio/createSpeech, checked 2026-11-23.
        """
        read: _Speech = read_body(asked, _decode_speech, "a speech request", _OF_SPEECH)
        characters = len(read.input)
        likely: dict[Meter, Quantity] = {
            Meter.CHARACTER: characters,
            Meter.INPUT: characters + len(read.instructions or ""),
            Meter.OUTPUT: characters * _TOKENS_PER_CHARACTER,
        }
        return AudioFacts(
            model=model_of(asked, read.model, "a speech request"),
            stream=read.stream_format == "sse",
            wants_usage=True,
            tier=None,
            input_tokens_max=bytes_of(asked.body) + INPUT_TOKENS_SPARE,
            output_tokens_max=characters * _TOKENS_PER_CHARACTER_MAX + INPUT_TOKENS_SPARE,
            choices=1,
            extra_output_max=0,
            meters=_SPEECH_METERS,
            fees={Meter.CHARACTER: characters},
            is_either=True,
            likely=likely,
        )

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to pass a spoken answer on.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for its bytes: events, or a recording nobody reads.
        """
        answer = _guess(facts, head)
        if (header_of(head, "content-type") or "").lower().startswith("text/event-stream"):
            return Tap(SseCutter(), EventFold(answer, b"speech.audio.done"))
        return Through(answer)

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What is known without reading a recording.
        """
        return _guess(facts, head)

    def read_prompt(self, asked: Asked) -> None:
        """Say that texts are not counted: what was spoken is known by its characters.

        Args:
            asked: The request as it came.
        """


class OpenAITranscription(OpenAIChat):
    """The wire format of ``POST /audio/transcriptions`` and ``/audio/translations``."""

    def __init__(self, api: str, seconds_min: int = 0) -> None:
        """Take what is particular.

        Args:
            api: Its name in the ledger.
            seconds_min: Fewest seconds that are billed.
        """
        super().__init__()
        self.api = api
        self._seconds_min = seconds_min

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came, a form with a recording.

        Returns:
            The facts: seconds for models sold by them, tokens for the others.

        Raises:
            BadRequest: Not a form, no model, or a field given twice.

        Source:
            https://platform.openai.com/docs/api-reference/audio/createTranscription, checked
            2026-11-23.
        """
        body = asked.body
        parts = _form_of(asked)
        model = model_of(asked, text_of(body, parts, "model"), "a transcription request")
        recording = field_of(body, parts, "file")
        if recording is not None:
            most: int = ceil((recording.end - recording.start) / _BYTES_PER_SECOND_MIN) + 1
            likely = _guess_seconds(body, recording)
        elif any(part.name in ("url", "file_url") for part in parts):
            most, likely = _LINKED_S_MAX, Decimal(_LINKED_S_MAX)
        else:
            raise BadRequest("the form has no file")
        return AudioFacts(
            model=model,
            stream=(text_of(body, parts, "stream") or "").strip().lower() in ("true", "1"),
            wants_usage=True,
            tier=None,
            input_tokens_max=None,
            output_tokens_max=None,
            choices=1,
            extra_output_max=0,
            meters=_HEARD_METERS,
            fees={Meter.AUDIO_SECOND: max(most, self._seconds_min)},
            is_either=True,
            likely={Meter.AUDIO_SECOND: self._billed(likely)},
        )

    def prepare_body(self, asked: Asked, facts: RequestFacts, model: str) -> bytes:
        """Make the body to send.

        Args:
            asked: The request as it came.
            facts: What was read of it.
            model: The provider's own name of the model.

        Returns:
            The same bytes, but for the model name where it differs.
        """
        return rename_in_form(asked, facts, model)

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to read a transcript that comes in events.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for its bytes.
        """
        return Tap(SseCutter(), EventFold(_guess(facts, head), b"transcript.text.done"))

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole transcript.

        Args:
            body: The answer as it came: JSON, text or captions.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            Its usage or its duration; where it has none, what its captions or its size tell.
        """
        answer = _guess(facts, head)
        if head.status >= _SUCCESS_BELOW:
            return answer
        if not body.lstrip().startswith(b"{"):
            ends = _CAPTION.findall(body)
            if ends and Meter.AUDIO_SECOND in facts.fees:
                hours, minutes, seconds, parts = (int(one or 0) for one in ends[-1])
                length = hours * 3600 + minutes * 60 + seconds + Decimal(parts).scaleb(-3)
                answer.usage = _estimated({Meter.AUDIO_SECOND: self._billed(length)})
            return answer
        usage = read_audio_usage(body)
        if usage is None and _DURATION in body:
            usage = self._by_duration(body)
        _take(answer, usage)
        return answer

    def read_prompt(self, asked: Asked) -> None:
        """Say that a recording cannot be counted as text.

        Args:
            asked: The request as it came.
        """

    def _by_duration(self, body: bytes) -> Usage | None:
        try:
            duration = _decode_number(_decode_heard(body).duration)
        except UNREADABLE:
            return None
        if duration is None or not duration.is_finite() or not 0 < duration <= TOKENS_MAX:
            return None
        return Usage(counts={Meter.AUDIO_SECOND: self._billed(duration)}, basis=Basis.REPORTED)

    def _billed(self, seconds: Decimal) -> Quantity:
        return _plain(max(seconds, Decimal(self._seconds_min)))


def rename_in_form(asked: Asked, facts: RequestFacts, model: str) -> bytes:
    """Write another model name into a form.

    Args:
        asked: The request as it came.
        facts: What was read of it.
        model: The provider's own name of the model.

    Returns:
        The same bytes where it has that name.
    """
    body = asked.body
    if model == facts.model:
        return body
    part = field_of(body, _form_of(asked), "model")
    if part is None:
        return body
    return body[: part.start] + model.encode() + body[part.end :]


def read_audio_usage(data: bytes) -> Usage | None:
    """Read the usage of speech or of a transcript: tokens, or seconds.

    Args:
        data: A JSON object.

    Returns:
        Disjoint counts; ``None`` where it has none that can be used.

    Source:
        https://platform.openai.com/docs/api-reference/audio/json-object and
        https://platform.openai.com/docs/api-reference/audio/speech-audio-done-event, checked
        2026-11-23.
    """
    fields = usage_fields(data)
    seconds = cost_of(fields.get("seconds"))
    if seconds is not None and seconds.is_finite() and 0 < seconds <= TOKENS_MAX:
        return Usage(counts={Meter.AUDIO_SECOND: _plain(seconds)}, basis=Basis.REPORTED)
    inputs, outputs = whole_of(fields.get("input_tokens")), whole_of(fields.get("output_tokens"))
    if inputs is None or outputs is None or not 0 <= inputs + outputs <= TOKENS_MAX:
        return None
    heard = whole_of(fields_in(fields.get("input_token_details")).get("audio_tokens")) or 0
    flags: tuple[str, ...] = ()
    if not 0 <= heard <= inputs:
        flags = (f"input parts contradict the total: audio {heard} of {inputs}",)
        heard = 0
    total = whole_of(fields.get("total_tokens"))
    if total is not None and total != inputs + outputs:
        flags = (*flags, f"total_tokens {total} is not {inputs} + {outputs}")
    counts = {Meter.INPUT: inputs - heard, Meter.INPUT_AUDIO: heard, Meter.OUTPUT: outputs}
    return Usage(
        counts={meter: count for meter, count in counts.items() if count},
        basis=Basis.ESTIMATED if flags else Basis.REPORTED,
        flags=flags,
    )


def _form_of(asked: Asked) -> tuple[Part, ...]:
    content_type = next((value for key, value in asked.headers if key == "content-type"), None)
    return scan_form(asked.body, content_type)


def _guess(facts: RequestFacts, head: ReplyHead) -> Answer:
    """Begin an answer with what it comes to most likely, which what it tells replaces."""
    answer = Answer()
    if head.status >= _SUCCESS_BELOW or not isinstance(facts, AudioFacts):
        return answer
    answer.tells_fees = True
    sold = facts.meters | frozenset(facts.fees)
    counts = {meter: count for meter, count in facts.likely.items() if meter in sold and count}
    for unit in (Meter.CHARACTER, Meter.AUDIO_SECOND):
        if unit in counts:
            # Sold by the unit, it is not sold by the token as well.
            counts = {unit: counts[unit]}
    if Meter.OUTPUT_AUDIO in sold and Meter.OUTPUT in counts:
        counts[Meter.OUTPUT_AUDIO] = counts.pop(Meter.OUTPUT)
    answer.usage = _estimated(counts) if counts else None
    return answer


def _estimated(counts: Mapping[Meter, Quantity]) -> Usage:
    flag = "no usage from the provider: counted from what was sent"
    return Usage(counts=counts, basis=Basis.ESTIMATED, flags=(flag,))


def _take(answer: Answer, usage: Usage | None) -> None:
    """Put what was told in the place of what was guessed; spoken tokens where they are sold."""
    if usage is None or not usage.counts:
        return
    guessed = {} if answer.usage is None else answer.usage.counts
    counts = dict(usage.counts)
    if Meter.OUTPUT_AUDIO in guessed and Meter.OUTPUT in counts:
        counts[Meter.OUTPUT_AUDIO] = counts.pop(Meter.OUTPUT)
    answer.usage = Usage(counts=counts, basis=usage.basis, flags=usage.flags)


def _guess_seconds(body: bytes, recording: Part) -> Decimal:
    """How long a recording is: exactly for plain WAV, else at 32 kilobits a second."""
    size = recording.end - recording.start
    head = body[recording.start : recording.start + _WAV_HEAD_BYTES]
    rate = int.from_bytes(head[_WAV_RATE], "little")
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE" and rate >= _BYTES_PER_SECOND_MIN:
        return (Decimal(max(0, size - _WAV_HEAD_BYTES)) / rate).quantize(_MILLISECOND)
    return (Decimal(size) / _BYTES_PER_SECOND).quantize(_MILLISECOND)


def _plain(seconds: Decimal) -> Quantity:
    """Write whole seconds as a whole number."""
    return int(seconds) if seconds == int(seconds) else seconds


_SPEAKING: Final = ("openai", "azure", "groq", "together", "vllm", "openrouter")
_TRANSCRIBING: Final = ("openai", "azure", "groq", "together", "fireworks", "vllm")
# Groq bills ten seconds at least: https://groq.com/pricing, checked 2026-11-23.
_SECONDS_MIN: Final[Mapping[str, int]] = {"groq": 10}

ENDPOINTS: Final = (
    *rows("/audio/speech", dict.fromkeys(_SPEAKING, OpenAISpeech())),
    *rows(
        "/audio/transcriptions",
        {
            kind: OpenAITranscription("openai.transcriptions", _SECONDS_MIN.get(kind, 0))
            for kind in _TRANSCRIBING
        },
    ),
    *rows(
        "/audio/translations",
        {
            kind: OpenAITranscription("openai.translations", _SECONDS_MIN.get(kind, 0))
            for kind in _TRANSCRIBING
        },
    ),
)
