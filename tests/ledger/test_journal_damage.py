"""A journal whose files are torn, damaged or from another version."""

import os
import shutil
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.errors import JournalBroken
from gateway.ledger.journal import Journal
from gateway.ledger.record import Entry
from gateway.ledger.segments import (
    FRAME_HEAD,
    Gap,
    encode_frame,
    list_segments,
    read_frames,
    read_segment,
)
from tests.contracts.records import make_line, make_record
from tests.ledger.journal_kit import make_intent, newest_segment, read_journal, settle


def write_records(directory: Path, count: int) -> list[tuple[Entry, int]]:
    """Fill a fresh journal; return its entries, each with the offset after it."""
    with closing(Journal.open(directory)) as journal:
        for _ in range(count):
            journal.append_record(make_record())
    return list(read_segment(newest_segment(directory)))


def overwrite(path: Path, at: int, new: bytes) -> None:
    """Change bytes of a file in place."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(new)


def frame_of(payload: bytes) -> bytes:
    """Make a frame around any payload."""
    return FRAME_HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def test_a_torn_last_entry_is_cut_off_wherever_it_was_torn(tmp_path):
    """Whatever part of the last entry is missing, all before it stays and its number is free."""
    whole = tmp_path / "whole"
    entries = write_records(whole, 3)
    data = newest_segment(whole).read_bytes()
    kept = [entry for entry, _ in entries[:2]]
    start, end = entries[1][1], entries[2][1]
    for cut in range(start, end):
        torn = tmp_path / "torn"
        shutil.rmtree(torn, ignore_errors=True)
        torn.mkdir()
        (torn / "00000001.tmj").write_bytes(data[:cut])
        with closing(Journal.open(torn)) as journal:
            record = journal.append_record(make_record())

            assert len(data[start:cut].rstrip(b"\0")) == journal.torn_bytes
            assert () == journal.damaged_files
            assert 3 == record.seq
            assert [*kept, record] == read_journal(torn)


@pytest.mark.parametrize(
    "tail",
    [bytes(1), bytes(8), bytes(5000), bytes(200_000), b"\xff" * 100, b'{"type":"record"}' * 9],
    ids=["zero", "eight zeros", "page of zeros", "many zeros", "ones", "no frames"],
)
def test_rubbish_after_the_last_entry_is_cut_off(tmp_path, tail):
    """A tail of holes or rubbish, as a power cut leaves it, is no entry."""
    entries = [entry for entry, _ in write_records(tmp_path, 3)]
    with newest_segment(tmp_path).open("ab") as file:
        file.write(tail)
    with closing(Journal.open(tmp_path)) as journal:
        assert len(tail.rstrip(b"\0")) == journal.torn_bytes
        assert 3 == journal.position().seq
    assert entries == read_journal(tmp_path)


@given(data=st.data())
def test_damage_costs_only_what_it_hits(tmp_path_factory, data):
    """Whichever bytes are overwritten, every entry that they do not touch is read."""
    directory = tmp_path_factory.mktemp("journal")
    entries = write_records(directory, 8)
    path = newest_segment(directory)
    at = data.draw(st.integers(0, entries[-2][1] - 1), label="at")
    rubbish = data.draw(st.binary(min_size=1, max_size=2000), label="rubbish")
    before = path.read_bytes()
    rubbish = rubbish[: entries[-2][1] - at]
    overwrite(path, at, rubbish)
    hit = [i for i in range(at, at + len(rubbish)) if path.read_bytes()[i] != before[i]]
    starts = [entries[0][1] - len(encode_frame(entries[0][0])), *(end for _, end in entries)]
    untouched = [
        entry
        for (entry, end), start in zip(entries, starts, strict=False)
        if not any(start <= i < end for i in hit)
    ]

    assert untouched == [entry for entry, _ in read_segment(path)]
    with closing(Journal.open(directory)) as journal:
        assert bool(hit) == bool(journal.damaged_files)
        assert 9 == journal.append_record(make_record()).seq
        if hit:
            assert path.read_bytes() == journal.damaged_files[0].read_bytes()
            assert [1, 2] == list_segments(directory)


def test_a_damaged_intent_or_record_is_as_if_it_never_was(tmp_path):
    """A call whose record is damaged is open again, so it gets one; a damaged intent is gone."""
    first, second = make_intent(), make_intent()
    with closing(Journal.open(tmp_path)) as journal:
        journal.append_intent(first)
        after_first = journal.position().offset
        journal.append_intent(second)
        after_second = journal.position().offset
        journal.append_record(settle(first))
        journal.append_record(make_record())
    overwrite(newest_segment(tmp_path), after_first + 20, b"#")
    overwrite(newest_segment(tmp_path), after_second + 20, b"#")
    with closing(Journal.open(tmp_path)) as journal:
        assert (first,) == journal.open_intents()
        assert 3 == journal.append_record(make_record()).seq


def test_damage_in_an_older_segment_is_kept_for_people(tmp_path):
    """A closed segment with a bad end is copied, once, and read as far as it goes."""
    with closing(Journal.open(tmp_path, segment_bytes_max=2000)) as journal:
        for _ in range(8):
            journal.append_record(make_record())
    first = tmp_path / "00000001.tmj"
    os.truncate(first, first.stat().st_size - 5)
    copy = tmp_path / "00000001.tmj.damaged"
    for _ in range(2):
        with closing(Journal.open(tmp_path)) as journal:
            assert (copy,) == journal.damaged_files
            assert 8 == journal.position().seq
    assert first.read_bytes() == copy.read_bytes()


def test_an_entry_of_another_version_is_kept(tmp_path):
    """What this version does not know is no torn tail: it is set aside, never cut off."""
    entries = [entry for entry, _ in write_records(tmp_path, 2)]
    later = frame_of(b'{"type":"batch","id":"x"}')
    with newest_segment(tmp_path).open("ab") as file:
        file.write(later)
    with closing(Journal.open(tmp_path)) as journal:
        assert 0 == journal.torn_bytes
        assert later == journal.damaged_files[0].read_bytes()[-len(later) :]
        record = journal.append_record(make_record())
    assert record in read_journal_leniently(tmp_path)
    assert entries[0] in read_journal_leniently(tmp_path)


def read_journal_leniently(directory: Path) -> list[Entry]:
    """Read the records of each segment up to the first entry that is not known."""
    found: list[Entry] = []
    for number in list_segments(directory):
        try:
            for entry, _ in read_segment(directory / f"{number:08d}.tmj"):
                found.append(entry)
        except ValueError:
            continue
    return found


def test_an_intent_that_is_not_understood_stops_the_start(tmp_path):
    """An open call of another version is not thrown away: a person has to look."""
    write_records(tmp_path, 1)
    with newest_segment(tmp_path).open("ab") as file:
        file.write(frame_of(b'{"type":"intent","id":"01J"}'))
    with (
        closing(Journal.open(tmp_path)) as journal,
        pytest.raises(JournalBroken, match=str(tmp_path)),
    ):
        journal.open_intents()


@pytest.mark.parametrize(
    "content", [b"", b"taximeter-jour", b"\0" * 4096], ids=["empty", "half", "hole"]
)
def test_a_segment_that_never_began_is_dropped(tmp_path, content):
    """A power cut can leave a name without content; the segment before it goes on."""
    entries = [entry for entry, _ in write_records(tmp_path, 3)]
    (tmp_path / "00000002.tmj").write_bytes(content)
    (tmp_path / "notes.tmj").write_bytes(b"not a segment")
    with closing(Journal.open(tmp_path)) as journal:
        assert (1, 4) == (journal.position().segment, journal.append_record(make_record()).seq)
        assert len(content.rstrip(b"\0")) == journal.torn_bytes
    assert entries == read_journal(tmp_path)[:3]


def test_a_lost_header_costs_nothing_but_the_header(tmp_path):
    """Entries behind an unreadable header are read, and tell where the numbers stood."""
    entries = [entry for entry, _ in write_records(tmp_path, 3)]
    overwrite(newest_segment(tmp_path), 0, b"TAXIMETER")
    with closing(Journal.open(tmp_path)) as journal:
        assert 1 == len(journal.damaged_files)
        assert 4 == journal.append_record(make_record()).seq
    assert entries == read_journal(tmp_path)[:3]


def test_numbers_that_nobody_knows_are_not_given_again(tmp_path):
    """With the header gone and no record left, the journal goes on under a new name."""
    with closing(Journal.open(tmp_path)) as journal:
        name = journal.writer
        journal.append_intent(make_intent())
    overwrite(newest_segment(tmp_path), 0, b"TAXIMETER")
    with closing(Journal.open(tmp_path)) as journal:
        assert name != journal.writer
        assert 1 == len(journal.open_intents())


def test_long_entries_are_read_across_chunks(tmp_path):
    """An entry longer than what is read at once is one entry, and damage to it hits no other."""
    long = [make_record(lines=tuple(make_line("input") for _ in range(n))) for n in (900, 2, 700)]
    with closing(Journal.open(tmp_path)) as journal:
        written = [journal.append_record(record) for record in long]
    assert written == read_journal(tmp_path)

    overwrite(newest_segment(tmp_path), 100_000, b"\0")

    assert written[1:] == read_journal(tmp_path)


def test_a_file_cut_while_it_is_read_ends_there(tmp_path):
    """Bytes that were promised and are not there are a gap, not a failure."""
    entries = write_records(tmp_path, 3)
    end = entries[-1][1]
    os.truncate(newest_segment(tmp_path), end - 3)
    fd = os.open(newest_segment(tmp_path), os.O_RDONLY)
    try:
        parts = list(read_frames(fd, 0, end))
    finally:
        os.close(fd)

    assert Gap(entries[1][1], end) == parts[-1]
    assert 3 == len(parts)
