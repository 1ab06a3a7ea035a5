"""Commitments: what was paid for in advance, for which use, over which periods.

Must never change what a call cost: a commitment is accounted for beside the records.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from pricing.meters import INPUT_METERS, OUTPUT_METERS, TRAITS, Meter
from pricing.months import Month, Span, midnight
from pricing.usage import Quantity

# Quantities are counted like money, in whole 10^-12 of a unit, so that shares of them are exact.
PICO_PER_UNIT: Final = 10**12
TOKEN_METERS: Final = INPUT_METERS | OUTPUT_METERS
TOKEN_UNIT: Final = "token"  # noqa: S105 - a unit, not a secret
HOUR: Final = timedelta(hours=1)
QUARTER: Final = timedelta(minutes=15)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# All zones that are in use today differ from UTC by whole quarters of an hour.
_STEPS: Final = (HOUR, QUARTER)


class CommitmentRefused(ValueError):
    """A commitment that cannot be accounted for; the text says what to write instead."""


class Use(NamedTuple):
    """What was used in one short span of time by calls that are alike.

    Attributes:
        at: Start of the span.
        provider: Provider id of the configuration.
        model: Model served.
        asked: Model asked for, without its provider.
        team: Team id.
        project: Project id.
        meter: What was counted.
        quantity_pico: How much, in 10^-12 of its unit.
        cost_pico: What it cost on demand, in 10^-12 currency units; ``None`` when it has no price.
    """

    at: datetime
    provider: str | None
    model: str | None
    asked: str | None
    team: str | None
    project: str | None
    meter: Meter
    quantity_pico: int
    cost_pico: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Which use a commitment is for; everything given must match.

    Attributes:
        provider: Provider id of the configuration; ``None`` for every one. Likewise the last two.
        models: Every name of the models, as served or as asked for; empty for every one.
        meters: What is counted.
        team: Team id.
        project: Project id.
    """

    provider: str | None = None
    models: frozenset[str] = frozenset()
    meters: frozenset[Meter] = TOKEN_METERS
    team: str | None = None
    project: str | None = None

    def includes(self, use: Use) -> bool:
        """Tell whether a use is covered.

        Args:
            use: Any use.

        Returns:
            Whether every part matches.
        """
        return (
            use.meter in self.meters
            and self.provider in (None, use.provider)
            and (not self.models or use.model in self.models or use.asked in self.models)
            and self.team in (None, use.team)
            and self.project in (None, use.project)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantityPack:
    """So many units for a fee; a free allowance is one with a fee of 0.

    Attributes:
        quantity_pico: Units of each period, in 10^-12.
        fee_pico: Price of each period, in 10^-12 currency units.
        renews: Whether every calendar month is a period of its own; what is left then expires.
    """

    quantity_pico: int
    fee_pico: int
    renews: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyPack:
    """So much use at on-demand prices for a fee.

    Attributes:
        amount_pico: Worth of the use of each period, in 10^-12 currency units.
        fee_pico: Price of each period, likewise.
        renews: Whether every calendar month is a period of its own; what is left then expires.
    """

    amount_pico: int
    fee_pico: int
    renews: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Capacity by the hour; what an hour does not use is lost with it.

    Attributes:
        tokens_per_minute: Capacity. An hour holds sixty times as many, however they come.
        hour_fee_pico: Price of an hour, in 10^-12 currency units.
    """

    tokens_per_minute: int
    hour_fee_pico: int


Terms = QuantityPack | MoneyPack | Throughput


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """Something paid for in advance.

    Attributes:
        id: Its name.
        covers: Which use it is for.
        zone: Whose calendar its months and days are of.
        starts: First instant it can be used.
        ends: First instant it no longer can; ``None`` while it has no end, which one that neither
            renews nor counts by the hour must have.
        terms: What was bought.
        currency: ISO 4217 code.
    """

    id: str
    covers: Coverage
    zone: ZoneInfo
    starts: datetime
    ends: datetime | None
    terms: Terms
    currency: str = "USD"

    def __post_init__(self) -> None:
        """Refuse what cannot be accounted for.

        Raises:
            CommitmentRefused: Nothing is committed, a fee is negative, meters of different units
                are counted together, or the period is empty, open or not on a quarter of an hour.
        """
        meters = self.covers.meters
        units = sorted({TRAITS[meter].unit for meter in meters})
        if isinstance(self.terms, QuantityPack) and len(units) > 1:
            raise CommitmentRefused(
                f"{self.id}: {', '.join(units)} cannot be counted together; cover meters of one "
                "unit, or commit an amount of money"
            )
        if isinstance(self.terms, Throughput) and not meters <= TOKEN_METERS:
            raise CommitmentRefused(f"{self.id}: throughput is counted in tokens only")
        amount, fee = _bought(self.terms)
        if not meters:
            raise CommitmentRefused(f"{self.id}: covers no meter")
        if amount <= 0:
            raise CommitmentRefused(f"{self.id}: commits nothing; write more than 0")
        if fee < 0:
            raise CommitmentRefused(f"{self.id}: its fee is negative")
        self._check_dates()

    def _check_dates(self) -> None:
        if self.ends is None and isinstance(self.terms, QuantityPack | MoneyPack):
            if not self.terms.renews:
                raise CommitmentRefused(f"{self.id}: needs an end, because it does not renew")
        elif self.ends is not None and self.ends <= self.starts:
            raise CommitmentRefused(f"{self.id}: ends before it starts")
        for at in (self.starts, self.ends):
            if at is not None and (at - EPOCH) % QUARTER:
                raise CommitmentRefused(
                    f"{self.id}: {at.isoformat()} is not a whole quarter of an hour"
                )
        if isinstance(self.terms, Throughput) and self.ends and (self.ends - self.starts) % HOUR:
            raise CommitmentRefused(f"{self.id}: does not last whole hours")

    @property
    def unit(self) -> str:
        """What it is counted in: a unit of meters, or the currency."""
        if isinstance(self.terms, MoneyPack):
            return self.currency
        return TRAITS[next(iter(self.covers.meters))].unit

    @property
    def quantity_unit(self) -> str | None:
        """Unit of what it covers; ``None`` where it covers several."""
        units = {TRAITS[meter].unit for meter in self.covers.meters}
        return units.pop() if len(units) == 1 else None

    def periods(self, within: Span) -> Iterator[Span]:
        """List the periods it is accounted for in.

        Args:
            within: Which of them are wanted.

        Yields:
            Every period that has an instant in ``within``: the whole commitment, or its part of
            each calendar month where it renews or counts by the hour. An hour belongs to the month
            it begins in.
        """
        last = within.end if self.ends is None else min(self.ends, within.end)
        if not isinstance(self.terms, Throughput) and not self.terms.renews:
            if self.ends is not None and Span(self.starts, self.ends).meets(within):
                yield Span(self.starts, self.ends)
            return
        # The last hour of a month can reach into the next one.
        month = Month.of(max(self.starts, within.start - HOUR), self.zone)
        while (bounds := month.span(self.zone)).start < last:
            start = max(self._edge(bounds.start), self.starts)
            end = bounds.end if self.ends is None else min(bounds.end, self.ends)
            period = Span(start, self._edge(end) if end == bounds.end else end)
            if start < period.end and period.meets(within):
                yield period
            month = month.next()

    def _edge(self, at: datetime) -> datetime:
        """Move the border of a month to where an hour of the commitment begins."""
        if not isinstance(self.terms, Throughput):
            return at
        return self.starts - (self.starts - at) // HOUR * HOUR


def _bought(terms: Terms) -> tuple[int, int]:
    match terms:
        case QuantityPack(quantity_pico=amount, fee_pico=fee):
            return amount, fee
        case MoneyPack(amount_pico=amount, fee_pico=fee):
            return amount, fee
        case Throughput(tokens_per_minute=amount, hour_fee_pico=fee):
            return amount, fee


def find_horizon(commitments: Iterable[Commitment], month: Month) -> Span:
    """Find out which use decides the accounts of a month.

    Args:
        commitments: Any; those of other months are left out.
        month: In the calendar of each commitment's own zone.

    Returns:
        The span of time, so long that no account that can touch one of the month is cut.
    """
    wanted = list(commitments)
    spans = [month.span(commitment.zone) for commitment in wanted]
    horizon = Span(min(s.start for s in spans), max(s.end for s in spans))
    while True:
        starts = [period.start for c in wanted for period in c.periods(horizon)]
        earliest = min([horizon.start, *starts])
        if earliest == horizon.start:
            return horizon
        horizon = Span(earliest, horizon.end)


def find_step(commitments: Iterable[Commitment], horizon: Span) -> timedelta:
    """Find how finely use has to be added up.

    Args:
        commitments: Whose use.
        horizon: Over which span of time.

    Returns:
        An hour; a quarter of one where a period or a day begins inside an hour of UTC.
    """
    edges = {horizon.start}
    for commitment in commitments:
        edges.add(commitment.starts)
        for period in commitment.periods(horizon):
            edges |= {period.start, period.end}
        day = horizon.start.astimezone(commitment.zone).date()
        while (start := midnight(day, commitment.zone)) < horizon.end:
            edges.add(start)
            day += timedelta(days=1)
    return next(step for step in _STEPS if not any((edge - EPOCH) % step for edge in edges))


def to_pico(quantity: Quantity) -> int:
    """Count a quantity in 10^-12 of its unit.

    Args:
        quantity: Any; finer than 10^-12 is cut off.

    Returns:
        The count.
    """
    numerator, denominator = quantity.as_integer_ratio()
    return numerator * PICO_PER_UNIT // denominator


def from_pico(pico: int) -> Decimal:
    """Turn such a count back into a quantity.

    Args:
        pico: Count of 10^-12 of a unit.

    Returns:
        The quantity, exactly, without trailing zeros.
    """
    whole, rest = divmod(abs(pico), PICO_PER_UNIT)
    text = f"{whole}.{rest:012d}".rstrip("0").rstrip(".")
    return Decimal(f"-{text}" if pico < 0 else text)
