"""``taximeter serve``: start the gateway. Must never start with settings that have a problem."""

import argparse
import importlib

from sqlalchemy.exc import DatabaseError

from gateway.app import serve
from gateway.commands.context import read_settings
from gateway.commands.output import CommandFailed
from gateway.commands.parsing import show_example
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.store import DatabaseRefused
from pricing.book import BookBroken


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    parser.epilog = show_example(
        "taximeter serve\n"
        "taximeter serve --config taximeter.yaml\n"
        "TAXIMETER_SERVER__PORT=9000 taximeter serve"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop.

    Args:
        args: As parsed.

    Returns:
        Exit code.

    Raises:
        CommandFailed: The settings, a store or the price book cannot be used.
    """
    settings = read_settings(args)
    try:
        return serve(settings)
    except StoreUnavailable as gone:
        raise CommandFailed(f"cannot start: {gone}; `taximeter doctor` looks closer") from gone
    except (DatabaseRefused, OSError) as refused:
        raise CommandFailed(f"cannot start: {refused}", exit_code=2) from refused
    except DatabaseError as broken:
        raise CommandFailed(f"cannot start: storage.database_url: {broken.orig}") from broken
    except BookBroken as broken_book:
        raise CommandFailed(f"cannot start: the price book is broken:\n{broken_book}") from None
    # house: lazy-import because Alembic would slow every start down, and this is a failed one.
    except importlib.import_module("gateway.ledger.migrate").SchemaUnknown as newer:
        raise CommandFailed(f"cannot start: {newer}; install that version") from newer
