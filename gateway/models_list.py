"""``GET /v1/models``: what a key may call, with the prices in force.

Must never list a model the key may not call.
"""

from datetime import datetime
from typing import Any

from gateway.callers import Caller, is_model_allowed
from gateway.routes import Provider, Router
from pricing.book import Book
from pricing.rates import BASE_BAND, RateCard
from pricing.sku import STANDARD_TIER


def list_models(caller: Caller, router: Router, book: Book, at: datetime) -> dict[str, Any]:
    """List what a key may call.

    Args:
        caller: The owner of the key.
        router: The providers.
        book: The prices.
        at: When, aware.

    Returns:
        OpenAI's list shape; each model with ``pricing``: what this key pays by meter, as text.
    """
    rows = []
    for provider, model in router.models(book, at):
        card = book.find_card(provider.priced_as, model, at, caller.payer)
        if card is not None and is_model_allowed(caller, provider.id, model):
            rows.append(_to_row(provider, model, card))
    return {"object": "list", "data": rows}


def _to_row(provider: Provider, model: str, card: RateCard) -> dict[str, Any]:
    prices = {
        meter.value: {"amount": bands[-1].amount_text, "per": str(bands[-1].per)}
        for (tier, region, meter), bands in card.rates.items()
        if tier == STANDARD_TIER and region is None and bands[-1].band == BASE_BAND
    }
    return {
        "id": f"{provider.id}/{model}",
        "object": "model",
        "created": int(card.valid_from.timestamp()),
        "owned_by": provider.id,
        "pricing": {
            "currency": card.currency,
            "price_version": card.version,
            "standard": prices,
        },
    }
