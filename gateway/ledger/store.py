"""The ledger database: opening it and appending what a journal holds.

Must never change or delete a record; the database refuses it too.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import (
    JSON,
    Connection,
    Engine,
    Table,
    and_,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.ledger.chain import START, ChainHead, chain_hash
from gateway.ledger.errors import (
    CorrectionOfCorrection,
    LedgerConflict,
    ShippedTo,
    StoreUnavailable,
)
from gateway.ledger.record import LedgerRecord
from gateway.ledger.rows import storable, to_line_rows, to_row
from gateway.tables import record_lines, records, shipped

# The newest revision in gateway/ledger/migrations; compared with the database at every start
# without importing Alembic, which takes longer than the comparison. tests/ledger/test_store.py
# checks that it is the newest.
SCHEMA_REVISION: Final = "0007"

_URL_FORMS: Final = "sqlite:///file.db or postgresql://user:password@host:port/database"
_BUSY_S_MAX: Final = 10
_READS_ONLY: Final = "taximeter_reads_only"


# Two processes may add the first records of a writer at once; both must find a row to lock.
_INSERT_NEW_WRITER: Final = text(
    'INSERT INTO shipped (writer, segment, "offset", seq, hash) '
    "VALUES (:writer, 0, 0, :seq, :hash) ON CONFLICT (writer) DO NOTHING"
)


class DatabaseRefused(ValueError):
    """A database URL that cannot be used; the text says why, never with a password."""


def open_engine(database_url: str) -> Engine:
    """Open a database without connecting to it yet.

    Args:
        database_url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or
            ``postgresql://user:pw@host:port/db``, also with ``?host=/socket/dir``.

    Returns:
        An engine whose transactions take SQLite's write lock at once, so that no two writers can
        lock each other out half-way; see ``reading`` for the others. The directory of a SQLite
        file exists afterwards.

    Raises:
        DatabaseRefused: Not such a URL, or the PostgreSQL driver is not installed.
    """
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):
        raise DatabaseRefused(f"not a database URL: use {_URL_FORMS}") from None
    match url.get_backend_name():
        case "sqlite":
            return _open_sqlite(url)
        case "postgresql":
            return _open_postgres(url)
        case other:
            raise DatabaseRefused(f"{other} is not supported: use {_URL_FORMS}")


def reading(engine: Engine) -> Engine:
    """Make an engine for transactions that only read and see one state of the database throughout.

    Args:
        engine: As opened.

    Returns:
        An engine on the same connections. Its reads wait for no writer and hold none up.
    """
    if engine.dialect.name == "sqlite":
        return engine.execution_options(**{_READS_ONLY: True})
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def is_current(engine: Engine) -> bool:
    """Tell whether the tables are there and as new as this program.

    Args:
        engine: As opened.

    Returns:
        False when ``gateway.ledger.migrate.upgrade`` has something to do or to refuse.

    Raises:
        StoreUnavailable: The database cannot be reached.
    """
    with store_errors(), reading(engine).connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return False
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    return list(found) == [SCHEMA_REVISION]


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn the database's ways of being out of order into one.

    Raises:
        StoreUnavailable: The database cannot be reached, is full, or does not answer in time.
    """
    try:
        yield
    except (OperationalError, InterfaceError, InternalError) as failure:
        told = str(failure.orig).strip().partition("\n")[0]
        raise StoreUnavailable(f"the ledger database is not available: {told}") from failure
    except PoolTimeout as failure:
        raise StoreUnavailable("the ledger database has no free connection") from failure


class LedgerStore:
    """Appends records to the ledger; the only writer of ``records`` and ``record_lines``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._insert_records = _BulkInsert(engine, records)
        self._insert_lines = _BulkInsert(engine, record_lines)

    def shipped_to(self, writer: str) -> ShippedTo | None:
        """Tell how far a journal has been read into the ledger.

        Args:
            writer: Id of the journal.

        Returns:
            The position given with its last append; ``None`` when there was none.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        query = select(shipped.c.segment, shipped.c.offset).where(shipped.c.writer == writer)
        with store_errors(), reading(self._engine).connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else ShippedTo(segment=row.segment, offset=row.offset)

    def append(self, writer: str, records: Sequence[LedgerRecord], shipped_to: ShippedTo) -> None:
        """Add records and the position after them, all or nothing.

        Args:
            writer: Id of the journal.
            records: In the order of ``seq``. One whose id is in the ledger already is skipped.
                What no database can hold is rewritten as ``storable`` says.
            shipped_to: The journal's position after them.

        Raises:
            StoreUnavailable: The database cannot be reached; nothing was written.
            LedgerConflict: A new record has a ``seq`` that the ledger has already seen from this
                journal, so the journal has lost its end; nothing was written.
            CorrectionOfCorrection: A record corrects one that is a correction; nothing was written.
        """
        with store_errors():
            try:
                self._append(writer, records, shipped_to)
            except (DataError, OverflowError):
                self._append(writer, [storable(record) for record in records], shipped_to)

    def append_next(self, writer: str, make: Callable[[Connection], Sequence[LedgerRecord]]) -> int:
        """Add records of a writer that has no journal, one transaction after the other.

        Args:
            writer: Name of the writer, shared by every process.
            make: Makes the records, their ``seq`` aside, from what the ledger says now. It is
                called while nobody else can add records of this writer, in a transaction that sees
                all of them.

        Returns:
            How many records there were.

        Raises:
            StoreUnavailable: The database cannot be reached; nothing was written.
            CorrectionOfCorrection: A record corrects one that is a correction; nothing was written.
        """
        of_writer = shipped.c.writer == writer
        with store_errors(), self._engine.begin() as connection:
            connection.execute(
                _INSERT_NEW_WRITER, {"writer": writer, "seq": START.seq, "hash": START.hash}
            )
            position = select(shipped.c.seq, shipped.c.hash).where(of_writer).with_for_update()
            found = connection.execute(position).one()
            head = ChainHead(seq=found.seq, hash=found.hash)
            made = make(connection)
            _refuse_chained(connection, made)
            numbered = [
                msgspec.structs.replace(record, seq=seq)
                for seq, record in enumerate(made, start=head.seq + 1)
            ]
            rows, lines, head = _chain_rows(writer, head, numbered)
            self._insert_records.run(connection, rows)
            self._insert_lines.run(connection, lines)
            moved = update(shipped).where(of_writer).values(seq=head.seq, hash=head.hash)
            connection.execute(moved)
        return len(numbered)

    def _append(self, writer: str, entries: Sequence[LedgerRecord], shipped_to: ShippedTo) -> None:
        of_writer = shipped.c.writer == writer
        position = select(shipped.c.seq, shipped.c.hash).where(of_writer).with_for_update()
        with self._engine.begin() as connection:
            found = connection.execute(position).one_or_none()
            head = START if found is None else ChainHead(seq=found.seq, hash=found.hash)
            new = _drop_known(connection, entries)
            _refuse_chained(connection, new)
            rows, lines, head = _chain_rows(writer, head, new)
            self._insert_records.run(connection, rows)
            self._insert_lines.run(connection, lines)
            values = {
                "segment": shipped_to.segment,
                "offset": shipped_to.offset,
                "seq": head.seq,
                "hash": head.hash,
            }
            if found is None:
                connection.execute(insert(shipped).values(writer=writer, **values))
            else:
                connection.execute(update(shipped).where(of_writer).values(values))


class _BulkInsert:
    """An INSERT whose rows go straight to the driver.

    SQLAlchemy would check and convert every value of every row, which takes longer than writing
    them: 50 µs of processor time a record against 40, measured 2026-11-23.
    """

    def __init__(self, engine: Engine, table: Table) -> None:
        compiled = insert(table).compile(dialect=engine.dialect)
        self._sql = str(compiled)
        self._by_position = compiled.positional
        self._values_of = itemgetter(*table.c.keys())
        self._json_columns = [c.key for c in table.c if isinstance(c.type, JSON)]

    def run(self, connection: Connection, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        for row in rows:
            for name in self._json_columns:
                if row[name] is not None:
                    row[name] = _to_json(row[name])
        values: Any = [self._values_of(row) for row in rows] if self._by_position else rows
        connection.exec_driver_sql(self._sql, values)


def _drop_known(connection: Connection, entries: Sequence[LedgerRecord]) -> Sequence[LedgerRecord]:
    by_id: dict[str, LedgerRecord] = {}
    for entry in entries:
        by_id.setdefault(entry.id, entry)
    known = set(
        connection.execute(select(records.c.id).where(records.c.id.in_(list(by_id)))).scalars()
    )
    return [entry for entry in by_id.values() if entry.id not in known]


def _refuse_chained(connection: Connection, entries: Sequence[LedgerRecord]) -> None:
    """Refuse a correction of a correction, whichever of the two comes first.

    A sum would count it and the call it belongs to would not.
    """
    links = {entry.id: entry.corrects for entry in entries if entry.corrects is not None}
    if not links:
        return
    one = records.c
    is_link = or_(
        and_(one.id.in_(list(links.values())), one.corrects.is_not(None)),
        one.corrects.in_(list(links)),
    )
    query = select(one.id, one.corrects).where(is_link)
    links |= {row.id: row.corrects for row in connection.execute(query)}
    for id_, corrects in links.items():
        if corrects in links:
            raise CorrectionOfCorrection(
                f"record {id_} corrects {corrects}, which is a correction itself: "
                "what is corrected is a call"
            )


def _chain_rows(
    writer: str, head: ChainHead, entries: Sequence[LedgerRecord]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], ChainHead]:
    rows, lines = [], []
    for entry in entries:
        if entry.seq <= head.seq:
            raise LedgerConflict(
                f"journal {writer} brings record {entry.id} as number {entry.seq}, "
                f"but the ledger has number {head.seq} from it already"
            )
        row = to_row(entry)
        row["writer"] = writer
        row["prev_hash"] = head.hash
        head = ChainHead(seq=entry.seq, hash=chain_hash(head.hash, entry))
        row["hash"] = head.hash
        rows.append(row)
        lines += to_line_rows(entry)
    return rows, lines, head


def _open_sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise DatabaseRefused("sqlite needs a file, as in sqlite:///data/taximeter.db")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        connect_args={"timeout": _BUSY_S_MAX},
        hide_parameters=True,
        json_serializer=_to_json,
        json_deserializer=msgspec.json.decode,
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver would begin a transaction at the first change only, leaving the reads before it
    # outside; we begin ourselves. https://docs.sqlalchemy.org/en/21/dialects/sqlite.html, checked
    # 2026-11-23.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    # With WAL and NORMAL a power cut can undo the last transactions, whose journal segments may be
    # deleted already.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # Without it INSERT OR REPLACE deletes rows past the append-only triggers.
    connection.execute("PRAGMA recursive_triggers = ON")


def _begin_sqlite(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get(_READS_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _open_postgres(url: URL) -> Engine:
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={
                "connect_timeout": _BUSY_S_MAX,
                "tcp_user_timeout": _BUSY_S_MAX * 1000,
                "application_name": "taximeter",
            },
            pool_pre_ping=True,
            hide_parameters=True,
            json_serializer=_to_json,
            json_deserializer=msgspec.json.decode,
        )
    except ModuleNotFoundError:
        raise DatabaseRefused(
            "PostgreSQL needs its driver: pip install 'psycopg[binary]'"
        ) from None


def _to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()
