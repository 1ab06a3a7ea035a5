"""``taximeter check-config``: say everything that is wrong with the settings, or show them.

Must never show a secret.
"""

import argparse
import os
import sys

import yaml

from gateway.clock import SystemClock
from gateway.commands.books import read_book
from gateway.commands.budget_checks import find_odd_budgets
from gateway.commands.context import config_path
from gateway.commands.doctor_budgets import configured_budgets
from gateway.commands.output import write_json, write_line, write_note
from gateway.commands.parsing import add_json, show_example
from gateway.settings import SettingsBroken, effective, load_settings, warnings_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    add_json(parser)
    parser.epilog = show_example("taximeter check-config --config taximeter.yaml")


def run(args: argparse.Namespace) -> int:
    """Check and show.

    Args:
        args: As parsed.

    Returns:
        0 when the gateway would start with these settings, 1 when not.
    """
    try:
        settings = load_settings(args.config, os.environ)
    except SettingsBroken as broken:
        if args.json:
            write_json({"problems": [_problem_row(problem) for problem in broken.problems]})
            return 1
        count = len(broken.problems)
        write_note(f"{broken}\n{count} problem{'s' if count > 1 else ''}; nothing was started")
        return 1
    book = read_book(settings)
    version = book.version.version
    odd = find_odd_budgets(configured_budgets(settings), settings, book, SystemClock().now(), {})
    warnings = [
        *warnings_of(settings),
        *(f"budget {one.budget}: {one.seen}; {one.mend}" for one in odd),
    ]
    shown = effective(settings)
    if args.json:
        found = {"settings": shown, "price_version": version, "problems": []}
        write_json({**found, "warnings": warnings})
    else:
        write_line(f"# {config_path(args) or 'no file: embedded defaults'}; prices {version}")
        yaml.safe_dump(shown, sys.stdout, sort_keys=False, allow_unicode=True, width=100)
    for warning in warnings:
        write_note(f"warning: {warning}")
    return 0


def _problem_row(problem: object) -> dict[str, object]:
    names = ("source", "line", "path_in_file", "message")
    return {name: getattr(problem, name) for name in names}
