"""Mistral's batches and files: free to make, metered when their results are fetched; and lists.

Must never meter a file of results twice.
"""

from typing import Final

import msgspec

from gateway.wire.anthropic_batches import ResultsFold
from gateway.wire.cutters import LineCutter
from gateway.wire.facts import Answer, Asked, ReplyHead, RequestFacts, StreamLane, free_facts
from gateway.wire.mistral_dialect import MistralDialect
from gateway.wire.openai_places import rows
from gateway.wire.openai_usage import read_odd_usage, read_usage
from gateway.wire.plain_format import FreeCalls, Unread
from gateway.wire.reading import (
    ABSENT,
    checked_model,
    is_given,
    mend_surrogates,
    read_name,
    read_quantity,
    try_read,
)
from gateway.wire.tap import Tap
from pricing.meters import Meter
from pricing.usage import Basis, Usage

BATCH_TIER: Final = "batch"
_FILE: Final = "file"
_SUCCESS_BELOW: Final = 300


class _Body(msgspec.Struct):
    model: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    usage_info: msgspec.Raw = ABSENT


class _Response(msgspec.Struct):
    status_code: int | None = None
    body: msgspec.Raw = ABSENT


class _Line(msgspec.Struct):
    response: _Response | None = None


class _Pages(msgspec.Struct):
    pages_processed: msgspec.Raw = ABSENT


class _Named(msgspec.Struct):
    model: str | None = None
    agent_id: str | None = None


_decode_line: Final = msgspec.json.Decoder(_Line).decode
_decode_body: Final = msgspec.json.Decoder(_Body).decode
_decode_pages: Final = msgspec.json.Decoder(_Pages).decode
_decode_named: Final = msgspec.json.Decoder(_Named).decode


class MistralFree(FreeCalls, MistralDialect):
    """The wire format of calls that cost nothing: lists, files, and the keeping of batches."""

    api = "mistral.free"

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Read the model of a batch, so that a key reaches only models it may call.

        Args:
            asked: The request as it came.

        Returns:
            Facts whose ceiling is zero.
        """
        named = None
        if asked.body.lstrip().startswith(b"{"):
            named = try_read(_decode_named, msgspec.Raw(asked.body))
        model = None if named is None else named.model or named.agent_id
        return free_facts(checked_model(model or asked.names.get("model", "")))


class MistralResultsFold(ResultsFold):
    """Adds up the lines of a batch's results; a file of any other kind has no such lines.

    Source:
        https://docs.mistral.ai/capabilities/batch, results, checked 2026-11-23.
    """

    __slots__ = ()

    def take(self, event: bytes) -> bool:
        """Read one line.

        Args:
            event: A line of JSON, or anything else.

        Returns:
            Never that it is the last.
        """
        if b'"response"' not in event:
            return False
        line = try_read(_decode_line, msgspec.Raw(event.strip()))
        line = line or try_read(_decode_line, msgspec.Raw(mend_surrogates(event).strip()))
        if line is None or line.response is None:
            return False
        body = try_read(_decode_body, line.response.body)
        if body is None or (line.response.status_code or 200) >= _SUCCESS_BELOW:
            return False
        self.answer.is_readable = True
        usage = _usage_of(body)
        if usage is None:
            return False
        if usage.basis is Basis.UNKNOWN:
            self._note("a result without usable counts")
        self._is_estimated |= usage.basis is Basis.ESTIMATED
        self._add(read_name(body.model) or "a model without a name", None, usage)
        return False


class FileLane(Tap):
    """Passes a file on and meters the results in it once all of it has passed."""

    __slots__ = ("_file", "_results")

    def __init__(self, file: str | None) -> None:
        self._results = MistralResultsFold()
        self._file = file
        super().__init__(LineCutter(), self._results)
        self.can_append = False

    def finish(self, *, is_broken: bool = False) -> bytes:
        """End the file.

        Args:
            is_broken: It broke off, or nobody listens any more.

        Returns:
            All bytes held back.
        """
        # Half a line goes on as well: nothing follows it, and by it the client sees the break.
        tail = super().finish()
        if is_broken:
            self._results.abandon()
        else:
            self._results.close(self._file)
        return tail


class MistralFile(MistralFree):
    """The wire format of ``GET /files/{id}/content``: results of a batch, or any file.

    Attributes:
        stream_types: Content types, or how they begin, of an answer that is passed on as it comes.
    """

    api = "mistral.batch_results"
    stream_types: tuple[str, ...] = (
        "application/octet-stream",
        "application/x-ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "binary/octet-stream",
        "text/plain",
    )

    def read_facts(self, asked: Asked) -> RequestFacts:
        """Say that fetching costs nothing beyond what the batch has used.

        Args:
            asked: The request as it came.

        Returns:
            Facts whose ceiling is zero.
        """
        return msgspec.structs.replace(free_facts(), named=asked.names.get(_FILE))

    def open_stream(self, facts: RequestFacts, head: ReplyHead) -> StreamLane:
        """Begin to read a file.

        Args:
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            A lane for its bytes.
        """
        if head.status >= _SUCCESS_BELOW:
            return Tap(LineCutter(), Unread())
        return FileLane(facts.named)

    def read_whole(self, body: bytes, facts: RequestFacts, head: ReplyHead) -> Answer:
        """Read a file that comes in one piece.

        Args:
            body: The answer as it came, decompressed.
            facts: What the client asked for.
            head: Status and headers of the answer.

        Returns:
            What its results have used; nothing for an error.
        """
        if head.status >= _SUCCESS_BELOW:
            return Answer()
        lane = FileLane(facts.named)
        lane.feed(body)
        lane.finish()
        return lane.answer


def _usage_of(body: _Body) -> Usage | None:
    """What one request of a batch has used: tokens, or pages."""
    if is_given(body.usage_info):
        info = try_read(_decode_pages, body.usage_info) or _Pages()
        pages = read_quantity(info.pages_processed)
        return Usage(counts={Meter.PAGE: pages}, basis=Basis.REPORTED) if pages else None
    return read_usage(read_odd_usage(bytes(body.usage))) if is_given(body.usage) else None


_FREE: Final = {"mistral": MistralFree()}
_GET: Final = frozenset({"GET"})
_POST: Final = frozenset({"POST"})

ENDPOINTS: Final = (
    *rows("/models", _FREE, methods=_GET),
    *rows("/models/{model}", _FREE, methods=frozenset({"GET", "DELETE"})),
    *rows("/batch/jobs", _FREE, methods=_GET | _POST),
    *rows("/batch/jobs/{job}", _FREE, methods=_GET),
    *rows("/batch/jobs/{job}/cancel", _FREE, methods=_POST),
    *rows("/files", _FREE, methods=_GET | _POST),
    *rows("/files/{file}", _FREE, methods=frozenset({"GET", "DELETE"})),
    *rows("/files/{file}/url", _FREE, methods=_GET),
    *rows("/files/{file}/content", {"mistral": MistralFile()}, methods=_GET),
)
