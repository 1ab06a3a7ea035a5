"""What the tests of alerts share: a receiver on a loopback port, and a configuration with it.

Must never sign or decide anything with the gateway's own code.
"""

import hashlib
import hmac
import json
from typing import Any, Final

from tests.server import Gateway, plain_config
from tests.upstream import Exchange, Received, Reply, ScriptedUpstream

SECRET: Final = "alert-secret-Hk20-only-for-tests"
PATH_SECRET: Final = "hook-path-Ww81-only-for-tests"
TAKEN: Final = Reply(body=b"ok", headers=())


def take(_: Received) -> Reply:
    """Take whatever comes."""
    return TAKEN


def hook(upstream: ScriptedUpstream, receiver_id: str = "ops", **settings: Any) -> dict[str, Any]:
    """Write the settings of a receiver that a scripted server plays."""
    return {
        "id": receiver_id,
        "url": f"http://127.0.0.1:{upstream.port}/{PATH_SECRET}?key={PATH_SECRET}",
        "secret": SECRET,
        "timeout_s": 5,
        **settings,
    }


def alerting_config(base_url: str, *receivers: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """Write a configuration with receivers and a soft budget of four requests a month."""
    budget = {
        "id": "four",
        "scope": {"team": "search"},
        "limit": "4 requests",
        "window": "month",
        "mode": "soft",
        "thresholds": [25, 50, 80],
    }
    return plain_config(base_url, **{"budgets": [budget], "alerts": list(receivers), **sections})


def ask(gateway: Gateway, model: str = "gpt-5") -> int:
    """Make one small call; tells its status."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    return gateway.call("/v1/chat/completions", body).status_code


def alerts(gateway: Gateway, **query: Any) -> list[dict[str, Any]]:
    """Read the newest page of the log."""
    shown = gateway.admin.get("/alerts", params=query)
    assert shown.status_code == 200, shown.text
    items: list[dict[str, Any]] = shown.json()["items"]
    return items


def wait_delivered(gateway: Gateway, count: int, within_s: float = 20) -> list[dict[str, Any]]:
    """Wait until so many deliveries have arrived; returns the log."""
    gateway.wait_until(
        lambda: count <= sum(done(alert) for alert in alerts(gateway)),
        f"{count} deliveries",
        within_s,
    )
    return alerts(gateway)


def done(alert: dict[str, Any]) -> int:
    """Count the deliveries of an alert that have arrived."""
    return sum(one["status"] == "delivered" for one in alert["deliveries"])


def ids_of(exchanges: list[Exchange]) -> list[str | None]:
    """Name the alert of each request."""
    return [exchange.received.header("idempotency-key") for exchange in exchanges]


def check_signature(received: Received, secret: str = SECRET) -> int:
    """Verify a message as its receiver would; returns when it was signed."""
    header = received.header("x-taximeter-signature")
    assert header is not None
    parts = dict(part.split("=", 1) for part in header.split(","))
    signed = parts["t"].encode() + b"." + received.body
    assert hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() == parts["v1"]
    return int(parts["t"])


def facts_in(received: Received) -> dict[str, Any]:
    """Read the facts of a message."""
    body = json.loads(received.body)
    facts: dict[str, Any] = body.get("alert", body)
    return facts
