"""The fields of a multipart form, read where they lie.

Must never copy a file, and never read a form that two readers could read differently.
"""

import re
from typing import Final, NamedTuple

from gateway.wire.facts import BadRequest

_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME: Final = re.compile(rb'(?:^|;)\s*name=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_FILE: Final = re.compile(rb"(?:^|;)\s*filename\*?=", re.IGNORECASE)
_HEAD_BYTES_MAX: Final = 4096
PARTS_MAX: Final = 256


class Part(NamedTuple):
    """One field of a form.

    Attributes:
        name: Its name.
        start: Offset of the first byte of its value.
        end: Offset of the first byte behind it.
        is_file: Whether it has a file name.
    """

    name: str
    start: int
    end: int
    is_file: bool


def scan_form(body: bytes, content_type: str | None) -> tuple[Part, ...]:
    """Find the fields of a form.

    Args:
        body: Request body.
        content_type: Of the request.

    Returns:
        Its fields in order, repeated names included.

    Raises:
        BadRequest: Not a form, without its end, or with more than ``PARTS_MAX`` fields.

    Source:
        RFC 7578 and RFC 2046 section 5.1.1.
    """
    found = _BOUNDARY.search(content_type or "")
    if found is None or "multipart/form-data" not in (content_type or "").lower():
        raise BadRequest("send the file as multipart/form-data, with a boundary")
    line = b"--" + (found[1] or found[2]).encode()
    if not body.startswith(line):
        raise BadRequest("the form does not begin with its boundary")
    parts: list[Part] = []
    at = len(line)
    while body[at : at + 2] == b"\r\n":
        end = body.find(b"\r\n" + line, at)
        if end < 0 or len(parts) >= PARTS_MAX:
            raise BadRequest("the form has no end, or too many fields")
        parts.append(_read_part(body, at, end))
        at = end + 2 + len(line)
    if body[at : at + 2] != b"--":
        raise BadRequest("the form has no end")
    return tuple(parts)


def _read_part(body: bytes, at: int, end: int) -> Part:
    """Read the head of a field: lines up to an empty one."""
    blank = body.find(b"\r\n\r\n", at, min(end + 2, at + _HEAD_BYTES_MAX))
    if blank < 0:
        raise BadRequest("a field of the form has no head that ends")
    for line in body[at:blank].split(b"\r\n"):
        label, _, value = line.partition(b":")
        if label.strip().lower() == b"content-disposition":
            named = _NAME.search(value)
            if named is None:
                break
            name = (named[1] or named[2] or b"").decode("utf-8", "replace")
            return Part(name, min(blank + 4, end), end, _FILE.search(value) is not None)
    raise BadRequest("a field of the form has no name")


def field_of(body: bytes, parts: tuple[Part, ...], name: str) -> Part | None:
    """Find the one field of a name.

    Args:
        body: Request body.
        parts: Its fields.
        name: The name.

    Returns:
        The field; ``None`` where there is none.

    Raises:
        BadRequest: There are several.
    """
    found = [part for part in parts if part.name == name]
    if len(found) > 1:
        raise BadRequest(f"the form gives {name!r} more than once; give it once")
    return found[0] if found else None


def text_of(body: bytes, parts: tuple[Part, ...], name: str) -> str | None:
    """Read the one field of a name as text.

    Args:
        body: Request body.
        parts: Its fields.
        name: The name.

    Returns:
        Its value; ``None`` where there is none.

    Raises:
        BadRequest: There are several, or it is no text.
    """
    part = field_of(body, parts, name)
    if part is None:
        return None
    try:
        return body[part.start : part.end].decode()
    except UnicodeDecodeError:
        raise BadRequest(f"the field {name!r} is not text") from None
