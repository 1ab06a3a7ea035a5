"""``taximeter serve``: start the gateway. Must never start with settings that have a problem."""

import argparse
import importlib
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from gateway.app import serve
from gateway.commands.context import read_settings
from gateway.commands.output import CommandFailed
from gateway.commands.parsing import show_example
from gateway.fleet import Fleet
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.store import DatabaseRefused
from gateway.settings import Settings
from gateway.workforce import supervise
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
    return start(settings, None, config=args.config)


def start(settings: Settings, fleet: Fleet | None, *, config: Path | None = None) -> int:
    """Serve until told to stop, alone or as one of several.

    Args:
        settings: Checked.
        fleet: The other workers, in one of them.
        config: The settings file that was asked for, for workers that are yet to be started.

    Returns:
        Exit code.

    Raises:
        CommandFailed: A store or the price book cannot be used.
    """
    try:
        if fleet is None and settings.server.workers > 1:
            supervise(settings, config)
        return serve(settings, fleet)
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
