"""Small books and cards for the pricing tests, written as prices are published.

Must never copy a price from the catalog: these tests check arithmetic, not data.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal

from pricing.agreements import Override, Payer
from pricing.book import Book, Manifest, ModelEntry, describe_version, load_book
from pricing.meters import Meter
from pricing.rates import Rate, RateCard
from pricing.rating import rate_usage, total_cost
from pricing.usage import Quantity

START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 6, 1, tzinfo=UTC)
VERSION = describe_version("test.1", Manifest(providers={}), recorded_at=START)
PUBLISHED = load_book()


def rate(meter, amount, *, model="m", **others):
    fields = {
        "provider": "p",
        "model": model,
        "meter": Meter(meter),
        "amount": Decimal(amount),
        "per": 1_000_000,
        "currency": "USD",
        "valid_from": START,
        "valid_to": None,
        "source": "made up",
        "checked_at": date(2026, 1, 1),
    }
    return Rate(**(fields | others))


def entry(model="m", *, aliases=(), provider="p", limits=(1_000_000, 100_000)):
    return ModelEntry(
        provider=provider,
        model=model,
        aliases=tuple(aliases),
        context_tokens_max=limits[0],
        output_tokens_max=limits[1],
    )


def override(name="o", **fields):
    """An override of fifteen percent off, unless said otherwise."""
    given = {"valid_from": START, "valid_to": None, "why": "contract 7"} | fields
    if "amount" in given:
        given["amount"] = Decimal(given["amount"])
        given.setdefault("per", 1_000_000)
    else:
        given["percent"] = Decimal(given.get("percent", "-15"))
    if "meter" in given:
        given["meter"] = Meter(given["meter"])
    return Override(id=name, **given)


def book_of(*rates, models=None, overrides=()):
    return Book(VERSION, models or [entry()], rates, overrides)


def card_of(
    *rates, limits=(1_000_000, 100_000), overrides=(), payer: Payer | None = None
) -> RateCard:
    book = book_of(*rates, models=[entry(limits=limits)], overrides=overrides)
    card = book.find_card("p", "m", START, payer)
    assert card is not None
    return card


def published(name: str, at: str = "2026-11-23T00:00:00+00:00") -> RateCard:
    """The card of ``provider/model`` in the published catalog."""
    provider, model = name.split("/", 1)
    card = PUBLISHED.find_card(provider, model, datetime.fromisoformat(at))
    assert card is not None, f"{name} has no price at {at}"
    return card


def cost_of(counts: Mapping[str, Quantity], card: RateCard, **where) -> str:
    """The cost of a call as text."""
    meters = {Meter(name): quantity for name, quantity in counts.items()}
    return str(total_cost(rate_usage(meters, card, **where), card.currency))
