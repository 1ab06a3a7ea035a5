"""Estimates over HTTP."""

from decimal import Decimal
from typing import Any

import pytest

from gateway.ledger.record import LedgerRecord
from pricing.meters import Meter
from pricing.rating import Reach, rate_ceiling
from tests.admin.test_reports import record
from tests.admin.world import NOON, World

PER_MILLION = Decimal(1_000_000)


@pytest.fixture(autouse=True)
def ads(world: World) -> None:
    """Make a second team."""
    assert world.call("POST", "/teams", json={"id": "ads"}).status_code == 201


def estimate(world: World, **body: Any) -> dict[str, Any]:
    """Ask for an estimate, of the demo model unless another is named."""
    answer = world.call("POST", "/estimates", json={"model": "fake/demo-chat", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def cost_of(part: dict[str, Any]) -> str:
    """Work a part out again from its lines."""
    total = Decimal(0)
    for line in part["lines"]:
        amount = Decimal(line["quantity"]) * Decimal(line["unit_price"]) / Decimal(line["per"])
        assert amount == Decimal(line["cost"]) == Decimal(line["list_cost"])
        total += amount
    return f"{total.normalize():f}"


def test_an_estimate_without_history_expects_nothing(world: World):
    """Low is the cached input and a token, the ceiling the limit; in between nothing is made up."""
    found = estimate(world, input_tokens=1000, max_output_tokens=100)

    assert (found["provider"], found["model"]) == ("fake", "demo-chat")
    assert found["input_tokens_from"] == "given"
    assert (found["expected"], found["expected_from"], found["history"]) == (None, None, None)
    assert found["no_history"] == "the ledger has no call of this model in the last 30 days"
    assert [found[part]["output_tokens"] for part in ("low", "ceiling")] == [1, 100]
    assert found["low"]["cost"] == cost_of(found["low"]) == "0.00026"
    assert found["ceiling"]["cost"] == cost_of(found["ceiling"]) == "0.0035"
    assert "comparison" not in found


def test_an_estimate_learns_from_the_ledger(world: World):
    """Expected output is the mean of successful calls, within the limit."""
    world.mailbox.waiting += [spoken(-1, output=30), spoken(-2, output=50)]
    world.mailbox.waiting += [spoken(-3, output=9999, outcome="client_disconnected")]
    world.mailbox.flush(0)
    found = estimate(world, input_tokens=10)

    assert (found["expected_from"], found["expected"]["output_tokens"]) == ("history", 40)
    limited = estimate(world, input_tokens=10, max_output_tokens=20)
    assert limited["expected"]["output_tokens"] == 20


def spoken(n: int, *, project: str = "rag", output: int = 40, **changes: Any) -> LedgerRecord:
    """Make the record of a call with three quarters of its prompt out of the cache."""
    usage = {"input": 25, "cache_read": 75, "output": output}
    team = {"rag": "search", "chat": "search", "banner": "ads"}[project]
    fields = {"usage": usage, "input_total": 100, "output_total": output, "project": project}
    return record(n, **{**fields, "team": team, **changes})


def test_an_expectation_says_what_it_rests_on(world: World):
    """The split of the prompt, the length of the answer, on how many calls, of which days."""
    world.mailbox.waiting += [spoken(-n) for n in range(1, 25)]
    world.mailbox.flush(0)
    found = estimate(world, input_tokens=1000, project="rag")

    assert found["history"] == {
        "scope": "project",
        "id": "rag",
        "records": 24,
        "first_day": "2026-11-22",
        "last_day": "2026-11-23",
        "output_tokens": 40,
        "cached_percent": 75,
    }
    lines = {line["meter"]: line["quantity"] for line in found["expected"]["lines"]}
    assert lines == {"input": "250", "cache_read": "750", "output": "40"}
    assert found["expected"]["cost"] == cost_of(found["expected"]) == "0.0012125"
    costs = [Decimal(found[part]["cost"]) for part in ("low", "expected", "ceiling")]
    assert costs == sorted(costs)


@pytest.mark.parametrize(
    ("rag", "chat", "banner", "scope"),
    [
        (20, 0, 0, ("project", "rag", 20)),
        (19, 1, 0, ("team", "search", 20)),
        (3, 2, 15, ("organization", "acme", 20)),
        (1, 1, 1, ("model", None, 3)),
        (0, 0, 1, ("model", None, 1)),
    ],
)
def test_too_few_calls_are_widened(
    world: World, rag: int, chat: int, banner: int, scope: tuple[str, str | None, int]
):
    """Project, team, organisation, then everybody: the first with twenty calls, or else all."""
    counts = {"rag": rag, "chat": chat, "banner": banner}
    made = [name for name, count in counts.items() for _ in range(count)]
    world.mailbox.waiting += [spoken(-n - 1, project=name) for n, name in enumerate(made)]
    world.mailbox.flush(0)
    found = estimate(world, input_tokens=10, project="rag")["history"]

    assert (found["scope"], found["id"], found["records"]) == scope


def test_the_caller_may_know_better_than_history(world: World):
    """A given answer length is taken; the cache share is still the ledger's."""
    world.mailbox.waiting += [spoken(-1)]
    world.mailbox.flush(0)
    found = estimate(world, input_tokens=100, output_tokens=7, team="search")

    assert (found["expected_from"], found["expected"]["output_tokens"]) == ("given", 7)
    assert [line["quantity"] for line in found["expected"]["lines"]] == ["25", "75", "7"]


def test_the_same_call_on_other_models(world: World):
    """Every model with its costs and how many times the first one's they are."""
    found = estimate(
        world,
        input_tokens=200_000,
        output_tokens=4_000,
        max_output_tokens=4_000,
        at="2026-11-23T00:00:00Z",
        compare=["openai/gpt-5", "openai/o1-pro"],
    )["comparison"]

    assert found["by"] == "expected"
    assert [row["model"] for row in found["models"]] == ["demo-chat", "gpt-5", "o1-pro"]
    first, second, third = found["models"]
    assert (first["expected"], first["ratio"]) == ("0.54", "1")
    assert (second["expected"], second["ratio"]) == ("0.29", "0.537")
    assert (third["expected"], third["ratio"]) == ("32.4", "60")
    assert not any("cost" in row for row in found["models"])
    assert [row["note"] for row in found["models"]] == [
        "fake/demo-chat takes prompts of at most 128,000 tokens",
        None,
        None,
    ]


def test_given_usage_on_other_models(world: World):
    """Tokens of a meter a model does not sell are plain ones there, and the answer says so."""
    found = estimate(
        world,
        model="anthropic/claude-sonnet-4-5",
        usage={"cache_write_1h": 1000, "output": 10},
        compare=["fake/demo-chat"],
    )["comparison"]

    assert found["by"] == "cost"
    assert [row["cost"] for row in found["models"]] == ["0.00615", "0.0026"]
    assert found["models"][1]["counted_as"] == {"cache_write_1h": "input"}
    assert found["models"][0]["counted_as"] == {}


def test_a_model_the_call_is_not_sold_on_has_no_cost(world: World):
    """The others are compared all the same."""
    found = estimate(
        world,
        model="openai/gpt-5",
        input_tokens=10,
        max_output_tokens=10,
        service_tier="flex",
        compare=["fake/demo-chat"],
    )["comparison"]

    assert found["by"] == "ceiling"
    other = found["models"][1]
    assert (other["low"], other["ceiling"], other["ratio"]) == (None, None, None)
    assert other["note"] == "fake/demo-chat has no tier 'flex'; there are standard"


def test_the_ceiling_of_messages_is_a_bound_not_a_count(world: World):
    """Counted messages decide low and expected; the ceiling takes the bound."""
    messages = [{"role": "user", "content": "eight bytes of text are more than eight"}]
    found = estimate(world, messages=messages, max_output_tokens=10)

    assert found["input_tokens_from"] == "counted"
    assert [found[part]["input_tokens"] for part in ("low", "ceiling")] == [8, 39]


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
        ({"model": "llama-3.3-70b-versatile", "input_tokens": 1}, 422, "ambiguous_model", "groq, "),
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
        ({"input_tokens": 1, "project": "nope"}, 404, "not_found", "nope"),
        ({"input_tokens": 1, "team": "nope"}, 404, "not_found", "nope"),
        ({"input_tokens": 1, "team": "ads", "project": "rag"}, 422, "invalid_request", "search"),
        (
            {"input_tokens": 1, "output_tokens": 5, "max_output_tokens": 4},
            422,
            "invalid_request",
            "more than max_output_tokens",
        ),
        ({"input_tokens": 1, "compare": ["gtp-5"]}, 404, "unknown_model", "gtp-5"),
        ({"input_tokens": 1, "compare": ["x"] * 21}, 422, "invalid_request", "compare"),
        ({"usage": {}, "project": "rag"}, 422, "invalid_request", "project"),
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


def test_a_bare_name_of_nobody_configured_is_its_makers(world: World):
    """As on the command line, also to compare with."""
    found = estimate(world, model="gpt-5", usage={"input": 1}, compare=["gemini-2.5-pro"])

    rows = found["comparison"]["models"]
    assert [row["provider"] for row in rows] == ["openai", "gemini"]


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
