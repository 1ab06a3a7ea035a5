"""Amounts added to single windows of budgets, on every database."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DatabaseError

from gateway.budgets.allowance import topped_up
from gateway.budgets.rules import Budget, window_of
from gateway.directory import Directory
from gateway.directory_model import BudgetEntry, Invalid, NotFound, TopUpEntry
from gateway.directory_top_ups import TopUpWish
from gateway.settings import load_settings
from gateway.tables import audit
from tests.budgets.builders import instant, usd
from tests.directory.conftest import CONFIG

ME = "a test"
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


class Hands:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        """Tell the time."""
        return self.at

    def monotonic_s(self) -> float:
        """Tell seconds since some moment."""
        return self.at.timestamp()


@pytest.fixture
def hands() -> Hands:
    """Make a clock."""
    return Hands()


@pytest.fixture
def timed(engine: Engine, tmp_path: Path, hands: Hands) -> Directory:
    """Make the directory of ``CONFIG`` on a clock of its own."""
    file = tmp_path / "taximeter.yaml"
    file.write_text(CONFIG, "utf-8")
    return Directory(engine, load_settings(file, {}), hands)


def add(timed: Directory, budget: str, amount: str, at: str | None = None) -> TopUpEntry:
    """Add an amount."""
    wish = TopUpWish(
        budget=budget, amount=amount, reason="launch week", at=None if at is None else instant(at)
    )
    return timed.top_ups.add(wish, actor=ME)


def in_force(timed: Directory, budget: str) -> Budget:
    """Read a budget as the gateway follows it."""
    return next(one for one in timed.load_snapshot().budgets if one.id == budget)


def make(timed: Directory, **fields: Any) -> BudgetEntry:
    """Make a budget named ads."""
    whole: dict[str, Any] = {
        "id": "ads",
        "scope": {},
        "limit": "5 requests",
        "window": "day",
        **fields,
    }
    return timed.budgets.create(BudgetEntry(**whole), actor=ME)


def test_what_is_added_counts_in_one_window(timed: Directory) -> None:
    """Also on a budget of the configuration file, and twice is twice."""
    before = timed.load_version()

    entry = add(timed, "search-month", "100 USD")
    add(timed, "search-month", "0.5 USD", "2026-11-30T23:59:59Z")
    add(timed, "search-month", "7 USD", "2026-12-01T00:00:00Z")

    assert (before + 3) == timed.load_version()
    assert instant("2026-11-01T00:00:00Z") == entry.window_start
    assert instant("2026-12-01T00:00:00Z") == entry.window_end
    one = in_force(timed, "search-month")
    months = [topped_up(one, window_of(one, NOW + timedelta(days=days))) for days in (0, 10, 50)]
    assert [usd("100.5"), usd("7"), 0] == months


def test_every_addition_says_who_when_and_why(timed: Directory, hands: Hands) -> None:
    """In the list of the budget, and in the audit."""
    add(timed, "search-month", "100 USD")
    hands.at += timedelta(hours=1)
    add(timed, "search-month", "50 USD")

    first = timed.top_ups.page("search-month", 1)
    second = timed.top_ups.page("search-month", 1, first.next_cursor)
    (one,), (two,) = first.items, second.items
    assert ("100 USD", "launch week", ME, NOW) == (
        one.amount,
        one.reason,
        one.actor,
        one.created_at,
    )
    assert ("50 USD", NOW + timedelta(hours=1)) == (two.amount, two.created_at)
    assert second.next_cursor is None
    with timed._desk.read() as connection:
        rows = connection.execute(select(audit).order_by(audit.c.id)).all()
    assert [(ME, "top_up", "budget", "search-month")] * 2 == [
        (row.actor, row.action, row.noun, row.noun_id) for row in rows
    ]
    assert {
        "id": one.id,
        "amount": "100 USD",
        "reason": "launch week",
        "window_start": "2026-11-01T00:00:00+00:00",
        "window_end": "2026-12-01T00:00:00+00:00",
    } == rows[0].after


@pytest.mark.parametrize(
    "change", ["UPDATE budget_top_ups SET amount = '1 USD'", "DELETE FROM budget_top_ups"]
)
def test_nothing_added_is_ever_edited(timed: Directory, engine: Engine, change: str) -> None:
    """The database itself refuses."""
    add(timed, "search-month", "100 USD")

    with pytest.raises(DatabaseError, match="append-only"), engine.begin() as connection:
        connection.execute(text(change))


@pytest.mark.parametrize(
    ("amount", "reason", "at", "says"),
    [
        ("100 tokens", "why", None, 'write one such as "100 USD"'),
        ("-5 USD", "why", None, "greater than zero; to take something back lower the limit"),
        ("0 USD", "why", None, "greater than zero"),
        ("5 USD", " ", None, "say why in 1 to 500"),
        ("5 USD", "two\nlines", None, "printable"),
        ("5 USD", "why", "2026-10-31T23:59:59Z", "the window that ended 2026-11-01T00:00:00+00:00"),
    ],
)
def test_what_cannot_be_added_is_refused(
    timed: Directory, amount: str, reason: str, at: str | None, says: str
) -> None:
    """With what would do; nothing is kept."""
    wish = TopUpWish(
        budget="search-month", amount=amount, reason=reason, at=None if at is None else instant(at)
    )

    with pytest.raises(Invalid, match=re.escape(says)):
        timed.top_ups.add(wish, actor=ME)

    assert () == timed.top_ups.page("search-month", 10).items


def test_only_windows_that_stay_can_be_added_to(timed: Directory) -> None:
    """A rolling window moves, and a budget has none outside its validity."""
    make(timed, window="rolling:60")
    with pytest.raises(Invalid, match="rolling window is another one all the time"):
        add(timed, "ads", "1 requests")
    timed.budgets.delete("ads", actor=ME)
    make(timed, valid_from=NOW + timedelta(days=1))
    with pytest.raises(Invalid, match="not in force"):
        add(timed, "ads", "1 requests")
    add(timed, "ads", "1 requests", "2026-11-24T10:00:00Z")
    with pytest.raises(NotFound):
        add(timed, "nobody", "1 requests")
    with pytest.raises(NotFound):
        timed.top_ups.page("nobody", 10)


def test_another_budget_of_the_same_name_begins_without(timed: Directory) -> None:
    """What was added goes with the budget, even within one microsecond; the audit remembers."""
    make(timed)
    add(timed, "ads", "3 requests")
    assert 1 == len(in_force(timed, "ads").top_ups)

    timed.budgets.delete("ads", actor=ME)
    make(timed)

    assert () == in_force(timed, "ads").top_ups
    assert () == timed.top_ups.page("ads", 10).items
    add(timed, "ads", "4 requests")
    assert [4] == [one.amount for one in in_force(timed, "ads").top_ups]


def test_another_unit_leaves_behind_what_was_added(timed: Directory) -> None:
    """Requests are no tokens; back in requests they count again."""
    make(timed)
    add(timed, "ads", "3 requests")

    timed.budgets.update("ads", {"limit": "500 tokens"}, actor=ME)
    assert () == in_force(timed, "ads").top_ups
    timed.budgets.update("ads", {"limit": "9 requests"}, actor=ME)
    assert [3] == [one.amount for one in in_force(timed, "ads").top_ups]


def test_a_budget_keeps_all_its_fields(timed: Directory) -> None:
    """Written, read back, changed, and in force with them."""
    wanted = {
        "window": "month",
        "timezone": "Europe/Berlin",
        "anchor": "2026-01-31T09:00:00",
        "rollover": "2 requests",
        "valid_from": NOW,
        "valid_to": NOW + timedelta(days=90),
    }

    made = make(timed, **wanted)

    assert made == timed.budgets.load("ads")
    assert wanted == {name: getattr(made, name) for name in wanted}
    one = in_force(timed, "ads")
    assert (2, NOW, NOW + timedelta(days=90)) == (one.rollover_max, one.valid_from, one.valid_to)
    assert "2026-01-31T09:00:00" == one.window.anchor
    kept = timed.budgets.update("ads", {"rollover": False, "anchor": None}, actor=ME)
    assert (False, None, NOW) == (kept.rollover, kept.anchor, kept.valid_from)


def test_rollover_begins_with_the_window_that_holds_now(timed: Directory) -> None:
    """Nothing is taken over from before the budget was there, unless it says since when."""
    assert instant("2026-11-23T00:00:00Z") == make(timed, rollover=True).valid_from
    timed.budgets.delete("ads", actor=ME)
    make(timed, window="month")
    kept = timed.budgets.update("ads", {"rollover": True}, actor=ME)
    assert instant("2026-11-01T00:00:00Z") == kept.valid_from
    with pytest.raises(Invalid, match="rollover does not fit the window 'total'"):
        timed.budgets.update("ads", {"window": "total"}, actor=ME)


def test_a_budget_made_before_these_fields_were_known_reads_as_before(
    timed: Directory, engine: Engine
) -> None:
    """Its definition says nothing of them."""
    old = '{"scope": {}, "limit": "5 USD", "window": "day", "timezone": "UTC", "mode": "hard", '
    old += '"thresholds": [80]}'
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO budgets (id, definition, created_at_us) VALUES ('old', '{old}', 1)"
        )

    entry = timed.budgets.load("old")

    assert (None, False, None, None) == (
        entry.anchor,
        entry.rollover,
        entry.valid_from,
        entry.valid_to,
    )
    assert in_force(timed, "old").rollover_max is None
