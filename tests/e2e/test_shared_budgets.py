"""Two gateways on one Redis and one database: what is killed, emptied and restarted under load.

Must never count by what a gateway says alone: the provider's side and the ledger are the truth.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import httpx
import pytest

from tests.openai_answers import completion
from tests.server import KEY, Gateway, plain_config
from tests.upstream import Reply, ScriptedUpstream
from tests.valkey import Valkey, running_valkey

CLIENTS = 64
BODY = {
    "model": "gpt-5",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_completion_tokens": 300,
}
BUDGETS = [
    {"id": "race", "scope": {"user": "race"}, "limit": "150 requests", "window": "total"},
    {"id": "money", "scope": {"user": "money"}, "limit": "1 USD", "window": "year"},
    {"id": "killed", "scope": {"user": "killed"}, "limit": "400 requests", "window": "year"},
    {"id": "emptied", "scope": {"user": "emptied"}, "limit": "400 requests", "window": "year"},
    {"id": "gone", "scope": {"user": "gone"}, "limit": "400 requests", "window": "rolling:3600"},
    {
        "id": "open",
        "scope": {"user": "open"},
        "limit": "9 requests",
        "window": "year",
        "on_store_down": "open",
    },
]
Pair = tuple[Gateway, Gateway]


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    """A server of this module alone."""
    with running_valkey() as server:
        yield server


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream, valkey: Valkey
) -> Iterator[Pair]:
    """Two gateways with a folder and a journal each, one database and one Redis."""
    database = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/taximeter.db"
    storage = {"database_url": database, "redis_url": valkey.url}
    config = plain_config(upstream.base_url, budgets=BUDGETS, storage=storage)
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    with Gateway(folders[0], config) as first, Gateway(folders[1], config) as second:
        yield first, second


async def _ask(client: httpx.AsyncClient, gateway: Gateway, user: str) -> int:
    headers = {"authorization": f"Bearer {KEY}", "x-taximeter-user": user}
    try:
        response = await client.post(
            f"{gateway.url}/v1/chat/completions", json=BODY, headers=headers
        )
    except httpx.TransportError:
        return 0
    return response.status_code


async def _hammer(
    gateways: list[Gateway], user: str, at_calls: int, meanwhile: Callable[[], None]
) -> Counter[int]:
    """Call from many clients until each is refused; do something in the middle."""
    told: Counter[int] = Counter()
    reached = asyncio.Event()
    limits = httpx.Limits(max_connections=None)

    async def work(client: httpx.AsyncClient, gateway: Gateway) -> None:
        status = 200
        while status in {200, 503}:
            status = await _ask(client, gateway, user)
            told[status] += 1
            if told[200] >= at_calls:
                reached.set()

    async with httpx.AsyncClient(trust_env=False, timeout=30, limits=limits) as client:
        workers = [
            asyncio.create_task(work(client, gateways[number % len(gateways)]))
            for number in range(CLIENTS)
        ]
        await reached.wait()
        await asyncio.to_thread(meanwhile)
        await asyncio.gather(*workers)
    return told


def hammer(
    gateways: list[Gateway],
    user: str,
    at_calls: int = 0,
    meanwhile: Callable[[], None] = lambda: None,
) -> Counter[int]:
    return asyncio.run(_hammer(gateways, user, at_calls, meanwhile))


def recorded(gateway: Gateway, user: str) -> int:
    """Count what the ledger holds of a user's calls that were not refused."""
    gateway.settle()
    shown = gateway.admin.get(
        "/ledger", params={"user": user}, headers={"accept": "application/x-ndjson"}
    )
    lines = [line for line in shown.text.splitlines() if line]
    return sum(f'"user":"{user}"' in line.replace(" ", "") for line in lines) - sum(
        '"outcome":"refused"' in line.replace(" ", "") and f'"{user}"' in line for line in lines
    )


def test_exactly_what_fits_is_let_in(pair: Pair, upstream: ScriptedUpstream) -> None:
    """Sixty-four clients on two gateways: not one call too many, not one too few."""
    first = len(upstream.exchanges)
    with upstream.plays(Reply(body=completion())):
        told = hammer(list(pair), "race")

    assert {200: 150, 429: CLIENTS} == told
    assert 150 == len(upstream.exchanges) - first


def test_the_last_dollar_is_not_overspent(pair: Pair, upstream: ScriptedUpstream) -> None:
    """Holds are ceilings, so less than one of them is left over, and nothing is above."""
    with upstream.plays(Reply(body=completion())):
        hammer(list(pair), "money")
        # Whoever was refused while others held more than they came to may come again.
        for gateway in pair:
            asyncio.run(_until_refused(gateway, "money"))
    for gateway in pair:
        gateway.settle()
    pair[0].wait_until(
        lambda: pair[0].budget("money").spent == pair[1].budget("money").spent, "both to agree"
    )

    shown = pair[0].budget("money")
    assert 0 <= shown.remaining < shown.limit / 100
    assert 0 == shown.reserved


def test_a_killed_gateway_takes_nothing_along(pair: Pair, upstream: ScriptedUpstream) -> None:
    """What it had open counts from its restart on as its ceiling; then exactly the rest fits."""
    first, second = pair
    with upstream.plays(Reply(body=completion())):
        told = hammer([first, second], "killed", 100, second.kill)
        assert told[200] < 400
        second.restart()
        more = hammer([first, second], "killed")

    assert {200, 429} >= set(more)
    second.settle()
    assert 400 == recorded(first, "killed")
    assert 400 >= told[200] + more[200] >= 400 - CLIENTS


def test_an_emptied_redis_is_read_back(
    pair: Pair, upstream: ScriptedUpstream, valkey: Valkey
) -> None:
    """Calls are refused for a moment as the store is not there, and none is let in too many."""
    already = len(upstream.exchanges)
    with upstream.plays(Reply(body=completion())):
        told = hammer(list(pair), "emptied", 100, valkey.empty)

    assert {200, 429, 503} >= set(told)
    assert 400 == told[200] == len(upstream.exchanges) - already


def test_a_redis_that_starts_again_empty_is_read_back(
    pair: Pair, upstream: ScriptedUpstream, valkey: Valkey
) -> None:
    """The same, with connections broken meanwhile; probes and budgets tell of it."""
    already = len(upstream.exchanges)

    def restart() -> None:
        valkey.kill()
        try:
            pair[0].wait_until(lambda: not is_up(pair[0]), "redis to be missed")
            assert 503 == pair[0].http.get("/readyz").status_code
            with upstream.plays(Reply(body=completion())):
                assert {200: 3} == asyncio.run(_three(pair[0], "open"))
        finally:
            valkey.start()

    with upstream.plays(Reply(body=completion())):
        told = hammer(list(pair), "gone", 100, restart)

    assert {200, 429, 503} >= set(told)
    assert 400 == told[200] == len(upstream.exchanges) - already - 3
    assert told[503] > 0
    for gateway in pair:
        gateway.wait_until(partial(is_up, gateway), "redis to be back")
        assert 200 == gateway.http.get("/readyz").status_code


def test_the_doctor_looks_at_redis(pair: Pair) -> None:
    """It says whether the server answers."""
    assert "answers" in pair[0].run("doctor").stdout


async def _until_refused(gateway: Gateway, user: str) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        while await _ask(client, gateway, user) == 200:
            pass


async def _three(gateway: Gateway, user: str) -> Counter[int]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return Counter([await _ask(client, gateway, user) for _ in range(3)])


def is_up(gateway: Gateway) -> bool:
    return gateway.metric("gateway_store_up", store="redis") == 1
