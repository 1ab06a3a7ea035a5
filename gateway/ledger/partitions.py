"""The months that PostgreSQL keeps the ledger's records in, made before they begin.

Must never drop or change a record. SQLite keeps all of them in one table.
"""

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Engine, text

from gateway.clock import Clock
from gateway.ids import first_id
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.store import store_errors

log = logging.getLogger("taximeter.ledger")

MONTHS_AHEAD: Final = 3
LOOK_S: Final = 6 * 3600.0
RETRY_S: Final = 60.0
TABLES: Final[Mapping[str, str]] = {"records": "id", "record_lines": "record_id"}
# Nobody's answer waits longer than that for a month to be made; it is tried again soon.
_LOCK_MS: Final = 2_000
# Two gateways must not make one month. Any number will do, as long as nobody else takes the same.
_LOCK: Final = int.from_bytes(b"taximtr", "big")
_PARTS: Final = text(
    "SELECT part.relname, pg_get_expr(part.relpartbound, part.oid) AS bound "
    "FROM pg_inherits JOIN pg_class AS part ON part.oid = inhrelid "
    "WHERE inhparent = CAST(:parent AS regclass)"
)
_UPPER: Final = re.compile(r"TO \('([0-9A-Z]+)'\)")


class Partitions:
    """Makes the months of one database. Every method waits for it."""

    def __init__(self, engine: Engine) -> None:
        """Prepare.

        Args:
            engine: Of the ledger database.
        """
        self._engine = engine
        self.are_kept: Final = engine.dialect.name == "postgresql"

    def make_ahead(self, now: datetime) -> list[str]:
        """Make this month and those that follow, where they are missing.

        What came before a month was there, because no gateway ran when the one before it ended, is
        moved into it.

        Args:
            now: The time.

        Returns:
            Names of the parts that were made; none on SQLite.

        Raises:
            StoreUnavailable: The database cannot be reached, or somebody has it locked; the months
                made so far stay.
        """
        made: list[str] = []
        if not self.are_kept:
            return made
        for lower, upper in _months(now.astimezone(UTC)):
            with store_errors(), self._engine.begin() as connection:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_MS}")
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                made += [
                    _make(connection, parent, lower, upper)
                    for parent in TABLES
                    if _is_missing(connection, parent, first_id(lower))
                ]
        return made


class PartitionsFollower:
    """Makes months ahead for as long as a gateway runs."""

    def __init__(self, partitions: Partitions, clock: Clock) -> None:
        """Prepare; nothing is made before ``follow``.

        Args:
            partitions: Of the database.
            clock: Tells the month.
        """
        self._partitions = partitions
        self._clock = clock

    async def follow(self) -> None:
        """Look at once and then now and then, until cancelled."""
        while self._partitions.are_kept:
            rest_s = LOOK_S
            try:
                made = await asyncio.to_thread(self._partitions.make_ahead, self._clock.now())
                if made:
                    log.info("months of the ledger made parts=%s", ",".join(made))
            except StoreUnavailable as trouble:
                log.warning("months of the ledger could not be made yet: %s", trouble)
                rest_s = RETRY_S
            await asyncio.sleep(rest_s)


def _months(now: datetime) -> Iterator[tuple[datetime, datetime]]:
    for step in range(MONTHS_AHEAD + 1):
        yield _month(now, step), _month(now, step + 1)


def _month(at: datetime, step: int) -> datetime:
    months = at.year * 12 + at.month - 1 + step
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def _is_missing(connection: Connection, parent: str, lower: str) -> bool:
    uppers = [
        found[1]
        for row in connection.execute(_PARTS, {"parent": parent})
        if (found := _UPPER.search(row.bound)) is not None
    ]
    return not any(upper > lower for upper in uppers)


def _make(connection: Connection, parent: str, lower: datetime, upper: datetime) -> str:
    part, other, key = f"{parent}_{lower:%Y_%m}", f"{parent}_other", TABLES[parent]
    span = f"FROM ('{first_id(lower)}') TO ('{first_id(upper)}')"
    strays = f"{other} WHERE {key} >= '{first_id(lower)}' AND {key} < '{first_id(upper)}'"
    run = connection.exec_driver_sql
    run(f"CREATE TABLE {part} (LIKE {parent} INCLUDING DEFAULTS INCLUDING INDEXES)")
    if parent == "records":
        run(f"ALTER TABLE {part} ADD CONSTRAINT uq_{part} UNIQUE (writer, seq)")
    # Names and ids of this module's own making, here and below.
    has_strays = run(f"SELECT EXISTS (SELECT 1 FROM {strays})").scalar_one()  # noqa: S608
    if has_strays:
        run(f"ALTER TABLE {parent} DETACH PARTITION {other}")
        run(f"INSERT INTO {part} SELECT * FROM {strays}")  # noqa: S608
        run(f"DELETE FROM {strays}")  # noqa: S608
        run(f"ALTER TABLE {parent} ATTACH PARTITION {other} DEFAULT")
    run(f"ALTER TABLE {parent} ATTACH PARTITION {part} FOR VALUES {span}")
    run(
        f"CREATE TRIGGER {part}_refuse_truncate BEFORE TRUNCATE ON {part} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION taximeter_refuse_change('{parent}')"
    )
    return part
