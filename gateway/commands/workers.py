"""``taximeter workers``: who shares budgets.

Must never retire one that was just seen, nor one whose journal another process owns: a process
that hangs still holds what its open calls can come to.
"""

import argparse
from contextlib import ExitStack, closing
from typing import Any, Final

from sqlalchemy import Engine

from gateway.clock import SystemClock, epoch_us, to_rfc3339
from gateway.commands.catch_up import take_over, writer_of
from gateway.commands.context import read_settings
from gateway.commands.database import opened_database, opened_for_reading
from gateway.commands.output import CommandFailed, write_json, write_line, write_table
from gateway.commands.parsing import Actions, add_json
from gateway.ledger.errors import JournalBroken, JournalFull, JournalInUse
from gateway.ledger.journal import Journal
from gateway.ledger.orphans import worker_journals
from gateway.ledger.workers import Worker, Workers
from gateway.settings import Settings

# A gateway shows itself every five seconds.
_SEEN_S: Final = 60
_COLUMNS: Final = ("worker", "started_at", "seen_at", "retired_at")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes.

    Args:
        parser: The command's own.
    """
    actions = Actions(parser)
    add_json(actions.add("list", "list every gateway that shared budgets", "list --json"))
    retire = actions.add(
        "retire",
        "count a gateway as gone whose journal is shipped or lost",
        "retire w-0123456789abcdef",
    )
    retire.add_argument("worker", help="its name in `taximeter workers list`")
    retire.add_argument(
        "--lost",
        action="store_true",
        help="it does not run and its journal is gone for good: what only that knew counts nowhere",
    )


def run(args: argparse.Namespace) -> int:
    """Do one action.

    Args:
        args: As parsed.

    Returns:
        Exit code.

    Raises:
        CommandFailed: There is no such gateway, it is still there, or its journal is elsewhere.
    """
    settings = read_settings(args)
    if args.action == "list":
        with opened_for_reading(settings) as engine:
            rows = [_row(worker) for worker in Workers(engine).load()]
        if args.json:
            write_json(rows)
        elif not rows:
            write_line("no workers: no gateway has shared budgets here (storage.redis_url)")
        else:
            write_table(
                [name.upper().replace("_", " ") for name in _COLUMNS],
                [[row[name] or "" for name in _COLUMNS] for row in rows],
            )
        return 0
    clock = SystemClock()
    with opened_database(settings) as engine:
        workers = Workers(engine)
        _check_gone(workers, args.worker, epoch_us(clock.now()))
        with closing(_emptied(args.worker, settings, engine, is_lost=args.lost)):
            # Nobody can start on the journal before this is said.
            workers.retire(args.worker, epoch_us(clock.now()))
    write_line(f"worker {args.worker} retired")
    return 0


def _check_gone(workers: Workers, name: str, now_us: int) -> None:
    found = next((worker for worker in workers.load() if worker.writer == name), None)
    if found is None:
        raise CommandFailed(f"there is no worker {name}")
    if found.retired_at_us is not None:
        raise CommandFailed(f"worker {name} has gone already")
    if now_us - found.seen_at_us < _SEEN_S * 1_000_000:
        raise CommandFailed(
            f"worker {name} was there at {to_rfc3339(found.seen_at_us)}: stop it first; "
            "one that stops as told needs nothing more"
        )


def _emptied(
    name: str, settings: Settings, engine: Engine, *, is_lost: bool
) -> "Journal | ExitStack":
    """Bring what a worker did to the ledger, its open calls at what they can have come to."""
    root = settings.storage.journal_dir
    folders = [one for one in (root, *worker_journals(root)) if writer_of(one) == name]
    if not folders:
        if is_lost:
            return ExitStack()
        raise CommandFailed(
            f"the journal of worker {name} is not in {root}: run this where it is, or start the "
            "gateway on it; where it is gone for good and the worker does not run, say --lost"
        )
    try:
        journal, report = take_over(folders[0], settings, engine, SystemClock())
    except JournalInUse as owned:
        raise CommandFailed(
            f"worker {name} hangs but runs, and holds what its open calls can come to: {owned}; "
            "end that process first"
        ) from None
    except (JournalBroken, JournalFull) as broken:
        raise CommandFailed(f"the journal of worker {name} cannot be emptied: {broken}") from None
    if report.store_trouble is not None:
        journal.close()
        raise CommandFailed(f"the journal cannot be shipped: {report.store_trouble}")
    return journal


def _row(worker: Worker) -> dict[str, Any]:
    retired_at_us = worker.retired_at_us
    return {
        "worker": worker.writer,
        "started_at": to_rfc3339(worker.started_at_us),
        "seen_at": to_rfc3339(worker.seen_at_us),
        "retired_at": None if retired_at_us is None else to_rfc3339(retired_at_us),
    }
