"""Adds many rows to a table at once, the way each database takes them fastest.

Must never convert a value: rows come as the driver takes them, JSON as text.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

from sqlalchemy import Connection, Engine, Table, column
from sqlalchemy import table as light_table
from sqlalchemy.exc import DBAPIError


class BulkInsert(Protocol):
    """Adds rows to one table."""

    def run(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add rows.

        Args:
            connection: Inside a transaction.
            rows: Any number of them, none too.

        Raises:
            DBAPIError: As SQLAlchemy raises it for statements of its own.
        """
        ...


def bulk_insert(engine: Engine, table: Table, columns: Sequence[str]) -> BulkInsert:
    """Make an insert into one table.

    SQLAlchemy would check and convert every value of every row, and PostgreSQL would get a
    statement for every row: half the time a record takes there. ``python -m bench.shipping``
    measures it.

    Args:
        engine: Of the database.
        table: Where rows go.
        columns: What each row holds, in this order; every other column is null.

    Returns:
        The insert, for any connection of the engine.
    """
    if engine.dialect.name == "postgresql":
        quote = engine.dialect.identifier_preparer.quote
        names = ", ".join(quote(name) for name in columns)
        return _Copy(engine, f"COPY {quote(table.name)} ({names}) FROM STDIN")
    # The table as declared would have its columns in another order.
    into = light_table(table.name, *(column(name) for name in columns))
    return _Insert(str(into.insert().compile(dialect=engine.dialect)))


class _Insert:
    """One statement, prepared once and run over the rows by the driver."""

    def __init__(self, sql: str) -> None:
        self._sql: Final = sql

    def run(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            connection.exec_driver_sql(self._sql, list(rows))


class _Copy:
    """PostgreSQL's own way to take many rows.

    https://www.psycopg.org/psycopg3/docs/basic/copy.html, checked 2026-11-23.
    """

    def __init__(self, engine: Engine, sql: str) -> None:
        self._dialect: Final = engine.dialect
        self._sql: Final = sql
        self._errors: Final = engine.dialect.loaded_dbapi.Error

    def run(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        driver: Any = connection.connection.driver_connection
        try:
            with driver.cursor() as cursor, cursor.copy(self._sql) as copy:
                write_row = copy.write_row
                for row in rows:
                    write_row(row)
        except self._errors as error:
            if self._dialect.is_disconnect(error, driver, None):
                connection.invalidate(error)
            raise self._wrapped(error) from error

    def _wrapped(self, error: Exception) -> DBAPIError:
        wrapped = DBAPIError.instance(
            self._sql, None, error, self._errors, hide_parameters=True, dialect=self._dialect
        )
        return cast("DBAPIError", wrapped)
