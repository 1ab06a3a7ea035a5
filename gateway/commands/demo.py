"""``taximeter demo``: the fake provider alone. Must never be taken for a real one."""

import argparse

from gateway.commands.parsing import parse_count, show_example
from gateway.demo import serve_demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=parse_count, default=8081, help="port to listen on (%(default)s)"
    )
    parser.epilog = show_example("taximeter demo --port 8081")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop.

    Args:
        args: As parsed.

    Returns:
        Exit code.
    """
    return serve_demo(args.host, args.port)
