"""A working directory in which tests run commands the way a shell does, within this process.

Must never reach past the command line.
"""

import io
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from gateway.cli import main


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


class Shell:
    """A working directory and the commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *argv: str) -> Answer:
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        with chdir(self.folder), redirect_stdout(out), redirect_stderr(err):
            code = main(argv)
        out.flush()
        return Answer(code, out.buffer.getvalue().decode(), err.getvalue())
