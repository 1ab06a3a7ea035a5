"""What budgets do to a call, as the real SDKs of OpenAI and Anthropic see it.

Must never read a header that no user could read.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anthropic
import httpx
import openai
import pytest

from tests.openai_answers import answer_like_openai, spoken
from tests.server import KEY, Gateway, Record, plain_config
from tests.upstream import Hold, Received, Reply, Script, ScriptedUpstream, Sse

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "anthropic_messages" / "whole"
MESSAGE: Final = Reply(
    headers=(("Content-Type", "application/json"),), body=(GOLDEN / "reply.json").read_bytes()
)
ASKED: list[Any] = [{"role": "user", "content": "Hello world"}]
CLAUDE: Final = "claude-haiku-4-5"
BUDGETS: Final[list[dict[str, Any]]] = [
    {"id": "calls", "limit": "500 requests", "window": "minute"},
    {"id": "capped", "scope": {"user": "capped"}, "limit": "0.2 USD", "window": "month"},
    {
        "id": "slow",
        "scope": {"user": "slow"},
        "limit": "1 requests",
        "window": "year",
        "mode": "soft",
        "actions": ["throttle:1"],
    },
    {"id": "cut", "scope": {"user": "cut"}, "limit": "0.01 USD", "window": "month"},
    {
        "id": "mini",
        "scope": {"user": "mini", "model": "gpt-5"},
        "limit": "0.0001 USD",
        "window": "month",
        "actions": ["fallback:openai/gpt-5-mini"],
    },
    {
        "id": "other",
        "scope": {"user": "other", "model": "gpt-5"},
        "limit": "0.0001 USD",
        "window": "month",
        "actions": ["fallback:anthropic/claude-haiku-4-5"],
    },
    {
        "id": "opus",
        "scope": {"model": "claude-opus-4-8"},
        "limit": "0.0001 USD",
        "window": "month",
        "actions": ["warn", "fallback:anthropic/claude-haiku-4-5"],
    },
]


def answer(received: Received) -> Script:
    """Play the provider the address belongs to."""
    return MESSAGE if received.target.endswith("/messages") else answer_like_openai(received)


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """One server that plays both providers."""
    with ScriptedUpstream(answer) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with two providers and a budget for each test."""
    base_url = upstream.base_url
    providers = {
        "openai": {"kind": "openai", "base_url": base_url, "api_key": "env:OPENAI_API_KEY"},
        "anthropic": {
            "kind": "anthropic",
            "base_url": base_url.removesuffix("/v1"),
            "api_key": "env:OPENAI_API_KEY",
        },
    }
    config = plain_config(base_url, providers=providers, budgets=BUDGETS)
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK against ``/v1``."""
    http = openai.DefaultHttpxClient(trust_env=False, timeout=90)
    with openai.OpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", http_client=http) as sdk:
        yield sdk


def ask(client: openai.OpenAI, user: str, **fields: Any) -> httpx.Headers:
    """Ask as a user, and give the headers of the answer."""
    raw = client.chat.completions.with_raw_response.create(
        model="openai/gpt-5", messages=ASKED, extra_headers={"x-taximeter-user": user}, **fields
    )
    assert raw.parse().choices[0].message.content
    return raw.http_response.headers


def record_of(gateway: Gateway, user: str) -> Record:
    """The one record of a user's calls that reached a provider."""
    gateway.settle()
    (record,) = [one for one in gateway.records_of(user) if one["outcome"] != "refused"]
    return record


def test_a_capped_answer_says_so(
    gateway: Gateway, upstream: ScriptedUpstream, client: openai.OpenAI
) -> None:
    """OpenAI's SDK gets its answer, the cap in a header, and the provider got the limit."""
    told = ask(client, "capped")
    cap = upstream.last().json()["max_completion_tokens"]

    assert str(cap) == told["x-taximeter-output-cap"]
    assert any("output capped" in flag for flag in record_of(gateway, "capped")["flags"])


def test_a_cut_stream_raises_in_the_sdk(
    gateway: Gateway, upstream: ScriptedUpstream, client: openai.OpenAI
) -> None:
    """A provider that keeps to no limit is let go, and the SDK is told by its own error."""
    gate = upstream.gate()
    words = spoken(*((" word",) * 3000))
    script = Sse(events=words, hold=Hold(gate=gate, before=2900))
    with upstream.plays(script) as seen:
        stream = client.chat.completions.create(
            model="openai/gpt-5",
            messages=ASKED,
            max_completion_tokens=400,
            stream=True,
            extra_headers={"x-taximeter-user": "cut"},
        )
        with pytest.raises(openai.APIError, match="budget 'cut'"):
            list(stream)
        record = record_of(gateway, "cut")
        gate.release()

    assert seen[0].left.wait(10)
    assert ("cut_by_budget", "estimated") == (record["outcome"], record["basis"])
    assert 400 < record["output_total"] < 2900


def test_a_throttled_stream_says_so(client: openai.OpenAI) -> None:
    """A call that comes faster than its window passes is delayed, and streams on as ever."""
    told = []
    for _ in range(2):
        raw = client.chat.completions.with_raw_response.create(
            model="openai/gpt-5",
            messages=ASKED,
            stream=True,
            extra_headers={"x-taximeter-user": "slow"},
        )
        said = [part.choices[0].delta.content for part in raw.parse() if part.choices]
        assert "th\u00e4nks" in said
        told.append(raw.http_response.headers.get("x-taximeter-throttled"))

    assert [None, "1.000"] == told


def test_openai_users_see_their_rate_limit(client: openai.OpenAI) -> None:
    """The headers that OpenAI's users read tell the gateway's own limit."""
    told = ask(client, "somebody")

    assert "500" == told["x-ratelimit-limit-requests"]
    assert int(told["x-ratelimit-remaining-requests"]) < 500
    assert told["x-ratelimit-reset-requests"].endswith("s")


def test_a_fallback_serves_the_call(
    gateway: Gateway, upstream: ScriptedUpstream, client: openai.OpenAI
) -> None:
    """The cheaper model answers; the record keeps what was asked for."""
    told = ask(client, "mini", max_completion_tokens=400)

    assert "openai/gpt-5-mini" == told["x-taximeter-fallback"]
    assert "gpt-5-mini" == upstream.last().json()["model"]
    assert "gpt-5" in record_of(gateway, "mini")["model_requested"]


def test_a_translated_fallback_is_held_as_what_it_becomes(
    gateway: Gateway, upstream: ScriptedUpstream, client: openai.OpenAI
) -> None:
    """A budget can send OpenAI's words to another provider: held, metered and recorded there."""
    told = ask(client, "other", max_completion_tokens=400)
    record = record_of(gateway, "other")

    assert f"anthropic/{CLAUDE}" == told["x-taximeter-fallback"]
    assert ("openai.chat", "500") == (
        told["x-taximeter-translated"],
        told["x-ratelimit-limit-requests"],
    )
    assert upstream.last().target.endswith("/v1/messages")
    assert ("anthropic.messages", CLAUDE) == (record["api"], record["model_requested"])
    assert any("in place of openai/gpt-5, which budget other" in flag for flag in record["flags"])
    assert record["cost"] == told["x-taximeter-cost"]


def test_anthropic_users_see_the_same_in_their_own_words(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """Anthropic's SDK: rate limits by its names, and a fallback within the provider."""
    http = anthropic.DefaultHttpxClient(trust_env=False, timeout=90)
    with anthropic.Anthropic(
        api_key=KEY, base_url=f"{gateway.url}/anthropic", http_client=http
    ) as sdk:
        raw = sdk.messages.with_raw_response.create(
            model="claude-opus-4-8", max_tokens=400, messages=ASKED
        )

    assert raw.parse().content
    told = raw.http_response.headers
    assert f"anthropic/{CLAUDE}" == told["x-taximeter-fallback"]
    assert "500" == told["anthropic-ratelimit-requests-limit"]
    assert told["anthropic-ratelimit-requests-reset"].endswith("Z")
    assert "x-ratelimit-limit-requests" not in told
    assert CLAUDE == json.loads(upstream.last().body)["model"]
