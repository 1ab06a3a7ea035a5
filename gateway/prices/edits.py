"""Prices and agreements as an operator writes them, turned into what the price book holds.

Must never guess what was not said: a price without an amount, a window or a meter is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from gateway.prices.asked import PriceEdit, PriceRefused, Signature
from pricing.agreements import Override, OverrideRefused
from pricing.hours import Hours, parse_hours
from pricing.importers.catalogs import LIST_SOURCES
from pricing.manifest import ModelEntry
from pricing.meters import Meter
from pricing.money import decimal_from_text
from pricing.rates import Rate, RateRefused
from pricing.sku import STANDARD_TIER


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModel:
    """What a model needs that the price book does not know.

    Attributes:
        aliases: Other names billed at the same prices.
        context_tokens_max: Most tokens a prompt can have; ``None`` when not known.
        output_tokens_max: Most tokens an answer can have; ``None`` when not known.
    """

    aliases: tuple[str, ...] = ()
    context_tokens_max: int | None = None
    output_tokens_max: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateWish:
    """A dated price as written.

    Attributes:
        provider: Catalog provider.
        model: Catalog model.
        meter: What is counted.
        amount: Decimal text.
        per: The quantity it is for.
        tier: Service tier.
        over: Holds when the whole prompt has more tokens than this.
        region: Region class.
        variant: The make it is the price of.
        hours: Weekly window, as text.
        currency: ISO 4217 code.
        valid_from: First instant it holds; ``None`` for when the change takes effect.
        valid_to: First instant it no longer holds.
        source: Page or contract it stands on; ``None`` for the reason of the change.
        new_model: Given where the model is to be added.
    """

    provider: str
    model: str
    meter: Meter
    amount: str
    per: int
    tier: str = STANDARD_TIER
    over: int | None = None
    region: str | None = None
    variant: str | None = None
    hours: str | None = None
    currency: str = "USD"
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    source: str | None = None
    new_model: NewModel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideWish:
    """An agreement as written.

    Attributes:
        id: Its name, unique in a version.
        organization: Holds for this organisation; likewise the next ones.
        team: Team.
        project: Project.
        provider: Catalog provider.
        model: Catalog model.
        meter: What is counted.
        tier: Service tier.
        over: Context band.
        region: Region class.
        variant: Make.
        percent: Added to the published price, as decimal text.
        amount: Replaces it, likewise.
        per: The quantity the amount is for.
        currency: Of the amount.
        valid_from: First instant it holds; ``None`` for when the change takes effect.
        valid_to: First instant it no longer holds.
        why: Which contract says so; ``None`` for the reason of the change.
    """

    id: str
    organization: str | None = None
    team: str | None = None
    project: str | None = None
    provider: str | None = None
    model: str | None = None
    meter: Meter | None = None
    tier: str | None = None
    over: int | None = None
    region: str | None = None
    variant: str | None = None
    percent: str | None = None
    amount: str | None = None
    per: int | None = None
    currency: str = "USD"
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """A change as written.

    Attributes:
        rates: Dated prices.
        overrides: Negotiated rates.
        ends: Negotiated rates that end: their id and when.
    """

    rates: Sequence[RateWish] = ()
    overrides: Sequence[OverrideWish] = ()
    ends: Sequence[tuple[str, datetime]] = ()


def to_edit(wishes: Wishes, signed: Signature, start: datetime) -> PriceEdit:
    """Turn a change into what the price book holds.

    Args:
        wishes: The change.
        signed: Who makes it and why; the source of prices that name none.
        start: When it takes effect; where prices begin that say nothing else.

    Returns:
        The change.

    Raises:
        PriceRefused: Something cannot be a price; names its field, such as ``rates.0.amount``.
    """
    if not (wishes.rates or wishes.overrides or wishes.ends):
        raise PriceRefused("nothing is changed: give rates, overrides or end_overrides")
    rates = [_to_rate(n, wish, signed, start) for n, wish in enumerate(wishes.rates)]
    models: dict[tuple[str, str], ModelEntry] = {}
    for wish in wishes.rates:
        if wish.new_model is not None:
            models.setdefault((wish.provider, wish.model), _to_model(wish, wish.new_model))
    overrides = [_to_override(n, wish, signed, start) for n, wish in enumerate(wishes.overrides)]
    return PriceEdit(
        rates=tuple(rates),
        models=tuple(models.values()),
        overrides=tuple(overrides),
        ends=tuple(wishes.ends),
    )


def _to_rate(number: int, wish: RateWish, signed: Signature, start: datetime) -> Rate:
    place = f"rates.{number}"
    try:
        return Rate(
            provider=wish.provider,
            model=wish.model,
            meter=wish.meter,
            amount=_decimal(f"{place}.amount", wish.amount),
            per=wish.per,
            currency=wish.currency,
            valid_from=wish.valid_from or start,
            valid_to=wish.valid_to,
            tier=wish.tier,
            over=wish.over,
            region=wish.region,
            variant=wish.variant,
            hours=None if wish.hours is None else _hours(f"{place}.hours", wish.hours),
            source=_source(wish, signed),
            checked_at=start.date(),
        )
    except RateRefused as refused:
        raise PriceRefused(str(refused), field=place) from refused


def _source(wish: RateWish, signed: Signature) -> str:
    """The page it stands on; never one that makes it look like a price of a list."""
    if wish.source is None or wish.source.startswith(LIST_SOURCES):
        return f"{signed.who}: {wish.source or signed.why}"
    return wish.source


def _to_model(wish: RateWish, new: NewModel) -> ModelEntry:
    return ModelEntry(
        provider=wish.provider,
        model=wish.model,
        aliases=tuple(new.aliases),
        context_tokens_max=new.context_tokens_max,
        output_tokens_max=new.output_tokens_max,
    )


def _to_override(number: int, wish: OverrideWish, signed: Signature, start: datetime) -> Override:
    place = f"overrides.{number}"
    try:
        return Override(
            id=wish.id,
            organization=wish.organization,
            team=wish.team,
            project=wish.project,
            provider=wish.provider,
            model=wish.model,
            meter=wish.meter,
            tier=wish.tier,
            over=wish.over,
            region=wish.region,
            variant=wish.variant,
            percent=None if wish.percent is None else _decimal(f"{place}.percent", wish.percent),
            amount=None if wish.amount is None else _decimal(f"{place}.amount", wish.amount),
            per=wish.per,
            currency=wish.currency,
            valid_from=wish.valid_from or start,
            valid_to=wish.valid_to,
            why=wish.why or signed.why,
        )
    except OverrideRefused as refused:
        raise PriceRefused(str(refused), field=place) from refused


def _decimal(field: str, text: str) -> Decimal:
    try:
        return decimal_from_text(text)
    except ValueError as broken:
        raise PriceRefused(f"{broken}; write a decimal such as 1.25", field=field) from broken


def _hours(field: str, text: str) -> Hours:
    try:
        return parse_hours(text)
    except ValueError as broken:
        raise PriceRefused(str(broken), field=field) from broken
