"""Low, expected and ceiling: by hand, and in order whatever was asked."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import epoch_us
from gateway.estimate_public import Choice, comparison_to_public
from gateway.estimating import (
    NoSuchTier,
    PlannedCall,
    Terms,
    bound_messages,
    count_messages,
    estimate_call,
    make_offer,
    plan_call,
    rate_same,
    read_quantity,
    read_terms,
)
from gateway.ledger.history import NO_HISTORY, CallHistory, HistoryQuery
from gateway.usual import NoHistory, Usual, find_usual, history_query
from pricing.book import load_book
from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.money import Money
from pricing.rating import UnpricedSku

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
BOOK = load_book()
NOBODY = NoHistory(why="nobody asked")
# Cards and tiers with a price of a prompt and of an answer; a search or an image has neither.
SOLD = [
    (card, tier)
    for entry in BOOK.models
    if (card := BOOK.find_card(entry.provider, entry.model, AT)) is not None
    for tier in sorted(card.tiers)
    if all(card.find_candidates(tier, None, {})[meter] for meter in (Meter.INPUT, Meter.OUTPUT))
]


def offer(model="openai/gpt-5", **terms):
    """A model at the prices of the day."""
    provider, name = model.split("/")
    card = BOOK.find_card(provider, name, AT)
    assert card is not None
    return make_offer(provider, name, card, Terms(**terms))


def usual(records=1, **counts):
    """Calls that used so many tokens together."""
    meters = {Meter(name): count for name, count in counts.items()}
    return Usual(
        scope="project",
        id="rag",
        calls=CallHistory(
            records=records,
            first_us=0,
            last_us=0,
            input_counts={m: n for m, n in meters.items() if m in INPUT_METERS},
            output_counts={m: n for m, n in meters.items() if m in OUTPUT_METERS},
        ),
    )


def given_tokens(tokens, **more):
    """A call with a counted prompt."""
    return PlannedCall(input_tokens=tokens, input_tokens_max=tokens, **more)


@pytest.mark.parametrize(
    ("seen", "planned", "expected"),
    [
        (usual(input=100, output=10), (50, None), {"input": 50, "output": 10}),
        (usual(2, input=1, output=3), (50, None), {"input": 50, "output": 2}),  # 1.5 is 2
        (usual(input=1, cache_read=3, output=1), (100, None), {"input": 25, "cache_read": 75}),
        (usual(input=1, cache_read=2, output=1), (10, None), {"input": 3, "cache_read": 7}),
        (usual(input=1, cache_read=1, output=1), (1, None), {"cache_read": 1}),
        (usual(input=9, output=6, reasoning=3), (1, 6), {"input": 1, "output": 4, "reasoning": 2}),
        (usual(input=9, output=0), (1, None), {"input": 1, "output": 1}),
        (usual(output=10**9), (1, None), {"output": 128_000}),
        (NOBODY, (50, 7), {"input": 50, "output": 7}),
        (NOBODY, (0, 7), {"output": 7}),
        (NOBODY, (50, 0), {"input": 50, "output": 1}),
    ],
    ids=str,
)
def test_tokens_are_expected_as_calls_have_used_them(seen, planned, expected):
    """The prompt split as theirs, the answer their mean or the one given, at least one token."""
    tokens, answer = planned
    found = estimate_call(offer(), given_tokens(tokens, output_tokens=answer), seen).expected

    assert found is not None
    counts = {line.meter.value: line.quantity for line in found.lines}
    assert expected.items() <= counts.items()
    assert found.tokens("input") == tokens


def test_without_history_nothing_is_expected():
    """No number stands for what nobody knows."""
    found = estimate_call(offer(), given_tokens(10), NOBODY)

    assert (found.expected, found.expected_from, found.usual) == (None, None, NOBODY)


@given(
    sold=st.sampled_from(SOLD),
    tokens=st.integers(0, 2_000_000),
    answer=st.none() | st.integers(0, 200_000),
    limit=st.none() | st.integers(1, 200_000),
    cached=st.integers(0, 100),
    written=st.integers(0, 100),
)
def test_low_expected_and_ceiling_are_in_order(*, sold, tokens, answer, limit, cached, written):
    """For every text model and tier: low <= expected <= ceiling, each the sum of its lines."""
    card, tier = sold
    asked = make_offer(card.provider, card.model, card, Terms(tier=tier))
    seen = usual(3, input=100, cache_read=cached, cache_write=written, output=99, reasoning=9)
    call = given_tokens(tokens, output_tokens=answer, output_tokens_max=limit)
    found = estimate_call(asked, call, seen)

    assert found.expected is not None
    assert found.low.cost <= found.expected.cost
    if found.ceiling is not None:
        assert found.expected.cost <= found.ceiling.cost
    for part in (found.low, found.expected, found.ceiling):
        if part is not None:
            assert part.cost.pico == sum(line.cost.pico for line in part.lines)


def test_more_than_text_is_bounded_by_the_dearest_tokens():
    """An image or a sound may be what fills the context."""
    unbounded = PlannedCall(input_tokens=5, input_tokens_max=None)
    found = estimate_call(offer("gemini/gemini-2.5-flash"), unbounded, NOBODY)

    assert found.ceiling is not None
    assert {line.meter.value for line in found.ceiling.lines} == {"input_audio", "output"}
    assert found.ceiling.tokens("input") == found.offer.card.context_tokens_max


@pytest.mark.parametrize(
    ("counts", "lines", "counted_as"),
    [
        ({"input": 3, "cache_write": 4}, {"input": 7}, {"cache_write": "input"}),
        ({"cache_read": 3}, {"cache_read": 3}, {}),
        ({"cache_write_1h": 3, "reasoning": 2}, {"input": 3, "reasoning": 2}, None),
    ],
)
def test_tokens_a_model_does_not_sell_are_plain_ones(counts, lines, counted_as):
    """Nothing is lost, nothing is free, and it is told."""
    usage = {Meter(name): count for name, count in counts.items()}
    found = rate_same(offer("demo/demo-chat"), usage)

    assert {line.meter.value: line.quantity for line in found.lines} == lines
    if counted_as is not None:
        assert {a.value: b.value for a, b in found.counted_as.items()} == counted_as


def test_what_is_no_token_is_not_counted_as_one():
    """A search has no price where it is not sold."""
    with pytest.raises(UnpricedSku, match="web_search"):
        rate_same(offer("demo/demo-chat"), {Meter.WEB_SEARCH: 1})


@pytest.mark.parametrize(
    ("asked", "tier"),
    [
        ((None, False), "standard"),
        (("Auto", False), "standard"),
        (("default", True), "batch"),
        (("batch", True), "batch"),
        (("flex", False), "flex"),
    ],
    ids=str,
)
def test_tiers_are_read_in_the_providers_words(asked, tier):
    """What an API calls default is what the catalog calls standard."""
    assert read_terms(asked[0], None, is_batch=asked[1]).tier == tier


def test_what_is_not_sold_is_refused():
    """A tier nobody sells, and a batch in another tier; a region without prices is no region."""
    with pytest.raises(NoSuchTier, match="there are standard"):
        offer("demo/demo-chat", tier="gold")
    with pytest.raises(ValueError, match="not both"):
        read_terms("flex", None, is_batch=True)
    assert offer(region="moon").terms.region is None


@pytest.mark.parametrize("amount", ["1e9", "-1", " 1", "NaN", "1.5", "", "9" * 19, "٣", -1])
def test_a_quantity_is_a_plain_number(amount):
    """Whole where the meter is, and written with digits."""
    with pytest.raises(ValueError, match="input: "):
        read_quantity(Meter.INPUT, amount)


def test_seconds_may_have_fractions():
    """As the provider counts them."""
    assert str(read_quantity(Meter.AUDIO_SECOND, "1.5")) == "1.5"
    assert read_quantity(Meter.AUDIO_SECOND, "2.0") == 2


@pytest.mark.parametrize(
    ("messages", "is_bounded"),
    [
        ([{"role": "user", "content": "Hi there"}], True),
        ([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], True),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}], False),
        ([{}], True),
        ([{"role": "user", "content": 5}], False),
    ],
    ids=str,
)
def test_messages_are_counted_and_bounded(messages, is_bounded):
    """Whatever they hold, there is a count; a bound only where bytes bound the tokens."""
    planned = plan_call(
        messages,
        lambda found: count_messages(found, lambda texts: sum(map(len, texts))),
        output_tokens=None,
        output_tokens_max=None,
    )

    assert planned.input_tokens > 0
    assert (bound_messages(messages) is not None) == is_bounded
    assert planned.input_tokens_max is None or planned.input_tokens_max >= planned.input_tokens


def test_history_is_asked_for_under_every_name():
    """Aliases, snapshots, and every provider id that sells the model at these prices."""
    entry = BOOK.find_model("openai", "gpt-5")
    assert entry is not None
    query = history_query(entry, "asked", {"mine": "openai", "other": "gemini"}, AT)

    assert query.providers == {"asked", "openai", "mine"}
    assert {"gpt-5", "gpt-5-2025-08-07"} <= query.models
    assert query.to_us - query.from_us == 30 * 86_400_000_000
    assert query.to_us == epoch_us(AT)


def test_nobody_is_asked_when_the_nearest_are_enough():
    """One read for a project with history; four for one without."""
    asked: list[HistoryQuery] = []
    entry = BOOK.find_model("openai", "gpt-5")
    assert entry is not None
    query = history_query(entry, "openai", {}, AT + timedelta(days=1))

    def load(counts, wanted):
        asked.append(wanted)
        return usual(counts.pop(0)).calls if counts else NO_HISTORY

    found = find_usual(lambda q: load([20], q), query)
    assert isinstance(found, Usual)
    assert (found.scope, len(asked)) == ("model", 1)


@pytest.mark.parametrize(
    ("costs", "by", "ratios"),
    [
        ([(1, 3, 5), (1, 6, 5)], "expected", ["1", "2"]),
        ([(1, None, 3), (1, 2, 4)], "ceiling", ["1", "1.333"]),
        ([(3, None, None), (1, None, None)], "low", ["1", "0.3333"]),
        ([(1, 0, 5), (1, 6, 5)], "expected", [None, None]),
        ([(1, 3, 5), (None, None, None)], "expected", ["1", None]),
        ([(1, 10**6, 5), (1, 1, 5)], "expected", ["1", "0.000001"]),
    ],
    ids=str,
)
def test_models_are_compared_by_the_best_known_cost(costs, by, ratios):
    """Expected where it is known; no ratio to nothing and of nothing."""
    choices = [
        Choice(
            provider="p",
            model="m",
            costs={
                name: None if pico is None else Money(pico)
                for name, pico in zip(("low", "expected", "ceiling"), row, strict=True)
            },
            counted_as={},
        )
        for row in costs
    ]
    found = comparison_to_public(choices)

    assert found["by"] == by
    assert [row["ratio"] for row in found["models"]] == ratios
