"""``GET /api/v1/commitments`` and ``/api/v1/shared-costs``: fixed costs of a month.

Must never show an amount as a float.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from gateway.admin.fields import InstantOut
from gateway.admin.ledger import CaughtUp
from gateway.admin.parts import ControlParts, Parts
from gateway.admin.problems import RequestRefused
from gateway.fixed_costs import (
    commitments_to_public,
    list_payers,
    month_of,
    report_commitments,
    report_shared,
    shared_to_public,
)
from pricing.months import Month, parse_month

router = APIRouter(tags=["commitments"])

MonthQuery = Annotated[
    str | None,
    Query(
        pattern="^[0-9]{4}-(0[1-9]|1[0-2])$",
        examples=["2026-11"],
        description="A calendar month of each one's own zone; the current one unless given.",
    ),
]


class DayOut(BaseModel):
    """One day of a commitment: what was drawn, and what was left at its end."""

    day: str
    used: str
    on_demand_cost: str
    amortized_fee: str
    left: str | None


class AccountOut(BaseModel):
    """What became of one commitment in one period.

    Attributes:
        id: The commitment's.
        kind: What was bought.
        unit: Of the next five: ``tokens``, ``USD`` or the unit of a meter.
        period_start: Start of the period.
        period_end: First instant after it.
        as_of: Everything until here is counted.
        committed: What was bought; for throughput in the hours that have begun.
        used: What was drawn of it.
        unused: What is left of it, or was lost.
        overflow: What was used beyond it, and is billed on demand.
        used_percent: Percent of it drawn; null before anything was committed.
        currency: Of every amount.
        fee: Price of the period; for throughput of the hours that have begun.
        fee_per_hour: The same by the hour.
        fee_per_day: The same by 24 hours.
        amortized_fee: The part of the fee that is worn until ``as_of``, by time or by use,
            whichever is further.
        on_demand_cost: What the use drawn would have cost on demand.
        saving: On-demand cost without the amortised fee; negative for a loss.
        overflow_cost: What the overflow cost on demand.
        unpriced_quantity: Use drawn that has no price on demand and is in no cost.
        effective_price: Amortised fee of ``effective_per`` units drawn; null when none were.
        effective_per: How many units that is for.
        exhausted_at: Start of the hour, or quarter of one, that took the last of it.
        projected_at: When it will be used up at the pace of the last seven days.
        lasts: Whether it lasts until its period ends, at that pace.
        days: Every day so far.
    """

    id: str
    kind: Literal["quantity", "money", "throughput"]
    unit: str
    period_start: InstantOut
    period_end: InstantOut
    as_of: InstantOut
    committed: str
    used: str
    unused: str
    overflow: str
    used_percent: str | None
    currency: str
    fee: str
    fee_per_hour: str
    fee_per_day: str
    amortized_fee: str
    on_demand_cost: str
    saving: str
    overflow_cost: str
    unpriced_quantity: str
    effective_price: str | None
    effective_per: str | None
    exhausted_at: InstantOut | None
    projected_at: InstantOut | None
    lasts: bool
    days: list[DayOut]


class CommitmentsOut(BaseModel):
    """The commitments of a month, and their sums.

    Attributes:
        month: Which month.
        at: When the report was made.
        unknown_usage_requests: Calls that could be covered whose use nobody knows.
        amortized_fee: Sum of the accounts'. The next three likewise.
        on_demand_cost: What the use drawn would have cost on demand.
        overflow_cost: What the overflow cost on demand.
        saving: What all of them saved.
        items: One account per commitment and period.
    """

    month: str
    at: InstantOut
    unknown_usage_requests: int
    amortized_fee: str
    on_demand_cost: str
    overflow_cost: str
    saving: str
    items: list[AccountOut]


class ShareOut(BaseModel):
    """What one team or project bears; the id is null for use that belongs to none."""

    id: str | None
    used: str
    percent: str | None
    amount: str


class SplitOut(BaseModel):
    """One shared cost: the shares and what is unallocated sum to the amount.

    Attributes:
        id: The shared cost's.
        amount: Of the month.
        currency: Of every amount.
        split_by: What decides the shares.
        among: Who bears it.
        is_final: Whether the month is over.
        unallocated: What nobody bears because nobody used anything.
        unknown_requests: Calls whose use nobody knows; they are in no share.
        shares: The largest first.
    """

    id: str
    amount: str
    currency: str
    split_by: Literal["tokens", "cost"]
    among: Literal["team", "project"]
    is_final: bool
    unallocated: str
    unknown_requests: int
    shares: list[ShareOut]


class SharedCostsOut(BaseModel):
    """The shared costs of a month."""

    month: str
    items: list[SplitOut]


@router.get("/commitments", response_model=CommitmentsOut)
def read_commitments(parts: Parts, reading: CaughtUp, month: MonthQuery = None) -> dict[str, Any]:
    """Account for the commitments of a month: used, unused, overflow, worth and burn-down."""
    now = parts.clock.now()
    wanted = _month(parts, month)
    return commitments_to_public(
        report_commitments(parts.settings, parts.book, reading.queries, (wanted, now))
    )


@router.get("/shared-costs", response_model=SharedCostsOut)
def read_shared_costs(parts: Parts, reading: CaughtUp, month: MonthQuery = None) -> dict[str, Any]:
    """Split the shared costs of a month between teams or projects by what they used."""
    wanted = _month(parts, month)
    payers, now = list_payers(parts.directory), parts.clock.now()
    found = report_shared(parts.settings, reading.queries, payers, wanted, now)
    return shared_to_public(found, wanted)


def _month(parts: ControlParts, text: str | None) -> Month:
    if text is None:
        return month_of(parts.clock.now())
    try:
        return parse_month(text)
    except ValueError as broken:
        raise RequestRefused(422, "invalid_request", f"query.month: {broken}") from None
