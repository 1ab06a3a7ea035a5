"""Decompress a copy of an answer, to meter what passes on compressed.

Must never be on the way of the bytes: what cannot be decompressed still goes to the client.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Protocol

import brotli  # type: ignore[import-untyped] # it has none
import zstandard

from gateway.wire.facts import Answer, StreamLane
from gateway.wire.tap import END_HELD_BYTES_MAX

# More than this of one answer is no answer of a model.
_PLAIN_BYTES_MAX: Final = 256 * 1024 * 1024
# What is decompressed at a time, and the most that may come of it in one piece: a reader never has
# more than that in hand, however well the bytes are compressed. 256 bytes of zstd can be 8 MB.
_SLICE: Final = 256
_PIECE_BYTES_MAX: Final = 16 * 1024 * 1024
_LAYERS_MAX: Final = 3
# Kept of a brotli stream to find its end again.
_REPLAYED_BYTES_MAX: Final = 1024 * 1024
_GZIP_MAGIC: Final = (b"\x1f\x8b",)
# A frame, and those that are to be skipped. RFC 8878 section 3.1.
_ZSTD_MAGIC: Final = (b"\x28\xb5\x2f\xfd", *(bytes([n]) + b"\x2a\x4d\x18" for n in range(80, 96)))


class Inflater(Protocol):
    """Decompresses piece by piece."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Decompress the next bytes; raises ``Incompressible`` on bytes that are not compressed."""
        ...


class Incompressible(ValueError):
    """The bytes are not what their content encoding says, or become too many."""


class _Steps:
    """Decompresses in small steps and counts what comes out."""

    def __init__(self, step: Callable[[bytes], bytes]) -> None:
        self._step = step
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        for at in range(0, len(chunk), _SLICE):
            try:
                piece = self._step(chunk[at : at + _SLICE])
            except (zlib.error, brotli.error, zstandard.ZstdError, EOFError) as broken:
                raise Incompressible(str(broken)) from broken
            self._size += len(piece)
            if self._size > _PLAIN_BYTES_MAX:
                raise Incompressible(f"more than {_PLAIN_BYTES_MAX} bytes")
            if piece:
                yield piece


class _Member(Protocol):
    """One stretch of compressed data with an end of its own."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Members:
    """Decompresses members one after another; what follows the last and is none is passed over.

    Some append plain text to what is compressed, such as an error of a proxy on the way, and RFC
    1952 lets a reader ignore it. Guarded by tests/wire/test_inflate.py.
    """

    def __init__(self, begin: Callable[[], _Member], magic: tuple[bytes, ...]) -> None:
        self._begin = begin
        self._magic = magic
        self._member = begin()
        self._waiting = b""
        self._is_over = False

    def __call__(self, chunk: bytes) -> bytes:
        plain = b""
        while chunk and not self._is_over:
            if self._member.eof:
                chunk = self._open_next(chunk)
                continue
            plain += self._member.decompress(chunk)
            chunk = self._member.unused_data if self._member.eof else b""
        return plain

    def _open_next(self, chunk: bytes) -> bytes:
        """Begin the next member where there is one; its first bytes may come one by one."""
        chunk = self._waiting + chunk
        self._waiting = b""
        if chunk.startswith(self._magic):
            self._member = self._begin()
            return chunk
        if any(magic.startswith(chunk) for magic in self._magic):
            self._waiting = chunk
        else:
            self._is_over = True
        return b""


class _Deflate:
    """Decompresses ``deflate``, with and without the wrapper that it should have."""

    def __init__(self) -> None:
        self._member: _Member | None = None
        self._waiting = b""

    def __call__(self, chunk: bytes) -> bytes:
        if self._member is None:
            chunk = self._waiting + chunk
            if len(chunk) < 2:
                self._waiting = chunk
                return b""
            # RFC 9110 section 8.4.1.2: some send the data without the zlib wrapper, which RFC 1950
            # section 2.2 makes known by its first two bytes.
            is_wrapped = chunk[0] & 15 == 8 and int.from_bytes(chunk[:2], "big") % 31 == 0
            self._member = zlib.decompressobj(zlib.MAX_WBITS if is_wrapped else -zlib.MAX_WBITS)
        return self._member.decompress(chunk)


class _Brotli:
    """Decompresses ``br``; what follows its end is passed over."""

    def __init__(self) -> None:
        self._member = brotli.Decompressor()
        self._seen: bytearray | None = bytearray()

    def __call__(self, chunk: bytes) -> bytes:
        if not chunk or self._member.is_finished():
            return b""
        try:
            plain = self._step(chunk)
        except brotli.error:
            return self._up_to_the_end(chunk)
        if self._seen is not None:
            self._seen += chunk
            if len(self._seen) > _REPLAYED_BYTES_MAX:
                self._seen = None
        return plain

    def _step(self, chunk: bytes) -> bytes:
        # Its ratio has no bound, so that a piece has to.
        plain: bytes = self._member.process(chunk, output_buffer_limit=_PIECE_BYTES_MAX)
        if not self._member.can_accept_more_data():
            raise Incompressible(f"{len(chunk)} bytes become more than {_PIECE_BYTES_MAX}")
        return plain

    def _up_to_the_end(self, chunk: bytes) -> bytes:
        """Find the end inside a chunk: the library fails on the first byte after it."""
        if self._seen is None:
            raise Incompressible("brotli: neither compressed nor ended")
        self._member = brotli.Decompressor()
        self._member.process(bytes(self._seen), output_buffer_limit=_PIECE_BYTES_MAX)
        while not self._member.can_accept_more_data():
            self._member.process(b"", output_buffer_limit=_PIECE_BYTES_MAX)
        plain: list[bytes] = []
        for at in range(len(chunk)):
            if self._member.is_finished():
                return b"".join(plain)
            plain.append(self._step(chunk[at : at + 1]))
        raise Incompressible("brotli: not compressed")


def _gunzip() -> _Members:
    return _Members(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), _GZIP_MAGIC)


def _unzstd() -> _Members:
    return _Members(lambda: zstandard.ZstdDecompressor().decompressobj(), _ZSTD_MAGIC)


_STEPS: Final[dict[str, Callable[[], Callable[[bytes], bytes]]]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _unzstd,
}


def open_inflater(encoding: str | None) -> Inflater | None:
    """Begin to decompress.

    Args:
        encoding: The ``content-encoding`` of an answer, several joined by commas.

    Returns:
        What undoes it; ``None`` where there is nothing to undo.

    Raises:
        Incompressible: An encoding nobody here knows.
    """
    names = [name.strip().lower() for name in (encoding or "").split(",")]
    used = [name for name in names if name not in {"", "identity"}]
    if not used:
        return None
    if not all(name in _STEPS for name in used):
        raise Incompressible(f"content-encoding {encoding!r} is not known")
    if len(used) > _LAYERS_MAX:
        raise Incompressible(f"{len(used)} encodings on top of each other")
    return _Layers([_Steps(_STEPS[name]()) for name in reversed(used)])


class _Layers:
    """Undoes several encodings, the last one first."""

    def __init__(self, layers: list[_Steps]) -> None:
        self._layers = layers

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        return self._feed(chunk, 0)

    def _feed(self, chunk: bytes, depth: int) -> Iterator[bytes]:
        for piece in self._layers[depth].feed(chunk):
            if depth + 1 == len(self._layers):
                yield piece
            else:
                yield from self._feed(piece, depth + 1)


def inflate_whole(body: bytes, encoding: str | None) -> bytes:
    """Decompress a whole answer.

    Args:
        body: As it came.
        encoding: Its ``content-encoding``; ``None`` where it has none.

    Returns:
        The plain bytes; the body as it is where it cannot be decompressed.
    """
    with suppress(Incompressible):
        inflater = open_inflater(encoding)
        return body if inflater is None else b"".join(inflater.feed(body))
    return body


class InflatedLane:
    """A lane of compressed bytes: the client gets them as they come, the reader a plain copy.

    Attributes:
        answer: What has been seen so far.
        can_append: Never: plain bytes cannot follow compressed ones.
    """

    __slots__ = ("_held", "_inflater", "_lane", "answer", "can_append")

    def __init__(self, lane: StreamLane, inflater: Inflater | None) -> None:
        self._lane = lane
        self._inflater = inflater
        self._held = bytearray()
        self.answer: Answer = lane.answer
        self.can_append = False

    @property
    def is_holding(self) -> bool:
        """Whether the end of the answer has come and is held back."""
        return bool(self._held)

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes and give those that may go to the client now.

        Args:
            chunk: The next bytes of the stream, compressed.

        Returns:
            The same; from the one that ends the answer on they wait for the settlement. Of a
            stream that cannot be read the newest bytes wait, as nobody knows which are the last.
        """
        if self._inflater is not None:
            try:
                for piece in self._inflater.feed(chunk):
                    self._lane.feed(piece)
            except Incompressible as broken:
                self._stop_reading(broken)
        if self._inflater is None:
            passed = bytes(self._held)
            self._held[:] = chunk
            return passed
        if not (self._held or self._lane.is_holding):
            return chunk
        passed = b""
        if len(self._held) > END_HELD_BYTES_MAX:
            # As in a plain stream: only the newest bytes wait for the settlement.
            passed = bytes(self._held)
            self._held.clear()
        self._held += chunk
        return passed

    def finish(self, *, is_broken: bool = False) -> bytes:
        """End the stream.

        Args:
            is_broken: The stream broke off.

        Returns:
            The bytes held back.
        """
        if self._inflater is not None:
            self._lane.finish(is_broken=is_broken)
        return bytes(self._held)

    def _stop_reading(self, broken: Incompressible) -> None:
        self._inflater = None
        answer = self.answer
        answer.flags = (*answer.flags, f"the answer is unreadable: {broken}")
        if not answer.is_complete:
            # What was told so far may be a running total, and the rest of the text is not known.
            answer.usage = None
            answer.is_readable = False
