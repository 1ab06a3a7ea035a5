"""Cut streams into events: server-sent events, lines of JSON, the objects of a JSON array.

Must never change, drop or reorder a byte; the events joined are the stream.
"""

import re
from typing import Final

# A blank line ends an event; a line ends with CRLF, LF or CR. Atomic, so that one CRLF is never
# read as CR and LF. WHATWG HTML, "Parsing an event stream"; guarded by tests/wire/test_cutters.py.
_BLANK: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_BLANK_BYTES_MAX: Final = 4
# Strings are skipped whole, so that a brace in one does not count.
_STRUCTURE: Final = re.compile(rb'[{}\[\]"]')
_STRING_END: Final = re.compile(rb'["\\]')


class _Parts:
    """Pieces of an event whose end has not come yet; joined only when something may end."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []

    def peek(self) -> bytes:
        """Show the event whose end has not come yet.

        Returns:
            Its bytes; empty between events.
        """
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0] if self._parts else b""

    def peek_from(self, start: int, end: int) -> bytes:
        """Show a part of the event whose end has not come yet, without joining all of it.

        Args:
            start: Offset in the event.
            end: Offset behind the part.

        Returns:
            The bytes between the two.
        """
        found: list[bytes] = []
        at = self.size
        for part in reversed(self._parts):
            if at <= start:
                break
            at -= len(part)
            found.append(part[max(0, start - at) : max(0, end - at)])
        return b"".join(reversed(found))

    def _add(self, chunk: bytes) -> None:
        self._parts.append(chunk)
        self.size += len(chunk)

    def _keep(self, rest: bytes) -> None:
        self._parts = [rest] if rest else []
        self.size = len(rest)


class SseCutter(_Parts):
    """Cuts server-sent events."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and give the events they complete.

        Args:
            chunk: The next bytes of the stream.

        Returns:
            Whole events, each with its blank line.
        """
        if b"\n" not in chunk and b"\r" not in chunk and not self._ends_with_cr():
            self._add(chunk)
            return []
        start = max(0, self.size - _BLANK_BYTES_MAX + 1)
        data = self.peek() + chunk
        events, position = [], 0
        while found := _BLANK.search(data, start):
            start = found.end()
            if start == len(data) and data.endswith(b"\r"):
                break  # a CR at the very end may be half of a CRLF
            events.append(data[position:start])
            position = start
        self._keep(data[position:])
        return events

    def close_part(self) -> bytes:
        """Give what must follow half an event.

        Returns:
            A blank line.
        """
        return b"\n\n"

    def _ends_with_cr(self) -> bool:
        return bool(self._parts) and self._parts[-1].endswith(b"\r")


class LineCutter(_Parts):
    """Cuts lines, such as those of newline-delimited JSON."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and give the lines they complete.

        Args:
            chunk: The next bytes of the stream.

        Returns:
            Whole lines, each with its line end.
        """
        if b"\n" not in chunk:
            self._add(chunk)
            return []
        lines = (self.peek() + chunk).splitlines(keepends=True) if b"\r" not in chunk else None
        if lines is None or any(b"\r" in line for line in lines):
            lines = re.findall(rb"[^\n]*\n|[^\n]+", self.peek() + chunk)
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
        self._keep(rest)
        return lines

    def close_part(self) -> bytes:
        """Give what must follow half a line.

        Returns:
            A line end.
        """
        return b"\n"


class ArrayCutter(_Parts):
    """Cuts a JSON array into its members; brackets and commas go with what follows them."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and give the members they complete.

        Args:
            chunk: The next bytes of the stream.

        Returns:
            Members of the outermost array that are objects, each with the bytes before it; and the
            closing bracket.
        """
        before = self.size
        ends = [before + end for end in self._find_ends(chunk)]
        if not ends:
            self._add(chunk)
            return []
        data = self.peek() + chunk
        events, position = [], 0
        for end in ends:
            events.append(data[position:end])
            position = end
        self._keep(data[position:])
        return events

    def close_part(self) -> bytes:
        """Give what must follow half a member.

        Returns:
            Nothing: half an object cannot be mended.
        """
        return b""

    def _find_ends(self, chunk: bytes) -> list[int]:
        """Find where an object of the outermost array, or the array, ends."""
        ends, at = [], 0
        while at < len(chunk):
            if self._is_escaped:
                self._is_escaped = False
                at += 1
                continue
            found = (_STRING_END if self._is_in_string else _STRUCTURE).search(chunk, at)
            if found is None:
                break
            at = found.end()
            sign = found[0]
            if self._is_in_string:
                self._is_in_string = sign != b'"'
                self._is_escaped = sign == b"\\"
            elif sign == b'"':
                self._is_in_string = True
            elif sign in b"{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth <= 1:
                    ends.append(at)
        return ends


def json_of(event: bytes) -> bytes:
    """Read the JSON of a member that ``ArrayCutter`` or ``LineCutter`` gave.

    Args:
        event: With the bytes before it.

    Returns:
        The object alone; empty where there is none.
    """
    start = event.find(b"{")
    return event[start:].strip() if start >= 0 else b""
