"""The real AWS SDK through the real gateway: binary streams, signatures, refusals, money.

Must never accept "about": answers are compared byte by byte and money to 10^-12.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, EventStreamError

from tests.bedrock_answers import (
    CLAUDE,
    CLAUDE_STREAM,
    CONVERSE,
    CONVERSE_STREAM,
    SPOKEN,
    delta,
    exception,
)
from tests.server import KEY, PROVIDER_KEY, Gateway, Record, plain_config
from tests.upstream import CutIn, Headers, Received, Reply, ScriptedUpstream, Sse

REGION: Final = "us-west-2"
AWS_KEY: Final = ("AKIAGATEWAYONLYTEST", "gateway-Secret+for/tests", "gateway-session-token")
CHAIN_KEY: Final = ("AKIACHAINONLYTEST00", "chain-secret-for-tests")
MODEL: Final = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PROFILE: Final = "arn:aws:bedrock:us-west-2:111122223333:application-inference-profile/a1b2c3d4"
JSON: Final[Headers] = (
    ("Content-Type", "application/json"),
    ("x-amzn-RequestId", "9f2c0000-0000-4000-8000-000000000001"),
)
STREAM: Final[Headers] = (
    ("Content-Type", "application/vnd.amazon.eventstream"),
    ("x-amzn-RequestId", "9f2c0000-0000-4000-8000-000000000002"),
)
COUNTS: Final[Headers] = (
    *JSON,
    ("X-Amzn-Bedrock-Input-Token-Count", "224"),
    ("X-Amzn-Bedrock-Output-Token-Count", "210"),
    ("X-Amzn-Bedrock-Cache-Read-Input-Token-Count", "1024"),
    ("X-Amzn-Bedrock-Cache-Write-Input-Token-Count", "288"),
    ("X-Amzn-Bedrock-Invocation-Latency", "1500"),
)
ASKED: Final[list[Any]] = [{"role": "user", "content": [{"text": "Hello world"}]}]
INFERENCE: Final = {"maxTokens": 400}
INVOKED: Final = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 400,
        "messages": [{"role": "user", "content": "Hello world"}],
    }
)
# 224 x 3.30 + 1024 x 0.33 + 256 x 4.125 + 32 x 6.60 + 210 x 16.50 USD per million, by hand.
COST: Final = "0.00580932"
USAGE: Final = {
    "input": 224,
    "cache_read": 1024,
    "cache_write": 256,
    "cache_write_1h": 32,
    "output": 210,
}


class Frames(Sse):
    """A binary stream in chunked transfer coding."""

    def frames(self, *, with_usage: bool) -> tuple[bytes, ...]:
        return self.events


def answer(received: Received) -> Reply | Sse:
    """Answer as the operation asked for does."""
    operation = urlsplit(received.target).path.rpartition("/")[2]
    match operation:
        case "converse":
            return Reply(headers=JSON, body=json.dumps(CONVERSE, ensure_ascii=False).encode())
        case "converse-stream":
            return Frames(events=CONVERSE_STREAM, headers=STREAM)
        case "invoke":
            return Reply(headers=COUNTS, body=json.dumps(CLAUDE, ensure_ascii=False).encode())
        case "invoke-with-response-stream":
            return Frames(events=CLAUDE_STREAM, headers=STREAM)
        case "count-tokens":
            return Reply(headers=JSON, body=b'{"inputTokens":11}')
        case _:
            return Reply(status=404, headers=JSON, body=b'{"message":"no such operation"}')


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Bedrock on a loopback port."""
    with ScriptedUpstream(answer) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with three ways to be trusted by Bedrock, and a key without any budget left."""
    place = {"kind": "bedrock", "base_url": f"http://127.0.0.1:{upstream.port}", "region": REGION}
    access, secret, session = AWS_KEY
    config = plain_config(
        upstream.base_url,
        providers={
            "bedrock": {
                **place,
                "api_key": "env:OPENAI_API_KEY",
                "deployments": {PROFILE: MODEL},
            },
            "signed": {
                **place,
                "aws_access_key_id": access,
                "aws_secret_access_key": "env:GATEWAY_AWS_SECRET",
                "aws_session_token": session,
            },
            "found": place,
        },
        budgets=[
            {"id": "all", "scope": {"team": "search"}, "limit": "500 USD", "window": "month"},
            {
                "id": "haiku",
                "scope": {"model": "anthropic.claude-haiku-4-5-20251001-v1:0"},
                "limit": "0.000001 USD",
                "window": "month",
            },
        ],
    )
    environ = {
        "GATEWAY_AWS_SECRET": secret,
        "AWS_ACCESS_KEY_ID": CHAIN_KEY[0],
        "AWS_SECRET_ACCESS_KEY": CHAIN_KEY[1],
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with Gateway(tmp_path_factory.mktemp("gateway"), config, secrets=environ) as running:
        yield running


def client_of(gateway: Gateway, provider: str = "bedrock", **options: Any) -> Any:
    """The SDK as one without an AWS account configures it: its access key is the virtual key."""
    session = boto3.session.Session(aws_access_key_id=KEY, aws_secret_access_key="not-checked")
    return session.client(
        "bedrock-runtime",
        region_name="eu-central-1",
        endpoint_url=f"{gateway.url}/{provider}",
        config=Config(retries={"mode": "standard"}, **options),
    )


@pytest.fixture
def signed(gateway: Gateway) -> Iterator[Any]:
    """The SDK that signs with the virtual key as its access key."""
    client = client_of(gateway)
    yield client
    client.close()


@pytest.fixture
def bearer(gateway: Gateway) -> Iterator[Any]:
    """The SDK with a Bedrock API key and the address from the environment.

    It sends a bearer token over TLS only; a handler stands for what ends TLS before the gateway.
    """
    environ = {
        "AWS_BEARER_TOKEN_BEDROCK": KEY,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": f"{gateway.url}/bedrock".replace("http:", "https:"),
    }
    os.environ.update(environ)
    try:
        client = boto3.session.Session().client("bedrock-runtime", region_name=REGION)
        client.meta.events.register("before-send.bedrock-runtime.*", _without_tls)
        yield client
        client.close()
    finally:
        for name in environ:
            del os.environ[name]


def _without_tls(request: Any, **_: Any) -> None:
    request.url = request.url.replace("https:", "http:")


@pytest.fixture(params=["signed", "bearer"])
def sdk(request: pytest.FixtureRequest) -> Any:
    """Both ways an SDK carries the virtual key."""
    return request.getfixturevalue(request.param)


def record_of(gateway: Gateway, reply: Any) -> Record:
    """Find the record of an answer by its id in the SDK's metadata."""
    wanted = reply["ResponseMetadata"]["HTTPHeaders"]["x-taximeter-request-id"]
    (found,) = [record for record in gateway.ledger() if record["id"] == wanted]
    return found


def check(record: Record, **expected: Any) -> None:
    """Compare what every priced call of this module has, and what differs."""
    wanted = {
        "outcome": "ok",
        "basis": "reported",
        "usage": USAGE,
        "input_total": 1536,
        "output_total": 210,
        "cost": COST,
        "cost_status": "final",
        "model_requested": MODEL,
        "key": "rag-ci",
        "flags": [],
        **expected,
    }

    assert wanted == {name: record[name] for name in wanted}


# -- answers -------------------------------------------------------------------------------------


def test_converse_is_metered(gateway: Gateway, upstream: ScriptedUpstream, sdk: Any) -> None:
    """The SDK reads its answer, the provider reads the SDK's bytes, the record has the money."""
    reply = sdk.converse(modelId=MODEL, messages=ASKED, inferenceConfig=INFERENCE)

    assert "Fine, thänks." == reply["output"]["message"]["content"][0]["text"]
    record = record_of(gateway, reply)
    check(record, api="bedrock.converse", stream=False, provider_request_id=JSON[1][1])
    assert COST == reply["ResponseMetadata"]["HTTPHeaders"]["x-taximeter-cost"]
    received = upstream.last()
    assert {"messages": ASKED, "inferenceConfig": INFERENCE} == received.json()
    assert f"Bearer {PROVIDER_KEY}" == received.header("authorization")
    assert KEY not in str(received)


def test_converse_streams_are_metered(gateway: Gateway, sdk: Any) -> None:
    """Binary frames pass, and usage is read from the last of them."""
    reply = sdk.converse_stream(modelId=MODEL, messages=ASKED, inferenceConfig=INFERENCE)

    events = list(reply["stream"])
    words = [e["contentBlockDelta"]["delta"]["text"] for e in events if "contentBlockDelta" in e]
    assert ["Fine", ", ", "thänks", "."] == words
    assert 210 == events[-1]["metadata"]["usage"]["outputTokens"]
    check(record_of(gateway, reply), api="bedrock.converse", stream=True)


def test_invoke_is_metered(gateway: Gateway, sdk: Any) -> None:
    """Counts of headers and body are one usage, not two."""
    reply = sdk.invoke_model(modelId=MODEL, body=INVOKED)

    assert json.dumps(CLAUDE, ensure_ascii=False).encode() == reply["body"].read()
    check(record_of(gateway, reply), api="bedrock.invoke", stream=False)


def test_invoke_streams_are_metered(gateway: Gateway, sdk: Any) -> None:
    """Events of the model inside of frames; the metrics at the end are no second usage."""
    reply = sdk.invoke_model_with_response_stream(modelId=MODEL, body=INVOKED)

    inner = [json.loads(event["chunk"]["bytes"]) for event in reply["body"]]
    assert ["message_start", "message_stop"] == [inner[0]["type"], inner[-1]["type"]]
    check(record_of(gateway, reply), api="bedrock.invoke", stream=True)


def test_the_bytes_of_a_stream_are_the_providers(gateway: Gateway) -> None:
    """Frame by frame, whatever the SDK makes of them."""
    path = f"/bedrock/model/{MODEL}/converse-stream"
    response = gateway.call(path, {"messages": ASKED, "inferenceConfig": INFERENCE})

    assert b"".join(CONVERSE_STREAM) == response.content
    assert "application/vnd.amazon.eventstream" == response.headers["content-type"]


def test_counting_is_free(gateway: Gateway, sdk: Any) -> None:
    """A count of tokens is no usage."""
    reply = sdk.count_tokens(modelId=MODEL, input={"converse": {"messages": ASKED}})

    assert 11 == reply["inputTokens"]
    check(
        record_of(gateway, reply),
        basis="none",
        usage={},
        cost="0",
        input_total=0,
        output_total=0,
    )


def test_an_inference_profile_is_priced_as_the_model_behind(
    gateway: Gateway, upstream: ScriptedUpstream, sdk: Any
) -> None:
    """An ARN with colons and slashes arrives as the SDK wrote it."""
    reply = sdk.converse(modelId=PROFILE, messages=ASKED, inferenceConfig=INFERENCE)

    check(record_of(gateway, reply), model_requested=PROFILE)
    escaped = PROFILE.replace(":", "%3A").replace("/", "%2F")
    assert f"/model/{escaped}/converse" == upstream.last().target


# -- signatures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "keys"), [("signed", AWS_KEY), ("found", (*CHAIN_KEY, None))], ids=str
)
@pytest.mark.parametrize(
    "model", [MODEL, f"arn:aws:bedrock:us-west-2:111122223333:inference-profile/{MODEL}"]
)
def test_the_gateway_signs_for_itself(
    gateway: Gateway, upstream: ScriptedUpstream, provider: str, keys: Any, model: str
) -> None:
    """What botocore computes over what the provider received is the signature that came along."""
    with closing(client_of(gateway, provider)) as client:
        client.converse(modelId=model, messages=ASKED, inferenceConfig=INFERENCE)

    received = upstream.last()
    assert received.header("authorization") == expected_signature(received, upstream, keys)
    assert keys[2] == received.header("x-amz-security-token")
    assert KEY not in str(received)
    assert "not-checked" not in str(received)
    assert not [name for name, _ in received.headers if name.lower().startswith("amz-sdk")]


def expected_signature(received: Received, upstream: ScriptedUpstream, keys: Any) -> str:
    """Sign anew what was received, at the instant it says."""
    told = received.header("authorization") or ""
    names = told.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    request = AWSRequest(
        method=received.method,
        url=f"http://127.0.0.1:{upstream.port}{received.target}",
        data=received.body,
        headers={name: received.header(name) for name in names},
    )
    signer = SigV4Auth(Credentials(*keys), "bedrock", REGION)
    request.context["timestamp"] = received.header("x-amz-date")
    text = signer.string_to_sign(request, signer.canonical_request(request))
    credential = f"{keys[0]}/{signer.credential_scope(request)}"
    assert {"host", "x-amz-date", "content-type"} <= set(names)
    return (
        f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={';'.join(names)}, "
        f"Signature={signer.signature(text, request)}"
    )


# -- trouble -------------------------------------------------------------------------------------


def test_a_budget_refuses_in_the_sdks_words_and_once(
    gateway: Gateway, upstream: ScriptedUpstream, sdk: Any
) -> None:
    """``ClientError`` with the type of the error and the stable code; nothing is tried again."""
    before, began = len(upstream.exchanges), time.monotonic()
    with pytest.raises(ClientError) as caught:
        sdk.converse(
            modelId="anthropic.claude-haiku-4-5-20251001-v1:0",
            messages=ASKED,
            inferenceConfig=INFERENCE,
        )

    told = caught.value.response
    assert "AccessDeniedException" == told["Error"]["Code"]
    assert "haiku" in told["Error"]["Message"]
    assert isinstance(caught.value, sdk.exceptions.AccessDeniedException)
    assert (429, 0) == (
        told["ResponseMetadata"]["HTTPStatusCode"],
        told["ResponseMetadata"]["RetryAttempts"],
    )
    assert len(upstream.exchanges) == before
    assert time.monotonic() - began < 5
    assert told["Error"]["Message"].endswith("(budget_exceeded)")


def test_a_key_nobody_knows_is_refused(gateway: Gateway) -> None:
    """As Amazon refuses: access denied."""
    session = boto3.session.Session(aws_access_key_id="nobody", aws_secret_access_key="x")
    client = session.client(
        "bedrock-runtime", region_name=REGION, endpoint_url=f"{gateway.url}/bedrock"
    )
    with closing(client), pytest.raises(ClientError) as caught:
        client.converse(modelId=MODEL, messages=ASKED)

    assert "AccessDeniedException" == caught.value.response["Error"]["Code"]
    assert 401 == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_an_exception_inside_a_stream_is_raised_and_counted(
    gateway: Gateway, upstream: ScriptedUpstream, signed: Any
) -> None:
    """The provider's own frame passes; what was said before it is counted here."""
    frames = (*SPOKEN[:3], exception("modelStreamErrorException", "lost the model"))
    with upstream.plays(Frames(events=frames, headers=STREAM)):
        reply = signed.converse_stream(modelId=MODEL, messages=ASKED, inferenceConfig=INFERENCE)
        with closing(reply["stream"]), pytest.raises(EventStreamError, match="lost the model"):
            list(reply["stream"])

    record = record_of(gateway, reply)
    assert ("upstream_error", "estimated") == (record["outcome"], record["basis"])
    assert record["input_total"] > 0


def test_a_broken_stream_raises_in_the_sdk(
    gateway: Gateway, upstream: ScriptedUpstream, signed: Any
) -> None:
    """The gateway says in a frame of its own what the connection cannot."""
    frames = (*SPOKEN[:3], delta("never whole"))
    with upstream.plays(Frames(events=frames, headers=STREAM, ending=CutIn(piece=3))):
        reply = signed.converse_stream(modelId=MODEL, messages=ASKED, inferenceConfig=INFERENCE)
        seen: list[Any] = []
        with closing(reply["stream"]), pytest.raises(EventStreamError) as caught:
            seen.extend(reply["stream"])

    assert 3 == len(seen)
    assert "modelStreamErrorException" in str(caught.value)
    assert "broke off" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "ValidationException"),
        (403, "AccessDeniedException"),
        (424, "ModelErrorException"),
    ],
)
def test_errors_of_the_provider_pass_untouched(
    gateway: Gateway, upstream: ScriptedUpstream, signed: Any, status: int, kind: str
) -> None:
    """Status, type and message are Bedrock's; nothing is billed."""
    headers = (*JSON, ("x-amzn-ErrorType", f"{kind}:http://internal.amazon.com/"))
    reply = Reply(status=status, headers=headers, body=b'{"message":"Nope."}')
    with upstream.plays(reply), pytest.raises(ClientError, match="Nope") as caught:
        signed.converse(modelId=MODEL, messages=ASKED, inferenceConfig=INFERENCE)

    assert kind == caught.value.response["Error"]["Code"]
    record = record_of(gateway, caught.value.response)
    assert ("upstream_error", "none", "0") == (
        record["outcome"],
        record["basis"],
        record["cost"],
    )
