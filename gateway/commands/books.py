"""The price book commands work with: the version in force in the database, or the shipped one.

Must never make or change a database: looking at prices has no effects.
"""

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from gateway.commands.context import read_settings
from gateway.commands.database import opened_database, opened_for_reading
from gateway.commands.output import CommandFailed, write_note
from gateway.own_rates import LoadBook, load_shipped, open_book
from gateway.prices.asked import PriceRefused
from gateway.prices.desk import PriceDesk
from gateway.prices.store import PriceStore, program_name
from gateway.settings import Settings
from pricing.book import Book, BookBroken

_SQLITE: Final = "sqlite:///"


def read_book(
    settings: Settings, version: str | None = None, *, at: datetime | None = None
) -> Book:
    """Load a price book.

    Args:
        settings: For the database, and the prices of GPUs of one's own.
        version: Its name; ``None`` for the one calls are priced with, or without a database the
            newest that came with the program.
        at: For the one calls will be priced with at an instant, where none is named. What is
            past is looked up in the one they are priced with now: it knows best.

    Returns:
        The book.

    Raises:
        CommandFailed: It is broken or cannot be read, or there is none of that name.
    """
    with _answering(version), _versions(settings, at) as load:
        return open_book(settings, version, load=load)


def read_shipped_book(version: str | None = None) -> Book:
    """Load a price book that came with the program, for those whose settings cannot be used.

    Args:
        version: Its name; ``None`` for the newest.

    Returns:
        The book, without prices of one's own.

    Raises:
        CommandFailed: As ``read_book``.
    """
    with _answering(version):
        return load_shipped(version, None)


@contextmanager
def _answering(version: str | None) -> Iterator[None]:
    try:
        yield
    except (BookBroken, OSError) as broken:
        if version is not None:
            raise CommandFailed(str(broken), exit_code=2) from broken
        raise CommandFailed(f"the price book cannot be used; install again:\n{broken}") from broken


@contextmanager
def _versions(settings: Settings, at: datetime | None) -> Iterator[LoadBook]:
    if not _has_database(settings):
        yield load_shipped
        return
    try:
        with opened_for_reading(settings) as engine:
            store = PriceStore(engine)
            yield store.load_book if at is None else partial(_load_at, store, at)
    except CommandFailed as absent:
        write_note(f"note: these are the prices that came with taximeter: {absent}")
        yield load_shipped


def _load_at(
    store: PriceStore, at: datetime, version: str | None, providers: Iterable[str] | None
) -> Book:
    if version is None and store.list_approved():
        version = store.current_at(max(at, store.clock.now())).version
    return store.load_book(version, providers)


def _has_database(settings: Settings) -> bool:
    url = settings.storage.database_url
    file = Path(url.removeprefix(_SQLITE))
    return not url.startswith(_SQLITE) or (file.exists() and file.stat().st_size > 0)


@contextmanager
def opened_prices(args: argparse.Namespace) -> Iterator[tuple[PriceStore, PriceDesk]]:
    """Open the versions of the price book, with the shipped ones recorded.

    Args:
        args: With ``config``.

    Yields:
        The versions, and the desk where they change.

    Raises:
        CommandFailed: The settings or the database cannot be used, or the desk says no.
    """
    with opened_engine_prices(args) as (_, store, desk):
        yield store, desk


@contextmanager
def opened_engine_prices(
    args: argparse.Namespace,
) -> Iterator[tuple[Engine, PriceStore, PriceDesk]]:
    """Do the same for whoever asks the ledger as well.

    Args:
        args: With ``config``.

    Yields:
        The database, the versions, and the desk where they change.

    Raises:
        CommandFailed: As ``opened_prices``.
    """
    settings = read_settings(args)
    with opened_database(settings) as engine:
        store = PriceStore(engine)
        try:
            store.record_shipped(program_name())
            reserved = {one.provider for one in settings.self_hosted}
            yield engine, store, PriceDesk(store, reserved)
        except PriceRefused as refused:
            code = 2 if refused.kind == "invalid" else 1
            raise CommandFailed(_mend(refused), exit_code=code) from refused
        except (BookBroken, OSError) as broken:
            raise CommandFailed(str(broken)) from broken


def _mend(refused: PriceRefused) -> str:
    """Name the option instead of the field, where there is one."""
    field = refused.field.rpartition(".")[2]
    named = field if field and not field.isdigit() else ""
    return f"{named}: {refused.reason}" if named else refused.reason
