"""Brings new budgets up to what the ledger already knows.

Must never count a call twice: what the memory counts itself lies after the cut in the journal.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final, Protocol

from gateway.budgets.allowance import window_before
from gateway.budgets.rules import Budget, BudgetId, BudgetStatus, Unit, window_of
from gateway.budgets.windows import RollingWindow
from gateway.clock import epoch_us, from_epoch_us

# A rolling window is read in this many parts, each of which ages out as one: at most a
# twentieth of the window late, never early.
ROLLING_PARTS: Final = 20


class Spent(Protocol):
    """What a budget's calls came to in a span of time."""

    @property
    def settled(self) -> int:
        """Known amounts."""
        ...

    @property
    def parked(self) -> int:
        """Ceilings of calls whose amount is not known."""
        ...

    @property
    def first_us(self) -> int | None:
        """When the first of the calls began, microseconds since 1970; ``None`` without any."""
        ...


class SpentReader(Protocol):
    """Adds up what the ledger holds for a scope."""

    def sum_spent(
        self,
        scope: Mapping[str, str],
        unit: Unit,
        start_us: int,
        end_us: int | None,
        up_to: Mapping[str, int],
    ) -> Spent:
        """Add up the records that started in a half-open span.

        Args:
            scope: As in ``Budget.scope``.
            unit: What to add up.
            start_us: First microsecond since 1970.
            end_us: First microsecond after the span; ``None`` when it has no end.
            up_to: Journal by name to the last position that counts; a journal not named counts
                whole.

        Returns:
            The sums.
        """
        ...


class CorrectedReader(Protocol):
    """Adds up what new corrections change in a scope."""

    def sum_corrected(
        self,
        scope: Mapping[str, str],
        unit: Unit,
        start_us: int,
        end_us: int | None,
        span: tuple[int, int],
    ) -> Spent:
        """Add up the corrections of calls that started in a half-open span.

        Args:
            scope: As in ``Budget.scope``.
            unit: What to add up.
            start_us: First microsecond since 1970.
            end_us: First microsecond after the span; ``None`` when it has no end.
            span: Last number of the corrections counted before, and of those to count now.

        Returns:
            Signed sums.
        """
        ...


class BaseTaker(Protocol):
    """Takes what was spent before a budget was installed."""

    def add_base(
        self, budget_id: BudgetId, window_start: datetime, settled: int, parked: int
    ) -> None:
        """Add to a budget's counter; see ``gateway.budgets.memory.MemoryBudgets.add_base``.

        Args:
            budget_id: The budget.
            window_start: Start of the window; for a rolling window, when the amounts were spent.
            settled: Known amounts, in the budget's unit.
            parked: Amounts counted at their ceiling.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What was spent in one window before a budget was installed.

    Attributes:
        budget_id: The budget.
        window_start: Start of its window; when the first was spent where that is all time; for a
            rolling window, when the amounts count as spent.
        settled: Known amounts, in the budget's unit.
        parked: Amounts counted at their ceiling.
    """

    budget_id: BudgetId
    window_start: datetime
    settled: int
    parked: int


async def load_bases(
    taker: BaseTaker,
    reader: SpentReader,
    budgets: Iterable[Budget],
    journal_cut: Mapping[str, int],
    at: datetime,
) -> None:
    """Read in a thread what new budgets have spent, then add it on the event loop.

    Everything up to the cut must have been shipped to the ledger before.

    Args:
        taker: Where the budgets are installed.
        reader: The ledger.
        budgets: Those ``install`` returned.
        journal_cut: Each journal's position, taken with no await between it and ``install``: later
            records were counted by the memory itself.
        at: The instant given to ``install``.
    """
    bases = await asyncio.to_thread(read_bases, reader, budgets, journal_cut, at)
    for base in bases:
        taker.add_base(base.budget_id, base.window_start, base.settled, base.parked)


def read_bases(
    reader: SpentReader, budgets: Iterable[Budget], journal_cut: Mapping[str, int], at: datetime
) -> tuple[Base, ...]:
    """Read what budgets have spent in the window that holds now, and in one it takes over from.

    Args:
        reader: The ledger.
        budgets: The budgets.
        journal_cut: Each journal's position up to which records count.
        at: Now.

    Returns:
        One base per budget; several for a rolling window or with the one before; none where
        nothing was spent.
    """
    bases = []
    for budget in budgets:
        for start_us, end_us, counts_from_us in _spans(budget, at):
            spent = reader.sum_spent(budget.scope, budget.unit, start_us, end_us, journal_cut)
            if spent.settled or spent.parked:
                first_us = spent.first_us if start_us == 0 else None
                base = Base(
                    budget_id=budget.id,
                    window_start=from_epoch_us(first_us or counts_from_us),
                    settled=spent.settled,
                    parked=spent.parked,
                )
                bases.append(base)
    return tuple(bases)


def read_corrected(
    reader: CorrectedReader, budgets: Iterable[Budget], span: tuple[int, int], at: datetime
) -> tuple[Base, ...]:
    """Read what new corrections change in the window of each budget that holds now.

    Args:
        reader: The ledger.
        budgets: Every budget in force.
        span: As for ``CorrectedReader.sum_corrected``.
        at: Now.

    Returns:
        What to add, signed; none where nothing changes.
    """
    bases = []
    for budget in budgets:
        for start_us, end_us, counts_from_us in _spans(budget, at):
            spent = reader.sum_corrected(budget.scope, budget.unit, start_us, end_us, span)
            if spent.settled or spent.parked:
                # What makes calls dearer ages out of a rolling window after them, what makes them
                # cheaper before them: for a moment too much counts as spent, never too little.
                is_less = spent.settled + spent.parked < 0
                base = Base(
                    budget_id=budget.id,
                    window_start=from_epoch_us(start_us if is_less else counts_from_us),
                    settled=spent.settled,
                    parked=spent.parked,
                )
                bases.append(base)
    return tuple(bases)


class Past(Protocol):
    """Brings budgets up to what the ledger knows; raises ``StoreUnavailable``."""

    def seqs(self) -> Mapping[str, int]:
        """Tell how far each journal is in the ledger; waits for the database."""
        ...

    async def load(self, budgets: Iterable[Budget], cut: Mapping[str, int], at: datetime) -> None:
        """Bring new budgets up to what was spent before; as ``load_bases``."""
        ...

    async def correct(self, span: tuple[int, int], at: datetime) -> None:
        """Count corrections with numbers in the span, which begins after its first."""
        ...


class OwnBudgets(BaseTaker, Protocol):
    """Budgets of this process alone."""

    def status(self, at: datetime) -> tuple[BudgetStatus, ...]:
        """Read every budget."""
        ...


class LedgerReader(SpentReader, CorrectedReader, Protocol):
    """The ledger, as far as budgets need it."""

    def seqs(self) -> Mapping[str, int]:
        """Tell how far each journal is in the ledger."""
        ...


class LocalPast:
    """Brings the budgets of this process up to what the ledger knows."""

    def __init__(self, budgets: OwnBudgets, reader: LedgerReader) -> None:
        self._budgets = budgets
        self._reader = reader

    def seqs(self) -> Mapping[str, int]:
        """Tell how far each journal is in the ledger.

        Returns:
            Position of the last record, by writer.
        """
        return self._reader.seqs()

    async def load(self, budgets: Iterable[Budget], cut: Mapping[str, int], at: datetime) -> None:
        """Bring new budgets up to what was spent before; as ``load_bases``.

        Args:
            budgets: Those ``install`` returned.
            cut: Each journal's position when they were.
            at: The instant given to ``install``.
        """
        await load_bases(self._budgets, self._reader, budgets, cut, at)

    async def correct(self, span: tuple[int, int], at: datetime) -> None:
        """Count new corrections.

        Args:
            span: Last number of the corrections counted before, and of those to count now.
            at: Now.
        """
        budgets = [status.budget for status in self._budgets.status(at)]
        # Budgets whose past is still to be read count corrections up to the cut of their start.
        for base in await asyncio.to_thread(read_corrected, self._reader, budgets, span, at):
            self._budgets.add_base(base.budget_id, base.window_start, base.settled, base.parked)


def _spans(budget: Budget, at: datetime) -> list[tuple[int, int | None, int]]:
    """List spans to read: start, end, and the instant their sum counts from."""
    window = window_of(budget, at)
    if window.end is not None and isinstance(budget.window, RollingWindow):
        return _rolling_spans(epoch_us(window.start), epoch_us(window.end))
    before = window_before(budget, window)
    spans = []
    for one in (window,) if before is None else (before, window):
        start_us = epoch_us(one.start)
        spans.append((start_us, None if one.end is None else epoch_us(one.end), start_us))
    return spans


def _rolling_spans(start_us: int, end_us: int) -> list[tuple[int, int | None, int]]:
    length_us = end_us - start_us
    edges = [start_us + length_us * part // ROLLING_PARTS for part in range(ROLLING_PARTS + 1)]
    return [(first, last, last - 1) for first, last in pairwise(edges) if first < last]
