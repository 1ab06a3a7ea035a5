"""What an importer finds before it is checked: models, prices, and what was left out and why.

Must never hold a price that was guessed: what a list does not say is left out by name.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from pricing.hours import Hours
from pricing.meters import Meter
from pricing.sku import STANDARD_TIER


class Slot(NamedTuple):
    """Everything that tells one price of a model from another, apart from its dates.

    Attributes:
        meter: What is counted.
        tier: Service tier.
        over: Holds when the whole prompt has more tokens than this.
        region: Region class.
        variant: Make of what is sold.
        hours: Weekly span it holds in.
    """

    meter: Meter
    tier: str = STANDARD_TIER
    over: int | None = None
    region: str | None = None
    variant: str | None = None
    hours: Hours | None = None


class Amount(NamedTuple):
    """A price as published.

    Attributes:
        value: Currency units.
        per: For this quantity.
    """

    value: Decimal
    per: int

    @property
    def each(self) -> tuple[int, int]:
        """The price of one unit as an exact ratio."""
        numerator, denominator = self.value.as_integer_ratio()
        return numerator, denominator * self.per

    def is_same_as(self, other: "Amount") -> bool:
        """Tell whether both come to the same price of one unit, exactly.

        Args:
            other: Another price.

        Returns:
            True when no quantity costs differently.
        """
        (a, b), (c, d) = self.each, other.each
        return a * d == c * b


class DraftRate(NamedTuple):
    """One dated price of one model.

    Attributes:
        slot: Which price.
        amount: What it is.
        valid_from: First instant it holds; aware.
        valid_to: First instant it no longer holds; ``None`` without an end.
    """

    slot: Slot
    amount: Amount
    valid_from: datetime
    valid_to: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftModel:
    """One model of one catalog provider with its prices.

    Attributes:
        provider: Catalog provider.
        model: Catalog model.
        aliases: Other names it is called by.
        context_tokens_max: Most tokens of a prompt; ``None`` when the list does not say.
        output_tokens_max: Most tokens of an answer; ``None`` when the list does not say.
        rates: Its prices.
        where: File and row, for people.
    """

    provider: str
    model: str
    aliases: tuple[str, ...] = ()
    context_tokens_max: int | None = None
    output_tokens_max: int | None = None
    rates: tuple[DraftRate, ...]
    where: str


class Reason(StrEnum):
    """Why something of a list does not become a price."""

    NOT_A_MODEL = "not a model"
    NO_PRICE = "no price given"
    ONLY_ZEROS = "nothing but zeros, which is also how a list writes that it does not know"
    PROVIDER_UNKNOWN = "a provider no catalog name is known for"
    FIELD_UNKNOWN = "a field no rule is known for"
    KEY_REFUSED = "priced by something that is not counted"
    PRICE_LEFT_OUT = "one price of a model, by something that is not counted"
    NOISE = "an amount that is no short decimal and cannot be repaired for sure"
    CONTRADICTION = "two prices for the same thing"
    NAME_TAKEN = "a name that belongs to another model of the provider"
    PATTERN = "a name given as a pattern, not as a name"
    TIER_WITHOUT_BAND = "a tier without the context band of standard"
    SURCHARGE_OR_ZERO = "a surcharge or a zero that is not what a call costs"
    UNIT_SLIP = "an amount for another quantity than its field says"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Something of the list that did not become a price.

    Attributes:
        reason: Why.
        where: File and row.
        detail: What exactly, with the numbers.
    """

    reason: Reason
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One list, read.

    Attributes:
        source: Name and version of the list, as every rate will cite it.
        checked_at: Day the list was read.
        models: What it prices.
        left_out: What it has beyond that.
    """

    source: str
    checked_at: date
    models: tuple[DraftModel, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def rate_count(self) -> int:
        """How many dated prices there are."""
        return sum(len(model.rates) for model in self.models)

    def count_left_out(self) -> Counter[Reason]:
        """Count what was left out.

        Returns:
            How often each reason occurs.
        """
        return Counter(left.reason for left in self.left_out)
