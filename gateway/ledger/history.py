"""What calls of a model have used lately: the newest few hundred, counted meter by meter.

Must never read further back than a bounded number of rows, however large the ledger is.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sqlalchemy import Connection, or_, select

from gateway.tables import records
from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter

# Rows of the index looked at, and records taken from them. Guarded by
# tests/contracts/test_history.py.
SCANNED_MAX: Final = 20_000
RECORDS_MAX: Final = 500
_COUNTED: Final = ("reported", "partial", "estimated")
_COLUMNS: Final = (
    *("id", "started_at_us", "organization", "team", "project", "provider"),
    *("model", "model_requested", "outcome", "basis", "corrects", "usage"),
)
_TOKEN_METERS: Final = {meter.value: meter for meter in (*INPUT_METERS, *OUTPUT_METERS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """Which calls tell what is usual.

    Attributes:
        providers: Provider ids of the configuration that serve the model.
        models: Every name of the model, without its provider.
        from_us: First instant a call may have started at, microseconds since 1970.
        to_us: First instant after them.
        organization: Whose calls; ``None`` for anybody's. Likewise the next two.
        team: Team id.
        project: Project id.
    """

    providers: frozenset[str]
    models: frozenset[str]
    from_us: int
    to_us: int
    organization: str | None = None
    team: str | None = None
    project: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallHistory:
    """What some calls used together.

    Attributes:
        records: How many they are; 0 when there are none.
        first_us: When the oldest of them started, microseconds since 1970.
        last_us: When the newest of them started.
        input_counts: Their input tokens by meter.
        output_counts: Their output tokens by meter.
    """

    records: int
    first_us: int
    last_us: int
    input_counts: Mapping[Meter, int]
    output_counts: Mapping[Meter, int]


NO_HISTORY: Final = CallHistory(records=0, first_us=0, last_us=0, input_counts={}, output_counts={})


def load_history(connection: Connection, query: HistoryQuery) -> CallHistory:
    """Count what the newest calls of a model used.

    Args:
        connection: Inside a transaction.
        query: Which calls.

    Returns:
        The sums over at most ``RECORDS_MAX`` calls, the newest: those that succeeded and whose
        tokens are known, corrections left out. Calls beyond the newest ``SCANNED_MAX`` of the team,
        or of the whole ledger where no team is given, are not looked at.
    """
    started = records.c.started_at_us
    columns = [records.c[name] for name in _COLUMNS]
    nearest = select(*columns).where(started >= query.from_us, started < query.to_us)
    if query.team is not None:
        nearest = nearest.where(records.c.team == query.team)
    scanned = nearest.order_by(started.desc()).limit(SCANNED_MAX).subquery()
    full_names = [f"{provider}/{name}" for provider in query.providers for name in query.models]
    names = sorted({*query.models, *full_names})
    wanted = [
        scanned.c.outcome == "ok",
        scanned.c.corrects.is_(None),
        scanned.c.basis.in_(_COUNTED),
        scanned.c.provider.in_(sorted(query.providers)),
        or_(scanned.c.model.in_(names), scanned.c.model_requested.in_(names)),
    ]
    for name in ("organization", "project"):
        value = getattr(query, name)
        if value is not None:
            wanted.append(scanned.c[name] == value)
    statement = (
        select(scanned.c.started_at_us, scanned.c.usage)
        .where(*wanted)
        .order_by(scanned.c.started_at_us.desc(), scanned.c.id.desc())
        .limit(RECORDS_MAX)
    )
    return _add_up([(row.started_at_us, row.usage) for row in connection.execute(statement)])


def _add_up(rows: list[tuple[int, Mapping[str, int | str]]]) -> CallHistory:
    if not rows:
        return NO_HISTORY
    sums: Counter[Meter] = Counter()
    for _, usage in rows:
        for name, count in usage.items():
            meter = _TOKEN_METERS.get(name)
            if meter is not None:
                sums[meter] += int(Decimal(count))
    return CallHistory(
        records=len(rows),
        first_us=rows[-1][0],
        last_us=rows[0][0],
        input_counts={meter: sums[meter] for meter in Meter if meter in INPUT_METERS & sums.keys()},
        output_counts={
            meter: sums[meter] for meter in Meter if meter in OUTPUT_METERS & sums.keys()
        },
    )
