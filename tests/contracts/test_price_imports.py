"""Lists that are read while there are prices set by hand, on SQLite and PostgreSQL alike."""

from datetime import timedelta

import pytest

from gateway.prices.asked import PriceEdit
from gateway.prices.desk import PriceDesk
from gateway.prices.importing import Allowed, find_own_prices, make_candidate, to_row_own
from gateway.prices.store import PriceStore
from tests.contracts.desk_kit import (
    DAY,
    SIGNED,
    clock_fixture,  # noqa: F401 - found by its name
)
from tests.contracts.test_price_store import NOW
from tests.pricing.cards import entry, rate
from tests.pricing.importers.lists import DAY as TODAY
from tests.pricing.importers.lists import map_of
from tests.pricing.test_versions import publish

TICK = timedelta(microseconds=1)
ADA = "cli:ada: a contract"


@pytest.fixture
def store(ledger, clock, tmp_path):
    """Ship a version of a provider that people checked, and approve a list of another model."""
    catalog = publish(tmp_path / "catalog", ("v1", {"openai": "1"}, ()))
    opened = PriceStore(ledger.engine, clock, catalog=catalog)
    opened.record_shipped("taximeter 1.0")
    imported(opened, says("2"))
    return opened


@pytest.fixture
def desk(store):
    """Sit down at it."""
    return PriceDesk(store)


def says(amount):
    """A list with the price of input of one model, for a million."""
    return map_of(key="gpt-5", input_cost_per_token=f"={amount}e-06")


def imported(store, *lists, replaces_own=False):
    """Import lists and approve what comes of it: the name of the candidate, and what was kept."""
    book = store.load_book()
    allowed = Allowed(replaces_own=replaces_own)
    own = find_own_prices(store, book)
    made = make_candidate(book, lists, TODAY, own=own, allowed=allowed)
    desk, name = PriceDesk(store), book.version.version
    kept = [to_row_own(one) for one in made.own if not one.is_replaced]
    candidate = desk.propose(made.contents, SIGNED, name, kept)
    if candidate is None:
        return None, made.own
    desk.approve(candidate.version, SIGNED)
    return candidate.version, made.own


def put(amount, model="gpt-5", meter="input", at=NOW, **fields):
    """A price set by hand."""
    new = rate(meter, amount, provider="openai", model=model, valid_from=at, source=ADA, **fields)
    return PriceEdit(rates=(new,))


def price_at(store, at, model="gpt-5", meter="input", tier="standard"):
    """What one token costs, in the version in force then."""
    card = store.open_book(store.current_at(at)).find_card("openai", model, at)
    found = None if card is None else card.find_rate(meter, tier=tier, region=None, input_total=1)
    return None if found is None else found.amount_text


def test_prices_set_by_hand_are_told_from_those_that_were_shipped(desk, store):
    """Also where one cut the other's time short, and whatever page it names."""
    assert () == find_own_prices(store, store.load_book())
    page = rate(
        "input", "3", provider="openai", valid_from=NOW, valid_to=NOW + DAY, source="https://page"
    )
    desk.post(PriceEdit(rates=(page,)), SIGNED)
    desk.post(put("4"), SIGNED)

    own = find_own_prices(store, store.load_book())

    assert {("m", "https://page"), ("gpt-5", ADA)} == {(one.model, one.source) for one in own}
    assert 2 == len(own)


def test_an_import_keeps_what_was_set_by_hand(desk, store):
    """Now, announced, of a tier the list does not have, and a model it does not have."""
    desk.post(put("4"), SIGNED)
    desk.post(put("8", meter="output", at=NOW + DAY), SIGNED)
    desk.post(put("1", tier="flex"), SIGNED)
    desk.post(put("9", model="m"), SIGNED)
    own = put("7", model="mine")
    desk.post(PriceEdit(rates=own.rates, models=(entry("mine", provider="openai"),)), SIGNED)
    late = NOW + 2 * DAY

    name, kept = imported(store, says("5"))

    assert name is not None
    assert ["5", "4"] == [price_at_in(store, name, at) for at in (NOW - TICK, NOW)]
    assert ["8", "1"] == [price_at(store, late, meter="output"), price_at(store, late, tier="flex")]
    assert ["9", "7"] == [price_at(store, late, "m"), price_at(store, late, "mine")]
    assert {"openai/gpt-5/input/standard": "5"} == {
        one.rate.price_id: f"{one.listed.amount:f}" for one in kept if one.listed is not None
    }
    rows = {one["price_id"]: one for one in store.find_version(name).kept}
    assert 5 == len(rows)
    assert ("4", "5") == tuple(
        rows["openai/gpt-5/input/standard"][field] for field in ("amount", "list_amount")
    )


def test_an_import_of_what_is_known_changes_nothing(desk, store):
    """However many prices were set by hand since, and how often it is read."""
    desk.post(put("4", at=NOW + DAY, valid_to=NOW + 2 * DAY), SIGNED)
    desk.post(put("9", model="m"), SIGNED)

    name, kept = imported(store, says("2"))

    assert (None, 2) == (name, len(kept))


def test_lists_replace_what_was_set_by_hand_where_that_is_asked(desk, store):
    """What they do not have stays all the same."""
    desk.post(put("4"), SIGNED)
    desk.post(put("1", tier="flex"), SIGNED)

    imported(store, says("2"), replaces_own=True)

    assert ["2", "1"] == [price_at(store, NOW), price_at(store, NOW, tier="flex")]
    assert [False] == [one.is_replaced for one in imported(store, says("2"))[1]]


def price_at_in(store, version, at):
    """The price of an instant, in one version."""
    card = store.load_book(version).find_card("openai", "gpt-5", at)
    return card.find_rate("input", tier="standard", region=None, input_total=1).amount_text
