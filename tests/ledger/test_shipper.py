"""The shipper: what reaches the ledger, when segments go, and a ledger that comes and goes."""

import errno
import os
import shutil
import threading
import zlib
from collections.abc import Sequence
from contextlib import closing

import pytest

from gateway.ledger.errors import (
    CorrectionOfCorrection,
    LedgerConflict,
    ShippedTo,
    StoreUnavailable,
)
from gateway.ledger.journal import Disk, Journal
from gateway.ledger.record import LedgerRecord
from gateway.ledger.recovery import recover
from gateway.ledger.segments import FRAME_HEAD, list_segments
from gateway.ledger.shipper import Shipper
from tests.contracts.records import NOON_US, make_record
from tests.ledger.journal_kit import (
    ManualClock,
    MemorySink,
    make_intent,
    newest_segment,
    settle,
)

PATIENCE_S = 20


def append_records(journal: Journal, count: int) -> list[LedgerRecord]:
    """Append plain records."""
    return [journal.append_record(make_record()) for _ in range(count)]


def test_records_arrive_in_order_and_in_batches(tmp_path):
    """Everything appended is in the ledger as journalled, a bounded number to a transaction."""
    sink = MemorySink()
    with closing(Journal.open(tmp_path)) as journal:
        shipper = Shipper(journal, sink, ManualClock(), batch_records=4)
        journal.append_intent(make_intent())
        records = append_records(journal, 10)
        journal.append_intent(make_intent())
        assert journal.total_bytes == shipper.pending_bytes()
        assert not shipper.is_store_up
        shipper.ship_pending()

        assert records == list(sink.records.values())
        assert [4, 4, 2] == sink.batches
        assert 0 == shipper.pending_bytes()
        assert shipper.is_store_up
        assert 10 == shipper.records_shipped
        shipper.ship_pending()
        assert [4, 4, 2] == sink.batches


def test_shipping_goes_on_where_the_ledger_stands(tmp_path):
    """A new shipper asks the ledger and repeats nothing."""
    sink = MemorySink()
    with closing(Journal.open(tmp_path)) as journal:
        append_records(journal, 3)
        Shipper(journal, sink, ManualClock()).ship_pending()
        append_records(journal, 2)
    with closing(Journal.open(tmp_path)) as journal:
        Shipper(journal, sink, ManualClock()).ship_pending()

        assert [3, 2] == sink.batches
        assert [1, 2, 3, 4, 5] == sink.seqs(journal.writer)


def test_a_lost_answer_does_not_double_a_record(tmp_path):
    """When a transaction succeeded and nobody heard, the repeat adds nothing."""
    sink = MemorySink()
    sink.loses_answers = True
    with closing(Journal.open(tmp_path)) as journal:
        shipper = Shipper(journal, sink, ManualClock())
        records = append_records(journal, 5)
        with pytest.raises(StoreUnavailable):
            shipper.ship_pending()
        assert not shipper.is_store_up
        sink.loses_answers = False
        shipper.ship_pending()

        assert records == list(sink.records.values())


def test_segments_go_only_when_the_ledger_has_them(tmp_path):
    """While the ledger is down every segment stays; afterwards only the live one does."""
    sink = MemorySink()
    sink.is_up = False
    with closing(Journal.open(tmp_path, segment_bytes_max=2000)) as journal:
        shipper = Shipper(journal, sink, ManualClock())
        append_records(journal, 20)
        before = list_segments(tmp_path)
        with pytest.raises(StoreUnavailable):
            shipper.ship_pending()
        assert before == list_segments(tmp_path)
        assert journal.total_bytes == shipper.pending_bytes()
        sink.is_up = True
        shipper.ship_pending()

        assert 5 < len(before)
        assert before[-1:] == list_segments(tmp_path)
        assert 20 == len(sink.records)
    with closing(Journal.open(tmp_path)) as journal:
        assert 21 == journal.append_record(make_record()).seq


def test_an_open_call_is_never_deleted(tmp_path):
    """However many segments come and go, a call that lasts is still known after a crash."""
    sink = MemorySink()
    lasting = make_intent()
    with closing(Journal.open(tmp_path, segment_bytes_max=2000)) as journal:
        shipper = Shipper(journal, sink, ManualClock())
        journal.append_intent(lasting)
        for _ in range(10):
            append_records(journal, 5)
            shipper.ship_pending()
            assert 1 == len(list_segments(tmp_path))
    with closing(Journal.open(tmp_path)) as journal:
        assert (lasting,) == journal.open_intents()
        journal.append_record(settle(lasting))
        Shipper(journal, sink, ManualClock()).ship_pending()

    assert 51 == len(sink.records)


def test_nothing_is_shipped_that_a_power_cut_could_take(tmp_path):
    """Before records go to the ledger their segment is synced, and so is one that stays behind."""
    synced: dict[int, int] = {}

    def sync(fd: int) -> None:
        synced[int(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))[:8])] = os.fstat(fd).st_size

    class CheckingSink(MemorySink):
        def append(
            self, writer: str, records: Sequence[LedgerRecord], shipped_to: ShippedTo
        ) -> None:
            assert synced[shipped_to.segment] >= shipped_to.offset
            super().append(writer, records, shipped_to)

    sink = CheckingSink()
    with closing(Journal.open(tmp_path, segment_bytes_max=3000, disk=Disk(sync=sync))) as journal:
        shipper = Shipper(journal, sink, ManualClock(), batch_records=2)
        for _ in range(5):
            append_records(journal, 5)
            shipper.ship_pending()
        assert 25 == len(sink.records)
        journal.append_intent(make_intent(user="u" * 3000))
        assert journal.position().segment not in synced
        shipper.ship_pending()

        assert [journal.position().segment] == list_segments(tmp_path)
        assert journal.position().segment in synced


def test_a_segment_that_cannot_be_synced_is_not_shipped(tmp_path):
    """A failing disk is trouble, and the ledger does not get ahead of the journal."""
    sink = MemorySink()

    def sync(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with closing(Journal.open(tmp_path, disk=Disk(sync=sync))) as journal:
        append_records(journal, 1)
        with pytest.raises(OSError, match="Input/output"):
            Shipper(journal, sink, ManualClock()).ship_pending()

    assert {} == sink.records


def test_a_segment_that_is_gone_is_skipped(tmp_path):
    """When the ledger stands in a segment that was deleted, shipping begins with the next one."""
    sink = MemorySink()
    with closing(Journal.open(tmp_path, segment_bytes_max=3000)) as journal:
        append_records(journal, 2)
        Shipper(journal, sink, ManualClock()).ship_pending()
        journal.append_intent(make_intent(user="u" * 3000))
        assert 2 == journal.position().segment
        Shipper(journal, sink, ManualClock()).ship_pending()
        assert [2] == list_segments(tmp_path)
        append_records(journal, 1)
    with closing(Journal.open(tmp_path)) as journal:
        Shipper(journal, sink, ManualClock()).ship_pending()

        assert [1, 2, 3] == sink.seqs(journal.writer)


def test_damage_met_while_shipping_is_kept_for_people(tmp_path):
    """What cannot be read is skipped and its segment copied; the records around it arrive."""
    sink = MemorySink()
    with closing(Journal.open(tmp_path)) as journal:
        append_records(journal, 5)
        end = journal.position().offset
        payload = b'{"type":"record","id":"of another version"}'
        with newest_segment(tmp_path).open("r+b") as file:
            file.seek(end // 2)
            file.write(b"\0")
        shipper = Shipper(journal, sink, ManualClock())
        shipper.ship_pending()

        assert [1, 2, 4, 5] == sink.seqs(journal.writer)
        assert {tmp_path / "00000001.tmj.damaged"} == shipper.damaged_files
    with newest_segment(tmp_path).open("ab") as file:
        file.write(FRAME_HEAD.pack(len(payload), zlib.crc32(payload)) + payload)
    with closing(Journal.open(tmp_path)) as journal:
        append_records(journal, 1)
        shipper = Shipper(journal, sink, ManualClock())
        shipper.ship_pending()
        assert {tmp_path / "00000001.tmj.damaged"} == shipper.damaged_files
        assert 6 == sink.seqs(journal.writer)[-1]


def test_a_journal_put_back_to_an_older_state_goes_on_under_a_new_name(tmp_path):
    """When the ledger has read further than the journal reaches, no number is given twice."""
    sink = MemorySink()
    with closing(Journal.open(tmp_path / "journal")) as journal:
        name = journal.writer
        old = append_records(journal, 3)
        Shipper(journal, sink, ManualClock()).ship_pending()
        shutil.copytree(tmp_path / "journal", tmp_path / "backup")
        lost = append_records(journal, 3)
        Shipper(journal, sink, ManualClock()).ship_pending()
    with closing(Journal.open(tmp_path / "backup")) as journal:
        fresh = append_records(journal, 5)
        shipper = Shipper(journal, sink, ManualClock())
        shipper.ship_pending()

        assert name != journal.writer
        assert [*old, *lost, *fresh] == list(sink.records.values())
        assert [4, 5, 6, 7, 8] == sink.seqs(journal.writer)
        append_records(journal, 1)
        shipper.ship_pending()
        Shipper(journal, sink, ManualClock()).ship_pending()
        assert [4, 5, 6, 7, 8, 9] == sink.seqs(journal.writer)


def test_an_older_state_is_noticed_even_starts_later(tmp_path):
    """A journal put back while the ledger is down loses nothing, however often it is restarted."""
    sink = MemorySink()
    with closing(Journal.open(tmp_path / "journal")) as journal:
        append_records(journal, 3)
        Shipper(journal, sink, ManualClock()).ship_pending()
        shutil.copytree(tmp_path / "journal", tmp_path / "backup")
        append_records(journal, 3)
        Shipper(journal, sink, ManualClock()).ship_pending()
    sink.is_up = False
    fresh = []
    for _ in range(3):
        journal, report = recover(tmp_path / "backup", sink, now_us=NOON_US)
        fresh += append_records(journal, 2)
        journal.close()
        assert report.store_trouble
    sink.is_up = True
    recover(tmp_path / "backup", sink, now_us=NOON_US)[0].close()

    assert fresh == list(sink.records.values())[6:]


def test_numbers_the_ledger_refuses_lead_to_a_new_name_once(tmp_path):
    """A conflict about numbers is solved by a new name; one that stays is told, not repeated."""

    class RefusingSink(MemorySink):
        def __init__(self, times: int) -> None:
            super().__init__()
            self.times = times
            self.names: list[str] = []

        def append(
            self, writer: str, records: Sequence[LedgerRecord], shipped_to: ShippedTo
        ) -> None:
            self.names.append(writer)
            if len(self.names) <= self.times:
                raise LedgerConflict("number 1 again")
            super().append(writer, records, shipped_to)

    once, always = RefusingSink(1), RefusingSink(1000)
    with closing(Journal.open(tmp_path / "once")) as journal:
        records = append_records(journal, 3)
        Shipper(journal, once, ManualClock()).ship_pending()
        assert records == list(once.records.values())
        assert 2 == len(set(once.names))
    with closing(Journal.open(tmp_path / "always")) as journal:
        append_records(journal, 3)
        shipper = Shipper(journal, always, ManualClock())
        for _ in range(3):
            with pytest.raises(LedgerConflict):
                shipper.ship_pending()
        assert 2 == len(set(always.names))


def test_a_correction_of_a_correction_is_told_under_the_same_name(tmp_path):
    """Nothing is shipped past it, nothing is lost, and no new name is tried."""

    class RefusingSink(MemorySink):
        def append(
            self, writer: str, records: Sequence[LedgerRecord], shipped_to: ShippedTo
        ) -> None:
            raise CorrectionOfCorrection("record B corrects A, which is a correction itself")

    with closing(Journal.open(tmp_path)) as journal:
        append_records(journal, 3)
        writer = journal.writer
        shipper = Shipper(journal, RefusingSink(), ManualClock())
        for _ in range(2):
            with pytest.raises(CorrectionOfCorrection):
                shipper.ship_pending()

        assert writer == journal.writer
        assert shipper.pending_bytes() > 0


def test_the_lag_is_never_less_than_the_age_of_what_is_missing(tmp_path):
    """The lag is 0 when nothing is missing and grows from the last time nothing was."""
    sink, clock = MemorySink(), ManualClock()
    with closing(Journal.open(tmp_path)) as journal:
        shipper = Shipper(journal, sink, clock)
        clock.seconds += 2
        assert 2 == shipper.lag_s()
        shipper.ship_pending()
        assert 0 == shipper.lag_s()
        clock.seconds += 5
        assert 0 == shipper.lag_s()
        shipper.ship_pending()
        append_records(journal, 1)
        clock.seconds += 3
        assert 3 == shipper.lag_s()
        sink.is_up = False
        with pytest.raises(StoreUnavailable):
            shipper.ship_pending()
        assert 3 == shipper.lag_s()
        sink.is_up = True
        shipper.ship_pending()
        assert 0 == shipper.lag_s()


def test_flush_returns_when_the_ledger_has_everything(tmp_path):
    """The thread ships what was appended before the call, then what comes later."""
    sink = MemorySink()
    with closing(Journal.open(tmp_path)) as journal:
        shipper = Shipper(journal, sink, ManualClock())
        shipper.start()
        for total in (3, 6, 9):
            append_records(journal, 3)
            assert shipper.flush(PATIENCE_S)
            assert total == len(sink.records)
        append_records(journal, 3)
        assert shipper.stop(PATIENCE_S)

    assert 12 == len(sink.records)
    assert shipper.trouble is None


def test_the_thread_ships_without_being_asked(tmp_path):
    """Records reach the ledger soon after they were appended."""
    arrived = threading.Event()

    class TellingSink(MemorySink):
        def append(
            self, writer: str, records: Sequence[LedgerRecord], shipped_to: ShippedTo
        ) -> None:
            super().append(writer, records, shipped_to)
            arrived.set()

    sink = TellingSink()
    with closing(Journal.open(tmp_path)) as journal:
        shipper = Shipper(journal, sink, ManualClock())
        shipper.start()
        assert shipper.flush(PATIENCE_S)
        append_records(journal, 1)
        assert arrived.wait(PATIENCE_S)
        assert shipper.stop(PATIENCE_S)


def test_the_thread_outlives_a_ledger_that_goes_and_comes_back(tmp_path):
    """While the ledger is down flush says so; afterwards everything arrives once."""
    sink = MemorySink()
    sink.is_up = False
    with closing(Journal.open(tmp_path)) as journal:
        shipper = Shipper(journal, sink, ManualClock())
        shipper.start()
        for _ in range(3):
            append_records(journal, 5)
            assert not shipper.flush(0.01)
        assert not shipper.is_store_up
        assert shipper.pending_bytes() > 0
        sink.is_up = True
        assert shipper.flush(PATIENCE_S)
        assert shipper.is_store_up
        assert list(range(1, 16)) == sink.seqs(journal.writer)
        sink.is_up = False
        append_records(journal, 1)
        assert not shipper.stop(0.2)
        assert "the ledger is down" == shipper.trouble
    assert 15 == len(sink.records)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_says_so(tmp_path):
    """A bug in the sink ends the thread, and that can be seen."""

    class BrokenSink(MemorySink):
        def append(
            self, writer: str, records: Sequence[LedgerRecord], shipped_to: ShippedTo
        ) -> None:
            raise ZeroDivisionError

    with closing(Journal.open(tmp_path)) as journal:
        shipper = Shipper(journal, BrokenSink(), ManualClock())
        append_records(journal, 1)
        shipper.start()
        assert not shipper.stop(0.2)
        assert "the shipper thread has died" == shipper.trouble
        assert not shipper.is_store_up


class WorkingSink(MemorySink):
    """A ledger that takes ten milliseconds for a transaction."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def append(self, writer: str, records: Sequence[LedgerRecord], shipped_to: ShippedTo) -> None:
        """Add what is new, and let the time pass."""
        super().append(writer, records, shipped_to)
        self._clock.seconds += 0.01


@pytest.mark.parametrize("busy_looks", [0, 3, 1000])
def test_it_rests_only_while_calls_keep_coming(tmp_path, busy_looks):
    """A fiftieth of the time under load; with the load gone, the backlog goes at once."""
    clock, rests, left = ManualClock(), [], [busy_looks]
    sink = WorkingSink(clock)
    begun, ended = threading.Event(), threading.Event()

    def wait(event: threading.Event, seconds: float) -> bool:
        """Stand in for the waiting: calls may come meanwhile."""
        if sink.batches and len(sink.records) < 40:
            rests.append(seconds)
            if left[0]:
                left[0] -= 1
                append_records(journal, 40)
        elif len(sink.records) >= 40:
            ended.set()
            return event.wait(0.01)
        begun.set()
        return False

    with closing(Journal.open(tmp_path)) as journal:
        records = append_records(journal, 40)
        shipper = Shipper(journal, sink, clock, batch_records=10, wait=wait)
        shipper.start()
        assert ended.wait(PATIENCE_S)
        assert shipper.stop(PATIENCE_S)
        assert {record.id for record in records} <= sink.records.keys()
    # Four transactions of 10 ms each: three rests of 490 ms, looked up from every 50 ms, and none
    # once a look has found nothing.
    expected = {0: 1, 3: 3 + 1, 1000: 30}[busy_looks]
    assert expected == len(rests)
