"""Brings the ledger up to the journal before a command reads it.

Must never read or write a journal that a running gateway owns; then it waits for that gateway.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from gateway.clock import Clock, epoch_us
from gateway.commands.output import write_note
from gateway.ledger.errors import JournalBroken, JournalFull, JournalInUse, ShippedTo
from gateway.ledger.journal import Journal
from gateway.ledger.recovery import RecoveryReport, recover
from gateway.ledger.segments import INTENT_START, Frame, list_segments, read_frames, segment_path
from gateway.ledger.store import LedgerStore
from gateway.own_rates import book_finder
from gateway.prices.store import PriceStore
from gateway.settings import Settings

WAIT_S_MAX: Final = 5.0
_POLL_S: Final = 0.05


def catch_up(settings: Settings, engine: Engine, clock: Clock) -> None:
    """Ship what the journal holds, or wait until the gateway that owns it has.

    Args:
        settings: For the journal.
        engine: Of the ledger, migrated.
        clock: For ends of calls that never ended, and for how long to wait.

    Raises:
        StoreUnavailable: The ledger cannot be reached.
    """
    folder = settings.storage.journal_dir
    if not folder.is_dir() or not list_segments(folder):
        return
    try:
        journal, report = take_over(folder, settings, engine, clock)
    except JournalInUse:
        if not wait_for_owner(folder, LedgerStore(engine), clock):
            write_note("warning: the newest records are not in the ledger yet and are missing here")
        return
    except (JournalBroken, JournalFull) as broken:
        write_note(f"warning: {broken}; its newest records are missing here")
        return
    journal.close()
    if report.store_trouble is not None:
        write_note(f"warning: records of the journal are missing here: {report.store_trouble}")
    for path in report.damaged_files:
        write_note(f"warning: a segment of the journal is damaged; its copy is {path}")


def take_over(
    folder: Path, settings: Settings, engine: Engine, clock: Clock
) -> tuple[Journal, RecoveryReport]:
    """End the open calls of a journal that nobody owns, and ship what is in it.

    Args:
        folder: The journal.
        settings: For ``fsync``, and prices of one's own.
        engine: Of the ledger, migrated.
        clock: For ends of calls that never ended.

    Returns:
        The journal, which nobody else can take before it is closed, and what was done.

    Raises:
        JournalInUse: Another process has it.
        JournalBroken: It cannot be read or written.
        JournalFull: The disk is full.
    """
    return recover(
        folder,
        LedgerStore(engine),
        now_us=epoch_us(clock.now()),
        fsync=settings.storage.fsync,
        find_book=book_finder(settings, PriceStore(engine, clock).load_book),
    )


def wait_for_owner(
    folder: Path, store: LedgerStore, clock: Clock, wait_s_max: float = WAIT_S_MAX
) -> bool:
    """Wait until every record journalled before the call is in the ledger.

    Args:
        folder: The journal, owned by another process.
        store: The ledger it ships to.
        clock: For how long to wait.
        wait_s_max: How long at most.

    Returns:
        Whether they are.

    Raises:
        StoreUnavailable: The ledger cannot be reached.
    """
    deadline_s = clock.monotonic_s() + wait_s_max
    target = _last_record_end(folder)
    never = threading.Event()
    while target is not None:
        shipped = store.shipped_to(writer_of(folder))
        if shipped is not None and _key(shipped) >= _key(target):
            return True
        if clock.monotonic_s() >= deadline_s:
            return False
        never.wait(_POLL_S)
    return True


def _key(position: ShippedTo) -> tuple[int, int]:
    return position.segment, position.offset


def writer_of(folder: Path) -> str:
    """Read the name of a journal, without making one.

    Args:
        folder: Where it is, if it is there at all.

    Returns:
        The name under which its records stand in the ledger; empty where there is none.
    """
    try:
        return (folder / "writer").read_text("ascii").strip()
    except OSError:
        return ""


def _last_record_end(folder: Path) -> ShippedTo | None:
    """Where the newest record ends. Intents after it are calls still under way."""
    for number in reversed(list_segments(folder)):
        end = max(_record_ends(segment_path(folder, number)), default=None)
        if end is not None:
            return ShippedTo(number, end)
    return None


def _record_ends(path: Path) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return  # Its owner has shipped and deleted it meanwhile.
    try:
        for part in read_frames(fd, 0, os.fstat(fd).st_size):
            if isinstance(part, Frame) and not part.payload.startswith(INTENT_START):
                yield part.end
    finally:
        os.close(fd)
