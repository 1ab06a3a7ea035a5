"""What the ledger is asked: pages and streams of records, sums of usage, what budgets have spent.

Must never keep a database session open while its caller does something slow.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Label,
    Select,
    and_,
    case,
    exists,
    func,
    not_,
    or_,
    select,
)

from gateway.budgets.rules import Unit
from gateway.ledger.chain import ChainProblem, load_heads, load_lines, verify_chains
from gateway.ledger.corrected import CORRECTIONS
from gateway.ledger.filters import (
    QueryRefused,
    RecordFilter,
    in_scope,
    is_uncorrected,
    where,
    within,
)
from gateway.ledger.history import CallHistory, HistoryQuery, load_history
from gateway.ledger.priced import load_priced
from gateway.ledger.quantities import (
    UseQuery,
    count_unknown,
    cut_days,
    load_spans,
    load_uses,
    since_first,
)
from gateway.ledger.record import LedgerRecord
from gateway.ledger.rows import from_row
from gateway.ledger.store import reading, store_errors
from gateway.ledger.sums import sum_apart, total
from gateway.ledger.usage import UsageQuery, UsageRow, load_usage
from gateway.tables import records
from pricing.commitments import Coverage, Use
from pricing.months import Span
from pricing.sku import PriceId
from pricing.usage import Quantity

_BATCH_ROWS: Final = 500

# What makes up an amount in each unit, and what was held for it.
_AMOUNTS: Final[Mapping[Unit, tuple[tuple[Column[int], ...], Column[int]]]] = {
    Unit.USD: ((records.c.cost_pico,), records.c.ceiling_pico),
    Unit.TOKENS: ((records.c.input_total, records.c.output_total), records.c.ceiling_tokens),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What records of the ledger take from a budget, in its unit.

    Attributes:
        settled: Known amounts.
        parked: What was held for calls whose true amount is still unknown.
        first_us: When the first of them began; ``None`` without any, and for corrections.
    """

    settled: int
    parked: int
    first_us: int | None = field(default=None, compare=False)


class Queries:
    """Reads the ledger. Every method raises ``StoreUnavailable`` when the database is away."""

    def __init__(self, engine: Engine) -> None:
        self._engine = reading(engine)

    def find_record(self, record_id: str) -> LedgerRecord | None:
        """Look one record up.

        Args:
            record_id: Its id.

        Returns:
            The record, or ``None`` when it is not in the ledger.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with self._connected() as connection:
            found = _load_records(connection, select(records).where(records.c.id == record_id))
        return found[0] if found else None

    def find_metered(self, provider: str, request_id: str) -> LedgerRecord | None:
        """Look up the call that was metered under a provider's own id.

        Args:
            provider: Provider id of the configuration.
            request_id: The id.

        Returns:
            The newest record that counted something, or could not; ``None`` when there is none.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        query = (
            select(records)
            .where(
                records.c.provider_request_id == request_id,
                records.c.provider == provider,
                records.c.corrects.is_(None),
                records.c.basis != "none",
            )
            .order_by(records.c.started_at_us.desc(), records.c.id.desc())
            .limit(1)
        )
        with self._connected() as connection:
            found = _load_records(connection, query)
        return found[0] if found else None

    def find_corrections(self, record_id: str) -> tuple[LedgerRecord, ...]:
        """Look up every correction of a record.

        Args:
            record_id: Its id.

        Returns:
            The corrections, the oldest first.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        query = select(records).where(records.c.corrects == record_id).order_by(records.c.id)
        with self._connected() as connection:
            return tuple(_load_records(connection, query))

    def page_records(
        self, wanted: RecordFilter, limit: int, cursor: str | None = None
    ) -> tuple[tuple[LedgerRecord, ...], str | None]:
        """Load one page, newest first.

        Args:
            wanted: Which records.
            limit: Most records on the page, positive.
            cursor: As returned with the page before; ``None`` for the first.

        Returns:
            The page, and the cursor of the next one or ``None`` after the last.

        Raises:
            QueryRefused: The cursor or the filter cannot be used.
            StoreUnavailable: The database cannot be reached.
        """
        started, last_id = records.c.started_at_us, records.c.id
        query = select(records).where(*where(wanted)).order_by(started.desc(), last_id.desc())
        if cursor is not None:
            at, after = _parse_cursor(cursor)
            query = query.where(started <= at, or_(started < at, last_id < after))
        with self._connected() as connection:
            found = _load_records(connection, query.limit(limit + 1))
        page = tuple(found[:limit])
        return page, _cursor_after(page[-1]) if len(found) > limit else None

    def stream_records(self, wanted: RecordFilter) -> Iterator[LedgerRecord]:
        """Load any number of records, oldest first, in constant memory.

        Args:
            wanted: Which records.

        Yields:
            Each record once. Records that arrive meanwhile may or may not be among them.

        Raises:
            QueryRefused: The filter cannot be used.
            StoreUnavailable: The database cannot be reached.
        """
        started, last_id = records.c.started_at_us, records.c.id
        query = select(records).where(*where(wanted)).order_by(started, last_id).limit(_BATCH_ROWS)
        batch_query = query
        while True:
            with self._connected() as connection:
                batch = _load_records(connection, batch_query)
            yield from batch
            if len(batch) < _BATCH_ROWS:
                return
            at, after = batch[-1].started_at_us, batch[-1].id
            batch_query = query.where(started >= at, or_(started > at, last_id > after))

    def stream_charged(self, start_us: int, end_us: int) -> Iterator[LedgerRecord]:
        """Load what a month is charged: its calls, and the corrections made in it.

        Args:
            start_us: First microsecond since 1970.
            end_us: First microsecond after it.

        Yields:
            Each record once; corrections of calls of the month that were made after it are left to
            the month they were made in, so that what was charged stays as it is.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        for record in self.stream_records(RecordFilter(from_us=start_us, to_us=end_us)):
            if record.corrects is None or record.ended_at_us < end_us:
                yield record
        late = select(records).where(
            records.c.corrects.is_not(None),
            records.c.started_at_us < start_us,
            records.c.ended_at_us >= start_us,
            records.c.ended_at_us < end_us,
        )
        late = late.order_by(records.c.id).limit(_BATCH_ROWS)
        batch_query = late
        while True:
            with self._connected() as connection:
                batch = _load_records(connection, batch_query)
            yield from batch
            if len(batch) < _BATCH_ROWS:
                return
            batch_query = late.where(records.c.id > batch[-1].id)

    def usage(self, query: UsageQuery) -> list[UsageRow]:
        """Add usage and cost up.

        Args:
            query: What, by which groups, in which periods.

        Returns:
            As ``gateway.ledger.usage.load_usage``.

        Raises:
            QueryRefused: A group or the filter cannot be used.
            StoreUnavailable: The database cannot be reached.
        """
        with self._connected() as connection:
            return load_usage(connection, query)

    def history(self, query: HistoryQuery) -> CallHistory:
        """Count what the newest calls of a model used.

        Args:
            query: Which calls.

        Returns:
            As ``gateway.ledger.history.load_history``.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with self._connected() as connection:
            return load_history(connection, query)

    def stream_uses(self, query: UseQuery) -> Iterator[Use]:
        """Add use up over any span of time, in bounded memory.

        Args:
            query: As for ``gateway.ledger.quantities.load_uses``.

        Yields:
            Sums in the order of time.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        for day in self._days(query.span):
            with self._connected() as connection:
                found = load_uses(connection, replace(query, span=day))
            yield from found

    def sum_priced(self, span: Span, step: Callable[[], None]) -> Mapping[PriceId, Quantity]:
        """Add up what was counted at each price id, in bounded memory.

        Args:
            span: When the calls began.
            step: Called after each day.

        Returns:
            Quantity by price id.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        sums: dict[PriceId, Quantity] = {}
        for day in self._days(span):
            with self._connected() as connection:
                for price_id, quantity in load_priced(connection, day).items():
                    sums[price_id] = sums.get(price_id, 0) + quantity
            step()
        return sums

    def stream_spans(self, covers: Coverage, span: Span) -> Iterator[tuple[int, int]]:
        """Read when calls were open, over any span of time, in bounded memory.

        Args:
            covers: Whose calls.
            span: Calls that began in it.

        Yields:
            Start and end of each in microseconds since 1970, by start.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        for day in self._days(span):
            with self._connected() as connection:
                found = load_spans(connection, covers, day)
            yield from found

    def _days(self, span: Span) -> Iterator[Span]:
        with self._connected() as connection:
            there = since_first(connection, span)
        return cut_days(there)

    def count_unknown(self, covers: Sequence[Coverage], span: Span) -> int:
        """Count calls whose use nobody knows.

        Args:
            covers: As for ``gateway.ledger.quantities.count_unknown``.
            span: Over which span of time.

        Returns:
            The number.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with self._connected() as connection:
            return count_unknown(connection, covers, span)

    def sum_spent(
        self,
        scope: Mapping[str, str],
        unit: Unit,
        start_us: int,
        end_us: int | None,
        up_to: Mapping[str, int],
    ) -> Spent:
        """Add up what a budget has spent in a window.

        Args:
            scope: As in ``Budget.scope``.
            unit: What the budget limits.
            start_us: Start of the window, microseconds since 1970.
            end_us: First instant after it; ``None`` when it has no end.
            up_to: Last ``seq`` that counts, by journal; journals that are not named count fully.

        Returns:
            The exact amounts. Refused calls never count. Money is that in US dollars. A correction
            counts where its own ``started_at_us`` lies, and ends the parking of the record it
            makes known.

        Raises:
            QueryRefused: The scope names something records do not have.
            StoreUnavailable: The database cannot be reached.
        """
        counted = [
            *in_scope(scope),
            records.c.outcome != "refused",
            records.c.started_at_us >= start_us,
            within(up_to),
        ]
        if end_us is not None:
            counted.append(records.c.started_at_us < end_us)
        if unit is Unit.REQUESTS:
            return self._count_requests([*counted, records.c.corrects.is_(None)])
        if unit is Unit.USD:
            counted.append(records.c.currency == "USD")
        amounts, ceiling = _AMOUNTS[unit]
        known = and_(*(amount.is_not(None) for amount in amounts))
        unknown = and_(not_(known), is_uncorrected(amounts[0].name, up_to))
        columns: list[Label[Any]] = [
            *sum_apart(case((unknown, ceiling)), "parked"),
            *chain.from_iterable(
                sum_apart(case((known, amount)), amount.name) for amount in amounts
            ),
            func.min(records.c.started_at_us).label("first_us"),
        ]
        query = select(*columns).where(*counted)
        with self._connected() as connection:
            row = connection.execute(query).one()
        settled = sum(total(row, amount.name) for amount in amounts)
        return Spent(settled=settled, parked=total(row, "parked"), first_us=row.first_us)

    def sum_corrected(
        self,
        scope: Mapping[str, str],
        unit: Unit,
        start_us: int,
        end_us: int | None,
        span: tuple[int, int],
    ) -> Spent:
        """Add up what was just appended without a journal: corrections, and outside usage.

        Args:
            scope: As in ``Budget.scope``.
            unit: What the budget limits.
            start_us: Start of the window, microseconds since 1970.
            end_us: First instant after it; ``None`` when it has no end.
            span: Last number of the corrections counted before, and of those to count now.

        Returns:
            What outside usage comes to, and signed differences. What was held for a call whose
            amount corrections make known is parked no longer. Prices change money alone.

        Raises:
            QueryRefused: The scope names something records do not have.
            StoreUnavailable: The database cannot be reached.
        """
        outside = self._sum_outside(scope, unit, (start_us, end_us), span)
        if unit is not Unit.USD:
            return outside
        original = records.alias("original")
        after, last = span
        is_known = original.c.cost_pico.is_(None) & is_uncorrected(
            "cost_pico", {CORRECTIONS: after}, original
        )
        # A call can be corrected several times in the span: the first time ends its parking.
        earlier = records.alias("earlier")
        is_first = ~exists().where(
            earlier.c.corrects == records.c.corrects,
            earlier.c.writer == CORRECTIONS,
            earlier.c.seq > after,
            earlier.c.seq < records.c.seq,
        )
        counted = [
            *in_scope(scope),
            records.c.writer == CORRECTIONS,
            records.c.seq > after,
            records.c.seq <= last,
            records.c.started_at_us >= start_us,
            records.c.currency == "USD",
        ]
        if end_us is not None:
            counted.append(records.c.started_at_us < end_us)
        query = (
            select(
                *sum_apart(records.c.cost_pico, "settled"),
                *sum_apart(case((is_known & is_first, original.c.ceiling_pico)), "freed"),
            )
            .select_from(records.join(original, original.c.id == records.c.corrects))
            .where(*counted)
        )
        with self._connected() as connection:
            row = connection.execute(query).one()
        return Spent(settled=outside.settled + total(row, "settled"), parked=-total(row, "freed"))

    def _sum_outside(
        self,
        scope: Mapping[str, str],
        unit: Unit,
        window: tuple[int, int | None],
        span: tuple[int, int],
    ) -> Spent:
        """Add up usage that did not pass the gateway; nothing was held for it."""
        start_us, end_us = window
        after, last = span
        counted = [
            *in_scope(scope),
            records.c.writer == CORRECTIONS,
            records.c.seq > after,
            records.c.seq <= last,
            records.c.corrects.is_(None),
            records.c.started_at_us >= start_us,
        ]
        if end_us is not None:
            counted.append(records.c.started_at_us < end_us)
        if unit is Unit.REQUESTS:
            return self._count_requests(counted)
        if unit is Unit.USD:
            counted.append(records.c.currency == "USD")
        amounts, _ = _AMOUNTS[unit]
        columns = chain.from_iterable(sum_apart(amount, amount.name) for amount in amounts)
        with self._connected() as connection:
            row = connection.execute(select(*columns).where(*counted)).one()
        return Spent(settled=sum(total(row, amount.name) for amount in amounts), parked=0)

    def _count_requests(self, counted: Sequence[ColumnElement[bool]]) -> Spent:
        query = select(func.count(), func.min(records.c.started_at_us)).where(*counted)
        with self._connected() as connection:
            count, first_us = connection.execute(query).one()
        return Spent(settled=count, parked=0, first_us=first_us)

    def seqs(self) -> Mapping[str, int]:
        """Tell how far each journal is in the ledger.

        Returns:
            Position of the last record shipped, by writer.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with self._connected() as connection:
            return {writer: head.seq for writer, head in load_heads(connection).items()}

    def verify(self, step: Callable[[int], None] | None = None) -> Iterator[ChainProblem]:
        """Recompute the hash chain of every journal.

        Args:
            step: Told how many more records have been read.

        Yields:
            Every record that was changed, removed or slipped in; nothing when all is well.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with self._connected() as connection:
            yield from verify_chains(connection, step)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with store_errors(), self._engine.connect() as connection:
            yield connection


def _load_records(connection: Connection, query: Select[Any]) -> list[LedgerRecord]:
    rows = [dict(row) for row in connection.execute(query).mappings()]
    lines = load_lines(connection, [row["id"] for row in rows])
    return [from_row(row, lines.get(row["id"], ())) for row in rows]


def _cursor_after(record: LedgerRecord) -> str:
    return f"{record.started_at_us}.{record.id}"


def _parse_cursor(cursor: str) -> tuple[int, str]:
    at, dot, record_id = cursor.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) <= 18 and dot and record_id):
        raise QueryRefused("the cursor is not one that was returned with a page")
    return int(at), record_id
