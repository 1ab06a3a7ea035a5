"""The ledger database: opening it and appending what a journal holds.

Must never change or delete a record; the database refuses it too.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import (
    Connection,
    Engine,
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
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.ledger.bulk import bulk_insert
from gateway.ledger.chain import START, ChainHead, chain_hash
from gateway.ledger.errors import (
    CorrectionOfCorrection,
    LedgerConflict,
    ShippedTo,
    StoreUnavailable,
)
from gateway.ledger.record import LedgerRecord
from gateway.ledger.rows import (
    LINE_COLUMNS,
    RECORD_COLUMNS,
    storable,
    to_line_values,
    to_values,
)
from gateway.tables import record_lines, records, shipped

# The newest revision in gateway/ledger/migrations; compared with the database at every start
# without importing Alembic, which takes longer than the comparison. tests/ledger/test_store.py
# checks that it is the newest.
SCHEMA_REVISION: Final = "0015"

_URL_FORMS: Final = "sqlite:///file.db or postgresql://user:password@host:port/database"
_BUSY_S_MAX: Final = 10
_COLUMNS: Final = ("writer", "prev_hash", "hash", *RECORD_COLUMNS)
_READS_ONLY: Final = "taximeter_reads_only"


# Two processes may add the first records of a writer at once; both must find a row to lock.
_INSERT_NEW_WRITER: Final = text(
    'INSERT INTO shipped (writer, segment, "offset", seq, hash) '
    "VALUES (:writer, 0, 0, :seq, :hash) ON CONFLICT (writer) DO NOTHING"
)

# One value, however many ids: a placeholder for each takes longer than finding them.
_KNOWN_SQLITE: Final = "SELECT id FROM records WHERE id IN (SELECT value FROM json_each(?))"
_KNOWN_POSTGRES: Final = "SELECT id FROM records WHERE id = ANY(%s)"

# A commit that PostgreSQL could forget would be one whose journal segments are deleted already; and
# who waits for a lock says so, time and again, rather than wait in silence.
_SET_UP_APPEND: Final = (
    "SELECT set_config('lock_timeout', '{}', true), "
    "CASE current_setting('synchronous_commit') WHEN 'off' "
    "THEN set_config('synchronous_commit', 'on', true) END"
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
        raise StoreUnavailable(
            f"the ledger database is not available: {_told(failure)}"
        ) from failure
    except PoolTimeout as failure:
        raise StoreUnavailable("the ledger database has no free connection") from failure


class LedgerStore:
    """Appends records to the ledger; the only writer of ``records`` and ``record_lines``."""

    def __init__(self, engine: Engine, *, lock_s_max: float = _BUSY_S_MAX) -> None:
        """Prepare; nothing is connected to.

        Args:
            engine: As opened.
            lock_s_max: How long PostgreSQL waits for somebody's lock before an append fails.
                SQLite's own limit is set for the whole file.
        """
        self._engine = engine
        self._set_up = _SET_UP_APPEND.format(round(lock_s_max * 1000))
        self._insert_records = bulk_insert(engine, records, _COLUMNS)
        self._insert_lines = bulk_insert(engine, record_lines, LINE_COLUMNS)

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
            StoreUnavailable: The database cannot be reached, or refuses; nothing was written.
            LedgerConflict: A new record has a ``seq`` that the ledger has already seen from this
                journal, so the journal has lost its end; nothing was written.
            CorrectionOfCorrection: A record corrects one that is a correction; nothing was written.
        """
        with store_errors():
            try:
                self._append(writer, records, shipped_to)
            except (DataError, OverflowError):
                self._append(writer, [storable(record) for record in records], shipped_to)
            except IntegrityError:
                # Another process has added one of them meanwhile; this time it is known.
                self._append(writer, records, shipped_to)
            except ProgrammingError as refused:
                # Rights or a table are missing: for somebody to mend while the journal waits.
                raise StoreUnavailable(f"the ledger database refuses: {_told(refused)}") from None

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
        with store_errors(), self._appending() as connection:
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

    @contextmanager
    def _appending(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(self._set_up)
            yield connection

    def _append(self, writer: str, entries: Sequence[LedgerRecord], shipped_to: ShippedTo) -> None:
        of_writer = shipped.c.writer == writer
        position = select(shipped.c.seq, shipped.c.hash).where(of_writer).with_for_update()
        with self._appending() as connection:
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


def _drop_known(connection: Connection, entries: Sequence[LedgerRecord]) -> Sequence[LedgerRecord]:
    by_id: dict[str, LedgerRecord] = {}
    for entry in entries:
        by_id.setdefault(entry.id, entry)
    ids = list(by_id)
    is_sqlite = connection.dialect.name == "sqlite"
    query = _KNOWN_SQLITE if is_sqlite else _KNOWN_POSTGRES
    found = connection.exec_driver_sql(query, (_to_json(ids) if is_sqlite else ids,))
    known = set(found.scalars())
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
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], ChainHead]:
    rows: list[tuple[Any, ...]] = []
    lines: list[tuple[Any, ...]] = []
    seq, last = head.seq, head.hash
    for entry in entries:
        if entry.seq <= seq:
            raise LedgerConflict(
                f"journal {writer} brings record {entry.id} as number {entry.seq}, "
                f"but the ledger has number {seq} from it already"
            )
        seq, before = entry.seq, last
        last = chain_hash(before, entry)
        rows.append((writer, before, last, *to_values(entry)))
        lines += to_line_values(entry)
    return rows, lines, ChainHead(seq=seq, hash=last)


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
    # A page that is changed again and again is then copied into the file once where it would be
    # four times; the log keeps sixteen megabytes for it.
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    # Without it INSERT OR REPLACE deletes rows past the append-only triggers.
    connection.execute("PRAGMA recursive_triggers = ON")


def _begin_sqlite(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get(_READS_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _open_postgres(url: URL) -> Engine:
    try:
        engine = create_engine(
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
    event.listen(engine, "connect", _set_up_postgres)
    return engine


def _set_up_postgres(connection: DBAPIConnection, _record: object) -> None:
    # Where it is off a crash of the server undoes the last transactions, whose journal segments may
    # be deleted already. Any other setting is at least as safe as ours, and the operator's choice.
    cursor = connection.cursor()
    cursor.execute(
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    )
    cursor.close()
    connection.commit()


def _told(failure: DBAPIError) -> str:
    return str(failure.orig).strip().partition("\n")[0]


def _to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()
