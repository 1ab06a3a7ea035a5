"""``/api/v1/alerts``: what budgets had to tell, and who was told.

Must never show the address of a receiver.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from gateway.admin.fields import InstantOut, PageQuery, PlainText
from gateway.admin.parts import Parts
from gateway.alerts.log import AlertLog
from gateway.budgets.alerting import AlertKind

router = APIRouter(prefix="/alerts", tags=["budgets"])


class AlertDeliveryOut(BaseModel):
    """How far telling one receiver is.

    Attributes:
        receiver: Its id.
        status: What became of it.
        attempts: How often it was tried.
        last_error: Why the last attempt failed; null when it did not.
        next_attempt_at: When it is tried again; null when it is done.
        done_at: When it arrived or was given up.
    """

    receiver: str
    status: Literal["waiting", "delivered", "failed"]
    attempts: int
    last_error: str | None
    next_attempt_at: InstantOut | None
    done_at: InstantOut | None


class AlertOut(BaseModel):
    """Something a budget had to tell, with its counters as they were then.

    Attributes:
        id: Of the alert; receivers know a repeat by it.
        kind: What it is about.
        organization: Whose budget it is.
        budget: Id of the budget.
        scope: Its scope.
        mode: What it does at its limit.
        unit: What the amounts count.
        limit: Most that could be spent in the window.
        spent: Settled, and parked.
        reserved: Held by open calls.
        percent: How much of the limit was spent, rounded down; null where the limit was nothing.
        threshold: The percentage that was reached; null for other kinds.
        passed: Lower thresholds that were passed in the same step.
        window: The kind of window.
        window_start: First instant of it.
        window_end: First instant after it; null when it never ends.
        forecast: When the budget would be used up; null when that was not foreseen.
        raised_at: When.
        is_silent: Whether nobody was told, because a higher threshold spoke for it.
        deliveries: Who was told, by receiver.
    """

    id: str
    kind: AlertKind
    organization: str
    budget: str
    scope: dict[str, str]
    mode: str
    unit: str
    limit: str
    spent: str
    reserved: str
    percent: int | None
    threshold: int | None
    passed: list[int]
    window: str
    window_start: InstantOut
    window_end: InstantOut | None
    forecast: InstantOut | None
    raised_at: InstantOut
    is_silent: bool
    deliveries: list[AlertDeliveryOut]


class AlertPage(BaseModel):
    """One page of alerts, newest first."""

    items: list[AlertOut]
    next_cursor: str | None


@router.get("")
def list_alerts(
    parts: Parts,
    paging: PageQuery,
    budget: Annotated[PlainText | None, Query(description="Alerts of this budget only.")] = None,
) -> AlertPage:
    """List alerts, newest first, with how far telling each receiver is."""
    alerts, next_cursor = AlertLog(parts.engine).page(paging.limit, paging.cursor, budget)
    items = [AlertOut.model_validate(alert.to_public()) for alert in alerts]
    return AlertPage(items=items, next_cursor=next_cursor)
