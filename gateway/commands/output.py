"""How commands talk to people and to other programs: tables, JSON, failures, progress.

Must never write anything but answers to standard output: it may be piped into a program.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Self, TextIO

from gateway.clock import Clock, SystemClock

_PROGRESS_AFTER_S: Final = 2.0
_PROGRESS_EVERY_S: Final = 0.2
_BAR_CELLS: Final = 20


class CommandFailed(Exception):
    """An expected failure: what happened and how to mend it, for a person.

    Attributes:
        exit_code: 1 when the answer is no, 2 for wrong use.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)


def write_line(text: str = "") -> None:
    """Write one line of the answer.

    Args:
        text: Without the newline.
    """
    sys.stdout.write(text + "\n")


def write_note(text: str) -> None:
    """Tell the person at the keyboard something that is not part of the answer.

    Args:
        text: Without the newline.
    """
    sys.stdout.flush()
    sys.stderr.write(text + "\n")


def write_json(value: object) -> None:
    """Write the answer for another program.

    Args:
        value: Plain data.
    """
    write_line(json.dumps(value, indent=2, ensure_ascii=False))


def write_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()
) -> None:
    """Write aligned columns, two spaces apart, nothing after the last.

    Args:
        headings: One per column.
        rows: Cells as text; an empty one shows as ``-``.
        right: Headings of the columns of numbers, which are flush right.
    """
    flush_right = {headings.index(heading) for heading in right}
    cells = [[cell or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    for row in (headings, *cells):
        line = "  ".join(
            cell.rjust(width) if column in flush_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        write_line(line.rstrip())


def write_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Write one thing, a field a line, values aligned.

    Args:
        fields: Name and value; an empty value shows as ``-``.
    """
    shown = list(fields)
    width = max(len(name) for name, _ in shown) + 2
    for name, value in shown:
        write_line(f"{name:<{width}}{value or '-'}")


def bar_text(part: int, whole: int, cells: int = _BAR_CELLS) -> str:
    """Draw how much of something is used.

    Args:
        part: Used; more than ``whole`` fills the bar.
        whole: All of it; zero counts as full.
        cells: Width.

    Returns:
        Text such as ``[#####...............]  25%``. Anything used at all shows, and only what is
        really full looks full.
    """
    percent = 100 if whole <= 0 else part * 100 // whole
    filled = max(0, min(cells, cells if whole <= 0 else part * cells // whole))
    if part > 0 and filled == 0:
        filled = 1
    return f"[{'#' * filled}{'.' * (cells - filled)}] {percent:>3}%"


def pairs_text(pairs: Iterable[tuple[str, str]]) -> str:
    """Write tags or a scope in one cell.

    Args:
        pairs: Name and value.

    Returns:
        ``a=b, c=d``.
    """
    return ", ".join(f"{name}={value}" for name, value in pairs)


class Progress:
    """A line on the terminal while something takes long; silent when it does not or is piped."""

    def __init__(
        self,
        what: str,
        whole: int | None = None,
        *,
        clock: Clock | None = None,
        out: TextIO | None = None,
    ) -> None:
        """Start counting.

        Args:
            what: What is counted, in the plural.
            whole: How many there are, when known.
            clock: For how long it has taken.
            out: Where to draw; standard error when not given.
        """
        self._what = what
        self._whole = whole
        self._clock = clock or SystemClock()
        self._out = sys.stderr if out is None else out
        self._is_shown = self._out.isatty()
        self._next_s = self._clock.monotonic_s() + _PROGRESS_AFTER_S
        self._count = 0
        self._is_drawn = False

    def step(self, count: int = 1) -> None:
        """Count, and draw when it is time to.

        Args:
            count: How many more are done.
        """
        self._count += count
        if self._is_shown and self._clock.monotonic_s() >= self._next_s:
            self._next_s = self._clock.monotonic_s() + _PROGRESS_EVERY_S
            self._is_drawn = True
            bar = "" if self._whole is None else bar_text(self._count, self._whole) + "  "
            self._out.write(f"\r\033[K{bar}{self._count:,} {self._what}")
            self._out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_drawn:
            self._out.write("\r\033[K")
            self._out.flush()


@contextmanager
def opened_output(path: Path | None) -> Iterator[BinaryIO]:
    """Open where a command writes: a file is there in full or not at all.

    Args:
        path: The file; ``None`` for standard output.

    Yields:
        Where to write.

    Raises:
        CommandFailed: It cannot be written.
    """
    if path is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as out:
            yield out
        partial.replace(path)
    except OSError as broken:
        raise CommandFailed(f"cannot write {path}: {broken.strerror}") from broken
    finally:
        partial.unlink(missing_ok=True)
