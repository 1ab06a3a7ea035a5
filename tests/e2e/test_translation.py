"""OpenAI's SDK calls models that speak something else: translated, and metered where they live.

Must never accept a record of the translation: the provider's own call is what the ledger keeps.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import openai
import pytest

from tests.server import KEY, PROVIDER_KEY, Gateway, Record, plain_config
from tests.upstream import Received, Reply, Script, ScriptedUpstream

GOLDEN: Final = Path(__file__).parent.parent / "golden"
ASKED: list[Any] = [{"role": "user", "content": "Hello world"}]
EVENTS: Final = "text/event-stream"
FRAMES: Final = "application/vnd.amazon.eventstream"
JSON: Final = "application/json"
CLAUDE: Final = "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
# Where a provider is called, in part, and which golden answer it gives with which content type.
ANSWERS: Final = (
    ("/converse-stream", "bedrock_stream/whole/reply.bin", FRAMES),
    ("/converse", "bedrock_converse/whole/reply.json", JSON),
    (":streamGenerateContent", "gemini/streamed-totals-fall/reply.sse", EVENTS),
    (":generateContent", "gemini/whole/reply.json", JSON),
)
# By body, where the address is the same for both.
BY_BODY: Final = {
    "/v1/messages": (
        "anthropic_messages/streamed/reply.sse",
        "anthropic_messages/whole/reply.json",
    ),
}
EMBEDDED: Final = b'{"embeddings":[{"values":[0.5,-0.25]}],"usageMetadata":{"promptTokenCount":3}}'
# Vertex AI is Gemini with a project in its address and a bearer token.
PROJECT: Final = {"project": "acme-1", "region": "europe-west4"}
VERTEX: Final = "/v1/projects/acme-1/locations/europe-west4/publishers/google/models/"
TOOLS: Final = "anthropic_messages/streamed-tools/reply.sse"
MODELS: Final = {
    "anthropic.messages": ("anthropic/claude-sonnet-4-5", "anthropic_messages"),
    "gemini.generate_content": ("gemini/gemini-2.5-flash", "gemini"),
    "bedrock.converse": (CLAUDE, "bedrock_converse"),
}


def answer(received: Received) -> Script:
    """Play the provider the address belongs to, from its golden answers."""
    path = received.target.partition("?")[0]
    for part, (streamed, whole) in BY_BODY.items():
        if path.endswith(part):
            is_stream = received.json().get("stream") is True
            return played(*((streamed, EVENTS) if is_stream else (whole, JSON)))
    if path.endswith(":batchEmbedContents"):
        return Reply(headers=(("Content-Type", JSON),), body=EMBEDDED)
    for part, file, kind in ANSWERS:
        if path.endswith(part):
            return played(file, kind)
    return Reply(status=404, headers=(("Content-Type", JSON),), body=b"{}")


def played(file: str, kind: str) -> Reply:
    """A golden answer as a script."""
    return Reply(headers=(("Content-Type", kind),), body=(GOLDEN / file).read_bytes())


def total_of(case: str) -> str:
    """What a golden case costs, worked out by hand."""
    return (GOLDEN / case / "items.txt").read_text().splitlines()[-1].removeprefix("total ")


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """One server that plays every provider."""
    with ScriptedUpstream(answer) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with three providers that speak no OpenAI; one model has no budget left."""
    base_url = upstream.base_url.removesuffix("/v1")
    providers: dict[str, dict[str, Any]] = {
        kind: {"kind": kind, "base_url": base_url, "api_key": "env:OPENAI_API_KEY"}
        for kind in ("anthropic", "gemini")
    }
    providers["vertex"] = {**providers["gemini"], "kind": "vertex", **PROJECT}
    providers["bedrock"] = {**providers["anthropic"], "kind": "bedrock", "region": "us-west-2"}
    budget = {"id": "opus", "scope": {"model": "claude-opus-4-8"}, "limit": "0.000001 USD"}
    config = plain_config(base_url, providers=providers, budgets=[{**budget, "window": "month"}])
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """The SDK with its defaults, retries too."""
    http = openai.DefaultHttpxClient(trust_env=False, timeout=90)
    with openai.OpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", http_client=http) as sdk:
        yield sdk


def sent_calls(gateway: Gateway) -> list[Record]:
    """Records of calls that reached a provider."""
    gateway.settle()
    return [record for record in gateway.ledger() if record["outcome"] != "refused"]


def the_record(gateway: Gateway, before: int, api: str, of: str = "openai.chat") -> Record:
    """The one record a translated call has left: the provider's own."""
    records = sent_calls(gateway)
    assert len(records) == before + 1
    record = max(records, key=lambda one: str(one["started_at"]))
    assert api == record["api"]
    assert f"translated from {of}" in record["flags"]
    return record


@pytest.mark.parametrize("api", MODELS)
def test_a_whole_answer_is_metered_where_the_model_lives(
    gateway: Gateway, client: openai.OpenAI, api: str
) -> None:
    """One record, of the provider's own call, with its usage and its cost."""
    model, case = MODELS[api]
    before = len(sent_calls(gateway))

    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=ASKED, max_tokens=400, extra_headers={"x-taximeter-user": "u-1"}
    )

    assert raw.parse().choices[0].message.content
    record = the_record(gateway, before, api)
    assert total_of(f"{case}/whole") == record["cost"] == raw.headers["x-taximeter-cost"]
    assert record["id"] == raw.headers["x-taximeter-request-id"]
    assert ("u-1", {"env": "prod"}) == (record["user"], record["tags"])
    assert "openai.chat" == raw.headers["x-taximeter-translated"]


@pytest.mark.parametrize("api", MODELS)
def test_a_stream_is_translated_as_it_comes(
    gateway: Gateway, client: openai.OpenAI, api: str
) -> None:
    """Words arrive as OpenAI's chunks; the record is the provider's own, reported."""
    model, _ = MODELS[api]
    before = len(sent_calls(gateway))

    stream = client.chat.completions.create(
        model=model, messages=ASKED, max_tokens=400, stream=True
    )
    said = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]

    assert "".join(said)
    record = the_record(gateway, before, api)
    assert ("reported", True) == (record["basis"], record["stream"])


def test_tools_of_a_chat_are_called_and_answered(
    client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """Whole and streamed, and the provider gets what the tool said."""
    function = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
    asked: Any = {"model": "anthropic/claude-sonnet-4-5", "max_tokens": 400}
    asked["tools"] = [{"type": "function", "function": function}]
    with (
        upstream.plays(played(TOOLS, EVENTS)),
        client.chat.completions.stream(**asked, messages=ASKED) as stream,
    ):
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls
    called = message.tool_calls[0]
    said: Any = [
        *ASKED,
        {
            "role": "assistant",
            "tool_calls": [called.model_dump(include={"id", "type", "function"})],
        },
        {"role": "tool", "tool_call_id": called.id, "content": "rain"},
    ]

    answered = client.chat.completions.create(**asked, messages=said)

    assert answered.choices[0].message.content
    sent = upstream.last().json()
    assert "rain" in json.dumps(sent["messages"][-1])
    assert "weather" == sent["tools"][0]["name"]


def test_embeddings_are_translated(gateway: Gateway, client: openai.OpenAI) -> None:
    """Gemini's vectors in OpenAI's shape."""
    answered = client.embeddings.create(
        model="gemini/gemini-embedding-001", input=["Hello world"], encoding_format="float"
    )

    assert [0.5, -0.25] == answered.data[0].embedding


def test_a_spent_budget_is_the_sdks_own_error_and_is_not_tried_again(
    gateway: Gateway, client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """The refusal of the provider's own call, in OpenAI's words."""
    sent = len(upstream.exchanges)

    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(
            model="anthropic/claude-opus-4-8", messages=ASKED, max_tokens=400
        )

    gateway.settle()
    assert "budget_exceeded" == caught.value.code
    assert sent == len(upstream.exchanges)
    (refusal,) = [one for one in gateway.ledger() if "refused: budget_exceeded" in one["flags"]]
    assert "anthropic.messages" == refusal["api"]


def test_an_error_of_the_provider_is_an_error_of_the_sdk(
    client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """With the provider's status."""
    overloaded = (GOLDEN / "anthropic_messages/error-body/reply.json").read_bytes()
    reply = Reply(status=400, headers=(("Content-Type", JSON),), body=overloaded)
    with upstream.plays(reply), pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model="anthropic/claude-sonnet-4-5", messages=ASKED, max_tokens=400
        )


def test_what_cannot_be_said_is_refused(client: openai.OpenAI) -> None:
    """An option of the library's is none of OpenAI's."""
    with pytest.raises(openai.BadRequestError, match="not translated"):
        client.chat.completions.create(
            model="anthropic/claude-sonnet-4-5",
            messages=ASKED,
            extra_body={"api_base": "http://example.com"},
        )


def test_nobody_can_pass_for_the_translator(gateway: Gateway) -> None:
    """The mark needs a secret of the gateway's."""
    response = gateway.http.post(
        "/anthropic/v1/messages",
        content=json.dumps({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": ASKED}),
        headers={"x-api-key": KEY, "x-taximeter-translated": "guess 01 openai.chat"},
    )

    assert not gateway.record(response)["flags"]


# -- responses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("api", MODELS)
def test_a_whole_response_is_metered_where_the_model_lives(
    gateway: Gateway, client: openai.OpenAI, api: str
) -> None:
    """The record of a translated response is that of the provider's own call, like a chat's."""
    model, case = MODELS[api]
    before = len(sent_calls(gateway))

    raw = client.responses.with_raw_response.create(
        model=model, input="Hello world", max_output_tokens=400
    )

    said = raw.parse()
    record = the_record(gateway, before, api, "openai.responses")
    assert said.output_text
    assert ("completed", True) == (said.status, said.id.startswith("resp_"))
    assert said.usage is not None
    assert record["input_total"] == said.usage.input_tokens
    assert total_of(f"{case}/whole") == record["cost"] == raw.headers["x-taximeter-cost"]
    assert record["id"] == raw.headers["x-taximeter-request-id"]
    assert "openai.responses" == raw.headers["x-taximeter-translated"]


@pytest.mark.parametrize("api", MODELS)
def test_a_streamed_response_is_translated_as_it_comes(
    gateway: Gateway, client: openai.OpenAI, api: str
) -> None:
    """The SDK's own helper reads the events, which are numbered, and the response they make."""
    model, _ = MODELS[api]
    before = len(sent_calls(gateway))

    with client.responses.stream(model=model, input="Hello world", max_output_tokens=400) as stream:
        events = list(stream)
        final = stream.get_final_response()

    words = [event.delta for event in events if event.type == "response.output_text.delta"]
    record = the_record(gateway, before, api, "openai.responses")
    assert "".join(words) == final.output_text != ""
    assert list(range(len(events))) == [event.sequence_number for event in events]
    assert ("response.created", "response.completed") == (events[0].type, events[-1].type)
    assert ("reported", True) == (record["basis"], record["stream"])
    assert final.usage is not None
    assert record["output_total"] == final.usage.output_tokens


def test_tools_of_a_response_are_called_and_answered(
    client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """A call comes as an item with its arguments, and its result goes to the provider."""
    tool: Any = {"type": "function", "name": "get_weather", "parameters": {}}
    asked: Any = {"model": "anthropic/claude-sonnet-4-5", "max_output_tokens": 400}
    with (
        upstream.plays(played(TOOLS, EVENTS)),
        client.responses.stream(**asked, input="Weather?", tools=[tool]) as stream,
    ):
        final = stream.get_final_response()
    (called,) = [item for item in final.output if item.type == "function_call"]
    history: Any = [
        {"role": "user", "content": "Weather?"},
        {
            "type": "function_call",
            "call_id": called.call_id,
            "name": called.name,
            "arguments": "{}",
        },
        {"type": "function_call_output", "call_id": called.call_id, "output": "rain"},
    ]

    client.responses.create(**asked, input=history, tools=[tool])

    sent = upstream.last().json()
    assert "rain" in json.dumps(sent["messages"][-1])
    assert called.name == sent["tools"][0]["name"]


CANNOT: Final[Any] = [
    ({"background": True}, "wait for the answer"),
    ({"previous_response_id": "resp_1"}, "all of the conversation"),
    ({"conversation": "conv_1"}, "all of the conversation"),
    ({"prompt": {"id": "pmpt_1"}}, "instructions"),
    ({"store": True}, "nothing is kept"),
    ({"truncation": "auto"}, "leave it out"),
    ({"include": ["message.output_text.logprobs"]}, "leave it out"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "'item_reference'"),
    ({"tools": [{"type": "mcp", "server_label": "x", "server_url": "litellm_proxy"}]}, "'mcp'"),
    ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "own API"),
    ({"extra_body": {"api_base": "http://example.com"}}, "leave it out"),
]


@pytest.mark.parametrize(("fields", "advice"), CANNOT, ids=[next(iter(f)) for f, _ in CANNOT])
def test_what_a_translated_response_cannot_carry_is_refused_with_advice(
    client: openai.OpenAI, upstream: ScriptedUpstream, fields: Any, advice: str
) -> None:
    """Nothing is dropped in silence, and nothing is sent."""
    asked = {"model": "anthropic/claude-sonnet-4-5", "input": "Hello world", **fields}
    sent = len(upstream.exchanges)

    with pytest.raises(openai.BadRequestError, match=advice):
        client.responses.create(**asked)

    assert sent == len(upstream.exchanges)


def test_hints_that_only_openai_takes_are_left_out(
    client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """What changes no answer is no reason to refuse one."""
    said = client.responses.create(
        model="anthropic/claude-sonnet-4-5",
        input="Hello world",
        store=False,
        background=False,
        truncation="disabled",
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
        previous_response_id=None,
    )

    assert said.output_text
    assert {"model", "messages", "max_tokens"} == set(upstream.last().json())


def test_what_is_not_one_response_is_not_translated(client: openai.OpenAI) -> None:
    """Compaction and stored responses belong to OpenAI."""
    with pytest.raises(openai.PermissionDeniedError, match="does not translate"):
        client.responses.compact(model="anthropic/claude-sonnet-4-5", input="Hello world")


def test_a_spent_budget_refuses_a_response_as_it_does_a_chat(
    client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """Once, in the SDK's own words."""
    sent = len(upstream.exchanges)

    with pytest.raises(openai.RateLimitError) as caught:
        client.responses.create(
            model="anthropic/claude-opus-4-8", input="Hello world", max_output_tokens=400
        )

    assert ("budget_exceeded", sent) == (caught.value.code, len(upstream.exchanges))


# -- Vertex AI -----------------------------------------------------------------------------------


def test_vertex_is_called_at_its_project_with_a_bearer_token(
    gateway: Gateway, client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """Chats, responses and streams; the configured key goes along, the caller's does not."""
    model, before = "vertex/gemini-2.5-flash", len(sent_calls(gateway))
    raw = client.chat.completions.with_raw_response.create(model=model, messages=ASKED)
    record = the_record(gateway, before, "gemini.generate_content")
    assert ("vertex", "reported") == (record["provider"], record["basis"])
    assert record["cost"] == raw.headers["x-taximeter-cost"]

    stream = client.chat.completions.create(model=model, messages=ASKED, stream=True)
    assert [chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
    assert client.responses.create(model=model, input="Hello world").output_text

    assert before + 3 == len(sent_calls(gateway))
    received = [one.received for one in upstream.exchanges[-3:]]
    assert {f"Bearer {PROVIDER_KEY}"} == {one.header("authorization") for one in received}
    assert all(one.target.startswith(VERTEX) for one in received)
    assert KEY not in str(received)
