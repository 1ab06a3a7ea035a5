"""Who is calling, and what they may call."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from gateway.callers import (
    Caller,
    Callers,
    is_model_allowed,
    is_provider_allowed,
    secret_digest,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Known:
    """A snapshot with nothing but callers."""

    callers: Mapping[bytes, Caller]


def caller(*models: str, expires_at: datetime | None = None) -> Caller:
    """Make a caller that may call these models."""
    return Caller(
        organization="acme",
        team="search",
        project="rag",
        key="rag-ci",
        tags={},
        models=models,
        expires_at=expires_at,
    )


def test_a_caller_is_found_by_its_secret_alone():
    """Only the whole secret opens."""
    one = caller("*")
    callers = Callers(Known({secret_digest("sk-tm-a"): one}))

    assert callers.find("sk-tm-a", NOON) is one
    for wrong in ("", "sk-tm-", "sk-tm-A", "sk-tm-a ", "\ud800", "sk-tm-a\0"):
        assert callers.find(wrong, NOON) is None


def test_a_key_ends_at_the_instant_it_expires():
    """The last instant before works, the instant itself does not."""
    callers = Callers(Known({secret_digest("s"): caller("*", expires_at=NOON)}))

    assert callers.find("s", NOON - timedelta(microseconds=1)) is not None
    assert callers.find("s", NOON) is None


@pytest.mark.parametrize(
    ("patterns", "model", "is_allowed"),
    [
        (("*",), "gpt-5", True),
        ((), "gpt-5", False),
        (("gpt-5",), "gpt-5", True),
        (("gpt-5",), "gpt-5-mini", False),
        (("gpt-5*",), "gpt-5-mini", True),
        (("openai/*",), "gpt-5", True),
        (("openai/*",), "org/model", True),
        (("azure/*",), "gpt-5", False),
        (("openai/gpt-?",), "gpt-5", True),
        (("openai/gpt-?",), "gpt-55", False),
        (("claude-*", "gpt-*"), "gpt-5", True),
        (("GPT-*",), "gpt-5", False),
        (("gpt.5",), "gpt-5", False),
        (("gpt-5",), "gpt-5\n", False),
    ],
)
def test_patterns_match_with_and_without_the_provider(
    patterns: tuple[str, ...], model: str, is_allowed: bool
):
    """A pattern is matched against the bare name and against provider/name."""
    assert is_allowed == is_model_allowed(caller(*patterns), "openai", model)


@pytest.mark.parametrize(
    ("patterns", "is_allowed"),
    [
        (("*",), True),
        (("gpt-5",), True),
        (("openai/gpt-5",), True),
        (("open*/gpt-5",), True),
        (("anthropic/*",), False),
        ((), False),
    ],
)
def test_a_call_without_a_model_needs_a_provider_it_may_call(
    patterns: tuple[str, ...], is_allowed: bool
):
    """Lists and files belong to a provider; some pattern must be able to match a model of it."""
    assert is_allowed == is_provider_allowed(caller(*patterns), "openai")


def test_hostile_patterns_do_not_take_long():
    """Many stars in a pattern and a long name do not multiply."""
    hostile = caller("*a" * 80 + "b")

    assert not is_model_allowed(hostile, "openai", "a" * 5000)
