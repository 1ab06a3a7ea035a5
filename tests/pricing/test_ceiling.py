"""The ceiling: what a call can come to, through the same rating as the bill."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pricing.agreements import Payer
from pricing.hours import parse_hours
from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.rates import RateCard
from pricing.rating import (
    Reach,
    Unbounded,
    UnpricedSku,
    find_ceiling,
    rate_ceiling,
    rate_usage,
    total_cost,
)
from tests.pricing.cards import PUBLISHED, START, book_of, card_of, override, published, rate

CARD = card_of(
    rate("input", "2"),
    rate("cache_read", "0.2"),
    rate("cache_write", "2.5"),
    rate("output", "10"),
    rate("web_search", "10", per=1000),
    rate("input", "4", over=200_000),
    rate("cache_read", "0.4", over=200_000),
    rate("cache_write", "5", over=200_000),
    rate("output", "15", over=200_000),
    rate("input", "1", tier="flex"),
    rate("output", "5", tier="flex"),
    rate("web_search", "20", per=1000, tier="flex"),
    rate("input", "2.2", region="us"),
    rate("cache_write", "2.75", region="us"),
    rate("output", "11", region="us"),
)
PLAIN = frozenset({Meter.INPUT, Meter.OUTPUT})
FEES = [Meter.WEB_SEARCH, Meter.IMAGE]
CACHED = PLAIN | {Meter.CACHE_READ, Meter.CACHE_WRITE, Meter.REASONING}


def reach(
    tokens_in, tokens_out, meters=PLAIN, *, tiers=("standard",), fees=None, region=None, makes=None
):
    return Reach(
        input_tokens_max=tokens_in,
        output_tokens_max=tokens_out,
        meters=frozenset(meters),
        fees=fees or {},
        tiers=frozenset(tiers),
        region=region,
        variants=makes or {},
    )


def ceiling_of(bounds: Reach, card: RateCard = CARD) -> str:
    return str(total_cost(rate_ceiling(bounds, card), card.currency))


@pytest.mark.parametrize(
    ("bounds", "cost"),
    [
        (reach(0, 0), "0"),
        (reach(1000, 100), "0.003"),
        (reach(1000, 100, CACHED), "0.0035"),  # cache writes are the dearest input
        (reach(200_000, 0), "0.4"),
        (reach(200_001, 0), "0.800004"),  # one token over the cliff
        (reach(1000, 100, fees={Meter.WEB_SEARCH: 3}), "0.033"),
        (reach(1000, 100, tiers=("standard", "flex")), "0.003"),
        # Flex tokens are cheaper and its searches dearer: many searches make flex the dearest.
        (reach(1000, 100, tiers=("standard", "flex"), fees={Meter.WEB_SEARCH: 3}), "0.0615"),
        (reach(10**6, 10**5, tiers=("standard", "flex"), fees={Meter.WEB_SEARCH: 3}), "5.53"),
        (reach(1000, 100, CACHED, region="us"), "0.00385"),
        (reach(1000, 100, CACHED, region="elsewhere"), "0.0035"),
        (reach(None, 0), "4"),  # the card bounds the prompt
        (reach(0, None), "1"),  # and the answer
    ],
)
def test_ceilings_are_those_worked_out_by_hand(bounds, cost):
    """The dearest meter of each direction, in the dearest reachable band and tier."""
    assert cost == ceiling_of(bounds)


def test_a_band_that_gets_cheaper_is_taken_at_its_edge():
    """Where long prompts cost less per token, the longest short one can be the dearest."""
    card = card_of(
        rate("input", "10"),
        rate("output", "1"),
        rate("input", "1", over=100),
        rate("output", "1", over=100),
    )

    assert "0.001" == ceiling_of(reach(101, 0), card)
    assert "0.001" == ceiling_of(reach(1000, 0), card)
    assert "0.002" == ceiling_of(reach(2000, 0), card)


def test_meters_without_a_price_cannot_be_reached_at_one():
    """A bill with such a meter is refused, so it raises no ceiling."""
    assert "0.003" == ceiling_of(reach(1000, 100, PLAIN | {Meter.CACHE_WRITE_12H}))


def test_a_call_without_tokens_needs_no_price_for_them():
    """A search is priced by the search; its card need not name a token."""
    card = card_of(rate("search_unit", "2", per=1000))
    searches = reach(0, 0, meters=(), fees={Meter.SEARCH_UNIT: 3})

    assert {Meter.SEARCH_UNIT: 3} == find_ceiling(searches, card).counts
    assert 6_000_000_000 == find_ceiling(searches, card).cost_pico


def test_a_side_without_tokens_needs_no_price():
    """Embeddings have no output; with one the same card is not enough."""
    card = card_of(rate("input", "0.1"))

    assert {Meter.INPUT: 7} == find_ceiling(reach(7, 0), card).counts
    with pytest.raises(UnpricedSku):
        find_ceiling(reach(7, 1), card)
    with pytest.raises(UnpricedSku):
        find_ceiling(reach(7, 1), card)


def test_no_reachable_meter_means_the_plain_one():
    """A request that names no token meters is held at plain input and output."""
    assert "0.003" == ceiling_of(reach(1000, 100, ()))


@pytest.mark.parametrize(
    ("bounds", "limits", "side"),
    [(reach(None, 1), (None, 5), "input"), (reach(1, None), (5, None), "output")],
)
def test_a_call_without_any_bound_has_no_ceiling(bounds, limits, side):
    """Neither the request nor the card bounds one side: that is said, not guessed."""
    card = card_of(rate("input", "2"), rate("output", "10"), limits=limits)

    with pytest.raises(Unbounded, match=side):
        rate_ceiling(bounds, card)


@pytest.mark.parametrize(
    "bounds",
    [
        reach(1, 1, tiers=("standard", "bogus")),
        reach(1, 1, tiers=("bogus",)),
        reach(1, 1, fees={Meter.PAGE: 1}),
        reach(1, 1, tiers=("standard", "priced_in_part")),
    ],
    ids=["one tier unknown", "tier unknown", "fee without a price", "tier without output"],
)
def test_a_reachable_price_that_is_missing_refuses(bounds):
    """A call that could be served at no known price has no ceiling."""
    card = card_of(
        rate("input", "2"), rate("output", "10"), rate("input", "9", tier="priced_in_part")
    )

    for _ in range(2):  # the answer is the same when the card has been asked before
        with pytest.raises(UnpricedSku):
            rate_ceiling(bounds, card)


def test_a_fee_missing_in_one_reachable_tier_refuses():
    """The dearer tier prices the search, the cheaper one does not: the call may be unpriced."""
    card = card_of(
        rate("input", "2"),
        rate("output", "10"),
        rate("input", "4", tier="priority"),
        rate("output", "20", tier="priority"),
        rate("web_search", "10", per=1000, tier="priority"),
    )
    bounds = reach(1, 1, tiers=("standard", "priority"), fees={Meter.WEB_SEARCH: 1})

    with pytest.raises(UnpricedSku, match="standard price for p/m/web_search"):
        rate_ceiling(bounds, card)


def test_a_call_without_a_tier_is_taken_as_standard():
    """No tier named is not a ceiling of nothing."""
    assert "0.003" == ceiling_of(reach(1000, 100, tiers=()))


def test_asking_with_unknown_names_leaves_nothing_behind():
    """A caller cannot make a card grow by naming tiers and regions that do not exist."""
    ceiling_of(reach(1, 1))
    before = len(CARD.worst)
    for number in range(50):
        ceiling_of(reach(1, 1, region=f"region-{number}"))
        ceiling_of(reach(1, 1, makes={Meter.WEB_SEARCH: f"make-{number}"}))
        with pytest.raises(UnpricedSku):
            rate_ceiling(reach(1, 1, tiers=(f"tier-{number}",)), CARD)

    assert before == len(CARD.worst)


MADE = ["cache_write", "output", "web_search", "image"]
MAKES = ["low", "high"]
NOON = START.replace(hour=12)
PAYERS = st.sampled_from([None, Payer(), Payer("acme", "a", "x"), Payer("acme", "b", "y")])


@st.composite
def agreements(draw):
    """Up to four overrides, no two of which contradict each other."""
    overrides = []
    for number in range(draw(st.integers(min_value=0, max_value=4))):
        meter = draw(st.sampled_from([None, "input", "output", "web_search"]))
        named = {"provider": "p", "model": "m", "meter": meter} if meter else {}
        named |= draw(st.sampled_from([{}, {"team": "a"}, {"project": "x"}]))
        named |= draw(st.sampled_from([{}, {"tier": "standard"}]))
        if meter and draw(st.booleans()):
            named["amount"] = str(draw(st.integers(min_value=0, max_value=60)))
        else:
            named["percent"] = draw(st.sampled_from(["-100", "-15", "-7", "20"]))
        start = START - timedelta(days=number)
        overrides.append(override(f"o{number}", valid_from=start, **named))
    return overrides


@st.composite
def cards(draw):
    """Any card: up to three tiers, two regions, three bands, makes, hours, and what was agreed."""
    fine = st.decimals(min_value=0, max_value="0.00001", places=9).map(str)
    amounts = st.integers(min_value=0, max_value=50).map(str) | fine
    rates = []
    for tier in draw(
        st.lists(st.sampled_from(["standard", "flex", "priority"]), min_size=1, unique=True)
    ):
        for region in (None, *draw(st.lists(st.sampled_from(["us", "eu"]), unique=True))):
            for over in (None, *draw(st.lists(st.sampled_from([100, 1000]), unique=True))):
                base = region is None and over is None
                meters = {"input", "output"} if base else set()
                names = ["input", "output", "cache_read", "cache_write", "reasoning", "web_search"]
                meters |= draw(st.sets(st.sampled_from(names)))
                place = {"tier": tier, "region": region, "over": over}
                rates += [rate(m, draw(amounts), **place) for m in sorted(meters)]
                made = draw(st.sets(st.tuples(st.sampled_from(MADE), st.sampled_from(MAKES))))
                rates += [rate(m, draw(amounts), variant=name, **place) for m, name in sorted(made)]
    night = parse_hours("daily 22:00-06:00 UTC")
    timed = draw(st.sets(st.sampled_from(range(len(rates)))))
    rates += [replace(rates[n], hours=night, amount=Decimal(draw(amounts))) for n in sorted(timed)]
    overrides = draw(agreements())
    about = [o for o in overrides if any(o.is_for_rate(r) for r in rates)]
    book = book_of(*rates, overrides=about)
    card = book.find_card("p", "m", draw(st.sampled_from([START, NOON])), draw(PAYERS))
    assert card is not None
    return card


@st.composite
def usages_within(draw, bounds, card):
    """A usage no larger than the bounds, in a tier and region they allow."""
    left = {True: bounds.input_tokens_max, False: bounds.output_tokens_max}
    counts = {}
    for meter in draw(st.permutations(sorted(bounds.meters))):
        side = meter in INPUT_METERS
        assert side or meter in OUTPUT_METERS
        counts[meter] = draw(st.integers(min_value=0, max_value=left[side]))
        left[side] -= counts[meter]
    for fee, most in bounds.fees.items():
        counts[fee] = draw(st.integers(min_value=0, max_value=most))
    makes = {
        m: bounds.variants.get(m) or draw(st.sampled_from([*MAKES, "unheard of"]))
        for m in counts
        if m in bounds.variants or draw(st.booleans())
    }
    return counts, draw(st.sampled_from(sorted(bounds.tiers))), makes


@given(st.data())
def test_no_bill_exceeds_the_ceiling(data):
    """Whatever the card, no usage within the stated limits costs more than the ceiling."""
    card = data.draw(cards())
    bounds = Reach(
        input_tokens_max=data.draw(st.sampled_from([0, 1, 99, 100, 101, 1000, 1001, 5000])),
        output_tokens_max=data.draw(st.integers(min_value=0, max_value=3000)),
        meters=PLAIN | data.draw(st.frozensets(st.sampled_from(sorted(CACHED)))),
        fees=data.draw(st.dictionaries(st.sampled_from(FEES), st.integers(0, 5))),
        variants=data.draw(
            st.dictionaries(st.sampled_from([*FEES, Meter.OUTPUT]), st.sampled_from([*MAKES, "?"]))
        ),
        tiers=data.draw(st.frozensets(st.sampled_from(sorted(card.tiers)), min_size=1)),
        region=data.draw(st.sampled_from([None, "us", "eu", "elsewhere"])),
    )
    counts, tier, makes = data.draw(usages_within(bounds, card))
    try:
        ceiling = find_ceiling(bounds, card)
        lines = rate_usage(counts, card, tier=tier, region=bounds.region, variants=makes)
    except UnpricedSku:
        return

    assert total_cost(lines, "USD").pico <= ceiling.cost_pico
    assert total_cost(rate_ceiling(bounds, card), "USD").pico <= ceiling.cost_pico


BOUNDED = [m for m in PUBLISHED.models if m.output_tokens_max and m.context_tokens_max]


@given(st.data())
def test_no_published_model_exceeds_its_ceiling(data):
    """The same for the real catalog, at its own limits."""
    model = data.draw(st.sampled_from(BOUNDED))
    card = published(f"{model.provider}/{model.model}", "2027-06-01T00:00:00+00:00")
    priced = {meter for _, _, meter in card.rates}
    tokens = frozenset(m for m in priced if m in INPUT_METERS or m in OUTPUT_METERS)
    region = data.draw(st.sampled_from([None, "us", "eu"]))
    # A list may price a tier in one region only, or audio only: elsewhere it is not sold.
    sold = {tier for tier in card.tiers if _sells(card, tier, region)}
    assume(sold)
    bounds = Reach(
        input_tokens_max=model.context_tokens_max,
        output_tokens_max=model.output_tokens_max,
        meters=tokens,
        fees={m: 3 for m in priced - tokens if all(_prices(card, m, t, region) for t in sold)},
        tiers=frozenset(sold),
        region=region,
    )
    counts, tier, makes = data.draw(usages_within(bounds, card))
    counts = {m: n for m, n in counts.items() if _prices(card, m, tier, region)}

    lines = rate_usage(counts, card, tier=tier, region=bounds.region, variants=makes)
    assert total_cost(lines, "USD") <= total_cost(rate_ceiling(bounds, card), "USD")


def _prices(card, meter, tier, region):
    return bool(card.find_candidates(tier, region)[meter])


def _sells(card, tier, region):
    return all(_prices(card, meter, tier, region) for meter in (Meter.INPUT, Meter.OUTPUT))


MADE_CARD = card_of(
    rate("input", "2"),
    rate("output", "10"),
    rate("image", "0.04", per=1, variant="1024x1024"),
    rate("image", "0.08", per=1, variant="1024x1024/hd"),
    rate("image", "0.02", per=1, tier="batch"),
    rate("input", "1", tier="batch"),
    rate("output", "5", tier="batch"),
    rate("web_search", "10", per=1000),
    rate("web_search", "30", per=1000, variant="high"),
    rate("web_search", "5", per=1000, variant="low"),
)


@pytest.mark.parametrize(
    ("bounds", "cost"),
    [
        (reach(0, 0, fees={Meter.IMAGE: 2}), "0.16"),  # the dearest size
        (reach(0, 0, fees={Meter.IMAGE: 2}, makes={Meter.IMAGE: "1024x1024"}), "0.08"),
        (reach(0, 0, fees={Meter.IMAGE: 2}, tiers=("batch",)), "0.04"),
        (reach(0, 0, fees={Meter.IMAGE: 2}, tiers=("batch", "standard")), "0.16"),
        (reach(0, 0, fees={Meter.WEB_SEARCH: 1}), "0.03"),
        (reach(0, 0, fees={Meter.WEB_SEARCH: 1}, makes={Meter.WEB_SEARCH: "low"}), "0.005"),
        (reach(0, 0, fees={Meter.WEB_SEARCH: 1}, makes={Meter.WEB_SEARCH: "huge"}), "0.01"),
        (reach(1000, 0, makes={Meter.INPUT: "hd"}), "0.002"),
    ],
)
def test_a_make_that_is_not_named_is_the_dearest(bounds, cost):
    """A size that the request leaves open is held at the dearest; a named one at its own price."""
    assert cost == ceiling_of(bounds, MADE_CARD)


def test_a_make_that_is_not_sold_refuses():
    """No plain price and no such make: nothing could be billed."""
    with pytest.raises(UnpricedSku, match="p/m/image"):
        rate_ceiling(reach(0, 0, fees={Meter.IMAGE: 1}, makes={Meter.IMAGE: "9x9"}), MADE_CARD)


def test_a_ceiling_names_the_makes_it_was_taken_at():
    """So that it can be rated again later."""
    ceiling = find_ceiling(reach(1, 1, fees={Meter.IMAGE: 2}), MADE_CARD)

    assert {Meter.IMAGE: "1024x1024/hd"} == ceiling.variants


def test_a_ceiling_is_at_the_negotiated_price():
    """Who pays less is held for less, and who pays more for more."""
    card = card_of(
        rate("input", "2"),
        rate("output", "10"),
        overrides=[override(team="a", percent="-50"), override("up", team="b", percent="10")],
        payer=Payer("acme", "a", "x"),
    )

    assert "0.006" == ceiling_of(reach(1000, 1000), card)


def test_rounding_cannot_lift_a_bill_over_its_ceiling():
    """A call split over many meters can round up once for each of them."""
    prices = [rate(m, "0.0000026", per=1_000_000) for m in ("input", "cache_read", "cache_write")]
    card = card_of(*prices, rate("output", "0"))
    bounds = reach(3, 0, {Meter.INPUT, Meter.CACHE_READ, Meter.CACHE_WRITE})
    lines = rate_usage({Meter.INPUT: 1, Meter.CACHE_READ: 1, Meter.CACHE_WRITE: 1}, card)

    assert 9 == total_cost(lines, "USD").pico  # three times 2.6
    assert 8 == total_cost(rate_ceiling(bounds, card), "USD").pico  # 7.8
    assert 9 <= find_ceiling(bounds, card).cost_pico


def test_a_hold_is_rated_like_the_bill():
    """The lines of a ceiling are ordinary rated lines of the same card."""
    lines = rate_ceiling(reach(10, 5), CARD)

    assert lines == rate_usage({Meter.INPUT: 10, Meter.OUTPUT: 5}, CARD)
    assert START == CARD.valid_from


def test_what_is_not_sold_by_tokens_needs_no_price_for_them():
    """A direction without a token is left out; one with a single token is not."""
    card = card_of(rate("character", "15"))
    spoken = Reach(
        input_tokens_max=0,
        output_tokens_max=0,
        meters=frozenset(),
        fees={Meter.CHARACTER: 20},
        tiers=frozenset({"standard"}),
    )
    ceiling = find_ceiling(spoken, card)

    assert ({Meter.CHARACTER: 20}, 300_000_000) == (ceiling.counts, ceiling.cost_pico)
    for reached in (Meter.INPUT, Meter.OUTPUT):
        with pytest.raises(UnpricedSku):
            find_ceiling(replace_meters(spoken, reached), card)


def replace_meters(reach, meter):
    """The same reach, with one token of a meter in it."""
    return Reach(
        input_tokens_max=int(meter is Meter.INPUT),
        output_tokens_max=int(meter is Meter.OUTPUT),
        meters=frozenset({meter}),
        fees=reach.fees,
        tiers=reach.tiers,
    )


def test_a_card_tells_what_it_sells():
    """With a price of its own, behind another meter, or in makes only."""
    card = card_of(rate("input", "2"), rate("image", "1", per=1, variant="small"))

    assert card.sells(Meter.CACHE_READ)
    assert card.sells(Meter.IMAGE)
    assert not card.sells(Meter.OUTPUT)
