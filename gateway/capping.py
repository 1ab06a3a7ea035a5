"""How much output of a call fits into what budgets have left. Pure.

Must never give a cap under which the call could still come to more than there is room for.
"""

from dataclasses import dataclass

import msgspec

from gateway.budgets.rules import BudgetExhausted, Demand, Unit
from pricing.rates import RateCard
from pricing.rating import Ceiling, Reach, Unbounded, UnpricedSku, find_ceiling


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What is left for one call.

    Attributes:
        cost_pico: Money in 10^-12 USD; ``None`` where nothing limits it.
        tokens: Tokens; ``None`` likewise.
    """

    cost_pico: int | None = None
    tokens: int | None = None

    def within(self, exhausted: BudgetExhausted) -> "Room | None":
        """Narrow the room to what another budget has left.

        Args:
            exhausted: A budget that had no room for the call.

        Returns:
            The smaller of both; ``None`` where less output does not help: the budget counts
            requests.
        """
        left = exhausted.limit - exhausted.spent - exhausted.held
        match exhausted.budget.unit:
            case Unit.USD:
                return Room(cost_pico=_smaller(self.cost_pico, left), tokens=self.tokens)
            case Unit.TOKENS:
                return Room(cost_pico=self.cost_pico, tokens=_smaller(self.tokens, left))
            case _:
                return None

    def holds(self, demand: Demand) -> bool:
        """Tell whether a demand fits.

        Args:
            demand: The most a call can come to.

        Returns:
            Whether it does; what has no bound fits only where nothing limits it.
        """
        pairs = ((demand.cost_pico, self.cost_pico), (demand.tokens, self.tokens))
        return all(
            left is None or (amount is not None and amount <= left) for amount, left in pairs
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capped:
    """A call with a limit of its output.

    Attributes:
        limit: As the request names it: the most tokens of one answer.
        ceiling: The most the call can come to under it; ``None`` for an unpriced model.
        demand: What to hold.
    """

    limit: int
    ceiling: Ceiling | None
    demand: Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A call whose output may be limited.

    Attributes:
        reach: What it can come to without a limit.
        card: Prices in force; ``None`` for an unpriced model.
        answers: How many times the limit counts: answers, and rounds of them.
        extra: Output tokens that may be billed on top of any limit.
    """

    reach: Reach
    card: RateCard | None
    answers: int
    extra: int

    def under(self, limit: int) -> Capped:
        """Work out the most it can come to under a limit.

        Args:
            limit: The most tokens of one answer.

        Returns:
            The call under that limit.

        Raises:
            Unbounded: Something else than the output has no bound.
            UnpricedSku: Something has no price.
        """
        tokens_out = limit * self.answers + self.extra
        reach = msgspec.structs.replace(self.reach, output_tokens_max=tokens_out)
        ceiling = None if self.card is None else find_ceiling(reach, self.card)
        tokens_in = reach.input_tokens_max
        return Capped(
            limit=limit,
            ceiling=ceiling,
            demand=Demand(
                cost_pico=None if ceiling is None else ceiling.cost_pico,
                tokens=None if tokens_in is None else tokens_in + tokens_out,
            ),
        )


def find_cap(outline: Outline, room: Room, limits: tuple[int, int]) -> Capped | None:
    """Find the largest limit under which a call fits.

    Args:
        outline: The call.
        room: What is left.
        limits: Smallest limit that makes sense, and largest one the model takes.

    Returns:
        The call under that limit, where one token more would not fit or the model would not take
        it; ``None`` where not even the smallest fits.
    """
    low, high = limits
    if high < low:
        return None
    try:
        best = outline.under(low)
        if not room.holds(best.demand):
            return None
        while low < high:
            middle = (low + high + 1) // 2
            tried = outline.under(middle)
            if room.holds(tried.demand):
                best, low = tried, middle
            else:
                high = middle - 1
    except (Unbounded, UnpricedSku):
        return None
    return best


def _smaller(left: int | None, right: int) -> int:
    return right if left is None else min(left, right)
