"""What a call tells while it goes on, remembered for a test to read."""

from gateway.ledger.record import LedgerRecord


class Watcher:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.opened_calls = self.closed_calls = 0
        self.observed: list[LedgerRecord] = []
        self.said_no: list[tuple[str, str]] = []
        self.acts: list[tuple[str, str]] = []
        self.phases: list[str] = []

    @property
    def open_calls(self) -> int:
        return self.opened_calls - self.closed_calls

    def opened(self) -> None:
        self.opened_calls += 1

    def closed(self) -> None:
        self.closed_calls += 1

    def refused_by_budget(self, budget: str, reason: str) -> None:
        self.said_no.append((budget, reason))

    def acted(self, budget: str, action: str) -> None:
        self.acts.append((budget, action))

    def timed(self, phase: str, seconds: float) -> None:
        self.phases.append(phase)

    def answered(self, provider: str, model: str, seconds: float) -> None:
        self.phases.append("answered")

    def observe(self, record: LedgerRecord) -> None:
        self.observed.append(record)
