"""Answers that come compressed are metered like any other, and pass as they came."""

import gzip
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped] # it has none
import pytest
import zstandard

from tests.path.virtual_time import run
from tests.path.world import DONE, EVENTS, FULL_COST_PICO, JSON, STREAM, WHOLE, Play, World, ask

PRESSES: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda plain: gzip.compress(plain, mtime=0),
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": lambda plain: zstandard.ZstdCompressor().compress(plain),
}
USAGE = {"input": 224, "cache_read": 1024, "output": 146, "reasoning": 64}


def cut(body: bytes, size: int) -> list[bytes]:
    """Pieces of a size."""
    return [body[at : at + size] for at in range(0, len(body), size)]


def called(world: World) -> World:
    """Make the call; the books balance afterwards."""
    run(world.call())
    world.check_books()
    return world


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("encoding", PRESSES)
def test_a_whole_answer_is_metered_and_passes_as_it_came(encoding: str, size: int) -> None:
    """The client undoes the encoding, as it asked for it or its provider chose it."""
    packed = PRESSES[encoding](b"".join(WHOLE))
    headers = [*JSON, ("content-encoding", encoding)]
    world = called(World(Play(headers=headers, steps=cut(packed, size))))

    assert packed == b"".join(world.client.got)
    assert encoding == world.client.told["content-encoding"]
    assert USAGE == world.record.usage
    assert (FULL_COST_PICO, "reported", "final") == (
        world.record.cost_pico,
        world.record.basis,
        world.record.cost_status,
    )


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("encoding", PRESSES)
@pytest.mark.parametrize("wants_usage", [True, False])
def test_a_stream_is_metered_and_passes_as_it_came(
    encoding: str, size: int, wants_usage: bool
) -> None:
    """Nothing is taken out of it or put behind it: plain bytes would break what is compressed."""
    packed = PRESSES[encoding](b"".join(STREAM))
    headers = [*EVENTS, ("content-encoding", encoding)]
    options = {"stream_options": {"include_usage": True}} if wants_usage else {}
    world = called(
        World(
            Play(headers=headers, steps=cut(packed, size)),
            body=ask(stream=True, **options),
            headers=[("x-taximeter-stream-cost", "1")],
        )
    )

    assert packed == b"".join(world.client.got)
    assert USAGE == world.record.usage
    assert (FULL_COST_PICO, "reported", "ok") == (
        world.record.cost_pico,
        world.record.basis,
        world.record.outcome,
    )


def test_the_end_of_a_compressed_stream_waits_for_the_settlement() -> None:
    """Flushed event by event, as a server sends it: the last event goes out last."""
    press = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    steps = [press.compress(event) + press.flush(zlib.Z_SYNC_FLUSH) for event in STREAM]
    steps.append(press.flush())
    headers = [*EVENTS, ("content-encoding", "gzip")]
    world = called(World(Play(headers=headers, steps=steps), body=ask(stream=True)))

    assert DONE == STREAM[-1]
    assert steps[-2] + steps[-1] == world.client.got[-1]
    assert world.awaits.places.index("synced") < world.awaits.places.index("finish")


def test_trouble_is_not_written_behind_compressed_bytes() -> None:
    """The client is told by the end that is missing."""
    packed = gzip.compress(b"".join(STREAM), mtime=0)
    headers = [*EVENTS, ("content-encoding", "gzip")]
    world = World(Play(headers=headers, steps=cut(packed, 50)), body=ask(stream=True))
    world.journal.is_syncing = False
    run(world.call())
    got = b"".join(world.client.got)

    assert packed.startswith(got)
    assert len(got) < len(packed)
    assert world.client.is_finished


def test_an_encoding_nobody_knows_is_booked_at_the_ceiling() -> None:
    """It passes all the same."""
    headers = [*EVENTS, ("content-encoding", "rot13")]
    world = called(World(Play(headers=headers, steps=[b"qngn"]), body=ask(stream=True)))

    assert b"qngn" == b"".join(world.client.got)
    assert "estimated" == world.record.basis
    assert world.record.ceiling_pico == world.record.cost_pico
    assert any("rot13" in flag for flag in world.record.flags)
