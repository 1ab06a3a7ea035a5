"""Reads CloudEvents of usage: one as JSON, several as JSON, or one in headers and body. Pure.

Must never read a field it does not name: a misspelt one is refused.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from gateway.clock import epoch_us
from gateway.ingest.usage import (
    TAGS_MAX,
    EventRefused,
    Flags,
    OutsideUsage,
    Owner,
    Told,
    Unreadable,
    checked_text,
    disjoint_counts,
)

EVENT_TYPE: Final = "taximeter.usage"
API: Final = "ingest.cloudevents"
STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"
_VERSION: Final = "1.0"
_DURATION_MS_MAX: Final = 7 * 24 * 3600 * 1000


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    provider: Any = None
    model: Any = None
    model_requested: Any = None
    provider_request_id: Any = None
    usage: dict[str, int | str]
    input_includes_cache: bool | None = None
    output_includes_reasoning: bool | None = None
    service_tier: Any = None
    region: Any = None
    stream: bool = False
    outcome: Literal["ok", "upstream_error"] = "ok"
    duration_ms: int = 0
    team: Any = None
    project: Any = None
    key: Any = None
    user: Any = None
    tags: dict[str, str] = {}


def read_batch(body: bytes) -> list[Told]:
    """Read a batch.

    Args:
        body: JSON array of CloudEvents.

    Returns:
        One for each, in order.

    Raises:
        EventRefused: It is no such array.
    """
    events = _decode(body)
    if not isinstance(events, list):
        raise EventRefused("invalid_event", "a batch is a JSON array of CloudEvents")
    return [read_event(event) for event in events]


def read_structured(body: bytes) -> Told:
    """Read one CloudEvent that is all JSON.

    Args:
        body: JSON object with the attributes and ``data``.

    Returns:
        What it tells.

    Raises:
        EventRefused: It is no JSON.
    """
    return read_event(_decode(body))


def read_binary(headers: Mapping[str, str], body: bytes) -> Told:
    """Read one CloudEvent whose attributes are headers.

    Args:
        headers: By name in lower case; those that start with ``ce-`` are the attributes.
        body: Its data, JSON.

    Returns:
        What it tells.

    Raises:
        EventRefused: The data is no JSON.
    """
    attributes: dict[str, Any] = {
        name.removeprefix("ce-"): value for name, value in headers.items() if name.startswith("ce-")
    }
    return read_event({**attributes, "data": _decode(body)})


def read_event(event: object) -> Told:
    """Read one CloudEvent.

    Args:
        event: Decoded JSON.

    Returns:
        What it tells.
    """
    if not isinstance(event, dict):
        return Unreadable(source="", id="", code="invalid_event", detail="an event is an object")
    try:
        return _read(event)
    except EventRefused as refused:
        return Unreadable(
            source=_shown(event.get("source")),
            id=_shown(event.get("id")),
            code=refused.code,
            detail=str(refused),
        )


def _read(event: Mapping[str, Any]) -> OutsideUsage:
    if event.get("specversion") != _VERSION:
        raise EventRefused("invalid_event", f"specversion must be {_VERSION}")
    if event.get("type") != EVENT_TYPE:
        raise EventRefused("invalid_event", f"type must be {EVENT_TYPE}")
    data = _read_data(event)
    started_us = epoch_us(_instant(event.get("time")))
    flags = Flags(
        input_includes_cache=data.input_includes_cache,
        output_includes_reasoning=data.output_includes_reasoning,
    )
    if not 0 <= data.duration_ms <= _DURATION_MS_MAX:
        raise EventRefused("invalid_event", f"data.duration_ms is 0 to {_DURATION_MS_MAX}")
    model = checked_text("data.model", data.model, is_required=True)
    return OutsideUsage(
        source=checked_text("source", event.get("source"), is_required=True) or "",
        id=checked_text("id", event.get("id"), is_required=True) or "",
        api=API,
        started_at_us=started_us,
        ended_at_us=started_us + data.duration_ms * 1000,
        provider=checked_text("data.provider", data.provider, is_required=True) or "",
        model_requested=checked_text("data.model_requested", data.model_requested) or model,
        model=model,
        provider_request_id=checked_text("data.provider_request_id", data.provider_request_id),
        stream=data.stream,
        outcome=data.outcome,
        counts=disjoint_counts(data.usage, flags),
        service_tier=checked_text("data.service_tier", data.service_tier),
        region=checked_text("data.region", data.region),
        owner=Owner(
            team=checked_text("data.team", data.team),
            project=checked_text("data.project", data.project),
            key=checked_text("data.key", data.key),
            user=checked_text("data.user", data.user),
            tags=_tags(data.tags),
        ),
    )


def _read_data(event: Mapping[str, Any]) -> _Data:
    if "data_base64" in event:
        raise EventRefused("invalid_event", "data must be JSON, not base64")
    try:
        return msgspec.convert(event.get("data"), _Data)
    except msgspec.ValidationError as wrong:
        raise EventRefused("invalid_event", f"data: {wrong}") from wrong


def _instant(text: object) -> datetime:
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) and "T" in text.upper() else None
        if at is not None and at.tzinfo is not None and at.year > 1970:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # said below, for every way of not being an instant
    raise EventRefused(
        "invalid_event", "time must say when the call began, such as 2026-11-23T10:00:00Z"
    )


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    if len(tags) > TAGS_MAX:
        raise EventRefused("invalid_event", f"data.tags: at most {TAGS_MAX}")
    return dict(sorted(tags.items()))


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return text[:200].encode("utf-8", "replace").decode()


def _decode(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as wrong:
        raise EventRefused("invalid_event", f"the body is not JSON: {wrong}") from wrong
