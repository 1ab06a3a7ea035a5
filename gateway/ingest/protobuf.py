"""Reads the protocol buffers wire format, as far as traces need it, and writes short answers. Pure.

Must never read past the end of a message, nor take a field for one of another type.

Source:
    https://protobuf.dev/programming-guides/encoding/, checked 2026-11-23.
"""

import struct
from collections.abc import Iterator
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5
_VARINT_BYTES_MAX: Final = 10


class MessageBroken(ValueError):
    """Bytes that are no such message."""


def read_fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Read the fields of a message in their order.

    Args:
        message: The message alone.

    Yields:
        Number, wire type, and the value: bytes where it has a length, else a number without a sign.

    Raises:
        MessageBroken: It is cut off, or holds a field of no known type.
    """
    at, end = 0, len(message)
    while at < end:
        tag, at = _read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _read_varint(message, at)
            yield number, wire, value
            continue
        if wire == BYTES:
            length, at = _read_varint(message, at)
        elif wire in (FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
        else:
            raise MessageBroken(f"field {number} has no wire type {wire}")
        if at + length > end:
            raise MessageBroken(f"field {number} ends after the message")
        part = message[at : at + length]
        at += length
        yield number, wire, part if wire == BYTES else int.from_bytes(part, "little")


def to_signed(value: int) -> int:
    """Read a 64-bit number with a sign.

    Args:
        value: As ``read_fields`` gives it.

    Returns:
        The number.
    """
    return value - (1 << 64) if value >= 1 << 63 else value


def to_double(value: int) -> float:
    """Read the 64 bits of a floating-point number.

    Args:
        value: As ``read_fields`` gives it.

    Returns:
        The number.
    """
    double: float = struct.unpack("<d", value.to_bytes(8, "little"))[0]
    return double


def write_number(number: int, value: int) -> bytes:
    """Write a whole number.

    Args:
        number: Of the field.
        value: Not negative.

    Returns:
        The field.
    """
    return _varint(number << 3 | VARINT) + _varint(value)


def write_bytes(number: int, value: bytes) -> bytes:
    """Write text or a message.

    Args:
        number: Of the field.
        value: Its bytes.

    Returns:
        The field.
    """
    return _varint(number << 3 | BYTES) + _varint(len(value)) + value


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for count in range(_VARINT_BYTES_MAX):
        if at + count >= len(message):
            raise MessageBroken("the message breaks off")
        byte = message[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & (2**64 - 1), at + count + 1
    raise MessageBroken("a number is longer than 64 bits")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
