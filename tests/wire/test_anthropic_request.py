"""Requests of the Messages API: what they ask for, and bounds that are never too small."""

import json
from typing import Any, Final

import pytest

from gateway.wire.anthropic_batches import AnthropicBatches
from gateway.wire.anthropic_free import AnthropicCount
from gateway.wire.anthropic_messages import AnthropicMessages, VertexMessages, VertexStream
from gateway.wire.anthropic_request import INPUT_TOKENS_SPARE, read_request
from gateway.wire.facts import Asked, BadRequest, RequestFacts
from pricing.meters import Meter

HI: Final = [{"role": "user", "content": "Hello world"}]
MESSAGES: Final = AnthropicMessages()


def body_of(**fields: Any) -> bytes:
    """Write a request; ``...`` leaves a field out."""
    usual = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": HI}
    return json.dumps({k: v for k, v in (usual | fields).items() if v is not ...}).encode()


def facts(**fields: Any) -> RequestFacts:
    """Read a request."""
    return read_request(body_of(**fields), named=None)


def said(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    """Write a conversation of one turn."""
    return [{"role": "user", "content": list(blocks)}]


TEXT: Final = {"type": "text", "text": "Hello"}
CACHED: Final = {**TEXT, "cache_control": {"type": "ephemeral"}}
IMAGE: Final = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}


def tool(kind: str, **more: Any) -> dict[str, Any]:
    """Write a tool of the provider's own."""
    return {"type": kind, "name": kind, **more}


def test_a_plain_request() -> None:
    """Its bytes bound its input, its limit the output, and it is left to the standard tier."""
    read = facts()

    assert ("claude-haiku-4-5", False, None, None) == (
        read.model,
        read.stream,
        read.tier,
        read.region,
    )
    assert len(body_of()) + INPUT_TOKENS_SPARE == read.input_tokens_max
    assert (100, 1, {}) == (read.output_tokens_max, read.rounds, dict(read.fees))
    assert Meter.CACHE_WRITE not in read.meters


SIZED: Final = {
    "text blocks": {"messages": said(TEXT)},
    "thinking": {"messages": said({"type": "thinking", "thinking": "x", "signature": "y"})},
    "a call of a tool and its answer": {
        "messages": said(
            {"type": "tool_use", "id": "1", "name": "t", "input": {"content": "x"}},
            {"type": "tool_result", "tool_use_id": "1", "content": [TEXT]},
            {"type": "tool_result", "tool_use_id": "1", "content": "done"},
        )
    },
    "tools of the client's": {"tools": [{"name": "t", "input_schema": {}}, tool("bash_20250124")]},
    "a system prompt": {"system": [TEXT]},
}
UNSIZED: Final = {
    "an image": {"messages": said(IMAGE)},
    "an image a tool answered": {
        "messages": said({"type": "tool_result", "tool_use_id": "1", "content": [IMAGE]})
    },
    "a document": {"messages": said({"type": "document", "source": {"type": "file"}})},
    "a block nobody knows": {"messages": said({"type": "hologram"})},
    "text with a source": {"messages": said({**TEXT, "source": {"type": "url"}})},
    "searches": {"tools": [tool("web_search_20250305", max_uses=2)]},
}


@pytest.mark.parametrize("fields", SIZED.values(), ids=SIZED.keys())
def test_the_bytes_of_text_bound_its_tokens(fields: dict[str, Any]) -> None:
    """However it is written."""
    bound = facts(**fields).input_tokens_max

    assert bound is not None
    assert bound >= len(body_of(**fields)) + INPUT_TOKENS_SPARE


@pytest.mark.parametrize("fields", UNSIZED.values(), ids=UNSIZED.keys())
def test_the_bytes_of_anything_else_bound_nothing(fields: dict[str, Any]) -> None:
    """The model's own limit does."""
    assert facts(**fields).input_tokens_max is None


def test_a_name_given_twice_in_a_turn_bounds_nothing() -> None:
    """Another reader may take the other one."""
    image = json.dumps([IMAGE])
    body = body_of().replace(b'"content"', b'"content": %b, "content"' % image.encode())

    assert read_request(body, named=None).input_tokens_max is None


OPEN: Final = {
    "searches without a limit": {"tools": [tool("web_search_20250305")]},
    "code": {"tools": [tool("code_execution_20250825")]},
    "an advisor": {"tools": [tool("advisor_20260301", model="claude-opus-4-8", max_uses=1)]},
    "tool servers": {"mcp_servers": [{"type": "url", "url": "https://example.com"}]},
    "compaction": {"context_management": {"edits": [{"type": "compact_20260112"}]}},
    "compaction, the new way": {"compaction": {"type": "auto"}},
    "fallbacks": {"fallbacks": [{"model": "claude-sonnet-4-5"}]},
    "the usual fallbacks": {"fallbacks": "default"},
    "a search of an aggregator's": {"plugins": [{"id": "web"}]},
    "stored settings of an aggregator's": {"preset": "lawyer"},
}


@pytest.mark.parametrize("fields", OPEN.values(), ids=OPEN.keys())
def test_what_lets_other_models_or_rounds_in_has_no_bound(fields: dict[str, Any]) -> None:
    """A hard budget refuses it rather than hold too little."""
    read = facts(**fields)
    reach = read.reach(frozenset(), None, (200_000, 64_000))

    assert read.rounds is None
    assert reach.input_tokens_max is None


def test_searches_are_held_at_their_most() -> None:
    """Each can make the model read its whole context again."""
    read = facts(tools=[tool("web_search_20260209", max_uses=3)])
    reach = read.reach(frozenset(), None, (200_000, 64_000))

    assert {Meter.WEB_SEARCH: 3} == dict(read.fees)
    assert (800_000, 400) == (reach.input_tokens_max, reach.output_tokens_max)


def test_models_a_request_lets_in_are_named() -> None:
    """The key has to be allowed all of them."""
    read = facts(
        tools=[tool("advisor_20260301", model="claude-opus-4-8")],
        fallbacks=[{"model": "claude-sonnet-4-5"}],
    )

    assert ("claude-sonnet-4-5", "claude-opus-4-8") == read.further_models


def test_writes_to_the_cache_are_held_where_they_are_asked_for() -> None:
    """An hour's at an hour's price."""
    hour = {**TEXT, "cache_control": {"type": "ephemeral", "ttl": "1h"}}

    assert Meter.CACHE_WRITE in facts(messages=said(CACHED)).meters
    assert Meter.CACHE_WRITE_1H not in facts(messages=said(CACHED)).meters
    assert Meter.CACHE_WRITE_1H in facts(messages=said(hour)).meters


TIERS: Final = [
    ({"speed": "fast"}, "fast"),
    ({"speed": "standard"}, None),
    ({"service_tier": "standard_only"}, "standard"),
    ({"service_tier": "auto"}, None),
]


@pytest.mark.parametrize(("fields", "tier"), TIERS, ids=str)
def test_the_tier_asked_for(fields: dict[str, Any], tier: str | None) -> None:
    """In the words of the catalog."""
    assert tier == facts(**fields).tier


def test_the_geography_asked_for() -> None:
    """Only one has a price of its own."""
    assert ("us", None) == (facts(inference_geo="us").region, facts(inference_geo="global").region)


WRONG: Final = [
    b"",
    b"{",
    b"[]",
    b'{"messages":[]}',
    b'{"model":"","messages":[]}',
    b'{"model":7,"messages":[]}',
    b'{"model":"m","model":"n","messages":[]}',
    b'{"model":"m","\\u006dodel":"n","messages":[]}',
    b'{"model":"m","max_tokens":"many","messages":[]}',
    b'{"model":"m","messages":7}',
    b'{"model":"%b","messages":[]}' % (b"m" * 257),
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", WRONG, ids=lambda body: body[:40])
def test_what_two_readers_could_read_differently_is_refused(body: bytes) -> None:
    """And what is no request at all."""
    with pytest.raises(BadRequest):
        MESSAGES.read_facts(Asked(body=body))


def test_only_the_name_of_the_model_is_ever_changed() -> None:
    """Bytes are spliced."""
    body = b'{ "max_tokens":1e2, "model" : "a/b","messages":[] }'.replace(b"1e2", b"100")
    asked = Asked(body=body)
    read = MESSAGES.read_facts(asked)

    assert body is MESSAGES.prepare_body(asked, read, "a/b")
    changed = MESSAGES.prepare_body(asked, read, "b")
    assert {**json.loads(body), "model": "b"} == json.loads(changed)


def test_a_batch_names_every_model() -> None:
    """It costs nothing to make, and the key has to be allowed all of it."""
    items = [{"custom_id": m, "params": {"model": m, "max_tokens": 1}} for m in ("a", "b", "a")]
    read = AnthropicBatches().read_facts(Asked(body=json.dumps({"requests": items}).encode()))

    assert (True, "a", ("b",)) == (read.is_free, read.model, read.further_models)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"requests":[{"params":{}}]}',
        b'{"requests":[{"params":{"model":"a","model":"b"}}]}',
        b'{"requests":[{"params":{"model":"a","\\u006dodel":"b"}}]}',
    ],
)
def test_a_batch_nobody_can_read_is_refused(body: bytes) -> None:
    """Or one that two could read differently."""
    with pytest.raises(BadRequest):
        AnthropicBatches().read_facts(Asked(body=body))


def test_a_count_names_its_model_and_is_free() -> None:
    """The key has to be allowed the model."""
    read = AnthropicCount().read_facts(Asked(body=body_of(max_tokens=...)))

    assert (True, "claude-haiku-4-5") == (read.is_free, read.model)
    with pytest.raises(BadRequest):
        AnthropicCount().read_facts(Asked(body=b'{"messages":[]}'))


def test_vertex_names_the_model_in_its_address() -> None:
    """Every location but the global one has the regional price; one address alone streams."""
    names = {"model": "claude-haiku-4-5@20251001", "location": "europe-west1"}
    read = VertexMessages().read_facts(Asked(body=body_of(model=...), names=names))
    stream = VertexStream().read_facts(
        Asked(body=body_of(model=...), names={**names, "location": "global"})
    )

    assert (names["model"], "regional", False) == (read.model, read.region, read.stream)
    assert (None, True) == (stream.region, stream.stream)


def test_the_texts_of_a_prompt() -> None:
    """Instructions, turns, calls of tools and what they answered; nothing where there is more."""
    body = body_of(
        system="Be short.",
        messages=[
            *HI,
            *said({"type": "tool_use", "id": "1", "name": "t", "input": {"a": 1}}),
            *said({"type": "tool_result", "tool_use_id": "1", "content": [TEXT]}),
        ],
    )

    assert ["Be short.", "Hello world", '{"a": 1}', "Hello"] == MESSAGES.read_prompt(
        Asked(body=body)
    )
    assert MESSAGES.read_prompt(Asked(body=body_of(messages=said(IMAGE)))) is None
    assert MESSAGES.read_prompt(Asked(body=b"{")) is None


@pytest.mark.parametrize(
    ("model", "thinks"),
    [("claude-3-5-haiku-latest", False), ("claude-haiku-4-5", True), ("deepseek-reasoner", True)],
)
def test_only_old_models_never_think(model: str, thinks: bool) -> None:
    """Which matters where nothing of the answer tells."""
    assert thinks is MESSAGES.may_think(model)


def test_models_of_an_aggregator_to_fall_back_to_are_refused() -> None:
    """The key was asked about one model, and its price is held."""
    with pytest.raises(BadRequest, match="name the one to call"):
        facts(models=["anthropic/claude-opus-4.5"])

    assert facts(models=None).model


@pytest.mark.parametrize(
    "tool_text",
    [
        '{"type":"code_execution_20250825","type":"custom","name":"c"}',
        '{"type":"code\\u005fexecution\\u005f20250825","type":"custom","name":"c"}',
        '{"type":"web_search_20250305","name":"w","max_uses":100,"max_uses":1}',
    ],
)
def test_a_tool_that_could_be_read_in_two_ways_is_refused(tool_text: str) -> None:
    """One reader finds a tool of the caller's where another one runs its own."""
    body = body_of(tools=[]).replace(b'"tools": []', b'"tools": [%s]' % tool_text.encode())
    with pytest.raises(BadRequest, match="more than once"):
        read_request(body, named=None)
