"""The journal while its process lives: numbers, segments, limits and a disk that says no."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.errors import JournalBroken, JournalFull, JournalInUse
from gateway.ledger.journal import HEADROOM_BYTES, SETTLEMENT_BYTES, Disk, Journal
from gateway.ledger.record import Intent, LedgerRecord
from gateway.ledger.segments import encode_frame, list_segments, read_segment, segment_path
from tests.contracts.records import any_record, make_record, mint
from tests.ledger.journal_kit import (
    descriptors_open,
    make_intent,
    newest_segment,
    read_journal,
    settle,
)

MIB = 1024 * 1024


class FaultyDisk:
    """A disk whose writes do as the test says.

    Attributes:
        fault: Called instead of a write, when set.
    """

    def __init__(self) -> None:
        self.fault: Callable[[int, bytes], int] | None = None

    def write(self, fd: int, frame: bytes) -> int:
        """Write, or fail."""
        return os.write(fd, frame) if self.fault is None else self.fault(fd, frame)

    def disk(self) -> Disk:
        """Make what the journal takes."""
        return Disk(write=self.write, can_map=lambda _: False)


def raising(code: int) -> Callable[[int, bytes], int]:
    """Make a write that fails with one error."""

    def write(fd: int, frame: bytes) -> int:
        raise OSError(code, os.strerror(code))

    return write


def accept_until_full(journal: Journal, accepted: list[Intent]) -> None:
    """Append intents and keep the ones that went in, until the journal refuses."""
    while True:
        intent = make_intent()
        journal.append_intent(intent)
        accepted.append(intent)


def refuse_until_full(journal: Journal) -> None:
    """Append records of refused calls until the journal refuses."""
    while True:
        journal.append_record(make_record(outcome="refused"))


def test_entries_come_back_as_they_were_written(tmp_path):
    """What was appended is what is read, in order, and records are numbered from 1."""
    intent = make_intent()
    with closing(Journal.open(tmp_path)) as journal:
        journal.append_intent(intent)
        first = journal.append_record(settle(intent))
        second = journal.append_record(make_record(outcome="refused", seq=77))
        position = journal.position()

    assert [1, 2] == [first.seq, second.seq]
    assert [intent, first, second] == read_journal(tmp_path)
    assert (1, newest_segment(tmp_path).stat().st_size, 2) == position
    assert position.offset == journal.total_bytes


@given(records=st.lists(any_record(), max_size=5))
def test_any_record_survives(tmp_path_factory, records):
    """Nothing a record can hold is changed by the journal."""
    directory = tmp_path_factory.mktemp("journal")
    with closing(Journal.open(directory)) as journal:
        written = [journal.append_record(record) for record in records]

    assert written == read_journal(directory)


def test_reading_can_begin_at_any_entry(tmp_path):
    """An offset that a read returned is where the next read goes on."""
    with closing(Journal.open(tmp_path)) as journal:
        written = [journal.append_record(make_record()) for _ in range(5)]
    found = list(read_segment(newest_segment(tmp_path)))

    for index, (_, offset) in enumerate(found):
        rest = [entry for entry, _ in read_segment(newest_segment(tmp_path), offset)]
        assert written[index + 1 :] == rest


def test_numbers_go_on_after_a_restart(tmp_path):
    """A new process continues the numbers, keeps the name and knows the open calls."""
    left, done = make_intent(), make_intent()
    with closing(Journal.open(tmp_path)) as journal:
        name = journal.writer
        journal.append_intent(left)
        journal.append_intent(done)
        journal.append_record(settle(done))
    with closing(Journal.open(tmp_path)) as journal:
        again = journal.append_record(make_record())

        assert 2 == again.seq
        assert name == journal.writer
        assert (left,) == journal.open_intents()
        assert (0, ()) == (journal.torn_bytes, journal.damaged_files)


def test_a_journal_has_one_owner(tmp_path):
    """A second owner is told which directory is taken and by whom, until the first lets go."""
    directory = tmp_path / "deep" / "journal"
    with (
        closing(Journal.open(directory)),
        pytest.raises(JournalInUse, match=f"{directory} is in use by process {os.getpid()}"),
    ):
        Journal.open(directory)

    Journal.open(directory).close()


def test_nothing_stays_open_behind_a_journal(tmp_path):
    """Opening, rotating, failing to open and closing leave no descriptor behind."""
    before = descriptors_open()
    for fsync in ("normal", "full"):
        with closing(Journal.open(tmp_path, fsync=fsync, segment_bytes_max=1)) as journal:
            for _ in range(3):
                journal.append_record(make_record())
            with pytest.raises(JournalInUse):
                Journal.open(tmp_path)

    assert before == descriptors_open()


def test_a_directory_that_cannot_be_used_is_named(tmp_path):
    """A file in the place of the directory is a failure that says where, and frees what it took."""
    (tmp_path / "journal").write_text("in the way")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "headroom").mkdir()

    with pytest.raises(JournalBroken, match=str(tmp_path / "journal")):
        Journal.open(tmp_path / "journal")
    for _ in range(2):
        with pytest.raises(JournalBroken, match="headroom"):
            Journal.open(tmp_path / "other")


def test_segments_rotate_and_carry_open_calls(tmp_path):
    """A new segment begins with the open intents, so older ones can go while a call lasts."""
    long_call = make_intent()
    with closing(Journal.open(tmp_path, segment_bytes_max=4000)) as journal:
        journal.append_intent(long_call)
        for _ in range(30):
            journal.append_record(make_record())
        live = journal.position().segment
        journal.delete_before(live)

        assert live > 3
        assert [live] == list_segments(tmp_path)
        assert [live] == [extent.number for extent in journal.extents()]
        assert journal.extents()[-1].end == journal.total_bytes
        journal.delete_before(live)
    with closing(Journal.open(tmp_path, segment_bytes_max=4000)) as journal:
        assert (long_call,) == journal.open_intents()
        assert 31 == journal.append_record(settle(long_call)).seq


def test_segments_do_not_chase_open_calls(tmp_path):
    """When the open calls alone fill a segment, it still takes as much again before the next."""
    with closing(Journal.open(tmp_path, segment_bytes_max=2000)) as journal:
        for _ in range(100):
            journal.append_intent(make_intent())

        assert 100 == len(journal.open_intents())
        assert 20 > journal.position().segment


def test_a_journal_without_segments_begins_under_a_new_name(tmp_path):
    """When nothing tells which numbers were given, none is given again under the old name."""
    with closing(Journal.open(tmp_path)) as journal:
        name = journal.writer
        journal.append_record(make_record())
    newest_segment(tmp_path).unlink()
    with closing(Journal.open(tmp_path)) as journal:
        assert name != journal.writer
        assert 1 == journal.append_record(make_record()).seq


@pytest.mark.parametrize("name", [b"", b"w-xyz\n", b"\xff\xfe"], ids=repr)
def test_an_unreadable_name_is_replaced(tmp_path, name):
    """A name file that cannot be right gets a new name that stays; the numbers go on."""
    with closing(Journal.open(tmp_path)) as journal:
        journal.append_record(make_record())
    (tmp_path / "writer").write_bytes(name)
    with closing(Journal.open(tmp_path)) as journal:
        fresh = journal.writer
        assert 2 == journal.append_record(make_record()).seq
    with closing(Journal.open(tmp_path)) as journal:
        assert fresh == journal.writer


def test_appending_is_safe_from_many_threads(tmp_path):
    """Numbers have no gaps and no doubles whoever appends at the same time."""
    with closing(Journal.open(tmp_path, segment_bytes_max=20_000)) as journal:

        def append():
            for _ in range(100):
                journal.append_record(make_record())

        threads = [threading.Thread(target=append) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seqs = [entry.seq for entry in read_journal(tmp_path) if isinstance(entry, LedgerRecord)]

    assert list(range(1, 401)) == seqs


def test_the_limit_refuses_new_calls_and_lets_open_ones_end(tmp_path):
    """At its size limit the journal takes no new call, yet every accepted one can be settled."""
    limit = 200_000
    accepted = []
    with closing(Journal.open(tmp_path, bytes_max=limit, segment_bytes_max=50_000)) as journal:
        with pytest.raises(JournalFull, match=str(limit)):
            accept_until_full(journal, accepted)
        with pytest.raises(JournalFull, match=str(limit)):
            refuse_until_full(journal)
        settled = [journal.append_record(settle(intent)) for intent in accepted]

        assert limit // (2 * SETTLEMENT_BYTES) < len(accepted)
        assert limit >= journal.total_bytes
        assert () == journal.open_intents()
        assert settled[-1].seq == journal.position().seq
        journal.append_intent(make_intent())


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (raising(errno.ENOSPC), JournalFull),
        (raising(errno.EDQUOT), JournalFull),
        (raising(errno.EIO), JournalBroken),
        (lambda fd, frame: os.write(fd, frame[:-1]), JournalFull),
        (lambda fd, frame: os.write(fd, frame[:3]), JournalFull),
    ],
    ids=["no space", "quota", "input/output", "all but a byte", "three bytes"],
)
def test_a_failed_write_leaves_no_trace(tmp_path, fault, failure):
    """An entry is in the journal whole or not at all, and its number is not used up."""
    faulty = FaultyDisk()
    refused, accepted = make_intent(), make_intent()
    with closing(Journal.open(tmp_path, disk=faulty.disk())) as journal:
        journal.append_intent(accepted)
        before = journal.position()
        faulty.fault = fault
        with pytest.raises(failure):
            journal.append_intent(refused)
        with pytest.raises(failure):
            journal.append_record(settle(accepted))
        faulty.fault = None

        assert before == journal.position()
        assert before.offset == newest_segment(tmp_path).stat().st_size
        assert (accepted,) == journal.open_intents()
        assert 1 == journal.append_record(settle(accepted)).seq
        assert journal.failure is None


def test_a_journal_that_cannot_be_mended_takes_nothing_more(tmp_path):
    """When half an entry cannot be taken back, everything after it is refused."""
    faulty = FaultyDisk()
    with (tmp_path / "other").open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
    with closing(Journal.open(tmp_path / "journal", disk=faulty.disk())) as journal:

        def fault(fd, frame):
            os.write(fd, frame[:10])
            read_only = os.open(tmp_path / "other", os.O_RDONLY)
            os.dup2(read_only, fd)
            os.close(read_only)
            return 10

        faulty.fault = fault
        with pytest.raises(JournalBroken, match="mended"):
            journal.append_intent(make_intent())
        faulty.fault = None
        with pytest.raises(JournalBroken, match="mended"):
            journal.append_record(make_record())
        assert journal.failure is not None
    with closing(Journal.open(tmp_path / "journal")) as journal:
        assert 10 == journal.torn_bytes
        assert 1 == journal.append_record(make_record()).seq


def test_a_closed_journal_takes_nothing(tmp_path):
    """After ``close`` nothing is written."""
    journal = Journal.open(tmp_path)
    journal.close()

    with pytest.raises(JournalBroken, match="closed"):
        journal.append_intent(make_intent())
    with pytest.raises(JournalBroken, match="closed"):
        journal.append_record(make_record())


@pytest.mark.parametrize("written", [0, 10], ids=["nothing", "part"])
def test_a_segment_that_cannot_begin_is_tried_again(tmp_path, written):
    """Without room for a new segment the old one goes on, and the next one comes later."""
    faulty = FaultyDisk()

    def fault(fd, frame):
        if not frame.startswith(b"taximeter-journal"):
            return os.write(fd, frame)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, frame[:written])

    with closing(Journal.open(tmp_path, segment_bytes_max=5000, disk=faulty.disk())) as journal:
        faulty.fault = fault
        for _ in range(20):
            journal.append_record(make_record())
        assert [1] == list_segments(tmp_path)
        assert not list(tmp_path.glob("*.tmp"))
        faulty.fault = None
        for _ in range(20):
            journal.append_record(make_record())
        assert [1, 2] == list_segments(tmp_path)[:2]
    seqs = [entry.seq for entry in read_journal(tmp_path) if isinstance(entry, LedgerRecord)]

    assert list(range(1, 41)) == seqs


def test_a_settlement_uses_the_headroom_of_a_full_disk(tmp_path):
    """What keeps space free is given up for an accepted call, and taken back before a new one."""
    faulty = FaultyDisk()
    headroom = tmp_path / "headroom"

    def fault(fd, frame):
        if headroom.stat().st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, frame)

    with closing(Journal.open(tmp_path, disk=faulty.disk())) as journal:
        accepted = make_intent()
        journal.append_intent(accepted)
        assert HEADROOM_BYTES == headroom.stat().st_size
        faulty.fault = fault
        with pytest.raises(JournalFull):
            journal.append_intent(make_intent())
        assert HEADROOM_BYTES == headroom.stat().st_size
        assert 1 == journal.append_record(settle(accepted)).seq
        assert 0 == headroom.stat().st_size
        faulty.fault = None
        journal.append_intent(make_intent())
        assert HEADROOM_BYTES == headroom.stat().st_size


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 16 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can make a small file system")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_loses_nothing(small_disk):
    """On a disk that is really full new calls are refused and every accepted one is settled."""
    with closing(Journal.open(small_disk / "journal")) as journal:
        accepted = [make_intent() for _ in range(500)]
        for intent in accepted:
            journal.append_intent(intent)
        filler = os.open(small_disk / "filler", os.O_WRONLY | os.O_CREAT)
        while filler_grew(filler):
            pass
        with pytest.raises(JournalFull):
            accept_until_full(journal, [])
        for intent in accepted:
            journal.append_record(settle(intent))
        with pytest.raises(JournalFull):
            journal.append_intent(make_intent())
        os.ftruncate(filler, 0)
        os.close(filler)
        journal.append_intent(make_intent())
        records = journal.position().seq
        still_open = journal.open_intents()
    with closing(Journal.open(small_disk / "journal")) as journal:
        assert 500 == records == journal.position().seq
        assert still_open == journal.open_intents()


def test_a_full_disk_does_not_keep_the_journal_from_opening(small_disk):
    """A start on a full disk gets at what is there, and takes no new call."""
    with closing(Journal.open(small_disk / "journal")) as journal:
        journal.append_record(make_record())
    (small_disk / "journal" / "headroom").unlink()
    filler = os.open(small_disk / "filler", os.O_WRONLY | os.O_CREAT)
    while filler_grew(filler):
        pass
    os.close(filler)
    with closing(Journal.open(small_disk / "journal")) as journal:
        assert 1 == journal.position().seq
        with pytest.raises(JournalFull, match="disk"):
            journal.append_intent(make_intent())


def filler_grew(fd: int) -> bool:
    """Write more to a file; False when the disk is full."""
    try:
        return os.write(fd, bytes(4096)) > 0
    except OSError:
        return False


FILE_LIMIT = """
import resource, sys
from pathlib import Path
from gateway.ledger.errors import JournalFull
from gateway.ledger.journal import Journal
from tests.ledger.journal_kit import make_intent, settle

journal = Journal.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
accepted = 0
try:
    while True:
        journal.append_intent(make_intent())
        accepted += 1
except JournalFull:
    print(accepted)
"""


def test_a_file_size_limit_is_a_full_disk(tmp_path):
    """The write that crosses the limit of the process is refused whole."""
    child = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with closing(Journal.open(tmp_path)) as journal:
        assert int(child.stdout) == len(journal.open_intents())
        assert 0 == journal.torn_bytes


def test_an_entry_costs_one_write(tmp_path):
    """Head and payload of an entry go to the disk in one system call."""
    writes = []

    def write(fd, frame):
        writes.append(frame)
        return os.write(fd, frame)

    with closing(
        Journal.open(tmp_path, disk=Disk(write=write, can_map=lambda _: False))
    ) as journal:
        writes.clear()
        intent = make_intent(id=mint())
        journal.append_intent(intent)
        record = journal.append_record(settle(intent))

    assert [encode_frame(intent), encode_frame(record)] == writes
    assert newest_segment(tmp_path) == segment_path(tmp_path, 1)
