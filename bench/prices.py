"""``python -m bench.prices``: what looking prices up, rating a call and reading price lists cost.

Must never time a first call: what the path meets is a card that is compiled.
"""

import sys
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from bench.report import machine_lines, to_table_of
from pricing.agreements import Override, Payer
from pricing.book import Book, load_book
from pricing.importers.sources import SOURCES, load_candidate
from pricing.meters import Meter
from pricing.rating import rate_usage, total_cost

HERE: Final = Path(__file__).parent
_AT: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)
_CALLS: Final = 5_000
_REPEATS: Final = 7
_COUNTS: Final = {
    Meter.INPUT: 190,
    Meter.CACHE_READ: 512,
    Meter.OUTPUT: 46,
    Meter.REASONING: 12,
}
_PAYER: Final = Payer("acme", "search", "rag")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing measured.

    Attributes:
        name: What.
        value: In ``unit``.
        limit: The most it may be.
        unit: Of both.
    """

    name: str
    value: float
    limit: float
    unit: str

    @property
    def is_held(self) -> bool:
        """Whether it is within its limit."""
        return self.value <= self.limit


def measure() -> list[Figure]:
    """Measure everything.

    Returns:
        One figure each, in the order of the page.
    """
    plain = load_book(providers=["openai"])
    agreed = Book(plain.version, plain.models, plain.rates, _agreements())
    return [
        _per_call("look up a rate card", _look_up(plain), 5),
        _per_call("the same under 1,000 agreements", _look_up(agreed), 5),
        _per_call("rate a settled call of four lines", _rate(plain), 15),
        _per_call("the same at negotiated prices", _rate(agreed), 15),
        _once("load the prices of one provider", lambda: load_book(providers=["openai"]), 1),
        _once("load the whole price book", load_book, 10),
        _once("read both price lists", _read_lists, 10),
    ]


def _agreements() -> list[Override]:
    return [
        Override(
            id=f"t{number}",
            team=f"team-{number}" if number else "search",
            provider="openai",
            percent=Decimal(-10),
            valid_from=datetime(2026, 1, 1, tzinfo=UTC),
            valid_to=None,
            why="bench",
        )
        for number in range(1000)
    ]


def _look_up(book: Book) -> Callable[[], object]:
    return lambda: book.find_card("openai", "gpt-5", _AT, _PAYER)


def _rate(book: Book) -> Callable[[], object]:
    card = book.find_card("openai", "gpt-5", _AT, _PAYER)
    assert card is not None
    return lambda: total_cost(rate_usage(_COUNTS, card), "USD")


def _read_lists() -> object:
    return [load_candidate(name, checked_at=date(2026, 11, 23)) for name in SOURCES]


def _per_call(name: str, run: Callable[[], object], limit_us: float) -> Figure:
    fastest = min(timeit.repeat(run, number=_CALLS, repeat=_REPEATS))
    return Figure(name=name, value=fastest / _CALLS * 1e6, limit=limit_us, unit="us")


def _once(name: str, run: Callable[[], object], limit_s: float) -> Figure:
    started_s = time.perf_counter()
    run()
    return Figure(name=name, value=time.perf_counter() - started_s, limit=limit_s, unit="s")


def main() -> int:
    """Measure, print and write the page; returns 1 when a limit is not held."""
    figures = measure()
    rows = [("what", "figure", "limit", "held")] + [
        (
            one.name,
            f"{one.value:.2f} {one.unit}",
            f"{one.limit:g} {one.unit}",
            "yes" if one.is_held else "NO",
        )
        for one in figures
    ]
    table = to_table_of(rows)
    sys.stdout.write(table)
    page = ["# Results of `python -m bench.prices`", "", table, "## Machine", "", *machine_lines()]
    (HERE / "RESULTS-prices.md").write_text("\n".join(page) + "\n")
    return 0 if all(one.is_held for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
