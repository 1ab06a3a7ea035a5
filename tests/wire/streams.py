"""Golden streams of a wire format, cut and broken in every way, for readers of any format.

Must never hold an expectation: those stand in the golden folders.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from gateway.wire.facts import Answer, StreamLane

GOLDEN: Final = Path(__file__).parent.parent / "golden"
# Values no field should have, to put in the place of those it has.
ODD_VALUES: Final = st.sampled_from(
    [None, True, -1, 0, 1.5, 10**30, 1e300, "", "x", "7", "-3", [], [1], {}, {"a": None}, "\udc80"]
)


def streams_of(*formats: str) -> dict[str, bytes]:
    """Read the streamed answers of formats, by case."""
    return {
        f"{path.parent.parent.name}/{path.parent.name}": path.read_bytes()
        for name in formats
        for suffix in ("sse", "ndjson")
        for path in sorted((GOLDEN / name).glob(f"*/reply.{suffix}"))
    }


def wholes_of(*formats: str) -> dict[str, Any]:
    """Read the whole answers of formats, by case."""
    return {
        f"{path.parent.parent.name}/{path.parent.name}": json.loads(path.read_bytes())
        for name in formats
        for path in sorted((GOLDEN / name).glob("*/reply.json"))
    }


def run(lane: StreamLane, chunks: list[bytes]) -> tuple[bytes, bytes, dict[str, Any]]:
    """Pass a stream; give what passed at once, what was held, and what was read."""
    passed = b"".join([lane.feed(chunk) for chunk in chunks])
    return passed, lane.finish(), shown(lane.answer)


def shown(answer: Answer) -> dict[str, Any]:
    """Show what was read of an answer."""
    usage = answer.usage
    return {
        "counts": usage and {meter.value: count for meter, count in usage.counts.items()},
        "basis": usage and usage.basis.value,
        "flags": (*answer.flags, *(usage.flags if usage else ())),
        "text": "".join(answer.text),
        "model": answer.model,
        "id": answer.request_id,
        "ends": (answer.is_finished, answer.is_complete, answer.is_error, answer.is_readable),
    }


def places_of(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """List every place in a JSON value."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else ()
    for key, one in enumerate(value) if isinstance(value, list) else inner:
        yield from places_of(one, (*path, key))


def replaced(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    """Write a JSON value with another one in a place."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy
