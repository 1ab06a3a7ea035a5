"""``taximeter --version``. Must never guess: what is not installed has no version."""

import argparse
from importlib import metadata

from gateway.commands.output import write_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: this is an option, not a command.

    Args:
        parser: Left as it is.
    """


def run(args: argparse.Namespace) -> int:
    """Show the version.

    Args:
        args: Not looked at.

    Returns:
        Exit code.
    """
    del args
    try:
        write_line(f"taximeter {metadata.version('taximeter')}")
    except metadata.PackageNotFoundError:
        write_line("taximeter (not installed)")
    return 0
