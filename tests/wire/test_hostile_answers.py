"""Answers and requests made to get the bill wrong."""

import json

import pytest

from gateway.budgets.rules import check_scope
from gateway.wire.facts import BadRequest
from pricing.meters import Meter
from tests.wire.chat import Chat

CHAT = Chat()
ASKED = b'{"model":"gpt-5","stream":true,"messages":[{"role":"user","content":"Hi"}]}'


def event(**fields: object) -> bytes:
    """Write one event of a stream."""
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def spoken(text: str) -> bytes:
    """Write one event that says something."""
    return event(choices=[{"index": 0, "delta": {"content": text}}])


def counted(prompt: int, completion: int) -> dict[str, int]:
    """Write a usage object."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def test_text_after_a_running_usage_is_known_to_be_uncounted() -> None:
    """A total that came before more text is not the last word."""
    lane = CHAT.open_stream(CHAT.read_facts(ASKED))

    lane.feed(event(choices=[], usage=counted(10, 1)) + spoken("more and more"))

    assert lane.answer.usage_chars < lane.answer.text_chars


def test_usage_beside_the_last_words_covers_them() -> None:
    """Usage on a chunk with text counts that text."""
    lane = CHAT.open_stream(CHAT.read_facts(ASKED))

    lane.feed(event(choices=[{"index": 0, "delta": {"content": "end"}}], usage=counted(10, 1)))

    assert lane.answer.usage_chars == lane.answer.text_chars > 0


def test_a_later_usage_of_nothing_takes_nothing_back() -> None:
    """Zeros after a real report are a fault of the provider, not a refund."""
    lane = CHAT.open_stream(CHAT.read_facts(ASKED))

    lane.feed(event(choices=[], usage=counted(100, 50)) + event(choices=[], usage=counted(0, 0)))

    assert lane.answer.usage is not None
    assert (100, 50) == (lane.answer.usage.input_total, lane.answer.usage.output_total)


def test_an_error_that_brings_usage_reaches_the_client() -> None:
    """Only the usage chunk that was asked for here is taken out again."""
    lane = CHAT.open_stream(CHAT.read_facts(ASKED))
    told = event(error={"message": "overloaded"}, usage=counted(10, 1))

    assert told == lane.feed(told)
    assert lane.answer.is_error


@pytest.mark.parametrize("tokens", [10**10 + 1, 2**63])
def test_a_count_beyond_reason_is_unknown(tokens: int) -> None:
    """A cost that would not fit the ledger is never computed."""
    answer = CHAT.read_whole(json.dumps({"usage": counted(tokens, 5)}).encode())

    assert answer.usage is not None
    assert answer.usage.input_total is None


def test_names_in_records_are_short() -> None:
    """A record holds names, not whatever somebody wrote where a name goes."""
    answer = CHAT.read_whole(json.dumps({"id": "x" * 9999, "usage": counted(1, 1)}).encode())

    assert answer.request_id is not None
    assert len(answer.request_id) <= 256
    with pytest.raises(BadRequest, match="longer than 256"):
        CHAT.read_facts(json.dumps({"model": "m" * 257, "messages": []}).encode())


def test_a_model_that_always_searches_is_held_for_it() -> None:
    """The fee and what the search brings in are part of the ceiling without being asked for."""
    facts = CHAT.read_facts(b'{"model":"gpt-4o-search-preview","messages":[]}')

    assert {Meter.WEB_SEARCH: 1} == dict(facts.fees)
    assert facts.input_tokens_max is None


@pytest.mark.parametrize("part", ['tag.a"b', "tag.a\\b", "tag.Env", "tag."])
def test_a_scope_no_tag_can_match_is_refused(part: str) -> None:
    """A budget that could never be evaluated must not get in."""
    with pytest.raises(ValueError, match="scope part"):
        check_scope({part: "x"})
