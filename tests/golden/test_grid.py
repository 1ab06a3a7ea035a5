"""Every wire format has a case in every column that exists for it; what does not exist says why.

Must never make a call: what a case shows is read from its name, its address and its bytes.
"""

import inspect
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from gateway.routes import Provider, Router
from gateway.wire import table
from tests.golden.grid import FREE, NOT_THERE, SESSIONS
from tests.golden.test_golden import CASES, about, reply_of
from tests.path.world import FakeUpstream, Play, World

_EVENTSTREAM: Final = "application/vnd.amazon.eventstream"
_WORDS: Final = {
    "cached": re.compile(r"\b(cached?)\b"),
    "reasoning": re.compile(r"\b(reasoning|thinking|thinks)\b"),
    "tools": re.compile(r"\b(tools|connectors)\b"),
    "images": re.compile(r"\b(images?|picture)\b"),
    "audio": re.compile(r"\b(audio|hears)\b"),
    "error": re.compile(r"\b(error|throttled|overloaded|not-found)\b"),
    "refusal": re.compile(r"\b(refusal|blocked|filtered)\b"),
}
_METERS: Final = {
    "cached": re.compile(r"^cache_read", re.M),
    "reasoning": re.compile(r"^reasoning ", re.M),
    "images": re.compile(r"^(image|\w+_image) ", re.M),
    "audio": re.compile(r"^(audio_second|\w+_audio) ", re.M),
}
COLUMNS: Final = ("whole", "streamed", *_WORDS, "aborted")


@cache
def _never_asked() -> FakeUpstream:
    return World(Play()).upstream


@cache
def _router(kind: str, base_url: str) -> Router:
    provider = Provider(
        id=kind,
        kind=kind,
        base_url=base_url,
        priced_as=kind,
        auth=None,
        headers=(),
        upstream=_never_asked(),
        region=None,
        drains=False,
    )
    return Router({kind: provider})


def format_of(case: Path) -> str:
    """The wire format that reads a case, as its record will name it."""
    told = about(case)
    kind = told.get("kind", "openai")
    router = _router(kind, told.get("base_url", "http://provider/v1"))
    path = told.get("path", "/v1/chat/completions")
    return router.find_surface(told.get("method", "POST"), path).format.api


def columns_of(case: Path) -> set[str]:
    """The columns a case stands in."""
    told, reply = about(case), reply_of(case)
    usage = (case / "usage.txt").read_text()
    columns = {column for column, words in _WORDS.items() if words.search(case.name)}
    columns |= {column for column, meters in _METERS.items() if meters.search(usage)}
    is_stream = (
        reply.suffix in {".sse", ".array"}
        or (reply.suffix == ".ndjson" and told.get("method", "POST") == "POST")
        or told.get("reply_headers", {}).get("content-type") == _EVENTSTREAM
    )
    is_event = reply.suffix == ".sse" and not reply.read_bytes().endswith((b"\n\n", b"\r\n\r\n"))
    if told.get("is_broken", is_event):
        columns.add("aborted")
    elif "error" not in columns and "refusal" not in columns:
        columns.add("streamed" if is_stream else "whole")
    return columns


def read_grid() -> Mapping[str, set[str]]:
    """The columns that have a case, by wire format."""
    grid: dict[str, set[str]] = defaultdict(set)
    for case in CASES:
        grid[format_of(case)] |= columns_of(case)
    return grid


def formats() -> set[str]:
    """Every wire format an address of the gateway has."""
    modules = [part for _, part in inspect.getmembers(table, inspect.ismodule)]
    return {
        endpoint.format.api
        for module in modules
        if hasattr(module, "ENDPOINTS")
        for endpoint in module.ENDPOINTS
    }


def test_every_cell_has_a_case_or_a_reason() -> None:
    """A new format brings its cases along."""
    grid = read_grid()

    holes = {
        name: missing
        for name in formats() - FREE - SESSIONS
        if (missing := set(COLUMNS) - grid.get(name, set()) - set(NOT_THERE.get(name, ())))
    }

    assert not holes


def test_nothing_that_has_a_case_is_said_not_to_exist() -> None:
    """A reason for a cell that is filled would be wrong."""
    grid = read_grid()

    wrong = {name: set(cells) & grid.get(name, set()) for name, cells in NOT_THERE.items()}

    assert not {name: cells for name, cells in wrong.items() if cells}
    assert set(NOT_THERE) | FREE | SESSIONS <= formats(), "a format that is gone"
