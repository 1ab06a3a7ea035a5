"""Finding the prices of a model the way people name it. Must never guess a price."""

import argparse
import difflib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gateway.commands.context import read_settings
from gateway.commands.output import CommandFailed
from gateway.commands.parsing import parse_instant
from gateway.models_list import (
    AmbiguousModel,
    NoSuchModel,
    Shelves,
    catalog_of,
    find_named_model,
)
from gateway.settings import Settings
from pricing.agreements import Payer
from pricing.book import Book
from pricing.rates import RateCard

_NEAR_MAX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedModel:
    """A model as a person names it.

    Attributes:
        model: ``provider/model``, or a bare model.
        provider: Of the settings or else of the catalog; ``None`` when the name is enough.
    """

    model: str
    provider: str | None


def add_provider_and_at(parser: argparse.ArgumentParser) -> None:
    """Add ``--provider`` and ``--at``.

    Args:
        parser: That of something that asks for prices.
    """
    parser.add_argument("--provider", help="provider id of the settings, or a catalog provider")
    parser.add_argument(
        "--at", type=parse_instant, metavar="T", help="prices in force at that instant (now)"
    )


def add_payer(parser: argparse.ArgumentParser) -> None:
    """Add ``--organization``, ``--team`` and ``--project``.

    Args:
        parser: That of something that can show negotiated prices.
    """
    parser.add_argument("--organization", help="prices negotiated for an organisation")
    parser.add_argument("--team", help="prices negotiated for a team")
    parser.add_argument("--project", help="prices negotiated for a project; name its team too")


def payer_of(args: argparse.Namespace) -> Payer | None:
    """Tell whose prices are asked for.

    Args:
        args: With what ``add_payer`` adds.

    Returns:
        The payer, of the organisation of the settings unless one is named; ``None`` when nobody is
        named, which asks for published prices.
    """
    if args.organization is None and args.team is None and args.project is None:
        return None
    settings = read_settings(args)
    payer = payer_in(settings, args.team, args.project)
    return payer._replace(organization=args.organization or payer.organization)


def payer_in(settings: Settings, team: str | None, project: str | None) -> Payer:
    """Name who pays for the calls of a team or a project.

    Args:
        settings: For the organisation, and the team of a project.
        team: Team id; ``None`` takes the project's.
        project: Project id.

    Returns:
        The payer, under whom negotiated prices are found.
    """
    for one in settings.teams:
        if team is None and any(each.id == project for each in one.projects):
            team = one.id
    return Payer(settings.organization, team, project)


def shelves_of(settings: Settings, book: Book) -> Shelves:
    """Tell where to look for models.

    Args:
        settings: For the providers configured.
        book: The whole price book.

    Returns:
        What ``find_card`` looks through.
    """
    return Shelves(configured=settings.providers, catalogs=book.providers, find=book.find_model)


def find_card(
    shelves: Shelves,
    book: Book,
    at: datetime,
    asked: AskedModel,
    payer: Payer | None = None,
) -> RateCard:
    """Find the card of a model as a person named it.

    Args:
        shelves: Where to look.
        book: The prices, of the same book.
        at: Instant the prices must hold.
        asked: The name.
        payer: Who pays; ``None`` for published prices.

    Returns:
        The card.

    Raises:
        CommandFailed: Nobody sells it, several do, or it has no price at that instant; says what
            was probably meant.
    """
    try:
        entry = find_named_model(shelves, asked.model, asked.provider).entry
    except AmbiguousModel as several:
        raise CommandFailed(str(several), exit_code=2) from several
    except NoSuchModel as unknown:
        raise CommandFailed(_unknown(shelves, book, asked)) from unknown
    card = book.find_card(entry.provider, entry.model, at, payer)
    if card is None:
        raise CommandFailed(f"{asked.model} had no price yet at {at.isoformat()}")
    return card


def _unknown(shelves: Shelves, book: Book, asked: AskedModel) -> str:
    """Say whether it is the provider or the model that there is not."""
    provider, model = asked.provider, asked.model
    head, slash, tail = model.partition("/")
    if provider is None and slash:
        provider, model = head, tail
    catalog = None if provider is None else catalog_of(shelves, provider)
    if catalog is not None and catalog not in book.providers:
        close = difflib.get_close_matches(str(provider), sorted(book.providers), n=_NEAR_MAX)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        return f"no prices for a provider {provider!r}{hint}"
    names = {entry.model for entry in book.models if catalog in (None, entry.provider)}
    near = difflib.get_close_matches(model, sorted(names), n=_NEAR_MAX)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    where = "" if catalog is None else f" of {catalog}"
    return f"price book {book.version.version} has no model {model}{where}{hint}"
