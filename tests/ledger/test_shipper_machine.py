"""Any order of calls, shipping, outages and crashes: every call ends with exactly one record."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.journal import Disk, Journal
from gateway.ledger.record import Intent, LedgerRecord
from gateway.ledger.recovery import recover_journal
from gateway.ledger.segments import encode_frame
from gateway.ledger.shipper import Shipper
from tests.contracts.records import NOON_US, make_record, make_refused
from tests.ledger.journal_kit import ManualClock, MemorySink, make_intent, newest_segment, settle

SEGMENT_BYTES = 3000
# Only a power cut could tell the difference, and waiting for a real disk takes most of the time.
DISK = Disk(sync=lambda fd: None)


class JournalMachine(RuleBasedStateMachine):
    """A journal, its shipper and its ledger, beside plain lists of what was promised."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="journal-machine-"))
        self.sink = MemorySink()
        self.open: list[Intent] = []
        self.promised: list[tuple[str, int, str]] = []
        self.start()

    def start(self) -> None:
        """Open the journal as a new process does."""
        self.journal = Journal.open(self.directory, segment_bytes_max=SEGMENT_BYTES, disk=DISK)
        self.shipper = Shipper(self.journal, self.sink, ManualClock(), batch_records=3)

    def promise(self, record: LedgerRecord) -> None:
        """Remember that a record was accepted."""
        self.promised.append((record.id, record.seq, record.outcome))

    def held(self) -> list[tuple[str, int, str]]:
        """List what the ledger holds, in order of arrival."""
        return [(r.id, r.seq, r.outcome) for r in self.sink.records.values()]

    def teardown(self) -> None:
        """Whatever happened, a last recovery brings everything to the ledger."""
        self.sink.is_up, self.sink.loses_answers = True, False
        self.die(b"")
        self.recover()
        assert self.promised == self.held()
        self.journal.close()
        shutil.rmtree(self.directory)

    def die(self, torn: bytes) -> None:
        """Stop without a goodbye, in the middle of a write."""
        self.journal.close()
        with newest_segment(self.directory).open("ab") as file:
            file.write(torn)
        self.start()
        assert len(torn.rstrip(b"\0")) == self.journal.torn_bytes
        assert () == self.journal.damaged_files

    @rule(size=st.integers(0, 2000))
    def accept(self, size: int) -> None:
        """Write an intent down."""
        intent = make_intent(user="u" * size)
        self.journal.append_intent(intent)
        self.open.append(intent)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """End any open call."""
        index = data.draw(st.integers(0, len(self.open) - 1))
        record = settle(self.open.pop(index))
        self.promise(self.journal.append_record(record))

    @rule()
    def refuse(self) -> None:
        """Write a refusal down."""
        self.promise(self.journal.append_record(make_refused()))

    @rule(is_up=st.booleans(), loses_answers=st.booleans())
    def disturb(self, is_up: bool, loses_answers: bool) -> None:
        """Let the ledger go, come back, or stop answering after the commit."""
        self.sink.is_up, self.sink.loses_answers = is_up, loses_answers

    @rule()
    def ship(self) -> None:
        """Ship what there is, if the ledger lets us."""
        try:
            self.shipper.ship_pending()
        except StoreUnavailable:
            assert not self.shipper.is_store_up
        else:
            assert self.promised == self.held()
            assert 0 == self.shipper.pending_bytes()
            assert 1 == len(self.journal.extents())

    @rule(share=st.floats(0, 1, exclude_max=True))
    def crash(self, share: float) -> None:
        """Die in the middle of a write and start again without recovery."""
        frame = encode_frame(make_record())
        self.die(frame[: int(len(frame) * share)])

    @rule()
    def recover(self) -> None:
        """Start as the gateway does: open calls end, records are shipped."""
        self.die(b"")
        assert self.open == list(self.journal.open_intents())
        report = recover_journal(self.journal, self.sink, now_us=NOON_US)
        assert len(self.open) == report.aborted
        for intent in self.open:
            self.promised.append((intent.id, len(self.promised) + 1, "aborted"))
        self.open = []
        if report.store_trouble is None:
            assert self.promised == self.held()

    @invariant()
    def numbers_have_no_gaps(self) -> None:
        """The ledger holds a beginning of what was promised, numbered from 1."""
        count = len(self.sink.records)
        assert list(range(1, count + 1)) == self.sink.seqs(self.journal.writer)
        assert self.promised[:count] == self.held()
        assert len(self.promised) == self.journal.position().seq


TestJournalMachine = JournalMachine.TestCase
