"""``GET /api/v1/usage``: sums of requests, tokens and cost by group and period.

Must never let an unknown amount pass as zero: what is not known is counted beside the sums.
"""

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from gateway.admin.fields import PlainText
from gateway.admin.ledger import CaughtUp, Wanted
from gateway.ledger.filters import QueryRefused
from gateway.ledger.usage import Granularity, UsageQuery, usage_to_public

GROUPS_MAX: Final = 8
ROWS_MAX: Final = 10_000

router = APIRouter(prefix="/usage", tags=["usage"])


class UsageRowOut(BaseModel):
    """The sums of one group in one period.

    Beside the fields below it has one for each name of ``group_by``: its value, or null where the
    records have none.

    Attributes:
        period_start: Start of the period; absent without periods.
        requests: Requests, refused ones included.
        input_tokens: Known input tokens; by meter, those of this meter. Null where those of no
            request are known, as are the next and the costs.
        output_tokens: Known output tokens, likewise.
        currency: Of the sums.
        cost: Known cost.
        list_cost: Known cost at published prices.
        unknown_cost_requests: Requests whose cost is not known and not in the sums.
        unknown_usage_requests: Requests whose tokens are not known and not in the sums.
        quantity: What the meter counted; absent unless grouped by meter.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | None] = Field(init=False)

    period_start: str | None = Field(default=None, json_schema_extra={"format": "date-time"})
    requests: int
    input_tokens: int | None
    output_tokens: int | None
    currency: str
    cost: str | None
    list_cost: str | None
    unknown_cost_requests: int
    unknown_usage_requests: int
    quantity: str | None = None


class UsagePage(BaseModel):
    """One page of sums, ordered by period and then by group."""

    items: list[UsageRowOut]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How sums are cut into rows and pages.

    Attributes:
        group_by: Names to group by.
        granularity: Length of a period.
        first: Position of the first row of the page.
        limit: Most rows on the page.
    """

    group_by: tuple[str, ...]
    granularity: Granularity
    first: int
    limit: int


def read_cut(
    group_by: Annotated[
        PlainText | None, Query(examples=["team,model"], description="Names, split by commas.")
    ] = None,
    granularity: Granularity = "none",
    limit: Annotated[int, Query(ge=1, le=ROWS_MAX)] = 1000,
    cursor: Annotated[str | None, Query(pattern="^[0-9]{1,9}$")] = None,
) -> Cut:
    """Read how sums are to be cut.

    Args:
        group_by: Names, split by commas.
        granularity: Length of a period.
        limit: Most rows on the page.
        cursor: ``next_cursor`` of the page before.

    Returns:
        The cut.

    Raises:
        QueryRefused: Too many names.
    """
    names = tuple(name.strip() for name in (group_by or "").split(",") if name.strip())
    if len(names) > GROUPS_MAX:
        raise QueryRefused(f"group_by names {len(names)} groups; at most {GROUPS_MAX} fit")
    return Cut(group_by=names, granularity=granularity, first=int(cursor or 0), limit=limit)


@router.get("", response_model=UsagePage, response_model_exclude_unset=True)
def read_usage(
    reading: CaughtUp, wanted: Wanted, cut: Annotated[Cut, Depends(read_cut)]
) -> dict[str, object]:
    """Add usage up by group and period.

    Groups are ``organization``, ``team``, ``project``, ``key``, ``user``, ``provider``, ``model``,
    ``api``, ``outcome``, ``meter`` and ``tag.<name>``.
    """
    query = UsageQuery(wanted=wanted, group_by=cut.group_by, granularity=cut.granularity)
    rows = reading.queries.usage(query)
    # Sums cannot be cut in the database before they are complete, so a page is cut afterwards.
    end = cut.first + cut.limit
    return {
        "items": [usage_to_public(row) for row in rows[cut.first : end]],
        "next_cursor": str(end) if end < len(rows) else None,
    }
