"""Usage objects of Anthropic's shape become disjoint counts that add up to the totals."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.anthropic_usage import TOKENS_MAX, UsageRead, overwrite, read_usage
from pricing.usage import Basis, Usage

REPORTED, ESTIMATED, UNKNOWN, NONE = Basis.REPORTED, Basis.ESTIMATED, Basis.UNKNOWN, Basis.NONE


def counts(found: Usage) -> dict[str, int]:
    """Show counts by the meters' names."""
    return {meter.value: int(count) for meter, count in found.counts.items()}


def writes(total: Any, short: Any, long: Any) -> dict[str, Any]:
    """Write what went to the cache."""
    return {
        "cache_creation_input_tokens": total,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
    }


def entry(kind: str, tokens_in: int, tokens_out: int, **more: Any) -> dict[str, Any]:
    """Write an iteration."""
    return {"type": kind, "input_tokens": tokens_in, "output_tokens": tokens_out, **more}


BASE: dict[str, Any] = {"input_tokens": 10, "output_tokens": 5}
PLAIN = {"input": 10, "output": 5}
READ: dict[str, tuple[dict[str, Any], Basis, dict[str, int]]] = {
    "plain": (BASE, REPORTED, PLAIN),
    "nulls": (
        {
            **BASE,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": None,
            "cache_creation": None,
            "output_tokens_details": None,
            "server_tool_use": None,
            "iterations": None,
            "speed": None,
        },
        REPORTED,
        PLAIN,
    ),
    "caches stand beside the input": (
        {**BASE, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 70},
        REPORTED,
        {"input": 10, "cache_read": 1000, "cache_write": 70, "output": 5},
    ),
    "writes by lifetime": (
        {**BASE, **writes(70, 30, 40)},
        REPORTED,
        {"input": 10, "cache_write": 30, "cache_write_1h": 40, "output": 5},
    ),
    "only the split": (
        {**BASE, **writes(None, 0, 40)},
        REPORTED,
        {"input": 10, "cache_write_1h": 40, "output": 5},
    ),
    "a split that falls short": (
        {**BASE, **writes(70, 30, 20)},
        ESTIMATED,
        {"input": 10, "cache_write": 50, "cache_write_1h": 20, "output": 5},
    ),
    "a split of one lifetime that falls short": (
        {**BASE, **writes(70, 0, 20)},
        ESTIMATED,
        {"input": 10, "cache_write_1h": 70, "output": 5},
    ),
    "thinking is part of the output": (
        {**BASE, "output_tokens_details": {"thinking_tokens": 4}},
        REPORTED,
        {"input": 10, "output": 1, "reasoning": 4},
    ),
    "more thought than said": (
        {**BASE, "output_tokens_details": {"thinking_tokens": 6}},
        ESTIMATED,
        PLAIN,
    ),
    "searches": (
        {**BASE, "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 9}},
        REPORTED,
        {**PLAIN, "web_search": 2},
    ),
    "numbers as text and floats": ({"input_tokens": "10", "output_tokens": 5.0}, REPORTED, PLAIN),
    "a cache that is no number": (
        {**BASE, "cache_read_input_tokens": {"n": 1}},
        ESTIMATED,
        PLAIN,
    ),
    "a split that is no object": ({**BASE, "cache_creation": [1]}, ESTIMATED, PLAIN),
    "no output": ({"input_tokens": 10}, UNKNOWN, {}),
    "no input": ({"output_tokens": 10}, UNKNOWN, {}),
    "negative": ({"input_tokens": -1, "output_tokens": 10}, UNKNOWN, {}),
    "huge": ({"input_tokens": TOKENS_MAX + 1, "output_tokens": 10}, UNKNOWN, {}),
    "endless": ({"input_tokens": float("inf"), "output_tokens": 10}, UNKNOWN, {}),
    "true is no number": ({"input_tokens": True, "output_tokens": 10}, UNKNOWN, {}),
    "compaction is billed on top": (
        {
            "input_tokens": 23_000,
            "output_tokens": 1_000,
            "iterations": [entry("compaction", 180_000, 3_500), entry("message", 23_000, 1_000)],
        },
        REPORTED,
        {"input": 203_000, "output": 4_500},
    ),
    "rounds are in the top level": (
        {**BASE, "iterations": [entry("message", 4, 2), entry("message", 6, 3)]},
        REPORTED,
        PLAIN,
    ),
    "rounds that say something else": (
        {**BASE, "iterations": [entry("message", 4, 2), entry("message", 7, 3)]},
        ESTIMATED,
        PLAIN,
    ),
    "a round of a kind nobody knows": (
        {**BASE, "iterations": [entry("dream", 4, 2)]},
        ESTIMATED,
        PLAIN,
    ),
    "rounds that are none": ({**BASE, "iterations": {"a": 1}}, ESTIMATED, PLAIN),
}


@pytest.mark.parametrize(("raw", "basis", "counted"), READ.values(), ids=READ.keys())
def test_a_usage_object_becomes_disjoint_counts(
    raw: dict[str, Any], basis: Basis, counted: dict[str, int]
) -> None:
    """The table holds what is billed; what contradicts itself is flagged and an estimate."""
    found = read_usage(raw).usage

    assert (basis, counted) == (found.basis, counts(found))
    assert bool(found.flags) == (basis is not REPORTED)


def test_a_refusal_before_any_output_is_not_billed() -> None:
    """Its usage says what was read, and none of it is on the bill."""
    found = read_usage({"input_tokens": 500, "output_tokens": 0}, is_refused=True).usage

    assert (NONE, {}) == (found.basis, counts(found))
    assert found.flags


def test_a_refusal_after_some_output_is_billed() -> None:
    """Input and what had been said."""
    found = read_usage({"input_tokens": 500, "output_tokens": 3}, is_refused=True).usage

    assert (REPORTED, {"input": 500, "output": 3}) == (found.basis, counts(found))


def test_an_advisor_is_billed_apart() -> None:
    """Its tokens are in no total; the model is another one."""
    read = read_usage(
        {
            **BASE,
            "service_tier": "standard",
            "iterations": [
                entry("message", 10, 5),
                entry("advisor_message", 823, 1612, model="claude-opus-4-8"),
            ],
        }
    )

    (advice,) = read.others
    assert PLAIN == counts(read.usage)
    assert ("claude-opus-4-8", "standard") == (advice.model, advice.tier)
    assert {"input": 823, "output": 1612} == counts(advice.usage)


def test_a_fallback_bills_the_model_that_served_and_what_others_had_said() -> None:
    """The top level is the last hop; one that said something is billed, a silent one is free."""
    read = read_usage(
        {
            **BASE,
            "iterations": [
                entry("message", 9, 0, model="a"),
                entry("message", 9, 2, model="b"),
                entry("message", 4, 2, model="c"),
                entry("fallback_message", 6, 3, model="c"),
            ],
        },
        asked="a",
    )

    assert "c" == read.model
    assert [("b", {"input": 9, "output": 2})] == [(o.model, counts(o.usage)) for o in read.others]
    assert (REPORTED, PLAIN) == (read.usage.basis, counts(read.usage))


def test_a_hop_without_a_name_is_of_the_model_asked_for() -> None:
    """Only fallback models are always named."""
    steps = [entry("message", 9, 2), entry("fallback_message", 10, 5, model="c")]
    read = read_usage({**BASE, "iterations": steps}, asked="a")

    assert ["a"] == [other.model for other in read.others]


TIERS: dict[str, tuple[dict[str, Any], str | None, str | None]] = {
    "nothing said": ({}, None, None),
    "standard": ({"service_tier": "standard"}, None, "standard"),
    "batch": ({"service_tier": "batch"}, None, "batch"),
    "committed": ({"service_tier": "priority"}, None, "standard"),
    "fast": ({"service_tier": "standard", "speed": "fast"}, "fast", "fast"),
    "fast not served": ({"service_tier": "standard", "speed": "standard"}, "fast", "standard"),
    "fast asked, speed not told": ({"service_tier": "standard"}, "fast", None),
    "speed alone": ({"speed": "standard"}, None, "standard"),
    "a word nobody knows": ({"service_tier": "scale"}, None, "scale"),
}


@pytest.mark.parametrize(("more", "asked", "tier"), TIERS.values(), ids=TIERS.keys())
def test_the_tier_is_the_one_served(
    more: dict[str, Any], asked: str | None, tier: str | None
) -> None:
    """In the words of the catalog."""
    assert tier == read_usage({**BASE, **more}, tier_asked=asked).tier


def test_a_committed_call_says_so() -> None:
    """There is no published price per token for it."""
    assert "priority" in " ".join(read_usage({**BASE, "service_tier": "priority"}).usage.flags)


@pytest.mark.parametrize(
    ("geo", "region"),
    [("us", "us"), ("global", ""), ("not_available", ""), ("", ""), (None, None), (7, None)],
)
def test_the_region_is_the_one_served(geo: object, region: str | None) -> None:
    """Only a geography with a price of its own is a region."""
    assert region == read_usage({**BASE, "inference_geo": geo}).region


def test_a_later_report_replaces_field_by_field_and_may_go_down() -> None:
    """Never added, never the larger of both; null says nothing."""
    seen: dict[str, Any] = {"input_tokens": 900, **writes(100, 100, 0), "output_tokens": 1}
    overwrite(seen, {"input_tokens": 300, "cache_read_input_tokens": None, "output_tokens": 40})

    assert {"input": 300, "cache_write": 100, "output": 40} == counts(read_usage(seen).usage)


def test_counts_of_an_answer_that_goes_on_are_partial() -> None:
    """The input is known, the output as far as it was reported."""
    assert Basis.PARTIAL is read_usage(BASE, is_final=False).usage.basis


TOKENS = st.integers(0, 10**7)


@given(st.tuples(TOKENS, TOKENS, TOKENS, TOKENS), TOKENS, TOKENS)
def test_sums_of_disjoint_counts_are_the_totals(
    inputs: tuple[int, int, int, int], output: int, thought: int
) -> None:
    """Whatever the parts, no token is lost or counted twice."""
    plain, cached, short, long = inputs
    read = read_usage(
        {
            "input_tokens": plain,
            "cache_read_input_tokens": cached,
            **writes(short + long, short, long),
            "output_tokens": output,
            "output_tokens_details": {"thinking_tokens": min(thought, output)},
        }
    )

    assert (sum(inputs), output) == read.usage.totals()


NAMES = st.sampled_from(
    [
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "cache_creation",
        "ephemeral_5m_input_tokens",
        "ephemeral_1h_input_tokens",
        "output_tokens_details",
        "thinking_tokens",
        "server_tool_use",
        "web_search_requests",
        "iterations",
        "type",
        "model",
        "service_tier",
        "speed",
        "inference_geo",
    ]
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, JUNK, max_size=10), st.booleans(), st.booleans())
def test_garbage_never_raises_and_never_counts_below_zero(
    raw: dict[str, Any], is_final: bool, is_refused: bool
) -> None:
    """What cannot be read is unknown or flagged."""
    read: UsageRead = read_usage(raw, is_final=is_final, is_refused=is_refused)

    assert all(
        count > 0
        for one in (read.usage, *(o.usage for o in read.others))
        for count in one.counts.values()
    )
