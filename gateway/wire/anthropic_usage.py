"""Anthropic's usage object, turned into disjoint counts, whoever serves it.

Must never count a token twice, never turn a missing count into zero, and never raise because of an
odd field: any reader of an Anthropic-shaped body (a message, a stream, a batch line, Bedrock's
InvokeModel, Vertex' rawPredict) hands the decoded ``usage`` object over as it is::

    told = read_usage({"input_tokens": 9, "output_tokens": 4})
    told.usage  # Usage: disjoint counts; basis none for a refusal that is not billed
    told.others  # what advisors and declined models used, each at its own price
    told.model  # the fallback model that served; None where the answer's own model did
    told.tier, told.region  # catalog words; None where the usage does not say

A stream merges with ``overwrite(seen, newer)``, field by field, and says ``is_final=False`` until
the last report has come.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.wire.facts import OtherUse
from pricing.meters import Meter
from pricing.sku import STANDARD_TIER
from pricing.usage import Basis, Quantity, Usage, unknown_usage

# Far above any context; a larger count is an error, and its cost might not fit 64 bits.
TOKENS_MAX: Final = 10**10
NAME_CHARS_MAX: Final = 256
BATCH_TIER: Final = "batch"
FAST_TIER: Final = "fast"
PRIORITY: Final = "priority"
# Geographies that have the plain price. Any other is a region class of its own.
# Source: https://platform.claude.com/docs/en/build-with-claude/data-residency, checked 2026-11-23.
_PLAIN_GEOS: Final = frozenset({"", "global", "not_available"})
UNBILLED_REFUSAL: Final = "refused before any output: the provider does not bill this"
PRIORITY_FLAG: Final = "served from committed (priority) capacity: priced as standard"
ADVISOR_SPEED_FLAG: Final = "the speed of an advisor is not told: priced as standard"

# Entries of ``iterations``; what is left is ``message``.
_COMPACTION: Final = "compaction"
_ADVISOR: Final = "advisor_message"
_FALLBACK: Final = "fallback_message"
_ENTRIES: Final = ("message", _COMPACTION, _ADVISOR, _FALLBACK)

_Counts = dict[Meter, Quantity]


class UsageRead(msgspec.Struct, frozen=True, kw_only=True):
    """What a usage object says.

    Attributes:
        usage: Disjoint counts of the model that served.
        others: What other models used for the same answer.
        model: Model that served after others had declined; ``None`` where none did.
        tier: Service tier in catalog words; ``None`` when the usage does not say.
        region: Region class; empty for one that does not change the price, ``None`` when the usage
            does not say.
    """

    usage: Usage
    others: tuple[OtherUse, ...] = ()
    model: str | None = None
    tier: str | None = None
    region: str | None = None


class _Findings:
    """What was odd, by how much it matters."""

    __slots__ = ("contradictions", "notes")

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.contradictions: list[str] = []


def overwrite(seen: dict[str, Any], newer: Mapping[str, Any]) -> None:
    """Take a later report of a stream in: every field that is not null replaces the older one.

    Args:
        seen: Fields reported so far; changed.
        newer: Fields of the later report. Counts are running totals and may go down.

    Source:
        https://platform.claude.com/docs/en/build-with-claude/streaming, "the token counts shown in
        the usage field of the message_delta event are cumulative". Checked 2026-11-23.
    """
    for name, value in newer.items():
        if value is not None:
            seen[name] = value


def read_usage(
    raw: Mapping[str, Any],
    *,
    asked: str | None = None,
    tier_asked: str | None = None,
    is_final: bool = True,
    is_refused: bool = False,
) -> UsageRead:
    """Turn a usage object into disjoint counts.

    Args:
        raw: As the provider sent it. Cache reads and writes stand beside ``input_tokens``, thinking
            is part of ``output_tokens``.
        asked: Model asked for, which is the one that declined where the usage does not name it.
        tier_asked: Tier asked for, in catalog words. An answer that does not tell its speed leaves
            the tier open only where ``fast`` was asked for.
        is_final: Whether nothing follows; counts of an answer that goes on are ``partial``.
        is_refused: Whether the answer stopped as a refusal. Without any output it is not billed.

    Returns:
        Disjoint counts whose sums are the provider's totals, compaction included. A contradiction
        keeps the totals, marks them ``estimated`` and says both numbers in a flag. A side without
        a count: unknown.

    Source:
        https://platform.claude.com/docs/en/api/messages, ``usage``; iterations:
        https://platform.claude.com/docs/en/build-with-claude/compaction and
        https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool; refusals:
        https://platform.claude.com/docs/en/build-with-claude/refusals-and-fallback. Checked
        2026-11-23.
    """
    found = _Findings()
    tier = _read_tier(raw, tier_asked, found)
    region = _read_region(raw)
    counts = _read_counts(raw, found)
    is_free = counts is not None and is_refused and _is_free_refusal(raw)
    if is_free:
        counts = {}
        found.notes.append(UNBILLED_REFUSAL)
    if counts is None:
        told = f"input {_short(raw.get('input_tokens'))}, output {_short(raw.get('output_tokens'))}"
        return UsageRead(
            usage=unknown_usage(f"usage without usable counts: {told}"), tier=tier, region=region
        )
    searches = _searches(raw, found)
    if searches:
        counts[Meter.WEB_SEARCH] = searches
    steps = raw.get("iterations")
    if steps is None:
        others: tuple[OtherUse, ...] = ()
        served = None
    else:
        rounds = _Rounds(asked, tier, found)
        others = rounds.read(steps, counts, is_final=is_final and not is_free)
        served = rounds.served
    if counts or not is_free:
        basis = Basis.REPORTED if is_final else Basis.PARTIAL
        if found.contradictions:
            basis = Basis.ESTIMATED
    else:
        basis = Basis.NONE
    usage = Usage(counts=counts, basis=basis, flags=(*found.notes, *found.contradictions))
    return UsageRead(usage=usage, others=others, model=served, tier=tier, region=region)


def _read_counts(raw: Mapping[str, Any], found: _Findings) -> _Counts | None:
    """Read the token counts of one report; ``None`` without a usable total of each side."""
    plain = _tokens(raw, "input_tokens", found)
    output = _tokens(raw, "output_tokens", found)
    if plain is None or output is None:
        return None
    counts: _Counts = {}
    if plain:
        counts[Meter.INPUT] = plain
    cached = _tokens(raw, "cache_read_input_tokens", found)
    if cached:
        counts[Meter.CACHE_READ] = cached
    short, long = _read_writes(raw, found)
    if short:
        counts[Meter.CACHE_WRITE] = short
    if long:
        counts[Meter.CACHE_WRITE_1H] = long
    thought = 0
    details = raw.get("output_tokens_details")
    if details is not None:
        thought = _tokens(_fields(details, found), "thinking_tokens", found) or 0
        if thought > output:
            found.contradictions.append(f"thinking_tokens {thought} of output_tokens {output}")
            thought = 0
    if output > thought:
        counts[Meter.OUTPUT] = output - thought
    if thought:
        counts[Meter.REASONING] = thought
    return counts


def _read_writes(raw: Mapping[str, Any], found: _Findings) -> tuple[int, int]:
    """Read what was written to the cache for five minutes, and for an hour."""
    total = _tokens(raw, "cache_creation_input_tokens", found)
    split = raw.get("cache_creation")
    if split is None:
        return total or 0, 0
    parts = _fields(split, found)
    short = _tokens(parts, "ephemeral_5m_input_tokens", found) or 0
    long = _tokens(parts, "ephemeral_1h_input_tokens", found) or 0
    if total is None or total == short + long:
        return short, long
    found.contradictions.append(
        f"cache_creation {short} (5m) + {long} (1h) is not cache_creation_input_tokens {total}"
    )
    # The total is billed. Where the split names one lifetime only, the rest has it as well.
    long = total if long and not short else min(long, total)
    return total - long, long


def _searches(raw: Mapping[str, Any], found: _Findings) -> int:
    tools = raw.get("server_tool_use")
    if tools is None:
        return 0
    return _tokens(_fields(tools, found), "web_search_requests", found) or 0


def _is_free_refusal(raw: Mapping[str, Any]) -> bool:
    return _to_count(raw.get("output_tokens")) == 0


class _Rounds:
    """Reads ``iterations``: what was billed on top, and which model it was.

    Attributes:
        served: Model that served after others had declined.
    """

    __slots__ = ("_asked", "_found", "_tier", "served")

    def __init__(self, asked: str | None, tier: str | None, found: _Findings) -> None:
        self.served: str | None = None
        self._asked = asked
        self._tier = tier
        self._found = found

    def read(self, steps: object, counts: _Counts, *, is_final: bool) -> tuple[OtherUse, ...]:
        """Read all entries; what compaction used is added to the counts."""
        if not isinstance(steps, list):
            self._found.contradictions.append("iterations is not a list")
            return ()
        top = dict(counts)
        entries = [_fields(step, self._found) for step in steps]
        served = [_name(entry.get("model")) for entry in entries if entry.get("type") == _FALLBACK]
        self.served = next((model for model in reversed(served) if model), None)
        others: list[OtherUse] = []
        rounds: list[_Counts] = []
        for entry in entries:
            used = self._read_entry(entry)
            if used is None:
                continue
            if entry["type"] == _COMPACTION:
                for meter, count in used.items():
                    counts[meter] = counts.get(meter, 0) + count
            elif entry["type"] == _ADVISOR:
                others.append(self._advice(entry, used))
            elif self._is_declined(entry):
                others += self._declined(entry, used)
            else:
                rounds.append(used)
        if is_final and rounds:
            self._compare(top, rounds)
        return tuple(others)

    def _read_entry(self, entry: Mapping[str, Any]) -> _Counts | None:
        kind = entry.get("type")
        if kind not in _ENTRIES:
            self._found.contradictions.append("an iteration of an unknown type")
            return None
        used = _read_counts(entry, self._found)
        if used is None:
            self._found.contradictions.append(f"an iteration ({kind}) without usable counts")
        return used

    def _advice(self, entry: Mapping[str, Any], used: _Counts) -> OtherUse:
        tier = self._tier
        if tier == FAST_TIER:
            # Speed is a choice per model; an advisor's entry does not tell any.
            tier = STANDARD_TIER
            self._found.notes.append(ADVISOR_SPEED_FLAG)
        model = _name(entry.get("model")) or "an advisor without a name"
        return OtherUse(model=model, usage=Usage(counts=used, basis=Basis.REPORTED), tier=tier)

    def _is_declined(self, entry: Mapping[str, Any]) -> bool:
        if entry["type"] == _FALLBACK or self.served is None:
            return False
        return (_name(entry.get("model")) or self._asked) != self.served

    def _declined(self, entry: Mapping[str, Any], used: _Counts) -> list[OtherUse]:
        model = _name(entry.get("model")) or self._asked or "a model without a name"
        if not (used.get(Meter.OUTPUT) or used.get(Meter.REASONING)):
            self._found.notes.append(f"{model} declined before any output: not billed")
            return []
        return [
            OtherUse(model=model, usage=Usage(counts=used, basis=Basis.REPORTED), tier=self._tier)
        ]

    def _compare(self, top: _Counts, rounds: list[_Counts]) -> None:
        """The top level is the sum of the rounds; where it is not, the top level is billed."""
        total, parts = _sum_tokens([top]), _sum_tokens(rounds)
        if total != parts:
            self._found.contradictions.append(
                f"iterations add up to {parts} tokens, the usage says {total}"
            )


def _sum_tokens(each: list[_Counts]) -> int:
    return sum(
        int(count)
        for counts in each
        for meter, count in counts.items()
        if meter is not Meter.WEB_SEARCH
    )


def _read_tier(raw: Mapping[str, Any], tier_asked: str | None, found: _Findings) -> str | None:
    speed, tier = raw.get("speed"), raw.get("service_tier")
    if speed == FAST_TIER:
        return FAST_TIER
    if tier == PRIORITY:
        # What was committed to is paid for apart, at no published price per token.
        # https://platform.claude.com/docs/en/api/service-tiers, checked 2026-11-23.
        found.notes.append(PRIORITY_FLAG)
        tier = STANDARD_TIER
    if tier is None or tier == STANDARD_TIER:
        if speed is None and (tier is None or tier_asked == FAST_TIER):
            return None
        return STANDARD_TIER
    return _name(tier)


def _read_region(raw: Mapping[str, Any]) -> str | None:
    geo = raw.get("inference_geo")
    if not isinstance(geo, str):
        return None
    return "" if geo in _PLAIN_GEOS else geo[:NAME_CHARS_MAX]


def _fields(value: object, found: _Findings) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    found.contradictions.append(f"the usage has {_short(value)} for an object")
    return {}


def _name(value: object) -> str | None:
    return value[:NAME_CHARS_MAX] if isinstance(value, str) and value else None


def _tokens(raw: Mapping[str, Any], name: str, found: _Findings) -> int | None:
    value = raw.get(name)
    if value is None:
        return None
    if type(value) is int and 0 <= value <= TOKENS_MAX:
        return value
    count = _to_count(value)
    if count is None:
        found.contradictions.append(f"{name} {_short(value)} is not a count")
    return count


def _to_count(value: object) -> int | None:
    """Read a whole number however it is written; ``None`` for what is not one."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        number = float(value) if isinstance(value, str) else value
        count = int(number)
    except (ValueError, OverflowError):
        return None
    return count if count == number and 0 <= count <= TOKENS_MAX else None


def _short(value: object) -> str:
    """Write a value of the answer so that a flag stays short; never a text of the answer."""
    return repr(value)[:40] if isinstance(value, int | float) else type(value).__name__
