"""Rates we negotiated: dated overrides of published prices, and which one a payer gets.

Must never change a published price: a negotiated one stands beside it, and both are kept.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal, Inexact
from itertools import combinations
from typing import Final, NamedTuple

from pricing.meters import Meter
from pricing.money import PICO_DIGITS
from pricing.rates import AMOUNT_MAX, CompiledRate, Rate, compile_price

PERCENT_MIN: Final = Decimal(-100)
PERCENT_MAX: Final = Decimal(1000)
# Wide enough for every amount times every percent; anything lost on the way raises.
_EXACT: Final = Context(prec=100, traps=[Inexact])


class OverrideRefused(ValueError):
    """An override that says nothing, too much, or what cannot be a price."""


class Payer(NamedTuple):
    """Who pays for a call.

    Attributes:
        organization: Organisation id; ``None`` where it is not known, likewise the others.
        team: Team id.
        project: Project id.
    """

    organization: str | None = None
    team: str | None = None
    project: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One negotiated rate. What it does not name it does not ask for.

    Attributes:
        id: Its name, unique in a version.
        organization: Holds for calls of this organisation.
        team: Holds for calls of this team.
        project: Holds for calls of this project.
        provider: Holds for this catalog provider.
        model: Holds for this model, under the catalog's name.
        meter: Holds for this meter.
        tier: Holds in this service tier.
        over: Holds in the context band above this many tokens.
        region: Holds in this region class.
        variant: Holds for this make.
        percent: Added to the published price; -15 takes 15 % off. Exactly one of this and
            ``amount`` is given.
        amount: Replaces the published price; currency units for ``per`` quantity.
        per: The quantity the amount is for; ``None`` beside a percent.
        currency: ISO 4217 code of the amount.
        valid_from: First instant it holds; aware.
        valid_to: First instant it no longer holds; ``None`` while it has no end.
        why: Which contract says so.
    """

    id: str
    organization: str | None = None
    team: str | None = None
    project: str | None = None
    provider: str | None = None
    model: str | None = None
    meter: Meter | None = None
    tier: str | None = None
    over: int | None = None
    region: str | None = None
    variant: str | None = None
    percent: Decimal | None = None
    amount: Decimal | None = None
    per: int | None = None
    currency: str = "USD"
    valid_from: datetime
    valid_to: datetime | None
    why: str

    def __post_init__(self) -> None:
        """Refuse what is no agreement.

        Raises:
            OverrideRefused: The message names the override and what is wrong with it.
        """
        problem = self._problem()
        if problem is not None:
            raise OverrideRefused(f"override {self.id!r}: {problem}")

    def _problem(self) -> str | None:
        if not self.id or not self.why:
            return "it needs an id and a reason"
        if "" in (*self.payer, self.provider, self.model, self.tier, self.region, self.variant):
            return "what it names has a name; leave out what it does not ask for"
        if (self.percent is None) == (self.amount is None):
            return "give either a percent or an amount"
        if self.valid_from.tzinfo is None or (self.valid_to and self.valid_to.tzinfo is None):
            return "valid_from and valid_to need a time zone"
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            return f"it ends {self.valid_to} before it starts"
        return self._percent_problem() if self.amount is None else self._amount_problem()

    def _percent_problem(self) -> str | None:
        percent = self.percent
        if self.per is not None:
            return "a percent is of the published price and has no per"
        if percent is None or not percent.is_finite():
            return f"{percent} is not a percentage"
        if not PERCENT_MIN <= percent <= PERCENT_MAX:
            return f"{percent} % is not between {PERCENT_MIN} and {PERCENT_MAX}"
        return None

    def _amount_problem(self) -> str | None:
        amount = self.amount
        if self.provider is None or self.model is None or self.meter is None:
            return "an amount is the price of one thing: name provider, model and meter"
        if self.per is None or self.per < 1:
            return f"an amount is for at least one unit, not per {self.per}"
        if amount is None or not amount.is_finite() or not 0 <= amount <= AMOUNT_MAX:
            return f"{amount} is not between 0 and 10^9"
        if _decimals(amount) > PICO_DIGITS:
            return f"{amount} has more than twelve decimals"
        return None

    @property
    def payer(self) -> Payer:
        """Who it names."""
        return Payer(self.organization, self.team, self.project)

    @property
    def rank(self) -> tuple[tuple[bool, ...], tuple[bool, ...], int, datetime]:
        """How specific it is: the payer first, then the thing, then the day it starts.

        A project goes before a team and that before an organisation; a meter before a model and
        that before a provider, whatever else is named; then the number of further things named.
        """
        further = (self.tier, self.over, self.region, self.variant)
        return (
            (self.project is not None, self.team is not None, self.organization is not None),
            (self.meter is not None, self.model is not None, self.provider is not None),
            sum(named is not None for named in further),
            self.valid_from,
        )

    def holds_at(self, at: datetime) -> bool:
        """Tell whether it holds at an instant (half-open span).

        Args:
            at: Aware instant.

        Returns:
            ``valid_from <= at < valid_to``.
        """
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to)

    def is_for_model(self, provider: str, model: str) -> bool:
        """Tell whether it can be about a model.

        Args:
            provider: Catalog provider.
            model: Catalog model.

        Returns:
            True when it names this one, or none.
        """
        return self.provider in (None, provider) and self.model in (None, model)

    def is_for_rate(self, rate: Rate) -> bool:
        """Tell whether it is about a rate.

        Args:
            rate: Any rate.

        Returns:
            True when everything it names of a price is so.
        """
        return (
            self.is_for_model(rate.provider, rate.model)
            and self.meter in (None, rate.meter)
            and self.tier in (None, rate.tier)
            and self.over in (None, rate.over)
            and self.region in (None, rate.region)
            and self.variant in (None, rate.variant)
        )

    def is_for_payer(self, payer: Payer) -> bool:
        """Tell whether a payer gets it.

        Args:
            payer: Who pays.

        Returns:
            True when everybody it names is this payer.
        """
        return all(mine in (None, its) for mine, its in zip(self.payer, payer, strict=True))


def choose_override(overrides: Iterable[Override], rate: Rate) -> Override | None:
    """Choose the override of a price.

    Args:
        overrides: Those that hold for the payer at the instant.
        rate: The published price.

    Returns:
        The most specific one about this price, or ``None``.
    """
    about = [override for override in overrides if override.is_for_rate(rate)]
    return max(about, key=lambda override: override.rank, default=None)


def negotiate(listed: CompiledRate, override: Override) -> CompiledRate:
    """Work out a negotiated price.

    Args:
        listed: The published price.
        override: What was agreed about it.

    Returns:
        The price to pay, with the published one beside it.

    Raises:
        OverrideRefused: The price is finer than twelve decimals, or in another currency. The
            message names the override and the price.
    """
    rate = listed.rate
    where = f"override {override.id!r}: {rate.price_id}"
    if override.amount is not None:
        if override.currency != rate.currency:
            raise OverrideRefused(
                f"{where}: is sold in {rate.currency}, the amount is in {override.currency}"
            )
        amount, per = override.amount, override.per or rate.per
    else:
        factor = _EXACT.add(Decimal(1), _EXACT.scaleb(override.percent or Decimal(0), -2))
        amount, per = _EXACT.multiply(rate.amount, factor), rate.per
    if _decimals(amount) > PICO_DIGITS:
        raise OverrideRefused(f"{where}: {amount:f} has more than twelve decimals")
    return compile_price(rate, _trimmed(amount), per, listed=listed, agreement=override.id)


def _decimals(amount: Decimal) -> int:
    exponent = _trimmed(amount).as_tuple().exponent
    return -exponent if isinstance(exponent, int) else PICO_DIGITS + 1


def _trimmed(amount: Decimal) -> Decimal:
    return _EXACT.create_decimal(amount).normalize(_EXACT)


class ModelAgreements:
    """The overrides that can be about one model, found by who pays."""

    def __init__(self, overrides: Iterable[Override]) -> None:
        """Sort them by the payer they name.

        Args:
            overrides: All about the model.
        """
        by_payer: dict[tuple[str | None, ...], list[Override]] = defaultdict(list)
        for override in overrides:
            by_payer[override.payer].append(override)
        self._by_payer = dict(by_payer)
        # Which of the three a payer has to be known by: eight looks at most, however many agree.
        self._shapes = sorted({tuple(name is not None for name in payer) for payer in by_payer})

    def find(self, payer: Payer, at: datetime) -> tuple[Override, ...]:
        """Find what a payer gets at an instant.

        Args:
            payer: Who pays.
            at: Aware instant.

        Returns:
            The overrides that hold, always in the same order.
        """
        found: list[Override] = []
        for shape in self._shapes:
            key = tuple([name if has else None for name, has in zip(payer, shape, strict=True)])
            # A payer that is not known by all the shape asks for gets none of its overrides.
            if key.count(None) == shape.count(False):
                named = self._by_payer.get(key, ())
                found += [override for override in named if override.holds_at(at)]
        return tuple(found)


def find_override_problems(overrides: Iterable[Override]) -> list[str]:
    """Find overrides that contradict each other.

    Args:
        overrides: Of one version.

    Returns:
        One sentence for every id given twice, and for every two that are equally specific and can
        be about one price, one payer and one instant.
    """
    by_id: dict[str, int] = defaultdict(int)
    # Of one rank two overrides name the same kinds of things: they meet only where they name the
    # same payer and the same thing, whatever else they name.
    equals: dict[object, list[Override]] = defaultdict(list)
    for override in overrides:
        by_id[override.id] += 1
        thing = (override.provider, override.model, override.meter)
        equals[override.rank, override.payer, thing].append(override)
    problems = [f"override {name!r}: is given twice" for name, n in by_id.items() if n > 1]
    for equal in equals.values():
        problems += [
            f"override {a.id!r}: {b.id!r} is as specific and starts at the same instant: nothing "
            "says which holds"
            for a, b in combinations(equal, 2)
            if a.id != b.id and _can_meet(a, b)
        ]
    return problems


def _can_meet(a: Override, b: Override) -> bool:
    """Whether one price can be both's; they start together, so they meet in time."""
    pairs = ((a.tier, b.tier), (a.over, b.over), (a.region, b.region), (a.variant, b.variant))
    return all(mine is None or its is None or mine == its for mine, its in pairs)
