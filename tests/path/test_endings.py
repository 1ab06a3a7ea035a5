"""However a call ends, its hold ends once, one record tells it, and no money is lost."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ending import LATE_FLAG
from gateway.upstream import UpstreamBroken, UpstreamFailed, UpstreamTimedOut, UpstreamUnsent
from tests.openai_answers import chunk, completion
from tests.path.virtual_time import run
from tests.path.world import (
    DONE,
    EVENTS,
    FULL_COST_PICO,
    JSON,
    LEAVE,
    STALL,
    STREAM,
    WHOLE,
    WORDS,
    Play,
    World,
    ask,
)
from tests.wire.sse_reference import parse_events

ERROR = b'{"error":{"message":"no","type":"server_error","code":null}}'
UNSENT, LATE, BROKEN = UpstreamUnsent("x"), UpstreamTimedOut("x"), UpstreamBroken("x")
STREAMED = ask(stream=True)
TOLD = b'data: {"error":{"message":"overloaded","code":null}}\n\n'


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault at a stage, and what must come of it.

    Attributes:
        play: What the provider does.
        stream: Whether a stream is asked for.
        outcome: Outcome recorded.
        basis: Where the counts come from.
        status: Status recorded, and told where the client is still there.
        cost: Cost recorded: ``full``, ``ceiling``, ``some`` (counted) or ``zero``.
        told: Whether the client gets an end.
        world: How the gateway is set up.
    """

    play: Play
    stream: bool = False
    outcome: str = "upstream_error"
    basis: str = "estimated"
    status: int = 200
    cost: str = "ceiling"
    told: bool = True
    world: dict[str, Any] = field(default_factory=dict)


def said(*steps: Any, **head: Any) -> Play:
    """A streamed answer."""
    return Play(headers=EVENTS, steps=steps, **head)


def whole(*steps: Any, **head: Any) -> Play:
    """A whole answer."""
    return Play(steps=steps, **head)


OK: dict[str, Any] = {"outcome": "ok", "basis": "reported", "cost": "full"}
FREE: dict[str, Any] = {"basis": "none", "cost": "zero"}
GONE: dict[str, Any] = {"stream": True, "outcome": "client_disconnected", "told": False}

CASES = {
    # nothing goes wrong
    "whole": Case(play=whole(*WHOLE), **OK),
    "whole in pieces": Case(play=whole(WHOLE[0][:9], WHOLE[0][9:40], WHOLE[0][40:]), **OK),
    "stream": Case(play=said(*STREAM), stream=True, **OK),
    "stream in one piece": Case(play=said(b"".join(STREAM)), stream=True, **OK),
    "whole though a stream was asked for": Case(play=whole(*WHOLE), stream=True, **OK),
    "stream though none was asked for": Case(play=said(*STREAM), **OK),
    # before a head
    "unsent": Case(play=Play(head=UNSENT), status=502, **FREE),
    "unsent stream": Case(play=Play(head=UNSENT), status=502, stream=True, **FREE),
    "timed out": Case(play=Play(head=LATE), status=504),
    "timed out stream": Case(play=Play(head=LATE), status=504, stream=True),
    "broken": Case(play=Play(head=BROKEN), status=502),
    # the provider's own errors
    "400": Case(play=whole(ERROR, status=400), status=400, **FREE),
    "429": Case(play=whole(ERROR, status=429), status=429, stream=True, **FREE),
    "500": Case(play=whole(ERROR, status=500), status=500, **FREE),
    "503, no body": Case(play=whole(status=503), status=503, **FREE),
    "302": Case(play=whole(status=302), status=302, **FREE),
    "429 as a stream": Case(play=said(ERROR, status=429), status=429, stream=True, **FREE),
    "500 with usage": Case(
        play=whole(*WHOLE, status=500), status=500, basis="reported", cost="full"
    ),
    # whole answers
    "broken whole": Case(play=whole(WHOLE[0][:100], BROKEN), status=502),
    "broken before its first byte": Case(play=whole(BROKEN), status=502),
    "timed out whole": Case(play=whole(WHOLE[0][:100], LATE), status=504),
    "no usage": Case(play=whole(completion(usage=None)), outcome="ok", cost="some"),
    "no JSON": Case(play=whole(b"<html>"), outcome="ok"),
    "bad UTF-8": Case(play=whole(b'{"id":"\xff"}'), outcome="ok"),
    "empty": Case(play=whole(), outcome="ok"),
    "usage of nothing known": Case(play=whole(b'{"usage":{}}'), outcome="ok"),
    # streams
    "broken stream": Case(play=said(*WORDS[:3], BROKEN), stream=True, cost="some"),
    "timed out stream after words": Case(play=said(*WORDS[:3], LATE), stream=True, cost="some"),
    "broken before its first event": Case(play=said(BROKEN), stream=True),
    "broken inside an event": Case(
        play=said(*WORDS[:2], WORDS[2][:40], BROKEN), stream=True, cost="some"
    ),
    "broken after usage": Case(
        play=said(*STREAM[:-1], BROKEN), stream=True, basis="reported", cost="full"
    ),
    "broken after the end": Case(
        play=said(*STREAM, BROKEN), stream=True, basis="reported", cost="full"
    ),
    "error event": Case(play=said(*WORDS[:3], TOLD), stream=True, cost="some"),
    "stream without usage": Case(play=said(*WORDS, DONE), stream=True, outcome="ok", cost="some"),
    "garbage stream": Case(
        play=said(b"data: {\n\n", b"data: \xff\n\n", DONE), stream=True, outcome="ok"
    ),
    "bad UTF-8 in a stream": Case(
        play=said(b'data: {"id":"\xff"}\n\n', *STREAM), stream=True, **OK
    ),
    # the client leaves
    "gone before the head": Case(play=said(STALL, head=LEAVE), **GONE),
    "gone before the first word": Case(play=said(LEAVE, STALL), **GONE),
    "gone early": Case(play=said(*WORDS[:2], LEAVE, *WORDS[2:], STALL), cost="some", **GONE),
    "gone early, drained": Case(
        play=said(*WORDS[:2], LEAVE, *STREAM[2:]),
        basis="reported",
        cost="full",
        world={"drains": True},
        **GONE,
    ),
    "gone early, drained in vain": Case(
        play=said(*WORDS[:2], LEAVE, *WORDS[2:4], STALL),
        cost="some",
        world={"drains": True},
        **GONE,
    ),
    "gone early, drained, broken": Case(
        play=said(*WORDS[:2], LEAVE, BROKEN),
        cost="some",
        world={"drains": True},
        stream=True,
        told=False,
    ),
    "gone after the last word": Case(
        play=said(*WORDS, LEAVE, *STREAM[len(WORDS) :]), basis="reported", cost="full", **GONE
    ),
    "gone after the last word, usage never comes": Case(
        play=said(*WORDS, LEAVE, STALL), cost="some", **GONE
    ),
    "gone after usage": Case(
        play=said(*STREAM[:-1], LEAVE, STALL), basis="reported", cost="full", **GONE
    ),
    "gone after the end": Case(play=said(*STREAM, LEAVE), basis="reported", cost="full", **GONE),
    "gone during a whole answer": Case(play=whole(WHOLE[0][:50], LEAVE, WHOLE[0][50:]), **OK),
    # guessing is not allowed, or not possible
    "no guessing": Case(
        play=whole(completion(usage=None)),
        outcome="ok",
        basis="unknown",
        cost="unknown",
        world={"missing_usage": "fail"},
    ),
    "no guessing, broken": Case(
        play=said(*WORDS[:2], BROKEN),
        stream=True,
        basis="unknown",
        cost="unknown",
        world={"missing_usage": "fail"},
    ),
    "no guessing, timed out": Case(
        play=Play(head=LATE),
        status=504,
        basis="unknown",
        cost="unknown",
        world={"missing_usage": "fail"},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_fault_at_every_stage_ends_once(case: Case) -> None:
    """Outcome, basis and cost are right, the hold has ended, and there is one record."""
    world = World(case.play, body=STREAMED if case.stream else ask(), **case.world)
    run(world.call())
    record = world.record

    assert (case.outcome, case.basis, case.status) == (
        record.outcome,
        record.basis,
        record.http_status,
    )
    world.check_books()
    assert record.ceiling_pico is not None
    costs = {"full": FULL_COST_PICO, "zero": 0, "ceiling": record.ceiling_pico, "unknown": None}
    if case.cost == "some":
        assert record.cost_pico is not None
        assert 0 < record.cost_pico < record.ceiling_pico
    else:
        assert costs[case.cost] == record.cost_pico
    assert case.told == world.client.is_finished
    if case.told:
        assert case.status == world.client.status


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "parting", [BROKEN, LATE, UNSENT], ids=lambda failed: type(failed).__name__
)
def test_trouble_when_letting_go_is_no_second_ending(parting: UpstreamFailed, stream: bool) -> None:
    """An answer that was settled is settled, whatever closing its connection says."""
    world = World(
        Play(
            headers=EVENTS if stream else JSON, steps=STREAM if stream else WHOLE, parting=parting
        ),
        body=ask(stream=stream),
    )
    run(world.call())

    world.check_books()
    assert ("ok", FULL_COST_PICO) == (world.record.outcome, world.record.cost_pico)
    assert 200 == world.client.status


@pytest.mark.parametrize("cut", [WORDS[2][:1], WORDS[2][:40], WORDS[2][:-2], WORDS[2][:-1]])
def test_a_break_inside_an_event_still_tells_the_client(cut: bytes) -> None:
    """The error is an event of its own, not glued to the half that came before it."""
    world = World(said(*WORDS[:2], cut, BROKEN), body=STREAMED)
    run(world.call())
    last = json.loads(parse_events(b"".join(world.client.got))[-1])

    assert "upstream_unreachable" == last["error"]["code"]


def test_a_long_answer_without_usage_is_not_counted_as_nothing() -> None:
    """Words too many to keep were generated all the same."""
    for play, body in (
        (whole(completion("word " * 100_000, usage=None)), ask()),
        (
            said(*STREAM[:1], b"data: " + chunk({"content": "word " * 100_000}) + b"\n\n", DONE),
            STREAMED,
        ),
    ):
        world = World(play, body=body)
        run(world.call())

        world.check_books()
        assert (world.record.output_total or 0) >= 400 or world.record.output_total is None


def test_a_counter_that_fails_books_the_bound() -> None:
    """What cannot be counted is booked at the most it can be, not at nothing."""
    world = World(whole(completion(usage=None)))
    world.counter.is_able = False
    run(world.call())

    world.check_books()
    # The answer says it was served at the standard tier; the hold was for priority, at twice that.
    assert world.record.ceiling_pico is not None
    assert ("estimated", world.record.ceiling_pico // 2) == (
        world.record.basis,
        world.record.cost_pico,
    )


@pytest.mark.parametrize(
    "content",
    [b'"\xff"', b'{"text":"x"}', b"7", b'["x"]'],
    ids=["utf-8", "object", "number", "list of text"],
)
def test_a_prompt_that_cannot_be_counted_does_not_crash_the_ending(content: bytes) -> None:
    """An odd prompt is refused at the door or booked at the bound; the client gets its answer."""
    body = ask(messages=[]).replace(b"[]", b'[{"role":"user","content":%b}]' % content)
    world = World(whole(completion(usage=None)), body=body)
    run(world.call())

    world.check_books()
    assert world.client.is_finished


@pytest.mark.parametrize("stream", [False, True])
def test_an_unbounded_call_parks_nothing_less_than_it_held(stream: bool) -> None:
    """Without a limit in the request the model's own limits bound the hold."""
    world = World(
        Play(head=LATE), body=ask(stream=stream, max_completion_tokens=...), missing_usage="fail"
    )
    run(world.call())

    world.check_books()
    assert 128_000 * 20_000_000 < (world.record.ceiling_pico or 0)


# -- the journal ---------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [ask(), STREAMED])
def test_a_full_journal_lets_nothing_through(body: bytes) -> None:
    """No intent, no call: the hold is given back and nothing is sent."""
    world = World(whole(*WHOLE), body=body)
    world.journal.takes_intents = False
    run(world.call())

    assert [] == world.upstream.requests
    assert 503 == world.client.status
    assert ("refused", "none", 0) == (
        world.record.outcome,
        world.record.basis,
        world.record.cost_pico,
    )
    world.check_books()


@pytest.mark.parametrize("fault", ["takes_records", "is_syncing"])
@pytest.mark.parametrize(
    ("play", "body"),
    [
        (whole(*WHOLE), ask()),
        (whole(ERROR, status=400), ask()),
        (Play(head=LATE), ask()),
        (said(*STREAM), STREAMED),
        (said(*WORDS[:2], BROKEN), STREAMED),
        (said(*WORDS[:2], LEAVE, STALL), STREAMED),
    ],
    ids=["whole", "400", "timeout", "stream", "broken stream", "gone"],
)
def test_a_settlement_that_is_not_safe_is_not_answered_as_one(
    play: Play, body: bytes, fault: str
) -> None:
    """The client never reads an end; what has no record stays held, and has one when it can."""
    world = World(play, body=body)
    setattr(world.journal, fault, False)
    run(world.call())
    spent, _, held = world.spent()

    is_written = fault == "is_syncing"
    assert (0 if is_written else 1) == world.budgets.open_holds
    assert 1 == len(world.journal.intents)
    assert is_written == bool(world.journal.records)
    assert is_written == (held == 0)
    assert (spent > 0) == (is_written and play.status != 400)
    assert DONE not in b"".join(world.client.got)
    if play.headers is JSON:
        assert 503 == world.client.status
    assert b"store_unavailable" in b"".join(world.client.got)
    setattr(world.journal, fault, True)
    world.path.endings.catch_up()
    world.check_books()
    assert (LATE_FLAG in world.record.flags) != is_written


# -- the handler is stopped ----------------------------------------------------------------------


def _cancelled_everywhere() -> list[Any]:
    cases = []
    for name in (
        "whole",
        "stream",
        "no usage",
        "broken stream",
        "timed out",
        "400",
        "gone early",
        "gone after the last word",
        "gone early, drained",
    ):
        case = CASES[name]
        world = World(case.play, body=STREAMED if case.stream else ask(), **case.world)
        run(world.call())
        cases += [
            pytest.param(case, index, id=f"{name}-{index}-{place}")
            for index, place in enumerate(world.awaits.places)
        ]
    return cases


@pytest.mark.parametrize(("case", "index"), _cancelled_everywhere())
def test_a_handler_stopped_anywhere_ends_its_call(case: Case, index: int) -> None:
    """Wherever the handler stands when it is stopped, nothing waits and nothing is lost."""
    world = World(case.play, body=STREAMED if case.stream else ask(), cancel_at=index, **case.world)
    try:
        run(world.call())
    except asyncio.CancelledError:
        pass
    else:
        pytest.fail("the cancellation was swallowed")

    world.check_books()
    assert len(world.journal.intents) == len(world.journal.records)
    if not world.journal.records:
        assert [] == world.upstream.requests
        return
    record = world.record
    assert record.outcome in ("aborted", case.outcome)
    if record.outcome == "aborted" and world.upstream.requests:
        assert 0 != record.cost_pico


# -- anything at all -----------------------------------------------------------------------------

odd = [b"", b": ping\n\n", WORDS[1][:30], TOLD, b"\xff", b'data: {"id":"\xff"}\n\n']
pieces = st.sampled_from([*STREAM, *WHOLE, *odd])
# A provider that is silent for ever is cut off by its timeout, so a script ends or breaks.
steps = st.lists(pieces | st.sampled_from([LEAVE, UNSENT, LATE, BROKEN]), max_size=9)
plays = st.builds(
    Play,
    status=st.sampled_from([200, 200, 200, 400, 429, 500]),
    headers=st.sampled_from([JSON, EVENTS, ()]),
    head=st.sampled_from([None, None, None, UNSENT, LATE, BROKEN, LEAVE]),
    steps=steps,
)


settings_of_world = st.fixed_dictionaries(
    {
        "body": st.booleans().map(lambda is_stream: ask(stream=is_stream)),
        "drains": st.booleans(),
        "missing_usage": st.sampled_from(["estimate", "fail"]),
        "cancel_at": st.none() | st.integers(0, 12),
    }
)


@settings(max_examples=300)
@given(plays, settings_of_world, st.booleans())
def test_whatever_happens_the_books_are_right(play, setting, is_able) -> None:
    """Any script, any client, stopped anywhere: one record for what was admitted, no hold."""
    world = World(play, **setting)
    world.counter.is_able = is_able
    try:
        run(world.call())
    except asyncio.CancelledError:
        assert setting["cancel_at"] is not None

    world.check_books()
    assert len(world.journal.intents) == len(world.journal.records)
