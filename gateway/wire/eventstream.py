"""Amazon's binary event stream: cut into frames, read, and written for trouble of our own.

Must never change a byte, and never take bytes for a frame whose checksums are wrong.
"""

import struct
from binascii import crc32
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
PRELUDE_BYTES: Final = 12
# Lengths no frame exceeds; botocore refuses larger ones as well.
HEADERS_BYTES_MAX: Final = 128 * 1024
PAYLOAD_BYTES_MAX: Final = 24 * 1024 * 1024

_CRC_BYTES: Final = 4
_FRAME_BYTES_MIN: Final = PRELUDE_BYTES + _CRC_BYTES
_FRAME_BYTES_MAX: Final = _FRAME_BYTES_MIN + HEADERS_BYTES_MAX + PAYLOAD_BYTES_MAX
_PRELUDE: Final = struct.Struct("!III")
_UINT32: Final = struct.Struct("!I")
_UINT16: Final = struct.Struct("!H")
_STRING: Final = 7
_KNOWN_BYTES_MAX: Final = 256
# Bytes of the value of each header type whose length does not vary.
_FIXED_BYTES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
# Of half a frame at least all but so much has been passed on.
_UNPASSED_BYTES_MAX: Final = 256 * 1024 + _FRAME_BYTES_MIN


class EventFrame(NamedTuple):
    """One message of an event stream.

    Attributes:
        headers: Its text headers by name; those of other types are left out.
        payload: Its body.
    """

    headers: Mapping[str, str]
    payload: bytes


class FrameCutter:
    """Cuts a stream into frames.

    Attributes:
        size: Bytes of a frame whose end has not come yet.

    Source:
        https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html, checked 2026-11-23.
    """

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []
        # Bytes of the frame that is being read, once its prelude has come.
        self._wanted = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and give the frames they complete.

        Args:
            chunk: The next bytes of the stream.

        Returns:
            Whole frames. Bytes behind them that are no frame wait as the part of one.

        Raises:
            ValueError: What waits, with these bytes, is no frame; nothing was taken.
        """
        if self.size + len(chunk) < (self._wanted or PRELUDE_BYTES):
            self._keep(chunk)
            return []
        data = self.peek() + chunk if self.size else chunk
        frames: list[bytes] = []
        at = wanted = 0
        while len(data) - at >= PRELUDE_BYTES:
            try:
                wanted = _length_of(data, at)
            except ValueError:
                if not frames:
                    raise
                break
            if len(data) - at < wanted:
                break
            frame = data[at : at + wanted]
            if crc32(frame[:-_CRC_BYTES]) != _UINT32.unpack_from(frame, wanted - _CRC_BYTES)[0]:
                if not frames:
                    raise ValueError("the checksum of a frame is wrong")
                break
            frames.append(frame)
            at += wanted
            wanted = 0
        self._parts, self.size, self._wanted = [], 0, wanted
        self._keep(data[at:])
        return frames

    def peek(self) -> bytes:
        """Show the frame whose end has not come yet.

        Returns:
            Its bytes; empty between frames.
        """
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""

    def close_part(self) -> bytes:
        """Give what must follow half a frame.

        Returns:
            Zeros up to where it should have ended: its checksum is wrong then, so that a client
            cannot wait for the rest of it or take it for whole.
        """
        return bytes(max(0, self._wanted - self.size) + min(self.size, _UNPASSED_BYTES_MAX))

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._parts.append(rest)
            self.size += len(rest)


def _length_of(data: bytes, at: int) -> int:
    """Read how long the frame is that begins somewhere."""
    total, headers, checksum = _PRELUDE.unpack_from(data, at)
    if crc32(data[at : at + PRELUDE_BYTES - _CRC_BYTES]) != checksum:
        raise ValueError("the checksum of a prelude is wrong")
    if headers > HEADERS_BYTES_MAX or not _FRAME_BYTES_MIN + headers <= total <= _FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {total} bytes with {headers} of headers")
    return int(total)


def read_frame(data: bytes) -> EventFrame | None:
    """Read a frame.

    Args:
        data: Its bytes.

    Returns:
        Headers and payload; ``None`` for what is not one whole frame with its checksum.

    Raises:
        IndexError: Headers that are not of the format; likewise ``ValueError`` and
            ``struct.error``.
    """
    if len(data) < _FRAME_BYTES_MIN:
        return None
    total, length, _ = _PRELUDE.unpack_from(data)
    if len(data) != total or crc32(data[:-_CRC_BYTES]) != _UINT32.unpack(data[-_CRC_BYTES:])[0]:
        return None
    end = PRELUDE_BYTES + length
    block = data[PRELUDE_BYTES:end]
    read = _read_known if length <= _KNOWN_BYTES_MAX else _read_headers
    return EventFrame(read(block), data[end:-_CRC_BYTES])


def _read_headers(block: bytes) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    at, end = 0, len(block)
    while at < end:
        name_end = at + 1 + block[at]
        name = block[at + 1 : name_end].decode()
        kind = block[name_end]
        at = name_end + 1
        fixed = _FIXED_BYTES.get(kind)
        if fixed is not None:
            at += fixed
            continue
        if kind > _STRING:
            raise ValueError(f"a header of type {kind}")
        (length,) = _UINT16.unpack_from(block, at)
        at += _UINT16.size
        if kind == _STRING:
            headers[name] = block[at : at + length].decode()
        at += length
    if at != end:
        raise ValueError("headers end outside of their frame")
    return MappingProxyType(headers)


# A stream has the same few blocks of headers over and over.
_read_known: Final = lru_cache(maxsize=256)(_read_headers)


def write_frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Write a frame.

    Args:
        headers: Text headers; a name has at most 255 bytes, a value at most 65,535.
        payload: Its body.

    Returns:
        The frame with its checksums.
    """
    parts = []
    for name, value in headers.items():
        spelt, text = name.encode(), value.encode()
        parts.append(bytes([len(spelt)]) + spelt + bytes([_STRING]))
        parts.append(_UINT16.pack(len(text)) + text)
    block = b"".join(parts)
    lengths = struct.pack("!II", _FRAME_BYTES_MIN + len(block) + len(payload), len(block))
    head = lengths + _UINT32.pack(crc32(lengths)) + block + payload
    return head + _UINT32.pack(crc32(head))


def write_exception(kind: str, payload: bytes) -> bytes:
    """Write trouble as a frame.

    Args:
        kind: Name of the exception as the operation's output has it.
        payload: JSON with its ``message``.

    Returns:
        A frame that Amazon's SDKs raise.
    """
    headers = {
        ":exception-type": kind,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return write_frame(headers, payload)
