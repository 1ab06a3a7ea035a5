"""Bedrock's requests, addresses and refusals, looked at alone."""

import json
from typing import Any

import pytest

from gateway.wire.bedrock_dialect import BedrockDialect
from gateway.wire.bedrock_other import BedrockAsync, BedrockFree, BedrockGuardrail
from gateway.wire.endpoints import WrongMethod
from gateway.wire.facts import BadRequest, ErrorBody
from gateway.wire.table import ENDPOINTS
from pricing.meters import Meter
from pricing.usage import Basis
from tests.wire.bedrock import CLAUDE_ID, CONVERSE, INVOKE, asked, block, converse, invoke
from tests.wire.chat import OK, Head

# -- what a request can come to ------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [
        {"text": "a"},
        {"toolUse": {"toolUseId": "t", "name": "n", "input": {"image": "a"}}},
        {"toolResult": {"toolUseId": "t", "content": [{"json": {"video": 1}}, {"text": "x"}]}},
        {"cachePoint": {"type": "default"}},
        {"reasoningContent": {"reasoningText": {"text": "h"}}},
        {"guardContent": {"text": {"text": "x"}}},
    ],
)
def test_text_is_bounded_by_its_bytes(part: Any) -> None:
    """Whatever a tool's arguments are called."""
    assert converse(**block(part)).input_tokens_max is not None


@pytest.mark.parametrize(
    "part",
    [
        {"image": {"format": "png", "source": {"bytes": "aGk="}}},
        {"document": {"format": "pdf", "name": "d", "source": {"s3Location": {"uri": "s3://b"}}}},
        {"video": {"format": "mp4", "source": {"bytes": "aGk="}}},
        {"audio": {"format": "mp3", "source": {"bytes": "aGk="}}},
        {"toolResult": {"toolUseId": "t", "content": [{"image": {}}]}},
        {"guardContent": {"image": {}}},
        {"hologram": {}},
    ],
)
def test_what_bytes_do_not_bound_is_bounded_by_the_model(part: Any) -> None:
    """Media, files elsewhere, and kinds nobody here knows."""
    assert converse(**block(part)).input_tokens_max is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[],"messages":[]}',
        b'{"messages":[],"inferenceConfig":{},"inf\\u0065renceConfig":{"maxTokens":1}}',
    ],
)
def test_a_field_given_twice_is_refused(body: bytes) -> None:
    """Two readers could read it differently."""
    with pytest.raises(BadRequest, match="more than once"):
        CONVERSE.read_facts(asked(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"content":[{"image":{}}],"content":[{"text":"a"}]}]}',
        b'{"messages":[{"content":[{"text":"a"}],"content":[{"im\\u0061ge":{}}]}]}',
    ],
)
@pytest.mark.parametrize("format_", [CONVERSE, INVOKE])
def test_an_image_beside_text_under_one_name_is_no_text(format_: Any, body: bytes) -> None:
    """Whichever of the two a reader takes."""
    facts = format_.read_facts(asked(body, "amazon.nova-pro-v1:0"))

    assert facts.input_tokens_max is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"inferenceConfig":{"maxTokens":"9"}}', b"1"])
@pytest.mark.parametrize("format_", [CONVERSE, INVOKE])
def test_what_is_no_request_is_refused_in_words(format_: Any, body: bytes) -> None:
    """Not forwarded, as nobody could say what it costs."""
    if format_ is INVOKE and body.startswith(b'{"inf'):
        body = b'{"max_tokens":"9"}'
    with pytest.raises(BadRequest, match="request body"):
        format_.read_facts(asked(body))


def test_limits_are_the_requests_own_unless_other_fields_may_raise_them() -> None:
    """A model's own fields are passed on to it unread."""
    limit: dict[str, Any] = {"inferenceConfig": {"maxTokens": 400}}

    assert 400 == converse(**limit).output_tokens_max
    assert converse().output_tokens_max is None
    raised: dict[str, Any] = {**limit, "additionalModelRequestFields": {"max_tokens": 9000}}
    assert converse(**raised).output_tokens_max is None
    tools: dict[str, Any] = {
        "additionalModelRequestFields": {"tools": [{"type": "computer_20250124"}]}
    }
    assert converse(**tools).input_tokens_max is None


def test_a_stored_prompt_is_bounded_by_the_model() -> None:
    """Its text is not in the request."""
    arn = "arn:aws:bedrock:us-east-1:111122223333:prompt/P1:2"

    assert CONVERSE.read_facts(asked({}, arn)).input_tokens_max is None


def test_tools_of_the_provider_have_a_fee() -> None:
    """A search costs beside its tokens, and what it brings in is not in the request."""
    tools: dict[str, Any] = {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}}
    facts = converse(**tools)

    assert facts.input_tokens_max is None
    assert facts.fees[Meter.WEB_SEARCH] > 0
    assert {} == converse(toolConfig={"tools": [{"toolSpec": {"name": "systemTool"}}]}).fees


@pytest.mark.parametrize(
    ("fields", "tier"),
    [
        ({}, None),
        ({"serviceTier": {"type": "default"}}, "standard"),
        ({"serviceTier": {"type": "priority"}}, "priority"),
        ({"serviceTier": {"type": "flex"}}, "flex"),
        ({"serviceTier": {"type": "reserved"}}, "reserved"),
        ({"performanceConfig": {"latency": "standard"}}, None),
        ({"performanceConfig": {"latency": "optimized"}}, "fast"),
    ],
)
def test_tiers_are_in_the_catalogs_words(fields: Any, tier: str | None) -> None:
    """In the body of Converse, in headers of InvokeModel."""
    assert tier == converse(**fields).tier
    headers = [
        ("x-amzn-bedrock-service-tier", part["type"])
        if "type" in part
        else ("x-amzn-bedrock-performanceconfig-latency", part["latency"])
        for part in fields.values()
    ]
    assert tier == invoke(headers=headers).tier


def test_a_tier_given_twice_is_refused() -> None:
    """Bedrock might take the other one."""
    header = ("x-amzn-bedrock-service-tier", "flex")

    with pytest.raises(BadRequest, match="more than once"):
        invoke(headers=[header, header])


def test_writing_a_cache_is_held_where_it_can_happen() -> None:
    """Claude writes when asked; some models write by themselves."""
    writes = {Meter.CACHE_WRITE, Meter.CACHE_WRITE_1H}

    assert not writes & converse().meters
    assert writes <= converse(**block({"cachePoint": {"type": "default", "ttl": "1h"}})).meters
    assert Meter.CACHE_WRITE in converse("us.openai.gpt-6-sol").meters
    assert Meter.CACHE_WRITE in converse("arn:aws:bedrock:us-east-1:1:imported-model/x").meters


@pytest.mark.parametrize(
    ("model", "fields", "limit"),
    [
        (CLAUDE_ID, {"max_tokens": 9, "max_gen_len": 1}, 9),
        ("anthropic.claude-v2:1", {"max_tokens_to_sample": 9}, 9),
        ("amazon.nova-pro-v1:0", {"inferenceConfig": {"max_new_tokens": 9}}, 9),
        ("amazon.nova-pro-v1:0", {"inferenceConfig": {"maxTokens": 9}, "max_tokens": 1}, 9),
        ("amazon.titan-text-express-v1", {"textGenerationConfig": {"maxTokenCount": 9}}, 9),
        ("us.meta.llama3-3-70b-instruct-v1:0", {"max_gen_len": 9, "max_tokens": 1}, 9),
        ("mistral.mistral-large-2402-v1:0", {"max_tokens": 9}, 9),
        ("cohere.command-text-v14", {"max_tokens": 9, "num_generations": 3}, 27),
        ("ai21.j2-mid-v1", {"maxTokens": 9, "numResults": 2}, 18),
        ("openai.gpt-oss-20b-1:0", {"max_completion_tokens": 9}, 9),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/x", {"max_tokens": 9}, None),
        (
            "arn:aws:bedrock:us-east-1:1:application-inference-profile/x",
            {"max_tokens": 9, "anthropic_version": "bedrock-2023-05-31"},
            9,
        ),
        ("somebody.new-model", {"max_tokens": 9}, None),
        ("amazon.titan-embed-text-v2:0", {"inputText": "a"}, 0),
    ],
)
def test_a_limit_is_taken_from_the_field_of_the_family(
    model: str, fields: Any, limit: int | None
) -> None:
    """A field the model does not know bounds nothing."""
    assert limit == invoke(model, **fields).output_tokens_max


@pytest.mark.parametrize(
    ("model", "fields", "is_sized"),
    [
        (CLAUDE_ID, block({"type": "text", "text": "image"}), True),
        (CLAUDE_ID, block({"type": "tool_use", "input": {"image": "x"}}), True),
        (CLAUDE_ID, block({"type": "tool_result", "content": [{"type": "image"}]}), False),
        (CLAUDE_ID, block({"type": "image", "source": {}}), False),
        (CLAUDE_ID, {"messages": [], "tools": [{"name": "a", "input_schema": {}}]}, True),
        (CLAUDE_ID, {"messages": [], "tools": [{"type": "web_search_20250305"}]}, False),
        ("amazon.nova-pro-v1:0", block({"text": "a"}), True),
        ("amazon.nova-pro-v1:0", block({"image": {}}), False),
        ("us.meta.llama3-2-11b-instruct-v1:0", {"prompt": "a", "images": ["aGk="]}, False),
        ("meta.llama3-8b-instruct-v1:0", {"prompt": "a"}, True),
        ("cohere.embed-v4:0", {"texts": ["a"]}, True),
        ("cohere.embed-v4:0", {"images": ["data:image/png;base64,aGk="]}, False),
    ],
)
def test_prompts_of_text_are_bounded_in_every_family(
    model: str, fields: Any, is_sized: bool
) -> None:
    """Media in any spelling is not."""
    assert is_sized == (invoke(model, **fields).input_tokens_max is not None)


def test_what_is_priced_by_the_second_is_refused() -> None:
    """Nobody tells how long a video is."""
    with pytest.raises(BadRequest, match="by the second"):
        invoke("us.twelvelabs.pegasus-1-2-v1:0", inputPrompt="a", mediaSource={})
    with pytest.raises(BadRequest, match="by the second"):
        invoke("twelvelabs.marengo-embed-2-7-v1:0", inputType="video")

    assert 0 == invoke("twelvelabs.marengo-embed-2-7-v1:0", inputType="text").output_tokens_max


def test_a_rerank_is_held_and_billed_by_its_documents() -> None:
    """Up to a hundred pieces of 512 tokens are one unit; bytes bound the tokens."""
    facts = invoke("cohere.rerank-v3-5:0", query="q", documents=["d" * 500] * 201)

    assert {Meter.SEARCH_UNIT: 3} == dict(facts.fees)
    assert {Meter.SEARCH_UNIT: 1} == dict(invoke("amazon.rerank-v1:0", query="q").fees)


def test_models_that_never_think_are_known_by_any_name() -> None:
    """By id, profile and ARN; of what nobody knows the cautious answer is taken."""
    arn = "arn:aws:bedrock:us-east-1::foundation-model/"

    assert not CONVERSE.may_think("us.amazon.nova-pro-v1:0")
    assert not INVOKE.may_think(arn + "meta.llama3-8b-instruct-v1:0")
    assert CONVERSE.may_think(CLAUDE_ID)
    assert CONVERSE.may_think(arn + "who.knows")


def test_prompts_are_read_for_counting() -> None:
    """All texts, no roles; nothing where a part is not text."""
    said = {"system": [{"text": "S"}], **block({"text": "T"})}

    assert ["S", "T"] == CONVERSE.read_prompt(asked(said))
    assert CONVERSE.read_prompt(asked(block({"image": {}}))) is None
    assert CONVERSE.read_prompt(asked(b"no")) is None
    assert ["P", "9"][:1] == INVOKE.read_prompt(
        asked({"prompt": "P"}, "meta.llama3-8b-instruct-v1:0")
    )
    assert INVOKE.read_prompt(asked(block({"type": "image"}))) is None


# -- the rest ------------------------------------------------------------------------------------


def test_counting_and_asking_about_jobs_are_free() -> None:
    """Whatever they answer."""
    free = BedrockFree()

    assert free.read_facts(asked({})).is_free
    assert free.read_whole(b'{"inputTokens":11}', converse(), OK).usage is None


def test_a_guardrail_alone_is_unknown_and_never_tokens() -> None:
    """Its units stand in the flag."""
    guard = BedrockGuardrail()
    facts = guard.read_facts(asked({"source": "INPUT", "content": []}))
    answer = guard.read_whole(b'{"usage":{"topicPolicyUnits":2},"action":"NONE"}', facts, OK)

    assert "apply-guardrail" == facts.model
    assert answer.usage is not None
    assert (Basis.UNKNOWN, {}) == (answer.usage.basis, dict(answer.usage.counts))
    assert "topicPolicyUnits 2" in answer.usage.flags[0]
    assert not guard.read_whole(b"no", facts, OK).is_readable
    with pytest.raises(BadRequest, match="ApplyGuardrail"):
        guard.read_facts(asked(b"[]"))


def test_a_job_is_booked_as_asked_for() -> None:
    """Seconds of video, or nothing that could be metered."""
    job = BedrockAsync()
    nova = {
        "modelId": "amazon.nova-reel-v1:1",
        "modelInput": {"videoGenerationConfig": {"durationSeconds": 6}},
    }
    ray = {"modelId": "luma.ray-v2:0", "modelInput": {"duration": "9s"}}
    facts = job.read_facts(asked(nova))
    answer = job.read_whole(b'{"invocationArn":"arn"}', facts, OK)

    assert ("amazon.nova-reel-v1:1", {Meter.VIDEO_SECOND: 6}) == (facts.model, dict(facts.fees))
    assert {Meter.VIDEO_SECOND: 9} == dict(job.read_facts(asked(ray)).fees)
    assert answer.usage is not None
    assert Basis.ESTIMATED is answer.usage.basis
    assert job.read_whole(b"{}", facts, Head(status=400)).usage is None
    with pytest.raises(BadRequest, match="seconds of video"):
        job.read_facts(asked({"modelId": "x", "modelInput": {"text": "a"}}))


@pytest.mark.parametrize(
    ("method", "path", "api"),
    [
        ("POST", "/model/a:0/converse", "bedrock.converse"),
        ("POST", "/model/arn:aws:bedrock:us-east-1:1:inference-profile/x/invoke", "bedrock.invoke"),
        ("POST", "/model/m/invoke-with-response-stream", "bedrock.invoke"),
        ("POST", "/model/m/count-tokens", "bedrock.free"),
        ("GET", "/async-invoke", "bedrock.free"),
        ("GET", "/async-invoke/arn:aws:bedrock:us-east-1:1:async-invoke/x", "bedrock.free"),
        ("POST", "/async-invoke", "bedrock.async_invoke"),
        ("POST", "/guardrail/arn:aws:x/g/version/1/apply", "bedrock.guardrail"),
    ],
)
def test_addresses_are_written_as_botocore_signs_them(method: str, path: str, api: str) -> None:
    """Every reserved character of an id is escaped."""
    found = ENDPOINTS.find("bedrock", method, path)

    assert found is not None
    assert api == found.endpoint.format.api
    names = [*found.names.values()]
    assert all(":" not in part for part in found.path.split("/"))
    assert path.count("/") - sum(name.count("/") for name in names) == found.path.count("/")


def test_what_is_not_metered_has_no_address() -> None:
    """Sessions in both directions, and guardrail checks without a guardrail."""
    assert ENDPOINTS.find("bedrock", "POST", "/model/m/invoke-with-bidirectional-stream") is None
    assert ENDPOINTS.find("bedrock", "POST", "/guardrail-checks/invoke") is None
    with pytest.raises(WrongMethod):
        ENDPOINTS.find("bedrock", "GET", "/model/m/converse")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "invalid_api_key", "AccessDeniedException"),
        (404, "invalid_request", "ResourceNotFoundException"),
        (400, "invalid_request", "ValidationException"),
        (413, "request_too_large", "ValidationException"),
        (429, "budget_exceeded", "AccessDeniedException"),
        (429, "rate_limited", "ThrottlingException"),
        (502, "upstream_unreachable", "ServiceUnavailableException"),
        (504, "upstream_timeout", "ModelTimeoutException"),
    ],
)
def test_refusals_have_a_type_amazons_sdks_know(status: int, code: str, kind: str) -> None:
    """The stable code stands in the body and in the message, which is all that boto3 shows."""
    dialect = BedrockDialect()
    error = ErrorBody(status=status, code=code, kind="k", message="No.", details={"budget": "b"})

    assert [("x-amzn-errortype", kind)] == dialect.error_headers(error)
    said = json.loads(dialect.shape_error(error))
    assert {"message": f"No. ({code})", "code": code, "budget": "b"} == said
    assert b"" == dialect.shape_stream_facts([("a", "b")])
