"""Brings the journal's records into the ledger, in a thread of its own.

Must never delete what the ledger does not hold, nor give the ledger what the journal could lose.
"""

import gc
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from gateway.clock import Clock
from gateway.ledger.errors import (
    CorrectionOfCorrection,
    LedgerConflict,
    ShippedTo,
    StoreUnavailable,
)
from gateway.ledger.journal import Extent, Journal, Position
from gateway.ledger.record import LedgerRecord
from gateway.ledger.segments import INTENT_START, Frame, decode_record, read_frames, set_aside

_POLL_S: Final = 0.05
_RETRY_S_MAX: Final = 5.0


# While calls keep the process busy, the shipper's thread works a fiftieth of the time, more of it
# as the backlog grows, and all of it before the journal is in danger of filling up.
RESTS_PER_WORK: Final = ((64 * 1024**2, 49), (256 * 1024**2, 19), (1024**3, 4))
REST_S_MAX: Final = 2.0
# Two hundred calls a second, as bytes of journal between two looks: below that nobody is disturbed.
BUSY_BYTES: Final = 20 * 1024
# Most records in a transaction then: a short one, as the calls wait for it.
BUSY_RECORDS: Final = 200


class LedgerSink(Protocol):
    """Where records go."""

    def shipped_to(self, writer: str) -> ShippedTo | None:
        """Tell how far a journal has been read.

        Args:
            writer: Name of the journal.

        Returns:
            The position last given; ``None`` when the ledger does not know the journal.

        Raises:
            StoreUnavailable: The ledger cannot be reached.
        """
        ...

    def append(self, writer: str, records: Sequence[LedgerRecord], shipped_to: ShippedTo) -> None:
        """Add records, skipping ids it has, and remember the position, in one transaction.

        Args:
            writer: Name of the journal.
            records: In the order of ``seq``.
            shipped_to: The position after them.

        Raises:
            StoreUnavailable: The ledger cannot be reached.
            LedgerConflict: A new record has a number the ledger has already from this journal.
            CorrectionOfCorrection: A record corrects one that is a correction.
        """
        ...


class Shipper:
    """Tails the journal. At least once; the ids make it exactly once in the ledger.

    Every segment is synced before records in it are shipped, under ``fsync: normal`` too: after a
    power cut the journal would otherwise give numbers again that the ledger has already.
    """

    def __init__(
        self,
        journal: Journal,
        sink: LedgerSink,
        clock: Clock,
        *,
        batch_records: int = 500,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        """Prepare; nothing happens before ``start`` or ``ship_pending``.

        Args:
            journal: What to ship.
            sink: Where to.
            clock: For the lag.
            batch_records: Most records in one transaction; fewer while calls keep coming.
            wait: Waits for an event, so many seconds at most.
        """
        self._journal = journal
        self._sink = sink
        self._clock = clock
        self._batch_records = batch_records
        self._is_busy = False
        self._seen: Position | None = None
        self._wait = wait
        self._at: ShippedTo | None = None
        self._is_renamed = False
        self._records_shipped = 0
        self._is_store_up = False
        self._trouble: str | None = None
        self._damaged_files: frozenset[Path] = frozenset()
        self._caught_up_s = clock.monotonic_s()
        self._wake = threading.Event()
        self._progress = threading.Condition()
        self._flushes = 0
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="ledger-shipper", daemon=True)

    @property
    def is_store_up(self) -> bool:
        """Whether the ledger answered when it was last asked; False before it was."""
        return self._is_store_up

    @property
    def trouble(self) -> str | None:
        """Why shipping does not get on, in words; ``None`` while it does."""
        return self._trouble

    @property
    def damaged_files(self) -> frozenset[Path]:
        """Copies of segments in which something could not be read while shipping."""
        return self._damaged_files

    @property
    def records_shipped(self) -> int:
        """How many records went to the ledger since this was made, repeated ones included."""
        return self._records_shipped

    def lag_s(self) -> float:
        """Tell how old the oldest entry outside the ledger is at most; 0 when there is none."""
        if self._has_shipped(self._journal.position()):
            return 0.0
        return max(0.0, self._clock.monotonic_s() - self._caught_up_s)

    @property
    def is_busy(self) -> bool:
        """Whether calls come so fast that whoever works beside them had better rest."""
        return self._is_busy

    def pending_bytes(self) -> int:
        """Tell how much of the journal is not in the ledger yet."""
        at = self._at or ShippedTo(0, 0)
        extents = self._journal.extents()
        later = sum(extent.end for extent in extents if extent.number > at.segment)
        return later + sum(e.end - at.offset for e in extents if e.number == at.segment)

    def start(self) -> None:
        """Start the thread; once only."""
        self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything appended before the call is in the ledger.

        Args:
            timeout_s: How long at most.

        Returns:
            Whether it is.
        """
        target = self._journal.position()
        with self._progress:
            self._flushes += 1
            self._wake.set()
            try:
                return self._progress.wait_for(lambda: self._has_shipped(target), timeout_s)
            finally:
                self._flushes -= 1

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Ship the rest and end the thread.

        Args:
            timeout_s: How long at most; what is left then is shipped after the next start.

        Returns:
            Whether everything is in the ledger.
        """
        is_done = self.flush(timeout_s)
        self._is_ending = True
        self._wake.set()
        self._thread.join(timeout_s)
        return is_done

    def ship_pending(self) -> None:
        """Ship everything appended before the call, in the caller's thread.

        Raises:
            StoreUnavailable: The ledger cannot be reached.
            OSError: The journal cannot be read or synced.
            LedgerConflict: The ledger refuses the journal's numbers even under a new name, or a
                correction of a correction in it.
        """
        try:
            self._ship_all()
        except CorrectionOfCorrection:
            # Another name for the journal would not help.
            raise
        except LedgerConflict:
            if self._is_renamed:
                raise
            self._is_renamed = True
            self._at = self._journal.begin_chain()
            self._ship_all()

    def _run(self) -> None:
        pause_s = 0.0
        is_ending = False
        try:
            while not is_ending:
                self._wait(self._wake, _POLL_S if self._flushes else pause_s)
                self._wake.clear()
                is_ending = self._is_ending
                pause_s = self._try_ship(pause_s)
        finally:
            if not is_ending:
                self._is_store_up = False
                self._trouble = "the shipper thread has died"

    def _try_ship(self, pause_s: float) -> float:
        try:
            self.ship_pending()
        except (StoreUnavailable, OSError, LedgerConflict) as error:
            self._trouble = str(error)
            return min(2 * max(pause_s, _POLL_S), _RETRY_S_MAX)
        self._trouble = None
        return _POLL_S

    def _ship_all(self) -> None:
        started_s = self._clock.monotonic_s()
        if self._at is None:
            try:
                known = self._sink.shipped_to(self._journal.writer)
            except StoreUnavailable:
                self._is_store_up = False
                raise
            self._is_store_up = True
            self._at = self._journal.resume_point(known)
        for extent in self._journal.extents():
            if extent.number >= self._at.segment:
                self._ship_segment(extent, self._at)
                self._journal.delete_before(extent.number)
        self._caught_up_s = started_s

    def _ship_segment(self, extent: Extent, at: ShippedTo) -> None:
        start = at.offset if extent.number == at.segment else 0
        if start >= extent.end:
            return
        batch: list[LedgerRecord] = []
        most = self._most_at_once()
        fd = os.open(extent.path, os.O_RDONLY)
        try:
            for part in read_frames(fd, start, extent.end):
                if not isinstance(part, Frame):
                    self._damaged_files |= {set_aside(extent.path)}
                elif not part.payload.startswith(INTENT_START):
                    batch += self._read_record(part, extent)
                if len(batch) >= most or (batch and part.end == extent.end):
                    self._append(batch, ShippedTo(extent.number, part.end))
                    batch, most = [], self._most_at_once()
        finally:
            os.close(fd)
        self._move_to(ShippedTo(extent.number, extent.end))

    def _read_record(self, frame: Frame, extent: Extent) -> tuple[LedgerRecord, ...]:
        try:
            return (decode_record(frame.payload),)
        except msgspec.MsgspecError:
            self._damaged_files |= {set_aside(extent.path)}
            return ()

    def _most_at_once(self) -> int:
        return min(self._batch_records, BUSY_RECORDS) if self._is_busy else self._batch_records

    def _append(self, batch: Sequence[LedgerRecord], to: ShippedTo) -> None:
        started_s = self._clock.monotonic_s()
        self._journal.sync_segment(to.segment)
        try:
            self._sink.append(self._journal.writer, batch, to)
        except StoreUnavailable:
            self._is_store_up = False
            raise
        self._is_store_up = True
        # A transaction leaves some fifty kilobytes in cycles, and the collector, set to leave the
        # path of a call alone, would let thousands of them pile up.
        gc.collect(0)
        self._records_shipped += len(batch)
        self._move_to(to)
        self._give_way(self._clock.monotonic_s() - started_s)

    def _give_way(self, worked_s: float) -> None:
        """Rest in proportion to the work just done: the path of a call goes first.

        The interpreter runs one thread at a time, so a shipper at full speed would take a third of
        the calls a core can carry. It rests only while calls keep coming, nobody waits for a flush
        because of it, and past a gigabyte of backlog catching up goes first. Once a look has found
        nothing coming it works on, until something came while it worked. Guarded by
        tests/ledger/test_shipper.py.
        """
        if threading.current_thread() is not self._thread or not self._is_coming(worked_s):
            return
        backlog = self.pending_bytes()
        rests = next((rests for size, rests in RESTS_PER_WORK if backlog < size), 0)
        rested_s, rest_s = 0.0, min(worked_s * rests, REST_S_MAX)
        while rested_s < rest_s and not (self._flushes or self._is_ending):
            before = self.pending_bytes()
            self._wait(self._wake, min(_POLL_S, rest_s - rested_s))
            self._is_busy = self.pending_bytes() - before >= BUSY_BYTES
            if not self._is_busy:
                self._seen = self._journal.position()
                return
            rested_s += _POLL_S

    def _is_coming(self, worked_s: float) -> bool:
        """Tell whether as much came while it worked as makes a process busy."""
        seen, self._seen = self._seen, self._journal.position()
        if seen is None or seen.segment != self._seen.segment:
            return True
        looks = max(1.0, worked_s / _POLL_S)
        return self._seen.offset - seen.offset >= looks * BUSY_BYTES

    def _move_to(self, to: ShippedTo) -> None:
        with self._progress:
            self._at = to
            self._progress.notify_all()

    def _has_shipped(self, target: Position) -> bool:
        at = self._at
        return at is not None and (at.segment, at.offset) >= (target.segment, target.offset)
