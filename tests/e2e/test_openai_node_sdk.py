"""OpenAI's SDK for Node through the real gateway: bytes, records, tools, responses and refusals.

Must never set anything in the SDK but what its own environment variables set.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.openai_answers import STREAM, WHOLE, answer_like_openai, chunk, completion
from tests.server import KEY, PROVIDER_KEY, Gateway, Record, plain_config
from tests.upstream import SSE_HEADERS, Received, Reply, Script, ScriptedUpstream, Sse

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "openai_responses"
RESPONSE: Final = (GOLDEN / "cached-and-reasoning" / "reply.json").read_bytes()
RESPONSE_STREAM: Final = (GOLDEN / "streamed" / "reply.sse").read_bytes()
# 224 x 1.25 + 1024 x 0.125 + 146 x 10 + 64 x 10 USD per million, by hand.
COST: Final = "0.002508"
CALLED: Final[Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city":"K\\u00f6ln"}'},
        }
    ],
}
TOOL: Final = Reply(body=completion(message=CALLED))
PIECES: Final = ('{"ci', 'ty":"K', '\\u00f6ln"', "}")
FIRST: Final = {**CALLED["tool_calls"][0], "index": 0, "function": {"name": "weather"}}
TOOL_STREAM: Final = Sse(
    events=(
        chunk({"role": "assistant", "content": None}),
        chunk({"tool_calls": [FIRST]}),
        *(chunk({"tool_calls": [{"index": 0, "function": {"arguments": p}}]}) for p in PIECES),
        chunk({}, finish="tool_calls"),
    ),
    usage=STREAM.usage,
    write_bytes=61,
)

SCRIPT: Final = """
import OpenAI from 'openai';
const client = new OpenAI();
const as = (user) => ({headers: {'x-taximeter-user': user}});
const asked = {model: 'gpt-5', messages: [{role: 'user', content: 'Hello world'}]};
const tools = [{type: 'function', function: {name: 'weather', parameters: {}}}];
const seen = {};

const response = await client.chat.completions.create(asked, as('whole')).asResponse();
seen.id = response.headers.get('x-taximeter-request-id');
seen.cost = response.headers.get('x-taximeter-cost');
seen.whole = await response.text();
const parsed = await client.chat.completions.create(asked, as('whole'));
seen.total = parsed.usage.total_tokens;

const raw = await client.chat.completions.create({...asked, stream: true}, as('stream'))
  .asResponse();
seen.stream = await raw.text();
seen.words = [];
for await (const part of await client.chat.completions.create({...asked, stream: true},
                                                              as('stream'))) {
  seen.words.push(part.choices[0].delta.content ?? null);
}
const counted = {...asked, stream: true, stream_options: {include_usage: true}};
for await (const part of await client.chat.completions.create(counted, as('stream'))) {
  if (part.usage) seen.counted = part.usage.total_tokens;
}

const called = await client.chat.completions.create({...asked, tools}, as('tools'));
seen.tool = called.choices[0].message.tool_calls[0].function;
const runner = client.chat.completions.stream({...asked, tools}, as('tools'));
seen.toolStreamed = (await runner.finalChatCompletion()).choices[0].message.tool_calls[0].function;

const answered = await client.responses.create({model: 'gpt-5', input: 'Hello world'},
                                               as('responses'));
seen.output = answered.output_text;
const events = client.responses.stream({model: 'gpt-5', input: 'Hello world'}, as('responses'));
seen.deltas = [];
events.on('response.output_text.delta', (event) => seen.deltas.push(event.delta));
seen.outputStreamed = (await events.finalResponse()).usage.total_tokens;

const refused = async (make) => {
  try { await make(); } catch (error) {
    return [error.constructor.name, error.status, error.code, error.type,
            error instanceof OpenAI.RateLimitError, error.headers.get('x-should-retry')];
  }
};
const large = {...asked, max_completion_tokens: 4000};
seen.refused = await refused(() => client.chat.completions.create(large, as('poor')));
seen.refusedStream = await refused(
  () => client.chat.completions.create({...large, stream: true}, as('poor')));
seen.refusedResponse = await refused(() => client.responses.create(
  {model: 'gpt-5', input: 'Hello world', max_output_tokens: 4000}, as('poor')));
console.log(JSON.stringify(seen));
"""
REFUSED: Final = ["RateLimitError", 429, "budget_exceeded", "insufficient_quota", True, "false"]


def answer(received: Received) -> Script:
    """Play what the address and the body ask for."""
    is_stream = received.json().get("stream") is True
    if received.target.endswith("/responses"):
        return (
            Reply(headers=SSE_HEADERS, body=RESPONSE_STREAM) if is_stream else Reply(body=RESPONSE)
        )
    if b'"tools"' in received.body:
        return TOOL_STREAM if is_stream else TOOL
    return answer_like_openai(received)


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """A scripted upstream that plays OpenAI with tools and responses."""
    with ScriptedUpstream(answer) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway where one user has no room for a large answer."""
    poor = {"id": "poor", "scope": {"user": "poor"}, "limit": "0.001 USD", "window": "month"}
    config = plain_config(upstream.base_url, budgets=[poor])
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SDK in it."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("node")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not on this machine")
    asked = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), "openai@7"]
    try:
        subprocess.run(asked, check=True, capture_output=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("the npm registry does not give openai")
    return folder


@pytest.fixture(scope="module")
def seen(gateway: Gateway, node: Path) -> dict[str, Any]:
    """What the SDK saw, called with nothing but its environment variables."""
    script = node / "ask.mjs"
    script.write_text(SCRIPT)
    told = subprocess.run(
        ["node", str(script)],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(node),
            "OPENAI_BASE_URL": f"{gateway.url}/v1",
            "OPENAI_API_KEY": KEY,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "" == told.stderr
    read: dict[str, Any] = json.loads(told.stdout)
    return read


def booked(gateway: Gateway, user: str) -> list[Record]:
    """Records of one user, which were all reported and priced the same."""
    records = gateway.records_of(user)
    assert {("ok", "reported", COST)} == {(r["outcome"], r["basis"], r["cost"]) for r in records}
    return records


def test_whole_answers(gateway: Gateway, upstream: ScriptedUpstream, seen: dict[str, Any]) -> None:
    """The SDK gets the provider's bytes, and the record is the contract's."""
    assert WHOLE.body == seen["whole"].encode()
    assert (COST, 1458) == (seen["cost"], seen["total"])
    records = booked(gateway, "whole")
    assert seen["id"] in {record["id"] for record in records}
    assert [False, False] == [record["stream"] for record in records]
    keys = {one.received.header("authorization") for one in upstream.exchanges}
    assert {f"Bearer {PROVIDER_KEY}"} == keys


def test_streams(gateway: Gateway, seen: dict[str, Any]) -> None:
    """Byte for byte without usage that was not asked for; with it where it was."""
    assert STREAM.body(with_usage=False) == seen["stream"].encode()
    assert ["", "Fine", ", ", "th\u00e4nks", ".", None] == seen["words"]
    assert 1458 == seen["counted"]
    assert [True] * 3 == [record["stream"] for record in booked(gateway, "stream")]


def test_tools(gateway: Gateway, seen: dict[str, Any]) -> None:
    """Whole, and put together from pieces by the SDK's own helper."""
    called = {"name": "weather", "arguments": '{"city":"K\\u00f6ln"}'}

    assert called == seen["tool"]
    assert called["arguments"] == seen["toolStreamed"]["arguments"]
    assert 2 == len(booked(gateway, "tools"))


def test_responses(gateway: Gateway, seen: dict[str, Any]) -> None:
    """Whole, and streamed by the SDK's own helper."""
    assert "Fine, thanks." == seen["output"] == "".join(seen["deltas"])
    assert 1458 == seen["outputStreamed"]
    apis = {record["api"] for record in booked(gateway, "responses")}
    assert {"openai.responses"} == apis


def test_a_refusal_by_budget_is_the_sdks_own_error_and_is_not_tried_again(
    gateway: Gateway, upstream: ScriptedUpstream, seen: dict[str, Any]
) -> None:
    """One refusal for each call, and nothing reaches the provider."""
    assert [REFUSED] * 3 == [seen[n] for n in ("refused", "refusedStream", "refusedResponse")]
    refusals = gateway.records_of("poor")
    assert ["refused"] * 3 == [record["outcome"] for record in refusals]
    assert not [one for one in upstream.exchanges if b"4000" in one.received.body]
