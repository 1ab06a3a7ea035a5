"""``taximeter budgets status``: what is spent, held and left, and when it will be used up.

Must never change anything but bring the ledger up to the journal.
"""

import argparse
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Engine

from gateway.budgets.forecast import (
    burn_per_day,
    burn_per_window,
    forecast_exhaustion,
    is_short,
)
from gateway.budgets.loading import read_bases
from gateway.budgets.memory import MemoryBudgets
from gateway.budgets.rules import Budget, BudgetStatus, amount_to_text
from gateway.budgets.windows import RollingWindow
from gateway.clock import Clock
from gateway.commands.catch_up import catch_up
from gateway.commands.context import read_settings
from gateway.commands.database import directory_answers, opened_database
from gateway.commands.entities import instant_text
from gateway.commands.open_calls import read_open_calls, with_open_calls
from gateway.commands.output import bar_text, write_json, write_line, write_note, write_table
from gateway.directory import Directory
from gateway.ledger.queries import Queries

_HEADINGS: Final = (
    "ID",
    "SPENT",
    "RESERVED",
    "REMAINING",
    "LIMIT",
    "UNIT",
    "USED",
    "RATE",
    "USED UP",
    "WINDOW ENDS",
    "MODE",
)
_NUMBERS: Final = ("SPENT", "RESERVED", "REMAINING", "LIMIT", "RATE")


def show_status(args: argparse.Namespace, clock: Clock) -> int:
    """Write what budgets have spent in their windows, from the ledger and the journals here.

    Args:
        args: With ``id``, ``None`` for every budget, and ``json``.
        clock: What time it is.

    Returns:
        Exit code.
    """
    settings = read_settings(args)
    with opened_database(settings) as engine, directory_answers(args):
        directory = Directory(engine, settings)
        if args.id:
            directory.budgets.load(args.id)  # says so where there is none
        budgets = [one for one in directory.load_snapshot().budgets if args.id in (None, one.id)]
        catch_up(settings, engine, clock)
        at = clock.now()
        calls = read_open_calls(settings.storage.journal_dir)
        found = [with_open_calls(one, calls) for one in _read_statuses(engine, budgets, at)]
    if args.json:
        rows = [_row(status, at) for status in found]
        write_json(rows[0] if args.id else rows)
    elif found:
        write_table(_HEADINGS, [_cells(status, at) for status in found], right=_NUMBERS)
        for status in found:
            _write_notes(status)
        if settings.storage.redis_url is not None:
            write_note("RESERVED is what calls of this machine hold: GET /api/v1/budgets adds all.")
    else:
        write_line("no budgets")
    return 0


def _read_statuses(
    engine: Engine, budgets: Sequence[Budget], at: datetime
) -> tuple[BudgetStatus, ...]:
    """Bring counters up to the ledger the way a gateway does at its start."""
    counters = MemoryBudgets()
    counters.install(budgets, at)
    for base in read_bases(Queries(engine), budgets, {}, at):
        counters.add_base(base.budget_id, base.window_start, base.settled, base.parked)
    return counters.status(at)


def _cells(status: BudgetStatus, at: datetime) -> list[str]:
    unit = status.budget.unit
    last = forecast_exhaustion(status, at) if status.is_in_force else None
    return [
        status.budget.id,
        amount_to_text(status.spent, unit),
        amount_to_text(status.held, unit),
        amount_to_text(status.remaining, unit),
        amount_to_text(status.limit, unit),
        unit.value,
        bar_text(status.spent, status.limit),
        _rate_text(status, at),
        "" if last is None else instant_text(last),
        _end_text(status),
        status.budget.mode.value,
    ]


def _end_text(status: BudgetStatus) -> str:
    if isinstance(status.budget.window, RollingWindow):
        return "rolling"
    return "never" if status.window.end is None else instant_text(status.window.end)


def _rate_text(status: BudgetStatus, at: datetime) -> str:
    """Write the rate of a window by the day, or by the window where that is shorter."""
    if not status.is_in_force:
        return ""
    rule, per = status.budget.window, "day"
    burn = burn_per_day(status, at)
    if is_short(status):
        burn = burn_per_window(status, at)
        per = f"{rule.seconds} s" if isinstance(rule, RollingWindow) else rule.text
    return "" if burn is None else f"{amount_to_text(burn, status.budget.unit)} / {per}"


def _write_notes(status: BudgetStatus) -> None:
    budget = status.budget

    def say(amount: int, what: str) -> None:
        if amount:
            shown = amount_to_text(amount, budget.unit)
            write_note(f"{budget.id}: {shown} {budget.unit} {what}")

    say(status.parked, "of it is the ceiling of calls of unknown cost")
    say(status.topped_up, "of the limit was topped up for this window")
    say(status.rolled_over, "of the limit was left by the window before")
    if not status.is_in_force:
        start, end = budget.valid_from, budget.valid_to
        since = "any time" if start is None else instant_text(start)
        until = "for ever" if end is None else f"until {instant_text(end)}"
        write_note(f"{budget.id}: not in force now, but from {since} {until}")


def _row(status: BudgetStatus, at: datetime) -> dict[str, Any]:
    unit, end = status.budget.unit, status.window.end
    burn = whole = last = None
    if status.is_in_force:
        burn, whole = burn_per_day(status, at), burn_per_window(status, at)
        last = forecast_exhaustion(status, at)
    return {
        "id": status.budget.id,
        "limit": amount_to_text(status.limit, unit),
        "topped_up": amount_to_text(status.topped_up, unit),
        "rolled_over": amount_to_text(status.rolled_over, unit),
        "spent": amount_to_text(status.spent, unit),
        "parked": amount_to_text(status.parked, unit),
        "reserved": amount_to_text(status.held, unit),
        "remaining": amount_to_text(status.remaining, unit),
        "unit": unit.value,
        "mode": status.budget.mode.value,
        "window_start": instant_text(status.window.start),
        "window_end": None if end is None else instant_text(end),
        "in_force": status.is_in_force,
        "burn_per_day": None if burn is None else amount_to_text(burn, unit),
        "burn_per_window": None if whole is None else amount_to_text(whole, unit),
        "exhausted_at": None if last is None else instant_text(last),
    }
