"""Brings the tables of a database up to date with the revisions in ``gateway.ledger.migrations``.

Importing this takes about 0.1 s because of Alembic: ask ``gateway.ledger.store.is_current`` first.
Must never go back a revision.
"""

import sys
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.store import SCHEMA_REVISION, open_engine, store_errors

_LOCATION: Final = Path(__file__).parent / "migrations"

# Two gateways that start together must not both create the tables. Any number will do, as long as
# nobody else who uses this database takes the same: these are the first bytes of "taximeter".
_LOCK: Final = int.from_bytes(b"taximet", "big")


class SchemaUnknown(Exception):
    """The database has tables of a revision this program does not know."""


def alembic_config() -> Config:
    """Describe where the revisions are.

    Returns:
        A configuration that needs no file and works from an installed package.
    """
    config = Config()
    config.set_main_option("script_location", str(_LOCATION).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(engine: Engine) -> None:
    """Bring the tables up to date, in one transaction.

    Args:
        engine: As opened by ``open_engine``.

    Raises:
        StoreUnavailable: The database cannot be reached; nothing was changed.
        SchemaUnknown: A newer program has been here; nothing was changed.
    """
    config = alembic_config()
    with store_errors(), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _refuse_unknown(connection, config)
        config.attributes["connection"] = connection
        command.upgrade(config, SCHEMA_REVISION)


def main() -> int:
    """Upgrade the database whose address comes on standard input, in a process of its own.

    A server that upgrades in its own process keeps Alembic in memory for good.

    Returns:
        0 when the tables are up to date; 1 otherwise, with the reason on standard error.
    """
    engine = open_engine(sys.stdin.readline().strip())
    try:
        upgrade(engine)
    except (StoreUnavailable, SchemaUnknown) as refused:
        sys.stderr.write(f"{refused}\n")
        return 1
    finally:
        engine.dispose()
    return 0


def _refuse_unknown(connection: Connection, config: Config) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    for found in MigrationContext.configure(connection).get_current_heads():
        if found not in known:
            raise SchemaUnknown(
                f"the database is at revision {found}, which this version does not know; "
                "it was written by a newer one"
            )


if __name__ == "__main__":
    sys.exit(main())
