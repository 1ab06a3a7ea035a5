"""Prices that change under a running gateway: every call has the version it was admitted under.

Must never race by luck: a call in flight is held at a gate while prices change.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.openai_answers import completion
from tests.server import Gateway, plain_config
from tests.upstream import Hold, Reply, ScriptedUpstream

PATH = "/v1/chat/completions"
BODY: dict[str, Any] = {
    "model": "gpt-5",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_completion_tokens": 400,
}
# (224 x 1.25 + 1024 x 0.125 + 210 x 10) / 10^6, then with input at 2.25: 224 / 10^6 more.
BEFORE, AFTER = Decimal("0.002508"), Decimal("0.002732")


@pytest.fixture
def gateway(tmp_path, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """A gateway that nobody has changed prices of."""
    with Gateway(tmp_path, plain_config(upstream.base_url)) as running:
        yield running


def post(gateway: Gateway, **change: Any) -> str:
    """Change prices and tell the version that made."""
    answer = gateway.admin.post("/prices", json={"why": "contract 7", **change})
    assert answer.status_code == 201, answer.text
    version: str = answer.json()["version"]
    return version


def new_input(amount: str) -> dict[str, Any]:
    """A price of input."""
    rate = {"provider": "openai", "model": "gpt-5", "meter": "input", "amount": amount}
    return {"rates": [{**rate, "per": 1_000_000}]}


def cost_of(gateway: Gateway, response: httpx.Response) -> tuple[Decimal, str]:
    """What a call was billed, and under which version."""
    record = gateway.record(response)
    return Decimal(record["cost"]), record["price_version"]


def test_the_next_call_is_billed_at_a_new_price_and_the_one_in_flight_is_not(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """The headers, the ledger, the metrics and the list of prices agree."""
    gate, already = upstream.gate(), len(upstream.exchanges)
    shipped = gateway.admin.get("/prices", params={"model": "gpt-5"}).json()["version"]
    with (
        ThreadPoolExecutor() as threads,
        upstream.plays(Reply(body=completion(), hold=Hold(gate=gate))),
    ):
        in_flight = threads.submit(gateway.call, PATH, BODY)
        upstream.wait_for(already + 1)
        version = post(gateway, **new_input("2.25"))
        gate.release()
        held = in_flight.result(10)
    then = gateway.call(PATH, BODY)

    assert (BEFORE, shipped) == cost_of(gateway, held)
    assert (AFTER, version) == cost_of(gateway, then)
    assert version == then.headers["x-taximeter-price-version"]
    label = {"model": "gpt-5", "meter": "input"}
    assert 2.25 == gateway.metric("llm_price_usd_per_million", price_version=version, **label)
    assert 0 == gateway.metric("llm_price_usd_per_million", price_version=shipped, **label)
    assert gateway.metric("llm_price_book_age_seconds") < 60


def test_an_override_for_a_team_changes_cost_and_leaves_list_cost(gateway: Gateway) -> None:
    """What the page says stands beside what is paid."""
    post(gateway, overrides=[{"id": "search-7", "team": "search", "percent": "-50"}])

    record = gateway.record(gateway.call(PATH, BODY))

    assert (BEFORE / 2, BEFORE) == (Decimal(record["cost"]), Decimal(record["list_cost"]))
    usage = {"model": "gpt-5", "input_tokens": 1000, "max_output_tokens": 100}
    theirs = gateway.admin.post("/estimates", json={**usage, "team": "search"}).json()
    anybodys = gateway.admin.post("/estimates", json=usage).json()
    assert Decimal(anybodys["ceiling"]["cost"]) == 2 * Decimal(theirs["ceiling"]["cost"])


def test_a_change_on_the_command_line_is_followed_within_a_second(gateway: Gateway) -> None:
    """Another process changed it; nothing was restarted."""
    done = gateway.run("prices", "set", "openai/gpt-5", "input", "2.25", "--why", "x")
    assert done.returncode == 0, done.stderr

    gateway.wait_until(
        lambda: (
            gateway.admin.get("/prices/versions").json()["items"][0]["version"]
            == gateway.call(PATH, BODY).headers["x-taximeter-price-version"]
        ),
        "the new version",
        within_s=3,
    )
    assert AFTER == cost_of(gateway, gateway.call(PATH, BODY))[0]


def test_a_call_cut_off_by_a_kill_is_priced_by_its_own_version(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """Recovery finds an operator's version, also after yet another one has come."""
    version = post(gateway, **new_input("1000"))
    gate, already = upstream.gate(), len(upstream.exchanges)
    script = Reply(body=completion(), hold=Hold(gate=gate))
    with ThreadPoolExecutor() as threads, upstream.plays(script):
        cut = threads.submit(_until_cut, gateway)
        upstream.wait_for(already + 1)
        gateway.kill()
        cut.result(20)
        gate.release()
    done = gateway.run("prices", "set", "openai/gpt-5", "input", "3", "--why", "x")
    assert done.returncode == 0, done.stderr
    gateway.restart()

    (record,) = [one for one in gateway.ledger() if one["outcome"] == "aborted"]
    (line,) = [one for one in record["lines"] if one["meter"] == "input"]

    assert (version, "1000") == (record["price_version"], line["unit_price"])
    assert gateway.call(PATH, BODY).headers["x-taximeter-price-version"] != version


def _until_cut(gateway: Gateway) -> None:
    with pytest.raises(httpx.TransportError):
        gateway.call(PATH, BODY)
