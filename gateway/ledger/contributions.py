"""What records add to sums of usage, as rows a database can add up.

Must never let an unknown amount pass as zero: what is not known is counted beside the sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Integer,
    Label,
    Select,
    Subquery,
    and_,
    case,
    cast,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from gateway.ledger.sums import sum_apart
from gateway.tables import record_lines, records

# Counts fit into 64 bits; amounts are added up in two parts.
COUNTS: Final = ("requests", "unknown_cost", "unknown_usage", "lines")
AMOUNTS: Final = ("input", "output", "cost", "list_cost", "whole", "fraction")
# A fraction of a quantity is counted in steps of 10^-12.
FRACTION_DIGITS: Final = 12

# A quantity with more digits than this would not fit.
_PLAIN_CHARS_MAX: Final = 18 + 1 + FRACTION_DIGITS
_ZERO: Final = literal_column("0", BigInteger)

Condition = ColumnElement[bool]
OnRecord = Callable[[FromClause], Condition]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How finely records are taken apart.

    Attributes:
        keys: What the sums are split by, labelled; columns of ``records`` or ``record_lines``.
        is_by_meter: Whether every line of a record counts for itself.
    """

    keys: tuple[Label[Any], ...]
    is_by_meter: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, in order."""
        return tuple(key.name for key in self.keys)


def of_records(shape: Shape, wanted: Sequence[Condition], counts: OnRecord) -> Select[Any]:
    """Ask for what records add.

    Args:
        shape: How finely.
        wanted: Conditions on ``records``.
        counts: Tells of a correction whether what it makes known is known.

    Returns:
        A row for each record, or each of its lines and one for a record without any.
    """
    is_call = records.c.corrects.is_(None)
    is_unknown_cost = and_(_lacks_cost(shape), ~_corrected("cost_pico", counts))
    is_unknown_usage = and_(_lacks_usage(), ~_corrected("input_total", counts))
    columns: list[ColumnElement[Any]] = [
        *shape.keys,
        _one_if(is_call).label("requests"),
        _one_if(is_unknown_cost).label("unknown_cost"),
        _one_if(is_unknown_usage).label("unknown_usage"),
        *_amounts(shape),
    ]
    return _from_records(shape, columns).where(*wanted)


def of_corrected(
    shape: Shape,
    wanted: Sequence[Condition],
    *,
    corrections: Sequence[Condition],
    is_new: OnRecord,
    is_old: OnRecord,
) -> Select[Any]:
    """Ask for what new corrections take from the calls that were counted as unknown before.

    Args:
        shape: How finely.
        wanted: Conditions on ``records``, the calls.
        corrections: Conditions on ``records`` that find the new corrections.
        is_new: The same condition, on any name of the table.
        is_old: Tells what was counted before.

    Returns:
        Rows as of ``of_records``, with counts of 0 and -1 and no amounts.
    """
    corrected = select(records.c.corrects).where(*corrections, records.c.corrects.is_not(None))
    # Of its own: inside the query its columns would be taken for those of the calls.
    ids = corrected.correlate(None).scalar_subquery()
    ends_cost = and_(
        _lacks_cost(shape), _corrected("cost_pico", is_new), ~_corrected("cost_pico", is_old)
    )
    ends_usage = and_(
        _lacks_usage(), _corrected("input_total", is_new), ~_corrected("input_total", is_old)
    )
    columns: list[ColumnElement[Any]] = [
        *shape.keys,
        _ZERO.label("requests"),
        (-_one_if(ends_cost)).label("unknown_cost"),
        (-_one_if(ends_usage)).label("unknown_usage"),
        *(_ZERO.label(name) for name in _amount_names(is_by_meter=shape.is_by_meter)),
    ]
    return _from_records(shape, columns).where(records.c.id.in_(ids), is_old(records), *wanted)


def one_table(parts: Sequence[Select[Any]]) -> Subquery:
    """Lay contributions together.

    Args:
        parts: At least one, all of one shape.

    Returns:
        All of their rows.
    """
    whole: Select[Any] | CompoundSelect[Any] = parts[0] if len(parts) == 1 else union_all(*parts)
    return whole.subquery("contributions")


def sums_of(table: FromClause, shape: Shape) -> Sequence[Label[Any]]:
    """Ask for sums of contributions.

    Args:
        table: As of ``one_table``.
        shape: The shape of its parts.

    Returns:
        A column for every count and two for every amount the shape has.
    """
    found: list[Label[Any]] = []
    for name in _sum_names(is_by_meter=shape.is_by_meter):
        if name in COUNTS:
            found.append(func.sum(table.c[name]).label(name))
        else:
            found += sum_apart(table.c[name], name)
    return found


def sum_columns(*, is_by_meter: bool) -> Sequence[str]:
    """Name the sums that contributions have.

    Args:
        is_by_meter: Those of lines, or else of records.

    Returns:
        The labels of ``sums_of``, which are the names of columns of ``usage_rollups``.
    """
    names = _sum_names(is_by_meter=is_by_meter)
    counts = [name for name in names if name in COUNTS]
    return [*counts, *(f"{n}_{part}" for n in names if n in AMOUNTS for part in ("high", "low"))]


def _sum_names(*, is_by_meter: bool) -> Sequence[str]:
    return ("requests", "unknown_cost", "unknown_usage", *_amount_names(is_by_meter=is_by_meter))


def _amount_names(*, is_by_meter: bool) -> tuple[str, ...]:
    if is_by_meter:
        return ("lines", "cost", "list_cost", "whole", "fraction")
    return ("input", "output", "cost", "list_cost")


def _from_records(shape: Shape, columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    if not shape.is_by_meter:
        return select(*columns).select_from(records)
    # Records that counted nothing, refused or unknown ones, keep one row of their own.
    both = records.outerjoin(record_lines, record_lines.c.record_id == records.c.id)
    return select(*columns).select_from(both)


def _one_if(condition: Condition) -> ColumnElement[int]:
    return case((condition, 1), else_=0)


def _was_sent() -> Condition:
    return and_(records.c.corrects.is_(None), records.c.outcome != "refused")


def _cost(shape: Shape, name: str) -> ColumnElement[Any]:
    of_record = records.c[name]
    if not shape.is_by_meter:
        return of_record
    return case((record_lines.c.record_id.is_(None), of_record), else_=record_lines.c[name])


def _lacks_cost(shape: Shape) -> Condition:
    return and_(_was_sent(), _cost(shape, "cost_pico").is_(None))


def _lacks_usage() -> Condition:
    lacks = or_(records.c.input_total.is_(None), records.c.output_total.is_(None))
    return and_(_was_sent(), lacks)


def _corrected(amount: str, counts: OnRecord) -> Condition:
    other = records.alias()
    return exists().where(
        other.c.corrects == records.c.id, other.c[amount].is_not(None), counts(other)
    )


def _amounts(shape: Shape) -> Sequence[Label[Any]]:
    costs = [
        _cost(shape, "cost_pico").label("cost"),
        _cost(shape, "list_cost_pico").label("list_cost"),
    ]
    if not shape.is_by_meter:
        totals = [records.c.input_total.label("input"), records.c.output_total.label("output")]
        return [*totals, *costs]
    has_line = record_lines.c.record_id.is_not(None)
    return [
        _one_if(has_line).label("lines"),
        *costs,
        _whole().label("whole"),
        _fraction().label("fraction"),
    ]


def odd_quantity() -> ColumnElement[str | None]:
    """Find quantities that cannot be added up as whole numbers and steps of their fraction.

    Returns:
        The text of such a quantity of a line; null for all others.
    """
    return case((_is_odd(), record_lines.c.quantity))


def _is_odd() -> Condition:
    quantity = record_lines.c.quantity
    is_long = func.length(quantity) - _DotAt(quantity) > FRACTION_DIGITS
    is_too_fine = and_(_has_dot(), or_(is_long, _DotAt(quantity) < 2))
    return or_(quantity.ilike("%e%"), is_too_fine, func.length(quantity) > _PLAIN_CHARS_MAX)


def _has_dot() -> Condition:
    return record_lines.c.quantity.like("%.%")


def _whole() -> ColumnElement[int | None]:
    quantity = record_lines.c.quantity
    before = func.substr(quantity, 1, _DotAt(quantity) - 1)
    return case(
        (_is_odd(), null()),
        (_has_dot(), cast(before, BigInteger)),
        else_=cast(quantity, BigInteger),
    )


def _fraction() -> ColumnElement[int | None]:
    quantity = record_lines.c.quantity
    after = func.substr(quantity, _DotAt(quantity) + 1).concat("0" * FRACTION_DIGITS)
    steps = cast(func.substr(after, 1, FRACTION_DIGITS), BigInteger)
    signed = case((quantity.like("-%"), -steps), else_=steps)
    return case((_is_odd(), null()), (_has_dot(), signed))


class _DotAt(FunctionElement[int]):
    """Where the first point of a text is, from 1; 0 when there is none."""

    name = "dot_at"
    type = Integer()
    inherit_cache = True


@compiles(_DotAt)
def _dot_at(element: _DotAt, compiler: SQLCompiler, **kw: object) -> str:
    return f"instr({compiler.process(element.clauses, **kw)}, '.')"


@compiles(_DotAt, "postgresql")
def _dot_at_postgres(element: _DotAt, compiler: SQLCompiler, **kw: object) -> str:
    return f"strpos({compiler.process(element.clauses, **kw)}, '.')"
