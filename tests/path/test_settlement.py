"""A call is priced by what was served, at the instant it began, or it is not priced at all."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.lines import to_ledger_lines, to_ledger_usage
from gateway.settlement import Bill, bill_reported, rate_call
from pricing.agreements import Override, Payer
from pricing.book import Book, load_book
from pricing.meters import Meter
from pricing.money import money_from_text
from pricing.served import Served
from pricing.usage import NOTHING, Basis, Usage, unknown_usage

BOOK = load_book("2026-11-23.1")
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
# 224 and 1024 in, 146 and 64 out; gpt-5 at 1.25, 0.125 and 10 USD a million.
COUNTS = {Meter.INPUT: 224, Meter.CACHE_READ: 1024, Meter.OUTPUT: 146, Meter.REASONING: 64}
USED = Usage(counts=COUNTS, basis=Basis.REPORTED)


def bill(asked: str = "gpt-5", usage: Usage = USED, **served: Any) -> Bill:
    """Rate a call; what was served is named by its fields."""
    fields = {"model": asked, "tier": None, "region": None, "at": AT} | served
    card = BOOK.find_card("openai", asked, fields["at"])
    return rate_call(usage, Served(priced_as="openai", asked=asked, **fields), card, BOOK)


def usd(text: str) -> int:
    """Read money as 10^-12 USD."""
    return money_from_text(text).pico


FULL, FLEX, PRIORITY = "0.002508", "0.001254", "0.005016"
GPT_4O = "0.00394"  # (224 x 2.5 + 1024 x 1.25 + 210 x 10) / 10^6

PRICED = {
    "as asked": (bill(), FULL),
    "model not told": (bill(model=None), FULL),
    "dated snapshot in the book": (bill(model="gpt-5-2025-08-07"), FULL),
    "alias asked, snapshot served": (bill("gpt-4o-2024-08-06", model="gpt-4o"), GPT_4O),
    "another model served": (bill(model="gpt-4o"), GPT_4O),
    "unknown asked, known served": (bill("my-deployment", model="gpt-5-2025-08-07"), FULL),
    "standard": (bill(tier="standard"), FULL),
    "flex": (bill(tier="flex"), FLEX),
    "priority": (bill(tier="priority"), PRIORITY),
    "flex of a snapshot": (bill(model="gpt-5-2025-08-07", tier="flex"), FLEX),
}


@pytest.mark.parametrize(("billed", "cost"), PRICED.values(), ids=PRICED.keys())
def test_what_was_served_is_priced(billed: Bill, cost: str) -> None:
    """Model and tier served decide; the lines add up to the cost; nothing is odd."""
    assert billed.cost is not None
    assert (usd(cost), "final", ()) == (billed.cost.pico, billed.status, billed.flags)
    assert billed.cost.pico == sum(line.cost.pico for line in billed.lines)
    assert list(COUNTS.items()) == [(line.meter, line.quantity) for line in billed.lines]
    assert BOOK.version.version == billed.version


@pytest.mark.parametrize("snapshot", ["gpt-5-2026-12-01", "gpt-5-002", "gpt-5-1106"])
def test_a_new_snapshot_is_priced_as_its_alias_and_flagged(snapshot: str) -> None:
    """The provider bills it as the alias that was asked for; somebody should look."""
    billed = bill(model=snapshot)

    assert billed.cost is not None
    assert usd(FULL) == billed.cost.pico
    assert snapshot in billed.flags[0]


UNPRICED = {
    "another model, unknown": bill(model="gpt-99"),
    "a variant is no snapshot": bill(model="gpt-5-turbo"),
    "a snapshot of a variant": bill(model="gpt-5-ultra-2026-12-01"),
    "a name that only begins alike": bill(model="gpt-5000"),
    "a snapshot with a dash too many": bill(model="gpt-5--2026"),
    "unknown asked and served": bill("my-deployment", model="other"),
    "unknown asked, not told": bill("my-deployment", model=None),
    "tier without a price": bill(tier="scale"),
    "tier of another model": bill("gpt-audio", tier="flex"),
    "meter without a price": bill(
        usage=Usage(counts={Meter.OUTPUT_AUDIO: 5}, basis=Basis.REPORTED)
    ),
    "before the first price": bill(at=datetime(2020, 1, 1, tzinfo=UTC)),
}


@pytest.mark.parametrize("billed", UNPRICED.values(), ids=UNPRICED.keys())
def test_what_has_no_price_has_no_cost(billed: Bill) -> None:
    """Unpriced is not free, and nothing is priced partially."""
    assert ((), None, "unpriced") == (billed.lines, billed.cost, billed.status)


def test_nothing_costs_nothing_and_needs_no_price() -> None:
    """A call that surely was not billed is free, whatever it asked for."""
    for asked in ("gpt-5", "my-deployment"):
        billed = bill(asked, usage=NOTHING)
        assert billed.cost is not None
        assert (0, "final", ()) == (billed.cost.pico, billed.status, billed.lines)


def test_unknown_usage_has_an_unknown_cost() -> None:
    """Never zero."""
    billed = bill(usage=unknown_usage("lost"))

    assert (None, "unknown", ()) == (billed.cost, billed.status, billed.lines)


@pytest.mark.parametrize("basis", [Basis.ESTIMATED, Basis.PARTIAL])
def test_a_guess_of_usage_is_a_guess_of_cost(basis: Basis) -> None:
    """The cost of guessed counts is estimated."""
    assert "estimated" == bill(usage=Usage(counts=COUNTS, basis=basis)).status


def test_a_bill_of_no_tokens_is_free_and_final() -> None:
    """A provider that reports zero is believed."""
    billed = bill(usage=Usage(counts={}, basis=Basis.REPORTED))

    assert billed.cost is not None
    assert (0, "final") == (billed.cost.pico, billed.status)


AGREED = Book(
    BOOK.version,
    BOOK.models,
    BOOK.rates,
    [
        Override(
            id="contract",
            team="search",
            percent=Decimal(-20),
            valid_from=AT - timedelta(days=1),
            valid_to=None,
            why="contract 7",
        )
    ],
)
PAYER = Payer("acme", "search", "rag")


@pytest.mark.parametrize(
    ("model", "cost", "list_cost"),
    [("gpt-5", "0.0020064", FULL), ("gpt-4o", "0.003152", GPT_4O)],
    ids=["as asked", "another model served"],
)
def test_the_payer_has_negotiated_prices(model: str, cost: str, list_cost: str) -> None:
    """20 % off whatever is served, with the published cost beside it on every line."""
    served = Served(
        priced_as="openai", asked="gpt-5", model=model, tier=None, region=None, at=AT, payer=PAYER
    )
    billed = rate_call(USED, served, AGREED.find_card("openai", "gpt-5", AT, PAYER), AGREED)
    lines = to_ledger_lines(billed.lines)

    assert billed.cost is not None
    assert billed.list_cost is not None
    assert (usd(cost), usd(list_cost)) == (billed.cost.pico, billed.list_cost.pico)
    assert billed.cost.pico == sum(line.cost_pico for line in lines)
    assert billed.list_cost.pico == sum(line.list_cost_pico for line in lines)
    for line in lines:
        exact = Decimal(line.quantity) * Decimal(line.unit_price) / line.per * 10**12
        assert exact == Decimal(line.cost_pico)
        assert line.cost_pico * 100 == line.list_cost_pico * 80


def test_what_has_no_cost_has_no_list_cost() -> None:
    """Unknown is unknown at any price."""
    unknown, nothing = bill(usage=unknown_usage("lost")), bill(usage=NOTHING)

    assert unknown.list_cost is None
    assert bill("no-such-model").list_cost is None
    assert nothing.list_cost == nothing.cost


@given(st.dictionaries(st.sampled_from([*COUNTS]), st.integers(0, 10**9)))
def test_every_line_can_be_worked_out_again(counts: dict[Meter, int]) -> None:
    """Cost is quantity times unit price over per, on every line the ledger keeps."""
    billed = bill(usage=Usage(counts=counts, basis=Basis.REPORTED))
    for line in to_ledger_lines(billed.lines):
        exact = Decimal(line.quantity) * Decimal(line.unit_price) / line.per * 10**12
        assert exact == Decimal(line.cost_pico)
        assert line.cost_pico == line.list_cost_pico

    assert {meter.value: count for meter, count in counts.items()} == to_ledger_usage(counts)


def test_fractions_are_kept_as_text() -> None:
    """Seconds may have fractions, which no float may touch."""
    assert {"audio_second": "1.50", "input": 3} == to_ledger_usage(
        {Meter.AUDIO_SECOND: Decimal("1.50"), Meter.INPUT: 3}
    )


def test_the_instant_decides_the_price() -> None:
    """A call from before a price was published has none."""
    first = datetime(2025, 8, 7, tzinfo=UTC)

    assert "final" == bill(at=first).status
    assert "unpriced" == bill(at=first - timedelta(microseconds=1)).status


@pytest.mark.parametrize(
    ("billed", "name"),
    [
        (bill(), "gpt-5"),
        (bill(model=None), "gpt-5"),
        (bill(model="gpt-5-2025-08-07"), "gpt-5"),
        (bill(model="gpt-5-2030-01-01"), "gpt-5"),
        (bill(model="gpt-4o"), "gpt-4o"),
        (bill("my-deployment", model=None, behind="gpt-9"), "gpt-9"),
        (bill("my-deployment", model="my-deployment", behind="gpt-9"), "gpt-9"),
        (bill("gpt-9", model="gpt-9-2030-01-01"), "gpt-9"),
        (bill("gpt-9", model="gpt-10"), "gpt-10"),
        (bill(usage=unknown_usage("lost")), "gpt-5"),
        (bill(usage=NOTHING), ""),
    ],
)
def test_a_bill_names_the_model_whose_prices_apply(billed: Bill, name: str) -> None:
    """Also where there is no price yet: it is looked up again by this name."""
    assert name == billed.priced_model


@pytest.mark.parametrize(
    ("told", "unit_price", "cost"),
    [
        ("0.00065325", "0.00065325", "0.00065325"),
        ("0", "0", "0"),
        ("1E+1", "10", "10"),
        ("0.1000", "0.1", "0.1"),
        ("0.00000000000050", "0.0000000000005", "0"),
        ("0.0000000000015", "0.0000000000015", "0.000000000002"),
    ],
)
@pytest.mark.parametrize("by_book", [bill(), bill(model="gpt-99"), bill(tier_asked="flex")])
def test_what_the_provider_says_it_costs_is_the_bill(
    by_book: Bill, told: str, unit_price: str, cost: str
) -> None:
    """One final line at that price, whether the book has another or none."""
    billed = bill_reported(by_book, Decimal(told))
    (line,) = to_ledger_lines(billed.lines)

    assert (usd(cost), usd(cost), "final") == (line.cost_pico, line.list_cost_pico, billed.status)
    assert billed.cost == billed.list_cost == billed.provider_cost
    assert ("request", "1", unit_price, 1) == (
        line.meter,
        line.quantity,
        line.unit_price,
        line.per,
    )
    assert line.price_id == f"openai/{billed.priced_model}/request/reported"


@pytest.mark.parametrize("usage", [NOTHING, unknown_usage("lost")])
def test_no_word_of_a_provider_makes_an_unknown_known(usage: Usage) -> None:
    """Nothing billable costs nothing, and an unknown stays one."""
    by_book = bill(usage=usage)

    assert by_book is bill_reported(by_book, Decimal(1))
