"""Sessions with every kind of provider, and what happens when one of them refuses or breaks off.

Must never accept "about": money is compared to 10^-12.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.server import KEY, PROVIDER_KEY, Gateway, Record, plain_config
from tests.upstream import closed_port
from tests.ws_upstream import Played, WsUpstream

RESPONSES: Final = "/v1/responses"
GEMINI: Final = (
    "/gemini/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
)
VERTEX: Final = "/vertex/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent"
LIVE: Final = "gemini-live-2.5-flash-preview-native-audio-09-2025"
USED: Final = {"total_tokens": 30, "input_tokens": 20, "output_tokens": 10}


async def answer(played: Played) -> None:
    """Speak the protocol of the address."""
    await (live(played) if "BidiGenerateContent" in played.path else respond(played))


async def respond(played: Played) -> None:
    """Answer every ``response.create`` as Realtime, xAI and Responses do."""
    while True:
        event = await played.receive_event()
        if event["type"] != "response.create":
            continue
        made = {"id": "resp_1", "model": event.get("model"), "usage": None}
        await played.send({"type": "response.created", "response": made})
        if "break" in json.dumps(event):
            await played.send({"type": "response.output_text.delta", "delta": "one two three"})
            played.line.transport.abort()
            return
        usage = {**USED, "billable_audio_seconds": 12.5}
        await played.send(
            {"type": "response.done", "response": {**made, "status": "completed", "usage": usage}}
        )


async def live(played: Played) -> None:
    """Speak Gemini Live: every turn says a word and what it used."""
    assert "setup" in await played.receive_event()
    await played.send({"setupComplete": {}})
    while True:
        said = json.dumps(await played.receive_event())
        word = {"serverContent": {"modelTurn": {"parts": [{"text": "Hi"}]}}}
        await played.send(word)
        if "break" in said:
            played.line.transport.abort()
            return
        await played.send(
            {
                "serverContent": {"turnComplete": True},
                "usageMetadata": {
                    "promptTokenCount": 20,
                    "responseTokenCount": 10,
                    "totalTokenCount": 30,
                    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 20}],
                    "responseTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
                },
            }
        )


@pytest.fixture(scope="module")
def provider() -> Iterator[WsUpstream]:
    """One server that plays every provider."""
    with WsUpstream(answer) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, provider: WsUpstream) -> Iterator[Gateway]:
    """A gateway with a provider of every kind that has sessions, and one budget."""
    root = provider.base_url.removesuffix("/v1")
    key = {"api_key": "env:OPENAI_API_KEY"}
    kinds: dict[str, dict[str, Any]] = {
        "openai": {"base_url": provider.base_url},
        "xai": {"base_url": provider.base_url},
        "azure": {"base_url": root, "deployments": {"my-voice": "gpt-realtime"}},
        "gemini": {"base_url": root},
        "vertex": {"base_url": root, "project": "acme-1", "region": "us-central1"},
        "anthropic": {"base_url": root},
    }
    away = {"kind": "openai", "base_url": f"http://127.0.0.1:{closed_port()}/v1"}
    providers = {name: {"kind": name, **key, **more} for name, more in kinds.items()}
    config = plain_config(
        provider.base_url,
        providers={**providers, "away": away},
        budgets=[{"id": "all", "limit": "5000 USD", "window": "year"}],
    )
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


def dial(gateway: Gateway, path: str, user: str, header: str = "authorization") -> ClientConnection:
    """Connect as a plain client does."""
    key = f"Bearer {KEY}" if header == "authorization" else KEY
    url = gateway.url.replace("http", "ws", 1) + path
    named = {header: key, "x-taximeter-user": user}
    return connect(url, additional_headers=named, proxy=None)


def only_record(gateway: Gateway, user: str) -> Record:
    """The only record of a user; nothing is held any more, and the budget has its cost."""
    (record,) = gateway.records_of(user)
    assert 0 == gateway.budget("all").reserved
    return record


def setup(line: ClientConnection) -> None:
    """Begin a Live session."""
    line.send(json.dumps({"setup": {"model": f"models/{LIVE}"}}))
    assert json.loads(line.recv(timeout=20)) == {"setupComplete": {}}


def say(line: ClientConnection, text: str) -> None:
    """End a turn of the user's."""
    turn = {"role": "user", "parts": [{"text": text}]}
    line.send(json.dumps({"clientContent": {"turns": [turn], "turnComplete": True}}))


def test_azure_is_asked_for_its_deployment_with_its_own_header(
    gateway: Gateway, provider: WsUpstream
) -> None:
    """The deployment is priced as the model behind it."""
    path = "/azure/openai/realtime?api-version=2025-04-01-preview&deployment=my-voice"
    with dial(gateway, path, "azure", "api-key") as line:
        line.send('{"type":"response.create"}')
        assert "response.created" == json.loads(line.recv(timeout=20))["type"]
        line.recv(timeout=20)
    record = only_record(gateway, "azure")

    seen = provider.newest()
    assert path.removeprefix("/azure") == seen.path
    assert (PROVIDER_KEY, None) == (seen.headers["api-key"], seen.headers.get("authorization"))
    assert ("azure", "my-voice", "reported") == tuple(
        record[name] for name in ("provider", "model_requested", "basis")
    )
    # 20 x 4 + 10 x 16 USD per million.
    assert "0.00024" == record["cost"]


def test_xai_is_billed_by_the_second(gateway: Gateway, provider: WsUpstream) -> None:
    """Its tokens have no price: its seconds do."""
    with dial(gateway, "/xai/realtime?model=grok-voice-latest", "xai") as line:
        line.send('{"type":"response.create"}')
        line.recv(timeout=20)
        line.recv(timeout=20)
    record = only_record(gateway, "xai")

    assert "/v1/realtime?model=grok-voice-latest" == provider.newest().path
    assert f"Bearer {PROVIDER_KEY}" == provider.newest().headers["authorization"]
    (item,) = record["lines"]
    assert ("audio_second", "12.5") == (item["meter"], item["quantity"])
    # 12.5 s at 4.80 USD an hour, rounded once.
    assert "0.016666666667" == record["cost"]
    assert ("reported", "ok") == (record["basis"], record["outcome"])


@pytest.mark.parametrize(
    ("path", "header", "sent"),
    [(GEMINI, "x-goog-api-key", PROVIDER_KEY), (VERTEX, "authorization", f"Bearer {PROVIDER_KEY}")],
    ids=["gemini", "vertex"],
)
def test_every_turn_of_a_live_session_has_its_record(
    gateway: Gateway, provider: WsUpstream, path: str, header: str, sent: str
) -> None:
    """By its own usage, at the prices of its own kind."""
    user, kind = f"live{path[1:4]}", path.split("/")[1]
    with dial(gateway, path, user, header) as line:
        setup(line)
        for _ in range(2):
            say(line, "Hello")
            line.recv(timeout=20)
            line.recv(timeout=20)
    records = gateway.records_of(user)

    assert sent == provider.newest().headers[header]
    assert path.removeprefix(f"/{kind}") == provider.newest().path
    assert [(kind, "reported", 20, 10)] * 2 == [
        (r["provider"], r["basis"], r["input_total"], r["output_total"]) for r in records
    ]
    assert all(Decimal(r["cost"]) > 0 for r in records)
    assert 0 == gateway.budget("all").reserved


# -- the provider breaks off ---------------------------------------------------------------------


def test_a_responses_session_that_breaks_off_is_an_estimate(gateway: Gateway) -> None:
    """The client is told in an event and by the close code; what was open has its record."""
    with dial(gateway, RESPONSES, "responses-broken") as line:
        asked = {"type": "response.create", "model": "openai/gpt-5", "input": "break"}
        line.send(json.dumps({**asked, "max_output_tokens": 400}))
        told = [json.loads(line.recv(timeout=20)) for _ in range(3)]
        with pytest.raises(ConnectionClosed) as closed:
            line.recv(timeout=20)
    record = only_record(gateway, "responses-broken")

    assert ("error", "upstream_unreachable") == (told[-1]["type"], told[-1]["error"]["code"])
    assert closed.value.rcvd is not None
    assert 1011 == closed.value.rcvd.code
    assert ("upstream_error", "estimated") == (record["outcome"], record["basis"])
    assert 0 < Decimal(record["cost"]) < Decimal("0.01")


def test_a_live_session_that_breaks_off_is_an_estimate(gateway: Gateway) -> None:
    """A turn that never told its usage is booked at the most it can have come to."""
    with dial(gateway, GEMINI, "live-broken", "x-goog-api-key") as line:
        setup(line)
        say(line, "break")
        line.recv(timeout=20)
        error = json.loads(line.recv(timeout=20))
        with pytest.raises(ConnectionClosed) as closed:
            line.recv(timeout=20)
    record = only_record(gateway, "live-broken")

    assert "upstream_unreachable" in json.dumps(error)
    assert closed.value.rcvd is not None
    assert 1011 == closed.value.rcvd.code
    assert ("upstream_error", "estimated") == (record["outcome"], record["basis"])
    assert Decimal(record["cost"]) > 0


# -- the provider refuses the handshake ----------------------------------------------------------

REFUSALS: Final = (401, 403, 404)
NAMED: Final = (
    ("/v1/realtime?model=openai/gpt-realtime", "authorization"),
    ("/xai/realtime?model=grok-voice-latest", "authorization"),
    (GEMINI, "x-goog-api-key"),
)


@pytest.fixture
def refusing(provider: WsUpstream) -> Iterator[WsUpstream]:
    """The provider, which is back to normal afterwards."""
    yield provider
    provider.refusal = None


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize(("path", "header"), NAMED, ids=["openai", "xai", "gemini"])
def test_a_refused_handshake_is_passed_on_as_it_is(
    gateway: Gateway, refusing: WsUpstream, path: str, header: str, status: int
) -> None:
    """Status and body are the provider's; there is a record, and it costs nothing."""
    body = json.dumps({"error": {"message": "Nope.", "code": "c"}})
    refusing.refusal = (status, body)
    user = f"no-{path[1:5]}-{status}"

    with pytest.raises(InvalidStatus) as refused:
        dial(gateway, path, user, header)

    answered = refused.value.response
    assert (status, body.encode()) == (answered.status_code, answered.body)
    assert "application/json" == answered.headers["content-type"]
    record = only_record(gateway, user)
    assert record["id"] == answered.headers["x-taximeter-request-id"]
    assert ("upstream_error", status) == (record["outcome"], record["http_status"])
    assert ("none", "0", []) == (record["basis"], record["cost"], record["lines"])


@pytest.mark.parametrize("status", REFUSALS)
def test_a_handshake_refused_after_the_first_frame_is_told_in_an_event(
    gateway: Gateway, refusing: WsUpstream, status: int
) -> None:
    """The model was not known before: the session has begun, and ends with what was said."""
    refusing.refusal = (status, '{"error":{"message":"Nope."}}')
    user = f"late-{status}"
    with dial(gateway, RESPONSES, user) as line:
        line.send(json.dumps({"type": "response.create", "model": "openai/gpt-5", "input": "Hi"}))
        told = json.loads(line.recv(timeout=20))
        with pytest.raises(ConnectionClosed) as closed:
            line.recv(timeout=20)

    assert ("error", status, "upstream_refused") == (
        told["type"],
        told["status"],
        told["error"]["code"],
    )
    assert "Nope." in told["error"]["message"]
    assert closed.value.rcvd is not None
    assert 1011 == closed.value.rcvd.code
    record = only_record(gateway, user)
    assert ("upstream_error", status, "0") == tuple(
        record[name] for name in ("outcome", "http_status", "cost")
    )


def test_a_provider_that_is_not_there_is_told_and_recorded(gateway: Gateway) -> None:
    """Whether or not the model was known before."""
    with pytest.raises(InvalidStatus) as refused:
        dial(gateway, "/away/realtime?model=gpt-realtime", "away")
    assert 502 == refused.value.response.status_code
    with dial(gateway, RESPONSES, "away-late") as line:
        line.send(json.dumps({"type": "response.create", "model": "away/gpt-5", "input": "Hi"}))
        assert "upstream_unreachable" == json.loads(line.recv(timeout=20))["error"]["code"]

    for user in ("away", "away-late"):
        record = only_record(gateway, user)
        assert ("upstream_error", 502, "0") == tuple(
            record[name] for name in ("outcome", "http_status", "cost")
        )


def test_sessions_are_not_translated(gateway: Gateway, provider: WsUpstream) -> None:
    """A model that lives where nobody speaks Responses is refused, and nothing is dialled."""
    dialled = len(provider.sessions)
    with dial(gateway, RESPONSES, "elsewhere") as line:
        asked = {"type": "response.create", "model": "anthropic/claude-sonnet-4-5", "input": "Hi"}
        line.send(json.dumps(asked))
        told = json.loads(line.recv(timeout=20))

    assert "model_not_allowed" == told["error"]["code"]
    assert dialled == len(provider.sessions)
