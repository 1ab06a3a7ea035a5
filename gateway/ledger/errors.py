"""What can go wrong between the gateway and the places that keep its records.

Must never be raised for a normal "no": that is a refusal.
"""

from dataclasses import dataclass


class StoreUnavailable(Exception):
    """A store that a guarantee rests on cannot be reached or cannot be written."""


@dataclass(frozen=True, slots=True)
class ShippedTo:
    """How far a journal has been read into the ledger.

    Attributes:
        segment: Number of the segment.
        offset: First byte of that segment that is not in the ledger yet.
    """

    segment: int
    offset: int


class JournalFull(StoreUnavailable):
    """The journal takes no new call: its size limit or the disk is reached. May pass."""


class JournalBroken(StoreUnavailable):
    """The journal cannot be opened, written or synced; ``failure`` tells whether for good."""


class JournalInUse(StoreUnavailable):
    """Another process owns the journal directory."""


class LedgerConflict(RuntimeError):
    """A journal and the ledger contradict each other about a sequence number."""


class CorrectionOfCorrection(LedgerConflict):
    """A correction names a correction: what a call costs is its record and corrections of that."""
