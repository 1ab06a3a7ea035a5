"""Gemini's requests and answers: bounds that hold, counts that add up, bytes that stay."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.anthropic_messages import VertexMessages
from gateway.wire.facts import Answer, Asked, BadRequest, RequestFacts
from gateway.wire.gemini import GenerateContent, StreamGenerateContent
from gateway.wire.gemini_pieces import CachedContents, EmbedContent, Predict, PredictLongRunning
from gateway.wire.gemini_usage import parts_of, read_usage
from gateway.wire.google_format import Batch, Upload
from gateway.wire.openai_kinds import CHATS
from gateway.wire.table import ENDPOINTS
from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.usage import Basis
from tests.wire.gemini_kit import ARRAY, EVENTS, JUNK, NAMES, Head, asked

GENERATE, STREAM = GenerateContent(), StreamGenerateContent()
SPARE = 512


def facts_of(body: object, **more: Any) -> RequestFacts:
    """Read the facts of a request."""
    return GENERATE.read_facts(asked(body, **more))


SAY: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
PLAIN = facts_of(SAY)


# -- requests ------------------------------------------------------------------------------------


def test_the_address_names_the_model_and_the_bytes_bound_the_prompt() -> None:
    """Text alone: no more tokens than bytes, and Google's default tier."""
    body = json.dumps(SAY).encode()
    facts = facts_of(body)

    assert ("gemini-2.5-flash", "standard", 1) == (facts.model, facts.tier, facts.choices)
    assert len(body) + SPARE == facts.input_tokens_max
    assert facts.output_tokens_max is None
    assert {} == dict(facts.fees)


@pytest.mark.parametrize("name", ["generationConfig", "generation_config"])
@pytest.mark.parametrize("limit", ["maxOutputTokens", "max_output_tokens"])
@pytest.mark.parametrize("choices", ["candidateCount", "candidate_count"])
@pytest.mark.parametrize("number", [20, "20", 20.0])
def test_either_spelling_bounds_the_output(
    name: str, limit: str, choices: str, number: object
) -> None:
    """proto3 JSON knows both spellings, and numbers as text."""
    facts = facts_of({**SAY, name: {limit: number, choices: 3}})

    assert (60, 3) == (facts.output_tokens_max, facts.choices)


@pytest.mark.parametrize(
    "body",
    [
        b'{"contents":[],"contents":[]}',
        b'{"generationConfig":{},"generation_config":{}}',
        b'{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":9}}',
        b'{"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":9}}',
        rb'{"generationConfig":{"maxOutputTokens":1,"maxOutputT\u006fkens":9}}',
        rb'{"t\u006fols":[],"tools":[{"googleSearch":{}}]}',
        b'{"serviceTier":"flex","service_tier":"priority"}',
        b'{"cachedContent":null,"cached_content":"cachedContents/a"}',
        b'{"model":"models/gemini-2.5-pro"}',
        b'{"generationConfig":{"routingConfig":{"manualMode":{"modelName":"gemini-2.5-pro"}}}}',
        b'{"generationConfig":3}',
        b'{"generationConfig":{"maxOutputTokens":"many"}}',
        b'{"tools":["googleSearch"]}',
        b"[1]",
        b"",
        b"{",
        b'{"a":' + b"[" * 100_000,
    ],
    ids=lambda body: str(body[:40]),
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes) -> None:
    """A field given twice, another model than the address names, and what is no request."""
    with pytest.raises(BadRequest):
        facts_of(body)


@pytest.mark.parametrize("query", ["fields=candidates", "%24fields=a", "$alt=proto", "alt=media"])
def test_an_answer_without_its_usage_is_refused(query: str) -> None:
    """A mask could leave out what is billed."""
    with pytest.raises(BadRequest):
        facts_of(SAY, query=query)
    with pytest.raises(BadRequest):
        facts_of(SAY, x_goog_fieldmask="candidates")


@pytest.mark.parametrize("query", ["fields=choices", "%24fields=usage(prompt_tokens)"])
def test_the_other_apis_of_google_take_no_masks_either(query: str) -> None:
    """Of OpenAI's shape the total tells what was thought; Claude's usage is all there is."""
    chat = {"model": "google/gemini-2.5-pro", "messages": []}
    for one in (CHATS["gemini"], CHATS["vertex"], VertexMessages()):
        read = one.read_facts
        assert read(asked(chat)).model
        with pytest.raises(BadRequest):
            read(asked(chat, query=query))
        with pytest.raises(BadRequest):
            read(asked(chat, x_goog_fieldmask="choices"))


TIER = "x-vertex-ai-llm-shared-request-type"


def test_two_tiers_at_once_are_refused() -> None:
    """The provider could take the dearer one, and the other would be held."""
    headers = [(TIER, "flex"), (TIER, "priority")]
    with pytest.raises(BadRequest):
        GENERATE.read_facts(Asked(body=b'{"contents":[]}', names=NAMES, headers=headers))
    with pytest.raises(BadRequest):
        facts_of({**SAY, "serviceTier": "flex"}, **{TIER: "priority"})

    assert "flex" == facts_of({**SAY, "serviceTier": "SERVICE_TIER_FLEX"}, **{TIER: "flex"}).tier


def test_the_model_may_stand_in_the_body_too() -> None:
    """Under its resource name."""
    assert PLAIN.model == facts_of({**SAY, "model": "models/gemini-2.5-flash"}).model


UNSIZED = [
    {"parts": [{"inlineData": {"mimeType": "image/png", "data": "aQ=="}}]},
    {"parts": [{"file_data": {"fileUri": "gs://a/b"}}]},
    {"parts": [{"functionResponse": {"name": "f", "parts": [{"inlineData": {"data": "aQ=="}}]}}]},
    {"parts": [{"somethingNew": {"uri": "x"}}]},
    {"parts": {"fileData": {"fileUri": "gs://a/b"}}},
]


@pytest.mark.parametrize("content", UNSIZED, ids=str)
def test_bytes_do_not_bound_what_is_not_text(content: object) -> None:
    """Images, files and parts nobody knows leave the bound to the model."""
    for body in ({"contents": [content]}, {"contents": content}, {"systemInstruction": content}):
        facts = facts_of(body)
        assert facts.input_tokens_max is None
        assert Meter.INPUT_AUDIO in facts.meters


def test_names_hidden_behind_escapes_are_seen() -> None:
    """An escaped name is the same name."""
    facts = facts_of(rb'{"contents":[{"parts":[{"inl\u0069neData":{"data":"aQ=="}}]}]}')

    assert facts.input_tokens_max is None


@pytest.mark.parametrize(
    ("tools", "searches", "variant"),
    [
        ([{"googleSearch": {}}], 100, None),
        ([{"google_search_retrieval": {}}], 100, None),
        ([{"googleMaps": {}}], 100, "google_maps"),
        ([{"googleMaps": {}, "google_search": {}}], 100, None),
        ([{"codeExecution": {}}], None, None),
        ({"urlContext": {}}, None, None),
    ],
    ids=str,
)
def test_tools_of_the_provider_unbind_the_prompt(
    tools: object, searches: int | None, variant: str | None
) -> None:
    """What they find is input; searches are charged."""
    facts = facts_of({**SAY, "tools": tools})

    assert facts.input_tokens_max is None
    assert searches == facts.fees.get(Meter.WEB_SEARCH)
    assert variant == facts.variants.get(Meter.WEB_SEARCH)


def test_own_tools_are_text() -> None:
    """Declarations are bounded by their bytes."""
    facts = facts_of({**SAY, "tools": [{"functionDeclarations": [{"name": "f"}]}]})

    assert facts.input_tokens_max is not None
    assert not facts.fees


def test_a_cache_is_input_of_unknown_size() -> None:
    """The request names it only."""
    assert facts_of({**SAY, "cachedContent": "cachedContents/a"}).input_tokens_max is None


def test_asking_for_text_rules_images_out() -> None:
    """Otherwise the dearest output may come."""
    config = {"generationConfig": {"responseModalities": ["TEXT"]}}

    assert Meter.OUTPUT_IMAGE in PLAIN.meters
    assert Meter.OUTPUT_IMAGE not in facts_of({**SAY, **config}).meters


@pytest.mark.parametrize(
    ("body", "headers", "tier"),
    [
        ({"serviceTier": "FLEX"}, {}, "flex"),
        ({"service_tier": "SERVICE_TIER_PRIORITY"}, {}, "priority"),
        ({"serviceTier": "unspecified"}, {}, "standard"),
        ({}, {"x_vertex_ai_llm_shared_request_type": "priority"}, "priority"),
    ],
)
def test_the_tier_asked_for_is_in_catalog_words(
    body: dict[str, Any], headers: dict[str, str], tier: str
) -> None:
    """In the body on one API, in a header on the other."""
    assert tier == facts_of({**SAY, **body}, **headers).tier


@pytest.mark.parametrize(
    ("location", "region"), [("global", None), ("europe-west1", "regional"), ("us", "regional")]
)
def test_the_location_in_the_address_is_the_region_class(location: str, region: str | None) -> None:
    """Everything but the global endpoint is regional."""
    assert region == facts_of(SAY, names={**NAMES, "location": location}).region


def test_tuned_models_keep_what_they_are_under() -> None:
    """Their price stands under that name."""
    assert "tunedModels/t" == facts_of(SAY, names={"tuned": "t"}).model
    assert "endpoints/7" == facts_of(SAY, names={"endpoint": "7"}).model


def test_prompts_are_read_for_counting() -> None:
    """Texts and calls; anything else cannot be counted."""
    said = {
        "system_instruction": {"parts": {"text": "be brief"}},
        "contents": [{"parts": [{"text": "hi"}, {"functionCall": {"name": "f"}}]}],
    }

    assert ["be brief", "hi", '{"name":"f"}'] == GENERATE.read_prompt(asked(said))
    for content in UNSIZED[:2]:
        assert GENERATE.read_prompt(asked({"contents": [content]})) is None
    for odd in (b"", b"[]", b'{"contents":[3]}', b'{"contents":[],"cachedContent":"c"}'):
        assert GENERATE.read_prompt(asked(odd)) is None


# -- other addresses -----------------------------------------------------------------------------


def test_pieces_are_bounded_by_what_is_asked() -> None:
    """Images by number, videos by seconds and resolution."""
    cats = {"instances": [{"prompt": "a cat"}]}
    usual = Predict().read_facts(asked(cats))
    many = Predict().read_facts(asked({**cats, "parameters": {"sampleCount": 2}}))
    video = {"durationSeconds": 6, "sampleCount": 2, "resolution": "1080p"}
    film = PredictLongRunning().read_facts(asked({**cats, "parameters": video}))

    assert (4, 2) == (usual.fees[Meter.IMAGE], many.fees[Meter.IMAGE])
    assert (12, "1080p") == (film.fees[Meter.VIDEO_SECOND], film.variants[Meter.VIDEO_SECOND])
    for parameters in ({"sampleCount": 0}, {"sampleCount": "x"}, {"sampleCount": 10**9}):
        with pytest.raises(BadRequest):
            Predict().read_facts(asked({**cats, "parameters": parameters}))
    with pytest.raises(BadRequest):
        PredictLongRunning().read_facts(asked({**cats, "parameters": {"durationSeconds": -1}}))


def test_embeddings_have_no_output() -> None:
    """And name one model."""
    facts = EmbedContent().read_facts(asked({"content": {"parts": [{"text": "hi"}]}}))

    assert 0 == facts.output_tokens_max
    with pytest.raises(BadRequest):
        EmbedContent().read_facts(asked({"requests": [{"model": "models/other"}]}))


def test_a_cache_names_its_model_in_the_body() -> None:
    """Its address does not."""
    body = {"model": "models/gemini-2.5-flash", "contents": [{"parts": [{"text": "hi"}]}]}

    assert "gemini-2.5-flash" == CachedContents().read_facts(asked(body, names={})).model
    with pytest.raises(BadRequest):
        CachedContents().read_facts(asked({"contents": []}, names={}))


def test_resumable_uploads_are_refused_with_what_to_do() -> None:
    """They would go on without a key, past the gateway."""
    assert Upload().read_facts(asked(b"", names={}, x_goog_upload_protocol="multipart")).is_free
    with pytest.raises(BadRequest, match="multipart"):
        Upload().read_facts(asked(b"", names={}, x_goog_upload_protocol="resumable"))


def test_batches_are_refused_in_words() -> None:
    """Their answers are fetched later, from a file."""
    with pytest.raises(BadRequest, match="batch"):
        Batch().read_facts(asked(SAY))


@pytest.mark.parametrize(
    ("kind", "method", "path", "api"),
    [
        ("gemini", "POST", "/v1alpha/models/m:generateContent", "gemini.generate_content"),
        (
            "gemini",
            "POST",
            "/v1beta/tunedModels/t:streamGenerateContent",
            "gemini.generate_content",
        ),
        ("gemini", "GET", "/v1beta/models", "gemini.free"),
        ("gemini", "GET", "/v1beta/models/m", "gemini.free"),
        ("gemini", "PATCH", "/v1beta/cachedContents/c", "gemini.free"),
        ("gemini", "GET", "/v1beta/models/m/operations/o", "gemini.free"),
        ("gemini", "POST", "/v1beta/models/m:batchGenerateContent", "gemini.batch"),
        ("vertex", "POST", "/v1/publishers/google/models/m:countTokens", "gemini.free"),
        ("vertex", "POST", "/v1/projects/p/locations/l/endpoints/7:predict", "gemini.predict"),
        ("vertex", "POST", "/v1/projects/p/locations/l/publishers/x/models/m:predict", None),
    ],
)
def test_addresses_are_metered_or_unknown(
    kind: str, method: str, path: str, api: str | None
) -> None:
    """What nobody meters does not pass."""
    found = ENDPOINTS.find(kind, method, path)

    assert api == (None if found is None else found.endpoint.format.api)


# -- usage ---------------------------------------------------------------------------------------


@st.composite
def consistent_usages(draw: st.DrawFn) -> dict[str, Any]:
    """Usage metadata whose parts fit."""
    number = st.integers(0, 10_000)
    media = ["AUDIO", "IMAGE", "VIDEO", "TEXT", "DOCUMENT"]
    prompt = {medium: draw(number) for medium in media}
    cached = {medium: draw(st.integers(0, prompt[medium])) for medium in media}
    tools, output = draw(number), {medium: draw(number) for medium in media}
    thoughts = draw(number)

    def split(counts: dict[str, int]) -> list[dict[str, Any]]:
        return [{"modality": medium, "tokenCount": n} for medium, n in counts.items() if n]

    told: dict[str, Any] = {
        "promptTokenCount": sum(prompt.values()),
        "cachedContentTokenCount": sum(cached.values()),
        "toolUsePromptTokenCount": tools,
        "candidatesTokenCount": sum(output.values()),
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": sum((*prompt.values(), tools, *output.values(), thoughts)),
        "promptTokensDetails": split(prompt),
        "cacheTokensDetails": split(cached),
        "candidatesTokensDetails": split(output),
    }
    if draw(st.booleans()):
        del told["cacheTokensDetails"]
    # Zeros are left out, as proto3 JSON does.
    return {name: value for name, value in told.items() if value or name == "totalTokenCount"}


@given(consistent_usages())
def test_disjoint_counts_add_up_to_the_provider_s_total(told: dict[str, Any]) -> None:
    """No token stands twice, and none is lost."""
    usage = read_usage(parts_of(told))

    assert Basis.REPORTED is usage.basis
    assert () == tuple(flag for flag in usage.flags if "missing" not in flag)
    assert told["totalTokenCount"] == sum(usage.counts.values())
    assert all(count > 0 for count in usage.counts.values())
    assert set(usage.counts) <= INPUT_METERS | OUTPUT_METERS


FIELDS = st.sampled_from(
    [
        "promptTokenCount",
        "cachedContentTokenCount",
        "candidatesTokenCount",
        "thoughtsTokenCount",
        "toolUsePromptTokenCount",
        "totalTokenCount",
        "promptTokensDetails",
        "cacheTokensDetails",
        "candidatesTokensDetails",
        "trafficType",
        "serviceTier",
    ]
)


@given(st.dictionaries(FIELDS, JUNK | st.integers(-10, 10**6), max_size=11))
def test_junk_in_the_usage_never_raises_and_never_counts_below_zero(told: dict[str, Any]) -> None:
    """Counts are positive or there are none."""
    usage = read_usage(parts_of(told))

    assert all(count > 0 for count in usage.counts.values())


@pytest.mark.parametrize("odd", [-1, "x", 1.5, 10**12, True, [], {}])
def test_a_prompt_that_is_no_count_is_unknown(odd: object) -> None:
    """Unknown is not zero; an odd cache leaves the prompt known."""
    counts = {"promptTokenCount": odd, "candidatesTokenCount": 3, "totalTokenCount": 9}

    assert Basis.UNKNOWN is read_usage(parts_of(counts)).basis
    cached = {"promptTokenCount": 6, "cachedContentTokenCount": odd, "candidatesTokenCount": 3}
    usage = read_usage(parts_of(cached))
    assert (Basis.ESTIMATED, {Meter.INPUT: 6, Meter.OUTPUT: 3}) == (usage.basis, usage.counts)


@pytest.mark.parametrize(
    ("told", "counts"),
    [
        ({"totalTokenCount": 9, "candidatesTokenCount": 3}, {Meter.INPUT: 6, Meter.OUTPUT: 3}),
        ({"promptTokenCount": 6, "totalTokenCount": 9}, {Meter.INPUT: 6, Meter.OUTPUT: 3}),
        ({"promptTokenCount": 6.0, "responseTokenCount": "3"}, {Meter.INPUT: 6, Meter.OUTPUT: 3}),
        ({"promptTokenCount": 6}, {Meter.INPUT: 6}),
    ],
)
def test_a_missing_count_is_what_the_total_leaves(
    told: dict[str, Any], counts: dict[Meter, int]
) -> None:
    """And nothing where nothing says otherwise."""
    assert counts == read_usage(parts_of(told)).counts


# -- answers -------------------------------------------------------------------------------------

FINISHED: dict[str, Any] = {
    "candidates": [{"content": {"parts": [{"text": "\U0001f600"}]}, "finishReason": "STOP"}],
    "usageMetadata": {
        "promptTokenCount": 10,
        "candidatesTokenCount": 7,
        "thoughtsTokenCount": 3,
        "totalTokenCount": 20,
    },
    "modelVersion": "models/gemini-2.5-flash-001",
    "responseId": "r-1",
}
CHUNKS: list[dict[str, Any]] = [
    {"usageMetadata": {"trafficType": "ON_DEMAND"}},
    {
        "candidates": [{"content": {"parts": [{"text": 'F\u00fc} "[ data: r'}]}, "index": 0}],
        "usageMetadata": {"promptTokenCount": 12, "totalTokenCount": 12},
    },
    FINISHED,
    {"usageMetadata": {"trafficType": "ON_DEMAND"}},
]
SSE = b"".join(b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in CHUNKS)
LIST = json.dumps(CHUNKS, indent=2, ensure_ascii=False).encode() + b"\n"
LAST = {Meter.INPUT: 10, Meter.OUTPUT: 7, Meter.REASONING: 3}


def streamed(pieces: list[bytes], head: Head, *, is_broken: bool = False) -> tuple[bytes, Answer]:
    """Pass a stream through a lane."""
    lane = STREAM.open_stream(PLAIN, head)
    got = b"".join(lane.feed(piece) for piece in pieces)
    return got + lane.finish(is_broken=is_broken), lane.answer


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes at some places."""
    ends = sorted({place % (len(body) + 1) for place in places} | {0, len(body)})
    return [body[start:end] for start, end in pairwise(ends)]


@given(st.lists(st.integers(0, 5000), max_size=30), st.sampled_from([(SSE, EVENTS), (LIST, ARRAY)]))
def test_cuts_change_neither_bytes_nor_counts(places: list[int], form: tuple[bytes, Head]) -> None:
    """Wherever a stream is cut, in either framing."""
    body, head = form
    got, answer = streamed(cut(body, places), head)

    assert body == got
    assert answer.usage is not None
    assert (Basis.REPORTED, LAST) == (answer.usage.basis, answer.usage.counts)
    assert ("gemini-2.5-flash-001", "standard", "r-1") == (
        answer.model,
        answer.tier,
        answer.request_id,
    )
    assert answer.text_chars == answer.usage_chars


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5), st.booleans())
def test_garbage_passes_and_never_raises(body: bytes, places: list[int], is_array: bool) -> None:
    """Bytes go on whatever they are."""
    got, answer = streamed(cut(body, places), ARRAY if is_array else EVENTS)

    assert body == got
    assert answer.usage is None or answer.usage.counts
    GENERATE.read_whole(body, PLAIN, ARRAY)


@given(JUNK, FIELDS, st.sampled_from(["candidates", "usageMetadata", "modelVersion", "error"]))
def test_an_odd_field_never_hides_the_usage_beside_it(junk: object, field: str, name: str) -> None:
    """Every field is read on its own where one cannot be."""
    said: dict[str, Any] = {**FINISHED, "promptFeedback": junk}
    if name == "usageMetadata":
        said[name] = {**said[name], "promptTokensDetails": junk}
    else:
        said[name] = junk
    answer = GENERATE.read_whole(json.dumps(said).encode(), PLAIN, ARRAY)

    assert answer.usage is not None
    assert 10 == sum(answer.usage.counts[m] for m in answer.usage.counts if m in OUTPUT_METERS)


def test_a_broken_stream_is_partial() -> None:
    """What was counted before the answer was finished is not all."""
    _, answer = streamed([SSE[: SSE.index(b"STOP")]], EVENTS, is_broken=True)

    assert answer.usage is not None
    assert (Basis.PARTIAL, {Meter.INPUT: 12}) == (answer.usage.basis, answer.usage.counts)
    assert answer.text_chars > answer.usage_chars
    assert not answer.tells_fees


def test_no_event_follows_an_array() -> None:
    """A client could not read it."""
    assert STREAM.open_stream(PLAIN, EVENTS).can_append
    assert not STREAM.open_stream(PLAIN, ARRAY).can_append


def test_the_end_waits_for_the_settlement() -> None:
    """The chunk that finishes the answer is held, and what follows it."""
    for body, head in ((SSE, EVENTS), (LIST, ARRAY)):
        lane = STREAM.open_stream(PLAIN, head)
        got = lane.feed(body)
        assert b"STOP" not in got
        assert lane.is_holding
        assert body == got + lane.finish()


def test_several_candidates_finish_together() -> None:
    """One that is done leaves the others open."""
    one = {"candidates": [{"index": 0, "finishReason": "STOP"}, {"index": 1}]}
    two = {"candidates": [{"index": 1, "finishReason": "STOP"}]}
    lane = STREAM.open_stream(PLAIN, EVENTS)
    lane.feed(b"data: " + json.dumps(one).encode() + b"\n\n")
    assert not lane.answer.is_finished
    lane.feed(b"data: " + json.dumps(two).encode() + b"\n\n")
    assert lane.answer.is_finished


def test_an_image_without_usage_cannot_be_counted() -> None:
    """It is booked at the bound, not at nothing."""
    said = {"candidates": [{"content": {"parts": [{"inlineData": {"data": "aQ=="}}]}}]}
    answer = GENERATE.read_whole(json.dumps(said).encode(), PLAIN, ARRAY)

    assert answer.usage is None
    assert not answer.is_readable
