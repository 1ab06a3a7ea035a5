"""What an older catalog knew of the past, carried over into a newer one.

Must never change the past that a source states itself.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from pricing.importers.catalogs import UNDATED_SOURCES, Catalog
from pricing.importers.draft import Amount
from pricing.rates import Rate
from pricing.sku import PriceId


def continue_history(old: Catalog, new: Catalog, since: datetime) -> Catalog:
    """Add to a catalog the prices that held before its lists were read.

    A list without dates says nothing about the day before it was read, so its prices start at
    ``since``; what the older catalog had until then still holds for calls of that time.

    Args:
        old: What is in force.
        new: The candidate.
        since: Instant at which the prices of undated lists start.

    Returns:
        The candidate with the old past of every price it has no past of. A price it does not have
        keeps its past if that was read from an undated list; a dated one has taken it back. Models
        it does not have keep theirs and have no price from ``since`` on.
    """
    rates: list[Rate] = []
    for model in new.models:
        key = (model.provider, model.model)
        rates += _joined(old.rates_of.get(key, ()), new.rates_of[key], since)
    gone = [
        model
        for model in old.models
        if not any(
            (model.provider, name.casefold()) in new.named for name in (model.model, *model.aliases)
        )
    ]
    past = {
        (m.provider, m.model): list(_until(old.rates_of[m.provider, m.model], since)) for m in gone
    }
    return Catalog(
        source=new.source,
        models=(*new.models, *(m for m in gone if past[m.provider, m.model])),
        rates=(*rates, *(rate for found in past.values() for rate in found)),
    )


def _joined(old: Iterable[Rate], new: Iterable[Rate], since: datetime) -> list[Rate]:
    """The histories of one model's prices, one after the other."""
    fresh, past = _by_price(new), _by_price(_until(old, since))
    joined: list[Rate] = []
    for price in sorted(fresh.keys() | past.keys()):
        before, after = past.get(price, []), fresh.get(price, [])
        stated = [rate for rate in after if rate.valid_from < since]
        after = after[len(stated) :]
        if stated or not after:
            before = [rate for rate in before if rate.source.startswith(UNDATED_SOURCES)]
        if stated:
            # What a dated list says has ended may have gone on in an undated one.
            before = [rate for rate in before if _is_later(rate, stated[-1])]
        if before and after and _continues(before[-1], after[0], since):
            after = [replace(after[0], valid_from=before.pop().valid_from), *after[1:]]
        joined += [*stated, *before, *after]
    return joined


def _is_later(rate: Rate, stated: Rate) -> bool:
    return stated.valid_to is not None and stated.valid_to <= rate.valid_from


def _continues(before: Rate, after: Rate, since: datetime) -> bool:
    same = Amount(before.amount, before.per).is_same_as(Amount(after.amount, after.per))
    return same and before.valid_to == since == after.valid_from


def _until(rates: Iterable[Rate], end: datetime) -> Iterable[Rate]:
    for rate in rates:
        if rate.valid_from < end:
            is_over = rate.valid_to is not None and rate.valid_to <= end
            yield rate if is_over else replace(rate, valid_to=end)


def _by_price(rates: Iterable[Rate]) -> dict[PriceId, list[Rate]]:
    found: dict[PriceId, list[Rate]] = defaultdict(list)
    for rate in sorted(rates, key=lambda rate: rate.valid_from):
        found[rate.price_id].append(rate)
    return found
