"""How journal segments are laid out and read back, torn or damaged ones included.

Must never change a segment and never drop a readable entry. A segment is a header line and then
frames: payload length and CRC-32 of the payload as two little-endian 32-bit numbers, then the
payload, one entry as JSON.
"""

import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.ledger.record import Entry, Intent, LedgerRecord

FRAME_HEAD: Final = struct.Struct("<II")
INTENT_START: Final = b'{"type":"intent"'

_SUFFIX: Final = ".tmj"
# Grows with every change of the layout that an older version could not read.
FORMAT: Final = 1
# Places of damage that are told apart; a file that is rubbish has one wherever chance wants it.
PLACES_MAX: Final = 8
_MAGIC: Final = b"taximeter-journal %d after " % FORMAT
_SEQ_DIGITS: Final = 20
_HEADER_BYTES: Final = len(_MAGIC) + _SEQ_DIGITS + 1
# What every payload starts with. Text cannot imitate it: JSON writes a quote in text as \".
_MARK: Final = b'{"type":"'
# Small, so that a thread that reads a long segment lets go of the interpreter often.
_CHUNK_BYTES: Final = 64 * 1024


class Frame(NamedTuple):
    """One entry where it lies.

    Attributes:
        at: First byte of the frame.
        end: First byte after it.
        payload: The entry as JSON, checked against its CRC.
    """

    at: int
    end: int
    payload: bytes


class Gap(NamedTuple):
    """Bytes that are no entry: torn, damaged or written by a version that knows more.

    Attributes:
        at: First byte of it.
        end: First byte after it; a good frame or the end of what was read.
    """

    at: int
    end: int


class _SeenIntent(msgspec.Struct, tag="intent"):
    id: str


class _SeenRecord(msgspec.Struct, tag="record"):
    id: str
    seq: int


_encoder: Final = msgspec.json.Encoder()
_entries: Final = msgspec.json.Decoder(Entry)
_intents: Final = msgspec.json.Decoder(Intent)
_records: Final = msgspec.json.Decoder(LedgerRecord)
_seen: Final = msgspec.json.Decoder(_SeenIntent | _SeenRecord)


@dataclass(slots=True, kw_only=True)
class SegmentScan:
    """What one segment holds.

    Attributes:
        path: The segment.
        number: Its number.
        size: Bytes in the file.
        seq: Last sequence number known here, from the header or a record; ``None`` if none is.
        entries: How many readable entries it holds.
        damaged_bytes: Bytes before ``good_end`` that no entry could be read from.
        good_end: Where the last whole frame ends; what follows is a torn tail or room not used.
        torn_bytes: Bytes of a torn tail; zeros written ahead are none.
        damaged_at: Where they begin, the first ``PLACES_MAX`` places.
    """

    path: Path
    number: int
    size: int
    seq: int | None
    entries: int = 0
    damaged_bytes: int = 0
    good_end: int
    torn_bytes: int = 0
    damaged_at: list[int] = field(default_factory=list)

    def add_damage(self, at: int, end: int) -> None:
        """Note bytes that no entry could be read from.

        Args:
            at: The first of them.
            end: The first byte after them.
        """
        self.damaged_bytes += end - at
        if len(self.damaged_at) < PLACES_MAX:
            self.damaged_at.append(at)

    @property
    def is_void(self) -> bool:
        """Whether it holds neither an entry nor a header: it was cut off before it began."""
        return self.seq is None and not self.entries


def segment_path(directory: Path, number: int) -> Path:
    """Name a segment.

    Args:
        directory: The journal.
        number: From 1.

    Returns:
        Where that segment is or would be.
    """
    return directory / f"{number:08d}{_SUFFIX}"


def list_segments(directory: Path) -> list[int]:
    """Find the segments of a journal.

    Args:
        directory: The journal.

    Returns:
        Their numbers, oldest first.
    """
    stems = (path.name.removesuffix(_SUFFIX) for path in directory.glob(f"*{_SUFFIX}"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def encode_header(seq: int) -> bytes:
    """Write the first line of a segment.

    Args:
        seq: Last sequence number given out before this segment; what lets the numbers go on after
            every older segment is gone.

    Returns:
        The line, always the same length.
    """
    return b"%s%0*d\n" % (_MAGIC, _SEQ_DIGITS, seq)


def read_header(fd: int) -> int | None:
    """Read the first line of a segment.

    Args:
        fd: The segment, open for reading.

    Returns:
        Last sequence number given out before it, or ``None`` if the line is not readable.
    """
    line = os.pread(fd, _HEADER_BYTES, 0)
    digits = line[len(_MAGIC) : -1]
    if line != b"%s%s\n" % (_MAGIC, digits) or len(digits) != _SEQ_DIGITS or not digits.isdigit():
        return None
    return int(digits)


def encode_frame(entry: Entry) -> bytes:
    """Write one entry the way it lies in a segment.

    Args:
        entry: An intent or a numbered record.

    Returns:
        Head and payload.
    """
    payload = _encoder.encode(entry)
    return FRAME_HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def decode_intent(frame: bytes) -> Intent:
    """Read an intent back from its frame.

    Args:
        frame: Head and payload, as ``encode_frame`` made them.

    Returns:
        The intent.

    Raises:
        msgspec.MsgspecError: It is none that this version knows.
    """
    return _intents.decode(memoryview(frame)[FRAME_HEAD.size :])


def decode_record(payload: bytes) -> LedgerRecord:
    """Read a record.

    Args:
        payload: Of a frame whose payload does not start like an intent.

    Returns:
        The record.

    Raises:
        msgspec.MsgspecError: It is none that this version knows.
    """
    return _records.decode(payload)


def read_frames(fd: int, start: int, end: int) -> Iterator[Frame | Gap]:
    """Read the frames of a segment, going on after damage at the next good one.

    Args:
        fd: The segment, open for reading.
        start: Where a frame begins; 0 reads past the header as well.
        end: Where to stop; what is written after it is not looked at.

    Yields:
        Frames and, where bytes are not readable, gaps; together they cover every byte once.

    Raises:
        OSError: The file cannot be read.
    """
    at = start or (0 if read_header(fd) is None else _HEADER_BYTES)
    window = _Window(fd, end)
    while at < end:
        payload = window.payload_at(at)
        if payload is None:
            found = _next_frame(fd, at + 1, end)
            yield Gap(at, found)
            at = found
        else:
            stop = at + FRAME_HEAD.size + len(payload)
            yield Frame(at, stop, payload)
            at = stop


def read_segment(path: Path, offset: int = 0) -> Iterator[tuple[Entry, int]]:
    """Read the entries of a segment that nobody writes any more.

    Args:
        path: The segment.
        offset: Where to begin, as an earlier read returned it; 0 is the start.

    Yields:
        Each readable entry and the offset after it.

    Raises:
        OSError: The file cannot be read.
        msgspec.MsgspecError: An entry is none that this version knows.
    """
    with closing(_File(path)) as file:
        for part in read_frames(file.fd, offset, file.size):
            if isinstance(part, Frame):
                yield _entries.decode(part.payload), part.end


def scan_segment(path: Path, unsettled: dict[str, bytes]) -> SegmentScan:
    """Read a whole segment to learn what it holds.

    Args:
        path: The segment. Scan the segments of a journal oldest first.
        unsettled: Frames of intents without a record, by id; brought up to date.

    Returns:
        What was found.

    Raises:
        OSError: The file cannot be read.
    """
    with closing(_File(path)) as file:
        scan = SegmentScan(
            path=path,
            number=int(path.stem),
            size=file.size,
            seq=read_header(file.fd),
            good_end=file.size,
        )
        for part in read_frames(file.fd, 0, file.size):
            if isinstance(part, Gap) and part.end == file.size:
                scan.good_end = part.at
                scan.torn_bytes = _used_end(file.fd, part.at, part.end) - part.at
            elif isinstance(part, Gap):
                scan.add_damage(part.at, part.end)
            else:
                _take_in(part, scan, unsettled)
    return scan


def set_aside(path: Path) -> Path:
    """Keep a copy of a damaged segment for people to look at; the segment itself stays.

    Args:
        path: The segment.

    Returns:
        The copy, whether made now or earlier.

    Raises:
        OSError: There is no room for it.
    """
    copy = path.with_name(path.name + ".damaged")
    if not copy.exists():
        partial = copy.with_name(copy.name + ".tmp")
        shutil.copyfile(path, partial)
        partial.replace(copy)
    return copy


def _next_frame(fd: int, start: int, end: int) -> int:
    """Find where the next good frame begins; ``end`` if there is none."""
    base = start
    while base < end:
        chunk = os.pread(fd, min(_CHUNK_BYTES, end - base), base)
        found = chunk.find(_MARK)
        while found >= 0:
            at = base + found - FRAME_HEAD.size
            if at >= start and _Window(fd, end).payload_at(at) is not None:
                return at
            found = chunk.find(_MARK, found + 1)
        if len(chunk) < len(_MARK):
            break
        base += len(chunk) - len(_MARK) + 1
    return end


def _used_end(fd: int, start: int, end: int) -> int:
    """Find where the zeros at the end of a file begin; ``start`` if there is nothing else."""
    while end > start:
        base = max(start, end - _CHUNK_BYTES)
        used = os.pread(fd, end - base, base).rstrip(b"\0")
        if used:
            return base + len(used)
        end = base
    return start


class _Window:
    """The part of a file being looked at."""

    def __init__(self, fd: int, end: int) -> None:
        self._fd = fd
        self._end = end
        self._base = 0
        self._chunk = b""

    def payload_at(self, at: int) -> bytes | None:
        """Read the payload of the frame at an offset; ``None`` if there is no good frame."""
        start = at - self._base
        if start < 0 or start + FRAME_HEAD.size > len(self._chunk):
            start = self._load(at, FRAME_HEAD.size)
            if start < 0:
                return None
        length, crc = FRAME_HEAD.unpack_from(self._chunk, start)
        stop = start + FRAME_HEAD.size + length
        if stop > len(self._chunk):
            start = self._load(at, FRAME_HEAD.size + length)
            stop = start + FRAME_HEAD.size + length
        # A hole of zeros would pass for an empty frame with the right CRC: none is empty.
        if start < 0 or not length:
            return None
        payload = self._chunk[start + FRAME_HEAD.size : stop]
        return payload if zlib.crc32(payload) == crc else None

    def _load(self, at: int, count: int) -> int:
        """Look at bytes from ``at`` on; returns where they are, -1 if not all are there."""
        if at + count > self._end:
            return -1
        room = min(_CHUNK_BYTES, self._end - at)
        self._base, self._chunk = at, os.pread(self._fd, max(room, count), at)
        return 0 if count <= len(self._chunk) else -1


def _take_in(frame: Frame, scan: SegmentScan, unsettled: dict[str, bytes]) -> None:
    try:
        entry = _seen.decode(frame.payload)
    except msgspec.MsgspecError:
        scan.add_damage(frame.at, frame.end)
        return
    scan.entries += 1
    if isinstance(entry, _SeenRecord):
        scan.seq = max(scan.seq or 0, entry.seq)
        unsettled.pop(entry.id, None)
    else:
        head = FRAME_HEAD.pack(len(frame.payload), zlib.crc32(frame.payload))
        unsettled[entry.id] = head + frame.payload


class _File:
    """A file open for reading, and its size when it was opened."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self.fd).st_size

    def close(self) -> None:
        os.close(self.fd)
