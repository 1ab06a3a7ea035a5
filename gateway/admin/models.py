"""Which entry of the price book a name means, seen from the configuration.

Must never decide by a rule of its own: the command line has to mean the same model.
"""

import difflib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gateway.admin.parts import ControlParts, book_with
from gateway.admin.problems import RequestRefused
from gateway.models_list import AmbiguousModel, NoSuchModel, Shelves, find_named_model
from pricing.agreements import Payer
from pricing.book import ModelEntry
from pricing.rates import RateCard

_NEAR_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedModel:
    """A model with its prices.

    Attributes:
        provider: Provider id of the configuration, or else of the catalog.
        name: Model as asked for, without its provider.
        entry: Its catalog entry.
        card: Prices in force.
    """

    provider: str
    name: str
    entry: ModelEntry
    card: RateCard


def catalog_providers(parts: ControlParts, provider: str | None) -> frozenset[str]:
    """Tell which catalog providers a provider id means.

    Args:
        parts: The control plane's.
        provider: Of the configuration or of the catalog; ``None`` for all.

    Returns:
        One, or all of the catalog.
    """
    if provider is None:
        return frozenset(parts.book.version.manifest.providers)
    configured = parts.settings.providers.get(provider)
    return frozenset({provider if configured is None else configured.priced_as})


def payer_in(parts: ControlParts, team: str | None, project: str | None) -> Payer:
    """Name who pays for the calls of a team or a project.

    Args:
        parts: The control plane's.
        team: Team id; ``None`` takes the project's.
        project: Project id.

    Returns:
        The payer, under whom negotiated prices are found.
    """
    if project is not None and team is None:
        team = parts.directory.projects.load(project).team
    return Payer(parts.directory.organization, team, project)


def find_priced_model(
    parts: ControlParts,
    provider: str | None,
    model: str,
    at: datetime,
    payer: Payer | None = None,
) -> PricedModel:
    """Find the prices of a model.

    Args:
        parts: The control plane's.
        provider: Of the configuration or of the catalog; ``None`` when the name is enough.
        model: ``provider/model``, or a bare model.
        at: Aware instant.
        payer: Who would pay, for negotiated prices; ``None`` for the published ones.

    Returns:
        The model.

    Raises:
        RequestRefused: No model has this name, several have, or it had no price at ``at``.
    """
    try:
        named = find_named_model(_shelves(parts), model, provider)
    except NoSuchModel as unknown:
        near = _near_names(parts, provider, model)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise RequestRefused(404, "unknown_model", f"{unknown}{hint}") from unknown
    except AmbiguousModel as several:
        raise RequestRefused(422, "ambiguous_model", str(several)) from several
    entry = named.entry
    card = book_with(parts, entry.provider).find_card(entry.provider, entry.model, at, payer)
    if card is None:
        version = parts.book.version.version
        detail = (
            f"price book {version} has no price for {entry.provider}/{entry.model} "
            f"at {at.isoformat()}"
        )
        raise RequestRefused(422, "unpriced_model", detail)
    return PricedModel(provider=named.provider, name=named.name, entry=entry, card=card)


def _shelves(parts: ControlParts) -> Shelves:
    return Shelves(
        configured=parts.settings.providers,
        catalogs=catalog_providers(parts, None),
        find=lambda catalog, name: book_with(parts, catalog).find_model(catalog, name),
    )


def _near_names(parts: ControlParts, provider: str | None, model: str) -> list[str]:
    wanted = catalog_providers(parts, provider)
    book = parts.book if wanted <= parts.book.providers else parts.whole_book()
    entries = [entry for entry in book.models if entry.provider in wanted]
    bare = {name: entry for entry in entries for name in (entry.model, *entry.aliases)}
    close = difflib.get_close_matches(model.rpartition("/")[2], bare, n=_NEAR_MAX)
    return [f"{bare[name].provider}/{name}" for name in close]
