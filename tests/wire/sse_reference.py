"""A server-sent-event parser as the standard words it, slow and plain, to compare with.

Must never share code with the gateway.
"""

import re
from itertools import pairwise

_LINE_END = re.compile(rb"\r\n|\n|\r")


def parse_events(stream: bytes) -> list[bytes]:
    """Read the data of every event that has some.

    Args:
        stream: A whole stream.

    Returns:
        One entry per event with ``data``; a last event needs no blank line.

    Source:
        https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
        except for the last event, which the standard drops and providers send.
    """
    events: list[bytes] = []
    data: list[bytes] = []
    for line in [*_LINE_END.split(stream.removeprefix(b"\xef\xbb\xbf")), b""]:
        if not line:
            if data:
                events.append(b"\n".join(data))
            data = []
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
    return events


def cut(stream: bytes, borders: list[int]) -> list[bytes]:
    """Cut a stream at offsets.

    Args:
        stream: Any bytes.
        borders: Offsets, in any order, beyond the end too.

    Returns:
        Pieces that join to the stream; some may be empty.
    """
    places = [0, *sorted(min(border, len(stream)) for border in borders), len(stream)]
    return [stream[start:end] for start, end in pairwise(places)]
