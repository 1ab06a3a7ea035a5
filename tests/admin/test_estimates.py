"""Estimates over HTTP."""

from decimal import Decimal
from typing import Any

import pytest

from pricing.meters import Meter
from pricing.rating import Reach, rate_ceiling
from tests.admin.test_reports import record
from tests.admin.world import NOON, World

PER_MILLION = Decimal(1_000_000)


def estimate(world: World, **body: Any) -> dict[str, Any]:
    """Ask for an estimate of the demo model."""
    answer = world.call("POST", "/estimates", json={"model": "fake/demo-chat", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_estimate_without_history_says_that_it_assumes(world: World):
    """Low is the input and a token, expected half of the limit, the ceiling the limit."""
    found = estimate(world, input_tokens=1000, max_output_tokens=100)

    assert (found["provider"], found["model"]) == ("fake", "demo-chat")
    assert found["input_tokens_from"] == "given"
    assert found["expected_from"] == "assumption"
    assert [found[part]["output_tokens"] for part in ("low", "expected", "ceiling")] == [1, 50, 100]
    assert found["low"]["cost"] == "0.00251"
    assert found["expected"]["cost"] == "0.003"
    assert found["ceiling"]["cost"] == "0.0035"
    for part in ("low", "expected", "ceiling"):
        lines = found[part]["lines"]
        assert Decimal(found[part]["cost"]) == sum(Decimal(line["cost"]) for line in lines)
        for line in lines:
            amount = Decimal(line["quantity"]) * Decimal(line["unit_price"]) / Decimal(line["per"])
            assert amount == Decimal(line["cost"])


def test_an_estimate_learns_from_the_ledger(world: World):
    """Expected output is the mean of successful calls, within the limit."""
    world.mailbox.waiting += [record(-1, output_total=30), record(-2, output_total=50)]
    world.mailbox.waiting += [record(-3, output_total=9999, outcome="client_disconnected")]
    world.mailbox.flush(0)
    found = estimate(world, input_tokens=10)

    assert (found["expected_from"], found["expected"]["output_tokens"]) == ("history", 40)
    limited = estimate(world, input_tokens=10, max_output_tokens=20)
    assert limited["expected"]["output_tokens"] == 20


def test_the_ceiling_of_messages_is_a_bound_not_a_count(world: World):
    """Counted messages decide low and expected; the ceiling takes the bound."""
    messages = [{"role": "user", "content": "eight bytes of text are more than eight"}]
    found = estimate(world, messages=messages, max_output_tokens=10)

    assert found["input_tokens_from"] == "counted"
    assert [found[part]["input_tokens"] for part in ("low", "expected", "ceiling")] == [8, 8, 39]


def test_the_ceiling_is_the_one_a_budget_would_hold(world: World):
    """Estimates and reservations go through the same function with the same card."""
    card = world.parts.book.find_card("demo", "demo-chat", NOON)
    assert card is not None
    reach = Reach(
        input_tokens_max=777,
        output_tokens_max=card.output_tokens_max,
        meters=frozenset({Meter.INPUT, Meter.OUTPUT}),
        fees={},
        tiers=frozenset({"standard"}),
    )
    lines = rate_ceiling(reach, card)

    found = estimate(world, input_tokens=777)["ceiling"]["lines"]
    assert [str(line.cost) for line in lines] == [line["cost"] for line in found]


def test_unbounded_parts_are_bounded_by_the_model(world: World):
    """An image has no byte bound, so the model's whole context stands in."""
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]
    found = estimate(world, messages=image)

    assert found["ceiling"]["input_tokens"] == 128_000


def test_usage_is_rated_exactly(world: World):
    """Given usage comes back as the lines a ledger record would have."""
    found = estimate(world, usage={"input": 224, "cache_read": 1024, "output": 146})

    assert found["cost"] == "0.002276"
    assert found["lines"][1] == {
        "sku": "demo/demo-chat/cache_read",
        "price_id": "demo/demo-chat/cache_read/standard",
        "meter": "cache_read",
        "quantity": "1024",
        "unit_price": "0.25",
        "per": "1000000",
        "list_cost": "0.000256",
        "cost": "0.000256",
    }
    assert estimate(world, usage={})["cost"] == "0"
    assert estimate(world, usage={"input": "5"})["lines"][0]["quantity"] == "5"


def test_words_for_the_standard_tier_and_unknown_regions(world: World):
    """What a provider's API calls default is standard; a region without prices changes nothing."""
    found = estimate(world, usage={"input": 1}, service_tier="default", region="moon")

    assert (found["service_tier"], found["region"]) == ("standard", None)


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({"model": "demo-chatt", "input_tokens": 1}, 404, "unknown_model", "demo/demo-chat"),
        ({"model": "x", "provider": "nope", "input_tokens": 1}, 404, "unknown_model", "x"),
        ({"usage": {"web_search": 1}}, 422, "unpriced_meter", "web_search"),
        ({"usage": {"cache_write": 1}}, 422, "unpriced_meter", "cache_write"),
        ({"usage": {"input": 1}, "service_tier": "gold"}, 422, "unpriced_meter", "gold"),
        ({"input_tokens": 1, "batch": True}, 422, "unpriced_meter", "batch"),
        (
            {"usage": {}, "batch": True, "service_tier": "flex"},
            422,
            "invalid_request",
            "not both",
        ),
        ({"input_tokens": 1, "at": "2020-01-01T00:00:00Z"}, 422, "unpriced_model", "2020"),
        ({"usage": {"input": "1.5"}}, 422, "invalid_request", "whole"),
        ({"usage": {"input": 1.5}}, 422, "invalid_request", "usage"),
        ({"usage": {"input": -1}}, 422, "invalid_request", "usage"),
        ({"usage": {"tokens": 1}}, 422, "invalid_request", "usage"),
        ({"input_tokens": 1, "messages": []}, 422, "invalid_request", "input_tokens"),
        ({}, 422, "invalid_request", "input_tokens"),
        ({"input_tokens": True}, 422, "invalid_request", "input_tokens"),
        ({"messages": [{"content": "\ud800"}]}, 422, "invalid_request", "Unicode"),
    ],
)
def test_refusals_name_the_cause(
    world: World, body: dict[str, Any], status: int, code: str, words: str
):
    """Nothing is priced partially, and a name that is close is offered."""
    answer = world.call("POST", "/estimates", json={"model": "demo-chat", **body})

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert words in answer.json()["detail"]


def test_models_are_found_as_calls_find_them(world: World):
    """By the configured provider, by the catalog's, by a bare name, by a snapshot."""
    for asked in [
        {"model": "fake/demo-chat"},
        {"model": "demo-chat"},
        {"model": "demo-chat-2026-11-01"},
        {"model": "demo/demo-chat"},
        {"model": "demo-chat", "provider": "fake"},
        {"model": "demo-chat", "provider": "demo"},
        {"model": "fake/demo-chat", "provider": "fake"},
    ]:
        answer = world.call("POST", "/estimates", json={"usage": {"input": 1}, **asked})

        assert answer.status_code == 200, asked
        assert answer.json()["cost"] == "0.0000025"
