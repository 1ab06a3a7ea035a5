"""``GET /api/v1/ledger``: the records, a page at a time or all of them as a stream.

Must never hold more than a batch of records in memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.responses import JSONResponse

from gateway.admin.fields import InstantOut, InstantQuery, PageQuery, PlainText
from gateway.admin.parts import FLUSH_S_MAX, Parts
from gateway.admin.problems import RequestRefused
from gateway.clock import epoch_us
from gateway.ledger.filters import RecordFilter
from gateway.ledger.queries import Queries
from gateway.ledger.record import CostStatus, LedgerRecord, Outcome, to_public

NDJSON: Final = "application/x-ndjson"
_CHUNK_RECORDS: Final = 500

router = APIRouter(prefix="/ledger", tags=["ledger"])


class LineOut(BaseModel):
    """One rated line: ``cost`` is ``quantity * unit_price / per``, rounded once."""

    sku: str
    price_id: str
    meter: str
    quantity: str
    unit_price: str
    per: str
    list_cost: str
    cost: str


class RecordOut(BaseModel):
    """One request. What is unknown is null, never zero."""

    id: str
    started_at: InstantOut
    ended_at: InstantOut
    outcome: Outcome
    http_status: int | None
    stream: bool
    api: str
    provider: str | None
    model_requested: str | None
    model: str | None
    provider_request_id: str | None
    organization: str | None
    team: str | None
    project: str | None
    key: str | None
    user: str | None
    tags: dict[str, str]
    usage: dict[str, int | str]
    input_total: int | None
    output_total: int | None
    basis: str
    user_input_tokens: int | None
    input_parts: dict[str, int] | None
    currency: str
    cost: str | None
    list_cost: str | None
    provider_cost: str | None
    price_version: str | None
    cost_status: CostStatus
    lines: list[LineOut]
    corrects: str | None
    flags: list[str]


class RecordPage(BaseModel):
    """One page of records, newest first."""

    items: list[RecordOut]
    next_cursor: str | None


class _Asked(BaseModel):
    """The filters ``/ledger`` and ``/usage`` share."""

    organization: PlainText | None = None
    team: PlainText | None = None
    project: PlainText | None = None
    key: PlainText | None = None
    user: PlainText | None = None
    provider: PlainText | None = None
    model: PlainText | None = None
    api: PlainText | None = None
    outcome: Outcome | None = None


def wanted_records(
    asked: Annotated[_Asked, Depends()],
    from_: Annotated[InstantQuery, Query(alias="from")] = None,
    to: InstantQuery = None,
) -> RecordFilter:
    """Read which records a request is about.

    Args:
        asked: Values records must have.
        from_: First instant a record may have started at.
        to: First instant after them.

    Returns:
        The filter.

    Raises:
        RequestRefused: The span of time is empty.
    """
    if from_ is not None and to is not None and from_ >= to:
        raise RequestRefused(422, "invalid_request", "query.from must be before query.to")
    return RecordFilter(
        from_us=None if from_ is None else epoch_us(from_),
        to_us=None if to is None else epoch_us(to),
        **asked.model_dump(),
    )


Wanted = Annotated[RecordFilter, Depends(wanted_records)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A read of the ledger.

    Attributes:
        queries: The ledger, caught up with what callers wrote before.
        headers: For the answer.
        is_stream: Whether the client wants every record as NDJSON.
    """

    queries: Queries
    headers: Mapping[str, str]
    is_stream: bool


def open_reading(parts: Parts, request: Request, response: Response) -> Reading:
    """Wait until callers can read what they wrote.

    Args:
        parts: The control plane's.
        request: For ``Accept``.
        response: Told when the ledger could not catch up in time.

    Returns:
        What to read with.
    """
    headers = {} if parts.flush(FLUSH_S_MAX) else {"x-taximeter-ledger": "behind"}
    response.headers.update(headers)
    return Reading(
        queries=parts.queries,
        headers=headers,
        is_stream=NDJSON in request.headers.get("accept", ""),
    )


CaughtUp = Annotated[Reading, Depends(open_reading)]


@router.get(
    "",
    response_model=RecordPage,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
)
def read_ledger(reading: CaughtUp, wanted: Wanted, paging: PageQuery) -> Response:
    """Read records: a page, newest first, or with ``Accept: application/x-ndjson`` all of them.

    The stream has one record a line, oldest first.
    """
    if reading.is_stream:
        found = reading.queries.stream_records(wanted)
        # The first batch is read before the status goes out: a database that is away is a 503,
        # not a success that breaks off.
        first = list(islice(found, _CHUNK_RECORDS))
        return StreamingResponse(_lines(first, found), media_type=NDJSON, headers=reading.headers)
    records, next_cursor = reading.queries.page_records(wanted, paging.limit, paging.cursor)
    page: dict[str, Any] = {
        "items": [to_public(record) for record in records],
        "next_cursor": next_cursor,
    }
    return JSONResponse(page, headers=reading.headers)


def _lines(batch: list[LedgerRecord], rest: Iterator[LedgerRecord]) -> Iterator[bytes]:
    encoder = msgspec.json.Encoder()
    while batch:
        yield encoder.encode_lines([to_public(record) for record in batch])
        batch = list(islice(rest, _CHUNK_RECORDS))
