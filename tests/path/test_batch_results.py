"""What a batch has used is booked for whoever fetches its results, however they are fetched."""

from pathlib import Path
from typing import Final

import pytest

from pricing.book import load_book
from tests.path.test_recall import Story
from tests.path.virtual_time import run
from tests.path.world import JSON, LEAVE, Address, FakeClient, Play, Step, World

GOLDEN: Final = Path(__file__).parent.parent / "golden"
BOOK: Final = load_book("2026-11-23.2")
TYPES: Final = (("content-type", "application/x-ndjson"),)


class Fetch:
    """Results of one provider's batch, as its golden case has them.

    Attributes:
        lines: One by one.
        address: Where they are fetched.
        total: What they cost in all, in 10^-12 USD.
    """

    def __init__(self, case: str, address: Address, total: int) -> None:
        """Take the results and what they cost in all."""
        self.lines = next((GOLDEN / case).glob("reply.*")).read_bytes().splitlines(keepends=True)
        self.address = address
        self.total = total

    @property
    def whole(self) -> bytes:
        """All of them."""
        return b"".join(self.lines)


RESULTS: Final = Address(
    kind="anthropic",
    path="/anthropic/v1/messages/batches/msgbatch_01/results",
    method="GET",
    base_url="http://provider",
)
FETCHES: Final = {
    "anthropic": Fetch("anthropic_batches/results", RESULTS, 1_225_000_000),
    "openai": Fetch(
        "openai_batches/one-model",
        Address(path="/v1/files/file-out1/content", method="GET"),
        2_518_750_000,
    ),
    "mistral": Fetch(
        "mistral_batches/results",
        Address(
            kind="mistral",
            path="/mistral/v1/files/file_9/content",
            method="GET",
            base_url="http://provider/v1",
        ),
        6_750_000,
    ),
}


@pytest.mark.parametrize("provider", FETCHES)
@pytest.mark.parametrize("left_after", [0, 1, 2])
def test_who_leaves_before_the_last_line_pays_for_all_lines(provider: str, left_after: int) -> None:
    """Results are read to their end although nobody listens any more."""
    fetch = FETCHES[provider]
    steps: list[Step] = [*fetch.lines[:left_after], LEAVE, *fetch.lines[left_after:]]
    world = World(Play(headers=TYPES, steps=steps), address=fetch.address, book=BOOK)

    run(world.call())

    assert ("reported", fetch.total) == (world.record.basis, world.record.cost_pico)


@pytest.mark.parametrize("provider", FETCHES)
def test_a_range_of_results_is_not_forwarded(provider: str) -> None:
    """Of two ranges with a line between them nobody would see what that line has used."""
    fetch = FETCHES[provider]
    headers = [("range", "bytes=0-99")]
    world = World(Play(headers=TYPES, steps=(fetch.whole,)), address=fetch.address, headers=headers)

    run(world.call())

    assert (400, []) == (world.client.status, world.upstream.requests)


@pytest.mark.parametrize("provider", FETCHES)
def test_a_part_is_not_taken_for_the_whole(provider: str) -> None:
    """What came of a part is booked as one, and the whole completes it."""
    fetch = FETCHES[provider]
    story = Story()
    story.world = World(Play(), address=fetch.address, book=BOOK)
    story.ledger.records = story.world.journal.records
    story.forget()
    part = b"".join(fetch.lines[:1])

    first = story.call(fetch.address, part, headers=TYPES, status=206)
    story.call(fetch.address, fetch.whole, headers=TYPES)

    assert "partial" == first.basis
    assert 0 < (first.cost_pico or 0) < fetch.total
    (correction,) = story.corrections()
    assert fetch.total == (first.cost_pico or 0) + (correction.cost_pico or 0)


def test_an_id_that_a_caller_made_up_stands_for_nothing() -> None:
    """Servers say the id of a request again; a batch is not paid for by a call that took its id."""
    fetch = FETCHES["openai"]
    story = Story()
    body = b'{"model":"text-embedding-3-small","input":"x"}'
    reply = b'{"data":[],"usage":{"prompt_tokens":1,"total_tokens":1}}'
    story.world = World(Play(), address=fetch.address, book=BOOK)
    story.ledger.records = story.world.journal.records
    story.forget()
    world = story.world
    world.play = Play(headers=[JSON[0], ("x-request-id", "file-out1")], steps=[reply])
    world.client = FakeClient(
        body,
        world.awaits,
        [("authorization", "Bearer sk-tm-test"), ("x-correlation-id", "file-out1")],
        Address(path="/v1/embeddings"),
    )
    run(world.call())

    fetched = story.call(fetch.address, fetch.whole, headers=TYPES)

    assert world.journal.records[0].provider_request_id is None
    assert ("reported", fetch.total) == (fetched.basis, fetched.cost_pico)
