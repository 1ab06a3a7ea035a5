"""One worker of several, as the supervisor starts it; must never be started by hand."""

import argparse
import os
import socket
import sys
from pathlib import Path

from gateway.commands.context import read_settings
from gateway.commands.output import CommandFailed
from gateway.commands.serve import start
from gateway.fleet import Fleet


def main() -> int:
    """Serve until told to stop.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="taximeter worker")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--line-fd", type=int, required=True)
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--first", action="store_true")
    args = parser.parse_args()
    line, listener = (socket.socket(fileno=fd) for fd in (args.line_fd, args.listen_fd))
    for fd in (args.line_fd, args.listen_fd):
        os.set_inheritable(fd, False)
    fleet = Fleet(line, listener, args.number, is_first=args.first)
    try:
        return start(read_settings(args), fleet)
    except CommandFailed as failure:
        sys.stderr.write(f"taximeter: {failure}\n")
        return failure.exit_code
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
