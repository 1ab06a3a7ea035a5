"""One catalog out of several: of each model the prices come from the first source that has it.

Must never mix sources that do not agree: two halves of different price lists are no price list.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pricing.importers.catalogs import LIST_SOURCES, Catalog
from pricing.importers.compare import slot_of
from pricing.importers.draft import Amount, Slot
from pricing.manifest import ModelEntry
from pricing.rates import Rate


@dataclass(slots=True)
class _Taken:
    """A model on its way into the catalog.

    Attributes:
        entry: What is known of it so far.
        rates: Its prices.
    """

    entry: ModelEntry
    rates: tuple[Rate, ...]


def merge_catalogs(layers: Sequence[Catalog], at: datetime, *, source: str) -> Catalog:
    """Put sources on top of each other, the most trusted one first.

    Args:
        layers: Catalogs; a model counts as the same under any of its names, in small letters.
        at: Aware instant whose prices tell whether two layers agree on a model.
        source: What to call the result.

    Returns:
        Every model of every layer once. From the layers below its own, a model takes spellings of
        its name and limits its own layer does not state; and, where both agree on every price they
        share, the prices of tiers, regions, makes and meters its own layer does not know. What was
        checked by hand is complete and takes no price.
    """
    taken: dict[tuple[str, str], _Taken] = {}
    owner: dict[tuple[str, str], _Taken] = {}
    for layer in layers:
        for model in layer.models:
            names = (model.model, *model.aliases)
            known = owner.get((model.provider, model.model.casefold()))
            if known is None:
                entry = replace(
                    model, aliases=tuple(n for n in model.aliases if _is_free(model, n, owner))
                )
                known = _Taken(entry, layer.rates_of[model.provider, model.model])
                taken[model.provider, model.model] = known
            else:
                known.entry = _completed(known.entry, model)
                known.rates += _added(known.rates, layer.rates_of[model.provider, model.model], at)
                known.rates = _named(known.rates, known.entry.model)
            for name in names:
                owner.setdefault((model.provider, name.casefold()), known)
    return Catalog(
        source=source,
        models=tuple(found.entry for found in taken.values()),
        rates=tuple(rate for found in taken.values() for rate in found.rates),
    )


def _added(known: Sequence[Rate], others: Sequence[Rate], at: datetime) -> tuple[Rate, ...]:
    """Prices of things nothing is known of, from a source that agrees on all the rest.

    One that has regions only has nothing to agree on, and leaving it out would bill a region at the
    lower price of the world.
    """
    if not all(rate.source.startswith(LIST_SOURCES) for rate in known):
        return ()
    ours, theirs = _by_thing(known, at), _by_thing(others, at)
    common = ours.keys() & theirs.keys()
    is_regional = all(thing.region is not None for thing in theirs)
    if not (common or is_regional) or not all(_agree(ours[one], theirs[one]) for one in common):
        return ()
    had = {_thing(slot_of(rate)) for rate in known}
    return tuple(rate for rate in others if _thing(slot_of(rate)) not in had)


def _thing(slot: Slot) -> Slot:
    return slot._replace(over=None, hours=None)


def _by_thing(rates: Sequence[Rate], at: datetime) -> dict[Slot, dict[Slot, Amount]]:
    found: dict[Slot, dict[Slot, Amount]] = {}
    for rate in rates:
        if rate.holds_at(at):
            slot = slot_of(rate)
            found.setdefault(_thing(slot), {})[slot] = Amount(rate.amount, rate.per)
    return found


def _agree(ours: dict[Slot, Amount], theirs: dict[Slot, Amount]) -> bool:
    return ours.keys() == theirs.keys() and all(
        amount.is_same_as(theirs[slot]) for slot, amount in ours.items()
    )


def _named(rates: tuple[Rate, ...], model: str) -> tuple[Rate, ...]:
    return tuple(r if r.model == model else replace(r, model=model) for r in rates)


def _is_free(model: ModelEntry, name: str, owner: dict[tuple[str, str], _Taken]) -> bool:
    return (model.provider, name.casefold()) not in owner


def _completed(entry: ModelEntry, other: ModelEntry) -> ModelEntry:
    """Add a spelling and the limits; a limit that is stated stays, whichever is larger."""
    known = {entry.model, *entry.aliases}
    spelled = () if other.model in known else (other.model,)
    return replace(
        entry,
        aliases=(*entry.aliases, *spelled),
        context_tokens_max=entry.context_tokens_max or other.context_tokens_max,
        output_tokens_max=(
            other.output_tokens_max if entry.output_tokens_max is None else entry.output_tokens_max
        ),
    )
