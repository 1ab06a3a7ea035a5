"""``taximeter budgets``. Must never change a budget that the settings file owns."""

import argparse
from typing import Final

from gateway.clock import SystemClock
from gateway.commands.alerts import add_alert_actions, list_alerts, send_test
from gateway.commands.budget_fields import add_fields, given_fields
from gateway.commands.budget_status import show_status
from gateway.commands.context import actor_name
from gateway.commands.database import opened_directory
from gateway.commands.entities import Noun, instant_text, list_all, say_done, show_one
from gateway.commands.output import CommandFailed, write_fields, write_json, write_line, write_table
from gateway.commands.parsing import Actions, add_json, parse_instant
from gateway.directory import Directory
from gateway.directory_model import BudgetEntry, TopUpEntry
from gateway.directory_nouns import Budgets
from gateway.directory_top_ups import TopUpWish

_NOUN: Final = Noun(
    plural="budgets",
    columns={
        "ID": lambda budget: budget.id,
        "SCOPE": lambda budget: budget.scope or "everything",
        "LIMIT": lambda budget: budget.limit,
        "WINDOW": lambda budget: budget.window,
        "TIMEZONE": lambda budget: budget.timezone,
        "ANCHOR": lambda budget: budget.anchor,
        "MODE": lambda budget: budget.mode,
        "ALERTS": lambda budget: ", ".join(f"{percent}%" for percent in budget.thresholds),
        "ACTIONS": lambda budget: ", ".join(budget.actions),
        "ROLLOVER": lambda budget: _rollover_text(budget),
        "VALID FROM": lambda budget: budget.valid_from,
        "VALID TO": lambda budget: budget.valid_to,
        "FROM": lambda budget: budget.managed_by,
    },
)
_TOP_UPS_ROWS: Final = 500
_TOP_UP_HEADINGS: Final = ("ADDED", "AMOUNT", "WINDOW FROM", "WINDOW TO", "BY", "WHY")


def _rollover_text(budget: BudgetEntry) -> str:
    if isinstance(budget.rollover, str):
        return f"at most {budget.rollover}"
    return "at most the limit" if budget.rollover else ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    actions = Actions(parser)
    add_json(actions.add("list", "list every budget", "list --json"))
    make = actions.add(
        "create",
        "create a budget, in force within a second",
        "create search-month --scope team=search --limit '500 USD' --window month"
        " --timezone Europe/Berlin --thresholds 50,80,100\n"
        "create payday --limit '500 USD' --window month --anchor 2026-01-25T09:00:00"
        " --rollover '100 USD'",
    )
    make.add_argument("id", help="id of the new budget")
    add_fields(make, is_new=True)
    add_json(make)
    change = actions.add(
        "update",
        "change a budget within a second; what is not given stays as it is",
        "update search-month --limit '800 USD' --no-rollover",
    )
    change.add_argument("id")
    add_fields(change, is_new=False)
    add_json(change)
    show = actions.add("show", "show a budget", "show search-month")
    show.add_argument("id")
    add_json(show)
    drop = actions.add("delete", "delete a budget", "delete search-month")
    drop.add_argument("id")
    _add_top_up(actions)
    status = actions.add(
        "status",
        "show what is spent, held by open calls and left, and when it will be used up",
        "status\nstatus search-month --json",
    )
    status.add_argument("id", nargs="?", help="one budget; all of them unless given")
    add_json(status)
    add_alert_actions(actions)


def _add_top_up(actions: Actions) -> None:
    add = actions.add(
        "top-up",
        "add an amount to one window of a budget, for good",
        "top-up search-month '100 USD' --reason 'launch week'",
    )
    add.add_argument("id")
    add.add_argument("amount", help="such as '100 USD', in the budget's unit")
    add.add_argument("--reason", required=True, help="why, for whoever looks later")
    add.add_argument(
        "--at",
        type=parse_instant,
        metavar="T",
        help="an instant of the window (that which holds now)",
    )
    add_json(add)
    shown = actions.add(
        "top-ups", "list what was added to windows of a budget", "top-ups search-month"
    )
    shown.add_argument("id")
    add_json(shown)


def run(args: argparse.Namespace) -> int:
    """Do one action.

    Args:
        args: As parsed.

    Returns:
        Exit code.
    """
    match args.action:
        case "status":
            return show_status(args, SystemClock())
        case "alerts":
            return list_alerts(args)
        case "test-alert":
            return send_test(args)
        case _:
            return _change(args)


def _change(args: argparse.Namespace) -> int:
    with opened_directory(args) as directory:
        if args.action in {"top-up", "top-ups"}:
            return _run_top_ups(directory, args)
        return _run_budgets(directory.budgets, args)


def _run_budgets(budgets: Budgets, args: argparse.Namespace) -> int:
    match args.action:
        case "list":
            return list_all(_NOUN, budgets.page, args)
        case "create":
            fields = {"scope": {}, **given_fields(args)}
            shown = budgets.create(BudgetEntry(id=args.id, **fields), actor=actor_name())
        case "update":
            fields = given_fields(args)
            if not fields:
                hint = "give what is to be another, such as --limit '800 USD'"
                raise CommandFailed(f"budget {args.id}: nothing to change; {hint}", exit_code=2)
            shown = budgets.update(args.id, fields, actor=actor_name())
        case "show":
            shown = budgets.load(args.id)
        case _:
            budgets.delete(args.id, actor=actor_name())
            return say_done("budget", args.id, "deleted")
    return show_one(_NOUN, shown, args)


def _run_top_ups(directory: Directory, args: argparse.Namespace) -> int:
    if args.action == "top-ups":
        return _list_top_ups(directory, args)
    wish = TopUpWish(budget=args.id, amount=args.amount, reason=args.reason, at=args.at)
    return _show_top_up(directory.top_ups.add(wish, actor=actor_name()), args)


def _show_top_up(entry: TopUpEntry, args: argparse.Namespace) -> int:
    if args.json:
        write_json(_plain(entry))
    else:
        write_fields([("budget", entry.budget), *zip(_names(), _cells(entry), strict=True)])
    return 0


def _list_top_ups(directory: Directory, args: argparse.Namespace) -> int:
    entries: list[TopUpEntry] = []
    cursor = None
    while True:
        page = directory.top_ups.page(args.id, _TOP_UPS_ROWS, cursor)
        entries += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    if args.json:
        write_json([_plain(entry) for entry in entries])
    elif entries:
        write_table(_TOP_UP_HEADINGS, [_cells(entry) for entry in entries], right=("AMOUNT",))
    else:
        write_line("nothing was added")
    return 0


def _names() -> list[str]:
    return [heading.lower() for heading in _TOP_UP_HEADINGS]


def _cells(entry: TopUpEntry) -> list[str]:
    return [
        instant_text(entry.created_at),
        entry.amount,
        instant_text(entry.window_start),
        "never" if entry.window_end is None else instant_text(entry.window_end),
        entry.actor,
        entry.reason,
    ]


def _plain(entry: TopUpEntry) -> dict[str, str | None]:
    return {
        "id": entry.id,
        "budget": entry.budget,
        "amount": entry.amount,
        "reason": entry.reason,
        "actor": entry.actor,
        "created_at": instant_text(entry.created_at),
        "window_start": instant_text(entry.window_start),
        "window_end": None if entry.window_end is None else instant_text(entry.window_end),
    }
