"""Estimates of a real gateway: over HTTP and on the command line, from its own calls.

Must never ask an estimate for what a call did not show before.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server import Gateway, plain_config
from tests.upstream import ScriptedUpstream

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway that has served three calls."""
    with Gateway(tmp_path_factory.mktemp("estimates"), plain_config(upstream.base_url)) as running:
        for _ in range(3):
            body = {"model": "gpt-5", "messages": MESSAGES}
            assert running.call("/v1/chat/completions", body).status_code == 200
        running.settle()
        yield running


def estimate(gateway: Gateway, **body: Any) -> dict[str, Any]:
    """Ask over HTTP."""
    answer = gateway.admin.post("/estimates", json={"model": "openai/gpt-5", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_next_call_is_expected_to_be_as_the_ones_before(gateway: Gateway) -> None:
    """The mean of what this ledger holds, and who, how many and when."""
    made = [record for record in gateway.ledger() if record["outcome"] == "ok"]
    found = estimate(gateway, messages=MESSAGES, max_output_tokens=4000, project="rag")

    assert found["input_tokens_from"] == "counted"
    assert found["history"]["records"] == len(made) == 3
    assert found["history"]["last_day"] == made[-1]["started_at"][:10]
    assert found["expected"]["output_tokens"] == made[0]["output_total"]
    costs = [float(found[part]["cost"]) for part in ("low", "expected", "ceiling")]
    assert costs == sorted(costs)


def test_exact_usage_has_the_lines_of_the_record(gateway: Gateway) -> None:
    """The function that priced the call prices the question."""
    record = next(r for r in gateway.ledger() if r["outcome"] == "ok")
    found = estimate(gateway, usage=record["usage"], at=record["started_at"])

    assert (found["cost"], found["lines"]) == (record["cost"], record["lines"])


def test_the_command_line_says_the_same_as_the_api(gateway: Gateway) -> None:
    """Beside a running gateway, from the same ledger; only the instant differs."""
    asked = ("--input-tokens", "500", "--project", "rag", "--compare", "gemini-2.5-pro")
    shown = gateway.run("estimate", "--model", "openai/gpt-5", *asked, "--json")
    over_http = estimate(gateway, input_tokens=500, project="rag", compare=["gemini-2.5-pro"])

    assert shown.returncode == 0, shown.stderr
    assert {**json.loads(shown.stdout), "at": ""} == {**over_http, "at": ""}


@pytest.mark.parametrize(
    "messages",
    [
        [{}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}],
        [{"role": "user", "content": None, "tool_calls": [{"function": {"arguments": {}}}]}],
        [{"role": {"role": "user"}, "content": "\u0000"}],
    ],
    ids=str,
)
def test_odd_messages_have_an_estimate_all_the_same(
    gateway: Gateway, messages: list[dict[str, Any]]
) -> None:
    """What cannot be read as text is counted as its JSON and bounded by the whole context."""
    found = estimate(gateway, messages=messages, max_output_tokens=10)

    assert found["ceiling"]["input_tokens"] >= found["low"]["input_tokens"] > 0


def test_an_export_of_a_test_run_is_a_build_check(gateway: Gateway) -> None:
    """Its total is what the ledger says, and the limit decides."""
    exported = gateway.run("ledger", "export", "--out", "run.jsonl", "--project", "rag")
    assert exported.returncode == 0, exported.stderr
    within = gateway.run("estimate", "--check", "run.jsonl", "--limit", "100 USD", "--json")
    over = gateway.run("estimate", "--check", "run.jsonl", "--limit", "0.000001 USD")

    usage = gateway.admin.get("/usage", params={"project": "rag"}).json()["items"]
    assert json.loads(within.stdout)["total"] == usage[0]["cost"]
    assert (within.returncode, over.returncode) == (0, 1)
    assert "over the limit of 0.000001 USD" in over.stdout
