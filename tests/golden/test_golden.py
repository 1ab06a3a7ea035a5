"""Recorded answers go through the whole path; counts and cost are those worked out by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.upstream import UpstreamBroken
from pricing.money import pico_to_text
from tests.path.virtual_time import run
from tests.path.world import EVENTS, JSON, Play, Step, World
from tests.wire.sse_reference import parse_events

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("*/*/"))
CUTS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda body: [body],
    "by lines": lambda body: body.splitlines(keepends=True),
    "by 7 bytes": lambda body: [body[at : at + 7] for at in range(0, len(body), 7)],
}


def play_of(case: Path, cut: Callable[[bytes], list[bytes]]) -> tuple[Play, bytes]:
    """Make a case's answer a script, and tell the bytes of the answer."""
    streamed = case / "reply.sse"
    if not streamed.exists():
        body = (case / "reply.json").read_bytes()
        status = 400 if "error" in json.loads(body) else 200
        return Play(status=status, headers=JSON, steps=cut(body)), body
    body = streamed.read_bytes()
    steps: list[Step] = list(cut(body))
    if not body.endswith(b"\n\n"):
        steps.append(UpstreamBroken("cut"))
    return Play(headers=EVENTS, steps=steps), body


def called(case: Path, cut: str) -> tuple[World, bytes]:
    """Make the call of a case."""
    play, body = play_of(case, CUTS[cut])
    world = World(play, body=(case / "request.json").read_bytes())
    run(world.call())
    world.check_books()
    return world, body


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_counts_and_cost_are_those_worked_out_by_hand(case: Path, cut: str) -> None:
    """Every line of ``usage.txt`` and ``items.txt``, in order."""
    record = called(case, cut)[0].record
    counted = [f"{meter} {count}" for meter, count in record.usage.items()]
    billed = [
        f"{line.sku} {line.quantity} {line.unit_price}/{line.per} {pico_to_text(line.cost_pico)}"
        for line in record.lines
    ]
    assert record.cost_pico is not None

    assert (case / "usage.txt").read_text().splitlines() == [f"basis {record.basis}", *counted]
    assert (case / "items.txt").read_text().splitlines() == [
        *billed,
        f"total {pico_to_text(record.cost_pico)}",
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_the_client_reads_what_the_provider_wrote(case: Path) -> None:
    """Byte for byte, but for a usage chunk nobody asked for and an error event after a break."""
    world, body = called(case, "by 7 bytes")
    got = b"".join(world.client.got)
    wants_usage = b"include_usage" in (case / "request.json").read_bytes()
    kept = [e for e in parse_events(body) if wants_usage or not _is_extra_usage(e)]

    if not (case / "reply.sse").exists():
        assert body == got
    elif body.endswith(b"\n\n"):
        assert kept == parse_events(got)
    else:
        assert kept[:-1] == parse_events(got)[: len(kept) - 1]


def _is_extra_usage(event: bytes) -> bool:
    if event == b"[DONE]":
        return False
    try:
        said = json.loads(event)
    except ValueError:
        return False
    return bool(said.get("usage")) and not said.get("choices")


def test_there_are_cases() -> None:
    """An empty grid would prove nothing."""
    assert {"request.json", "usage.txt", "items.txt"} <= set.intersection(
        *({path.name for path in case.iterdir()} for case in CASES)
    )
    assert len(CASES) >= 15
