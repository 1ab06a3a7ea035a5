"""Where time has a price it is metered, held for, and ended at its limit, whatever else happens."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from gateway.upstream import UpstreamBroken, UpstreamUnsent
from pricing.selfhosted import Deployment, TimeTerms
from tests.openai_answers import SERVED_MODEL
from tests.path.virtual_time import run
from tests.path.world import (
    CALL_S_MAX,
    EVENTS,
    LEAVE,
    STALL,
    STREAM,
    WHOLE,
    WORDS,
    Pause,
    Play,
    World,
    ask,
)

# Four GPUs at 3,600 USD an hour: a second of a call costs 4 USD.
HOUSE = Deployment(
    provider="house",
    model="gpt-5",
    aliases=(SERVED_MODEL,),
    gpus=4,
    gpu_hour=Decimal(3600),
    starts=datetime(2026, 1, 1, tzinfo=UTC),
    terms=TimeTerms(),
)
CEILING_PICO = int(CALL_S_MAX) * 4 * 10**12
ROOM = ("cap year 200 USD",)


def play(*steps: Any, stream: bool = False, **world: Any) -> World:
    """Make a call to a model priced by time."""
    script = Play(headers=EVENTS, steps=steps) if stream else Play(steps=steps)
    made = World(script, body=ask(stream=stream), timed=HOUSE, **{"limits": ROOM, **world})
    run(made.call())
    made.check_books()
    return made


def spent_on_time(world: World) -> tuple[str | int | None, str]:
    """The GPU seconds of the only record, and what they cost."""
    record = world.record
    (line,) = [line for line in record.lines if line.meter == "gpu_second"]
    assert line.cost_pico == record.cost_pico
    assert record.usage["gpu_second"] == line.quantity
    return line.quantity, f"{Decimal(line.cost_pico) / 10**12:f}"


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_costs_the_time_it_takes(stream: bool) -> None:
    """2.5 seconds on four GPUs are ten GPU seconds; tokens are counted and cost nothing."""
    steps = (Pause(2.5), *(STREAM if stream else WHOLE))
    world = play(*steps, stream=stream)
    record = world.record

    # Looking once whether the client has left takes half a millisecond of the four GPUs.
    assert ("10.002000", "10.002") == spent_on_time(world)
    assert ("ok", "reported", CEILING_PICO) == (record.outcome, record.basis, record.ceiling_pico)
    assert (1248, 210) == (record.input_total, record.output_total)
    assert record.price_version is not None
    assert record.price_version.startswith("2026-11-23.1+local.")


def test_the_most_it_can_take_is_held() -> None:
    """120 USD for thirty seconds of four GPUs: a budget with less room refuses by name."""
    refused = play(*WHOLE, limits=("cap year 119.99 USD",))
    admitted = play(*WHOLE, limits=("cap year 120 USD",))

    assert ("refused", 429) == (refused.record.outcome, refused.client.status)
    assert "ok" == admitted.record.outcome
    assert {"gpu_second": 120} == {
        meter: count
        for meter, count in admitted.journal.intents[0].bound_usage.items()
        if meter == "gpu_second"
    }


@pytest.mark.parametrize(
    ("steps", "stream", "status"),
    [
        ((STALL,), False, 504),
        ((Pause(10), WHOLE[0][:50], Pause(10), WHOLE[0][50:60], STALL), False, 504),
        ((*(step for word in WORDS for step in (word, Pause(9))), STALL), True, 200),
    ],
    ids=["silent", "slow", "streams on"],
)
def test_a_call_ends_at_its_limit(steps: Any, stream: bool, status: int) -> None:
    """Nothing runs past what was held, not even an answer that keeps coming."""
    world = play(*steps, stream=stream)

    assert (120, "120") == (
        int(Decimal(str(spent_on_time(world)[0]))),
        spent_on_time(world)[1],
    )
    assert ("upstream_error", status) == (world.record.outcome, world.record.http_status)
    assert any("longer than 30 s" in flag for flag in world.record.flags)


def test_a_head_that_never_comes_ends_at_the_limit_too() -> None:
    """Waiting for the first byte is time as well."""
    world = World(Play(head=STALL), timed=HOUSE, limits=ROOM)
    run(world.call())

    world.check_books()
    assert "120" == spent_on_time(world)[1]
    assert 504 == world.client.status


def test_a_broken_answer_costs_its_time() -> None:
    """What was not reported is counted here; the time is known either way."""
    world = play(*WORDS[:2], Pause(1), UpstreamBroken("x"), stream=True)

    assert ("4.000000", "4") == spent_on_time(world)
    assert "estimated" == world.record.basis


def test_a_client_that_leaves_ends_the_time() -> None:
    """The upstream call is cancelled, and only the time until then costs."""
    world = play(*WORDS[:2], Pause(1), LEAVE, STALL, stream=True)

    assert "client_disconnected" == world.record.outcome
    assert Decimal(4) <= Decimal(spent_on_time(world)[1]) < Decimal(120)


def test_what_was_never_sent_took_no_time() -> None:
    """A provider that cannot be reached costs nothing."""
    world = World(Play(head=UpstreamUnsent("x")), timed=HOUSE, limits=ROOM)
    run(world.call())

    world.check_books()
    assert (0, {}) == (world.record.cost_pico, world.record.usage)


@pytest.mark.parametrize("place", range(1, 12))
def test_a_stopped_gateway_books_the_time_so_far(place: int) -> None:
    """Cancelled at any await, the call has one end, and its time is never free."""
    world = World(
        Play(headers=EVENTS, steps=(*STREAM[:-1], Pause(1), STREAM[-1])),
        body=ask(stream=True),
        timed=HOUSE,
        limits=ROOM,
        cancel_at=place,
    )
    with pytest.raises(BaseException):  # noqa: B017, PT011 - cancellation, wherever it falls
        run(world.call())

    world.check_books()
    if world.journal.intents and world.record.lines:
        assert (world.record.usage.get("gpu_second") is None) == (world.record.cost_pico == 0)
