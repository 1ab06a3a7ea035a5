"""A running gateway's prices follow the database, on SQLite and PostgreSQL alike."""

import asyncio
import logging
from datetime import timedelta

import pytest

from gateway.ledger.errors import StoreUnavailable
from gateway.prices.follower import PricesFollower
from gateway.prices.store import PriceStore
from pricing.book import BookBroken
from tests.contracts.test_price_store import NOW, Hands, post
from tests.pricing.test_versions import publish

TICK = timedelta(microseconds=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def clock():
    """Stand still until moved."""
    return Hands()


@pytest.fixture
def store(ledger, clock, tmp_path):
    """Record the shipped version."""
    catalog = publish(tmp_path / "catalog", ("v1", {"p": "1"}, ()))
    opened = PriceStore(ledger.engine, clock, catalog=catalog)
    opened.record_shipped("taximeter 1.0")
    return opened


class Opened:
    """Opens books and remembers which."""

    def __init__(self, store):
        self.names = []
        self.store = store
        self.fault = None

    def __call__(self, version):
        self.names.append(version.version)
        if self.fault is not None:
            raise self.fault
        return self.store.open_book(version)


@pytest.fixture
def opened(store):
    """Open what is asked for."""
    return Opened(store)


@pytest.fixture
def follower(store, opened, clock):
    """Follow the store."""
    return PricesFollower(store=store, open_book=opened, clock=clock)


def names(prices, *instants):
    """Name what holds at some instants."""
    return [prices.at(at).version.version for at in instants]


def test_a_change_of_another_process_is_seen(store, follower, opened, clock):
    """At the instant it was made, and no book is opened twice."""

    async def go():
        prices = await follower.open()
        assert ["v1"] == names(prices, NOW)
        clock.at = NOW + HOUR
        post(store, "v1")
        assert ["v1"] == names(prices, NOW + HOUR)
        await follower.look()
        await follower.look()
        return prices

    prices = asyncio.run(go())

    assert ["v1", "2026-11-23.1"] == names(prices, NOW + HOUR - TICK, NOW + HOUR)
    assert ["v1", "2026-11-23.1"] == opened.names


def test_a_dated_version_holds_from_its_instant_on(store, follower, opened, clock):
    """It is open before, so that nothing has to be read when the time comes."""
    post(store, "v1", effective_from=NOW + HOUR)

    prices = asyncio.run(follower.open())

    assert ["v1", "2026-11-23.1"] == names(prices, NOW + HOUR - TICK, NOW + HOUR)


def test_many_dated_versions_are_opened_as_their_time_comes(store, follower, opened, clock):
    """Memory has a bound, and no switch is missed."""
    for hours in range(1, 6):
        post(store, "v1", effective_from=NOW + hours * HOUR)

    async def go():
        prices = await follower.open()
        assert ["v1", "2026-11-23.1", "2026-11-23.2"] == opened.names
        for hours in range(1, 6):
            clock.at = NOW + hours * HOUR
            await follower.look()
            assert [f"2026-11-23.{hours}"] == names(prices, clock.at)
            assert len(prices.terms) <= 5

    asyncio.run(go())


def test_a_version_that_cannot_be_opened_leaves_the_last_good_one(
    store, follower, opened, clock, caplog
):
    """The log says so once, not twice a second."""

    async def go():
        prices = await follower.open()
        clock.at = NOW + HOUR
        post(store, "v1")
        opened.fault = BookBroken(["torn"])
        with caplog.at_level(logging.ERROR):
            await follower.look()
            await follower.look()
        return prices

    prices = asyncio.run(go())

    assert ["v1"] == names(prices, NOW + HOUR)
    assert 1 == sum("torn" in line for line in caplog.messages)


def test_a_database_that_is_away_leaves_the_prices_in_force(store, follower, opened, caplog):
    """Calls go on; it is read again when it is back."""

    async def go():
        prices = await follower.open()
        post(store, "v1")
        opened.fault = StoreUnavailable("gone")
        await follower.look()
        assert ["v1"] == names(prices, NOW)
        opened.fault = None
        await follower.look()
        return prices

    prices = asyncio.run(go())

    assert ["2026-11-23.1"] == names(prices, NOW)
    assert "gone" in caplog.text
