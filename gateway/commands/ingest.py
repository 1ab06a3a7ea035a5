"""``taximeter ingest``: book usage that did not pass the gateway, from a file.

Must never book an event twice: the file can be read again after whatever went wrong.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from gateway.clock import SystemClock
from gateway.commands.catch_up import catch_up
from gateway.commands.context import read_settings
from gateway.commands.database import opened_database
from gateway.commands.output import CommandFailed, Progress, write_json, write_line, write_note
from gateway.commands.parsing import add_json, show_example
from gateway.directory import Directory
from gateway.ingest.booking import Booked, Bookings
from gateway.ingest.cloudevents import read_batch, read_structured
from gateway.ingest.usage import EventRefused, Told, Unreadable
from gateway.own_rates import open_book
from gateway.prices.store import PriceStore
from pricing.book import Book

_BATCH: Final = 500
_SHOWN_MAX: Final = 20
_EXAMPLE: Final = """\
taximeter ingest november.jsonl
zcat november.jsonl.gz | taximeter ingest -
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    parser.epilog = show_example(_EXAMPLE)
    parser.add_argument(
        "file", type=Path, help="CloudEvents, one a line or as one JSON array; - reads the input"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Book the events of a file.

    Args:
        args: As parsed.

    Returns:
        1 when an event is not booked.
    """
    settings = read_settings(args)
    clock = SystemClock()
    counts: Counter[str] = Counter()
    failed: list[tuple[int, Unreadable]] = []
    with opened_database(settings) as engine:
        catch_up(settings, engine, clock)
        versions = PriceStore(engine, clock)

        @lru_cache
        def find_book(provider: str) -> Book:
            return open_book(settings, None, [provider], load=versions.load_book)

        bookings = Bookings(
            engine=engine,
            directory=Directory(engine, settings, clock),
            settings=settings,
            find_book=find_book,
            clock=clock,
        )
        with _opened(args.file) as source, Progress("events") as progress:
            events = enumerate(_read(source), start=1)
            while batch := list(islice(events, _BATCH)):
                intake = bookings.book([told for _, told in batch], None)
                counts["repeated"] += intake.replayed
                for (number, _), outcome in zip(batch, intake.outcomes, strict=True):
                    if isinstance(outcome, Booked):
                        counts[outcome.status] += 1
                    else:
                        failed.append((number, outcome))
                    progress.step()
    _tell(counts, failed, is_json=args.json)
    return 1 if failed else 0


def _opened(path: Path) -> BinaryIO:
    if str(path) == "-":
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    try:
        return path.open("rb")
    except OSError as broken:
        raise CommandFailed(f"cannot read {path}: {broken.strerror}", exit_code=2) from broken


def _read(source: BinaryIO) -> Iterator[Told]:
    """Read events as they come; an array has to be read whole."""
    first = source.readline()
    if first.lstrip().startswith(b"["):
        try:
            yield from read_batch(first + source.read())
        except EventRefused as refused:
            raise CommandFailed(str(refused)) from refused
        return
    line = first
    while line:
        if line.strip():
            yield _read_line(line)
        line = source.readline()


def _read_line(line: bytes) -> Told:
    try:
        return read_structured(line)
    except EventRefused as refused:
        return Unreadable(source="", id="", code=refused.code, detail=str(refused))


def _tell(counts: Counter[str], failed: list[tuple[int, Unreadable]], *, is_json: bool) -> None:
    if is_json:
        problems: list[dict[str, Any]] = [
            {"event": number, **msgspec.to_builtins(one)} for number, one in failed
        ]
        names = ("recorded", "metered", "repeated")
        write_json({**{name: counts[name] for name in names}, "failed": problems})
        return
    write_line(
        f"{counts['recorded']} events have a record ({counts['repeated']} were told before), "
        f"{counts['metered']} calls were metered already, {len(failed)} are not booked"
    )
    for number, one in failed[:_SHOWN_MAX]:
        write_note(f"event {number} {one.id}: {one.code}: {one.detail}")
    if len(failed) > _SHOWN_MAX:
        write_note(f"and {len(failed) - _SHOWN_MAX} more; --json lists all")
