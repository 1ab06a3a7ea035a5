"""Sessions at the edge: budgets that run out, speech the provider begins by itself, kills, stops.

Must never let a response go unrecorded, whatever ends the session.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.server import KEY, PROVIDER_KEY, Gateway, plain_config
from tests.ws_upstream import Played, WsUpstream

BIDI = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
USAGE = {"input_tokens": 100_000, "output_tokens": 0, "total_tokens": 100_000}
HEARD = {
    "type": "conversation.item.input_audio_transcription.completed",
    "item_id": "item_1",
    "transcript": "hello",
    "usage": {
        "type": "tokens",
        "input_tokens": 50,
        "input_token_details": {"audio_tokens": 40, "text_tokens": 10},
        "output_tokens": 5,
        "total_tokens": 55,
    },
}
LIVE_USAGE = {
    "promptTokenCount": 1000,
    "responseTokenCount": 200,
    "totalTokenCount": 1200,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 400},
        {"modality": "AUDIO", "tokenCount": 600},
    ],
    "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 200}],
}
RESPONSE = {
    "id": "resp_a",
    "object": "response",
    "model": "gpt-5-2025-08-07",
    "status": "completed",
    "output": [],
    "usage": {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 200},
        "output_tokens": 100,
        "output_tokens_details": {"reasoning_tokens": 40},
        "total_tokens": 1100,
    },
}


async def answer(played: Played) -> None:
    """Speak the protocol of the address."""
    if "Bidi" in played.path:
        await answer_live(played)
    elif played.path.endswith("/responses"):
        await answer_responses(played)
    else:
        await answer_realtime(played)


async def answer_realtime(played: Played) -> None:
    """Begin a response by itself when sound is committed; hang where asked to."""
    await played.send({"type": "session.created", "session": {"model": "gpt-realtime"}})
    number = 0
    while True:
        event = await played.receive_event()
        if event["type"] == "input_audio_buffer.append":
            await played.send(HEARD)
        if event["type"] in ("input_audio_buffer.append", "response.create"):
            number += 1
            name = f"resp_{number}"
            await played.send({"type": "response.created", "response": {"id": name}})
            if event.get("response", {}).get("metadata") == {"then": "hang"}:
                continue
            done = {"id": name, "status": "completed", "usage": USAGE}
            await played.send({"type": "response.done", "response": done})
        elif event["type"] == "response.cancel":
            done = {"id": event["response_id"], "status": "cancelled", "usage": USAGE}
            await played.send({"type": "response.done", "response": done})


async def answer_responses(played: Played) -> None:
    """Answer every ``response.create``."""
    while True:
        await played.receive_event()
        begun = {**RESPONSE, "status": "in_progress", "usage": None}
        await played.send(
            {"type": "response.created", "sequence_number": 0, "response": begun},
            {"type": "response.output_text.delta", "sequence_number": 1, "delta": "Hi"},
            {"type": "response.completed", "sequence_number": 2, "response": RESPONSE},
        )


async def answer_live(played: Played) -> None:
    """Answer every turn, in bytes, as the Live API does."""
    await played.receive()
    await played.send(b'{"setupComplete": {}}')
    while True:
        await played.receive()
        said = {"serverContent": {"modelTurn": {"parts": [{"text": "Hi"}]}}}
        done = {"serverContent": {"turnComplete": True}, "usageMetadata": LIVE_USAGE}
        await played.send(json.dumps(said).encode(), json.dumps(done).encode())


@pytest.fixture(scope="module")
def provider() -> Iterator[WsUpstream]:
    """A provider of all three protocols."""
    with WsUpstream(answer) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: WsUpstream) -> Iterator[Gateway]:
    """A gateway with a budget for each of two users, enough for one response at a time."""
    host = provider.base_url.removesuffix("/v1")
    config = plain_config(
        provider.base_url,
        budgets=[
            {"id": user, "scope": {"user": user}, "limit": "1.4 USD", "window": "total"}
            for user in ("poor", "cut")
        ]
        + [
            # Sound that fills the window is 32,768 x 32 USD per million: 1.048576.
            *(
                {"id": user, "scope": {"user": user}, "limit": "1.1 USD", "window": "total"}
                for user in ("short", "given")
            ),
            {
                "id": "slow",
                "scope": {"user": "slow"},
                "limit": "1 requests",
                "window": "year",
                "mode": "soft",
                "actions": ["throttle:1"],
            },
            {
                "id": "warned",
                "scope": {"user": "warned"},
                "limit": "0.5 USD",
                "window": "year",
                "mode": "soft",
                "thresholds": [50],
                "actions": ["warn"],
            },
            {
                "id": "paced",
                "scope": {"user": "warned"},
                "limit": "900 requests",
                "window": "rolling:60",
            },
        ],
    )
    config["providers"]["gemini"] = {
        "kind": "gemini",
        "base_url": host,
        "api_key": "env:OPENAI_API_KEY",
    }
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


def dial(
    gateway: Gateway, user: str, path: str = "/v1/realtime?model=gpt-realtime"
) -> ClientConnection:
    """Connect as a plain client does."""
    headers = {"Authorization": f"Bearer {KEY}", "x-taximeter-user": user}
    url = gateway.url.replace("http", "ws", 1) + path
    return connect(url, max_size=2**26, proxy=None, additional_headers=headers)


def hear(line: ClientConnection, kind: str) -> dict[str, Any]:
    """Read events up to one of a type."""
    while True:
        event: dict[str, Any] = json.loads(line.recv(timeout=20))
        if event["type"] == kind:
            return event


def create(line: ClientConnection, **fields: Any) -> None:
    """Ask for a response."""
    line.send(json.dumps({"type": "response.create", **fields}))


def test_a_budget_that_runs_out_cuts_the_session(gateway: Gateway) -> None:
    """The second response has no room: it is refused by name, and never sent."""
    with dial(gateway, "poor") as line:
        create(line)
        hear(line, "response.done")
        create(line)
        error = hear(line, "error")["error"]
        with pytest.raises(ConnectionClosed) as closed:
            line.recv(timeout=20)
    records = gateway.records_of("poor")

    assert (error["code"], error["budget"]) == ("budget_exceeded", "poor")
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "budget_exceeded")
    # 100,000 x 4 USD per million, by hand.
    assert [(r["outcome"], r["cost"]) for r in records] == [("ok", "0.4"), ("refused", "0")]
    assert gateway.budget("poor").spent == Decimal("0.4")
    assert gateway.budget("poor").reserved == 0


def test_a_response_is_capped_so_that_it_fits(gateway: Gateway, provider: WsUpstream) -> None:
    """The field that is added is the only change, and the record says so."""
    with dial(gateway, "short") as line:
        create(line, response={"metadata": {"n": "1"}})
        hear(line, "response.done")
    (frame,) = map(json.loads, provider.newest().frames)
    cap = frame["response"].pop("max_output_tokens")
    (record,) = gateway.records_of("short")

    assert frame == {"type": "response.create", "response": {"metadata": {"n": "1"}}}
    assert 16 <= cap < 4096
    assert any(flag.startswith(f"output capped at {cap} tokens") for flag in record["flags"])
    assert gateway.metric("llm_budget_actions_total", budget="short", action="cap") == 1


def test_a_limit_the_client_gave_a_response_is_not_lowered(gateway: Gateway) -> None:
    """It fits or it is refused, as any other call."""
    with dial(gateway, "given") as line:
        create(line, response={"max_output_tokens": 4096})
        assert hear(line, "error")["error"]["code"] == "budget_exceeded"


def test_a_response_over_the_responses_socket_is_capped(
    gateway: Gateway, provider: WsUpstream
) -> None:
    """Its frame is the request, and takes the limit where a request does."""
    with dial(gateway, "short", "/v1/responses") as line:
        create(line, model="openai/gpt-5", input="Hello")
        hear(line, "response.completed")
    (frame,) = map(json.loads, provider.newest().frames)

    assert 16 <= frame.pop("max_output_tokens") < 128_000
    assert frame == {"type": "response.create", "model": "gpt-5", "input": "Hello"}


def test_a_response_waits_where_a_budget_slows_down(gateway: Gateway) -> None:
    """Each response by itself; the wait has the bound that the action names."""
    with dial(gateway, "slow") as line:
        for _ in range(2):
            create(line)
            hear(line, "response.done")
    records = gateway.records_of("slow")
    waited = [flag for r in records for flag in r["flags"] if flag.startswith("throttled for")]

    assert [r["outcome"] for r in records] == ["ok", "ok"]
    assert waited
    assert gateway.metric("llm_budget_actions_total", budget="slow", action="throttle") >= 1


def test_a_handshake_tells_how_the_budgets_stand(gateway: Gateway) -> None:
    """Warnings, what remains and the rate limits come with it, as with the answer of a call."""
    with dial(gateway, "warned") as line:
        assert line.response is not None
        before = line.response.headers
        create(line)
        hear(line, "response.done")
    with dial(gateway, "warned") as line:
        assert line.response is not None
        after = line.response.headers

    assert "x-taximeter-budget-warning" not in before
    assert before["x-ratelimit-limit-requests"] == "900"
    assert before["x-ratelimit-remaining-requests"] == "900"
    assert before["x-taximeter-budget"] == "paced"
    assert before["x-taximeter-budget-remaining"] == "900 requests"
    assert after["x-taximeter-budget-warning"] == "warned=80%"
    assert after["x-ratelimit-remaining-requests"] == "899"


def test_a_response_that_runs_when_the_budget_says_no_is_cut(gateway: Gateway) -> None:
    """It is cancelled, and what it had used is reported and booked."""
    with dial(gateway, "cut") as line:
        create(line, response={"metadata": {"then": "hang"}})
        hear(line, "response.created")
        create(line)
        assert hear(line, "error")["error"]["code"] == "budget_exceeded"
    records = gateway.records_of("cut")

    assert sorted((r["outcome"], r["basis"], r["cost"]) for r in records) == [
        ("cut_by_budget", "reported", "0.4"),
        ("refused", "none", "0"),
    ]


def test_what_the_provider_begins_by_itself_is_recorded(gateway: Gateway) -> None:
    """Speech begins a response; what was heard is billed at the transcription model's price."""
    heard = {"input_audio_transcription": {"model": "gpt-4o-mini-transcribe"}}
    with dial(gateway, "speaker") as line:
        line.send(json.dumps({"type": "session.update", "session": heard}))
        line.send(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"}))
        hear(line, "response.done")
    records = gateway.records_of("speaker")

    assert sorted((r["model"], r["cost"]) for r in records) == [
        # 10 x 1.25 + 40 x 3 + 5 x 5 USD per million, by hand.
        ("gpt-4o-mini-transcribe", "0.0001575"),
        ("gpt-realtime", "0.4"),
    ]


def test_responses_over_a_socket_are_metered_one_by_one(
    gateway: Gateway, provider: WsUpstream
) -> None:
    """The first frame names the model; the prefix of the gateway is not sent on."""
    with dial(gateway, "codex", "/v1/responses") as line:
        for _ in range(2):
            create(line, model="openai/gpt-5", input="Hello")
            hear(line, "response.completed")
    records = gateway.records_of("codex")
    frames = [json.loads(frame) for frame in provider.newest().frames]

    assert [frame["model"] for frame in frames] == ["gpt-5", "gpt-5"]
    # 800 x 1.25 + 200 x 0.125 + 60 x 10 + 40 x 10 USD per million, by hand.
    assert [(r["api"], r["outcome"], r["cost"]) for r in records][:1] == [
        ("openai.responses.live", "ok", "0.002025")
    ]
    assert records[0]["usage"] == {"input": 800, "cache_read": 200, "output": 60, "reasoning": 40}


def test_turns_of_gemini_live_are_metered_one_by_one(
    gateway: Gateway, provider: WsUpstream
) -> None:
    """Two turns, as google-genai writes them, are two records; the window is billed for each.

    The SDK itself insists on TLS, which the gateway leaves to what stands before it.
    """
    url = gateway.url.replace("http", "ws", 1) + "/gemini" + BIDI
    headers = {"x-goog-api-key": KEY, "x-taximeter-user": "live"}
    with connect(url, proxy=None, additional_headers=headers) as line:
        line.send('{"setup": {"model": "models/gemini-3.1-flash-live-preview"}}')
        assert line.recv(timeout=20) == b'{"setupComplete": {}}'
        for _ in range(2):
            turns = [{"role": "user", "parts": [{"text": "hi"}]}]
            line.send(json.dumps({"client_content": {"turns": turns, "turn_complete": True}}))
            heard = [json.loads(line.recv(timeout=20)) for _ in range(2)]
            assert "turnComplete" in heard[-1]["serverContent"]
    records = gateway.records_of("live")

    assert provider.newest().headers["x-goog-api-key"] == PROVIDER_KEY
    # 400 x 0.75 + 600 x 3 + 200 x 12 USD per million, by hand.
    assert [(r["api"], r["outcome"], r["cost"]) for r in records] == [
        ("gemini.live", "ok", "0.0045")
    ] * 2
    assert records[0]["usage"] == {"input": 400, "input_audio": 600, "output_audio": 200}


def test_a_stop_tells_everybody_and_a_kill_loses_nothing(
    tmp_path: Path, provider: WsUpstream
) -> None:
    """A stop closes with 1001 and settles; after a kill the intent becomes a record."""
    with Gateway(tmp_path, plain_config(provider.base_url)) as gateway:
        with dial(gateway, "stopped") as line:
            create(line, response={"metadata": {"then": "hang"}})
            hear(line, "response.created")
            gateway.ask_to_stop()
            with pytest.raises(ConnectionClosed) as closed:
                line.recv(timeout=20)
        assert gateway.stop() == 0
        gateway.restart()
        with dial(gateway, "killed") as line:
            create(line, response={"metadata": {"then": "hang"}})
            hear(line, "response.created")
            gateway.kill()
        gateway.restart()
        stopped, killed = gateway.records_of("stopped"), gateway.records_of("killed")

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    assert [(r["outcome"], r["basis"], r["cost"]) for r in stopped] == [
        ("aborted", "reported", "0.4")
    ]
    assert [(r["outcome"], r["basis"]) for r in killed] == [("aborted", "estimated")]
    assert Decimal(killed[0]["cost"]) > 1
