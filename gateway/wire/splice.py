"""Find and replace top-level members of a JSON object without re-encoding it.

Must never change a byte outside the span it was asked to replace.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

# Strings are taken whole, so that braces and colons inside them do not count.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\],:]', re.DOTALL)
_OPEN: Final = frozenset(b"{[")
_CLOSE: Final = frozenset(b"}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One top-level ``"name": value`` of a JSON object.

    Attributes:
        name: The name, escapes decoded.
        start: Offset of the first byte after the colon.
        end: Offset of the comma or brace after the value.
    """

    name: str
    start: int
    end: int


def scan_members(body: bytes) -> tuple[Member, ...]:
    """List the top-level members of a JSON object.

    Args:
        body: A valid JSON object; validity is checked elsewhere.

    Returns:
        Every member in order, repeated names included.
    """
    members: list[Member] = []
    depth = 0
    name: bytes | None = None
    start = -1
    for token in _TOKEN.finditer(body):
        first = body[token.start()]
        if first in _OPEN:
            depth += 1
        elif first in _CLOSE:
            depth -= 1
            if depth == 0:
                _close(members, name, start, token.start())
                break
        elif depth != 1:
            continue
        elif first == 0x3A:
            start = token.end()
        elif first == 0x2C:
            _close(members, name, start, token.start())
            name, start = None, -1
        elif start < 0:
            name = token.group()
    return tuple(members)


def _close(members: list[Member], name: bytes | None, start: int, end: int) -> None:
    if name is not None and start >= 0:
        members.append(Member(name=_read_name(name), start=start, end=end))


def _read_name(quoted: bytes) -> str:
    try:
        return msgspec.json.decode(quoted, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Bad UTF-8 or half a surrogate pair: no name anyone asks for, but no reason to stop.
        return quoted.decode("utf-8", "backslashreplace")


def replace_spans(body: bytes, edits: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Replace byte spans.

    Args:
        body: Any bytes.
        edits: ``(start, end, replacement)``, not overlapping, in any order.

    Returns:
        The body with every span replaced.
    """
    for start, end, replacement in sorted(edits, reverse=True):
        body = body[:start] + replacement + body[end:]
    return body
