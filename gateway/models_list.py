"""Which models there are: what a key may call with its prices, and which one a name means.

Must never list a model the key may not call, nor guess between two models of one name.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from gateway.callers import Caller, is_model_allowed
from gateway.routes import Provider, Router
from pricing.book import Book, ModelEntry
from pricing.rates import BASE_BAND, RateCard
from pricing.sku import STANDARD_TIER

# Catalog providers that make what they sell. Whoever also resells stands behind those it resells:
# the catalog has Claude under gemini too. Guarded by test_the_shipped_catalog_has_makers.
MAKERS: Final = ("openai", "anthropic", "gemini", "mistral", "deepseek", "xai", "cohere")
_SELLERS_SHOWN_MAX: Final = 5
# Small models for chats, the first one listed that is sold is the example.
_EXAMPLES: Final = {
    name: rank
    for rank, name in enumerate(
        (
            "gpt-5-mini",
            "claude-haiku-4-5",
            "gemini-2.5-flash",
            "mistral-small-latest",
            "deepseek-chat",
            "command-r",
        )
    )
}


class ConfiguredProvider(Protocol):
    """The part of a provider's settings that tells which prices its models have."""

    @property
    def priced_as(self) -> str:
        """Catalog provider its models are priced as."""
        ...

    @property
    def deployments(self) -> Mapping[str, str]:
        """Model by the provider's own name for it, where that says nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelves:
    """Where a model can be.

    Attributes:
        configured: Providers of the settings by id, in their order.
        catalogs: Catalog providers, those of one's own among them.
        find: Finds a model by catalog provider and any name that provider has for it.
    """

    configured: Mapping[str, ConfiguredProvider]
    catalogs: Set[str]
    find: Callable[[str, str], ModelEntry | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """The model a name means.

    Attributes:
        provider: Provider id of the configuration, or else of the catalog.
        name: Model as asked for, without its provider.
        entry: Its catalog entry.
    """

    provider: str
    name: str
    entry: ModelEntry


class NoSuchModel(LookupError):
    """Nobody asked sells a model of this name.

    Attributes:
        model: As asked for.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(f"the price book has no model {model!r}")


class AmbiguousModel(LookupError):
    """Several sell a model of this name, and nothing says which is meant.

    Attributes:
        model: As asked for.
        providers: Catalog providers that sell it, sorted.
    """

    def __init__(self, model: str, providers: tuple[str, ...]) -> None:
        self.model = model
        self.providers = providers
        rest = len(providers) - _SELLERS_SHOWN_MAX
        shown = ", ".join(providers[:_SELLERS_SHOWN_MAX])
        sellers = f"{shown} and {rest} more" if rest > 0 else shown
        super().__init__(
            f"{model} is sold by several: {sellers}; "
            f"name the one, as in {providers[0]}/{model}, or configure it as a provider"
        )


def find_named_model(shelves: Shelves, model: str, provider: str | None = None) -> NamedModel:
    """Tell which model is meant, on the command line and over HTTP.

    ``provider/model`` means that provider's, also where a reseller calls one of its models the
    same. A bare name means that of the first configured provider that has it, else that of the only
    one to sell it, else its maker's.

    Args:
        shelves: Where to look.
        model: ``provider/model``, or a bare model.
        provider: Of the configuration or else of the catalog; ``None`` when the name is enough.

    Returns:
        The model.

    Raises:
        NoSuchModel: No model has this name, or the provider has none.
        AmbiguousModel: Several sell it, and neither the settings nor its maker decide.
    """
    prefix, slash, rest = model.partition("/")
    places = [(prefix, rest)] if slash and provider in (None, prefix) else []
    places += [(owner, model) for owner in (shelves.configured if provider is None else [provider])]
    for owner, name in places:
        entry = _find_entry(shelves, owner, name)
        if entry is not None:
            return NamedModel(provider=owner, name=name, entry=entry)
    if provider is not None:
        raise NoSuchModel(model)
    return _find_unconfigured(shelves, model)


def catalog_of(shelves: Shelves, provider: str) -> str:
    """Tell which catalog provider a provider id means.

    Args:
        shelves: Where to look.
        provider: Of the configuration or else of the catalog.

    Returns:
        The catalog provider; there may be no prices of it.
    """
    configured = shelves.configured.get(provider)
    return provider if configured is None else configured.priced_as


def _find_entry(shelves: Shelves, owner: str, name: str) -> ModelEntry | None:
    configured = shelves.configured.get(owner)
    catalog = catalog_of(shelves, owner)
    behind = name if configured is None else configured.deployments.get(name, name)
    return shelves.find(catalog, behind) if catalog in shelves.catalogs else None


def _find_unconfigured(shelves: Shelves, model: str) -> NamedModel:
    found = {catalog: shelves.find(catalog, model) for catalog in sorted(shelves.catalogs)}
    sold = {catalog: entry for catalog, entry in found.items() if entry is not None}
    if not sold:
        raise NoSuchModel(model)
    meant = next(iter(sold)) if len(sold) == 1 else next((m for m in MAKERS if m in sold), None)
    if meant is None:
        raise AmbiguousModel(model, tuple(sold))
    return NamedModel(provider=meant, name=model, entry=sold[meant])


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


def pick_example(models: Sequence[tuple[Provider, str]]) -> str:
    """Choose a model for the first example anybody tries.

    Args:
        models: What there is, as ``Router.models`` lists it.

    Returns:
        A small model for chats where one is known, under a name that one provider alone serves;
        ``MODEL`` where there is none at all.
    """
    if not models:
        return "MODEL"
    ranked = sorted(models, key=lambda one: _EXAMPLES.get(one[1], len(_EXAMPLES)))
    provider, model = ranked[0]
    has_others = any(other.id != provider.id for other, _ in models)
    return f"{provider.id}/{model}" if has_others else model


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
