"""Finding the prices of a model the way people name it. Must never guess a price."""

import argparse
import difflib
from datetime import datetime

from gateway.commands.context import read_settings
from gateway.commands.output import CommandFailed
from gateway.commands.parsing import parse_instant
from pricing.agreements import Payer
from pricing.book import Book
from pricing.rates import RateCard


def add_provider_and_at(parser: argparse.ArgumentParser) -> None:
    """Add ``--provider`` and ``--at``.

    Args:
        parser: That of something that asks for prices.
    """
    parser.add_argument(
        "--provider", help="catalog provider, or a provider id of the settings (all that fit)"
    )
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
    team = args.team
    for one in settings.teams:
        if team is None and any(project.id == args.project for project in one.projects):
            team = one.id
    return Payer(args.organization or settings.organization, team, args.project)


def find_cards(
    args: argparse.Namespace, book: Book, at: datetime, payer: Payer | None = None
) -> list[RateCard]:
    """Find the cards of the model named on the command line.

    Args:
        args: With ``model``, ``provider`` and ``config``.
        book: Where to look.
        at: Instant the prices must hold.
        payer: Who pays; ``None`` for published prices.

    Returns:
        One card per provider that sells the model, by provider; never none.

    Raises:
        CommandFailed: Nobody sells it at that instant; says what was probably meant.
    """
    provider, model = _catalog_name(args, book)
    providers = sorted(book.providers) if provider is None else [provider]
    cards = [book.find_card(name, model, at, payer) for name in providers]
    found = [card for card in cards if card is not None]
    if found:
        return found
    if any(book.find_model(name, model) for name in providers):
        raise CommandFailed(f"{args.model} had no price yet at {at.isoformat()}")
    known = {entry.model for entry in book.models if entry.provider in providers}
    close = difflib.get_close_matches(model, known, n=3)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    where = "" if provider is None else f" of {provider}"
    raise CommandFailed(f"price book {book.version.version} has no model {model}{where}{hint}")


def _catalog_name(args: argparse.Namespace, book: Book) -> tuple[str | None, str]:
    """Split ``provider/model``; a model of one of our own providers is priced as they are."""
    model: str = args.model
    provider: str | None = args.provider
    if provider is None:
        head, slash, tail = model.partition("/")
        # Resellers call their models what this looks like; the provider itself goes before them.
        if book.find_model(head, tail) is None and (
            not slash or any(book.find_model(name, model) for name in book.providers)
        ):
            return None, model
        provider, model = head, tail
    if provider in book.providers:
        return provider, model
    configured = read_settings(args).providers.get(provider)
    if configured is not None and configured.priced_as in book.providers:
        return configured.priced_as, model
    known = ", ".join(sorted(book.providers))
    raise CommandFailed(f"no prices for a provider {provider!r}; there are prices for {known}")
