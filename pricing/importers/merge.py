"""One catalog out of several: of each model the prices come from the first source that has it.

Must never mix sources that do not agree: two halves of different price lists are no price list.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pricing.importers.bands import settle_bands
from pricing.importers.catalogs import LIST_SOURCES, Catalog
from pricing.importers.compare import slot_of
from pricing.importers.corrections import MOVED_NAMES
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
        its name and the larger limits; and, where both agree on every price they share, the prices
        of tiers, regions, makes, meters and context bands its own layer does not know. A model
        whose prices have all ended goes on with those of the next layer. What was checked by hand
        is complete and takes no price.
    """
    taken: dict[tuple[str, str], _Taken] = {}
    owner: dict[tuple[str, str], _Taken] = {}
    for layer in free_names(layers, at)[0]:
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
                known.entry = _completed(known, model)
                known.rates += _added(known.rates, layer.rates_of[model.provider, model.model], at)
                known.rates = _named(known.rates, known.entry.model)
            for name in names:
                owner.setdefault((model.provider, name.casefold()), known)
    merged = Catalog(
        source=source,
        models=tuple(found.entry for found in taken.values()),
        rates=tuple(rate for found in taken.values() for rate in found.rates),
    )
    return settle_bands(merged, at)


def _added(known: Sequence[Rate], others: Sequence[Rate], at: datetime) -> tuple[Rate, ...]:
    """Prices of things nothing is known of, from a source that agrees on all the rest.

    One that has regions only has nothing to agree on, and leaving it out would bill a region at the
    lower price of the world.
    """
    if not _is_listed(known):
        return ()
    ours, theirs = _by_thing(known, at), _by_thing(others, at)
    if not ours:
        return tuple(rate for rate in others if rate.holds_at(at))
    common = ours.keys() & theirs.keys()
    is_regional = all(thing.region is not None for thing in theirs)
    if not (common or is_regional) or not all(_agree(ours[one], theirs[one]) for one in common):
        return ()
    had = {_thing(slot_of(rate)) for rate in known}
    bands = {slot for one in common for slot in theirs[one].keys() - ours[one].keys()}
    return tuple(
        rate for rate in others if _thing(slot_of(rate)) not in had or slot_of(rate) in bands
    )


def _is_listed(rates: Sequence[Rate]) -> bool:
    return all(rate.source.startswith(LIST_SOURCES) for rate in rates)


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
    """Tell whether two sources say the same, bands only the second one knows aside.

    Bands the first one knows must all be the same: of two steps at different lengths one is wrong.
    """
    further = theirs.keys() - ours.keys()
    is_flat = all(slot.over is None for slot in ours)
    return (
        ours.keys() <= theirs.keys()
        and (not further or (is_flat and all(slot.over is not None for slot in further)))
        and all(amount.is_same_as(theirs[slot]) for slot, amount in ours.items())
    )


def _named(rates: tuple[Rate, ...], model: str) -> tuple[Rate, ...]:
    return tuple(r if r.model == model else replace(r, model=model) for r in rates)


def _is_free(model: ModelEntry, name: str, owner: dict[tuple[str, str], _Taken]) -> bool:
    return (model.provider, name.casefold()) not in owner


def _completed(known: _Taken, other: ModelEntry) -> ModelEntry:
    """Add a spelling and limits: the larger one, unless people checked it, as it bounds a cost."""
    entry = known.entry
    names = {entry.model, *entry.aliases}
    spelled = () if other.model in names else (other.model,)
    pick = _larger if _is_listed(known.rates) else _first
    return replace(
        entry,
        aliases=(*entry.aliases, *spelled),
        context_tokens_max=pick(entry.context_tokens_max, other.context_tokens_max),
        output_tokens_max=pick(entry.output_tokens_max, other.output_tokens_max),
    )


def _larger(ours: int | None, theirs: int | None) -> int | None:
    return max((limit for limit in (ours, theirs) if limit is not None), default=None)


def _first(ours: int | None, theirs: int | None) -> int | None:
    return theirs if ours is None else ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """A name one source calls a model by, and another one prices as a model of its own.

    Attributes:
        provider: Catalog provider.
        name: The name.
        model: The model it was an alias of.
        alias_in: Source that has it as an alias.
        priced_in: Source that has a price of its own for it.
    """

    provider: str
    name: str
    model: str
    alias_in: str
    priced_in: str


def free_names(
    layers: Sequence[Catalog], at: datetime
) -> tuple[tuple[Catalog, ...], tuple[Freed, ...]]:
    """Take from models the aliases that a later source prices higher by that very name.

    A price somebody wrote down for the name itself is better than that of a family it is put in.
    A lower one is not taken: a source may have no word for the endpoint the family is about. Nor is
    one the later source has for the model's own name as well, which is a plain disagreement.

    Args:
        layers: Catalogs, the most trusted one first.
        at: Aware instant whose prices are compared.

    Returns:
        The catalogs without those aliases, those checked by hand as they are; and what was freed.
    """
    changed: list[Catalog] = []
    freed: list[Freed] = []
    for number, layer in enumerate(layers):
        models: list[ModelEntry] = []
        for model in layer.models:
            own = {
                name: below.source
                for name in model.aliases
                for below in reversed(layers[number + 1 :])
                if not any((model.provider, name.casefold()) in a.named for a in layers[:number])
                and _is_own(name, model, layer, below, at)
            }
            freed.extend(
                Freed(
                    provider=model.provider,
                    name=name,
                    model=model.model,
                    alias_in=layer.source,
                    priced_in=source,
                )
                for name, source in own.items()
            )
            kept = tuple(name for name in model.aliases if name not in own)
            models.append(replace(model, aliases=kept))
        changed.append(replace(layer, models=tuple(models)))
    return tuple(changed), tuple(freed)


def _is_own(name: str, model: ModelEntry, layer: Catalog, below: Catalog, at: datetime) -> bool:
    """Tell whether a later source knows an alias as another, dearer model."""
    found = below.named.get((model.provider, name.casefold()))
    known = layer.rates_of[model.provider, model.model]
    is_spelling = name.casefold().rpartition("/")[2] == model.model.casefold().rpartition("/")[2]
    if found is None or found.model.casefold() != name.casefold() or is_spelling:
        return False
    if not _is_listed(known):
        return False
    if (model.provider, name) in MOVED_NAMES:
        return True
    theirs = _by_thing(below.rates_of[model.provider, found.model], at)
    same = below.named.get((model.provider, model.model.casefold()))
    if same is not None and theirs == _by_thing(below.rates_of[model.provider, same.model], at):
        return False
    return _has_dearer(theirs, _by_thing(known, at))


def _has_dearer(
    ours: dict[Slot, dict[Slot, Amount]], theirs: dict[Slot, dict[Slot, Amount]]
) -> bool:
    return any(
        _is_above(amount, theirs[thing][slot])
        for thing in ours.keys() & theirs.keys()
        for slot, amount in ours[thing].items()
        if slot in theirs[thing]
    )


def _is_above(ours: Amount, theirs: Amount) -> bool:
    (a, b), (c, d) = ours.each, theirs.each
    return a * d > c * b
