"""A hard budget with little room left caps an answer instead of refusing the call."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.budgets.rules import Demand
from gateway.capping import Outline, Room, find_cap
from gateway.wire.caps import cap_output, limit_fields
from gateway.wire.facts import Asked
from gateway.wire.openai_chat import INPUT_TOKENS_SPARE
from gateway.wire.table import ENDPOINTS
from pricing.meters import Meter
from pricing.rating import Reach, find_ceiling
from tests.budgets.builders import at_once, subject
from tests.path.virtual_time import run
from tests.path.world import AT, BOOK, EVENTS, STREAM, WHOLE, Play, World, ask

ENDLESS = ask(max_completion_tokens=...)
CARD = BOOK.find_card("openai", "gpt-5", AT)


def world(limit: str, **fields: Any) -> World:
    """A call without a limit of its own under a budget with little room."""
    return World(Play(steps=WHOLE), **({"body": ENDLESS, "limits": [f"cap year {limit}"]} | fields))


def sent(one: World) -> dict[str, Any]:
    """What the provider got."""
    (request,) = one.upstream.requests
    body: dict[str, Any] = json.loads(request.body)
    return body


def test_a_call_without_a_limit_is_capped_so_that_it_fits() -> None:
    """The cap is as large as the budget allows: one token more would not fit."""
    one = world("0.5 USD")
    run(one.call())
    cap = sent(one)["max_completion_tokens"]
    intent = one.journal.intents[0]
    per_token = 20_000_000  # 20 USD per million where the priority tier serves it

    assert 200 == one.client.status
    assert str(cap) == one.client.told["x-taximeter-output-cap"]
    assert intent.ceiling_pico is not None
    assert intent.ceiling_pico <= 5 * 10**11 < intent.ceiling_pico + per_token
    one.check_books()


def test_the_record_says_that_the_answer_was_capped() -> None:
    """Who reads the ledger sees why an answer is short."""
    one = world("0.5 USD")
    run(one.call())

    assert any("output capped at" in flag and "cap" in flag for flag in one.record.flags)


def test_nothing_but_the_field_is_added() -> None:
    """Every other byte of the request is as it came."""
    one = world("0.5 USD")
    run(one.call())
    (request,) = one.upstream.requests
    cap = one.client.told["x-taximeter-output-cap"]

    assert ENDLESS == request.body.replace(b'"max_completion_tokens":%s,' % cap.encode(), b"", 1)


def test_a_stream_tells_its_cap_too() -> None:
    """The header comes with the head of a stream."""
    body = ask(max_completion_tokens=..., stream=True)
    one = World(Play(headers=EVENTS, steps=STREAM), body=body, limits=["cap year 0.5 USD"])
    run(one.call())

    assert str(sent(one)["max_completion_tokens"]) == one.client.told["x-taximeter-output-cap"]
    one.check_books()


def test_a_budget_with_room_leaves_the_request_alone() -> None:
    """Where the model's own maximum fits, no byte changes and no header tells of a cap."""
    one = world("100 USD")
    run(one.call())

    assert ENDLESS == one.upstream.requests[0].body
    assert "x-taximeter-output-cap" not in one.client.told


def test_a_limit_of_the_clients_own_is_not_lowered() -> None:
    """What the client asked for is what it gets, or it is refused."""
    one = world("0.05 USD", body=ask(max_completion_tokens=100_000))
    run(one.call())

    assert (429, []) == (one.client.status, one.upstream.requests)


@pytest.mark.parametrize("limit", [0, -1, "null"])
def test_a_limit_that_says_nothing_is_left_alone(limit: Any) -> None:
    """A field that is there is the client's word, but for null."""
    body = ENDLESS[:-1] + b', "max_tokens": %s}' % str(limit).encode()
    one = world("0.5 USD", body=body)
    run(one.call())

    assert (200 if limit == "null" else 429) == one.client.status


def test_below_the_smallest_cap_the_call_is_refused_as_it_was_asked() -> None:
    """An answer of a few tokens is of no use; the refusal names what the whole call needs."""
    one = world("0.0009 USD")
    run(one.call())
    error = json.loads(one.client.got[0])["error"]

    assert (429, "budget_exceeded") == (one.client.status, error["code"])
    assert float(error["asked"]) > 1
    assert 0 == one.budgets.open_holds


def test_tokens_are_capped_like_money() -> None:
    """A budget of tokens has room for the prompt's bound and the cap."""
    one = world("10000 tokens", limits=["cap year 100 USD", "tokens year 10000 tokens"])
    run(one.call())
    intent = one.journal.intents[0]

    assert 10_000 == intent.ceiling_tokens
    assert sent(one)["max_completion_tokens"] == 10_000 - (len(ENDLESS) + INPUT_TOKENS_SPARE)
    one.check_books()


def test_every_budget_counts() -> None:
    """The smallest room decides, whichever budget has it."""
    limits = ["cap year 0.5 USD", "tokens year 10000 tokens", "tight day 0.01 USD"]
    one = world("", limits=limits)
    run(one.call())

    assert one.journal.intents[0].ceiling_pico is not None
    assert one.journal.intents[0].ceiling_pico <= 10**10
    one.check_books()


def test_requests_cannot_be_capped() -> None:
    """A budget of requests has room for the call or has none."""
    one = world("", limits=["cap year 100 USD", "few year 1 requests"])
    run(one.call())
    again = world("", limits=["cap year 0.0000001 USD", "few year 1 requests"])
    run(again.call())

    assert (200, 429) == (one.client.status, again.client.status)


def test_the_budget_that_no_cap_helps_is_the_one_named() -> None:
    """A cap would fit the first budget: it is the second one that keeps the call out."""
    one = world("", limits=["cap year 0.5 USD", "few year 1 requests"])
    demand = Demand(cost_pico=0, tokens=0)
    held: Any = at_once(one.budgets.reserve("before", subject(), demand, AT))
    run(one.call())

    assert held
    assert 429 == one.client.status
    assert "few" == json.loads(b"".join(one.client.got))["error"]["budget"]


def test_soft_budgets_cap_nothing() -> None:
    """Only a hard budget changes a request."""
    one = world("0.5 USD", mode="soft")
    run(one.call())

    assert ENDLESS == one.upstream.requests[0].body


def test_a_prompt_without_a_bound_is_refused() -> None:
    """A capped answer does not help where the prompt has no bound that fits."""
    image = {"type": "image_url", "image_url": {"url": "http://images/1"}}
    body = ask(max_completion_tokens=..., messages=[{"role": "user", "content": [image]}])
    one = world("0.1 USD", body=body)
    run(one.call())

    assert (429, []) == (one.client.status, one.upstream.requests)


def test_several_answers_share_the_room() -> None:
    """The limit counts for every answer that is asked for."""
    one = world("0.5 USD", body=ask(max_completion_tokens=..., n=4))
    run(one.call())
    intent = one.journal.intents[0]

    assert 4 * sent(one)["max_completion_tokens"] in intent.bound_usage.values()
    one.check_books()


def test_a_model_without_a_known_maximum_is_capped_at_the_setting() -> None:
    """Nothing bounds the output: the gateway does, where a hard budget needs a bound."""
    one = world(
        "",
        unpriced="allow",
        limits=["cap year 90000 tokens"],
        body=ask(max_completion_tokens=..., model="openai/new-model"),
    )
    run(one.call())

    assert 8192 == sent(one)["max_completion_tokens"]


Row = tuple[str, str, str, dict[str, Any], tuple[str, ...]]
PROMPT = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "m", "messages": PROMPT}
NEW = ("max_completion_tokens",)
ROWS: list[Row] = [
    ("openai", "/chat/completions", "openai", CHAT, NEW),
    ("vllm", "/v1/chat/completions", "local", CHAT, ("max_tokens",)),
    ("mistral", "/v1/chat/completions", "mistral", CHAT, ("max_tokens",)),
    ("openai", "/completions", "openai", {"model": "m", "prompt": "Hi"}, ("max_tokens",)),
    ("openai", "/responses", "openai", {"model": "m", "input": "Hi"}, ("max_output_tokens",)),
    ("anthropic", "/v1/messages", "anthropic", CHAT, ("max_tokens",)),
    ("gemini", "/v1beta/models/m:generateContent", "gemini",
     {"contents": [{"parts": [{"text": "Hi"}]}]}, ("generationConfig", "maxOutputTokens")),
    ("gemini", "/v1beta/models/m:streamGenerateContent", "gemini",
     {"contents": [{"parts": [{"text": "Hi"}]}], "generation_config": {"temperature": 1}},
     ("generation_config", "maxOutputTokens")),
    ("gemini", "/v1beta/interactions", "gemini", {"model": "m", "input": "Hi"},
     ("generation_config", "max_output_tokens")),
    ("bedrock", "/model/m/converse", "bedrock", {"messages": [], "inferenceConfig": {}},
     ("inferenceConfig", "maxTokens")),
    ("bedrock", "/model/m/converse-stream", "bedrock", {"messages": []},
     ("inferenceConfig", "maxTokens")),
    ("cohere", "/v2/chat", "cohere", CHAT, ("max_tokens",)),
    ("cohere", "/v1/chat", "cohere", {"model": "m", "message": "Hi"}, ("max_tokens",)),
    ("mistral", "/v1/fim/completions", "mistral", {"model": "m", "prompt": "Hi"}, ("max_tokens",)),
    ("mistral", "/v1/conversations", "mistral", {"model": "m", "inputs": "Hi"},
     ("completion_args", "max_tokens")),
    ("ollama", "/api/chat", "ollama", {"model": "m", "messages": PROMPT, "options": None},
     ("options", "num_predict")),
    ("ollama", "/api/generate", "ollama", {"model": "m", "prompt": "Hi", "options": {"seed": 1}},
     ("options", "num_predict")),
]  # fmt: skip


def match(kind: str, path: str) -> Any:
    """Find the format of an address, with or without the version."""
    found = ENDPOINTS.find(kind, "POST", path) or ENDPOINTS.find(
        kind, "POST", path.removeprefix("/v1")
    )
    assert found is not None, path
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
@pytest.mark.parametrize("tokens", [1, 977])
def test_each_format_has_its_own_field(row: Row, tokens: int) -> None:
    """The field is where the provider reads it, and the reader of the format finds it there."""
    kind, path, priced_as, asked, where = row
    found = match(kind, path)
    format_ = found.endpoint.format
    fields = limit_fields(format_.api, priced_as)
    body = cap_output(json.dumps(asked).encode(), fields, tokens)
    assert body is not None
    inner: Any = json.loads(body)
    for name in where:
        inner = inner[name]
    facts = format_.read_facts(Asked(body=body, names=found.names))

    assert (tokens, tokens) == (inner, facts.output_tokens_max)
    assert cap_output(body, fields, 5) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b" { } ", b' {"max_tokens":7 } '),
        (b'{"a": 1}', b'{"max_tokens":7,"a": 1}'),
        (b'{"max_tokens" : null , "a": 1}', b'{"max_tokens" :7, "a": 1}'),
        (b'{"a": {"max_tokens": 3}}', b'{"max_tokens":7,"a": {"max_tokens": 3}}'),
        (b'{"max_tokens": 3}', None),
        (b'{"maxTokens": 3}', None),
        (b'{"max\\u005ftokens": 3}', None),
        (b'{"max_tokens": null, "max_tokens": null}', None),
    ],
)
def test_a_limit_is_written_where_none_is(before: bytes, after: bytes | None) -> None:
    """However it is spelt, a limit that is there stays; a null is the absence of one."""
    assert after == cap_output(before, (("max_tokens",),), 7)


COUNTS: Mapping[str, frozenset[Meter]] = {
    "gpt-5": frozenset({Meter.INPUT, Meter.OUTPUT, Meter.CACHE_READ, Meter.REASONING}),
}


@given(
    tokens_in=st.integers(0, 400_000),
    answers=st.integers(1, 8),
    extra=st.integers(0, 5000),
    pico=st.none() | st.integers(0, 3 * 10**12),
    tokens=st.none() | st.integers(0, 500_000),
)
def test_a_cap_is_the_largest_that_fits(
    tokens_in: int, answers: int, extra: int, pico: int | None, tokens: int | None
) -> None:
    """The capped call's ceiling fits; with one token more it does not, or the model ends there."""
    assert CARD is not None
    reach = Reach(
        input_tokens_max=tokens_in,
        output_tokens_max=None,
        meters=COUNTS["gpt-5"],
        fees={},
        tiers=frozenset({"standard", "priority"}),
    )
    outline = Outline(reach=reach, card=CARD, answers=answers, extra=extra)
    room = Room(cost_pico=pico, tokens=tokens)
    found = find_cap(outline, room, (16, 128_000))

    if found is None:
        assert not room.holds(outline.under(16).demand)
        return
    assert room.holds(found.demand)
    assert found.limit == 128_000 or not room.holds(outline.under(found.limit + 1).demand)
    assert found.ceiling is not None
    bounded = Reach(
        input_tokens_max=tokens_in,
        output_tokens_max=found.limit * answers + extra,
        meters=reach.meters,
        fees={},
        tiers=reach.tiers,
    )
    assert find_ceiling(bounded, CARD) == found.ceiling


def test_a_cap_is_counted() -> None:
    """By the budget it was for."""
    one = world("0.5 USD")
    run(one.call())

    assert [("cap", "cap")] == one.watcher.acts


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"type":"a"}', b'{"response":{"max_output_tokens":7},"type":"a"}'),
        (b'{"response": {"voice":"a"}}', b'{"response": {"max_output_tokens":7,"voice":"a"}}'),
        (b'{"response": null}', b'{"response":{"max_output_tokens":7}}'),
        (b'{"response": {"max_output_tokens":"inf"}}', None),
        (b'{"response": {"max_response_output_tokens":9}}', None),
        (b'{"response": [1]}', None),
        (b'{"response": {}, "respon\\u0073e": {}}', None),
    ],
)  # fmt: skip
def test_a_response_of_a_session_takes_a_limit(before: bytes, after: bytes | None) -> None:
    """Realtime's events have it inside ``response``."""
    assert after == cap_output(before, limit_fields("openai.realtime", "openai"), 7)
