"""Answers of Gemini's ``generateContent``, whole or streamed: usage, searches, names and text.

Must never change an event, and never let an odd field hide the usage beside it.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

import msgspec

from gateway.wire.cutters import ArrayCutter, SseCutter, json_of
from gateway.wire.facts import Answer, ReplyHead, RequestFacts, header_of
from gateway.wire.gemini_usage import UsageParts, parts_of, read_usage
from gateway.wire.google_request import model_of
from gateway.wire.openai_answer import (
    ABSENT,
    NAME_CHARS_MAX,
    NULLS,
    TEXT_KEPT_CHARS_MAX,
    UNREADABLE,
)
from gateway.wire.sse import data_of
from gateway.wire.tap import Tap
from pricing.meters import Meter
from pricing.sku import STANDARD_TIER
from pricing.usage import Basis, Usage

EVENTS: Final = "text/event-stream"
_TIER_HEADER: Final = "x-gemini-service-tier"
QUERIES_KEPT_MAX: Final = 1000
UNREAD_GROUNDING: Final = "the grounding metadata could not be read"

# Traffic that was paid for in advance has no price per token: it is billed as on demand, and the
# report of commitments says what of it was covered. Off-peak traffic has a price nobody publishes.
# Source: https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/
# GenerateContentResponse#TrafficType, checked 2026-11-23.
_TRAFFIC: Final[Mapping[object, str]] = MappingProxyType(
    {
        "ON_DEMAND": STANDARD_TIER,
        1: STANDARD_TIER,
        "ON_DEMAND_PRIORITY": "priority",
        "ON_DEMAND_FLEX": "flex",
        "ON_DEMAND_OFFPEAK": "offpeak",
        "PROVISIONED_THROUGHPUT": STANDARD_TIER,
        2: STANDARD_TIER,
    }
)
_PROVISIONED: Final = ("PROVISIONED_THROUGHPUT", 2)
_VERSION: Final = re.compile(r"gemini-(\d+)")
# From this major version on every search is charged, before it every prompt that searched.
_BY_QUERY_FROM: Final = 3


class _Part(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    function_call: msgspec.Raw = ABSENT
    executable_code: msgspec.Raw = ABSENT
    code_execution_result: msgspec.Raw = ABSENT
    inline_data: msgspec.Raw = ABSENT
    file_data: msgspec.Raw = ABSENT


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: str | int | None = None
    index: int | None = None
    grounding_metadata: msgspec.Raw = ABSENT


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | int | None = None


class _Chunk(msgspec.Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: msgspec.Raw = ABSENT
    model_version: str | None = None
    response_id: str | None = None
    error: msgspec.Raw = ABSENT


class _Unread(msgspec.Struct, gc=False):
    """A content whose parts nobody needs."""

    parts: ClassVar[None] = None


class _CandidateSketch(_Candidate, gc=False, rename="camel"):
    content: _Unread | None = None  # type: ignore[assignment]


class _Sketch(_Chunk, gc=False, rename="camel"):
    candidates: list[_CandidateSketch] | None = None  # type: ignore[assignment]


class _Outline(msgspec.Struct, gc=False, rename="camel"):
    """A chunk with every field unread, to be read one by one where some are odd."""

    candidates: msgspec.Raw = ABSENT
    prompt_feedback: msgspec.Raw = ABSENT
    usage_metadata: msgspec.Raw = ABSENT
    model_version: msgspec.Raw = ABSENT
    response_id: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


_decode_chunk = msgspec.json.Decoder(_Chunk, strict=False).decode
_decode_sketch = msgspec.json.Decoder(_Sketch, strict=False).decode
_decode_outline = msgspec.json.Decoder(_Outline).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_candidate = msgspec.json.Decoder(_Candidate, strict=False).decode
_decode_any = msgspec.json.Decoder().decode


def keep(answer: Answer, text: str) -> None:
    """Count a text, and keep as much of it as there is room for.

    Args:
        answer: Takes it.
        text: Visible output.
    """
    room = TEXT_KEPT_CHARS_MAX - answer.text_chars
    answer.text_chars += len(text)
    if room > 0 and text:
        answer.text.append(text[:room])


def charged(searches: int, *models: str | None) -> int:
    """Count what is charged of searches that were made.

    Args:
        searches: How many; above zero.
        models: Names of the model, the one served first.

    Returns:
        Each of them from Gemini 3 on, and for a model whose name tells no version; before, one.

    Source:
        https://ai.google.dev/gemini-api/docs/google-search, "Pricing", checked 2026-11-23.
    """
    for model in models:
        version = _VERSION.match(model or "")
        if version is not None:
            return searches if int(version[1]) >= _BY_QUERY_FROM else 1
    return searches


class Grounding:
    """What was searched for in one answer."""

    __slots__ = ("_is_grounded", "_queries")

    def __init__(self) -> None:
        """Begin with nothing."""
        self._queries: set[str] = set()
        self._is_grounded = False

    def fold(self, raw: msgspec.Raw) -> bool:
        """Note what was searched for; unique queries count, empty ones do not.

        Args:
            raw: The grounding metadata.

        Returns:
            Whether it could be read; what could not counts as grounded.

        Source:
            https://ai.google.dev/gemini-api/docs/google-search, "Pricing", checked 2026-11-23.
        """
        try:
            told = _decode_object(raw)
        except UNREADABLE:
            self._is_grounded = True
            return False
        for name in ("webSearchQueries", "imageSearchQueries"):
            queries = told.get(name)
            for query in queries if isinstance(queries, list) else ():
                if query and len(self._queries) < QUERIES_KEPT_MAX:
                    self._queries.add(f"{name} {query}"[:NAME_CHARS_MAX])
        chunks = told.get("groundingChunks")
        for chunk in chunks if isinstance(chunks, list) else ():
            if isinstance(chunk, dict) and ("web" in chunk or "maps" in chunk or "image" in chunk):
                self._is_grounded = True
        return True

    def count(self, *models: str | None) -> int:
        """Count what is charged: prompts that searched, or searches.

        Args:
            models: As for ``charged``.

        Returns:
            How many.
        """
        if not self._queries and not self._is_grounded:
            return 0
        return charged(max(1, len(self._queries)), *models)


class GeminiFold:
    """Folds the chunks of one answer; a whole answer is one chunk.

    Attributes:
        answer: What has been seen so far.
    """

    def __init__(self, facts: RequestFacts, head: ReplyHead, *, is_events: bool = False) -> None:
        self.answer = Answer()
        self._model = facts.model
        self._parts: UsageParts | None = None
        self._usage: Usage | None = None
        self._open: set[int] = set()
        self._grounding = Grounding()
        self._has_media = False
        self._data_of = data_of if is_events else json_of
        tier = header_of(head, _TIER_HEADER)
        if tier:
            self.answer.tier = tier.lower()[:32]

    def take(self, event: bytes) -> bool:
        """Read one event.

        Args:
            event: A server-sent event, or a member of a JSON array with what stands before it.

        Returns:
            Whether the answer ends with it, as far as one can tell.
        """
        data = self._data_of(event)
        if data:
            return self.fold(data)
        if event.strip() != b"]":
            return False
        self.close()
        return True

    def fold(self, data: bytes, *, is_sketch: bool = False) -> bool:
        """Read one chunk.

        Args:
            data: Its JSON.
            is_sketch: Whether its text is left out, which is not needed once usage is there.

        Returns:
            Whether it says that every candidate is finished, and what was used.
        """
        try:
            chunk = _decode_sketch(data) if is_sketch else _decode_chunk(data)
        except UNREADABLE:
            chunk = self._read_outline(data)
        answer = self.answer
        answer.is_readable = True
        if chunk.error is not ABSENT and bytes(chunk.error) not in NULLS:
            answer.is_error = True
        if chunk.model_version:
            answer.model = model_of(chunk.model_version[:NAME_CHARS_MAX])
        if chunk.response_id:
            answer.request_id = chunk.response_id[:NAME_CHARS_MAX]
        for candidate in chunk.candidates or ():
            self._fold_candidate(candidate)
        if chunk.candidates:
            answer.is_finished = not self._open
        feedback = chunk.prompt_feedback
        if feedback is not None and feedback.block_reason not in (None, 0):
            # Google counts the prompt, and bills answers of status 200.
            self._flag(f"the prompt was blocked: {feedback.block_reason}")
            answer.is_finished = True
        has_usage = bytes(chunk.usage_metadata) not in NULLS
        if has_usage:
            self._fold_usage(chunk.usage_metadata)
        self._publish()
        return has_usage and answer.is_finished

    def close(self) -> None:
        """Take note that the answer ended as it should."""
        if not self.answer.is_error:
            self.answer.is_complete = self.answer.is_finished = True
        self._publish()

    def _fold_candidate(self, candidate: _Candidate) -> None:
        self._open.add(candidate.index or 0)
        if candidate.content is not None:
            for part in candidate.content.parts or ():
                self._fold_part(part)
        grounding = candidate.grounding_metadata
        if bytes(grounding) not in NULLS and not self._grounding.fold(grounding):
            self._flag(UNREAD_GROUNDING)
        if candidate.finish_reason not in (None, "", 0, "FINISH_REASON_UNSPECIFIED"):
            self._open.discard(candidate.index or 0)

    def _fold_part(self, part: _Part) -> None:
        if part.text:
            keep(self.answer, part.text)
        for shown in (part.function_call, part.executable_code, part.code_execution_result):
            if shown is not ABSENT:
                keep(self.answer, bytes(shown).decode("utf-8", "replace"))
        if part.inline_data is not ABSENT or part.file_data is not ABSENT:
            # Nobody can count what is not text: without usage it is booked at the bound.
            keep(self.answer, " ")
            self._has_media = True

    def _fold_usage(self, raw: msgspec.Raw) -> None:
        """Read the newest usage, which replaces all before it; one without counts does not."""
        try:
            told = _decode_object(raw)
        except UNREADABLE:
            self._flag("the usage metadata could not be read")
            return
        self._fold_tier(told)
        parts = parts_of(told)
        if parts.is_empty:
            return
        before = self._parts
        repair = ""
        if (
            before is not None
            and before.cached
            and parts.cached is None
            and parts.prompt == before.prompt
        ):
            # Some gateways drop it from the last chunk: pydantic/pydantic-ai issue 5205.
            parts = parts._replace(cached=before.cached, cached_media=before.cached_media)
            repair = f"cachedContentTokenCount {before.cached} was reported and then left out: kept"
        self._parts = parts
        self._usage = read_usage(parts)
        if repair:
            self._usage = msgspec.structs.replace(self._usage, flags=(*self._usage.flags, repair))
        if self._usage.output_total:
            # Text that comes after this is not in the count.
            self.answer.usage_chars = self.answer.text_chars

    def _fold_tier(self, told: Mapping[str, object]) -> None:
        traffic = told.get("trafficType")
        if isinstance(traffic, str | int) and traffic not in ("", 0, "TRAFFIC_TYPE_UNSPECIFIED"):
            self.answer.tier = _TRAFFIC.get(traffic, str(traffic).lower()[:32])
            if traffic in _PROVISIONED:
                self._flag("served from provisioned throughput: priced as on demand")
        tier = told.get("serviceTier")
        if isinstance(tier, str) and tier and "unspecified" not in tier.lower():
            self.answer.tier = tier.lower().removeprefix("service_tier_")[:32]

    def _publish(self) -> None:
        """Say what is known: a running count is partial until the answer is finished."""
        answer, usage = self.answer, self._usage
        answer.tells_fees = answer.is_finished
        if usage is None:
            if self._has_media:
                answer.is_readable = False
            return
        counts, basis = usage.counts, usage.basis
        searches = self._grounding.count(self.answer.model, self._model)
        if counts and searches:
            counts = {**counts, Meter.WEB_SEARCH: searches}
        if not answer.is_finished and basis is Basis.REPORTED:
            basis = Basis.PARTIAL
        if counts is usage.counts and basis is usage.basis:
            answer.usage = usage
        else:
            answer.usage = Usage(counts=counts, basis=basis, flags=usage.flags)

    def _flag(self, flag: str) -> None:
        if flag not in self.answer.flags:
            self.answer.flags = (*self.answer.flags, flag)

    def _read_outline(self, data: bytes) -> _Chunk:
        """Read what can be read where some field is odd; what cannot be is counted by its size."""
        outline = _decode_outline(data)
        chunk = _Chunk(usage_metadata=outline.usage_metadata, error=outline.error)
        for name in ("model_version", "response_id"):
            text = _try_any(getattr(outline, name))
            if isinstance(text, str):
                setattr(chunk, name, text)
        feedback = _try_any(outline.prompt_feedback)
        if isinstance(feedback, dict) and isinstance(feedback.get("blockReason"), str | int):
            chunk.prompt_feedback = _Feedback(block_reason=feedback["blockReason"])
        if bytes(outline.candidates) in NULLS:
            return chunk
        try:
            listed = _decode_list(outline.candidates)
        except UNREADABLE:
            listed = [outline.candidates]
        chunk.candidates = []
        for raw in listed:
            try:
                chunk.candidates.append(_decode_candidate(raw))
            except UNREADABLE:
                keep(self.answer, bytes(raw).decode("utf-8", "replace"))
        return chunk


def _try_any(raw: msgspec.Raw) -> object:
    if raw is ABSENT:
        return None
    try:
        return _decode_any(raw)
    except UNREADABLE:
        return None


class GeminiLane(Tap):
    """Passes a stream of chunks on and folds them.

    Attributes:
        answer: What has been seen so far.
        can_append: Whether an event of the gateway's own may follow: a JSON array has no room.
    """

    __slots__ = ("_gemini",)

    def __init__(self, facts: RequestFacts, head: ReplyHead) -> None:
        """Choose the framing by what the provider says it sends."""
        has_events = (header_of(head, "content-type") or EVENTS).lower().startswith(EVENTS)
        self._gemini = GeminiFold(facts, head, is_events=has_events)
        super().__init__(SseCutter() if has_events else ArrayCutter(), self._gemini)
        self.can_append = has_events

    def finish(self, *, is_broken: bool = False) -> bytes:
        """End the stream.

        Args:
            is_broken: The stream broke off: what was counted is not all.

        Returns:
            The bytes held back.
        """
        tail = super().finish(is_broken=is_broken)
        if not is_broken and not self._is_blind:
            self._gemini.close()
        return tail


def read_answer(body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
    """Read a whole answer.

    Args:
        body: The answer as it came.
        facts: What the client asked for.
        head: Status and headers of the answer.

    Returns:
        What it says; not readable when it is not what Gemini answers.
    """
    fold = GeminiFold(facts, head)
    chunk = json_of(body[:-1] if body.startswith(b"[") and body.endswith(b"]") else body)
    try:
        fold.fold(chunk, is_sketch=True)
        if fold.answer.usage is None or not fold.answer.usage.output_total:
            fold.fold(chunk)
    except UNREADABLE:
        fold.answer.is_readable = False
        return fold.answer
    fold.close()
    return fold.answer
