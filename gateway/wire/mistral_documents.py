"""Mistral's pages, recordings and voices: OCR, transcriptions, speech.

Must never bill the tokens of what is billed by the page, the second or the character.
"""

from collections.abc import Mapping
from math import ceil
from types import MappingProxyType
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
)
from gateway.wire.mistral_dialect import MistralDialect
from gateway.wire.multipart import field_of, scan_form, text_of
from gateway.wire.openai_places import rows
from gateway.wire.plain_format import PlainFormat
from gateway.wire.reading import (
    ABSENT,
    SingleFields,
    checked_model,
    is_given,
    keep_text,
    mend_surrogates,
    read_name,
    read_quantity,
    refusing,
    try_read,
)
from gateway.wire.sse import data_of
from gateway.wire.tap import Tap
from pricing.meters import Meter
from pricing.rates import NO_VARIANTS
from pricing.usage import NOTHING, Basis, Quantity, Usage, unknown_usage

# https://docs.mistral.ai/capabilities/document_ai/basic_ocr, limits, checked 2026-11-23.
_PAGES_MAX: Final = 1000
# https://docs.mistral.ai/capabilities/audio: three hours are the longest a recording may be. Below
# any rate at which speech is recorded, but for silence: one kilobit a second.
_HEARD_S_MAX: Final = 3 * 3600
_BYTES_PER_SECOND_MIN: Final = 125
_SUCCESS_BELOW: Final = 300
_NO_METERS: Final[frozenset[Meter]] = frozenset()
_ANNOTATED: Final[Mapping[Meter, str]] = MappingProxyType({Meter.PAGE: "annotated"})
# A make without a price of its own has the plain one.
_BARE: Final[Mapping[Meter, str]] = MappingProxyType({Meter.PAGE: "plain"})
_SINGLE: Final = SingleFields(
    "model",
    "document",
    "pages",
    "bbox_annotation_format",
    "document_annotation_format",
    "input",
    "stream",
)


class _Document(msgspec.Struct):
    type: str | None = None


class _Ocr(msgspec.Struct, kw_only=True):
    model: str
    document: _Document | None = None
    pages: msgspec.Raw = ABSENT
    bbox_annotation_format: msgspec.Raw = ABSENT
    document_annotation_format: msgspec.Raw = ABSENT


class _Speech(msgspec.Struct, kw_only=True):
    model: str
    input: str
    stream: bool | None = None


class _Told(msgspec.Struct):
    """What the answers of these calls say, whichever it is."""

    type: msgspec.Raw = ABSENT
    model: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    usage_info: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT


class _UsageInfo(msgspec.Struct):
    pages_processed: msgspec.Raw = ABSENT
    prompt_audio_seconds: msgspec.Raw = ABSENT


_decode_ocr: Final = msgspec.json.Decoder(_Ocr).decode
_decode_speech: Final = msgspec.json.Decoder(_Speech).decode
_decode_told: Final = msgspec.json.Decoder(_Told).decode
_decode_info: Final = msgspec.json.Decoder(_UsageInfo).decode
_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text: Final = msgspec.json.Decoder(str).decode


class MistralOcr(PlainFormat, MistralDialect):
    """The wire format of ``POST /ocr``."""

    api = "mistral.ocr"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts: the pages asked for, else as many as a document may have. Annotated pages
            have a price of their own.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://docs.mistral.ai/api/endpoint/ocr, checked 2026-11-23.
        """
        with refusing("an OCR request"):
            request = _decode_ocr(asked.body)
        _SINGLE.check(asked.body)
        listed = try_read(_decode_list, request.pages)
        pages = _PAGES_MAX if listed is None else max(1, len(listed))
        if request.document is not None and request.document.type == "image_url":
            pages = 1
        is_annotated = is_given(request.bbox_annotation_format) or is_given(
            request.document_annotation_format
        )
        return _facts_of(
            request.model,
            {Meter.PAGE: pages},
            variants=_ANNOTATED if is_annotated else _BARE,
        )

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            The pages that were processed; without them it is billed at its ceiling.
        """
        answer = Answer()
        told = _read_told(body)
        if told is None or head.status >= _SUCCESS_BELOW:
            return answer
        answer.model = read_name(told.model)
        answer.is_finished = answer.is_complete = answer.tells_fees = True
        info = try_read(_decode_info, told.usage_info) or _UsageInfo()
        answer.usage = _usage_of(Meter.PAGE, info.pages_processed)
        return answer


class TranscriptionFold:
    """Reads the events of a streamed transcription.

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
            Whether it ends the transcription.
        """
        data = data_of(event)
        told = None if data is None else _read_told(data)
        if told is None:
            return False
        kind = read_name(told.type)
        if kind == "transcription.done":
            _fold_heard(self.answer, told)
            return True
        if kind == "transcription.text.delta":
            keep_text(self.answer, try_read(_decode_text, told.text))
        self.answer.is_error |= is_given(told.error)
        return False


class MistralTranscription(PlainFormat, MistralDialect):
    """The wire format of ``POST /audio/transcriptions``."""

    api = "mistral.transcriptions"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts: as many seconds as the recording's bytes can be, and no tokens, as Mistral
            bills what it hears by the second.

        Raises:
            BadRequest: Not a form, no model, or a field given twice.

        Source:
            https://docs.mistral.ai/api/endpoint/audio/transcriptions, checked 2026-11-23.
        """
        content_type = next((v for name, v in asked.headers if name == "content-type"), None)
        parts = scan_form(asked.body, content_type)
        model = text_of(asked.body, parts, "model")
        if not model:
            raise BadRequest("the form has no `model`")
        recording = field_of(asked.body, parts, "file")
        seconds = _HEARD_S_MAX
        if recording is not None and not any(p.name in ("file_url", "file_id") for p in parts):
            size = recording.end - recording.start
            seconds = min(seconds, max(1, ceil(size / _BYTES_PER_SECOND_MIN)))
        stream = (text_of(asked.body, parts, "stream") or "").strip().lower()
        return _facts_of(model, {Meter.AUDIO_SECOND: seconds}, stream=stream in ("true", "1"))

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to read a streamed transcription.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for its events.
        """
        return Tap(SseCutter(), TranscriptionFold())

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole transcription.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            The seconds that were heard; without them it is billed at its ceiling.
        """
        answer = Answer(tells_fees=True)
        told = _read_told(body)
        if told is not None and head.status < _SUCCESS_BELOW:
            _fold_heard(answer, told)
        return answer


class SpeechFold:
    """Passes spoken events: what they cost stands in the request.

    Attributes:
        answer: The characters to be spoken.
    """

    __slots__ = ("answer",)

    def __init__(self, facts: RequestFacts) -> None:
        """Begin.

        Args:
            facts: What the client asked for.
        """
        self.answer = _spoken(facts)

    def take(self, event: bytes) -> bool:
        """Read one event.

        Args:
            event: With its framing.

        Returns:
            Whether it ends the speech.
        """
        if b"speech.audio.done" not in event[:200]:
            return False
        self.answer.is_finished = self.answer.is_complete = True
        return True


class MistralSpeech(PlainFormat, MistralDialect):
    """The wire format of ``POST /audio/speech``."""

    api = "mistral.speech"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read what metering needs of a request.

        Args:
            asked: The request as it came.

        Returns:
            The facts: the characters of the input.

        Raises:
            BadRequest: Not JSON, no model, a field of the wrong type or given twice.

        Source:
            https://docs.mistral.ai/api/endpoint/audio/speech, checked 2026-11-23.
        """
        with refusing("a speech request"):
            request = _decode_speech(asked.body)
        _SINGLE.check(asked.body)
        characters = {Meter.CHARACTER: len(request.input)}
        return _facts_of(request.model, characters, stream=bool(request.stream))

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to pass spoken events on.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for its events.
        """
        return Tap(SseCutter(), SpeechFold(facts))

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a whole answer, which is a recording.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            The characters that were spoken, as counted in the request.
        """
        return _spoken(facts) if head.status < _SUCCESS_BELOW else Answer()


def _spoken(facts: RequestFacts) -> Answer:
    """What is billed of a speech is counted here: Mistral tells tokens, which have no price."""
    counts = {meter: count for meter, count in facts.fees.items() if count}
    usage = Usage(counts=counts, basis=Basis.ESTIMATED) if counts else NOTHING
    return Answer(usage=usage, tells_fees=True, is_readable=True)


def _read_told(data: bytes) -> _Told | None:
    told = try_read(_decode_told, msgspec.Raw(data))
    return told or try_read(_decode_told, msgspec.Raw(mend_surrogates(data)))


def _fold_heard(answer: Answer, told: _Told) -> None:
    answer.model = read_name(told.model) or answer.model
    answer.is_finished = answer.is_complete = True
    answer.usage_chars = answer.text_chars
    info = try_read(_decode_info, told.usage) or _UsageInfo()
    answer.usage = _usage_of(Meter.AUDIO_SECOND, info.prompt_audio_seconds)


def _usage_of(meter: Meter, raw: msgspec.Raw) -> Usage:
    count = read_quantity(raw)
    if count is None:
        told = bytes(raw)[:40].decode("utf-8", "replace")
        return unknown_usage(f"{meter.value} is no usable count: {told or 'missing'}")
    return Usage(counts={meter: count}, basis=Basis.REPORTED) if count else NOTHING


def _facts_of(
    model: str,
    fees: Mapping[Meter, Quantity],
    *,
    stream: bool = False,
    variants: Mapping[Meter, str] = NO_VARIANTS,
) -> RequestFacts:
    return RequestFacts(
        model=checked_model(model),
        stream=stream,
        wants_usage=True,
        tier=None,
        input_tokens_max=0,
        output_tokens_max=0,
        choices=1,
        extra_output_max=0,
        meters=_NO_METERS,
        fees=fees,
        variants=variants,
    )


ENDPOINTS: Final = (
    *rows("/ocr", {"mistral": MistralOcr()}),
    *rows("/audio/transcriptions", {"mistral": MistralTranscription()}),
    *rows("/audio/speech", {"mistral": MistralSpeech()}),
)
