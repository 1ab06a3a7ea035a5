"""Versions of the price book in the database, on SQLite and PostgreSQL alike."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from gateway.ledger.errors import StoreUnavailable
from gateway.prices.rows import StoredVersion
from gateway.prices.store import NewVersion, PriceStore
from pricing.book import BookBroken
from pricing.shelf import NoSuchVersion
from tests.pricing.cards import START
from tests.pricing.test_versions import publish

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Hands:
    """A clock that stands where it was put."""

    def __init__(self, at=NOW):
        self.at = at

    def now(self):
        return self.at

    def monotonic_s(self):
        return 0.0


@pytest.fixture
def clock():
    """Stand still until moved."""
    return Hands()


@pytest.fixture
def catalog(tmp_path):
    """Ship one version of two providers."""
    return publish(tmp_path / "catalog", ("v1", {"p": "1", "q": "5"}, ()))


@pytest.fixture
def store(ledger, clock, catalog):
    """Open an empty store."""
    return PriceStore(ledger.engine, clock, catalog=catalog)


def post(store: PriceStore, base: str, **fields) -> StoredVersion:
    """Record a version that differs in nothing but its name."""
    given = store.find_version(base)
    new = {
        "manifest": given.manifest,
        "objects": {},
        "origin": "operator",
        "base": base,
        "effective_from": store.clock.now(),
        "recorded_by": "cli:ada",
        "why": "a contract",
        "status": "approved",
        **fields,
    }
    with store.change() as change:
        return change.add(NewVersion(**new))


def test_the_shipped_version_is_recorded_once(store, catalog):
    """It holds from the day it names, with its content in the database."""
    assert () == store.record_shipped("taximeter 1.0")
    assert () == store.record_shipped("taximeter 1.0")
    (catalog / "versions.json").unlink()

    (only,) = store.list_versions()

    assert ("v1", "shipped", "approved", "taximeter 1.0") == (
        only.version,
        only.origin,
        only.status,
        only.recorded_by,
    )
    assert START == only.effective_from
    assert Decimal(5) == store.find_book("v1", "q").rates[0].amount
    assert {"q"} == store.find_book("v1", "q").providers
    assert {"p", "q"} == store.load_book().providers


def test_an_upgrade_holds_at_once_where_nobody_changed_prices(store, clock, catalog):
    """Calls before it keep the version they had."""
    store.record_shipped("taximeter 1.0")
    publish(catalog, ("v1", {"p": "1", "q": "5"}, ()), ("v2", {"p": "2", "q": "5"}, ()))
    clock.at = NOW + timedelta(days=1)

    assert () == store.record_shipped("taximeter 1.1")
    assert "v1" == store.current_at(NOW).version
    assert "v2" == store.current_at(clock.at).version
    assert "v1" == store.known_at(NOW).version
    assert "v2" == store.known_at(clock.at).version


def test_an_upgrade_waits_where_an_operator_changed_prices(store, clock, catalog):
    """It knows nothing of those changes, so a person decides."""
    store.record_shipped("taximeter 1.0")
    mine = post(store, "v1")
    publish(catalog, ("v1", {"p": "1", "q": "5"}, ()), ("v2", {"p": "2", "q": "5"}, ()))

    (waiting,) = store.record_shipped("taximeter 1.1")

    assert ("v2", "candidate", "v1", None) == (
        waiting.version,
        waiting.status,
        waiting.base,
        waiting.effective_from,
    )
    assert mine.version == store.current_at(clock.at).version
    assert Decimal(2) == store.find_book("v2", "p").rates[0].amount


def test_a_shipped_name_that_is_taken_gets_the_next_one(store, clock, catalog):
    """Two versions of one day never share a name."""
    store.record_shipped("taximeter 1.0")
    mine = post(store, "v1")
    assert "2026-11-23.1" == mine.version
    publish(catalog, ("v1", {"p": "1", "q": "5"}, ()), ("2026-11-23.1", {"p": "3"}, ()))

    (waiting,) = store.record_shipped("taximeter 1.1")

    assert "2026-11-23.2" == waiting.version


def test_a_clock_that_is_behind_is_no_reason_to_refuse_calls(ledger, catalog):
    """The first version holds before its day, too."""
    early = START - timedelta(days=400)
    store = PriceStore(ledger.engine, Hands(early), catalog=catalog)
    store.record_shipped("taximeter 1.0")

    assert "v1" == store.current_at(early - timedelta(days=1)).version


def test_a_decision_is_another_row(store, clock):
    """A candidate becomes known, and holds, from its approval on."""
    store.record_shipped("taximeter 1.0")
    before = store.load_mark()
    waiting = post(store, "v1", status="candidate", effective_from=None, origin="import")
    assert before != store.load_mark()
    clock.at = NOW + timedelta(hours=1)
    held = clock.at + timedelta(days=1)
    before = store.load_mark()
    with store.change() as change:
        change.decide(waiting.version, "approved", ("cli:eve", "read it"), effective_from=held)

    found = store.find_version(waiting.version)

    assert before != store.load_mark()
    assert ("approved", held, clock.at, "cli:eve", "read it") == (
        found.status,
        found.effective_from,
        found.recorded_at,
        found.decided_by,
        found.decided_why,
    )
    assert NOW == found.proposed_at
    assert "v1" == store.current_at(held - timedelta(microseconds=1)).version
    assert waiting.version == store.current_at(held).version


def test_a_rejected_version_never_holds(store, clock):
    """It stays in the list, with who said no."""
    store.record_shipped("taximeter 1.0")
    waiting = post(store, "v1", status="candidate", effective_from=None, origin="import")
    with store.change() as change:
        change.decide(waiting.version, "rejected", ("cli:eve", "nonsense"))

    assert "rejected" == store.find_version(waiting.version).status
    assert "v1" == store.current_at(clock.at).version


@pytest.mark.parametrize("table", ["price_objects", "price_versions", "price_decisions"])
def test_the_database_refuses_to_forget(store, ledger, table):
    """Whoever has a connection can add, and nothing else."""
    store.record_shipped("taximeter 1.0")
    with store.change() as change:
        change.decide("v1", "approved", ("cli:eve", "again"), effective_from=NOW)
    column = "digest" if table == "price_objects" else "version"
    for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = 'x'"):
        with (
            pytest.raises(DatabaseError, match="append-only"),
            ledger.engine.begin() as connection,
        ):
            connection.execute(text(statement))


def test_a_damaged_content_is_refused_by_name(store, ledger, catalog):
    """Nothing is priced with what is not what was recorded."""
    store.record_shipped("taximeter 1.0")
    wrong = store.find_version("v1").manifest
    with store.change() as change:
        post_missing = NewVersion(
            manifest=type(wrong)(providers={"p": "sha256:" + "0" * 64}),
            objects={},
            origin="operator",
            base=None,
            effective_from=NOW,
            recorded_by="x",
            why="y",
            status="approved",
            name="v9",
        )
        change.add(post_missing)

    with pytest.raises(BookBroken, match="is not in the database"):
        store.find_book("v9", "p")


def test_an_unknown_version_is_refused_with_what_there_is(store):
    """A misspelt name is told so."""
    with pytest.raises(NoSuchVersion, match="no version"):
        store.current_at(NOW)
    store.record_shipped("taximeter 1.0")

    with pytest.raises(BookBroken, match="v1"):
        store.load_book("v7")
    with pytest.raises(NoSuchVersion, match="recorded by"):
        store.known_at(START - timedelta(days=1))


def test_a_database_that_is_away_is_said_to_be(absent_engine, catalog):
    """As for everything else that is kept there."""
    with pytest.raises(StoreUnavailable):
        PriceStore(absent_engine, catalog=catalog).list_versions()


def test_a_clock_put_back_does_not_change_what_was_known_when(store, clock):
    """The order in which things were recorded is the order they are read in."""
    store.record_shipped("taximeter 1.0")
    first = post(store, "v1", effective_from=NOW)
    clock.at = NOW - timedelta(hours=1)
    second = post(store, "v1", effective_from=NOW)

    assert [first.recorded_at] * 2 == [first.recorded_at, second.recorded_at]
    assert second.version == store.current_at(NOW).version
    assert second.version == store.known_at(NOW).version
