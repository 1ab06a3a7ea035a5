"""Events and spans are read exactly, or refused in words."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ingest.cloudevents import read_batch, read_event
from gateway.ingest.otlp import is_wanted, read_spans, tell_reasons, write_binary_answer
from gateway.ingest.otlp_spans import TraceSpan, read_binary_spans, read_json_spans
from gateway.ingest.protobuf import read_fields
from gateway.ingest.usage import (
    EventRefused,
    Flags,
    OutsideUsage,
    Unreadable,
    disjoint_counts,
)

HERE = Path(__file__).parent
# Written by the exporter of OpenTelemetry's own SDK for Python, 1.45.2.
BINARY = (HERE / "spans.pb").read_bytes()
JSON = (HERE / "spans.json").read_bytes()
BOTH = Flags(input_includes_cache=True, output_includes_reasoning=True)
NEITHER = Flags(input_includes_cache=False, output_includes_reasoning=False)
SILENT = Flags()


def span(**attributes: Any) -> TraceSpan:
    """Make a span of one call."""
    plain: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.usage.input_tokens": 10,
    }
    given_names = {name.replace("__", "."): value for name, value in attributes.items()}
    return TraceSpan(
        trace_id="a" * 32,
        span_id="b" * 16,
        start_ns=1_795_428_000 * 10**9,
        end_ns=1_795_428_001 * 10**9,
        status=0,
        attributes={**plain, **given_names},
    )


def read_one(one: TraceSpan, flags: Flags = SILENT) -> OutsideUsage | Unreadable:
    """Read a span that tells of a call."""
    told, ignored = read_spans([one], flags)

    assert ignored == 0
    return told[0]


@pytest.mark.parametrize(
    ("counts", "flags", "disjoint"),
    [
        ({"input": 10, "output": 2}, SILENT, {"input": 10, "output": 2}),
        ({"input": 1248, "cache_read": 1024}, BOTH, {"input": 224, "cache_read": 1024}),
        ({"input": 1248, "cache_read": 1024}, NEITHER, {"input": 1248, "cache_read": 1024}),
        ({"input": 7, "cache_write_1h": 7}, BOTH, {"cache_write_1h": 7}),
        ({"input_audio": 9, "cache_read_audio": 4}, BOTH,
         {"input_audio": 5, "cache_read_audio": 4}),
        ({"output": 210, "reasoning": 64}, BOTH, {"output": 146, "reasoning": 64}),
        ({"output": 210, "reasoning": 64}, NEITHER, {"output": 210, "reasoning": 64}),
        ({"input": 1, "cache_read": 0, "reasoning": 0}, SILENT, {"input": 1}),
        ({"audio_second": "1.50"}, SILENT, {"audio_second": "1.50"}),
    ],
)  # fmt: skip
def test_counts_become_disjoint(counts, flags, disjoint):
    """No token stands under two meters, whichever way the counts were told."""
    assert disjoint_counts(counts, flags) == disjoint


@pytest.mark.parametrize(
    ("counts", "flags", "code"),
    [
        ({"input": 1248, "cache_read": 1024}, SILENT, "input_includes_cache_missing"),
        ({"output": 9, "reasoning": 1}, SILENT, "output_includes_reasoning_missing"),
        ({"input": 9, "cache_read": 4, "cache_write": 6}, BOTH, "contradicting_counts"),
        ({"cache_read": 4}, BOTH, "contradicting_counts"),
        ({}, SILENT, "no_usage"),
        ({"input": 0}, SILENT, "no_usage"),
        ({"tokens": 1}, SILENT, "unknown_meter"),
        ({"input": -1}, SILENT, "invalid_event"),
        ({"input": True}, SILENT, "invalid_event"),
        ({"input": "1.5"}, SILENT, "invalid_event"),
        ({"input": 10**13}, SILENT, "invalid_event"),
        ({"input": 1.0}, SILENT, "invalid_event"),
    ],
)
def test_counts_are_never_guessed(counts, flags, code):
    """A count whose meaning is not said, or that contradicts another, is refused by name."""
    with pytest.raises(EventRefused) as refused:
        disjoint_counts(counts, flags)

    assert refused.value.code == code


def test_a_contradiction_names_both_numbers():
    """Whoever mends it sees which count cannot hold which."""
    with pytest.raises(EventRefused, match=r"input is 9, which cannot hold .* = 10"):
        disjoint_counts({"input": 9, "cache_read": 4, "cache_write": 6}, BOTH)


@pytest.mark.parametrize(
    "spans",
    [read_binary_spans(BINARY, is_wanted), read_json_spans(JSON, is_wanted)],
    ids=["protobuf", "json"],
)
def test_spans_of_an_exporter_are_read(spans):
    """One call of a model is usage; its agent, a plain request and a failed call are not."""
    found = list(spans)
    told, ignored = read_spans(found, SILENT)

    assert len(found) == 4
    assert ignored == 3
    assert told == [
        OutsideUsage(
            source="otlp",
            id="5b8efff798038103d269b633813fc60c/1000000000000002",
            api="ingest.otlp",
            started_at_us=1_795_428_000_000_000,
            ended_at_us=1_795_428_001_500_000,
            provider="openai",
            model_requested="gpt-5",
            model="gpt-5-2025-08-07",
            provider_request_id="chatcmpl-AbCdEf0123456789",
            counts={"input": 224, "cache_read": 1024, "output": 146, "reasoning": 64},
            owner=told[0].owner,
        )
    ]
    assert told[0].owner.project == "rag"
    assert told[0].owner.user == "u-7"
    assert told[0].owner.tags == {"env": "prod"}


def test_prompts_in_spans_are_not_decoded():
    """Attributes that say nothing of usage are passed over."""
    for spans in (read_binary_spans(BINARY, is_wanted), read_json_spans(JSON, is_wanted)):
        assert "prompt" not in repr(list(spans))


@given(cut=st.integers(min_value=0, max_value=len(BINARY) - 1))
def test_a_request_that_breaks_off_is_refused(cut):
    """Half a request is no request, unless it ends where a message of it does."""
    try:
        spans = list(read_binary_spans(BINARY[:cut], is_wanted))
    except EventRefused:
        return

    assert cut == 0
    assert spans == []


@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    """No input breaks a reader."""
    for read in (read_binary_spans, read_json_spans):
        with contextlib.suppress(EventRefused):
            list(read(body, is_wanted))
    with contextlib.suppress(EventRefused):
        read_batch(body)


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"gen_ai__usage__cache_read.input_tokens": 5}, "input_includes_cache_missing"),
        ({"gen_ai__usage__prompt_tokens": 11}, "contradicting_counts"),
        ({"gen_ai__usage__video.input_tokens": 1}, "unknown_meter"),
        ({"gen_ai__usage__input_tokens": 1.5}, "invalid_event"),
        ({"gen_ai__operation__name": None}, "operation_missing"),
        ({"gen_ai__provider__name": None}, "invalid_event"),
        ({"gen_ai__request__model": None}, "invalid_event"),
        ({"taximeter__input_includes_cache": "maybe"}, "invalid_event"),
        ({"gen_ai__usage__input_tokens": 0}, "no_usage"),
    ],
)
def test_spans_that_cannot_be_booked_say_why(attributes, code):
    """What is missing or contradicts itself is refused by name, never guessed."""
    one = span(**attributes)
    for name in [name for name, value in one.attributes.items() if value is None]:
        del one.attributes[name]

    told = read_one(one)

    assert isinstance(told, Unreadable)
    assert told.code == code


def test_a_flag_of_the_request_counts_where_the_span_has_none():
    """The span's own word wins over the request's."""
    cached = {"gen_ai__usage__cache_read.input_tokens": 4}

    assert read_one(span(**cached), BOTH).counts == {"input": 6, "cache_read": 4}
    assert read_one(span(taximeter__input_includes_cache=False, **cached), BOTH).counts == {
        "input": 10,
        "cache_read": 4,
    }


def test_an_answer_tells_how_many_spans_failed():
    """A partial success is written as OTLP says."""
    reasons = tell_reasons([Unreadable(source="otlp", id="a/b", code="c", detail="d")] * 12)
    ((number, _, partial),) = read_fields(memoryview(write_binary_answer(12, reasons)))
    fields = {n: value for n, _, value in read_fields(partial)}

    assert number == 1
    assert fields[1] == 12
    assert bytes(fields[2]).decode() == reasons
    assert reasons.endswith("and 2 more")
    assert write_binary_answer(0, "") == b""


EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "taximeter.usage",
    "source": "batch-job",
    "id": "1",
    "time": "2026-11-23T11:00:00+01:00",
    "data": {"provider": "openai", "model": "gpt-5", "usage": {"input": 3}},
}


@pytest.mark.parametrize(
    "change",
    [
        {"specversion": "0.3"},
        {"type": "other"},
        {"source": ""},
        {"id": 1},
        {"id": "x" * 501},
        {"id": "a\x00b"},
        {"time": None},
        {"time": "yesterday"},
        {"time": "2026-11-23T10:00:00"},
        {"data": None},
        {"data": {**EVENT["data"], "modle": "x"}},
        {"data": {**EVENT["data"], "usage": {"input": "many"}}},
        {"data": {**EVENT["data"], "duration_ms": -1}},
        {"data": {**EVENT["data"], "model": None}},
        {"data_base64": "e30="},
    ],
)
def test_events_that_are_no_usage_are_refused(change):
    """Every field is checked, and a misspelt one is not passed over."""
    told = read_event({**EVENT, **change})

    assert isinstance(told, Unreadable)
    assert told.code == "invalid_event"
    assert told.detail


def test_an_event_is_read():
    """Attributes and data become one call at its own instant."""
    told = read_event(EVENT)

    assert isinstance(told, OutsideUsage)
    assert told.started_at_us == told.ended_at_us == 1_795_428_000_000_000
    assert told.counts == {"input": 3}


def test_the_same_instant_in_another_zone_is_the_same_event():
    """A repetition may be written otherwise; another count may not."""
    one = read_event(EVENT)
    same = read_event({**EVENT, "time": "2026-11-23T10:00:00Z", "subject": "x"})
    other = read_event({**EVENT, "data": {**EVENT["data"], "usage": {"input": 4}}})

    assert one.content_digest == same.content_digest
    assert one.name_digest == other.name_digest
    assert one.content_digest != other.content_digest
