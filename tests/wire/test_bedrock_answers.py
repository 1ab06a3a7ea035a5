"""Bedrock's answers, whole and streamed, looked at alone."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.bedrock_usage import Told, read_converse, settle_sources, to_usage
from gateway.wire.facts import Answer
from pricing.meters import Meter
from pricing.usage import Basis
from tests.bedrock_answers import (
    CLAUDE,
    CLAUDE_METRICS,
    CLAUDE_STREAM,
    CONVERSE_STREAM,
    SPOKEN,
    chunk,
    event,
    exception,
    metadata,
)
from tests.wire.bedrock import CONVERSE, INVOKE, asked, converse, invoke
from tests.wire.chat import OK, Head

FULL: Final = {
    Meter.INPUT: 224,
    Meter.CACHE_READ: 1024,
    Meter.CACHE_WRITE: 256,
    Meter.CACHE_WRITE_1H: 32,
    Meter.OUTPUT: 210,
}
counts = st.integers(0, 10**7)
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


# -- usage ---------------------------------------------------------------------------------------


@given(counts, counts, counts, counts, st.data())
def test_disjoint_counts_add_up_to_the_providers_total(
    plain: int, output: int, read: int, written: int, data: st.DataObject
) -> None:
    """Cache reads and writes stand beside the input, whatever the split by lifetime."""
    hour = data.draw(st.integers(0, written))
    total = plain + output + read + written
    details = [{"ttl": "1h", "inputTokens": hour}, {"ttl": "5m", "inputTokens": written - hour}]
    usage = read_converse(
        {
            "inputTokens": plain,
            "outputTokens": output,
            "totalTokens": total,
            "cacheReadInputTokens": read,
            "cacheReadInputTokenCount": read,
            "cacheWriteInputTokens": written,
            "cacheDetails": details,
        }
    )

    assert Basis.REPORTED is usage.basis
    assert total == sum(usage.counts.values())
    assert hour == usage.counts.get(Meter.CACHE_WRITE_1H, 0)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "inputTokens",
                "outputTokens",
                "totalTokens",
                "cacheReadInputTokens",
                "cacheWriteInputTokens",
                "cacheDetails",
                "serverToolUsage",
            ]
        ),
        odd,
    )
)
def test_odd_usage_never_raises_and_is_never_negative(raw: dict[str, Any]) -> None:
    """Whatever a field holds."""
    usage = read_converse(raw)

    assert all(count > 0 for count in usage.counts.values())
    if usage.basis is not Basis.UNKNOWN:
        assert raw.get("inputTokens") is not None or raw.get("totalTokens") is not None


@pytest.mark.parametrize(
    ("raw", "basis", "flag"),
    [
        ({"inputTokens": 3}, Basis.UNKNOWN, "without usable counts"),
        ({}, Basis.UNKNOWN, "without usable counts"),
        ({"inputTokens": -3, "outputTokens": 1}, Basis.UNKNOWN, "inputTokens -3 is not a count"),
        (
            {"inputTokens": 3, "outputTokens": 1, "totalTokens": 9},
            Basis.ESTIMATED,
            "9 is not 3 + 1",
        ),
        ({"inputTokens": 3, "totalTokens": 9}, Basis.REPORTED, ""),
        ({"inputTokens": "3", "outputTokens": 1.0}, Basis.REPORTED, ""),
        (
            {
                "inputTokens": 3,
                "outputTokens": 1,
                "cacheWriteInputTokens": 5,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 7}],
            },
            Basis.ESTIMATED,
            "cacheDetails add up to 7",
        ),
    ],
)
def test_contradictions_are_said_and_nothing_is_made_up(raw: Any, basis: Basis, flag: str) -> None:
    """A side without a count is unknown; numbers may be written as they like."""
    usage = read_converse(raw)

    assert basis is usage.basis
    assert flag in "".join(usage.flags)
    assert bool(flag) == bool(usage.flags)


def test_searches_of_the_provider_are_counted() -> None:
    """Nova's grounding tells them beside the tokens."""
    raw = {"inputTokens": 3, "outputTokens": 1, "serverToolUsage": {"webSearchRequests": 2}}

    assert 2 == read_converse(raw).counts[Meter.WEB_SEARCH]


def test_sources_are_chosen_never_added() -> None:
    """The body where it agrees, because it tells more; else Bedrock's own word, flagged."""
    outside = Told(plain=30, output=12, read=10, written=5)
    inside = to_usage(Told(plain=30, output=12, read=10, written=5, hour=5))
    other = to_usage(Told(plain=1, output=1))

    assert inside is settle_sources(outside, inside)
    chosen = settle_sources(outside, other)
    assert chosen is not None
    assert (45, 12) == chosen.totals()
    assert "the body says" in chosen.flags[0]
    assert inside is settle_sources(Told(), inside)
    assert settle_sources(Told(), None) is None


# -- streams -------------------------------------------------------------------------------------


def fold(format_: Any, frames: Any, sizes: list[int] | None = None) -> tuple[Answer, bytes]:
    """Pass a stream through a lane in pieces of some sizes."""
    facts = format_.read_facts(asked({}))
    lane = format_.open_stream(facts, OK)
    data, at, passed = b"".join(frames), 0, b""
    for size in sizes or [len(data)]:
        passed += lane.feed(data[at : at + size])
        at += size
    passed += lane.feed(data[at:])
    return lane.answer, passed + lane.finish()


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40))
@pytest.mark.parametrize(
    ("format_", "frames"), [(CONVERSE, CONVERSE_STREAM), (INVOKE, CLAUDE_STREAM)]
)
def test_a_stream_counts_the_same_however_it_is_cut(
    format_: Any, frames: Any, sizes: list[int]
) -> None:
    """And its bytes are the provider's."""
    answer, passed = fold(format_, frames, sizes)

    assert b"".join(frames) == passed
    assert answer.usage is not None
    assert FULL == dict(answer.usage.counts)
    assert (True, True) == (answer.is_finished, answer.is_complete)
    assert "Fine, thänks." == "".join(answer.text)


@given(st.lists(odd, max_size=4), st.sampled_from(["metadata", "contentBlockDelta", "chunk", "x"]))
@pytest.mark.parametrize("format_", [CONVERSE, INVOKE])
def test_odd_events_never_raise(format_: Any, values: list[Any], name: str) -> None:
    """The bytes pass, the answer says what it could read."""
    said: list[Any] = [event(name, value) for value in values]
    said += [event(name, {"usage": value, "delta": value, "bytes": value}) for value in values]
    said += [chunk(value) for value in values]
    said += [
        chunk({"usage": v, "amazon-bedrock-invocationMetrics": v, "message": {"usage": v}})
        for v in values
    ]
    _, passed = fold(format_, said)

    assert b"".join(said) == passed


def test_the_last_frame_waits_for_the_settlement() -> None:
    """No byte of it leaves before the record is safe."""
    lane = CONVERSE.open_stream(converse(), OK)

    assert b"".join(SPOKEN) == lane.feed(b"".join(CONVERSE_STREAM))
    assert lane.is_holding
    assert CONVERSE_STREAM[-1] == lane.finish()


def test_a_running_total_is_replaced() -> None:
    """Claude tells its output twice, the metrics once more: one answer, one usage."""
    answer, _ = fold(INVOKE, CLAUDE_STREAM[:-1])

    assert answer.usage is not None
    assert FULL == dict(answer.usage.counts)
    start, _ = fold(INVOKE, CLAUDE_STREAM[:3])
    assert start.usage is not None
    assert (2, Basis.PARTIAL) == (start.usage.output_total, start.usage.basis)
    assert start.text_chars > start.usage_chars


def test_metrics_beside_an_odd_event_still_count() -> None:
    """An odd field never hides the usage beside it."""
    answer, _ = fold(
        INVOKE, [chunk({"generation": 7, "amazon-bedrock-invocationMetrics": CLAUDE_METRICS})]
    )

    assert answer.usage is not None
    assert (1536, 210) == answer.usage.totals()


@pytest.mark.parametrize(
    ("frames", "is_billed"),
    [
        ([exception("throttlingException", "slow")], False),
        ([exception("modelStreamErrorException", "lost")], None),
        ([*SPOKEN[:2], exception("throttlingException", "slow")], None),
    ],
)
def test_trouble_ends_a_stream(frames: Any, is_billed: bool | None) -> None:
    """What kept the call from the model is not billed; what came later may be."""
    answer, _ = fold(CONVERSE, frames)

    assert answer.is_error
    assert is_billed is answer.is_billed


def test_the_tier_and_the_model_that_served_are_told() -> None:
    """A prompt router names the model; optimized latency that was not given is standard."""
    arn = "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0"
    routed = metadata(trace={"promptRouter": {"invokedModelId": arn}}, serviceTier={"type": "flex"})
    answer, _ = fold(CONVERSE, [*SPOKEN, routed])
    fast = converse(performanceConfig={"latency": "optimized"})
    lane = CONVERSE.open_stream(fast, OK)
    lane.feed(metadata(performanceConfig={"latency": "standard"}))

    assert (arn, "flex") == (answer.model, answer.tier)
    assert "standard" == lane.answer.tier


def test_a_guardrail_is_flagged() -> None:
    """Its units are not in the cost, and the record says so."""
    answer, _ = fold(CONVERSE, [*SPOKEN, metadata(trace={"guardrail": {"inputAssessment": {}}})])

    assert any("guardrail" in flag for flag in answer.flags)


def test_a_whole_answer_without_usage_keeps_its_text() -> None:
    """For counting, where nobody tells."""
    body = b'{"output":{"message":{"role":"assistant","content":[{"text":"Fine."}]}}}'

    assert ["Fine."] == CONVERSE.read_whole(body, converse(), OK).text
    assert not CONVERSE.read_whole(b"<html>", converse(), OK).is_readable
    bare = json.dumps({**CLAUDE, "usage": None}).encode()
    assert "Fine, thänks." in INVOKE.read_whole(bare, invoke(), OK).text


def test_headers_count_where_the_body_is_not_json() -> None:
    """What Bedrock counted stands whatever a model answers."""
    head = Head(
        headers=[
            ("x-amzn-bedrock-input-token-count", "30"),
            ("x-amzn-bedrock-output-token-count", "12"),
        ]
    )
    answer = INVOKE.read_whole(b"\x89PNG", invoke(), head)

    assert answer.usage is not None
    assert (30, 12) == answer.usage.totals()
