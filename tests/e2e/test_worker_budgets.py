"""Several workers under hard budgets: what fits is let in, whichever worker is asked or dies.

Must never count by what a worker says: answers, the provider's side and the ledger are the truth.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_shared_budgets import CLIENTS, hammer, recorded
from tests.e2e.test_workers import (
    kill_with_open_calls,
    wait_for_workers,
    workers_of,
    writers_of,
)
from tests.openai_answers import completion
from tests.server import Gateway, plain_config
from tests.upstream import Reply, ScriptedUpstream, Silence
from tests.valkey import running_valkey

BUDGETS = [
    {"id": user, "scope": {"user": user}, "limit": f"{limit} requests", "window": "year"}
    for user, limit in (("race", 150), ("killed", 400))
]


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway of two workers, both ready, with a Redis of its own."""
    with running_valkey() as valkey:
        config = plain_config(
            upstream.base_url,
            budgets=BUDGETS,
            server={"workers": 2, "stop_s": 10},
            storage={"redis_url": valkey.url},
        )
        with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
            wait_for_workers(running, 2)
            yield running


def test_workers_let_in_exactly_what_fits(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Sixty-four clients on two workers: not one call too many, not one too few."""
    first = len(upstream.exchanges)
    with upstream.plays(Reply(body=completion())):
        told = hammer([gateway], "race")

    assert {200: 150, 429: CLIENTS} == told
    assert 150 == len(upstream.exchanges) - first
    gateway.settle()
    assert 2 == len(writers_of(gateway))


def test_a_killed_worker_takes_nothing_along(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Its successor counts what it had open; then exactly the rest fits."""

    def kill_one() -> None:
        os.kill(workers_of(gateway)[0], signal.SIGKILL)
        wait_for_workers(gateway, 3)

    with upstream.plays(Reply(body=completion())):
        told = hammer([gateway], "killed", 100, kill_one)
        more = hammer([gateway], "killed")

    assert {200, 429} >= set(more)
    gateway.settle()
    assert 400 == recorded(gateway, "killed")
    assert 400 >= told[200] + more[200] >= 400 - CLIENTS


def test_workers_do_not_wait_for_the_one_process_before_them(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """It was killed with a call open, and Redis is emptied: its journal tells, and it has gone."""
    budgets = [{"id": "calls", "limit": "9 requests", "window": "total"}]
    with running_valkey() as valkey, upstream.plays(Silence()):
        config = plain_config(upstream.base_url, budgets=budgets, storage={"redis_url": valkey.url})
        with Gateway(tmp_path, config) as gateway:
            kill_with_open_calls(gateway, upstream, ["open"])
            valkey.empty()
            gateway.write_server(workers=2)
            gateway.restart()

            gateway.wait_until(lambda: gateway.budget("calls").spent == 1, "the open call to count")
