"""Books of several versions and calls that were really priced with one of them.

Must never write a correction itself: those come from what is tested.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from msgspec import UNSET

from gateway.clock import from_epoch_us
from gateway.ledger.lines import to_ledger_lines, to_ledger_usage
from gateway.ledger.record import LedgerRecord
from gateway.settlement import rate_call
from pricing.agreements import Override, Payer
from pricing.book import Book, BookBroken, BookVersion, Manifest, describe_version
from pricing.meters import Meter
from pricing.served import Served
from pricing.shelf import BookShelf
from pricing.usage import Basis, Quantity, Usage
from tests.contracts.records import NOON_US, SECOND_US, make_record, mint
from tests.pricing.cards import entry, override, rate

DAY_ONE = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("v1", "v2", "v3", "v4")
MODELS = ("m", "n")
TEAMS = ("ads", "search", None)

# Amounts for a million tokens, by version: dearer, cheaper, and no whole price for one token.
_AMOUNTS = {
    "v1": ("1.25", "0.125", "10"),
    "v2": ("2.50", "0.125", "12"),
    "v3": ("0.07", "0.0035", "0.333333333"),
}


def _rates(version: str, model: str) -> list[Any]:
    plain, cached, out = _AMOUNTS[version]
    found = [
        rate("input", plain, model=model),
        rate("cache_read", cached, model=model),
        rate("output", out, model=model),
        rate("input", plain, model=model, tier="flex", per=2_000_000),
        rate("output", out, model=model, tier="flex", per=2_000_000),
        rate("input", "9.99", model=model, over=200_000),
        rate("image", "0.04", model=model, per=1, variant="small"),
        rate("image", "0.08", model=model, per=1, variant="large"),
    ]
    # The model "n" loses the price of images in v2, and has none at all in v3.
    return [one for one in found if not (version == "v2" and model == "n" and one.variant)]


def _book(version: str, day: int) -> Book:
    agreed: list[Override] = []
    source = "v1" if version == "v4" else version
    if version == "v4":
        agreed = [override("ads", team="ads", percent="-12.5")]
    models = MODELS[:1] if version == "v3" else MODELS
    described = describe_version(
        version, Manifest(providers={"p": "sha256:made-up"}), recorded_at=DAY_ONE + timedelta(day)
    )
    rates = [one for model in models for one in _rates(source, model)]
    return Book(described, [entry(model) for model in models], rates, agreed)


BOOKS = {name: _book(name, day) for day, name in enumerate(NAMES)}


class MadeUpVersions:
    """Versions in memory: dearer, cheaper, finer, and v1 with an agreement."""

    def __init__(self, books: Iterable[Book] = tuple(BOOKS.values())) -> None:
        self._books = {book.version.version: book for book in books}
        self._shelf = BookShelf([b.version for b in self._books.values()], self._load)

    def _load(self, version: BookVersion) -> Book:
        return self._books[version.version]

    def find_book(self, version: str, provider: str) -> Book:
        if version not in self._books:
            raise BookBroken([f"no price book version {version}"])
        return self._books[version]

    def known_at(self, at: datetime) -> BookVersion:
        return self._shelf.known_at(at)

    def list_versions(self) -> Sequence[BookVersion]:
        return self._shelf.versions


VERSIONS = MadeUpVersions()


def make_call(
    counts: dict[str, Quantity],
    *,
    version: str = "v1",
    model: str = "m",
    tier: str | None = None,
    basis: Basis = Basis.REPORTED,
    variants: dict[str, str] | None = None,
    is_old: bool = False,
    **changes: Any,
) -> LedgerRecord:
    """Make the record of a call, priced the way the path prices it."""
    at_us = changes.pop("started_at_us", NOON_US)
    usage = Usage(counts={Meter(name): n for name, n in counts.items()}, basis=basis)
    team = changes.pop("team", "search")
    payer = Payer("acme", team, "rag")
    served = Served(
        priced_as="p",
        asked=model,
        model=model,
        tier=tier,
        region=None,
        at=from_epoch_us(at_us),
        payer=payer,
        variants={Meter(name): make for name, make in (variants or {}).items()},
    )
    book = BOOKS[version]
    bill = rate_call(usage, served, book.find_card("p", model, served.at, payer), book)
    tokens_in, tokens_out = usage.totals()
    said: dict[str, Any] = {
        "priced_as": "p",
        "priced_model": bill.priced_model,
        "tier": tier or "standard",
        "variants": variants or UNSET,
        "model_asked": model,
    }
    fields: dict[str, Any] = {
        "id": mint(),
        "started_at_us": at_us,
        "ended_at_us": at_us + SECOND_US,
        "provider": "p",
        "model": model,
        "model_requested": model,
        "team": team,
        "usage": to_ledger_usage(usage.counts),
        "input_total": tokens_in,
        "output_total": tokens_out,
        "basis": basis.value,
        "cost_pico": None if bill.cost is None else bill.cost.pico,
        "list_cost_pico": None if bill.list_cost is None else bill.list_cost.pico,
        "price_version": bill.version,
        "cost_status": bill.status,
        "lines": to_ledger_lines(bill.lines),
        **({} if is_old else said),
    }
    return make_record(**{**fields, **changes})


@st.composite
def any_call(draw: st.DrawFn, /, **fixed: Any) -> LedgerRecord:
    """Draw a call of any size, model, tier, team, make and basis, some from before the fields."""
    tier = draw(st.sampled_from([None, "flex"]))
    meters = ["input", "output"] if tier else ["input", "cache_read", "output", "image"]
    counts: dict[str, Quantity] = draw(
        st.dictionaries(st.sampled_from(meters), st.integers(1, 400_000), max_size=4)
    )
    size = draw(st.sampled_from(["small", "large"]))
    basis = draw(st.sampled_from([Basis.REPORTED, Basis.ESTIMATED, Basis.NONE, Basis.UNKNOWN]))
    if basis in (Basis.NONE, Basis.UNKNOWN):
        counts = {}
    fields: dict[str, Any] = {
        "version": draw(st.sampled_from(NAMES)),
        "model": draw(st.sampled_from([*MODELS, "unheard-of"])),
        "tier": tier,
        "basis": basis,
        "variants": {"image": size} if "image" in counts else None,
        "is_old": draw(st.booleans()),
        "team": draw(st.sampled_from(TEAMS)),
        "started_at_us": NOON_US + draw(st.integers(0, 50)) * 3600 * SECOND_US,
    }
    return make_call(counts, **{**fields, **fixed})


def with_version_named(book: Book, version: BookVersion) -> Book:
    """The same prices under another name."""
    return Book(replace(version), book.models, book.rates, book.overrides)


def usd(pico: int) -> Decimal:
    """Read picodollars as dollars."""
    return Decimal(pico) / 10**12
