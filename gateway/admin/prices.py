"""``GET /api/v1/prices``: the rates in force at an instant, with version, source and reasons.

Must never show a price as a float.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from gateway.admin.fields import InstantOut, InstantQuery, PageQuery, PlainText
from gateway.admin.models import catalog_providers, payer_in
from gateway.admin.parts import ControlParts, Parts
from gateway.admin.problems import RequestRefused
from gateway.own_rates import add_own_prices
from pricing.agreements import Payer
from pricing.book import Book, ModelEntry
from pricing.explain import Considered, Explanation, PriceQuestion, explain_price
from pricing.meters import Meter
from pricing.rates import CompiledRate, Rate, compile_rate
from pricing.selfhosted import published_name
from pricing.sku import STANDARD_TIER

router = APIRouter(prefix="/prices", tags=["prices"])


class PriceOut(BaseModel):
    """One price.

    Attributes:
        price_id: Its name in the ledger.
        sku: What it is the price of.
        provider: Catalog provider.
        model: Catalog model.
        meter: What is counted.
        tier: Service tier.
        over: Holds when the whole prompt has more tokens than this; null for the base price.
        region: Region class; null where the region does not matter.
        variant: The make it is the price of; null for the plain price.
        hours: Weekly window in which it holds; null for always.
        amount: Currency units for ``per`` quantity, at the price of the payer asked for.
        per: The quantity the amount is for.
        currency: Of the amount.
        list_amount: The published price, where another one was negotiated; else null.
        list_per: The quantity it is for, likewise.
        agreement: Override that made the price; null where there is none.
        valid_from: First instant it holds.
        valid_to: First instant it no longer holds; null while no end is known.
        source: Page it was read from.
        checked_at: Day somebody last looked at that page.
    """

    price_id: str
    sku: str
    provider: str
    model: str
    meter: str
    tier: str
    over: int | None
    region: str | None
    variant: str | None
    hours: str | None
    amount: str
    per: str
    currency: str
    list_amount: str | None
    list_per: str | None
    agreement: str | None
    valid_from: InstantOut
    valid_to: InstantOut | None
    source: str
    checked_at: date

    @classmethod
    def from_price(cls, price: CompiledRate) -> Self:
        """Show a price.

        Args:
            price: Published or negotiated.

        Returns:
            What clients see of it.
        """
        rate, listed = price.rate, price.listed
        return cls(
            price_id=price.price_id,
            sku=rate.sku,
            provider=rate.provider,
            model=rate.model,
            meter=rate.meter.value,
            tier=rate.tier,
            over=rate.over,
            region=rate.region,
            variant=rate.variant,
            hours=None if rate.hours is None else str(rate.hours),
            amount=price.amount_text,
            per=str(price.per),
            currency=rate.currency,
            list_amount=None if listed is None else listed.amount_text,
            list_per=None if listed is None else str(listed.per),
            agreement=price.agreement,
            valid_from=rate.valid_from,
            valid_to=rate.valid_to,
            source=rate.source,
            checked_at=rate.checked_at,
        )


class ConsideredOut(BaseModel):
    """A price or an override that was looked at, what it says, and what it lost by."""

    name: str
    terms: str
    verdict: str


class ExplanationOut(BaseModel):
    """Which price one meter of a call takes and why.

    Attributes:
        provider: Catalog provider.
        model: Catalog model.
        meter: What is counted.
        price: The price that applies; null where there is none.
        reasons: Why this one, or why none.
        rates: Every rate of the meter and of those it can be priced as.
        overrides: Every override that can be about the model.
    """

    provider: str
    model: str | None
    meter: str
    price: PriceOut | None
    reasons: list[str]
    rates: list[ConsideredOut]
    overrides: list[ConsideredOut]

    @classmethod
    def from_explanation(cls, found: Explanation) -> Self:
        """Show an explanation.

        Args:
            found: Any.

        Returns:
            What clients see of it.
        """
        return cls(
            provider=found.question.provider,
            model=found.model,
            meter=found.question.meter.value,
            price=None if found.price is None else PriceOut.from_price(found.price),
            reasons=list(found.reasons),
            rates=[_considered(one) for one in found.rates],
            overrides=[_considered(one) for one in found.overrides],
        )


def _considered(one: Considered) -> ConsideredOut:
    return ConsideredOut(name=one.name, terms=one.terms, verdict=one.verdict)


class PricePage(BaseModel):
    """One page of prices, ordered by ``price_id``.

    Attributes:
        version: Book version they are from.
        recorded_at: When that version was published.
        at: The instant they hold at.
        items: The prices.
        explanations: One per model, where ``explain`` asked for them.
        next_cursor: Where the next page starts.
    """

    version: str
    recorded_at: InstantOut
    at: InstantOut
    items: list[PriceOut]
    explanations: list[ExplanationOut]
    next_cursor: str | None


_Filter = PlainText | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PricesQuery:
    """Everything that can be asked of prices but the page.

    Attributes:
        provider: Of the configuration or of the catalog.
        model: Any name of a model, with or without ``provider/`` before it.
        at: When; now where it is left out.
        organization: Prices negotiated for an organisation.
        team: Prices negotiated for a team.
        project: Prices negotiated for a project.
        explain: Meter whose price is explained; goes with ``model``.
        tier: Service tier of the call to be explained.
        region: Region class of that call.
        variant: Make that was sold.
        input_tokens: Tokens of its whole prompt.
    """

    provider: _Filter = None
    model: _Filter = None
    at: InstantQuery = None
    organization: _Filter = None
    team: _Filter = None
    project: _Filter = None
    explain: Meter | None = None
    tier: PlainText = STANDARD_TIER
    region: _Filter = None
    variant: _Filter = None
    input_tokens: Annotated[int, Query(ge=0)] = 0


@router.get("")
def read_prices(
    parts: Parts, paging: PageQuery, asked: Annotated[PricesQuery, Depends()]
) -> PricePage:
    """List the rates in force at an instant: now, unless ``at`` says otherwise.

    ``provider`` is one of the configuration or of the catalog; ``model`` any name of a model, with
    or without ``provider/`` before it. ``team``, ``project`` or ``organization`` ask for the prices
    negotiated for them. ``explain`` names a meter and says which price of it a call would take,
    and why no other.
    """
    when = asked.at or parts.clock.now()
    payer = _payer(parts, asked)
    if asked.explain is not None and asked.model is None:
        raise RequestRefused(422, "invalid_request", "explain goes with model: name one")
    book, providers = _book_at(parts, when, asked.provider)
    names = None if asked.model is None else _catalog_names(parts, book, asked.model)
    entries = [
        entry
        for entry in book.models
        if entry.provider in providers and (names is None or (entry.provider, entry.model) in names)
    ]
    found = [rate for e in entries for rate in book.rates_at(e.provider, e.model, when)]
    found.sort(key=lambda rate: rate.price_id)
    rest = [rate for rate in found if paging.cursor is None or rate.price_id > paging.cursor]
    page = rest[: paging.limit]
    explained = entries if asked.explain is not None else []
    return PricePage(
        version=book.version.version,
        recorded_at=book.version.recorded_at,
        at=when,
        items=[PriceOut.from_price(_price_for(book, rate, when, payer)) for rate in page],
        explanations=[_explain(book, entry, asked, when, payer) for entry in explained],
        next_cursor=page[-1].price_id if len(rest) > paging.limit else None,
    )


def _book_at(
    parts: ControlParts, at: datetime, provider: str | None
) -> tuple[Book, Collection[str]]:
    """The version in force at an instant still to come, for the past the one of now; and whose."""
    providers = catalog_providers(parts, provider)
    now = parts.book
    if at > parts.clock.now() and parts.versions.list_approved():
        found = parts.versions.current_at(at)
        if found.version != published_name(now.version.version):
            wanted = providers if provider else providers | found.manifest.providers.keys()
            return add_own_prices(parts.versions.open_book(found, wanted), parts.settings), wanted
    return (now if providers <= now.providers else parts.whole_book()), providers


def _payer(parts: ControlParts, asked: PricesQuery) -> Payer | None:
    """Who would pay; ``None`` for published prices."""
    if asked.organization is None and asked.team is None and asked.project is None:
        return None
    payer = payer_in(parts, asked.team, asked.project)
    return payer._replace(organization=asked.organization or payer.organization)


def _price_for(book: Book, rate: Rate, at: datetime, payer: Payer | None) -> CompiledRate:
    published = compile_rate(rate)
    if payer is None:
        return published
    card = book.find_card(rate.provider, rate.model, at, payer)
    prices = () if card is None else card.all_prices()
    return next((price for price in prices if price.rate is rate), published)


def _explain(
    book: Book, entry: ModelEntry, asked: PricesQuery, at: datetime, payer: Payer | None
) -> ExplanationOut:
    question = PriceQuestion(
        provider=entry.provider,
        name=entry.model,
        meter=asked.explain or Meter.INPUT,
        at=at,
        tier=asked.tier,
        region=asked.region,
        variant=asked.variant,
        input_total=asked.input_tokens,
        payer=payer,
    )
    return ExplanationOut.from_explanation(explain_price(book, question))


def _catalog_names(parts: ControlParts, book: Book, model: str) -> set[tuple[str, str]]:
    """Every catalog entry a name can mean, as it stands or behind its provider."""
    prefix, slash, rest = model.partition("/")
    candidates = [(provider, model) for provider in book.providers]
    if slash:
        candidates += [(provider, rest) for provider in catalog_providers(parts, prefix)]
    entries = (book.find_model(provider, name) for provider, name in candidates)
    return {(entry.provider, entry.model) for entry in entries if entry is not None}
