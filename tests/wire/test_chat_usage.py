"""Usage objects of OpenAI's shape become disjoint counts that add up to the provider's totals."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.openai_usage import (
    CompletionDetails,
    PromptDetails,
    UsageObject,
    read_usage,
)
from pricing.usage import Basis, Usage
from tests.wire.chat import Chat

REPORTED, ESTIMATED, UNKNOWN = Basis.REPORTED, Basis.ESTIMATED, Basis.UNKNOWN


def usage(
    prompt: Any,
    completion: Any = 0,
    inside: Mapping[str, Any] | None = None,
    outside: Mapping[str, Any] | None = None,
    **more: Any,
) -> bytes:
    """Write an answer with a usage object; parts are named without ``_tokens``."""
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "prompt_tokens_details": inside and {f"{k}_tokens": v for k, v in inside.items()},
                "completion_tokens_details": outside
                and {f"{k}_tokens": v for k, v in outside.items()},
                **more,
            },
        }
    ).encode()


def read(body: bytes) -> Usage:
    """Read the usage of a whole answer."""
    found = Chat().read_whole(body).usage
    assert found is not None, "the usage was lost"
    return found


def counts(found: Usage) -> dict[str, int]:
    """Show counts by the meters' names."""
    return {meter.value: int(count) for meter, count in found.counts.items()}


READ = {
    "plain": (usage(10, 5, total_tokens=15), REPORTED, {"input": 10, "output": 5}),
    "no details, no total": (usage(10, 5), REPORTED, {"input": 10, "output": 5}),
    "empty details": (usage(10, 5, {}, {}), REPORTED, {"input": 10, "output": 5}),
    "null details": (
        usage(10, 5, {"cached": None, "audio": None}, {"reasoning": None}),
        REPORTED,
        {"input": 10, "output": 5},
    ),
    "nothing said": (usage(10, 0, total_tokens=10), REPORTED, {"input": 10}),
    "nothing at all": (usage(0, 0, total_tokens=0), REPORTED, {}),
    "cached": (
        usage(1248, 210, {"cached": 1024}, {"reasoning": 64}, total_tokens=1458),
        REPORTED,
        {"input": 224, "cache_read": 1024, "output": 146, "reasoning": 64},
    ),
    "all cached": (usage(128, 1, {"cached": 128}), REPORTED, {"cache_read": 128, "output": 1}),
    "written": (
        usage(2000, 7, {"cached": 500, "cache_write": 1000}),
        REPORTED,
        {"input": 500, "cache_read": 500, "cache_write": 1000, "output": 7},
    ),
    "all reasoning": (
        usage(1, 64, None, {"reasoning": 64}),
        REPORTED,
        {"input": 1, "reasoning": 64},
    ),
    "rejected prediction stays in the output": (
        usage(1, 64, None, {"rejected_prediction": 20, "accepted_prediction": 4}),
        REPORTED,
        {"input": 1, "output": 64},
    ),
    "audio": (
        usage(100, 50, {"audio": 60, "text": 40}, {"audio": 30, "text": 20}),
        REPORTED,
        {"input": 40, "input_audio": 60, "output": 20, "output_audio": 30},
    ),
    "image": (
        usage(100, 5, {"image": 85}),
        REPORTED,
        {"input": 15, "input_image": 85, "output": 5},
    ),
    "image and audio": (
        usage(100, 5, {"image": 40, "audio": 60}),
        REPORTED,
        {"input_image": 40, "input_audio": 60, "output": 5},
    ),
    "cached audio": (
        usage(100, 0, {"cached": 80, "audio": 50}),
        REPORTED,
        {"input_audio": 20, "cache_read": 50, "cache_read_audio": 30},
    ),
    "cached image": (
        usage(100, 0, {"cached": 100, "image": 30}),
        REPORTED,
        {"cache_read": 70, "cache_read_image": 30},
    ),
    "xAI: reasoning beside the completion": (
        usage(10, 5, None, {"reasoning": 7}, total_tokens=22),
        REPORTED,
        {"input": 10, "output": 5, "reasoning": 7},
    ),
    "numbers as text": (
        usage("10", "5", {"cached": "4"}, total_tokens="15"),
        REPORTED,
        {"input": 6, "cache_read": 4, "output": 5},
    ),
    "whole numbers written as floats": (
        usage(32.0, 5.0, {"cached": 2.0}, total_tokens=37.0),
        REPORTED,
        {"input": 30, "cache_read": 2, "output": 5},
    ),
    "unknown fields": (
        usage(10, 5, {"video": 3}, {"odd": 1}, cost=0.1, queue_time=1e-3),
        REPORTED,
        {"input": 10, "output": 5},
    ),
    "more cached than asked": (usage(10, 5, {"cached": 20}), ESTIMATED, {"input": 10, "output": 5}),
    "more cached and written than asked": (
        usage(10, 5, {"cached": 6, "cache_write": 6}),
        ESTIMATED,
        {"input": 10, "output": 5},
    ),
    "negative part": (usage(10, 5, {"cached": -1}), ESTIMATED, {"input": 10, "output": 5}),
    "more audio than prompt": (usage(10, 5, {"audio": 11}), ESTIMATED, {"input": 10, "output": 5}),
    "more reasoning than completion": (
        usage(10, 5, None, {"reasoning": 6}, total_tokens=15),
        ESTIMATED,
        {"input": 10, "output": 5},
    ),
    "negative reasoning": (
        usage(10, 5, None, {"reasoning": -6}),
        ESTIMATED,
        {"input": 10, "output": 5},
    ),
    "no prompt count": (usage(None, 5), UNKNOWN, {}),
    "negative prompt": (usage(-1, 5), UNKNOWN, {}),
    "negative completion": (usage(5, -1), UNKNOWN, {}),
}


@pytest.mark.parametrize(("body", "basis", "expected"), READ.values(), ids=READ.keys())
def test_every_spelling_of_usage_is_read(body: bytes, basis: Basis, expected: dict) -> None:
    """Counts are disjoint; contradictions keep the totals and say so; nothing becomes zero."""
    found = read(body)

    assert (basis, expected) == (found.basis, counts(found))
    assert (basis is REPORTED) == (not found.flags)


def test_an_empty_usage_object_is_unknown() -> None:
    """A usage object that says nothing is not a usage of nothing."""
    found = read(b'{"usage":{}}')

    assert UNKNOWN is found.basis
    assert found.input_total is None


def test_a_null_usage_is_no_usage() -> None:
    """Chunks before the last one carry ``usage: null``."""
    assert Chat().read_whole(b'{"usage":null,"choices":[]}').usage is None


def test_a_contradiction_names_both_numbers() -> None:
    """Whoever looks into it needs the numbers the provider gave."""
    (flag,) = read(usage(10, 5, {"cached": 20})).flags

    assert "20" in flag
    assert "10" in flag


def test_a_total_above_its_parts_is_billed_as_output_and_flagged() -> None:
    """Some providers leave thinking out of the completion and in the total: that is billed."""
    found = read(usage(10, 5, total_tokens=99))

    assert {"input": 10, "output": 89} == counts(found)
    assert any("99" in flag for flag in found.flags)


def test_a_total_below_its_parts_is_flagged() -> None:
    """Prompt and completion are billed; a smaller total takes nothing off."""
    found = read(usage(10, 5, total_tokens=9))

    assert {"input": 10, "output": 5} == counts(found)
    assert any("9" in flag for flag in found.flags)


@pytest.mark.parametrize(
    "body",
    [
        b'{"usage":{"prompt_tokens":10}}',
        b'{"usage":{"prompt_tokens":10,"completion_tokens":null}}',
        b'{"usage":{"prompt_tokens":10,"total_tokens":25}}',
    ],
)
def test_a_missing_completion_count_is_not_zero(body: bytes) -> None:
    """What the provider did not count was not counted as nothing."""
    found = read(body)

    assert (found.basis, found.output_total) != (REPORTED, 0)


@pytest.mark.parametrize("odd", ["12.5", '"many"', "[]", '{"a":1}', "true"])
def test_a_count_that_is_no_count_is_never_reported(odd: str) -> None:
    """An answer with a broken count is still an answer, and its count is not made up."""
    answer = Chat().read_whole(
        b'{"id":"x","model":"gpt-5","usage":{"prompt_tokens":%b,"completion_tokens":1}}'
        % odd.encode()
    )

    assert answer.usage is None or REPORTED is not answer.usage.basis


def details(draw: st.DrawFn, amount: st.SearchStrategy[int | None]) -> UsageObject:
    """Draw parts without totals."""
    return UsageObject(
        prompt_tokens_details=PromptDetails(
            cached_tokens=draw(amount),
            cache_write_tokens=draw(amount),
            audio_tokens=draw(amount),
            image_tokens=draw(amount),
        ),
        completion_tokens_details=CompletionDetails(
            reasoning_tokens=draw(amount), audio_tokens=draw(amount)
        ),
    )


@st.composite
def true_bills(draw: st.DrawFn) -> UsageObject:
    """Draw a usage object that contradicts nothing."""
    amount = st.integers(0, 10_000)
    raw = details(draw, amount)
    inside, outside = raw.prompt_tokens_details, raw.completion_tokens_details
    assert inside is not None
    assert outside is not None
    parts = (inside.cached_tokens, inside.cache_write_tokens, inside.audio_tokens)
    raw.prompt_tokens = draw(amount) + (inside.image_tokens or 0) + sum(n or 0 for n in parts)
    raw.completion_tokens = (
        draw(amount) + (outside.reasoning_tokens or 0) + (outside.audio_tokens or 0)
    )
    raw.total_tokens = draw(st.sampled_from([None, raw.prompt_tokens + raw.completion_tokens]))
    return raw


@st.composite
def any_bills(draw: st.DrawFn) -> UsageObject:
    """Draw a usage object whose totals are counts and whose parts are anything."""
    raw = details(draw, st.none() | st.integers(-5, 40))
    raw.prompt_tokens, raw.completion_tokens = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    raw.total_tokens = draw(st.none() | st.integers(-5, 120))
    return raw


@given(true_bills())
def test_parts_of_a_true_bill_add_up(raw: UsageObject) -> None:
    """Whatever a consistent provider reports, no token is lost or counted twice."""
    found = read_usage(raw)

    assert (raw.prompt_tokens, raw.completion_tokens) == (found.input_total, found.output_total)
    assert REPORTED is found.basis
    assert all(count > 0 for count in found.counts.values())
    assert raw.completion_tokens_details is not None
    assert raw.completion_tokens_details.reasoning_tokens == counts(found).get("reasoning", 0)
    assert raw.prompt_tokens_details is not None
    assert raw.prompt_tokens_details.cache_write_tokens == counts(found).get("cache_write", 0)


@given(any_bills())
def test_totals_survive_any_contradiction(raw: UsageObject) -> None:
    """Parts may be nonsense; the totals the provider billed are kept."""
    found = read_usage(raw)
    assert raw.prompt_tokens is not None
    assert raw.completion_tokens is not None
    assert raw.completion_tokens_details is not None
    total = raw.total_tokens or 0

    assert raw.prompt_tokens == found.input_total
    assert max(raw.completion_tokens, total - raw.prompt_tokens) == found.output_total
    assert all(count > 0 for count in found.counts.values())
