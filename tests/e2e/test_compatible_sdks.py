"""SDKs of OpenAI's API against other providers and the rest of the API, through a real gateway.

Must never accept "about": answers are compared byte by byte and money to 10^-12.
"""

import asyncio
import io
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import groq
import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI

from tests.openai_answers import STREAM, WHOLE, answer_like_openai, chunk
from tests.server import KEY, PROVIDER_KEY, Gateway, Record, plain_config
from tests.upstream import Answer, Received, Reply, Script, ScriptedUpstream, Sse

ASKED: Final[list[Any]] = [{"role": "user", "content": "Hello world"}]
# 224 x 1.25 + 1024 x 0.125 + 210 x 10 USD per million, as in the contract's example.
COST: Final = "0.002508"
BINARY: Final = (("Content-Type", "audio/mpeg"), ("x-request-id", "req_audio"))
RECORDING: Final = bytes(range(256)) * 64
TICKED: Final = {
    "prompt_tokens": 32,
    "completion_tokens": 9,
    "total_tokens": 141,
    "completion_tokens_details": {"reasoning_tokens": 100},
    "cost_in_usd_ticks": 17_310_001,
}
GROQ_USAGE: Final = {
    "queue_time": 0.017,
    "prompt_tokens": 90,
    "completion_tokens": 50,
    "total_tokens": 140,
    "prompt_tokens_details": {"cached_tokens": 64},
}
BUDGETS: Final = [
    {"id": "year", "limit": "5000 USD", "window": "year"},
    {"id": "poor", "scope": {"tag.poor": "yes"}, "limit": "0.000001 USD", "window": "year"},
]


def said(model: str, usage: dict[str, Any] | None, **top: Any) -> bytes:
    """Write a whole answer with the spacing no serialiser leaves."""
    message = {"role": "assistant", "content": "Fine."}
    fields = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1763894400,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
        **top,
    }
    return b"  " + json.dumps(fields, indent=1).encode() + b"\n"


def transcript(received: Received) -> Script:
    """Write a recording down, as the model and the request have it."""
    if b"gpt-4o-transcribe" not in received.body:
        usage: dict[str, Any] = {"type": "duration", "seconds": 9}
        return Reply(body=json.dumps({"text": "Hello.", "usage": usage}).encode())
    usage = {
        "type": "tokens",
        "input_tokens": 14,
        "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
        "output_tokens": 5,
        "total_tokens": 19,
    }
    if b'name="stream"\r\n\r\ntrue' not in received.body:
        return Reply(body=json.dumps({"text": "Hello.", "usage": usage}).encode())
    delta = {"type": "transcript.text.delta", "delta": "Hello."}
    done = {"type": "transcript.text.done", "text": "Hello.", "usage": usage}
    return Sse(events=(json.dumps(delta).encode(), json.dumps(done).encode()), done=False)


def spoken_of(received: Received) -> Script:
    """Speak."""
    if b'"sse"' not in received.body:
        return Reply(headers=BINARY, body=RECORDING, write_bytes=1000)
    usage = {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}
    events = (
        {"type": "speech.audio.delta", "audio": "SUQzBAAAAAAA"},
        {"type": "speech.audio.done", "usage": usage},
    )
    return Sse(events=tuple(json.dumps(event).encode() for event in events), done=False)


def of_xai(received: Received) -> Script:
    """Tell thoughts beside the completion, and the bill, on whatever comes last."""
    if b'"stream":true' not in received.body.replace(b" ", b""):
        return Reply(body=said("grok-4-0709", TICKED))
    last = chunk(None, usage=TICKED, model="grok-4-0709")
    return Sse(events=(chunk({"content": "Fine."}, model="grok-4-0709"), last))


def of_groq(received: Received) -> Script:
    """Tell usage in ``x_groq`` where it streams."""
    model = "openai/gpt-oss-120b"
    if b'"stream":true' not in received.body.replace(b" ", b""):
        return Reply(body=said(model, GROQ_USAGE, x_groq={"id": "req_1"}))
    told = {"id": "req_1", "usage": GROQ_USAGE}
    finish = chunk({}, finish="stop", model=model, x_groq=told)
    return Sse(events=(chunk({"content": "Fine."}, model=model), finish))


PICTURES: Final = {
    "created": 1,
    "data": [{"b64_json": "iVBORw0KGgo="}],
    "usage": {
        "total_tokens": 4220,
        "input_tokens": 60,
        "output_tokens": 4160,
        "input_tokens_details": {"text_tokens": 50, "image_tokens": 10},
    },
}
WHOLES: Final[dict[str, dict[str, Any]]] = {
    "/v1/embeddings": {
        "object": "list",
        "model": "text-embedding-3-small",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -1e-05]}],
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    },
    "/v1/moderations": {"id": "modr-1", "model": "omni-moderation-latest", "results": []},
    "/v1/models": {"object": "list", "data": [{"id": "gpt-5", "object": "model"}]},
    "/v1/completions": {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "gpt-3.5-turbo-instruct",
        "choices": [{"text": " test", "index": 0, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    },
    "/v1/images/generations": PICTURES,
    "/v1/images/edits": PICTURES,
}
SCRIPTS: Final[dict[str, Answer]] = {
    "/xai/v1/chat/completions": of_xai,
    "/groq/openai/v1/chat/completions": of_groq,
    "/v1/audio/speech": spoken_of,
    "/v1/audio/transcriptions": transcript,
}


def answer(received: Received) -> Script:
    """Play every provider, told apart by the address."""
    path, _, _ = received.target.partition("?")
    if path in WHOLES:
        return Reply(body=json.dumps(WHOLES[path], indent=2).encode())
    return SCRIPTS.get(path, answer_like_openai)(received)


@pytest.fixture(scope="module")
def provider(upstream: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    """One upstream that plays every provider."""
    with upstream.plays(answer):
        yield upstream


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, provider: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway in front of four kinds of provider."""
    root = f"http://127.0.0.1:{provider.port}"
    key = {"api_key": "env:OPENAI_API_KEY"}
    providers = {
        "openai": {"kind": "openai", "base_url": f"{root}/v1", **key},
        "azure": {"kind": "azure", "base_url": root, "deployments": {"my-gpt": "gpt-5"}, **key},
        "xai": {"kind": "xai", "base_url": f"{root}/xai/v1", **key},
        "groq": {"kind": "groq", "base_url": f"{root}/groq/openai/v1", **key},
    }
    config = plain_config(root, providers=providers, budgets=BUDGETS)
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """The OpenAI SDK against ``/v1``."""
    http_client = httpx.Client(trust_env=False, timeout=30)
    with openai.OpenAI(api_key=KEY, base_url=f"{gateway.url}/v1", http_client=http_client) as made:
        yield made


def bill_of(record: Record) -> tuple[dict[str, Any], str, str | None, str]:
    """The part of a record that says what was counted and what it cost."""
    return record["usage"], record["basis"], record["cost"], record["cost_status"]


# -- other providers -----------------------------------------------------------------------------


def test_a_provider_named_before_the_model_says_what_the_call_costs(
    gateway: Gateway, provider: ScriptedUpstream, client: openai.OpenAI
) -> None:
    """xAI's ticks are the bill: one line, and the counts stay."""
    raw = client.chat.completions.with_raw_response.create(
        model="xai/grok-4-0709", messages=ASKED, max_tokens=400
    )

    assert said("grok-4-0709", TICKED) == raw.http_response.content
    assert "/xai/v1/chat/completions" == provider.last().target
    record = gateway.record(raw.http_response)
    used = {"input": 32, "output": 9, "reasoning": 100}
    assert (used, "reported", "0.0017310001", "final") == bill_of(record)
    assert "0.0017310001" == record["provider_cost"] == record["list_cost"]
    (line,) = record["lines"]
    assert ("xai/grok-4-0709/request/reported", "1") == (line["price_id"], line["quantity"])
    assert "0.0017310001" == raw.headers["x-taximeter-cost"]
    shown = gateway.run("ledger", "show", record["id"])
    assert 0 == shown.returncode, shown.stderr


def test_a_stream_that_brings_its_usage_unasked_is_not_touched(
    gateway: Gateway, provider: ScriptedUpstream, client: openai.OpenAI
) -> None:
    """No option is put into the request, and no chunk is taken out of the answer."""
    with client.chat.completions.with_streaming_response.create(
        model="xai/grok-4-0709", messages=ASKED, stream=True, max_tokens=400
    ) as raw:
        body = b"".join(raw.iter_bytes())

    last = chunk(None, usage=TICKED, model="grok-4-0709")
    script = Sse(events=(chunk({"content": "Fine."}, model="grok-4-0709"), last))
    assert script.body(with_usage=False) == body
    assert "stream_options" not in provider.last().json()
    assert "0.0017310001" == gateway.record(raw.http_response)["cost"]


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_groq_sdk(gateway: Gateway, provider: ScriptedUpstream, is_stream: bool) -> None:
    """The SDK's own paths below its own base URL; usage in ``x_groq`` where it streams."""
    http_client = httpx.Client(trust_env=False, timeout=30)
    with groq.Groq(api_key=KEY, base_url=f"{gateway.url}/groq", http_client=http_client) as client:
        raw: Any = client.chat.completions.with_raw_response.create(
            model="openai/gpt-oss-120b", messages=ASKED, stream=is_stream
        )
        if is_stream:
            assert "Fine." == next(iter(raw.parse())).choices[0].delta.content
        else:
            assert "Fine." == raw.parse().choices[0].message.content

    assert "/groq/openai/v1/chat/completions" == provider.last().target
    # 26 x 0.15 + 64 x 0.075 + 50 x 0.6 USD per million
    used = {"input": 26, "cache_read": 64, "output": 50}
    assert (used, "reported", "0.0000387", "final") == bill_of(gateway.record(raw.http_response))


def azure_client(gateway: Gateway, kind: Any, **options: Any) -> Any:
    """An Azure SDK client, sync or async."""
    return kind(
        azure_endpoint=f"{gateway.url}/azure", api_version="2024-10-21", max_retries=0, **options
    )


@pytest.mark.parametrize("credential", ["api_key", "azure_ad_token"])
def test_the_azure_sdk_names_a_deployment(
    gateway: Gateway, provider: ScriptedUpstream, credential: str
) -> None:
    """The deployment stands in the address; the model it served decides the price."""
    with azure_client(gateway, openai.AzureOpenAI, **{credential: KEY}) as client:
        raw = client.chat.completions.with_raw_response.create(model="my-gpt", messages=ASKED)

    assert WHOLE.body == raw.http_response.content
    received = provider.last()
    target = "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"
    assert (target, PROVIDER_KEY) == (received.target, received.header("api-key"))
    assert received.header("authorization") is None
    record = gateway.record(raw.http_response)
    assert ("my-gpt", "azure", COST) == (
        record["model_requested"],
        record["provider"],
        record["cost"],
    )


def test_the_azure_sdk_streams(gateway: Gateway, provider: ScriptedUpstream) -> None:
    """The first chunk has no choices and no usage, and reaches the client all the same."""
    first = chunk(None, model="", prompt_filter_results=[{"prompt_index": 0}])
    script = Sse(events=(first, *STREAM.events), usage=STREAM.usage)

    async def read() -> tuple[int, Any]:
        async with azure_client(gateway, openai.AsyncAzureOpenAI, api_key=KEY) as client:
            raw = await client.chat.completions.with_raw_response.create(
                model="my-gpt", messages=ASKED, stream=True
            )
            return len([event async for event in raw.parse()]), raw.http_response

    with provider.plays(script):
        count, response = asyncio.run(read())

    assert len(script.events) == count
    assert COST == gateway.record(response)["cost"]


def test_a_prompt_azure_filtered_is_not_free(gateway: Gateway, provider: ScriptedUpstream) -> None:
    """Azure charges for it and does not say how much: booked at the most it can come to."""
    error = {"error": {"code": "content_filter", "message": "Filtered.", "status": 400}}
    with (
        azure_client(gateway, openai.AzureOpenAI, api_key=KEY) as client,
        provider.plays(Reply(status=400, body=json.dumps(error).encode())),
        pytest.raises(openai.BadRequestError) as caught,
    ):
        client.chat.completions.create(model="my-gpt", messages=ASKED, max_completion_tokens=100)

    record = gateway.record(caught.value.response)
    assert ("upstream_error", "estimated") == (record["outcome"], record["basis"])
    assert 100 == record["output_total"]
    assert record["cost"] not in (None, "0")


# -- LangChain -----------------------------------------------------------------------------------


@contextmanager
def lang_client(gateway: Gateway, user: str, **options: Any) -> Iterator[ChatOpenAI]:
    """LangChain's client, as an application would make it."""
    with httpx.Client(trust_env=False, timeout=30) as http_client:
        yield ChatOpenAI(
            model="gpt-5",
            api_key=KEY,
            base_url=f"{gateway.url}/v1",
            http_client=http_client,
            max_retries=0,
            default_headers={"x-taximeter-user": user},
            **options,
        )


def test_langchain_whole(gateway: Gateway) -> None:
    """The answer and its usage reach LangChain, and the ledger."""
    with lang_client(gateway, "lang-whole") as client:
        answered = client.invoke("Hello world")

    assert "Fine, thanks." == answered.content
    assert answered.usage_metadata is not None
    assert 1248 == answered.usage_metadata["input_tokens"]
    assert [COST] == [record["cost"] for record in gateway.records_of("lang-whole")]


@pytest.mark.parametrize("wants_usage", [False, True])
def test_langchain_streams_behind_a_base_url(
    gateway: Gateway, provider: ScriptedUpstream, wants_usage: bool
) -> None:
    """Behind a base URL it asks for no usage: the gateway does, and takes it out again."""
    user = f"lang-{wants_usage}"
    options = {"stream_usage": True} if wants_usage else {}
    with lang_client(gateway, user, **options) as client:
        pieces = list(client.stream("Hello world"))

    assert "Fine, thänks." == "".join(str(piece.content) for piece in pieces)
    assert wants_usage == any(piece.usage_metadata for piece in pieces)
    assert {"include_usage": True} == provider.last().json()["stream_options"]
    assert [COST] == [record["cost"] for record in gateway.records_of(user)]


# -- the rest of the API -------------------------------------------------------------------------


def test_embeddings(gateway: Gateway, client: openai.OpenAI) -> None:
    """Input and nothing else: 8 x 0.02 USD per million."""
    raw = client.embeddings.with_raw_response.create(
        model="text-embedding-3-small", input=["Hello", "world"], encoding_format="float"
    )

    assert [0.25, -1e-05] == raw.parse().data[0].embedding
    record = gateway.record(raw.http_response)
    assert ({"input": 8}, "reported", "0.00000016", "final") == bill_of(record)
    assert ("openai.embeddings", 0) == (record["api"], record["output_total"])


def test_older_completions(gateway: Gateway, client: openai.OpenAI) -> None:
    """5 x 1.5 + 7 x 2 USD per million."""
    raw = client.completions.with_raw_response.create(
        model="gpt-3.5-turbo-instruct", prompt="This is a", max_tokens=7
    )

    assert " test" == raw.parse().choices[0].text
    used = {"input": 5, "output": 7}
    assert (used, "reported", "0.0000215", "final") == bill_of(gateway.record(raw.http_response))


def test_moderations_are_free(gateway: Gateway, client: openai.OpenAI) -> None:
    """They leave a record that says so."""
    raw = client.moderations.with_raw_response.create(
        model="openai/omni-moderation-latest", input="Hello"
    )

    assert "omni-moderation-latest" == raw.parse().model
    assert ({}, "none", "0", "final") == bill_of(gateway.record(raw.http_response))


def test_a_provider_lists_its_own_models(gateway: Gateway) -> None:
    """On its own surface, and for free."""
    http_client = httpx.Client(trust_env=False, timeout=30)
    base_url = f"{gateway.url}/openai/v1"
    with openai.OpenAI(api_key=KEY, base_url=base_url, http_client=http_client) as client:
        raw = client.models.with_raw_response.list()

    assert ["gpt-5"] == [model.id for model in raw.parse().data]
    assert "none" == gateway.record(raw.http_response)["basis"]


def test_speech_arrives_byte_for_byte(gateway: Gateway, client: openai.OpenAI) -> None:
    """Twelve characters at 15 USD per million, counted here."""
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="Hello wörld!"
    ) as raw:
        assert RECORDING == b"".join(raw.iter_bytes())

    record = gateway.record(raw.http_response)
    assert ({"character": 12}, "estimated", "0.00018", "estimated") == bill_of(record)


def test_speech_in_events_tells_its_tokens(gateway: Gateway, client: openai.OpenAI) -> None:
    """14 x 0.6 + 101 x 12 USD per million."""
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Hello!", stream_format="sse"
    ) as raw:
        assert b"speech.audio.done" in raw.read()

    used = {"input": 14, "output": 101}
    assert (used, "reported", "0.0012204", "final") == bill_of(gateway.record(raw.http_response))


@pytest.mark.parametrize("is_stream", [False, True])
def test_transcriptions_by_tokens(
    gateway: Gateway, provider: ScriptedUpstream, client: openai.OpenAI, is_stream: bool
) -> None:
    """4 x 2.5 + 10 x 6 + 5 x 10 USD per million; the form reaches the provider as it was sent."""
    recording = io.BytesIO(RECORDING)
    recording.name = "hello.mp3"
    raw: Any = client.audio.transcriptions.with_raw_response.create(
        model="gpt-4o-transcribe", file=recording, stream=is_stream
    )
    if is_stream:
        assert "transcript.text.done" == list(raw.parse())[-1].type
    else:
        assert "Hello." == json.loads(raw.http_response.content)["text"]

    assert RECORDING in provider.last().body
    used = {"input": 4, "input_audio": 10, "output": 5}
    assert (used, "reported", "0.00012", "final") == bill_of(gateway.record(raw.http_response))


def test_transcriptions_by_seconds(
    gateway: Gateway, provider: ScriptedUpstream, client: openai.OpenAI
) -> None:
    """Nine seconds at 0.36 USD an hour; the provider before the model is taken off the form."""
    head = struct.pack("<4sI4s", b"RIFF", 36, b"WAVE")
    raw = client.audio.transcriptions.with_raw_response.create(
        model="openai/whisper-1", file=("hello.wav", head + bytes(64))
    )

    assert "Hello." == raw.parse().text
    assert b"openai/whisper-1" not in provider.last().body
    used = {"audio_second": 9}
    assert (used, "reported", "0.0009", "final") == bill_of(gateway.record(raw.http_response))


def test_images(gateway: Gateway, client: openai.OpenAI) -> None:
    """50 x 5 + 10 x 10 + 4160 x 40 USD per million, drawn or changed."""
    used = {"input": 50, "input_image": 10, "output_image": 4160}
    drawn = client.images.with_raw_response.generate(model="gpt-image-1", prompt="A fox")
    assert "iVBORw0KGgo=" == drawn.parse().data[0].b64_json  # type: ignore[index]
    changed = client.images.with_raw_response.edit(
        model="gpt-image-1", prompt="A hat", image=("fox.png", b"\x89PNG" + bytes(60))
    )

    for raw in (drawn, changed):
        record = gateway.record(raw.http_response)
        assert (used, "reported", "0.16675", "final") == bill_of(record)


def test_a_refusal_by_budget_is_the_sdks_own_and_is_not_tried_again(
    gateway: Gateway, provider: ScriptedUpstream, client: openai.OpenAI
) -> None:
    """Nothing reaches the provider, whatever the call."""
    before = len(provider.exchanges)
    headers = {"x-taximeter-tags": "poor=yes"}
    with pytest.raises(openai.RateLimitError) as caught:
        client.embeddings.create(
            model="text-embedding-3-small", input="Hello " * 100, extra_headers=headers
        )
    with pytest.raises(openai.RateLimitError):
        client.audio.transcriptions.create(
            model="whisper-1", file=("a.mp3", RECORDING), extra_headers=headers
        )

    assert "insufficient_quota" == caught.value.type
    assert before == len(provider.exchanges)


PLAIN: Final = """
import groq
client = groq.Groq()
asked = [{"role": "user", "content": "Hello world"}]
said = client.chat.completions.create(model="openai/gpt-oss-120b", messages=asked)
print(said.choices[0].message.content)
client.close()
"""


def test_the_environment_alone_is_enough(gateway: Gateway, tmp_path: Path) -> None:
    """Nothing but two variables changes in an application."""
    environ = {
        "HOME": str(tmp_path),
        "GROQ_BASE_URL": f"{gateway.url}/groq",
        "GROQ_API_KEY": KEY,
    }
    told = subprocess.run(
        [sys.executable, "-c", PLAIN], env=environ, capture_output=True, text=True, check=False
    )

    assert ("Fine.\n", "") == (told.stdout, told.stderr)
