"""Events are cut the same wherever the network cuts the stream, and no byte is lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire.sse import SseSplitter, data_of, is_lone_object
from tests.wire.sse_reference import cut, parse_events

LINE_ENDS = [b"\n", b"\r", b"\r\n"]
FIELDS = [
    b"data: ",
    b"data:",
    b"data",
    b"event: message",
    b": ping",
    b":",
    b"id: 7",
    b"retry",
    b"[DONE]",
    b'{"a": "b:c"}',
    b" ",
    "né\u2028".encode(),
]
line_end = st.sampled_from(LINE_ENDS)
mark = st.sampled_from([b"", b"\xef\xbb\xbf"])
# Anything that could be a stream, however odd.
chaos = st.builds(
    lambda bom, parts: bom + b"".join(parts),
    mark,
    st.lists(st.sampled_from(FIELDS + LINE_ENDS), max_size=24),
)
# What servers send: events of whole lines, each stream with its own line end, the last one open.
tidy = st.builds(
    lambda bom, end, events, tail: (
        bom + b"".join(b"".join(line + end for line in event) + end for event in events) + tail
    ),
    mark,
    line_end,
    st.lists(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3), max_size=6),
    st.sampled_from([b"", b"data: open", b"data: open\n", b": c\r"]),
)
streams = st.one_of(chaos, tidy)
borders = st.lists(st.integers(0, 160), max_size=8)


def split(chunks: list[bytes]) -> list[bytes]:
    """Run chunks through a splitter; the rest counts as an event."""
    splitter = SseSplitter()
    events = [event for chunk in chunks for event in splitter.split(chunk)]
    rest = splitter.take_rest()
    assert splitter.held == b""
    return [*events, rest] if rest else events


@settings(max_examples=300)
@given(streams, borders)
def test_the_events_joined_are_the_stream(stream: bytes, places: list[int]) -> None:
    """Not a byte is changed, dropped or moved."""
    assert stream == b"".join(split(cut(stream, places)))


@settings(max_examples=300)
@given(streams, borders)
def test_the_borders_of_chunks_do_not_matter(stream: bytes, places: list[int]) -> None:
    """Data read does not depend on where the network cut the stream."""
    whole = [data_of(event) for event in split([stream])]
    pieces = [data_of(event) for event in split(cut(stream, places))]

    assert [d for d in whole if d is not None] == [d for d in pieces if d is not None]


@settings(max_examples=300)
@given(streams, borders)
def test_data_is_what_the_standard_says(stream: bytes, places: list[int]) -> None:
    """The data equals that of a plain parser of the standard."""
    read = [data_of(event) for event in split(cut(stream, places))]

    assert parse_events(stream) == [data for data in read if data is not None]


@settings(max_examples=300)
@given(tidy)
def test_every_byte_may_come_alone(stream: bytes) -> None:
    """One-byte chunks are read like any others."""
    events = split([stream[at : at + 1] for at in range(len(stream))])

    assert stream == b"".join(events)
    assert parse_events(stream) == [d for e in events if (d := data_of(e)) is not None]


@pytest.mark.parametrize("end", LINE_ENDS, ids=["lf", "cr", "crlf"])
def test_an_event_is_given_as_soon_as_it_is_over(end: bytes) -> None:
    """An event does not wait for the next one, but for a CR that may be half of a CRLF."""
    splitter = SseSplitter()

    events = splitter.split(b"data: 1" + end + end)

    assert ([] if end == b"\r" else [b"data: 1" + end + end]) == events


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data: x", b"x"),
        (b"data:x\r\n\r\n", b"x"),
        (b"data:  x\r\r", b" x"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: a\rdata: b\n\n", b"a\nb"),
        (b"data\ndata: b\n\n", b"\nb"),
        (b"event: e\ndata: x\nid: 1\n\n", b"x"),
        (b"\xef\xbb\xbfdata: x\n\n", b"x"),
        (b"data:\n\n", b""),
        (b"data\n\n", b""),
        (b": keep-alive\n\n", None),
        (b"\n\n", None),
        (b"", None),
        (b"database: 1\n\n", None),
    ],
)
def test_data_lines_are_joined_by_line_feeds(event: bytes, data: bytes | None) -> None:
    """One optional blank after the colon goes; comments and other fields are no data."""
    assert data == data_of(event)


@settings(max_examples=300)
@given(streams | st.sampled_from([b"data: {}\n\n", b'data: {"a"\n\n', b"data: {\r}\n\n"]))
def test_a_quick_look_agrees_with_a_close_one(stream: bytes) -> None:
    """What is taken for one event of one object is just that."""
    if is_lone_object(stream):
        assert [stream] == split([stream])
        assert [stream[6:-2]] == parse_events(stream)


@pytest.mark.parametrize("end", LINE_ENDS, ids=["lf", "cr", "crlf"])
def test_a_piece_leaves_the_line_ends_that_may_close_the_event(end: bytes) -> None:
    """Half of a blank line is not given away before its other half has come."""
    splitter = SseSplitter()
    splitter.split(b"data: 1" + end)

    assert b"data: 1" == splitter.take_piece()
    assert [end + end] == splitter.split(end + b"data: 2")
    assert b"data: 2" == splitter.held
