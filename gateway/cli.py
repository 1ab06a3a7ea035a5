"""The command ``taximeter``: finds the command asked for and runs it.

Must never import what the command does not need: ``taximeter --help`` answers at once.
"""

import argparse
import difflib
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from gateway.commands.output import CommandFailed
from gateway.commands.parsing import add_common, new_parser

# What each command is for, in the order of `taximeter --help`; its module has the same name.
COMMANDS: Final[Mapping[str, str]] = {
    "serve": "start the gateway",
    "demo": "start the fake provider alone, or play a company's traffic",
    "check-config": "check the settings and show them, secrets masked",
    "teams": "list, create, show and delete teams",
    "projects": "list, create, show and delete projects",
    "keys": "list, create, show and revoke keys",
    "budgets": "list, create, show and delete budgets, and show what is left",
    "apply": "make teams, projects, keys and budgets as a file says",
    "prices": "show, set, import, compare and approve prices",
    "estimate": "work out what a call costs",
    "rerate": "price calls of the past again",
    "commitments": "report commitments, shared costs and self-hosted models",
    "ledger": "export, verify and show records",
    "export": "write the charges of a month as FOCUS",
    "ingest": "book usage that did not pass the gateway, from a file",
    "workers": "list the gateways that share budgets, and retire one that is gone",
    "doctor": "check this installation",
}

EPILOG: Final = """\
examples:
  taximeter serve                      start with embedded defaults
  taximeter check-config --config taximeter.yaml
  taximeter budgets status

exit codes: 0 done, 1 the answer is no, 2 wrong use
`taximeter COMMAND --help` has an example of each.
"""


class CommandModule(Protocol):
    """What the module of a command holds."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what the command takes.

        Args:
            parser: The command's own.
        """
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it.

        Args:
            args: As parsed.

        Returns:
            Exit code.
        """
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; those of the process when not given.

    Returns:
        0 when done, 1 when the answer is no, 2 for wrong use.
    """
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except CommandFailed as failure:
        sys.stdout.flush()
        sys.stderr.write(f"taximeter: {failure}\n")
        return failure.exit_code
    except BrokenPipeError:
        # The reader of our output (`| head`) has seen enough. Python would complain once more when
        # it flushes at exit. https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as stop:
        # argparse ends --help and wrong use this way; a caller of `main` wants the number.
        return stop.code if isinstance(stop.code, int) else 2


def _run(argv: Sequence[str]) -> int:
    ahead = _count_leading_options(argv)
    parser = _top_parser()
    top = parser.parse_args(argv[:ahead])
    if top.version:
        return _load("version").run(top)
    if ahead == len(argv):
        parser.print_help(sys.stderr)
        return 2
    name, *rest = argv[ahead:]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {close[0]}?" if close else "; see taximeter --help"
        raise CommandFailed(f"there is no command {name!r}{hint}", exit_code=2)
    module = _load(name)
    parser = new_parser(f"taximeter {name}", COMMANDS[name])
    add_common(parser)
    module.add_arguments(parser)
    code = module.run(parser.parse_args(rest, argparse.Namespace(config=top.config)))
    sys.stdout.flush()
    return code


def _count_leading_options(argv: Sequence[str]) -> int:
    count = 0
    while count < len(argv) and argv[count].startswith("-"):
        count += 2 if argv[count] == "--config" else 1
    return min(count, len(argv))


def _load(command: str) -> CommandModule:
    name = f"gateway.commands.{command.replace('-', '_')}"
    # Guarded by tests/cli/test_cli.py.
    # house: lazy-import because all commands together take half a second to import.
    module: CommandModule = importlib.import_module(name)
    return module


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS)) + 2
    commands = "".join(f"  {name:<{width}}{what}\n" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="taximeter",
        usage="taximeter [--config FILE] COMMAND ...",
        description=f"Meters, prices, budgets and records every LLM call.\n\ncommands:\n{commands}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file")
    return parser
