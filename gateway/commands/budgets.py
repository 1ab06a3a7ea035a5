"""``taximeter budgets``. Must never change a budget that the settings file owns.

What open calls hold is known to the running gateway alone; ``GET /api/v1/budgets`` shows it.
"""

import argparse
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Engine

from gateway.budgets.rules import Budget, Mode, amount_to_text, window_of
from gateway.budgets.windows import BudgetWindow
from gateway.clock import Clock, SystemClock, epoch_us
from gateway.commands.catch_up import catch_up
from gateway.commands.context import actor_name, read_settings
from gateway.commands.database import directory_answers, opened_database, opened_directory
from gateway.commands.entities import (
    Noun,
    instant_text,
    list_all,
    read_all,
    say_done,
    show_one,
)
from gateway.commands.output import bar_text, write_json, write_line, write_note, write_table
from gateway.commands.parsing import Actions, add_json, parse_count, parse_list, parse_pair
from gateway.directory import Directory
from gateway.directory_model import BudgetEntry
from gateway.directory_nouns import to_budget
from gateway.ledger.queries import Queries, Spent

_NOUN: Final = Noun(
    plural="budgets",
    columns={
        "ID": lambda budget: budget.id,
        "SCOPE": lambda budget: budget.scope or "everything",
        "LIMIT": lambda budget: budget.limit,
        "WINDOW": lambda budget: budget.window,
        "TIMEZONE": lambda budget: budget.timezone,
        "MODE": lambda budget: budget.mode,
        "ALERTS": lambda budget: ", ".join(f"{percent}%" for percent in budget.thresholds),
        "FROM": lambda budget: budget.managed_by,
    },
)
_STATUS_HEADINGS: Final = (
    "ID",
    "SPENT",
    "LIMIT",
    "REMAINING",
    "UNIT",
    "USED",
    "MODE",
    "WINDOW ENDS",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    actions = Actions(parser)
    add_json(actions.add("list", "list every budget", "list --json"))
    _add_create(actions)
    show = actions.add("show", "show a budget", "show search-month")
    show.add_argument("id")
    add_json(show)
    drop = actions.add("delete", "delete a budget", "delete search-month")
    drop.add_argument("id")
    status = actions.add(
        "status",
        "show what is spent and left, from the ledger; without what open calls hold",
        "status\nstatus search-month --json",
    )
    status.add_argument("id", nargs="?", help="one budget; all of them unless given")
    add_json(status)


def _add_create(actions: Actions) -> None:
    make = actions.add(
        "create",
        "create a budget, in force within a second",
        "create search-month --scope team=search --limit '500 USD' --window month"
        " --timezone Europe/Berlin --thresholds 50,80,100",
    )
    make.add_argument("id", help="id of the new budget")
    make.add_argument(
        "--scope",
        action="append",
        default=[],
        type=parse_pair,
        metavar="NAME=VALUE",
        help="whom it limits: organization, team, project, key, user, model, provider or"
        " tag.<name>; may be repeated, all must match; every call unless given",
    )
    make.add_argument(
        "--limit", required=True, help="'500 USD', '2000000 tokens' or '100 requests'"
    )
    make.add_argument(
        "--window",
        required=True,
        help="minute, hour, day, week, month, quarter, year, total or rolling:<seconds>",
    )
    make.add_argument("--timezone", default="UTC", help="zone of the borders (%(default)s)")
    make.add_argument(
        "--mode",
        choices=[mode.value for mode in Mode],
        default=Mode.HARD.value,
        help="what happens at the limit (%(default)s)",
    )
    make.add_argument(
        "--thresholds",
        type=_parse_percents,
        default=(),
        metavar="N[,N]",
        help="percentages of the limit that raise an alert (none)",
    )
    add_json(make)


def _parse_percents(text: str) -> tuple[int, ...]:
    return tuple(parse_count(item.removesuffix("%")) for item in parse_list(text))


def run(args: argparse.Namespace) -> int:
    """Do one action.

    Args:
        args: As parsed.

    Returns:
        Exit code.
    """
    if args.action == "status":
        return _status(args, SystemClock())
    with opened_directory(args) as directory:
        match args.action:
            case "list":
                return list_all(_NOUN, directory.budgets.page, args)
            case "create":
                entry = BudgetEntry(
                    id=args.id,
                    scope=dict(args.scope),
                    limit=args.limit,
                    window=args.window,
                    timezone=args.timezone,
                    mode=args.mode,
                    thresholds=args.thresholds,
                )
                return show_one(_NOUN, directory.budgets.create(entry, actor=actor_name()), args)
            case "show":
                return show_one(_NOUN, directory.budgets.load(args.id), args)
            case _:
                directory.budgets.delete(args.id, actor=actor_name())
                return say_done("budget", args.id, "deleted")


def _status(args: argparse.Namespace, clock: Clock) -> int:
    settings = read_settings(args)
    with opened_database(settings) as engine, directory_answers(args):
        directory = Directory(engine, settings)
        entries = [directory.budgets.load(args.id)] if args.id else read_all(directory.budgets.page)
        budgets = [to_budget(entry) for entry in entries]
        catch_up(settings, engine, clock)
        found = _read_status(engine, budgets, clock.now())
    if args.json:
        rows = [_status_row(*status) for status in found]
        write_json(rows[0] if args.id else rows)
    elif found:
        write_table(
            _STATUS_HEADINGS,
            [_status_cells(*status) for status in found],
            right=("SPENT", "LIMIT", "REMAINING"),
        )
        for budget, _, spent in found:
            if spent.parked:
                amount = f"{amount_to_text(spent.parked, budget.unit)} {budget.unit}"
                write_note(f"{budget.id}: {amount} of it is the ceiling of calls of unknown cost")
    else:
        write_line("no budgets")
    return 0


_Status = tuple[Budget, BudgetWindow, Spent]


def _read_status(engine: Engine, budgets: Iterable[Budget], at: datetime) -> list[_Status]:
    queries = Queries(engine)
    found = []
    for budget in budgets:
        window = window_of(budget, at)
        end_us = None if window.end is None else epoch_us(window.end)
        spent = queries.sum_spent(
            budget.scope, budget.unit, epoch_us(window.start), end_us, up_to={}
        )
        found.append((budget, window, spent))
    return found


def _status_cells(budget: Budget, window: BudgetWindow, spent: Spent) -> list[str]:
    total = spent.settled + spent.parked
    return [
        budget.id,
        amount_to_text(total, budget.unit),
        amount_to_text(budget.limit, budget.unit),
        amount_to_text(budget.limit - total, budget.unit),
        budget.unit.value,
        bar_text(total, budget.limit),
        budget.mode.value,
        "never" if window.end is None else instant_text(window.end),
    ]


def _status_row(budget: Budget, window: BudgetWindow, spent: Spent) -> dict[str, Any]:
    total = spent.settled + spent.parked
    return {
        "id": budget.id,
        "limit": amount_to_text(budget.limit, budget.unit),
        "spent": amount_to_text(total, budget.unit),
        "parked": amount_to_text(spent.parked, budget.unit),
        "reserved": None,
        "remaining": amount_to_text(budget.limit - total, budget.unit),
        "unit": budget.unit.value,
        "mode": budget.mode.value,
        "window_start": instant_text(window.start),
        "window_end": None if window.end is None else instant_text(window.end),
    }
