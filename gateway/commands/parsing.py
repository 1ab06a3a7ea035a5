"""Parts of command lines that several commands share.

Must never import anything slow: every command needs it before it knows what it is asked.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from pricing.months import Month, parse_month


def new_parser(prog: str, description: str, example: str | None = None) -> argparse.ArgumentParser:
    """Make a parser in the house style.

    Args:
        prog: What the user typed so far.
        description: What it does.
        example: Command lines that work, one a line.

    Returns:
        A parser that takes no abbreviated options: a later option must not change their meaning.
    """
    return argparse.ArgumentParser(
        prog=prog,
        description=description[:1].upper() + description[1:] + ".",
        epilog=None if example is None else show_example(example),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def show_example(example: str) -> str:
    """Lay an example out for the end of a help text.

    Args:
        example: Command lines that work, one a line.

    Returns:
        The same under a heading.
    """
    return "example:\n" + "".join(f"  {line}\n" for line in example.strip().splitlines())


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``.

    Args:
        parser: A command's or an action's.
    """
    # Suppressed, so that `taximeter --config FILE keys list` is not undone by the inner default.
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="settings file (else TAXIMETER_CONFIG, else ./taximeter.yaml, else defaults)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``.

    Args:
        parser: That of anything that prints a table.
    """
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")


class Actions:
    """The actions of a command such as ``keys``."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._examples: list[str] = []
        self._actions = parser.add_subparsers(
            dest="action", required=True, metavar="ACTION", title="actions"
        )

    def add(self, name: str, what: str, example: str) -> argparse.ArgumentParser:
        """Add an action that knows ``--config``.

        Args:
            name: What the user types.
            what: What it does, in a few words.
            example: Command lines that work, after ``taximeter COMMAND``; one a line.

        Returns:
            Its parser.
        """
        lines = [f"{self._parser.prog} {line}" for line in example.strip().splitlines()]
        self._examples.append(lines[0])
        self._parser.epilog = show_example("\n".join(self._examples))
        parser: argparse.ArgumentParser = self._actions.add_parser(
            name,
            help=what,
            description=what[:1].upper() + what[1:] + ".",
            epilog=show_example("\n".join(lines)),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add_common(parser)
        return parser


def parse_instant(text: str) -> datetime:
    """Read an instant.

    Args:
        text: RFC 3339, or a day; UTC where no zone is given.

    Returns:
        Aware instant.

    Raises:
        ArgumentTypeError: Not an instant.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an instant such as 2026-11-23T10:00:00Z or 2026-11-23"
        ) from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def parse_pair(text: str) -> tuple[str, str]:
    """Read ``name=value``.

    Args:
        text: Such as ``env=prod``.

    Returns:
        Name and value, without spaces around them.

    Raises:
        ArgumentTypeError: No ``=``, or nothing before or after it.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    return name.strip(), value.strip()


def parse_count(text: str) -> int:
    """Read a whole number that is not negative.

    Args:
        text: Digits, with ``_`` or ``,`` between thousands if wanted.

    Returns:
        The number.

    Raises:
        ArgumentTypeError: Anything else.
    """
    digits = text.replace("_", "").replace(",", "")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(digits)


def parse_list(text: str) -> tuple[str, ...]:
    """Read a list with commas.

    Args:
        text: Such as ``a,b``.

    Returns:
        The items without spaces around them.

    Raises:
        ArgumentTypeError: An item is empty.
    """
    items = tuple(item.strip() for item in text.split(","))
    if not all(items):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty item")
    return items


def parse_month_of(text: str) -> Month:
    """Read a month.

    Args:
        text: Such as ``2026-11``.

    Returns:
        The month.

    Raises:
        ArgumentTypeError: Not a month.
    """
    try:
        return parse_month(text)
    except ValueError as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from wrong
