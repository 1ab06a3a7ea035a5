"""The real OpenAI SDK with files and batches, through the real gateway.

Must never accept "about": files are compared byte by byte and money to 10^-12.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import openai
import pytest

from tests.server import KEY, PROVIDER_KEY, Gateway, plain_config
from tests.upstream import Received, Reply, ScriptedUpstream

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "openai_batches"
OUTPUT: Final = (GOLDEN / "one-model" / "reply.ndjson").read_bytes()
COST: Final = "0.00251875"
BATCH: Final = json.loads((GOLDEN / "the-batch-itself" / "reply.json").read_bytes())
ASKED: Final = b'{"custom_id":"c-1","method":"POST","url":"/v1/responses","body":{"model":"x"}}\n'
FILE_HEADERS: Final = (("Content-Type", "application/octet-stream"), ("x-request-id", "req_f"))


def answer_like_files(received: Received) -> Reply:
    """Play OpenAI's files and batches: every file has one output's content."""
    path = received.target.partition("?")[0]
    if path.endswith("/content"):
        return Reply(headers=FILE_HEADERS, body=OUTPUT, write_bytes=100)
    name = path.removeprefix("/v1/")
    if name == "files" and received.method == "GET":
        return _json({"object": "list", "data": [], "has_more": False})
    if name.startswith("files"):
        file = {"id": "file-in1", "object": "file", "bytes": len(ASKED), "created_at": 1}
        more = {"filename": "in.jsonl", "purpose": "batch", "status": "processed"}
        deleted = {"deleted": True} if received.method == "DELETE" else {}
        return _json(file | more | deleted)
    if name == "batches" and received.method == "GET":
        return _json({"object": "list", "data": [BATCH], "has_more": False})
    return _json(BATCH)


def _json(shown: dict[str, Any]) -> Reply:
    return Reply(body=json.dumps(shown).encode())


@pytest.fixture(scope="module")
def files() -> Iterator[ScriptedUpstream]:
    """A provider of files and batches."""
    with ScriptedUpstream(answer_like_files) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, files: ScriptedUpstream) -> Iterator[Gateway]:
    """A gateway with a budget that is spent: what is free stays free."""
    budgets = [{"id": "all", "scope": {}, "limit": "5 USD", "window": "month"}]
    config = plain_config(files.base_url, budgets=budgets)
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


def client_of(gateway: Gateway, surface: str) -> openai.OpenAI:
    """Make a client."""
    http = httpx.Client(trust_env=False, timeout=30)
    return openai.OpenAI(api_key=KEY, base_url=gateway.url + surface, http_client=http)


@pytest.mark.parametrize("surface", ["/v1", "/openai"])
def test_a_batch_from_its_upload_to_its_output(
    gateway: Gateway, files: ScriptedUpstream, surface: str
) -> None:
    """Everything but the output is free, and that is metered once."""
    name = f"file-out-{surface[1:]}"
    first = len(files.exchanges)
    with client_of(gateway, surface) as client:
        made = client.files.with_raw_response.create(
            file=("in.jsonl", ASKED + b"\x00\xff"), purpose="batch"
        )
        batch = client.batches.create(
            input_file_id="file-in1", endpoint="/v1/responses", completion_window="24h"
        )
        seen = client.batches.retrieve(batch.id)
        listed = list(client.batches.list())
        client.batches.cancel(batch.id)
        fetched = client.files.with_raw_response.content(name)
        again = client.files.with_raw_response.content(name)
        client.files.retrieve("file-in1")
        assert [] == list(client.files.list())
        assert client.files.delete("file-in1").deleted

    assert "completed" == seen.status
    assert [batch.id] == [one.id for one in listed]
    assert [OUTPUT, OUTPUT] == [fetched.content, again.content]
    upload = files.exchanges[first].received
    assert made.http_response.request.read() == upload.body
    assert f"Bearer {PROVIDER_KEY}" == upload.header("authorization")
    record = gateway.record(fetched.http_response)
    assert ("reported", COST, name, "openai.file_content") == (
        record["basis"],
        record["cost"],
        record["provider_request_id"],
        record["api"],
    )
    # 2,810 fresh, 200 cached, 130 shown, 20 thought: the sum of the lines that succeeded.
    assert {"input": 2810, "cache_read": 200, "output": 130, "reasoning": 20} == record["usage"]
    free = gateway.record(again.http_response)
    assert ("none", "0", {}) == (free["basis"], free["cost"], free["usage"])


def test_the_async_client(gateway: Gateway) -> None:
    """Upload and output."""

    async def fetch() -> bytes:
        http = httpx.AsyncClient(trust_env=False, timeout=30)
        async with openai.AsyncOpenAI(
            api_key=KEY, base_url=f"{gateway.url}/v1", http_client=http
        ) as client:
            await client.files.create(file=("in.jsonl", ASKED), purpose="batch")
            return (await client.files.content("file-out-async")).content

    assert OUTPUT == asyncio.run(fetch())
