"""Whole answers, errors and the gateway's own words in OpenAI's shape."""

import json

import pytest

from gateway.wire.facts import ErrorBody
from gateway.wire.sse import data_of
from pricing.usage import Basis
from tests.openai_answers import completion
from tests.wire.chat import Chat
from tests.wire.sse_reference import parse_events

CHAT = Chat()
REFUSED = ErrorBody(
    status=429,
    code="budget_exceeded",
    kind="insufficient_quota",
    message='no "room"',
    details={"limit": "5"},
)


def test_a_whole_answer_is_read() -> None:
    """Names, tier and usage are found wherever they stand."""
    answer = CHAT.read_whole(completion())

    assert ("gpt-5-2025-08-07", "chatcmpl-C0ffee", "standard") == (
        answer.model,
        answer.request_id,
        answer.tier,
    )
    assert answer.usage is not None
    assert answer.is_readable
    assert answer.is_complete
    assert not answer.is_error


def test_the_text_is_kept_only_when_there_is_no_usage() -> None:
    """Words are needed for counting and for nothing else."""
    assert [] == CHAT.read_whole(completion()).text
    assert ["Fine, thanks."] == CHAT.read_whole(completion(usage=None)).text


def test_the_text_is_kept_when_usage_says_nothing() -> None:
    """Usage without counts does not make an answer empty."""
    answer = CHAT.read_whole(completion(usage={}))

    assert ["Fine, thanks."] == answer.text
    assert answer.is_readable


def test_odd_usage_does_not_hide_the_rest() -> None:
    """The names are the provider's; the counts are unknown, and the record says so."""
    answer = CHAT.read_whole(completion(usage={"prompt_tokens": "many", "completion_tokens": 1}))

    assert ("gpt-5-2025-08-07", "standard") == (answer.model, answer.tier)
    assert answer.usage is not None
    assert Basis.UNKNOWN is answer.usage.basis
    assert ["Fine, thanks."] == answer.text


def test_odd_choices_do_not_hide_the_usage() -> None:
    """The bill is read whatever the words look like."""
    answer = CHAT.read_whole(completion(message={"content": {"odd": 1}}))

    assert answer.usage is not None
    assert answer.is_readable
    assert not CHAT.read_whole(completion(message={"content": {"odd": 1}}, usage=None)).is_readable


def test_an_error_with_a_status_of_success_is_an_error() -> None:
    """Some servers say what went wrong at status 200."""
    answer = CHAT.read_whole(b'{"error":{"message":"no","code":500}}')

    assert answer.is_error
    assert answer.usage is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[1]",
        b"null",
        b'"text"',
        b'{"id":"\xff"}',
        b'{"choices":[{"message":{"content":"\xff"}}]}',
        b'{"x":' + b"[" * 10**5 + b"]" * 10**5 + b"}",
        b'{"usage":' + b"[" * 10**5 + b"]" * 10**5 + b"}",
    ],
    ids=["empty", "html", "list", "null", "text", "utf-8", "utf-8 text", "nested", "nested usage"],
)
def test_an_answer_nobody_can_read_is_not_readable(body: bytes) -> None:
    """It is passed on, and metered as an answer without usage."""
    answer = CHAT.read_whole(body)

    assert not answer.is_readable
    assert answer.usage is None


def test_a_refusal_has_the_shape_of_the_dialect() -> None:
    """SDKs read message, type, param and code; the rest is for programs of one's own."""
    assert {
        "error": {
            "message": 'no "room"',
            "type": "insufficient_quota",
            "param": None,
            "code": "budget_exceeded",
            "limit": "5",
        }
    } == json.loads(CHAT.shape_error(REFUSED))


def test_trouble_inside_a_stream_is_one_event() -> None:
    """Whatever the message holds, it stays one event."""
    shaped = CHAT.shape_stream_error(REFUSED)

    assert [json.loads(CHAT.shape_error(REFUSED))] == [json.loads(d) for d in parse_events(shaped)]


def test_cost_facts_are_a_comment() -> None:
    """A client that did not expect them does not see them."""
    shaped = CHAT.shape_stream_facts([("x-taximeter-cost", "0.1"), ("a", "b")])

    assert b": x-taximeter-cost=0.1 a=b\n\n" == shaped
    assert data_of(shaped) is None
