"""The output of a batch as it is read: cut anywhere, odd, huge, or no output at all.

Must never take a part of it for all of it.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.facts import Answer, Asked
from gateway.wire.openai_batches import FileContents
from gateway.wire.tap import EVENT_READ_BYTES_MAX
from pricing.usage import Basis

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "openai_batches"
OUTPUT: Final = (GOLDEN / "several-models-and-a-long-prompt" / "reply.ndjson").read_bytes()
FORMAT: Final = FileContents()
FACTS: Final = FORMAT.read_facts(Asked(method="GET", names={"file_id": "file-1"}))


class _Head:
    """The head of an answer."""

    status = 200
    headers: Final = ()


def fed(pieces: list[bytes], *, is_broken: bool = False) -> tuple[Answer, bytes]:
    """Feed a file in pieces."""
    lane = FORMAT.open_stream(FACTS, _Head())
    passed = b"".join([lane.feed(piece) for piece in pieces])
    return lane.answer, passed + lane.finish(is_broken=is_broken)


@given(cuts=st.lists(st.integers(0, len(OUTPUT)), max_size=8))
def test_an_output_may_be_cut_anywhere(cuts: list[int]) -> None:
    """The same use, the same bytes; also in one piece."""
    edges = [0, *sorted(cuts), len(OUTPUT)]

    answer, passed = fed([OUTPUT[start:end] for start, end in pairwise(edges) if start < end])

    assert OUTPUT == passed
    whole = FORMAT.read_whole(OUTPUT, FACTS, _Head())
    assert (whole.usage, whole.others, "file-1") == (answer.usage, answer.others, answer.once)


@given(body=st.binary(max_size=300))
def test_any_file_passes(body: bytes) -> None:
    """Whatever it holds, and it costs nothing."""
    answer, passed = fed([body]) if body else (Answer(), body)

    assert body == passed
    assert (None, None) == (answer.usage, answer.once)


@given(
    junk=st.dictionaries(
        st.sampled_from(["response", "custom_id", "error"]),
        st.none() | st.integers() | st.text() | st.dictionaries(st.text(), st.integers()),
    )
)
def test_odd_lines_never_raise(junk: dict[str, Any]) -> None:
    """And hide nothing of the lines beside them."""
    odd = json.dumps({"custom_id": 1, "response": 2, **junk}).encode() + b"\n"

    answer, _ = fed([odd + OUTPUT])

    assert answer.usage is not None
    assert fed([OUTPUT])[0].usage is not None
    assert answer.usage.counts == fed([OUTPUT])[0].usage.counts  # type: ignore[union-attr]


def test_what_breaks_off_is_a_part() -> None:
    """Of which the rest is still to come."""
    answer, passed = fed([OUTPUT[:900]], is_broken=True)

    assert OUTPUT[:900] == passed
    assert answer.usage is not None
    assert Basis.PARTIAL is answer.usage.basis


def test_a_line_too_large_to_read_makes_the_rest_unknown() -> None:
    """Not free: nobody has seen all of it."""
    huge = b'{"custom_id":"c","response":{"x":"' + b"a" * (EVENT_READ_BYTES_MAX + 2**20)
    pieces = [OUTPUT, *(huge[at : at + 65_536] for at in range(0, len(huge), 65_536))]

    answer, passed = fed(pieces)

    assert OUTPUT + huge == passed
    assert answer.usage is not None
    assert Basis.PARTIAL is answer.usage.basis
