"""How ``taximeter doctor`` looks at budgets. Must never make or change a table."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import DatabaseError

from gateway.budgets.rules import Budget
from gateway.commands.books import read_book
from gateway.commands.budget_checks import find_odd_budgets
from gateway.commands.doctor_checks import Finding
from gateway.commands.output import CommandFailed
from gateway.directory import Directory
from gateway.directory_config import read_configured
from gateway.directory_nouns import to_budget
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.store import DatabaseRefused, is_current, open_engine
from gateway.settings import Settings

_PAGE_ROWS: Final = 500
_SQLITE: Final = "sqlite:///"


def check_budgets(settings: Settings, at: datetime) -> Iterator[Finding]:
    """Check that every budget can match a call, and that its fallback leads somewhere.

    Args:
        settings: As loaded.
        at: Now.

    Yields:
        One finding for all that are well, one for each that is not.
    """
    try:
        budgets, known = _read(settings)
        book = read_book(settings)
    except (CommandFailed, DatabaseError, DatabaseRefused, StoreUnavailable, OSError):
        return  # Other checks say why.
    odd = 0
    for one in find_odd_budgets(budgets, settings, book, at, known):
        odd += 1
        yield Finding.warn(f"budget {one.budget}", one.seen, one.mend)
    if not odd:
        seen = f"{len(budgets)} budgets, each matches calls" if budgets else "none: nothing limits"
        yield Finding.ok("budgets", seen)


def _read(settings: Settings) -> tuple[list[Budget], Mapping[str, frozenset[str]]]:
    """Read every budget and every id there is; of the settings alone where there is no database."""
    url = settings.storage.database_url
    file = Path(url.removeprefix(_SQLITE))
    if url.startswith(_SQLITE) and not (file.exists() and file.stat().st_size):
        # Connecting would make the file.
        return configured_budgets(settings), {}
    engine = open_engine(url)
    try:
        if not is_current(engine):
            return configured_budgets(settings), {}
        directory = Directory(engine, settings)
        known = {
            "organization": frozenset({directory.organization}),
            "provider": frozenset(settings.providers) or frozenset({"demo"}),
            "team": _ids(directory.teams.page),
            "project": _ids(directory.projects.page),
            "key": _ids(directory.keys.page),
        }
        return list(directory.load_snapshot().budgets), known
    finally:
        engine.dispose()


def configured_budgets(settings: Settings) -> list[Budget]:
    """Read the budgets of the configuration file.

    Args:
        settings: As loaded.

    Returns:
        All of them.
    """
    return [to_budget(entry) for entry in read_configured(settings).budgets.values()]


def _ids(page: Callable[[int, str | None], Any]) -> frozenset[str]:
    found: set[str] = set()
    cursor: str | None = None
    while True:
        part = page(_PAGE_ROWS, cursor)
        found.update(one.id for one in part.items)
        cursor = part.next_cursor
        if cursor is None:
            return frozenset(found)
