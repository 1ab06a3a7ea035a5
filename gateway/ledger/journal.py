"""The journal: where a call is written down before it is sent and before it is answered.

Must never lose an entry that was accepted, nor give a sequence number twice.
"""

import errno
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from gateway.clock import SystemClock
from gateway.ledger.errors import JournalBroken, JournalFull, ShippedTo, StoreUnavailable
from gateway.ledger.group_sync import GroupSync
from gateway.ledger.journal_dir import (
    forget_end,
    inherit,
    load_writer,
    mint_writer,
    remember_end,
    sync_directory,
    take_lock,
)
from gateway.ledger.record import Intent, LedgerRecord, Raised
from gateway.ledger.segments import (
    SegmentScan,
    decode_intent,
    encode_frame,
    encode_header,
    segment_path,
)
from gateway.ledger.tail import Tail, TailStuck, can_map

Fsync = Literal["normal", "full"]

SEGMENT_BYTES_MAX: Final = 64 * 1024 * 1024
BYTES_MAX: Final = 4 * 1024 * 1024 * 1024
# Kept free within the limit for the settlement of each accepted call.
SETTLEMENT_BYTES: Final = 8 * 1024
# Kept on the disk itself, in a file that is given up when a settlement finds the disk full.
HEADROOM_BYTES: Final = 4 * 1024 * 1024

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# macOS has no fdatasync.
_SYNC: Final[Callable[[int], None]] = getattr(os, "fdatasync", os.fsync)
_MONOTONIC_S: Final = SystemClock().monotonic_s
_ZEROS: Final = bytes(HEADROOM_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What the journal asks of the operating system where it can fail under way.

    Attributes:
        write: Writes to an open file; returns how many bytes went in.
        can_map: Tells whether segments may be written through shared memory; see ``tail``.
        sync: Returns once what was written to an open file survives a power cut.
        monotonic_s: Seconds since some fixed moment.
    """

    write: Callable[[int, bytes], int] = os.write
    can_map: Callable[[Path], bool] = can_map
    sync: Callable[[int], None] = _SYNC
    monotonic_s: Callable[[], float] = _MONOTONIC_S


SYSTEM_DISK: Final = Disk()


class Position(NamedTuple):
    """Where the journal ends.

    Attributes:
        segment: Number of the live segment.
        offset: First byte after its last entry.
        seq: Sequence number of the last record; 0 before the first.
    """

    segment: int
    offset: int
    seq: int


class Extent(NamedTuple):
    """One segment as far as it may be read.

    Attributes:
        number: Its number.
        end: First byte after its last entry.
        path: Where it is.
    """

    number: int
    end: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    segment_bytes: int
    total_bytes: int
    is_mapped: bool


class Journal:
    """The append-only journal of one process.

    Appending is safe from any thread; one call is one ``write``. A new segment begins with copies
    of the intents that are still open, so every segment can be deleted, oldest first, as soon as
    its records are shipped, however long a call lasts. Guarded by tests/ledger/test_journal.py.
    """

    def __init__(self, directory: Path, lock_fd: int, limits: "_Limits", disk: Disk) -> None:
        """Use ``Journal.open``."""
        self._directory = directory
        self._lock_fd = lock_fd
        self._limits = limits
        self._is_mapped = limits.is_mapped
        self._disk = disk
        self._lock = threading.Lock()
        self._group: GroupSync | None = None
        self._failure: str | None = None
        self._retired: list[int] = []
        self._named = 0

        found = inherit(directory)
        self.damaged_files: Final = found.damaged_files
        self.torn_bytes: Final = found.torn_bytes
        # When nothing tells which numbers were given, none may be given again under that name.
        self._writer = mint_writer(directory) if found.seq is None else load_writer(directory)
        self._seq = found.seq or 0
        self._unsettled = found.unsettled
        self._closed: dict[int, int] = {}
        self._total = 0
        self._before_live = 0
        self._headroom_fd = os.open(directory / "headroom", os.O_RDWR | os.O_CREAT, 0o600)
        self._has_headroom = False
        self._hold_headroom()
        self._recovered_end: tuple[int, int] | None = remember_end(
            directory, self._resume(found.scans)
        )

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        fsync: Fsync = "normal",
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        bytes_max: int = BYTES_MAX,
        disk: Disk = SYSTEM_DISK,
    ) -> "Journal":
        """Take a journal directory over, whatever state its last owner left it in.

        Args:
            directory: Made if it is not there.
            fsync: ``normal``: a killed process loses nothing. ``full``: nor does a power cut,
                once ``synced`` has returned.
            segment_bytes_max: When the next segment begins.
            bytes_max: Size of all segments at which no new call is accepted.
            disk: The operating system, or one that fails on purpose.

        Returns:
            The journal, ready to append. Calls that were open are in ``open_intents``.

        Raises:
            JournalInUse: Another process has it.
            JournalBroken: It cannot be read or written.
        """
        try:
            with ExitStack() as undo:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                limits = _Limits(
                    segment_bytes=segment_bytes_max,
                    total_bytes=bytes_max,
                    is_mapped=disk.can_map(directory),
                )
                lock_fd = take_lock(directory)
                undo.callback(os.close, lock_fd)
                journal = cls(directory, lock_fd, limits, disk)
                undo.pop_all()
        except OSError as error:
            raise JournalBroken(f"the journal {directory} cannot be opened: {error}") from error
        if fsync == "full":
            journal._group = GroupSync(journal._sync_written, journal._fail, disk.monotonic_s)
        return journal

    @property
    def writer(self) -> str:
        """The name under which its records stand in the ledger, one hash chain each."""
        return self._writer

    @property
    def failure(self) -> str | None:
        """Why nothing more can be written; ``None`` while all is well."""
        return self._failure

    @property
    def total_bytes(self) -> int:
        """Size of all segments."""
        return self._total

    def sync_lag_s(self) -> float:
        """Tell how long an entry has waited to be as safe as ``fsync`` asks; 0 when none does."""
        return 0.0 if self._group is None else self._group.lag_s()

    def append_intent(self, intent: Intent) -> None:
        """Write down a call that is about to be sent.

        Args:
            intent: Of a call with an id that was never used before, or see ``raise_intent``.

        Raises:
            JournalFull: There is no room for new calls.
            JournalBroken: It could not be written. In both cases nothing was.
        """
        frame = encode_frame(intent)
        with self._lock:
            self._put_intent(intent.id, frame)

    def raise_intent(self, intent_id: str, raised: Raised) -> None:
        """Write down that more is held for a call than its intent says.

        The last intent of an id is the one that holds, in recovery and in later segments.

        Args:
            intent_id: Of the intent; where its call has ended already nothing is written.
            raised: What holds instead.

        Raises:
            JournalFull: There is no room.
            JournalBroken: It could not be written. In both cases nothing was.
        """
        changes = msgspec.structs.asdict(raised)
        with self._lock:
            frame = self._unsettled.get(intent_id)
            if frame is not None:
                intent = msgspec.structs.replace(decode_intent(frame), **changes)
                self._put_intent(intent_id, encode_frame(intent))

    def _put_intent(self, intent_id: str, frame: bytes) -> None:
        self._admit(len(frame) + SETTLEMENT_BYTES)
        if not (self._has_headroom or self._hold_headroom()):
            raise JournalFull(f"the disk of the journal {self._directory} is full")
        self._write(frame, may_use_headroom=False)
        self._unsettled[intent_id] = frame
        if self._tail.offset >= self._rotate_at:
            self._rotate()

    def append_record(self, record: LedgerRecord) -> LedgerRecord:
        """Write down how a call ended, or that it was refused.

        Args:
            record: ``seq`` is not looked at. The record of an accepted intent is written even
                when new calls are refused for lack of room.

        Returns:
            The record with its ``seq``.

        Raises:
            JournalFull: There is no room.
            JournalBroken: It could not be written. In both cases nothing was.
        """
        with self._lock:
            # In place: a copy of 35 fields costs more than writing them.
            msgspec.structs.force_setattr(record, "seq", self._seq + 1)
            frame = encode_frame(record)
            if record.id not in self._unsettled:
                self._admit(len(frame))
            self._write(frame, may_use_headroom=True)
            self._seq += 1
            self._unsettled.pop(record.id, None)
            if self._tail.offset >= self._rotate_at:
                self._rotate()
        return record

    @property
    def must_sync(self) -> bool:
        """Whether an entry is safe only some time after it was written."""
        return self._group is not None

    async def synced(self) -> None:
        """Wait until everything appended so far is as safe as ``fsync`` asks.

        Raises:
            JournalBroken: It may never be.
        """
        if self._group is not None:
            with self._lock:
                mark = self._before_live + self._tail.offset
            await self._group.join(mark)

    def position(self) -> Position:
        """Tell where the journal ends."""
        with self._lock:
            return Position(self._live, self._tail.offset, self._seq)

    def extents(self) -> tuple[Extent, ...]:
        """List the segments, oldest first; the last one is still being written."""
        with self._lock:
            sizes = (*self._closed.items(), (self._live, self._tail.offset))
        return tuple(Extent(n, end, segment_path(self._directory, n)) for n, end in sizes)

    def open_intents(self) -> tuple[Intent, ...]:
        """Read the intents without a record.

        Returns:
            Oldest first.

        Raises:
            JournalBroken: One was written by a version that this one does not understand.
        """
        with self._lock:
            frames = tuple(self._unsettled.values())
        try:
            return tuple(decode_intent(frame) for frame in frames)
        except msgspec.MsgspecError as error:
            raise JournalBroken(f"an intent in {self._directory} is not known: {error}") from error

    def resume_point(self, shipped: ShippedTo | None) -> ShippedTo:
        """Find where shipping goes on.

        A ledger that has read further than this journal reached shows that the journal was put
        back to an older state, and that its sequence numbers were given before. It then goes on
        under a new name, from its oldest segment: repeated ids are harmless, repeated numbers
        are not.

        Args:
            shipped: What the ledger says; ``None`` if it does not know this journal.

        Returns:
            The first byte to ship.

        Raises:
            OSError: A new name could not be stored.
        """
        end = self._recovered_end or self.position()[:2]
        is_ahead = shipped is not None and (shipped.segment, shipped.offset) > end
        start = self.begin_chain() if is_ahead else self._first_unshipped(shipped)
        forget_end(self._directory)
        self._recovered_end = None
        return start

    def begin_chain(self) -> ShippedTo:
        """Go on under a new name, because numbers have been given twice under the old one.

        Returns:
            The first byte to ship: the oldest there is.

        Raises:
            OSError: The new name could not be stored.
        """
        self._writer = mint_writer(self._directory)
        return self._first_unshipped(None)

    def sync_segment(self, number: int) -> None:
        """Make a segment durable, whatever ``fsync`` says.

        Args:
            number: One of ``extents``.

        Raises:
            OSError: It may not be.
        """
        fd = os.open(segment_path(self._directory, number), os.O_RDONLY)
        try:
            self._disk.sync(fd)
        except OSError:
            # Memory goes on taking entries when the disk behind it does not.
            with self._lock:
                self._is_mapped = False
                self._tail.unmap()
            raise
        finally:
            os.close(fd)
        if self._named != number:
            sync_directory(self._directory)
            self._named = number

    def delete_before(self, number: int) -> None:
        """Delete segments that are in the ledger.

        Args:
            number: The oldest segment to keep. It holds a copy of every intent that was open when
                it began, and where the sequence numbers stood, so it is made durable first.

        Raises:
            OSError: They could not all be deleted.
        """
        with self._lock:
            numbers = [n for n in self._closed if n < number]
        if not numbers:
            return
        self.sync_segment(number)
        for old in numbers:
            segment_path(self._directory, old).unlink(missing_ok=True)
            with self._lock:
                self._total -= self._closed.pop(old)

    def close(self) -> None:
        """Sync as ``fsync`` asks, write no more and let the directory go."""
        if self._group is not None:
            self._group.stop()
        self._fail("the journal is closed")
        self._tail.seal()
        for fd in (*self._retired, self._tail.fd, self._headroom_fd, self._lock_fd):
            os.close(fd)

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason

    def _first_unshipped(self, shipped: ShippedTo | None) -> ShippedTo:
        least = 0 if shipped is None else shipped.segment
        with self._lock:
            number = min(n for n in (*self._closed, self._live) if n >= least)
        return ShippedTo(number, 0) if shipped is None or number > least else shipped

    def _admit(self, asked: int) -> None:
        promised = len(self._unsettled) * SETTLEMENT_BYTES
        if self._total + promised + asked > self._limits.total_bytes:
            raise JournalFull(
                f"the journal {self._directory} holds {self._total} bytes that are not in the"
                f" ledger yet or belong to open calls; its limit is {self._limits.total_bytes}"
            )

    def _write(self, frame: bytes, *, may_use_headroom: bool) -> None:
        if self._failure is not None:
            raise JournalBroken(self._failure)
        try:
            self._tail.append(frame)
        except OSError as error:
            trouble = self._trouble_of(error)
            if not (
                may_use_headroom and isinstance(trouble, JournalFull) and self._release_headroom()
            ):
                raise trouble from error
            try:
                self._tail.append(frame)
            except OSError as again:
                raise self._trouble_of(again) from again
        self._total += len(frame)

    def _trouble_of(self, error: OSError) -> StoreUnavailable:
        if isinstance(error, TailStuck):
            self._fail(f"the journal {self._directory} cannot be mended: {error}")
        elif error.errno in _FULL:
            return JournalFull(f"the disk of the journal {self._directory} is full")
        return JournalBroken(
            self._failure or f"the journal {self._directory} cannot be written: {error}"
        )

    def _hold_headroom(self) -> bool:
        """Take the headroom if there is room for it twice, so that nobody is starved by it."""
        with suppress(OSError):
            held = os.fstat(self._headroom_fd).st_size
            disk = os.fstatvfs(self._headroom_fd)
            if held < HEADROOM_BYTES <= disk.f_bavail * disk.f_frsize // 2:
                held = os.pwrite(self._headroom_fd, _ZEROS, 0)
            self._has_headroom = held == HEADROOM_BYTES
        if not self._has_headroom:
            self._release_headroom()
        return self._has_headroom

    def _release_headroom(self) -> bool:
        had_headroom, self._has_headroom = self._has_headroom, False
        with suppress(OSError):
            os.ftruncate(self._headroom_fd, 0)
        return had_headroom

    def _resume(self, scans: tuple[SegmentScan, ...]) -> tuple[int, int]:
        """Go on in the newest segment, or after it if it is damaged; return where it ended."""
        # Room written ahead by a process that died while it went on to the next segment is none.
        self._closed = {s.number: s.size if s.torn_bytes else s.good_end for s in scans}
        self._total = sum(self._closed.values())
        if not scans:
            self._begin(1)
            return (0, 0)
        newest = scans[-1]
        if newest.damaged_bytes:
            self._begin(newest.number + 1)
        else:
            fd = os.open(newest.path, os.O_RDWR | os.O_APPEND)
            os.ftruncate(fd, newest.good_end)
            self._total -= self._closed.pop(newest.number) - newest.good_end
            self._live, self._tail = newest.number, self._open_tail(fd, newest.good_end)
            self._rotate_at = self._limits.segment_bytes
        return (newest.number, newest.good_end)

    def _rotate(self) -> None:
        live, tail = self._live, self._tail
        try:
            self._begin(live + 1)
        except OSError:
            # The old segment takes more; try again later, not with every entry.
            self._rotate_at = tail.offset + max(1, self._limits.segment_bytes // 8)
            return
        tail.seal()
        self._closed[live] = tail.offset
        self._before_live += tail.offset
        if self._group is None:
            os.close(tail.fd)
        else:
            self._retired.append(tail.fd)

    def _begin(self, number: int) -> None:
        """Start a segment; it has its name only once its beginning is whole."""
        path = segment_path(self._directory, number)
        partial = path.with_suffix(".tmp")
        content = encode_header(self._seq) + b"".join(self._unsettled.values())
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            self._write_whole(fd, content)
            partial.rename(path)
        except OSError:
            os.close(fd)
            partial.unlink()
            raise
        self._live, self._tail = number, self._open_tail(fd, len(content))
        self._total += len(content)
        self._rotate_at = max(self._limits.segment_bytes, 2 * len(content))

    def _open_tail(self, fd: int, offset: int) -> Tail:
        return Tail(fd, offset, self._disk.write, is_mapped=self._is_mapped)

    def _write_whole(self, fd: int, content: bytes) -> None:
        if self._disk.write(fd, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _sync_written(self) -> int:
        with self._lock:
            mark = self._before_live + self._tail.offset
            fd, retired, self._retired = self._tail.fd, self._retired, []
        for old in retired:
            self._disk.sync(old)
            os.close(old)
        self._disk.sync(fd)
        if retired:
            sync_directory(self._directory)
        return mark
