"""A real gateway whose calls are priced again: over HTTP and on the command line."""

import json
from collections.abc import Iterator
from decimal import Decimal

import pytest
from sqlalchemy import Engine

from gateway.ledger.store import open_engine
from gateway.prices.asked import PriceEdit, Signature
from gateway.prices.desk import PriceDesk
from gateway.prices.store import PriceStore
from pricing.agreements import Override
from tests.server import Gateway, plain_config
from tests.upstream import ScriptedUpstream

BODY = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def gateway(tmp_path, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """A gateway with a budget, and three calls."""
    config = plain_config(
        upstream.base_url, budgets=[{"id": "all", "limit": "1000 USD", "window": "year"}]
    )
    with Gateway(tmp_path, config) as running:
        for _ in range(3):
            assert 200 == running.call("/v1/chat/completions", BODY).status_code
        yield running


@pytest.fixture
def engine(gateway: Gateway) -> Iterator[Engine]:
    """The database of the gateway."""
    opened = open_engine(f"sqlite:///{gateway.folder}/data/taximeter.db")
    yield opened
    opened.dispose()


def agree(engine: Engine, percent: int, day: int) -> str:
    """Approve a version in which the team has an agreement; the one of the latest day counts."""
    store = PriceStore(engine)
    at = store.list_approved()[0].recorded_at
    override = Override(
        id=f"a{percent}",
        team="search",
        percent=Decimal(percent),
        valid_from=at.replace(year=at.year - 1, day=day),
        valid_to=None,
        why="contract 7",
    )
    edit = PriceEdit(overrides=(override,))
    (made, *_) = PriceDesk(store).post(edit, Signature(who="ada", why="contract 7"))
    return made.version


def cost(gateway: Gateway) -> Decimal:
    """What the calls cost, corrections included."""
    (row,) = gateway.admin.get("/usage").json()["items"]
    return Decimal(row["cost"])


def spent(gateway: Gateway) -> Decimal:
    """What the budget in memory has spent."""
    return Decimal(gateway.admin.get("/budgets/all").json()["status"]["spent"])


def test_calls_are_priced_again_both_ways(gateway: Gateway, engine: Engine) -> None:
    """The ledger, the budget in memory and the chain agree after each."""
    first = cost(gateway)
    assert first > 0
    dearer, cheaper = agree(engine, 25, day=1), agree(engine, -10, day=2)
    span = {"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}

    over_http = gateway.admin.post("/rerates", json={**span, "price_version": dearer})
    assert 200 == over_http.status_code, over_http.text
    assert 3 == over_http.json()["corrections"]
    assert first * Decimal("1.25") == cost(gateway) == spent(gateway)

    words = ("--from", "2020-01-01", "--to", "2100-01-01", "--price-version", cheaper, "--json")
    done = gateway.run("rerate", *words, "--why", "contract 7")
    assert 0 == done.returncode, done.stderr
    assert 3 == json.loads(done.stdout)["corrections"]
    assert cost(gateway) < first * Decimal("1.25")
    gateway.wait_until(lambda: spent(gateway) == cost(gateway), "the budget to know")

    assert 200 == gateway.call("/v1/chat/completions", BODY).status_code
    verified = gateway.run("ledger", "verify", "--json")
    assert json.loads(verified.stdout)["ok"], verified.stdout
    gateway.stop()
    gateway.restart()
    assert spent(gateway) == cost(gateway)


def test_a_record_says_what_it_was_priced_as(gateway: Gateway, engine: Engine) -> None:
    """Inside, in the ledger; the public record has no more fields than the contract."""
    item = gateway.admin.get("/ledger").json()["items"][0]
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT priced_as, priced_model, tier FROM records WHERE corrects IS NULL"
        ).all()

    assert {("openai", "gpt-5", "standard")} == set(map(tuple, found))
    assert "priced_as" not in item
