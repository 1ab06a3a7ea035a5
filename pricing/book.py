"""The price book: one immutable, content-addressed version of dated rates, looked up at an instant.

Must never change a published version; a new price is a new row in a new version.
"""

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pricing.agreements import ModelAgreements, Override, Payer, choose_override, negotiate
from pricing.conflicts import find_agreement_problems, find_name_problems, find_rate_problems
from pricing.hours import Hours, Week
from pricing.manifest import (
    BookBroken,
    BookVersion,
    Manifest,
    ModelEntry,
    agreements_digest,
    describe_version,
    digest_of,
)
from pricing.meters import Meter
from pricing.names import other_spellings
from pricing.rates import (
    CardKey,
    CompiledRate,
    Prices,
    Rate,
    RateCard,
    VariantKey,
    compile_rate,
)
from pricing.rows import Content, parse_agreements, parse_instant, parse_prices
from pricing.sku import sku_id

__all__ = [
    "AGREEMENTS",
    "CATALOG_DIR",
    "Book",
    "BookBroken",
    "BookVersion",
    "Manifest",
    "ModelEntry",
    "agreements_digest",
    "build_book",
    "describe_version",
    "digest_of",
    "load_agreements",
    "load_book",
    "object_name",
    "read_catalog",
    "read_versions",
]

CATALOG_DIR: Final = Path(__file__).parent / "catalog"
# Name of the content that is no provider's.
AGREEMENTS: Final = "agreements"
_DIGEST_CHARS: Final = 12
_NO_HOURS: Final[frozenset[Hours]] = frozenset()
# Finds the text of a content by its name and digest.
OpenObject = Callable[[str, str], str]


@dataclass(slots=True)
class _Piece:
    """A span of time in which the set of dated rates of a model does not change.

    Attributes:
        span: First instant and first instant after.
        rates: The rates that hold, their hours aside.
        week: When which windows are open; ``None`` for a model without any.
        cards: Published prices by the open windows.
        agreed: Negotiated prices by the open windows and the ids of the overrides that apply; as
            many as there are agreements, however many callers.
    """

    span: tuple[datetime, datetime | None]
    rates: list[Rate]
    week: Week | None
    cards: dict[frozenset[Hours], RateCard] = field(default_factory=dict)
    agreed: dict[tuple[frozenset[Hours], tuple[str, ...]], RateCard] = field(default_factory=dict)


class Book:
    """One version of the prices, or the part of it that was asked for.

    Attributes:
        version: The published version this is.
        models: Every model entry.
        rates: Every dated rate.
        overrides: Every negotiated rate.
    """

    def __init__(
        self,
        version: BookVersion,
        models: Iterable[ModelEntry],
        rates: Iterable[Rate],
        overrides: Iterable[Override] = (),
    ) -> None:
        """Index the rates.

        Args:
            version: Name, digest and manifest.
            models: One entry per (provider, model).
            rates: Dated rates; spans of one price must not overlap.
            overrides: Negotiated rates.

        Raises:
            BookBroken: Overlapping spans or hours, a rate without a model, a model in two
                currencies, a name claimed twice, overrides that contradict each other, name nothing
                or come to no price. Every problem at once.
        """
        self.version = version
        self.models = tuple(models)
        self.rates = tuple(rates)
        self.overrides = tuple(overrides)
        self._entry = {(m.provider, m.model): m for m in self.models}
        self._name = {
            (m.provider, name): m.model for m in self.models for name in (m.model, *m.aliases)
        }
        self._rates_of: dict[tuple[str, str], list[Rate]] = {key: [] for key in self._entry}
        problems = [
            *find_name_problems(self.models),
            *find_rate_problems(self.models, self.rates),
        ]
        if not problems:
            for rate in self.rates:
                self._rates_of[rate.provider, rate.model].append(rate)
            is_whole = self.providers >= self.version.manifest.providers.keys()
            problems = find_agreement_problems(
                self.overrides, self._name, self._rates_of, is_whole=is_whole
            )
        if problems:
            raise BookBroken(problems)
        self._agreements = self._sort_agreements()
        self._histories: dict[tuple[str, str], tuple[list[datetime], list[_Piece]]] = {}

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
        model = self._find_name(provider, name)
        return None if model is None else self._entry[(provider, model)]

    def rates_of(self, provider: str, model: str) -> Sequence[Rate]:
        """List every dated rate of a model.

        Args:
            provider: Catalog provider.
            model: Catalog model.

        Returns:
            Past, present and future rates; empty when the book does not know the model.
        """
        return tuple(self._rates_of.get((provider, model), ()))

    def rates_at(self, provider: str, model: str, at: datetime) -> Sequence[Rate]:
        """List the rates of a model that hold at an instant, without compiling a card of them.

        Args:
            provider: Catalog provider.
            model: Catalog model.
            at: Aware instant.

        Returns:
            The rates a card of that instant is made of.
        """
        held = [rate for rate in self._rates_of.get((provider, model), ()) if rate.holds_at(at)]
        return _in_force([r for r in held if r.hours is None or r.hours.holds_at(at)])

    def find_card(
        self, provider: str, name: str, at: datetime, payer: Payer | None = None
    ) -> RateCard | None:
        """Find every price of a model that holds at an instant.

        Args:
            provider: Catalog provider.
            name: Model name, alias or snapshot.
            at: Aware instant.
            payer: Who pays, for the prices negotiated; ``None`` for the published ones.

        Returns:
            The rate card, or ``None`` when the model is unknown or had no price yet at ``at``.
        """
        model = self._find_name(provider, name)
        if model is None:
            return None
        key = (provider, model)
        starts, pieces = self._histories.get(key) or self._cut_history(key)
        index = bisect_right(starts, at) - 1
        if index < 0:
            return None
        piece = pieces[index]
        is_open = _NO_HOURS if piece.week is None else piece.week.find_open(at)
        card = piece.cards.get(is_open) or self._compile_published(key, piece, is_open)
        if payer is not None:
            agreements = self._agreements.get(key)
            if agreements is not None:
                card = _negotiated(card, piece, is_open, agreements.find(payer, at))
        return card if card.rates or card.variants else None

    def _find_name(self, provider: str, name: str) -> str | None:
        """Find the catalog's own name of a model."""
        model = self._name.get((provider, name))
        if model is not None:
            return model
        spelt = (self._name.get((provider, other)) for other in other_spellings(provider, name))
        return next(filter(None, spelt), None)

    def _sort_agreements(self) -> dict[tuple[str, str], ModelAgreements]:
        found: dict[tuple[str, str], list[Override]] = defaultdict(list)
        for override in self.overrides:
            for key in self._entry:
                if override.is_for_model(*key):
                    found[key].append(override)
        return {key: ModelAgreements(overrides) for key, overrides in found.items()}

    def _cut_history(self, key: tuple[str, str]) -> tuple[list[datetime], list[_Piece]]:
        """Cut the model's history at every instant a price starts or ends."""
        rates = self._rates_of[key]
        starts = sorted({r.valid_from for r in rates} | {r.valid_to for r in rates if r.valid_to})
        ends = [*starts[1:], None] if starts else []
        pieces = []
        for start, end in zip(starts, ends, strict=True):
            held = [rate for rate in rates if rate.holds_at(start)]
            windows = {rate.hours for rate in held if rate.hours is not None}
            week = Week(windows) if windows else None
            pieces.append(_Piece((start, end), held, week))
        self._histories[key] = (starts, pieces)
        return starts, pieces

    def _compile_published(
        self, key: tuple[str, str], piece: _Piece, is_open: frozenset[Hours]
    ) -> RateCard:
        rates = _in_force([r for r in piece.rates if r.hours is None or r.hours in is_open])
        prices = [compile_rate(rate) for rate in rates]
        card = _compile_card(self._entry[key], self.version.version, piece.span, prices)
        piece.cards[is_open] = card
        return card


def _in_force(rates: list[Rate]) -> list[Rate]:
    """Leave out the prices for any time where a window is open that has one of its own."""
    timed = {_slot(rate) for rate in rates if rate.hours is not None}
    if not timed:
        return rates
    return [rate for rate in rates if rate.hours is not None or _slot(rate) not in timed]


def _slot(rate: Rate) -> tuple[object, ...]:
    return (rate.meter, rate.tier, rate.over, rate.region, rate.variant)


def _negotiated(
    card: RateCard,
    piece: _Piece,
    is_open: frozenset[Hours],
    overrides: tuple[Override, ...],
) -> RateCard:
    """The card with what was agreed; the published one where nothing was."""
    if not overrides:
        return card
    key = (is_open, tuple([override.id for override in overrides]))
    found = piece.agreed.get(key)
    if found is not None:
        return found
    chosen: set[str] = set()

    def apply(price: CompiledRate) -> CompiledRate:
        override = choose_override(overrides, price.rate)
        if override is None:
            return price
        chosen.add(override.id)
        return negotiate(price, override)

    rates = {k: tuple([apply(price) for price in bands]) for k, bands in card.rates.items()}
    makes = {k: tuple([apply(price) for price in bands]) for k, bands in card.variants.items()}
    found = card
    if chosen:
        found = RateCard(
            provider=card.provider,
            model=card.model,
            version=card.version,
            currency=card.currency,
            valid_from=card.valid_from,
            valid_to=card.valid_to,
            context_tokens_max=card.context_tokens_max,
            output_tokens_max=card.output_tokens_max,
            rates=rates,
            skus=card.skus,
            variants=makes,
            agreements=tuple(sorted(chosen)),
        )
    piece.agreed[key] = found
    return found


def _compile_card(
    entry: ModelEntry,
    version: str,
    span: tuple[datetime, datetime | None],
    prices: list[CompiledRate],
) -> RateCard:
    plain: dict[CardKey, list[CompiledRate]] = defaultdict(list)
    makes: dict[VariantKey, list[CompiledRate]] = defaultdict(list)
    for compiled in prices:
        rate = compiled.rate
        if rate.variant is None:
            plain[rate.tier, rate.region, rate.meter].append(compiled)
        else:
            makes[rate.tier, rate.region, rate.meter, rate.variant].append(compiled)
    return RateCard(
        provider=entry.provider,
        model=entry.model,
        version=version,
        currency=prices[0].rate.currency if prices else "USD",
        valid_from=span[0],
        valid_to=span[1],
        context_tokens_max=entry.context_tokens_max,
        output_tokens_max=entry.output_tokens_max,
        rates={key: _by_band(bands) for key, bands in plain.items()},
        skus={meter: sku_id(entry.provider, entry.model, meter) for meter in Meter},
        variants={key: _by_band(bands) for key, bands in makes.items()},
    )


def _by_band(prices: Iterable[CompiledRate]) -> Prices:
    return tuple(sorted(prices, key=lambda compiled: -compiled.band))


def object_name(name: str, digest: str) -> str:
    """Name the file of a content.

    Args:
        name: Catalog provider, or ``agreements``.
        digest: Of the content.

    Returns:
        A file name that says both.
    """
    return f"{name}.{digest.removeprefix('sha256:')[:_DIGEST_CHARS]}.json"


def read_versions(catalog: Path = CATALOG_DIR) -> tuple[BookVersion, ...]:
    """Read the list of published versions, oldest first.

    Args:
        catalog: Folder with ``versions.json`` and the folder ``objects``.

    Returns:
        Every published version.

    Raises:
        OSError: The list cannot be read.
        BookBroken: It is not a list of versions, two have the same name, or a digest is not that of
            its manifest.
    """
    path = catalog / "versions.json"
    try:
        versions = tuple(_read_version(row) for row in json.loads(path.read_text("utf-8")))
    except (AttributeError, KeyError, TypeError, ValueError) as broken:
        raise BookBroken([f"{path}: {broken!r}"]) from broken
    names = [v.version for v in versions]
    if len(set(names)) < len(names):
        raise BookBroken([f"{path}: a version is listed twice: {', '.join(names)}"])
    problems = [
        f"{path}: {v.version} was edited after it was published: its manifest is "
        f"{v.manifest.digest}, its digest says {v.digest}; publish a new version"
        for v in versions
        if v.digest != v.manifest.digest
    ]
    if problems:
        raise BookBroken(problems)
    return versions


def _read_version(row: Mapping[str, Any]) -> BookVersion:
    recorded_at = parse_instant(row["recorded_at"])
    effective = row.get("effective_from")
    return BookVersion(
        version=row["version"],
        digest=row["digest"],
        recorded_at=recorded_at,
        effective_from=recorded_at if effective is None else parse_instant(effective),
        note=row["note"],
        manifest=Manifest(providers=dict(row["providers"]), agreements=row.get("agreements")),
    )


def load_book(
    version: str | None = None,
    catalog: Path = CATALOG_DIR,
    providers: Iterable[str] | None = None,
) -> Book:
    """Load one published version, the newest unless named.

    Args:
        version: Name of the version; ``None`` for the newest.
        catalog: Folder with ``versions.json`` and the folder ``objects``.
        providers: Catalog providers to load; ``None`` for all. Those the version does not have are
            passed over.

    Returns:
        The book.

    Raises:
        BookBroken: No such version, a broken file, or content that does not match its digest; only
            what is loaded is looked at.
        OSError: A file cannot be read.
    """
    return build_book(_find_version(version, catalog), _files_in(catalog), providers)


def load_agreements(
    version: str | None = None, catalog: Path = CATALOG_DIR
) -> tuple[Override, ...]:
    """Load the negotiated rates of one published version alone.

    Args:
        version: Name of the version; ``None`` for the newest.
        catalog: As for ``load_book``.

    Returns:
        The overrides; none when the version has none.

    Raises:
        BookBroken: As ``load_book``.
        OSError: As ``load_book``.
    """
    found = _find_version(version, catalog)
    return _open_agreements(found, _files_in(catalog))


def build_book(
    version: BookVersion, open_object: OpenObject, providers: Iterable[str] | None = None
) -> Book:
    """Put a version together from its contents, wherever they are kept.

    Args:
        version: With its manifest.
        open_object: Finds the text of a content by its name and digest.
        providers: As for ``load_book``.

    Returns:
        The book.

    Raises:
        BookBroken: As ``load_book``, with every problem of every content.
    """
    wanted = set(version.manifest.providers if providers is None else providers)
    problems: list[str] = []
    models: list[ModelEntry] = []
    rates: list[Rate] = []
    overrides: tuple[Override, ...] = ()
    for provider, digest in sorted(version.manifest.providers.items()):
        if provider not in wanted:
            continue
        try:
            content = _open_prices(version, provider, digest, open_object)
        except BookBroken as broken:
            problems += broken.problems
            continue
        models += content.models
        rates += content.rates
    try:
        overrides = _open_agreements(version, open_object)
    except BookBroken as broken:
        problems += broken.problems
    if problems:
        raise BookBroken(problems)
    return Book(version, models, rates, overrides)


def _find_version(version: str | None, catalog: Path) -> BookVersion:
    versions = read_versions(catalog)
    chosen = [v for v in versions if version in (None, v.version)]
    if not chosen:
        known = ", ".join(v.version for v in versions)
        raise BookBroken([f"no price book version {version}; there are: {known}"])
    return chosen[-1]


def _files_in(catalog: Path) -> OpenObject:
    def open_object(name: str, digest: str) -> str:
        return (catalog / "objects" / object_name(name, digest)).read_text("utf-8")

    return open_object


def _open_prices(
    version: BookVersion, provider: str, digest: str, open_object: OpenObject
) -> Content:
    file = object_name(provider, digest)
    content = parse_prices(file, _text_of(file, provider, digest, open_object))
    _check_digest(version, file, digest_of(content.models, content.rates), digest)
    return content


def _open_agreements(version: BookVersion, open_object: OpenObject) -> tuple[Override, ...]:
    digest = version.manifest.agreements
    if digest is None:
        return ()
    file = object_name(AGREEMENTS, digest)
    overrides = parse_agreements(file, _text_of(file, AGREEMENTS, digest, open_object))
    _check_digest(version, file, agreements_digest(overrides), digest)
    return overrides


def _text_of(file: str, name: str, digest: str, open_object: OpenObject) -> str:
    try:
        return open_object(name, digest)
    except UnicodeDecodeError as broken:
        raise BookBroken([f"{file}: {broken}"]) from broken


def _check_digest(version: BookVersion, file: str, found: str, promised: str) -> None:
    if found != promised:
        raise BookBroken(
            [
                f"price book {version.version} was edited after it was published: the content of "
                f"{file} is {found}, the manifest says {promised}; publish a new version"
            ]
        )


def read_catalog(folder: Path) -> tuple[list[ModelEntry], list[Rate]]:
    """Read every provider file of a folder and check it as a book would.

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
    places: list[str] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = parse_prices(path.name, path.read_text("utf-8"))
        except BookBroken as broken:
            problems += broken.problems
            continue
        except UnicodeDecodeError as garbled:
            problems.append(f"{path.name}: {garbled}")
            continue
        models += content.models
        rates += content.rates
        places += content.places
    problems += find_name_problems(models)
    problems += find_rate_problems(models, rates, places)
    if problems:
        raise BookBroken(problems)
    return models, rates
