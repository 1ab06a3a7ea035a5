"""One process, no Redis: many clients on what is left of a budget, and a kill in the middle.

Must never count by what the gateway says alone: the provider's side and the ledger are the truth.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_shared_budgets import CLIENTS, hammer, recorded
from tests.openai_answers import completion
from tests.server import Gateway, plain_config
from tests.upstream import Reply, ScriptedUpstream

BUDGETS = [
    {"id": "race", "scope": {"user": "race"}, "limit": "150 requests", "window": "total"},
    {"id": "money", "scope": {"user": "money"}, "limit": "1 USD", "window": "year"},
    {"id": "killed", "scope": {"user": "killed"}, "limit": "400 requests", "window": "year"},
]


@pytest.fixture
def gateway(tmp_path: Path, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """A gateway of one process."""
    with Gateway(tmp_path, plain_config(upstream.base_url, budgets=BUDGETS)) as running:
        yield running


def test_exactly_what_fits_is_let_in(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Sixty-four clients: not one call too many, not one too few."""
    first = len(upstream.exchanges)
    with upstream.plays(Reply(body=completion())):
        told = hammer([gateway], "race")

    assert {200: 150, 429: CLIENTS} == told
    assert 150 == len(upstream.exchanges) - first


def test_the_last_dollar_is_not_overspent(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Less than one call's ceiling is left over, nothing is above, and the ledger says the same."""
    with upstream.plays(Reply(body=completion())):
        told = hammer([gateway], "money")
        # Whoever was refused while others held more than they came to may come again.
        while more := hammer([gateway], "money")[200]:
            told[200] += more
    gateway.settle()

    shown = gateway.budget("money")
    assert 0 <= shown.remaining < shown.limit / 100
    assert 0 == shown.reserved
    assert told[200] == recorded(gateway, "money")


def test_a_killed_process_takes_nothing_along(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """What it had open counts from its restart on; then exactly the rest fits."""

    def kill() -> None:
        gateway.kill()
        gateway.restart()

    with upstream.plays(Reply(body=completion())):
        told = hammer([gateway], "killed", 100, kill)
        more = hammer([gateway], "killed")
    gateway.settle()

    assert 400 == recorded(gateway, "killed")
    assert 400 >= told[200] + more[200] >= 400 - CLIENTS
