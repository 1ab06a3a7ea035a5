"""Which sums of usage are kept ready, and how records are laid out as their rows.

Must never hold a sum that the records do not make: see gateway.ledger.rollups.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Insert,
    Label,
    Select,
    Text,
    cast,
    func,
    literal,
    null,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from gateway.ledger.contributions import AMOUNTS, COUNTS, Shape, odd_quantity, one_table, sums_of
from gateway.tables import record_lines, records, usage_cells, usage_rollups

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US
STEPS: Final[Mapping[str, int]] = {"hour": HOUR_US, "day": DAY_US}

PLAIN: Final = (
    *("organization", "team", "project", "key", "provider"),
    *("model", "model_requested", "api", "outcome", "currency"),
)
_DIMENSIONS: Final = {
    column.name: column for column in usage_cells.c if column.name not in ("id", "cell")
}
SUMS: Final = (*COUNTS, *(f"{name}_{part}" for name in AMOUNTS for part in ("high", "low")))


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One way the sums are split.

    Attributes:
        name: In the table, before the name of the step.
        more: Columns it is split by beside ``PLAIN``.
        is_by_meter: Whether it holds sums of lines.
    """

    name: str
    more: tuple[str, ...] = ()
    is_by_meter: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the table that its rows have a value in, or may have."""
        of_lines = ("meter", "odd") if self.is_by_meter else ()
        return (*PLAIN, *self.more, *of_lines)

    def at(self, step: str) -> str:
        """Name the view in one step.

        Args:
            step: One of ``STEPS``.

        Returns:
            Its name, as in the table.
        """
        return f"{self.name}.{step}"


# What needs both end users and tags, or end users and meters, has no view: there would be about as
# many rows as records.
VIEWS: Final = (
    View(name="plain"),
    View(name="users", more=("user",)),
    View(name="tags", more=("tags",)),
    View(name="meters", is_by_meter=True),
    View(name="tag_meters", more=("tags",), is_by_meter=True),
)


def find_view(names: Collection[str], *, is_by_meter: bool) -> View | None:
    """Find the view that answers a question.

    Args:
        names: Columns the question needs beside ``PLAIN``.
        is_by_meter: Whether it is about lines.

    Returns:
        The smallest one; ``None`` when only the records can answer.
    """
    for view in VIEWS:
        if view.is_by_meter == is_by_meter and set(names) <= set(view.more):
            return view
    return None


def view_shape(*, is_by_meter: bool) -> Shape:
    """Describe contributions that every view of one kind can be made of.

    Args:
        is_by_meter: Which kind.

    Returns:
        Their keys: every column a view can have, and the instant as ``at_us``.
    """
    keys: list[Label[Any]] = [records.c[name].label(name) for name in (*PLAIN, "user", "tags")]
    keys.append(records.c.started_at_us.label("at_us"))
    if is_by_meter:
        keys += [record_lines.c.meter.label("meter"), odd_quantity().label("odd")]
    return Shape(keys=tuple(keys), is_by_meter=is_by_meter)


def rows_of(view: View, step: str, table: FromClause) -> Select[Any]:
    """Ask for the rows of a view that contributions make.

    Args:
        view: Which.
        step: A name of ``STEPS``.
        table: Contributions of ``view_shape``.

    Returns:
        ``view``, ``start_us``, ``cell`` and every sum.
    """
    size = literal(STEPS[step], BigInteger, literal_execute=True)
    shape = view_shape(is_by_meter=view.is_by_meter)
    # One text is grouped by in a fraction of the time that a dozen columns take.
    start, values = ((table.c.at_us // size) * size).label("start_us"), _values_of(view, table)
    grouped = (
        select(start, values.label("cell_values"), *sums_of(table, shape))
        .group_by(start, values)
        .subquery()
    )
    nothing = literal(0, BigInteger, literal_execute=True)
    columns: list[ColumnElement[Any]] = [
        literal(view.at(step), Text).label("view"),
        grouped.c.start_us,
        _Cell(grouped.c.cell_values).label("cell"),
        *(
            func.coalesce(cast(grouped.c.get(name, nothing), BigInteger), 0).label(name)
            for name in SUMS
        ),
    ]
    return select(*columns)


def add_rows(
    dialect: str, parts: Sequence[Select[Any]], *, is_by_meter: bool
) -> tuple[Insert, Insert]:
    """Add contributions to every view of one kind.

    Args:
        dialect: Of the database.
        parts: Contributions of ``view_shape``.
        is_by_meter: Which kind.

    Returns:
        Two statements, to be run in this order: new cells get their row, then the sums grow.
    """
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    views = [view for view in VIEWS if view.is_by_meter == is_by_meter]
    table = select(one_table(parts)).cte("added")
    cells = union_all(*(cells_of(view, table) for view in views)).subquery("cells_added")
    # Without the WHERE, SQLite would take ON CONFLICT for the condition of a join.
    cells_there = (
        make(usage_cells)
        .from_select(["cell", *_DIMENSIONS], select(cells).where(true()))
        .on_conflict_do_nothing(index_elements=["cell"])
    )
    rows = union_all(*(rows_of(view, step, table) for view in views for step in STEPS))
    added = rows.subquery("rows_added")
    source = (
        select(added.c.view, added.c.start_us, usage_cells.c.id, *(added.c[name] for name in SUMS))
        .select_from(added.join(usage_cells, usage_cells.c.cell == added.c.cell))
        .where(true())
    )
    adding = make(usage_rollups).from_select(["view", "start_us", "cell_id", *SUMS], source)
    grown = {name: usage_rollups.c[name] + adding.excluded[name] for name in SUMS}
    sums_grown = adding.on_conflict_do_update(
        index_elements=["view", "start_us", "cell_id"], set_=grown
    )
    return cells_there, sums_grown


def cells_of(view: View, table: FromClause) -> Select[Any]:
    """Ask for the cells of a view that contributions fall into.

    Args:
        view: Which.
        table: Contributions of ``view_shape``.

    Returns:
        ``cell``, and every column that a view can split by: null where this one does not.
    """
    split = [table.c[name] for name in view.columns]
    dimensions = [
        (table.c[name] if name in view.columns else cast(null(), column.type)).label(name)
        for name, column in _DIMENSIONS.items()
    ]
    return select(_Cell(_values_of(view, table)).label("cell"), *dimensions).group_by(*split)


def _values_of(view: View, table: FromClause) -> ColumnElement[str]:
    # Two views of one length must not share cells: a user is not a set of tags.
    name = literal(view.name, Text, literal_execute=True)
    return _Values(name, *(table.c[name] for name in view.columns))


class _Values(FunctionElement[str]):
    """A text that tells every list of values from every other, nulls included."""

    name = "cell_values"
    type = Text()
    inherit_cache = True


@compiles(_Values)
def _values(element: _Values, compiler: SQLCompiler, **kw: object) -> str:
    return f"json_array({compiler.process(element.clauses, **kw)})"


@compiles(_Values, "postgresql")
def _values_postgres(element: _Values, compiler: SQLCompiler, **kw: object) -> str:
    return f"CAST(jsonb_build_array({compiler.process(element.clauses, **kw)}) AS TEXT)"


class _Cell(FunctionElement[str]):
    """The name of a cell; PostgreSQL cannot index a text of any length."""

    name = "cell"
    type = Text()
    inherit_cache = True


@compiles(_Cell)
def _cell(element: _Cell, compiler: SQLCompiler, **kw: object) -> str:
    return str(compiler.process(element.clauses, **kw))


@compiles(_Cell, "postgresql")
def _cell_postgres(element: _Cell, compiler: SQLCompiler, **kw: object) -> str:
    return f"encode(sha256(convert_to({compiler.process(element.clauses, **kw)}, 'UTF8')), 'hex')"
