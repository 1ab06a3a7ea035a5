"""What is delivered again is metered once, and what comes late completes the record it belongs to.

Must never leave a budget with anything but the sum of what the ledger says.
"""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.earlier import LedgerRecords, Metered, Posted
from gateway.ledger.corrected import posted_call
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.record import LedgerRecord
from pricing.book import load_book
from tests.budgets.builders import budget
from tests.path.virtual_time import run
from tests.path.world import AT, Address, FakeClient, Play, World

MADE: Final = Address(path="/v1/responses")
FETCHED: Final = Address(path="/v1/responses/resp_1", method="GET")
CANCELLED: Final = Address(path="/v1/responses/resp_1/cancel")
EVENTS: Final = (("content-type", "text/event-stream"),)
USAGE: Final = {
    "input_tokens": 1248,
    "input_tokens_details": {"cached_tokens": 1024},
    "output_tokens": 210,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 1458,
}
# 224 x 1.25 + 1024 x 0.125 + 210 x 10 USD per million.
COST: Final = 2_508_000_000
ASKED: Final = {"model": "gpt-5", "input": "Hello world", "background": True}


def response(usage: Mapping[str, Any] | None, status: str = "completed", **more: Any) -> bytes:
    """Write a response."""
    fields = {
        "id": "resp_1",
        "object": "response",
        "status": status,
        "model": "gpt-5-2025-08-07",
        "output": [],
        "service_tier": "default",
        "usage": usage,
        **more,
    }
    return json.dumps(fields).encode()


QUEUED: Final = response(None, "queued", service_tier="auto")
DONE: Final = response(USAGE)


class Ledger:
    """Records looked up in a list; may be out of order.

    Attributes:
        records: Everything it knows.
        is_up: Whether it can be asked.
    """

    def __init__(self, records: list[LedgerRecord]) -> None:
        self.records = records
        self.is_up = True

    async def find_metered(self, provider: str, request_id: str) -> LedgerRecord | None:
        if not self.is_up:
            raise StoreUnavailable("out of order")
        found = [
            one
            for one in self.records
            if (one.provider, one.provider_request_id) == (provider, request_id)
            and one.corrects is None
            and one.basis != "none"
        ]
        return found[-1] if found else None

    async def find_corrections(self, record_id: str) -> tuple[LedgerRecord, ...]:
        if not self.is_up:
            raise StoreUnavailable("out of order")
        return tuple(one for one in self.records if one.corrects == record_id)


class Story:
    """Calls one after the other through one gateway."""

    def __init__(self, **scene: Any) -> None:
        """Set the scene."""
        self.world = World(Play(), address=MADE, **scene)
        self.ledger = Ledger(self.world.journal.records)
        self.forget()

    def forget(self) -> None:
        """Start again: only the ledger remembers."""
        metered = Metered(self.ledger)
        # A dataclass of the composition root: a test puts its own part in its place.
        object.__setattr__(self.world.path.recall, "metered", metered)

    def call(self, address: Address, reply: bytes, body: bytes = b"", **play: Any) -> LedgerRecord:
        """Make one call and give its own record."""
        world = self.world
        before = len(world.journal.intents)
        world.play = Play(steps=[reply], **play)
        headers = [("authorization", "Bearer sk-tm-test")]
        world.client = FakeClient(body, world.awaits, headers, address)
        run(world.call())
        assert reply == b"".join(world.client.got)
        wanted = world.journal.intents[before].id
        (record,) = [one for one in world.journal.records if one.id == wanted]
        return record

    def make(self, **asked: Any) -> LedgerRecord:
        """Ask for a response in the background."""
        return self.call(MADE, QUEUED, json.dumps({**ASKED, **asked}).encode())

    def corrections(self) -> list[LedgerRecord]:
        """Every correction so far."""
        return [one for one in self.world.journal.records if one.corrects is not None]

    def check_budgets(self) -> None:
        """The budgets have exactly what the ledger says, parked where it does not know."""
        tokens = cost = 0
        for record in self.world.journal.records:
            cost += record.cost_pico or 0
            tokens += (record.input_total or 0) + (record.output_total or 0)
        assert (cost, 0, 0) == self.world.spent()
        assert (tokens, 0, 0) == self.world.spent("tokens")


def test_a_background_response_is_booked_at_its_bound_and_completed_when_it_is_fetched() -> None:
    """The record stays; a correction takes it to what the provider reports, line by line."""
    story = Story()
    made = story.make(max_output_tokens=400)
    assert "estimated" == made.basis

    fetched = story.call(FETCHED, DONE)

    (correction,) = story.corrections()
    assert ("none", 0, {}) == (fetched.basis, fetched.cost_pico, fetched.usage)
    assert (made.id, "reported", "final") == (
        correction.corrects,
        correction.basis,
        correction.cost_status,
    )
    assert COST == (made.cost_pico or 0) + (correction.cost_pico or 0)
    assert correction.cost_pico == sum(line.cost_pico for line in correction.lines)
    call = posted_call(made, [correction])
    assert {"input": 224, "cache_read": 1024, "output": 146, "reasoning": 64} == call.usage
    assert ("reported", COST) == (call.basis, call.cost_pico)
    assert call.priced is not None
    assert "standard" == call.priced.tier
    story.check_budgets()


@pytest.mark.parametrize("restarts", [False, True], ids=["", "after a restart"])
def test_what_is_fetched_again_is_not_metered_again(*, restarts: bool) -> None:
    """Whoever asks, however often."""
    story = Story()
    story.make(max_output_tokens=400)
    for _ in range(3):
        if restarts:
            story.forget()
        story.call(FETCHED, DONE)

    assert 1 == len(story.corrections())
    story.check_budgets()


def test_a_response_that_nothing_bounds_is_unknown_until_it_is_fetched() -> None:
    """Unknown is never zero, and what was parked for it is parked no longer."""
    story = Story()
    soft = [budget("cap year 100 USD", mode="soft")]
    story.world.budgets.install([*soft, budget("tokens year 9000000 tokens", mode="soft")], AT)
    made = story.make(tools=[{"type": "web_search"}])
    assert ("unknown", None) == (made.basis, made.cost_pico)

    story.call(FETCHED, DONE)

    (correction,) = story.corrections()
    assert (COST, 1248, 210) == (
        correction.cost_pico,
        correction.input_total,
        correction.output_total,
    )
    story.check_budgets()


def test_what_was_parked_for_an_unknown_call_is_freed() -> None:
    """The held ceiling gives way to the truth."""
    story = Story(missing_usage="fail")
    made = story.make(max_output_tokens=400)
    assert made.ceiling_pico is not None
    assert (made.ceiling_pico, made.ceiling_pico, 0) == story.world.spent()

    story.call(FETCHED, DONE)

    story.check_budgets()


@pytest.mark.parametrize("state", ["queued", "in_progress", "cancelled", "failed"])
def test_an_answer_without_usage_completes_nothing(state: str) -> None:
    """The record stays as booked until somebody is told."""
    story = Story()
    story.make(max_output_tokens=400)

    fetched = story.call(FETCHED, response(None, state))

    assert "none" == fetched.basis
    assert [] == story.corrections()
    story.call(FETCHED, DONE)
    assert 1 == len(story.corrections())


def test_cancelling_can_tell_the_use_as_well() -> None:
    """Some servers report what was used until then."""
    story = Story()
    story.make(max_output_tokens=400)

    story.call(CANCELLED, response(USAGE, "cancelled"))

    assert 1 == len(story.corrections())
    story.check_budgets()


def test_a_followed_stream_tells_the_use_too() -> None:
    """``?stream=true&starting_after=N`` ends with the usage."""
    story = Story()
    story.make(max_output_tokens=400)
    address = Address(path=FETCHED.path, method="GET", query="stream=true&starting_after=4")
    event = b'event: response.completed\ndata: {"type":"response.completed","response":%b}\n\n'

    followed = story.call(address, event % DONE, headers=EVENTS)

    assert ("none", True) == (followed.basis, followed.stream)
    assert 1 == len(story.corrections())
    story.check_budgets()


def test_a_response_that_was_metered_when_it_was_made_is_free_to_fetch() -> None:
    """Its usage came with the answer."""
    story = Story()
    made = story.call(MADE, DONE, json.dumps({**ASKED, "background": False}).encode())
    assert "reported" == made.basis
    story.forget()

    story.call(FETCHED, DONE)

    assert [] == story.corrections()
    story.check_budgets()


def test_a_broken_stream_is_completed_when_the_response_is_fetched() -> None:
    """What was estimated when the stream broke off gives way to what the provider stored."""
    story = Story()
    created = {"type": "response.created", "response": json.loads(response(None, "in_progress"))}
    delta = {"type": "response.output_text.delta", "delta": "Fine"}
    events = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in (created, delta))
    asked = json.dumps({**ASKED, "background": False, "stream": True}).encode()
    made = story.call(MADE, events, asked, headers=EVENTS)
    assert "estimated" == made.basis

    story.call(FETCHED, DONE)

    (correction,) = story.corrections()
    assert COST == (made.cost_pico or 0) + (correction.cost_pico or 0)
    story.check_budgets()


def test_two_who_fetch_at_once_complete_it_once() -> None:
    """Both are told the same; one correction is made."""
    story = Story()
    story.make(max_output_tokens=400)
    world = story.world
    world.play = Play(steps=[DONE])
    headers = [("authorization", "Bearer sk-tm-test")]
    clients = [FakeClient(b"", world.awaits, headers, FETCHED) for _ in range(2)]

    async def both() -> None:
        await asyncio.gather(*(world.path.serve(client) for client in clients))

    run(both())

    assert 1 == len(story.corrections())
    story.check_budgets()


def test_a_ledger_that_is_down_leaves_the_record_as_booked() -> None:
    """Nothing is guessed; the next one who fetches completes it."""
    story = Story()
    story.make(max_output_tokens=400)
    story.forget()
    story.ledger.is_up = False

    fetched = story.call(FETCHED, DONE)

    assert [] == story.corrections()
    assert "the ledger could not be asked what was metered before" in fetched.flags
    story.ledger.is_up = True
    story.call(FETCHED, DONE)
    story.check_budgets()
    assert 1 == len(story.corrections())


def test_the_flag_of_a_fetch_names_what_it_completes() -> None:
    """And the correction names who was told."""
    story = Story()
    made = story.make(max_output_tokens=400)

    fetched = story.call(FETCHED, DONE)

    (correction,) = story.corrections()
    assert f"completes {made.id}" in fetched.flags
    assert f"completes the record by what {fetched.id} was told" in correction.flags
    assert AT.timestamp() * 1e6 == correction.started_at_us


def test_memory_is_bounded() -> None:
    """What falls out is looked up in the ledger."""
    story = Story()
    made = story.make(max_output_tokens=400)
    metered = Metered(story.ledger, known_max=2)
    for number in range(5):
        metered.note(_named(made, f"resp_{number}"))

    assert not metered.is_final("openai", "resp_4")
    found = asyncio.run(metered.find("openai", "resp_1"))
    assert Posted(made) == found


def _named(record: LedgerRecord, name: str) -> LedgerRecord:
    fields = {field: getattr(record, field) for field in record.__struct_fields__}
    return LedgerRecord(**{**fields, "provider_request_id": name})


# -- batches -------------------------------------------------------------------------------------

OUTPUT: Final = Path(__file__).parent.parent / "golden" / "openai_batches" / "one-model"
LINES: Final = (OUTPUT / "reply.ndjson").read_bytes()
CONTENT: Final = Address(path="/v1/files/file-out1/content", method="GET")
FILE: Final = (("content-type", "application/octet-stream"),)
BATCH_COST: Final = 2_518_750_000


def test_the_output_of_a_batch_is_metered_once() -> None:
    """By the id of its file, also after a restart."""
    story = Story()

    first = story.call(CONTENT, LINES, headers=FILE)
    again = story.call(CONTENT, LINES, headers=FILE)
    story.forget()
    later = story.call(CONTENT, LINES, headers=FILE)

    assert ("reported", BATCH_COST, "file-out1") == (
        first.basis,
        first.cost_pico,
        first.provider_request_id,
    )
    assert ["none", "none"] == [again.basis, later.basis]
    assert [] == story.corrections()
    story.check_budgets()


def test_a_part_of_an_output_is_completed_when_all_of_it_is_fetched() -> None:
    """A range first, the rest with the whole; a range afterwards tells nothing new."""
    story = Story()
    part = LINES.splitlines(keepends=True)[0]

    first = story.call(CONTENT, part, headers=FILE, status=206)
    story.call(CONTENT, LINES, headers=FILE)
    story.call(CONTENT, part, headers=FILE, status=206)

    assert "partial" == first.basis
    (correction,) = story.corrections()
    assert BATCH_COST == (first.cost_pico or 0) + (correction.cost_pico or 0)
    story.check_budgets()


def test_outputs_of_two_batches_are_two_bills() -> None:
    """Ids tell them apart."""
    story = Story()
    other = Address(path="/v1/files/file-out2/content", method="GET")

    records = [story.call(one, LINES, headers=FILE) for one in (CONTENT, other)]

    assert [BATCH_COST, BATCH_COST] == [record.cost_pico for record in records]


def test_an_output_is_metered_even_where_the_ledger_is_down() -> None:
    """Rather twice than never; a flag says so."""
    story = Story()
    story.ledger.is_up = False

    record = story.call(CONTENT, LINES, headers=FILE)

    assert BATCH_COST == record.cost_pico
    assert "the ledger could not be asked what was metered before" in record.flags


# -- tools with a bill of their own --------------------------------------------------------------

WIDE_BOOK: Final = load_book("2026-11-23.2")


@pytest.mark.parametrize(
    ("tool", "item", "told", "cost"),
    [
        (
            {"type": "image_generation", "model": "gpt-image-1"},
            {"type": "image_generation_call", "id": "ig_1"},
            {"image_gen": {"input_tokens": 50, "output_tokens": 1056, "total_tokens": 1106}},
            # And 50 x 5 + 1,056 x 40 USD per million.
            42_490_000_000,
        ),
        (
            {"type": "code_interpreter", "container": {"type": "auto"}},
            {"type": "code_interpreter_call", "container_id": "cntr_1", "code": "2+2"},
            None,
            # And one container at 30 USD per thousand.
            30_000_000_000,
        ),
    ],
    ids=["image", "container"],
)
def test_tools_are_billed_beside_the_model(
    tool: dict[str, Any], item: dict[str, Any], told: dict[str, Any] | None, cost: int
) -> None:
    """Whole, and when a background response is fetched."""
    story = Story(book=WIDE_BOOK, mode="soft")
    done = response(USAGE, tools=[tool], output=[item], tool_usage=told)
    asked = json.dumps({**ASKED, "background": False, "tools": [tool]}).encode()

    whole = story.call(MADE, done, asked)
    assert COST + cost == whole.cost_pico
    assert "reported" == whole.basis

    later = Story(book=WIDE_BOOK, mode="soft")
    later.make(tools=[tool])
    later.call(FETCHED, done)
    (correction,) = later.corrections()
    assert COST + cost == correction.cost_pico
    assert set(whole.lines) == set(correction.lines)
    later.check_budgets()


def test_what_other_workers_have_written_is_waited_for_before_the_ledger_is_asked():
    """Otherwise a result told to two workers in turn would be metered twice."""
    asked = []

    class Queries:
        def find_metered(self, provider: str, request_id: str) -> None:
            asked.append(request_id)

        def find_corrections(self, record_id: str) -> tuple[LedgerRecord, ...]:
            return ()

    async def catch_up() -> None:
        asked.append("caught up")

    records = LedgerRecords(Queries(), catch_up)

    # The ledger is asked in a thread, which a loop in virtual time does not wait for.
    assert asyncio.run(records.find_metered("openai", "resp_1")) is None
    assert ["caught up", "resp_1"] == asked
