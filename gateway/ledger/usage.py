"""Sums of usage and cost by group and period.

Must never let an unknown amount pass as zero: what is not known is counted beside the sums.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Label,
    Row,
    Select,
    func,
    literal_column,
    select,
    true,
)

from gateway.clock import epoch_us, from_epoch_us, to_rfc3339
from gateway.ledger.contributions import (
    FRACTION_DIGITS,
    Shape,
    odd_quantity,
    of_records,
    one_table,
    sum_columns,
    sums_of,
)
from gateway.ledger.filters import TAG, QueryRefused, RecordFilter, group_column, whose
from gateway.ledger.rollup_views import DAY_US, HOUR_US, find_view
from gateway.ledger.rollups import load_pending, pending_parts
from gateway.ledger.sums import total
from gateway.tables import record_lines, records, usage_cells, usage_rollups
from pricing.meters import TRAITS, Meter
from pricing.money import pico_to_text

Granularity = Literal["hour", "day", "month", "none"]

# Length of the steps the database groups by. Months are put together from days afterwards:
# databases disagree about calendars, not about division.
_STEP_US: Final[Mapping[str, int]] = {
    "hour": 3_600_000_000,
    "day": 86_400_000_000,
    "month": 86_400_000_000,
}
_BATCH_ROWS: Final = 1_000
_METER: Final = "meter"
# When the sums kept ready are further behind, the records answer alone: there is an index by time.
_PENDING_MAX: Final = 500_000
_JOURNALS_MAX: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """What to add up, and how finely.

    Attributes:
        wanted: The records.
        group_by: Names such as ``team``, ``meter`` or ``tag.env``; empty for one total.
        granularity: Length of a period, in UTC; ``none`` for the whole time.
    """

    wanted: RecordFilter = field(default_factory=RecordFilter)
    group_by: tuple[str, ...] = ()
    granularity: Granularity = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """The sums of one group in one period and currency.

    Attributes:
        group: Value by name of ``group_by``; ``None`` where a record has none. The meter is
            ``None`` for records that counted nothing.
        period_start_us: Start of the period, microseconds since 1970; ``None`` without periods.
        currency: ISO 4217 code of the sums.
        requests: Records that are not corrections, refusals included.
        input_tokens: Known input tokens; by meter, those of this meter.
        output_tokens: Known output tokens, likewise.
        cost_pico: Known cost in 10^-12 currency units; by meter, that of this meter.
        list_cost_pico: Known cost at published prices, likewise.
        unknown_cost_requests: Requests whose cost is not known and not in the sums.
        unknown_usage_requests: Requests whose tokens are not known and not in the sums.
        quantity: What the meter counted; ``None`` when not grouped by meter.
    """

    group: Mapping[str, str | None]
    period_start_us: int | None
    currency: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost_pico: int
    list_cost_pico: int
    unknown_cost_requests: int
    unknown_usage_requests: int
    quantity: Decimal | None


def usage_to_public(row: UsageRow) -> dict[str, Any]:
    """Write a row the way the API shows it.

    Args:
        row: Any row.

    Returns:
        The group's values first; the instant as RFC 3339 UTC, money and quantity as decimal text.
        Where nothing is known of any request, sums are ``None``: unknown is not zero.
    """
    is_counted = _is_known(row, row.unknown_usage_requests, row.input_tokens + row.output_tokens)
    is_priced = _is_known(row, row.unknown_cost_requests, row.cost_pico)
    shown: dict[str, Any] = dict(row.group)
    if row.period_start_us is not None:
        shown["period_start"] = to_rfc3339(row.period_start_us)
    shown |= {
        "requests": row.requests,
        "input_tokens": row.input_tokens if is_counted else None,
        "output_tokens": row.output_tokens if is_counted else None,
        "currency": row.currency,
        "cost": pico_to_text(row.cost_pico) if is_priced else None,
        "list_cost": pico_to_text(row.list_cost_pico) if is_priced else None,
        "unknown_cost_requests": row.unknown_cost_requests,
        "unknown_usage_requests": row.unknown_usage_requests,
    }
    if row.quantity is not None:
        shown["quantity"] = f"{row.quantity:f}"
    return shown


def _is_known(row: UsageRow, unknown_requests: int, known_sum: int) -> bool:
    return bool(known_sum) or unknown_requests < row.requests or not row.requests


def load_usage(connection: Connection, query: UsageQuery) -> list[UsageRow]:
    """Add usage up, from the sums that are kept ready and from the records they do not have.

    Args:
        connection: Inside a transaction that sees one state of the database throughout.
        query: What to add up.

    Returns:
        Rows by period, then by group, in the order of their values with ``None`` last. Groups
        without records have no row.

    Raises:
        QueryRefused: A name in ``group_by`` is not known, or given twice.
    """
    if len(set(query.group_by)) < len(query.group_by):
        raise QueryRefused("a name in group_by is given twice")
    sums: dict[_Place, _Sums] = {}
    for statement in _statements(connection, query):
        for row in connection.execute(statement, execution_options={"yield_per": _BATCH_ROWS}):
            place = _place_of(row, query)
            sums.setdefault(place, _Sums()).add(row)
    return [sums[place].to_row(place, query) for place in sorted(sums, key=_Place.sort_key)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    period_start_us: int | None
    currency: str
    values: tuple[str | None, ...]

    def sort_key(self) -> tuple[int, tuple[tuple[bool, str], ...], str]:
        values = tuple((value is None, value or "") for value in self.values)
        return (self.period_start_us or 0, values, self.currency)


@dataclass(slots=True)
class _Sums:
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_pico: int = 0
    list_cost_pico: int = 0
    unknown_cost_requests: int = 0
    unknown_usage_requests: int = 0
    whole: int = 0
    fraction: int = 0
    odd: Decimal = Decimal(0)

    def add(self, row: Row[Any]) -> None:
        self.requests += int(row.requests)
        self.cost_pico += total(row, "cost")
        self.list_cost_pico += total(row, "list_cost")
        self.unknown_cost_requests += int(row.unknown_cost)
        self.unknown_usage_requests += int(row.unknown_usage)
        if "odd" not in row._fields:
            self.input_tokens += total(row, "input")
            self.output_tokens += total(row, "output")
            return
        if row.odd is not None:
            self.odd += Decimal(row.odd) * int(row.lines)
        self.whole += total(row, "whole")
        self.fraction += total(row, "fraction")

    def quantity(self) -> Decimal:
        unit = 10**FRACTION_DIGITS
        steps = self.whole * unit + self.fraction
        whole, part = divmod(abs(steps), unit)
        text = f"{whole}.{part:0{FRACTION_DIGITS}d}".rstrip("0").rstrip(".")
        exact = Decimal(text if steps >= 0 else f"-{text}")
        return exact + self.odd if self.odd else exact

    def to_row(self, place: _Place, query: UsageQuery) -> UsageRow:
        group = dict(zip(query.group_by, place.values, strict=True))
        meter = group.get(_METER)
        quantity = None if meter is None else self.quantity()
        tokens = {"input": self.input_tokens, "output": self.output_tokens}
        if meter in _KNOWN_METERS and quantity is not None:
            # Nobody counts parts of tokens; should they, those that make up whole ones count.
            tokens[TRAITS[Meter(meter)].direction] = int(quantity)
        return UsageRow(
            group=group,
            period_start_us=place.period_start_us,
            currency=place.currency,
            requests=self.requests,
            input_tokens=tokens["input"],
            output_tokens=tokens["output"],
            cost_pico=self.cost_pico,
            list_cost_pico=self.list_cost_pico,
            unknown_cost_requests=self.unknown_cost_requests,
            unknown_usage_requests=self.unknown_usage_requests,
            quantity=quantity,
        )


_KNOWN_METERS: Final = frozenset(meter.value for meter in Meter)


def _place_of(row: Row[Any], query: UsageQuery) -> _Place:
    values = tuple(getattr(row, f"g{n}") for n in range(len(query.group_by)))
    return _Place(
        period_start_us=_start_of(int(row.period), query.granularity),
        currency=row.money,
        values=values,
    )


def _start_of(period: int, granularity: Granularity) -> int | None:
    if granularity == "none":
        return None
    start_us = period * _STEP_US[granularity]
    if granularity == "month":
        day = from_epoch_us(start_us)
        return epoch_us(datetime(day.year, day.month, 1, tzinfo=UTC))
    return start_us


@dataclass(frozen=True, slots=True)
class _Span:
    """Instants from one on and before another, microseconds since 1970; ``None`` has no end."""

    start_us: int | None
    end_us: int | None

    def inner(self, step_us: int) -> "_Span | None":
        """Find the whole steps in it; ``None`` when there is none."""
        start = None if self.start_us is None else -(-self.start_us // step_us) * step_us
        end = None if self.end_us is None else self.end_us // step_us * step_us
        if start is not None and end is not None and start >= end:
            return None
        return _Span(start, end)

    def around(self, inner: "_Span") -> Iterator["_Span"]:
        """List what lies before and after a part of it."""
        if self.start_us is not None and self.start_us != inner.start_us:
            yield _Span(self.start_us, inner.start_us)
        if self.end_us is not None and self.end_us != inner.end_us:
            yield _Span(inner.end_us, self.end_us)

    def has(self, instant: ColumnElement[int]) -> list[ColumnElement[bool]]:
        """Tell instants in it."""
        found = [] if self.start_us is None else [instant >= self.start_us]
        return found if self.end_us is None else [*found, instant < self.end_us]


def _statements(connection: Connection, query: UsageQuery) -> Iterator[Select[Any]]:
    """Ask for sums that together are what the records make.

    Whole days and hours come from the sums that are kept ready, with what those do not have yet;
    the minutes before and after come from the records.
    """
    asked = _Span(query.wanted.from_us, query.wanted.to_us)
    hours = asked.inner(HOUR_US)
    view = find_view(_more_columns(query), is_by_meter=_METER in query.group_by)
    pending = load_pending(connection)
    behind = sum(one.until - one.after for one in pending)
    if view is None or hours is None or behind > _PENDING_MAX or len(pending) > _JOURNALS_MAX:
        yield _of_parts(query, [_of_records(query, asked)])
        return
    shape = _shape_of(query)
    wanted = [*hours.has(records.c.started_at_us), *whose(query.wanted, records)]
    parts = [_of_records(query, edge) for edge in asked.around(hours)]
    parts += pending_parts(shape, pending, wanted)
    if parts:
        yield _of_parts(query, parts)
    days = None if query.granularity == "hour" else hours.inner(DAY_US)
    if days is None:
        yield _of_view(query, view.at("hour"), hours)
        return
    yield _of_view(query, view.at("day"), days)
    for edge in hours.around(days):
        yield _of_view(query, view.at("hour"), edge)


def _more_columns(query: UsageQuery) -> set[str]:
    """Name the columns a question needs that not every view has."""
    wanted = query.wanted
    more = {"user"} if wanted.user is not None or "user" in query.group_by else set()
    if wanted.tags or any(name.startswith(TAG) for name in query.group_by):
        more.add("tags")
    return more


def _shape_of(query: UsageQuery) -> Shape:
    is_by_meter = _METER in query.group_by
    keys: list[Label[Any]] = [
        (record_lines.c.meter if name == _METER else group_column(name)).label(f"g{n}")
        for n, name in enumerate(query.group_by)
    ]
    keys.append(_period(query, records.c.started_at_us))
    keys.append(records.c.currency.label("money"))
    if is_by_meter:
        keys.append(odd_quantity().label("odd"))
    return Shape(keys=tuple(keys), is_by_meter=is_by_meter)


def _period(query: UsageQuery, at_us: ColumnElement[int]) -> Label[int]:
    if query.granularity == "none":
        return literal_column("0", BigInteger).label("period")
    step_us = literal_column(str(_STEP_US[query.granularity]), BigInteger)
    return (at_us // step_us).label("period")


def _of_records(query: UsageQuery, span: _Span) -> Select[Any]:
    wanted = [*span.has(records.c.started_at_us), *whose(query.wanted, records)]
    return of_records(_shape_of(query), wanted, lambda _: true())


def _of_parts(query: UsageQuery, parts: Sequence[Select[Any]]) -> Select[Any]:
    shape, table = _shape_of(query), one_table(parts)
    keys = [table.c[name] for name in shape.names]
    columns: list[ColumnElement[Any]] = [*keys, *sums_of(table, shape)]
    return select(*columns).group_by(*keys)


def _of_view(query: UsageQuery, view: str, span: _Span) -> Select[Any]:
    kept, cells = usage_rollups.c, usage_cells.c
    is_by_meter = _METER in query.group_by
    keys: list[Label[Any]] = [
        (cells.meter if name == _METER else group_column(name, usage_cells)).label(f"g{n}")
        for n, name in enumerate(query.group_by)
    ]
    keys += [_period(query, kept.start_us), cells.currency.label("money")]
    if is_by_meter:
        keys.append(cells.odd.label("odd"))
    columns: list[ColumnElement[Any]] = [
        *keys,
        *(func.sum(kept[name]).label(name) for name in sum_columns(is_by_meter=is_by_meter)),
    ]
    return (
        select(*columns)
        .select_from(usage_rollups.join(usage_cells, cells.id == kept.cell_id))
        .where(kept.view == view, *span.has(kept.start_us), *whose(query.wanted, usage_cells))
        .group_by(*(key.name for key in keys))
    )
