"""Realtime sessions through the real gateway: frames, close codes, records and money.

Must never accept "about": frames are compared byte by byte and money to 10^-12.
"""

import asyncio
import base64
import json
import os
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.server import KEY, PROVIDER_KEY, Gateway, Record, plain_config
from tests.ws_upstream import Played, WsUpstream

SESSION = {"model": "gpt-realtime-2025-08-28", "max_output_tokens": "inf"}
USAGE = {
    "total_tokens": 1310,
    "input_tokens": 1110,
    "output_tokens": 200,
    "input_token_details": {
        "text_tokens": 310,
        "audio_tokens": 800,
        "image_tokens": 0,
        "cached_tokens": 640,
        "cached_tokens_details": {"text_tokens": 256, "audio_tokens": 384, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 50, "audio_tokens": 150},
}
# 54 x 4 + 416 x 32 + 256 x 0.4 + 384 x 0.4 + 50 x 16 + 150 x 64 USD per million, by hand.
COST = "0.024184"
COUNTS = {
    "input": 54,
    "input_audio": 416,
    "cache_read": 256,
    "cache_read_audio": 384,
    "output": 50,
    "output_audio": 150,
}


async def answer(played: Played) -> None:
    """Speak Realtime: every ``response.create`` is answered, sound is echoed, the rest kept."""
    await played.send({"type": "session.created", "event_id": "event_0", "session": SESSION})
    number = 0
    while True:
        frame = await played.receive()
        if isinstance(frame, bytes):
            await played.send(frame)
            continue
        event = json.loads(frame)
        if event["type"] == "response.create":
            number += 1
            name = f"resp_{number}"
            await played.send({"type": "response.created", "response": {"id": name}})
            if event.get("response", {}).get("metadata") == {"then": "hang"}:
                continue
            if event.get("response", {}).get("metadata") == {"then": "break"}:
                played.line.transport.abort()
                continue
            await played.send(
                {"type": "response.output_text.delta", "response_id": name, "delta": "Hi"},
                done(name),
            )
        elif event["type"] == "response.cancel":
            await played.send(done(event["response_id"], status="cancelled"))
        elif event["type"] == "bye":
            await played.line.close(4123, "enough")


def done(name: str, status: str = "completed") -> dict[str, Any]:
    """Write the end of a response."""
    return {"type": "response.done", "response": {"id": name, "status": status, "usage": USAGE}}


@pytest.fixture(scope="module")
def provider() -> Iterator[WsUpstream]:
    """A provider that speaks Realtime."""
    with WsUpstream(answer) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: WsUpstream) -> Iterator[Gateway]:
    """A gateway whose one provider is the scripted one."""
    config = plain_config(provider.base_url)
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


def dial(gateway: Gateway, **more: Any) -> ClientConnection:
    """Connect as a plain client does."""
    url = gateway.url.replace("http", "ws", 1) + more.pop("path", "/v1/realtime?model=gpt-realtime")
    named = {"x-taximeter-user": more.pop("user", "somebody")}
    key = {"Authorization": f"Bearer {KEY}"} if more.pop("has_key", True) else {}
    more["additional_headers"] = {**key, **named}
    return connect(url, max_size=2**26, proxy=None, **more)


def ask(line: ClientConnection, **response: Any) -> None:
    """Ask for a response."""
    line.send(json.dumps({"type": "response.create", "response": response}))


def hear(line: ClientConnection, kind: str) -> dict[str, Any]:
    """Read events up to one of a type."""
    while True:
        event: dict[str, Any] = json.loads(line.recv(timeout=20))
        if event["type"] == kind:
            return event


def test_the_sdk_speaks_and_every_response_has_its_record(
    gateway: Gateway, provider: WsUpstream
) -> None:
    """Two responses in one session are two records; the key is replaced."""

    async def speak() -> list[str]:
        kinds: list[str] = []
        client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY)
        named = {"x-taximeter-user": "sdk"}
        async with client.realtime.connect(model="gpt-realtime", extra_headers=named) as line:
            for _ in range(2):
                await line.response.create()
                async for event in line:
                    kinds.append(event.type)
                    if event.type == "response.done":
                        break
        return kinds

    kinds = asyncio.run(speak())
    records = gateway.records_of("sdk")

    assert kinds == [
        "session.created",
        *["response.created", "response.output_text.delta", "response.done"] * 2,
    ]
    seen = provider.newest()
    assert seen.path == "/v1/realtime?model=gpt-realtime"
    assert seen.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert KEY not in str(seen.headers)
    assert [record["provider_request_id"] for record in records] == ["resp_1", "resp_2"]
    for record in records:
        assert RECORD.items() <= record.items()


RECORD: Record = {
    "outcome": "ok",
    "http_status": 101,
    "stream": True,
    "api": "openai.realtime",
    "provider": "openai",
    "model_requested": "gpt-realtime",
    "model": "gpt-realtime-2025-08-28",
    "organization": "acme",
    "team": "search",
    "project": "rag",
    "key": "rag-ci",
    "tags": {"env": "prod"},
    "usage": COUNTS,
    "input_total": 1110,
    "output_total": 200,
    "basis": "reported",
    "cost": COST,
    "cost_status": "final",
}


def test_what_was_written_is_counted_for_the_response_to_it(gateway: Gateway) -> None:
    """Words count once; a response to nothing that was written has no count."""
    words = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
    counted: list[int | None] = []
    # The first counts may come too late: the counting process is still starting.
    for _ in range(50):
        with dial(gateway, user="writer") as line:
            line.send(json.dumps({"type": "conversation.item.create", "item": words}))
            for _ in range(2):
                ask(line)
                hear(line, "response.done")
        counted = [record["user_input_tokens"] for record in gateway.records_of("writer")[-2:]]
        if counted != [None, None]:
            break

    assert [1, None] == counted


def test_frames_pass_unchanged_whatever_they_are(gateway: Gateway) -> None:
    """Bytes and texts of 16 MB come back as they went."""
    big = os.urandom(16 * 1024 * 1024)
    sound = base64.b64encode(big[: 12 * 1024 * 1024 - 90]).decode()
    append = json.dumps({"type": "input_audio_buffer.append", "audio": sound})
    with dial(gateway, user="frames") as line:
        line.recv()
        line.send(big)
        assert line.recv(timeout=30) == big
        line.send(append)
        line.send(b"\x00\xff")
        assert line.recv(timeout=30) == b"\x00\xff"


def test_what_was_heard_arrives_byte_by_byte(gateway: Gateway, provider: WsUpstream) -> None:
    """The provider gets the texts of the client, spaces and escapes included."""
    odd = '{ "type" : "conversation.item.create",  "x":"\\u00e9 \\ud83d é" , "n": 1e-05 }'
    with dial(gateway, user="odd") as line:
        hear(line, "session.created")
        line.send(odd)
        line.send(b"?")
        line.recv(timeout=20)

    assert provider.newest().frames[0] == odd


def test_close_codes_pass_both_ways(gateway: Gateway, provider: WsUpstream) -> None:
    """What one side closes with the other side is told."""
    with dial(gateway) as line:
        hear(line, "session.created")
        line.close(4001, "had enough")
    seen = provider.newest()
    assert seen.closed.wait(20)
    assert (seen.code, seen.reason) == (4001, "had enough")

    with dial(gateway) as line:
        hear(line, "session.created")
        line.send('{"type": "bye"}')
        with pytest.raises(ConnectionClosed) as closed:
            line.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4123, "enough")


def test_a_browser_puts_its_key_into_a_subprotocol(gateway: Gateway, provider: WsUpstream) -> None:
    """The virtual key is taken from there, replaced, and not shown to the provider."""
    offered: Any = ["realtime", f"openai-insecure-api-key.{KEY}"]
    with dial(gateway, has_key=False, subprotocols=offered) as line:
        assert line.subprotocol == "realtime"
    seen = provider.newest()

    assert seen.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert seen.headers["sec-websocket-protocol"] == "realtime"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/realtime?model=gpt-nothing", 403, "unpriced_model"),
        ("/v1/realtime", 400, "invalid_request"),
        ("/v1/chat/completions", 405, "invalid_request"),
    ],
)
def test_a_handshake_is_refused_in_words(
    gateway: Gateway, path: str, status: int, code: str
) -> None:
    """Before a session has begun a refusal is an HTTP answer like any other."""
    with pytest.raises(InvalidStatus) as refused:
        dial(gateway, path=path)

    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["error"]["code"] == code


@pytest.mark.parametrize("path", ["client_secrets", "sessions", "transcription_sessions", "calls"])
def test_keys_that_go_around_the_gateway_are_refused(gateway: Gateway, path: str) -> None:
    """Nobody would meter what they are used for."""
    refused = gateway.call(f"/v1/realtime/{path}", {"model": "gpt-realtime"})

    assert refused.status_code == 400
    assert "past this gateway" in refused.json()["error"]["message"]


def test_a_client_that_leaves_has_its_response_cancelled_and_recorded(gateway: Gateway) -> None:
    """The provider is asked to stop and says what it has used."""
    with dial(gateway, user="leaver") as line:
        ask(line, metadata={"then": "hang"})
        hear(line, "response.created")
        line.socket.close()
    records = gateway.records_of("leaver")

    assert [(r["outcome"], r["basis"], r["cost"]) for r in records] == [
        ("client_disconnected", "reported", COST)
    ]


def test_a_provider_that_breaks_off_leaves_an_estimate(gateway: Gateway) -> None:
    """What was asked for is booked at the most it can have come to; the client is told."""
    with dial(gateway, user="broken") as line:
        ask(line, metadata={"then": "break"})
        error = hear(line, "error")
        with pytest.raises(ConnectionClosed) as closed:
            line.recv(timeout=20)
    records = gateway.records_of("broken")

    assert error["error"]["code"] == "upstream_unreachable"
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    assert [(r["outcome"], r["basis"]) for r in records] == [("upstream_error", "estimated")]
    # The whole window at the dearest input, and the longest answer as sound, by hand.
    assert records[0]["cost"] == "1.286144"
