"""Service tiers that lack a context band of standard, and limits that contradict a band.

Must never let a long prompt be billed, or held for, at the price of a short one.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from pricing.importers.catalogs import LIST_SOURCES, Catalog
from pricing.importers.compare import slot_of
from pricing.importers.corrections import LONG_CONTEXT, has_long_context
from pricing.importers.draft import Candidate, DraftModel, LeftOut, Reason, Slot
from pricing.manifest import ModelEntry
from pricing.meters import Meter
from pricing.rates import Rate
from pricing.sku import STANDARD_TIER

_Thing = tuple[str, Meter, str | None, str | None]


def find_bandless_tiers(slots: Iterable[Slot]) -> dict[str, tuple[Meter, int]]:
    """Find tiers that price something without a context band standard has for the same thing.

    A tier counts as a whole: without one of its prices, its other prices would stand in for that.

    Args:
        slots: Prices of one model that have no end; a region has the bands without region too.

    Returns:
        By tier, one meter and the lowest band that is missing.
    """
    bands: dict[_Thing, set[int]] = defaultdict(set)
    for slot in slots:
        known = bands[slot.tier, slot.meter, slot.region, slot.variant]
        if slot.over is not None:
            known.add(slot.over)
    found: dict[str, tuple[Meter, int]] = {}
    for tier, meter, region, variant in list(bands):
        places = (region, None)
        own = set().union(*(bands.get((tier, meter, one, variant), ()) for one in places))
        standard = set().union(
            *(bands.get((STANDARD_TIER, meter, one, variant), ()) for one in places)
        )
        if standard - own:
            found.setdefault(tier, (meter, min(standard - own)))
    return found


def leave_out_bandless(candidate: Candidate) -> Candidate:
    """Leave out the tiers of a list that lack a context band of standard.

    Args:
        candidate: One list, read.

    Returns:
        The same without them, each of them named; another list may still supply the whole tier.
    """
    models: list[DraftModel] = []
    left_out = list(candidate.left_out)
    for model in candidate.models:
        bandless = find_bandless_tiers(r.slot for r in model.rates if r.valid_to is None)
        left_out.extend(
            LeftOut(
                reason=Reason.TIER_WITHOUT_BAND,
                where=model.where,
                detail=f"{tier}: {meter} has no price over {over}",
            )
            for tier, (meter, over) in bandless.items()
        )
        kept = tuple(r for r in model.rates if r.slot.tier not in bandless)
        models.append(replace(model, rates=kept) if bandless else model)
    return replace(candidate, models=tuple(models), left_out=tuple(left_out))


def settle_bands(catalog: Catalog, at: datetime) -> Catalog:
    """Make what came together from several sources agree with the bands it has now.

    Args:
        catalog: Merged.
        at: Aware instant; prices that ended before it say nothing of a limit.

    Returns:
        Without tiers that lack a band another source gave to standard, those checked by hand
        aside, and without context limits no prompt of a band could keep.
    """
    models: list[ModelEntry] = []
    rates: list[Rate] = []
    for model in catalog.models:
        own = catalog.rates_of[model.provider, model.model]
        live = [rate for rate in own if rate.valid_to is None or rate.valid_to > at]
        models.append(_with_limit(model, live))
        bandless = find_bandless_tiers(slot_of(r) for r in live if r.valid_to is None)
        is_listed = any(rate.source.startswith(LIST_SOURCES) for rate in own)
        rates += (r for r in own if not is_listed or r.tier not in bandless)
    return Catalog(source=catalog.source, models=tuple(models), rates=tuple(rates))


def _with_limit(model: ModelEntry, rates: Iterable[Rate]) -> ModelEntry:
    limit = model.context_tokens_max
    edge = max((rate.over or 0 for rate in rates), default=0)
    if limit is None or limit > edge:
        return model
    widest = LONG_CONTEXT if has_long_context(model.model) else None
    return replace(model, context_tokens_max=widest)
