"""Records as OpenTelemetry spans and metrics, in the JSON of OTLP.

Pure. Must never hold a prompt, an answer, a secret, or who the end user was.

Source:
    https://opentelemetry.io/docs/specs/semconv/gen-ai/ for names, and
    https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding for the shape, 2026-11-23.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from gateway.ledger.record import LedgerRecord
from pricing.money import PICO_PER_UNIT, pico_to_text

_SCOPE: Final = "taximeter"
_SPAN_KIND_CLIENT: Final = 3
_STATUS_ERROR: Final = 2
_DELTA: Final = 1
_ERRORS_FROM: Final = 400

# gen_ai.provider.name of each kind of provider; what speaks OpenAI's API and is nobody in
# particular goes by the id it has in the settings.
PROVIDER_NAMES: Final[Mapping[str, str]] = {
    "openai": "openai",
    "azure": "azure.ai.openai",
    "anthropic": "anthropic",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "bedrock": "aws.bedrock",
    "cohere": "cohere",
    "mistral": "mistral_ai",
    "deepseek": "deepseek",
    "xai": "x_ai",
    "groq": "groq",
    "perplexity": "perplexity",
}
_OPERATIONS: Final = (
    ("embed", "embeddings"),
    ("generate", "generate_content"),
    ("completions", "text_completion"),
)
# Bucket edges as the conventions give them.
_TOKEN_EDGES: Final = tuple(4**power for power in range(14))
_DURATION_EDGES: Final = tuple(0.01 * 2**power for power in range(14))
_CACHE_ATTRIBUTES: Final = {
    "cache_read": "gen_ai.usage.cache_read.input_tokens",
    "cache_write": "gen_ai.usage.cache_creation.input_tokens",
}

_Attributes = dict[str, Any]


def operation_of(api: str) -> str:
    """Name what a call does, as the conventions do.

    Args:
        api: As in the record.

    Returns:
        ``chat`` unless the name says something else.
    """
    name = api.rpartition(".")[2]
    return next((operation for part, operation in _OPERATIONS if part in name), "chat")


def write_traces(
    records: Iterable[LedgerRecord], kinds: Mapping[str, str], resource: Mapping[str, str]
) -> bytes:
    """Write one span a call.

    Args:
        records: What was settled.
        kinds: Kind of each provider.
        resource: Who sends it.

    Returns:
        An ``ExportTraceServiceRequest`` in JSON.
    """
    spans = [_span_of(record, kinds) for record in records]
    scoped = {"scope": {"name": _SCOPE}, "spans": spans}
    whole = {"resource": _resource(resource), "scopeSpans": [scoped]}
    return json.dumps({"resourceSpans": [whole]}, separators=(",", ":")).encode()


def write_metrics(
    records: Sequence[LedgerRecord], kinds: Mapping[str, str], resource: Mapping[str, str]
) -> bytes:
    """Write what the calls of one message come to: tokens, durations and cost.

    Args:
        records: What was settled, at least one.
        kinds: Kind of each provider.
        resource: Who sends it.

    Returns:
        An ``ExportMetricsServiceRequest`` in JSON, with the differences since the message before.
    """
    tokens: dict[str, _Points] = {}
    durations: dict[str, _Points] = {}
    costs: dict[str, tuple[_Attributes, int]] = {}
    for record in records:
        base = _base(record, kinds)
        seconds = (record.ended_at_us - record.started_at_us) / 1e6
        error = _error_of(record)
        timed = base if error is None else {**base, "error.type": error}
        _points(durations, timed, _DURATION_EDGES).add(seconds)
        for kind, total in (("input", record.input_total), ("output", record.output_total)):
            if total is not None and record.usage:
                _points(tokens, {**base, "gen_ai.token.type": kind}, _TOKEN_EDGES).add(total)
        if record.cost_pico is not None:
            whose = {**base, "taximeter.team": record.team, "taximeter.project": record.project}
            known = {name: value for name, value in whose.items() if value is not None}
            key = json.dumps(known)
            costs[key] = known, costs.get(key, (known, 0))[1] + record.cost_pico
    span = _span_of_time(records)
    metrics = [
        _histogram("gen_ai.client.token.usage", "{token}", tokens, span),
        _histogram("gen_ai.client.operation.duration", "s", durations, span),
        _cost(costs, span),
    ]
    scoped = {"scope": {"name": _SCOPE}, "metrics": metrics}
    whole = {"resource": _resource(resource), "scopeMetrics": [scoped]}
    return json.dumps({"resourceMetrics": [whole]}, separators=(",", ":")).encode()


def _span_of(record: LedgerRecord, kinds: Mapping[str, str]) -> dict[str, Any]:
    digest = sha256(record.id.encode()).hexdigest()
    given: _Attributes = {
        **_base(record, kinds),
        "gen_ai.response.id": record.provider_request_id,
        "taximeter.request.id": record.id,
        "taximeter.team": record.team,
        "taximeter.project": record.project,
        "taximeter.outcome": record.outcome,
        "taximeter.stream": record.stream,
        "taximeter.basis": record.basis,
        "taximeter.price_version": record.price_version,
        "http.response.status_code": record.http_status,
    }
    if record.usage:
        given["gen_ai.usage.input_tokens"] = record.input_total
        given["gen_ai.usage.output_tokens"] = record.output_total
    for meter, name in _CACHE_ATTRIBUTES.items():
        given[name] = record.usage.get(meter)
    if record.cost_pico is not None:
        # Text, as money is everywhere: a collector's float would round it.
        given["taximeter.cost"] = pico_to_text(record.cost_pico)
        given["taximeter.currency"] = record.currency
    given |= {f"taximeter.tag.{name}": value for name, value in record.tags.items()}
    error = _error_of(record)
    span = {
        "traceId": digest[:32],
        "spanId": digest[32:48],
        "name": f"{operation_of(record.api)} {record.model_requested or ''}".rstrip(),
        "kind": _SPAN_KIND_CLIENT,
        "startTimeUnixNano": str(record.started_at_us * 1000),
        "endTimeUnixNano": str(record.ended_at_us * 1000),
        "attributes": _attributes({**given, "error.type": error}),
    }
    return span if error is None else {**span, "status": {"code": _STATUS_ERROR}}


def _base(record: LedgerRecord, kinds: Mapping[str, str]) -> _Attributes:
    provider = record.provider or ""
    named = PROVIDER_NAMES.get(kinds.get(provider, ""), provider)
    return {
        "gen_ai.operation.name": operation_of(record.api),
        "gen_ai.provider.name": named or None,
        "gen_ai.request.model": record.model_requested,
        "gen_ai.response.model": record.model if record.usage else None,
    }


def _error_of(record: LedgerRecord) -> str | None:
    status = record.http_status
    if status is not None and status >= _ERRORS_FROM:
        return str(status)
    return None if record.outcome == "ok" else record.outcome


def _attributes(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": name, "value": _value(value)} for name, value in given.items() if value is not None
    ]


def _value(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        # 64-bit integers are text in this JSON.
        return {"intValue": str(value)}
    return {"stringValue": str(value)}


def _resource(resource: Mapping[str, str]) -> dict[str, Any]:
    return {"attributes": _attributes(resource)}


class _Points:
    """One histogram of a message."""

    __slots__ = ("attributes", "buckets", "count", "edges", "total")

    def __init__(self, attributes: _Attributes, edges: Sequence[float]) -> None:
        self.attributes = attributes
        self.edges = edges
        self.buckets = [0] * (len(edges) + 1)
        self.count = 0
        self.total = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect_left(self.edges, value)] += 1
        self.count += 1
        self.total += value


def _points(known: dict[str, _Points], attributes: _Attributes, edges: Sequence[float]) -> _Points:
    key = json.dumps(attributes)
    points = known.get(key)
    if points is None:
        points = known[key] = _Points(attributes, edges)
    return points


def _span_of_time(records: Sequence[LedgerRecord]) -> dict[str, str]:
    first = min(record.started_at_us for record in records)
    last = max(record.ended_at_us for record in records)
    return {"startTimeUnixNano": str(first * 1000), "timeUnixNano": str(last * 1000)}


def _histogram(
    name: str, unit: str, points: Mapping[str, _Points], span: Mapping[str, str]
) -> dict[str, Any]:
    shown = [
        {
            **span,
            "attributes": _attributes(one.attributes),
            "count": str(one.count),
            "sum": one.total,
            "bucketCounts": [str(count) for count in one.buckets],
            "explicitBounds": list(one.edges),
        }
        for one in points.values()
    ]
    histogram = {"aggregationTemporality": _DELTA, "dataPoints": shown}
    return {"name": name, "unit": unit, "histogram": histogram}


def _cost(costs: Mapping[str, tuple[_Attributes, int]], span: Mapping[str, str]) -> dict[str, Any]:
    # A float, because OTLP has nothing else; the ledger has the exact one.
    points = [
        {**span, "attributes": _attributes(attributes), "asDouble": pico / PICO_PER_UNIT}
        for attributes, pico in costs.values()
    ]
    total = {"aggregationTemporality": _DELTA, "isMonotonic": True, "dataPoints": points}
    return {"name": "taximeter.cost", "unit": "USD", "sum": total}
