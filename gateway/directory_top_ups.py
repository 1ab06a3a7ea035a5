"""Amounts added to single windows of budgets: who added what, when and why.

Must never change or remove one: a mistake is mended by the budget's limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, func, insert, select

from gateway.budgets.rules import Budget, TopUp, Unit, parse_limit, window_of
from gateway.budgets.windows import BudgetWindow, RollingWindow
from gateway.clock import epoch_us, from_epoch_us
from gateway.directory_model import BudgetEntry, Invalid, TopUpEntry, TopUpPage
from gateway.directory_nouns import Change, Desk, to_budget
from gateway.directory_rows import Shelf
from gateway.tables import budget_top_ups

REASON_CHARS_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUpWish:
    """What is to be added.

    Attributes:
        budget: Id of the budget.
        amount: Text such as ``100 USD``, in the budget's unit.
        reason: Why, for whoever looks later.
        at: An instant of the window; ``None`` for the one that holds now.
    """

    budget: str
    amount: str
    reason: str
    at: datetime | None = None


class TopUps:
    """What was added to windows. Every method waits for the database: call it from a thread."""

    def __init__(self, budgets: Shelf[BudgetEntry], desk: Desk) -> None:
        """Open the list.

        Args:
            budgets: Where the budgets are.
            desk: What changes need.
        """
        self._budgets = budgets
        self._desk = desk

    def add(self, wish: TopUpWish, *, actor: str) -> TopUpEntry:
        """Add an amount to one window of a budget, also of one from the configuration file.

        Args:
            wish: What to add.
            actor: Who does it, for the audit.

        Returns:
            The entry as kept.

        Raises:
            NotFound: There is no such budget.
            Invalid: Not a positive amount in the budget's unit, no reason, a window that is over,
                or a budget that has no such window.
        """
        with self._desk.change(actor) as change:
            budget = to_budget(self._budgets.load(change.connection, wish.budget))
            now = from_epoch_us(change.at_us)
            _check_amount(wish, budget.unit)
            _check_reason(wish)
            at = now if wish.at is None else wish.at
            window = _window_to_add_to(budget, at, now)
            entry = TopUpEntry(
                id=change.ids.mint(change.at_us // 1000),
                budget=wish.budget,
                amount=wish.amount,
                reason=wish.reason,
                actor=actor,
                created_at=now,
                window_start=window.start,
                window_end=window.end,
            )
            self._append(change, entry, at)
            change.write("top_up", "budget", wish.budget, (None, _to_audit(entry)))
        return entry

    def page(self, budget_id: str, limit: int, cursor: str | None = None) -> TopUpPage:
        """Read one page of what was added to a budget, the oldest first.

        Args:
            budget_id: The budget.
            limit: Most items.
            cursor: ``next_cursor`` of the page before; ``None`` for the first.

        Returns:
            The page, with the windows as the budget is cut into them now.

        Raises:
            NotFound: There is no such budget.
        """
        with self._desk.read() as connection:
            budget = to_budget(self._budgets.load(connection, budget_id))
            rows = _load_rows(connection, budget_id, cursor, limit + 1)
        items = tuple(_to_entry(row, budget) for row in rows[:limit])
        return TopUpPage(items=items, next_cursor=items[-1].id if len(rows) > limit else None)

    def load_all(self, connection: Connection) -> Mapping[str, tuple[TopUp, ...]]:
        """Read what counts, for every budget.

        Args:
            connection: Any.

        Returns:
            By budget id, whatever its unit is by now; see ``in_unit``.
        """
        found: dict[str, list[RowMapping]] = {}
        query = select(budget_top_ups).order_by(budget_top_ups.c.seq)
        for row in connection.execute(query).mappings():
            rows = found.setdefault(row["budget"], [])
            if row["amount"] is None:
                rows.clear()
            else:
                rows.append(row)
        budgets = self._budgets.load_all(connection)
        return {
            name: tuple(
                TopUp(at=from_epoch_us(row["window_at_us"]), amount=amount)
                for row in rows
                for amount, unit in (parse_limit(row["amount"]),)
                if unit is to_budget(budgets[name]).unit
            )
            for name, rows in found.items()
            if rows and name in budgets
        }

    def close(self, change: Change, budget_id: str) -> None:
        """End what was added to a budget that is made or deleted: another one begins without it.

        Args:
            change: Under way.
            budget_id: The budget.
        """
        if _load_rows(change.connection, budget_id, limit=1):
            row = {"budget": budget_id, "reason": "the budget was made or deleted"}
            row["id"] = change.ids.mint(change.at_us // 1000)
            _insert(change, row)

    def _append(self, change: Change, entry: TopUpEntry, at: datetime) -> None:
        row = {
            "id": entry.id,
            "budget": entry.budget,
            "amount": entry.amount,
            "window_at_us": epoch_us(at),
            "reason": entry.reason,
        }
        _insert(change, row)


def _insert(change: Change, row: dict[str, Any]) -> None:
    # Every change of the directory holds its lock, so that no other takes the same number.
    last = change.connection.scalar(select(func.max(budget_top_ups.c.seq)))
    values = {"seq": (last or 0) + 1, "at_us": change.at_us, "actor": change.actor, **row}
    change.connection.execute(insert(budget_top_ups).values(values))


def _load_rows(
    connection: Connection, budget_id: str, after: str | None = None, limit: int | None = None
) -> list[RowMapping]:
    """Read what was added to a budget since it was made, the oldest first."""
    is_its = budget_top_ups.c.budget == budget_id
    closed = select(func.max(budget_top_ups.c.seq)).where(is_its, budget_top_ups.c.amount.is_(None))
    query = (
        select(budget_top_ups)
        .where(is_its, budget_top_ups.c.seq > func.coalesce(closed.scalar_subquery(), 0))
        .order_by(budget_top_ups.c.seq)
        .limit(limit)
    )
    if after is not None:
        place = select(budget_top_ups.c.seq).where(is_its, budget_top_ups.c.id == after)
        query = query.where(budget_top_ups.c.seq > func.coalesce(place.scalar_subquery(), 0))
    return list(connection.execute(query).mappings())


def _to_entry(row: RowMapping, budget: Budget) -> TopUpEntry:
    window = window_of(budget, from_epoch_us(row["window_at_us"]))
    return TopUpEntry(
        id=row["id"],
        budget=row["budget"],
        amount=row["amount"],
        reason=row["reason"],
        actor=row["actor"],
        created_at=from_epoch_us(row["at_us"]),
        window_start=window.start,
        window_end=window.end,
    )


def _check_amount(wish: TopUpWish, unit: Unit) -> None:
    try:
        its_unit = parse_limit(wish.amount)[1]
    except ValueError:
        its_unit = None
    if its_unit is not unit:
        reason = (
            f'amount {wish.amount[:64]!r} is not accepted; write one such as "100 {unit.value}", '
            "greater than zero; to take something back lower the limit"
        )
        raise Invalid("budget", wish.budget, "amount", reason)


def _check_reason(wish: TopUpWish) -> None:
    text = wish.reason
    if not text.strip() or len(text) > REASON_CHARS_MAX or not text.isprintable():
        reason = f"reason: say why in 1 to {REASON_CHARS_MAX} printable characters"
        raise Invalid("budget", wish.budget, "reason", reason)


def _window_to_add_to(budget: Budget, at: datetime, now: datetime) -> BudgetWindow:
    window = window_of(budget, at)
    if isinstance(budget.window, RollingWindow):
        reason = "at: a rolling window is another one all the time; raise the limit instead"
    elif not budget.is_in_force(at):
        reason = f"at: the budget is not in force at {at.isoformat()}; name an instant when it is"
    elif window.end is not None and window.end <= now:
        reason = f"at: the window that ended {window.end.isoformat()} is over"
    else:
        return window
    raise Invalid("budget", budget.id, "at", reason)


def _to_audit(entry: TopUpEntry) -> dict[str, Any]:
    end = entry.window_end
    return {
        "id": entry.id,
        "amount": entry.amount,
        "reason": entry.reason,
        "window_start": entry.window_start.isoformat(),
        "window_end": None if end is None else end.isoformat(),
    }
