"""A record's cost worked out again from its price book."""

from decimal import Decimal

import msgspec

from gateway.ledger.lines import to_ledger_lines
from gateway.rederive import derive_lines
from pricing.agreements import Payer
from pricing.book import BookBroken
from pricing.meters import Meter
from pricing.rating import rate_reported, rate_usage
from tests.contracts.records import make_record
from tests.pricing.cards import START, book_of, override, rate

BOOK = book_of(
    rate("input", "1.25"),
    rate("output", "10"),
    overrides=[override("o1", team="search", meter="output", percent="-20")],
)


def record(book=BOOK, team="search"):
    """A call of a thousand tokens each way, billed with a book."""
    made = make_record(team=team, price_version="test.1")
    at = START.replace(month=2)
    made = msgspec.structs.replace(made, started_at_us=int(at.timestamp()) * 1_000_000)
    payer = (made.organization, made.team, made.project)
    card = book.find_card("p", "m", at, Payer(*payer))
    lines = rate_usage({Meter.INPUT: 1000, Meter.OUTPUT: 1000}, card, tier="standard")
    return msgspec.structs.replace(made, lines=to_ledger_lines(lines))


def find(version, provider):
    """Find the one book there is."""
    assert ("test.1", "p") == (version, provider)
    return BOOK


def test_the_book_says_what_was_booked():
    """Each line with its rate, its override and where the price stands."""
    plain, agreed = derive_lines(record(), find)

    assert (None, None) == (plain.problem, agreed.problem)
    assert (None, "o1") == (plain.price.agreement, agreed.price.agreement)
    assert ("8", "10") == (agreed.price.amount_text, agreed.price.listed.amount_text)
    assert "made up" == plain.price.rate.source


def test_a_line_that_was_billed_otherwise_is_found():
    """At another price, or for another payer."""
    other = book_of(rate("input", "1.25"), rate("output", "10"))
    plain, wrong = derive_lines(record(other), find)

    assert None is plain.problem
    assert "output: 0.008 at 8 per 1000000 in the price book, 0.01 booked" == wrong.problem
    listed = msgspec.structs.replace(
        record(), lines=[msgspec.structs.replace(one, list_cost_pico=1) for one in record().lines]
    )
    assert "published price" in derive_lines(listed, find)[0].problem


def test_a_price_or_a_book_that_is_gone_is_said_so():
    """Nothing is guessed."""

    def lost(version, provider):
        raise BookBroken(["no price book version test.1"])

    assert "no price book version test.1" in derive_lines(record(), lost)[0].problem
    early = msgspec.structs.replace(record(), started_at_us=0)
    assert "has no p/m/input/standard then" in derive_lines(early, find)[0].problem


def test_what_the_provider_said_is_in_the_record_and_in_no_book():
    """The one line is the figure the record keeps, or something is wrong."""
    told = rate_reported(Decimal("0.00065325"), "p", "m", START)
    said = msgspec.structs.replace(
        record(), lines=to_ledger_lines([told]), provider_cost_pico=told.cost_pico
    )
    (line,) = derive_lines(said, find)
    (other,) = derive_lines(msgspec.structs.replace(said, provider_cost_pico=1), find)
    (none,) = derive_lines(msgspec.structs.replace(said, provider_cost_pico=None), find)

    assert (None, None) == (line.price, line.problem)
    assert "the provider said 0.000000000001, 0.00065325 booked" in other.problem
    assert "the provider said nothing" in none.problem
