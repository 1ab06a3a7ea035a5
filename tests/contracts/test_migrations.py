"""Bringing a database up to date, and telling whether it is."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from gateway.ledger.errors import ShippedTo, StoreUnavailable
from gateway.ledger.migrate import SchemaUnknown, alembic_config, upgrade
from gateway.ledger.queries import Queries
from gateway.ledger.store import SCHEMA_REVISION, LedgerStore, is_current
from gateway.prices.store import PriceStore
from gateway.tables import metadata
from pricing.book import load_book
from tests.contracts.records import make_record, with_seq


def test_the_newest_revision_is_the_one_the_store_expects():
    """The quick comparison at start looks for what the migrations lead to."""
    assert [SCHEMA_REVISION] == ScriptDirectory.from_config(alembic_config()).get_heads()


def test_a_new_database_gets_every_table_as_declared(engine):
    """The revisions add up to the tables the program uses: nothing more, nothing less."""
    assert not is_current(engine)

    upgrade(engine)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)

    assert differences == []
    assert is_current(engine)


def test_records_of_the_first_revision_survive_the_upgrade(engine):
    """Tables of prices are added beside them, and the next start records the shipped version."""
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    given = make_record()
    LedgerStore(engine).append("w-1", [with_seq(given, 1)], ShippedTo(segment=1, offset=1))
    assert not is_current(engine)

    upgrade(engine)
    store = PriceStore(engine)

    assert is_current(engine)
    assert given.id == Queries(engine).find_record(given.id).id
    assert () == store.record_shipped("taximeter")
    assert load_book().version.version == store.load_book(providers=["demo"]).version.version


def test_an_upgrade_of_a_current_database_changes_nothing(ledger):
    """It can be asked for at every start."""
    upgrade(ledger.engine)

    assert is_current(ledger.engine)


def test_two_gateways_may_start_together(engine):
    """The second one waits for the first, then finds nothing to do."""
    with ThreadPoolExecutor() as threads:
        done = [threads.submit(upgrade, engine) for _ in range(3)]

    assert [None, None, None] == [start.result() for start in done]
    assert is_current(engine)


def test_a_database_of_a_newer_program_is_left_alone(ledger):
    """An old program neither guesses nor overwrites."""
    with ledger.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    assert not is_current(ledger.engine)
    with pytest.raises(SchemaUnknown, match="9999"):
        upgrade(ledger.engine)


def test_a_failed_upgrade_leaves_nothing_behind(engine):
    """Tables appear all together or not at all."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE shipped (x int)"))
    with pytest.raises(Exception, match="shipped"):
        upgrade(engine)

    assert ["shipped"] == inspect(engine).get_table_names()


def test_a_missing_database_cannot_be_upgraded(absent_engine):
    """It is said to be away."""
    with pytest.raises(StoreUnavailable):
        upgrade(absent_engine)


@pytest.mark.parametrize("name", ["0001", "0002"])
def test_a_revision_cannot_be_taken_back(name):
    """Going back would lose records."""
    revision = ScriptDirectory.from_config(alembic_config()).get_revision(name)

    with pytest.raises(NotImplementedError, match="backup"):
        revision.module.downgrade()
