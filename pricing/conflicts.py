"""What a set of prices must not say: two prices for one thing, two models of one name.

Must never stop at the first contradiction.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from pricing.agreements import (
    Override,
    OverrideRefused,
    find_override_problems,
    negotiate,
)
from pricing.manifest import ModelEntry
from pricing.rates import Rate, compile_rate

# A percentage of up to this many decimals makes no price finer than twelve decimals, as published
# prices have at most nine and dividing by a hundred adds two.
_SAFE_DECIMALS = 1

_Slot = tuple[object, ...]


def find_name_problems(models: Iterable[ModelEntry]) -> list[str]:
    """Find names that two models claim.

    Args:
        models: Of any providers.

    Returns:
        One sentence each.
    """
    owners: dict[tuple[str, str], str] = {}
    problems = []
    for entry in models:
        for name in (entry.model, *entry.aliases):
            owner = owners.get((entry.provider, name))
            if owner is not None:
                problems.append(
                    f"{entry.provider}: the name {name!r} is claimed by {owner} and {entry.model}"
                )
            owners[entry.provider, name] = entry.model
    return problems


def find_rate_problems(
    models: Iterable[ModelEntry], rates: Sequence[Rate], places: Sequence[str] = ()
) -> list[str]:
    """Find rates that contradict each other or belong to no model.

    Args:
        models: Every model.
        rates: Dated rates.
        places: Where each of the rates stands, in the same order, where that is known.

    Returns:
        One sentence each, with the place of the later of two rows.
    """
    known = {(m.provider, m.model) for m in models}
    slots: dict[_Slot, list[int]] = defaultdict(list)
    labels: dict[str, _Slot] = {}
    currencies: dict[tuple[str, str], set[str]] = defaultdict(set)
    problems = []
    for index, rate in enumerate(rates):
        price = rate.price_id
        slot = (rate.sku, rate.tier, rate.over, rate.region, rate.variant)
        slots[slot].append(index)
        currencies[rate.provider, rate.model].add(rate.currency)
        where = f"{places[index]}: " if places else ""
        if (rate.provider, rate.model) not in known:
            problems.append(f"{where}{price}: its model has no entry")
        if labels.setdefault(price, (*slot, rate.hours)) != (*slot, rate.hours):
            problems.append(f"{where}{price}: is also the name of another price; rename a variant")
    problems += [
        f"{provider}/{model}: is priced in more than one currency: {', '.join(sorted(found))}"
        for (provider, model), found in currencies.items()
        if len(found) > 1
    ]
    for found in slots.values():
        dated = sorted(found, key=lambda index: rates[index].valid_from)
        for first, second in combinations(dated, 2):
            if _hold_together(rates[first], rates[second]):
                where = f"{places[max(first, second)]}: " if places else ""
                problems.append(where + _say_overlap(rates[first], rates[second]))
    return problems


def _hold_together(earlier: Rate, later: Rate) -> bool:
    """Whether two prices of one thing can hold at one instant and neither goes before the other."""
    if earlier.valid_to is not None and earlier.valid_to <= later.valid_from:
        return False
    if earlier.hours is None or later.hours is None:
        return earlier.hours is later.hours
    return earlier.hours.overlaps(later.hours)


def _say_overlap(earlier: Rate, later: Rate) -> str:
    if earlier.hours != later.hours:
        return f"{later.price_id}: its hours overlap those of {earlier.price_id}"
    return (
        f"{later.price_id}: the price from {earlier.valid_from.isoformat()} still holds when "
        f"the one from {later.valid_from.isoformat()} starts; give it a valid_to"
    )


def find_agreement_problems(
    overrides: Sequence[Override],
    names: Mapping[tuple[str, str], str],
    rates_of: Mapping[tuple[str, str], Sequence[Rate]],
    *,
    is_whole: bool,
) -> list[str]:
    """Find overrides that contradict each other, name nothing, or come to no price.

    Args:
        overrides: Of one version.
        names: Catalog model by (provider, any of its names).
        rates_of: Dated rates by (provider, model). Overrides of providers that are not here are not
            looked at: a part of a book can be loaded.
        is_whole: Whether every provider of the version is here, so that what is not found is not
            there.

    Returns:
        One sentence each.
    """
    problems = find_override_problems(overrides)
    loaded = {None, *(provider for provider, _ in rates_of)}
    for override in overrides:
        if override.provider not in loaded and not is_whole:
            continue
        about = _rates_about(override, rates_of)
        if override.amount is None and _decimals(override) <= _SAFE_DECIMALS:
            is_about_some = any(override.is_for_rate(rate) for rate in about)
        else:
            touched = [rate for rate in about if override.is_for_rate(rate)]
            is_about_some = bool(touched)
            problems += _refusals(override, touched)
        if not is_about_some and (is_whole or override.provider is not None):
            problems.append(_say_idle(override, names))
    return problems


def _rates_about(
    override: Override, rates_of: Mapping[tuple[str, str], Sequence[Rate]]
) -> Iterable[Rate]:
    if override.provider is not None and override.model is not None:
        return rates_of.get((override.provider, override.model), ())
    return (
        rate
        for (provider, model), rates in rates_of.items()
        if override.is_for_model(provider, model)
        for rate in rates
    )


def _decimals(override: Override) -> int:
    exponent = 0 if override.percent is None else override.percent.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _refusals(override: Override, rates: Iterable[Rate]) -> list[str]:
    problems = []
    for rate in rates:
        try:
            negotiate(compile_rate(rate), override)
        except OverrideRefused as refused:
            problems.append(str(refused))
    return problems


def _say_idle(override: Override, names: Mapping[tuple[str, str], str]) -> str:
    model = override.model
    if override.provider is not None and model is not None:
        known = names.get((override.provider, model))
        if known is None:
            return f"override {override.id!r}: {override.provider} has no model {model!r}"
        if known != model:
            return f"override {override.id!r}: {model!r} is another name of {known!r}; write that"
    return f"override {override.id!r}: the book has no price it could be about"
