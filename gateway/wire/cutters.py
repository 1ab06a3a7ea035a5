"""Cut streams into events: server-sent events, lines of JSON, the objects of a JSON array.

Must never change, drop or reorder a byte; the events joined are the stream.
"""

import re
from itertools import pairwise
from typing import Final

# A blank line ends an event; a line ends with CRLF, LF or CR. Atomic, so that one CRLF is never
# read as CR and LF. WHATWG HTML, "Parsing an event stream"; guarded by tests/wire/test_cutters.py.
_BLANK: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_BLANK_BYTES_MAX: Final = 4
_LINE_END: Final = re.compile(rb"\n")
_LF_BLANK_BYTES: Final = 2
# Strings are skipped whole, so that a brace in one does not count.
_STRUCTURE: Final = re.compile(rb'[{}\[\]"]')
_STRING_END: Final = re.compile(rb'["\\]')


class _Parts:
    """Pieces of an event whose end has not come yet; joined only when something ends.

    Attributes:
        size: Bytes of an event whose end has not come yet.
    """

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

    def _add(self, chunk: bytes) -> None:
        if chunk:
            self._parts.append(chunk)
            self.size += len(chunk)

    def _cut(self, chunk: bytes, ends: list[int]) -> list[bytes]:
        """Take a chunk in and give what ends at places in it; the rest waits.

        Args:
            chunk: The next bytes of the stream.
            ends: Offsets in the chunk, rising; below zero in what came before it.

        Returns:
            The events, joined with what was waiting.
        """
        if not ends:
            self._add(chunk)
            return []
        # Joined once, however many pieces there are: the time stays linear in the bytes.
        waiting = self.size
        data = b"".join([*self._parts, chunk])
        places = [0, *(waiting + end for end in ends)]
        rest = data[places[-1] :]
        self._parts = [rest] if rest else []
        self.size = len(rest)
        return [data[start:end] for start, end in pairwise(places)]


class SseCutter(_Parts):
    """Cuts server-sent events."""

    def __init__(self) -> None:
        super().__init__()
        # The last bytes that wait, which may be the beginning of a blank line.
        self._tail = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and give the events they complete.

        Args:
            chunk: The next bytes of the stream.

        Returns:
            Whole events, each with its blank line.
        """
        if (
            not self.size
            and b"\r" not in chunk
            and len(chunk) > _LF_BLANK_BYTES
            and chunk.find(b"\n\n") == len(chunk) - _LF_BLANK_BYTES
        ):
            return [chunk]  # what most providers send most of the time
        ends: list[int] = []
        window = self._tail + chunk
        if b"\n" in chunk or b"\r" in chunk or self._tail.endswith(b"\r"):
            ends = self._find_ends(window, len(self._tail))
        events = self._cut(chunk, ends)
        self._tail = window[-min(self.size, _BLANK_BYTES_MAX - 1) :] if self.size else b""
        return events

    def _find_ends(self, window: bytes, before: int) -> list[int]:
        ends, start = [], 0
        while found := _BLANK.search(window, start):
            start = found.end()
            if start == len(window) and window.endswith(b"\r"):
                break  # a CR at the very end may be half of a CRLF
            ends.append(start - before)
        return ends

    def close_part(self) -> bytes:
        """Give what must follow half an event.

        Returns:
            A blank line.
        """
        return b"\n\n"


class LineCutter(_Parts):
    """Cuts lines, such as those of newline-delimited JSON."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and give the lines they complete.

        Args:
            chunk: The next bytes of the stream.

        Returns:
            Whole lines, each with its line end.
        """
        return self._cut(chunk, [found.end() for found in _LINE_END.finditer(chunk)])

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
        return self._cut(chunk, self._find_ends(chunk))

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
