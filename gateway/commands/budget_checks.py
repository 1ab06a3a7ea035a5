"""Budgets that match no call, or whose way out leads nowhere: for ``check-config`` and ``doctor``.

Must never call a budget wrong for what only the future knows: it warns, and refuses nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from gateway.budgets.rules import Budget
from gateway.settings import ProviderSettings, Settings
from gateway.settings_sources import suggest
from pricing.book import Book


class OddBudget(NamedTuple):
    """Something about a budget that is probably not meant.

    Attributes:
        budget: Its id.
        seen: What it names.
        mend: What to do.
    """

    budget: str
    seen: str
    mend: str


def find_odd_budgets(
    budgets: Iterable[Budget],
    settings: Settings,
    book: Book,
    at: datetime,
    known: Mapping[str, frozenset[str]],
) -> Iterator[OddBudget]:
    """Look for scopes that no call has, and fallbacks that no call can go to.

    Args:
        budgets: To look at.
        settings: With the providers and the tag policy.
        book: Prices in force.
        at: Now.
        known: Ids by scope key, for those keys whose ids are all known.

    Yields:
        One for each thing that is odd.
    """
    for budget in budgets:
        if budget.valid_to is not None and budget.valid_to <= at:
            continue
        for part, wanted in budget.scope.items():
            mend = _look_at(part, wanted, budget, settings, known) or ""
            if part == "model" and not mend:
                mend = _look_at_model(wanted, budget, settings, book, at) or ""
            if mend:
                yield OddBudget(budget.id, f"no call has {part}={wanted}", mend)
        fallback = budget.actions.fallback
        problem = None if fallback is None else _look_at_fallback(fallback, settings, book, at)
        if problem is not None:
            seen = f"fallback:{fallback}: {problem}"
            yield OddBudget(budget.id, seen, "name a model that GET /v1/models lists")


def _look_at(
    part: str,
    wanted: str,
    budget: Budget,
    settings: Settings,
    known: Mapping[str, frozenset[str]],
) -> str | None:
    if part in known and wanted not in known[part]:
        return f"mend its scope: there is no {part} {wanted!r}{suggest(wanted, known[part])}"
    rule = settings.tag_policy.get(part.removeprefix("tag.")) if part.startswith("tag.") else None
    if rule is None or not rule.values or wanted in rule.values:
        return None
    if rule.on_violation != "reject":
        return None
    values = ", ".join(sorted(rule.values))
    return f"mend its scope: the tag policy rejects what is none of {values}"


def _look_at_model(
    wanted: str, budget: Budget, settings: Settings, book: Book, at: datetime
) -> str | None:
    providers = _providers_of(settings)
    named = budget.scope.get("provider")
    ids = [named] if named is not None and named in providers else list(providers)
    if any(_serves(settings, book, at, one, wanted) for one in ids):
        return None
    prefix, _, rest = wanted.partition("/")
    if prefix in providers and _serves(settings, book, at, prefix, rest):
        return f"write the name as the provider has it, `model: {rest}`, and `provider: {prefix}`"
    where = ", ".join(ids)
    return f"mend its scope: no price is known for a model of that name at {where}"


def _look_at_fallback(fallback: str, settings: Settings, book: Book, at: datetime) -> str | None:
    provider, _, model = fallback.partition("/")
    providers = _providers_of(settings)
    if provider not in providers:
        return f"there is no provider {provider!r}{suggest(provider, providers)}"
    is_refused = settings.metering.unpriced == "block"
    if is_refused and not _serves(settings, book, at, provider, model):
        return f"{provider} has no priced model {model!r}, so no call goes there"
    return None


def _serves(settings: Settings, book: Book, at: datetime, provider: str, model: str) -> bool:
    one = _providers_of(settings)[provider]
    if model in one.deployments:
        return True
    return book.find_card(one.priced_as or provider, model, at) is not None


def _providers_of(settings: Settings) -> Mapping[str, ProviderSettings]:
    return settings.providers or {"demo": ProviderSettings(kind="demo")}
