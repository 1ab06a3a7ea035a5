"""The log of alerts: what was raised, who was told and what became of it.

Must never change anything.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select

from gateway.alerts.outbox import Facts
from gateway.clock import to_rfc3339
from gateway.ledger.store import reading, store_errors
from gateway.tables import alert_deliveries, budget_alerts


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDelivery:
    """How far telling one receiver is.

    Attributes:
        receiver: Its id.
        status: ``waiting``, ``delivered`` or ``failed``.
        attempts: How often it was tried.
        last_error: Why the last attempt failed; ``None`` when it did not.
        next_attempt_at_us: When it is tried again; ``None`` when it is done.
        done_at_us: When it arrived or was given up.
    """

    receiver: str
    status: str
    attempts: int
    last_error: str | None
    next_attempt_at_us: int | None
    done_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedAlert:
    """An alert and its deliveries.

    Attributes:
        facts: What its messages were written from.
        is_silent: Whether nobody was told, because a higher threshold spoke for it.
        deliveries: By receiver.
    """

    facts: Facts
    is_silent: bool
    deliveries: tuple[LoggedDelivery, ...]

    def to_public(self) -> dict[str, Any]:
        """Write it as the API and the command line show it.

        Returns:
            Plain data; money as text, instants as RFC 3339 UTC.
        """
        deliveries = [
            {
                "receiver": one.receiver,
                "status": one.status,
                "attempts": one.attempts,
                "last_error": one.last_error,
                "next_attempt_at": _instant(one.next_attempt_at_us),
                "done_at": _instant(one.done_at_us),
            }
            for one in self.deliveries
        ]
        return {**self.facts, "is_silent": self.is_silent, "deliveries": deliveries}


class AlertLog:
    """Reads alerts, newest first. Waits for the database: call it from a thread."""

    def __init__(self, engine: Engine) -> None:
        """Open the log.

        Args:
            engine: Of the database.
        """
        self._engine = engine

    def page(
        self, limit: int, cursor: str | None = None, budget: str | None = None
    ) -> tuple[list[LoggedAlert], str | None]:
        """Read one page.

        Args:
            limit: Most alerts on it, positive.
            cursor: As returned with the page before; ``None`` for the first.
            budget: Alerts of this budget only.

        Returns:
            The page, and the cursor of the next one or ``None`` after the last.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        table = budget_alerts
        query = select(table.c.id, table.c.facts, table.c.is_silent).order_by(table.c.id.desc())
        if cursor is not None:
            query = query.where(table.c.id < cursor)
        if budget is not None:
            query = query.where(table.c.budget == budget)
        with store_errors(), reading(self._engine).connect() as connection:
            found = connection.execute(query.limit(limit + 1)).all()
            ids = [row.id for row in found[:limit]]
            told = connection.execute(
                select(alert_deliveries)
                .where(alert_deliveries.c.alert.in_(ids))
                .order_by(alert_deliveries.c.receiver)
            ).all()
        deliveries: Mapping[str, list[LoggedDelivery]] = defaultdict(list)
        for row in told:
            deliveries[row.alert].append(
                LoggedDelivery(
                    receiver=row.receiver,
                    status=row.status,
                    attempts=row.attempts,
                    last_error=row.last_error,
                    next_attempt_at_us=row.next_attempt_at_us,
                    done_at_us=row.done_at_us,
                )
            )
        alerts = [
            LoggedAlert(
                facts=row.facts, is_silent=row.is_silent, deliveries=tuple(deliveries[row.id])
            )
            for row in found[:limit]
        ]
        return alerts, ids[-1] if len(found) > limit else None


def _instant(us: int | None) -> str | None:
    return None if us is None else to_rfc3339(us)
