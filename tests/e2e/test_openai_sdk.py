"""The real OpenAI SDK through the real gateway: bytes, headers, records and money.

Must never accept "about": answers are compared byte by byte and money to 10^-12.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest

from tests.openai_answers import STREAM, USAGE, WHOLE, chunk, completion, spoken, usage_chunk
from tests.server import KEY, PROVIDER_KEY, Gateway, Record, plain_config
from tests.upstream import CutIn, Hold, Reply, ScriptedUpstream, Sse

# "Hello world" is two tokens in every OpenAI encoding.
ASKED: list[Any] = [
    {"role": "system", "content": "Answer in one word, please."},
    {"role": "user", "content": "Hello world"},
]

# 224 x 1.25 + 1024 x 0.125 + 146 x 10 + 64 x 10 USD per million, by hand.
COST = "0.002508"
LINES = [
    {
        "sku": "openai/gpt-5/input",
        "price_id": "openai/gpt-5/input/standard",
        "meter": "input",
        "quantity": "224",
        "unit_price": "1.25",
        "per": "1000000",
        "list_cost": "0.00028",
        "cost": "0.00028",
    },
    {
        "sku": "openai/gpt-5/cache_read",
        "price_id": "openai/gpt-5/cache_read/standard",
        "meter": "cache_read",
        "quantity": "1024",
        "unit_price": "0.125",
        "per": "1000000",
        "list_cost": "0.000128",
        "cost": "0.000128",
    },
    {
        "sku": "openai/gpt-5/output",
        "price_id": "openai/gpt-5/output/standard",
        "meter": "output",
        "quantity": "146",
        "unit_price": "10",
        "per": "1000000",
        "list_cost": "0.00146",
        "cost": "0.00146",
    },
    {
        "sku": "openai/gpt-5/reasoning",
        "price_id": "openai/gpt-5/output/standard",
        "meter": "reasoning",
        "quantity": "64",
        "unit_price": "10",
        "per": "1000000",
        "list_cost": "0.00064",
        "cost": "0.00064",
    },
]
RECORD: Record = {
    "outcome": "ok",
    "http_status": 200,
    "stream": False,
    "api": "openai.chat",
    "provider": "openai",
    "model_requested": "gpt-5",
    "model": "gpt-5-2025-08-07",
    "provider_request_id": "chatcmpl-C0ffee",
    "organization": "acme",
    "team": "search",
    "project": "rag",
    "key": "rag-ci",
    "user": None,
    "tags": {"env": "prod"},
    "usage": {"input": 224, "cache_read": 1024, "output": 146, "reasoning": 64},
    "input_total": 1248,
    "output_total": 210,
    "basis": "reported",
    "currency": "USD",
    "cost": COST,
    "list_cost": COST,
    "provider_cost": None,
    "cost_status": "final",
    "lines": LINES,
    "corrects": None,
}
STREAM_RECORD: Record = {**RECORD, "stream": True, "provider_request_id": "chatcmpl-57ream"}

# Both base URLs of the contract, and both ways to name a model under the first.
SURFACES = [("/v1", "gpt-5"), ("/v1", "openai/gpt-5"), ("/openai", "gpt-5")]


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with three hard budgets, none of them near its limit."""
    budgets = [
        {
            "id": "acme-month",
            "scope": {"organization": "acme"},
            "limit": "5000 USD",
            "window": "month",
        },
        {"id": "search-month", "scope": {"team": "search"}, "limit": "500 USD", "window": "month"},
        {"id": "key-day", "scope": {"key": "rag-ci"}, "limit": "900000000 tokens", "window": "day"},
    ]
    config = plain_config(upstream.base_url, budgets=budgets)
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Wire:
    """An SDK client and what it put on the wire.

    Attributes:
        client: The real SDK.
        sent: Requests as they left, newest last.
    """

    client: openai.OpenAI
    sent: list[httpx.Request]


@pytest.fixture
def wire(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[Wire]:
    """The SDK against ``/v1``, or against the base URL of the test's parameter."""
    surface = getattr(request, "param", "/v1")
    sent: list[httpx.Request] = []
    http_client = httpx.Client(event_hooks={"request": [sent.append]}, trust_env=False, timeout=30)
    with openai.OpenAI(
        api_key=KEY, base_url=gateway.url + surface, http_client=http_client, max_retries=0
    ) as client:
        yield Wire(client, sent)


def compare(expected: Record, record: Record) -> None:
    """Compare a record with all fields of the contract, but for what differs in every call.

    Tokens by who said them have a test of their own.
    """
    varying = ("id", "started_at", "ended_at", "price_version", "flags", "input_parts")
    apart = (*varying, "user_input_tokens")
    shown = {name: value for name, value in record.items() if name not in apart}

    assert expected == shown
    assert record["started_at"] <= record["ended_at"]
    assert record["price_version"]
    assert not record["flags"]


# -- whole answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(("wire", "model"), SURFACES, indirect=["wire"])
def test_a_whole_answer_arrives_byte_for_byte_and_is_priced(
    gateway: Gateway, upstream: ScriptedUpstream, wire: Wire, model: str
) -> None:
    """Whatever the base URL, bytes are the provider's and the record is the contract's."""
    raw = wire.client.chat.completions.with_raw_response.create(model=model, messages=ASKED)

    assert raw.http_response.content == WHOLE.body
    assert "Fine, thanks." == raw.parse().choices[0].message.content
    for name, value in WHOLE.headers:
        assert value == raw.headers[name]
    record = gateway.record(raw.http_response)
    compare({**RECORD, "model_requested": record["model_requested"]}, record)
    assert model.endswith(record["model_requested"])
    assert "/v1/chat/completions" == upstream.last().target


@pytest.mark.parametrize(("wire", "model"), SURFACES, indirect=["wire"])
def test_the_provider_gets_the_bytes_of_the_client_but_for_an_alias(
    upstream: ScriptedUpstream, wire: Wire, model: str
) -> None:
    """The body is spliced, never written anew; only the provider prefix of the model goes."""
    wire.client.chat.completions.create(
        model=model, messages=ASKED, temperature=1e-05, extra_body={"caf\u00e9": [1.0, "\u20ac"]}
    )

    sent = wire.sent[-1].content
    expected = sent.replace(b'"openai/gpt-5"', b'"gpt-5"', 1)
    assert expected == upstream.last().body


def test_headers_pass_but_for_credentials_and_our_own(
    upstream: ScriptedUpstream, wire: Wire
) -> None:
    """Everything an SDK says reaches the provider; the virtual key never does."""
    wire.client.chat.completions.create(
        model="gpt-5",
        messages=ASKED,
        extra_headers={
            "idempotency-key": "idem-1",
            "OpenAI-Project": "proj_1",
            "x-anything": "7",
            "x-taximeter-user": "u-1",
            "x-taximeter-tags": "feature=chat",
        },
    )

    received = upstream.last()
    assert f"Bearer {PROVIDER_KEY}" == received.header("authorization")
    assert KEY not in str(received)
    assert not [name for name, _ in received.headers if name.lower().startswith("x-taximeter")]
    dropped = {"authorization", "host", "connection", "accept-encoding", "content-length"}
    for name, value in wire.sent[-1].headers.items():
        if name not in dropped and not name.startswith("x-taximeter"):
            assert value == received.header(name), name
    assert f"127.0.0.1:{upstream.port}" == received.header("host")
    added = {name.lower() for name, _ in received.headers} - set(wire.sent[-1].headers)
    assert set() == added


def test_the_answer_tells_cost_basis_price_version_and_the_tightest_budget(
    gateway: Gateway, wire: Wire
) -> None:
    """The headers of the contract say what the record says, and what is left afterwards."""
    raw = wire.client.chat.completions.with_raw_response.create(model="gpt-5", messages=ASKED)

    record = gateway.record(raw.http_response)
    assert COST == raw.headers["x-taximeter-cost"]
    assert "reported" == raw.headers["x-taximeter-basis"]
    assert record["price_version"] == raw.headers["x-taximeter-price-version"]
    assert record["id"] == raw.headers["x-taximeter-request-id"]
    assert "search-month" == raw.headers["x-taximeter-budget"]
    left = gateway.budget("search-month").remaining
    assert left == Decimal(raw.headers["x-taximeter-budget-remaining"].split()[0])


def test_tags_and_user_of_the_request_are_booked(gateway: Gateway, wire: Wire) -> None:
    """The request's tags win over what the key inherits; the user is kept as named."""
    raw = wire.client.chat.completions.with_raw_response.create(
        model="gpt-5",
        messages=ASKED,
        extra_headers={"x-taximeter-tags": "feature=chat,env=dev", "x-taximeter-user": "u-17"},
    )

    record = gateway.record(raw.http_response)
    tags = {"env": "dev", "feature": "chat"}
    compare({**RECORD, "user": "u-17", "tags": tags}, record)


def test_what_the_user_wrote_is_counted_apart(gateway: Gateway, wire: Wire) -> None:
    """Two tokens of user text in 1,248: the rest of the prompt is scaffold."""
    raw = wire.client.chat.completions.with_raw_response.create(model="gpt-5", messages=ASKED)

    record = gateway.record(raw.http_response)
    assert (1248, 2) == (record["input_total"], record["user_input_tokens"])
    assert record["input_parts"]["user"] == 2


@pytest.mark.xfail(strict=True, reason="granian's RSGI leaves out headers that are not ASCII")
def test_header_values_pass_as_bytes(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """A value that is not ASCII is nobody's business."""
    response = gateway.http.post(
        "/v1/chat/completions",
        content=b'{"model":"gpt-5","messages":[]}',
        headers={b"authorization": f"Bearer {KEY}".encode(), b"x-anything": b"caf\xc3\xa9"},
    )

    assert WHOLE.body == response.content
    assert "caf\u00c3\u00a9" == upstream.last().header("x-anything")


def test_the_async_client_works_in_parallel_and_nothing_is_lost(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """Forty calls at once are forty records, and the budgets rise by exactly their sum."""
    gateway.settle()
    before = gateway.budget("acme-month")

    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        raw = await client.chat.completions.with_raw_response.create(
            model="gpt-5", messages=ASKED, extra_headers={"x-taximeter-user": "parallel"}
        )
        assert raw.http_response.content == WHOLE.body, number
        return raw.headers["x-taximeter-request-id"]

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(
            api_key=KEY,
            base_url=f"{gateway.url}/v1",
            max_retries=0,
            http_client=httpx.AsyncClient(trust_env=False, timeout=30),
        ) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(40)))

    ids = asyncio.run(ask_all())

    records = gateway.records_of("parallel")
    assert sorted(ids) == sorted(record["id"] for record in records)
    assert {COST} == {record["cost"] for record in records}
    after = gateway.budget("acme-month")
    assert before.spent + 40 * Decimal(COST) == after.spent
    assert 0 == after.reserved


# -- streams -------------------------------------------------------------------------------------


def read_stream(wire: Wire, **options: Any) -> tuple[bytes, httpx.Response]:
    """Ask for a stream and read its raw bytes through the SDK's own response."""
    with wire.client.chat.completions.with_streaming_response.create(
        model="gpt-5", messages=ASKED, stream=True, **options
    ) as raw:
        return b"".join(raw.iter_bytes()), raw.http_response


def test_a_stream_arrives_byte_for_byte_without_the_usage_it_did_not_ask_for(
    gateway: Gateway, upstream: ScriptedUpstream, wire: Wire
) -> None:
    """Usage is asked for behind the client's back, and the extra chunk taken out again."""
    body, response = read_stream(wire)

    assert STREAM.body(with_usage=False) == body
    received = upstream.last().json()
    assert {"include_usage": True} == received.pop("stream_options")
    assert json.loads(wire.sent[-1].content) == received
    compare(STREAM_RECORD, gateway.record(response))


def test_a_stream_with_usage_passes_untouched_both_ways(
    gateway: Gateway, upstream: ScriptedUpstream, wire: Wire
) -> None:
    """A client that asks for usage sends and gets exactly what it would without a gateway."""
    body, response = read_stream(wire, stream_options={"include_usage": True})

    assert STREAM.body(with_usage=True) == body
    assert wire.sent[-1].content == upstream.last().body
    compare(STREAM_RECORD, gateway.record(response))


def test_other_stream_options_survive_the_injection(upstream: ScriptedUpstream, wire: Wire) -> None:
    """Only ``include_usage`` changes; a client that said no gets no usage chunk."""
    body, _ = read_stream(
        wire, stream_options={"include_usage": False, "include_obfuscation": False}
    )

    assert STREAM.body(with_usage=False) == body
    options = upstream.last().json()["stream_options"]
    assert {"include_usage": True, "include_obfuscation": False} == options


@pytest.mark.parametrize("wire", ["/v1", "/openai"], indirect=True)
def test_the_sdk_reads_a_stream_word_by_word(wire: Wire) -> None:
    """The SDK's own iterator sees the words and ends at ``[DONE]``."""
    stream = wire.client.chat.completions.create(model="gpt-5", messages=ASKED, stream=True)

    words = [event.choices[0].delta.content for event in stream]
    assert ["", "Fine", ", ", "th\u00e4nks", ".", None] == words


def test_the_first_word_arrives_before_the_second_is_spoken(
    upstream: ScriptedUpstream, wire: Wire
) -> None:
    """Nothing is buffered: while the provider is silent, the client already has what was said."""
    gate = upstream.gate()
    script = Sse(events=STREAM.events, usage=STREAM.usage, hold=Hold(gate=gate, before=2))
    with upstream.plays(script):
        stream = wire.client.chat.completions.create(model="gpt-5", messages=ASKED, stream=True)
        events = iter(stream)

        assert "" == next(events).choices[0].delta.content
        assert "Fine" == next(events).choices[0].delta.content
        assert gate.reached.wait(5)
        gate.release()
        assert 4 == len(list(events))


@pytest.mark.parametrize("eol", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("write_bytes", [1, 2, 7, 61, 4096])
def test_events_may_be_cut_anywhere(
    gateway: Gateway, upstream: ScriptedUpstream, wire: Wire, eol: bytes, write_bytes: int
) -> None:
    """However the bytes are split and lines end, the client gets them and they are counted."""
    script = Sse(events=STREAM.events, usage=STREAM.usage, eol=eol, write_bytes=write_bytes)
    with upstream.plays(script):
        body, response = read_stream(wire)

    assert script.body(with_usage=False) == body
    compare(STREAM_RECORD, gateway.record(response))


LATE_USAGE = spoken("Hi", usage=USAGE)
UNUSUAL = {
    "azure's first chunk has no choices": Sse(
        events=(chunk(None, prompt_filter_results=[{"prompt_index": 0}]), *STREAM.events),
        usage=STREAM.usage,
    ),
    "usage unasked, on chunks with choices": Sse(events=LATE_USAGE),
    "usage twice": Sse(events=STREAM.events, usage=(usage_chunk(), usage_chunk())),
    "a smaller total replaces a larger": Sse(
        events=STREAM.events,
        usage=(
            usage_chunk({"prompt_tokens": 9000, "completion_tokens": 900, "total_tokens": 9900}),
            usage_chunk(),
        ),
    ),
    "a moderation chunk after usage": Sse(
        events=STREAM.events, usage=(usage_chunk(), chunk({}, moderation={"flagged": False}))
    ),
    "no [DONE]": Sse(events=STREAM.events, usage=STREAM.usage, done=False),
    "byte order mark and comments": Sse(
        events=STREAM.events,
        usage=STREAM.usage,
        preamble=b"\xef\xbb\xbf: keep-alive\n\n: PROCESSING\n\n",
    ),
}


@pytest.mark.parametrize("script", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_unusual_streams_lose_no_byte_and_no_token(
    gateway: Gateway, upstream: ScriptedUpstream, wire: Wire, script: Sse
) -> None:
    """Only chunks that carry usage and no choices are taken out; the newest usage counts."""
    with upstream.plays(script):
        body, response = read_stream(wire)

    stripped = tuple(one for one in script.usage if not json.loads(one)["choices"])
    kept = Sse(
        events=(*script.events, *(one for one in script.usage if one not in stripped)),
        done=script.done,
        preamble=script.preamble,
    )
    assert kept.body(with_usage=False) == body
    compare(STREAM_RECORD, gateway.record(response))


def test_cost_follows_a_stream_as_a_comment_when_asked_for(gateway: Gateway, wire: Wire) -> None:
    """One comment line before the end, which every SSE reader skips, tells the cost."""
    body, response = read_stream(wire, extra_headers={"x-taximeter-stream-cost": "1"})

    lines = body.split(b"\n\n")
    comments = [line for line in lines if line.startswith(b":")]
    assert 1 == len(comments)
    assert f"x-taximeter-cost={COST}".encode() in comments[0].replace(b": ", b"=")
    assert [b"data: [DONE]", b""] == lines[-2:]
    rest = b"\n\n".join(line for line in lines if not line.startswith(b":"))
    assert STREAM.body(with_usage=False) == rest
    compare(STREAM_RECORD, gateway.record(response))


# -- tools ---------------------------------------------------------------------------------------

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALLED = {"name": "weather", "arguments": '{"city":"K\\u00f6ln"}'}


def test_tool_calls_pass_in_a_whole_answer(
    gateway: Gateway, upstream: ScriptedUpstream, wire: Wire
) -> None:
    """Tools go up and calls come back as they are."""
    call = {"id": "call_1", "type": "function", "function": CALLED}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    with upstream.plays(Reply(body=completion(message=said))):
        raw = wire.client.chat.completions.with_raw_response.create(
            model="gpt-5",
            messages=ASKED,
            tools=[TOOL],  # type: ignore[list-item]
        )

    assert completion(message=said) == raw.http_response.content
    calls = raw.parse().choices[0].message.tool_calls
    assert calls is not None
    assert '{"city":"K\\u00f6ln"}' == calls[0].function.arguments  # type: ignore[union-attr]
    assert [TOOL] == upstream.last().json()["tools"]
    compare(RECORD, gateway.record(raw.http_response))


def test_tool_calls_pass_piece_by_piece_in_a_stream(
    gateway: Gateway, upstream: ScriptedUpstream, wire: Wire
) -> None:
    """Argument deltas reach the client one by one and in order."""
    pieces = ['{"ci', 'ty":"K', '\\u00f6ln"', "}"]
    deltas = [
        {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "weather"}}]},
        *({"tool_calls": [{"index": 0, "function": {"arguments": one}}]} for one in pieces),
    ]
    script = Sse(
        events=(*(chunk(one) for one in deltas), chunk({}, finish="tool_calls")),
        usage=STREAM.usage,
    )
    with upstream.plays(script):
        body, response = read_stream(wire, tools=[TOOL])

    assert script.body(with_usage=False) == body
    compare(STREAM_RECORD, gateway.record(response))


# -- the rest of the surface ---------------------------------------------------------------------


def test_models_are_listed_with_their_prices(wire: Wire) -> None:
    """``/v1/models`` shows what this key may call."""
    names = [model.id for model in wire.client.models.list()]

    assert any(name.endswith("gpt-5") for name in names)


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_errors_of_the_provider_arrive_as_they_are(
    gateway: Gateway, upstream: ScriptedUpstream, wire: Wire, status: int
) -> None:
    """Status, body and retry headers are the provider's; nothing is billed that was not used."""
    body = b'{"error": {"message": "Nope.",  "type":"t", "param":null,"code":"c"}}'
    headers = (("Content-Type", "application/json"), ("Retry-After", "7"), ("x-request-id", "r"))
    with (
        upstream.plays(Reply(status=status, headers=headers, body=body)),
        pytest.raises(openai.APIStatusError) as caught,
    ):
        wire.client.chat.completions.create(model="gpt-5", messages=ASKED)

    assert status == caught.value.status_code
    assert body == caught.value.response.content
    assert "7" == caught.value.response.headers["retry-after"]
    assert "r" == caught.value.request_id
    record = gateway.record(caught.value.response)
    assert ("upstream_error", status) == (record["outcome"], record["http_status"])


def test_a_broken_stream_raises_in_the_sdk(
    gateway: Gateway, upstream: ScriptedUpstream, wire: Wire
) -> None:
    """A client never takes a broken answer for a whole one."""
    with upstream.plays(Sse(events=STREAM.events, ending=CutIn(piece=3))):
        stream = wire.client.chat.completions.create(model="gpt-5", messages=ASKED, stream=True)
        with pytest.raises((openai.APIError, httpx.TransportError)):
            list(stream)
