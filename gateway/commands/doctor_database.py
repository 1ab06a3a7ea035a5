"""How ``taximeter doctor`` looks at the database. Must never make or change a table."""

import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, func, inspect, select, text
from sqlalchemy.exc import DatabaseError

from gateway.commands.doctor_checks import Finding
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.store import (
    SCHEMA_REVISION,
    DatabaseRefused,
    is_current,
    open_engine,
    reading,
    store_errors,
)
from gateway.prices.store import PriceStore
from gateway.settings import Settings
from gateway.tables import records


def check_database(settings: Settings) -> Iterator[Finding]:
    """Check that the ledger can be reached and has the tables of this version.

    Args:
        settings: As loaded.

    Yields:
        What was seen.
    """
    url = settings.storage.database_url
    if url.startswith("sqlite:///"):
        file = Path(url.removeprefix("sqlite:///"))
        if not file.exists():
            # Connecting would make the file, and this command changes nothing.
            yield _check_parent(file)
            return
        if not os.access(file, os.W_OK):
            mend = "let this account write it, or set storage.database_url"
            yield Finding.fail("database", f"{file} is not writable", mend)
            return
    try:
        engine = open_engine(url)
    except (DatabaseRefused, OSError) as refused:
        yield Finding.fail("database", str(refused), "set storage.database_url")
        return
    try:
        yield _check_tables(engine)
        if is_current(engine):
            yield from _check_versions(PriceStore(engine))
    except StoreUnavailable as gone:
        yield Finding.fail("database", str(gone), "start it, or set storage.database_url")
    except DatabaseError as broken:
        mend = "restore it from a backup, or set storage.database_url"
        yield Finding.fail("database", str(broken.orig), mend)
    finally:
        engine.dispose()


def _check_parent(file: Path) -> Finding:
    absolute = file.absolute()
    parent = next(folder for folder in absolute.parents if folder.is_dir())
    if not os.access(parent, os.W_OK | os.X_OK):
        mend = "let this account write there, or set storage.database_url"
        return Finding.fail("database", f"{parent} is not writable", mend)
    return Finding.ok("database", f"{file} will be made at the first start")


def _check_versions(store: PriceStore) -> Iterator[Finding]:
    """Which prices are in force here, and whether an upgrade brought some that wait."""
    versions = store.list_versions()
    if not versions:
        return
    current = store.current_at(store.clock.now()).version
    waiting = [one for one in versions if one.origin == "shipped" and one.status == "candidate"]
    for one in waiting:
        seen = f"{one.version} came with {one.recorded_by} and waits: prices were changed here"
        mend = f"`taximeter prices diff {one.version}`, then approve or reject it"
        yield Finding.warn("price book", seen, mend)
    if not waiting:
        yield Finding.ok("price book", f"{current} is in force, {len(versions)} versions known")


def _check_tables(engine: Engine) -> Finding:
    name = engine.dialect.name
    if is_current(engine):
        with store_errors(), reading(engine).connect() as connection:
            count = connection.scalar(select(func.count()).select_from(records))
        return Finding.ok("database", f"{name}, tables {SCHEMA_REVISION}, {count} records")
    with store_errors(), reading(engine).connect() as connection:
        found: list[str] = []
        if inspect(connection).has_table("alembic_version"):
            query = text("SELECT version_num FROM alembic_version")
            found = list(connection.execute(query).scalars())
    if any(revision > SCHEMA_REVISION for revision in found):
        seen = f"{name}, tables {', '.join(found)} are newer than {SCHEMA_REVISION}"
        return Finding.fail("database", seen, "install the version of taximeter that made them")
    seen = f"{name}, tables {', '.join(found) or 'missing'}; this version needs {SCHEMA_REVISION}"
    return Finding.warn("database", seen, "nothing: the next start brings them up to date")
