"""Opening the database and the directory for a command.

Must never let an expected failure through as a traceback: each becomes a sentence with its mend.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError

from gateway.commands.context import config_path, read_settings
from gateway.commands.output import CommandFailed
from gateway.directory import Directory
from gateway.directory_model import DirectoryProblem, Invalid, ManagedByConfig
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.migrate import SchemaUnknown, upgrade
from gateway.ledger.store import DatabaseRefused, is_current, open_engine
from gateway.settings import Settings

_SQLITE: Final = "sqlite:///"


@contextmanager
def opened_database(settings: Settings) -> Iterator[Engine]:
    """Open the database with tables of this version.

    Args:
        settings: For the address.

    Yields:
        The engine, closed afterwards.

    Raises:
        CommandFailed: It cannot be opened or reached, is of a newer version, or goes away.
    """
    with _opened(settings) as engine:
        if not is_current(engine):
            upgrade(engine)
        yield engine


@contextmanager
def opened_for_reading(settings: Settings) -> Iterator[Engine]:
    """Open a database that is there, and leave it as it is.

    Args:
        settings: For the address.

    Yields:
        The engine, closed afterwards.

    Raises:
        CommandFailed: There is none, its tables are of another version, or it goes away.
    """
    url = settings.storage.database_url
    file = Path(url.removeprefix(_SQLITE))
    if url.startswith(_SQLITE) and not (file.exists() and file.stat().st_size):
        # Connecting would make the file, or write to an empty one.
        raise CommandFailed(f"there is no ledger at {file} yet; `taximeter serve` makes one")
    with _opened(settings) as engine:
        if not is_current(engine):
            raise CommandFailed("the ledger is of another version; start `taximeter serve` once")
        yield engine


@contextmanager
def _opened(settings: Settings) -> Iterator[Engine]:
    try:
        engine = open_engine(settings.storage.database_url)
    except (DatabaseRefused, OSError) as refused:
        raise CommandFailed(f"storage.database_url: {refused}", exit_code=2) from refused
    try:
        yield engine
    except SchemaUnknown as newer:
        raise CommandFailed(f"{newer}; install that version of taximeter") from newer
    except StoreUnavailable as gone:
        raise CommandFailed(f"{gone}; `taximeter doctor` looks closer") from gone
    except DatabaseError as broken:
        # What the ledger itself never does wrong: the file is damaged or no database at all.
        raise CommandFailed(f"storage.database_url: {broken.orig}") from broken
    finally:
        engine.dispose()


@contextmanager
def opened_directory(args: argparse.Namespace) -> Iterator[Directory]:
    """Open the directory of teams, projects, keys and budgets.

    Args:
        args: With ``config``.

    Yields:
        The directory. What it refuses inside becomes the command's failure.

    Raises:
        CommandFailed: The settings or the database cannot be used, or the directory says no.
    """
    settings = read_settings(args)
    with opened_database(settings) as engine, directory_answers(args):
        yield Directory(engine, settings)


@contextmanager
def directory_answers(args: argparse.Namespace) -> Iterator[None]:
    """Turn what the directory refuses into the command's failure.

    Args:
        args: With ``config``, to name the file an entity comes from.

    Raises:
        CommandFailed: The directory says no.
    """
    try:
        yield
    except Invalid as invalid:
        # Most reasons name the field themselves.
        names = invalid.reason.startswith(invalid.field)
        reason = invalid.reason if names else f"{invalid.field}: {invalid.reason}"
        text = f"{invalid.noun} {invalid.id}: {reason}"
        raise CommandFailed(text, exit_code=2) from invalid
    except ManagedByConfig as fixed:
        raise CommandFailed(
            f"{fixed.noun} {fixed.id} comes from {config_path(args)}; change it there and restart"
        ) from fixed
    except DirectoryProblem as problem:
        raise CommandFailed(problem.reason) from problem
