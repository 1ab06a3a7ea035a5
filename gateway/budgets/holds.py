"""What is set aside for one call.

Must never change a counter: that is for whoever keeps the budgets.
"""

from datetime import datetime

from gateway.budgets.counters import Account, Counter
from gateway.budgets.rules import Subject

Amounts = tuple[int, int, int]


class Hold:
    """Money, tokens and requests set aside for one call, in every budget it falls under.

    Attributes:
        id: Id of the call.
        subject: The call.
        at: When it was taken; decides the windows.
        held: What is held, one amount per unit; 0 where nothing bounded it.
        counters: Where it is held.
        told: Budgets of it that answers tell of in headers of their own.
        is_hard: Whether one of its budgets refuses.
        is_open: Whether it has not ended yet.
    """

    __slots__ = ("at", "counters", "held", "id", "is_hard", "is_open", "subject", "told")

    def __init__(
        self,
        hold_id: str,
        subject: Subject,
        at: datetime,
        held: Amounts,
        counters: tuple[Counter, ...],
    ) -> None:
        self.id = hold_id
        self.subject = subject
        self.at = at
        self.held = held
        self.counters = counters
        self.told: tuple[Account, ...] = ()
        self.is_hard = False
        self.is_open = True
