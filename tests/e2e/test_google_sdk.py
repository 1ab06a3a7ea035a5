"""The real Google SDK through the real gateway: bytes, refusals, records and money.

Must never accept "about": answers are compared byte by byte and money to 10^-12.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google import genai
from google.auth.credentials import AnonymousCredentials
from google.genai import errors, types

from tests.server import KEY, PROVIDER_KEY, Gateway, Record, plain_config
from tests.upstream import Received, Reply, Script, ScriptedUpstream, Sse

JSON = (("Content-Type", "application/json; charset=UTF-8"), ("x-gemini-service-tier", "standard"))
EVENTS = (("Content-Type", "text/event-stream"),)
USAGE = {
    "promptTokenCount": 1248,
    "cachedContentTokenCount": 1024,
    "candidatesTokenCount": 146,
    "thoughtsTokenCount": 64,
    "totalTokenCount": 1458,
}
# 224 x 0.3 + 1024 x 0.03 + 146 x 2.5 + 64 x 2.5 USD per million, by hand.
COST = "0.00062292"
COUNTS = {"input": 224, "cache_read": 1024, "output": 146, "reasoning": 64}
LINES = [
    ("gemini/gemini-2.5-flash/input", "224", "0.3", "0.0000672"),
    ("gemini/gemini-2.5-flash/cache_read", "1024", "0.03", "0.00003072"),
    ("gemini/gemini-2.5-flash/output", "146", "2.5", "0.000365"),
    ("gemini/gemini-2.5-flash/reasoning", "64", "2.5", "0.00016"),
]
RECORD: Record = {
    "outcome": "ok",
    "http_status": 200,
    "stream": False,
    "api": "gemini.generate_content",
    "provider": "gemini",
    "model_requested": "gemini-2.5-flash",
    "model": "gemini-2.5-flash",
    "provider_request_id": "r-77",
    "organization": "acme",
    "team": "search",
    "project": "rag",
    "key": "rag-ci",
    "user": None,
    "tags": {"env": "prod"},
    "usage": COUNTS,
    "input_total": 1248,
    "output_total": 210,
    "basis": "reported",
    "currency": "USD",
    "cost": COST,
    "list_cost": COST,
    "provider_cost": None,
    "cost_status": "final",
    "corrects": None,
}
VARYING = (
    "id",
    "started_at",
    "ended_at",
    "price_version",
    "flags",
    "user_input_tokens",
    "input_parts",
    "lines",
)


def chunk(*parts: Any, **more: Any) -> bytes:
    """Write one chunk of an answer as Google does."""
    candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    usage = more.pop("usage", None)
    said: dict[str, Any] = {"candidates": [{**candidate, **more}]}
    if usage is not None:
        said["usageMetadata"] = usage
    said |= {"modelVersion": "gemini-2.5-flash", "responseId": "r-77"}
    return json.dumps(said, indent=2).encode()


def text(said: str) -> dict[str, str]:
    """One part of text."""
    return {"text": said}


WHOLE = Reply(
    headers=JSON, body=chunk(text("Fine, th\u00e4nks."), finishReason="STOP", usage=USAGE)
)
CALLED = Reply(
    headers=JSON,
    body=chunk(
        {"functionCall": {"name": "look_up", "args": {"city": "Bonn"}}, "thoughtSignature": "c2ln"},
        finishReason="STOP",
        usage=USAGE,
    ),
)
CHUNKS = tuple(
    json.dumps(json.loads(one)).encode()
    for one in (
        chunk(text("Fine"), usage={"promptTokenCount": 1248, "totalTokenCount": 1248}),
        chunk(text(", th\u00e4nks")),
        chunk(text("."), finishReason="STOP", usage=USAGE),
    )
)
STREAM = Sse(events=CHUNKS, done=False, eol=b"\r\n", headers=EVENTS)
ARRAY = Reply(headers=JSON, body=b"[" + b"\n,\r\n".join(CHUNKS) + b"\n]\n", write_bytes=61)
EMBEDDED = Reply(
    headers=JSON,
    body=b'{"embeddings": [{"values": [0.5, 1e-05]}], "usageMetadata": {"promptTokenCount": 7}}',
)
COUNTED = Reply(headers=JSON, body=b'{"totalTokens": 31}')
LISTED = Reply(headers=JSON, body=b'{"models": [{"name": "models/gemini-2.5-flash"}]}')


def answer_like_google(received: Received) -> Script:
    """Answer by the verb of the address."""
    path, _, query = received.target.partition("?")
    verb = path.rpartition(":")[2]
    if verb == "streamGenerateContent":
        return STREAM if "alt=sse" in query else ARRAY
    if verb == "generateContent":
        return CALLED if b"functionDeclarations" in received.body else WHOLE
    if verb in ("embedContent", "batchEmbedContents"):
        return EMBEDDED
    return COUNTED if verb == "countTokens" else LISTED


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """A scripted upstream that plays Google."""
    with ScriptedUpstream(answer_like_google) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with a provider of each of Google's kinds, and a budget one user has spent."""
    address = upstream.base_url.removesuffix("/v1")
    config = plain_config(
        upstream.base_url,
        providers={
            kind: {"kind": kind, "base_url": address, "api_key": "env:OPENAI_API_KEY"}
            for kind in ("gemini", "vertex", "openai")
        },
        budgets=[
            {"id": "month", "scope": {"team": "search"}, "limit": "500 USD", "window": "month"},
            {"id": "poor", "scope": {"user": "poor"}, "limit": "0.000001 USD", "window": "month"},
        ],
    )
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


def options(gateway: Gateway, kind: str = "gemini", **headers: str) -> types.HttpOptions:
    """Point the SDK at the gateway."""
    return types.HttpOptions(base_url=f"{gateway.url}/{kind}", headers=headers or None)


@pytest.fixture
def client(gateway: Gateway) -> genai.Client:
    """The SDK against ``/gemini``."""
    return genai.Client(api_key=KEY, http_options=options(gateway), vertexai=False)


def compare(expected: Record, record: Record) -> None:
    """Compare a record with all fields of the contract, but for what differs in every call."""
    shown = {name: value for name, value in record.items() if name not in VARYING}

    assert expected == shown
    assert not record["flags"]


def lines_of(record: Record) -> list[tuple[str, str, str, str]]:
    """What every line says."""
    return [
        (line["sku"], line["quantity"], line["unit_price"], line["cost"])
        for line in record["lines"]
    ]


ASKED = "Hello world"


def test_a_whole_answer_is_read_and_priced(
    gateway: Gateway, upstream: ScriptedUpstream, client: genai.Client
) -> None:
    """The SDK reads what Google wrote; the record is the contract's."""
    answer = client.models.generate_content(model="gemini-2.5-flash", contents=ASKED)

    assert "Fine, th\u00e4nks." == answer.text
    assert answer.sdk_http_response is not None
    told = answer.sdk_http_response.headers or {}
    record = next(one for one in gateway.ledger() if one["id"] == told["x-taximeter-request-id"])
    compare(RECORD, record)
    assert LINES == lines_of(record)
    assert COST == told["x-taximeter-cost"]
    received = upstream.last()
    assert received.target.endswith("/models/gemini-2.5-flash:generateContent")
    assert PROVIDER_KEY == received.header("x-goog-api-key")
    assert KEY not in str(received)


def test_a_stream_is_read_word_by_word(gateway: Gateway, client: genai.Client) -> None:
    """The SDK's iterator sees every chunk; the record has the last usage."""
    seen = list(client.models.generate_content_stream(model="gemini-2.5-flash", contents=ASKED))

    assert ["Fine", ", th\u00e4nks", "."] == [one.text for one in seen]
    compare({**RECORD, "stream": True}, gateway.ledger()[-2])


@pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")
def test_the_async_client_works_whole_and_streamed(gateway: Gateway) -> None:
    """``client.aio`` is another HTTP client: it sees the same."""

    async def ask() -> tuple[str | None, list[str | None]]:
        client = genai.Client(api_key=KEY, http_options=options(gateway), vertexai=False)
        async with client.aio as aio:
            whole = await aio.models.generate_content(model="gemini-2.5-flash", contents=ASKED)
            stream = await aio.models.generate_content_stream(
                model="gemini-2.5-flash", contents=ASKED
            )
            return whole.text, [one.text async for one in stream]

    assert ("Fine, th\u00e4nks.", ["Fine", ", th\u00e4nks", "."]) == asyncio.run(ask())
    costs = [one["cost"] for one in gateway.ledger() if one["provider"] == "gemini"][-2:]
    assert [COST, COST] == costs


def test_tools_are_called(client: genai.Client) -> None:
    """A declaration goes out, a call comes back with its signature."""
    tool = types.Tool(
        function_declarations=[
            types.FunctionDeclaration(
                name="look_up",
                parameters=types.Schema(
                    type=types.Type.OBJECT,
                    properties={"city": types.Schema(type=types.Type.STRING)},
                ),
            )
        ]
    )
    answer = client.models.generate_content(
        model="gemini-2.5-flash", contents=ASKED, config=types.GenerateContentConfig(tools=[tool])
    )

    assert answer.function_calls is not None
    assert {"city": "Bonn"} == answer.function_calls[0].args


def test_counts_and_lists_are_free_and_embeddings_are_not(
    gateway: Gateway, client: genai.Client
) -> None:
    """7 tokens at 0.15 USD per million; a count and a list cost nothing."""
    assert 31 == client.models.count_tokens(model="gemini-2.5-flash", contents=ASKED).total_tokens
    assert ["models/gemini-2.5-flash"] == [one.name for one in client.models.list()]
    embedded = client.models.embed_content(model="gemini-embedding-001", contents=ASKED)

    assert embedded.embeddings is not None
    assert [0.5, 1e-05] == embedded.embeddings[0].values
    records = [one for one in gateway.ledger() if one["provider"] == "gemini"][-3:]
    assert [("none", "0"), ("none", "0"), ("reported", "0.00000105")] == [
        (one["basis"], one["cost"]) for one in records
    ]


def test_a_spent_budget_is_a_client_error_without_a_retry(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """The SDK raises its own error with status, message and the stable code."""
    client = genai.Client(
        api_key=KEY,
        http_options=options(gateway, **{"x-taximeter-user": "poor"}),
        vertexai=False,
    )
    before = len(upstream.exchanges)
    with pytest.raises(errors.ClientError) as refused:
        client.models.generate_content(model="gemini-2.5-flash", contents=ASKED)

    assert (429, "RESOURCE_EXHAUSTED") == (refused.value.code, refused.value.status)
    detail = refused.value.details["error"]["details"][0]
    assert ("budget_exceeded", "poor") == (detail["reason"], detail["metadata"]["budget"])
    with pytest.raises(errors.ClientError, match="poor"):
        list(client.models.generate_content_stream(model="gemini-2.5-flash", contents=ASKED))
    assert before == len(upstream.exchanges)


def test_an_unknown_key_is_refused_in_google_s_words(gateway: Gateway) -> None:
    """Status and name are Google's."""
    client = genai.Client(api_key="sk-tm-nobody", http_options=options(gateway), vertexai=False)
    with pytest.raises(errors.ClientError) as refused:
        client.models.generate_content(model="gemini-2.5-flash", contents=ASKED)

    assert (401, "UNAUTHENTICATED") == (refused.value.code, refused.value.status)


def test_the_base_url_may_come_from_the_environment(gateway: Gateway) -> None:
    """``GOOGLE_GEMINI_BASE_URL`` and ``GEMINI_API_KEY`` are all an application changes."""
    program = (
        "from google import genai; client = genai.Client(); print(client.models.generate_content("
        "model='gemini-2.5-flash', contents='Hello world').text)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={
            "GOOGLE_GEMINI_BASE_URL": f"{gateway.url}/gemini",
            "GEMINI_API_KEY": KEY,
            "PYTHONIOENCODING": "utf-8",
        },
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )

    assert "Fine, th\u00e4nks.\n" == said.stdout


def test_vertex_is_metered_at_its_own_prices(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """A bearer key, a project and a location in the address; the credential is replaced."""
    client = genai.Client(
        vertexai=True,
        project="p1",
        location="europe-west1",
        credentials=_Bearer(),
        http_options=options(gateway, "vertex"),
    )
    answer = client.models.generate_content(model="gemini-2.5-flash", contents=ASKED)

    assert "Fine, th\u00e4nks." == answer.text
    expected = "/projects/p1/locations/europe-west1/publishers/google/models/gemini-2.5-flash:"
    assert expected in upstream.last().target
    assert f"Bearer {PROVIDER_KEY}" == upstream.last().header("authorization")
    record = next(one for one in reversed(gateway.ledger()) if one["provider"] == "vertex")
    compare({**RECORD, "provider": "vertex"}, record)
    assert "vertex/gemini-2.5-flash/input" == record["lines"][0]["sku"]


class _Bearer(AnonymousCredentials):
    """A credential whose token is the virtual key."""

    def __init__(self) -> None:
        super().__init__()
        self.token = KEY

    @property
    def valid(self) -> bool:
        """It never expires."""
        return True


# -- raw bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "body"),
    [("?alt=sse", STREAM.body(with_usage=False)), ("", ARRAY.body)],
    ids=["events", "array"],
)
@pytest.mark.parametrize("write_bytes", [1, 7, 4096])
def test_a_stream_passes_byte_for_byte_in_either_framing(
    gateway: Gateway, upstream: ScriptedUpstream, query: str, body: bytes, write_bytes: int
) -> None:
    """However the bytes are cut, the client gets them and they are counted."""
    script: Script = (
        Sse(events=CHUNKS, done=False, eol=b"\r\n", headers=EVENTS, write_bytes=write_bytes)
        if query
        else Reply(headers=JSON, body=body, write_bytes=write_bytes)
    )
    with upstream.plays(script):
        response = gateway.call(
            f"/gemini/v1beta/models/gemini-2.5-flash:streamGenerateContent{query}",
            {"contents": [{"parts": [{"text": ASKED}]}]},
            key=None,
            headers={"x-goog-api-key": KEY},
        )

    assert body == response.content
    compare({**RECORD, "stream": True}, gateway.record(response))


def test_the_key_in_the_query_is_taken_out(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """``?key=`` carries the virtual key; what is beside it passes."""
    response = httpx.post(
        f"{gateway.url}/gemini/v1beta/models/gemini-2.5-flash:generateContent"
        f"?key={KEY}&prettyPrint=false",
        json={"contents": [{"parts": [{"text": ASKED}]}]},
        trust_env=False,
    )

    assert WHOLE.body == response.content
    assert upstream.last().target.endswith(":generateContent?prettyPrint=false")
    compare(RECORD, gateway.record(response))
