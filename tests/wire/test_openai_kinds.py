"""What providers do beside OpenAI's API: their counts, their costs, their addresses."""

import json
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.wire.endpoints import Match
from gateway.wire.facts import Answer, Asked, RequestFacts
from gateway.wire.openai_chat import OpenAIChat
from gateway.wire.openai_kinds import CHATS, azure_bills, azure_takes_usage_option
from gateway.wire.openai_places import PLACES
from gateway.wire.table import ENDPOINTS, OPENAI_PREFIXES, TRANSLATED
from pricing.meters import INPUT_METERS, OUTPUT_METERS, Meter
from pricing.usage import Basis
from tests.wire.chat import OK

PLAIN: Final = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
COUNTS: Final = st.one_of(st.none(), st.integers(-5, 10**12), st.floats(), st.text(max_size=5))


def asked(kind: str, **fields: Any) -> RequestFacts:
    """Read the facts of a plain request of a kind."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], **fields}
    return CHATS[kind].read_facts(Asked(body=json.dumps(body).encode()))


def read(kind: str, usage: Any, model: str = "m", **top: Any) -> Answer:
    """Read a whole answer of a kind."""
    choice = {"message": {"content": "Fine."}, "finish_reason": "stop"}
    body = {"model": model, "choices": [choice], "usage": usage, **top}
    return CHATS[kind].read_whole(json.dumps(body).encode(), asked(kind), OK)


def counts_of(answer: Answer) -> dict[Meter, Any]:
    """What was counted."""
    assert answer.usage is not None
    return dict(answer.usage.counts)


# -- counts --------------------------------------------------------------------------------------

SPELLINGS: Final = [
    ("together", {"cached_tokens": 10}),
    ("mistral", {"num_cached_tokens": 10}),
    ("deepseek", {"prompt_cache_hit_tokens": 10, "prompt_cache_miss_tokens": 20}),
    ("groq", {"prompt_tokens_details": {"cached_tokens": 10}}),
    ("deepseek", {"prompt_cache_hit_tokens": 10, "prompt_tokens_details": {"cached_tokens": 10}}),
    ("anthropic", {"cached_tokens": 10, "prompt_tokens_details": None}),
]


@pytest.mark.parametrize(("kind", "told"), SPELLINGS)
def test_cached_tokens_are_found_wherever_they_stand(kind: str, told: dict[str, Any]) -> None:
    """They are part of the prompt in every spelling, and never counted twice."""
    answer = read(kind, PLAIN | told)

    assert {Meter.INPUT: 20, Meter.CACHE_READ: 10, Meter.OUTPUT: 12} == counts_of(answer)


def test_two_cached_counts_that_differ_are_said() -> None:
    """The dearer reading counts, and both numbers are told."""
    answer = read("deepseek", PLAIN | {"prompt_cache_hit_tokens": 10, "cached_tokens": 25})

    assert 10 == counts_of(answer)[Meter.CACHE_READ]
    assert answer.usage is not None
    assert Basis.ESTIMATED is answer.usage.basis
    assert "10, 25" in answer.usage.flags[0]


@pytest.mark.parametrize(
    ("kind", "told", "thought"),
    [
        ("xai", {"total_tokens": 142, "completion_tokens_details": {"reasoning_tokens": 100}}, 100),
        ("xai", {"total_tokens": None, "completion_tokens_details": {"reasoning_tokens": 9}}, 9),
        ("gemini", {"total_tokens": 142}, 100),
        ("vertex", {"total_tokens": 142}, 100),
        ("perplexity", {"reasoning_tokens": 100}, 100),
    ],
)
def test_thoughts_outside_the_completion_are_billed(
    kind: str, told: dict[str, Any], thought: int
) -> None:
    """The visible output is the completion, and thoughts come on top."""
    answer = read(kind, PLAIN | told)

    expected = {Meter.INPUT: 30, Meter.OUTPUT: 12, Meter.REASONING: thought}
    assert expected == counts_of(answer)
    assert answer.usage is not None
    assert (Basis.REPORTED, ()) == (answer.usage.basis, answer.usage.flags)


def test_thoughts_inside_the_completion_stay_inside() -> None:
    """A total that holds no more than both says so, for xAI as well."""
    told = {"total_tokens": 42, "completion_tokens_details": {"reasoning_tokens": 10}}

    expected = {Meter.INPUT: 30, Meter.OUTPUT: 2, Meter.REASONING: 10}
    assert expected == counts_of(read("xai", PLAIN | told))


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_compound_system_is_billed_by_the_models_it_asked(is_whole: bool) -> None:
    """Where they explain all of its usage; else the total is what counts."""
    shares = [
        {"model": "a", "usage": {"prompt_tokens": 10, "completion_tokens": 5}},
        {"model": "b", "usage": {"prompt_tokens": 20, "completion_tokens": 7 if is_whole else 8}},
    ]
    answer = read("groq", PLAIN, "groq/compound", usage_breakdown={"models": shares})

    if not is_whole:
        assert ("groq/compound", ()) == (answer.model, answer.others)
        assert {Meter.INPUT: 30, Meter.OUTPUT: 12} == counts_of(answer)
        return
    assert ("a", {Meter.INPUT: 10, Meter.OUTPUT: 5}) == (answer.model, counts_of(answer))
    (other,) = answer.others
    assert ("b", {Meter.INPUT: 20, Meter.OUTPUT: 7}) == (other.model, other.usage.counts)


def test_an_odd_field_does_not_hide_the_counts_beside_it() -> None:
    """What can be read counts, and the record says that something could not."""
    answer = read("mistral", PLAIN | {"num_cached_tokens": {"a": 1}})

    assert {Meter.INPUT: 30, Meter.OUTPUT: 12} == counts_of(answer)
    assert answer.usage is not None
    assert Basis.ESTIMATED is answer.usage.basis


def test_deep_research_is_charged_for_what_it_reads() -> None:
    """Citations cost what the prompt costs; thoughts and searches come on top."""
    told = {"citation_tokens": 500, "num_search_queries": 18, "reasoning_tokens": 70}
    answer = read("perplexity", PLAIN | told, "sonar-deep-research")

    expected = {
        Meter.INPUT: 530,
        Meter.OUTPUT: 12,
        Meter.REASONING: 70,
        Meter.WEB_SEARCH: 18,
    }
    assert expected == counts_of(answer)
    assert asked("perplexity", model="sonar-deep-research", max_tokens=5).output_tokens_max is None


def test_how_much_a_search_read_is_the_make_it_was_sold_in() -> None:
    """Perplexity says it in the usage."""
    assert {Meter.WEB_SEARCH: "low"} == read(
        "perplexity", PLAIN | {"search_context_size": "low"}
    ).variants


@pytest.mark.parametrize(
    ("kind", "word", "tier"),
    [
        ("groq", "on_demand", "standard"),
        ("groq", "flex", "standard"),
        ("openai", "flex", "flex"),
        ("xai", "default", "standard"),
        ("xai", "priority", "priority"),
        ("fireworks", "priority", "priority"),
    ],
)
def test_words_for_tiers_are_translated(kind: str, word: str, tier: str) -> None:
    """In requests and in answers."""
    assert tier == asked(kind, service_tier=word).tier
    assert tier == read(kind, PLAIN, service_tier=word).tier


# -- costs ---------------------------------------------------------------------------------------

COSTS: Final[list[tuple[str, dict[str, Any], str | None]]] = [
    ("openrouter", {"cost": 0.00065325}, "0.00065325"),
    ("openrouter", {"cost": 0}, "0"),
    ("openrouter", {"cost": 1e-05, "is_byok": False}, "0.00001"),
    (
        "openrouter",
        {"cost": 0.1, "is_byok": True, "cost_details": {"upstream_inference_cost": 2}},
        "2.1",
    ),
    ("openrouter", {"cost": 0.1, "is_byok": True, "cost_details": None}, None),
    ("openrouter", {"cost": None}, None),
    ("openrouter", {"cost": "NaN"}, None),
    ("openrouter", {"cost": True}, None),
    ("openrouter", {"cost": [1]}, None),
    ("openrouter", {"cost": -1}, None),
    ("openrouter", {"cost": 10_001}, None),
    ("openrouter", {"cost": "1e-400"}, None),
    ("xai", {"cost_in_usd_ticks": 17_310_001}, "0.0017310001"),
    ("xai", {"cost_in_usd_ticks": -1}, None),
    ("xai", {"cost_in_usd_ticks": "Infinity"}, None),
    ("perplexity", {"cost": {"total_cost": 0.009042}}, "0.009042"),
    ("perplexity", {"cost": 0.009042}, None),
    ("openai", {"cost": 0.5, "cost_in_usd_ticks": 1}, None),
    ("vllm", {"cost": {"total_cost": 1}}, None),
]


@pytest.mark.parametrize(("kind", "told", "cost"), COSTS)
def test_the_cost_is_taken_from_those_who_bill_by_it(
    kind: str, told: dict[str, Any], cost: str | None
) -> None:
    """Exactly as written; whatever cannot be a cost is left, and the counts stay."""
    answer = read(kind, PLAIN | told)

    assert (None if cost is None else Decimal(cost)) == answer.provider_cost
    assert {Meter.INPUT: 30, Meter.OUTPUT: 12} == counts_of(answer)


def test_an_absurd_cost_is_said() -> None:
    """The record tells what was ignored."""
    assert "-1 USD" in read("openrouter", PLAIN | {"cost": -1}).flags[0]


def test_every_digit_of_a_cost_counts() -> None:
    """A binary fraction would not have them."""
    usage = b'{"prompt_tokens":1,"completion_tokens":1,"cost":0.1000000000000000000000000001}'
    body = b'{"choices":[],"usage":' + usage + b"}"
    answer = CHATS["openrouter"].read_whole(body, asked("openrouter"), OK)

    assert Decimal("0.1000000000000000000000000001") == answer.provider_cost


def test_the_newest_cost_replaces_the_older() -> None:
    """Running totals are never summed; a report without one leaves none."""
    lane = CHATS["perplexity"].open_stream(asked("perplexity"), OK)
    for cost in ({"total_cost": 0.1}, {"total_cost": 0.2}):
        event = {"choices": [], "usage": PLAIN | {"cost": cost}}
        lane.feed(b"data: " + json.dumps(event).encode() + b"\n\n")

    assert Decimal("0.2") == lane.answer.provider_cost
    lane.feed(b"data: " + json.dumps({"choices": [], "usage": PLAIN}).encode() + b"\n\n")
    assert lane.answer.provider_cost is None


# -- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(CHATS))
def test_a_stream_is_asked_for_its_usage_only_where_it_would_not_come(kind: str) -> None:
    """A client that asked is left alone, and so is a provider that tells unasked."""
    chat = CHATS[kind]
    body = b'{"model":"m","messages":[],"stream":true}'
    request = Asked(body=body)
    sent = chat.prepare_body(request, chat.read_facts(request), "m")

    tells = kind in ("mistral", "perplexity", "fireworks", "groq", "openrouter", "xai")
    assert tells == (body == sent)


@pytest.mark.parametrize(
    ("query", "body", "takes"),
    [
        ("api-version=2024-10-21", b"{}", True),
        ("api-version=2025-04-01-preview", b"{}", True),
        ("api-version=2024-02-01", b"{}", False),
        ("api-version=preview", b"{}", True),
        ("", b"{}", True),
        ("api-version=2024-10-21", b'{"data_sources":[]}', False),
    ],
)
def test_azure_is_asked_where_it_takes_the_option(query: str, body: bytes, takes: bool) -> None:
    """Older versions and answers on one's own data refuse it."""
    assert takes == azure_takes_usage_option(Asked(body=body, query=query))


@pytest.mark.parametrize(
    ("status", "code", "billed"),
    [
        (400, "content_filter", True),
        (400, "context_length_exceeded", True),
        (400, "invalid_request_error", None),
        (408, "Timeout", True),
        (401, "content_filter", None),
        (200, "content_filter", None),
    ],
)
def test_azure_bills_some_errors(status: int, code: str, billed: bool | None) -> None:
    """By its own page on costs."""
    assert billed == azure_bills(status, json.dumps({"error": {"code": code}}).encode())


def test_heard_audio_is_held_at_its_longest() -> None:
    """Mistral bills it by the second."""
    part = {"type": "input_audio", "input_audio": "UklGRg=="}
    facts = asked("mistral", messages=[{"role": "user", "content": [part]}])

    assert 10800 == facts.fees[Meter.AUDIO_SECOND]
    assert not asked("mistral").fees


def test_vertex_names_a_publisher_before_the_model() -> None:
    """The price book has the name without it; the body keeps it."""
    body = b'{"model":"google/gemini-2.5-flash","messages":[]}'
    request = Asked(body=body)
    facts = CHATS["vertex"].read_facts(request)

    assert "gemini-2.5-flash" == facts.model
    assert body == CHATS["vertex"].prepare_body(request, facts, "gemini-2.5-flash")


# -- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "path", "names"),
    [
        ("azure", "/openai/deployments/my-gpt/chat/completions", {"deployment": "my-gpt"}),
        ("azure", "/openai/deployments/d/audio/transcriptions", {"deployment": "d"}),
        ("azure", "/openai/v1/images/edits", {}),
        ("gemini", "/v1beta/openai/chat/completions", {}),
        ("gemini", "/v1/openai/embeddings", {}),
        (
            "vertex",
            "/v1/projects/p/locations/eu/endpoints/openapi/chat/completions",
            {"project": "p", "location": "eu"},
        ),
        ("groq", "/openai/v1/audio/transcriptions", {}),
        ("cohere", "/compatibility/v1/chat/completions", {}),
        ("bedrock", "/openai/v1/chat/completions", {}),
        ("ollama", "/v1/chat/completions", {}),
        ("deepseek", "/beta/completions", {}),
        ("openrouter", "/api/v1/chat/completions", {}),
        ("fireworks", "/inference/v1/rerank", {}),
    ],
)
def test_every_kind_has_its_own_addresses(kind: str, path: str, names: dict[str, str]) -> None:
    """As the providers' SDKs write them below their base address."""
    match = ENDPOINTS.find(kind, "POST", path)

    assert isinstance(match, Match)
    assert names == match.names


@pytest.mark.parametrize("kind", sorted(PLACES))
def test_every_kind_is_reached_under_v1(kind: str) -> None:
    """By ``provider/model``; those with an API of their own by translation."""
    path = OPENAI_PREFIXES.get(kind, "") + "/chat/completions"
    is_direct = kind in OPENAI_PREFIXES

    assert is_direct != ((kind, "/chat/completions") in TRANSLATED)
    assert isinstance(ENDPOINTS.find(kind, "POST", path), Match) or not is_direct


# -- anything at all -----------------------------------------------------------------------------

FIELDS: Final = (
    *("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "num_cached_tokens"),
    *("prompt_cache_hit_tokens", "reasoning_tokens", "prompt_audio_seconds", "citation_tokens"),
    *("cost", "cost_in_usd_ticks", "num_sources_used", "is_byok", "search_context_size"),
    *("prompt_tokens_details", "cost_details", "server_side_tool_usage_details"),
)
VALUES: Final = COUNTS | st.dictionaries(st.sampled_from(FIELDS), COUNTS, max_size=3)


@example(
    kind="perplexity",
    usage={"prompt_tokens": 1, "completion_tokens": 1, "search_context_size": {"cost": 0}},
    cuts=[],
)
@given(
    kind=st.sampled_from(sorted(CHATS)),
    usage=st.dictionaries(st.sampled_from(FIELDS), VALUES),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_no_usage_raises_and_no_cut_changes_it(
    kind: str, usage: dict[str, Any], cuts: list[int]
) -> None:
    """Whatever a provider sends: nothing raises, no count is negative, bytes stay."""
    chat: OpenAIChat = CHATS[kind]
    facts = asked(kind, stream=True, stream_options={"include_usage": True})
    event = {"model": "sonar-deep-research", "choices": [{"delta": {}}], "usage": usage}
    stream = b"data: " + json.dumps(event).encode() + b"\n\ndata: [DONE]\n\n"
    whole, cut = chat.open_stream(facts, OK), chat.open_stream(facts, OK)
    places = sorted({0, *(min(c, len(stream)) for c in cuts), len(stream)})
    got = b"".join(cut.feed(stream[a:b]) for a, b in pairwise(places))
    got += cut.finish()
    assert stream == whole.feed(stream) + whole.finish()

    assert stream == got
    assert whole.answer.usage == cut.answer.usage
    assert whole.answer.provider_cost == cut.answer.provider_cost
    if whole.answer.usage is not None:
        assert all(count > 0 for count in whole.answer.usage.counts.values())


@given(
    prompt=st.integers(0, 10**6),
    completion=st.integers(0, 10**6),
    share=st.fractions(0, 1),
    thought=st.integers(0, 10**5),
)
def test_the_counts_of_xai_add_up_to_its_total(
    prompt: int, completion: int, share: Any, thought: int
) -> None:
    """Disjoint counts, whose sums are what the provider says."""
    total = prompt + completion + thought
    told = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": int(prompt * share)},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    counts = counts_of(read("xai", told))

    assert prompt == sum(n for meter, n in counts.items() if meter in INPUT_METERS)
    assert total - prompt == sum(n for meter, n in counts.items() if meter in OUTPUT_METERS)
