"""Records as OpenTelemetry spans and metrics: names, shapes, and what is left out."""

import json
from typing import Any

import pytest

from gateway.ledger.record import LedgerRecord
from gateway.otlp_messages import operation_of, write_metrics, write_traces

KINDS = {"openai": "openai", "claude": "anthropic", "mine": "vllm"}
RESOURCE = {"service.name": "taximeter"}


def record(**changes: Any) -> LedgerRecord:
    """One settled call."""
    fields: dict[str, Any] = {
        "id": "01J0000000000000000000TEST", "started_at_us": 1_000_000, "ended_at_us": 1_500_000,
        "outcome": "ok", "http_status": 200, "stream": True, "api": "openai.chat",
        "provider": "openai", "model_requested": "gpt-5", "model": "gpt-5-2025-08-07",
        "provider_request_id": "chatcmpl-1", "organization": "acme", "team": "search",
        "project": "rag", "key": "rag-ci", "user": "u-17", "tags": {"env": "prod"},
        "usage": {"input": 224, "cache_read": 1024, "output": 146, "reasoning": 64},
        "input_total": 1248, "output_total": 210, "basis": "reported",
        "cost_pico": 2_508_000_000, "list_cost_pico": 2_508_000_000,
        "price_version": "2026-11-20.1", "cost_status": "final",
    }  # fmt: skip
    return LedgerRecord(**{**fields, **changes})


UNKNOWN: dict[str, Any] = {
    "usage": {}, "input_total": None, "output_total": None, "basis": "unknown",
    "cost_pico": None, "list_cost_pico": None, "cost_status": "unknown",
}  # fmt: skip


def span_of(one: LedgerRecord) -> dict[str, Any]:
    """The only span of a message."""
    told = json.loads(write_traces([one], KINDS, RESOURCE))
    (whole,) = told["resourceSpans"]
    assert [{"key": "service.name", "value": {"stringValue": "taximeter"}}] == whole["resource"][
        "attributes"
    ]
    (span,) = whole["scopeSpans"][0]["spans"]
    return span


def attributes_of(holder: dict[str, Any]) -> dict[str, Any]:
    """Attributes as a mapping."""
    return {one["key"]: next(iter(one["value"].values())) for one in holder["attributes"]}


def test_a_call_is_a_span_by_the_conventions() -> None:
    """Name, kind, times, counts and cost."""
    span = span_of(record())
    told = attributes_of(span)

    assert ("chat gpt-5", 3) == (span["name"], span["kind"])
    assert ("1000000000", "1500000000") == (span["startTimeUnixNano"], span["endTimeUnixNano"])
    assert (32, 16) == (len(span["traceId"]), len(span["spanId"]))
    assert "status" not in span
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.response.model": "gpt-5-2025-08-07",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.usage.input_tokens": "1248",
        "gen_ai.usage.output_tokens": "210",
        "gen_ai.usage.cache_read.input_tokens": "1024",
        "taximeter.cost": "0.002508",
        "taximeter.team": "search",
        "taximeter.stream": True,
        "taximeter.tag.env": "prod",
        "taximeter.request.id": "01J0000000000000000000TEST",
    }.items() <= told.items()
    assert "error.type" not in told


def test_unknown_is_left_out_and_never_zero() -> None:
    """Neither counts nor cost of a call nobody could meter."""
    told = attributes_of(span_of(record(**UNKNOWN)))

    assert not [name for name in told if name.startswith("gen_ai.usage") or name.endswith("cost")]


def test_nothing_of_a_person_or_a_key_is_sent() -> None:
    """The end user and the key stay in the ledger."""
    one = record()
    sent = write_traces([one], KINDS, RESOURCE) + write_metrics([one], KINDS, RESOURCE)

    assert b"u-17" not in sent
    assert b"rag-ci" not in sent


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"http_status": 429, "outcome": "refused"}, "429"),
        ({"http_status": 502, "outcome": "upstream_error"}, "502"),
        ({"outcome": "client_disconnected"}, "client_disconnected"),
        ({"http_status": None, "outcome": "aborted"}, "aborted"),
    ],
    ids=str,
)
def test_what_went_wrong_is_an_error(changes: dict[str, Any], error: str) -> None:
    """By its status, or else by how it ended."""
    span = span_of(record(**changes))

    assert 2 == span["status"]["code"]
    assert error == attributes_of(span)["error.type"]


@pytest.mark.parametrize(
    ("api", "operation"),
    [
        ("openai.chat", "chat"),
        ("openai.responses", "chat"),
        ("anthropic.messages", "chat"),
        ("openai.embeddings", "embeddings"),
        ("gemini.generate", "generate_content"),
        ("openai.completions", "text_completion"),
    ],
)
def test_an_api_has_its_operation(api: str, operation: str) -> None:
    """One of the words of the conventions."""
    assert operation == operation_of(api)


@pytest.mark.parametrize(
    ("provider", "name"), [("claude", "anthropic"), ("mine", "mine"), (None, None)]
)
def test_a_provider_goes_by_its_name_in_the_conventions(
    provider: str | None, name: str | None
) -> None:
    """And by its own id where they have none."""
    assert name == attributes_of(span_of(record(provider=provider))).get("gen_ai.provider.name")


def test_metrics_add_the_calls_of_a_message_up() -> None:
    """Sums, counts and buckets; the unknown is in the durations alone."""
    records = [record(), record(usage={"input": 2, "output": 1}, input_total=2, output_total=1)]
    told = json.loads(write_metrics([*records, record(**UNKNOWN)], KINDS, RESOURCE))
    metrics = {one["name"]: one for one in told["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]}
    tokens = metrics["gen_ai.client.token.usage"]["histogram"]["dataPoints"]
    by_type = {attributes_of(one)["gen_ai.token.type"]: one for one in tokens}
    durations = metrics["gen_ai.client.operation.duration"]["histogram"]
    (cost,) = metrics["taximeter.cost"]["sum"]["dataPoints"]

    assert {"input": 1250.0, "output": 211.0} == {t: one["sum"] for t, one in by_type.items()}
    assert "2" == by_type["input"]["count"]
    assert len(by_type["input"]["explicitBounds"]) + 1 == len(by_type["input"]["bucketCounts"])
    assert 2 == sum(map(int, by_type["input"]["bucketCounts"]))
    assert 3 == sum(int(one["count"]) for one in durations["dataPoints"])
    assert 1 == durations["aggregationTemporality"]
    assert 0.005016 == cost["asDouble"]
    assert "search" == attributes_of(cost)["taximeter.team"]
