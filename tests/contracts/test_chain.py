"""The hash chain finds whatever was done to the ledger behind its back."""

import hashlib

import msgspec
import pytest
from sqlalchemy import text

from gateway.ledger.chain import GENESIS, chain_hash
from gateway.ledger.errors import ShippedTo
from tests.contracts.records import make_record, make_unknown, with_seq


def found_in(ledger):
    """List what the check finds, without the words."""
    return [(p.kind, p.writer, p.seq) for p in ledger.queries.verify()]


def test_an_honest_ledger_has_no_problem(ledger):
    """Every kind of record passes, in several journals, appended in several steps."""
    ledger.post(make_record(), make_unknown(), make_record(usage={"input": 1, "image": 2}))
    ledger.post(make_record(tags={"b": "2", "a": "1"}), writer="w-2")
    ledger.post(make_record(), make_record())

    assert found_in(ledger) == []


def test_a_ledger_longer_than_one_read_is_checked_whole(ledger):
    """Long chains are read in pieces, without a false alarm at the seams and with no blind spot."""
    records = ledger.post(*(make_record() for _ in range(1001)))
    ledger.post(*(make_record() for _ in range(1001)), writer="w-2")

    assert found_in(ledger) == []

    ledger.tamper(f"UPDATE records SET team = 'x' WHERE id = '{records[-1].id}'")

    assert [("changed", "w-1", 1001)] == found_in(ledger)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE records SET cost_pico = 1 WHERE seq = 2",
        "UPDATE records SET cost_pico = NULL WHERE seq = 2",
        "UPDATE records SET team = 'other' WHERE seq = 2",
        "UPDATE records SET started_at_us = started_at_us + 1 WHERE seq = 2",
        'UPDATE records SET tags = \'{"env": "dev"}\' WHERE seq = 2',
        "UPDATE records SET tags = '3' WHERE seq = 2",
        "UPDATE records SET usage = '[]' WHERE seq = 2",
        "UPDATE record_lines SET quantity = '2' WHERE record_id = 'B' AND line = 0",
        "UPDATE record_lines SET cost_pico = 3 WHERE record_id = 'B' AND line = 0",
        "UPDATE record_lines SET quantity = '2' WHERE record_id = 'B' AND line = 1",
        "DELETE FROM record_lines WHERE record_id = 'B' AND line = 0",
        "DELETE FROM record_lines WHERE record_id = 'B' AND line = 1",
        "INSERT INTO record_lines (record_id, line, started_at_us, meter, quantity) "
        "VALUES ('B', 7, 1, 'image', '1')",
    ],
)
def test_a_changed_record_is_found(ledger, change):
    """Every column and every line of a record is covered."""
    usage = {"input": 1000, "image": 1}
    ledger.post(make_record(), make_record(id="B", usage=usage), make_record())
    ledger.tamper(change)

    assert [("changed", "w-1", 2)] == found_in(ledger)


def test_a_changed_record_with_a_new_hash_is_found_at_the_next_one(ledger):
    """Whoever also computes the hash again is betrayed by the record that follows."""
    posted = ledger.post(make_record(), make_record(), make_record())
    forged = msgspec.structs.replace(posted[0], team="other")
    forged_hash = chain_hash(GENESIS, forged)
    ledger.tamper(f"UPDATE records SET team = 'other', hash = '{forged_hash}' WHERE seq = 1")

    assert [("changed", "w-1", 2)] == found_in(ledger)


def test_a_changed_last_record_with_a_new_hash_is_found(ledger):
    """The last record is held in place by the position of its journal."""
    posted = ledger.post(make_record())
    forged_hash = chain_hash(GENESIS, msgspec.structs.replace(posted[0], team="other"))
    ledger.tamper(f"UPDATE records SET team = 'other', hash = '{forged_hash}' WHERE seq = 1")

    assert [("changed", "w-1", 1)] == found_in(ledger)


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("seq = 1", "this record is gone"),
        ("seq = 2", "this record is gone"),
        ("seq IN (2, 3)", "records 2 to 3 are gone"),
        ("seq = 4", "this record is gone"),
        ("seq >= 1", "records 1 to 4 are gone"),
    ],
)
def test_a_missing_record_is_found(ledger, gone, told):
    """Records can disappear neither from the middle nor from either end."""
    ledger.post(make_record(), make_record(), make_record(), make_record())
    ledger.tamper(
        f"DELETE FROM record_lines WHERE record_id IN (SELECT id FROM records WHERE {gone})",
        f"DELETE FROM records WHERE {gone}",
    )

    assert [("missing", told)] == [(p.kind, p.detail) for p in ledger.queries.verify()]


def test_records_in_another_order_are_found(ledger):
    """Whoever changes places of two records breaks the chain at both, and behind them."""
    ledger.post(*(make_record() for _ in range(4)))
    ledger.tamper(
        "UPDATE records SET seq = 20 WHERE seq = 2",
        "UPDATE records SET seq = 2 WHERE seq = 3",
        "UPDATE records SET seq = 3 WHERE seq = 20",
    )

    assert {("changed", "w-1", seq) for seq in (2, 3, 4)} == set(found_in(ledger))


def test_records_of_two_journals_that_changed_places_are_found(ledger):
    """A record belongs to its journal, even where number and content fit the other one."""
    ledger.post(make_record(id="A"), make_record())
    ledger.post(make_record(id="B"), writer="w-2")
    ledger.tamper(
        "UPDATE records SET writer = 'w-3' WHERE id = 'A'",
        "UPDATE records SET writer = 'w-1' WHERE id = 'B'",
        "UPDATE records SET writer = 'w-2' WHERE id = 'A'",
    )

    assert [("changed", "w-1", 2), ("changed", "w-2", 1)] == found_in(ledger)


def test_a_record_in_the_place_of_another_is_found(ledger):
    """A record that is taken out and another one put in its place is told, by number and id."""
    ledger.post(make_record(), make_record(id="B"), make_record())
    ledger.store.append("w-8", [with_seq(make_record(id="X"), 2)], ShippedTo(segment=1, offset=1))
    ledger.tamper(
        "DELETE FROM record_lines WHERE record_id = 'B'",
        "DELETE FROM records WHERE id = 'B'",
        "UPDATE records SET writer = 'w-1' WHERE id = 'X'",
        "DELETE FROM shipped WHERE writer = 'w-8'",
    )

    found = [(p.kind, p.seq, p.record_id) for p in ledger.queries.verify()]
    assert ("changed", 2, "X") in found
    assert {seq for _, seq, _ in found} == {2, 3}


def test_progress_tells_every_record(ledger):
    """Long checks show how far they are."""
    ledger.post(*(make_record() for _ in range(1001)))
    steps = []

    assert list(ledger.queries.verify(steps.append)) == []
    assert sum(steps) == 1001


@pytest.mark.parametrize(("writer", "seq"), [("w-1", 3), ("w-1", 0), ("w-9", 1)])
def test_an_inserted_record_is_found(ledger, writer, seq):
    """A record no journal shipped stands out, even with a hash that fits."""
    ledger.post(make_record(), make_record())
    ledger.store.append("w-8", [with_seq(make_record(id="X"), 5)], ShippedTo(segment=1, offset=1))
    ledger.tamper(
        f"UPDATE records SET writer = '{writer}', seq = {seq} WHERE id = 'X'",
        "DELETE FROM shipped WHERE writer = 'w-8'",
    )

    assert [("inserted", writer, seq)] == found_in(ledger)


def test_a_line_without_a_record_is_found(ledger):
    """Lines count in the sums by meter, so they may not come from nowhere."""
    ledger.post(make_record())
    ledger.tamper(
        "INSERT INTO record_lines (record_id, line, started_at_us, meter, quantity) "
        "VALUES ('nobody', 0, 1, 'image', '1')"
    )

    assert [("inserted", None, None)] == found_in(ledger)


def test_a_gap_in_the_journal_itself_is_told(ledger):
    """A journal that was damaged leaves a gap, which the check does not hide."""
    ledger.store.append(
        "w-1", [make_record(seq=1), make_record(seq=4)], ShippedTo(segment=1, offset=1)
    )

    assert [("missing", "w-1", 2)] == found_in(ledger)
    (problem,) = ledger.queries.verify()
    assert "nothing was ever chained to them" in problem.detail


def test_the_hash_is_the_documented_one(ledger):
    """Anybody can recompute the chain: SHA-256 over the previous hash and the record's JSON."""
    posted = ledger.post(make_record(), make_record())
    previous = GENESIS
    for record in posted:
        body = msgspec.json.encode(record, order="deterministic")
        previous = hashlib.sha256(previous.encode() + body).hexdigest()
    with ledger.engine.connect() as connection:
        stored = connection.execute(text("SELECT hash FROM records WHERE seq = 2")).scalar_one()

    assert previous == stored
