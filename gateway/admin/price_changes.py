"""``POST /api/v1/prices`` and the list of versions.

Must never change a version: each change makes another one, with who, when and why.
"""

import asyncio
from dataclasses import fields
from functools import partial
from typing import Annotated, Any, Final, Literal, Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.admin.fields import Id, InstantIn, InstantOut, PlainText
from gateway.admin.idempotency import ReplayRoute
from gateway.admin.models import catalog_providers
from gateway.admin.parts import ACTOR, ControlParts, Parts
from gateway.admin.problems import FieldProblem, RequestRefused
from gateway.prices.asked import PriceRefused, Signature
from gateway.prices.desk import PriceDesk
from gateway.prices.edits import NewModel, OverrideWish, RateWish, Wishes, to_edit
from gateway.prices.rows import StoredVersion
from gateway.prices.terms import Standings, stand
from pricing.meters import Meter
from pricing.sku import STANDARD_TIER

router = APIRouter(prefix="/prices", tags=["prices"], route_class=ReplayRoute)

CHANGES_MAX: Final = 1_000
_STATUS: Final = {"invalid": 422, "conflict": 409, "unknown": 404}

_Name = PlainText | None
_Amount = Annotated[PlainText, StringConstraints(max_length=64)]
_Count = Annotated[int, Field(ge=0, le=10**18)]
_Currency = Annotated[str, StringConstraints(pattern="^[A-Z]{3}$")]


class NewModelIn(BaseModel):
    """What a model needs that the price book does not know yet."""

    model_config = ConfigDict(extra="forbid")

    aliases: list[PlainText] = Field(default=[], max_length=100)
    context_tokens_max: _Count | None = None
    output_tokens_max: _Count | None = None


class RateIn(BaseModel):
    """A dated price. An earlier one of the same price id ends where this one starts."""

    model_config = ConfigDict(extra="forbid")

    provider: PlainText = Field(examples=["openai"])
    model: PlainText = Field(examples=["gpt-5"])
    meter: Meter = Field(examples=["input"])
    amount: _Amount = Field(examples=["1.10"], description="Decimal text, in `currency`.")
    per: Annotated[int, Field(ge=1, le=10**12)] = Field(examples=[1_000_000])
    tier: PlainText = STANDARD_TIER
    over: _Count | None = None
    region: _Name = None
    variant: _Name = None
    hours: _Name = Field(default=None, examples=["Mon-Fri 16:30-00:30 UTC"])
    currency: _Currency = "USD"
    valid_from: InstantIn | None = Field(
        default=None, description="First instant it holds; that of the version where left out."
    )
    valid_to: InstantIn | None = None
    source: _Name = Field(default=None, description="Page or contract; `why` where left out.")
    new_model: NewModelIn | None = Field(
        default=None, description="Give this, `{}` at least, to add a model that is not known."
    )


class OverrideIn(BaseModel):
    """A negotiated rate: a percentage of the published price, or an amount instead of it."""

    model_config = ConfigDict(extra="forbid")

    id: Id = Field(examples=["search-2027"])
    organization: _Name = None
    team: _Name = Field(default=None, examples=["search"])
    project: _Name = None
    provider: _Name = Field(default=None, examples=["openai"])
    model: _Name = None
    meter: Meter | None = None
    tier: _Name = None
    over: _Count | None = None
    region: _Name = None
    variant: _Name = None
    percent: _Amount | None = Field(default=None, examples=["-15"])
    amount: _Amount | None = None
    per: Annotated[int, Field(ge=1, le=10**12)] | None = None
    currency: _Currency = "USD"
    valid_from: InstantIn | None = None
    valid_to: InstantIn | None = None


class OverrideEndIn(BaseModel):
    """A negotiated rate that ends."""

    model_config = ConfigDict(extra="forbid")

    id: Id
    valid_to: InstantIn


class PricesIn(BaseModel):
    """A change of prices: at least one rate, override or end of one, all or nothing."""

    model_config = ConfigDict(extra="forbid")

    why: PlainText = Field(examples=["contract 7, signed 2026-11-20"])
    effective_from: InstantIn | None = Field(
        default=None, description="First instant calls are priced with it; at once where left out."
    )
    rates: list[RateIn] = Field(default=[], max_length=CHANGES_MAX)
    overrides: list[OverrideIn] = Field(default=[], max_length=CHANGES_MAX)
    end_overrides: list[OverrideEndIn] = Field(default=[], max_length=CHANGES_MAX)


class VersionOut(BaseModel):
    """A version of the price book.

    Attributes:
        version: Its name, as in the ledger.
        status: Where it stands.
        origin: Shipped with the program, made by a change, or imported.
        base: The version it was made from.
        digest: Names its content.
        proposed_at: When it was written down.
        recorded_at: Since when its prices count as known: that, or its approval.
        effective_from: First instant calls are priced with it; null while nobody decided.
        recorded_by: Who made it.
        why: Why.
        decided_by: Who approved or rejected it.
        decided_why: Why.
        became: The version its prices came into force as, where that is another one.
        carries: The version whose change it carries into one that takes effect later.
        in_force_from: First instant it is in force; null where it never is.
        in_force_to: First instant it no longer is; null while no end is known.
        is_current: Whether calls are priced with it now.
    """

    version: str
    status: Literal["candidate", "approved", "rejected"]
    origin: Literal["shipped", "operator", "import"]
    base: str | None
    digest: str
    proposed_at: InstantOut
    recorded_at: InstantOut
    effective_from: InstantOut | None
    recorded_by: str
    why: str
    decided_by: str | None
    decided_why: str | None
    became: str | None
    carries: str | None
    in_force_from: InstantOut | None
    in_force_to: InstantOut | None
    is_current: bool

    @classmethod
    def from_stored(cls, stored: StoredVersion, standings: Standings) -> Self:
        """Show a version.

        Args:
            stored: As it stands.
            standings: How all versions stand now.

        Returns:
            What clients see of it.
        """
        names = {field.name for field in fields(stored)} & set(cls.model_fields)
        shown = {name: getattr(stored, name) for name in names}
        standing = standings.of(stored)
        return cls(
            digest=stored.digest,
            in_force_from=standing.since,
            in_force_to=standing.until,
            is_current=stored.version == standings.current,
            **shown,
        )


class ChangeOut(VersionOut):
    """The version a change made, and those made for versions that take effect later."""

    later: list[VersionOut]


class VersionsOut(BaseModel):
    """Every version, the newest first."""

    items: list[VersionOut]


@router.post("", status_code=201)
async def change_prices(parts: Parts, body: PricesIn) -> ChangeOut:
    """Set dated prices and negotiated rates.

    Nothing is edited: the change makes a new version from the one in force, in which an earlier
    price of the same id ends where the new one starts. Calls under way keep the version they were
    admitted under.
    """
    signed = Signature(who=ACTOR, why=body.why)
    wishes = _to_wishes(parts, body)
    own = {one.provider for one in parts.settings.self_hosted}
    desk = PriceDesk(parts.versions, own)
    try:
        start = body.effective_from or parts.clock.now()
        edit = to_edit(wishes, signed, start)
        post = partial(desk.post, edit, signed, body.effective_from)
        made = await asyncio.to_thread(post)
    except PriceRefused as refused:
        raise to_request_refused(refused) from refused
    await parts.on_price_change()
    standings = await asyncio.to_thread(_standings, parts)
    first, *later = [VersionOut.from_stored(one, standings) for one in made]
    return ChangeOut(**first.model_dump(exclude={"later"}), later=later)


@router.get("/versions")
def list_versions(parts: Parts) -> VersionsOut:
    """List every version of the price book, the newest first, candidates and rejected included."""
    versions = parts.versions.list_versions()
    standings = stand(versions, parts.clock.now())
    return VersionsOut(items=[VersionOut.from_stored(one, standings) for one in reversed(versions)])


def to_request_refused(refused: PriceRefused) -> RequestRefused:
    """Say over HTTP what the desk refused.

    Args:
        refused: Any.

    Returns:
        A problem that names the field at fault.
    """
    errors = []
    if refused.field:
        errors = [FieldProblem(field=f"body.{refused.field}", reason=refused.reason)]
    detail = f"{refused.field}: {refused.reason}" if refused.field else refused.reason
    code = "price_conflict" if refused.kind == "conflict" else None
    status = _STATUS[refused.kind]
    return RequestRefused(status, code or _code(status), detail, errors)


def _code(status: int) -> str:
    return "not_found" if status == 404 else "invalid_request"


def _standings(parts: ControlParts) -> Standings:
    return stand(parts.versions.list_versions(), parts.clock.now())


def _to_wishes(parts: ControlParts, body: PricesIn) -> Wishes:
    rates = []
    for rate in body.rates:
        given = rate.model_dump(exclude={"new_model"})
        new = rate.new_model
        model = (
            None if new is None else NewModel(**{**new.model_dump(), "aliases": (*new.aliases,)})
        )
        rates.append(RateWish(**_named(parts, given), new_model=model))
    overrides = [OverrideWish(**_named(parts, one.model_dump())) for one in body.overrides]
    ends = [(one.id, one.valid_to) for one in body.end_overrides]
    return Wishes(rates=rates, overrides=overrides, ends=ends)


def _named(parts: ControlParts, given: dict[str, Any]) -> dict[str, Any]:
    """Name the provider as the catalog does."""
    if given["provider"] is None:
        return given
    (catalog,) = catalog_providers(parts, given["provider"])
    return {**given, "provider": catalog}
