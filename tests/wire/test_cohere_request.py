"""What Cohere's requests ask for: bounds that are never too small, and bodies read one way."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.cohere_calls import CohereClassify, CohereEmbed, CohereParse, CohereRerank
from gateway.wire.cohere_chat import CohereChat, CohereV1Text
from gateway.wire.facts import Asked, BadRequest, ErrorBody, WireFormat
from gateway.wire.reading import INPUT_TOKENS_SPARE
from pricing.meters import Meter

CHAT, V1, EMBED = CohereChat(), CohereV1Text("cohere.chat.v1"), CohereEmbed()
RERANK, CLASSIFY, PARSE = CohereRerank(), CohereClassify(), CohereParse()
PICTURE = {"type": "image_url", "image_url": {"url": "x"}}
FORMATS: list[tuple[WireFormat, dict[str, Any]]] = [
    (CHAT, {"model": "m", "messages": []}),
    (V1, {"model": "m", "message": "x"}),
    (EMBED, {"model": "m", "texts": ["x"]}),
    (RERANK, {"model": "m", "query": "q", "documents": ["x"]}),
    (CLASSIFY, {"model": "m", "inputs": ["x"]}),
    (PARSE, {"model": "m", "document": {}}),
]


def ask(**fields: Any) -> Asked:
    """Write a request."""
    return Asked(body=json.dumps({"model": "m"} | fields).encode())


def talk(content: Any, **fields: Any) -> Asked:
    """Write a chat."""
    return ask(messages=[{"role": "user", "content": content}], **fields)


@pytest.mark.parametrize(("wire_format", "asked"), FORMATS)
def test_a_body_that_could_be_read_in_two_ways_is_refused(
    wire_format: WireFormat, asked: dict[str, Any]
) -> None:
    """Before anything is sent; so is one that leaves the model, and its price, to Cohere."""
    plain = json.dumps(asked).encode()
    odd = [b"", b"[]", b"{}", b"{", plain.replace(b'"m"', b"7"), plain[:-1] + b', "model": "o"}']
    odd += [plain[:-1] + b', "m\\u006fdel": "o"}', plain.replace(b'"m"', b'"' + b"m" * 300 + b'"')]
    odd += [b'{"model": "\xff"}', b'{"model": ' + b"[" * 9999 + b"]" * 9999 + b"}"]

    assert "m" == wire_format.read_facts(Asked(body=plain)).model
    for body in odd:
        with pytest.raises(BadRequest):
            wire_format.read_facts(Asked(body=body))


@pytest.mark.parametrize(
    ("content", "is_bounded"),
    [
        ("Hello", True),
        ([{"type": "text", "text": "Hello"}], True),
        ([{"type": "document", "document": {"data": {"content": "x", "text": "y"}}}], True),
        (None, True),
        ([{"type": "text", "text": "Hello"}, PICTURE], False),
        ([{"type": "text", "text": "Hello", "image_url": {"url": "x"}}], False),
        ([{"type": "hologram"}], False),
        ([7], False),
    ],
)
def test_images_leave_a_prompt_to_the_context(content: Any, is_bounded: bool) -> None:
    """Everything else is bounded by its bytes."""
    asked = talk(content)
    facts = CHAT.read_facts(asked)

    bound = len(asked.body) + INPUT_TOKENS_SPARE
    assert (bound if is_bounded else None) == facts.input_tokens_max
    assert is_bounded == (Meter.INPUT_IMAGE not in facts.meters)


def test_content_given_twice_bounds_nothing() -> None:
    """Another reader might take the other one."""
    body = b'{"model":"m","messages":[{"content":"x","content":[{"type":"image_url"}]}]}'

    assert CHAT.read_facts(Asked(body=body)).input_tokens_max is None


@pytest.mark.parametrize(
    ("fields", "output", "extra"),
    [
        ({}, None, 0),
        ({"max_tokens": 0}, None, 0),
        ({"max_tokens": 40}, 40, 0),
        ({"max_tokens": 40, "thinking": {"type": "enabled", "token_budget": 60}}, 40, 60),
        ({"max_tokens": 40, "thinking": {"type": "enabled"}}, 40, 0),
        ({"thinking": "much"}, None, 0),
    ],
)
def test_thinking_is_held_on_top(fields: dict[str, Any], output: int | None, extra: int) -> None:
    """Its budget is a limit of its own."""
    facts = CHAT.read_facts(talk("x", **fields))

    assert (output, extra) == (facts.output_tokens_max, facts.extra_output_max)


@pytest.mark.parametrize(
    ("fields", "is_bounded", "output"),
    [
        ({"message": "x"}, True, None),
        ({"message": "x", "max_tokens": 9}, True, 9),
        ({"prompt": "x", "max_tokens": 9, "num_generations": 3}, True, 27),
        ({"message": "x", "connectors": []}, True, None),
        ({"message": "x", "connectors": [{"id": "web-search"}]}, False, None),
        ({"message": "x", "conversation_id": "c"}, False, None),
    ],
)
def test_what_cohere_keeps_or_looks_up_has_no_bound(
    fields: dict[str, Any], is_bounded: bool, output: int | None
) -> None:
    """The request does not hold it."""
    facts = V1.read_facts(ask(**fields))

    assert (is_bounded, output) == (facts.input_tokens_max is not None, facts.output_tokens_max)
    assert is_bounded == (V1.read_prompt(ask(**fields)) is not None)


@pytest.mark.parametrize(
    ("fields", "fees", "images"),
    [
        ({"texts": ["a", "b"]}, {}, 0),
        ({"images": ["data:"]}, {}, 1),
        ({"inputs": [{"content": [{"type": "text", "text": "a"}]}]}, {}, 0),
        ({"inputs": [{"content": [{"type": "text", "text": "a"}, PICTURE]}, {}]}, {}, 2),
        ({"images": ["data:"], "model": "embed-english-v3.0"}, {Meter.IMAGE: 1}, 0),
        ({"images": ["data:"], "model": "embed-multilingual-light-v3.0"}, {Meter.IMAGE: 1}, 0),
    ],
)
def test_images_to_embed_are_held(
    fields: dict[str, Any], fees: dict[Meter, int], images: int
) -> None:
    """By the context of the model, or by the image where the model counts images."""
    asked = ask(**fields)
    facts = EMBED.read_facts(asked)

    assert fees == facts.fees
    assert len(asked.body) + INPUT_TOKENS_SPARE + images * 128_000 == facts.input_tokens_max
    assert 0 == facts.output_tokens_max


@pytest.mark.parametrize(
    ("query", "documents", "searches"),
    [
        ("q", ["x"] * 100, 1),
        ("q", ["x"] * 101, 2),
        ("q", [], 1),
        ("q", ["x" * 600] * 100, 2),
        ("q", [{"text": "x" * 600, "title": "y"}] * 50, 1),
        ("q" * 490, ["x" * 600] * 100, 76),
        ("q" * 9000, ["x" * 600] * 20_000, 200),
    ],
)
def test_searches_are_held_as_many_as_the_documents_make(
    query: str, documents: list[Any], searches: int
) -> None:
    """A long document is several, up to 10,000 in all; a call of more documents is more."""
    facts = RERANK.read_facts(ask(query=query, documents=documents))

    assert {Meter.SEARCH_UNIT: searches} == facts.fees
    assert (0, 0) == (facts.input_tokens_max, facts.output_tokens_max)


def test_a_parsed_image_is_one_page() -> None:
    """A request holds one."""
    assert {Meter.PAGE: 1} == PARSE.read_facts(ask(document={"type": "image_url"})).fees


def test_texts_of_a_prompt_are_counted_where_it_is_all_text() -> None:
    """Tools and documents are part of it."""
    tools = [{"type": "function", "function": {"name": "look"}}]
    called = {"role": "assistant", "tool_plan": "I look.", "tool_calls": [{"id": "1"}]}
    asked = ask(
        messages=[
            {"role": "user", "content": "Hi"},
            called,
            {"role": "tool", "content": [{"type": "document", "document": {"data": "Oslo"}}]},
        ],
        tools=tools,
    )
    texts = CHAT.read_prompt(asked) or []

    assert ["Hi", "I look.", '[{"id": "1"}]', '{"data": "Oslo"}', json.dumps(tools)] == texts
    assert CHAT.read_prompt(talk([PICTURE])) is None
    assert CHAT.read_prompt(Asked(body=b"{")) is None
    assert ["x", "y"] == V1.read_prompt(ask(message="x", preamble="y"))
    assert V1.read_prompt(Asked(body=b"\xff")) is None


@given(st.text(max_size=300), st.sampled_from(["model-b", "th\u00e4t"]))
def test_a_body_is_sent_as_it_came_but_for_the_model(text: str, model: str) -> None:
    """Spliced, never written anew."""
    asked = talk(text)
    facts = CHAT.read_facts(asked)

    assert asked.body is CHAT.prepare_body(asked, facts, "m")
    renamed = CHAT.prepare_body(asked, facts, model)
    assert json.loads(renamed) == {**json.loads(asked.body), "model": model}
    assert asked.body.partition(b'"m"')[2] == renamed.partition(json.dumps(model).encode())[2]


def test_trouble_is_told_as_cohere_tells_it() -> None:
    """A message, and in a stream the event that ends it."""
    error = ErrorBody(status=429, code="c", kind="k", message="No.", details={"budget": "b"})

    assert {"message": "No.", "code": "c", "kind": "k", "budget": "b"} == json.loads(
        CHAT.shape_error(error)
    )
    event, data, *_ = CHAT.shape_stream_error(error).decode().split("\n")
    assert "event: message-end" == event
    said = json.loads(data.removeprefix("data: "))
    assert {"error": "No.", "finish_reason": "ERROR"} == said["delta"]
    old = json.loads(V1.shape_stream_error(error).removeprefix(b"data: "))
    assert ("stream-end", "ERROR") == (old["event_type"], old["finish_reason"])
    assert [] == CHAT.error_headers(error)
    assert CHAT.shape_stream_facts([("x-taximeter-cost", "1")]).startswith(b": ")
