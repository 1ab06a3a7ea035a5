"""What budgets had to tell and who was told, in the database: once, whichever gateway sees it.

Must never give up an alert that was recorded because a process ended. Everything here waits for the
database: call it from a thread.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from gateway.budgets.alerting import AlertKind, Mark
from gateway.budgets.rules import BudgetId
from gateway.ledger.store import reading, store_errors
from gateway.tables import alert_deliveries, budget_alerts

Facts = Mapping[str, Any]
DeliveryStatus = Literal["waiting", "delivered", "failed"]

# How long after its window an alert stays in the log.
KEPT_US: Final = 90 * 86_400_000_000
# How long a delivery waits for a gateway that knows its receiver.
UNKNOWN_KEPT_US: Final = 7 * 86_400_000_000
_ERROR_CHARS_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RaisedMark:
    """Something a budget has told.

    Attributes:
        budget: The budget.
        mark: What.
        window_start_us: For which window; for a rolling one, since when it could be told.
        is_open: Whether nobody knows yet when it ends, as in a rolling window.
        raised_at_us: When.
        raised_by: Which gateway told it.
    """

    budget: BudgetId
    mark: Mark
    window_start_us: int
    is_open: bool
    raised_at_us: int
    raised_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAlert:
    """Something a budget has to tell.

    Attributes:
        id: Of the alert; also what receivers know a repeat by.
        budget: The budget.
        mark: What.
        window_start_us: For which window; ``None`` for a rolling one, whose start the log knows.
        window_end_us: End of that window; ``None`` when it has none.
        raised_at_us: Now.
        is_silent: Whether nobody is told.
        facts: What messages are written from.
        receivers: Who is to be told.
    """

    id: str
    budget: BudgetId
    mark: Mark
    window_start_us: int | None
    window_end_us: int | None
    raised_at_us: int
    is_silent: bool
    facts: Facts
    receivers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An alert to be sent to a receiver, by nobody else until its lease ends.

    Attributes:
        alert: Id of the alert.
        receiver: Id of the receiver.
        attempts: How often it has been tried, this time included.
        facts: What to write the message from.
    """

    alert: str
    receiver: str
    attempts: int
    facts: Facts


class Outbox:
    """The alerts of every gateway on one database, through the eyes of one of them.

    Attributes:
        by: Name of this gateway; the same after a restart.
    """

    def __init__(self, engine: Engine, by: str) -> None:
        """Open the outbox.

        Args:
            engine: Of the database.
            by: Name of this gateway; the same after a restart.
        """
        self._engine = engine
        self.by = by

    def load_marks(self, at_us: int) -> list[RaisedMark]:
        """Read what must not be told again.

        Args:
            at_us: Now.

        Returns:
            What was told in windows that have not ended.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        end = budget_alerts.c.window_end_us
        query = select(
            budget_alerts.c.budget,
            budget_alerts.c.kind,
            budget_alerts.c.threshold,
            budget_alerts.c.window_start_us,
            end,
            budget_alerts.c.raised_at_us,
            budget_alerts.c.raised_by,
        ).where(or_(end.is_(None), end > at_us))
        with store_errors(), reading(self._engine).connect() as connection:
            rows = connection.execute(query).all()
        return [
            RaisedMark(
                budget=BudgetId(row.budget),
                mark=Mark(AlertKind(row.kind), row.threshold),
                window_start_us=row.window_start_us,
                is_open=row.window_end_us is None,
                raised_at_us=row.raised_at_us,
                raised_by=row.raised_by,
            )
            for row in rows
        ]

    def claim(self, alerts: Sequence[NewAlert]) -> list[str]:
        """Record what a budget has to tell, with who is to be told, all or nothing.

        Args:
            alerts: Of one budget, the highest threshold first.

        Returns:
            Ids of those that nobody had recorded before; the others are told by somebody else.

        Raises:
            StoreUnavailable: The database cannot be reached; nothing was recorded.
        """
        with store_errors(), self._engine.begin() as connection:
            return [alert.id for alert in alerts if self._claim_one(connection, alert)]

    def _claim_one(self, connection: Connection, alert: NewAlert) -> bool:
        start_us = alert.window_start_us
        if start_us is None:
            start_us = _rolling_start(connection, alert)
        if start_us is None:
            return False
        row = {
            "id": alert.id,
            "budget": alert.budget,
            "window_start_us": start_us,
            "kind": alert.mark.kind.value,
            "threshold": alert.mark.threshold,
            "window_end_us": alert.window_end_us,
            "raised_at_us": alert.raised_at_us,
            "raised_by": self.by,
            "is_silent": alert.is_silent,
            "facts": dict(alert.facts),
        }
        if not _insert_new(connection, budget_alerts, row):
            return False
        if alert.receivers:
            rows = [
                {
                    "alert": alert.id,
                    "receiver": receiver,
                    "status": "waiting",
                    "attempts": 0,
                    "next_attempt_at_us": alert.raised_at_us,
                }
                for receiver in alert.receivers
            ]
            connection.execute(insert(alert_deliveries), rows)
        return True

    def end_marks(self, budget: BudgetId, marks: Iterable[Mark], at_us: int) -> None:
        """Let a rolling window tell something again.

        Args:
            budget: The budget.
            marks: What it has fallen clearly below.
            at_us: Now.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        with store_errors(), self._engine.begin() as connection:
            for mark in marks:
                connection.execute(
                    update(budget_alerts)
                    .where(_is_of(budget, mark), budget_alerts.c.window_end_us.is_(None))
                    .values(window_end_us=at_us)
                )

    def take(self, receiver: str, at_us: int, lease_us: int) -> Delivery | None:
        """Take the delivery that has waited longest for its next attempt.

        The attempt counts from here, so that one which kills the process is not made for ever.

        Args:
            receiver: Whom it is for.
            at_us: Now.
            lease_us: How long nobody else may take it, in microseconds.

        Returns:
            The delivery; ``None`` when none is due.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        table = alert_deliveries
        due = (
            select(table.c.alert, table.c.attempts, budget_alerts.c.facts)
            .join(budget_alerts, budget_alerts.c.id == table.c.alert)
            .where(
                table.c.receiver == receiver,
                table.c.status == "waiting",
                table.c.next_attempt_at_us <= at_us,
                or_(table.c.leased_until_us.is_(None), table.c.leased_until_us <= at_us),
            )
            .order_by(table.c.next_attempt_at_us, table.c.alert)
            .limit(1)
        )
        with store_errors():
            # A look takes no lock: mostly there is nothing.
            with reading(self._engine).connect() as connection:
                if connection.execute(due).first() is None:
                    return None
            with self._engine.begin() as connection:
                locked = due.with_for_update(skip_locked=True, of=table)
                found = connection.execute(locked).first()
                if found is None:
                    return None
                attempts = found.attempts + 1
                connection.execute(
                    update(table)
                    .where(table.c.alert == found.alert, table.c.receiver == receiver)
                    .values(attempts=attempts, leased_by=self.by, leased_until_us=at_us + lease_us)
                )
        return Delivery(alert=found.alert, receiver=receiver, attempts=attempts, facts=found.facts)

    def finish(self, delivery: Delivery, at_us: int) -> None:
        """Note that a receiver has taken an alert.

        Args:
            delivery: As taken.
            at_us: Now.

        Raises:
            StoreUnavailable: The database cannot be reached: it will be sent once more, under the
                same id.
        """
        # Whoever else has taken it meanwhile, because the lease ran out: it has arrived.
        self._note(
            delivery,
            alert_deliveries.c.status == "waiting",
            status="delivered",
            done_at_us=at_us,
            next_attempt_at_us=None,
            last_error=None,
        )

    def put_back(self, delivery: Delivery, error: str, next_attempt_at_us: int) -> None:
        """Note that an attempt failed, and when the next one is due.

        Args:
            delivery: As taken.
            error: Why, without anything the receiver said.
            next_attempt_at_us: When.

        Raises:
            StoreUnavailable: The database cannot be reached: the next attempt is due when the
                lease ends.
        """
        self._note(
            delivery,
            _is_mine(delivery),
            last_error=error[:_ERROR_CHARS_MAX],
            next_attempt_at_us=next_attempt_at_us,
        )

    def give_up(self, delivery: Delivery, error: str, at_us: int) -> None:
        """Note that a delivery is not tried any more.

        Args:
            delivery: As taken.
            error: Why, without anything the receiver said.
            at_us: Now.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        self._note(
            delivery,
            _is_mine(delivery),
            status="failed",
            last_error=error[:_ERROR_CHARS_MAX],
            done_at_us=at_us,
            next_attempt_at_us=None,
        )

    def _note(self, delivery: Delivery, condition: ColumnElement[bool], **values: object) -> None:
        table = alert_deliveries
        statement = (
            update(table)
            .where(
                table.c.alert == delivery.alert, table.c.receiver == delivery.receiver, condition
            )
            .values(leased_by=None, leased_until_us=None, **values)
        )
        with store_errors(), self._engine.begin() as connection:
            connection.execute(statement)

    def release(self) -> None:
        """Take over at once what this gateway had taken before it was started again.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        table = alert_deliveries
        statement = (
            update(table)
            .where(table.c.status == "waiting", table.c.leased_by == self.by)
            .values(leased_by=None, leased_until_us=None)
        )
        with store_errors(), self._engine.begin() as connection:
            connection.execute(statement)

    def count_waiting(self) -> int:
        """Count what has not arrived and was not given up, over all gateways.

        Returns:
            How many deliveries wait.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        query = (
            select(func.count())
            .select_from(alert_deliveries)
            .where(alert_deliveries.c.status == "waiting")
        )
        with store_errors(), reading(self._engine).connect() as connection:
            return int(connection.execute(query).scalar_one())

    def prune(self, at_us: int) -> None:
        """Forget alerts of windows long gone; give up what no gateway has a receiver for.

        Args:
            at_us: Now.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        old = select(budget_alerts.c.id).where(budget_alerts.c.window_end_us < at_us - KEPT_US)
        is_lost = and_(
            alert_deliveries.c.status == "waiting",
            alert_deliveries.c.next_attempt_at_us < at_us - UNKNOWN_KEPT_US,
        )
        lost = (
            update(alert_deliveries)
            .where(is_lost)
            .values(
                status="failed",
                last_error="no gateway has this receiver any more",
                done_at_us=at_us,
                next_attempt_at_us=None,
                leased_by=None,
                leased_until_us=None,
            )
        )
        with store_errors(), self._engine.begin() as connection:
            connection.execute(lost)
            connection.execute(delete(alert_deliveries).where(alert_deliveries.c.alert.in_(old)))
            connection.execute(
                delete(budget_alerts).where(budget_alerts.c.window_end_us < at_us - KEPT_US)
            )


def _is_of(budget: BudgetId, mark: Mark) -> ColumnElement[bool]:
    return and_(
        budget_alerts.c.budget == budget,
        budget_alerts.c.kind == mark.kind.value,
        budget_alerts.c.threshold == mark.threshold,
    )


def _is_mine(delivery: Delivery) -> ColumnElement[bool]:
    """Nobody else has taken it since."""
    return and_(
        alert_deliveries.c.status == "waiting",
        alert_deliveries.c.attempts == delivery.attempts,
    )


def _rolling_start(connection: Connection, alert: NewAlert) -> int | None:
    """Find since when a rolling window could tell something; ``None`` while it has told it."""
    last = connection.execute(
        select(budget_alerts.c.window_end_us)
        .where(_is_of(alert.budget, alert.mark))
        .order_by(budget_alerts.c.window_start_us.desc())
        .limit(1)
    ).one_or_none()
    if last is None:
        return 0
    end_us: int | None = last.window_end_us
    return end_us


def _insert_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless a unique key is taken; a rival that is inserting is waited for."""
    make = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    new = make(table).values(**row).on_conflict_do_nothing().returning(table.c.id)
    return connection.execute(new).one_or_none() is not None
