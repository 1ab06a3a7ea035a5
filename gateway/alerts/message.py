"""What an alert says: facts for programs, sentences for people, a signature for both.

Must never turn an amount into a float, nor say anything that is not in the facts.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from gateway.alerts.outbox import Facts
from gateway.budgets.alerting import Mark, percent_of
from gateway.budgets.rules import BudgetStatus, amount_to_text
from gateway.clock import epoch_us, to_rfc3339

Format = Literal["json", "slack"]

SIGNATURE_HEADER: Final = "x-taximeter-signature"
ID_HEADER: Final = "idempotency-key"
# Of a message sent by hand, to see whether it arrives.
TEST_KIND: Final = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What an alert says beside the counters.

    Attributes:
        alert_id: Of the alert.
        organization: Whose budget it is.
        at: When it was raised.
        forecast: When the budget will be used up; ``None`` when that is not foreseen.
        passed: Lower thresholds for which it speaks too.
    """

    alert_id: str
    organization: str
    at: datetime
    forecast: datetime | None = None
    passed: tuple[int, ...] = ()


def write_facts(mark: Mark, status: BudgetStatus, occasion: Occasion) -> Facts:
    """Write down what an alert is about, as it was when it was raised.

    Args:
        mark: What it is.
        status: The budget's counters.
        occasion: Everything else.

    Returns:
        Plain data; money as text, instants as RFC 3339 UTC. The names are those of the API.
    """
    forecast = occasion.forecast
    budget, window = status.budget, status.window
    return {
        "id": occasion.alert_id,
        "kind": mark.kind.value,
        "organization": occasion.organization,
        "budget": budget.id,
        "scope": dict(budget.scope),
        "mode": budget.mode.value,
        "unit": budget.unit.value,
        "limit": amount_to_text(status.limit, budget.unit),
        "spent": amount_to_text(status.spent, budget.unit),
        "reserved": amount_to_text(status.held, budget.unit),
        "percent": percent_of(status),
        "threshold": mark.threshold or None,
        "passed": sorted(occasion.passed),
        "window": budget.window.text,
        "window_start": _instant(window.start),
        "window_end": None if window.end is None else _instant(window.end),
        "forecast": None if forecast is None else _instant(forecast),
        "raised_at": _instant(occasion.at),
    }


def write_test_facts(alert_id: str, organization: str, at: datetime) -> Facts:
    """Write down what a test message is about: a budget that does not exist.

    Args:
        alert_id: Of the message.
        organization: Who sends it.
        at: Now.

    Returns:
        As ``write_facts``.
    """
    return {
        "id": alert_id,
        "kind": TEST_KIND,
        "organization": organization,
        "budget": "test",
        "scope": {},
        "mode": "hard",
        "unit": "USD",
        "limit": "500",
        "spent": "400",
        "reserved": "2.5",
        "percent": 80,
        "threshold": 80,
        "passed": [],
        "window": "total",
        "window_start": _instant(at),
        "window_end": None,
        "forecast": None,
        "raised_at": _instant(at),
    }


def write_body(facts: Facts, form: Format) -> bytes:
    """Write the body of a message; the same facts give the same bytes.

    Args:
        facts: As recorded.
        form: ``json``: the facts and a sentence. ``slack``: what an incoming webhook of Slack
            shows, with the facts beside it.

    Returns:
        JSON.
    """
    body: dict[str, Any]
    text = write_text(facts)
    if form == "json":
        body = {**facts, "text": text}
    else:
        body = {"text": _escape(text), "blocks": _write_blocks(facts, text), "alert": dict(facts)}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def write_text(facts: Facts) -> str:
    """Say in a sentence or two what happened.

    Args:
        facts: As recorded.

    Returns:
        Text without markup.
    """
    budget, unit = facts["budget"], facts["unit"]
    amounts = f"{facts['spent']} of {facts['limit']} {unit} spent"
    match facts["kind"]:
        case "threshold":
            said = f"Budget {budget} has reached {facts['threshold']} % of its limit: {amounts}."
        case "forecast":
            said = (
                f"Budget {budget} will be used up by {_for_people(facts['forecast'])}, before its "
                f"window ends, if spending goes on like this: {amounts}."
            )
        case "refusal":
            said = f"Budget {budget} has begun to refuse calls: {amounts}."
        case _:
            return "This is a test of an alert receiver, sent by hand. No budget is affected."
    end = facts["window_end"]
    if facts["window"].startswith("rolling:"):
        return f"{said} The window is the last {facts['window'].partition(':')[2]} seconds."
    return said if end is None else f"{said} The window ends {_for_people(end)}."


def _write_blocks(facts: Facts, text: str) -> list[dict[str, Any]]:
    # Limits of Slack's: 150 characters in a header, 2,000 in a field, 10 fields.
    # https://api.slack.com/reference/block-kit/blocks
    percent = "" if facts["percent"] is None else f" ({facts['percent']} %)"
    fields = {
        "Spent": f"{facts['spent']} {facts['unit']}{percent}",
        "Limit": f"{facts['limit']} {facts['unit']}",
        "Reserved": f"{facts['reserved']} {facts['unit']}",
        "Window": f"{facts['window']}, from {_for_people(facts['window_start'])}",
    }
    scope = ", ".join(f"{part}={value}" for part, value in facts["scope"].items())
    return [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": f"Budget {facts['budget']}: {facts['kind']}"},
        },
        {"type": "section", "text": _shown(_escape(text)[:3000])},
        {
            "type": "section",
            "fields": [_shown(f"*{name}*\n{_escape(value)}") for name, value in fields.items()],
        },
        {
            "type": "context",
            "elements": [
                _shown(
                    _escape(
                        f"{facts['organization']} · {scope or 'every call'} · alert {facts['id']}"
                    )[:2000]
                )
            ],
        },
    ]


def _shown(text: str) -> dict[str, Any]:
    """Show text as it stands: Slack would make links of addresses in it, and mentions of names.

    Source:
        https://docs.slack.dev/reference/block-kit/composition-objects/text-object, ``verbatim``,
        checked 2026-11-23.
    """
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _escape(text: str) -> str:
    """Keep text from being read as a link or a mention: a scope may name anything.

    Source:
        https://api.slack.com/reference/surfaces/formatting, escaping text: these three characters.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def sign(secret: str, body: bytes, at_s: int) -> str:
    """Sign a message, so that its receiver can tell who wrote it and that it is fresh.

    Args:
        secret: Shared with the receiver.
        body: As sent.
        at_s: Now, in seconds since 1970.

    Returns:
        Value of the signature header: ``t=<seconds>,v1=<HMAC-SHA256 over "<seconds>." and body>``.
    """
    mac = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256)
    return f"t={at_s},v1={mac.hexdigest()}"


def _for_people(instant: str) -> str:
    return f"{instant[:10]} {instant[11:16]} UTC"


def _instant(at: datetime) -> str:
    return to_rfc3339(epoch_us(at))
