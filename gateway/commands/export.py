"""``taximeter export``. Must never leave half a file behind: it looks like a cheap month."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from gateway.clock import SystemClock, epoch_us
from gateway.commands.catch_up import catch_up
from gateway.commands.context import read_settings
from gateway.commands.database import opened_database
from gateway.commands.output import CommandFailed, Progress, opened_output, write_note
from gateway.commands.parsing import Actions, parse_month_of
from gateway.ledger.csv_file import write_csv
from gateway.ledger.focus import VERSIONS, focus_columns, to_focus, to_focus_cells
from gateway.ledger.parquet_file import ParquetMissing, write_parquet
from gateway.ledger.queries import Queries
from gateway.ledger.record import LedgerRecord

_UTC: Final = ZoneInfo("UTC")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    actions = Actions(parser)
    focus = actions.add(
        "focus",
        "write the charges of a month as FOCUS, a row for each rated line",
        "focus --month 2026-11 --out november.csv\n"
        "focus --month 2026-11 --version 1.4 --format parquet --out november.parquet",
    )
    focus.add_argument(
        "--month", required=True, type=parse_month_of, help="such as 2026-11, in UTC"
    )
    focus.add_argument("--version", choices=VERSIONS, default=VERSIONS[0], help="%(default)s")
    focus.add_argument(
        "--format",
        choices=("csv", "parquet"),
        default="csv",
        help="%(default)s unless given; parquet needs pyarrow",
    )
    focus.add_argument("--out", type=Path, metavar="FILE", help="where to (standard output)")


def run(args: argparse.Namespace) -> int:
    """Do one action.

    Args:
        args: As parsed.

    Returns:
        Exit code.

    Raises:
        CommandFailed: The format cannot be written here.
    """
    settings = read_settings(args)
    span = args.month.span(_UTC)
    period = (epoch_us(span.start), epoch_us(span.end))
    left_out = 0
    with opened_database(settings) as engine:
        catch_up(settings, engine, SystemClock())

        def charged(progress: Progress) -> Iterator[LedgerRecord]:
            nonlocal left_out
            for record in Queries(engine).stream_charged(*period):
                progress.step()
                left_out += record.cost_pico is None
                yield record

        columns = focus_columns(args.version)
        try:
            with opened_output(args.out) as out, Progress("records") as progress:
                rows = to_focus(charged(progress), args.version, period)
                if args.format == "csv":
                    count = write_csv(list(columns), map(to_focus_cells, rows), out)
                else:
                    count = write_parquet(columns, rows, out)
        except ParquetMissing as missing:
            raise CommandFailed(str(missing), exit_code=2) from missing
    if args.out is not None:
        write_note(f"{count} charges written to {args.out}")
    if left_out:
        write_note(f"{left_out} calls have no charge, because their cost is not known")
    return 0
