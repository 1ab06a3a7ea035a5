"""Reads OTLP traces, as JSON and as protocol buffers, down to the attributes that tell of usage.

Pure. Must never read a prompt or an answer: attributes that are not asked for are not decoded.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from gateway.ingest.protobuf import (
    BYTES,
    FIXED64,
    VARINT,
    MessageBroken,
    read_fields,
    to_double,
    to_signed,
)
from gateway.ingest.usage import EventRefused

Value = str | int | float | bool
# Tells which attributes are wanted.
Wanted = Callable[[str], bool]

ERROR_STATUS: Final = 2


class TraceSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One span, without what nobody asked for.

    Attributes:
        trace_id: Hexadecimal text.
        span_id: Hexadecimal text.
        start_ns: Nanoseconds since 1970.
        end_ns: Nanoseconds since 1970.
        status: 2 for an error.
        attributes: Those of the resource, overlaid by its own.
    """

    trace_id: str
    span_id: str
    start_ns: int
    end_ns: int
    status: int
    attributes: dict[str, Value]


class _JsonAny(msgspec.Struct, rename="camel", kw_only=True):
    string_value: str | None = None
    int_value: str | int | None = None
    double_value: Any = None
    bool_value: bool | None = None


class _JsonPair(msgspec.Struct, kw_only=True):
    key: str = ""
    value: _JsonAny | None = None


class _JsonStatus(msgspec.Struct, kw_only=True):
    code: int | str = 0


class _JsonSpan(msgspec.Struct, rename="camel", kw_only=True):
    trace_id: str = ""
    span_id: str = ""
    start_time_unix_nano: str | int = 0
    end_time_unix_nano: str | int = 0
    attributes: list[_JsonPair] = []
    status: _JsonStatus | None = None


class _JsonScope(msgspec.Struct, kw_only=True):
    spans: list[_JsonSpan] = []


class _JsonResource(msgspec.Struct, kw_only=True):
    attributes: list[_JsonPair] = []


class _JsonResourceSpans(msgspec.Struct, rename="camel", kw_only=True):
    resource: _JsonResource | None = None
    scope_spans: list[_JsonScope] = []


class _JsonTraces(msgspec.Struct, rename="camel", kw_only=True):
    resource_spans: list[_JsonResourceSpans]


_DECODER: Final = msgspec.json.Decoder(_JsonTraces)


def read_json_spans(body: bytes, wanted: Wanted) -> Iterator[TraceSpan]:
    """Read an OTLP request in JSON.

    Args:
        body: An ``ExportTraceServiceRequest``.
        wanted: Which attributes to read.

    Yields:
        Every span.

    Raises:
        EventRefused: It is no such request.
    """
    try:
        traces = _DECODER.decode(body)
        for group in traces.resource_spans:
            shared = (
                {} if group.resource is None else _json_values(group.resource.attributes, wanted)
            )
            for span in (one for scope in group.scope_spans for one in scope.spans):
                status = 0 if span.status is None else span.status.code
                yield TraceSpan(
                    trace_id=span.trace_id.lower(),
                    span_id=span.span_id.lower(),
                    start_ns=int(span.start_time_unix_nano),
                    end_ns=int(span.end_time_unix_nano),
                    status=ERROR_STATUS if status in (ERROR_STATUS, "STATUS_CODE_ERROR") else 0,
                    attributes={**shared, **_json_values(span.attributes, wanted)},
                )
    except (msgspec.MsgspecError, RecursionError, ValueError) as wrong:
        raise EventRefused(
            "invalid_event", f"not an OTLP trace request in JSON: {wrong}"
        ) from wrong


def read_binary_spans(body: bytes, wanted: Wanted) -> Iterator[TraceSpan]:
    """Read an OTLP request in protocol buffers.

    Args:
        body: An ``ExportTraceServiceRequest``.
        wanted: Which attributes to read.

    Yields:
        Every span.

    Raises:
        EventRefused: It is no such request.

    Source:
        https://github.com/open-telemetry/opentelemetry-proto, trace/v1/trace.proto, checked
        2026-11-23.
    """
    try:
        for group in _parts(memoryview(body), 1):
            shared: dict[str, Value] = {}
            for resource in _parts(group, 1):
                for pair in _parts(resource, 1):
                    _take_pair(pair, wanted, shared)
            for scope in _parts(group, 2):
                for span in _parts(scope, 2):
                    yield _binary_span(span, wanted, shared)
    except (MessageBroken, UnicodeDecodeError) as wrong:
        raise EventRefused("invalid_event", f"not an OTLP trace request: {wrong}") from wrong


def _json_values(pairs: list[_JsonPair], wanted: Wanted) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for pair in pairs:
        if pair.value is None or not wanted(pair.key):
            continue
        value = pair.value
        if value.string_value is not None:
            found[pair.key] = value.string_value
        elif value.int_value is not None:
            found[pair.key] = int(value.int_value)
        elif value.bool_value is not None:
            found[pair.key] = value.bool_value
        elif isinstance(value.double_value, int | float):
            found[pair.key] = float(value.double_value)
    return found


def _parts(message: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, wire, value in read_fields(message):
        if number == wanted:
            if wire != BYTES or isinstance(value, int):
                raise MessageBroken(f"field {number} is no message")
            yield value


def _binary_span(message: memoryview, wanted: Wanted, shared: dict[str, Value]) -> TraceSpan:
    ids = {1: "", 2: ""}
    times = {7: 0, 8: 0}
    status = 0
    attributes = dict(shared)
    for number, wire, value in read_fields(message):
        if isinstance(value, int):
            if number in times and wire == FIXED64:
                times[number] = value
        elif number in ids:
            ids[number] = value.hex()
        elif number == 9:
            _take_pair(value, wanted, attributes)
        elif number == 15:
            codes = [v for n, w, v in read_fields(value) if n == 3 and w == VARINT]
            status = ERROR_STATUS if ERROR_STATUS in codes[-1:] else 0
    return TraceSpan(
        trace_id=ids[1],
        span_id=ids[2],
        start_ns=times[7],
        end_ns=times[8],
        status=status,
        attributes=attributes,
    )


def _take_pair(pair: memoryview, wanted: Wanted, found: dict[str, Value]) -> None:
    parts: dict[int, memoryview] = {}
    for number, _, value in read_fields(pair):
        if not isinstance(value, int):
            parts[number] = value
    key = bytes(parts.get(1, b"")).decode()
    if 2 not in parts or not wanted(key):
        return
    for number, wire, value in read_fields(parts[2]):
        known = _read_value(number, wire, value)
        if known is not None:
            found[key] = known


def _read_value(number: int, wire: int, value: int | memoryview) -> Value | None:
    """Read a member of ``AnyValue``; lists and objects say nothing of usage."""
    if not isinstance(value, int):
        return bytes(value).decode() if number == 1 else None
    match number, wire:
        case 2, 0:
            return bool(value)
        case 3, 0:
            return to_signed(value)
        case 4, 1:
            return to_double(value)
        case _:
            return None
