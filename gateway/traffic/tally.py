"""What a run of traffic came to, as its callers saw it, and whether the ledger says the same.

Must never correct one side by the other: a difference is told.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

_REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One call as its caller saw it.

    Attributes:
        id: Of its record; empty where no answer told it.
        team: Whose call.
        status: HTTP status; 0 where the caller got none.
        is_refused: Whether the gateway itself said no.
        input: Tokens the provider counted; ``None`` where it could not tell all of them.
        output: Likewise.
        cost: USD as told with the answer; ``None`` where the caller was not told.
        is_retry: Whether it repeats one that failed.
        is_anomaly: Whether it is one of those that should not be.
        trouble: What went wrong on purpose.
    """

    id: str
    team: str
    status: int
    is_refused: bool
    input: int | None
    output: int | None
    cost: Decimal | None
    is_retry: bool
    is_anomaly: bool
    trouble: str


@dataclass(slots=True)
class TeamRow:
    """What the calls of one team came to.

    Attributes:
        calls: How many.
        refused: Those the gateway refused.
        failed: Those the provider failed.
        input: Tokens.
        output: Tokens.
        cost: USD.
        unpriced: Calls whose cost nobody knows.
    """

    calls: int = 0
    refused: int = 0
    failed: int = 0
    input: int = 0
    output: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0


@dataclass(slots=True)
class Tally:
    """The totals of a run.

    Attributes:
        rows: By team.
        told: Calls whose callers were told the cost.
        told_cost: What they were told, added up.
        retries: Calls that repeat another.
        anomalies: Calls of the anomaly.
        troubles: Calls with trouble, by its kind.
        differences: What the ledger says otherwise, in words.
        lost: Calls whose callers got no answer to know them by.
    """

    rows: dict[str, TeamRow] = field(default_factory=dict)
    told: int = 0
    told_cost: Decimal = Decimal(0)
    retries: int = 0
    anomalies: int = 0
    troubles: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    lost: int = 0

    def total(self) -> TeamRow:
        """Add the teams up.

        Returns:
            All of them.
        """
        whole = TeamRow()
        for row in self.rows.values():
            for name in TeamRow.__slots__:
                setattr(whole, name, getattr(whole, name) + getattr(row, name))
        return whole

    def add(self, outcomes: Iterable[Outcome], records: Sequence[Mapping[str, Any]]) -> None:
        """Take calls in, compared with their records.

        Args:
            outcomes: As their callers saw them.
            records: From the ledger.
        """
        by_id = {record["id"]: record for record in records}
        for outcome in outcomes:
            self.retries += outcome.is_retry
            self.anomalies += outcome.is_anomaly
            if outcome.trouble:
                self.troubles[outcome.trouble] = self.troubles.get(outcome.trouble, 0) + 1
            if outcome.cost is not None:
                self.told += 1
                self.told_cost += outcome.cost
            if not outcome.id:
                self.lost += 1
                continue
            record = by_id.get(outcome.id)
            if record is None:
                self.differences.append(f"{outcome.id}: the ledger has no record")
                continue
            self.differences += differences_of(outcome, record)
            self._count(outcome, record)

    def _count(self, outcome: Outcome, record: Mapping[str, Any]) -> None:
        row = self.rows.setdefault(outcome.team, TeamRow())
        row.calls += 1
        row.refused += outcome.is_refused
        row.failed += record["outcome"] == "upstream_error"
        row.input += record["input_total"] or 0
        row.output += record["output_total"] or 0
        if record["cost"] is None:
            row.unpriced += 1
        else:
            row.cost += Decimal(record["cost"])


def differences_of(outcome: Outcome, record: Mapping[str, Any]) -> list[str]:
    """Compare a call with its record.

    Args:
        outcome: As its caller saw it.
        record: From the ledger.

    Returns:
        Sentences; none where they agree in all the caller knows.
    """
    pairs: list[tuple[str, object, object]] = [
        ("team", outcome.team, record["team"]),
        (_REFUSED, outcome.is_refused, record["outcome"] == _REFUSED),
    ]
    if outcome.input is not None:
        pairs.append(("input tokens", outcome.input, record["input_total"]))
        pairs.append(("output tokens", outcome.output, record["output_total"]))
    if outcome.cost is not None:
        known = None if record["cost"] is None else Decimal(record["cost"])
        pairs.append(("cost", outcome.cost, known))
    return [
        f"{outcome.id}: {name} was {seen}, the ledger says {kept}"
        for name, seen, kept in pairs
        if seen != kept
    ]
