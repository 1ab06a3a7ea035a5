"""``GET /api/v1/exports/focus``: the charges of a month, for whoever reads FOCUS.

Must never hold more than a batch of records in memory.
"""

import io
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from gateway.admin.ledger import CaughtUp
from gateway.admin.problems import RequestRefused
from gateway.clock import epoch_us
from gateway.ledger.csv_file import write_csv
from gateway.ledger.focus import FocusVersion, focus_columns, to_focus, to_focus_cells
from pricing.months import parse_month

CSV: Final = "text/csv"
_UTC: Final = ZoneInfo("UTC")
_CHUNK_ROWS: Final = 500

router = APIRouter(prefix="/exports", tags=["exports"])


@router.get(
    "/focus",
    response_class=StreamingResponse,
    responses={200: {"content": {CSV: {"schema": {"type": "string"}}}}},
)
def export_focus(
    reading: CaughtUp,
    month: Annotated[str, Query(pattern="^[0-9]{4}-[0-9]{2}$", examples=["2026-11"])],
    version: FocusVersion = "1.2",
    format_: Annotated[Literal["csv", "parquet"], Query(alias="format")] = "csv",
) -> StreamingResponse:
    """Write the charges of a month as FOCUS, a row for each rated line.

    Calls whose cost is unknown have no charge. Parquet is written by ``taximeter export focus``.
    """
    if format_ == "parquet":
        detail = "parquet is written by the command: taximeter export focus --format parquet"
        raise RequestRefused(422, "invalid_request", detail)
    try:
        span = parse_month(month).span(_UTC)
    except ValueError as wrong:
        raise RequestRefused(422, "invalid_request", f"query.month: {wrong}") from wrong
    period = (epoch_us(span.start), epoch_us(span.end))
    rows = to_focus(reading.queries.stream_charged(*period), version, period)
    # The first rows are read before the status goes out: a database that is away is a 503.
    first = list(islice(rows, _CHUNK_ROWS))
    headers = {
        **reading.headers,
        "content-disposition": f'attachment; filename="focus-{version}-{month}.csv"',
    }
    chunks = _chunks(first, rows, list(focus_columns(version)))
    return StreamingResponse(chunks, media_type=CSV, headers=headers)


def _chunks(
    batch: list[dict[str, Any]], rest: Iterator[dict[str, Any]], columns: list[str]
) -> Iterator[bytes]:
    header = io.BytesIO()
    write_csv(columns, (), header)
    yield header.getvalue()
    while batch:
        out = io.BytesIO()
        write_csv((), map(to_focus_cells, batch), out)
        yield out.getvalue().removeprefix(b"\r\n")
        batch = list(islice(rest, _CHUNK_ROWS))
