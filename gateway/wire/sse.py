"""Cut a server-sent-event stream into whole events, whatever the chunk borders.

Must never change, drop or reorder a byte; the events joined are the stream.
"""

import re
from typing import Final

# A blank line ends an event; a line ends with CRLF, LF or CR. Atomic, so that one CRLF is never
# read as CR and LF. WHATWG HTML, "Parsing an event stream"; guarded by tests/wire/test_sse.py.
_BLANK: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_BLANK_BYTES_MAX: Final = 4
_BOM: Final = b"\xef\xbb\xbf"


class SseSplitter:
    """Collects chunks and yields whole events.

    Attributes:
        held: Bytes of an event whose end has not come yet.
    """

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = b""

    def split(self, chunk: bytes) -> list[bytes]:
        """Take a chunk and give the events it completes.

        Args:
            chunk: The next bytes of the stream.

        Returns:
            Whole events, each with its blank line.
        """
        start = 0
        if self.held:
            # It has been searched but for its last bytes, which may begin a blank line.
            start = max(0, len(self.held) - _BLANK_BYTES_MAX + 1)
            chunk = self.held + chunk
        if b"\r" in chunk:
            return self._split_any(chunk, start)
        events = []
        position = 0
        while (found := chunk.find(b"\n", start)) >= 0:
            start = found + 1
            if chunk.startswith(b"\n", start):
                start += 1
                events.append(chunk[position:start])
                position = start
        self.held = chunk[position:]
        return events

    def _split_any(self, chunk: bytes, start: int) -> list[bytes]:
        events = []
        position = 0
        while found := _BLANK.search(chunk, start):
            start = found.end()
            if start == len(chunk) and chunk.endswith(b"\r"):
                break  # a CR at the very end may be half of a CRLF
            events.append(chunk[position:start])
            position = start
        self.held = chunk[position:]
        return events

    def take_piece(self) -> bytes:
        """Give what is held of an event too large to hold; the event goes on.

        Returns:
            The bytes, but for the line ends they close with: those may be half of a blank line.
        """
        piece = self.held.rstrip(b"\r\n")
        self.held = self.held[len(piece) :]
        return piece

    def take_rest(self) -> bytes:
        """Give what is left at the end of the stream: an event without its blank line, or nothing.

        Returns:
            The bytes, which are no longer held.
        """
        rest, self.held = self.held, b""
        return rest


def is_lone_object(chunk: bytes) -> bool:
    """Tell quickly whether a chunk is one event, of one line, whose data is a JSON object.

    Args:
        chunk: Bytes that begin where an event begins.

    Returns:
        Whether ``chunk[6:-2]`` is all there is to read; ``False`` may also mean "not sure".
    """
    return (
        chunk.startswith(b"data: {")
        and chunk.find(b"\n") == len(chunk) - 2
        and chunk.endswith(b"\n")
        and b"\r" not in chunk
    )


def data_of(event: bytes) -> bytes | None:
    """Read the data of an event.

    Args:
        event: One event, with or without its blank line.

    Returns:
        Its ``data`` lines joined by LF, or ``None`` when it has none (a comment).
    """
    if is_lone_object(event):
        return event[6:-2]
    lines = event.removeprefix(_BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    data = [
        line[5:].removeprefix(b" ")
        for line in lines
        if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(data) if data else None
