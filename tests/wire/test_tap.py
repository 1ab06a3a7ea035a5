"""A tap passes every byte on, holds the end back, and outlives whatever its reader meets."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.cutters import LineCutter, SseCutter
from gateway.wire.facts import Answer
from gateway.wire.reading import keep_text
from gateway.wire.sse import data_of
from gateway.wire.tap import (
    END_HELD_BYTES_MAX,
    EVENT_HELD_BYTES_MAX,
    EVENT_READ_BYTES_MAX,
    Cutter,
    Tap,
)
from pricing.meters import Meter
from pricing.usage import Basis, Usage
from tests.wire.sse_reference import cut

END = b"data: END\n\n"
ODD = [ValueError, KeyError, TypeError, RecursionError, UnicodeError, ZeroDivisionError]


class Words:
    """A reader that keeps data as text, ends at ``END`` and can be made to fail."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.fails: type[Exception] | None = None

    def take(self, event: bytes) -> bool:
        data = data_of(event)
        if data is None:
            return False
        if data == b"odd" and self.fails is not None:
            raise self.fails("a secret of the answer")
        keep_text(self.answer, data.decode("utf-8", "replace"))
        self.answer.is_readable = True
        self.answer.usage = Usage(counts={Meter.OUTPUT: 1}, basis=Basis.REPORTED)
        return data == b"END"


class Broken(SseCutter):
    """A framing that cannot be read any more after some word."""

    def feed(self, chunk: bytes) -> list[bytes]:
        if b"broken" in chunk:
            raise ValueError("no such framing")
        return super().feed(chunk)


def words(cutter: Cutter | None = None) -> Tap:
    """A tap on words."""
    return Tap(cutter or SseCutter(), Words())


@given(
    st.lists(st.sampled_from([b"data: a\n\n", b": hi\n\n", b"data: b\r\n\r\n", END, b"data: c"])),
    st.lists(st.integers(0, 200)),
    st.booleans(),
)
def test_bytes_are_passed_in_order_wherever_the_stream_is_cut(
    events: list[bytes], borders: list[int], is_broken: bool
) -> None:
    """From the end of the answer on they wait; half an event of a broken stream is dropped."""
    stream = b"".join(events)
    whole, pieces = words(), words()
    passed = whole.feed(stream)
    tail = whole.finish(is_broken=is_broken)
    again = b"".join([pieces.feed(chunk) for chunk in cut(stream, borders)])
    rest = pieces.finish(is_broken=is_broken)

    assert passed + tail == again + rest
    assert whole.answer == pieces.answer
    assert stream.startswith(passed + tail)
    if not is_broken:
        assert stream == passed + tail
    assert b"\n\n" + END not in b"\n\n" + passed


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)), st.booleans())
def test_garbage_passes_and_raises_nothing(
    garbage: bytes, borders: list[int], is_line: bool
) -> None:
    """Whatever the framing."""
    lane = words(LineCutter() if is_line else SseCutter())

    assert garbage == b"".join([lane.feed(c) for c in cut(garbage, borders)]) + lane.finish()


@pytest.mark.parametrize("kind", ODD)
def test_a_reader_that_fails_takes_no_byte_away(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """The event is flagged, the next one is read, and nothing of the answer is logged."""
    fold = Words()
    fold.fails = kind
    lane = Tap(SseCutter(), fold)
    stream = b"data: odd\n\ndata: odd\n\ndata: even\n\n"

    assert stream == lane.feed(stream) + lane.finish()
    assert (f"an event could not be read ({kind.__name__})",) == lane.answer.flags
    assert ["even"] == lane.answer.text
    assert "secret" not in caplog.text


def test_a_framing_that_cannot_be_read_passes_unread() -> None:
    """What was told before is not the bill any more: it may have been a running total."""
    lane = words(Broken())
    first = lane.feed(b"data: a\n\ndata: b")
    rest = [lane.feed(b"broken"), lane.feed(b"more"), lane.finish()]

    assert b"data: a\n\ndata: bbrokenmore" == first + b"".join(rest)
    assert b"more" == rest[-1]
    assert (None, False, False) == (lane.answer.usage, lane.answer.is_readable, lane.can_append)
    assert ("the framing of the stream could not be read",) == lane.answer.flags


def test_what_follows_the_end_waits_but_not_without_bound() -> None:
    """A provider that goes on after its end does not fill the memory."""
    lane = words()
    assert b"" == lane.feed(END)
    assert lane.is_holding
    note = b": " + b"x" * 1000 + b"\n\n"
    passed = b"".join([lane.feed(note) for _ in range(1000)])

    assert len(passed) >= 1000 * len(note) - END_HELD_BYTES_MAX - len(note)
    assert END + note * 1000 == passed + lane.finish()


def test_an_endless_event_after_the_end_is_passed_on() -> None:
    """It has no end to wait for."""
    lane = words()
    piece = b"x" * 65536
    passed = [lane.feed(END), *(lane.feed(piece) for _ in range(10))]

    assert 10 * len(piece) - sum(map(len, passed)) <= EVENT_HELD_BYTES_MAX
    assert END + piece * 10 == b"".join(passed) + lane.finish()


@pytest.mark.parametrize("size", [1000, 4096, 65536])
def test_a_large_event_is_passed_on_in_pieces_and_still_read(size: int) -> None:
    """Its end waits with the rest when it is the end."""
    lane = words()
    data = b"y" * (3 * EVENT_HELD_BYTES_MAX)
    stream = b"data: " + data + b"\n\n" + END
    passed, most = b"", 0
    for at in range(0, len(stream), size):
        before = len(passed)
        passed += lane.feed(stream[at : at + size])
        most = max(most, at + size - before)

    assert most <= EVENT_HELD_BYTES_MAX + 2 * size
    assert stream == passed + lane.finish()
    assert len(data) + 3 == lane.answer.text_chars


def test_a_large_event_that_breaks_off_is_closed() -> None:
    """Part of it is with the client, so that the next event needs a line of its own."""
    lane = words()
    passed = lane.feed(b"data: " + b"z" * (2 * EVENT_HELD_BYTES_MAX))

    assert passed
    assert b"\n\n" == lane.finish(is_broken=True)


def test_an_event_too_large_to_read_passes_and_is_not_counted() -> None:
    """Memory is bounded; the bill is the most the call could come to."""
    lane = words()
    lane.feed(b"data: a\n\n")
    piece = b"w" * (1024 * 1024)
    tracemalloc.start()
    sent = 0
    passed = 0
    for _ in range(EVENT_READ_BYTES_MAX // len(piece) + 8):
        passed += len(lane.feed(piece))
        sent += len(piece)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert sent == passed + len(lane.finish())
    assert most < EVENT_READ_BYTES_MAX + 8 * len(piece)
    assert ("an event is too large to read",) == lane.answer.flags
    assert (None, False) == (lane.answer.usage, lane.answer.is_readable)
