"""``GET /api/v1/prices``: the rates in force at an instant, with version and source.

Must never show a price as a float.
"""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel

from gateway.admin.fields import InstantOut, InstantQuery, PageQuery, PlainText
from gateway.admin.models import catalog_providers
from gateway.admin.parts import ControlParts, Parts
from pricing.book import Book
from pricing.rates import Rate

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
        amount: Currency units for ``per`` quantity.
        per: The quantity the amount is for.
        currency: Of the amount.
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
    amount: str
    per: str
    currency: str
    valid_from: InstantOut
    valid_to: InstantOut | None
    source: str
    checked_at: date

    @classmethod
    def from_rate(cls, rate: Rate) -> Self:
        """Show a rate.

        Args:
            rate: Any rate.

        Returns:
            What clients see of it.
        """
        return cls(
            price_id=rate.price_id,
            sku=rate.sku,
            provider=rate.provider,
            model=rate.model,
            meter=rate.meter.value,
            tier=rate.tier,
            over=rate.over,
            region=rate.region,
            amount=f"{rate.amount:f}",
            per=str(rate.per),
            currency=rate.currency,
            valid_from=rate.valid_from,
            valid_to=rate.valid_to,
            source=rate.source,
            checked_at=rate.checked_at,
        )


class PricePage(BaseModel):
    """One page of prices, ordered by ``price_id``.

    Attributes:
        version: Book version they are from.
        recorded_at: When that version was published.
        at: The instant they hold at.
        items: The prices.
        next_cursor: Where the next page starts.
    """

    version: str
    recorded_at: InstantOut
    at: InstantOut
    items: list[PriceOut]
    next_cursor: str | None


@router.get("")
def read_prices(
    parts: Parts,
    paging: PageQuery,
    provider: PlainText | None = None,
    model: PlainText | None = None,
    at: InstantQuery = None,
) -> PricePage:
    """List the rates in force at an instant: now, unless ``at`` says otherwise.

    ``provider`` is one of the configuration or of the catalog; ``model`` any name of a model, with
    or without ``provider/`` before it.
    """
    when = at or parts.clock.now()
    found = sorted(_rates(parts, provider, model, when), key=lambda rate: rate.price_id)
    rest = [rate for rate in found if paging.cursor is None or rate.price_id > paging.cursor]
    page = rest[: paging.limit]
    return PricePage(
        version=parts.book.version.version,
        recorded_at=parts.book.version.recorded_at,
        at=when,
        items=[PriceOut.from_rate(rate) for rate in page],
        next_cursor=page[-1].price_id if len(rest) > paging.limit else None,
    )


def _rates(
    parts: ControlParts, provider: str | None, model: str | None, at: datetime
) -> Iterator[Rate]:
    book = parts.book
    providers = catalog_providers(parts, provider)
    names = None if model is None else _catalog_names(parts, book, model)
    for rate in book.rates:
        if (
            rate.holds_at(at)
            and rate.provider in providers
            and (names is None or (rate.provider, rate.model) in names)
        ):
            yield rate


def _catalog_names(parts: ControlParts, book: Book, model: str) -> set[tuple[str, str]]:
    """Every catalog entry a name can mean, as it stands or behind its provider."""
    prefix, slash, rest = model.partition("/")
    candidates = [(provider, model) for provider in book.providers]
    if slash:
        candidates += [(provider, rest) for provider in catalog_providers(parts, prefix)]
    entries = (book.find_model(provider, name) for provider, name in candidates)
    return {(entry.provider, entry.model) for entry in entries if entry is not None}
