"""Drawing commitments down: which use each of them covered, and what that was worth.

Must never lose a part of a use: what is drawn and what overflows sum to it, exactly.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

from pricing.commitments import (
    HOUR,
    PICO_PER_UNIT,
    TOKEN_UNIT,
    Commitment,
    MoneyPack,
    QuantityPack,
    Throughput,
    Use,
    find_horizon,
)
from pricing.money import round_to_pico
from pricing.months import Month, Span, days_of

PACE_DAYS: Final = 7
_DAY: Final = timedelta(days=1)
_TICK: Final = timedelta(microseconds=1)
# Beyond this nobody plans, and dates end.
_FORECAST_MAX: Final = timedelta(days=100 * 365)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """One day of an account.

    Attributes:
        day: Calendar day of the commitment's zone.
        used: Drawn on that day, in 10^-12 of the commitment's unit.
        on_demand_pico: What that would have cost on demand, in 10^-12 currency units.
        amortised_pico: The day's part of the fee.
        left: What was left at its end; ``None`` where nothing is kept from hour to hour.
    """

    day: date
    used: int
    on_demand_pico: int
    amortised_pico: int
    left: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of one commitment in one period.

    Attributes:
        commitment: Which one.
        period: The period.
        as_of: Everything until here is in it.
        committed: What was bought, in 10^-12 of the commitment's unit; by the hour, of the hours
            that have begun.
        used: What was drawn of it.
        overflow: What was used beyond it and is billed on demand, in the same unit. Use that
            several commitments are for overflows from the last one that could have covered it.
        used_quantity: What was drawn in 10^-12 of the unit counted, whatever the commitment's is.
        overflow_quantity: What overflowed, likewise.
        fee_pico: Price of the period in 10^-12 currency units; by the hour, of the begun hours.
        amortised_pico: The part of the fee that is worn until ``as_of``: by time or by use,
            whichever is further; by the hour, of the begun hours.
        on_demand_pico: What the use drawn would have cost on demand.
        overflow_cost_pico: What the overflow cost on demand.
        unpriced_quantity: Drawn use that has no price on demand, and is not in ``on_demand_pico``.
        days: Every day until ``as_of``.
        exhausted_at: Start of the span of use that took the last of it; ``None`` while some is
            left, and by the hour.
        projected_at: When it will be used up at the pace of the last seven days; ``None`` when it
            is already, when nothing was used, and by the hour.
    """

    commitment: Commitment
    period: Span
    as_of: datetime
    committed: int
    used: int
    overflow: int
    used_quantity: int
    overflow_quantity: int
    fee_pico: int
    amortised_pico: int
    on_demand_pico: int
    overflow_cost_pico: int
    unpriced_quantity: int
    days: tuple[Day, ...]
    exhausted_at: datetime | None
    projected_at: datetime | None

    @property
    def unused(self) -> int:
        """What is left of it, or was lost, in 10^-12 of the commitment's unit."""
        return self.committed - self.used

    @property
    def saving_pico(self) -> int:
        """What it saved until ``as_of``, in 10^-12 currency units; negative when it lost."""
        return self.on_demand_pico - self.amortised_pico

    @property
    def used_permille(self) -> int | None:
        """Used of 1,000 parts committed; ``None`` before anything was."""
        if not self.committed:
            return None
        return round_to_pico(self.used * 1000, self.committed)

    @property
    def hour_pico(self) -> int:
        """The fee by the hour, in 10^-12 currency units."""
        return self._fee_of(HOUR)

    @property
    def day_pico(self) -> int:
        """The fee by 24 hours, in 10^-12 currency units."""
        return self._fee_of(_DAY)

    @property
    def effective_per(self) -> int:
        """How many units ``effective_pico`` is for: a million tokens, or one of anything else."""
        return 10**6 if self.commitment.quantity_unit == TOKEN_UNIT else 1

    @property
    def effective_pico(self) -> int | None:
        """The amortised fee by unit drawn, in 10^-12 currency units; ``None`` without such."""
        if self.commitment.quantity_unit is None or self.used_quantity <= 0:
            return None
        units = self.amortised_pico * self.effective_per * PICO_PER_UNIT
        return round_to_pico(units, self.used_quantity)

    def _fee_of(self, span: timedelta) -> int:
        if isinstance(self.commitment.terms, Throughput):
            return self.commitment.terms.hour_fee_pico * (span // HOUR)
        length = self.period.end - self.period.start
        return round_to_pico(self.fee_pico * (span // _TICK), length // _TICK)


def account_for(
    commitments: Sequence[Commitment], uses: Iterable[Use], month: Month, now: datetime
) -> tuple[Account, ...]:
    """Draw every commitment down, and account for those of a month.

    Use draws on what covers it and runs out of time first: by the end of its period (of its hour,
    for throughput), then by its start, then by id. Spans of use are drawn in the order of time.

    Args:
        commitments: All of them, because they compete for use.
        uses: In the order of time, over the span of ``find_horizon`` and until ``now``; by steps of
            ``find_step``, so that none crosses a border.
        month: In the calendar of each commitment's own zone.
        now: Aware instant.

    Returns:
        One account per commitment and period that has an instant in the month, in the order of the
        commitments. A period that lasts longer is accounted for from its start.
    """
    if not commitments:
        return ()
    horizon = find_horizon(commitments, month)
    ledgers = [
        _Ledger(
            commitment=commitment,
            period=period,
            as_of=min(now, period.end, month.span(commitment.zone).end),
        )
        for commitment in commitments
        for period in commitment.periods(horizon)
    ]
    at: datetime | None = None
    active: list[_Ledger] = []
    for use in uses:
        if use.at != at:
            at = use.at
            active = sorted(
                (ledger for ledger in ledgers if ledger.period.holds(at)),
                key=lambda ledger, at=at: ledger.draw_order(at),  # type: ignore[misc]
            )
        _draw(use, [ledger for ledger in active if ledger.commitment.covers.includes(use)])
    return tuple(
        ledger.close()
        for ledger in ledgers
        if ledger.period.meets(month.span(ledger.commitment.zone))
    )


def _draw(use: Use, covering: Sequence["_Ledger"]) -> None:
    """Take a use from what covers it, first come first served; the rest overflows."""
    if not covering:
        return
    quantity, cost = use.quantity_pico, use.cost_pico
    for ledger in covering:
        if quantity <= 0:
            break
        taken, worth = ledger.take(use.at, quantity, cost)
        quantity -= taken
        cost = None if cost is None or worth is None else cost - worth
    covering[-1].overflow(use.at, quantity, cost)


@dataclass(slots=True, kw_only=True)
class _Sum:
    """What was drawn on one day."""

    used: int = 0
    on_demand_pico: int = 0


@dataclass(slots=True, kw_only=True)
class _Ledger:
    """One commitment in one period, while it is drawn down.

    Attributes:
        commitment: Which one.
        period: The period.
        as_of: Use from here on is drawn but not accounted for.
    """

    commitment: Commitment
    period: Span
    as_of: datetime
    left: int = 0
    hour: int = -1
    used: int = 0
    used_quantity: int = 0
    on_demand_pico: int = 0
    unpriced_quantity: int = 0
    overflow_quantity: int = 0
    overflow_cost_pico: int = 0
    recent: int = 0
    exhausted_at: datetime | None = None
    days: dict[date, _Sum] = field(default_factory=dict)

    def __post_init__(self) -> None:
        match self.commitment.terms:
            case QuantityPack(quantity_pico=amount) | MoneyPack(amount_pico=amount):
                self.left = amount
            case Throughput():
                pass  # filled hour by hour

    def draw_order(self, at: datetime) -> tuple[datetime, datetime, str]:
        """Tell when what it has runs out of time, and what decides a tie."""
        end = self.period.end
        if isinstance(self.commitment.terms, Throughput):
            end = self.period.start + ((at - self.period.start) // HOUR + 1) * HOUR
        return end, self.commitment.starts, self.commitment.id

    def take(self, at: datetime, quantity: int, cost: int | None) -> tuple[int, int | None]:
        """Draw as much of a use as is left, and tell how much that was and what it is worth."""
        terms = self.commitment.terms
        if isinstance(terms, MoneyPack):
            if cost is None or cost <= 0:
                return 0, 0
            worth = min(cost, self.left)
            taken = quantity if worth == cost else quantity * worth // cost
            self._note(at, drawn=worth, taken=taken, worth=worth)
            return taken, worth
        if isinstance(terms, Throughput):
            self._begin_hour(at, terms)
        taken = min(quantity, self.left)
        if not taken:
            return 0, 0
        share = None if cost is None else round_to_pico(cost * taken, quantity)
        self._note(at, drawn=taken, taken=taken, worth=share)
        return taken, share

    def overflow(self, at: datetime, quantity: int, cost: int | None) -> None:
        """Take note of use that nothing was left for."""
        if at < self.as_of:
            self.overflow_quantity += quantity
            self.overflow_cost_pico += cost or 0

    def close(self) -> Account:
        """Sum up."""
        commitment, terms = self.commitment, self.commitment.terms
        committed, fee = self._bought()
        counts_money = isinstance(terms, MoneyPack)
        return Account(
            commitment=commitment,
            period=self.period,
            as_of=self.as_of,
            committed=committed,
            used=self.used,
            overflow=self.overflow_cost_pico if counts_money else self.overflow_quantity,
            used_quantity=self.used_quantity,
            overflow_quantity=self.overflow_quantity,
            fee_pico=fee,
            amortised_pico=self._amortised(self.as_of, self.used),
            on_demand_pico=self.on_demand_pico,
            overflow_cost_pico=self.overflow_cost_pico,
            unpriced_quantity=self.unpriced_quantity,
            days=tuple(self._days(committed)),
            exhausted_at=self.exhausted_at,
            projected_at=self._project(),
        )

    def _begin_hour(self, at: datetime, terms: Throughput) -> None:
        hour = (at - self.period.start) // HOUR
        if hour != self.hour:
            self.hour = hour
            self.left = terms.tokens_per_minute * 60 * PICO_PER_UNIT

    def _note(self, at: datetime, *, drawn: int, taken: int, worth: int | None) -> None:
        self.left -= drawn
        if at >= self.as_of:
            return
        self.used += drawn
        self.used_quantity += taken
        self.on_demand_pico += worth or 0
        if worth is None:
            self.unpriced_quantity += taken
        if at >= self.as_of - PACE_DAYS * _DAY:
            self.recent += drawn
        if drawn > 0 and self.left == 0 and not isinstance(self.commitment.terms, Throughput):
            self.exhausted_at = at
        day = self.days.setdefault(at.astimezone(self.commitment.zone).date(), _Sum())
        day.used += drawn
        day.on_demand_pico += worth or 0

    def _bought(self) -> tuple[int, int]:
        match self.commitment.terms:
            case QuantityPack(quantity_pico=amount, fee_pico=fee):
                return amount, fee
            case MoneyPack(amount_pico=amount, fee_pico=fee):
                return amount, fee
            case Throughput(tokens_per_minute=rate, hour_fee_pico=hour_fee):
                hours = self._hours_begun(self.as_of)
                return rate * 60 * PICO_PER_UNIT * hours, hour_fee * hours

    def _hours_begun(self, at: datetime) -> int:
        return max(0, -((self.period.start - min(at, self.period.end)) // HOUR))

    def _amortised(self, at: datetime, used: int) -> int:
        """The part of the fee until an instant. Differences of it sum to the whole, exactly.

        A pack is worn by time or by use, whichever is further: what is used up has nothing left to
        be spread over, and what is not used is lost with its time.
        """
        terms = self.commitment.terms
        if isinstance(terms, Throughput):
            return terms.hour_fee_pico * self._hours_begun(at)
        whole = self.period.end - self.period.start
        passed = max(min(at, self.period.end) - self.period.start, timedelta())
        by_time = round_to_pico(terms.fee_pico * (passed // _TICK), whole // _TICK)
        return max(by_time, round_to_pico(terms.fee_pico * used, self._bought()[0]))

    def _days(self, committed: int) -> Iterator[Day]:
        keeps = not isinstance(self.commitment.terms, Throughput)
        until = Span(self.period.start, self.as_of)
        used, amortised = 0, 0
        for day, span in days_of(until, self.commitment.zone):
            drawn = self.days.get(day, _Sum())
            used += drawn.used
            before, amortised = amortised, self._amortised(span.end, used)
            yield Day(
                day=day,
                used=drawn.used,
                on_demand_pico=drawn.on_demand_pico,
                amortised_pico=amortised - before,
                left=committed - used if keeps else None,
            )

    def _project(self) -> datetime | None:
        keeps = not isinstance(self.commitment.terms, Throughput)
        left = self._bought()[0] - self.used
        if not keeps or not self.recent or left <= 0 or self.as_of >= self.period.end:
            return None
        looked = self.as_of - max(self.period.start, self.as_of - PACE_DAYS * _DAY)
        ahead_us = left * (looked // _TICK) // self.recent
        if ahead_us > _FORECAST_MAX // _TICK:
            return None
        return self.as_of + ahead_us * _TICK
