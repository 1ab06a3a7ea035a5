"""Kill -9 in the middle of load: nothing that reached the provider may be missing afterwards.

Must never give the gateway a chance to say goodbye.
"""

import asyncio
import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from tests.openai_answers import completion, spoken, usage_chunk
from tests.server import KEY, Gateway, Record, plain_config
from tests.upstream import Hold, Received, Reply, Script, ScriptedUpstream, Sse

WORKERS = 12
COST = "0.002508"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client saw of one call.

    Attributes:
        user: Name of the call.
        request_id: The gateway's id; ``None`` when not even the head arrived.
        is_whole: The last byte arrived.
    """

    user: str
    request_id: str | None
    is_whole: bool


def named_answer(received: Received) -> Script:
    """Answer with an id made of the call's own name, whole or streamed as asked."""
    asked = received.json()
    name = asked["metadata"]["call"]
    if asked.get("stream"):
        return Sse(
            events=spoken("So ", "it ", "is.", id=f"chatcmpl-{name}"),
            usage=(usage_chunk(id=f"chatcmpl-{name}"),),
        )
    return Reply(body=completion(answer_id=f"chatcmpl-{name}"))


class Load:
    """Clients that call until the gateway is gone."""

    def __init__(self, gateway: Gateway, seed: int, prefix: str) -> None:
        self._url = gateway.url
        self._random = random.Random(seed)
        self._prefix = prefix
        self._made = 0
        self.heard: list[Heard] = []

    def run_until_killed(self, gateway: Gateway, upstream: ScriptedUpstream, arrivals: int) -> None:
        """Call from many clients; kill the gateway once that many calls reached the upstream."""
        asyncio.run(self._run(gateway, upstream, len(upstream.exchanges) + arrivals))

    async def _run(self, gateway: Gateway, upstream: ScriptedUpstream, arrivals: int) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(trust_env=False, timeout=20, limits=limits) as client:
            workers = [asyncio.create_task(self._work(client)) for _ in range(WORKERS)]
            await asyncio.to_thread(upstream.wait_for, arrivals)
            await asyncio.to_thread(gateway.kill)
            await asyncio.gather(*workers)

    async def _work(self, client: httpx.AsyncClient) -> None:
        while True:
            self._made += 1
            heard = await self._call(client, f"{self._prefix}-{self._made}")
            self.heard.append(heard)
            if not heard.is_whole:
                return

    async def _call(self, client: httpx.AsyncClient, user: str) -> Heard:
        body = {
            "model": "gpt-5",
            "messages": [{"role": "user", "content": "Hello world"}],
            "max_completion_tokens": 300,
            "metadata": {"call": user},
            "stream": self._random.random() < 0.5,
        }
        headers = {"authorization": f"Bearer {KEY}", "x-taximeter-user": user}
        request_id = None
        try:
            async with client.stream(
                "POST",
                f"{self._url}/v1/chat/completions",
                content=json.dumps(body),
                headers=headers,
            ) as response:
                assert response.status_code == 200, await response.aread()
                request_id = response.headers["x-taximeter-request-id"]
                async for _ in response.aiter_raw():
                    pass
        except httpx.TransportError:
            return Heard(user, request_id, is_whole=False)
        return Heard(user, request_id, is_whole=True)


@pytest.mark.parametrize("seed", [11, 23, 58])
def test_every_call_that_reached_the_provider_has_one_record_after_a_kill(
    tmp_path: Path, upstream: ScriptedUpstream, seed: int
) -> None:
    """Two kills in a row, whole answers and streams mixed; the chain and the budgets agree."""
    budgets = [
        {"id": "acme-year", "limit": "5000 USD", "window": "year"},
        {"id": "acme-calls", "limit": "900000 requests", "window": "year", "mode": "soft"},
    ]
    gateway = Gateway(tmp_path, plain_config(upstream.base_url, budgets=budgets))
    chance = random.Random(seed)
    heard: list[Heard] = []
    first = len(upstream.exchanges)
    with upstream.plays(named_answer), gateway:
        for turn in range(2):
            load = Load(gateway, chance.randrange(2**32), f"s{seed}t{turn}")
            load.run_until_killed(gateway, upstream, chance.randint(30, 150))
            heard += load.heard
            gateway.restart()
        reached = [one.received.json()["metadata"]["call"] for one in upstream.exchanges[first:]]
        records = gateway.ledger()
        check_records(heard, reached, records)
        verified = gateway.run("ledger", "verify")
        assert 0 == verified.returncode, verified.stdout + verified.stderr
        check_budgets(gateway, records)


def check_records(heard: list[Heard], reached: list[str], records: list[Record]) -> None:
    """Compare what clients and provider saw with the ledger."""
    asked = [record for record in records if record["outcome"] != "refused"]
    by_user = {record["user"]: record for record in asked}
    assert [] == [user for user, times in Counter(r["user"] for r in asked).items() if times > 1]
    assert [] == [user for user in reached if user not in by_user]
    assert [] == [one.user for one in heard if one.request_id and one.user not in by_user]
    for one in heard:
        if one.request_id is not None:
            assert one.request_id == by_user[one.user]["id"]
        if one.is_whole:
            record = by_user[one.user]
            seen = (record["outcome"], record["basis"], record["cost"])
            assert ("ok", "reported", COST) == seen
            assert f"chatcmpl-{one.user}" == record["provider_request_id"]
    for record in asked:
        if record["outcome"] == "aborted":
            assert (None, "estimated") == (record["http_status"], record["basis"])
            assert Decimal(record["cost"]) > 0


def check_budgets(gateway: Gateway, records: list[Record]) -> None:
    """Compare the counters rebuilt at start with the records."""
    asked = [record for record in records if record["outcome"] != "refused"]
    shown = gateway.budget("acme-year")
    assert sum(Decimal(record["cost"]) for record in asked) == shown.spent
    assert 0 == shown.reserved
    assert len(asked) == gateway.budget("acme-calls").spent


def test_a_polite_stop_finishes_the_open_call(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """SIGTERM while the provider thinks: the client gets its answer, then the exit status is 0."""
    gate = upstream.gate()
    already = len(upstream.exchanges)
    script = Reply(body=completion(), hold=Hold(gate=gate))
    body = {"model": "gpt-5", "messages": []}
    with (
        upstream.plays(script),
        Gateway(tmp_path, plain_config(upstream.base_url)) as gateway,
        ThreadPoolExecutor() as threads,
    ):
        answer = threads.submit(
            gateway.call, "/v1/chat/completions", body, headers={"x-taximeter-user": "last"}
        )
        upstream.wait_for(already + 1)
        gateway.ask_to_stop()
        gate.release()

        assert completion() == answer.result(10).content
        assert 0 == gateway.stop(), gateway.said()
        gateway.restart()
        records = gateway.records_of("last")

    assert [("ok", COST)] == [(record["outcome"], record["cost"]) for record in records]


def test_two_gateways_never_share_a_journal(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """The second one refuses to start and names the folder; the first one goes on."""
    with Gateway(tmp_path, plain_config(upstream.base_url)) as gateway:
        second = gateway.run("serve", within_s=20)

        assert 0 != second.returncode
        assert "journal" in second.stdout + second.stderr
        assert 200 == gateway.http.get("/readyz").status_code
