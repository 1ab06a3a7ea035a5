"""Short ways to write calls, demands and instants in the tests of budgets."""

from collections.abc import Coroutine
from datetime import datetime
from typing import Any, TypeVar

from gateway.budgets.rules import Budget, Demand, Subject, budget_from_config
from pricing.money import money_from_text

T = TypeVar("T")


def usd(text: str) -> int:
    """Read money as 10^-12 USD."""
    return money_from_text(text).pico


def instant(text: str) -> datetime:
    """Read an instant; a missing zone is a mistake in the test."""
    at = datetime.fromisoformat(text)
    assert at.tzinfo is not None, f"{text} has no zone"
    return at


def subject(**parts: str) -> Subject:
    """Make a call; parts are those of a scope, tags as ``tag_<name>``."""
    tags = {
        part.removeprefix("tag_"): parts.pop(part) for part in list(parts) if part[:4] == "tag_"
    }
    return Subject(
        organization=parts.get("organization", "acme"),
        team=parts.get("team", "search"),
        project=parts.get("project", "rag"),
        key=parts.get("key", "rag-ci"),
        provider=parts.get("provider", "openai"),
        model=parts.get("model", "gpt-5"),
        user=parts.get("user"),
        tags=tags,
    )


def demand(cost: str | None = "0", tokens: int | None = 0) -> Demand:
    """Make a demand of one request; money as text."""
    return Demand(cost_pico=None if cost is None else usd(cost), tokens=tokens)


def budget(text: str, **fields: Any) -> Budget:
    """Make a budget from ``<id> <window> <limit>``, with a scope and other fields by name."""
    budget_id, window, limit = text.split(maxsplit=2)
    definition: Any = {"id": budget_id, "scope": {}, "limit": limit, "window": window}
    return budget_from_config(definition | fields)


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that promises never to suspend."""
    try:
        call.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it suspended")
