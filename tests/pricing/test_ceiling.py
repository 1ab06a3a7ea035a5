"""The ceiling: what a call can come to, through the same rating as the bill."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.rates import RateCard
from pricing.rating import Reach, Unbounded, UnpricedSku, rate_ceiling, rate_usage, total_cost
from tests.pricing.cards import PUBLISHED, START, card_of, published, rate

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
CACHED = PLAIN | {Meter.CACHE_READ, Meter.CACHE_WRITE, Meter.REASONING}


def reach(tokens_in, tokens_out, meters=PLAIN, *, tiers=("standard",), fees=None, region=None):
    return Reach(
        input_tokens_max=tokens_in,
        output_tokens_max=tokens_out,
        meters=frozenset(meters),
        fees=fees or {},
        tiers=frozenset(tiers),
        region=region,
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
    before = len(CARD._worst)
    for number in range(50):
        ceiling_of(reach(1, 1, region=f"region-{number}"))
        with pytest.raises(UnpricedSku):
            rate_ceiling(reach(1, 1, tiers=(f"tier-{number}",)), CARD)

    assert before == len(CARD._worst)


@st.composite
def cards(draw):
    """Any card with whole prices: up to three tiers, two regions, three bands."""
    amounts = st.integers(min_value=0, max_value=50).map(str)
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
                rates += [
                    rate(m, draw(amounts), tier=tier, region=region, over=over)
                    for m in sorted(meters)
                ]
    return card_of(*rates)


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
    return counts, draw(st.sampled_from(sorted(bounds.tiers)))


@given(st.data())
def test_no_bill_exceeds_the_ceiling(data):
    """Whatever the card, no usage within the stated limits costs more than the ceiling."""
    card = data.draw(cards())
    bounds = Reach(
        input_tokens_max=data.draw(st.sampled_from([0, 1, 99, 100, 101, 1000, 1001, 5000])),
        output_tokens_max=data.draw(st.integers(min_value=0, max_value=3000)),
        meters=PLAIN | data.draw(st.frozensets(st.sampled_from(sorted(CACHED)))),
        fees=data.draw(st.dictionaries(st.just(Meter.WEB_SEARCH), st.integers(0, 5))),
        tiers=data.draw(st.frozensets(st.sampled_from(sorted(card.tiers)), min_size=1)),
        region=data.draw(st.sampled_from([None, "us", "eu", "elsewhere"])),
    )
    counts, tier = data.draw(usages_within(bounds, card))
    try:
        ceiling = total_cost(rate_ceiling(bounds, card), "USD")
    except UnpricedSku:
        return
    try:
        bill = total_cost(rate_usage(counts, card, tier=tier, region=bounds.region), "USD")
    except UnpricedSku:
        return

    assert bill <= ceiling


@given(st.data())
def test_no_published_model_exceeds_its_ceiling(data):
    """The same for the real catalog, at its own limits."""
    model = data.draw(st.sampled_from([m for m in PUBLISHED.models if m.output_tokens_max]))
    card = published(f"{model.provider}/{model.model}", "2027-06-01T00:00:00+00:00")
    priced = {meter for _, _, meter in card.rates}
    tokens = frozenset(m for m in priced if m in INPUT_METERS or m in OUTPUT_METERS)
    bounds = Reach(
        input_tokens_max=model.context_tokens_max,
        output_tokens_max=model.output_tokens_max,
        meters=tokens,
        fees={m: 3 for m in priced - tokens},
        tiers=card.tiers,
        region=data.draw(st.sampled_from([None, "us", "eu"])),
    )
    counts, tier = data.draw(usages_within(bounds, card))

    bill = total_cost(rate_usage(counts, card, tier=tier, region=bounds.region), "USD")
    assert bill <= total_cost(rate_ceiling(bounds, card), "USD")


def test_a_hold_is_rated_like_the_bill():
    """The lines of a ceiling are ordinary rated lines of the same card."""
    lines = rate_ceiling(reach(10, 5), CARD)

    assert lines == rate_usage({Meter.INPUT: 10, Meter.OUTPUT: 5}, CARD)
    assert START == CARD.valid_from
