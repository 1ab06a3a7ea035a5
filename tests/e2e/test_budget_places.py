"""The same race wherever counters are kept: in one process, or in a cluster's one slot.

Must never count by what a gateway says: answers and the provider's side are the truth.
"""

import contextlib
import time
from collections.abc import Iterator

import pytest
from redis import Redis

from tests.e2e.test_shared_budgets import CLIENTS, hammer, is_up
from tests.openai_answers import completion
from tests.server import Gateway, plain_config
from tests.upstream import Reply, ScriptedUpstream
from tests.valkey import Valkey, running_valkey

LIMIT = 150
BUDGETS = [
    {"id": "race", "scope": {"user": "race"}, "limit": f"{LIMIT} requests", "window": "total"},
    {"id": "all", "scope": {}, "limit": "900 USD", "window": "year"},
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Valkey]:
    """A cluster of one member, which refuses scripts whose keys lie in several slots."""
    with running_valkey({"cluster-enabled": "yes"}) as server:
        with contextlib.closing(server.client()) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            _wait_for_slots(client)
        yield server


def _wait_for_slots(client: Redis) -> None:
    until_s = time.monotonic() + 15
    while "cluster_state:ok" not in str(client.execute_command("CLUSTER", "INFO")):
        assert time.monotonic() < until_s, "the cluster does not come up"


def race(gateways: list[Gateway], upstream: ScriptedUpstream) -> None:
    """Let clients call until each is refused."""
    first = len(upstream.exchanges)
    with upstream.plays(Reply(body=completion())):
        told = hammer(gateways, "race")

    assert {200: LIMIT, 429: CLIENTS} == told
    assert len(upstream.exchanges) - first == LIMIT


def test_one_process_lets_in_exactly_what_fits(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> None:
    """Sixty-four clients, no Redis."""
    config = plain_config(upstream.base_url, budgets=BUDGETS)
    with Gateway(tmp_path_factory.mktemp("alone"), config) as gateway:
        race([gateway], upstream)


def test_gateways_on_a_cluster_let_in_exactly_what_fits(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream, cluster: Valkey
) -> None:
    """A call under two budgets takes both in one script: their keys share a slot."""
    database = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/taximeter.db"
    storage = {"database_url": database, "redis_url": [cluster.url, cluster.url]}
    config = plain_config(upstream.base_url, budgets=BUDGETS, storage=storage)
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    with Gateway(folders[0], config) as first, Gateway(folders[1], config) as second:
        for gateway in (first, second):
            assert is_up(gateway)
        race([first, second], upstream)
