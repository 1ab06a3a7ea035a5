"""A set of prices outside of any version: what a list or a book holds, checked as a whole.

Must never let a price pass that a book would refuse later.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from pricing.book import Book
from pricing.conflicts import find_name_problems, find_rate_problems
from pricing.importers.draft import Candidate, DraftModel
from pricing.manifest import BookBroken, ModelEntry
from pricing.rates import Rate, RateRefused

# Beginning of the source of every rate that an importer made; all others were checked by hand.
LIST_SOURCES: Final = ("genai-prices ", "litellm ")
UNDATED_SOURCES: Final = ("litellm ",)
CURRENCY: Final = "USD"


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Models and dated rates.

    Attributes:
        source: Where they come from, for people.
        models: Model entries; a name belongs to one model of a provider.
        rates: Dated rates of these models.
    """

    source: str
    models: tuple[ModelEntry, ...]
    rates: tuple[Rate, ...]

    @cached_property
    def rates_of(self) -> Mapping[tuple[str, str], tuple[Rate, ...]]:
        """Rates by provider and model."""
        found: dict[tuple[str, str], list[Rate]] = {(m.provider, m.model): [] for m in self.models}
        for rate in self.rates:
            found[rate.provider, rate.model].append(rate)
        return {key: tuple(rates) for key, rates in found.items()}

    @cached_property
    def named(self) -> Mapping[tuple[str, str], ModelEntry]:
        """Models by provider and every name in small letters, as lists differ in those only."""
        found: dict[tuple[str, str], ModelEntry] = {}
        for model in self.models:
            for name in (model.model, *model.aliases):
                found.setdefault((model.provider, name.casefold()), model)
        return found


def catalog_of_book(book: Book) -> Catalog:
    """Take the content of a loaded book.

    Args:
        book: Any version.

    Returns:
        Its models and rates.
    """
    return Catalog(
        source=f"price book {book.version.version}", models=book.models, rates=book.rates
    )


def check_candidate(candidate: Candidate) -> Catalog:
    """Turn what an importer found into rates, checked as a book checks them.

    Args:
        candidate: One list, read.

    Returns:
        The same prices; every rate cites the list and the day.

    Raises:
        BookBroken: Impossible prices, spans that overlap, a name claimed twice: every problem at
            once, each with file and row.
    """
    problems: list[str] = []
    models: list[ModelEntry] = []
    rates: list[Rate] = []
    places: list[str] = []
    for draft in candidate.models:
        models.append(
            ModelEntry(
                provider=draft.provider,
                model=draft.model,
                aliases=draft.aliases,
                context_tokens_max=draft.context_tokens_max,
                output_tokens_max=draft.output_tokens_max,
            )
        )
        try:
            found = list(_rates_of(draft, candidate))
        except RateRefused as refused:
            problems.append(f"{draft.where}: {refused}")
            continue
        rates += found
        places += [draft.where] * len(found)
    problems += find_name_problems(models)
    problems += find_rate_problems(models, rates, places)
    if problems:
        raise BookBroken(problems)
    return Catalog(source=candidate.source, models=tuple(models), rates=tuple(rates))


def _rates_of(draft: DraftModel, candidate: Candidate) -> Iterable[Rate]:
    for found in draft.rates:
        slot = found.slot
        yield Rate(
            provider=draft.provider,
            model=draft.model,
            meter=slot.meter,
            amount=found.amount.value,
            per=found.amount.per,
            currency=CURRENCY,
            valid_from=found.valid_from,
            valid_to=found.valid_to,
            tier=slot.tier,
            over=slot.over,
            region=slot.region,
            variant=slot.variant,
            hours=slot.hours,
            source=candidate.source,
            checked_at=candidate.checked_at,
        )


def keep_checked_by_hand(catalog: Catalog) -> Catalog:
    """Leave out what importers made.

    Args:
        catalog: Any.

    Returns:
        The models of which no rate cites a list.
    """
    cited = {(r.provider, r.model, r.source) for r in catalog.rates}
    listed = {(p, m) for p, m, source in cited if source.startswith(LIST_SOURCES)}
    return Catalog(
        source="checked by hand",
        models=tuple(m for m in catalog.models if (m.provider, m.model) not in listed),
        rates=tuple(r for r in catalog.rates if (r.provider, r.model) not in listed),
    )
