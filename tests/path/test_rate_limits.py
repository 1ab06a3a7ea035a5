"""Rate limits are budgets with short windows, and answers tell of them in the usual headers."""

import json
from datetime import timedelta
from typing import Any

import pytest

from gateway.budgets.holds import Hold
from gateway.budgets.memory import MemoryBudgets
from gateway.budgets.rules import Demand, Unit
from gateway.telling import RateLimit, add_rate_limits, rate_limits
from tests.budgets.builders import at_once, budget, subject
from tests.path.virtual_time import run
from tests.path.world import AT, EVENTS, JSON, STREAM, WHOLE, Address, Play, World, ask

PER_MINUTE = ["cap year 100 USD", "calls minute 60 requests", "flow minute 90000 tokens"]
MESSAGE = json.dumps(
    {
        "model": "claude-sonnet-4-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hello"}],
    }
).encode()


def test_an_openai_answer_tells_its_rate_limits() -> None:
    """Limit, remaining and reset of requests and of tokens, as OpenAI's SDKs know them."""
    one = World(Play(steps=WHOLE), limits=PER_MINUTE)
    run(one.call())
    told = {name: value for name, value in one.client.told.items() if "ratelimit" in name}

    assert {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "90000",
        "x-ratelimit-remaining-tokens": str(90_000 - 1458),
        "x-ratelimit-reset-tokens": "1m0s",
    } == told


def test_a_stream_tells_what_is_left_beside_its_own_hold() -> None:
    """At the head of a stream its tokens are held at their most."""
    body = ask(stream=True)
    one = World(Play(headers=EVENTS, steps=STREAM), body=body, limits=PER_MINUTE)
    run(one.call())
    held = one.journal.intents[0].ceiling_tokens
    assert held is not None

    assert str(90_000 - held) == one.client.told["x-ratelimit-remaining-tokens"]


def test_an_anthropic_answer_tells_them_in_its_own_words() -> None:
    """Anthropic's names, and an instant for the reset."""
    address = Address(kind="anthropic", path="/anthropic/v1/messages", base_url="http://provider")
    one = World(Play(status=529), body=MESSAGE, address=address, limits=PER_MINUTE)
    run(one.call())
    told = {name: value for name, value in one.client.told.items() if "ratelimit" in name}

    assert {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "59",
        "anthropic-ratelimit-requests-reset": "2026-11-23T12:01:00.000000Z",
        "anthropic-ratelimit-tokens-limit": "90000",
        "anthropic-ratelimit-tokens-remaining": "90000",
        "anthropic-ratelimit-tokens-reset": "2026-11-23T12:01:00.000000Z",
    } == told


@pytest.mark.parametrize(
    ("theirs", "stands"),
    [
        ("3", "3"),
        ("5000", "59"),
        ("soon", "59"),
        ("9" * 5000, "59"),
        ("-1", "59"),
        ("\u00b2", "59"),
    ],
)
def test_of_two_limits_the_tighter_one_is_told(theirs: str, stands: str) -> None:
    """The provider's own limit stands where it has less left, all three headers of it."""
    own = (
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-remaining-requests", theirs),
        ("x-ratelimit-reset-requests", "6ms"),
    )
    one = World(Play(headers=(*JSON, *own), steps=WHOLE), limits=PER_MINUTE)
    run(one.call())
    told = one.client.told

    assert stands == told["x-ratelimit-remaining-requests"]
    assert ("10000" if stands == "3" else "60") == told["x-ratelimit-limit-requests"]
    assert ("6ms" if stands == "3" else "1m0s") == told["x-ratelimit-reset-requests"]


def test_without_a_rate_limit_the_providers_headers_pass() -> None:
    """A budget over a day is no rate limit, nor is one of money."""
    own = (("x-ratelimit-remaining-requests", "7"),)
    limits = ["cap year 100 USD", "daily day 100 requests", "fast minute 5 USD"]
    one = World(Play(headers=(*JSON, *own), steps=WHOLE), limits=limits)
    run(one.call())

    assert "7" == one.client.told["x-ratelimit-remaining-requests"]
    assert "x-ratelimit-limit-requests" not in one.client.told


def test_a_rate_limited_call_is_told_when_to_come_again() -> None:
    """The refusal has the same headers and ``retry-after``."""
    limits = ["cap year 100 USD", "calls minute 1 requests"]
    one = World(Play(steps=WHOLE), limits=limits)
    held: Any = at_once(one.budgets.reserve("before", subject(), Demand(cost_pico=0, tokens=0), AT))
    one.budgets.settle(held, Demand(cost_pico=0, tokens=0))
    run(one.call())

    assert 429 == one.client.status
    assert ("60", "1", "0", "1m0s") == (
        one.client.told["retry-after"],
        one.client.told["x-ratelimit-limit-requests"],
        one.client.told["x-ratelimit-remaining-requests"],
        one.client.told["x-ratelimit-reset-requests"],
    )


def held_in(text: str, *others: str) -> tuple[MemoryBudgets, Hold]:
    """A call under some budgets."""
    store = MemoryBudgets()
    store.install([budget(one) for one in (text, *others)], AT)
    hold = at_once(store.reserve("a", subject(), Demand(cost_pico=0, tokens=40), AT))
    assert isinstance(hold, Hold)
    return store, hold


def test_a_rolling_limit_is_whole_again_when_all_has_aged_out() -> None:
    """Of a rolling window the reset is when the newest call leaves it."""
    store, hold = held_in("flow rolling:30 100 tokens")
    (before,) = rate_limits(hold, AT)
    store.settle(hold, Demand(cost_pico=0, tokens=25))
    later = AT + timedelta(seconds=10)
    (after,) = rate_limits(hold, later)
    (gone,) = rate_limits(hold, AT + timedelta(seconds=31))

    assert (60, AT + timedelta(seconds=30)) == (before.remaining, before.reset_at)
    assert (75, AT + timedelta(seconds=30)) == (after.remaining, after.reset_at)
    assert (100, AT + timedelta(seconds=31)) == (gone.remaining, gone.reset_at)


def test_of_several_limits_the_one_with_least_left_is_told() -> None:
    """One limit of each unit, whichever budget it comes from."""
    _, hold = held_in("a minute 90 tokens", "b minute 50 tokens", "c rolling:60 9 requests")
    found = {limit.unit: limit.remaining for limit in rate_limits(hold, AT)}

    assert {Unit.TOKENS: 10, Unit.REQUESTS: 8} == found


@pytest.mark.parametrize(
    ("span", "text"),
    [(0, "0s"), (0.2501, "251ms"), (1, "1s"), (1.5, "2s"), (60, "1m0s"), (359.2, "6m0s")],
)
def test_a_reset_is_never_too_early(span: float, text: str) -> None:
    """Spans are written as OpenAI writes them, rounded up."""
    reset_at = AT + timedelta(seconds=span)
    limit = RateLimit(unit=Unit.REQUESTS, limit=1, remaining=1, reset_at=reset_at)
    headers = dict(add_rate_limits([], [limit], "openai.chat", AT))

    assert text == headers["x-ratelimit-reset-requests"]


SAID = [{"role": "user", "content": "Hello"}]
OPENAI = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests")
MISTRAL = ("x-ratelimit-limit-req-minute", "x-ratelimit-remaining-req-minute")
DIALECTS: list[tuple[str, str, dict[str, Any], tuple[str, str]]] = [
    ("gemini", "/gemini/v1beta/models/gemini-2.5-flash:generateContent",
     {"contents": [{"parts": [{"text": "Hi"}]}]}, OPENAI),
    ("bedrock", "/bedrock/model/amazon.nova-lite-v1:0/converse",
     {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}, OPENAI),
    ("cohere", "/cohere/v2/chat", {"model": "command-r-08-2024", "messages": SAID}, OPENAI),
    ("mistral", "/mistral/v1/chat/completions",
     {"model": "mistral-small-latest", "messages": SAID}, MISTRAL),
    ("mistral", "/v1/chat/completions",
     {"model": "mistral/mistral-small-latest", "messages": SAID}, OPENAI),
]  # fmt: skip


def speaking(row: tuple[str, str, dict[str, Any], tuple[str, str]], limit: str) -> World:
    """A call in the words of another API."""
    kind, path, body, _ = row
    region = "us" if kind == "bedrock" else None
    return World(
        Play(status=500),
        body=json.dumps(body).encode(),
        address=Address(kind=kind, path=path, base_url="http://provider", region=region),
        limits=[limit],
        unpriced="allow",
    )


@pytest.mark.parametrize("row", DIALECTS, ids=lambda row: row[1])
def test_every_api_tells_rate_limits_in_its_own_words(row: Any) -> None:
    """Mistral's own names at Mistral's address; where an API has none, OpenAI's."""
    one = speaking(row, "calls minute 60 requests")
    run(one.call())
    told = {name: value for name, value in one.client.told.items() if "ratelimit" in name}

    assert 500 == one.client.status
    assert ("60", "59") == (told.get(row[3][0]), told.get(row[3][1]))
    assert (2 if row[3] is MISTRAL else 3) == len(told)


@pytest.mark.parametrize("row", DIALECTS, ids=lambda row: row[1])
def test_every_api_is_told_when_to_come_again(row: Any) -> None:
    """By header; by ``RetryInfo`` too where its clients read nothing else."""
    one = speaking(row, "calls minute 1 requests")
    held: Any = at_once(one.budgets.reserve("before", subject(), Demand(cost_pico=0, tokens=0), AT))
    run(one.call())
    told = one.client.told

    assert held
    assert (429, "60", "0") == (one.client.status, told["retry-after"], told[row[3][1]])
    if row[0] == "gemini":
        details = json.loads(one.client.got[0])["error"]["details"]
        delays = [detail["retryDelay"] for detail in details if "RetryInfo" in detail["@type"]]
        assert ["60s"] == delays


def test_mistrals_own_limit_stands_where_it_is_tighter() -> None:
    """As with any other provider's."""
    own = (("x-ratelimit-limit-req-minute", "100"), ("x-ratelimit-remaining-req-minute", "3"))
    one = speaking(DIALECTS[3], "calls minute 60 requests")
    one.play = Play(status=500, headers=(*JSON, *own))
    run(one.call())

    assert "3" == one.client.told["x-ratelimit-remaining-req-minute"]


def test_a_rolling_limit_says_when_there_is_room() -> None:
    """Its window ends at every instant, so that is not what a refusal names."""
    one = World(Play(steps=WHOLE), limits=["cap year 100 USD", "calls rolling:45 1 requests"])
    used = Demand(cost_pico=0, tokens=0)
    held: Any = at_once(one.budgets.reserve("before", subject(), used, AT))
    one.budgets.settle(held, used)
    run(one.call())
    message = json.loads(one.client.got[0])["error"]["message"]

    assert "45" == one.client.told["retry-after"]
    assert "has no room until 2026-11-23T12:00:45.000000Z" in message
