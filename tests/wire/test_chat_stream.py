"""A streamed chat passes byte for byte, and what it says is folded wherever it is cut."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.facts import Answer
from gateway.wire.openai_answer import (
    END_HELD_BYTES_MAX,
    EVENT_HELD_BYTES_MAX,
    TEXT_KEPT_CHARS_MAX,
    ChatStream,
    Make,
    read_answer,
)
from gateway.wire.openai_kinds import CHATS
from gateway.wire.sse import data_of
from gateway.wire.tap import ODD
from tests.openai_answers import USAGE, chunk, spoken, usage_chunk
from tests.wire.sse_reference import cut

DONE = b"data: [DONE]\n\n"
SMALLER: dict[str, Any] = dict(USAGE) | {
    "prompt_tokens": 1024,
    "completion_tokens": 100,
    "total_tokens": 1124,
}


def event(data: bytes, end: bytes = b"\n") -> bytes:
    """Frame one event."""
    return b"data: " + data + end + end


def frames(*data: bytes, end: bytes = b"\n") -> list[bytes]:
    """Frame events."""
    return [event(one, end) for one in data]


def seen(lane: ChatStream) -> dict[str, Any]:
    """Show what a lane has folded."""
    answer = lane.answer
    counts = answer.usage and {m.value: n for m, n in answer.usage.counts.items()}
    return {
        "usage": counts,
        "text": "".join(answer.text),
        "model": answer.model,
        "id": answer.request_id,
        "tier": answer.tier,
        "finished": answer.is_finished,
        "complete": answer.is_complete,
        "error": answer.is_error,
    }


def run(chunks: Iterable[bytes], *, strips: bool) -> tuple[bytes, bytes, dict[str, Any]]:
    """Pass a stream; give what was passed at once, what was held back, and what was folded."""
    lane = ChatStream(strips_usage=strips)
    passed = b"".join([lane.feed(piece) for piece in chunks])
    return passed, lane.finish(), seen(lane)


WORDS = spoken("Fine", ", ", "th\u00e4nks", ".")
AZURE_FIRST = chunk(None, model="", prompt_filter_results=[{"prompt_index": 0}])
USAGE_BESIDE = chunk({}, finish="stop", usage=dict(USAGE))
STREAMS = {
    "plain": [*frames(*WORDS, usage_chunk()), DONE],
    "crlf": [*frames(*WORDS, usage_chunk(), end=b"\r\n"), b"data: [DONE]\r\n\r\n"],
    "cr": [*frames(*WORDS, usage_chunk(), end=b"\r"), b"data: [DONE]\r\r"],
    "mixed": [
        event(WORDS[0], b"\r\n"),
        event(WORDS[1], b"\r"),
        event(usage_chunk(), b"\n"),
        DONE,
    ],
    "azure": [*frames(AZURE_FIRST, *WORDS, usage_chunk()), DONE],
    "usage beside choices": [*frames(*WORDS[:-1], USAGE_BESIDE), DONE],
    "usage twice": [*frames(*WORDS, usage_chunk(SMALLER), usage_chunk()), DONE],
    "comments": [b": hi\n\n", *frames(WORDS[0]), b": ping\n\n", *frames(*WORDS[1:]), DONE],
    "named events": [b"event: message\nid: 1\n" + event(WORDS[1]), event(usage_chunk()), DONE],
    "bom": [b"\xef\xbb\xbf" + event(WORDS[1]), event(usage_chunk()), DONE],
    "no last blank line": [*frames(*WORDS, usage_chunk()), b"data: [DONE]"],
    "usage last, no blank line": [*frames(*WORDS), b"data: " + usage_chunk()],
    "after the end": [*frames(*WORDS), DONE, event(usage_chunk()), b": bye\n\n"],
    "data over two lines": [b'data: {"usage": null,\ndata: "choices": []}\n\n', DONE],
    "garbage": [*frames(b"{not json", b"[1,2]", b'"text"', b"", b"null"), DONE],
    "bad utf-8": [
        *frames(b'{"id":"\xff"}', b'{"choices":[{"delta":{"content":"\xff"}}]}', usage_chunk()),
        DONE,
    ],
    "empty": [],
}


def is_stripped(frame: bytes) -> bool:
    """Tell whether an event is the extra usage chunk, by a reading of the test's own."""
    try:
        said = json.loads(data_of(frame) or b"")
    except ValueError:
        return False
    return isinstance(said, dict) and bool(said.get("usage")) and not said.get("choices")


@pytest.mark.parametrize("strips", [True, False], ids=["stripping", "keeping"])
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_a_stream_may_be_cut_at_any_byte(stream: list[bytes], strips: bool) -> None:
    """Bytes passed and facts folded are the same for every border, and for bytes one by one."""
    whole = b"".join(stream)
    expected = b"".join(f for f in stream if not (strips and is_stripped(f)))
    passed, held, folded = run([whole], strips=strips)

    assert expected == passed + held
    for border in range(1, len(whole)):
        again = run([whole[:border], whole[border:]], strips=strips)
        assert (expected, folded) == (again[0] + again[1], again[2]), f"cut at {border}"
    alone = run([whole[i : i + 1] for i in range(len(whole))], strips=strips)
    assert (expected, folded) == (alone[0] + alone[1], alone[2])


@given(st.sampled_from([*STREAMS.values()]), st.lists(st.integers(0, 3000)), st.booleans())
def test_a_stream_may_be_cut_anywhere(
    stream: list[bytes], borders: list[int], strips: bool
) -> None:
    """Any number of cuts gives what none gives."""
    whole = b"".join(stream)
    first, again = run([whole], strips=strips), run(cut(whole, borders), strips=strips)

    assert first[0] + first[1] == again[0] + again[1]
    assert first[2] == again[2]


def test_what_a_stream_says_is_folded() -> None:
    """Text, names, tier and usage are read off the passing bytes."""
    top: dict[str, Any] = {"service_tier": "priority"}
    stream = frames(*spoken("a", "b", **top), usage_chunk(**top))

    assert {
        "usage": {"input": 224, "cache_read": 1024, "output": 146, "reasoning": 64},
        "text": "ab",
        "model": "gpt-5-2025-08-07",
        "id": "chatcmpl-57ream",
        "tier": "priority",
        "finished": True,
        "complete": True,
        "error": False,
    } == run([*stream, DONE], strips=True)[2]


@pytest.mark.parametrize(
    ("stream", "count"),
    [
        (frames(*WORDS, usage_chunk(SMALLER), usage_chunk()), 1248),
        (frames(*WORDS, usage_chunk(), usage_chunk(SMALLER)), 1024),
        (frames(chunk({"content": "a"}, usage=SMALLER), usage_chunk()), 1248),
        (frames(USAGE_BESIDE, chunk(None)), 1248),
    ],
    ids=["growing", "falling", "running total", "null after"],
)
def test_the_newest_usage_counts(stream: list[bytes], count: int) -> None:
    """Reports replace each other: they are never added, and null takes nothing back."""
    usage = run([*stream, DONE], strips=True)[2]["usage"]

    assert count == sum(usage[name] for name in ("input", "cache_read") if name in usage)


def test_the_end_is_held_until_the_settlement_is_safe() -> None:
    """A client that has read [DONE] may count on its record."""
    lane = ChatStream(strips_usage=True)

    assert event(WORDS[1]) == lane.feed(event(WORDS[1]))
    assert b"" == lane.feed(event(usage_chunk()))
    assert b"" == lane.feed(DONE)
    assert b"" == lane.feed(b": after\n\n")
    assert DONE + b": after\n\n" == lane.finish()
    assert b"" == lane.finish()


def test_a_usage_chunk_that_was_asked_for_is_passed() -> None:
    """A client that asked for usage gets the provider's own chunk."""
    stream = [*frames(*WORDS, usage_chunk()), DONE]

    assert b"".join(stream[:-1]) == run(stream, strips=False)[0]


def test_chunks_without_choices_but_with_content_filters_are_kept() -> None:
    """Azure's first chunk has no choices either; it is no usage chunk."""
    passed, _, folded = run(frames(AZURE_FIRST, WORDS[1]), strips=True)

    assert event(AZURE_FIRST) in passed
    assert "gpt-5-2025-08-07" == folded["model"]


def test_tool_calls_and_thoughts_are_text_to_count() -> None:
    """If usage never comes, whatever was generated is counted."""
    call = {"index": 0, "id": "c", "function": {"name": "find", "arguments": '{"a":'}}
    stream = frames(
        chunk({"reasoning_content": "hm "}),
        chunk({"tool_calls": [call]}),
        chunk({"refusal": "no"}),
    )

    assert 'hm find{"a":no' == run(stream, strips=True)[2]["text"]


@pytest.mark.parametrize(
    "odd",
    [
        {"delta": {"content": [{"type": "text", "text": "x"}]}},
        {"delta": {"tool_calls": [{"function": {"arguments": {"a": 1}}}]}},
        {"delta": {}, "finish_reason": 7},
        "text",
    ],
    ids=["content parts", "arguments as an object", "odd reason", "no object"],
)
def test_odd_choices_do_not_hide_the_usage_beside_them(odd: Any) -> None:
    """Usage is read for the bill, whatever shape the words have."""
    folded = run(frames(chunk(None, choices=[odd], usage=dict(USAGE))), strips=True)[2]

    assert folded["usage"] is not None


def test_an_error_inside_a_stream_is_seen_and_passed() -> None:
    """The client's SDK raises on it; the ledger must know, too."""
    broken = event(b'{"error":{"message":"overloaded","code":null}}')
    passed, _, folded = run([event(WORDS[1]), broken], strips=True)

    assert passed.endswith(broken)
    assert folded["error"]
    assert not folded["complete"]


@pytest.mark.parametrize(
    "garbage",
    [b'{"x":' + b"[" * 10**5 + b"]" * 10**5 + b"}", b'{"id":"\xff"}', b'{"id":"\\ud83d"}', b"\xff"],
    ids=["nested beyond reason", "bad utf-8", "half a surrogate pair", "binary"],
)
def test_garbage_passes_and_what_follows_is_read(garbage: bytes) -> None:
    """An event nobody can read is the client's to judge; the stream and its bill go on."""
    stream = [event(garbage), *frames(WORDS[1], usage_chunk()), DONE]
    passed, held, folded = run(stream, strips=True)

    assert event(garbage) + event(WORDS[1]) + DONE == passed + held
    assert folded["usage"] is not None


@pytest.mark.parametrize("odd", [{}, {"prompt_tokens": -1, "completion_tokens": 1}, {"x": 1}, "?"])
def test_a_report_without_counts_takes_nothing_back(odd: Any) -> None:
    """A good report stays the newest one there is; a bad one gives way to a good one."""
    bad, good = chunk(None, usage=odd), usage_chunk()
    expected = run(frames(good), strips=True)[2]["usage"]

    assert expected == run(frames(good, bad), strips=True)[2]["usage"]
    assert expected == run(frames(bad, good), strips=True)[2]["usage"]
    assert b"" == run(frames(bad), strips=True)[0]


def test_odd_choices_are_counted_by_their_size() -> None:
    """What cannot be read as text was generated all the same."""
    lane = ChatStream(strips_usage=True)
    lane.feed(event(chunk(None, choices=[{"delta": {"content": [{"text": "x" * 500}]}}])))
    lane.feed(event(WORDS[1]))

    assert lane.answer.text_chars > 500
    assert "Fine" == lane.answer.text[-1]


def test_the_beginning_of_every_answer_is_kept() -> None:
    """A part that was counted tells how much the whole comes to, so there must be a part."""
    lane = ChatStream(strips_usage=True)
    long = "word " * TEXT_KEPT_CHARS_MAX
    for text in ("ab", long, "c"):
        lane.feed(event(chunk({"content": text})))

    assert ("ab" + long)[:TEXT_KEPT_CHARS_MAX] == "".join(lane.answer.text)
    assert 2 + len(long) + 1 == lane.answer.text_chars


# -- streams that break off ----------------------------------------------------------------------

BREAK_AT = event(WORDS[1]) + event(usage_chunk()) + DONE


def test_a_broken_stream_ends_with_a_whole_event() -> None:
    """An error that follows is an event of its own, wherever the stream broke off."""
    for at in range(len(BREAK_AT) + 1):
        lane = ChatStream(strips_usage=False)
        got = lane.feed(BREAK_AT[:at]) + lane.finish(is_broken=True)
        whole = BREAK_AT[:at].rpartition(b"\n\n")

        assert whole[0] + whole[1] == got, f"broken at {at}"
        assert b"" == lane.finish()


def test_usage_that_came_in_full_counts_though_its_event_did_not() -> None:
    """The provider has said what it bills; only the blank line is missing."""
    lane = ChatStream(strips_usage=True)
    lane.feed(event(WORDS[1]) + event(usage_chunk())[:-1])

    assert b"" == lane.finish(is_broken=True)
    assert lane.answer.usage is not None


def test_half_a_huge_event_is_ended() -> None:
    """Its first half is with the client already; what follows must not be glued to it."""
    lane = ChatStream(strips_usage=True)
    got = lane.feed(HUGE[: 2 * EVENT_HELD_BYTES_MAX]) + lane.finish(is_broken=True)

    assert HUGE[: 2 * EVENT_HELD_BYTES_MAX] + b"\n\n" == got


# -- what follows the end ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 10**6])
def test_what_follows_the_end_is_held_within_bounds(size: int) -> None:
    """A provider that never stops does not fill the memory; no byte is lost or moved."""
    stream = event(WORDS[1]) + DONE + event(WORDS[1]) * 1000 + b": open " + b"x" * 10**5
    lane = ChatStream(strips_usage=True)
    fed, out = 0, b""
    for at in range(0, len(stream), size):
        out += lane.feed(stream[at : at + size])
        fed += len(stream[at : at + size])
        assert fed - len(out) <= max(END_HELD_BYTES_MAX, EVENT_HELD_BYTES_MAX)

    assert stream == out + lane.finish()


# -- events too large to hold --------------------------------------------------------------------

HUGE = event(chunk({"content": "x" * (3 * EVENT_HELD_BYTES_MAX)}))


@pytest.mark.parametrize("size", [1000, 65536, 2 * EVENT_HELD_BYTES_MAX])
def test_a_huge_event_is_not_held(size: int) -> None:
    """Memory for one stream has a bound, and every byte still passes in order."""
    stream = b"".join([event(WORDS[1]), HUGE, *frames(usage_chunk()), DONE])
    lane = ChatStream(strips_usage=True)
    fed = passed = 0
    out = []
    for at in range(0, len(stream), size):
        piece = stream[at : at + size]
        out.append(lane.feed(piece))
        fed += len(piece)
        passed += len(out[-1])
        assert fed - passed <= EVENT_HELD_BYTES_MAX + size
    out.append(lane.finish())

    assert event(WORDS[1]) + HUGE + DONE == b"".join(out)
    assert lane.answer.usage is not None


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_the_usage_after_a_huge_event_is_read_for_every_cut(end: bytes) -> None:
    """A huge event may be cut between the two line ends that close it."""
    huge = event(chunk({"content": "x" * (EVENT_HELD_BYTES_MAX + 100)}), end)
    rest = event(usage_chunk(), end) + b"data: [DONE]" + end + end
    lost = []
    for border in range(len(huge) - 6, len(huge) + 4):
        whole = huge + rest
        passed, held, folded = run([whole[:border], whole[border:]], strips=True)
        if folded["usage"] is None or usage_chunk() in passed + held:
            lost.append(border - len(huge))

    assert lost == []


@pytest.mark.parametrize("size", [5000, EVENT_HELD_BYTES_MAX + 500])
def test_the_size_of_all_text_is_known_however_it_was_cut(size: int) -> None:
    """What is too large to keep is still there to be counted by its size."""
    lane = ChatStream(strips_usage=True)
    stream = event(WORDS[0]) + HUGE
    for at in range(0, len(stream), size):
        lane.feed(stream[at : at + size])
    lane.finish()

    assert lane.answer.text_chars >= 3 * EVENT_HELD_BYTES_MAX


# -- odd values ----------------------------------------------------------------------------------

MAKES = {kind: chat.make for kind, chat in CHATS.items()}
# Written as they stand: no serialiser writes all of them.
ODD_JSON = (
    *("null", "true", "0", "-1", "1.5", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "12x"),
    *(str(2**63), str(2**64), "9" * 400, '""', '"x"', '"7"', '" 7 "', '"1e5"', '"\\ud800"'),
    *("[]", "[[]]", "[null]", "[1]", "{}", '{"":{}}', "{", '"', "[" * 2000 + "]" * 2000),
)
PLACES = (
    *("id", "model", "service_tier", "usage", "error", "choices", "x_groq", "citations"),
    *(f"choices.0.{n}" for n in ("delta", "message", "finish_reason", "text", "usage", "index")),
    *(f"choices.0.delta.{n}" for n in ("content", "refusal", "reasoning", "audio", "role")),
    *(f"choices.0.delta.{n}" for n in ("tool_calls", "function_call", "reasoning_content")),
    *(f"choices.0.delta.tool_calls.0{n}" for n in ("", ".function", ".function.arguments")),
    *(f"usage.{n}" for n in ("prompt_tokens", "completion_tokens", "total_tokens", "cost")),
    *("usage.prompt_tokens_details", "usage.prompt_tokens_details.cached_tokens"),
    *("usage.completion_tokens_details", "usage.completion_tokens_details.reasoning_tokens"),
    *("usage.cached_tokens", "usage.num_cached_tokens", "usage.prompt_audio_seconds"),
    *("usage.cost_in_usd_ticks", "usage.num_sources_used", "usage.cost_details", "usage.is_byok"),
    *("usage.cost.total_cost", "usage.citation_tokens", "usage.num_search_queries"),
    *("usage.search_context_size", "usage.server_side_tool_usage_details", "x_groq.usage"),
)
garbage_json = st.sampled_from(ODD_JSON) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
).map(json.dumps)


def put(fields: Any, path: list[str], mark: str) -> Any:
    """Put a mark into a chunk, making the places on the way there."""
    if not path:
        return mark
    if path[0].isdigit():
        first = fields[0] if isinstance(fields, list) and fields else {}
        return [put(first, path[1:], mark)]
    inside = fields if isinstance(fields, dict) else {}
    return {**inside, path[0]: put(inside.get(path[0]), path[1:], mark)}


def odd_chunk(base: bytes, odds: dict[str, str]) -> bytes:
    """Replace what stands in some places of a chunk by something else, byte for byte."""
    fields = json.loads(base)
    for at, place in enumerate(odds):
        fields = put(fields, place.split("."), f"<{at}>")
    text = json.dumps(fields)
    for at, odd in enumerate(odds.values()):
        text = text.replace(f'"<{at}>"', odd)
    return text.encode("utf-8", "surrogatepass")


odd_chunks = st.builds(
    odd_chunk,
    st.sampled_from([WORDS[1], usage_chunk()]),
    st.dictionaries(st.sampled_from(PLACES), garbage_json, max_size=4),
)


@given(
    st.lists(odd_chunks, min_size=1, max_size=3),
    st.sampled_from(sorted(MAKES)),
    st.booleans(),
    st.booleans(),
)
def test_garbage_in_any_place_raises_nothing_and_takes_no_byte_away(
    odd: list[bytes], kind: str, is_one_by_one: bool, strips: bool
) -> None:
    """Whatever a provider sends, the client gets it, and the lane goes on."""
    lane = ChatStream(strips_usage=strips, make=MAKES[kind])
    events = [*frames(*odd, WORDS[1]), DONE]
    pieces = events if is_one_by_one else [b"".join(events)]
    out = b"".join([lane.feed(piece) for piece in pieces]) + lane.finish()

    assert out.endswith(event(WORDS[1]) + DONE)
    assert strips or b"".join(events) == out
    assert "Fine" == lane.answer.text[-1]
    assert lane.answer.is_complete
    for one in odd:
        read_answer(one, MAKES[kind])


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_a_reader_that_fails_takes_no_byte_away(kind: type[Exception], end: bytes) -> None:
    """The event passes and is flagged once; what follows is read."""

    def fail(_: Answer, __: bytes) -> None:
        raise kind("a secret of the answer")

    lane = ChatStream(strips_usage=True, make=Make(note=fail))
    stream = b"".join(frames(usage_chunk(), usage_chunk(), WORDS[1], end=end)) + DONE

    assert stream == b"".join([lane.feed(stream), lane.finish()])
    assert (f"an event could not be read ({kind.__name__})",) == lane.answer.flags
    assert "Fine" == "".join(lane.answer.text)
