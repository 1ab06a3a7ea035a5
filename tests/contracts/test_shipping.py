"""The shipper on real databases: what it does when they are slow, locked, killed or told twice."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import permutations
from pathlib import Path

from sqlalchemy import Engine, event, text

from gateway.clock import SystemClock
from gateway.ledger.errors import ShippedTo, StoreUnavailable
from gateway.ledger.journal import Journal
from gateway.ledger.migrate import upgrade
from gateway.ledger.record import LedgerRecord
from gateway.ledger.shipper import LedgerSink, Shipper
from gateway.ledger.store import LedgerStore, open_engine
from tests.contracts.conftest import Ledger
from tests.contracts.records import make_line, make_record, make_tenant
from tests.ledger.journal_kit import ManualClock, make_intent, settle
from tests.postgres import running_postgres

PATIENCE_S = 60


@contextmanager
def shipping(journal: Journal, sink: LedgerSink, batch_records: int = 50) -> Iterator[Shipper]:
    """Ship in a thread, as a gateway does."""
    shipper = Shipper(journal, sink, SystemClock(), batch_records=batch_records)
    shipper.start()
    try:
        yield shipper
    finally:
        shipper.stop()


def wait_until(shipper: Shipper, is_so: Callable[[], bool], what: str) -> None:
    """Wait for something that the shipper's thread brings about."""
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end_s, f"{what}: {shipper.trouble}"
        shipper.flush(0.02)


def has_shipped(shipper: Shipper, count: int) -> bool:
    """Whether so many records went to the ledger."""
    return shipper.records_shipped >= count


def call(journal: Journal, count: int) -> list[str]:
    """Journal whole calls; returns their ids."""
    ids = []
    for _ in range(count):
        intent = make_intent()
        journal.append_intent(intent)
        ids.append(journal.append_record(settle(intent)).id)
    return ids


def ids_in(engine: Engine) -> list[str]:
    """Every record of a ledger, by the order of their numbers."""
    with engine.connect() as connection:
        found = connection.execute(text("SELECT id FROM records ORDER BY writer, seq"))
        return list(found.scalars())


# -- told twice, and in any order ----------------------------------------------------------------


class DeafSink:
    """A ledger whose answers are lost: what it has committed is told as having failed."""

    def __init__(self, store: LedgerStore) -> None:
        self.shipped_to = store.shipped_to
        self._store = store
        self.losses = 0

    def append(self, writer: str, records: Sequence[LedgerRecord], shipped_to: ShippedTo) -> None:
        """Commit, and lose every other answer."""
        self._store.append(writer, records, shipped_to)
        self.losses += 1
        if self.losses % 2:
            raise StoreUnavailable("the connection broke at the commit")


def test_a_batch_whose_answer_was_lost_is_there_once(ledger, tmp_path):
    """It is sent again, and changes neither records nor lines nor chain."""
    with closing(Journal.open(tmp_path / "journal")) as journal:
        ids = call(journal, 120)
        sink = DeafSink(ledger.store)
        with shipping(journal, sink, 25) as shipper:
            assert shipper.flush(PATIENCE_S)

        assert sink.losses > 120 // 25
        assert ids == ids_in(ledger.engine)
        assert 120 == ledger.count("record_lines")
        assert [] == list(ledger.queries.verify())


def test_a_whole_journal_sent_again_changes_nothing(ledger, tmp_path):
    """As after a backup of the journal was put back: heads and rows stay as they are."""
    with closing(Journal.open(tmp_path / "journal")) as journal:
        ids = call(journal, 60)
        Shipper(journal, ledger.store, ManualClock()).ship_pending()
        before = ledger.queries.seqs()
        end = journal.position()
        rows: list[LedgerRecord] = [
            found for id_ in ids if (found := ledger.queries.find_record(id_))
        ]
        for size in (1, 7, 60):
            for first in range(0, 60, size):
                to = ShippedTo(end.segment, end.offset)
                ledger.store.append(journal.writer, rows[first : first + size], to)

    assert before == ledger.queries.seqs()
    assert ids == ids_in(ledger.engine)
    assert [] == list(ledger.queries.verify())


def test_sums_do_not_depend_on_which_journal_comes_first(ledger, tmp_path):
    """Calls of three journals and corrections of each other's: any order adds up to the same."""
    sums = set()
    for order in permutations(range(3)):
        team = make_tenant()
        journals = [Journal.open(tmp_path / team / str(n)) for n in range(3)]
        for n, journal in enumerate(journals):
            calls = [
                journal.append_record(make_record(team=team, started_at_us=10**15 - at * (n + 1)))
                for at in range(5)
            ]
            line = make_line("input", quantity="-10", cost_pico=-7)
            for one in calls[:2]:
                corrected = make_record(
                    team=team, corrects=one.id, cost_pico=-7, usage={"input": -10}, lines=(line,)
                )
                journals[n - 1].append_record(corrected)
        for n in order:
            Shipper(journals[n], ledger.store, ManualClock(), batch_records=3).ship_pending()
        for journal in journals:
            journal.close()
        query = text(
            "SELECT count(*), sum(r.cost_pico), sum(l.cost_pico) FROM records r "
            "JOIN record_lines l ON l.record_id = r.id WHERE r.team = :team"
        )
        with ledger.engine.connect() as connection:
            found = connection.execute(query, {"team": team}).one()
            sums.add(tuple(int(number) for number in found))

    assert {(21, 15 * 1_250_000_000 - 6 * 7, 15 * 1_250_000_000 - 6 * 7)} == sums
    assert [] == list(ledger.queries.verify())


# -- slow and locked -----------------------------------------------------------------------------


@contextmanager
def locked(engine: Engine) -> Iterator[None]:
    """Hold what a change of the schema holds: nobody else can write, or in PostgreSQL read."""
    with engine.connect() as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE records, shipped IN ACCESS EXCLUSIVE MODE"))
        yield


def impatient(ledger: Ledger) -> LedgerStore:
    """A store that says after a tenth of a second that it waits for a lock."""

    def set_up(connection: object, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout = 100")  # type: ignore[attr-defined]

    if ledger.engine.dialect.name == "sqlite":
        event.listen(ledger.engine, "connect", set_up)
        ledger.engine.dispose()
    return LedgerStore(ledger.engine, lock_s_max=0.1)


def test_a_lock_on_the_tables_is_told_and_waited_out(ledger, tmp_path):
    """Calls go on into the journal, the trouble is seen, and afterwards everything arrives once."""
    with closing(Journal.open(tmp_path / "journal", segment_bytes_max=20_000)) as journal:
        ids = call(journal, 30)
        with shipping(journal, impatient(ledger)) as shipper:
            assert shipper.flush(PATIENCE_S)
            with locked(ledger.engine):
                ids += call(journal, 60)
                wait_until(shipper, lambda: shipper.trouble is not None, "the lock to be told")
                assert "lock" in str(shipper.trouble)
                assert not shipper.is_store_up
                assert shipper.lag_s() > 0
                behind = shipper.pending_bytes()
                ids += call(journal, 60)
                assert shipper.pending_bytes() > behind > 0
            assert shipper.flush(PATIENCE_S)
            wait_until(shipper, lambda: shipper.trouble is None, "the trouble to be over")

            assert shipper.is_store_up
            assert 0 == shipper.lag_s() == shipper.pending_bytes()
            wait_until(shipper, lambda: len(journal.extents()) == 1, "the segments to go")
    assert ids == ids_in(ledger.engine)
    assert [] == list(ledger.queries.verify())


def test_a_slow_database_holds_up_nobody_who_writes_down_calls(ledger, tmp_path):
    """While it is busy with one batch the journal takes the rest, and the lag is seen."""
    gate, is_asked = threading.Event(), threading.Event()

    class SlowSink:
        shipped_to = ledger.store.shipped_to

        def append(self, writer: str, records: Sequence[LedgerRecord], to: ShippedTo) -> None:
            """Take the first batch only once the gate is open."""
            is_asked.set()
            assert gate.wait(PATIENCE_S)
            ledger.store.append(writer, records, to)

    with closing(Journal.open(tmp_path / "journal")) as journal:
        ids = call(journal, 10)
        with shipping(journal, SlowSink()) as shipper:
            assert is_asked.wait(PATIENCE_S)
            ids += call(journal, 200)
            assert not shipper.flush(0.01)
            assert shipper.lag_s() > 0
            assert shipper.pending_bytes() == journal.total_bytes
            gate.set()
            assert shipper.flush(PATIENCE_S)
    assert ids == ids_in(ledger.engine)


# -- killed --------------------------------------------------------------------------------------


def test_a_killed_and_restarted_postgres_loses_nothing(tmp_path: Path) -> None:
    """kill -9 of the whole server, three times under way, and one that may forget its commits."""
    with running_postgres() as server, closing(Journal.open(tmp_path / "journal")) as journal:
        engine = open_engine(server.url(server.create_database()))
        upgrade(engine)
        ids = call(journal, 400)
        with shipping(journal, LedgerStore(engine), 20) as shipper:
            for _ in range(3):
                goal = shipper.records_shipped + 60
                ids += call(journal, 100)
                wait_until(shipper, partial(has_shipped, shipper, goal), "a start")
                server.kill()
                ids += call(journal, 200)
                wait_until(shipper, lambda: not shipper.is_store_up, "the loss to be noticed")
                wait_until(shipper, lambda: shipper.trouble is not None, "the loss to be told")
                server.start()
            assert shipper.flush(PATIENCE_S)
            wait_until(shipper, lambda: shipper.trouble is None, "the trouble to be over")
            assert shipper.is_store_up

        ledger = Ledger(engine)
        assert ids == ids_in(engine)
        assert len(ids) == ledger.count("record_lines")
        assert [] == list(ledger.queries.verify())
        engine.dispose()


def test_rights_that_are_missing_for_a_while_lose_nothing(postgres, tmp_path: Path) -> None:
    """The shipper says what the database refuses, and goes on when it no longer does."""
    url = postgres.url(postgres.create_database())
    owner = open_engine(url)
    upgrade(owner)
    role = make_tenant().replace("-", "_")
    with owner.begin() as connection:
        for statement in (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT SELECT, INSERT ON records, record_lines TO {role}",
            f"GRANT SELECT, INSERT, UPDATE ON shipped TO {role}",
            f"REVOKE INSERT ON records FROM {role}",
        ):
            connection.execute(text(statement))
    engine = open_engine(url.replace("//postgres@", f"//{role}@"))
    with closing(Journal.open(tmp_path / "journal")) as journal:
        ids = call(journal, 30)
        with shipping(journal, LedgerStore(engine)) as shipper:
            wait_until(shipper, lambda: shipper.trouble is not None, "the refusal to be told")
            assert "permission denied" in str(shipper.trouble)
            with owner.begin() as connection:
                connection.execute(text(f"GRANT INSERT ON records TO {role}"))
            assert shipper.flush(PATIENCE_S)
    assert ids == ids_in(owner)
    assert [] == list(Ledger(owner).queries.verify())
    engine.dispose()
    owner.dispose()
