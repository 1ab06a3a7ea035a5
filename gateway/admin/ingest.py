"""``POST /api/v1/ingest``: usage that did not pass the gateway, as CloudEvents or OTLP spans.

Must never answer that something is booked before it is on disk, nor decode a prompt.
"""

import asyncio
import logging
import zlib
from collections.abc import Sequence
from typing import Annotated, Final, Literal, NamedTuple

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel
from starlette.responses import JSONResponse

from gateway.admin.auth import caller_of
from gateway.admin.parts import FLUSH_S_MAX, ControlParts, Parts, book_with
from gateway.admin.problems import RequestRefused
from gateway.budgets.rules import Subject, is_in_scope
from gateway.callers import Caller
from gateway.ingest.booking import Booked, Bookings, Intake
from gateway.ingest.cloudevents import (
    BATCHED,
    STRUCTURED,
    read_batch,
    read_binary,
    read_structured,
)
from gateway.ingest.otlp import (
    is_wanted,
    read_spans,
    tell_reasons,
    write_binary_answer,
    write_json_answer,
)
from gateway.ingest.otlp_spans import read_binary_spans, read_json_spans
from gateway.ingest.usage import EventRefused, Flags, Told, Unreadable
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.record import LedgerRecord
from pricing.book import Book

log = logging.getLogger("taximeter.ingest")

EVENTS_MAX: Final = 1000
UNPACKED_BYTES_MAX: Final = 16 * 1024 * 1024
JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
_STATUS: Final = {"conflict": 409}

router = APIRouter(prefix="/ingest", tags=["ingest"])


class IngestedOut(BaseModel):
    """What became of one event.

    Attributes:
        source: As sent.
        id: As sent.
        status: ``recorded``; ``metered`` when the call has its record already, because it passed
            the gateway or was told of under another name; ``failed`` when nothing was booked.
        record_id: Its record; null for ``failed``, like what follows.
        cost: Decimal text; null when unknown, and for ``metered``.
        currency: Of the cost.
        cost_status: As in the record.
        price_version: As in the record.
        flags: What was odd, in words.
        code: Why it failed, for programs; else null.
        detail: Why it failed, in words; else null.
    """

    source: str
    id: str
    status: Literal["recorded", "metered", "failed"]
    record_id: str | None = None
    cost: str | None = None
    currency: str | None = None
    cost_status: str | None = None
    price_version: str | None = None
    flags: list[str] = []
    code: str | None = None
    detail: str | None = None


class IngestOut(BaseModel):
    """What became of a request.

    Attributes:
        recorded: Events with a record of their own, repeated ones included.
        metered: Events whose calls have a record already.
        failed: Events that are not booked.
        ignored: Spans that tell of no single call of a model.
        budgets_exceeded: Budgets of these events that are over their limit now. Usage that has
            happened is counted whatever a budget says.
        events: One for each event, in order.
    """

    recorded: int
    metered: int
    failed: int
    ignored: int = 0
    budgets_exceeded: list[str]
    events: list[IngestedOut]


class _Read(NamedTuple):
    told: Sequence[Told]
    ignored: int = 0
    is_otlp: bool = False
    is_single: bool = False


def read_flags(
    input_includes_cache: Annotated[
        bool | None, Query(description="Whether input counts of spans hold the cache's tokens.")
    ] = None,
    output_includes_reasoning: Annotated[
        bool | None, Query(description="Whether output counts of spans hold reasoning.")
    ] = None,
) -> Flags:
    """Read what counts of spans mean where the spans do not say.

    Args:
        input_includes_cache: As in ``Flags``.
        output_includes_reasoning: As in ``Flags``.

    Returns:
        The same.
    """
    return Flags(
        input_includes_cache=input_includes_cache,
        output_includes_reasoning=output_includes_reasoning,
    )


FlagsQuery = Annotated[Flags, Depends(read_flags)]
_REQUEST_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            name: {"schema": {"type": kind}}
            for name, kind in (
                (STRUCTURED, "object"),
                (BATCHED, "array"),
                (JSON, "object"),
            )
        },
    }
}


@router.post(
    "",
    response_model=IngestOut,
    responses={207: {"model": IngestOut, "description": "Some events are not booked."}},
    openapi_extra=_REQUEST_BODY,
)
async def ingest(parts: Parts, request: Request, flags: FlagsQuery) -> Response:
    """Book usage that did not pass the gateway: a CloudEvent, or a batch of them.

    OTLP spans are taken here too, and answered as at ``/ingest/v1/traces``.
    """
    return await _ingest(parts, request, flags)


@router.post(
    "/v1/traces",
    response_model=None,
    responses={200: {"content": {JSON: {"schema": {"type": "object"}}, PROTOBUF: {}}}},
    openapi_extra=_REQUEST_BODY,
)
async def ingest_traces(parts: Parts, request: Request, flags: FlagsQuery) -> Response:
    """Book OTLP spans, at the address that exporters of OpenTelemetry make of their endpoint.

    As JSON or as ``application/x-protobuf``. Answered as OTLP says: spans that are not booked are
    told as a partial success.
    """
    if request.headers.get("content-type", "").startswith("application/cloudevents"):
        raise RequestRefused(415, "unsupported_media_type", "send CloudEvents to /api/v1/ingest")
    return await _ingest(parts, request, flags)


async def _ingest(parts: ControlParts, request: Request, flags: Flags) -> Response:
    body = _unpack(await request.body(), request.headers.get("content-encoding", "identity"))
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    caller = caller_of(request)
    try:
        read = await asyncio.to_thread(_read, media, dict(request.headers.items()), body, flags)
    except EventRefused as refused:
        raise RequestRefused(400, refused.code, str(refused)) from refused
    if len(read.told) > EVENTS_MAX:
        detail = f"{len(read.told)} events in one request; at most {EVENTS_MAX} fit"
        raise RequestRefused(413, "too_many_events", detail)
    intake = await asyncio.to_thread(_book, parts, read.told, caller)
    if intake.records:
        try:
            await parts.on_outside_usage(intake.records)
        except StoreUnavailable as down:
            # It is booked; whoever follows the ledger counts it within a second of its return.
            log.warning("outside usage is booked, but budgets do not know it yet: %s", down)
    headers = {}
    if read.told and intake.replayed == len(read.told):
        headers["idempotency-replayed"] = "true"
    if read.is_otlp:
        return _answer_spans(intake, media, headers)
    if read.is_single and intake.problems:
        problem = intake.problems[0]
        raise RequestRefused(_STATUS.get(problem.code, 422), problem.code, problem.detail)
    shown = IngestOut(
        recorded=sum(_is(one, "recorded") for one in intake.outcomes),
        metered=sum(_is(one, "metered") for one in intake.outcomes),
        failed=len(intake.problems),
        ignored=read.ignored,
        budgets_exceeded=_exceeded(parts, intake.records),
        events=[_to_out(one) for one in intake.outcomes],
    )
    return JSONResponse(
        shown.model_dump(), status_code=207 if shown.failed else 200, headers=headers
    )


def _read(media: str, headers: dict[str, str], body: bytes, flags: Flags) -> _Read:
    is_binary_event = "ce-specversion" in headers
    if media == BATCHED:
        return _Read(read_batch(body))
    if media == STRUCTURED:
        return _Read([read_structured(body)], is_single=True)
    if is_binary_event and media == JSON:
        return _Read([read_binary(headers, body)], is_single=True)
    if media == PROTOBUF:
        spans = list(read_binary_spans(body, is_wanted))
    elif media == JSON:
        spans = list(read_json_spans(body, is_wanted))
    else:
        raise RequestRefused(
            415,
            "unsupported_media_type",
            f"send {STRUCTURED}, {BATCHED}, {JSON} with ce- headers, or OTLP traces as {JSON} or "
            f"{PROTOBUF}",
        )
    told, ignored = read_spans(spans, flags)
    return _Read(told, ignored, is_otlp=True)


def _unpack(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise RequestRefused(415, "unsupported_media_type", "content-encoding is gzip or nothing")
    unpacking = zlib.decompressobj(wbits=31)
    try:
        plain = unpacking.decompress(body, UNPACKED_BYTES_MAX)
    except zlib.error as broken:
        raise RequestRefused(400, "invalid_request", "the body is not gzip") from broken
    if unpacking.unconsumed_tail:
        detail = f"the body is larger than {UNPACKED_BYTES_MAX} bytes"
        raise RequestRefused(413, "request_too_large", detail)
    if not unpacking.eof or unpacking.unused_data:
        raise RequestRefused(400, "invalid_request", "the body is not one whole gzip file")
    return plain


def _book(parts: ControlParts, told: Sequence[Told], caller: Caller | None) -> Intake:
    # Calls that have passed the gateway are looked for in the ledger.
    parts.flush(FLUSH_S_MAX)
    bookings = Bookings(
        engine=parts.engine,
        directory=parts.directory,
        settings=parts.settings,
        find_book=lambda provider: _book_of(parts, provider),
        clock=parts.clock,
    )
    return bookings.book(told, caller)


def _book_of(parts: ControlParts, provider: str) -> Book:
    is_priced = provider in parts.book.version.manifest.providers
    return book_with(parts, provider) if is_priced else parts.book


def _answer_spans(intake: Intake, media: str, headers: dict[str, str]) -> Response:
    problems = intake.problems
    reasons = tell_reasons(problems)
    if media == PROTOBUF:
        answer = write_binary_answer(len(problems), reasons)
        return Response(answer, media_type=PROTOBUF, headers=headers)
    return JSONResponse(write_json_answer(len(problems), reasons), headers=headers)


def _is(outcome: Booked | Unreadable, status: str) -> bool:
    return isinstance(outcome, Booked) and outcome.status == status


def _to_out(outcome: Booked | Unreadable) -> IngestedOut:
    match outcome:
        case Unreadable(source=source, id=id_, code=code, detail=detail):
            return IngestedOut(source=source, id=id_, status="failed", code=code, detail=detail)
        case booked:
            return IngestedOut.model_validate(booked, from_attributes=True)


def _exceeded(parts: ControlParts, records: Sequence[LedgerRecord]) -> list[str]:
    subjects = {repr(one): one for one in map(_to_subject, records)}
    return sorted(
        status.budget.id
        for status in parts.budgets.status(parts.clock.now())
        if status.remaining < 0
        and any(is_in_scope(status.budget.scope, subject) for subject in subjects.values())
    )


def _to_subject(record: LedgerRecord) -> Subject:
    provider = record.provider or ""
    return Subject(
        organization=record.organization or "",
        team=record.team or "",
        project=record.project or "",
        key=record.key or "",
        provider=provider,
        model=(record.model_requested or "").removeprefix(f"{provider}/"),
        user=record.user,
        tags=record.tags,
    )
