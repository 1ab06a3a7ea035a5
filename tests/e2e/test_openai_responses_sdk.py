"""The real OpenAI SDK and LangChain on the Responses API, through the real gateway.

Must never accept "about": answers are compared byte by byte and money to 10^-12.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI

from tests.server import KEY, PROVIDER_KEY, Gateway, Record, plain_config
from tests.upstream import SSE_HEADERS, Reply, ScriptedUpstream

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "openai_responses"
WHOLE: Final = (GOLDEN / "cached-and-reasoning" / "reply.json").read_bytes()
STREAM: Final = (GOLDEN / "streamed" / "reply.sse").read_bytes()
TOOLS_STREAM: Final = (GOLDEN / "tools" / "reply.sse").read_bytes()
COMPACTED: Final = (GOLDEN / "compact" / "reply.json").read_bytes()
COUNTED: Final = (GOLDEN / "input-tokens" / "reply.json").read_bytes()
# 224 x 1.25 + 1024 x 0.125 + 146 x 10 + 64 x 10 USD per million, by hand.
COST: Final = "0.002508"
USED: Final = {"input": 224, "cache_read": 1024, "output": 146, "reasoning": 64}
RECORD: Final[Mapping[str, Any]] = {
    "outcome": "ok",
    "http_status": 200,
    "stream": False,
    "api": "openai.responses",
    "provider": "openai",
    "model_requested": "gpt-5",
    "model": "gpt-5-2025-08-07",
    "provider_request_id": "resp_1",
    "team": "search",
    "usage": USED,
    "input_total": 1248,
    "output_total": 210,
    "basis": "reported",
    "cost": COST,
    "list_cost": COST,
    "cost_status": "final",
    "corrects": None,
    "flags": [],
}


def named(body: bytes, name: str) -> bytes:
    """Give the response of an answer an id of its own, so that no other test has seen it."""
    return body.replace(b"resp_1", name.encode())


def stream(body: bytes) -> Reply:
    """Stream an answer in pieces that no event fits."""
    return Reply(headers=SSE_HEADERS, body=body, write_bytes=61)


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with a budget that is all but endless, and one that a big answer cannot have."""
    budgets = [
        {"id": "all", "scope": {"organization": "acme"}, "limit": "5000 USD", "window": "month"},
        {"id": "poor", "scope": {"user": "poor"}, "limit": "0.001 USD", "window": "month"},
    ]
    config = plain_config(upstream.base_url, budgets=budgets)
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture(params=["/v1", "/openai"])
def client(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    """The SDK against either surface."""
    http = httpx.Client(trust_env=False, timeout=30)
    with openai.OpenAI(
        api_key=KEY, base_url=gateway.url + request.param, http_client=http
    ) as running:
        yield running


@pytest.fixture
def main_client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """The SDK against ``/v1``, configured by its own environment variables alone."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENAI_BASE_URL", f"{gateway.url}/v1")
        environment.setenv("OPENAI_API_KEY", KEY)
        with openai.OpenAI(http_client=httpx.Client(trust_env=False, timeout=30)) as running:
            yield running


def compare(expected: Mapping[str, Any], record: Record) -> None:
    """Compare what of a record does not change with every call."""
    assert expected == {name: record[name] for name in expected}


def test_a_whole_response(
    gateway: Gateway, upstream: ScriptedUpstream, client: openai.OpenAI
) -> None:
    """Bytes are the provider's, and the record is what they say."""
    with upstream.plays(Reply(body=WHOLE)) as seen:
        raw = client.responses.with_raw_response.create(model="gpt-5", input="Hello world")

    assert WHOLE == raw.http_response.content
    assert "Fine, thanks." == raw.parse().output_text
    received = seen[0].received
    assert ("POST", "/v1/responses") == (received.method, received.target)
    assert f"Bearer {PROVIDER_KEY}" == received.header("authorization")
    assert {"model": "gpt-5", "input": "Hello world"} == received.json()
    assert COST == raw.headers["x-taximeter-cost"]
    compare(RECORD, gateway.record(raw.http_response))


def test_a_model_with_its_provider_is_renamed_and_nothing_else(
    gateway: Gateway, upstream: ScriptedUpstream, main_client: openai.OpenAI
) -> None:
    """``openai/gpt-5`` is the gateway's own name of it."""
    with upstream.plays(Reply(body=WHOLE)) as seen:
        raw = main_client.responses.with_raw_response.create(model="openai/gpt-5", input="Hello")

    sent = raw.http_response.request.content
    assert sent.replace(b'"openai/gpt-5"', b'"gpt-5"') == seen[0].received.body
    compare({**RECORD, "model_requested": "openai/gpt-5"}, gateway.record(raw.http_response))


def test_a_streamed_response(
    gateway: Gateway, upstream: ScriptedUpstream, client: openai.OpenAI
) -> None:
    """Every event arrives as it was sent, and the last one tells the use."""
    with (
        upstream.plays(stream(STREAM)) as seen,
        client.responses.with_streaming_response.create(
            model="gpt-5", input="Hello world", stream=True
        ) as raw,
    ):
        body = b"".join(raw.iter_bytes())

    assert STREAM == body
    assert {"model": "gpt-5", "input": "Hello world", "stream": True} == seen[0].received.json()
    compare({**RECORD, "stream": True}, gateway.record(raw.http_response))


def test_the_stream_helper_reads_words_and_tools(
    upstream: ScriptedUpstream, main_client: openai.OpenAI
) -> None:
    """The SDK's own events: text deltas, arguments of a call, the final response."""
    with (
        upstream.plays(stream(STREAM)),
        main_client.responses.stream(model="gpt-5", input="Hello world") as events,
    ):
        words = [event.delta for event in events if event.type == "response.output_text.delta"]
        final = events.get_final_response()
    assert ["Fine", ", ", "thanks", "."] == words
    assert final.usage is not None
    assert 1458 == final.usage.total_tokens

    with upstream.plays(stream(TOOLS_STREAM)):
        asked = main_client.responses.create(
            model="gpt-5",
            input="Weather?",
            stream=True,
            tools=[{"type": "function", "name": "weather", "parameters": {}, "strict": True}],
        )
        kinds = [event.type for event in asked]
    assert 3 == kinds.count("response.function_call_arguments.delta")
    assert "response.completed" == kinds[-1]


def test_the_async_client(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Whole and streamed."""

    async def ask() -> tuple[bytes, list[str]]:
        http = httpx.AsyncClient(trust_env=False, timeout=30)
        async with openai.AsyncOpenAI(
            api_key=KEY, base_url=f"{gateway.url}/v1", http_client=http
        ) as client:
            with upstream.plays(Reply(body=WHOLE)):
                raw = await client.responses.with_raw_response.create(model="gpt-5", input="Hi")
            with upstream.plays(stream(STREAM)):
                events = await client.responses.create(model="gpt-5", input="Hi", stream=True)
                kinds: list[str] = [event.type async for event in events]
            return raw.http_response.content, kinds

    body, kinds = asyncio.run(ask())

    assert WHOLE == body
    assert "response.completed" == kinds[-1]


@pytest.mark.parametrize("restarts", [False, True], ids=["", "and the gateway is restarted"])
def test_a_background_response_is_completed_when_it_is_retrieved(
    gateway: Gateway,
    upstream: ScriptedUpstream,
    main_client: openai.OpenAI,
    *,
    restarts: bool,
) -> None:
    """Booked at its bound, corrected to the cent, metered once."""
    name = f"resp_background_{restarts}"
    gateway.settle()
    before = gateway.budget("all").spent
    queued = json.loads(named(WHOLE, name)) | {"status": "queued", "usage": None, "output": []}
    with upstream.plays(Reply(body=json.dumps(queued).encode())):
        raw = main_client.responses.with_raw_response.create(
            model="gpt-5", input="Hello world", background=True, max_output_tokens=400
        )
    made = gateway.record(raw.http_response)
    assert ("estimated", "estimated") == (made["basis"], made["cost_status"])
    assert before + Decimal(made["cost"]) == gateway.budget("all").spent
    if restarts:
        gateway.stop()
        gateway.restart()

    with upstream.plays(Reply(body=named(WHOLE, name))) as seen:
        answers = [main_client.responses.retrieve(name) for _ in range(2)]

    assert ["GET", "GET"] == [one.received.method for one in seen]
    assert "Fine, thanks." == answers[0].output_text
    (correction,) = [one for one in gateway.ledger() if one["corrects"] == made["id"]]
    assert Decimal(COST) == Decimal(made["cost"]) + Decimal(correction["cost"])
    assert ("reported", "final") == (correction["basis"], correction["cost_status"])
    assert 1248 == made["input_total"] + correction["input_total"]
    assert before + Decimal(COST) == gateway.budget("all").spent
    problems = gateway.run("ledger", "verify")
    assert 0 == problems.returncode, problems.stdout


def test_the_rest_of_the_api(
    gateway: Gateway, upstream: ScriptedUpstream, client: openai.OpenAI
) -> None:
    """Compaction is billed; counts, items, cancelling and deleting are not."""
    with upstream.plays(Reply(body=COMPACTED)):
        compacted = client.responses.with_raw_response.compact(model="gpt-5", input="Hello world")
    # 139 x 1.25 + 438 x 10 USD per million.
    compare({"cost": "0.00455375", "basis": "reported"}, gateway.record(compacted.http_response))

    free = {"cost": "0", "basis": "none", "usage": {}, "provider": "openai"}
    calls = client.responses.with_raw_response
    with upstream.plays(Reply(body=COUNTED)) as seen:
        counted = client.responses.input_tokens.with_raw_response.count(model="gpt-5", input="Hi")
        compare(free, gateway.record(counted.http_response))
        compare(free, gateway.record(calls.delete("resp_9").http_response))
        compare(free, gateway.record(calls.cancel("resp_9").http_response))
        items = client.responses.input_items.with_raw_response.list("resp_9")
        compare(free, gateway.record(items.http_response))
    assert [
        "POST /v1/responses/input_tokens",
        "DELETE /v1/responses/resp_9",
        "POST /v1/responses/resp_9/cancel",
        "GET /v1/responses/resp_9/input_items",
    ] == [f"{one.received.method} {one.received.target}" for one in seen]


def test_a_refusal_by_budget_raises_in_the_sdk_and_is_not_tried_again(
    upstream: ScriptedUpstream, main_client: openai.OpenAI
) -> None:
    """The SDK's own exception, at once, and nothing reaches the provider."""
    with (
        upstream.plays(Reply(body=WHOLE)) as seen,
        pytest.raises(openai.RateLimitError) as caught,
    ):
        main_client.responses.create(
            model="gpt-5",
            input="Hello world",
            max_output_tokens=4000,
            extra_headers={"x-taximeter-user": "poor"},
        )

    assert [] == seen
    assert ("budget_exceeded", "insufficient_quota") == (caught.value.code, caught.value.type)


def test_langchain_on_the_responses_api(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Whole and streamed, with the usage LangChain reads."""
    with httpx.Client(trust_env=False, timeout=30) as http:
        chat = ChatOpenAI(
            model="gpt-5",
            api_key=KEY,
            base_url=f"{gateway.url}/v1",
            use_responses_api=True,
            http_client=http,
            default_headers={"x-taximeter-user": "chain"},
        )
        with upstream.plays(Reply(body=WHOLE)):
            answer = chat.invoke("Hello world")
        with upstream.plays(stream(STREAM)):
            chunks = list(chat.stream("Hello world"))

    assert "Fine, thanks." == answer.text
    assert answer.usage_metadata is not None
    assert 1458 == answer.usage_metadata["total_tokens"]
    assert "Fine, thanks." == "".join(chunk.text for chunk in chunks)
    assert [COST, COST] == [record["cost"] for record in gateway.records_of("chain")]
