"""Amazon's binary event stream: cut anywhere, read back, written so that botocore reads it."""

import zlib

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.eventstream import FrameCutter, read_frame, write_exception, write_frame
from gateway.wire.facts import Answer
from gateway.wire.tap import Tap
from tests.bedrock_answers import CONVERSE_STREAM, delta, event, frame

STREAM = b"".join(CONVERSE_STREAM)


class Seen:
    """A fold that writes down what it gets."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.events: list[bytes] = []

    def take(self, event: bytes) -> bool:
        self.events.append(event)
        return False


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut bytes into pieces of some sizes, the last size over and over."""
    pieces, at = [], 0
    while at < len(data):
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        pieces.append(data[at : at + size])
        at += size
    return pieces


@given(st.lists(st.integers(1, 400), min_size=1, max_size=50))
def test_frames_are_found_wherever_a_stream_is_cut(sizes: list[int]) -> None:
    """Joined they are the stream, and each is one frame."""
    cutter = FrameCutter()

    found = [one for piece in cut(STREAM, sizes) for one in cutter.feed(piece)]
    assert [*CONVERSE_STREAM] == found
    assert b"" == cutter.peek()


@given(st.binary(max_size=600), st.integers(1, 60))
def test_garbage_is_passed_on_and_never_raises(garbage: bytes, size: int) -> None:
    """Bytes that are no frames reach the client all the same; nothing is read of them."""
    seen = Seen()
    tap = Tap(FrameCutter(), seen)

    passed = [tap.feed(piece) for piece in cut(garbage, [size])]
    assert garbage == b"".join(passed) + tap.finish()
    assert all(read_frame(one) is None for one in seen.events)


@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255), st.integers(1, 200))
def test_a_flipped_byte_is_noticed_and_passed_on(at: int, flip: int, size: int) -> None:
    """Frames before it are read; the broken one and what follows are not, and nobody appends."""
    broken = STREAM[:at] + bytes([STREAM[at] ^ flip]) + STREAM[at + 1 :]
    seen = Seen()
    tap = Tap(FrameCutter(), seen)

    passed = [tap.feed(piece) for piece in cut(broken, [size])]
    assert broken == b"".join(passed) + tap.finish()
    whole = [one for one in seen.events if read_frame(one) is not None]
    assert [*CONVERSE_STREAM[: len(whole)]] == whole
    assert len(whole) < len(CONVERSE_STREAM)


def test_headers_of_every_type_are_stepped_over() -> None:
    """Text headers are read, the others have the length their type says."""
    others = (
        b"\x01t\x00\x01f\x01\x01b\x02\x07\x01s\x03\x00\x07\x01i\x04\x00\x00\x00\x07"
        b"\x01l\x05"
        + bytes(8)
        + b"\x01y\x06\x00\x02hi\x01d\x08"
        + bytes(8)
        + b"\x01u\x09"
        + bytes(16)
    )
    plain = frame({":event-type": "x"}, b"{}")
    block = others + plain[12:-6]
    prelude = (16 + len(block) + 2).to_bytes(4) + len(block).to_bytes(4)
    head = prelude + zlib.crc32(prelude).to_bytes(4) + block + b"{}"
    whole = head + zlib.crc32(head).to_bytes(4)

    assert [whole] == FrameCutter().feed(whole)
    read = read_frame(whole)
    assert read is not None
    assert {":event-type": "x"} == dict(read.headers)
    assert b"{}" == read.payload


@pytest.mark.parametrize(
    "block", [b"\x05ab", b"\x01a\x0a", b"\x01a\x07\x00\x09x", b"\x01a\x04\x00"]
)
def test_headers_that_are_none_raise_what_a_tap_catches(block: bytes) -> None:
    """A fold never brings a stream down."""
    prelude = (16 + len(block)).to_bytes(4) + len(block).to_bytes(4)
    head = prelude + zlib.crc32(prelude).to_bytes(4) + block

    with pytest.raises((IndexError, ValueError)):
        read_frame(head + zlib.crc32(head).to_bytes(4))


def test_botocore_reads_what_is_written() -> None:
    """An exception frame and a plain one, by the SDK's own parser."""
    buffer = EventStreamBuffer()
    buffer.add_data(write_exception("modelStreamErrorException", b'{"message":"gone"}'))
    buffer.add_data(write_frame({":message-type": "event", ":event-type": "e"}, "ä".encode()))

    trouble, plain = (message.to_response_dict() for message in buffer)
    assert 400 == trouble["status_code"]
    assert "modelStreamErrorException" == trouble["headers"][":exception-type"]
    assert (200, "ä".encode()) == (plain["status_code"], plain["body"])


def test_a_large_frame_that_breaks_off_cannot_be_taken_for_whole() -> None:
    """Half of it is with the client: what follows makes its checksum wrong, so the SDK raises."""
    large = delta("x" * 900_000)
    tap = Tap(FrameCutter(), Seen())
    passed = tap.feed(large[:600_000])
    sent = passed + tap.finish(is_broken=True)

    assert large.startswith(passed)
    assert len(passed) > 300_000
    buffer = EventStreamBuffer()
    buffer.add_data(sent)
    with pytest.raises(Exception, match="Checksum mismatch"):
        list(buffer)


def test_a_length_no_frame_has_is_no_frame() -> None:
    """A reader does not wait for two gigabytes."""
    prelude = (2**31).to_bytes(4) + (0).to_bytes(4)

    with pytest.raises(ValueError, match="bytes"):
        FrameCutter().feed(prelude + zlib.crc32(prelude).to_bytes(4))


def test_what_is_no_frame_reads_as_nothing() -> None:
    """Too short, too long, or with a wrong checksum."""
    whole = event("metadata", {})

    assert read_frame(b"") is None
    assert read_frame(whole + b"x") is None
    assert read_frame(whole[:-1] + bytes([whole[-1] ^ 1])) is None
