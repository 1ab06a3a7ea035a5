"""One catalog out of several: of each model all prices come from the first source that has it.

Must never mix two sources in one model: their prices were not published together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pricing.importers.catalogs import Catalog
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


def merge_catalogs(layers: Sequence[Catalog], *, source: str) -> Catalog:
    """Put sources on top of each other, the most trusted one first.

    Args:
        layers: Catalogs; a model counts as the same under any of its names, in small letters.
        source: What to call the result.

    Returns:
        Every model of every layer once. From the layers below it takes its prices from, a model
        takes only names spelled otherwise and limits its own layer does not state.
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
            for name in names:
                owner.setdefault((model.provider, name.casefold()), known)
    return Catalog(
        source=source,
        models=tuple(found.entry for found in taken.values()),
        rates=tuple(rate for found in taken.values() for rate in found.rates),
    )


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
