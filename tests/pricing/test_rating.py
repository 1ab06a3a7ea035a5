"""Rating: hand arithmetic first, then what must hold for any usage and any prices."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.agreements import Payer
from pricing.hours import parse_hours
from pricing.meters import INPUT_METERS, Meter
from pricing.money import CurrencyMismatch, Money
from pricing.rating import UnpricedSku, rate_usage, total_cost, total_list_cost
from tests.pricing.cards import card_of, cost_of, override, rate

CARD = card_of(
    rate("input", "2"),
    rate("cache_read", "0.2"),
    rate("cache_write", "2.5"),
    rate("cache_write_1h", "4"),
    rate("output", "10"),
    rate("web_search", "10", per=1000),
    rate("audio_second", "0.006", per=60),
    rate("input", "4", over=200_000),
    rate("cache_read", "0.4", over=200_000),
    rate("output", "15", over=200_000),
    rate("input", "1", tier="flex"),
    rate("output", "5", tier="flex"),
    rate("input", "2.2", region="us"),
    rate("output", "11", region="us"),
)
# The same with everything a price can depend on: an open window, makes, and an agreement.
NIGHT = parse_hours("daily 22:00-06:00 UTC")
RICH = card_of(
    rate("input", "3"),
    rate("input", "2", hours=NIGHT),
    rate("cache_read", "0.2", variant="implicit"),
    rate("cache_read", "0.1", variant="explicit"),
    rate("cache_write", "2.5"),
    rate("output", "10"),
    rate("input", "4", over=200_000),
    rate("cache_read", "0.4", over=200_000, variant="explicit"),
    rate("output", "15", over=200_000, hours=NIGHT),
    overrides=[override(percent="-15"), override("out", meter="output", percent="20")],
    payer=Payer("acme", "search", "rag"),
)
MAKES = {Meter.CACHE_READ: "explicit"}
CARDS = st.sampled_from([CARD, RICH])
TOKENS = st.integers(min_value=0, max_value=2_000_000)
PRICED = [Meter.INPUT, Meter.CACHE_READ, Meter.CACHE_WRITE, Meter.OUTPUT, Meter.REASONING]
USAGES = st.dictionaries(st.sampled_from(PRICED), TOKENS)


@pytest.mark.parametrize(
    ("counts", "cost"),
    [
        ({}, "0"),
        ({"input": 1}, "0.000002"),
        ({"input": 1_000_000 // 5, "output": 1}, "0.40001"),
        ({"input": 100, "cache_read": 1000, "output": 10}, "0.0005"),  # 200 + 200 + 100 micro
        ({"cache_write": 400, "cache_write_1h": 100}, "0.0014"),  # 1000 + 400 micro
        ({"output": 6, "reasoning": 4}, "0.0001"),
        ({"web_search": 3}, "0.03"),
        ({"audio_second": Decimal("90.5")}, "0.00905"),  # 90.5 / 60 * 0.006
        # The band is chosen by the whole prompt, cached tokens included, and holds for all of it.
        ({"input": 199_999, "cache_read": 1, "output": 10}, "0.4000982"),
        ({"input": 199_999, "cache_read": 2, "output": 10}, "0.8001468"),
    ],
)
def test_costs_are_those_worked_out_by_hand(counts, cost):
    """Quantity times price, by meter, in the band of the whole prompt."""
    assert cost == cost_of(counts, CARD)


@pytest.mark.parametrize(
    ("where", "cost"),
    [
        ({}, "0.000012"),
        ({"tier": "flex"}, "0.000006"),
        ({"region": "us"}, "0.0000132"),
        ({"region": "elsewhere"}, "0.000012"),
        ({"tier": "flex", "region": "us"}, "0.000006"),
    ],
)
def test_tier_and_region_choose_the_price(where, cost):
    """A region without its own price in a tier falls back to the price without a region."""
    assert cost == cost_of({"input": 1, "output": 1}, CARD, **where)


@pytest.mark.parametrize(
    ("meter", "as_meter"),
    [
        ("reasoning", "output"),
        ("input_audio", "input"),
        ("input_image", "input"),
        ("input_video", "input"),
        ("cache_read_audio", "input"),
        ("cache_read_image", "cache_read"),
        ("cache_read_video", "cache_read"),
    ],
)
def test_a_meter_without_a_price_is_billed_as_its_plain_kind(meter, as_meter):
    """The line names the meter counted and carries the price of the meter it is billed as."""
    (line,) = rate_usage({Meter(meter): 1000}, CARD)

    assert Meter(meter) is line.meter
    assert f"p/m/{meter}" == line.sku
    assert f"p/m/{as_meter}/standard" == line.rate.price_id


def test_a_cached_token_without_a_cache_price_is_plain_input():
    """A model without a cache discount bills cached tokens in full."""
    card = card_of(rate("input", "3"), rate("output", "15"))

    assert "0.003" == cost_of({"cache_read": 1000}, card)


def test_a_region_keeps_the_context_bands_it_does_not_price():
    """Its own bands first; above the highest of them, those of the prices without region."""
    card = card_of(
        rate("input", "5", tier="priority"),
        rate("input", "10", tier="priority", over=272_000),
        rate("input", "20", tier="priority", over=500_000),
        rate("input", "5.5", tier="priority", region="eu"),
        rate("input", "22", tier="priority", over=500_000, region="eu"),
        rate("image", "1", per=1, variant="hd"),
        rate("image", "2", per=1, variant="hd", over=272_000),
        rate("image", "1.1", per=1, variant="hd", region="eu"),
    )
    where = {"tier": "priority", "region": "eu"}

    assert "1.1" == cost_of({"input": 200_000}, card, **where)
    assert "3" == cost_of({"input": 300_000}, card, **where)
    assert "13.2" == cost_of({"input": 600_000}, card, **where)
    prices = card.find_candidates("standard", "eu", {Meter.IMAGE: "hd"})[Meter.IMAGE]
    assert ["2", "1.1"] == [price.amount_text for price in prices]


@pytest.mark.parametrize(
    ("counts", "where"),
    [
        ({"cache_write_12h": 1}, {}),  # a surcharge is never guessed
        ({"output_image": 1}, {}),
        ({"input": 1, "page": 0}, {}),  # not even a count of zero is priced without a price
        ({"input": 1}, {"tier": "bogus"}),
        ({"web_search": 1}, {"tier": "flex"}),
    ],
    ids=str,
)
def test_what_has_no_price_refuses_the_whole_call(counts, where):
    """Nothing is priced partially, and the error names what is missing."""
    with pytest.raises(UnpricedSku, match=r"test\.1 has no .* price for p/m/") as caught:
        cost_of(counts, CARD, **where)

    assert "test.1" == caught.value.version
    assert where.get("tier", "standard") == caught.value.tier


MADE = card_of(
    rate("image", "0.04", per=1, variant="1024x1024"),
    rate("image", "0.08", per=1, variant="1024x1024/hd"),
    rate("image", "0.05", per=1, variant="1024x1024", region="us"),
    rate("image", "0.02", per=1, tier="batch"),
    rate("web_search", "10", per=1000),
    rate("web_search", "30", per=1000, variant="high"),
    rate("input", "2"),
    rate("cache_read", "0.2", variant="implicit"),
    rate("cache_read", "0.1", variant="explicit"),
    rate("cache_read", "0.3", variant="explicit", over=1000),
)


@pytest.mark.parametrize(
    ("counts", "makes", "where", "cost"),
    [
        ({"image": 2}, {"image": "1024x1024"}, {}, "0.08"),
        ({"image": 2}, {"image": "1024x1024/hd"}, {}, "0.16"),
        ({"image": 2}, {"image": "1024x1024"}, {"region": "us"}, "0.1"),
        ({"image": 2}, {"image": "1024x1024/hd"}, {"region": "us"}, "0.16"),
        ({"image": 2}, {"image": "1024x1024"}, {"region": "elsewhere"}, "0.08"),
        ({"image": 2}, {}, {"tier": "batch"}, "0.04"),
        ({"image": 2}, {"image": "1024x1024/hd"}, {"tier": "batch"}, "0.04"),
        ({"web_search": 1}, {}, {}, "0.01"),
        ({"web_search": 1}, {"web_search": "high"}, {}, "0.03"),
        ({"web_search": 1}, {"web_search": "unheard of"}, {}, "0.01"),
        ({"web_search": 1}, {"image": "high"}, {}, "0.01"),
        ({"cache_read": 1000}, {"cache_read": "explicit"}, {}, "0.0001"),
        ({"cache_read": 1001}, {"cache_read": "explicit"}, {}, "0.0003003"),
        ({"cache_read_image": 1000}, {"cache_read_image": "implicit"}, {}, "0.0002"),
    ],
)
def test_the_make_chooses_the_price(counts, makes, where, cost):
    """Its own price first, with its own bands, then the plain one."""
    variants = {Meter(meter): name for meter, name in makes.items()}

    assert cost == cost_of(counts, MADE, variants=variants, **where)


@pytest.mark.parametrize(
    ("counts", "makes"),
    [
        ({"image": 1}, {}),
        ({"image": 1}, {"image": "9x9"}),
        ({"cache_read": 1}, {}),  # not the price of plain input
        ({"cache_read_image": 1}, {}),
    ],
    ids=str,
)
def test_a_meter_sold_in_makes_only_has_no_other_price(counts, makes):
    """Which make it was is part of what it costs: without it, nothing is guessed."""
    variants = {Meter(meter): name for meter, name in makes.items()}

    with pytest.raises(UnpricedSku, match=r"no standard price for p/m/") as caught:
        cost_of(counts, MADE, variants=variants)
    assert next(iter(makes.values()), None) == caught.value.variant


def test_a_negative_quantity_is_refused():
    """A correction is a record of its own, never a negative count."""
    with pytest.raises(ValueError, match="cannot be negative: -1"):
        rate_usage({Meter.INPUT: -1}, CARD)


def test_a_line_keeps_both_factors():
    """Quantity and price are kept, so that a bill can be worked out again."""
    (line,) = rate_usage({Meter.INPUT: 3}, CARD)

    assert (3, "2", 1_000_000) == (line.quantity, line.rate.amount_text, line.rate.rate.per)
    assert line.list_cost == line.cost == Money(6_000_000)


def test_each_line_is_rounded_once_half_to_even():
    """A price finer than 10^-12 per unit rounds once per line, to the even neighbour."""
    card = card_of(rate("input", "0.0000005"), rate("output", "1", per=3))

    assert [0, 2, 2] == [rate_usage({Meter.INPUT: n}, card)[0].cost.pico for n in (1, 3, 5)]
    assert "0.333333333333" == cost_of({"output": 1}, card)
    assert "0.666666666667" == cost_of({"output": 2}, card)


def test_the_total_of_no_lines_is_zero_of_the_currency():
    """An empty bill is zero, in the currency asked for."""
    assert Money(0, "EUR") == total_cost((), "EUR")


def test_a_total_is_in_one_currency():
    """Lines of another currency are refused."""
    lines = rate_usage({Meter.INPUT: 1}, CARD)

    with pytest.raises(CurrencyMismatch, match="USD to EUR"):
        total_cost(lines, "EUR")


def whole_cost(counts, card):
    return total_cost(rate_usage(counts, card, variants=MAKES), "USD")


@given(USAGES, CARDS)
def test_the_lines_add_up_to_the_total(counts, card):
    """The total is the integer sum of its lines; nothing is rounded again."""
    lines = rate_usage(counts, card, variants=MAKES)

    assert list(counts) == [line.meter for line in lines]
    assert sum(line.cost.pico for line in lines) == total_cost(lines, "USD").pico
    assert sum(line.list_cost.pico for line in lines) == total_list_cost(lines, "USD").pico


@given(USAGES, st.randoms(), CARDS)
def test_the_order_of_meters_does_not_matter(counts, random, card):
    """The same counts in another order cost the same."""
    shuffled = list(counts.items())
    random.shuffle(shuffled)

    assert whole_cost(counts, card) == whole_cost(dict(shuffled), card)


@given(st.sets(st.sampled_from(PRICED)), CARDS)
def test_zero_in_is_zero_out(meters, card):
    """Counts of zero cost exactly nothing."""
    assert Money(0) == whole_cost(dict.fromkeys(meters, 0), card)


def _part(counts, other):
    return {meter: n - min(other.get(meter, 0), n) for meter, n in counts.items()}


@given(USAGES, USAGES, CARDS)
def test_splitting_a_call_is_never_cheaper_except_across_a_stated_cliff(counts, first, card):
    """Two calls cost what one costs in the same context band, and can only cost less below it."""
    first = {meter: min(n, counts.get(meter, 0)) for meter, n in first.items()}
    rest = _part(counts, first)
    prompts = [
        sum(n for meter, n in part.items() if meter in INPUT_METERS)
        for part in (first, rest, counts)
    ]
    whole = whole_cost(counts, card)
    parts = [whole_cost(part, card) for part in (first, rest)]
    same_band = len({prompt > 200_000 for prompt in prompts}) == 1

    assert parts[0] + parts[1] <= whole
    assert not same_band or whole == parts[0] + parts[1]


@given(USAGES, st.sampled_from(PRICED), TOKENS, CARDS)
def test_using_more_never_costs_less(counts, meter, more, card):
    """Every further token costs something or nothing, never less than nothing."""
    grown = counts | {meter: counts.get(meter, 0) + more}

    assert whole_cost(counts, card) <= whole_cost(grown, card)


@given(
    st.integers(min_value=0, max_value=10**12),
    st.decimals(min_value=0, max_value=10_000, places=9),
    st.integers(min_value=1, max_value=10**6),
)
def test_a_cost_is_the_exact_product_rounded(quantity, amount, per):
    """Whatever the price, the cost is within half a 10^-12 of quantity times amount over per."""
    card = card_of(rate("output", amount, per=per))
    (line,) = rate_usage({Meter.OUTPUT: quantity}, card)
    numerator, denominator = amount.as_integer_ratio()
    exact = quantity * numerator * 10**12

    assert abs(2 * (line.cost.pico * denominator * per - exact)) <= denominator * per
