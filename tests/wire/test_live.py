"""Readers of sessions: what frames begin and end, and disjoint counts worked out by hand.

Must never accept an odd frame that hides the usage beside it.
"""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.gemini_live import LiveConversation
from gateway.wire.live import Aside, Begun, Conversation, Failed, Finished
from gateway.wire.openai_realtime import RealtimeConversation
from gateway.wire.openai_realtime_usage import read_realtime_usage, read_transcript_usage
from gateway.wire.openai_responses_live import ResponsesConversation
from pricing.meters import Meter
from pricing.usage import Basis


def usage_of(tokens_in: int, tokens_out: int, inside: Any = None, outside: Any = None) -> Any:
    """Write a usage object."""
    return {
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
        "input_token_details": inside,
        "output_token_details": outside,
    }


@pytest.mark.parametrize(
    ("raw", "counts", "basis"),
    [
        (usage_of(10, 2), {Meter.INPUT: 10, Meter.OUTPUT: 2}, Basis.REPORTED),
        (
            usage_of(
                100,
                20,
                {
                    "text_tokens": 30,
                    "audio_tokens": 50,
                    "image_tokens": 20,
                    "cached_tokens": 40,
                    "cached_tokens_details": {
                        "text_tokens": 10,
                        "audio_tokens": 25,
                        "image_tokens": 5,
                    },
                },
                {"text_tokens": 5, "audio_tokens": 15},
            ),
            {
                Meter.INPUT: 20,
                Meter.INPUT_AUDIO: 25,
                Meter.INPUT_IMAGE: 15,
                Meter.CACHE_READ: 10,
                Meter.CACHE_READ_AUDIO: 25,
                Meter.CACHE_READ_IMAGE: 5,
                Meter.OUTPUT: 5,
                Meter.OUTPUT_AUDIO: 15,
            },
            Basis.REPORTED,
        ),
        # Nothing says what was cached: 30 can be text, the other 10 must have been sound.
        (
            usage_of(100, 1, {"text_tokens": 30, "audio_tokens": 70, "cached_tokens": 40}),
            {
                Meter.CACHE_READ: 30,
                Meter.CACHE_READ_AUDIO: 10,
                Meter.INPUT_AUDIO: 60,
                Meter.OUTPUT: 1,
            },
            Basis.REPORTED,
        ),
        (
            usage_of(100, 1, {"audio_tokens": 170, "cached_tokens": 40}),
            {Meter.INPUT: 60, Meter.CACHE_READ: 40, Meter.OUTPUT: 1},
            Basis.ESTIMATED,
        ),
        (
            usage_of(100, 1, {"cached_tokens": 400}),
            {Meter.INPUT: 100, Meter.OUTPUT: 1},
            Basis.ESTIMATED,
        ),
        (
            usage_of(1, 10, None, {"audio_tokens": 11}),
            {Meter.INPUT: 1, Meter.OUTPUT: 10},
            Basis.ESTIMATED,
        ),
        (usage_of(-1, 10), {}, Basis.UNKNOWN),
        ({"input_tokens": 1}, {}, Basis.UNKNOWN),
        (None, {}, Basis.UNKNOWN),
        (usage_of(0, 0), {}, Basis.REPORTED),
    ],
)
def test_realtime_usage_becomes_disjoint(raw: Any, counts: Any, basis: Basis) -> None:
    """Cached parts are taken out of what they are inside of; contradictions keep the totals."""
    usage = read_realtime_usage(raw)

    assert (dict(usage.counts), usage.basis) == (counts, basis)


@given(
    parts=st.lists(st.integers(0, 1000), min_size=6, max_size=6),
    out=st.tuples(st.integers(0, 1000), st.integers(0, 1000)),
    is_split=st.booleans(),
)
def test_realtime_sums_are_the_providers_totals(
    parts: list[int], out: tuple[int, int], *, is_split: bool
) -> None:
    """Whatever the parts are, no token is lost and none is counted twice."""
    text, audio, image, ctext, caudio, cimage = parts
    inside: dict[str, Any] = {
        "text_tokens": text + ctext,
        "audio_tokens": audio + caudio,
        "image_tokens": image + cimage,
        "cached_tokens": ctext + caudio + cimage,
    }
    if is_split:
        inside["cached_tokens_details"] = {
            "text_tokens": ctext,
            "audio_tokens": caudio,
            "image_tokens": cimage,
        }
    usage = read_realtime_usage(usage_of(sum(parts), sum(out), inside, {"audio_tokens": out[1]}))

    assert usage.basis is Basis.REPORTED
    assert usage.totals() == (sum(parts), sum(out))


@pytest.mark.parametrize(
    ("raw", "counts"),
    [
        ({"type": "duration", "seconds": 2.5}, {Meter.AUDIO_SECOND: Decimal("2.5")}),
        (
            {
                "type": "tokens",
                "input_tokens": 50,
                "output_tokens": 5,
                "input_token_details": {"audio_tokens": 40},
            },
            {Meter.INPUT: 10, Meter.INPUT_AUDIO: 40, Meter.OUTPUT: 5},
        ),
        ({"seconds": "soon"}, {}),
        (None, {}),
    ],
)
def test_transcripts_are_billed_by_token_or_second(raw: Any, counts: Any) -> None:
    """Both shapes of the usage of a transcript."""
    assert dict(read_transcript_usage(raw).counts) == counts


def test_a_voice_is_billed_by_the_second() -> None:
    """Where the provider tells seconds they are the bill, and the tokens beside them are not."""
    reader = RealtimeConversation("grok-voice-latest", by_second=True)
    told = {
        "type": "response.done",
        "response": {"id": "r"},
        "usage": {**usage_of(9, 9), "billable_audio_seconds": 12.5},
    }
    tells = reader.read_server(json.dumps(told))

    assert isinstance(tells, Finished)
    assert tells.answer.usage is not None
    assert tells.answer.usage.counts == {Meter.AUDIO_SECOND: Decimal("12.5")}


def test_realtime_events_mean_what_they_say() -> None:
    """The limit of a response is the request's own, else the session's as the provider has it."""
    reader = RealtimeConversation("gpt-realtime")
    asks = reader.read_client('{"type": "response.create", "response": {"max_output_tokens": 9}}')
    assert asks.is_begun
    assert asks.facts is not None
    assert asks.facts.output_tokens_max == 9

    reader.read_client('{"type": "session.update", "session": {"max_output_tokens": 5}}')
    assert reader.facts.output_tokens_max is None
    reader.read_server('{"type": "session.updated", "session": {"max_output_tokens": 5}}')
    assert reader.facts.output_tokens_max == 5

    assert reader.read_client('{"type": "input_audio_buffer.append"}').facts is not None
    assert reader.read_client('{"type": "conversation.item.create"}').facts is None
    error = reader.read_server('{"type": "error", "error": {"event_id": "e1"}}')
    assert error == Failed(event="e1")
    begun = reader.read_server('{"type": "response.cre\\u0061ted", "response": {"id": "r"}}')
    assert begun == Begun(key="r")
    named = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    asks = reader.read_client(json.dumps({"type": "session.update", "session": named}))
    assert asks.further_models == ("whisper-1",)
    heard = {
        "type": "conversation.item.input_audio_transcription.completed",
        "usage": {"type": "duration", "seconds": 3},
    }
    aside = reader.read_server(json.dumps(heard))
    assert isinstance(aside, Aside)
    assert aside.facts.model == "whisper-1"
    assert aside.facts.fees == {Meter.AUDIO_SECOND: 3}


def live(**message: Any) -> bytes:
    """Write a message of the Live API."""
    return json.dumps(message).encode()


SAID = {"modelTurn": {"parts": [{"text": "Hi"}]}}


def test_turns_of_gemini_add_up_and_reports_inside_one_replace() -> None:
    """A turn is over with ``turnComplete`` or a tool call; its usage may come later."""
    reader = LiveConversation()
    reader.read_client('{"setup": {"model": "models/gemini-3.8-live"}}')
    first = {"promptTokenCount": 10, "responseTokenCount": 1, "totalTokenCount": 11}
    last = {"promptTokenCount": 10, "responseTokenCount": 5, "totalTokenCount": 15}

    assert reader.read_server(live(setupComplete={})) is None
    assert reader.read_server(live(serverContent=SAID)) == Begun(key="turn_0")
    assert reader.read_server(live(serverContent=SAID, usageMetadata=first)) is None
    assert reader.read_server(live(serverContent={"turnComplete": True})) is not None
    assert reader.read_server(live(toolCall={"functionCalls": []})) == Begun(key="turn_1")
    tells = reader.read_server(live(usageMetadata=last))
    assert isinstance(tells, Finished)
    assert tells.answer.usage is not None
    assert tells.answer.usage.counts == {Meter.INPUT: 10, Meter.OUTPUT: 5}
    # A turn that is over and told nothing ends when the next one begins.
    assert reader.read_server(live(serverContent={**SAID, "turnComplete": True})) is not None
    silent = reader.read_server(live(serverContent=SAID, usageMetadata=last))
    assert isinstance(silent, Finished)
    assert silent.answer.usage is None
    ended = reader.read_server(live(serverContent={"turnComplete": True}))
    assert isinstance(ended, Finished)
    assert ended.key == "turn_3"


@pytest.mark.parametrize(("model", "count"), [("gemini-3.8-live", 2), ("gemini-2.5-live", 1)])
def test_searches_of_a_turn_are_counted_and_held(model: str, count: int) -> None:
    """By query from Gemini 3 on, by prompt before; the next turn begins with none."""
    reader = LiveConversation()
    setup = {"model": f"models/{model}", "tools": [{"googleSearch": {}}]}
    reader.read_client(json.dumps({"setup": setup}))
    used = {"promptTokenCount": 10, "responseTokenCount": 5, "totalTokenCount": 15}
    found = {"webSearchQueries": ["a", "b", "a", ""], "groundingChunks": [{"web": {}}]}

    assert reader.facts.fees[Meter.WEB_SEARCH] > count
    reader.read_server(live(serverContent={**SAID, "groundingMetadata": found}))
    searched = reader.read_server(live(serverContent={"turnComplete": True}, usageMetadata=used))
    reader.read_server(live(serverContent={**SAID, "groundingMetadata": 7}))
    odd = reader.read_server(live(serverContent={"turnComplete": True}, usageMetadata=used))
    reader.read_server(live(serverContent=SAID))
    plain = reader.read_server(live(serverContent={"turnComplete": True}, usageMetadata=used))

    tokens = {Meter.INPUT: 10, Meter.OUTPUT: 5}
    turns = [one.answer for one in (searched, odd, plain) if isinstance(one, Finished)]
    assert [{**tokens, Meter.WEB_SEARCH: count}, {**tokens, Meter.WEB_SEARCH: 1}, tokens] == [
        turn.usage.counts for turn in turns if turn.usage is not None
    ]
    assert [True] * 3 == [turn.tells_fees for turn in turns]
    assert [0, 1, 0] == [len(turn.flags) for turn in turns]


def test_a_searching_turn_without_usage_is_booked_with_all_searches() -> None:
    """Nobody knows what it came to, so its fees are those of the hold."""
    reader = LiveConversation()
    setup = {"model": "models/gemini-3.8-live", "tools": [{"googleSearch": {}}]}
    reader.read_client(json.dumps({"setup": setup}))
    reader.read_server(live(serverContent={**SAID, "turnComplete": True}))
    silent = reader.read_server(live(serverContent=SAID))

    assert isinstance(silent, Finished)
    assert (None, False) == (silent.answer.usage, silent.answer.tells_fees)


@given(frame=st.one_of(st.text(), st.binary(), st.dictionaries(st.text(), st.text()).map(str)))
def test_no_frame_of_a_provider_raises(frame: str | bytes) -> None:
    """Garbage passes by."""
    readers: list[Conversation] = [
        RealtimeConversation("m"),
        ResponsesConversation(),
        LiveConversation(),
    ]
    for reader in readers:
        assert reader.read_server(frame) is None


@pytest.mark.parametrize(
    "frame",
    [
        '{"type": "response.done"}',
        '{"type": "response.done", "response": 7, "usage": []}',
        '{"type": "response.done", "response": {"id": null, "usage": "x"}}',
        '{"type": "response.created", "response": null}',
        '{"type": "response.completed", "response": {"usage": 3}}',
        '{"type": "error", "error": "bad"}',
        '{"type": "session.updated", "session": 1}',
        '{"type": "conversation.item.input_audio_transcription.completed"}',
        '{"usageMetadata": {"promptTokenCount": "many"}, "serverContent": {"turnComplete": true}}',
        '{"serverContent": 3, "usageMetadata": {"promptTokenCount": 3}}',
    ],
)
def test_odd_frames_do_not_raise(frame: str) -> None:
    """A field of the wrong kind is a missing one."""
    readers: list[Conversation] = [
        RealtimeConversation("m"),
        ResponsesConversation(),
        LiveConversation(),
    ]
    for reader in readers:
        reader.read_server(frame)
