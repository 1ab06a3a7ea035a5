"""What an alert says: facts, sentences, Slack's shape and the signature."""

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from gateway.alerts.message import Occasion, sign, write_body, write_facts, write_text
from gateway.budgets.alerting import AlertKind, Mark
from gateway.budgets.rules import BudgetStatus
from tests.budgets.builders import budget, instant, usd

NOON = instant("2026-11-23T12:00:00+00:00")
OCCASION = Occasion(alert_id="01A", organization="acme", at=NOON)
THRESHOLD = Mark(AlertKind.THRESHOLD, 80)


def status(text: str = "search-month month 500.5 USD", spent: str = "402.25") -> BudgetStatus:
    """Make the counters of a budget."""
    made = budget(text, scope={"team": "search", "tag.note": "<!here> & co"})
    money = made.unit == "USD"
    return BudgetStatus(
        budget=made,
        window=made.window.window_at(NOON),
        spent=usd(spent) if money else int(spent),
        held=usd("0.000000000001") if money else 3,
        parked=0,
        limit=made.limit,
    )


def test_amounts_are_exact_text_and_instants_are_utc() -> None:
    """Money keeps all of its twelve decimals."""
    facts = write_facts(THRESHOLD, status(), replace(OCCASION, passed=(50, 25)))

    assert {
        "id": "01A",
        "kind": "threshold",
        "organization": "acme",
        "budget": "search-month",
        "scope": {"team": "search", "tag.note": "<!here> & co"},
        "mode": "hard",
        "unit": "USD",
        "limit": "500.5",
        "spent": "402.25",
        "reserved": "0.000000000001",
        "percent": 80,
        "threshold": 80,
        "passed": [25, 50],
        "window": "month",
        "window_start": "2026-11-01T00:00:00.000000Z",
        "window_end": "2026-12-01T00:00:00.000000Z",
        "forecast": None,
        "raised_at": "2026-11-23T12:00:00.000000Z",
    } == facts


@pytest.mark.parametrize(
    ("mark", "text", "forecast", "said"),
    [
        (
            THRESHOLD,
            "b month 500 USD",
            None,
            "Budget b has reached 80 % of its limit: 402 of 500 USD spent. "
            "The window ends 2026-12-01 00:00 UTC.",
        ),
        (
            Mark(AlertKind.FORECAST),
            "b total 500 tokens",
            NOON + timedelta(days=1),
            "Budget b will be used up by 2026-11-24 12:00 UTC, before its window ends, if "
            "spending goes on like this: 402 of 500 tokens spent.",
        ),
        (
            Mark(AlertKind.REFUSAL),
            "b rolling:3600 500 requests",
            None,
            "Budget b has begun to refuse calls: 402 of 500 requests spent. "
            "The window is the last 3600 seconds.",
        ),
    ],
)
def test_people_are_told_in_a_sentence(
    mark: Mark, text: str, forecast: datetime | None, said: str
) -> None:
    """Which budget, what happened, how much, and until when."""
    facts = write_facts(mark, status(text, "402"), replace(OCCASION, forecast=forecast))

    assert said == write_text(facts)
    assert said == json.loads(write_body(facts, "json"))["text"]


def test_nothing_in_a_scope_can_mention_or_link_in_slack() -> None:
    """The three characters that begin markup are escaped wherever text of others is shown."""
    body = json.loads(write_body(write_facts(THRESHOLD, status(), OCCASION), "slack"))

    shown = json.dumps({"text": body["text"], "blocks": body["blocks"]})
    assert "<!here>" not in shown
    assert "&lt;!here&gt; &amp; co" in shown


@pytest.mark.parametrize("form", ["json", "slack"])
def test_the_same_facts_give_the_same_bytes(form) -> None:
    """As read back from a database too, so that a repeat is the same message."""
    facts = write_facts(THRESHOLD, status(), OCCASION)

    assert write_body(facts, form) == write_body(json.loads(json.dumps(facts)), form)


def test_the_signature_is_over_the_time_and_the_body() -> None:
    """By hand: HMAC-SHA256 with the secret, over ``1700000000.`` and the body, in hex."""
    # printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
    assert (
        "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686"
        == sign("secret", b'{"a":1}', 1_700_000_000)
    )


def test_slack_shows_every_text_as_it_stands() -> None:
    """Or it would make links of addresses in a scope, and mentions of names."""
    body = json.loads(write_body(write_facts(THRESHOLD, status(), OCCASION), "slack"))
    _, section, fields, context = body["blocks"]
    texts = [section["text"], *fields["fields"], *context["elements"]]

    assert {True} == {one["verbatim"] for one in texts}
