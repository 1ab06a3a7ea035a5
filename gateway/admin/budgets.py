"""``/api/v1/budgets``, with what each has spent.

Must never turn an amount into a float.
"""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from typing_extensions import TypedDict

from gateway.admin.fields import Id, InstantOut, PageQuery, PathId, PlainText
from gateway.admin.idempotency import ReplayRoute
from gateway.admin.parts import ACTOR, ControlParts, Parts
from gateway.budgets.rules import BudgetStatus, Mode, amount_to_text
from gateway.directory_model import BudgetEntry, ManagedBy

router = APIRouter(prefix="/budgets", tags=["budgets"], route_class=ReplayRoute)

Scope = Annotated[dict[PlainText, PlainText], Field(max_length=32, examples=[{"team": "search"}])]
ShortText = Annotated[PlainText, StringConstraints(max_length=64)]
Thresholds = Annotated[
    list[Annotated[int, Field(ge=1, le=1000)]], Field(max_length=32, examples=[[50, 80, 100]])
]


class BudgetIn(BaseModel):
    """A budget to make, as in the configuration file."""

    model_config = ConfigDict(extra="forbid")

    id: Id = Field(examples=["search-month"])
    scope: Scope = {}
    limit: ShortText = Field(examples=["500 USD", "2000000 tokens", "1000 requests"])
    window: ShortText = Field(examples=["month", "rolling:3600"])
    timezone: ShortText = Field(default="UTC", examples=["Europe/Berlin"])
    mode: Mode = Mode.HARD
    thresholds: Thresholds = []


class BudgetPatch(TypedDict, total=False):
    """What to change of a budget. With another scope, unit or window it counts anew."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    scope: Scope
    limit: ShortText
    window: ShortText
    timezone: ShortText
    mode: Mode
    thresholds: Thresholds


class StatusOut(BaseModel):
    """A budget's counters in the window that holds now, in its unit.

    Attributes:
        limit: Most that may be spent in the window.
        spent: Settled, and parked.
        reserved: Held by open calls.
        remaining: Limit minus spent minus reserved; negative when a soft budget is overrun.
        parked: The part of ``spent`` whose true amount is not known; counted at its ceiling.
        unit: What the amounts count.
        window_start: First instant of the window.
        window_end: First instant after it; null when it never ends.
    """

    limit: str
    spent: str
    reserved: str
    remaining: str
    parked: str
    unit: str
    window_start: InstantOut
    window_end: InstantOut | None

    @classmethod
    def from_status(cls, status: BudgetStatus) -> Self:
        """Show a budget's counters.

        Args:
            status: As the budget store tells it.

        Returns:
            What clients see of it.
        """
        unit = status.budget.unit
        return cls(
            limit=amount_to_text(status.budget.limit, unit),
            spent=amount_to_text(status.spent, unit),
            reserved=amount_to_text(status.held, unit),
            remaining=amount_to_text(status.remaining, unit),
            parked=amount_to_text(status.parked, unit),
            unit=unit.value,
            window_start=status.window.start,
            window_end=status.window.end,
        )


class BudgetOut(BaseModel):
    """A budget and its counters; ``status`` is null while they are being read back."""

    id: str
    scope: dict[str, str]
    limit: str
    window: str
    timezone: str
    mode: str
    thresholds: list[int]
    managed_by: ManagedBy
    created_at: InstantOut | None
    status: StatusOut | None

    @classmethod
    def from_entry(cls, entry: BudgetEntry, statuses: Mapping[str, BudgetStatus]) -> Self:
        """Show a budget.

        Args:
            entry: As written.
            statuses: Counters by budget id.

        Returns:
            What clients see of it.
        """
        status = statuses.get(entry.id)
        return cls(
            id=entry.id,
            scope=dict(entry.scope),
            limit=entry.limit,
            window=entry.window,
            timezone=entry.timezone,
            mode=entry.mode,
            thresholds=list(entry.thresholds),
            managed_by=entry.managed_by,
            created_at=entry.created_at,
            status=None if status is None else StatusOut.from_status(status),
        )


class BudgetPage(BaseModel):
    """One page of budgets, ordered by id."""

    items: list[BudgetOut]
    next_cursor: str | None


# Counters belong to the event loop, so every route here runs on it and asks the database in a
# thread.
@router.get("")
async def list_budgets(parts: Parts, paging: PageQuery) -> BudgetPage:
    """List budgets with what each has spent."""
    page = await asyncio.to_thread(parts.directory.budgets.page, paging.limit, paging.cursor)
    statuses = _statuses(parts)
    items = [BudgetOut.from_entry(entry, statuses) for entry in page.items]
    return BudgetPage(items=items, next_cursor=page.next_cursor)


@router.post("", status_code=201)
async def create_budget(parts: Parts, body: BudgetIn) -> BudgetOut:
    """Make a budget; what was spent in its window before counts."""
    entry = BudgetEntry(
        id=body.id,
        scope=body.scope,
        limit=body.limit,
        window=body.window,
        timezone=body.timezone,
        mode=body.mode.value,
        thresholds=tuple(body.thresholds),
    )
    made = await asyncio.to_thread(parts.directory.budgets.create, entry, actor=ACTOR)
    await parts.on_change()
    return BudgetOut.from_entry(made, _statuses(parts))


@router.get("/{id}")
async def read_budget(parts: Parts, budget_id: PathId) -> BudgetOut:
    """Show a budget with what it has spent."""
    entry = await asyncio.to_thread(parts.directory.budgets.load, budget_id)
    return BudgetOut.from_entry(entry, _statuses(parts))


@router.patch("/{id}")
async def update_budget(parts: Parts, budget_id: PathId, body: BudgetPatch) -> BudgetOut:
    """Change a budget; what is not given stays as it is."""
    fields: dict[str, Any] = dict(body)
    if "thresholds" in body:
        fields["thresholds"] = tuple(body["thresholds"])
    if "mode" in body:
        fields["mode"] = body["mode"].value
    kept = await asyncio.to_thread(parts.directory.budgets.update, budget_id, fields, actor=ACTOR)
    await parts.on_change()
    return BudgetOut.from_entry(kept, _statuses(parts))


@router.delete("/{id}", status_code=204, response_class=Response)
async def delete_budget(parts: Parts, budget_id: PathId) -> None:
    """Delete a budget; what it limited is limited by it no longer."""
    await asyncio.to_thread(parts.directory.budgets.delete, budget_id, actor=ACTOR)
    await parts.on_change()


def _statuses(parts: ControlParts) -> dict[str, BudgetStatus]:
    return {status.budget.id: status for status in parts.budgets.status(parts.clock.now())}
