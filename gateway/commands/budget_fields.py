"""The options that say what a budget is. Must never fill in what was not given."""

import argparse
from datetime import datetime
from typing import Any, Final

from gateway.budgets.rules import Mode
from gateway.commands.parsing import parse_count, parse_instant, parse_list, parse_pair

_NONE: Final = "none"
_FIELDS: Final = (
    "scope",
    "limit",
    "window",
    "timezone",
    "anchor",
    "mode",
    "on_store_down",
    "thresholds",
    "rollover",
    "valid_from",
    "valid_to",
    "actions",
)


def add_fields(parser: argparse.ArgumentParser, *, is_new: bool) -> None:
    """Declare every field of a budget; one that is not given is absent.

    Args:
        parser: That of something that makes or changes a budget.
        is_new: Whether it makes one, which takes a limit and a window.
    """
    parser.add_argument(
        "--scope",
        action="append",
        type=parse_pair,
        default=argparse.SUPPRESS,
        metavar="NAME=VALUE",
        help="whom it limits: organization, team, project, key, user, model, provider or"
        " tag.<name>; may be repeated, all must match; a new one limits every call unless given",
    )
    _add(
        parser,
        "--limit",
        required=is_new,
        help="'500 USD', '2000000 tokens' or '100 requests'",
    )
    _add(
        parser,
        "--window",
        required=is_new,
        help="minute, hour, day, week, month, quarter, year, total or rolling:<seconds>",
    )
    _add(parser, "--timezone", help="zone of the borders (UTC)")
    _add(
        parser,
        "--anchor",
        type=_text_or_none,
        metavar="T",
        help="day or local time on which one of the windows begins, such as 2026-01-31T09:00:00;"
        " none for the calendar's own",
    )
    _add(
        parser,
        "--mode",
        choices=[mode.value for mode in Mode],
        help="what happens at the limit (hard)",
    )
    _add(
        parser,
        "--thresholds",
        type=_parse_percents,
        metavar="N[,N]",
        help="percentages of the limit that raise an alert (none)",
    )
    _add(
        parser,
        "--action",
        action="append",
        dest="actions",
        metavar="ACTION",
        help="warn, fallback:<provider>/<model> or throttle:<seconds>; may be repeated (none)",
    )
    _add_store_down(parser)
    _add_rollover(parser)
    for name, what in (
        ("--valid-from", "first instant whose calls count; none for any"),
        ("--valid-to", "first instant whose calls count no longer; none for never"),
    ):
        _add(parser, name, type=_instant_or_none, metavar="T", help=what)


def given_fields(args: argparse.Namespace) -> dict[str, Any]:
    """Read the fields that were given.

    Args:
        args: As parsed by ``add_fields``.

    Returns:
        Values by field of ``BudgetEntry``.
    """
    fields = {name: getattr(args, name) for name in _FIELDS if hasattr(args, name)}
    if "scope" in fields:
        fields["scope"] = dict(fields["scope"])
    if "actions" in fields:
        fields["actions"] = tuple(fields["actions"])
    return fields


def _add_store_down(parser: argparse.ArgumentParser) -> None:
    _add(
        parser,
        "--on-store-down",
        type=_store_down,
        metavar="closed|open",
        help="what happens while the Redis of shared budgets cannot be asked; none for by the mode:"
        " hard ones are closed",
    )


def _add_rollover(parser: argparse.ArgumentParser) -> None:
    both = parser.add_mutually_exclusive_group()
    both.add_argument(
        "--rollover",
        nargs="?",
        const=True,
        default=argparse.SUPPRESS,
        metavar="MOST",
        help="let a window take over what the one before left, at most the limit, or '100 USD'",
    )
    both.add_argument(
        "--no-rollover",
        dest="rollover",
        action="store_const",
        const=False,
        default=argparse.SUPPRESS,
        help="let every window begin with the limit alone",
    )


def _add(parser: argparse.ArgumentParser, name: str, **more: Any) -> None:  # noqa: ANN401 - what argparse takes
    parser.add_argument(name, default=argparse.SUPPRESS, **more)


def _text_or_none(text: str) -> str | None:
    return None if text == _NONE else text


def _store_down(text: str) -> str | None:
    if text not in ("closed", "open", _NONE):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of closed, open, none")
    return _text_or_none(text)


def _instant_or_none(text: str) -> datetime | None:
    return None if text == _NONE else parse_instant(text)


def _parse_percents(text: str) -> tuple[int, ...]:
    return tuple(parse_count(item.removesuffix("%")) for item in parse_list(text))
