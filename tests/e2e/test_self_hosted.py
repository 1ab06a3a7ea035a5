"""A deployment of one's own behind a real gateway: priced by its time, held for, and recovered."""

import json
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from tests.server import KEY, Gateway, plain_config
from tests.upstream import Hold, Reply, ScriptedUpstream, Silence

# Two GPUs at 3,600 USD an hour: a second of a call costs 2 USD, and none takes longer than two.
TIMED = {
    "provider": "house",
    "model": "llama",
    "gpus": 2,
    "gpu_hour": "3600 USD",
    "priced_by": "gpu_second",
    "starts": "2026-01-01",
    "output_tokens_max": 1000,
}
DERIVED = {
    "provider": "tokens",
    "model": "qwen",
    "gpus": 4,
    "gpu_hour": "2.10 USD",
    "tokens_per_s": 1000,
    "starts": "2026-01-01",
}


def answer(model: str) -> bytes:
    """Write what a small server of its own says."""
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    message = {"role": "assistant", "content": "Fine."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    said = {"id": "c-1", "object": "chat.completion", "model": model, "choices": [choice]}
    return json.dumps({**said, "usage": usage}).encode()


@pytest.fixture
def gateway(tmp_path: Path, upstream: ScriptedUpstream) -> Gateway:
    """A gateway in front of two deployments of its own."""
    house = {"kind": "vllm", "base_url": upstream.base_url, "priced_as": None}
    config = plain_config(
        upstream.base_url,
        providers={"house": {**house, "timeout_s": 2}, "tokens": house},
        self_hosted=[TIMED, DERIVED],
        budgets=[{"id": "six", "limit": "6 USD", "window": "year"}],
        commitments=[
            {
                "id": "spare",
                "covers": {"provider": "house"},
                "amount": "1 USD",
                "renews": "month",
                "starts": "2026-01-01",
            }
        ],
    )
    return Gateway(tmp_path, config)


def ask(gateway: Gateway, model: str) -> httpx.Response:
    """Make one call."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50}
    headers = {"authorization": f"Bearer {KEY}"}
    return gateway.http.post("/v1/chat/completions", json=body, headers=headers)


def test_time_is_metered_held_and_recovered(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """A quick call costs little, a silent one its limit, and the budget is never overrun."""
    with gateway:
        with upstream.plays(Reply(body=answer("llama"))):
            quick = ask(gateway, "house/llama")
        record = gateway.record(quick)
        (line,) = [line for line in record["lines"] if line["meter"] == "gpu_second"]

        assert 200 == quick.status_code
        assert Decimal(record["cost"]) == Decimal(line["cost"]) == Decimal(line["quantity"])
        assert 0 < Decimal(record["cost"]) < 2
        assert (12, 3, "reported") == tuple(
            record[name] for name in ("input_total", "output_total", "basis")
        )
        assert "+local." in quick.headers["x-taximeter-price-version"]

        with upstream.plays(Silence()):
            silent = ask(gateway, "house/llama")
        assert (504, "4") == (silent.status_code, gateway.record(silent)["cost"])

        with upstream.plays(Reply(body=answer("llama"))):
            refused = ask(gateway, "house/llama")
        assert 429 == refused.status_code
        shown = gateway.budget("six")
        assert Decimal(record["cost"]) + 4 == shown.spent <= shown.limit

        report = gateway.admin.get("/commitments").json()
        (spare,) = report["items"]
        assert ("1", "1", Decimal(record["cost"]) + 3) == (
            spare["used"],
            spare["on_demand_cost"],
            Decimal(spare["overflow_cost"]),
        )
        measured = gateway.run("commitments", "self-hosted")
        assert "house/llama" in measured.stdout


def test_a_killed_call_is_booked_at_the_own_price(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """The next start knows the version with own prices again, and prices the bound with it."""
    with gateway, httpx.Client(base_url=gateway.url, trust_env=False, timeout=1) as client:
        gate = upstream.gate()
        with upstream.plays(Reply(body=answer("llama"), hold=Hold(gate=gate))):
            with pytest.raises(httpx.TimeoutException):
                client.post(
                    "/v1/chat/completions",
                    json={"model": "house/llama", "messages": [], "max_tokens": 5},
                    headers={"authorization": f"Bearer {KEY}"},
                    timeout=0.5,
                )
            gateway.kill()
            gate.release()
        gateway.restart()
        (record,) = [one for one in gateway.ledger() if one["outcome"] == "aborted"]

        assert ("estimated", "4") == (record["basis"], record["cost"])
        assert 4 == record["usage"]["gpu_second"]
        assert "+local." in record["price_version"]


def test_prices_by_the_token_are_prices_like_any_other(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """In the bill, over the API and on the command line, with how they were derived."""
    with gateway:
        with upstream.plays(Reply(body=answer("qwen"))):
            record = gateway.record(ask(gateway, "tokens/qwen"))
        (shown, *_) = gateway.admin.get("/prices?provider=tokens&model=qwen").json()["items"]
        listed = gateway.run("prices", "show", "tokens/qwen")

        assert Decimal("0.000035") == Decimal(record["cost"])
        assert ("2.333333334", "1000000") == (shown["amount"], shown["per"])
        assert shown["source"].startswith("own deployment: 4 GPUs x 2.10 USD/hour / (1000 tokens")
        assert 0 == listed.returncode
        assert "2.333333334" in listed.stdout
