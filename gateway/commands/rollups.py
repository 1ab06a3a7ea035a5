"""``taximeter ledger rollups``: checks the sums of usage, or makes them again from the records.

Must never change a record.
"""

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from typing import Final

from sqlalchemy import Engine

from gateway.clock import to_rfc3339
from gateway.commands.output import Progress, write_json, write_line, write_note, write_table
from gateway.ledger.rollups import Difference, Rollups

CHECK: Final = "check"
REBUILD: Final = "rebuild"
# A damaged table differs in thousands of rows; the first ones say where.
_SHOWN_MAX: Final = 50


def run_rollups(engine: Engine, args: argparse.Namespace) -> int:
    """Check the sums or make them again.

    Args:
        engine: The ledger, caught up with the journal.
        args: As parsed: ``what`` and ``json``.

    Returns:
        Exit code: 1 when a check found differences.
    """
    rollups = Rollups(engine)
    _catch_up(rollups)
    days = rollups.days()
    with Progress("days", len(days)) as progress:
        if args.what == REBUILD:
            for day_us in days:
                rollups.rebuild(day_us)
                progress.step()
            return _tell_rebuilt(days, args)
        found: list[Difference] = []
        for day_us in days:
            found += rollups.check(day_us)
            progress.step()
    return _tell_found(found, days, args)


def _catch_up(rollups: Rollups) -> None:
    with Progress("records added to the sums", rollups.pending()) as progress:
        while moved := rollups.follow():
            progress.step(moved)


def _tell_rebuilt(days: list[int], args: argparse.Namespace) -> int:
    if args.json:
        write_json({"ok": True, "days": len(days)})
    else:
        write_line(f"made again from the records: the sums of {len(days)} days")
    return 0


def _tell_found(found: list[Difference], days: list[int], args: argparse.Namespace) -> int:
    if args.json:
        rows = [asdict(one) | {"start": to_rfc3339(one.start_us)} for one in found]
        write_json({"ok": not found, "days": len(days), "differences": rows})
        return 1 if found else 0
    if not found:
        write_line(f"the sums of {len(days)} days are what the records make")
        return 0
    write_table(("SUMS", "START", "WHAT", "ABOUT", "KEPT", "MADE BY THE RECORDS"), _rows_of(found))
    write_note(
        f"differences: {len(found)}; the records are right: taximeter ledger rollups {REBUILD}"
    )
    return 1


def _rows_of(found: Iterable[Difference]) -> list[list[str]]:
    rows: list[list[str]] = []
    for one in found:
        about = " ".join(f"{name}={value}" for name, value in one.group.items())
        names = [name for name in one.kept or one.made if one.kept.get(name) != one.made.get(name)]
        rows += [
            [
                one.view,
                to_rfc3339(one.start_us),
                name,
                about,
                _number(one.kept.get(name)),
                _number(one.made.get(name)),
            ]
            for name in names
        ]
        if len(rows) >= _SHOWN_MAX:
            return rows[:_SHOWN_MAX]
    return rows


def _number(value: int | None) -> str:
    return "no row" if value is None else str(value)
