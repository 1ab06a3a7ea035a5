"""The genai-prices list: candidate prices of all its providers with tiers, dates and hours.

Must never import the package: its data is read as a file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Final

from pricing.importers.bands import leave_out_bandless
from pricing.importers.corrections import ENDED_PRICES
from pricing.importers.draft import Candidate, DraftModel, LeftOut, Reason
from pricing.importers.genai_file import parse_genai
from pricing.importers.genai_model import ModelReader, ModelRefused
from pricing.importers.places import GENAI_PROVIDERS
from pricing.importers.slots import is_all_zero
from pricing.manifest import BookBroken

_EXACT_CLAUSE: Final = "equals"


class _Broken(ValueError):
    """An entry no list would have on purpose."""


def read_genai_prices(
    text: str, *, file: str, source: str, checked_at: date, since: datetime
) -> Candidate:
    """Read the list.

    Args:
        text: Content of its data file, JSON or the Python module.
        file: Its name, for problems; ``.py`` for the module.
        source: Name and version of the list, as every rate will cite it.
        checked_at: Day it was read.
        since: First instant of prices without a start date: the list says they always held.

    Returns:
        Every price it has, and by name whatever did not become one.

    Raises:
        BookBroken: Not such a list, or an entry has a wrong type or an impossible price: every
            problem at once, each with file and model.
    """
    models: list[DraftModel] = []
    left_out: list[LeftOut] = []
    problems: list[str] = []
    for number, provider in enumerate(parse_genai(text, file), start=1):
        where = f"{file}: provider {number}"
        try:
            name, entries = _read_provider(provider)
        except _Broken as broken:
            problems.append(f"{where}: {broken}")
            continue
        catalog = GENAI_PROVIDERS.get(name)
        if catalog is None:
            left_out.append(
                LeftOut(
                    reason=Reason.PROVIDER_UNKNOWN, where=where, detail=f"{name}: {len(entries)}"
                )
            )
            continue
        models += _read_models(catalog, entries, f"{file}: {name}", since, (left_out, problems))
    if problems:
        raise BookBroken(problems)
    return leave_out_bandless(
        Candidate(
            source=source,
            checked_at=checked_at,
            models=tuple(map(_ended, models)),
            left_out=tuple(left_out),
        )
    )


def _read_provider(provider: object) -> tuple[str, list[object]]:
    if not isinstance(provider, Mapping):
        raise _Broken(f"an entry is an object, not {str(provider)[:40]}")
    name, entries = provider.get("id"), provider.get("models", [])
    if not isinstance(name, str) or not isinstance(entries, list):
        raise _Broken("a provider has an id and a list of models")
    return name, entries


def _read_models(
    provider: str,
    entries: list[object],
    file: str,
    since: datetime,
    found: tuple[list[LeftOut], list[str]],
) -> list[DraftModel]:
    left_out, problems = found
    models: list[DraftModel] = []
    for number, entry in enumerate(entries, start=1):
        name = entry.get("id") if isinstance(entry, Mapping) else None
        where = f"{file}/{name if isinstance(name, str) else f'model {number}'}"
        try:
            models.append(_read_model(provider, entry, where, since))
        except ModelRefused as refused:
            left_out.append(LeftOut(reason=refused.reason, where=where, detail=str(refused)))
        except ValueError as broken:
            problems.append(f"{where}: {broken}")
    return _named_once(models, entries, left_out)


def _read_model(provider: str, entry: object, where: str, since: datetime) -> DraftModel:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str):
        raise _Broken("a model is an object with an id")
    reader = ModelReader(entry, since)
    rates = reader.read()
    if not rates:
        raise ModelRefused(Reason.NO_PRICE, "the model has no price")
    if is_all_zero({rate.slot: rate.amount for rate in rates}) and ":free" not in entry["id"]:
        raise ModelRefused(Reason.ONLY_ZEROS, ", ".join(sorted({r.slot.meter for r in rates})))
    limit = entry.get("context_window")
    if limit is not None and (type(limit) is not int or not 0 < limit < 10**12):
        raise _Broken(f"context_window is {str(limit)[:40]}")
    return DraftModel(
        provider=provider,
        model=entry["id"],
        aliases=tuple(dict.fromkeys(_exact_names(entry.get("match")))),
        context_tokens_max=limit,
        rates=rates,
        where=where,
    )


def _ended(model: DraftModel) -> DraftModel:
    """End prices that are known to have ended; one that starts later is the list's own new one."""
    ended = ENDED_PRICES.get((model.provider, model.model))
    if ended is None:
        return model
    rates = tuple(
        rate._replace(valid_to=ended.at)
        if rate.valid_from < ended.at and (rate.valid_to is None or rate.valid_to > ended.at)
        else rate
        for rate in model.rates
    )
    return replace(model, rates=rates)


def _exact_names(clause: object) -> Iterable[str]:
    """Names a clause matches one by one; patterns match names nobody can list."""
    if isinstance(clause, Mapping):
        for kind, inner in clause.items():
            if kind == _EXACT_CLAUSE and isinstance(inner, str):
                yield inner
            elif kind == "or" and isinstance(inner, list):
                for part in inner:
                    yield from _exact_names(part)


def _patterns(clause: object) -> Iterable[str]:
    if isinstance(clause, Mapping):
        for kind, inner in clause.items():
            if kind == "or" and isinstance(inner, list):
                for part in inner:
                    yield from _patterns(part)
            elif kind != _EXACT_CLAUSE:
                yield f"{kind} {str(inner)[:80]}"


def _named_once(
    models: list[DraftModel], entries: list[object], left_out: list[LeftOut]
) -> list[DraftModel]:
    """Leave a name to the model of that id, else to the first that claims it, as the list does."""
    owner = {model.model: model.model for model in reversed(models)}
    kept: list[DraftModel] = []
    clauses = {e["id"]: e.get("match") for e in entries if isinstance(e, Mapping) and "id" in e}
    for model in models:
        if any(model.model == other.model for other in kept):
            left_out.append(
                LeftOut(reason=Reason.NAME_TAKEN, where=model.where, detail="listed twice")
            )
            continue
        aliases = []
        for name in model.aliases:
            if owner.setdefault(name, model.model) == model.model and name != model.model:
                aliases.append(name)
            elif name != model.model:
                left_out.append(LeftOut(reason=Reason.NAME_TAKEN, where=model.where, detail=name))
        left_out.extend(
            LeftOut(reason=Reason.PATTERN, where=model.where, detail=pattern)
            for pattern in _patterns(clauses[model.model])
        )
        kept.append(replace(model, aliases=tuple(aliases)))
    return kept
