"""What a candidate would change: prices added, removed and changed, and what that is in money.

Must never call a catalog that lost a provider an update.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Final

from pricing.importers.catalogs import Catalog
from pricing.importers.compare import percent_between, slot_of
from pricing.importers.draft import Slot
from pricing.manifest import BookBroken
from pricing.meters import Meter
from pricing.money import PICO_PER_UNIT, Money, round_to_pico
from pricing.rates import Rate
from pricing.sku import PriceId
from pricing.usage import Quantity

SHRINKAGE_PERCENT_MAX: Final = 5


class Kind(StrEnum):
    """What happens to a price."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceChange:
    """One price over one span of time in which it differs.

    Attributes:
        price_id: Name of the price.
        since: First instant of the span.
        until: First instant after it; ``None`` without an end.
        before: The rate of the old catalog; ``None`` where it had none.
        after: The rate of the new catalog; ``None`` where it has none.
    """

    price_id: PriceId
    since: datetime
    until: datetime | None
    before: Rate | None
    after: Rate | None

    @property
    def kind(self) -> Kind:
        """Whether the price is new, gone or another one."""
        if self.before is None:
            return Kind.ADDED
        return Kind.REMOVED if self.after is None else Kind.CHANGED

    @property
    def rate(self) -> Rate:
        """The new rate, or the old one of a price that is gone; its fields say what it prices."""
        found = self.after or self.before
        assert found is not None  # noqa: S101 - a change has at least one side
        return found

    @property
    def slot(self) -> Slot:
        """Which price of its model it is."""
        return slot_of(self.rate)

    @property
    def percent(self) -> Decimal | None:
        """By how much it changes, to one decimal; ``None`` where one side is missing or zero."""
        if self.before is None or self.after is None:
            return None
        return percent_between(self.before, self.after)

    def holds_at(self, at: datetime) -> bool:
        """Tell whether an instant is inside the span.

        Args:
            at: Aware instant.

        Returns:
            Half-open, as the spans of rates.
        """
        return self.since <= at and (self.until is None or at < self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """Everything a candidate changes.

    Attributes:
        changes: By provider, model and price, the earliest span first.
        models_added: Provider and model.
        models_removed: Provider and model.
        providers_removed: Providers without any model left.
    """

    changes: tuple[PriceChange, ...]
    models_added: tuple[tuple[str, str], ...]
    models_removed: tuple[tuple[str, str], ...]
    providers_removed: tuple[str, ...]

    def count_kinds(self) -> Counter[Kind]:
        """Count the changes.

        Returns:
            How many there are of each kind.
        """
        return Counter(change.kind for change in self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one change does to known quantities.

    Attributes:
        change: The change.
        quantity: How much was counted at that price.
        before: Its cost under the old catalog; ``None`` where that had no price.
        after: Its cost under the new one; ``None`` where it would be unpriced.
    """

    change: PriceChange
    quantity: Quantity
    before: Money | None
    after: Money | None


def diff_catalogs(old: Catalog, new: Catalog) -> Diff:
    """Find every span of time in which a price differs.

    Args:
        old: What is in force.
        new: The candidate.

    Returns:
        The changes. A price that only its source or check day changes is not one.
    """
    before, after = _by_price(old.rates), _by_price(new.rates)
    changes = [
        change
        for price in sorted(before.keys() | after.keys())
        for change in _changes(price, before.get(price, []), after.get(price, []))
    ]
    models = [{(m.provider, m.model) for m in catalog.models} for catalog in (old, new)]
    providers = [{provider for provider, _ in found} for found in models]
    return Diff(
        changes=tuple(changes),
        models_added=tuple(sorted(models[1] - models[0])),
        models_removed=tuple(sorted(models[0] - models[1])),
        providers_removed=tuple(sorted(providers[0] - providers[1])),
    )


def _by_price(rates: Iterable[Rate]) -> dict[PriceId, list[Rate]]:
    found: dict[PriceId, list[Rate]] = {}
    for rate in rates:
        found.setdefault(rate.price_id, []).append(rate)
    return found


def _changes(price: PriceId, before: list[Rate], after: list[Rate]) -> Iterable[PriceChange]:
    if _same_history(before, after):
        return
    edges = {r.valid_from for r in (*before, *after)}
    edges |= {r.valid_to for r in (*before, *after) if r.valid_to is not None}
    open_change: PriceChange | None = None
    for since, until in pairwise([*sorted(edges), None]):
        assert since is not None  # noqa: S101 - only the last edge is None
        old, new = _at(before, since), _at(after, since)
        change = (
            None
            if _is_same(old, new)
            else PriceChange(price_id=price, since=since, until=until, before=old, after=new)
        )
        if open_change is not None and change is not None and _continues(open_change, change):
            open_change = PriceChange(
                price_id=price, since=open_change.since, until=until, before=old, after=new
            )
            continue
        if open_change is not None:
            yield open_change
        open_change = change
    if open_change is not None:
        yield open_change


def _same_history(before: list[Rate], after: list[Rate]) -> bool:
    return len(before) == len(after) and all(
        _is_same(a, b) and (a.valid_from, a.valid_to) == (b.valid_from, b.valid_to)
        for a, b in zip(before, after, strict=True)
    )


def _at(rates: list[Rate], at: datetime) -> Rate | None:
    return next((rate for rate in rates if rate.holds_at(at)), None)


def _is_same(a: Rate | None, b: Rate | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.amount * b.per == b.amount * a.per and a.currency == b.currency


def _continues(earlier: PriceChange, later: PriceChange) -> bool:
    return (
        earlier.until == later.since
        and _is_same(earlier.before, later.before)
        and _is_same(earlier.after, later.after)
    )


def effect_of(
    diff: Diff, quantities: Mapping[PriceId, Quantity], at: datetime
) -> tuple[Effect, ...]:
    """Price what was counted at each price before and after the changes in force at an instant.

    A call that would take another price id under the new catalog, because a band, a region or a
    tier is new, shows in a re-rating only: quantities by price id do not tell.

    Args:
        diff: The changes.
        quantities: What a ledger counted, by the price id it was billed at.
        at: Aware instant whose prices to compare, such as the one the new catalog takes effect at.

    Returns:
        One entry for every change in force then whose price was used.
    """
    return tuple(
        Effect(
            change=change,
            quantity=quantities[change.price_id],
            before=_cost(change.before, quantities[change.price_id]),
            after=_cost(change.after, quantities[change.price_id]),
        )
        for change in diff.changes
        if change.price_id in quantities and change.holds_at(at)
    )


def _cost(rate: Rate | None, quantity: Quantity) -> Money | None:
    if rate is None:
        return None
    count, count_of = quantity.as_integer_ratio()
    amount, amount_of = rate.amount.as_integer_ratio()
    pico = round_to_pico(count * amount * PICO_PER_UNIT, count_of * amount_of * rate.per)
    return Money(pico, rate.currency)


def refuse_shrinkage(
    old: Catalog, new: Catalog, at: datetime, *, allowed: Iterable[str] = ()
) -> None:
    """Refuse a catalog that lost what it should not have lost.

    Args:
        old: What is in force.
        new: The candidate.
        at: Aware instant; a model without a price then counts as lost, whatever it cost before.
        allowed: Providers that may lose models, or all of them.

    Raises:
        BookBroken: A provider is gone, or has lost more than one model in twenty: every provider
            at once.
    """
    spared = frozenset(allowed)
    had, has = _priced(old, at), _priced(new, at)
    left = {provider for provider, _ in has}
    found = {key: new.named.get((key[0], key[1].casefold())) for key in had}
    # A model that keeps some of its meters only is as good as gone: its calls have no cost.
    lost = {
        key
        for key, model in found.items()
        if model is None or not had[key] <= has.get((model.provider, model.model), frozenset())
    }
    had_count = Counter(provider for provider, _ in had)
    lost_count = Counter(provider for provider, _ in lost)
    problems = [
        f"{provider}: {'all' if provider not in left else lost_count[provider]} of {count} models "
        f"are gone; more than {SHRINKAGE_PERCENT_MAX} percent takes an explicit permission"
        for provider, count in sorted(had_count.items())
        if provider not in spared
        and (provider not in left or lost_count[provider] * 100 > count * SHRINKAGE_PERCENT_MAX)
    ]
    if problems:
        raise BookBroken(problems)


def _priced(catalog: Catalog, at: datetime) -> dict[tuple[str, str], frozenset[Meter]]:
    """Every model with a price, and the meters that have one."""
    found: dict[tuple[str, str], set[Meter]] = defaultdict(set)
    for rate in catalog.rates:
        if rate.holds_at(at):
            found[rate.provider, rate.model].add(rate.meter)
    return {key: frozenset(meters) for key, meters in found.items()}
