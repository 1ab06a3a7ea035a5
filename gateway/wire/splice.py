"""Find and replace top-level members of a JSON object without re-encoding it.

Must never change a byte outside the span it was asked to replace.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.wire.facts import BadRequest

# A scan must not hold other calls up: strings are taken whole, so that braces and colons inside
# them do not count, and so is what lies in a few levels only, as messages and tools mostly do.
_LEVELS: Final = 4
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_REST: Final = rb'[^{}\[\]"]*+'


def _inside(levels: int) -> bytes:
    """What may stand between two brackets that hold no more than so many levels."""
    parts = [_STRING]
    if levels:
        inner = _inside(levels - 1)
        parts += [rb"\{" + inner + rb"\}", rb"\[" + inner + rb"\]"]
    return _REST + rb"(?:(?:" + b"|".join(parts) + rb")" + _REST + rb")*+"


_INNER: Final = _inside(_LEVELS - 1)
# At the top every name, comma and value counts; below it only where the value ends.
_TOP: Final = re.compile(
    rb'[^{}\[\]",:]*+(\{' + _INNER + rb"\}|\[" + _INNER + rb"\]|" + _STRING + rb"|[{}\[\],:])",
    re.DOTALL,
)
_BELOW: Final = re.compile(_INNER + rb"([{}\[\]])", re.DOTALL)
_OPEN: Final = frozenset(b"{[")
_COLON: Final = 0x3A
_COMMA: Final = 0x2C
_QUOTE: Final = 0x22
# Requests have a few dozen members, and few brackets that are not within few levels.
MEMBERS_MAX: Final = 16 * 1024
STEPS_MAX: Final = 256 * 1024
# A smaller body has not enough of either.
SMALL_BYTES: Final = 64 * 1024
# What else is scanned by itself, in one of the spellings that APIs take.
_SCANNED: Final = frozenset(
    {"streamoptions", "generationconfig", "completionargs", "inferenceconfig", "options"}
)
_CROWDED: Final = (
    f"the request body has more than {MEMBERS_MAX} fields in one object, or too many lists in lists"
)
_OBJECT: Final = re.compile(rb"\s*+\{")


class Crowded(BadRequest):
    """A JSON object has more members, or brackets in brackets, than a scan may look at."""


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
        body: A JSON object; validity is checked elsewhere.

    Returns:
        Every member in order, repeated names included.

    Raises:
        Crowded: There are more than ``MEMBERS_MAX``, or the scan takes more than ``STEPS_MAX``
            steps; never of ``SMALL_BYTES`` or less.
    """
    members: list[Member] = []
    place = body.find(b"{") + 1
    if not place:
        return ()
    depth, steps = 1, 0
    name: bytes | None = None
    start = -1
    while token := (_TOP if depth == 1 else _BELOW).match(body, place):
        steps += 1
        if steps > STEPS_MAX or len(members) > MEMBERS_MAX:
            raise Crowded(_CROWDED)
        began, place = token.span(1)
        first = body[began]
        if first in _OPEN:
            depth += place - began == 1
        elif depth > 1:
            depth -= 1
        elif first == _COLON:
            start = place
        elif first == _QUOTE:
            name = token[1] if start < 0 else name
        else:
            _close(members, name, start, began)
            name, start = None, -1
            if first != _COMMA:
                break
    return tuple(members)


def refuse_crowds(body: bytes) -> None:
    """Refuse what would take long to scan, before anybody does.

    Args:
        body: A request of any kind.

    Raises:
        Crowded: A scan of it, or of one of its parts that are scanned too, would give up.
    """
    if len(body) <= SMALL_BYTES or not _OBJECT.match(body):
        return
    # Each member has a colon, and each bracket is opened.
    opened = body.count(b"{") + body.count(b"[")
    if body.count(b":") <= MEMBERS_MAX and opened * 2 + MEMBERS_MAX * 4 <= STEPS_MAX:
        return
    for member in scan_members(body):
        if member.end - member.start > SMALL_BYTES and plain_name(member.name) in _SCANNED:
            scan_members(body[member.start : member.end])


def plain_name(name: str) -> str:
    """Write a name in one spelling: parsers of some APIs take camel case and snake case alike.

    Args:
        name: In any spelling.

    Returns:
        Lower case, without underscores.
    """
    return name.replace("_", "").lower()


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
