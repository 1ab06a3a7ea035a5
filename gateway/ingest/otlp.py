"""From OTLP spans of GenAI calls to usage. Pure.

Must never count a call twice: only spans of single calls of a model are usage, not those of the
agents and chains around them, which repeat what their calls used.

Source:
    https://opentelemetry.io/docs/specs/semconv/gen-ai/, checked 2026-11-23.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from gateway.ingest.otlp_spans import ERROR_STATUS, TraceSpan, Value
from gateway.ingest.protobuf import write_bytes, write_number
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
from pricing.meters import Meter

API: Final = "ingest.otlp"
SOURCE: Final = "otlp"
_CALLS: Final = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
_USAGE: Final = "gen_ai.usage."
_TAG: Final = "taximeter.tag."
_NAMED: Final = frozenset(
    {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.system",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.response.id",
        "gen_ai.openai.response.service_tier",
        "openai.response.service_tier",
        "error.type",
        "user.id",
        "enduser.id",
    }
)
_PREFIXES: Final = (_USAGE, "taximeter.")
# Names of today's conventions first, then those of earlier ones and of wide-spread libraries.
_COUNTS: Final[Mapping[str, Meter]] = {
    "input_tokens": Meter.INPUT,
    "prompt_tokens": Meter.INPUT,
    "output_tokens": Meter.OUTPUT,
    "completion_tokens": Meter.OUTPUT,
    "cache_read.input_tokens": Meter.CACHE_READ,
    "cache_read_input_tokens": Meter.CACHE_READ,
    "input_tokens.cached": Meter.CACHE_READ,
    "cache_creation.input_tokens": Meter.CACHE_WRITE,
    "cache_creation_input_tokens": Meter.CACHE_WRITE,
    "input_tokens.cache_write": Meter.CACHE_WRITE,
    "reasoning.output_tokens": Meter.REASONING,
    "output_tokens.reasoning": Meter.REASONING,
}
_TOTALS: Final = frozenset({"total_tokens"})
# Names of the conventions that are not those of the price book.
_PROVIDERS: Final[Mapping[str, str]] = {
    "aws.bedrock": "bedrock",
    "az.ai.inference": "azure",
    "az.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "gemini",
    "gcp.gen_ai": "gemini",
    "gcp.vertex_ai": "vertex",
    "ibm.watsonx.ai": "watsonx",
    "mistral_ai": "mistral",
    "vertex_ai": "vertex",
    "x_ai": "xai",
}
_NS_IN_US: Final = 1000
_REASONS_MAX: Final = 10


def is_wanted(name: str) -> bool:
    """Tell whether an attribute says something of usage.

    Args:
        name: Its name.

    Returns:
        Whether it is to be decoded.
    """
    return name in _NAMED or name.startswith(_PREFIXES)


def read_spans(spans: Iterable[TraceSpan], flags: Flags) -> tuple[list[Told], int]:
    """Read the usage that spans tell of.

    Args:
        spans: Any spans.
        flags: What counts mean where neither span nor resource says so.

    Returns:
        What single calls of models used, and how many spans are something else.
    """
    told: list[Told] = []
    ignored = 0
    for span in spans:
        found: Told | None
        try:
            found = _read(span, flags)
        except EventRefused as refused:
            found = Unreadable(
                source=SOURCE, id=_id_of(span), code=refused.code, detail=str(refused)
            )
        if found is None:
            ignored += 1
        else:
            told.append(found)
    return told, ignored


def write_json_answer(rejected: int, reasons: str) -> dict[str, object]:
    """Write what became of a request in OTLP's JSON.

    Args:
        rejected: Spans that are not booked.
        reasons: Why.

    Returns:
        An ``ExportTraceServiceResponse``.
    """
    if not rejected:
        return {}
    return {"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": reasons}}


def write_binary_answer(rejected: int, reasons: str) -> bytes:
    """Write what became of a request in OTLP's protocol buffers.

    Args:
        rejected: Spans that are not booked.
        reasons: Why.

    Returns:
        An ``ExportTraceServiceResponse``.
    """
    if not rejected:
        return b""
    return write_bytes(1, write_number(1, rejected) + write_bytes(2, reasons.encode()))


def _read(span: TraceSpan, defaults: Flags) -> OutsideUsage | None:
    given = span.attributes
    counts = _counts(given)
    operation = given.get("gen_ai.operation.name")
    if operation not in _CALLS:
        if operation is None and counts:
            raise EventRefused(
                "operation_missing",
                "the span counts tokens without gen_ai.operation.name: it may be a call, or a "
                "chain that repeats what its calls used",
            )
        return None
    is_error = span.status == ERROR_STATUS or "error.type" in given
    if is_error and not counts:
        return None
    if len(span.trace_id) != 32 or len(span.span_id) != 16 or not span.start_ns:
        raise EventRefused("invalid_event", "a span needs a trace id, a span id and a start")
    provider = given.get("gen_ai.provider.name", given.get("gen_ai.system"))
    named = checked_text("gen_ai.provider.name", provider, is_required=True) or ""
    flags = Flags(
        input_includes_cache=_flag(given, "input_includes_cache", defaults.input_includes_cache),
        output_includes_reasoning=_flag(
            given, "output_includes_reasoning", defaults.output_includes_reasoning
        ),
    )
    requested = checked_text("gen_ai.request.model", given.get("gen_ai.request.model"))
    served = checked_text("gen_ai.response.model", given.get("gen_ai.response.model"))
    if requested is None and served is None:
        raise EventRefused("invalid_event", "gen_ai.request.model is missing")
    tier = given.get(
        "openai.response.service_tier", given.get("gen_ai.openai.response.service_tier")
    )
    started_us = span.start_ns // _NS_IN_US
    return OutsideUsage(
        source=SOURCE,
        id=_id_of(span),
        api=API,
        started_at_us=started_us,
        ended_at_us=max(span.end_ns // _NS_IN_US, started_us),
        provider=_PROVIDERS.get(named, named),
        model_requested=requested or served,
        model=served,
        provider_request_id=checked_text("gen_ai.response.id", given.get("gen_ai.response.id")),
        outcome="upstream_error" if is_error else "ok",
        counts=disjoint_counts(counts, flags),
        service_tier=checked_text("service_tier", tier),
        region=checked_text("taximeter.region", given.get("taximeter.region")),
        owner=_owner(given),
    )


def _id_of(span: TraceSpan) -> str:
    return f"{span.trace_id[:32]}/{span.span_id[:16]}"


def _counts(given: Mapping[str, Value]) -> dict[str, int | str]:
    counts: dict[str, int | str] = {}
    for name, value in given.items():
        if not name.startswith(_USAGE):
            continue
        short = name.removeprefix(_USAGE)
        if "token" not in short or short in _TOTALS:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise EventRefused("invalid_event", f"{name} must be a whole number")
        meter = _COUNTS.get(short)
        if meter is None and value:
            raise EventRefused("unknown_meter", f"{name[:80]} is not known here")
        if meter is not None and counts.setdefault(meter.value, value) != value:
            raise EventRefused(
                "contradicting_counts", f"{name} is {value}, but {counts[meter.value]} elsewhere"
            )
    return counts


def _flag(given: Mapping[str, Value], name: str, default: bool | None) -> bool | None:
    value = given.get(f"taximeter.{name}", default)
    match value:
        case None | bool():
            return value
        case "true" | "false":
            # Resource attributes from the environment are always text.
            return value == "true"
        case _:
            raise EventRefused("invalid_event", f"taximeter.{name} must be true or false")


def _owner(given: Mapping[str, Value]) -> Owner:
    tags = {
        name.removeprefix(_TAG): checked_text(name[:80], value, is_required=True) or ""
        for name, value in sorted(given.items())
        if name.startswith(_TAG)
    }
    if len(tags) > TAGS_MAX:
        raise EventRefused("invalid_event", f"at most {TAGS_MAX} attributes {_TAG}*")
    user = given.get("taximeter.user", given.get("user.id", given.get("enduser.id")))
    return Owner(
        team=checked_text("taximeter.team", given.get("taximeter.team")),
        project=checked_text("taximeter.project", given.get("taximeter.project")),
        key=checked_text("taximeter.key", given.get("taximeter.key")),
        user=checked_text("user.id", user),
        tags=tags,
    )


def tell_reasons(problems: Iterable[Unreadable]) -> str:
    """Say what is wrong with spans, for an answer that has room for one text.

    Args:
        problems: Spans that are not booked.

    Returns:
        The first few of them.
    """
    shown = list(problems)
    lines = [f"span {one.id}: {one.code}: {one.detail}" for one in shown[:_REASONS_MAX]]
    more = len(shown) - len(lines)
    return "; ".join([*lines, f"and {more} more"] if more else lines)
