"""Streams are cut into the same events wherever their chunks end, in time linear in their bytes."""

import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.cutters import ArrayCutter, LineCutter, SseCutter, json_of
from gateway.wire.sse import data_of
from gateway.wire.tap import Cutter
from tests.wire.sse_reference import cut, parse_events

CUTTERS: dict[str, Callable[[], Cutter]] = {
    "events": SseCutter,
    "lines": LineCutter,
    "array": ArrayCutter,
}
# Pieces that matter to some framing, so that any of them meets any other.
PIECES = st.sampled_from(
    [
        piece.encode()
        for piece in ("\n", "\r", "\r\n", "data: ", "data:", ": note", "event: x", "id")
    ]
    + [piece.encode() for piece in ("[", "]", "{", "}", '"', "\\", ",", " ", '{"a": 1}', '"}"')]
    + [b"\xef\xbb\xbf", b"\xc3", b"\xa9", b"\0"]
)
GARBAGE = st.lists(PIECES, max_size=60).map(b"".join)
STREAMS = {
    "lf": b"data: 1\n\ndata: 2\n\n",
    "crlf": b"data: 1\r\n\r\ndata: 2\r\n\r\n",
    "cr": b"data: 1\r\rdata: 2\r\r",
    "mixed": b"data: 1\r\n\ndata: 2\n\r\ndata: 3\r\n\rdata: 4\n\r",
    "comments": b": ping\n\ndata: 1\n\n: ping\n\n: pong\ndata: 2\n\n",
    "bom": b"\xef\xbb\xbfdata: 1\n\ndata: 2\n\n",
    "many lines": b"event: x\nid: 7\ndata: 1\ndata:2\ndata\nretry: 3\n\ndata: 4\n\n",
    "blank lines": b"\n\n\ndata: 1\n\n\n\n\ndata: 2\n\n\r\n",
    "no last blank line": b"data: 1\n\ndata: 2",
    "one line end at last": b"data: 1\n\ndata: 2\r",
    "empty": b"",
}


def feed(cutter: Cutter, chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    """Give the events and what waits at the end."""
    events = [event for chunk in chunks for event in cutter.feed(chunk)]
    rest = cutter.peek()

    assert len(rest) == cutter.size
    return events, rest


def read(stream: bytes, borders: list[int]) -> list[bytes]:
    """Read the data of the events of a stream."""
    events, rest = feed(SseCutter(), cut(stream, borders))
    return [data for event in (*events, rest) if (data := data_of(event)) is not None]


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_events_are_those_of_the_standard_wherever_the_stream_is_cut(stream: bytes) -> None:
    """Every single border, and one byte at a time."""
    expected = parse_events(stream)

    for border in range(len(stream) + 1):
        assert expected == read(stream, [border]), f"cut at {border}"
    assert expected == read(stream, [*range(len(stream))])


@given(GARBAGE, st.lists(st.integers(0, 200)))
def test_any_bytes_are_the_events_of_the_standard(stream: bytes, borders: list[int]) -> None:
    """A byte order mark further on is passed over, which the standard does only at the start."""
    assert parse_events(stream) == read(stream, borders) or b"\xef\xbb\xbf" in stream[1:]


@pytest.mark.parametrize("kind", CUTTERS)
@given(stream=GARBAGE, borders=st.lists(st.integers(0, 300)))
def test_events_joined_are_the_stream_and_the_same_for_any_borders(
    kind: str, stream: bytes, borders: list[int]
) -> None:
    """No byte is lost, added or moved, whatever the bytes."""
    whole = feed(CUTTERS[kind](), [stream])
    again = feed(CUTTERS[kind](), cut(stream, borders))

    assert stream == b"".join(again[0]) + again[1]
    assert b"".join(whole[0]) + whole[1] == stream
    # A CR at the end of a chunk may be half of a line end, so that an event can come later.
    assert whole == again


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"\r"))), st.data())
def test_lines_end_with_a_line_feed_and_nothing_else(
    lines: list[bytes], data: st.DataObject
) -> None:
    """A carriage return is part of a line, as it is in JSON."""
    stream = b"".join(line + b"\n" for line in lines)
    borders = data.draw(st.lists(st.integers(0, len(stream))))

    assert [line + b"\n" for line in lines] == feed(LineCutter(), cut(stream, borders))[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=6), JSON, max_size=3), max_size=5),
    st.sampled_from([None, 2]),
    st.lists(st.integers(0, 500)),
)
def test_an_array_is_cut_into_its_objects(
    members: list[dict[str, object]], indent: int | None, borders: list[int]
) -> None:
    """Braces in strings, escapes and nesting change nothing, nor do spaces between members."""
    stream = json.dumps(members, indent=indent).encode()
    events, rest = feed(ArrayCutter(), cut(stream, borders))
    objects = [json_of(event) for event in events]

    assert b"" == rest
    assert members == [json.loads(one) for one in objects if one]
    assert b"" == objects[-1]


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("events", b"data: " + b"x" * 1000 + b"\n"),
        ("lines", b"x" * 1000),
        ("array", b'{"a": [1]},'),
    ],
)
def test_an_event_of_many_pieces_is_not_copied_for_each(kind: str, line: bytes) -> None:
    """What waits is joined once, so that the time is linear however small the pieces."""
    cutter = CUTTERS[kind]()
    opening = {"events": b"data: 1\n", "lines": b"", "array": b'[{"a": ['}[kind]
    cutter.feed(opening)
    sizes = []
    for _ in range(2000):
        assert [] == cutter.feed(line)
        sizes.append(cutter.size)

    assert len(opening) + 2000 * len(line) == sizes[-1]
    ending = {"events": b"\n", "lines": b"\n", "array": b"]}]"}[kind]
    (first, *_) = cutter.feed(ending)
    assert sizes[-1] < len(first) <= sizes[-1] + len(ending)
    assert 2000 == len(re.findall(re.escape(line.rstrip(b"\n")), first))


@pytest.mark.parametrize(
    ("cutter", "close"), [(SseCutter(), b"\n\n"), (LineCutter(), b"\n"), (ArrayCutter(), b"")]
)
def test_half_an_event_is_closed_so_that_another_can_follow(cutter: Cutter, close: bytes) -> None:
    """Where the framing allows it."""
    cutter.feed(b'{"half')

    assert close == cutter.close_part()


def test_json_of_a_member_is_the_object_alone() -> None:
    """Without the bracket or comma before it and the line end behind."""
    assert b'{"a": 1}' == json_of(b' ,\n {"a": 1}\r\n')
    assert b"" == json_of(b"]\n")
