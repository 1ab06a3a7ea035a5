"""Answers are read on for clients that have left, but only so many at once.

Must never lose a record, a hold or a place, however many leave.
"""

import asyncio
from typing import Final

import pytest

from gateway.exchange import Drains
from gateway.headers import RawHeaders
from tests.path.virtual_time import run
from tests.path.world import (
    CHAT,
    DONE,
    EVENTS,
    FULL_COST_PICO,
    LEAVE,
    SECRET,
    STALL,
    STREAM,
    WORDS,
    FakeClient,
    Pause,
    Play,
    Step,
    World,
    ask,
)

LEFT: Final = "the upstream call was ended because the client had left"
CROWDED: Final = "too many answers were being read for clients that had left"
STREAMED: Final = ask(stream=True)
KEY: Final[RawHeaders] = [("authorization", "Bearer " + SECRET)]
PLAY: Final = Play(headers=EVENTS, steps=[*WORDS[:2], Pause(2), *STREAM[2:]])


def client_of(world: World) -> FakeClient:
    """Somebody who asks for a stream."""
    return FakeClient(STREAMED, world.awaits, KEY, CHAT)


@pytest.mark.parametrize(("places", "clients"), [(0, 5), (3, 3), (3, 50), (50, 3)])
def test_of_many_that_leave_so_many_are_read_to_their_end(places: int, clients: int) -> None:
    """The first get a place and their usage; the rest are counted as far as they were heard."""
    world = World(PLAY, body=STREAMED, drains=True, drains_max=places)

    async def leave_all() -> None:
        callers = [client_of(world) for _ in range(clients)]
        calls = [asyncio.ensure_future(world.path.serve(one)) for one in callers]
        await asyncio.sleep(1)
        for one in callers:
            one.gone.set()
        await asyncio.gather(*calls)

    run(leave_all())

    read = min(places, clients)
    records = world.journal.records
    assert clients == len(records)
    assert {"client_disconnected"} == {record.outcome for record in records}
    full = [record for record in records if record.basis == "reported"]
    assert [FULL_COST_PICO] * read == [record.cost_pico for record in full]
    cut = [record for record in records if record.basis != "reported"]
    assert [("estimated", True)] * (clients - read) == [
        (record.basis, 0 < (record.cost_pico or 0) < FULL_COST_PICO) for record in cut
    ]
    assert all({LEFT, CROWDED} <= set(record.flags) for record in cut)
    assert not any(CROWDED in record.flags for record in full)
    assert (sum(record.cost_pico or 0 for record in records), 0, 0) == world.spent()
    assert 0 == world.budgets.open_holds == world.upstream.open


def test_places_are_given_back_however_a_drain_ends() -> None:
    """Read to the end, stalled until it is given up, or ended with its task."""
    world = World(PLAY, body=STREAMED, drains=True, drains_max=1)

    stalls: list[Step] = [*WORDS[:2], LEAVE, STALL]
    ends: list[Step] = [*WORDS[:2], LEAVE, *STREAM[2:]]

    async def leave_one_by_one() -> None:
        for steps in (stalls, ends):
            world.play = Play(headers=EVENTS, steps=steps)
            world.client = client_of(world)
            await world.call()
        world.play = Play(headers=EVENTS, steps=[*WORDS[:2], STALL])
        world.client = client_of(world)
        call = asyncio.ensure_future(world.path.serve(world.client))
        await asyncio.sleep(1)
        world.client.gone.set()
        await asyncio.sleep(1)
        call.cancel()
        await asyncio.wait({call})

    run(leave_one_by_one())

    assert world.path.drains.begin()
    assert not world.path.drains.begin()
    assert not any(CROWDED in record.flags for record in world.journal.records)


def test_an_answer_that_is_all_but_done_needs_no_place() -> None:
    """Its usage is a few bytes away: it waits for them like where nothing is drained."""
    steps: list[Step] = [*WORDS, Pause(1), *STREAM[len(WORDS) : -1], DONE]
    world = World(Play(headers=EVENTS, steps=steps), body=STREAMED, drains=True, drains_max=0)

    async def leave() -> None:
        call = asyncio.ensure_future(world.call())
        await asyncio.sleep(0.5)
        world.client.gone.set()
        await call

    run(leave())

    assert ("reported", FULL_COST_PICO) == (world.record.basis, world.record.cost_pico)
    assert not world.record.flags


def test_a_place_is_for_one() -> None:
    """No more than there are, and as many again when they are given back."""
    drains = Drains(2)

    assert [True, True, False] == [drains.begin() for _ in range(3)]
    drains.end()
    assert [True, False] == [drains.begin() for _ in range(2)]
