"""``/api/v1/budgets``, with what each has spent.

Must never turn an amount into a float.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints
from typing_extensions import TypedDict

from gateway.admin.fields import Id, InstantIn, InstantOut, PageQuery, PathId, PlainText
from gateway.admin.idempotency import ReplayRoute
from gateway.admin.parts import ACTOR, ControlParts, Parts
from gateway.budgets.forecast import burn_per_day, burn_per_window, forecast_exhaustion
from gateway.budgets.rules import BudgetStatus, Mode, OnStoreDown, amount_to_text
from gateway.directory_model import BudgetEntry, ManagedBy, TopUpEntry
from gateway.directory_top_ups import TopUpWish

router = APIRouter(prefix="/budgets", tags=["budgets"], route_class=ReplayRoute)

Scope = Annotated[dict[PlainText, PlainText], Field(max_length=32, examples=[{"team": "search"}])]
ShortText = Annotated[PlainText, StringConstraints(max_length=64)]
Anchor = Annotated[ShortText, Field(examples=["2026-01-31T09:00:00"])]
Rollover = Annotated[StrictBool | ShortText, Field(examples=[True, "100 USD"])]
Thresholds = Annotated[
    list[Annotated[int, Field(ge=1, le=1000)]], Field(max_length=32, examples=[[50, 80, 100]])
]
ActionTexts = Annotated[
    list[PlainText],
    Field(max_length=8, examples=[["warn", "fallback:openai/gpt-5-mini", "throttle:5"]]),
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
    actions: ActionTexts = []
    on_store_down: OnStoreDown | None = None
    anchor: Anchor | None = None
    rollover: Rollover = False
    valid_from: InstantIn | None = None
    valid_to: InstantIn | None = None


class BudgetPatch(TypedDict, total=False):
    """What to change of a budget.

    With another scope, unit, window or validity, or with rollover or without it, it counts anew.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    scope: Scope
    limit: ShortText
    window: ShortText
    timezone: ShortText
    mode: Mode
    thresholds: Thresholds
    actions: ActionTexts
    on_store_down: OnStoreDown | None
    anchor: Anchor | None
    rollover: Rollover
    valid_from: InstantIn | None
    valid_to: InstantIn | None


class StatusOut(BaseModel):
    """A budget's counters in the window that holds now, in its unit.

    Attributes:
        limit: Most that may be spent in the window, with what was topped up and rolled over.
        topped_up: The part of ``limit`` that was added to this window alone.
        rolled_over: The part of ``limit`` that the window before left.
        spent: Settled, and parked.
        reserved: Held by open calls.
        remaining: Limit minus spent minus reserved; negative when a soft budget is overrun.
        parked: The part of ``spent`` whose true amount is not known; counted at its ceiling.
        unit: What the amounts count.
        window_start: First instant of the window.
        window_end: First instant after it; null when it never ends.
        in_force: Whether calls count now: between ``valid_from`` and ``valid_to``.
        burn_per_day: What 24 hours come to at the rate of this window so far; null when nobody
            knows since when it has been counting, and for windows shorter than a day.
        burn_per_window: What the whole window comes to at that rate; null when it has no end.
        exhausted_at: When the limit will be reached at that rate; null when the window ends first.
    """

    limit: str
    topped_up: str
    rolled_over: str
    spent: str
    reserved: str
    remaining: str
    parked: str
    unit: str
    window_start: InstantOut
    window_end: InstantOut | None
    in_force: bool
    burn_per_day: str | None
    burn_per_window: str | None
    exhausted_at: InstantOut | None

    @classmethod
    def from_status(cls, status: BudgetStatus, at: datetime) -> Self:
        """Show a budget's counters.

        Args:
            status: As the budget store tells it.
            at: Now.

        Returns:
            What clients see of it.
        """
        unit = status.budget.unit
        burn = burn_per_day(status, at) if status.is_in_force else None
        whole = burn_per_window(status, at) if status.is_in_force else None
        return cls(
            limit=amount_to_text(status.limit, unit),
            topped_up=amount_to_text(status.topped_up, unit),
            rolled_over=amount_to_text(status.rolled_over, unit),
            spent=amount_to_text(status.spent, unit),
            reserved=amount_to_text(status.held, unit),
            remaining=amount_to_text(status.remaining, unit),
            parked=amount_to_text(status.parked, unit),
            unit=unit.value,
            window_start=status.window.start,
            window_end=status.window.end,
            in_force=status.is_in_force,
            burn_per_day=None if burn is None else amount_to_text(burn, unit),
            burn_per_window=None if whole is None else amount_to_text(whole, unit),
            exhausted_at=forecast_exhaustion(status, at) if status.is_in_force else None,
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
    actions: list[str]
    on_store_down: OnStoreDown | None
    anchor: str | None
    rollover: bool | str
    valid_from: InstantOut | None
    valid_to: InstantOut | None
    managed_by: ManagedBy
    created_at: InstantOut | None
    status: StatusOut | None

    @classmethod
    def from_entry(cls, entry: BudgetEntry, statuses: Mapping[str, StatusOut]) -> Self:
        """Show a budget.

        Args:
            entry: As written.
            statuses: What the counters say, by budget id.

        Returns:
            What clients see of it.
        """
        return cls(
            id=entry.id,
            scope=dict(entry.scope),
            limit=entry.limit,
            window=entry.window,
            timezone=entry.timezone,
            mode=entry.mode,
            thresholds=list(entry.thresholds),
            actions=list(entry.actions),
            on_store_down=entry.on_store_down,
            anchor=entry.anchor,
            rollover=entry.rollover,
            valid_from=entry.valid_from,
            valid_to=entry.valid_to,
            managed_by=entry.managed_by,
            created_at=entry.created_at,
            status=statuses.get(entry.id),
        )


class TopUpIn(BaseModel):
    """An amount to add to one window of a budget."""

    model_config = ConfigDict(extra="forbid")

    amount: ShortText = Field(examples=["100 USD"])
    reason: PlainText = Field(examples=["launch week, asked for by Ada"])
    at: InstantIn | None = Field(
        default=None, description="An instant of the window; the one that holds now unless given."
    )


class TopUpOut(BaseModel):
    """An amount that was added to one window of a budget."""

    id: str
    budget: str
    amount: str
    reason: str
    actor: str
    created_at: InstantOut
    window_start: InstantOut
    window_end: InstantOut | None

    @classmethod
    def from_entry(cls, entry: TopUpEntry) -> Self:
        """Show what was added.

        Args:
            entry: As kept.

        Returns:
            What clients see of it.
        """
        return cls(**asdict(entry))


class TopUpPageOut(BaseModel):
    """One page of what was added to a budget, the oldest first."""

    items: list[TopUpOut]
    next_cursor: str | None


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
        actions=tuple(body.actions),
        on_store_down=body.on_store_down,
        anchor=body.anchor,
        rollover=body.rollover,
        valid_from=body.valid_from,
        valid_to=body.valid_to,
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
    if "actions" in body:
        fields["actions"] = tuple(body["actions"])
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


@router.post("/{id}/topups", status_code=201)
async def top_up_budget(parts: Parts, budget_id: PathId, body: TopUpIn) -> TopUpOut:
    """Add an amount to one window of a budget, also of one from the configuration file.

    It is never changed or taken back; a mistake is mended by the budget's limit.
    """
    wish = TopUpWish(budget=budget_id, amount=body.amount, reason=body.reason, at=body.at)
    entry = await asyncio.to_thread(parts.directory.top_ups.add, wish, actor=ACTOR)
    await parts.on_change()
    return TopUpOut.from_entry(entry)


@router.get("/{id}/topups")
async def list_top_ups(parts: Parts, budget_id: PathId, paging: PageQuery) -> TopUpPageOut:
    """List what was added to windows of a budget, by whom and why."""
    page = await asyncio.to_thread(
        parts.directory.top_ups.page, budget_id, paging.limit, paging.cursor
    )
    items = [TopUpOut.from_entry(entry) for entry in page.items]
    return TopUpPageOut(items=items, next_cursor=page.next_cursor)


def _statuses(parts: ControlParts) -> dict[str, StatusOut]:
    at = parts.clock.now()
    return {one.budget.id: StatusOut.from_status(one, at) for one in parts.budgets.status(at)}
