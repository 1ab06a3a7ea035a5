"""Negotiated rates: which one a payer gets, what it comes to, and what is refused."""

import json
from datetime import timedelta
from decimal import Decimal
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.agreements import OverrideRefused, Payer
from pricing.book import Book, BookBroken, Manifest, describe_version
from pricing.meters import Meter
from pricing.rating import rate_usage, total_cost, total_list_cost
from pricing.rows import agreements_text, parse_agreements
from tests.pricing.cards import LATER, START, book_of, card_of, cost_of, entry, override, rate

RATES = [
    rate("input", "2"),
    rate("cache_read", "0.2"),
    rate("output", "10"),
    rate("input", "4", over=1000),
    rate("output", "15", over=1000),
    rate("input", "1", tier="batch"),
    rate("output", "5", tier="batch"),
    rate("web_search", "10", per=1000),
    rate("web_search", "30", per=1000, variant="high"),
    rate("input", "2.2", region="us"),
]
ME = Payer("acme", "search", "rag")
THING = {"provider": "p", "model": "m"}


def my_cost(counts, *overrides, payer=ME, at=START, **where):
    card = book_of(*RATES, overrides=overrides).find_card("p", "m", at, payer)
    return cost_of(counts, card, **where)


@pytest.mark.parametrize(
    ("fields", "usage", "where", "cost"),
    [
        ({}, {"input": 1000, "output": 100}, {}, "0.00255"),  # 3 millis less 15 %
        ({"percent": "-100"}, {"input": 1000}, {}, "0"),
        ({"percent": "0"}, {"input": 1000}, {}, "0.002"),
        ({"percent": "12.5"}, {"input": 1000}, {}, "0.00225"),
        ({"provider": "p"}, {"input": 1000}, {}, "0.0017"),
        ({"meter": "input"}, {"input": 1000, "output": 100}, {}, "0.0027"),
        ({"tier": "batch"}, {"input": 1000}, {}, "0.002"),
        ({"tier": "batch"}, {"input": 1000}, {"tier": "batch"}, "0.00085"),
        ({"over": 1000}, {"input": 1000}, {}, "0.002"),
        ({"over": 1000}, {"input": 1001}, {}, "0.0034034"),
        ({"region": "us"}, {"input": 1000}, {}, "0.002"),
        ({"region": "us"}, {"input": 1000}, {"region": "us"}, "0.00187"),
        ({**THING, "meter": "input", "amount": "1.5"}, {"input": 1000}, {}, "0.0015"),
        # An amount replaces the price in every band and tier, unless it names them.
        ({**THING, "meter": "input", "amount": "1.5"}, {"input": 2000}, {}, "0.003"),
        (
            {**THING, "meter": "input", "amount": "1.5", "tier": "batch"},
            {"input": 1000},
            {},
            "0.002",
        ),
        (
            {**THING, "meter": "web_search", "amount": "0.004", "per": 1, "variant": "high"},
            {"web_search": 2},
            {"variants": {Meter.WEB_SEARCH: "high"}},
            "0.008",
        ),
        # Billed as output because it has no price of its own: the agreement on output holds.
        ({"meter": "output"}, {"reasoning": 100}, {}, "0.00085"),
    ],
)
def test_costs_are_those_worked_out_by_hand(fields, usage, where, cost):
    """What was agreed replaces the published price of what it names, and nothing else."""
    assert cost == my_cost(usage, override(**fields), **where)


def test_a_line_has_both_prices():
    """The published cost stands beside the one to pay, both from one quantity."""
    card = card_of(*RATES, overrides=[override(meter="input")], payer=ME)
    lines = rate_usage({Meter.INPUT: 1000, Meter.OUTPUT: 100}, card)

    assert ["0.0017", "0.001"] == [str(line.cost) for line in lines]
    assert ["0.002", "0.001"] == [str(line.list_cost) for line in lines]
    assert ["1.7", "10"] == [line.rate.amount_text for line in lines]
    assert ["o", None] == [line.rate.agreement for line in lines]
    assert ("0.0027", "0.003") == (
        str(total_cost(lines, "USD")),
        str(total_list_cost(lines, "USD")),
    )


@pytest.mark.parametrize(
    ("payer", "overrides", "cost"),
    [
        (ME, [{"percent": "-10"}], "0.0018"),
        (None, [{"percent": "-10"}], "0.002"),  # nobody in particular: published prices
        (Payer(), [{"percent": "-10"}], "0.0018"),
        (Payer(), [{"team": "search"}], "0.002"),
        (Payer("acme", None, None), [{"team": "search"}, {"percent": "-10"}], "0.0018"),
        (ME, [{"organization": "acme"}], "0.0017"),
        (ME, [{"organization": "other"}], "0.002"),
        (ME, [{"team": "search", "organization": "other"}], "0.002"),
        (ME, [{"team": "search", "organization": "acme"}], "0.0017"),
        (ME, [{"project": "rag", "percent": "-50"}, {"team": "search"}], "0.001"),
        (ME, [{"team": "search", "percent": "-50"}, {"organization": "acme"}], "0.001"),
        (ME, [{"organization": "acme", "percent": "-50"}, {}], "0.001"),
        # The payer goes before the thing.
        (ME, [{"team": "search", "percent": "-50"}, {"meter": "input"}], "0.001"),
        (ME, [{"meter": "input", "percent": "-50"}, {**THING}], "0.001"),
        (ME, [{**THING, "percent": "-50"}, {"provider": "p"}], "0.001"),
        (ME, [{"provider": "p", "percent": "-50"}, {}], "0.001"),
        (ME, [{"provider": "p", "meter": "input", "percent": "-50"}, {"meter": "input"}], "0.001"),
        (ME, [{"tier": "standard", "percent": "-50"}, {}], "0.001"),
        # The newest of those that are equally specific.
        (ME, [{"valid_from": LATER, "percent": "-50"}, {}], "0.001"),
    ],
)
def test_the_most_specific_one_holds(payer, overrides, cost):
    """First by who pays, then by what is sold, then by the day it starts; in any order."""
    several = [override(f"o{n}", **fields) for n, fields in enumerate(overrides)]
    for ordered in (several, several[::-1]):
        assert cost == my_cost({"input": 1000}, *ordered, payer=payer, at=LATER)


def test_an_agreement_holds_from_its_first_to_its_last_instant():
    """Half-open, like a rate."""
    agreed = override(valid_from=START + timedelta(days=1), valid_to=LATER)
    edges = [START, agreed.valid_from, LATER - timedelta(microseconds=1), LATER]

    assert ["0.002", "0.0017", "0.0017", "0.002"] == [
        my_cost({"input": 1000}, agreed, at=at) for at in edges
    ]


def test_a_payer_without_an_agreement_has_the_published_card():
    """The same card, so nothing is worked out again."""
    book = book_of(
        *RATES,
        rate("input", "1", model="n"),
        models=[entry(), entry("n")],
        overrides=[override(team="other", model="m"), override("u", team="search", region="us")],
    )
    plain = book.find_card("p", "m", START)

    assert plain is book.find_card("p", "m", START, Payer("acme", "nobody", "x"))
    assert () == plain.agreements
    assert book.find_card("p", "n", START) is book.find_card("p", "n", START, ME)
    assert ("u",) == book.find_card("p", "m", START, ME).agreements


def test_cards_are_as_many_as_agreements_not_as_callers():
    """A thousand projects of one team share one card."""
    book = book_of(*RATES, overrides=[override(team="search")])
    cards = {id(book.find_card("p", "m", START, Payer("a", "search", f"p{n}"))) for n in range(999)}

    assert 1 == len(cards)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": ""}, "needs an id and a reason"),
        ({"why": ""}, "needs an id and a reason"),
        ({"team": ""}, "what it names has a name"),
        ({**THING, "meter": "input", "amount": "1", "percent": Decimal(1)}, "either a percent or"),
        ({"percent": "NaN"}, "NaN is not a percentage"),
        ({"percent": "-100.1"}, "-100.1 % is not between -100 and 1000"),
        ({"percent": "1001"}, "1001 % is not between"),
        ({"percent": "-15", "per": 1000}, "a percent is of the published price and has no per"),
        ({"amount": "1"}, "name provider, model and meter"),
        ({**THING, "meter": "input", "amount": "1", "per": 0}, "not per 0"),
        ({**THING, "meter": "input", "amount": "1", "per": None}, "not per None"),
        ({**THING, "meter": "input", "amount": "-1"}, "-1 is not between 0 and"),
        ({**THING, "meter": "input", "amount": "NaN"}, "NaN is not between 0 and"),
        ({**THING, "meter": "input", "amount": "1000000001"}, "is not between 0 and"),
        ({**THING, "meter": "input", "amount": "0.1234567890123"}, "more than twelve decimals"),
        ({"valid_from": START.replace(tzinfo=None)}, "need a time zone"),
        ({"valid_to": LATER.replace(tzinfo=None)}, "need a time zone"),
        ({"valid_to": START}, "before it starts"),
    ],
    ids=str,
)
def test_what_is_no_agreement_is_refused(fields, problem):
    """The message names the override."""
    with pytest.raises(OverrideRefused, match=rf"override '.*': .*({problem})"):
        override(**fields)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ([override(), override()], "override 'o': is given twice"),
        ([override("a"), override("b")], "'a': 'b' is as specific and starts at the same instant"),
        (
            [override("a", meter="input", tier="batch"), override("b", meter="input", region="us")],
            "nothing says which holds",
        ),
        ([override(provider="p", model="gone")], "p has no model 'gone'"),
        ([override(provider="p", model="m-1")], "'m-1' is another name of 'm'; write that"),
        ([override(**THING, meter="page")], "the book has no price it could be about"),
        ([override(provider="p", tier="bogus")], "the book has no price it could be about"),
        ([override(provider="q")], "the book has no price it could be about"),
        ([override(provider="q", model="m")], "q has no model 'm'"),
        ([override(model="gone", team="a")], "the book has no price it could be about"),
        (
            [override(**THING, meter="input", amount="1", currency="EUR")],
            "p/m/input/standard: is sold in USD, the amount is in EUR",
        ),
        (
            [override(percent="-0.00001")],
            "p/m/page/batch: 0.1234567766543211 has more than twelve decimals",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_agreements_that_contradict_or_name_nothing_are_refused(overrides, problem):
    """At load, so that no call is ever priced by chance."""
    prices = [rate("input", "2"), rate("page", "0.123456789", tier="batch")]
    if overrides[0].meter is Meter.PAGE:
        prices.pop()
    with pytest.raises(BookBroken, match=problem):
        book_of(*prices, models=[entry(aliases=["m-1"])], overrides=overrides)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"team": "a"}, {"team": "b"}),
        ({"meter": "input"}, {"meter": "output"}),
        ({"tier": "standard"}, {"tier": "batch"}),
        ({"valid_from": START}, {"valid_from": LATER}),
        ({"team": "a"}, {"project": "x"}),
    ],
    ids=str,
)
def test_agreements_that_cannot_meet_stand_side_by_side(one, other):
    """Different payers, things, tiers or days need no order."""
    assert 2 == len(
        book_of(*RATES, overrides=[override("a", **one), override("b", **other)]).overrides
    )


def test_agreements_of_providers_that_are_not_loaded_are_passed_over():
    """A part of a book can be loaded with all the agreements of its version."""
    others = [override(provider="q", model="x"), override("all", model="elsewhere")]
    version = describe_version("v", Manifest(providers={"p": "", "q": ""}), recorded_at=START)
    card = Book(version, [entry()], RATES, others).find_card("p", "m", START, ME)

    assert "0.002" == cost_of({"input": 1000}, card)


def test_what_is_written_is_read_back():
    """Every field survives."""
    several = [
        override("a", **THING, meter="input", amount="1.50", valid_to=LATER, currency="EUR"),
        override("b", organization="o", team="t", project="p", tier="x", over=1, region="r"),
        override("c", variant="hd", percent="-12.5"),
    ]

    assert tuple(several) == parse_agreements("a.json", agreements_text(several[::-1]))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"percent": -15}, "write the number as text, not int: -15"),
        ({"percent": -15.5}, "write -15.5 as text: prices are never floats"),
        ({"percent": "much"}, "'much' is not a decimal number"),
        ({"id": ...}, "the field 'id' is missing"),
        ({"team": 5}, "team is text, not 5"),
        ({"meter": "tokens"}, "'tokens' is not a valid Meter"),
        ({"colour": "red"}, "unknown fields ['colour']"),
        ({"valid_from": "2026-01-01"}, "2026-01-01 needs a time zone"),
        ({"amount": "1"}, "override 'o': give either a percent or an amount"),
    ],
    ids=str,
)
def test_a_broken_agreement_is_refused_with_its_place(row, problem):
    """File and number of the agreement stand before what is wrong with it; all are said at once."""
    good = {"id": "o", "percent": "-15", "valid_from": START.isoformat(), "why": "contract 7"}
    bad = {name: value for name, value in (good | row).items() if value is not ...}

    with pytest.raises(BookBroken) as caught:
        parse_agreements("a.json", json.dumps({"agreements": [good, bad, bad]}))
    assert [f"a.json: agreement {n}: {problem}" for n in (2, 3)] == list(caught.value.problems)


@pytest.mark.parametrize("text", ["[]", "{}", '{"agreements": {}}', '{"agreements": [], "x": 1}'])
def test_a_file_that_is_no_list_of_agreements_is_refused(text):
    """The message says what is expected."""
    with pytest.raises(BookBroken, match="an object with one list, agreements"):
        parse_agreements("a.json", text)


NAMES = [None, "a", "b"]
PAYERS = [Payer(*names) for names in product([None, "a", "b"], repeat=3)]


@st.composite
def terms(draw, number):
    named = {name: draw(st.sampled_from(NAMES)) for name in ("organization", "team", "project")}
    meter = draw(st.sampled_from([None, "input", "output"]))
    return override(
        f"o{number}",
        percent=str(draw(st.integers(min_value=-100, max_value=100))),
        valid_from=START + timedelta(hours=number),
        **({} if meter is None else {"meter": meter}),
        **{name: value for name, value in named.items() if value},
    )


@given(st.data())
def test_what_a_payer_gets_is_found_whatever_the_index(data):
    """Looking at every agreement one by one finds the same price."""
    several = [data.draw(terms(n)) for n in range(data.draw(st.integers(0, 6)))]
    payer = data.draw(st.sampled_from(PAYERS))
    at = START + timedelta(hours=data.draw(st.integers(0, 7)))
    card = book_of(*RATES, overrides=several).find_card("p", "m", at, payer)
    for price in card.all_prices():
        mine = [
            o
            for o in several
            if o.holds_at(at) and o.is_for_payer(payer) and o.is_for_rate(price.rate)
        ]
        best = max(mine, key=lambda o: o.rank, default=None)
        factor = 1 if best is None else 1 + best.percent / 100

        assert (None if best is None else best.id) == price.agreement
        assert price.rate.amount * factor == Decimal(price.amount_text)


@given(
    st.dictionaries(
        st.sampled_from([Meter.INPUT, Meter.CACHE_READ, Meter.OUTPUT]),
        st.integers(min_value=0, max_value=10**7),
    ),
    st.integers(min_value=-100, max_value=100),
)
def test_a_percent_off_everything_is_a_percent_off_the_bill(counts, percent):
    """And the published cost is that of the published card."""
    card = card_of(*RATES, overrides=[override(percent=str(percent))], payer=ME)
    lines = rate_usage(counts, card)
    published = total_cost(rate_usage(counts, card_of(*RATES)), "USD")

    assert published == total_list_cost(lines, "USD")
    assert published.pico * (100 + percent) == total_cost(lines, "USD").pico * 100
