"""Several models worked on one call: each at its own price, in one record that adds up."""

from datetime import UTC, datetime

import pytest

from gateway.ledger.corrected import posted_call
from gateway.ledger.record import LedgerRecord
from gateway.rederive import derive_lines
from gateway.rerating import Left, Repriced, Rerater
from gateway.settlement import Bill
from gateway.several import rate_several, sum_usage
from gateway.wire.facts import OtherUse
from pricing.agreements import Payer
from pricing.book import load_book
from pricing.meters import Meter
from pricing.money import money_from_text
from pricing.served import Served
from pricing.usage import NOTHING, Basis, Usage, unknown_usage
from tests.golden.test_golden import HERE, called
from tests.path.world import BOOK
from tests.rerating.kit import MadeUpVersions

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
SERVED = Served(
    priced_as="anthropic",
    asked="claude-haiku-4-5",
    model="claude-haiku-4-5-20251001",
    tier="standard",
    region=None,
    at=AT,
    payer=Payer("acme", "search", "rag"),
)
CARD = BOOK.find_card("anthropic", "claude-haiku-4-5", AT)
VERSIONS = MadeUpVersions([BOOK])


def used(tokens_in: int, tokens_out: int, basis: Basis = Basis.REPORTED) -> Usage:
    """Count tokens."""
    return Usage(counts={Meter.INPUT: tokens_in, Meter.OUTPUT: tokens_out}, basis=basis)


def bill(usage: Usage, *others: OtherUse) -> Bill:
    """Rate a call of Haiku."""
    return rate_several(usage, others, SERVED, CARD, BOOK)


def usd(text: str) -> int:
    """Read money as 10^-12 USD."""
    return money_from_text(text).pico


OPUS = OtherUse(model="claude-opus-4-8", usage=used(1000, 100))
# Haiku 1000 x 1 + 100 x 5, Opus 1000 x 5 + 100 x 25 USD per million; half of that as a batch, a
# tenth more in the United States, twice as much when fast.
BILLS = {
    "standard": (OPUS, "0.009"),
    "batch": (OtherUse(model="claude-opus-4-8", usage=used(1000, 100), tier="batch"), "0.00525"),
    "us": (OtherUse(model="claude-opus-4-8", usage=used(1000, 100), region="us"), "0.00975"),
    "fast": (OtherUse(model="claude-opus-4-8", usage=used(1000, 100), tier="fast"), "0.0165"),
}


@pytest.mark.parametrize(("other", "cost"), BILLS.values(), ids=BILLS.keys())
def test_every_model_has_its_own_price(other: OtherUse, cost: str) -> None:
    """Its tier and region too; the lines add up."""
    found = bill(used(1000, 100), other)

    assert found.cost is not None
    assert (usd(cost), "final") == (found.cost.pico, found.status)
    assert found.cost.pico == sum(line.cost_pico for line in found.lines)
    assert 4 == len(found.lines)


def test_one_model_without_a_price_leaves_the_cost_unknown() -> None:
    """Never zero, and never the rest alone."""
    found = bill(used(1000, 100), OtherUse(model="claude-unheard-of", usage=used(1, 1)))

    assert (None, None, (), "unpriced") == (
        found.cost,
        found.list_cost,
        found.lines,
        found.status,
    )
    assert any("claude-unheard-of" in flag for flag in found.flags)


def test_a_model_that_was_not_billed_leaves_the_others() -> None:
    """A refusal before any output, after an advisor was asked."""
    found = bill(NOTHING, OPUS)

    assert found.cost is not None
    assert (usd("0.0075"), "final") == (found.cost.pico, found.status)
    assert bill(NOTHING, OtherUse(model="x", usage=NOTHING)).cost == money_from_text("0")


def test_usage_is_as_sure_as_the_least_sure_of_it() -> None:
    """Sums by meter; nobody knows the sum where one part is not known."""
    summed = sum_usage(used(1, 2), (OtherUse(model="a", usage=used(10, 20, Basis.PARTIAL)),))
    unknown = sum_usage(used(1, 2), (OtherUse(model="a", usage=unknown_usage("why")),))

    assert ({Meter.INPUT: 11, Meter.OUTPUT: 22}, Basis.PARTIAL) == (summed.counts, summed.basis)
    assert ({}, Basis.UNKNOWN, ("why",)) == (unknown.counts, unknown.basis, unknown.flags)
    assert "unknown" == bill(used(1, 2), OtherUse(model="a", usage=unknown_usage("why"))).status


def golden(case: str) -> LedgerRecord:
    """Make the call of a golden case; give its record."""
    return called(HERE / "anthropic_messages" / case, "whole")[0].record


def test_a_record_of_several_models_is_derived_again_line_by_line() -> None:
    """Every line names its own model."""
    record = golden("advisor")
    derived = derive_lines(record, VERSIONS.find_book)

    assert 4 == len(derived)
    assert [None] * 4 == [one.problem for one in derived]


def test_a_record_of_several_models_is_left_as_it_is() -> None:
    """Its counts are sums over models, so no price can be applied to them."""
    verdict = Rerater(VERSIONS, BOOK.version.version).rate(posted_call(golden("advisor"), ()))

    assert isinstance(verdict, Left)
    assert ("several_models", True) == (verdict.reason, "several models" in verdict.detail)


def test_a_record_whose_models_are_one_is_re_rated() -> None:
    """What several models might have served and one did has one price."""
    record = golden("fallback-declined-before-output")
    versions = MadeUpVersions([BOOK, load_book("2026-11-23.2", providers=["anthropic"])])
    verdict = Rerater(versions, "2026-11-23.2").rate(posted_call(record, ()))

    assert isinstance(verdict, Repriced)
    assert (record.cost_pico, False) == (verdict.cost_pico, verdict.is_changed)
