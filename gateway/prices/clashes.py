"""Where a change is at odds with what is scheduled for later already.

Must never let one of the two win in silence: a refusal names the version and what to do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from gateway.prices.asked import PriceEdit, PriceRefused
from gateway.prices.laid import manifest_of, read_overrides, read_prices
from gateway.prices.rows import StoredVersion
from gateway.prices.store import PriceChange
from pricing.agreements import Override
from pricing.changes import ChangeRefused, prices_from, says_already, with_override_ended
from pricing.manifest import BookVersion, Manifest
from pricing.rates import Rate

# A version a change is laid over, and when the result takes effect.
Base = tuple[BookVersion, datetime]


def refuse_clashes(change: PriceChange, edit: PriceEdit, bases: Sequence[Base]) -> None:
    """Refuse what would overrule a version that is scheduled for later, or is overruled by it.

    Args:
        change: For the contents of versions.
        edit: What is asked.
        bases: What it is laid over: the version in force then, and each one scheduled after it.

    Raises:
        PriceRefused: A price, the end of an agreement or a model is scheduled to be another one.
    """
    for rate in edit.rates:
        _refuse_pending_model(change, edit, rate, bases)
        for (before, _), (there, start) in pairwise(bases):
            if rate.valid_to is None or rate.valid_to > start:
                _refuse_overruling(change, rate, before, (there, start))
    for name, end in edit.ends:
        _refuse_end(change, name, end, bases)


def name_scheduled(change: PriceChange, start: datetime) -> str:
    """Name the changes that take effect at an instant.

    Args:
        change: Where versions are listed.
        start: The instant.

    Returns:
        Such as ``2026-12-01.1, in force from 2027-01-01T00:00:00+00:00``.
    """
    names = ", ".join(one.version for one in _scheduled(change, start))
    return f"{names}, in force from {start.isoformat()}"


def _scheduled(change: PriceChange, start: datetime) -> list[StoredVersion]:
    """The changes somebody asked for that take effect then, the last one first."""
    found = [
        one
        for one in change.list_versions()
        if one.is_in_force and one.carries is None and one.effective_from == start
    ]
    return sorted(found, key=lambda one: one.turn, reverse=True)


def _refuse_overruling(change: PriceChange, rate: Rate, before: BookVersion, later: Base) -> None:
    there, start = later
    known = _rates_of(change, there.manifest, rate)
    if _is_unchanged(change, rate, before.manifest, later) or says_already(known, rate):
        return
    name = there.version
    for one in _scheduled(change, start):
        if not _is_unchanged(change, rate, manifest_of(change, one.base), (one.describe(), start)):
            name = one.version
            break
    at = start.isoformat()
    raise PriceRefused(
        f"{rate.price_id}: version {name}, in force from {at}, changes this price; end the new "
        f"one by then with valid_to, reject {name}, or give the new one effective_from {at}",
        kind="conflict",
    )


def _is_unchanged(change: PriceChange, rate: Rate, before: Manifest, later: Base) -> bool:
    there, start = later
    old, new = (_rates_of(change, manifest, rate) for manifest in (before, there.manifest))
    return prices_from(old, start) == prices_from(new, start)


def _rates_of(change: PriceChange, manifest: Manifest, rate: Rate) -> list[Rate]:
    _, rates = read_prices(change, manifest, rate.provider)
    return [one for one in rates if one.price_id == rate.price_id]


def _refuse_pending_model(
    change: PriceChange, edit: PriceEdit, rate: Rate, bases: Sequence[Base]
) -> None:
    """A model that is not sold yet has no price to set before it is."""
    name = (rate.provider, rate.model)
    if name in {(one.provider, one.model) for one in edit.models}:
        return
    for number, (base, start) in enumerate(bases):
        models, _ = read_prices(change, base.manifest, rate.provider)
        if any(one.model == rate.model for one in models):
            if number:
                raise PriceRefused(
                    f"{rate.provider} has no model {rate.model!r} before version "
                    f"{name_scheduled(change, start)}; give effective_from {start.isoformat()}",
                    field="model",
                )
            return


def _refuse_end(change: PriceChange, name: str, end: datetime, bases: Sequence[Base]) -> None:
    """The end of an agreement: the first version that has it says which one is meant."""
    meant: Override | None = None
    known: set[str] = set()
    for base, start in bases:
        overrides = read_overrides(change, base.manifest)
        known |= {one.id for one in overrides}
        found = next((one for one in overrides if one.id == name), None)
        if meant is None:
            _refuse_late_end(overrides if found else (), name, end)
            meant = found
        elif found is not None:
            _refuse_other(meant, found, end, name_scheduled(change, start))
    if meant is None:
        there = ", ".join(sorted(known)) or "none"
        raise PriceRefused(f"there is no override {name!r}; there are: {there}", kind="conflict")


def _refuse_late_end(overrides: Iterable[Override], name: str, end: datetime) -> None:
    try:
        if overrides:
            with_override_ended(overrides, name, end)
    except ChangeRefused as refused:
        raise PriceRefused(str(refused), kind="conflict") from refused


def _refuse_other(meant: Override, found: Override, end: datetime, version: str) -> None:
    if replace(found, valid_to=None) != replace(meant, valid_to=None):
        raise PriceRefused(
            f"override {meant.id!r} is another one in version {version}; reject that version, or "
            "end each of them with an effective_from of its own",
            kind="conflict",
        )
    if found.valid_to is not None and found.valid_to < end:
        raise PriceRefused(
            f"version {version}, ends override {meant.id!r} at {found.valid_to.isoformat()} "
            "already; end it by then, or reject that version",
            kind="conflict",
        )
