"""Why a price applies: the winner is the bill's, and every loser has a true reason."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.agreements import Payer
from pricing.explain import APPLIES, PriceQuestion, explain_price
from pricing.hours import parse_hours
from pricing.meters import Meter
from pricing.rating import UnpricedSku, rate_usage
from tests.pricing.cards import LATER, START, book_of, entry, override, rate

NIGHT = parse_hours("daily 22:00-06:00 UTC")
NOON = START.replace(hour=12)
BOOK = book_of(
    rate("input", "2", valid_to=LATER),
    rate("input", "3", valid_from=LATER),
    rate("input", "1.5", hours=NIGHT, valid_to=LATER),
    rate("input", "4", over=1000),
    rate("input", "1", tier="batch"),
    rate("input", "2.2", region="us"),
    rate("output", "10"),
    rate("image", "0.04", per=1, variant="1k"),
    rate("image", "0.08", per=1, variant="4k"),
    rate("web_search", "10", per=1000),
    rate("web_search", "30", per=1000, variant="high"),
    models=[entry(aliases=["m-1"])],
    overrides=[
        override("ours", team="a"),
        override("theirs", team="b", percent="-20"),
        override("all", provider="p", percent="-1"),
        override("soon", team="a", meter="input", valid_from=LATER),
        override("gone", team="a", meter="input", valid_from=START, valid_to=NOON),
        override("tokens", team="a", model="m", meter="output", percent="-5"),
        override("flat", team="c", provider="p", model="m", meter="output", amount="7"),
    ],
)
ME = Payer("acme", "a", "x")


def ask(meter="input", **where):
    fields = {"provider": "p", "name": "m", "at": NOON} | where
    return explain_price(BOOK, PriceQuestion(meter=Meter(meter), **fields))


def verdicts(explanation):
    return {
        (found.name, found.terms): found.verdict
        for found in (*explanation.rates, *explanation.overrides)
    }


@pytest.mark.parametrize(
    ("asked", "price_id", "amount", "reason"),
    [
        ({}, "p/m/input/standard", "2", "until 2026-06-01"),
        ({"name": "m-1"}, "p/m/input/standard", "2", "it holds from 2026-01-01"),
        ({"at": LATER.replace(hour=12)}, "p/m/input/standard", "3", "without an end"),
        (
            {"at": START},
            "p/m/input/standard/hours_daily_2200-0600_UTC",
            "1.5",
            "is within daily 22:00-06:00 UTC",
        ),
        ({"input_total": 1001}, "p/m/input/standard/over_1000", "4", "has 1,001 tokens, more than"),
        ({"region": "us"}, "p/m/input/standard/us", "2.2", "it holds from"),
        ({"region": "eu"}, "p/m/input/standard", "2", "no price of region eu, so the one without"),
        ({"tier": "batch"}, "p/m/input/batch", "1", "it holds from"),
        ({"meter": "reasoning"}, "p/m/output/standard", "10", "reasoning has no price of its own"),
        ({"meter": "image", "variant": "4k"}, "p/m/image/standard/4k", "0.08", "the price of 4k"),
        (
            {"meter": "web_search", "variant": "low"},
            "p/m/web_search/standard",
            "10",
            "there is no price of low, so the plain one holds",
        ),
        ({"payer": ME}, "p/m/input/standard", "1.7", "ours changes the published 2 USD per 1,000,"),
    ],
    ids=str,
)
def test_the_price_that_applies_says_why(asked, price_id, amount, reason):
    """Its id, what is paid, and the reason that is particular to it."""
    found = ask(**asked)

    assert (price_id, amount) == (found.price.price_id, found.price.amount_text)
    assert any(reason in said for said in found.reasons), found.reasons
    assert ("test.1", START, "m") == (found.version, found.recorded_at, found.model)
    assert "made up" == found.source
    assert found.checked_at == found.price.rate.checked_at


@pytest.mark.parametrize(
    ("asked", "name", "verdict"),
    [
        ({}, ("p/m/input/standard", "3 USD per 1,000,000"), "starts on 2026-06-01T00:00:00+00:00"),
        ({"at": LATER}, ("p/m/input/standard", "2 USD per 1,000,000"), "ended on 2026-06-01"),
        ({}, ("p/m/input/batch", "1 USD per 1,000,000"), "is for tier batch, the call was served"),
        ({}, ("p/m/input/standard/us", "2.2 USD per 1,000,000"), "the call names no region"),
        (
            {"region": "eu"},
            ("p/m/input/standard/us", "2.2 USD per 1,000,000"),
            "is for region us, the call was served in eu",
        ),
        (
            {"region": "us"},
            ("p/m/input/standard", "2 USD per 1,000,000"),
            "the price of region us goes before the one without a region",
        ),
        ({}, ("p/m/input/standard/over_1000", "4 USD per 1,000,000"), "is for prompts over 1,000"),
        (
            {"input_total": 5000},
            ("p/m/input/standard", "2 USD per 1,000,000"),
            "the price for prompts over 1,000 tokens goes before it",
        ),
        (
            {},
            ("p/m/input/standard/hours_daily_2200-0600_UTC", "1.5 USD per 1,000,000"),
            "holds daily 22:00-06:00 UTC, which 2026-01-01T12:00:00+00:00 is outside of",
        ),
        (
            {"at": START},
            ("p/m/input/standard", "2 USD per 1,000,000"),
            "the price of the window daily 22:00-06:00 UTC goes before the one for any time",
        ),
        (
            {"meter": "image", "variant": "4k"},
            ("p/m/image/standard/1k", "0.04 USD per 1"),
            "is for 1k, the call was for 4k",
        ),
        (
            {"meter": "web_search", "variant": "high"},
            ("p/m/web_search/standard", "10 USD per 1,000"),
            "the price of high goes before the plain one",
        ),
        ({}, ("ours", "-15 %: contract 7"), "published prices were asked for"),
        ({"payer": ME}, ("ours", "-15 %: contract 7"), APPLIES),
        ({"payer": ME}, ("theirs", "-20 %: contract 7"), "is for b"),
        ({"payer": ME}, ("flat", "7 USD per 1,000,000: contract 7"), "is for c"),
        ({"payer": ME}, ("all", "-1 %: contract 7"), "ours is more specific, or as specific and"),
        ({"payer": ME}, ("soon", "-15 %: contract 7"), "starts on 2026-06-01"),
        ({"payer": ME}, ("gone", "-15 %: contract 7"), "ended on 2026-01-01T12:00:00+00:00"),
        ({"payer": ME}, ("tokens", "-5 %: contract 7"), "is not about p/m/input/standard"),
        (
            {"payer": ME, "meter": "page"},
            ("ours", "-15 %: contract 7"),
            "there is no price to change",
        ),
    ],
    ids=str,
)
def test_what_was_considered_says_what_it_lost_by(asked, name, verdict):
    """The plainest reason first."""
    said = verdicts(ask(**asked))[name]

    assert said.startswith(verdict) or verdict in said


def test_a_price_of_another_meter_loses_to_its_own():
    """A meter that could be priced as another one has a price of its own."""
    book = book_of(rate("output", "10"), rate("reasoning", "12"))
    question = PriceQuestion(provider="p", name="m", meter=Meter.REASONING, at=NOON)

    assert ["applies", "reasoning has a price of its own"] == [
        found.verdict for found in explain_price(book, question).rates
    ]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"name": "x"}, "p has no model 'x' in this version"),
        ({"provider": "q"}, "q has no model 'm' in this version"),
        ({"meter": "page"}, "page is never priced for this model, nor what it is priced as"),
        ({"at": START - timedelta(days=1)}, "no rate of input fits this call"),
        ({"tier": "flex"}, "no rate of input fits this call"),
        ({"meter": "image"}, "no rate of image fits this call"),
        ({"meter": "image", "variant": "9k"}, "no rate of image fits this call"),
    ],
    ids=str,
)
def test_where_there_is_no_price_it_says_why(asked, reason):
    """Nothing applies, and nothing says that it does."""
    found = ask(**asked)

    assert found.price is None
    assert (None, None) == (found.source, found.checked_at)
    assert (reason,) == found.reasons
    assert APPLIES not in {c.verdict for c in (*found.rates, *found.overrides)}


def test_a_fallback_that_is_not_taken_says_so():
    """A meter sold in makes is not priced as another one."""
    book = book_of(rate("input", "2"), rate("cache_read", "0.1", variant="explicit"))
    question = PriceQuestion(provider="p", name="m", meter=Meter.CACHE_READ, at=NOON)

    assert [
        "is for explicit, the call names no make",
        "cache_read is sold in makes, and the call names no make",
    ] == [found.verdict for found in explain_price(book, question).rates]


CALLS = st.fixed_dictionaries(
    {
        "meter": st.sampled_from(list(Meter)),
        "at": st.sampled_from(
            [START - timedelta(days=1), START, NOON, LATER, LATER + timedelta(hours=9)]
        ),
        "tier": st.sampled_from(["standard", "batch", "bogus"]),
        "region": st.sampled_from([None, "us", "eu"]),
        "variant": st.sampled_from([None, "1k", "high", "bogus"]),
        "input_total": st.sampled_from([0, 1000, 1001]),
        "payer": st.sampled_from([None, Payer(), ME, Payer("acme", "b", "y")]),
    }
)


@given(CALLS)
def test_the_winner_is_the_price_of_the_bill(call):
    """Explained or billed, it is one price."""
    question = PriceQuestion(provider="p", name="m", **call)
    found = explain_price(BOOK, question)
    card = BOOK.find_card("p", "m", question.at, question.payer)
    if card is None:
        assert found.price is None
        return
    prompt = {Meter.INPUT: question.input_total}
    prompt.setdefault(question.meter, 0)
    makes = {} if question.variant is None else {question.meter: question.variant}
    try:
        lines = rate_usage(prompt, card, tier=question.tier, region=question.region, variants=makes)
    except UnpricedSku:
        return
    judged = [c.verdict for c in (*found.rates, *found.overrides)]

    assert {line.meter: line.rate for line in lines}[question.meter] is found.price
    assert 1 + (found.price.agreement is not None) == judged.count(APPLIES)
    assert all(judged)
    assert found.reasons
