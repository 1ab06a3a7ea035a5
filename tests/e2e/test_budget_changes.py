"""Budgets that change while calls run: nothing spent is forgotten.

Must never race by luck: every call here has to be refused, however the change falls.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.server import KEY, Gateway, plain_config
from tests.upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway without a budget of its own."""
    config = plain_config(upstream.base_url, budgets=[])
    with Gateway(tmp_path_factory.mktemp("changes"), config) as running:
        yield running


def ask(gateway: Gateway) -> int:
    """Make one call and tell its status."""
    body = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}]}
    with httpx.Client(base_url=gateway.url, trust_env=False, timeout=10) as client:
        response = client.post(
            "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"}
        )
    return response.status_code


def test_a_spent_budget_stays_spent_while_its_scope_and_window_change(gateway: Gateway) -> None:
    """Ten callers hammer a spent budget while it is changed over and over: not one gets through."""
    budget = {"id": "three", "limit": "3 requests", "window": "month"}
    assert 201 == gateway.admin.post("/budgets", json=budget).status_code
    assert [200, 200, 200, 429] == [ask(gateway) for _ in range(4)]

    with ThreadPoolExecutor(10) as callers:
        told = [callers.submit(ask, gateway) for _ in range(120)]
        for change in [{"scope": {"team": "search"}}, {"scope": {}}, {"window": "year"}] * 3:
            assert 200 == gateway.admin.patch("/budgets/three", json=change).status_code

    assert {429} == {one.result() for one in told}


def test_a_scope_that_cannot_be_evaluated_changes_nothing(gateway: Gateway) -> None:
    """What is refused is not kept, and the calls go on."""
    spoiled = {"id": "bad", "scope": {'tag.a"b': "x"}, "limit": "1 USD", "window": "day"}

    assert 422 == gateway.admin.post("/budgets", json=spoiled).status_code
    assert 404 == gateway.admin.get("/budgets/bad").status_code
    assert 204 == gateway.admin.delete("/budgets/three").status_code
    assert 200 == ask(gateway)
