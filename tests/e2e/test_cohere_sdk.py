"""Cohere's own SDK through the real gateway: bytes, records, money, and a budget's no.

Must never accept "about": answers are compared byte by byte and money to 10^-12.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import cohere
import httpx
import pytest
from cohere.errors import TooManyRequestsError

from tests.server import KEY, PROVIDER_KEY, Gateway, plain_config
from tests.upstream import Headers, Received, Reply, Script, ScriptedUpstream

JSON: Final[Headers] = (("Content-Type", "application/json"), ("x-debug-trace-id", "7f"))
EVENTS: Final[Headers] = (("Content-Type", "text/event-stream"), ("x-debug-trace-id", "80"))
MODEL: Final = "command-a-03-2025"
ASKED: Final[Any] = [{"role": "user", "content": "Hello world"}]
TOOLS: Final[Any] = [
    {
        "type": "function",
        "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
    }
]
USAGE: Final = (
    b'{"billed_units":{"input_tokens":11.0,"output_tokens":25.0},'
    b'"tokens":{"input_tokens":506.0,"output_tokens":27.0},"cached_tokens":496.0}'
)
WHOLE: Final = Reply(
    headers=JSON,
    body=b'{ "id":"c14c80c3",  "finish_reason":"COMPLETE","x_unknown":1e-05,\n "message":{"role":'
    b'"assistant","content":[{"type":"text","text":"Fine, th\\u00e4nks."}],"tool_calls":[{'
    b'"id":"l1","type":"function","function":{"name":"look","arguments":"{}"}}]},\n "usage":'
    + USAGE
    + b"}\n",
)
_PARTS: Final = (
    b'{"type":"message-start","id":"29f14a5a","delta":{"message":{"role":"assistant","content":[]}}}',
    b'{"type":"content-start","index":0,"delta":{"message":{"content":{"type":"text","text":""}}}}',
    b'{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Fine, "}}}}',
    b'{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"th\xc3\xa4nks."}}}}',
    b'{"type":"content-end","index":0}',
    b'{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":' + USAGE + b"}}",
)
STREAM: Final = b"".join(
    b"event: " + json.loads(part)["type"].encode() + b"\ndata: " + part + b"\n\n" for part in _PARTS
)
STREAMED: Final = Reply(headers=EVENTS, body=STREAM, write_bytes=41)
EMBED: Final = Reply(
    headers=JSON,
    body=b'{"id":"da6e","embeddings":{"float":[[0.016,-0.008]]},"texts":["hello"],"meta":'
    b'{"api_version":{"version":"2"},"billed_units":{"input_tokens":8.0}},'
    b'"response_type":"embeddings_by_type"}',
)
RERANK: Final = Reply(
    headers=JSON,
    body=b'{"id":"0773","results":[{"index":0,"relevance_score":0.99}],"meta":'
    b'{"api_version":{"version":"2"},"billed_units":{"search_units":1.0}}}',
)

# 11 x 2.5 + 25 x 10 USD per million, by hand.
COST: Final = "0.0002775"
REFUSED: Final = "command-r7b-12-2024"


def answer(received: Received) -> Script:
    """Answer as Cohere does."""
    if received.target.startswith("/v2/chat"):
        return STREAMED if received.json().get("stream") else WHOLE
    return {"/v2/embed": EMBED, "/v2/rerank": RERANK}[received.target]


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """A provider that answers as Cohere does."""
    with ScriptedUpstream(answer) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with a budget that one model cannot fit in."""
    config = plain_config(
        upstream.base_url,
        providers={
            "cohere": {
                "kind": "cohere",
                "base_url": upstream.base_url.removesuffix("/v1"),
                "api_key": "env:OPENAI_API_KEY",
            }
        },
        budgets=[
            {"id": "tiny", "scope": {"model": REFUSED}, "limit": "0.000001 USD", "window": "month"},
            {"id": "all", "scope": {"team": "search"}, "limit": "500 USD", "window": "month"},
        ],
    )
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def got() -> list[httpx.Response]:
    """Responses as they came off the wire, newest last."""
    return []


@pytest.fixture
def client(gateway: Gateway, got: list[httpx.Response]) -> Iterator[cohere.ClientV2]:
    """The SDK against the provider's own surface, without a proxy and without retries."""
    with httpx.Client(event_hooks={"response": [got.append]}, trust_env=False, timeout=30) as http:
        yield cohere.ClientV2(
            KEY, base_url=gateway.url + "/cohere", httpx_client=http, max_retries=0
        )


def test_a_whole_answer_arrives_byte_for_byte_and_is_priced(
    gateway: Gateway, upstream: ScriptedUpstream, client: cohere.ClientV2, got: list[httpx.Response]
) -> None:
    """Billed units are billed: not the template, and not less for what was cached."""
    said = client.chat(model=MODEL, messages=ASKED, tools=TOOLS, max_tokens=400)

    assert "Fine, th\u00e4nks." == said.message.content[0].text  # type: ignore[index,union-attr]
    assert "look" == said.message.tool_calls[0].function.name  # type: ignore[index,union-attr]
    response = got[-1]
    assert WHOLE.body == response.content
    sent = upstream.last()
    assert ("POST", "/v2/chat") == (sent.method, sent.target)
    assert f"Bearer {PROVIDER_KEY}" == sent.header("authorization")
    assert KEY not in str(sent)
    record = gateway.record(response)
    assert ("cohere.chat", "cohere", MODEL) == tuple(
        record[name] for name in ("api", "provider", "model")
    )
    assert {"input": 11, "output": 25} == record["usage"]
    assert ("reported", COST, "final", "c14c80c3") == tuple(
        record[name] for name in ("basis", "cost", "cost_status", "provider_request_id")
    )
    assert COST == response.headers["x-taximeter-cost"]
    assert not record["flags"]


def test_a_stream_arrives_byte_for_byte_and_is_priced(
    gateway: Gateway, client: cohere.ClientV2, got: list[httpx.Response]
) -> None:
    """The units stand in the last event."""
    events = list(client.chat_stream(model=MODEL, messages=ASKED, max_tokens=400))

    assert [json.loads(part)["type"] for part in _PARTS] == [event.type for event in events]
    record = gateway.record(got[-1])
    assert {"input": 11, "output": 25} == record["usage"]
    assert (True, "reported", COST, "ok") == tuple(
        record[name] for name in ("stream", "basis", "cost", "outcome")
    )


def test_the_bytes_of_a_stream_are_the_providers(gateway: Gateway) -> None:
    """Nothing is added, nothing is taken away."""
    body = {"model": MODEL, "messages": ASKED, "stream": True, "max_tokens": 400}

    assert STREAM == gateway.call("/cohere/v2/chat", body).content


def test_embeddings_and_searches_are_priced(
    gateway: Gateway, client: cohere.ClientV2, got: list[httpx.Response]
) -> None:
    """Tokens at 0.12 USD per million, searches at 2 USD per thousand."""
    client.embed(model="embed-v4.0", input_type="classification", texts=["hello"])
    client.rerank(model="rerank-v3.5", query="capital?", documents=["Oslo"])

    embedded, searched = (gateway.record(response) for response in got)
    assert ({"input": 8}, "0.00000096") == (embedded["usage"], embedded["cost"])
    assert ({"search_unit": 1}, "0.002") == (searched["usage"], searched["cost"])
    assert (0, 0) == (searched["input_total"], searched["output_total"])


def test_the_async_client_sees_the_same(gateway: Gateway) -> None:
    """Whole, streamed, embedded and reranked."""

    async def calls() -> tuple[str, str, int, int]:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            client = cohere.AsyncClientV2(
                KEY, base_url=gateway.url + "/cohere", httpx_client=http, max_retries=0
            )
            said = await client.chat(model=MODEL, messages=ASKED, max_tokens=400)
            stream = client.chat_stream(model=MODEL, messages=ASKED, max_tokens=400)
            types = [event.type async for event in stream]
            embedded = await client.embed(
                model="embed-v4.0", input_type="classification", texts=["hello"]
            )
            ranked = await client.rerank(model="rerank-v3.5", query="q", documents=["Oslo"])
        content = said.message.content
        assert content is not None
        vectors = embedded.embeddings.float_ or []
        return content[0].text, types[-1], len(vectors), len(ranked.results)  # type: ignore[union-attr]

    before = gateway.budget("all").spent
    told = asyncio.run(calls())

    assert ("Fine, th\u00e4nks.", "message-end", 1, 1) == told
    gateway.settle()
    spent = gateway.budget("all").spent - before
    assert "0.00255596" == f"{spent:f}"  # 2 x 0.0002775 + 0.00000096 + 0.002


def test_a_budget_says_no_in_the_sdks_own_exception(
    gateway: Gateway, upstream: ScriptedUpstream, client: cohere.ClientV2, got: list[httpx.Response]
) -> None:
    """Whole, streamed and searched: one request each, none of which reaches the provider."""
    before = len(upstream.exchanges)
    asked: dict[str, Any] = {"model": REFUSED, "messages": ASKED, "max_tokens": 4000}

    with pytest.raises(TooManyRequestsError) as whole:
        client.chat(**asked)
    with pytest.raises(TooManyRequestsError):
        list(client.chat_stream(**asked))

    body: Any = whole.value.body
    assert "budget_exceeded" == body["code"]
    assert "tiny" in body["message"]
    assert 2 == len(got)
    assert before == len(upstream.exchanges)
    assert "refused" == gateway.record(got[0])["outcome"]


def test_the_environment_is_all_an_application_changes(gateway: Gateway) -> None:
    """``CO_API_URL`` and ``CO_API_KEY``, as in Cohere's documentation."""
    program = (
        "import cohere\n"
        f"said = cohere.ClientV2().chat(model={MODEL!r}, max_tokens=400,"
        " messages=[{'role': 'user', 'content': 'Hello world'}])\n"
        "print(said.id)\n"
    )
    clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "CO_API_URL": gateway.url + "/cohere", "CO_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ("c14c80c3\n", 0) == (done.stdout, done.returncode), done.stderr


def test_an_unknown_path_is_refused_in_coheres_words(gateway: Gateway) -> None:
    """A path nobody meters is not forwarded."""
    refused = gateway.call("/cohere/v2/batches", {})

    assert 404 == refused.status_code
    assert "not metered" in refused.json()["message"]
