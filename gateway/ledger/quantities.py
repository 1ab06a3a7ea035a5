"""What was used hour by hour, and when it was busy, for whoever accounts for it in advance.

Must never hold more than a day of it: a report can reach back over years.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
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
    union_all,
)

from gateway.clock import epoch_us, from_epoch_us
from gateway.ledger.filters import is_uncorrected
from gateway.ledger.sums import sum_apart, total
from gateway.tables import record_lines, records
from pricing.commitments import Coverage, Use, to_pico
from pricing.meters import Meter
from pricing.months import Span
from pricing.usage import Quantity

DAY: Final = timedelta(days=1)
_TICK: Final = timedelta(microseconds=1)
_GROUP: Final = ("provider", "model", "model_requested", "team", "project", "meter", "is_priced")
_METERS: Final[Mapping[str, Meter]] = {meter.value: meter for meter in Meter}


@dataclass(frozen=True, slots=True, kw_only=True)
class UseQuery:
    """Whose use to add up, and how finely.

    Attributes:
        covers: Use that one of them includes.
        span: Over which span of time.
        step: Length of the steps, counted from midnight in UTC; a day at most.
    """

    covers: tuple[Coverage, ...]
    span: Span
    step: timedelta


def cut_days(span: Span) -> Iterator[Span]:
    """Cut a span into pieces that fit into memory.

    Args:
        span: Any span.

    Yields:
        Days of UTC, the first and the last of them as long as they are in the span.
    """
    start = span.start
    while start < span.end:
        end = min(from_epoch_us((epoch_us(start) // (DAY // _TICK) + 1) * (DAY // _TICK)), span.end)
        yield Span(start, end)
        start = end


def since_first(connection: Connection, span: Span) -> Span:
    """Leave out the time before the ledger begins, which can be years.

    Args:
        connection: Inside a transaction.
        span: Any span.

    Returns:
        The part of it from the first record on; empty when there is none.
    """
    first_us = connection.execute(select(func.min(records.c.started_at_us))).scalar_one()
    if first_us is None:
        return Span(span.end, span.end)
    return Span(min(max(span.start, from_epoch_us(int(first_us))), span.end), span.end)


def load_uses(connection: Connection, query: UseQuery) -> list[Use]:
    """Add the use of a short span up.

    Args:
        connection: Inside a transaction.
        query: What to add up; as many rows as steps and groups, so a day at a time.

    Returns:
        Sums by step, provider, model, team, project and meter, in that order. A correction counts
        where the record it corrects lies. Use without a price stands apart from that with one.
    """
    if not query.covers:
        return []
    sums: dict[tuple[Any, ...], _Sum] = {}
    for row in connection.execute(_statement(query)):
        sums.setdefault((row.step, *(getattr(row, name) for name in _GROUP)), _Sum()).add(row)
    step_us = query.step // _TICK
    return [sums[key].to_use(key, step_us) for key in sorted(sums, key=_order) if key[6] in _METERS]


def _order(key: tuple[Any, ...]) -> tuple[int, tuple[tuple[bool, str], ...]]:
    return key[0], tuple((part is None, str(part)) for part in key[1:])


@dataclass(slots=True)
class _Sum:
    quantity: Quantity = 0
    cost_pico: int = 0

    def add(self, row: Row[Any]) -> None:
        self.quantity += int(row.whole or 0)
        if row.fraction is not None:
            self.quantity += Decimal(row.fraction) * int(row.lines)
        self.cost_pico += total(row, "cost")

    def to_use(self, key: tuple[Any, ...], step_us: int) -> Use:
        step, provider, model, requested, team, project, meter, is_priced = key
        asked = requested
        if provider is not None and requested is not None:
            asked = requested.removeprefix(f"{provider}/")
        return Use(
            at=from_epoch_us(step * step_us),
            provider=provider,
            model=model,
            asked=asked,
            team=team,
            project=project,
            meter=_METERS[meter],
            quantity_pico=to_pico(self.quantity),
            cost_pico=self.cost_pico if is_priced else None,
        )


def _statement(query: UseQuery) -> Select[Any]:
    original = records.alias("original")
    line = record_lines.c
    both = records.join(record_lines, line.record_id == records.c.id)
    corrected = both.join(original, original.c.id == records.c.corrects)
    lines = union_all(
        _lines(records.c.started_at_us, query)
        .select_from(both)
        .where(records.c.corrects.is_(None)),
        _lines(original.c.started_at_us, query).select_from(corrected),
    ).subquery("used")
    used = lines.c
    # Fractions of seconds are added up exactly afterwards, one text at a time.
    is_fraction = or_(used.quantity.like("%.%"), used.quantity.ilike("%e%"))
    whole = case((is_fraction, null()), else_=cast(used.quantity, BigInteger))
    keys: list[ColumnElement[Any]] = [
        (used.at_us // literal_column(str(query.step // _TICK), BigInteger)).label("step"),
        *(used[name].label(name) for name in _GROUP),
        case((is_fraction, used.quantity)).label("fraction"),
    ]
    columns = [
        *keys,
        func.sum(whole).label("whole"),
        func.count().label("lines"),
        *sum_apart(used.cost_pico, "cost"),
    ]
    return select(*columns).group_by("step", *_GROUP, "fraction")


def _lines(at_us: ColumnElement[int], query: UseQuery) -> Select[Any]:
    meters = sorted({meter.value for one in query.covers for meter in one.meters})
    line = record_lines.c
    columns: list[ColumnElement[Any]] = [
        at_us.label("at_us"),
        *(records.c[name] for name in _GROUP[:5]),
        line.meter,
        case((line.cost_pico.is_(None), 0), else_=1).label("is_priced"),
        line.quantity,
        line.cost_pico,
    ]
    return select(*columns).where(
        at_us >= epoch_us(query.span.start),
        at_us < epoch_us(query.span.end),
        line.meter.in_(meters),
        _is_covered(query.covers),
    )


def _is_covered(covers: Iterable[Coverage]) -> ColumnElement[bool]:
    """Tell records of which some line can be covered; which lines are is decided afterwards."""
    return or_(*(_is_in(one) for one in covers))


def _is_in(one: Coverage) -> ColumnElement[bool]:
    wanted: list[ColumnElement[bool]] = [records.c.outcome != "refused"]
    if one.provider is not None:
        wanted.append(records.c.provider == one.provider)
    if one.models:
        names = sorted(one.models)
        requested = records.c.model_requested
        behind = [records.c.provider.concat("/").concat(name) for name in names]
        wanted.append(
            or_(records.c.model.in_(names), requested.in_(names), *(requested == n for n in behind))
        )
    if one.team is not None:
        wanted.append(records.c.team == one.team)
    if one.project is not None:
        wanted.append(records.c.project == one.project)
    return and_(*wanted)


def count_unknown(connection: Connection, covers: Sequence[Coverage], span: Span) -> int:
    """Count calls whose use nobody knows.

    Args:
        connection: Inside a transaction.
        covers: Calls that one of them could include.
        span: Over which span of time.

    Returns:
        How many calls stand in no sum of ``load_uses``, though they may have used something.
    """
    if not covers:
        return 0
    query = (
        select(func.count())
        .select_from(records)
        .where(
            records.c.started_at_us >= epoch_us(span.start),
            records.c.started_at_us < epoch_us(span.end),
            _is_covered(covers),
            records.c.corrects.is_(None),
            records.c.input_total.is_(None),
            is_uncorrected("input_total"),
        )
    )
    return int(connection.execute(query).scalar_one())


def load_spans(connection: Connection, covers: Coverage, span: Span) -> list[tuple[int, int]]:
    """Read when calls were open.

    Args:
        connection: Inside a transaction.
        covers: Whose calls.
        span: Calls that began in it; a day at a time, one row a call.

    Returns:
        Start and end of each in microseconds since 1970, by start.
    """
    query = (
        select(records.c.started_at_us, records.c.ended_at_us)
        .where(
            records.c.started_at_us >= epoch_us(span.start),
            records.c.started_at_us < epoch_us(span.end),
            _is_in(covers),
            records.c.corrects.is_(None),
        )
        .order_by(records.c.started_at_us)
    )
    return [(int(start), int(end)) for start, end in connection.execute(query)]
