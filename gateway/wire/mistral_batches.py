"""Mistral's batches and files: free to make, metered when their results are fetched; and lists.

Must never meter a file of results twice.
"""

from typing import Final

import msgspec

from gateway.wire.anthropic_batches import ResultsFold
from gateway.wire.facts import Asked, RequestFacts, free_facts
from gateway.wire.fetched import FetchedResults
from gateway.wire.mistral_dialect import MistralDialect
from gateway.wire.openai_places import rows
from gateway.wire.openai_usage import read_odd_usage, read_usage
from gateway.wire.plain_format import FreeCalls
from gateway.wire.reading import (
    ABSENT,
    checked_model,
    is_given,
    mend_surrogates,
    read_name,
    read_quantity,
    try_read,
)
from pricing.meters import Meter
from pricing.usage import Basis, Usage

BATCH_TIER: Final = "batch"
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


class MistralFile(FetchedResults, MistralFree):
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
    source = "file"
    results = MistralResultsFold
    errors = MistralFree()


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
