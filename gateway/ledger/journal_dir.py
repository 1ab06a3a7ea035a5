"""The directory of a journal: who owns it, its name in the ledger, what its last owner left.

Must never be touched without the lock.
"""

import fcntl
import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.ledger.errors import JournalInUse
from gateway.ledger.segments import (
    SegmentScan,
    list_segments,
    scan_segment,
    segment_path,
    set_aside,
)

_UNMATCHED: Final = "unmatched"
_WRITER: Final = re.compile(r"w-[0-9a-f]{8,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inheritance:
    """What the last owner of a directory left behind.

    Attributes:
        scans: Every segment that holds something, oldest first.
        unsettled: Frames of intents without a record, by id.
        seq: Last sequence number given out; ``None`` when nothing tells.
        damaged_files: Copies kept of segments that are not readable in full.
        torn_bytes: Bytes of an entry that was being written when the last owner died.
    """

    scans: tuple[SegmentScan, ...]
    unsettled: dict[str, bytes]
    seq: int | None
    damaged_files: tuple[Path, ...]
    torn_bytes: int


def take_lock(directory: Path) -> int:
    """Become the owner of a directory until the descriptor is closed or the process ends.

    Args:
        directory: The journal.

    Returns:
        Descriptor that holds the lock.

    Raises:
        JournalInUse: Another process owns it.
        OSError: The lock file cannot be opened.
    """
    fd = os.open(directory / "LOCK", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise JournalInUse(f"the journal {directory} is in use by process {owner}") from error
    # Only for the message above, so a full disk is no reason to stop.
    with suppress(OSError):
        os.pwrite(fd, b"%-20d" % os.getpid(), 0)
    return fd


def load_writer(directory: Path) -> str:
    """Read the name under which a journal's records stand in the ledger.

    Args:
        directory: The journal.

    Returns:
        The name stored, or a new one if there is none.

    Raises:
        OSError: A new name could not be stored.
    """
    path = directory / "writer"
    name = path.read_bytes().decode("ascii", "replace").strip() if path.exists() else ""
    return name if _WRITER.fullmatch(name) else mint_writer(directory)


def mint_writer(directory: Path) -> str:
    """Give a journal a new name, for good.

    Args:
        directory: The journal.

    Returns:
        The name, now stored.

    Raises:
        OSError: It could not be stored.
    """
    name = f"w-{secrets.token_hex(8)}"
    partial = directory / "writer.tmp"
    with partial.open("w", encoding="ascii") as file:
        file.write(name + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(directory / "writer")
    sync_directory(directory)
    return name


def remember_end(directory: Path, end: tuple[int, int]) -> tuple[int, int]:
    """Keep where a journal ended until it has been compared with the ledger.

    Args:
        directory: The journal.
        end: Segment and offset at which it ends now.

    Returns:
        Where it ended at the first start since it was last compared.
    """
    path = directory / _UNMATCHED
    # Without the file only a restart before the comparison is not noticed: no reason to stop.
    with suppress(OSError, ValueError):
        if path.exists():
            segment, offset = path.read_bytes().split()
            return int(segment), int(offset)
        partial = path.with_suffix(".tmp")
        partial.write_bytes(b"%d %d\n" % end)
        partial.replace(path)
    return end


def forget_end(directory: Path) -> None:
    """Note that a journal has been compared with the ledger.

    Args:
        directory: The journal.

    Raises:
        OSError: It could not be noted.
    """
    (directory / _UNMATCHED).unlink(missing_ok=True)


def inherit(directory: Path) -> Inheritance:
    """Read everything the last owner left.

    Args:
        directory: The journal.

    Returns:
        What is there. Damaged segments have been copied; a segment of which a power cut left
        nothing readable is gone.

    Raises:
        OSError: Something cannot be read, or there is no room for a copy.
    """
    unsettled: dict[str, bytes] = {}
    paths = (segment_path(directory, number) for number in list_segments(directory))
    scans = [scan_segment(path, unsettled) for path in paths]
    damaged = []
    for scan in scans:
        is_newest = scan is scans[-1]
        if scan.damaged_bytes or (scan.torn_bytes and not is_newest):
            damaged.append(set_aside(scan.path))
        if scan.is_void:
            scan.path.unlink()
    kept = tuple(scan for scan in scans if not scan.is_void)
    return Inheritance(
        scans=kept,
        unsettled=unsettled,
        seq=max((scan.seq for scan in kept if scan.seq is not None), default=None),
        damaged_files=tuple(damaged),
        torn_bytes=scans[-1].torn_bytes if scans else 0,
    )


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable.

    Args:
        directory: The journal.

    Raises:
        OSError: They may not be.
    """
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
