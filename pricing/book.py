"""The price book: one immutable, content-addressed version of dated rates, looked up at an instant.

Must never change a published version; a new price is a new row in a new version.
"""

import hashlib
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from pricing.meters import Meter
from pricing.money import decimal_from_text
from pricing.rates import CardKey, CompiledRate, Rate, RateCard, compile_rate
from pricing.sku import STANDARD_TIER, sku_id

CATALOG_DIR: Final = Path(__file__).parent / "catalog"


class BookBroken(ValueError):
    """A price book that must not be used; ``problems`` lists everything wrong with it at once.

    Attributes:
        problems: One sentence each, with the file and the price it is about.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """What the catalog says of a model besides its prices.

    Attributes:
        provider: Catalog provider.
        model: Catalog model.
        aliases: Other names and dated snapshots billed at the same prices.
        context_tokens_max: Most tokens a prompt can have; ``None`` when not published.
        output_tokens_max: Most tokens an answer can have; ``None`` when not published.
    """

    provider: str
    model: str
    aliases: tuple[str, ...]
    context_tokens_max: int | None
    output_tokens_max: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BookVersion:
    """One row of the list of published versions.

    Attributes:
        version: Name, such as ``2026-11-23.1``.
        digest: SHA-256 over every rate and model entry, in canonical order.
        recorded_at: When we learned these prices; aware.
        note: What changed, for people.
    """

    version: str
    digest: str
    recorded_at: datetime
    note: str


class Book:
    """One version of the prices, ready to be asked.

    Attributes:
        version: The published version this is.
        models: Every model entry.
        rates: Every dated rate.
    """

    def __init__(
        self, version: BookVersion, models: Iterable[ModelEntry], rates: Iterable[Rate]
    ) -> None:
        """Index the rates.

        Args:
            version: Name and digest.
            models: One entry per (provider, model).
            rates: Dated rates; spans of one price id must not overlap.

        Raises:
            BookBroken: Overlapping spans, a rate without a model, a model in two currencies, a name
                claimed twice. Every problem of each kind at once.
        """
        self.version = version
        self.models = tuple(models)
        self.rates = tuple(rates)
        self._entry = {(m.provider, m.model): m for m in self.models}
        self._name = _index_names(self.models)
        self._rates_of: dict[tuple[str, str], list[Rate]] = defaultdict(list)
        for rate in self.rates:
            self._rates_of[(rate.provider, rate.model)].append(rate)
        problems = [*_overlaps(self.rates), *self._orphans()]
        if problems:
            raise BookBroken(problems)
        self._cards: dict[tuple[str, str], tuple[list[datetime], list[RateCard]]] = {}

    @property
    def providers(self) -> frozenset[str]:
        """Catalog providers with at least one model."""
        return frozenset(m.provider for m in self.models)

    def find_model(self, provider: str, name: str) -> ModelEntry | None:
        """Find a model by its name, an alias or a dated snapshot.

        Args:
            provider: Catalog provider.
            name: Any name the provider uses for it.

        Returns:
            The entry, or ``None`` when the book does not know the name.
        """
        model = self._name.get((provider, name))
        return None if model is None else self._entry[(provider, model)]

    def find_card(self, provider: str, name: str, at: datetime) -> RateCard | None:
        """Find every price of a model that holds at an instant.

        Args:
            provider: Catalog provider.
            name: Model name, alias or snapshot.
            at: Aware instant.

        Returns:
            The rate card, or ``None`` when the model is unknown or had no price yet at ``at``.
        """
        model = self._name.get((provider, name))
        if model is None:
            return None
        key = (provider, model)
        starts, cards = self._cards.get(key) or self._compile_cards(key)
        index = bisect_right(starts, at) - 1
        if index < 0:
            return None
        card = cards[index]
        return card if card.rates else None

    def _compile_cards(self, key: tuple[str, str]) -> tuple[list[datetime], list[RateCard]]:
        """Cut the model's history at every instant a price starts or ends, one card per piece."""
        rates = self._rates_of[key]
        starts = sorted({r.valid_from for r in rates} | {r.valid_to for r in rates if r.valid_to})
        ends = [*starts[1:], None] if starts else []
        cards = [
            _compile_card(
                self._entry[key],
                self.version.version,
                (start, end),
                [compile_rate(r) for r in rates if r.holds_at(start)],
            )
            for start, end in zip(starts, ends, strict=True)
        ]
        self._cards[key] = (starts, cards)
        return starts, cards

    def _orphans(self) -> list[str]:
        return [
            f"{rate.price_id}: its model has no entry"
            for rate in self.rates
            if (rate.provider, rate.model) not in self._entry
        ]


def _compile_card(
    entry: ModelEntry,
    version: str,
    span: tuple[datetime, datetime | None],
    rates: list[CompiledRate],
) -> RateCard:
    bands: dict[CardKey, list[CompiledRate]] = defaultdict(list)
    for compiled in rates:
        bands[(compiled.rate.tier, compiled.rate.region, compiled.rate.meter)].append(compiled)
    return RateCard(
        provider=entry.provider,
        model=entry.model,
        version=version,
        currency=rates[0].rate.currency if rates else "USD",
        valid_from=span[0],
        valid_to=span[1],
        context_tokens_max=entry.context_tokens_max,
        output_tokens_max=entry.output_tokens_max,
        rates={k: tuple(sorted(v, key=lambda c: -c.band)) for k, v in bands.items()},
        skus={meter: sku_id(entry.provider, entry.model, meter) for meter in Meter},
    )


def _index_names(models: Iterable[ModelEntry]) -> dict[tuple[str, str], str]:
    index: dict[tuple[str, str], str] = {}
    problems = []
    for entry in models:
        for name in (entry.model, *entry.aliases):
            owner = index.get((entry.provider, name))
            if owner is not None:
                problems.append(
                    f"{entry.provider}: the name {name!r} is claimed by {owner} and {entry.model}"
                )
            index[entry.provider, name] = entry.model
    if problems:
        raise BookBroken(problems)
    return index


def _overlaps(rates: Iterable[Rate]) -> list[str]:
    spans: dict[str, list[Rate]] = defaultdict(list)
    currencies: dict[tuple[str, str], set[str]] = defaultdict(set)
    for rate in rates:
        spans[rate.price_id].append(rate)
        currencies[rate.provider, rate.model].add(rate.currency)
    problems = [
        f"{provider}/{model}: is priced in more than one currency: {', '.join(sorted(found))}"
        for (provider, model), found in currencies.items()
        if len(found) > 1
    ]
    for price, dated in spans.items():
        dated.sort(key=lambda r: r.valid_from)
        for earlier, later in pairwise(dated):
            if earlier.valid_to is None or earlier.valid_to > later.valid_from:
                problems.append(
                    f"{price}: the price from {earlier.valid_from.isoformat()} still holds when "
                    f"the one from {later.valid_from.isoformat()} starts; give it a valid_to"
                )
    return problems


def digest_of(models: Iterable[ModelEntry], rates: Iterable[Rate]) -> str:
    """Address a set of prices by its content.

    Args:
        models: Model entries in any order.
        rates: Dated rates in any order.

    Returns:
        ``sha256:`` and the hash of every field that can change a bill, in canonical order. Source
        pages and check days are left out: reading a page again does not change a price.
    """
    rows = sorted(
        json.dumps(
            [
                "model",
                m.provider,
                m.model,
                sorted(m.aliases),
                m.context_tokens_max,
                m.output_tokens_max,
            ]
        )
        for m in models
    )
    rows += sorted(
        json.dumps(
            [
                "rate",
                r.price_id,
                f"{r.amount.normalize():f}",
                r.per,
                r.currency,
                r.valid_from.astimezone(UTC).isoformat(),
                r.valid_to.astimezone(UTC).isoformat() if r.valid_to else None,
            ]
        )
        for r in rates
    )
    return "sha256:" + hashlib.sha256("\n".join(rows).encode()).hexdigest()


def read_versions(catalog: Path = CATALOG_DIR) -> tuple[BookVersion, ...]:
    """Read the list of published versions, oldest first.

    Args:
        catalog: Folder with ``versions.json`` and one folder per version.

    Returns:
        Every published version.

    Raises:
        OSError: The list cannot be read.
        BookBroken: It is not a list of versions, or two have the same name.
    """
    path = catalog / "versions.json"
    try:
        versions = tuple(
            BookVersion(
                version=row["version"],
                digest=row["digest"],
                recorded_at=_instant(row["recorded_at"]),
                note=row["note"],
            )
            for row in json.loads(path.read_text("utf-8"))
        )
    except (KeyError, TypeError, ValueError) as broken:
        raise BookBroken([f"{path}: {broken!r}"]) from broken
    names = [v.version for v in versions]
    if len(set(names)) < len(names):
        raise BookBroken([f"{path}: a version is listed twice: {', '.join(names)}"])
    return versions


def load_book(version: str | None = None, catalog: Path = CATALOG_DIR) -> Book:
    """Load one published version, the newest unless named.

    Args:
        version: Name of the version; ``None`` for the newest.
        catalog: Folder with ``versions.json`` and one folder per version.

    Returns:
        The book.

    Raises:
        BookBroken: No such version, a broken file, or content that does not match its digest.
        OSError: A file cannot be read.
    """
    versions = read_versions(catalog)
    chosen = [v for v in versions if version in (None, v.version)]
    if not chosen:
        known = ", ".join(v.version for v in versions)
        raise BookBroken([f"no price book version {version}; there are: {known}"])
    models, rates = read_catalog(catalog / chosen[-1].version)
    digest = digest_of(models, rates)
    if digest != chosen[-1].digest:
        raise BookBroken(
            [
                f"price book {chosen[-1].version} was edited after it was published: its content "
                f"is {digest}, versions.json says {chosen[-1].digest}; publish a new version"
            ]
        )
    return Book(chosen[-1], models, rates)


def read_catalog(folder: Path) -> tuple[list[ModelEntry], list[Rate]]:
    """Read every provider file of one version.

    Args:
        folder: Folder of ``<provider>.json`` files.

    Returns:
        Model entries and dated rates.

    Raises:
        BookBroken: Every problem of every file, each with file, model and row.
        OSError: A file cannot be read.
    """
    models: list[ModelEntry] = []
    rates: list[Rate] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_text("utf-8"), parse_float=_refuse_float)
            rows = list(document["models"])
            head = (str(document["provider"]), str(document["currency"]))
        except (KeyError, TypeError, ValueError) as broken:
            problems.append(f"{path.name}: {_say(broken)}")
            continue
        for number, row in enumerate(rows, start=1):
            try:
                models.append(_model_from_row(head[0], row))
            except (KeyError, TypeError, ValueError) as broken:
                problems.append(f"{path.name}: model {number}: {_say(broken)}")
                continue
            for line, rate_row in enumerate(row["rates"], start=1):
                try:
                    rates.append(_rate_from_row(head, row["model"], rate_row))
                except (KeyError, TypeError, ValueError) as broken:
                    problems.append(f"{path.name}: {row['model']}: rate {line}: {_say(broken)}")
    if problems:
        raise BookBroken(problems)
    return models, rates


def _say(broken: Exception) -> str:
    return f"the field {broken} is missing" if isinstance(broken, KeyError) else str(broken)


def _model_from_row(provider: str, row: Mapping[str, Any]) -> ModelEntry:
    unknown = set(row) - {"model", "aliases", "context_tokens_max", "output_tokens_max", "rates"}
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    if not isinstance(row["rates"], list) or not isinstance(row.get("aliases", []), list):
        raise ValueError(f"{row['model']}: rates and aliases are lists")  # noqa: TRY004 - one error type for bad catalog text
    return ModelEntry(
        provider=provider,
        model=row["model"],
        aliases=tuple(row.get("aliases", ())),
        context_tokens_max=_count(row, "context_tokens_max"),
        output_tokens_max=_count(row, "output_tokens_max"),
    )


def _count(row: Mapping[str, Any], name: str) -> int | None:
    value = row.get(name)
    if value is None or (type(value) is int and value >= 0):
        return value
    raise ValueError(f"{name} is a whole number of at least zero, not {value!r}")


_RATE_FIELDS: Final = frozenset(
    {
        "meter",
        "tier",
        "over",
        "region",
        "amount",
        "per",
        "valid_from",
        "valid_to",
        "source",
        "checked_at",
    }
)


def _rate_from_row(head: tuple[str, str], model: str, row: Mapping[str, Any]) -> Rate:
    unknown = set(row) - _RATE_FIELDS
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    provider, currency = head
    return Rate(
        provider=provider,
        model=model,
        meter=Meter(row["meter"]),
        amount=decimal_from_text(row["amount"]),
        per=_count(row, "per") or 0,
        currency=currency,
        valid_from=_instant(row["valid_from"]),
        valid_to=_instant(row["valid_to"]) if row.get("valid_to") is not None else None,
        tier=row.get("tier", STANDARD_TIER),
        over=_count(row, "over"),
        region=row.get("region"),
        source=row["source"],
        checked_at=date.fromisoformat(row["checked_at"]),
    )


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text} needs a time zone")
    return at


def _refuse_float(text: str) -> None:
    raise ValueError(f"write {text} as text: prices are never floats")
