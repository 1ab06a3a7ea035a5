"""Recorded answers go through the whole path; counts and cost are those worked out by hand."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.upstream import UpstreamBroken
from pricing.book import load_book
from pricing.money import pico_to_text
from tests.path.virtual_time import run
from tests.path.world import BOOK, Address, Play, Step, World
from tests.wire.sse_reference import parse_events

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/*/usage.txt"))
CUTS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda body: [body],
    "by lines": lambda body: body.splitlines(keepends=True),
    "by 7 bytes": lambda body: [body[at : at + 7] for at in range(0, len(body), 7)],
}
CONTENT_TYPES: Final = {
    ".json": "application/json",
    ".sse": "text/event-stream; charset=utf-8",
    ".ndjson": "application/x-ndjson",
    ".array": "application/json",
    ".bin": "application/octet-stream",
}
ADDRESS: Final = ("kind", "path", "method", "query", "base_url", "region")
SCENE: Final = ("limits", "mode", "deployments", "drains", "missing_usage", "unpriced")

_book = cache(load_book)


def about(case: Path) -> dict[str, Any]:
    """What a case says beside its bytes, over what its format says."""
    told: dict[str, Any] = {}
    for file in (case.parent / "about.json", case / "about.json"):
        if file.exists():
            told |= json.loads(file.read_text())
    return told


def reply_of(case: Path) -> Path:
    """The file that holds the answer."""
    return next(case.glob("reply.*"))


def play_of(case: Path, cut: Callable[[bytes], list[bytes]]) -> tuple[Play, bytes]:
    """Make a case's answer a script, and tell the bytes of the answer."""
    told, reply = about(case), reply_of(case)
    body = reply.read_bytes()
    status = told.get("status", 200)
    if reply.suffix == ".json" and "status" not in told and "error" in json.loads(body):
        status = 400
    headers = {
        "content-type": CONTENT_TYPES[reply.suffix],
        "x-request-id": "req_1",
        **told.get("reply_headers", {}),
    }
    steps: list[Step] = list(cut(body))
    if told.get("is_broken", reply.suffix == ".sse" and not body.endswith((b"\n\n", b"\r\n\r\n"))):
        steps.append(UpstreamBroken("cut"))
    return Play(status=status, headers=list(headers.items()), steps=steps), body


def called(case: Path, cut: str) -> tuple[World, bytes]:
    """Make the call of a case."""
    play, body = play_of(case, CUTS[cut])
    told = about(case)
    world = World(
        play,
        body=next(case.glob("request.*")).read_bytes(),
        headers=list(told.get("headers", {}).items()),
        book=_book(told["book"]) if "book" in told else BOOK,
        address=Address(**{name: told[name] for name in ADDRESS if name in told}),
        **{name: told[name] for name in SCENE if name in told},
    )
    run(world.call())
    world.check_books()
    return world, body


def name_of(case: Path) -> str:
    """Format and case."""
    return f"{case.parent.name}/{case.name}"


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_counts_and_cost_are_those_worked_out_by_hand(case: Path, cut: str) -> None:
    """Every line of ``usage.txt`` and ``items.txt``, in order."""
    record = called(case, cut)[0].record
    counted = [f"{meter} {count}" for meter, count in record.usage.items()]
    billed = [
        f"{line.sku} {line.quantity} {line.unit_price}/{line.per} {pico_to_text(line.cost_pico)}"
        for line in record.lines
    ]
    total = "unknown" if record.cost_pico is None else pico_to_text(record.cost_pico)

    assert (case / "usage.txt").read_text().splitlines() == [f"basis {record.basis}", *counted]
    assert (case / "items.txt").read_text().splitlines() == [*billed, f"total {total}"]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_client_reads_what_the_provider_wrote(case: Path) -> None:
    """Byte for byte, but for a usage chunk nobody asked for and an error event after a break."""
    world, body = called(case, "by 7 bytes")
    got = b"".join(world.client.got)

    if reply_of(case).suffix == ".array" and about(case).get("is_broken"):
        assert got
        assert body.startswith(got), "half an object is not passed on, and nothing follows it"
        return
    if reply_of(case).suffix != ".sse":
        assert body == got[: len(body)] if about(case).get("is_broken") else body == got
        return
    asked = next(case.glob("request.*")).read_bytes()
    wants_usage = b"include_usage" in asked or about(case).get("keeps_usage", False)
    kept = [e for e in parse_events(body) if wants_usage or not _is_extra_usage(e)]
    if body.endswith((b"\n\n", b"\r\n\r\n")):
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
    return bool(said.get("usage")) and not said.get("choices") and "choices" in said


def test_there_are_cases() -> None:
    """An empty grid would prove nothing."""
    assert all({"usage.txt", "items.txt"} <= {p.name for p in case.iterdir()} for case in CASES)
    assert len(CASES) >= 15
