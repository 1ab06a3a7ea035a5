"""``/api/v1/rerates``: price calls of the past again, as a preview or by appending corrections.

Must never change a record: ``gateway.rerate_runs`` appends, for the command line too.
"""

import asyncio
from datetime import datetime
from typing import Final, Literal, Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.admin.fields import InstantIn, InstantOut, PathId, PlainText
from gateway.admin.idempotency import ReplayRoute
from gateway.admin.parts import ACTOR, FLUSH_S_MAX, ControlParts, Parts
from gateway.admin.problems import RequestRefused
from gateway.clock import epoch_us
from gateway.ledger.filters import RecordFilter
from gateway.ledger.record import Outcome
from gateway.price_versions import GatewayVersions, check_version
from gateway.prices.store import PriceStore
from gateway.rerate_runs import EmptySpan, RerateRequest, Rerates
from gateway.rerating import Reason
from pricing.book import BookBroken
from pricing.shelf import NoSuchVersion

_WHY: Final = "asked for over the API"

router = APIRouter(prefix="/rerates", tags=["rerates"], route_class=ReplayRoute)


class RerateFilter(BaseModel):
    """Which calls; everything given must match. As for ``GET /ledger``."""

    model_config = ConfigDict(extra="forbid")

    organization: PlainText | None = None
    team: PlainText | None = None
    project: PlainText | None = None
    key: PlainText | None = None
    user: PlainText | None = None
    provider: PlainText | None = None
    model: PlainText | None = None
    api: PlainText | None = None
    outcome: Outcome | None = None
    tags: dict[PlainText, PlainText] = {}


class RerateIn(BaseModel):
    """What to price again, with the prices of a version or of what was known at an instant."""

    model_config = ConfigDict(extra="forbid")

    from_: InstantIn = Field(alias="from")
    to: InstantIn = Field(description="The first instant after.")
    price_version: PlainText | None = Field(default=None, examples=["2026-11-23.1"])
    as_of: InstantIn | None = Field(
        default=None, description="Take the version that was known then, instead of naming one."
    )
    filter: RerateFilter = RerateFilter()
    dry_run: bool = Field(default=False, description="Tell what would change and change nothing.")
    why: PlainText = Field(default=_WHY, description="Stands in every correction.")

    @model_validator(mode="after")
    def _names_one_version(self) -> Self:
        if (self.price_version is None) == (self.as_of is None):
            raise ValueError("give price_version or as_of, one of them")
        return self


class CountsOut(BaseModel):
    """Before and after.

    Attributes:
        currency: Of the amounts.
        records: Calls looked at.
        changed: Those whose cost changes.
        newly_priced: Those of them that had no cost; ``before`` does not hold them, ``after`` does.
        cannot_rerate: Calls that stay as they are because they cannot be priced again.
        before: Known cost before.
        after: Known cost afterwards.
        difference: What the corrections come to.
        percent: The difference in percent of ``before``; null where that is nothing.
    """

    currency: str
    records: int
    changed: int
    newly_priced: int
    cannot_rerate: int
    before: str
    after: str
    difference: str
    percent: str | None


class TeamCountsOut(CountsOut):
    """Before and after of one team; null for calls of nobody known."""

    team: str | None


class CannotRerateOut(BaseModel):
    """Why calls stay as they are, how many, and some of them."""

    reason: Reason
    detail: str
    records: int
    examples: list[str]


class RerateOut(BaseModel):
    """A run, or a preview of one.

    Attributes:
        id: Of the run; null for a preview.
        status: ``started`` until it is done; it stays so when the gateway was stopped meanwhile.
            The same request then finishes it.
        dry_run: Whether nothing was changed.
        started_at: When it began; null for a preview. The next three likewise.
        done_at: When it was done.
        actor: Who asked.
        why: Why.
        from_: First instant of the calls.
        to: First instant after them.
        price_version: The version that decided.
        as_of: The instant that chose it; null when it was named.
        filter: Which calls.
        teams: By team; null while the run is not done, like the next two.
        totals: By currency.
        cannot_rerate: By reason.
        corrections: Records appended; null for a preview.
    """

    id: str | None
    status: Literal["preview", "started", "done"]
    dry_run: bool
    started_at: InstantOut | None = None
    done_at: InstantOut | None = None
    actor: str | None = None
    why: str | None = None
    from_: InstantOut = Field(alias="from")
    to: InstantOut
    price_version: str
    as_of: InstantOut | None
    filter: RerateFilter
    teams: list[TeamCountsOut] | None = None
    totals: list[CountsOut] | None = None
    cannot_rerate: list[CannotRerateOut] | None = None
    corrections: int | None = None


@router.post("", response_model_by_alias=True)
async def rerate(parts: Parts, body: RerateIn) -> RerateOut:
    """Price calls of a span of time again and append the differences as corrections.

    With ``dry_run`` nothing is appended. Asked twice, the second run finds nothing left to do.
    """
    shown = await asyncio.to_thread(_rerate, parts, body)
    if not body.dry_run:
        # Budgets know before the client does.
        await parts.on_change()
    return shown


@router.get("/{id}", response_model_by_alias=True)
def show_rerate(parts: Parts, run_id: PathId) -> RerateOut:
    """Show a run."""
    run = _open(parts)[1].find(run_id)
    if run is None:
        raise RequestRefused(404, "not_found", f"there is no re-rating run {run_id[:64]!r}")
    return RerateOut.model_validate(run.to_public())


def _open(parts: ControlParts) -> tuple[GatewayVersions, Rerates]:
    versions = GatewayVersions(parts.settings, PriceStore(parts.engine, parts.clock))
    return versions, Rerates(parts.engine, versions, parts.clock)


def _rerate(parts: ControlParts, body: RerateIn) -> RerateOut:
    versions, rerates = _open(parts)
    try:
        request = RerateRequest(
            version=_find_version(versions, body.price_version, body.as_of),
            as_of_us=None if body.as_of is None else epoch_us(body.as_of),
            wanted=RecordFilter(
                from_us=epoch_us(body.from_),
                to_us=epoch_us(body.to),
                **body.filter.model_dump(),
            ),
        )
        parts.flush(FLUSH_S_MAX)
        if body.dry_run:
            return RerateOut.model_validate(rerates.preview(request, _unwatched))
        done = rerates.run(request, ACTOR, body.why, _unwatched)
    except (NoSuchVersion, EmptySpan) as refused:
        raise RequestRefused(422, "invalid_request", str(refused)) from refused
    except BookBroken as broken:
        raise RequestRefused(422, "price_book_broken", str(broken)) from broken
    return RerateOut.model_validate(done.to_public())


def _find_version(versions: GatewayVersions, name: str | None, as_of: datetime | None) -> str:
    if name is not None:
        return check_version(versions, name)
    if as_of is None:
        raise NoSuchVersion("give price_version or as_of")
    return versions.known_at(as_of).version


def _unwatched(_count: int) -> None:
    """Nobody watches the progress of a request."""
