"""OpenAI's SDK calls models that speak something else: translated, and metered where they live.

Must never accept a record of the translation: the provider's own call is what the ledger keeps.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import openai
import pytest

from tests.server import KEY, Gateway, Record, plain_config
from tests.upstream import Received, Reply, Script, ScriptedUpstream

GOLDEN: Final = Path(__file__).parent.parent / "golden"
ASKED: list[Any] = [{"role": "user", "content": "Hello world"}]
EVENTS: Final = "text/event-stream"
FRAMES: Final = "application/vnd.amazon.eventstream"
JSON: Final = "application/json"
CLAUDE: Final = "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
# Where a provider is called, in part, and which golden answer it gives with which content type.
ANSWERS: Final = (
    ("/converse-stream", "bedrock_stream/whole/reply.bin", FRAMES),
    ("/converse", "bedrock_converse/whole/reply.json", JSON),
    (":streamGenerateContent", "gemini/streamed-totals-fall/reply.sse", EVENTS),
    (":generateContent", "gemini/whole/reply.json", JSON),
)
# By body, where the address is the same for both.
BY_BODY: Final = {
    "/v1/messages": (
        "anthropic_messages/streamed/reply.sse",
        "anthropic_messages/whole/reply.json",
    ),
}
EMBEDDED: Final = b'{"embeddings":[{"values":[0.5,-0.25]}],"usageMetadata":{"promptTokenCount":3}}'
MODELS: Final = {
    "anthropic.messages": ("anthropic/claude-sonnet-4-5", "anthropic_messages"),
    "gemini.generate_content": ("gemini/gemini-2.5-flash", "gemini"),
    "bedrock.converse": (CLAUDE, "bedrock_converse"),
}


def answer(received: Received) -> Script:
    """Play the provider the address belongs to, from its golden answers."""
    path = received.target.partition("?")[0]
    for part, (streamed, whole) in BY_BODY.items():
        if path.endswith(part):
            is_stream = received.json().get("stream") is True
            return played(*((streamed, EVENTS) if is_stream else (whole, JSON)))
    if path.endswith(":batchEmbedContents"):
        return Reply(headers=(("Content-Type", JSON),), body=EMBEDDED)
    for part, file, kind in ANSWERS:
        if path.endswith(part):
            return played(file, kind)
    return Reply(status=404, headers=(("Content-Type", JSON),), body=b"{}")


def played(file: str, kind: str) -> Reply:
    """A golden answer as a script."""
    return Reply(headers=(("Content-Type", kind),), body=(GOLDEN / file).read_bytes())


def total_of(case: str) -> str:
    """What a golden case costs, worked out by hand."""
    return (GOLDEN / case / "items.txt").read_text().splitlines()[-1].removeprefix("total ")


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """One server that plays every provider."""
    with ScriptedUpstream(answer) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with three providers that speak no OpenAI; one model has no budget left."""
    base_url = upstream.base_url.removesuffix("/v1")
    providers: dict[str, dict[str, Any]] = {
        kind: {"kind": kind, "base_url": base_url, "api_key": "env:OPENAI_API_KEY"}
        for kind in ("anthropic", "gemini")
    }
    providers["bedrock"] = {**providers["anthropic"], "kind": "bedrock", "region": "us-west-2"}
    budget = {"id": "opus", "scope": {"model": "claude-opus-4-8"}, "limit": "0.000001 USD"}
    config = plain_config(base_url, providers=providers, budgets=[{**budget, "window": "month"}])
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """The SDK with its defaults, retries too."""
    http = openai.DefaultHttpxClient(trust_env=False, timeout=90)
    with openai.OpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", http_client=http) as sdk:
        yield sdk


def sent_calls(gateway: Gateway) -> list[Record]:
    """Records of calls that reached a provider."""
    gateway.settle()
    return [record for record in gateway.ledger() if record["outcome"] != "refused"]


def the_record(gateway: Gateway, before: int, api: str) -> Record:
    """The one record a translated call has left: the provider's own."""
    records = sent_calls(gateway)
    assert len(records) == before + 1
    record = max(records, key=lambda one: str(one["started_at"]))
    assert api == record["api"]
    assert "translated from openai.chat" in record["flags"]
    return record


@pytest.mark.parametrize("api", MODELS)
def test_a_whole_answer_is_metered_where_the_model_lives(
    gateway: Gateway, client: openai.OpenAI, api: str
) -> None:
    """One record, of the provider's own call, with its usage and its cost."""
    model, case = MODELS[api]
    before = len(sent_calls(gateway))

    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=ASKED, max_tokens=400, extra_headers={"x-taximeter-user": "u-1"}
    )

    assert raw.parse().choices[0].message.content
    record = the_record(gateway, before, api)
    assert total_of(f"{case}/whole") == record["cost"] == raw.headers["x-taximeter-cost"]
    assert record["id"] == raw.headers["x-taximeter-request-id"]
    assert ("u-1", {"env": "prod"}) == (record["user"], record["tags"])
    assert "openai.chat" == raw.headers["x-taximeter-translated"]


@pytest.mark.parametrize("api", MODELS)
def test_a_stream_is_translated_as_it_comes(
    gateway: Gateway, client: openai.OpenAI, api: str
) -> None:
    """Words arrive as OpenAI's chunks; the record is the provider's own, reported."""
    model, _ = MODELS[api]
    before = len(sent_calls(gateway))

    stream = client.chat.completions.create(
        model=model, messages=ASKED, max_tokens=400, stream=True
    )
    said = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]

    assert "".join(said)
    record = the_record(gateway, before, api)
    assert ("reported", True) == (record["basis"], record["stream"])


def test_embeddings_are_translated(gateway: Gateway, client: openai.OpenAI) -> None:
    """Gemini's vectors in OpenAI's shape."""
    answered = client.embeddings.create(
        model="gemini/gemini-embedding-001", input=["Hello world"], encoding_format="float"
    )

    assert [0.5, -0.25] == answered.data[0].embedding


def test_a_spent_budget_is_the_sdks_own_error_and_is_not_tried_again(
    gateway: Gateway, client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """The refusal of the provider's own call, in OpenAI's words."""
    sent = len(upstream.exchanges)

    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(
            model="anthropic/claude-opus-4-8", messages=ASKED, max_tokens=400
        )

    gateway.settle()
    assert "budget_exceeded" == caught.value.code
    assert sent == len(upstream.exchanges)
    (refusal,) = [one for one in gateway.ledger() if "refused: budget_exceeded" in one["flags"]]
    assert "anthropic.messages" == refusal["api"]


def test_an_error_of_the_provider_is_an_error_of_the_sdk(
    client: openai.OpenAI, upstream: ScriptedUpstream
) -> None:
    """With the provider's status."""
    overloaded = (GOLDEN / "anthropic_messages/error-body/reply.json").read_bytes()
    reply = Reply(status=400, headers=(("Content-Type", JSON),), body=overloaded)
    with upstream.plays(reply), pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model="anthropic/claude-sonnet-4-5", messages=ASKED, max_tokens=400
        )


def test_what_cannot_be_said_is_refused(client: openai.OpenAI) -> None:
    """An option of the library's is none of OpenAI's."""
    with pytest.raises(openai.BadRequestError, match="not translated"):
        client.chat.completions.create(
            model="anthropic/claude-sonnet-4-5",
            messages=ASKED,
            extra_body={"api_base": "http://example.com"},
        )


def test_nobody_can_pass_for_the_translator(gateway: Gateway) -> None:
    """The mark needs a secret of the gateway's."""
    response = gateway.http.post(
        "/anthropic/v1/messages",
        content=json.dumps({"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": ASKED}),
        headers={"x-api-key": KEY, "x-taximeter-translated": "guess 01 openai.chat"},
    )

    assert not gateway.record(response)["flags"]
