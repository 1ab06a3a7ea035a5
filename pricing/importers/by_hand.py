"""Prices people set themselves, kept in a candidate that is made from lists.

Must never move an instant: a price set at noon holds from noon, whatever day a list was read on.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pricing.changes import outside
from pricing.importers.catalogs import Catalog
from pricing.importers.compare import slot_of
from pricing.importers.draft import Amount
from pricing.manifest import ModelEntry
from pricing.rates import Rate
from pricing.sku import PriceId


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPrice:
    """A price somebody set, that holds on the day a list is read or later.

    Attributes:
        rate: The price.
        listed: What the lists say for the same time, where that is another price; ``None`` where
            they say the same, or nothing.
        is_replaced: Whether the list won.
    """

    rate: Rate
    listed: Rate | None
    is_replaced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """What lists say, apart from everything else.

    Attributes:
        said: Their prices.
        since: Instant at which prices without a date start.
        win: Whether they replace the prices people set.
    """

    said: Catalog
    since: datetime
    win: bool = False


def lay_own_prices(
    new: Catalog, old: Catalog, own: Collection[Rate], lists: Lists
) -> tuple[Catalog, tuple[OwnPrice, ...]]:
    """Lay the prices people set over those a candidate would have.

    Args:
        new: The candidate as the lists make it, with its past.
        old: What is in force.
        own: The rates of it that people set.
        lists: What the lists say.

    Returns:
        The candidate, in which each of them holds from and to the instants it was set for. Where
        the lists win, they end when the list was read, if the lists have that price. And the prices
        that hold then or later.
    """
    rates = _by_price(new.rates)
    entries = {(one.provider, one.model): one for one in old.models}
    added: dict[tuple[str, str], ModelEntry] = {}
    told: list[OwnPrice] = []
    for mine in _by_price(own).values():
        name = (mine[0].provider, mine[0].model)
        model = new.named.get((name[0], name[1].casefold()))
        if model is None:
            model = added.setdefault(name, _without_taken(entries[name], new))
        listed = _listed(lists.said, mine[0], model)
        is_won = lists.win and any(_reaches(one, lists.since) for one in listed)
        told += [
            OwnPrice(rate=one, listed=_dispute(one, listed, lists.since), is_replaced=is_won)
            for one in mine
            if _reaches(one, lists.since)
        ]
        renamed = [replace(one, model=model.model) for one in mine]
        known = _over(rates.pop(renamed[0].price_id, []), renamed)
        rates[renamed[0].price_id] = _ended(known, listed, lists.since) if is_won else known
    catalog = Catalog(
        source=new.source,
        models=(*new.models, *added.values()),
        rates=tuple(rate for found in rates.values() for rate in found),
    )
    return catalog, tuple(told)


def _without_taken(model: ModelEntry, new: Catalog) -> ModelEntry:
    """A model the lists do not have, without names they have for another one."""
    free = [one for one in model.aliases if (model.provider, one.casefold()) not in new.named]
    return replace(model, aliases=tuple(free))


def _over(known: Iterable[Rate], mine: Sequence[Rate]) -> list[Rate]:
    """The prices set by hand, and the others where none of them holds."""
    rest = list(known)
    for one in mine:
        rest = [part for rate in rest for part in outside(rate, one.valid_from, one.valid_to)]
    return [*rest, *mine]


def _ended(known: Sequence[Rate], listed: Iterable[Rate], since: datetime) -> list[Rate]:
    """The past as it was, and from then on what the lists say."""
    past = [part for rate in known for part in outside(rate, since, None)]
    to_come = [
        replace(rate, valid_from=max(rate.valid_from, since), model=known[0].model)
        for rate in listed
        if _reaches(rate, since)
    ]
    return [*past, *to_come]


def _listed(said: Catalog, rate: Rate, model: ModelEntry) -> list[Rate]:
    for name in (rate.model, model.model):
        found = said.named.get((rate.provider, name.casefold()))
        if found is not None:
            rates = said.rates_of[found.provider, found.model]
            return [one for one in rates if slot_of(one) == slot_of(rate)]
    return []


def _dispute(mine: Rate, listed: Iterable[Rate], since: datetime) -> Rate | None:
    """The first listed price that is another one at a time both hold, of the time to come."""
    start = max(mine.valid_from, since)
    for one in sorted(listed, key=lambda rate: rate.valid_from):
        meets = _reaches(one, start) and (mine.valid_to is None or one.valid_from < mine.valid_to)
        if meets and not Amount(one.amount, one.per).is_same_as(Amount(mine.amount, mine.per)):
            return one
    return None


def _reaches(rate: Rate, at: datetime) -> bool:
    return rate.valid_to is None or rate.valid_to > at


def _by_price(rates: Iterable[Rate]) -> dict[PriceId, list[Rate]]:
    found: dict[PriceId, list[Rate]] = defaultdict(list)
    for rate in rates:
        found[rate.price_id].append(rate)
    return dict(found)
