"""Prices of one's own cover what the GPUs cost, and the report says what tokens really cost."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.book import BookBroken
from pricing.meters import Meter
from pricing.months import Span
from pricing.rating import Reach, Unbounded, find_ceiling, prices_time, rate_usage
from pricing.selfhosted import (
    NO_FLEET,
    Deployment,
    DeploymentRefused,
    Reality,
    TimeTerms,
    TokenTerms,
    add_to_book,
    derive_prices,
    find_busy_us,
    fleets_of,
    gpu_cost,
    gpu_seconds,
    published_name,
    token_price,
)
from tests.pricing.cards import book_of, cost_of, rate
from tests.pricing.commitment_kit import usd

START = datetime(2026, 11, 1, tzinfo=UTC)
LATER = datetime(2026, 11, 11, tzinfo=UTC)
HOUR_US = 3600 * 10**6


def terms(tokens_per_s="1000", utilization="100", output_weight="1", output_share="0"):
    return TokenTerms(
        tokens_per_s=Decimal(tokens_per_s),
        utilization=Decimal(utilization),
        output_weight=Decimal(output_weight),
        output_share=Decimal(output_share),
    )


def deployment(**others):
    fields = {
        "provider": "house",
        "model": "llama",
        "gpus": 4,
        "gpu_hour": Decimal("2.10"),
        "starts": START,
        "terms": terms(),
    }
    return Deployment(**(fields | others))


def amounts(*deployments):
    own = derive_prices(deployments)
    return {(r.meter.value, r.valid_from): (str(r.amount), r.per) for r in own.rates}


@pytest.mark.parametrize(
    ("how", "input_price", "output_price"),
    [
        # 8.40 USD an hour / 3,600,000 tokens = 2.3333... USD a million, rounded up
        ({}, "2.333333334", "2.333333334"),
        ({"utilization": "50"}, "4.666666667", "4.666666667"),
        # 3.6 million tokens, a quarter of them output that weighs 5: 7.2 million weighted
        ({"output_weight": "5", "output_share": "25"}, "1.166666667", "5.833333334"),
        ({"tokens_per_s": "2333.333333333333"}, "1.000000001", "1.000000001"),
        ({"tokens_per_s": "4200", "utilization": "12.5"}, "4.444444445", "4.444444445"),
    ],
)
def test_token_prices_follow_from_the_hour(how, input_price, output_price) -> None:
    """Worked by hand, and rounded up at the ninth decimal."""
    found = amounts(deployment(terms=terms(**how)))

    assert (input_price, 10**6) == found["input", START]
    assert (output_price, 10**6) == found["output", START]


def test_time_prices_are_exact() -> None:
    """An hour of a GPU is 3,600 of its seconds: nothing is divided, so nothing is rounded."""
    book = add_to_book(book_of(rate("input", "1")), derive_prices([deployment(terms=TimeTerms())]))
    card = book.find_card("house", "llama", START)

    assert card is not None
    assert "0.0042" == cost_of(
        {"input": 900, "output": 50, "reasoning": 7, "gpu_second": Decimal("7.200000")}, card
    )


def test_figures_follow_each_other_in_time() -> None:
    """Each holds until the next one starts, and says in its source how it was made."""
    own = derive_prices(
        [
            deployment(starts=LATER, gpus=1, terms=TimeTerms(), aliases=("big",)),
            deployment(terms=terms("1500", "60", "4", "20")),
        ]
    )
    (early,) = [r for r in own.rates if r.meter is Meter.INPUT and r.valid_from == START]
    (late,) = [r for r in own.rates if r.meter is Meter.GPU_SECOND]

    assert (LATER, None) == (early.valid_to, late.valid_to)
    assert (
        "own deployment: 4 GPUs x 2.10 USD/hour / (1500 tokens/s busy x 60 % utilization), "
        "output weight 4 at 20 % output, rounded up" == early.source
    )
    assert "own deployment, priced by time: 1 GPU x 2.10 USD/hour" == late.source
    assert [("big",)] == [entry.aliases for entry in own.models]


def test_the_version_of_a_book_with_own_prices_says_so() -> None:
    """The same settings make the same version; other ones another; none leave the book alone."""
    book = book_of(rate("input", "1"))
    one = add_to_book(book, derive_prices([deployment()]))
    again = add_to_book(book, derive_prices([deployment()]))
    other = add_to_book(book, derive_prices([deployment(gpus=5)]))

    assert one.version == again.version
    assert one.version.version.startswith("test.1+local.")
    assert 8 == len(one.version.version.removeprefix("test.1+local."))
    assert other.version.version != one.version.version
    assert other.version.digest != one.version.digest != book.version.digest
    assert add_to_book(book, derive_prices([])) is book
    card = one.find_card("house", "llama", START)
    assert card is not None
    assert one.version.version == card.version
    assert one.find_card("house", "llama", START - timedelta(seconds=1)) is None
    assert one.find_card("p", "m", START) is not None


def test_a_name_that_is_taken_is_refused() -> None:
    """Prices of one's own never replace published ones."""
    book = book_of(rate("input", "1"))

    with pytest.raises(BookBroken, match="claimed by m and m"):
        add_to_book(book, derive_prices([deployment(provider="p", model="m")]))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"gpus": 0}, "house/llama: needs at least one GPU"),
        ({"gpu_hour": Decimal(-1)}, "negative"),
        ({"gpu_hour": Decimal("0.0000000001")}, "too fine"),
        ({"terms": terms(tokens_per_s="0")}, "tokens_per_s"),
        ({"terms": terms(utilization="0")}, "utilization"),
        ({"terms": terms(utilization="100.1")}, "utilization"),
        ({"terms": terms(output_weight="0")}, "output_weight"),
        ({"terms": terms(output_share="101")}, "output_share"),
    ],
)
def test_figures_no_price_follows_from_are_refused(wrong, says) -> None:
    """Each refusal names the deployment and the figure."""
    with pytest.raises(DeploymentRefused, match=says):
        deployment(**wrong)


def test_one_model_cannot_start_twice_at_once() -> None:
    """Nobody could say which price holds."""
    with pytest.raises(DeploymentRefused, match="there twice from 2026-11-01"):
        derive_prices([deployment(), deployment(gpus=1)])


def test_a_fleet_knows_how_many_gpus_a_call_keeps_busy() -> None:
    """By any name of the model and by the day; one where nobody said."""
    fleets = fleets_of(
        [deployment(aliases=("big",)), deployment(starts=LATER, gpus=8, aliases=("big",))]
    )
    fleet = fleets["house"]

    assert [1, 4, 8] == [
        fleet.gpus_at("big", at) for at in (START - timedelta(days=1), START, LATER)
    ]
    assert 8 == fleet.gpus_at("llama", LATER)
    assert 1 == fleet.gpus_at("other", LATER)
    assert 1 == NO_FLEET.gpus_at("llama", LATER)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], 0),
        ([(0, 10)], 10),
        ([(0, 10), (2, 5), (8, 20)], 20),
        ([(0, 10), (30, 40)], 20),
        ([(-50, 5), (90, 500)], 15),
        ([(-50, -5), (120, 130)], 0),
        ([(0, 0)], 0),
    ],
)
def test_calls_side_by_side_keep_it_busy_once(spans, expected) -> None:
    """Of the hundred microseconds looked at."""
    assert expected == find_busy_us(spans, 0, 100)


def test_gpus_cost_what_they_cost_while_they_were_there() -> None:
    """Ten days of 4 at 2.10 and five of 1, from the first deployment on."""
    history = [deployment(starts=LATER, gpus=1), deployment()]
    span = Span(START - timedelta(days=30), LATER + timedelta(days=5))

    assert usd("2268") == gpu_cost(history, span)
    assert 0 == gpu_cost(history, Span(START - timedelta(days=2), START))


def reality(**others):
    fields = {
        "provider": "house",
        "model": "llama",
        "span": Span(START, START + timedelta(hours=10)),
        "gpu_cost_pico": usd("84"),
        "busy_us": 3 * HOUR_US,
        "input_tokens": 6_000_000,
        "output_tokens": 2_000_000,
        "output_weight": Decimal(4),
        "billed_pico": usd("60"),
    }
    return Reality(**(fields | others))


def test_the_real_price_stands_beside_the_assumed_one() -> None:
    """Worked by hand: 84 USD for 8 million tokens, 14 million by weight."""
    real = reality()

    assert ("30", "740.741", "25") == (
        str(real.utilization),
        str(real.tokens_per_s),
        str(real.output_share),
    )
    assert (usd("10.5"), usd("6"), usd("24")) == (
        real.blended_pico,
        real.input_pico,
        real.output_pico,
    )
    assert usd("24") == real.unrecovered_pico


def test_nothing_measured_is_not_a_price_of_nothing() -> None:
    """No tokens and no time have no ratio."""
    real = reality(input_tokens=0, output_tokens=0, busy_us=0, span=Span(START, START))

    assert {None} == {
        real.utilization,
        real.tokens_per_s,
        real.output_share,
        real.blended_pico,
        real.input_pico,
        real.output_pico,
    }


_RATIOS = st.decimals(1, 100, places=2)


@given(
    st.integers(1, 64),
    st.decimals(0, 50, places=3),
    st.decimals("0.1", 10**5, places=1),
    st.tuples(_RATIOS, _RATIOS, _RATIOS),
)
def test_an_hour_as_assumed_pays_for_itself(gpus, gpu_hour, tokens_per_s, ratios) -> None:
    """The tokens of an hour, mixed as stated, never bring less than the hour costs."""
    utilization, weight, share = ratios
    one = deployment(
        gpus=gpus,
        gpu_hour=gpu_hour,
        terms=TokenTerms(
            tokens_per_s=tokens_per_s,
            utilization=utilization,
            output_weight=weight,
            output_share=share,
        ),
    )
    priced = {r.meter: Fraction(r.amount) / r.per for r in derive_prices([one]).rates}
    tokens = Fraction(tokens_per_s) * 36 * Fraction(utilization)
    output = tokens * Fraction(share) / 100
    brought = (tokens - output) * priced[Meter.INPUT] + output * priced[Meter.OUTPUT]

    assert brought >= one.hour_cost
    assert brought - one.hour_cost <= tokens / 10**15
    assert isinstance(one.terms, TokenTerms)
    assert priced[Meter.INPUT] * 10**6 >= token_price(one.hour_cost, one.terms)


@given(st.lists(st.tuples(st.integers(-50, 150), st.integers(0, 80)), max_size=12))
def test_busy_time_is_the_union_of_calls(calls) -> None:
    """Counted microsecond by microsecond."""
    spans = sorted((start, start + length) for start, length in calls)
    expected = {us for start, end in spans for us in range(start, end) if 0 <= us < 100}

    assert len(expected) == find_busy_us(spans, 0, 100)


def test_a_derived_rate_rates_like_any_other() -> None:
    """Bills go through the one rating function."""
    book = add_to_book(book_of(rate("input", "1")), derive_prices([deployment()]))
    card = book.find_card("house", "llama", START)

    assert card is not None
    (line,) = rate_usage({Meter.CACHE_READ: 3}, card)
    assert "0.000007000000" == f"{line.cost.pico / 10**12:.12f}"


def test_time_without_a_bound_has_no_ceiling() -> None:
    """Tokens that cost nothing are no bound for a call that costs its time."""
    book = add_to_book(book_of(rate("input", "1")), derive_prices([deployment(terms=TimeTerms())]))
    card = book.find_card("house", "llama", START)
    reach = Reach(
        input_tokens_max=10,
        output_tokens_max=10,
        meters=frozenset({Meter.INPUT, Meter.OUTPUT}),
        fees={},
        tiers=frozenset(),
    )

    assert card is not None
    assert prices_time(card)
    with pytest.raises(Unbounded, match="bounds the time"):
        find_ceiling(reach, card)
    timed = msgspec.structs.replace(reach, fees={Meter.GPU_SECOND: 3600})
    assert usd("2.10") <= find_ceiling(timed, card).cost_pico <= usd("2.10") + 10


def test_gpu_seconds_are_exact_to_the_microsecond() -> None:
    """Of all GPUs together, whatever their number."""
    assert "10.000004" == str(gpu_seconds(2_500_001, 4))
    assert "0.000000" == str(gpu_seconds(0, 8))


def test_a_version_with_own_prices_names_the_published_one() -> None:
    """So that a record can be priced again where the settings are still the same."""
    assert "2026-11-23.1" == published_name("2026-11-23.1+local.0a1b2c3d")
    assert "2026-11-23.1" == published_name("2026-11-23.1")
