"""Gemini's Interactions API: what is refused, what bounds a call, and junk that passes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.facts import BadRequest
from gateway.wire.gemini_interactions import Interactions
from tests.wire.gemini_kit import ARRAY, EVENTS, JUNK, asked

TALK: dict[str, Any] = {"model": "models/gemini-3-flash-preview", "input": "hi"}


def test_an_interaction_names_its_model_and_text_bounds_it() -> None:
    """As long as it points to nothing that is kept elsewhere."""
    config = {"generation_config": {"max_output_tokens": 9}}
    facts = Interactions().read_facts(asked({**TALK, **config, "stream": True}, names={}))

    assert ("gemini-3-flash-preview", True, 9) == (
        facts.model,
        facts.stream,
        facts.output_tokens_max,
    )
    assert facts.input_tokens_max is not None
    for more in (
        {"previous_interaction_id": "i-1"},
        {"tools": [{"type": "google_search"}]},
        {"input": [{"type": "image", "data": "aQ=="}]},
        {"input": [{"type": "user_input", "content": [{"type": "text", "uri": "x"}]}]},
    ):
        assert Interactions().read_facts(asked({**TALK, **more})).input_tokens_max is None


@pytest.mark.parametrize(
    "more",
    [
        {"previousInteractionId": "i-1"},
        {"cachedContent": "cachedContents/1"},
    ],
    ids=str,
)
def test_what_is_kept_at_google_is_found_in_either_spelling(more: dict[str, Any]) -> None:
    """Google's parser takes both, so a prompt hides behind neither."""
    assert Interactions().read_facts(asked({**TALK, **more})).input_tokens_max is None


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (b'{"generationConfig":{"maxOutputTokens":9}', 9),
        (b'{"generation_config":{"maxOutputTokens":9,"max_output_tokens":9999}', None),
        (b'{"generation_config":{"max_output_tokens":9999,"max_output_tokens":9}', None),
        (b'{"generation_config":{"max_output_tokens":9,"max\\u004futputTokens":9999}', None),
    ],
)
def test_a_limit_that_could_be_read_in_two_ways_is_none(config: bytes, limit: int | None) -> None:
    """The model's own limit holds then."""
    body = config + b',"model":"gemini-3-flash-preview","input":"hi"}'
    assert limit == Interactions().read_facts(asked(body)).output_tokens_max


@pytest.mark.parametrize(
    "more",
    [
        {"agent": "deep-research"},
        {"background": True},
        {"serviceTier": "flex", "service_tier": "priority"},
        {"model": None},
        {"tools": 3},
        {"tools": {}},
    ],
    ids=str,
)
def test_an_interaction_nobody_could_meter_is_refused(more: dict[str, Any]) -> None:
    """Agents, and what is answered later."""
    with pytest.raises(BadRequest):
        Interactions().read_facts(asked({**TALK, **more}))


@given(st.binary(max_size=200), JUNK)
def test_junk_in_an_interaction_never_raises(body: bytes, junk: object) -> None:
    """Whole or as events, bytes pass."""
    said = json.dumps({"usage": junk, "interaction": {"usage": {"total_input_tokens": junk}}})
    for one in (body, said.encode()):
        Interactions().read_whole(one, Interactions().read_facts(asked(TALK)), ARRAY)
        lane = Interactions().open_stream(Interactions().read_facts(asked(TALK)), EVENTS)
        event = b"data: " + one + b"\n\n"
        assert event == lane.feed(event) + lane.finish()
