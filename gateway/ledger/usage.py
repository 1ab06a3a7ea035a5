"""Sums of usage and cost by group and period.

Must never let an unknown amount pass as zero: what is not known is counted beside the sums.
"""

from collections.abc import Mapping, Sequence
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
    and_,
    case,
    cast,
    func,
    literal_column,
    null,
    or_,
    select,
)

from gateway.clock import epoch_us, from_epoch_us, to_rfc3339
from gateway.ledger.filters import QueryRefused, RecordFilter, group_column, is_uncorrected, where
from gateway.ledger.sums import sum_apart, total
from gateway.tables import record_lines, records
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
    """
    shown: dict[str, Any] = dict(row.group)
    if row.period_start_us is not None:
        shown["period_start"] = to_rfc3339(row.period_start_us)
    shown |= {
        "requests": row.requests,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "currency": row.currency,
        "cost": pico_to_text(row.cost_pico),
        "list_cost": pico_to_text(row.list_cost_pico),
        "unknown_cost_requests": row.unknown_cost_requests,
        "unknown_usage_requests": row.unknown_usage_requests,
    }
    if row.quantity is not None:
        shown["quantity"] = f"{row.quantity:f}"
    return shown


def load_usage(connection: Connection, query: UsageQuery) -> list[UsageRow]:
    """Add usage up.

    Args:
        connection: Inside a transaction.
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
    statement = _by_meter(query) if _METER in query.group_by else _by_record(query)
    for row in connection.execute(statement, execution_options={"yield_per": _BATCH_ROWS}):
        place = _place_of(row, query)
        sums.setdefault(place, _Sums()).add(row, _meter_of(place, query))
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
    quantity: Decimal = Decimal(0)

    def add(self, row: Row[Any], meter: str | None) -> None:
        self.requests += int(row.requests)
        self.cost_pico += total(row, "cost")
        self.list_cost_pico += total(row, "list_cost")
        self.unknown_cost_requests += int(row.unknown_cost)
        self.unknown_usage_requests += int(row.unknown_usage)
        self.input_tokens += int(row.input_tokens or 0)
        self.output_tokens += int(row.output_tokens or 0)
        if meter is None:
            return
        counted = int(row.whole or 0)
        if row.fraction is not None:
            self.quantity += Decimal(row.fraction) * row.lines
        self.quantity += counted
        direction = TRAITS[Meter(meter)].direction if meter in _KNOWN_METERS else "none"
        if direction == "input":
            self.input_tokens += counted
        elif direction == "output":
            self.output_tokens += counted

    def to_row(self, place: _Place, query: UsageQuery) -> UsageRow:
        group = dict(zip(query.group_by, place.values, strict=True))
        return UsageRow(
            group=group,
            period_start_us=place.period_start_us,
            currency=place.currency,
            requests=self.requests,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cost_pico=self.cost_pico,
            list_cost_pico=self.list_cost_pico,
            unknown_cost_requests=self.unknown_cost_requests,
            unknown_usage_requests=self.unknown_usage_requests,
            quantity=self.quantity if group.get(_METER) is not None else None,
        )


_KNOWN_METERS: Final = frozenset(meter.value for meter in Meter)


def _meter_of(place: _Place, query: UsageQuery) -> str | None:
    return dict(zip(query.group_by, place.values, strict=True)).get(_METER)


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


def _period(granularity: Granularity) -> ColumnElement[int]:
    if granularity == "none":
        return literal_column("0", BigInteger)
    return records.c.started_at_us // literal_column(str(_STEP_US[granularity]), BigInteger)


def _common(query: UsageQuery, cost: ColumnElement[int]) -> Sequence[ColumnElement[Any]]:
    original = records.c.corrects.is_(None)
    sent = and_(original, records.c.outcome != "refused")
    cost_unknown = and_(sent, cost.is_(None), is_uncorrected("cost_pico"))
    usage_unknown = and_(
        sent,
        or_(records.c.input_total.is_(None), records.c.output_total.is_(None)),
        is_uncorrected("input_total"),
    )
    return (
        _period(query.granularity).label("period"),
        records.c.currency.label("money"),
        func.sum(case((original, 1), else_=0)).label("requests"),
        func.sum(case((cost_unknown, 1), else_=0)).label("unknown_cost"),
        func.sum(case((usage_unknown, 1), else_=0)).label("unknown_usage"),
    )


def _by_record(query: UsageQuery) -> Select[Any]:
    return _grouped(
        query,
        [group_column(name).label(f"g{n}") for n, name in enumerate(query.group_by)],
        [
            *_common(query, records.c.cost_pico),
            func.sum(records.c.input_total).label("input_tokens"),
            func.sum(records.c.output_total).label("output_tokens"),
            *sum_apart(records.c.cost_pico, "cost"),
            *sum_apart(records.c.list_cost_pico, "list_cost"),
        ],
    )


def _by_meter(query: UsageQuery) -> Select[Any]:
    # Records that counted nothing, refused or unknown ones, keep one row of their own.
    lines = record_lines.c
    none = lines.record_id.is_(None)
    cost = case((none, records.c.cost_pico), else_=lines.cost_pico)
    list_cost = case((none, records.c.list_cost_pico), else_=lines.list_cost_pico)
    # Fractions of seconds are added up exactly afterwards, one text at a time.
    is_fraction = or_(lines.quantity.like("%.%"), lines.quantity.ilike("%e%"))
    whole = case((is_fraction, null()), else_=cast(lines.quantity, BigInteger))
    keys = [
        (lines.meter if name == _METER else group_column(name)).label(f"g{n}")
        for n, name in enumerate(query.group_by)
    ]
    return _grouped(
        query,
        [*keys, case((is_fraction, lines.quantity)).label("fraction")],
        [
            *_common(query, cost),
            func.count(lines.record_id).label("lines"),
            func.sum(whole).label("whole"),
            null().label("input_tokens"),
            null().label("output_tokens"),
            *sum_apart(cost, "cost"),
            *sum_apart(list_cost, "list_cost"),
        ],
    ).select_from(records.outerjoin(record_lines, lines.record_id == records.c.id))


def _grouped(
    query: UsageQuery, keys: Sequence[Label[Any]], sums: Sequence[ColumnElement[Any]]
) -> Select[Any]:
    columns: list[ColumnElement[Any]] = [*keys, *sums]
    return (
        select(*columns)
        .where(*where(query.wanted))
        .group_by(*(key.name for key in keys), "period", "money")
    )
