"""Rules: limits, scopes, definitions, amounts as text."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.budgets.rules import (
    PARTS,
    BudgetDefinition,
    BudgetStatus,
    Demand,
    Mode,
    Unit,
    amount_to_text,
    budget_from_config,
    budget_to_config,
    is_in_scope,
    is_rate_limit,
    parse_limit,
    read_part,
    window_of,
)
from gateway.budgets.windows import BudgetWindow
from tests.budgets.builders import budget, instant, subject

AT = instant("2026-11-23T10:00:00+00:00")


@pytest.mark.parametrize(
    ("text", "limit", "unit"),
    [
        ("500 USD", 500 * 10**12, Unit.USD),
        ("0.000000000001 USD", 1, Unit.USD),
        ("7.25 USD", 7_250_000_000_000, Unit.USD),
        ("999999999999999999 USD", 999_999_999_999_999_999 * 10**12, Unit.USD),
        ("2000000 tokens", 2_000_000, Unit.TOKENS),
        ("1 requests", 1, Unit.REQUESTS),
    ],
)
def test_limits_are_exact(text: str, limit: int, unit: Unit) -> None:
    """Money to the last of twelve decimals; counts as they are."""
    assert (limit, unit) == parse_limit(text)


@pytest.mark.parametrize(
    "text",
    [
        "500", "USD", "", "500USD", "500  USD", " 500 USD", "500 USD ", "500 usd", "500 EUR",
        "0 USD", "0.0 USD", "-1 USD", "+1 USD", "1e3 USD", "1_000 USD", "1,000 USD", ".5 USD",
        "5. USD", "0.0000000000001 USD", "inf USD", "nan USD", "0 tokens", "1.5 tokens",
        "1.0 requests", "-3 requests", "one requests", "1 request", "٣ tokens",
        "1000000000000000000 tokens", "500 USD\n",
    ],
)  # fmt: skip
def test_other_limits_say_what_is_accepted(text: str) -> None:
    """Nothing is guessed: not the unit, not a sign, not an exponent, not a rounding."""
    with pytest.raises(ValueError, match="is not accepted") as refused:
        parse_limit(text)

    assert repr(text) in str(refused.value)
    assert '"<decimal> USD" with at most 12 decimals, "<int> tokens" or "<int> requests"' in str(
        refused.value
    )


@given(st.integers(min_value=1, max_value=10**18 - 1), st.sampled_from(Unit))
def test_an_amount_reads_back_as_the_same_limit(amount: int, unit: Unit) -> None:
    """Amount to text to limit changes nothing."""
    assert (amount, unit) == parse_limit(f"{amount_to_text(amount, unit)} {unit.value}")


@pytest.mark.parametrize(
    ("scope", "matches"),
    [
        ({}, True),
        ({"team": "search"}, True),
        ({"team": "ads"}, False),
        ({"team": "search", "model": "gpt-5"}, True),
        ({"team": "search", "model": "gpt-4"}, False),
        ({"tag.env": "prod"}, True),
        ({"tag.env": "dev"}, False),
        ({"tag.absent": "x"}, False),
        ({"user": "ann"}, False),
    ],
    ids=str,
)
def test_every_part_of_a_scope_must_match(scope: dict[str, str], matches: bool) -> None:
    """A part the call does not have never matches."""
    assert is_in_scope(scope, subject(tag_env="prod")) is matches


def test_every_known_part_can_be_read() -> None:
    """The parts a scope may name are those a call has."""
    call = subject(user="ann")

    assert [
        "acme", "search", "rag", "rag-ci", "ann", "gpt-5", "openai",
    ] == [read_part(part, call) for part in PARTS]  # fmt: skip


def test_a_demand_has_an_amount_in_every_unit() -> None:
    """Unknown stays unknown."""
    asked = Demand(cost_pico=None, tokens=7)

    assert [None, 7, 1] == [asked.amount(unit) for unit in Unit]


def test_a_definition_makes_a_round_trip() -> None:
    """Definition to budget to definition writes the defaults out and changes nothing else."""
    short = BudgetDefinition(id="b", scope={"team": "search"}, limit="7.50 USD", window="month")

    made = budget_from_config(short)

    assert made.mode is Mode.HARD
    assert {
        "id": "b", "scope": {"team": "search"}, "limit": "7.5 USD", "window": "month",
        "timezone": "UTC", "anchor": None, "mode": "hard", "thresholds": [], "rollover": False,
        "valid_from": None, "valid_to": None, "actions": [],
        "on_store_down": None,
    } == budget_to_config(made)  # fmt: skip
    full = budget(
        "b rolling:60 5 requests", scope={"tag.env": "prod"}, mode="soft", thresholds=[50, 100]
    )
    assert full == budget_from_config(budget_to_config(full))
    assert made == budget_from_config(budget_to_config(made))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"limit": "5"}, "limit '5' is not accepted"),
        ({"window": "decade"}, "window 'decade' is not known"),
        ({"timezone": "Nowhere"}, "timezone 'Nowhere' is not known"),
        ({"mode": "strict"}, "mode 'strict' is not known; write hard, soft or observe"),
        ({"thresholds": [50, 0]}, "thresholds (50, 0) are not accepted"),
        (
            {"scope": {"department": "x"}},
            "scope part 'department' is not known; write organization",
        ),
        ({"scope": {"tag.": "x"}}, "scope part 'tag.' is not known"),
        ({"scope": {"tags": "x"}}, "scope part 'tags' is not known"),
        ({"scope": {"team": ""}}, "scope part 'team' has no value"),
    ],
    ids=str,
)
def test_a_definition_that_says_nonsense_is_refused(change: dict[str, Any], says: str) -> None:
    """The message names the field and what would be accepted."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the text is compared below
        budget("b month 5 USD", **change)

    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("window", "is_rate"),
    [
        ("minute", True),
        ("rolling:60", True),
        ("rolling:61", False),
        ("hour", False),
        ("total", False),
    ],
)
def test_a_minute_or_less_is_a_rate_limit(window: str, is_rate: bool) -> None:
    """So is its refusal: it passes while the client waits."""
    one = budget(f"B {window} 5 USD")

    assert is_rate_limit(one, window_of(one, AT)) is is_rate


def test_the_window_of_a_budget_is_its_rules() -> None:
    """A budget has no time of its own."""
    assert BudgetWindow(AT.replace(hour=0), AT.replace(hour=0) + timedelta(days=1)) == window_of(
        budget("b day 5 USD"), AT
    )


def test_remaining_is_negative_when_overrun() -> None:
    """Limit minus spent minus held, not clamped."""
    status = BudgetStatus(
        budget=budget("b day 5 tokens"),
        window=BudgetWindow(AT, None),
        spent=4,
        held=3,
        parked=1,
        limit=5,
    )

    assert -2 == status.remaining
