"""Asking the ledger of this installation what calls of a model have used lately.

Must never make a database, change one, or ship the journal: an estimate has no effects.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.clock import Clock
from gateway.commands.cards import payer_in
from gateway.commands.context import read_settings
from gateway.commands.database import directory_answers, opened_for_reading
from gateway.commands.output import CommandFailed
from gateway.directory import Directory
from gateway.ledger.queries import Queries
from gateway.settings import Settings
from gateway.usual import NoHistory, Usual, ask_for, find_team, find_usual, history_query
from pricing.agreements import Payer
from pricing.book import ModelEntry


def add_whose(parser: argparse.ArgumentParser) -> None:
    """Add ``--team``, ``--project`` and ``--no-history``.

    Args:
        parser: That of something that estimates.
    """
    parser.add_argument(
        "--project", help="at its prices, and what is usual of its calls (of everybody's)"
    )
    parser.add_argument("--team", help="likewise; a project's own team follows from it")
    parser.add_argument(
        "--no-history", action="store_true", help="do not look into the ledger for what is usual"
    )


def find_payer(args: argparse.Namespace, settings: Settings) -> Payer:
    """Find whose negotiated prices an estimate has.

    Args:
        args: With ``config``, ``team``, ``project`` and ``no_history``.
        settings: For the organisation; with ``--no-history`` for the team of a project too.

    Returns:
        The payer.

    Raises:
        CommandFailed: A team or project was named, and it or the ledger that knows it is not there.
    """
    if args.no_history or (args.team is None and args.project is None):
        return payer_in(settings, args.team, args.project)
    # What the settings are broken by would be told here too: nobody is priced as somebody else.
    known = read_settings(args)
    with opened_for_reading(known) as engine, _answers(args):
        directory = Directory(engine, known)
        team = find_team(directory, team=args.team, project=args.project)
        return Payer(directory.organization, team, args.project)


def load_usual(
    args: argparse.Namespace, entry: ModelEntry | None, clock: Clock
) -> Usual | NoHistory:
    """Find what is usual for a model.

    Args:
        args: With ``config``, ``team``, ``project`` and ``no_history``.
        entry: The model; ``None`` when it is not in the price book.
        clock: For which days to look at.

    Returns:
        What calls have used, or why nobody knows. Without a ledger an estimate is still possible.

    Raises:
        CommandFailed: A team or project was named, and it or the ledger is not there.
    """
    if args.no_history or entry is None:
        return NoHistory(why="the ledger was left out")
    try:
        return _ask_ledger(args, entry, clock)
    except CommandFailed as failed:
        if args.team is not None or args.project is not None:
            raise
        return NoHistory(why=f"the ledger was not read: {first_reason(failed)}")


def first_reason(failed: CommandFailed) -> str:
    """Cut a failure down to one line.

    Args:
        failed: What a command would print.

    Returns:
        The first line; where that only announces a list, with the first of the list.
    """
    first, *rest = str(failed).splitlines()
    return f"{first} {rest[0].strip()}" if rest and first.endswith(":") else first


def _ask_ledger(args: argparse.Namespace, entry: ModelEntry, clock: Clock) -> Usual | NoHistory:
    settings = read_settings(args)
    priced_as = {name: given.priced_as for name, given in settings.providers.items()}
    query = history_query(entry, entry.provider, priced_as, clock.now())
    with opened_for_reading(settings) as engine:
        with _answers(args):
            directory = Directory(engine, settings)
            query = ask_for(query, directory, team=args.team, project=args.project)
        return find_usual(Queries(engine).history, query)


@contextmanager
def _answers(args: argparse.Namespace) -> Iterator[None]:
    try:
        with directory_answers(args):
            yield
    except ValueError as contradiction:
        raise CommandFailed(str(contradiction), exit_code=2) from contradiction
