"""The sink of the tests keeps the promises of the real store, so what they show holds for it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from gateway.ledger.errors import LedgerConflict, ShippedTo
from gateway.ledger.journal import Journal
from gateway.ledger.migrate import upgrade
from gateway.ledger.queries import Queries
from gateway.ledger.recovery import recover
from gateway.ledger.shipper import LedgerSink, Shipper
from gateway.ledger.store import LedgerStore, open_engine
from tests.contracts.records import NOON_US, make_record, with_seq
from tests.ledger.journal_kit import ManualClock, MemorySink, make_intent


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A ledger on SQLite."""
    engine = open_engine(f"sqlite:///{tmp_path}/ledger.db")
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> LedgerStore:
    """The real store."""
    return LedgerStore(engine)


@pytest.fixture(params=["memory", "store"])
def sink(request: pytest.FixtureRequest, store: LedgerStore) -> LedgerSink:
    """Both of them."""
    return MemorySink() if request.param == "memory" else store


def test_a_sink_keeps_its_promises(sink):
    """Positions come back, known ids are skipped, and a number is never taken twice."""
    first, second, third = (with_seq(make_record(), n) for n in (1, 2, 3))
    assert sink.shipped_to("w-1") is None
    sink.append("w-1", [first], ShippedTo(1, 100))
    sink.append("w-1", [first, second], ShippedTo(1, 200))
    assert ShippedTo(1, 200) == sink.shipped_to("w-1")
    with pytest.raises(LedgerConflict):
        sink.append("w-1", [third, with_seq(make_record(), 2)], ShippedTo(1, 300))
    assert ShippedTo(1, 200) == sink.shipped_to("w-1")
    sink.append("w-1", [third, with_seq(make_record(), 7)], ShippedTo(2, 50))
    sink.append("w-2", [second, with_seq(make_record(), 5)], ShippedTo(9, 10))

    assert ShippedTo(2, 50) == sink.shipped_to("w-1")
    assert ShippedTo(9, 10) == sink.shipped_to("w-2")


def test_journal_and_store_agree(tmp_path, engine, store):
    """Through restarts and rotation the real ledger holds every record once, in a whole chain."""
    for _ in range(3):
        with closing(Journal.open(tmp_path / "journal", segment_bytes_max=3000)) as journal:
            shipper = Shipper(journal, store, ManualClock(), batch_records=7)
            for _ in range(10):
                journal.append_record(make_record())
            journal.append_intent(make_intent())
            shipper.ship_pending()
            for _ in range(10):
                journal.append_record(make_record())
    journal, report = recover(tmp_path / "journal", store, now_us=NOON_US)
    with closing(journal):
        queries = Queries(engine)
        assert 3 == report.aborted
        assert {journal.writer: 63} == queries.seqs()
        assert [] == list(queries.verify())
