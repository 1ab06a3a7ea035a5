"""A compressed answer is read from a copy, wherever its chunks end, and never holds too much."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress

import brotli  # type: ignore[import-untyped] # it has none
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.cutters import SseCutter
from gateway.wire.facts import Answer
from gateway.wire.inflate import Incompressible, InflatedLane, inflate_whole, open_inflater
from gateway.wire.sse import data_of
from gateway.wire.tap import END_HELD_BYTES_MAX, Tap
from pricing.meters import Meter
from pricing.usage import Basis, Usage
from tests.wire.sse_reference import cut


def deflate_raw(plain: bytes) -> bytes:
    """Without the wrapper it should have."""
    press = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return press.compress(plain) + press.flush()


def gzip_flushed(plain: bytes) -> bytes:
    """As a server sends a stream: flushed after every event."""
    press = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    parts = [press.compress(e) + press.flush(zlib.Z_SYNC_FLUSH) for e in plain.split(b"|")]
    return b"".join(parts) + press.flush()


def zstd(plain: bytes) -> bytes:
    """One frame."""
    return zstandard.ZstdCompressor().compress(plain)


def zstd_skippable(plain: bytes) -> bytes:
    """A frame, one to be skipped, another frame."""
    middle = len(plain) // 2
    return zstd(plain[:middle]) + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd(plain[middle:])


def members(press: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Several compressed stretches, one after another."""
    return lambda plain: b"".join(press(plain[at : at + 7]) for at in range(0, len(plain), 7))


ENCODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", lambda plain: gzip.compress(plain, mtime=0)),
    "gzip, old name": ("X-GZip", lambda plain: gzip.compress(plain, mtime=0)),
    "gzip, flushed": ("gzip", lambda plain: gzip_flushed(plain.replace(b"\n\n", b"\n\n|"))),
    "gzip, members": ("gzip", members(lambda plain: gzip.compress(plain, mtime=0))),
    "deflate": ("deflate", zlib.compress),
    "deflate, bare": ("deflate", deflate_raw),
    "brotli": ("br", brotli.compress),
    "zstd": ("zstd", zstd),
    "zstd, frames": ("zstd", members(zstd)),
    "zstd, skipping": ("zstd", zstd_skippable),
    "two": ("deflate, gzip", lambda plain: gzip.compress(zlib.compress(plain), mtime=0)),
    "none": ("identity", lambda plain: plain),
}
ENDED = ("gzip", "gzip, members", "deflate", "deflate, bare", "brotli", "zstd", "zstd, frames")
PLAIN = b"".join(b"data: word %d th\xc3\xa4nks\n\n" % n for n in range(40)) + b"data: END\n\n"


class Words:
    """A reader that keeps data and ends at ``END``."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.seen: list[bytes] = []

    def take(self, event: bytes) -> bool:
        data = data_of(event) or b""
        self.seen.append(data)
        self.answer.is_readable = True
        self.answer.usage = Usage(counts={Meter.OUTPUT: len(self.seen)}, basis=Basis.REPORTED)
        self.answer.is_complete = data == b"END"
        return data == b"END"


def lane_of(encoding: str) -> tuple[InflatedLane, Words]:
    """A lane of compressed bytes and its reader."""
    words = Words()
    return InflatedLane(Tap(SseCutter(), words), open_inflater(encoding)), words


def inflate(chunks: list[bytes], encoding: str) -> bytes:
    """Decompress pieces."""
    inflater = open_inflater(encoding)
    if inflater is None:
        return b"".join(chunks)
    return b"".join(piece for chunk in chunks for piece in inflater.feed(chunk))


@pytest.mark.parametrize("name", ENCODINGS)
@given(plain=st.binary(max_size=300), borders=st.lists(st.integers(0, 900)))
def test_what_was_compressed_comes_back_wherever_it_is_cut(
    name: str, plain: bytes, borders: list[int]
) -> None:
    """Inside a block, a header or a checksum."""
    encoding, press = ENCODINGS[name]
    packed = press(plain)

    assert plain.replace(b"|", b"") == inflate(cut(packed, borders), encoding).replace(b"|", b"")
    assert plain.replace(b"|", b"") == inflate_whole(packed, encoding).replace(b"|", b"")


@pytest.mark.parametrize("name", ENDED)
@given(
    tail=st.sampled_from([b"\0\0\0", b"tail", b"\x1f", b"\x28\xb5", b'{"error": 1}']),
    data=st.data(),
)
def test_what_is_glued_behind_is_passed_over(name: str, tail: bytes, data: st.DataObject) -> None:
    """Padding, or the plain words of somebody on the way."""
    encoding, press = ENCODINGS[name]
    packed = press(PLAIN)
    borders = data.draw(st.lists(st.integers(len(packed) - 9, len(packed) + len(tail))))

    assert PLAIN == inflate(cut(packed + tail, borders), encoding)
    assert PLAIN == inflate_whole(packed + tail, encoding)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
@given(garbage=st.binary(min_size=1, max_size=400), borders=st.lists(st.integers(0, 400)))
def test_garbage_never_raises_and_always_passes(
    encoding: str, garbage: bytes, borders: list[int]
) -> None:
    """The client gets what came, whatever it is."""
    lane, _ = lane_of(encoding)
    passed = b"".join([lane.feed(chunk) for chunk in cut(garbage, borders)])

    assert garbage == passed + lane.finish()
    inflate_whole(garbage, encoding)


@pytest.mark.parametrize("name", ENCODINGS)
@given(borders=st.lists(st.integers(0, 4000)))
def test_the_reader_sees_the_plain_stream_and_the_client_the_compressed_one(
    name: str, borders: list[int]
) -> None:
    """From the chunk on that ends the answer the bytes wait for the settlement."""
    encoding, press = ENCODINGS[name]
    packed = press(PLAIN)
    lane, words = lane_of(encoding)
    passed = b"".join([lane.feed(chunk) for chunk in cut(packed, borders)])
    is_holding = lane.is_holding
    tail = lane.finish()

    assert packed == passed + tail
    if encoding != "identity":
        assert [f"word {n} th\u00e4nks".encode() for n in range(40)] + [b"END"] == words.seen
        assert is_holding
        assert tail
        assert not lane.can_append
        assert () == lane.answer.flags


@pytest.mark.parametrize("name", ["gzip", "deflate", "brotli", "zstd"])
def test_a_stream_that_turns_to_garbage_is_not_billed_by_what_was_read(name: str) -> None:
    """What had been told may have been a running total."""
    encoding, press = ENCODINGS[name]
    noise = bytes(n * n * 7 % 251 for n in range(3000))
    packed = press(b"data: one\n\n" + noise + b"data: END\n\n")
    torn = packed[: len(packed) // 2] + bytes(255 - b for b in packed[len(packed) // 2 :])
    lane, _ = lane_of(encoding)
    passed = b"".join([lane.feed(chunk) for chunk in cut(torn, [*range(0, len(torn), 50)])])

    assert torn == passed + lane.finish()
    assert not lane.answer.is_complete
    if lane.answer.flags:
        assert "the answer is unreadable" in lane.answer.flags[0]
        assert (None, False) == (lane.answer.usage, lane.answer.is_readable)
    else:
        assert "zstd" == encoding, "without a checksum it has no way to tell"


def test_an_unknown_encoding_passes_unread() -> None:
    """And says which it was."""
    with pytest.raises(Incompressible, match="rot13' is not known"):
        open_inflater("gzip, rot13")
    with pytest.raises(Incompressible, match="4 encodings"):
        open_inflater("gzip, gzip, gzip, gzip")

    assert b"abc" == inflate_whole(b"abc", "rot13")


BOMBS: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", gzip.compress(b"\0" * (64 << 20), 9)),
    "gzip in gzip": ("gzip, gzip", gzip.compress(gzip.compress(b"\0" * (64 << 20), 9), 9)),
    "deflate": ("deflate", zlib.compress(b"\0" * (64 << 20), 9)),
    "brotli": ("br", brotli.compress(b"\0" * (64 << 20), quality=1)),
    "brotli, tight": ("br", brotli.compress(b"\0" * (64 << 20), quality=9, lgwin=24)),
    "zstd": ("zstd", zstd(b"\0" * (64 << 20))),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_does_not_fill_the_memory(name: str) -> None:
    """Pieces stay small and an event that is too large is not kept, whatever it swells to."""
    encoding, packed = BOMBS[name]
    inflater = open_inflater(encoding)
    assert inflater is not None
    biggest = 0
    with suppress(Incompressible):
        for piece in inflater.feed(packed):
            biggest = max(biggest, len(piece))

    assert biggest <= 16 << 20
    lane, _ = lane_of(encoding)
    tracemalloc.start()
    passed = b"".join([lane.feed(chunk) for chunk in cut(packed, [*range(0, len(packed), 999)])])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert packed == passed + lane.finish()
    assert most < 128 << 20


def test_more_than_any_answer_is_not_read() -> None:
    """A whole answer is held while it is read; there is a limit to that."""
    packed = gzip.compress(b"\0" * ((256 << 20) + 1), 1)

    assert packed == inflate_whole(packed, "gzip")


def test_what_follows_the_end_waits_but_not_without_bound() -> None:
    """A provider that goes on after its end does not fill the memory."""
    press = zlib.compressobj(level=0, wbits=zlib.MAX_WBITS | 16)
    lane, _ = lane_of("gzip")
    ended = press.compress(b"data: END\n\n") + press.flush(zlib.Z_SYNC_FLUSH)
    passed, sent = lane.feed(ended), ended
    for _ in range(500):
        note = press.compress(b": " + b"x" * 1000 + b"\n\n") + press.flush(zlib.Z_SYNC_FLUSH)
        sent += note
        passed += lane.feed(note)

    assert len(sent) - len(passed) <= END_HELD_BYTES_MAX + 4096
    assert sent == passed + lane.finish()
