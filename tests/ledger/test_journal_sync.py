"""``fsync: full``: who waits for what, and what happens when syncing fails."""

import asyncio
import errno
import os
import threading
from contextlib import closing

import pytest

from gateway.ledger.errors import JournalBroken
from gateway.ledger.journal import Disk, Journal
from tests.contracts.records import make_record
from tests.ledger.journal_kit import ManualClock, make_intent, newest_segment, read_journal

PATIENCE_S = 20


class GatedDisk:
    """A disk whose syncs begin and end when the test says.

    Attributes:
        begun: One permit for each sync that has begun.
        may_end: One permit for each sync that may end.
        files: Identity of the file of each sync, and its size then.
        failure: Raised by every sync that ends, when set.
        clock: Time, moved by the test.
    """

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.files: list[tuple[int, int]] = []
        self.failure: Exception | None = None
        self.clock = ManualClock()

    def sync(self, fd: int) -> None:
        """Wait for the test, then sync or fail."""
        state = os.fstat(fd)
        self.files.append((state.st_ino, state.st_size))
        self.begun.release()
        assert self.may_end.acquire(timeout=PATIENCE_S)
        if self.failure is not None:
            raise self.failure

    def disk(self) -> Disk:
        """Make what the journal takes."""
        return Disk(can_map=lambda _: False, sync=self.sync, monotonic_s=self.clock.monotonic_s)

    async def has_begun(self) -> None:
        """Wait until the next sync has begun."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=PATIENCE_S)

    def open_gate(self) -> None:
        """Let every sync end at once from now on."""
        self.may_end.release(1000)


def test_normal_waits_for_nothing(tmp_path):
    """Under ``normal`` an entry is safe once it is written; nothing is synced for it."""
    gated = GatedDisk()
    with closing(Journal.open(tmp_path, disk=gated.disk())) as journal:
        journal.append_record(make_record())
        asyncio.run(journal.synced())

        assert [] == gated.files
        assert 0 == journal.sync_lag_s()


def test_full_waits_until_the_entry_is_on_the_disk(tmp_path):
    """``synced`` returns only after a sync that began when the entry was in the file."""
    gated = GatedDisk()

    async def run(journal: Journal) -> None:
        journal.append_record(make_record())
        size = newest_segment(tmp_path).stat().st_size
        waiter = asyncio.ensure_future(journal.synced())
        await gated.has_begun()
        assert not waiter.done()
        assert size == gated.files[0][1]
        gated.may_end.release()
        await waiter
        await journal.synced()
        assert 1 == len(gated.files)

    with closing(Journal.open(tmp_path, fsync="full", disk=gated.disk())) as journal:
        asyncio.run(run(journal))
        gated.open_gate()


def test_full_serves_everyone_who_came_meanwhile_with_one_sync(tmp_path):
    """However many calls wait, each sync serves all who came before it began, and only them."""
    gated = GatedDisk()

    async def run(journal: Journal) -> None:
        async def call() -> None:
            journal.append_record(make_record())
            await journal.synced()

        first = asyncio.ensure_future(call())
        await gated.has_begun()
        others = [asyncio.ensure_future(call()) for _ in range(500)]
        await asyncio.sleep(0)
        gated.may_end.release()
        await first
        await gated.has_begun()
        assert not any(other.done() for other in others)
        gated.may_end.release()
        await asyncio.gather(*others)
        assert 2 == len(gated.files)

    with closing(Journal.open(tmp_path, fsync="full", disk=gated.disk())) as journal:
        asyncio.run(run(journal))
        gated.open_gate()


def test_many_calls_over_a_real_disk(tmp_path):
    """Under ``full`` a thousand calls at once all come back, across several segments."""

    async def run(journal: Journal) -> None:
        async def call() -> None:
            journal.append_intent(make_intent())
            await journal.synced()
            journal.append_record(make_record())
            await journal.synced()

        await asyncio.gather(*(call() for _ in range(500)))

    with closing(Journal.open(tmp_path, fsync="full", segment_bytes_max=100_000)) as journal:
        asyncio.run(run(journal))
        assert 500 == journal.position().seq
        assert 1 < journal.position().segment


def test_a_cancelled_waiter_takes_nobody_along(tmp_path):
    """One caller that goes away does not end the wait of the others."""
    gated = GatedDisk()

    async def run(journal: Journal) -> None:
        journal.append_record(make_record())
        waiters = [asyncio.ensure_future(journal.synced()) for _ in range(3)]
        await gated.has_begun()
        waiters[1].cancel()
        gated.may_end.release(2)
        ends = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(None), asyncio.CancelledError, type(None)] == [type(end) for end in ends]

    with closing(Journal.open(tmp_path, fsync="full", disk=gated.disk())) as journal:
        asyncio.run(run(journal))
        gated.open_gate()


def test_a_failed_sync_fails_its_waiters_and_everything_later(tmp_path):
    """After one failed sync nothing can be promised: no waiter hangs and no entry is taken."""
    gated = GatedDisk()

    async def run(journal: Journal) -> None:
        journal.append_record(make_record())
        first = asyncio.ensure_future(journal.synced())
        await gated.has_begun()
        journal.append_record(make_record())
        second = asyncio.ensure_future(journal.synced())
        await asyncio.sleep(0)
        gated.failure = OSError(errno.EIO, "input/output error")
        gated.may_end.release()
        for waiter in (first, second):
            with pytest.raises(JournalBroken, match="input/output"):
                await waiter
        with pytest.raises(JournalBroken, match="input/output"):
            await journal.synced()

    with closing(Journal.open(tmp_path, fsync="full", disk=gated.disk())) as journal:
        asyncio.run(run(journal))
        with pytest.raises(JournalBroken, match="input/output"):
            journal.append_intent(make_intent())
        with pytest.raises(JournalBroken, match="input/output"):
            journal.append_record(make_record())
        assert "input/output" in (journal.failure or "")
    assert 2 == len(read_journal(tmp_path))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_sync_thread_hangs_nobody(tmp_path):
    """A thread that dies of a bug fails its waiters and all later appends."""
    gated = GatedDisk()
    gated.failure = RuntimeError("a bug")
    gated.open_gate()

    async def run(journal: Journal) -> None:
        journal.append_record(make_record())
        with pytest.raises(JournalBroken, match="died"):
            await journal.synced()

    with closing(Journal.open(tmp_path, fsync="full", disk=gated.disk())) as journal:
        asyncio.run(run(journal))
        with pytest.raises(JournalBroken, match="died"):
            journal.append_intent(make_intent())


def test_a_loop_that_has_gone_is_no_trouble(tmp_path):
    """A waiter whose event loop was closed is forgotten; the next one is served."""
    gated = GatedDisk()

    async def give_up(journal: Journal) -> None:
        journal.append_record(make_record())
        waiter = asyncio.ensure_future(journal.synced())
        await gated.has_begun()
        waiter.cancel()

    async def wait(journal: Journal) -> None:
        journal.append_record(make_record())
        await journal.synced()

    with closing(Journal.open(tmp_path, fsync="full", disk=gated.disk())) as journal:
        asyncio.run(give_up(journal))
        gated.open_gate()
        asyncio.run(wait(journal))
        assert journal.failure is None


def test_a_rotation_syncs_the_old_segment_too(tmp_path):
    """What was written just before a new segment began is as safe as what was written after."""
    gated = GatedDisk()
    gated.open_gate()

    async def run(journal: Journal) -> None:
        for _ in range(3):
            journal.append_record(make_record())
        await journal.synced()

    with closing(
        Journal.open(tmp_path, fsync="full", segment_bytes_max=1, disk=gated.disk())
    ) as journal:
        asyncio.run(run(journal))
        files = {(path.stat().st_ino, path.stat().st_size) for path in tmp_path.glob("0*.tmj")}
        assert 4 == len(files)
        assert files == set(gated.files)


def test_closing_serves_those_who_wait_and_syncs_the_rest(tmp_path):
    """``close`` under ``full`` leaves nothing behind that is not on the disk."""
    gated = GatedDisk()

    async def run(journal: Journal) -> None:
        journal.append_record(make_record())
        first = asyncio.ensure_future(journal.synced())
        await gated.has_begun()
        journal.append_record(make_record())
        second = asyncio.ensure_future(journal.synced())
        await asyncio.sleep(0)
        closer = asyncio.ensure_future(asyncio.to_thread(journal.close))
        gated.open_gate()
        await asyncio.gather(first, second, closer)
        assert newest_segment(tmp_path).stat().st_size == gated.files[-1][1]
        await journal.synced()

    asyncio.run(run(Journal.open(tmp_path, fsync="full", disk=gated.disk())))


def test_a_closed_journal_keeps_nobody_waiting(tmp_path):
    """Closing without any entry syncs what there is, and nobody can wait afterwards."""
    gated = GatedDisk()
    gated.failure = OSError(errno.EIO, "input/output error")
    gated.open_gate()
    journal = Journal.open(tmp_path, fsync="full", disk=gated.disk())
    journal.append_record(make_record())
    journal.close()

    with pytest.raises(JournalBroken, match="input/output"):
        asyncio.run(journal.synced())


def test_the_lag_is_that_of_the_longest_wait(tmp_path):
    """The lag grows from the first waiter of the sync under way, then from the next group's."""
    gated = GatedDisk()

    async def run(journal: Journal) -> None:
        journal.append_record(make_record())
        first = asyncio.ensure_future(journal.synced())
        await gated.has_begun()
        gated.clock.seconds += 3
        journal.append_record(make_record())
        second = asyncio.ensure_future(journal.synced())
        await asyncio.sleep(0)
        gated.clock.seconds += 1
        assert 4 == journal.sync_lag_s()
        gated.may_end.release()
        await first
        await gated.has_begun()
        assert 1 == journal.sync_lag_s()
        gated.may_end.release()
        await second
        assert 0 == journal.sync_lag_s()

    with closing(Journal.open(tmp_path, fsync="full", disk=gated.disk())) as journal:
        assert 0 == journal.sync_lag_s()
        asyncio.run(run(journal))
        gated.open_gate()
