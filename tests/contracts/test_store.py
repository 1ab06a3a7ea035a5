"""What every ledger store promises about appending."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, text
from sqlalchemy.exc import DatabaseError, IntegrityError

from gateway.ledger.errors import (
    CorrectionOfCorrection,
    LedgerConflict,
    ShippedTo,
    StoreUnavailable,
)
from gateway.ledger.filters import RecordFilter
from gateway.ledger.record import LedgerRecord
from gateway.ledger.store import LedgerStore, is_current, open_engine
from gateway.tables import metadata
from tests.contracts.records import any_record, make_line, make_record, make_tenant, with_seq

HERE = ShippedTo(segment=3, offset=70)
APPEND_ONLY = (
    *("records", "record_lines", "audit", "price_objects", "price_versions", "price_decisions"),
    *("rerate_runs", "budget_top_ups"),
)


@given(drawn=st.lists(any_record(), min_size=1, max_size=5))
def test_records_come_back_as_they_were_written(shared_ledger, drawn):
    """Nothing of a record is lost or changed by the database, whatever it holds."""
    written = shared_ledger.post(*drawn, writer=make_tenant())

    assert list(written) == [shared_ledger.queries.find_record(record.id) for record in written]


def test_an_empty_ledger_has_seen_no_journal(ledger):
    """A journal starts from its beginning."""
    assert ledger.store.shipped_to("w-1") is None
    assert ledger.queries.find_record("01J") is None
    assert ledger.queries.seqs() == {}


def test_the_position_moves_with_the_records(ledger):
    """After each append, the position is the one given with it, per journal."""
    ledger.store.append("w-1", [make_record(seq=1)], ShippedTo(segment=1, offset=500))
    ledger.store.append("w-2", [], ShippedTo(segment=9, offset=20))
    ledger.store.append("w-1", [make_record(seq=2), make_record(seq=3)], HERE)

    assert ledger.store.shipped_to("w-1") == HERE
    assert ledger.store.shipped_to("w-2") == ShippedTo(segment=9, offset=20)
    assert ledger.queries.seqs() == {"w-1": 3, "w-2": 0}


def test_the_position_moves_without_records(ledger):
    """A stretch of the journal without records is read once."""
    ledger.post(make_record())
    ledger.store.append("w-1", [], HERE)

    assert ledger.store.shipped_to("w-1") == HERE
    assert ledger.queries.seqs() == {"w-1": 1}


def test_a_repeated_append_changes_nothing_but_the_position(ledger):
    """Shipping at least once puts each record in the ledger exactly once."""
    batch = [make_record(seq=n) for n in (1, 2, 3)]
    ledger.store.append("w-1", batch[:2], ShippedTo(segment=1, offset=1))
    ledger.store.append("w-1", batch, HERE)
    ledger.store.append("w-1", batch, HERE)

    assert ledger.count("records") == 3
    assert ledger.count("record_lines") == 3
    assert list(ledger.queries.verify()) == []


def test_an_id_twice_in_one_append_counts_once(ledger):
    """The first record of a call is the one that stays."""
    first = make_record(seq=1)
    ledger.store.append("w-1", [first, first], HERE)

    assert ledger.count("records") == 1


def test_a_journal_that_lost_its_end_is_not_mixed_up_with_the_ledger(ledger):
    """A new record under a position already taken is refused, with nothing written."""
    ledger.post(make_record(), make_record())
    with pytest.raises(LedgerConflict, match="number 2"):
        ledger.store.append("w-1", [make_record(seq=3), make_record(seq=2)], HERE)

    assert ledger.count("records") == 2
    assert ledger.store.shipped_to("w-1") != HERE


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2, 1)], ids=str)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_correction_of_a_correction_is_refused(ledger, order, at_once):
    """Sums would count it and the call would not; whichever comes first, and from any writer."""
    call = make_record(seq=1)
    first = make_record(seq=2, corrects=call.id)
    chain = (call, first, make_record(seq=3, corrects=first.id))
    batch = [with_seq(chain[n], seq) for seq, n in enumerate(order, 1)]
    if not at_once:
        ledger.store.append("w-1", batch[:2], ShippedTo(segment=1, offset=1))
        batch = batch[2:]
    before = ledger.count("records")
    with pytest.raises(CorrectionOfCorrection, match="is a correction itself"):
        ledger.store.append("w-1", batch, HERE)
    with pytest.raises(CorrectionOfCorrection):
        ledger.store.append_next("corrections", lambda _: batch)

    assert before == ledger.count("records")
    assert ledger.store.shipped_to("w-1") != HERE
    assert list(ledger.queries.verify()) == []


def test_a_call_may_be_corrected_as_often_as_needed(ledger):
    """From one writer or several, before the call itself is in the ledger or after."""
    call = make_record()
    ledger.post(make_record(corrects=call.id), writer="w-2")
    ledger.post(call, make_record(corrects=call.id), make_record(corrects=call.id))

    assert ledger.count("records") == 4


@pytest.mark.parametrize("table", ["records", "record_lines", "audit"])
@pytest.mark.parametrize("change", ["UPDATE {0} SET {1} = {1}", "DELETE FROM {0}"])
def test_the_database_refuses_to_change_what_was_written(ledger, table, change):
    """Records, their lines and the audit trail can only grow."""
    ledger.post(make_record())
    insert = (
        "INSERT INTO audit (id, at_us, actor, action, noun, noun_id) "
        "VALUES ('1', 1, 'admin', 'create', 'team', 'search')"
    )
    with ledger.engine.begin() as connection:
        connection.execute(text(insert))
    column = {"records": "team", "record_lines": "meter", "audit": "actor"}[table]
    with (
        pytest.raises(DatabaseError, match=f"{table} is append-only"),
        ledger.engine.begin() as connection,
    ):
        connection.execute(text(change.format(table, column)))

    assert ledger.count(table) == 1


def test_the_database_refuses_to_replace_or_empty(ledger):
    """The other ways to get rid of rows are closed too."""
    ledger.post(make_record())
    statement = (
        "INSERT OR REPLACE INTO records SELECT * FROM records"
        if ledger.engine.dialect.name == "sqlite"
        else "TRUNCATE records"
    )
    with (
        pytest.raises(DatabaseError, match="records is append-only"),
        ledger.engine.begin() as connection,
    ):
        connection.execute(text(statement))


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_no_table_that_only_grows_can_be_changed(ledger, table):
    """The ledger, prices, decisions, runs and the audit trail: no change, no deletion, no end."""
    columns = [column for column in metadata.tables[table].c if not column.nullable]
    values = [_any_value(column) for column in columns]
    row = dict(zip((column.key for column in columns), values, strict=True))
    with ledger.engine.begin() as connection:
        connection.execute(metadata.tables[table].insert().values(row))
    changes = [
        f'UPDATE {table} SET "{columns[0].key}" = "{columns[0].key}"',
        f"DELETE FROM {table}",
    ]
    if ledger.engine.dialect.name == "postgresql":
        changes.append(f"TRUNCATE {table} CASCADE")
    for change in changes:
        with (
            pytest.raises(DatabaseError, match=f"{table} is append-only"),
            ledger.engine.begin() as connection,
        ):
            connection.execute(text(change))

    assert ledger.count(table) == 1


def _any_value(column: Column[Any]) -> Any:
    match column.type.python_type():
        case bool() | int():
            return 1
        case bytes():
            return b"1"
        case dict():
            return {}
        case _:
            return "1"


def test_a_nul_character_does_not_stop_the_journal(ledger):
    """Text a database cannot hold is rewritten, and the chain still agrees with itself."""
    ledger.post(make_record(user="a\x00b", tags={"t\x00": "\x00"}), make_record())
    found = next(ledger.queries.stream_records(RecordFilter()))
    is_sqlite = ledger.engine.dialect.name == "sqlite"

    assert ("a\x00b" if is_sqlite else "a\ufffdb") == found.user
    assert ({"t\x00": "\x00"} if is_sqlite else {"t\ufffd": "\ufffd"}) == found.tags
    assert list(ledger.queries.verify()) == []


def test_an_impossible_number_is_unknown_and_told(ledger):
    """A count beyond 64 bits cannot stop the journal, and is never clamped to a wrong one."""
    absurd = make_record(
        usage={"input": 2**70}, input_total=2**70, lines=(), ceiling_pico=5, ceiling_tokens=2**64
    )
    record = ledger.post(absurd, make_record())[0]
    found = ledger.queries.find_record(record.id)
    numbers = (found.input_total, found.output_total, found.cost_pico)

    assert (None, None, None) == numbers
    assert (5, None) == (found.ceiling_pico, found.ceiling_tokens)
    assert ({}, "unknown", "unknown") == (found.usage, found.basis, found.cost_status)
    assert f"input_total {2**70}" in found.flags[0]
    assert ledger.count("records") == 2
    assert list(ledger.queries.verify()) == []


def test_an_impossible_amount_on_a_line_is_unknown_too(ledger):
    """Lines have numbers of their own."""
    record = ledger.post(make_record(lines=(make_line("input", cost_pico=2**63),)))[0]
    found = ledger.queries.find_record(record.id)

    assert ((), None) == (found.lines, found.cost_pico)
    assert "input cost" in found.flags[0]


def test_a_missing_database_is_said_to_be_away(absent_engine):
    """Whoever writes or asks can tell a database that is away from a wrong question."""
    store = LedgerStore(absent_engine)
    with pytest.raises(StoreUnavailable, match="not available"):
        store.append("w-1", [make_record(seq=1)], HERE)
    with pytest.raises(StoreUnavailable):
        store.shipped_to("w-1")
    with pytest.raises(StoreUnavailable):
        is_current(absent_engine)


def test_a_database_that_comes_back_is_used_again(ledger, request):
    """Connections that broke meanwhile are replaced without anybody noticing."""
    ledger.post(make_record())
    if ledger.engine.dialect.name == "postgresql":
        request.getfixturevalue("postgres").disconnect_all()
    ledger.post(make_record())

    assert ledger.count("records") == 2


def test_nothing_of_a_failed_append_stays(ledger):
    """Records and position are written together or not at all."""
    broken = msgspec.structs.replace(make_record(seq=1), outcome=None)
    with pytest.raises(IntegrityError):
        ledger.store.append("w-1", [make_record(seq=1), with_seq(broken, 2)], HERE)

    assert ledger.count("records") == 0
    assert ledger.store.shipped_to("w-1") is None


def test_several_journals_and_readers_share_a_database(ledger):
    """Writers wait for each other and readers for nobody."""

    def ship(writer: str) -> None:
        for n in range(20):
            ledger.post(make_record(), make_record(), writer=writer)
            ledger.queries.find_record(str(n))

    with ThreadPoolExecutor() as threads:
        done = [threads.submit(ship, f"w-{n}") for n in range(3)]

    assert [None, None, None] == [journal.result() for journal in done]
    assert {"w-0": 40, "w-1": 40, "w-2": 40} == ledger.queries.seqs()
    assert list(ledger.queries.verify()) == []


def test_amounts_come_back_as_integers(ledger):
    """No driver turns money into another type on the way."""
    record = ledger.post(make_record(cost_pico=2**63 - 1))[0]
    found: LedgerRecord = ledger.queries.find_record(record.id)

    assert (2**63 - 1, int) == (found.cost_pico, type(found.cost_pico))


@pytest.mark.parametrize(("set_by_operator", "used"), [("off", "on"), ("remote_write", None)])
def test_what_postgresql_has_committed_survives_its_crash(postgres, set_by_operator, used):
    """A server that commits before it has written is asked to wait; other settings stay."""
    name = postgres.create_database()
    admin = open_engine(postgres.url(name))
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        change = f'ALTER DATABASE "{name}" SET synchronous_commit = {set_by_operator}'
        connection.execute(text(change))
    admin.dispose()

    engine = open_engine(postgres.url(name))
    with engine.connect() as connection:
        shown = connection.execute(text("SHOW synchronous_commit")).scalar_one()
        connection.rollback()
        again = connection.execute(text("SHOW synchronous_commit")).scalar_one()
    engine.dispose()

    assert [used or set_by_operator] * 2 == [shown, again]
