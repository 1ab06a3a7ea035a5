"""Bringing a database up to date, and telling whether it is."""

import gzip
import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import msgspec
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import DatabaseError

from gateway.clock import epoch_us
from gateway.ledger.chain import GENESIS
from gateway.ledger.errors import ShippedTo, StoreUnavailable
from gateway.ledger.migrate import SchemaUnknown, alembic_config, upgrade
from gateway.ledger.queries import Queries
from gateway.ledger.store import SCHEMA_REVISION, is_current
from gateway.prices.asked import PriceRefused, Signature
from gateway.prices.desk import PriceDesk
from gateway.prices.rows import manifest_to_row
from gateway.prices.store import PriceStore
from gateway.tables import metadata
from pricing.book import load_book
from pricing.manifest import Manifest, digest_of
from pricing.rows import prices_text
from tests.contracts.conftest import Ledger
from tests.contracts.records import make_record
from tests.contracts.test_price_store import NOW, Hands
from tests.pricing.cards import entry, rate

# A record as version 0.1.0 hashed it, and its row.
_OLD_RECORD = (
    '{"type":"record","id":"A","seq":1,"started_at_us":5,"ended_at_us":6,"outcome":"refused",'
    '"http_status":429,"stream":false,"api":"openai.chat","provider":null,'
    '"model_requested":"gpt-5","model":null,"provider_request_id":null,"organization":null,'
    '"team":null,"project":null,"key":null,"user":null,"tags":{"a":"1","b":"2"},"usage":{},'
    '"input_total":0,"output_total":0,"basis":"none","user_input_tokens":null,"currency":"USD",'
    '"cost_pico":0,"list_cost_pico":0,"provider_cost_pico":null,"price_version":null,'
    '"cost_status":"final","lines":[],"corrects":null,"flags":["odd"],"ceiling_pico":null,'
    '"ceiling_tokens":null}'
)
_OLD_ROW = {
    "id": "A",
    "seq": 1,
    "started_at_us": 5,
    "ended_at_us": 6,
    "outcome": "refused",
    "http_status": 429,
    "stream": False,
    "api": "openai.chat",
    "model_requested": "gpt-5",
    "tags": '{"b": "2", "a": "1"}',
    "usage": "{}",
    "input_total": 0,
    "output_total": 0,
    "basis": "none",
    "currency": "USD",
    "cost_pico": 0,
    "list_cost_pico": 0,
    "cost_status": "final",
    "flags": '["odd"]',
}
# Name, amount, what it was made from, and how many seconds after now it holds.
_OLD_VERSIONS = (
    ("first", "1", None, -9),
    ("waits", "2", "first", 60),
    ("now", "3", "first", 0),
    ("carried", "4", "waits", 60),
    ("last", "1", "carried", 90),
)


def test_the_newest_revision_is_the_one_the_store_expects():
    """The quick comparison at start looks for what the migrations lead to."""
    assert [SCHEMA_REVISION] == ScriptDirectory.from_config(alembic_config()).get_heads()


def _is_declared(_object, name, kind, _is_reflected, _compared_to):
    """Parts of a table on PostgreSQL are its own affair, as is what must be unique in each."""
    is_part = kind == "table" and re.fullmatch(r"(records|record_lines)_(first|other)", name)
    return not is_part and name != "uq_records_writer_seq"


def test_a_new_database_gets_every_table_as_declared(engine):
    """The revisions add up to the tables the program uses: nothing more, nothing less."""
    assert not is_current(engine)

    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": _is_declared})
        differences = compare_metadata(context, metadata)

    assert differences == []
    assert is_current(engine)


def _open_first_revision(engine):
    """Make a database of the first revision with one record in it."""
    config = alembic_config()
    digest = hashlib.sha256((GENESIS + _OLD_RECORD).encode()).hexdigest()
    names = ", ".join(f'"{name}"' for name in _OLD_ROW)
    places = ", ".join(f":{name}" for name in _OLD_ROW)
    row = f"INSERT INTO records ({names}, writer, prev_hash, hash) VALUES ({places}, 'w-1', "
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text(f"{row} '{GENESIS}', '{digest}')"), _OLD_ROW)
        connection.execute(text(f"INSERT INTO shipped VALUES ('w-1', 1, 1, 1, '{digest}')"))


def test_records_of_the_first_revision_survive_the_upgrade(engine):
    """Tables of prices are added beside them, and the next start records the shipped version."""
    _open_first_revision(engine)
    assert not is_current(engine)

    upgrade(engine)
    store = PriceStore(engine)

    assert is_current(engine)
    assert Queries(engine).find_record("A") is not None
    assert () == store.record_shipped("taximeter")
    assert load_book().version.version == store.load_book(providers=["demo"]).version.version


def _open_third_revision(engine):
    """Make a database of the third revision: a price in force, and one set since that it is in."""
    config = alembic_config()
    digests = {}
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        for amount in "1234":
            models, rates = [entry()], [rate("input", amount)]
            digests[amount] = digest_of(models, rates)
            body = gzip.compress(prices_text(models, rates).encode())
            row = {"digest": digests[amount], "body": body}
            connection.execute(text("INSERT INTO price_objects VALUES (:digest, 'p', :body)"), row)
        for seq, (name, amount, base, start_s) in enumerate(_OLD_VERSIONS, start=1):
            manifest = Manifest(providers={"p": digests[amount]})
            row = {
                "name": name,
                "seq": seq,
                "digest": manifest.digest,
                "manifest": json.dumps(manifest_to_row(manifest)),
                "origin": "operator" if base else "shipped",
                "base": base,
                "start": epoch_us(NOW + timedelta(seconds=start_s)),
                "at": epoch_us(NOW),
            }
            connection.execute(
                text(
                    "INSERT INTO price_versions VALUES (:name, :seq, :digest, :manifest, :origin, "
                    ":base, :at, :start, 'cli:ada', 'why', 'approved')"
                ),
                row,
            )


def test_versions_of_the_third_revision_hold_as_before(engine):
    """What carries and what it changes is not known of them, and nothing is guessed."""
    _open_third_revision(engine)

    upgrade(engine)
    store = PriceStore(engine, Hands())

    assert [None] * 5 == [one.carries for one in store.list_versions()]
    assert [None] * 5 == [one.edit for one in store.list_versions()]
    starts = [NOW, NOW + timedelta(seconds=60), NOW + timedelta(seconds=90)]
    assert ["now", "carried", "last"] == [store.current_at(at).version for at in starts]


def test_a_version_of_the_third_revision_is_rejected_where_nothing_is_lost(engine):
    """Else the refusal says what to do: nobody wrote down what it changes."""
    _open_third_revision(engine)
    upgrade(engine)
    store = PriceStore(engine, Hands())
    desk, signed = PriceDesk(store), Signature(who="cli:ada", why="a mistake")

    desk.reject("last", signed)
    for name in ("waits", "carried"):
        with pytest.raises(PriceRefused, match="set the prices it should have again"):
            desk.reject(name, signed)

    assert "carried" == store.current_at(NOW + timedelta(seconds=90)).version


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


def test_records_of_the_first_revision_keep_their_hash(engine):
    """The chain of an old database verifies after the upgrade, and says nothing it never knew."""
    _open_first_revision(engine)

    upgrade(engine)

    found = Queries(engine).find_record("A")
    assert [] == list(Queries(engine).verify())
    assert found is not None
    assert not found.priced_as
    assert _OLD_RECORD.encode() == msgspec.json.encode(found, order="deterministic")


def _released() -> list[str]:
    """Every revision a database may come from: all but the newest."""
    revisions = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    return sorted(one.revision for one in revisions if one.revision != SCHEMA_REVISION)


@pytest.mark.parametrize("revision", _released())
def test_a_ledger_of_any_revision_goes_on_after_the_upgrade(engine, revision):
    """What it holds stays as it was, more is chained to it, and none of it can be changed."""
    _open_first_revision(engine)
    config = alembic_config()
    with engine.begin() as connection:
        line = (
            "INSERT INTO record_lines (record_id, line, started_at_us, meter, quantity) "
            "VALUES ('stray', 0, 5, 'input', '7')"
        )
        audit = (
            "INSERT INTO audit (id, at_us, actor, action, noun, noun_id) "
            "VALUES ('1', 1, 'admin', 'create', 'team', 'search')"
        )
        team = "INSERT INTO teams VALUES ('search', 'Search', '{}', 1)"
        for statement in (line, audit, team):
            connection.execute(text(statement))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    upgrade(engine)
    ledger = Ledger(engine)
    assert "stray" in {problem.record_id for problem in ledger.queries.verify()}
    ledger.store.append("w-1", [make_record(seq=2), make_record(seq=3)], ShippedTo(1, 2))

    problems = [one for one in ledger.queries.verify() if one.record_id != "stray"]
    assert [] == problems
    assert (3, 3) == (ledger.count("records"), ledger.count("record_lines"))
    assert {"w-1": 3} == ledger.queries.seqs()
    assert (1, 1) == (ledger.count("audit"), ledger.count("teams"))
    for table, column in (("records", "team"), ("record_lines", "meter"), ("audit", "actor")):
        for change in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
            with pytest.raises(DatabaseError, match="append-only"), engine.begin() as connection:
                connection.execute(text(change))


@pytest.mark.parametrize("name", ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008"])
def test_a_revision_cannot_be_taken_back(name):
    """Going back would lose records."""
    revision = ScriptDirectory.from_config(alembic_config()).get_revision(name)

    with pytest.raises(NotImplementedError, match="backup"):
        revision.module.downgrade()
