"""Mistral's own SDK through the real gateway: bytes, records, money, and a budget's no.

Must never accept "about": money is compared to 10^-12.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from tests.server import KEY, PROVIDER_KEY, Gateway, plain_config
from tests.upstream import Headers, Received, Reply, Script, ScriptedUpstream

JSON: Final[Headers] = (("Content-Type", "application/json"), ("x-request-id", "req_9"))
FILE: Final[Headers] = (("Content-Type", "application/octet-stream"), ("x-request-id", "req_f"))
RESULTS: Final = (
    Path(__file__).parent.parent / "golden" / "mistral_batches" / "results" / "reply.bin"
).read_bytes()
EVENTS: Final[Headers] = (("Content-Type", "text/event-stream; charset=utf-8"),)
LARGE: Final = "mistral-large-2512"
REFUSED: Final = "mistral-tiny"
ASKED: Final[Any] = [{"role": "user", "content": "Hello world"}]
USAGE: Final = {"prompt_tokens": 40, "completion_tokens": 10, "total_tokens": 50}


def said(model: str, **fields: Any) -> dict[str, Any]:
    """A completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Fine."}}
    return {
        "id": "cmpl-e5c",
        "object": "chat.completion",
        "created": 1763899200,
        "model": model,
        "choices": [{**choice, "finish_reason": "stop"}],
        "usage": USAGE,
        **fields,
    }


def events(*objects: dict[str, Any] | str) -> bytes:
    """Events; those with a type are named after it."""
    frames = []
    for one in objects:
        name = f"event: {one['type']}\n" if isinstance(one, dict) and "type" in one else ""
        frames.append(f"{name}data: {one if isinstance(one, str) else json.dumps(one)}\n\n")
    return "".join(frames).encode()


def chunk(model: str, text: str, **fields: Any) -> dict[str, Any]:
    """A chunk of a streamed completion."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": fields.pop("end", None)}
    return {"id": "cmpl-e5c", "object": "c", "created": 1, "model": model, **fields} | {
        "choices": [choice]
    }


def streamed(model: str) -> Reply:
    """A streamed completion, its usage beside the last choice, unasked."""
    body = events(
        chunk(model, "Fi"), chunk(model, "ne."), chunk(model, "", end="stop", usage=USAGE), "[DONE]"
    )
    return Reply(headers=EVENTS, body=body, write_bytes=43)


OCR: Final = {
    "pages": [{"index": 0, "markdown": "# Title", "images": [], "dimensions": None}],
    "model": "mistral-ocr-latest",
    "usage_info": {"pages_processed": 29, "doc_size_bytes": 3002783},
}
ENTRY: Final = {"type": "message.output", "content": "Fine.", "model": LARGE, "role": "assistant"}
TALK: Final = {
    "conversation_id": "conv_1",
    "object": "conversation.response",
    "outputs": [{**ENTRY, "id": "msg_1", "object": "entry"}],
    "usage": USAGE,
}
TALK_STREAM: Final = events(
    {"type": "conversation.response.started", "conversation_id": "conv_2"},
    {"type": "message.output.delta", "id": "msg_1", "content": "Fine.", "model": LARGE},
    {"type": "conversation.response.done", "usage": USAGE},
)
HEARD: Final = {
    "model": "voxtral-mini-2602",
    "text": "Fine.",
    "language": "en",
    "segments": [],
    "usage": {"prompt_audio_seconds": 203, "prompt_tokens": 4, "total_tokens": 3264},
}


FETCHED: Final = Reply(headers=FILE, body=RESULTS, write_bytes=100)
OTHERS: Final = {
    "/audio/transcriptions": Reply(headers=JSON, body=json.dumps(HEARD).encode()),
    "/ocr": Reply(headers=JSON, body=json.dumps(OCR).encode()),
}


def answer(received: Received) -> Script:
    """Answer as Mistral does."""
    path = received.target.partition("?")[0].removeprefix("/v1")
    if path in OTHERS or path.startswith("/files"):
        return OTHERS.get(path, FETCHED)
    asked = received.json()
    if path.startswith("/conversations"):
        if asked.get("stream"):
            return Reply(headers=EVENTS, body=TALK_STREAM, write_bytes=31)
        return Reply(headers=JSON, body=json.dumps(TALK).encode())
    model = asked.get("model", LARGE)
    if asked.get("stream"):
        return streamed(model)
    return Reply(headers=JSON, body=json.dumps(said(model)).encode())


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """A provider that answers as Mistral does."""
    with ScriptedUpstream(answer) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with a budget that one model cannot fit in, and one agent."""
    config = plain_config(
        upstream.base_url,
        providers={
            "mistral": {
                "kind": "mistral",
                "base_url": upstream.base_url,
                "api_key": "env:OPENAI_API_KEY",
                "deployments": {"ag:helper": LARGE},
            }
        },
        budgets=[{"id": "tiny", "scope": {"model": REFUSED}, "limit": "9 tokens", "window": "day"}],
    )
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def got() -> list[httpx.Response]:
    """Responses as they came off the wire, newest last."""
    return []


@pytest.fixture
def client(gateway: Gateway, got: list[httpx.Response]) -> Iterator[Mistral]:
    """The SDK as an application makes it: another server, the virtual key."""
    hooks: Any = {"response": [got.append]}
    with httpx.Client(event_hooks=hooks, trust_env=False, timeout=30) as plain:
        http: Any = plain  # its protocol spells a few parameters otherwise
        yield Mistral(api_key=KEY, server_url=gateway.url + "/mistral", client=http)


def told(gateway: Gateway, response: httpx.Response) -> tuple[Any, ...]:
    """What stands in the record of a response."""
    record = gateway.record(response)
    return tuple(record[name] for name in ("api", "usage", "cost", "basis"))


# 40 x 0.5 + 10 x 1.5 USD per million, by hand.
LARGE_COST: Final = "0.000035"
COUNTED: Final = {"input": 40, "output": 10}


def test_a_chat_is_priced_whole_and_streamed(
    gateway: Gateway, upstream: ScriptedUpstream, client: Mistral, got: list[httpx.Response]
) -> None:
    """Usage comes unasked, on the chunk that ends the answer."""
    client.chat.complete(model=LARGE, messages=ASKED, max_tokens=100)
    with client.chat.stream(model=LARGE, messages=ASKED, max_tokens=100) as stream:
        texts = [event.data.choices[0].delta.content for event in stream]

    assert ["Fi", "ne.", ""] == texts
    assert ("openai.chat", COUNTED, LARGE_COST, "reported") == told(gateway, got[0])
    assert ("openai.chat", COUNTED, LARGE_COST, "reported") == told(gateway, got[1])
    assert f"Bearer {PROVIDER_KEY}" == upstream.last().header("authorization")


def test_filling_in_the_middle_is_priced(
    gateway: Gateway, client: Mistral, got: list[httpx.Response]
) -> None:
    """40 x 0.3 + 10 x 0.9 USD per million."""
    done = client.fim.complete(model="codestral-latest", prompt="a", suffix="b", max_tokens=9)
    with client.fim.stream(model="codestral-latest", prompt="a", max_tokens=9) as stream:
        assert 3 == len(list(stream))

    assert "Fine." == done.choices[0].message.content  # type: ignore[union-attr]
    for response in got:
        assert ("mistral.fim", COUNTED, "0.000021", "reported") == told(gateway, response)


def test_an_agent_is_priced_as_the_model_behind_it(
    gateway: Gateway, client: Mistral, got: list[httpx.Response]
) -> None:
    """The settings say which; one that they do not name has no price."""
    client.agents.complete(agent_id="ag:helper", messages=ASKED, max_tokens=100)
    with pytest.raises(SDKError, match="unpriced_model"):
        client.agents.complete(agent_id="ag:other", messages=ASKED)

    assert ("mistral.agents", COUNTED, LARGE_COST, "reported") == told(gateway, got[0])
    assert 403 == got[1].status_code


def test_pages_and_seconds_are_priced(
    gateway: Gateway, client: Mistral, got: list[httpx.Response]
) -> None:
    """29 pages at 4 USD per thousand, 203 seconds at 0.18 USD an hour."""
    client.ocr.process(
        model="mistral-ocr-latest",
        document={"type": "document_url", "document_url": "https://example.com/a.pdf"},
    )
    client.audio.transcriptions.complete(
        model="voxtral-mini-2602", file={"file_name": "a.mp3", "content": b"\0" * 40_000}
    )

    assert ("mistral.ocr", {"page": 29}, "0.116", "reported") == told(gateway, got[0])
    heard = ("mistral.transcriptions", {"audio_second": 203}, "0.01015", "reported")
    assert heard == told(gateway, got[1])


def test_a_conversation_that_goes_on_keeps_its_model(
    gateway: Gateway, client: Mistral, got: list[httpx.Response]
) -> None:
    """Only the first request of one names it; one that began elsewhere has no price."""
    first = client.beta.conversations.start(model=LARGE, inputs="Hello world")
    client.beta.conversations.append(conversation_id=first.conversation_id, inputs="Go on")
    with client.beta.conversations.start_stream(model=LARGE, inputs="Hello world") as stream:
        assert 3 == len(list(stream))
    with pytest.raises(SDKError, match="does not know the model"):
        client.beta.conversations.append(conversation_id="conv_elsewhere", inputs="Go on")

    for response in got[:3]:
        counted = ("mistral.conversations", COUNTED, LARGE_COST, "reported")
        assert counted == told(gateway, response)
    assert 400 == got[3].status_code


@pytest.mark.parametrize("restarts", [False, True], ids=["", "and the gateway is restarted"])
def test_the_results_of_a_batch_are_metered_once(
    gateway: Gateway, client: Mistral, got: list[httpx.Response], *, restarts: bool
) -> None:
    """Fetched again they are free, whoever has forgotten the first time; another file is not."""
    file, other = f"file-{restarts}", f"other-{restarts}"
    for name in (file, file, other):
        assert RESULTS == client.files.download(file_id=name).read()
        if restarts:
            gateway.settle()
            gateway.stop()
            gateway.restart()

    metered: Any = ("mistral.batch_results", {"input": 30, "output": 15}, "0.00000675", "reported")
    free: Any = ("mistral.batch_results", {}, "0", "none")
    assert [metered, free, metered] == [told(gateway, response) for response in got]
    assert file == gateway.record(got[0])["provider_request_id"]


def test_the_async_client_sees_the_same(gateway: Gateway) -> None:
    """Whole and streamed."""

    async def calls() -> tuple[Any, int]:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as plain:
            http: Any = plain
            client = Mistral(api_key=KEY, server_url=gateway.url + "/mistral", async_client=http)
            done = await client.chat.complete_async(model=LARGE, messages=ASKED, max_tokens=9)
            stream = await client.chat.stream_async(model=LARGE, messages=ASKED, max_tokens=9)
            count = len([event async for event in stream])
        return done.choices[0].message.content, count  # type: ignore[union-attr]

    assert ("Fine.", 3) == asyncio.run(calls())


def test_a_budget_says_no_in_the_sdks_own_exception(
    upstream: ScriptedUpstream, client: Mistral, got: list[httpx.Response]
) -> None:
    """One request each, none of which reaches the provider."""
    before = len(upstream.exchanges)
    with pytest.raises(SDKError) as whole:
        client.fim.complete(model=REFUSED, prompt="a" * 50, max_tokens=100)
    with pytest.raises(SDKError) as stream:
        client.chat.stream(model=REFUSED, messages=ASKED, max_tokens=100)

    assert (429, 429) == (whole.value.status_code, stream.value.status_code)
    body = json.loads(whole.value.body)
    assert ("error", "budget_exceeded") == (body["object"], body["code"])
    assert "tiny" in body["message"]
    assert 2 == len(got)
    assert before == len(upstream.exchanges)
