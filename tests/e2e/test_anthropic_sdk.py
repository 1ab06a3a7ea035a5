"""The real Anthropic SDKs through the real gateway: bytes, records, money and refusals.

Must never accept "about": answers are compared byte by byte and money to 10^-12.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anthropic
import pytest

from tests.server import KEY, PROVIDER_KEY, Gateway, Record, plain_config
from tests.upstream import SSE_HEADERS, Received, Reply, Script, ScriptedUpstream

ASKED: list[Any] = [{"role": "user", "content": "Hello world"}]
MODEL: Final = "claude-haiku-4-5"
SERVED: Final = "claude-haiku-4-5-20251001"
JSON: Final = (("Content-Type", "application/json"), ("request-id", "req_011Whole"))
# A hundred read anew, a thousand from the cache, seventy written for an hour; twenty of fifty
# output tokens were thought: 100 x 1 + 1000 x 0.1 + 70 x 2 + 50 x 5 USD per million, by hand.
COST: Final = "0.00059"
USAGE: Final = (
    b'{"input_tokens":100, "cache_creation_input_tokens":70,"cache_read_input_tokens":1000,'
    b'"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":70},'
    b'"output_tokens":50,"output_tokens_details":{"thinking_tokens":20},'
    b'"service_tier":"standard","inference_geo":"global"}'
)
WHOLE: Final = Reply(
    headers=JSON,
    body=b'{ "model":"%b","id":"msg_01Whole","type":"message","role":"assistant",\n "content":'
    b'[{"type":"text","text":"Fine, th\\u00e4nks."}], "x_unknown":{"weight":1e-05},'
    b'"stop_reason":"end_turn","stop_sequence":null,"usage":%b }\n' % (SERVED.encode(), USAGE),
)
BODY: Final = (
    b'event: message_start\ndata: {"type":"message_start","message":{"model":"%b",'
    b'"id":"msg_01Stream","type":"message","role":"assistant","content":[],"stop_reason":null,'
    b'"stop_sequence":null,"usage":{"input_tokens":100,"cache_creation_input_tokens":70,'
    b'"cache_read_input_tokens":1000,"cache_creation":{"ephemeral_5m_input_tokens":0,'
    b'"ephemeral_1h_input_tokens":70},"output_tokens":1,"service_tier":"standard",'
    b'"inference_geo":"global"}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
    b'event: ping\ndata: {"type": "ping"}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"Fine, "}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"th\xc3\xa4nks."}}\n\n'
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn",'
    b'"stop_sequence":null},"usage":{"output_tokens":50,'
    b'"output_tokens_details":{"thinking_tokens":20}}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n' % SERVED.encode()
)
STREAM: Final = Reply(headers=SSE_HEADERS, body=BODY, write_bytes=61)
TOOL_USE: Final = Reply(
    headers=JSON,
    body=b'{"model":"%b","id":"msg_01Tool","type":"message","role":"assistant","content":'
    b'[{"type":"tool_use","id":"toolu_01","name":"weather","input":{"city":"K\xc3\xb6ln"}}],'
    b'"stop_reason":"tool_use","stop_sequence":null,"usage":%b}' % (SERVED.encode(), USAGE),
)
COUNTED: Final = Reply(headers=JSON, body=b'{"input_tokens": 14}')
RESULTS: Final = Reply(
    headers=(("Content-Type", "application/x-jsonl"), ("request-id", "req_011Results")),
    body=b'{"custom_id":"one","result":{"type":"succeeded","message":{"model":"%b",'
    b'"id":"msg_01Batch","type":"message","role":"assistant","content":[],'
    b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":1000,'
    b'"output_tokens":100,"service_tier":"batch"}}}}\n'
    b'{"custom_id":"two","result":{"type":"expired"}}\n' % SERVED.encode(),
)
MODELS: Final = Reply(headers=JSON, body=b'{"data":[],"has_more":false}')
TOOL: Any = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
LINES: Final = [
    ("input", "100", "1", "0.0001"),
    ("cache_read", "1000", "0.1", "0.0001"),
    ("cache_write_1h", "70", "2", "0.00014"),
    ("output", "30", "5", "0.00015"),
    ("reasoning", "20", "5", "0.0001"),
]
RECORD: Record = {
    "outcome": "ok",
    "http_status": 200,
    "stream": False,
    "api": "anthropic.messages",
    "provider": "anthropic",
    "model_requested": MODEL,
    "model": SERVED,
    "provider_request_id": "msg_01Whole",
    "organization": "acme",
    "team": "search",
    "project": "rag",
    "key": "rag-ci",
    "user": None,
    "tags": {"env": "prod"},
    "usage": {
        "input": 100,
        "cache_read": 1000,
        "cache_write_1h": 70,
        "output": 30,
        "reasoning": 20,
    },
    "input_total": 1170,
    "output_total": 50,
    "basis": "reported",
    "currency": "USD",
    "cost": COST,
    "list_cost": COST,
    "provider_cost": None,
    "cost_status": "final",
    "corrects": None,
}
PLAIN: Final = """
import anthropic
turn = {"role": "user", "content": "Hello world"}
with anthropic.Anthropic() as sdk:
    print(sdk.messages.create(model="claude-haiku-4-5", max_tokens=64, messages=[turn]).id)
"""
NODE: Final = """
import Anthropic from '@anthropic-ai/sdk';
const client = new Anthropic();
const asked = {model: 'claude-haiku-4-5', max_tokens: 64,
               messages: [{role: 'user', content: 'Hello world'}]};
const whole = await client.messages.create(asked);
let text = '';
for await (const event of client.messages.stream(asked)) {
  if (event.type === 'content_block_delta') text += event.delta.text;
}
let refused = null;
const large = {...asked, max_tokens: 64000, model: 'claude-opus-4-8', stream: true};
try { await client.messages.create(large); }
catch (error) { refused = [error.status, error.error.error.code]; }
console.log(JSON.stringify([whole.content[0].text, whole.usage.output_tokens, text, refused]));
"""


def answer_like_anthropic(received: Received) -> Script:
    """Play what the address and the body ask for."""
    path = received.target.partition("?")[0]
    if path.endswith("/count_tokens"):
        return COUNTED
    if path.endswith("/results"):
        return RESULTS
    if path.endswith("/models"):
        return MODELS
    if b'"tools"' in received.body:
        return TOOL_USE
    return STREAM if b'"stream":true' in received.body.replace(b" ", b"") else WHOLE


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """A scripted upstream that plays Anthropic."""
    with ScriptedUpstream(answer_like_anthropic) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with an Anthropic provider; a budget has no room for large answers of Opus."""
    base_url = upstream.base_url.removesuffix("/v1")
    provider = {"kind": "anthropic", "base_url": base_url, "api_key": "env:OPENAI_API_KEY"}
    budgets = [
        {"id": "month", "scope": {"team": "search"}, "limit": "500 USD", "window": "month"},
        {"id": "opus", "scope": {"model": "claude-opus-4-8"}, "limit": "1 USD", "window": "month"},
    ]
    config = plain_config(base_url, providers={"anthropic": provider}, budgets=budgets)
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    """The SDK with its defaults, retries too; it sends the key as a bearer token."""
    http = anthropic.DefaultHttpxClient(trust_env=False, timeout=30)
    with anthropic.Anthropic(
        api_key=KEY, base_url=f"{gateway.url}/anthropic", http_client=http
    ) as sdk:
        yield sdk


def compare(expected: Record, record: Record) -> None:
    """Compare a record with all fields of the contract, but for what differs in every call."""
    varying = ("id", "started_at", "ended_at", "price_version", "flags", "lines")
    assert "user_input_tokens" in record
    shown = {n: v for n, v in record.items() if n not in (*varying, "user_input_tokens")}

    assert expected == {name: shown.get(name) for name in expected}
    assert not record["flags"]
    lines = [(i["meter"], i["quantity"], i["unit_price"], i["cost"]) for i in record["lines"]]
    assert lines == LINES


def test_a_whole_message_arrives_byte_for_byte_and_is_priced(
    gateway: Gateway, upstream: ScriptedUpstream, client: anthropic.Anthropic
) -> None:
    """Bytes both ways, the provider's key instead of ours, and the record of the contract."""
    raw = client.messages.with_raw_response.create(model=MODEL, max_tokens=64, messages=ASKED)

    assert WHOLE.body == raw.http_response.content
    (block,) = raw.parse().content
    assert "Fine, th\u00e4nks." == getattr(block, "text", None)
    assert COST == raw.headers["x-taximeter-cost"]
    compare(RECORD, gateway.record(raw.http_response))  # type: ignore[arg-type]
    received = upstream.last()
    assert "/v1/messages" == received.target
    assert PROVIDER_KEY == received.header("x-api-key")
    assert received.header("authorization") is None
    assert KEY not in str(received)
    assert received.header("anthropic-version")
    sent = raw.http_response.request.content
    assert sent == received.body


def test_a_beta_call_keeps_its_query_and_its_header(
    gateway: Gateway, upstream: ScriptedUpstream, client: anthropic.Anthropic
) -> None:
    """What the SDK says about betas reaches the provider."""
    raw = client.beta.messages.with_raw_response.create(
        model=MODEL, max_tokens=64, messages=ASKED, betas=["context-1m-2025-08-07"]
    )

    compare(RECORD, gateway.record(raw.http_response))  # type: ignore[arg-type]
    sent = raw.http_response.request
    assert sent.url.raw_path.decode() == "/anthropic" + upstream.last().target
    assert "context-1m-2025-08-07" == upstream.last().header("anthropic-beta")


def test_a_stream_arrives_byte_for_byte_and_is_priced(
    gateway: Gateway, client: anthropic.Anthropic
) -> None:
    """Names of events, pings and all; the count is the last one told."""
    with client.messages.with_streaming_response.create(
        model=MODEL, max_tokens=64, messages=ASKED, stream=True
    ) as raw:
        body = b"".join(raw.iter_bytes())

    assert BODY == body
    compare(
        {**RECORD, "stream": True, "provider_request_id": "msg_01Stream"},
        gateway.record(raw.http_response),  # type: ignore[arg-type]
    )


def test_the_sdk_reads_a_stream_word_by_word(client: anthropic.Anthropic) -> None:
    """Its helper gives the words and the whole message, its iterator the events."""
    with client.messages.stream(model=MODEL, max_tokens=64, messages=ASKED) as stream:
        words = list(stream.text_stream)
        final = stream.get_final_message()
    events = client.messages.create(model=MODEL, max_tokens=64, messages=ASKED, stream=True)

    assert ["Fine, ", "th\u00e4nks."] == words
    assert 50 == final.usage.output_tokens
    kinds = [event.type for event in events]
    assert ["message_start", "message_delta", "message_stop"] == [kinds[0], *kinds[-2:]]


def test_the_async_client_works_in_parallel(gateway: Gateway) -> None:
    """Whole and streamed at once, each with a record of its own."""

    async def ask_all() -> list[str]:
        http = anthropic.DefaultAsyncHttpxClient(trust_env=False, timeout=30)
        async with anthropic.AsyncAnthropic(
            api_key=KEY,
            base_url=f"{gateway.url}/anthropic",
            http_client=http,
            default_headers={"x-taximeter-user": "parallel"},
        ) as sdk:

            async def stream() -> str:
                async with sdk.messages.stream(
                    model=MODEL, max_tokens=64, messages=ASKED
                ) as events:
                    return "".join([word async for word in events.text_stream])

            async def whole() -> str:
                answer = await sdk.messages.create(model=MODEL, max_tokens=64, messages=ASKED)
                return str(getattr(answer.content[0], "text", None))

            return await asyncio.gather(*(one() for _ in range(5) for one in (stream, whole)))

    assert ["Fine, th\u00e4nks."] * 10 == asyncio.run(ask_all())
    assert [COST] * 10 == [record["cost"] for record in gateway.records_of("parallel")]


def test_tools_pass(gateway: Gateway, client: anthropic.Anthropic) -> None:
    """A call of a tool arrives as it is and is billed as output."""
    raw = client.messages.with_raw_response.create(
        model=MODEL, max_tokens=64, messages=ASKED, tools=[TOOL]
    )

    assert TOOL_USE.body == raw.http_response.content
    assert {"city": "K\u00f6ln"} == getattr(raw.parse().content[0], "input", None)
    assert COST == gateway.record(raw.http_response)["cost"]  # type: ignore[arg-type]


def test_counting_is_free(gateway: Gateway, client: anthropic.Anthropic) -> None:
    """What a prompt would come to is no usage."""
    raw = client.messages.with_raw_response.count_tokens(model=MODEL, messages=ASKED)

    assert 14 == raw.parse().input_tokens
    record = gateway.record(raw.http_response)  # type: ignore[arg-type]
    assert ("none", "0", {}) == (record["basis"], record["cost"], record["usage"])


def test_lists_are_free(client: anthropic.Anthropic, gateway: Gateway) -> None:
    """What Claude Code asks before it begins."""
    assert [] == client.models.list(limit=1000).data
    probe = gateway.http.head("/anthropic/api/hello", headers={"x-api-key": KEY})
    assert probe.status_code == 200


def test_results_of_a_batch_are_metered_when_first_fetched(
    gateway: Gateway, upstream: ScriptedUpstream, client: anthropic.Anthropic
) -> None:
    """Lines that succeeded, at the price of a batch: 1000 x 0.5 + 100 x 2.5 USD per million."""
    url = f"{gateway.url}/anthropic/v1/messages/batches/msgbatch_01/results"
    batch = {
        "id": "msgbatch_01",
        "type": "message_batch",
        "processing_status": "ended",
        "results_url": url,
    }
    body = json.dumps(batch).encode()

    def answer(received: Received) -> Script:
        return RESULTS if received.target.endswith("/results") else Reply(headers=JSON, body=body)

    with upstream.plays(answer):
        lines = list(client.messages.batches.results("msgbatch_01"))
        again = list(client.messages.batches.results("msgbatch_01"))

    assert lines == again
    assert ["succeeded", "expired"] == [line.result.type for line in lines]
    metered = [one for one in gateway.ledger() if one["api"] == "anthropic.batch_results"]
    assert [("reported", "0.00075", {"input": 1000, "output": 100}), ("none", "0", {})] == [
        (one["basis"], one["cost"], one["usage"]) for one in metered
    ]


def test_a_budget_refuses_in_the_words_of_the_sdk_and_is_not_asked_again(
    gateway: Gateway, upstream: ScriptedUpstream, client: anthropic.Anthropic
) -> None:
    """A rate limit error with the stable code; the SDK does not retry and nothing was sent."""
    before = len(upstream.exchanges)
    with pytest.raises(anthropic.RateLimitError) as caught:
        client.messages.create(
            model="claude-opus-4-8",
            max_tokens=64_000,
            messages=ASKED,
            extra_headers={"x-taximeter-user": "poor"},
        )

    body: Any = caught.value.body
    assert ("error", "rate_limit_error") == (body["type"], body["error"]["type"])
    assert ("budget_exceeded", "opus") == (body["error"]["code"], body["error"]["budget"])
    assert before == len(upstream.exchanges)
    assert ["refused"] == [record["outcome"] for record in gateway.records_of("poor")]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, anthropic.AuthenticationError),
        (404, anthropic.NotFoundError),
        (400, anthropic.BadRequestError),
    ],
)
def test_refusals_have_the_shape_of_the_api(
    gateway: Gateway, status: int, kind: type[anthropic.APIStatusError]
) -> None:
    """A wrong key, an address nobody meters, a request nobody can read."""
    http = anthropic.DefaultHttpxClient(trust_env=False, timeout=30)
    key = "sk-tm-nobody" if status == 401 else KEY
    path = "/v1/nowhere" if status == 404 else "/v1/messages"
    with (
        anthropic.Anthropic(
            api_key=key, base_url=f"{gateway.url}/anthropic", http_client=http
        ) as sdk,
        pytest.raises(kind) as caught,
    ):
        sdk.post(path, cast_to=object, body={"model": 7})

    body: Any = caught.value.body
    assert "error" == body["type"]
    assert body["error"]["code"] in ("invalid_api_key", "invalid_request")


def test_errors_of_the_provider_arrive_as_they_are(
    gateway: Gateway, upstream: ScriptedUpstream, client: anthropic.Anthropic
) -> None:
    """Also an overload, told inside a stream after the status."""
    event = (
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"O"}}'
    )
    script = Reply(
        headers=SSE_HEADERS, body=BODY[: BODY.index(b"event: content")] + event + b"\n\n"
    )
    with (
        upstream.plays(script),
        client.messages.with_streaming_response.create(
            model=MODEL, max_tokens=64, messages=ASKED, stream=True
        ) as raw,
    ):
        body = b"".join(raw.iter_bytes())

    assert script.body == body
    record = gateway.record(raw.http_response)  # type: ignore[arg-type]
    assert ("upstream_error", "partial") == (record["outcome"], record["basis"])
    assert {"input": 100, "cache_read": 1000, "cache_write_1h": 70, "output": 1} == record["usage"]


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_the_environment_alone_is_enough(gateway: Gateway, tmp_path: Path, name: str) -> None:
    """``ANTHROPIC_BASE_URL`` and a key, however the SDK sends it."""
    environ = {
        "HOME": str(tmp_path),
        "ANTHROPIC_BASE_URL": f"{gateway.url}/anthropic",
        name: KEY,
    }
    told = subprocess.run(
        [sys.executable, "-c", PLAIN], env=environ, capture_output=True, text=True, check=False
    )

    assert ("msg_01Whole\n", "") == (told.stdout, told.stderr)


def test_a_key_in_its_own_header_opens_the_same_door(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """``x-api-key``, and the query, as Claude Code and older SDKs send them."""
    response = gateway.http.post(
        "/anthropic/v1/messages",
        params={"beta": "true"},
        json={"model": MODEL, "max_tokens": 64, "messages": ASKED},
        headers={"x-api-key": KEY, "anthropic-version": "2023-06-01"},
    )

    assert "/v1/messages?beta=true" == upstream.last().target
    assert WHOLE.body == response.content
    compare(RECORD, gateway.record(response))


def test_the_node_sdk_reads_the_same(gateway: Gateway, tmp_path: Path) -> None:
    """Whole, streamed, and refused without a retry."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not on this machine")
    asked = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(tmp_path)]
    try:
        subprocess.run([*asked, "@anthropic-ai/sdk@1"], check=True, capture_output=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("the npm registry does not give @anthropic-ai/sdk")
    script = tmp_path / "ask.mjs"
    script.write_text(NODE)
    kept = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    environ = {**kept, "ANTHROPIC_BASE_URL": f"{gateway.url}/anthropic", "ANTHROPIC_API_KEY": KEY}
    told = subprocess.run(
        [node, str(script)], env=environ, capture_output=True, text=True, timeout=60, check=False
    )

    assert "" == told.stderr
    words = "Fine, th\u00e4nks."
    assert [words, 50, words, [429, "budget_exceeded"]] == json.loads(told.stdout)
