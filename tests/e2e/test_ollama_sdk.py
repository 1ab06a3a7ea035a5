"""Ollama's own client through the real gateway: bytes, records, and a budget's no.

Must never accept "about": answers are compared byte by byte.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import ollama
import pytest

from tests.server import KEY, Gateway, plain_config
from tests.upstream import Headers, Received, Reply, Script, ScriptedUpstream

JSON: Final[Headers] = (("Content-Type", "application/json; charset=utf-8"),)
LINES: Final[Headers] = (("Content-Type", "application/x-ndjson"),)
MODEL: Final = "llama3.1"
REFUSED: Final = "llama2"
ASKED: Final[Any] = [{"role": "user", "content": "Hello world"}]
AUTH: Final = {"authorization": f"Bearer {KEY}"}


def part(text: str, **last: object) -> bytes:
    """One object of a chat."""
    said = {"model": MODEL, "created_at": "2026-11-23T12:00:00Z", "done": bool(last)}
    return json.dumps({**said, "message": {"role": "assistant", "content": text}, **last}).encode()


COUNTS: Final = {"done_reason": "stop", "prompt_eval_count": 26, "eval_count": 4}
WHOLE: Final = Reply(headers=JSON, body=part("Fine, th\u00e4nks.", **COUNTS))
STREAM: Final = b"".join(
    line + b"\n" for line in (part("Fine, "), part("th\u00e4nks."), part("", **COUNTS))
)
STREAMED: Final = Reply(headers=LINES, body=STREAM, write_bytes=37)
GENERATED: Final = (
    b"".join(
        json.dumps({"model": MODEL, "response": text, "done": False}).encode() + b"\n"
        for text in ("Fine", ".")
    )
    + json.dumps({"model": MODEL, "response": "", "done": True, **COUNTS}).encode()
    + b"\n"
)
TAGS: Final = Reply(
    headers=JSON, body=b'{"models":[{"name":"llama3.1:latest","model":"llama3.1"}]}'
)


def answer(received: Received) -> Script:
    """Answer as Ollama does: a stream unless it was told otherwise."""
    if received.target == "/api/tags":
        return TAGS
    is_whole = received.json().get("stream") is False
    if received.target == "/api/chat":
        return WHOLE if is_whole else STREAMED
    if is_whole:
        return Reply(headers=JSON, body=GENERATED.splitlines()[-1])
    return Reply(headers=LINES, body=GENERATED, write_bytes=29)


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """A provider that answers as Ollama does."""
    with ScriptedUpstream(answer) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with a budget that one model cannot fit in."""
    config = plain_config(
        upstream.base_url,
        providers={"ollama": {"kind": "ollama", "base_url": upstream.base_url.removesuffix("/v1")}},
        budgets=[{"id": "tiny", "scope": {"model": REFUSED}, "limit": "9 tokens", "window": "day"}],
    )
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[ollama.Client]:
    """The SDK as an application makes it."""
    client = ollama.Client(host=gateway.url + "/ollama", headers=AUTH, trust_env=False, timeout=30)
    yield client
    client.close()


def newest(gateway: Gateway) -> dict[str, Any]:
    """The record of the call before."""
    *_, last = (record for record in gateway.ledger() if record["provider"] is not None)
    return last


def test_a_whole_chat_is_counted(gateway: Gateway, client: ollama.Client) -> None:
    """As Ollama counted it."""
    said = client.chat(MODEL, messages=ASKED)

    assert "Fine, th\u00e4nks." == said.message.content
    record = newest(gateway)
    assert {"input": 26, "output": 4} == record["usage"]
    assert ("ollama.chat", MODEL, "reported", "0", False) == tuple(
        record[name] for name in ("api", "model", "basis", "cost", "stream")
    )


def test_a_streamed_chat_is_counted(gateway: Gateway, client: ollama.Client) -> None:
    """The counts stand in the last line."""
    texts = [said.message.content for said in client.chat(MODEL, messages=ASKED, stream=True)]

    assert ["Fine, ", "th\u00e4nks.", ""] == texts
    record = newest(gateway)
    assert ({"input": 26, "output": 4}, True) == (record["usage"], record["stream"])


def test_a_generation_is_counted_whole_and_streamed(
    gateway: Gateway, client: ollama.Client
) -> None:
    """Its text stands in another field."""
    assert 4 == client.generate(MODEL, "Hello world").eval_count
    assert {"input": 26, "output": 4} == newest(gateway)["usage"]
    streamed = client.generate(MODEL, "Hello world", stream=True)
    assert ["Fine", ".", ""] == [said.response for said in streamed]
    assert ("ollama.generate", True) == tuple(newest(gateway)[name] for name in ("api", "stream"))


def test_the_bytes_of_a_stream_are_the_providers(gateway: Gateway) -> None:
    """A request that does not say so is streamed."""
    streamed = gateway.call("/ollama/api/chat", {"model": MODEL, "messages": ASKED})

    assert STREAM == streamed.content
    assert "application/x-ndjson" == streamed.headers["content-type"]


def test_lists_are_free(gateway: Gateway, client: ollama.Client) -> None:
    """They pass and cost nothing."""
    assert [MODEL] == [one.model for one in client.list().models]
    record = newest(gateway)
    assert ("ollama.free", "none", "0") == tuple(record[n] for n in ("api", "basis", "cost"))


def test_the_async_client_sees_the_same(gateway: Gateway) -> None:
    """Whole and streamed."""

    async def calls() -> tuple[str | None, list[str | None]]:
        client = ollama.AsyncClient(
            host=gateway.url + "/ollama", headers=AUTH, trust_env=False, timeout=30
        )
        said = await client.chat(MODEL, messages=ASKED)
        stream = await client.chat(MODEL, messages=ASKED, stream=True)
        texts = [one.message.content async for one in stream]
        await client.close()
        return said.message.content, texts

    whole, streamed = asyncio.run(calls())

    assert ("Fine, th\u00e4nks.", "Fine, th\u00e4nks.") == (
        whole,
        "".join(text or "" for text in streamed),
    )


def test_a_budget_says_no_in_the_sdks_own_exception(
    upstream: ScriptedUpstream, client: ollama.Client
) -> None:
    """Whole and streamed: one request, which does not reach the provider."""
    before = len(upstream.exchanges)
    with pytest.raises(ollama.ResponseError, match="tiny") as whole:
        client.chat(REFUSED, messages=ASKED)
    with pytest.raises(ollama.ResponseError, match="tiny") as streamed:
        next(client.chat(REFUSED, messages=ASKED, stream=True))

    assert (429, 429) == (whole.value.status_code, streamed.value.status_code)
    assert before == len(upstream.exchanges)


def test_trouble_in_a_stream_is_the_sdks_own_exception(
    upstream: ScriptedUpstream, client: ollama.Client
) -> None:
    """A line says it, after what was generated."""
    torn = Reply(headers=LINES, body=part("Fine") + b'\n{"error":"out of memory"}\n')
    with upstream.plays(torn):
        stream = client.chat(MODEL, messages=ASKED, stream=True)
        assert "Fine" == next(stream).message.content
        with pytest.raises(ollama.ResponseError, match="out of memory"):
            next(stream)


def test_the_environment_is_all_an_application_changes(gateway: Gateway) -> None:
    """``OLLAMA_HOST`` and ``OLLAMA_API_KEY``, as in Ollama's documentation."""
    program = (
        "import ollama\n"
        f"said = ollama.chat({MODEL!r}, messages=[{{'role': 'user', 'content': 'Hello world'}}])\n"
        "print(said.eval_count)\n"
    )
    clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "OLLAMA_HOST": gateway.url + "/ollama", "OLLAMA_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ("4\n", 0) == (done.stdout, done.returncode), done.stderr
