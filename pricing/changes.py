"""What a new price does to the prices there are: an earlier one ends where it starts. Pure.

Must never change a rate: the prices of the new version are other rows beside those of the old one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from fractions import Fraction

from pricing.agreements import Override
from pricing.manifest import ModelEntry
from pricing.rates import Rate

# From when to when a price holds, and the price of one unit with its currency.
Stretch = tuple[datetime, datetime | None, tuple[Fraction, str]]


class ChangeRefused(ValueError):
    """A change that would lose a price in silence, or is about something that is not there."""


def with_rate(rates: Iterable[Rate], new: Rate) -> tuple[Rate, ...]:
    """Lay a dated price over those there are.

    Args:
        rates: Of the same provider, without overlaps.
        new: The price.

    Returns:
        The same, where whatever price of that name held in the span of the new one is cut short,
        starts later or is left out. Unchanged where that was the price all along.

    Raises:
        ChangeRefused: The new price has no end, and one that starts later is already known.
    """
    given = tuple(rates)
    if says_already(given, new):
        return given
    kept: list[Rate] = []
    for rate in given:
        if rate.price_id != new.price_id:
            kept.append(rate)
            continue
        if new.valid_to is None and rate.valid_from > new.valid_from:
            raise ChangeRefused(
                f"{new.price_id}: a price from {rate.valid_from.isoformat()} is known already; "
                "end the new one there with valid_to, or set that one as well"
            )
        kept += outside(rate, new.valid_from, new.valid_to)
    return (*kept, new)


def says_already(rates: Iterable[Rate], new: Rate) -> bool:
    """Tell whether a price is known already, for all of its span.

    Args:
        rates: Those there are.
        new: The price.

    Returns:
        Whether laying it over them would change nothing.
    """
    return any(_says(rate, new) for rate in rates)


def _says(rate: Rate, new: Rate) -> bool:
    return (
        rate.price_id == new.price_id
        and rate.valid_from <= new.valid_from
        and (rate.valid_to is None or (new.valid_to is not None and new.valid_to <= rate.valid_to))
        and rate.amount * new.per == new.amount * rate.per
        and rate.currency == new.currency
    )


def outside(rate: Rate, start: datetime, end: datetime | None) -> list[Rate]:
    """Cut a span out of a price.

    Args:
        rate: The price.
        start: First instant of the span.
        end: First instant after it; ``None`` where it has no end.

    Returns:
        The parts before and after it, as far as there are any.
    """
    parts = []
    if rate.valid_from < start:
        parts.append(replace(rate, valid_to=_earliest(rate.valid_to, start)))
    if end is not None and (rate.valid_to is None or rate.valid_to > end):
        parts.append(replace(rate, valid_from=max(rate.valid_from, end)))
    return parts


def _earliest(first: datetime | None, second: datetime) -> datetime:
    return second if first is None else min(first, second)


def prices_from(rates: Iterable[Rate], start: datetime) -> tuple[Stretch, ...]:
    """Say what a price is from an instant on, however many rates say it.

    Args:
        rates: Dated rates of one price, without overlaps.
        start: The instant.

    Returns:
        Its stretches, the first one first; equal where two histories say the same from then on.
    """
    found: list[Stretch] = []
    for rate in sorted(rates, key=lambda one: one.valid_from):
        if rate.valid_to is not None and rate.valid_to <= start:
            continue
        each = (Fraction(rate.amount) / rate.per, rate.currency)
        began = max(rate.valid_from, start)
        if found and found[-1][1] == began and found[-1][2] == each:
            began = found.pop()[0]
        found.append((began, rate.valid_to, each))
    return tuple(found)


def with_override(overrides: Iterable[Override], new: Override) -> tuple[Override, ...]:
    """Add a negotiated rate.

    Args:
        overrides: Those there are.
        new: Another one.

    Returns:
        All of them.

    Raises:
        ChangeRefused: There is one of that id.
    """
    known = tuple(overrides)
    if any(one.id == new.id for one in known):
        raise ChangeRefused(
            f"override {new.id!r} is there already; end it, and give the new one another id"
        )
    return (*known, new)


def with_override_ended(
    overrides: Iterable[Override], override_id: str, end: datetime
) -> tuple[Override, ...]:
    """End a negotiated rate.

    Args:
        overrides: Those there are.
        override_id: Which one.
        end: First instant it no longer holds.

    Returns:
        All of them; the one that would end before it starts is left out.

    Raises:
        ChangeRefused: There is none of that id, or it ends earlier.
    """
    known = tuple(overrides)
    found = next((one for one in known if one.id == override_id), None)
    if found is None:
        there = ", ".join(sorted(one.id for one in known)) or "none"
        raise ChangeRefused(f"there is no override {override_id!r}; there are: {there}")
    if found.valid_to is not None and found.valid_to <= end:
        raise ChangeRefused(
            f"override {override_id!r} ends at {found.valid_to.isoformat()} already"
        )
    rest = tuple(one for one in known if one is not found)
    return rest if end <= found.valid_from else (*rest, replace(found, valid_to=end))


def with_model(models: Sequence[ModelEntry], new: ModelEntry) -> tuple[ModelEntry, ...]:
    """Add a model.

    Args:
        models: Of the same provider.
        new: Another one.

    Returns:
        All of them.

    Raises:
        ChangeRefused: One of them has that name.
    """
    for entry in models:
        if new.model in (entry.model, *entry.aliases):
            raise ChangeRefused(
                f"{new.provider} sells {new.model!r} already, as {entry.model!r}; "
                "leave out what a new model needs"
            )
    return (*models, new)
