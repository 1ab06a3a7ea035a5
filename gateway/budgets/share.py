"""What one worker has of a counter that several share. Pure state.

Must never decide whether a call may go on.
"""

from dataclasses import dataclass
from typing import Final

from gateway.budgets.windows import BudgetWindow

# Above any amount: a counter that may not be filled at all has it as a negative ceiling.
CLOSED: Final = -(1 << 120)


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """The windows that share money with one that rolls over.

    Attributes:
        earlier: The window before; ``None`` where there is none.
        earlier_key: Where the workers agree on it.
        later: The window after; ``None`` where there is none.
        later_key: Where the workers agree on it.
    """

    earlier: BudgetWindow | None
    earlier_key: str | None
    later: BudgetWindow | None
    later_key: str | None


class Share:
    """A worker's part of one budget in one window.

    Attributes:
        key: Where the workers agree on it.
        expires_ms: When that may be forgotten, milliseconds since 1970; 0 for never.
        claim: How far this worker may fill the counter by itself.
        kept: What stood for it where workers agree, as of the last answer: larger than ``claim``
            where a worker started again, until the base has what it did before.
        acked: Number of the last operation on it that was answered.
        spent: What others have spent, as of the last answer; part of the counter's ``spent``.
        held: What others hold; part of the counter's ``held``.
        parked: What others have parked; part of the counter's ``parked``.
        is_laid: Whether what the ledger holds of calls no claim stands for was known then.
        told: What the last answer followed: spent, held and parked by this worker.
        idle: How many looks in a row found nothing changed.
        full_until_s: Until when larger claims than ``most`` need not be asked for.
        most: The largest claim there was room for when one was refused.
        near: The windows it takes over from and hands on to; ``None`` where nothing rolls over.
    """

    __slots__ = (
        "acked",
        "claim",
        "expires_ms",
        "full_until_s",
        "held",
        "idle",
        "is_laid",
        "kept",
        "key",
        "most",
        "near",
        "parked",
        "spent",
        "told",
    )

    def __init__(self, key: str, expires_ms: int) -> None:
        self.key = key
        self.expires_ms = expires_ms
        self.near: Near | None = None
        self.spent = self.held = self.parked = 0
        self.forget()

    def forget(self) -> None:
        """Let go of everything that was agreed; what others have spent is shown on."""
        self.claim = 0
        self.kept = 0
        self.acked = 0
        self.is_laid = False
        self.told = (0, 0, 0)
        self.idle = 0
        self.full_until_s = 0.0
        self.most = 0
