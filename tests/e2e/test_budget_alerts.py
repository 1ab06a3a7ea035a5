"""Budget alerts of a real gateway: told once, until they arrive, whatever is killed meanwhile.

Must never reach into the gateway: receivers on loopback ports, HTTP and signals are all there is.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.alerts.kit import (
    PATH_SECRET,
    SECRET,
    TAKEN,
    alerting_config,
    alerts,
    ask,
    check_signature,
    facts_in,
    hook,
    ids_of,
    take,
    wait_delivered,
)
from tests.postgres import postgres_fixture  # noqa: F401 - found by its name
from tests.server import Gateway, each_file
from tests.upstream import Hold, Received, Reply, Script, ScriptedUpstream, Silence, closed_port


@pytest.fixture
def receiver() -> Iterator[ScriptedUpstream]:
    """A receiver that takes everything unless a test says otherwise."""
    with ScriptedUpstream(take) as running:
        yield running


def in_turn(*scripts: Script) -> Callable[[Received], Script]:
    """Answer with one script after the other; the last one stays."""
    left = list(scripts)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def test_a_threshold_is_told_once_with_amounts_as_text(
    tmp_path: Path, upstream: ScriptedUpstream, receiver: ScriptedUpstream
) -> None:
    """The message is signed, named and says what the log says; the next one speaks of the next."""
    config = alerting_config(upstream.base_url, hook(receiver, on=["threshold"]))
    with Gateway(tmp_path, config) as gateway:
        assert 200 == ask(gateway)
        first = receiver.wait_for(1).received
        wait_delivered(gateway, 1)
        assert [200, 200, 200] == [ask(gateway) for _ in range(3)]
        # Between two looks everything may be spent at once, or not.
        gateway.wait_until(
            lambda: {25, 50, 80, 100} == {one["threshold"] for one in alerts(gateway)},
            "every threshold to be known",
        )
        spoken = [one for one in alerts(gateway) if not one["is_silent"]]
        wait_delivered(gateway, len(spoken))
        log = alerts(gateway)
        raised = gateway.metric("llm_budget_alerts_total", budget="four", outcome="raised")
        delivered = gateway.metric(
            "llm_budget_alerts_total", budget="four", kind="threshold", outcome="delivered"
        )
        assert (4, len(spoken)) == (raised, delivered)
        assert 0 == gateway.metric("llm_budget_alerts_waiting")

    facts = facts_in(first)
    expected = {
        "kind": "threshold",
        "organization": "acme",
        "budget": "four",
        "scope": {"team": "search"},
        "mode": "soft",
        "unit": "requests",
        "limit": "4",
        "spent": "1",
        "reserved": "0",
        "percent": 25,
        "threshold": 25,
        "passed": [],
        "window": "month",
        "forecast": None,
    }
    assert expected == {name: facts[name] for name in expected}
    assert abs(check_signature(first) - time.time()) < 60
    assert ("POST", f"/{PATH_SECRET}?key={PATH_SECRET}") == (first.method, first.target)
    assert "application/json" == first.header("content-type")
    assert log[-1]["id"] == facts["id"] == first.header("idempotency-key")
    assert all(log[-1][name] == facts[name] for name in facts if name != "text")
    assert len(spoken) == len(receiver.exchanges)
    assert [100] == [one["threshold"] for one in spoken][:1]


def test_a_receiver_that_is_slow_or_says_no_is_asked_again_under_the_same_id(
    tmp_path: Path, upstream: ScriptedUpstream, receiver: ScriptedUpstream
) -> None:
    """Errors, silence, a redirect: the same id and body, newly signed, until it arrives."""
    elsewhere = Reply(
        status=302, headers=(("Location", f"http://127.0.0.1:{receiver.port}/elsewhere"),)
    )
    script = in_turn(Reply(status=500), elsewhere, Silence(), TAKEN)
    config = alerting_config(upstream.base_url, hook(receiver, timeout_s=0.5))
    with receiver.plays(script), Gateway(tmp_path, config) as gateway:
        assert 200 == ask(gateway)
        (alert,) = wait_delivered(gateway, 1)
        retried = gateway.metric("llm_budget_alerts_total", budget="four", outcome="retried")
        assert 3 == retried

    (delivery,) = alert["deliveries"]
    assert ("delivered", 4, None) == tuple(
        delivery[name] for name in ("status", "attempts", "last_error")
    )
    assert [alert["id"]] * 4 == ids_of(receiver.exchanges)
    assert 1 == len({exchange.received.body for exchange in receiver.exchanges})
    assert 1 == len({exchange.received.target for exchange in receiver.exchanges})
    for exchange in receiver.exchanges:
        check_signature(exchange.received)


def test_an_alert_that_was_not_delivered_survives_a_kill(
    tmp_path: Path, upstream: ScriptedUpstream, receiver: ScriptedUpstream
) -> None:
    """Killed between the threshold and any delivery: told once after the restart."""
    gone = hook(receiver) | {"url": f"http://127.0.0.1:{closed_port()}/"}
    with Gateway(tmp_path, alerting_config(upstream.base_url, gone)) as gateway:
        assert 200 == ask(gateway)
        gateway.wait_until(
            lambda: any(one["deliveries"][0]["last_error"] for one in alerts(gateway)),
            "an attempt that fails",
        )
        (before,) = alerts(gateway)
        assert before["deliveries"][0]["last_error"].startswith("not reached: ")
        assert 1 == gateway.metric("llm_budget_alerts_waiting")
        gateway.kill()
    with Gateway(tmp_path, alerting_config(upstream.base_url, hook(receiver))) as gateway:
        (after,) = wait_delivered(gateway, 1)
        assert 0 == gateway.metric("llm_budget_alerts_total", outcome="raised")

    assert before["id"] == after["id"]
    assert [before["id"]] == ids_of(receiver.exchanges)


def test_a_kill_in_the_middle_of_a_delivery_repeats_it_under_the_same_id(
    tmp_path: Path, upstream: ScriptedUpstream, receiver: ScriptedUpstream
) -> None:
    """Nobody knows whether the receiver took it: it gets it once more and can tell by the id."""
    gate = receiver.gate()
    config = alerting_config(upstream.base_url, hook(receiver))
    with Gateway(tmp_path, config) as gateway:
        with receiver.plays(in_turn(Reply(hold=Hold(gate=gate)), TAKEN)):
            assert 200 == ask(gateway)
            assert gate.reached.wait(10)
            gateway.kill()
            gate.release()
            gateway.restart()
            (alert,) = wait_delivered(gateway, 1)
        assert 200 == ask(gateway)
        wait_delivered(gateway, 2)

    assert [alert["id"]] * 2 == ids_of(receiver.exchanges)[:2]
    assert 2 == len(set(ids_of(receiver.exchanges)))


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_two_gateways_on_one_database_tell_once(
    tmp_path: Path,
    upstream: ScriptedUpstream,
    receiver: ScriptedUpstream,
    request: pytest.FixtureRequest,
    database: str,
) -> None:
    """Both find the threshold reached when they start; what one has raised either may deliver."""
    url = f"sqlite:///{tmp_path}/shared.db"
    if database == "postgres":
        server = request.getfixturevalue("postgres")
        url = server.url(server.create_database())
    storage = {"database_url": url}
    quiet = alerting_config(upstream.base_url, storage=storage)
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with Gateway(folders[0], quiet) as gateway:
        assert [200, 200] == [ask(gateway) for _ in range(2)]
        gateway.settle()

    config = alerting_config(upstream.base_url, hook(receiver), storage=storage)
    with Gateway(folders[0], config) as first, Gateway(folders[1], config) as second:
        log = wait_delivered(first, 1)
        for gateway in (first, second):
            assert 200 == ask(gateway)  # both now have 75 %, which is no threshold
            gateway.settle()
        assert 2 == sum(
            gateway.metric("llm_budget_alerts_total", outcome="raised")
            for gateway in (first, second)
        )
        assert 1 == sum(
            gateway.metric("llm_budget_alerts_total", outcome="delivered")
            for gateway in (first, second)
        )

    assert [(50, False), (25, True)] == [(one["threshold"], one["is_silent"]) for one in log]
    assert [25] == log[0]["passed"]
    assert [log[0]["id"]] == ids_of(receiver.exchanges)


def test_a_hard_budget_tells_that_it_refuses(
    tmp_path: Path, upstream: ScriptedUpstream, receiver: ScriptedUpstream
) -> None:
    """The first refusal of a window is told, not every one; a rate limit's never is."""
    budgets = [
        {"id": "slow", "scope": {"model": "gpt-5-mini"}, "limit": "1 requests", "window": "minute"},
        {"id": "all", "limit": "3 requests", "window": "month"},
    ]
    config = alerting_config(upstream.base_url, hook(receiver), budgets=budgets)
    with Gateway(tmp_path, config) as gateway:
        while [429, 429] != [ask(gateway, "gpt-5-mini") for _ in range(2)]:
            pass  # a minute may have begun in between
        while 200 == ask(gateway):
            pass
        wait_delivered(gateway, 1)
        assert [429, 429] == [ask(gateway) for _ in range(2)]
        log = alerts(gateway)

    assert [("all", "refusal", "3", 100)] == [
        (one["budget"], one["kind"], one["spent"], one["percent"]) for one in log
    ]
    assert "has begun to refuse calls" in json.loads(receiver.last().body)["text"]


def test_only_what_a_receiver_wants_is_told(
    tmp_path: Path, upstream: ScriptedUpstream, receiver: ScriptedUpstream
) -> None:
    """By kind, by budget and by scope; an alert nobody wants stands in the log all the same."""
    config = alerting_config(
        upstream.base_url,
        hook(receiver, "all"),
        hook(receiver, "refusals", on=["refusal"]),
        hook(receiver, "others", budgets=["five*"]),
        hook(receiver, "four-alone", budgets=["fo*"], scope={"team": "search"}),
        hook(receiver, "prod", scope={"tag.env": "prod"}),
    )
    with Gateway(tmp_path, config) as gateway:
        assert 200 == ask(gateway)
        (alert,) = wait_delivered(gateway, 2)
        table = gateway.run("budgets", "alerts")
        listed = gateway.run("budgets", "alerts", "four", "--limit", "5", "--json")
        nothing = gateway.run("budgets", "alerts", "five")

    assert ["all", "four-alone"] == [one["receiver"] for one in alert["deliveries"]]
    assert [alert] == json.loads(listed.stdout)
    assert "no alerts\n" == nothing.stdout
    heading, row = table.stdout.splitlines()
    assert heading.split() == ["RAISED", "BUDGET", "ALERT", "SPENT", "LIMIT", "UNIT", "TOLD"]
    assert row.endswith(
        "four    25 %       1      4  requests  all delivered, four-alone delivered"
    )


def test_slack_gets_a_message_that_slack_shows(
    tmp_path: Path, upstream: ScriptedUpstream, receiver: ScriptedUpstream
) -> None:
    """A text, blocks of known types within Slack's limits, and the facts beside them."""
    config = alerting_config(upstream.base_url, hook(receiver, format="slack"))
    with Gateway(tmp_path, config) as gateway:
        assert 200 == ask(gateway)
        (alert,) = wait_delivered(gateway, 1)

    body = json.loads(receiver.last().body)
    assert {"text", "blocks", "alert"} == body.keys()
    assert body["text"].startswith("Budget four has reached 25 % of its limit: 1 of 4 requests")
    assert ["header", "section", "section", "context"] == [one["type"] for one in body["blocks"]]
    header, said, fields, _ = body["blocks"]
    assert ("plain_text", "Budget four: threshold") == (
        header["text"]["type"],
        header["text"]["text"],
    )
    assert ("mrkdwn", body["text"]) == (said["text"]["type"], said["text"]["text"])
    assert ["*Spent*\n1 requests (25 %)", "*Limit*\n4 requests", "*Reserved*\n0 requests"] == [
        field["text"] for field in fields["fields"]
    ][:3]
    assert all(alert[name] == value for name, value in body["alert"].items())


def test_secrets_of_receivers_stay_out_of_logs_and_files(
    tmp_path: Path, upstream: ScriptedUpstream, receiver: ScriptedUpstream
) -> None:
    """Neither the secret nor the address, nor what a receiver says, is written anywhere."""
    marker = b"RECEIVER-SAYS-3f1c"
    script = in_turn(Reply(status=500, body=marker), TAKEN)
    config = alerting_config(upstream.base_url, hook(receiver))
    with receiver.plays(script), Gateway(tmp_path, config) as gateway:
        assert 200 == ask(gateway)
        wait_delivered(gateway, 1)
        shown = gateway.run("check-config")
        assert 0 == shown.returncode
        assert f"http://127.0.0.1:{receiver.port}/****" in shown.stdout
        gateway.stop()

    told = {"check-config": shown.stdout.encode()}
    told |= {p.name: p.read_bytes() for p in each_file(tmp_path) if p.name != "gateway.yaml"}
    for name, content in told.items():
        assert not any(
            word in content for word in (SECRET.encode(), PATH_SECRET.encode(), marker)
        ), name


def test_a_test_message_is_sent_once_by_hand(
    tmp_path: Path, upstream: ScriptedUpstream, receiver: ScriptedUpstream
) -> None:
    """It says what it is; a receiver that does not take it makes the command fail."""
    config = alerting_config(upstream.base_url, hook(receiver))
    gateway = Gateway(tmp_path, config)
    taken = gateway.run("budgets", "test-alert", "ops")
    with receiver.plays(Reply(status=403)):
        refused = gateway.run("budgets", "test-alert", "ops")
    unknown = gateway.run("budgets", "test-alert", "opps")

    assert (0, "receiver ops took a test message\n") == (taken.returncode, taken.stdout)
    first = receiver.exchanges[0].received
    check_signature(first)
    assert "test" == facts_in(first)["kind"]
    assert (1, True) == (refused.returncode, "answered 403" in refused.stderr)
    assert (2, True) == (unknown.returncode, "did you mean ops?" in unknown.stderr)
    assert 2 == len(receiver.exchanges)
