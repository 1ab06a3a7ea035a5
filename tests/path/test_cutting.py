"""A stream that comes to more than its hold is held for more, or ended where there is no more."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.cutting import LOOK_BYTES, SPARE_TOKENS, STEP_CHARS_MIN
from gateway.ledger.recovery import end_aborted
from tests.budgets.builders import usd
from tests.openai_answers import USAGE, chunk, spoken, usage_chunk
from tests.path.virtual_time import run
from tests.path.world import BOOK, DONE, EVENTS, LEAVE, Address, Play, Step, World, ask, frames

STREAMED = ask(stream=True)
# The call may have 400 tokens; its ceiling is 9.57 thousandths of a dollar.
TIGHT = ["cap year 0.0096 USD"]
WORDS = (" word",) * 4000


def told(*words: str) -> list[bytes]:
    """A stream of that many words, with its usage and its end."""
    usage = {**USAGE, "completion_tokens": len(words)}
    return [*frames(*spoken(*words)), *frames(usage_chunk(usage)), DONE]


def world(steps: Sequence[Step], limits: Sequence[str] = TIGHT, **fields: Any) -> World:
    """A provider that does not keep to the limit it was given."""
    fields = {"body": STREAMED} | fields
    return World(Play(headers=EVENTS, steps=steps), limits=limits, **fields)


def text_of(one: World) -> str:
    """What the client got."""
    return b"".join(one.client.got).decode()


def test_a_stream_over_its_hold_is_cut_where_the_budget_has_no_more() -> None:
    """The client is told inside the stream, the provider is let go, the record says it."""
    one = world(told(*WORDS))
    run(one.call())
    got = text_of(one)
    last = json.loads(got.strip().rpartition("data: ")[2])

    assert "budget_exceeded" == last["error"]["code"]
    assert "[DONE]" not in got
    assert ("cut_by_budget", 200) == (one.record.outcome, one.record.http_status)
    assert [("cap", "cut_by_budget")] == one.watcher.said_no
    assert [("cap", "cut")] == one.watcher.acts
    one.check_books()


def test_what_had_passed_is_what_is_booked() -> None:
    """Counted here, and not at the bound that was passed long before."""
    one = world(told(*WORDS))
    run(one.call())
    words = text_of(one).count(" word")

    assert one.record.basis == "estimated"
    assert one.record.output_total is not None
    assert words <= one.record.output_total <= words + 8
    assert 400 < words < len(WORDS)


def test_a_cut_comes_within_one_look() -> None:
    """What passes after the line was crossed is bounded by the bytes between two looks."""
    one = world(told(*WORDS))
    run(one.call())
    between = LOOK_BYTES // len(frames(chunk({"content": " word"}))[0]) + 1
    step = STEP_CHARS_MIN // len(" word") + 1

    assert text_of(one).count(" word") <= 400 * 5 // 4 + SPARE_TOKENS + step + between


def test_a_stream_over_its_hold_goes_on_where_the_budget_has_room() -> None:
    """More is held while it runs, and given back when it ends."""
    one = world(told(*WORDS), ["cap year 100 USD", "tokens year 90000000 tokens"])
    run(one.call())

    assert "[DONE]" in text_of(one)
    assert ("ok", "reported") == (one.record.outcome, one.record.basis)
    assert any("cost exceeds the ceiling" in flag for flag in one.record.flags)
    one.check_books()


def test_what_is_held_beside_the_first_hold_is_written_down() -> None:
    """A process that is killed then finds in its journal what was held last, not what was first."""
    one = world(told(*WORDS), ["cap year 100 USD", "tokens year 90000000 tokens"])
    run(one.call())
    (intent,) = one.journal.intents
    aborted = end_aborted(intent, intent.started_at_us, lambda version, provider: BOOK)

    assert one.record.ceiling_pico is not None
    assert aborted.cost_pico is not None
    assert intent.ceiling_pico is not None
    assert one.record.ceiling_pico < intent.ceiling_pico <= aborted.cost_pico
    assert aborted.input_total is not None
    assert aborted.output_total is not None
    assert 4000 <= aborted.output_total
    assert intent.ceiling_tokens is not None
    assert intent.ceiling_tokens <= aborted.input_total + aborted.output_total


def test_a_full_journal_does_not_end_a_stream() -> None:
    """More is held all the same, and what was used is recorded."""
    one = world(told(*WORDS), ["cap year 100 USD"])
    one.journal.takes_more = False
    run(one.call())

    assert ("ok", "reported") == (one.record.outcome, one.record.basis)
    one.check_books()


def test_an_answer_within_its_hold_is_never_cut() -> None:
    """However many bytes it takes: what counts is what it comes to."""
    padding = [b": " + b"x" * 1000 + b"\n\n"] * 100
    one = world([*frames(chunk({"content": "a"})), *padding, *told(*WORDS[:300])])
    run(one.call())

    assert "ok" == one.record.outcome
    one.check_books()


@pytest.mark.parametrize("mode", ["soft", "observe"])
def test_soft_budgets_cut_nothing(mode: Any) -> None:
    """Only a hard budget ends a stream."""
    one = world(told(*WORDS), mode=mode)
    run(one.call())

    assert ("ok", []) == (one.record.outcome, one.watcher.said_no)


def test_reported_usage_is_believed_at_once() -> None:
    """A running total over the hold ends the stream, without any count."""
    total = {**USAGE, "completion_tokens": 5000, "completion_tokens_details": None}
    steps = [*frames(chunk({"content": "a"})), *frames(chunk({"content": "b"}, usage=total))]
    padding = [b": " + b"x" * 1000 + b"\n\n"] * 20
    one = world([*steps, *padding, *frames(chunk({"content": "never"}))])
    one.counter.is_able = False
    run(one.call())

    assert "cut_by_budget" == one.record.outcome
    assert "never" not in text_of(one)
    assert ("partial", 5000) == (one.record.basis, one.record.output_total)
    one.check_books()


def test_what_cannot_be_counted_is_not_cut() -> None:
    """Without a count nobody knows that the line was crossed."""
    one = world(told(*WORDS))
    one.counter.is_able = False
    run(one.call())

    assert "ok" == one.record.outcome


def test_tokens_draw_the_line_too() -> None:
    """A budget of tokens ends a stream as one of money does."""
    one = world(told(*WORDS), ["cap year 100 USD", "flow year 1200 tokens"])
    run(one.call())

    assert "cut_by_budget" == one.record.outcome
    assert [("flow", "cut_by_budget")] == one.watcher.said_no


def test_a_client_that_leaves_meanwhile_is_nothing_special() -> None:
    """The call ends once, whoever ends it."""
    steps: list[Step] = [*told(*WORDS)]
    steps.insert(900, LEAVE)
    for limits in (TIGHT, ["cap year 100 USD"]):
        for drains in (True, False):
            one = world(steps, limits, drains=drains)
            run(one.call())
            one.check_books()


def test_a_stream_that_breaks_while_more_is_held_gives_it_back() -> None:
    """Every hold ends with its call: nothing stays held, the spending is the record's."""
    one = world(told(*WORDS)[:3000], ["cap year 100 USD"])
    run(one.call())

    assert 0 == one.budgets.open_holds
    one.check_books()


def test_where_nobody_knows_all_that_was_held_is_parked() -> None:
    """Under ``missing_usage: fail`` the amounts stay counted, those held later too."""
    one = world(told(*WORDS)[:3900], ["cap year 100 USD"], missing_usage="fail")
    run(one.call())
    spent, parked, held = one.spent()

    assert one.record.ceiling_pico is not None
    assert (True, True, 0) == (spent == parked, parked > one.record.ceiling_pico, held)
    assert parked > usd("0.03")


def test_an_anthropic_stream_ends_in_its_own_words() -> None:
    """The error is an event of the caller's dialect."""
    head = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m",'
        b'"model":"claude-haiku-4-5","type":"message","role":"assistant","content":[],"usage":{"input_tokens":9,'
        b'"output_tokens":1}}}\n\n'
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n'
    )
    word = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":" word"}}\n\n'
    )
    body = json.dumps(
        {
            "model": "claude-haiku-4-5",
            "max_tokens": 100,
            "stream": True,
            "messages": [{"role": "user", "content": "Hello"}],
        }
    ).encode()
    address = Address(kind="anthropic", path="/anthropic/v1/messages", base_url="http://provider")
    one = world([head, *[word] * 2000], ["cap year 0.002 USD"], body=body, address=address)
    run(one.call())

    assert ("cut_by_budget", "partial") == (one.record.outcome, one.record.basis)
    assert "event: error" in text_of(one)
    one.check_books()
