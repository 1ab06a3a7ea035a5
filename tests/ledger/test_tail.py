"""The live end of a segment that is written through shared memory: nothing lost, nothing torn."""

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest

from gateway.ledger.errors import JournalFull
from gateway.ledger.journal import Disk, Journal
from gateway.ledger.record import Intent
from gateway.ledger.segments import encode_frame, read_segment, scan_segment, segment_path
from gateway.ledger.shipper import Shipper
from gateway.ledger.tail import AHEAD_BYTES, Tail, TailStuck, can_map
from tests.ledger.journal_kit import ManualClock, MemorySink, make_intent, settle


def accept_until_full(journal: Journal, accepted: list[Intent]) -> None:
    while True:
        intent = make_intent()
        journal.append_intent(intent)
        accepted.append(intent)


def open_tail(path: Path, offset: int = 0, write=os.write) -> Tail:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    return Tail(fd, offset, write, is_mapped=True)


def mapped(write=os.write) -> Disk:
    return Disk(write=write, can_map=lambda _: True)


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([1], id="one byte"),
        pytest.param([AHEAD_BYTES], id="exactly a step"),
        pytest.param([AHEAD_BYTES + 1], id="more than a step"),
        pytest.param([3 * AHEAD_BYTES + 17, 5], id="several steps at once"),
        pytest.param([AHEAD_BYTES - 1, 2, AHEAD_BYTES], id="over a border"),
        pytest.param([4096] * 300, id="page by page"),
        pytest.param([997] * 3000, id="across pages"),
    ],
)
def test_frames_lie_one_after_the_other(tmp_path, sizes):
    """What was appended is in the file at once, in order, with nothing but zeros behind it."""
    path = tmp_path / "segment"
    tail = open_tail(path)
    frames = [bytes([1 + number % 255]) * size for number, size in enumerate(sizes)]
    for frame in frames:
        tail.append(frame)

    written = path.read_bytes()
    assert b"".join(frames) == written[: tail.offset]
    assert not written[tail.offset :].strip(b"\0")
    tail.seal()
    assert b"".join(frames) == path.read_bytes()
    os.close(tail.fd)


def test_going_on_behind_an_old_end(tmp_path):
    """A segment taken over is continued where it ended, wherever in a page that is."""
    path = tmp_path / "segment"
    path.write_bytes(b"a" * 5001)
    tail = open_tail(path, 5001)
    tail.append(b"b" * 10)
    tail.seal()
    os.close(tail.fd)
    assert b"a" * 5001 + b"b" * 10 == path.read_bytes()


@pytest.mark.parametrize("written", [0, 1, AHEAD_BYTES - 1])
def test_no_room_ahead_writes_nothing(tmp_path, written):
    """A step that does not fit is taken back, and the next one is tried again in full."""
    is_full = True

    def write(fd: int, content: bytes) -> int:
        return os.write(fd, content[:written] if is_full else content)

    tail = open_tail(tmp_path / "segment", write=write)
    with pytest.raises(OSError, match="No space") as refused:
        tail.append(b"frame")
    assert errno.ENOSPC == refused.value.errno
    assert 0 == (tmp_path / "segment").stat().st_size
    is_full = False
    tail.append(b"frame")
    assert b"frame" == (tmp_path / "segment").read_bytes()[:5]
    tail.seal()
    os.close(tail.fd)


def test_a_second_step_that_fails_leaves_the_first_usable(tmp_path):
    """A huge frame that does not fit is refused; small ones still go in."""
    steps = []

    def write(fd: int, content: bytes) -> int:
        steps.append(len(content))
        if len(steps) == 2:
            raise OSError(errno.EDQUOT, "quota")
        return os.write(fd, content)

    tail = open_tail(tmp_path / "segment", write=write)
    with pytest.raises(OSError, match="quota"):
        tail.append(bytes([7]) * (AHEAD_BYTES + 1))
    assert 0 == tail.offset
    tail.append(b"small")
    assert b"small" == (tmp_path / "segment").read_bytes()[:5]
    tail.seal()
    os.close(tail.fd)


def test_a_step_that_cannot_be_taken_back_is_told_apart(tmp_path):
    """Half a step that stays is no reason to go on as if nothing had happened."""

    def write(fd: int, content: bytes) -> int:
        os.close(fd)
        raise OSError(errno.EIO, "input/output")

    tail = open_tail(tmp_path / "segment", write=write)
    with pytest.raises(TailStuck):
        tail.append(b"frame")


def test_a_journal_left_open_is_read_back_whole(tmp_path):
    """Zeros written ahead by a process that died are neither entries nor a torn tail."""
    left = tmp_path / "left"
    with closing(Journal.open(tmp_path / "live", disk=mapped())) as journal:
        first, second = make_intent(), make_intent()
        journal.append_intent(first)
        journal.append_intent(second)
        record = journal.append_record(settle(first))
        left.mkdir()
        segment_path(left, 1).write_bytes(segment_path(tmp_path / "live", 1).read_bytes())

    assert AHEAD_BYTES < segment_path(left, 1).stat().st_size
    with closing(Journal.open(left, disk=mapped())) as reopened:
        assert 0 == reopened.torn_bytes
        assert () == reopened.damaged_files
        assert (second,) == reopened.open_intents()
        again = reopened.append_record(settle(second))
        assert record.seq + 1 == again.seq
    entries = [entry for entry, _ in read_segment(segment_path(left, 1))]
    assert [first, second, record, again] == entries


def test_half_a_frame_before_zeros_is_torn(tmp_path):
    """A process killed while copying leaves part of a frame: it alone is cut off."""
    whole, half = encode_frame(make_intent()), encode_frame(make_intent())
    with closing(Journal.open(tmp_path, disk=mapped())) as journal:
        start = journal.position().offset
    path = segment_path(tmp_path, 1)
    with path.open("ab") as file:
        file.write(whole + half[:100] + bytes(5000))

    scan = scan_segment(path, {})
    assert (start + len(whole), 100) == (scan.good_end, scan.torn_bytes)
    with closing(Journal.open(tmp_path, disk=mapped())) as journal:
        assert 100 == journal.torn_bytes
        assert 1 == len(journal.open_intents())
        assert start + len(whole) == journal.position().offset


def test_a_settlement_finds_room_when_the_disk_is_full(tmp_path):
    """New calls are refused when no step fits; an accepted one is settled from the headroom."""
    room = [AHEAD_BYTES]

    def write(fd: int, content: bytes) -> int:
        if len(content) < AHEAD_BYTES:
            return os.write(fd, content)
        headroom = (tmp_path / "headroom").stat().st_size
        if not room and headroom:
            raise OSError(errno.ENOSPC, "full")
        room[:] = room[1:]
        return os.write(fd, content)

    with closing(Journal.open(tmp_path, disk=mapped(write))) as journal:
        accepted: list[Intent] = []
        with pytest.raises(JournalFull):
            accept_until_full(journal, accepted)
        settled = [journal.append_record(settle(intent)) for intent in accepted]
    assert len(accepted) > 1000
    entries = [entry for entry, _ in read_segment(segment_path(tmp_path, 1))]
    assert [*accepted, *settled] == entries


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("ext4", True), ("xfs", False), ("tmpfs", True), ("btrfs", False), ("zfs", False)],
)
def test_only_file_systems_that_overwrite_in_place_are_mapped(tmp_path, kind, verdict):
    """Elsewhere a full disk would be a signal and not an error."""
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "31 22 0:9999 / /run rw - tmpfs tmpfs rw\n"
        f"40 22 {os.major(device)}:{os.minor(device)} / / rw shared:1 - {kind} /dev/vdb rw\n"
    )
    assert verdict is can_map(tmp_path, mounts)


def test_nothing_is_mapped_where_nothing_tells(tmp_path):
    """No list of mounts, no directory, or a directory the list does not name."""
    (tmp_path / "empty").write_text("31 22 0:9999 / /run rw - tmpfs tmpfs rw\n")
    assert not can_map(tmp_path, tmp_path / "missing")
    assert not can_map(tmp_path / "missing")
    assert not can_map(tmp_path, tmp_path / "empty")


def test_a_segment_left_behind_full_of_room_is_not_damaged(tmp_path):
    """Killed between two segments, a process leaves zeros at the end of the older one."""
    with closing(Journal.open(tmp_path, segment_bytes_max=2000, disk=mapped())) as journal:
        while journal.position().segment < 2:
            journal.append_record(settle(make_intent()))
        held = journal.total_bytes
    with segment_path(tmp_path, 1).open("ab") as file:
        file.write(bytes(AHEAD_BYTES))

    sink = MemorySink()
    with closing(Journal.open(tmp_path, disk=mapped())) as journal:
        assert held == journal.total_bytes
        shipper = Shipper(journal, sink, ManualClock())
        shipper.ship_pending()
        assert not shipper.damaged_files
        assert not journal.damaged_files
    assert sink.records


def test_a_disk_that_fails_is_asked_directly_from_then_on(tmp_path):
    """Memory takes entries when the disk behind it does not: after a failed sync, none."""
    writes = []

    def write(fd: int, content: bytes) -> int:
        writes.append(len(content))
        return os.write(fd, content)

    def sync(fd: int) -> None:
        raise OSError(errno.EIO, "input/output")

    disk = Disk(write=write, sync=sync, can_map=lambda _: True)
    with closing(Journal.open(tmp_path, disk=disk)) as journal:
        journal.append_intent(make_intent())
        with pytest.raises(OSError, match="input/output"):
            journal.sync_segment(1)
        writes.clear()
        intent = make_intent()
        journal.append_intent(intent)
        assert [len(encode_frame(intent))] == writes
        assert 2 == len(journal.open_intents())
    assert 2 == len(list(read_segment(segment_path(tmp_path, 1))))
