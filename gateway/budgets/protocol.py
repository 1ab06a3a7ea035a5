"""What the path of a call needs of budgets, so that counters may live here or be shared.

Must never grow a method that a call does not use.
"""

from datetime import datetime
from typing import Protocol

from gateway.budgets.holds import Hold
from gateway.budgets.rules import (
    Budget,
    BudgetExhausted,
    BudgetId,
    BudgetStatus,
    Demand,
    Subject,
)


class BudgetsUnavailable(Exception):
    """A store that a budget cannot do without is down; nothing is held.

    Attributes:
        store: Which.
    """

    def __init__(self, store: str) -> None:
        super().__init__(store)
        self.store = store


class BudgetStore(Protocol):
    """Holds and settles amounts in every budget that applies to a call."""

    @property
    def is_pacing(self) -> bool:
        """Whether any budget slows calls down; ``ahead_s`` is asked only then."""
        ...

    def ahead_s(self, subject: Subject, at: datetime, waited_s: float) -> float:
        """Tell how long a call is to wait so that what is spent stays in step with the window.

        Args:
            subject: The call.
            at: Now; aware.
            waited_s: How long it has waited already.

        Returns:
            Seconds; 0 or less where it may go on.
        """
        ...

    def slowed_by(self, subject: Subject, at: datetime) -> BudgetId | None:
        """Tell which budget makes a call wait longest; asked only where one does.

        Args:
            subject: The call.
            at: Now; aware.

        Returns:
            Its id; ``None`` where none makes it wait.
        """
        ...

    async def reserve(
        self, hold_id: str, subject: Subject, demand: Demand, at: datetime
    ) -> Hold | BudgetExhausted:
        """Hold a demand in every budget that applies, or in none.

        Args:
            hold_id: Id of the call.
            subject: The call.
            demand: The most it can come to.
            at: When it was admitted: ``started_at`` of its record, so that counters read back from
                the ledger fall into the same windows.

        Returns:
            The hold, to be ended once by ``settle`` or ``release``; or the first hard budget that
            had no room.

        Raises:
            BudgetsUnavailable: It cannot be told whether there is room.
        """
        ...

    def lacking(self, subject: Subject, demand: Demand, at: datetime) -> tuple[Budget, ...]:
        """List the hard budgets that have no room for a demand, as far as is known here.

        Args:
            subject: The call.
            demand: The most it can come to.
            at: When it was admitted.

        Returns:
            In the order in which they are asked.
        """
        ...

    def settle(self, hold: Hold, actual: Demand) -> bool:
        """End a hold by what was used, in the windows it was taken in.

        Args:
            hold: From ``reserve``.
            actual: What was used; may be more than was held. An unknown amount is parked: it stays
                counted as held, under spent, until the ledger knows better.

        Returns:
            Whether this ended it; a repeat changes nothing.
        """
        ...

    def release(self, hold: Hold) -> bool:
        """End a hold as if it had never been asked for; only when nothing was sent.

        Args:
            hold: From ``reserve``.

        Returns:
            Whether this ended it; a repeat changes nothing.
        """
        ...

    def tightest(self, hold: Hold) -> BudgetStatus | None:
        """Find the budget of a call that is closest to its limit.

        Args:
            hold: From ``reserve``, ended or not.

        Returns:
            The smallest share of a limit remaining; ``None`` when no budget applies.
        """
        ...

    def correct(self, subject: Subject, at: datetime, change: Demand, freed: Demand) -> None:
        """Count what a call of the past came to beyond what was counted for it.

        Args:
            subject: The call.
            at: When it was admitted; decides the windows.
            change: Signed differences to what was settled; amounts are known.
            freed: What was parked for it and is parked no longer.
        """
        ...
