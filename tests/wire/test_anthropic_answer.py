"""Answers of the Messages API: however cut, the same usage and the same bytes."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.anthropic_answer import open_message_lane, read_message
from gateway.wire.anthropic_batches import ResultsFold
from gateway.wire.anthropic_request import read_request
from gateway.wire.facts import Answer, StreamLane
from gateway.wire.fetched import FetchedLane
from pricing.usage import Basis
from tests.golden.test_golden import HERE

FACTS: Final = read_request(
    b'{"model":"claude-haiku-4-5","max_tokens":9,"messages":[]}', named=None
)
STREAMS: Final = sorted((HERE / "anthropic_messages").glob("*/reply.sse"))
RESULTS: Final = sorted((HERE / "anthropic_batches").glob("*/reply.ndjson"))


def passed(lane: StreamLane, pieces: list[bytes]) -> tuple[bytes, Answer]:
    """Feed all pieces; give what came out and what was seen."""
    out = b"".join(lane.feed(piece) for piece in pieces)
    return out + lane.finish(), lane.answer


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes at some places."""
    edges = [0, *sorted({place % (len(body) + 1) for place in places}), len(body)]
    return [body[a:b] for a, b in pairwise(edges) if a < b]


@pytest.mark.parametrize("reply", STREAMS, ids=lambda path: path.parent.name)
@given(places=st.lists(st.integers(0, 100_000), max_size=30))
def test_wherever_a_stream_is_cut_usage_and_bytes_are_the_same(
    reply: Path, places: list[int]
) -> None:
    """Chunk borders mean nothing."""
    body = reply.read_bytes()
    whole = passed(open_message_lane(FACTS), [body])
    pieces = passed(open_message_lane(FACTS), cut(body, places))

    assert body == whole[0] == pieces[0]
    assert whole[1] == pieces[1]


@pytest.mark.parametrize("reply", RESULTS, ids=lambda path: path.parent.name)
@given(places=st.lists(st.integers(0, 100_000), max_size=30))
def test_wherever_results_are_cut_usage_and_bytes_are_the_same(
    reply: Path, places: list[int]
) -> None:
    """A line may come in as many pieces as it likes."""
    body = reply.read_bytes()
    whole = passed(FetchedLane(ResultsFold(), "b"), [body])
    pieces = passed(FetchedLane(ResultsFold(), "b"), cut(body, places))

    assert body == whole[0] == pieces[0]
    assert whole[1] == pieces[1]


@given(st.sampled_from(STREAMS), st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=5))))
def test_a_stream_that_is_spoilt_never_raises_and_passes_as_it_is(
    reply: Path, edits: list[tuple[int, bytes]]
) -> None:
    """Bytes replaced anywhere."""
    body = bytearray(reply.read_bytes())
    for place, junk in edits:
        at = place % len(body)
        body[at : at + len(junk)] = junk
    out, answer = passed(open_message_lane(FACTS), [bytes(body)])

    assert bytes(body) == out
    assert answer.usage is None or all(count > 0 for count in answer.usage.counts.values())


@given(st.binary(max_size=200))
def test_garbage_is_no_message(body: bytes) -> None:
    """Whole or in a stream or among results, it is passed on and says nothing."""
    assert read_message(body, FACTS).usage is None
    assert body == passed(open_message_lane(FACTS), [body])[0]
    assert body == passed(FetchedLane(ResultsFold(), None), [body])[0]


ODD: Final = st.sampled_from([None, 7, -1.5, "x", [], {}, [1], {"a": 1}, True])


@given(
    st.dictionaries(
        st.sampled_from(["id", "model", "type", "stop_reason", "content", "container"]), ODD
    )
)
def test_an_odd_field_never_hides_the_usage_beside_it(odd: dict[str, Any]) -> None:
    """Whatever stands beside it; an answer that says it is an error aside."""
    usage = {"input_tokens": 7, "output_tokens": 3}
    answer = read_message(json.dumps({**odd, "usage": usage}).encode(), FACTS)

    assert answer.usage is not None
    assert (7, 3) == answer.usage.totals()


@given(st.sampled_from(["delta", "index", "context_management"]), ODD)
def test_nor_in_a_stream(name: str, odd: object) -> None:
    """The end of a message counts whatever else it holds."""
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}}
    end = {"type": "message_delta", "usage": {"output_tokens": 30}, name: odd}
    events: list[dict[str, Any]] = [start, end, {"type": "message_stop"}]
    body = b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)
    answer = passed(open_message_lane(FACTS), [body])[1]

    assert answer.usage is not None
    assert (7, 30) == answer.usage.totals()


def test_what_was_counted_before_the_output_is_not_the_last_word() -> None:
    """Without a later report the output is as far as it was told, and says so."""
    body = (HERE / "anthropic_messages/aborted-stream/reply.sse").read_bytes()
    answer = passed(open_message_lane(FACTS), [body])[1]

    assert answer.usage is not None
    assert Basis.PARTIAL is answer.usage.basis
    assert answer.text_chars > answer.usage_chars
    assert not answer.tells_fees


def test_thinking_that_is_not_shown_is_known_to_be_there() -> None:
    """A stream shows the beginning of every block."""
    body = (HERE / "anthropic_messages/streamed-reasoning-crlf/reply.sse").read_bytes()
    plain = (HERE / "anthropic_messages/streamed/reply.sse").read_bytes()

    assert passed(open_message_lane(FACTS), [body])[1].hides_output
    assert not passed(open_message_lane(FACTS), [plain])[1].hides_output


def test_results_that_were_not_read_to_their_end_are_a_part() -> None:
    """What was read is not nothing, and the next look completes it."""
    body = (HERE / "anthropic_batches/results/reply.ndjson").read_bytes()
    lane = FetchedLane(ResultsFold(), "b")
    lane.feed(body)
    lane.finish(is_broken=True)

    assert lane.answer.usage is not None
    assert (Basis.PARTIAL, "b") == (lane.answer.usage.basis, lane.answer.once)
    assert lane.answer.flags
    assert "b" == passed(FetchedLane(ResultsFold(), "b"), [body])[1].once
