"""What users wrote, in the record: counted in time, or left out, and never in the way."""

import asyncio
from collections.abc import Mapping

import pytest
from msgspec import UNSET

from gateway.user_tokens import QUIET_CALLS_MAX, UserTokens
from tests.path.virtual_time import run
from tests.path.world import STREAM, WHOLE, Play, World, ask


class SlowCounter:
    """Counts when it is told to."""

    is_warm = True

    def __init__(self) -> None:
        self.counting: asyncio.Future[Mapping[str, int] | None] | None = None

    def count_prompt(
        self, api: str, body: bytes, model: str
    ) -> "asyncio.Future[Mapping[str, int] | None] | None":
        self.counting = asyncio.get_running_loop().create_future()
        return self.counting


def with_counter(world: World, tokens: UserTokens) -> World:
    """Put another counter on the path."""
    object.__setattr__(world.path, "user_tokens", tokens)
    return world


@pytest.mark.parametrize("steps", [WHOLE, STREAM], ids=["whole", "streamed"])
def test_the_record_says_what_the_user_wrote(steps: list[bytes]) -> None:
    """Two tokens of the user's, beside the instruction and what the SDK says of retries."""
    body = ask(
        messages=[
            {"role": "system", "content": "Be kind and brief"},
            {"role": "user", "content": "Hello world"},
        ]
    )
    headers = [("x-stainless-retry-count", "1")]
    world = World(Play(steps=steps), body=body, headers=headers)

    run(world.call())

    assert 2 == world.record.user_input_tokens
    assert {"user": 2, "system": 4, "retries": 1} == world.record.input_parts


def test_what_could_not_be_counted_is_left_out() -> None:
    """Null, which is not zero."""
    world = World(Play(steps=WHOLE))
    world.counter.is_able = False

    run(world.call())

    assert world.record.user_input_tokens is None
    assert world.record.input_parts is UNSET


def test_a_lone_call_waits_a_moment_and_no_longer() -> None:
    """A counter that never answers costs a quarter of a second."""
    world = with_counter(World(Play(steps=WHOLE)), UserTokens(SlowCounter(), 1))

    async def timed() -> float:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await world.call()
        return loop.time() - started_s

    assert 0.25 == pytest.approx(run(timed()), abs=0.01)
    assert world.record.user_input_tokens is None


def test_nobody_waits_where_calls_are_many() -> None:
    """A late count is left out at once."""
    world = with_counter(World(Play(steps=WHOLE)), UserTokens(SlowCounter(), 1))
    world.watcher.opened_calls = QUIET_CALLS_MAX

    async def timed() -> float:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await world.call()
        return loop.time() - started_s

    assert 0 == pytest.approx(run(timed()), abs=0.01)
    assert world.record.user_input_tokens is None


def test_a_share_of_the_calls_is_counted() -> None:
    """None at zero; about a third of them at a third."""

    def count_at(share: float, calls: int) -> int:
        counted = 0
        for _ in range(calls):
            world = World(Play(steps=WHOLE))
            run(with_counter(world, UserTokens(world.counter, share)).call())
            counted += world.record.user_input_tokens is not None
        return counted

    assert 0 == count_at(0, 5)
    assert 5 <= count_at(1 / 3, 60) <= 40
