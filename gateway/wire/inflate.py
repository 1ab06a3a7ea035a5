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

# More than this from one piece of an answer is no answer of a model.
_PLAIN_BYTES_MAX: Final = 256 * 1024 * 1024
_SLICE: Final = 4096


class Inflater(Protocol):
    """Decompresses piece by piece."""

    def feed(self, chunk: bytes) -> bytes:
        """Decompress the next bytes; raises ``Incompressible`` on bytes that are not compressed."""
        ...


class Incompressible(ValueError):
    """The bytes are not what their content encoding says, or become too many."""


class _Steps:
    """Decompresses in small steps and counts what comes out."""

    def __init__(self, step: Callable[[bytes], bytes]) -> None:
        self._step = step
        self._size = 0

    def feed(self, chunk: bytes) -> bytes:
        return b"".join(self._pieces(chunk))

    def _pieces(self, chunk: bytes) -> Iterator[bytes]:
        for at in range(0, len(chunk), _SLICE):
            try:
                piece = self._step(chunk[at : at + _SLICE])
            except (zlib.error, brotli.error, zstandard.ZstdError, EOFError) as broken:
                raise Incompressible(str(broken)) from broken
            self._size += len(piece)
            if self._size > _PLAIN_BYTES_MAX:
                raise Incompressible(f"more than {_PLAIN_BYTES_MAX} bytes")
            yield piece


def _gunzip() -> Callable[[bytes], bytes]:
    member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def step(chunk: bytes) -> bytes:
        nonlocal member
        plain = member.decompress(chunk)
        # A gzip stream may be of several members; what flushes between events sends such.
        while member.eof and member.unused_data:
            rest = member.unused_data
            member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            plain += member.decompress(rest)
        return plain

    return step


def _undeflate() -> Callable[[bytes], bytes]:
    member = zlib.decompressobj()
    is_first = True

    def step(chunk: bytes) -> bytes:
        nonlocal member, is_first
        if is_first:
            is_first = False
            try:
                return member.decompress(chunk)
            except zlib.error:
                # RFC 9110 section 8.4.1.2: some send the data without the zlib wrapper.
                member = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        return member.decompress(chunk)

    return step


_STEPS: Final[dict[str, Callable[[], Callable[[bytes], bytes]]]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _undeflate,
    "br": lambda: brotli.Decompressor().process,
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress,
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
    return _Chain([_Steps(_STEPS[name]()) for name in reversed(used)])


class _Chain:
    def __init__(self, inflaters: list[_Steps]) -> None:
        self._inflaters = inflaters

    def feed(self, chunk: bytes) -> bytes:
        for one in self._inflaters:
            chunk = one.feed(chunk)
        return chunk


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
        return body if inflater is None else inflater.feed(body)
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
                self._lane.feed(self._inflater.feed(chunk))
            except Incompressible as broken:
                self._inflater = None
                self.answer.flags = (*self.answer.flags, f"the answer is unreadable: {broken}")
        if self._inflater is None:
            passed = bytes(self._held)
            self._held[:] = chunk
            return passed
        if self._held or self._lane.is_holding:
            self._held += chunk
            return b""
        return chunk

    def finish(self, *, is_broken: bool = False) -> bytes:
        """End the stream.

        Args:
            is_broken: The stream broke off.

        Returns:
            The bytes held back.
        """
        self._lane.finish(is_broken=is_broken)
        return bytes(self._held)
