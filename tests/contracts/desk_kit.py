"""The desk on each database, with one shipped version of two providers, and small changes.

Must never copy a price from the catalog: these tests check what holds when, not data.
"""

from datetime import timedelta

import pytest

from gateway.prices.asked import PriceEdit, Signature
from gateway.prices.desk import PriceDesk
from gateway.prices.store import PriceStore
from pricing.manifest import digest_of
from pricing.rows import prices_text
from tests.contracts.test_price_store import NOW, Hands
from tests.pricing.cards import entry, override, rate
from tests.pricing.test_versions import publish

DAY = timedelta(days=1)
SIGNED = Signature(who="cli:ada", why="contract 7")
SHIPPED = ("v1", {"p": "1", "q": "5"}, ())


@pytest.fixture(name="clock")
def clock_fixture():
    """Stand still until moved."""
    return Hands()


@pytest.fixture(name="catalog")
def catalog_fixture(tmp_path):
    """Ship one version of two providers."""
    return publish(tmp_path / "catalog", SHIPPED)


@pytest.fixture(name="store")
def store_fixture(ledger, clock, catalog):
    """Record the shipped version."""
    opened = PriceStore(ledger.engine, clock, catalog=catalog)
    opened.record_shipped("taximeter 1.0")
    return opened


@pytest.fixture(name="desk")
def desk_fixture(store):
    """Sit down at it."""
    return PriceDesk(store, reserved=["house"])


def price(amount, at=NOW, **fields):
    """One new price of input."""
    return PriceEdit(rates=(rate("input", amount, valid_from=at, **fields),))


def agreed(name="o", **fields):
    """One new agreement."""
    return PriceEdit(overrides=(override(name, **fields),))


def listed(*amounts, provider="p"):
    """What a list would say."""
    return contents([entry(provider=provider)], [rate("input", amounts[0], provider=provider)])


def contents(models, rates):
    """What a list would say of one provider."""
    return {models[0].provider: (digest_of(models, rates), prices_text(models, rates))}


def amount_at(store, at, *, held=None, provider="p", payer=None):
    """The price of input, in the version that holds."""
    book = store.open_book(store.current_at(held or at))
    card = book.find_card(provider, "m", at, payer)
    return card.find_rate("input", tier="standard", region=None, input_total=1).amount_text
