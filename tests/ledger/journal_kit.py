"""What the tests of journal, recovery and shipper share.

Must never be more forgiving than the real parts: test_shipper_sink.py compares the sink with the
real store.
"""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.clock import from_epoch_us
from gateway.ledger.errors import LedgerConflict, ShippedTo, StoreUnavailable
from gateway.ledger.record import Entry, Intent, LedgerRecord
from gateway.ledger.segments import list_segments, read_segment, segment_path
from tests.contracts.records import NOON_US, make_record, mint


def make_intent(**changes: Any) -> Intent:
    """Make an intent whose call can come to 1,000 input and 500 output tokens."""
    fields: dict[str, Any] = {
        "id": mint(),
        "started_at_us": NOON_US,
        "stream": True,
        "api": "openai.chat",
        "provider": "openai",
        "model_requested": "gpt-5",
        "organization": "acme",
        "team": "search",
        "project": "rag",
        "key": "rag-ci",
        "tags": {"env": "prod"},
        "price_version": "2026-11-23.1",
        "ceiling_pico": 6_250_000_000,
        "ceiling_tokens": 1500,
        "bound_usage": {"input": 1000, "output": 500},
        "bound_tier": "standard",
        "priced_as": "openai",
    }
    return Intent(**{**fields, **changes})


def settle(intent: Intent, **changes: Any) -> LedgerRecord:
    """Make the record that ends a call."""
    return make_record(id=intent.id, **changes)


def read_journal(directory: Path) -> list[Entry]:
    """Read every entry that is on the disk, oldest first."""
    numbers = list_segments(directory)
    return [entry for n in numbers for entry, _ in read_segment(segment_path(directory, n))]


def newest_segment(directory: Path) -> Path:
    """Name the segment that would be written next."""
    return segment_path(directory, list_segments(directory)[-1])


class ManualClock:
    """A clock that moves when the test moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        """Tell the time: noon and what has passed."""
        return from_epoch_us(NOON_US + int(self.seconds * 1_000_000))

    def monotonic_s(self) -> float:
        """Tell the seconds that have passed."""
        return self.seconds


class MemorySink:
    """A ledger in memory.

    Attributes:
        is_up: Whether it can be reached.
        loses_answers: Whether it commits and then says that it cannot be reached.
        records: By id, in order of arrival.
        writers: Who brought each record, by id.
        batches: Size of each transaction.
    """

    def __init__(self) -> None:
        self.is_up = True
        self.loses_answers = False
        self.records: dict[str, LedgerRecord] = {}
        self.writers: dict[str, str] = {}
        self.batches: list[int] = []
        self._positions: dict[str, ShippedTo] = {}
        self._heads: dict[str, int] = {}

    def shipped_to(self, writer: str) -> ShippedTo | None:
        """Tell the position last given."""
        if not self.is_up:
            raise StoreUnavailable("the ledger is down")
        return self._positions.get(writer)

    def append(self, writer: str, records: Sequence[LedgerRecord], shipped_to: ShippedTo) -> None:
        """Add what is new, all or nothing."""
        if not self.is_up:
            raise StoreUnavailable("the ledger is down")
        fresh = [record for record in records if record.id not in self.records]
        head = self._heads.get(writer, 0)
        for record in fresh:
            if record.seq <= head:
                raise LedgerConflict(f"number {record.seq} from {writer} again")
            head = record.seq
        self.records.update({record.id: record for record in fresh})
        self.writers.update({record.id: writer for record in fresh})
        self.batches.append(len(records))
        self._positions[writer] = shipped_to
        self._heads[writer] = head
        if self.loses_answers:
            raise StoreUnavailable("the connection broke at the commit")

    def seqs(self, writer: str) -> list[int]:
        """List the numbers that came from a journal, in order of arrival."""
        return [r.seq for r in self.records.values() if self.writers[r.id] == writer]


def descriptors_open() -> int:
    """Count the files this process has open."""
    return len(os.listdir("/proc/self/fd"))
