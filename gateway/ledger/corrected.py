"""What the ledger says of calls once all their corrections are counted, fast and in batches.

Must never read more than a batch, nor count a correction as a call.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection, Select, func, or_, select

from gateway.ledger.chain import load_lines
from gateway.ledger.filters import RecordFilter, where
from gateway.ledger.record import LedgerRecord
from gateway.ledger.rows import from_row
from gateway.tables import record_lines, records

BATCH_RECORDS: Final = 1_000
# The writer of what no journal holds, corrections and outside usage: one chain for all processes,
# so that no two corrections of a call are made at once and no usage is booked twice.
CORRECTIONS: Final = "corrections"
# Cost and list cost by meter, in 10^-12 currency units. Meters whose costs are zero are left out.
Sums = dict[str, tuple[int, int]]


class PricedAs(NamedTuple):
    """What a call was priced as.

    Attributes:
        provider: Catalog provider.
        model: Catalog model.
        tier: Service tier.
        region: Region class; ``None`` where it does not change the price.
        variants: Makes by the name of the meter.
        asked: Model asked for, under the provider's own name; ``None`` where the record is from
            before it was said. Then ``model`` alone tells.
        behind: Model behind that name; ``None`` where it is no deployment.
        tier_asked: Tier that may have been served beside the standard one; ``None`` where ``tier``
            was served.
    """

    provider: str
    model: str
    tier: str
    region: str | None
    variants: Mapping[str, str]
    asked: str | None = None
    behind: str | None = None
    tier_asked: str | None = None


class PostedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call as the ledger knows it now: its record and every correction of it.

    Attributes:
        id: Id of the record.
        started_at_us: When the call began, microseconds since 1970.
        outcome: How it ended.
        provider: Provider id of the configuration.
        model: Model served.
        organization: Who bears it. The next two likewise.
        team: Team id.
        project: Project id.
        basis: Where the counts come from.
        usage: Disjoint counts by meter, corrections included.
        currency: Of every amount.
        cost_pico: Cost, corrections included; ``None`` while it is unknown.
        list_cost_pico: Cost at published prices, likewise.
        sums: Costs of the lines by meter, corrections included.
        price_version: Book version the record itself was priced with.
        price_ids: Prices of the record itself, in the order of its lines; empty where it says what
            it was priced as.
        first_sums: Costs of the record itself by meter.
        first_usage: Counts of the record itself.
        priced: What it was priced as; ``None`` when the record does not say.
        provider_cost_pico: What the provider itself says it cost, where that is what was booked.
        before_pico: Cost without what the run in question added; ``None`` where it was unknown.
        is_mine: Whether the run in question added something.
    """

    id: str
    started_at_us: int
    outcome: str
    provider: str | None
    model: str | None
    organization: str | None
    team: str | None
    project: str | None
    basis: str
    usage: Mapping[str, int | str]
    currency: str
    cost_pico: int | None
    list_cost_pico: int | None
    sums: Sums
    price_version: str | None
    price_ids: tuple[str, ...]
    first_sums: Sums
    first_usage: Mapping[str, int | str]
    priced: PricedAs | None
    provider_cost_pico: int | None = None
    before_pico: int | None
    is_mine: bool = False


class _Posting(NamedTuple):
    """The part of a record that says what was counted and what it cost."""

    id: str
    basis: str
    usage: Mapping[str, int | str]
    input_total: int | None
    cost_pico: int | None
    list_cost_pico: int | None
    is_mine: bool
    sums: Sums
    priced: PricedAs | None


_CALL: Final = (
    records.c.id,
    records.c.started_at_us,
    records.c.outcome,
    records.c.provider,
    records.c.model,
    records.c.organization,
    records.c.team,
    records.c.project,
    records.c.basis,
    records.c.usage,
    records.c.currency,
    records.c.cost_pico,
    records.c.list_cost_pico,
    records.c.price_version,
    records.c.priced_as,
    records.c.priced_model,
    records.c.tier,
    records.c.region,
    records.c.variants,
    records.c.model_asked,
    records.c.model_behind,
    records.c.tier_asked,
    records.c.provider_cost_pico,
)
_Ids = Select[tuple[str]] | Sequence[str]
_NO_MAKES: Final[Mapping[str, str]] = {}


def read_calls(
    connection: Connection,
    wanted: RecordFilter,
    after: tuple[int, str] | None,
    flag: str | None,
    limit: int = BATCH_RECORDS,
) -> list[PostedCall]:
    """Read a batch of calls as they stand, oldest first.

    Args:
        connection: Inside a transaction.
        wanted: Which calls; a correction counts with the record it corrects.
        after: Start and id of the last call of the batch before; ``None`` for the first batch.
        flag: What marks the corrections of the run in question; ``None`` without one.
        limit: Most calls.

    Returns:
        The calls; fewer than ``limit`` when there are no more.

    Raises:
        QueryRefused: The filter cannot be used.
    """
    started, last_id = records.c.started_at_us, records.c.id
    query = select(*_CALL).where(records.c.corrects.is_(None), *where(wanted))
    if after is not None:
        at, id_ = after
        query = query.where(started >= at, or_(started > at, last_id > id_))
    query = query.order_by(started, last_id).limit(limit)
    rows = connection.execute(query).all()
    # Asked for as a query: a thousand ids as parameters take longer than finding them again.
    ids = query.with_only_columns(records.c.id)
    sums = _load_sums(connection, ids)
    price_ids = _load_price_ids(connection, [row[0] for row in rows if row[14] is None])
    corrections = _load_corrections(connection, ids, flag)
    found = []
    for row in rows:
        id_ = row[0]
        first = sums.get(id_, {})
        call = PostedCall(
            id=id_,
            started_at_us=row[1],
            outcome=row[2],
            provider=row[3],
            model=row[4],
            organization=row[5],
            team=row[6],
            project=row[7],
            basis=row[8],
            usage=row[9],
            currency=row[10],
            cost_pico=row[11],
            list_cost_pico=row[12],
            sums=first,
            price_version=row[13],
            price_ids=tuple(price_ids.get(id_, ())),
            first_sums=first,
            first_usage=row[9],
            priced=None
            if row[14] is None or row[16] is None
            else PricedAs(
                row[14], row[15], row[16], row[17], row[18] or _NO_MAKES, row[19], row[20], row[21]
            ),
            provider_cost_pico=row[-1],
            before_pico=row[11],
        )
        later = corrections.get(id_)
        found.append(call if later is None else _corrected(call, later))
    return found


def count_calls(connection: Connection, wanted: RecordFilter) -> int:
    """Count what ``read_calls`` would read.

    Args:
        connection: Inside a transaction.
        wanted: Which calls.

    Returns:
        The number.

    Raises:
        QueryRefused: The filter cannot be used.
    """
    query = select(func.count()).select_from(records)
    found = connection.execute(query.where(records.c.corrects.is_(None), *where(wanted)))
    return int(found.scalar_one())


def load_with_corrections(
    connection: Connection, ids: Sequence[str]
) -> list[tuple[LedgerRecord, tuple[LedgerRecord, ...]]]:
    """Load whole records and every correction of them.

    Args:
        connection: Inside a transaction.
        ids: Of records that are no corrections; a few thousand at most.

    Returns:
        Each with its corrections in the order of their ids, oldest record first.
    """
    is_meant = or_(records.c.id.in_(ids), records.c.corrects.in_(ids))
    query = select(records).where(is_meant).order_by(records.c.started_at_us, records.c.id)
    rows = [dict(row) for row in connection.execute(query).mappings()]
    lines = load_lines(connection, [row["id"] for row in rows])
    whole = [from_row(row, lines.get(row["id"], ())) for row in rows]
    later: dict[str, list[LedgerRecord]] = {}
    for record in whole:
        if record.corrects is not None:
            later.setdefault(record.corrects, []).append(record)
    return [(r, tuple(later.get(r.id, ()))) for r in whole if r.corrects is None]


def posted_call(
    record: LedgerRecord, corrections: Iterable[LedgerRecord], flag: str | None = None
) -> PostedCall:
    """Put a record and its corrections together.

    Args:
        record: One that is no correction.
        corrections: Every correction of it, in any order.
        flag: As for ``read_calls``.

    Returns:
        The call as it stands.
    """
    first = _sums_of(record)
    priced = _priced_as(record)
    call = PostedCall(
        id=record.id,
        started_at_us=record.started_at_us,
        outcome=record.outcome,
        provider=record.provider,
        model=record.model,
        organization=record.organization,
        team=record.team,
        project=record.project,
        basis=record.basis,
        usage=record.usage,
        currency=record.currency,
        cost_pico=record.cost_pico,
        list_cost_pico=record.list_cost_pico,
        sums=first,
        price_version=record.price_version,
        price_ids=() if priced else tuple([line.price_id for line in record.lines]),
        first_sums=first,
        first_usage=record.usage,
        priced=priced,
        provider_cost_pico=record.provider_cost_pico,
        before_pico=record.cost_pico,
    )
    later = [
        _Posting(
            one.id,
            one.basis,
            one.usage,
            one.input_total,
            one.cost_pico,
            one.list_cost_pico,
            flag in one.flags,
            _sums_of(one),
            _priced_as(one),
        )
        for one in corrections
    ]
    return _corrected(call, later) if later else call


def _priced_as(record: LedgerRecord) -> PricedAs | None:
    if UNSET in (record.priced_as, record.priced_model, record.tier):
        return None
    return PricedAs(
        record.priced_as or "",
        record.priced_model or "",
        record.tier or "",
        record.region or None,
        record.variants or _NO_MAKES,
        record.model_asked or None,
        record.model_behind or None,
        record.tier_asked or None,
    )


def _sums_of(record: LedgerRecord) -> Sums:
    sums: Sums = {}
    for line in record.lines:
        _add(sums, line.meter, line.cost_pico, line.list_cost_pico)
    return sums


def _add(sums: Sums, meter: str, cost_pico: int, list_cost_pico: int) -> None:
    cost, listed = sums.get(meter, (0, 0))
    total = (cost + cost_pico, listed + list_cost_pico)
    if total == (0, 0):
        sums.pop(meter, None)
    else:
        sums[meter] = total


def _load_sums(connection: Connection, ids: _Ids) -> dict[str, Sums]:
    line = record_lines.c
    query = select(line.record_id, line.meter, line.cost_pico, line.list_cost_pico).where(
        line.record_id.in_(ids), line.sku.is_not(None)
    )
    sums: dict[str, Sums] = {}
    # All at once: a row at a time takes SQLAlchemy three times as long.
    for id_, meter, cost, listed in connection.execute(query).all():
        mine = sums.get(id_)
        if mine is None:
            mine = sums[id_] = {}
        if meter not in mine and (cost or listed):
            mine[meter] = (cost, listed)
        else:
            _add(mine, meter, cost, listed)
    return sums


def _load_price_ids(connection: Connection, ids: Sequence[str]) -> dict[str, list[str]]:
    line = record_lines.c
    query = (
        select(line.record_id, line.price_id)
        .where(line.record_id.in_(ids), line.sku.is_not(None))
        .order_by(line.record_id, line.line)
    )
    found: dict[str, list[str]] = {}
    for id_, price_id in connection.execute(query).all() if ids else ():
        found.setdefault(id_, []).append(price_id)
    return found


def _load_corrections(
    connection: Connection, ids: _Ids, flag: str | None
) -> dict[str, list[_Posting]]:
    one = records.c
    query = select(
        one.corrects,
        one.id,
        one.basis,
        one.usage,
        one.input_total,
        one.cost_pico,
        one.list_cost_pico,
        one.flags,
        one.priced_as,
        one.priced_model,
        one.tier,
        one.region,
        one.variants,
        one.model_asked,
        one.model_behind,
        one.tier_asked,
    ).where(one.corrects.in_(ids))
    rows = connection.execute(query).all()
    sums = _load_sums(connection, [row[1] for row in rows]) if rows else {}
    found: dict[str, list[_Posting]] = {}
    for corrects, id_, basis, usage, input_total, cost, listed, flags, *priced in rows:
        provider, model, tier, region, makes, *asked = priced
        posting = _Posting(
            id_,
            basis,
            usage,
            input_total,
            cost,
            listed,
            flag in flags,
            sums.get(id_, {}),
            None
            if tier is None
            else PricedAs(provider, model, tier, region, makes or _NO_MAKES, *asked),
        )
        found.setdefault(corrects, []).append(posting)
    return found


def _corrected(call: PostedCall, later: Sequence[_Posting]) -> PostedCall:
    sums = dict(call.sums)
    usage: dict[str, Any] = dict(call.usage)
    basis, priced = call.basis, call.priced
    for one in sorted(later, key=lambda posting: posting.id):
        for meter, (cost, listed) in one.sums.items():
            _add(sums, meter, cost, listed)
        for meter, count in one.usage.items():
            usage[meter] = _plus(usage.get(meter, 0), count)
        if one.input_total is not None and one.basis not in ("unknown", basis):
            # It tells the use itself, not the price alone: from here on it says what was served.
            basis, priced = one.basis, one.priced
    return msgspec.structs.replace(
        call,
        basis=basis,
        priced=priced,
        usage={meter: count for meter, count in usage.items() if count},
        cost_pico=_total([call.cost_pico, *(one.cost_pico for one in later)]),
        list_cost_pico=_total([call.list_cost_pico, *(one.list_cost_pico for one in later)]),
        sums=sums,
        before_pico=_total([call.cost_pico, *(o.cost_pico for o in later if not o.is_mine)]),
        is_mine=any(one.is_mine for one in later),
    )


def _plus(count: int | str, more: int | str) -> int | str:
    if isinstance(count, int) and isinstance(more, int):
        return count + more
    total = Decimal(count) + Decimal(more)
    return int(total) if total == int(total) else f"{total:f}"


def _total(amounts: Iterable[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
