"""Bedrock's ways to tell usage, turned into disjoint counts: Converse, headers, model families.

Must never count a token twice, never turn a missing count into zero, and never raise because of an
odd field.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from gateway.wire import anthropic_usage, openai_usage
from gateway.wire.facts import ReplyHead
from pricing.meters import Meter
from pricing.usage import NOTHING, Basis, Quantity, Usage, unknown_usage

# Far above any context; a larger count is an error, and its cost might not fit 64 bits.
TOKENS_MAX: Final = 10**10
UNBILLED_GUARD: Final = "blocked by a guardrail before the model was called: no tokens are billed"
UNBILLED_REFUSAL: Final = anthropic_usage.UNBILLED_REFUSAL
GUARDRAIL_FLAG: Final = "a guardrail assessed this call: its text units are not in the cost"

_HEADERS: Final = "x-amzn-bedrock-"
_decode_openai: Final = msgspec.json.Decoder(openai_usage.UsageObject, strict=False).decode


class Told(NamedTuple):
    """Counts of one report, each ``None`` where it does not say.

    Attributes:
        plain: Input tokens that touched no cache.
        output: All output tokens.
        read: Input tokens read from a cache.
        written: Input tokens written to one, for whatever time.
        hour: Those of them that were written for an hour.
        total: Sum of all, as the provider counts.
        odd: What cannot be used, in words.
    """

    plain: int | None = None
    output: int | None = None
    read: int | None = None
    written: int | None = None
    hour: int = 0
    total: int | None = None
    odd: tuple[str, ...] = ()


def to_usage(told: Told) -> Usage:
    """Turn a report into disjoint counts.

    Args:
        told: The report; cache reads and writes stand beside ``plain``.

    Returns:
        Counts whose sums are the provider's totals. A contradiction is flagged and marks them
        ``estimated``. A side without a count: unknown.
    """
    plain, output, total = told.plain, told.output, told.total
    read, written = told.read or 0, told.written or 0
    if output is None and plain is not None and total is not None:
        output = total - plain - read - written
    if plain is None and output is not None and total is not None:
        plain = total - output - read - written
    if plain is None or output is None or min(plain, output) < 0:
        said = f"input {told.plain}, output {told.output}, total {total}"
        return unknown_usage("; ".join((f"usage without usable counts: {said}", *told.odd)))
    wrong = list(told.odd)
    if total is not None and total != plain + output + read + written:
        wrong.append(f"totalTokens {total} is not {plain} + {output} + cache {read} + {written}")
    if told.hour > written:
        wrong.append(f"cache writes of an hour {told.hour} of {written}")
    hour = min(told.hour, written)
    counts: dict[Meter, Quantity] = {
        Meter.INPUT: plain,
        Meter.CACHE_READ: read,
        Meter.CACHE_WRITE: written - hour,
        Meter.CACHE_WRITE_1H: hour,
        Meter.OUTPUT: output,
    }
    return Usage(
        counts={meter: count for meter, count in counts.items() if count},
        basis=Basis.ESTIMATED if wrong else Basis.REPORTED,
        flags=tuple(wrong),
    )


def read_converse(raw: Mapping[str, Any]) -> Usage:
    """Turn the usage object of Converse into disjoint counts.

    Args:
        raw: As Bedrock sent it: ``inputTokens`` leaves out what was read from or written to a
            cache, ``totalTokens`` holds it.

    Returns:
        Disjoint counts. Of fields that are spelt twice one is read.

    Source:
        https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html and
        API_runtime_CacheDetail.html, checked 2026-11-23.
    """
    odd: list[str] = []
    read = _first(raw, ("cacheReadInputTokens", "cacheReadInputTokenCount"), odd)
    written = _first(raw, ("cacheWriteInputTokens", "cacheWriteInputTokenCount"), odd)
    hour, split = _read_lifetimes(raw.get("cacheDetails"), odd)
    if split is not None and split != (written or 0):
        odd.append(f"cacheDetails add up to {split}, cacheWriteInputTokens is {written}")
        written = split if written is None else written
    usage = to_usage(
        Told(
            plain=_first(raw, ("inputTokens",), odd),
            output=_first(raw, ("outputTokens",), odd),
            read=read,
            written=written,
            hour=hour,
            total=_first(raw, ("totalTokens",), odd),
            odd=tuple(odd),
        )
    )
    searches = _searches(raw.get("serverToolUsage"))
    if not searches or usage.basis is Basis.UNKNOWN:
        return usage
    counts = {**usage.counts, Meter.WEB_SEARCH: searches}
    return Usage(counts=counts, basis=usage.basis, flags=usage.flags)


def _read_lifetimes(details: object, odd: list[str]) -> tuple[int, int | None]:
    """Read what was written for an hour, and what all lifetimes add up to."""
    if not isinstance(details, list) or not details:
        return 0, None
    hour = total = 0
    for detail in details:
        if not isinstance(detail, dict):
            odd.append("a cache detail is no object")
            continue
        count = _first(detail, ("inputTokens",), odd) or 0
        total += count
        hour += count if detail.get("ttl") == "1h" else 0
    return hour, total


def _searches(tools: object) -> int:
    """Count the searches of a server tool, in either spelling."""
    if not isinstance(tools, dict):
        return 0
    counts = (to_count(value) for name, value in tools.items() if "search" in name.lower())
    return sum(filter(None, counts))


def read_headers(head: ReplyHead) -> Told:
    """Read the counts that stand in the headers of an InvokeModel answer.

    Args:
        head: Of the answer.

    Returns:
        What they say; nothing where there are none.

    Source:
        https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html; the
        input count leaves the cache out, as recorded answers show. Checked 2026-11-23.
    """
    told = {
        name.removeprefix(_HEADERS): value
        for name, value in head.headers
        if name.startswith(_HEADERS) and name.endswith("-token-count")
    }
    odd: list[str] = []
    return Told(
        plain=_first(told, ("input-token-count",), odd),
        output=_first(told, ("output-token-count",), odd),
        read=_first(told, ("cache-read-input-token-count",), odd),
        written=_first(told, ("cache-write-input-token-count",), odd),
        odd=tuple(odd),
    )


def read_metrics(raw: Mapping[str, Any]) -> Told:
    """Read the metrics that close a stream of InvokeModel.

    Args:
        raw: ``amazon-bedrock-invocationMetrics``.

    Returns:
        What they say.

    Source:
        https://docs.aws.amazon.com/bedrock/latest/APIReference/
        API_runtime_InvokeModelWithResponseStream.html, checked 2026-11-23.
    """
    odd: list[str] = []
    return Told(
        plain=_first(raw, ("inputTokenCount",), odd),
        output=_first(raw, ("outputTokenCount",), odd),
        read=_first(raw, ("cacheReadInputTokenCount",), odd),
        written=_first(raw, ("cacheWriteInputTokenCount",), odd),
        odd=tuple(odd),
    )


def read_family(
    raw: msgspec.Raw, *, is_final: bool = True, is_refused: bool = False
) -> Usage | None:
    """Read the ``usage`` object of whatever family of models.

    Args:
        raw: As it stands in the body.
        is_final: Whether nothing follows it.
        is_refused: Whether the answer is a refusal, which Anthropic does not bill before output.

    Returns:
        Disjoint counts, by the names of the fields: Nova's, Anthropic's or OpenAI's; ``None`` for
        what is none of them.
    """
    fields = _fields_of(raw)
    if "prompt_tokens" in fields or "completion_tokens" in fields:
        try:
            return openai_usage.read_usage(_decode_openai(raw))
        except msgspec.DecodeError:
            return unknown_usage("usage of an odd shape")
    if "inputTokens" in fields or "outputTokens" in fields:
        return read_converse(fields)
    if "input_tokens" in fields or "output_tokens" in fields:
        told = anthropic_usage.read_usage(fields, is_final=is_final, is_refused=is_refused)
        return told.usage
    return None


def _fields_of(raw: msgspec.Raw) -> Mapping[str, Any]:
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def settle_sources(outside: Told, inside: Usage | None) -> Usage | None:
    """Choose between what Bedrock says of a call and what the model's own body says.

    Args:
        outside: Bedrock's headers or metrics, which do not depend on the model.
        inside: Usage of the body; ``None`` where it has none.

    Returns:
        One of them, never their sum: the body where both have the same totals, as it tells more;
        else Bedrock's word, with a flag. ``None`` where nobody says anything.
    """
    if outside.plain is None and outside.output is None:
        return inside
    if inside is not None and inside.basis is Basis.NONE:
        return inside
    # Of an embedding only the input is told; whoever asks for one says so.
    usage = to_usage(outside)
    if usage.basis is Basis.UNKNOWN:
        return usage if inside is None or not inside.counts else inside
    if inside is None or not inside.counts:
        return usage
    if inside.totals() == usage.totals():
        return inside
    flag = f"the body says {inside.totals()} tokens in and out, Bedrock {usage.totals()}"
    return Usage(counts=usage.counts, basis=usage.basis, flags=(*usage.flags, flag))


def free_where_blocked(usage: Usage | None, *, is_blocked: bool, is_refused: bool) -> Usage | None:
    """Say that an answer is not billed, where its reason to stop says so.

    Args:
        usage: As reported.
        is_blocked: A guardrail stopped it.
        is_refused: The model refused.

    Returns:
        ``none`` for a prompt a guardrail kept from the model, and for a refusal before any output;
        else the usage as it is.

    Source:
        https://docs.aws.amazon.com/bedrock/latest/userguide/guardrails-how.html: a prompt that is
        blocked costs its evaluation and no inference; a blocked answer costs both. Checked
        2026-11-23.
    """
    if usage is None or usage.basis in (Basis.NONE, Basis.UNKNOWN):
        return usage
    if is_blocked and not usage.counts:
        return Usage(counts=NOTHING.counts, basis=Basis.NONE, flags=(UNBILLED_GUARD,))
    if is_refused and usage.output_total == 0:
        return Usage(counts=NOTHING.counts, basis=Basis.NONE, flags=(UNBILLED_REFUSAL,))
    return usage


def _first(raw: Mapping[str, Any], names: Iterable[str], odd: list[str]) -> int | None:
    """Read the first of several spellings that is there."""
    for name in names:
        value = raw.get(name)
        if value is None:
            continue
        count = to_count(value)
        if count is None:
            odd.append(f"{name} {_short(value)} is not a count")
        return count
    return None


def to_count(value: object) -> int | None:
    """Read a whole number however it is written.

    Args:
        value: A number or its text.

    Returns:
        The number; ``None`` for what is none, negative, a fraction or too large to be a count.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        number = float(value) if isinstance(value, str) else value
        count = int(number)
    except (ValueError, OverflowError):
        return None
    return count if count == number and 0 <= count <= TOKENS_MAX else None


def _short(value: object) -> str:
    """Write a value so that a flag stays short; never a text of the answer."""
    return repr(value)[:40] if isinstance(value, int | float) else type(value).__name__
