"""Shared costs: one amount split by share, to the last 10^-12.

Must never lose or make money: the parts, and what nobody bears, sum to the whole.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

from pricing.months import Month

Measure = Literal["tokens", "cost"]
Payers = Literal["team", "project"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCost:
    """A fixed cost of every month that several bear.

    Attributes:
        id: Its name.
        amount_pico: Cost of one month in 10^-12 currency units.
        measure: What decides the shares.
        payers: Who bears it.
        zone: Whose calendar the months are of.
        first: First month it is paid; ``None`` for always.
        last: Last month it is paid; ``None`` while it has no end.
        provider: Only use of this provider counts; ``None`` for every one.
        model: Only use of this model counts; ``None`` for every one.
    """

    id: str
    amount_pico: int
    measure: Measure
    payers: Payers
    zone: ZoneInfo
    first: Month | None = None
    last: Month | None = None
    provider: str | None = None
    model: str | None = None

    def is_due(self, month: Month) -> bool:
        """Tell whether it is paid in a month.

        Args:
            month: Any month.

        Returns:
            ``first <= month <= last``.
        """
        return (self.first is None or self.first <= month) and (
            self.last is None or month <= self.last
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one of them bears.

    Attributes:
        payer: Team or project; ``None`` for use that belongs to none.
        weight: What its share is taken from: tokens, or 10^-12 currency units of cost.
        amount_pico: What it bears, in 10^-12 currency units.
    """

    payer: str | None
    weight: int
    amount_pico: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One shared cost of one month, split.

    Attributes:
        cost: What was split.
        month: Of which month.
        shares: The largest first; those that used nothing bear 0.
        unallocated_pico: What nobody bears because nobody used anything.
    """

    cost: SharedCost
    month: Month
    shares: tuple[Share, ...]
    unallocated_pico: int


def split_cost(
    cost: SharedCost, month: Month, weights: Mapping[str | None, int], payers: Iterable[str] = ()
) -> Split:
    """Split one month of a shared cost.

    Args:
        cost: What to split.
        month: Which month.
        weights: What everybody used. Less than nothing, which corrections can leave, counts as
            nothing: nobody is paid for it.
        payers: Those who are listed even when they used nothing.

    Returns:
        Shares whose sum with what is unallocated is the amount, exactly.
    """
    used = {payer: max(0, weight) for payer, weight in weights.items()}
    for payer in payers:
        used.setdefault(payer, 0)
    parts = split_amount(cost.amount_pico, used)
    shares = [
        Share(payer=payer, weight=used[payer], amount_pico=parts.get(payer, 0)) for payer in used
    ]
    return Split(
        cost=cost,
        month=month,
        shares=tuple(sorted(shares, key=lambda share: (-share.weight, _order(share.payer)))),
        unallocated_pico=cost.amount_pico - sum(parts.values()),
    )


def split_amount(amount_pico: int, weights: Mapping[str | None, int]) -> dict[str | None, int]:
    """Split an amount by weight: whole units, remainders to the largest first, then by name.

    Args:
        amount_pico: Not negative.
        weights: By name; none negative.

    Returns:
        Parts that sum to the amount exactly; empty when all weights are zero.

    Raises:
        ValueError: The amount or a weight is negative.
    """
    if amount_pico < 0 or any(weight < 0 for weight in weights.values()):
        raise ValueError("an amount is split by weights, and none of them can be negative")
    whole = sum(weights.values())
    if whole == 0:
        return {}
    parts = {name: amount_pico * weight // whole for name, weight in weights.items()}
    left = amount_pico - sum(parts.values())
    by_remainder = sorted(
        weights, key=lambda name: (-(amount_pico * weights[name] % whole), _order(name))
    )
    for name in by_remainder[:left]:
        parts[name] += 1
    return parts


def _order(name: str | None) -> tuple[bool, str]:
    return (name is None, name or "")
