"""Sums of usage by hour and by day, kept beside the records and made of nothing else.

Must never be part of the transaction that ships records, nor the only place where a sum stands.

How far the sums are is told by journal: the records of a journal come in the order of ``seq``, and
its head in ``shipped`` moves in the transaction that adds them. What was committed late is
therefore behind a mark that has not moved yet: nothing is passed over, nothing is added twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Engine,
    FromClause,
    Insert,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    true,
    update,
)

from gateway.ledger.contributions import Condition, Shape, of_corrected, of_records, one_table
from gateway.ledger.rollup_views import (
    DAY_US,
    STEPS,
    SUMS,
    VIEWS,
    add_rows,
    cells_of,
    rows_of,
    view_shape,
)
from gateway.ledger.store import reading, store_errors
from gateway.tables import records, shipped, usage_cells, usage_marks, usage_rollups

# One transaction of SQLite keeps every other writer out, so it is short; PostgreSQL does the work
# in a process of its own, and does more of it at once in less time.
_BATCH_SQLITE: Final = 250
_BATCH_POSTGRES: Final = 10_000

# Readers are not kept waiting, and the transaction sees what the one before it has done: a lock
# that comes first is taken before the state of the database is.
_LOCK: Final = text("LOCK TABLE usage_marks IN EXCLUSIVE MODE")
_DIMENSIONS: Final = tuple(
    column.name for column in usage_cells.c if column.name not in ("id", "cell")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Records of one journal that the sums do not have.

    Attributes:
        writer: The journal.
        after: Number of the last record they have; 0 for none.
        until: Number of the last one to add.
    """

    writer: str
    after: int
    until: int

    def has(self, table: FromClause) -> Condition:
        """Tell these records.

        Args:
            table: ``records`` or another name of it.

        Returns:
            The condition that they and no others meet.
        """
        number = table.c.seq
        return and_(table.c.writer == self.writer, number > self.after, number <= self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A sum that is not what the records make.

    Attributes:
        view: Which way the sums are split.
        start_us: Start of the hour or the day, microseconds since 1970.
        group: What the row is about, by column; columns without a value are left out.
        kept: What stands in the table, by name of the sum; empty when there is no such row.
        made: What the records make, likewise.
    """

    view: str
    start_us: int
    group: Mapping[str, Any]
    kept: Mapping[str, int]
    made: Mapping[str, int]


def load_pending(connection: Connection) -> list[Pending]:
    """Look up what the sums do not have yet.

    Args:
        connection: Inside a transaction that sees one state of the database throughout.

    Returns:
        Journals with records to add, in the order of their names.
    """
    mark = func.coalesce(usage_marks.c.seq, 0)
    both = shipped.outerjoin(usage_marks, usage_marks.c.writer == shipped.c.writer)
    query = (
        select(shipped.c.writer, mark.label("after"), shipped.c.seq.label("until"))
        .select_from(both)
        .where(shipped.c.seq > mark)
        .order_by(shipped.c.writer)
    )
    return [
        Pending(writer=row.writer, after=row.after, until=row.until)
        for row in connection.execute(query)
    ]


def is_rolled(table: FromClause) -> Condition:
    """Tell records that the sums have.

    Args:
        table: ``records`` or another name of it.

    Returns:
        A condition the database looks up for each record: for few of them.
    """
    return table.c.seq <= _mark_of(table)


def is_pending(table: FromClause) -> Condition:
    """Tell records that the sums do not have.

    Args:
        table: ``records`` or another name of it.

    Returns:
        A condition the database looks up for each record: for few of them.
    """
    return table.c.seq > _mark_of(table)


def _mark_of(table: FromClause) -> ColumnElement[int]:
    mark = select(usage_marks.c.seq).where(usage_marks.c.writer == table.c.writer)
    return func.coalesce(mark.correlate(table).scalar_subquery(), 0)


def pending_parts(
    shape: Shape, pending: Sequence[Pending], wanted: Sequence[Condition]
) -> list[Select[Any]]:
    """Ask for what pending records add to the sums, all of them together.

    Args:
        shape: How finely.
        pending: All there are, as the same transaction has looked them up.
        wanted: Conditions on ``records``.

    Returns:
        Contributions; none when nothing is pending.
    """
    parts = []
    for one in pending:
        mine = one.has(records)
        # Whatever this transaction sees counts: both what the sums have and all that is pending.
        parts.append(of_records(shape, [mine, *wanted], lambda _: true()))
        parts.append(
            of_corrected(
                shape,
                wanted,
                corrections=[mine],
                is_new=is_pending,
                is_old=is_rolled,
            )
        )
    return parts


def step_parts(shape: Shape, step: Pending) -> list[Select[Any]]:
    """Ask for what the next records of one journal add to the sums, while others wait.

    Args:
        shape: How finely.
        step: The records.

    Returns:
        Contributions.
    """

    def counts(other: FromClause) -> Condition:
        return or_(is_rolled(other), step.has(other))

    return [
        of_records(shape, [step.has(records)], counts),
        of_corrected(shape, [], corrections=[step.has(records)], is_new=step.has, is_old=is_rolled),
    ]


_NO_STEP: Final[Mapping[str, Any]] = {"writer": "", "after": 0, "until": 0}


class _Adding:
    """The statements of a step, written once: that takes longer than a small step does."""

    def __init__(self, dialect: Dialect) -> None:
        places: Any = [bindparam(name, value) for name, value in _NO_STEP.items()]
        step = Pending(writer=places[0], after=places[1], until=places[2])
        # Texts alone: what they were made of takes ten megabytes.
        self._statements = [
            _write(statement, dialect)
            for is_by_meter in (False, True)
            for statement in add_rows(
                dialect.name,
                step_parts(view_shape(is_by_meter=is_by_meter), step),
                is_by_meter=is_by_meter,
            )
        ]

    def run(self, connection: Connection, step: Pending) -> None:
        told = {"writer": step.writer, "after": step.after, "until": step.until}
        for statement, constants, names in self._statements:
            values = {**constants, **told}
            given = values if names is None else tuple(values[name] for name in names)
            connection.exec_driver_sql(statement, given)


def _write(
    statement: Insert, dialect: Dialect
) -> tuple[str, Mapping[str, Any], Sequence[str] | None]:
    written = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    return str(written), dict(written.params), getattr(written, "positiontup", None)


class Rollups:
    """Keeps the sums; any number of processes may do so at once."""

    def __init__(self, engine: Engine, *, batch_records: int | None = None) -> None:
        """Prepare.

        Args:
            engine: As opened.
            batch_records: Most records in one transaction; ``None`` for what suits the database.
        """
        is_sqlite = engine.dialect.name == "sqlite"
        self._engine = engine
        self._writing = _repeatable(engine)
        self._reading = reading(engine)
        self._batch_records = batch_records or (_BATCH_SQLITE if is_sqlite else _BATCH_POSTGRES)
        self._adding: _Adding | None = None

    def pending(self) -> int:
        """Tell how many records the sums do not have yet, at most.

        Returns:
            The number; journals can have gaps, which count.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with store_errors(), self._reading.connect() as connection:
            return sum(one.until - one.after for one in load_pending(connection))

    def follow(self) -> int:
        """Add the next records of one journal.

        Returns:
            How many numbers the journal's mark moved; 0 when there was nothing to do.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        if not self.pending():
            return 0
        with store_errors(), self._writing.begin() as connection:
            _lock(connection)
            pending = load_pending(connection)
            if not pending:
                return 0
            # The journal that is furthest behind goes first, so that none waits for ever.
            most = max(pending, key=lambda one: one.until - one.after)
            step = replace(most, until=min(most.until, most.after + self._batch_records))
            if self._adding is None:
                self._adding = _Adding(connection.dialect)
            self._adding.run(connection, step)
            _move_mark(connection, step)
        return step.until - step.after

    def days(self) -> list[int]:
        """List the days that have records or sums.

        Returns:
            Their starts, microseconds since 1970, in order.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with store_errors(), self._reading.connect() as connection:
            kept = connection.execute(
                select(usage_rollups.c.start_us)
                .where(usage_rollups.c.view == VIEWS[0].at("day"))
                .distinct()
            )
            found = {int(day) for day in kept.scalars()}
            at = _next_start(connection, 0)
            while at is not None:
                found.add(at // DAY_US * DAY_US)
                at = _next_start(connection, (at // DAY_US + 1) * DAY_US)
        return sorted(found)

    def check(self, day_us: int) -> Iterator[Difference]:
        """Compare the sums of a day with what its records make, as far as the sums go.

        Args:
            day_us: Start of the day.

        Yields:
            Every row that differs, is missing or is too many.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with store_errors(), self._reading.connect() as connection:
            for view in VIEWS:
                parts = _day_parts(view_shape(is_by_meter=view.is_by_meter), day_us)
                table = one_table(parts)
                groups = {
                    row["cell"]: dict(row)
                    for row in connection.execute(cells_of(view, table)).mappings()
                }
                for step in STEPS:
                    made = _by_cell(connection, rows_of(view, step, table))
                    both = usage_rollups.join(
                        usage_cells, usage_cells.c.id == usage_rollups.c.cell_id, isouter=True
                    )
                    of_day = (
                        select(usage_rollups, *usage_cells.c)
                        .select_from(both)
                        .where(*_in_day(day_us, [view.at(step)]))
                    )
                    kept = _by_cell(connection, of_day)
                    for cell in sorted({*made, *kept}):
                        mine, theirs = kept.get(cell, {}), made.get(cell, {})
                        if _sums(mine) != _sums(theirs):
                            yield _difference(mine, theirs, groups.get(cell[1], mine))

    def rebuild(self, day_us: int) -> None:
        """Make the sums of a day again from its records, as far as the sums go.

        Args:
            day_us: Start of the day.

        Raises:
            StoreUnavailable: The database cannot be reached; nothing was changed.
        """
        names = [view.at(step) for view in VIEWS for step in STEPS]
        with store_errors(), self._writing.begin() as connection:
            _lock(connection)
            connection.execute(delete(usage_rollups).where(*_in_day(day_us, names)))
            dialect = connection.dialect.name
            for is_by_meter in (False, True):
                parts = _day_parts(view_shape(is_by_meter=is_by_meter), day_us)
                for statement in add_rows(dialect, parts, is_by_meter=is_by_meter):
                    connection.execute(statement)


def _repeatable(engine: Engine) -> Engine:
    """Transactions whose heads of journals and records are of one state of the database."""
    if engine.dialect.name == "sqlite":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ")


def _lock(connection: Connection) -> None:
    """Wait until nobody else changes the sums; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK)


def _move_mark(connection: Connection, step: Pending) -> None:
    moved = update(usage_marks).where(usage_marks.c.writer == step.writer).values(seq=step.until)
    if connection.execute(moved).rowcount == 0:
        connection.execute(insert(usage_marks).values(writer=step.writer, seq=step.until))


def _next_start(connection: Connection, from_us: int) -> int | None:
    query = select(func.min(records.c.started_at_us)).where(records.c.started_at_us >= from_us)
    found = connection.execute(query).scalar_one()
    return None if found is None else int(found)


def _day_parts(shape: Shape, day_us: int) -> list[Select[Any]]:
    started = records.c.started_at_us
    in_day = [started >= day_us, started < day_us + DAY_US, is_rolled(records)]
    return [of_records(shape, in_day, is_rolled)]


def _in_day(day_us: int, names: Sequence[str]) -> Sequence[Condition]:
    start = usage_rollups.c.start_us
    return [usage_rollups.c.view.in_(names), start >= day_us, start < day_us + DAY_US]


def _by_cell(
    connection: Connection, query: Select[Any]
) -> dict[tuple[int, str], Mapping[str, Any]]:
    return {
        (int(row["start_us"]), row["cell"]): dict(row)
        for row in connection.execute(query).mappings()
    }


def _sums(row: Mapping[str, Any]) -> Mapping[str, int]:
    return {name: int(row[name]) for name in SUMS} if row else {}


def _difference(
    kept: Mapping[str, Any], made: Mapping[str, Any], group: Mapping[str, Any]
) -> Difference:
    row = kept or made
    return Difference(
        view=row["view"],
        start_us=int(row["start_us"]),
        group={name: group[name] for name in _DIMENSIONS if group[name] is not None},
        kept=_sums(kept),
        made=_sums(made),
    )
