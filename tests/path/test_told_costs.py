"""What a provider says a call costs, through the whole path."""

import json
from typing import Any, Final

import pytest

from gateway.ledger.record import LedgerRecord
from gateway.upstream import UpstreamBroken
from pricing.book import load_book
from tests.path.virtual_time import run
from tests.path.world import EVENTS, JSON, Address, Play, Step, World, ask

BOOK: Final = load_book("2026-11-23.2")
ROUTER: Final = Address(kind="openrouter", path="/openrouter/v1/chat/completions")
PLAIN: Final = {"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240}


def called(usage: Any, *more: bytes, model: str = "openai/gpt-5") -> World:
    """Stream an answer that ends with a usage, and perhaps with more."""
    delta = {"model": model, "choices": [{"delta": {"content": "Fine."}}]}
    end = {"model": model, "choices": [], "usage": usage}
    steps = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in (delta, end)]
    world = World(
        Play(headers=EVENTS, steps=[*steps, *more]),
        body=ask(model=model, stream=True),
        book=BOOK,
        address=ROUTER,
    )
    run(world.call())
    world.check_books()
    return world


def test_the_word_of_the_provider_reaches_the_ledger_and_the_budgets() -> None:
    """``cost`` is ``provider_cost``, and the budget has spent that much."""
    world = called(PLAIN | {"cost": 0.5})

    record = world.record
    assert 500_000_000_000 == record.cost_pico == record.list_cost_pico == record.provider_cost_pico
    assert ({"input": 200, "output": 40}, "final") == (record.usage, record.cost_status)
    assert any("ceiling" in flag for flag in record.flags)
    assert 500_000_000_000 == world.spent()[0]


@pytest.mark.parametrize("cost", [-0.5, 10_001, "NaN", None])
def test_a_figure_that_cannot_be_is_priced_by_the_book(cost: Any) -> None:
    """200 x 1.25 + 40 x 10 USD per million; the provider is not quoted."""
    record = called(PLAIN | {"cost": cost}).record

    assert (650_000_000, None) == (record.cost_pico, record.provider_cost_pico)
    assert (cost is not None) == any("cannot be" in flag for flag in record.flags)


def test_a_running_cost_is_not_the_bill_of_what_came_after_it() -> None:
    """The rest is counted here, so the whole is priced by the book."""
    late = {"model": "openai/gpt-5", "choices": [{"delta": {"content": " And more."}}]}
    record = called(PLAIN | {"cost": 0.5}, b"data: " + json.dumps(late).encode() + b"\n\n").record

    assert ("partial", None) == (record.basis, record.provider_cost_pico)
    assert record.cost_pico is not None
    assert record.cost_pico < 500_000_000_000


def test_a_running_total_is_a_part_where_the_stream_breaks_off() -> None:
    """More may have been made and billed; with the answer's own end the same is the last word."""
    choice = {"index": 0, "delta": {"content": "Fi"}, "finish_reason": None}
    usage = PLAIN | {"cost": 0.5}
    running = {"model": "openai/gpt-5", "choices": [choice], "usage": usage}
    ended = {**running, "choices": [{**choice, "finish_reason": "stop"}]}

    def record_of(said: dict[str, Any]) -> LedgerRecord:
        event = b"data: " + json.dumps(said).encode() + b"\n\n"
        steps: list[Step] = [event, UpstreamBroken("cut")]
        body = ask(model="openai/gpt-5", stream=True)
        world = World(Play(headers=EVENTS, steps=steps), body=body, book=BOOK, address=ROUTER)
        run(world.call())
        return world.record

    part, whole = record_of(running), record_of(ended)
    assert ("partial", "estimated") == (part.basis, part.cost_status)
    assert ("reported", "final") == (whole.basis, whole.cost_status)
    assert 500_000_000_000 == part.cost_pico == whole.cost_pico


def test_a_whole_answer_without_counts_is_booked_at_its_cost() -> None:
    """What was used is estimated; what it cost is known."""
    body = {"choices": [{"message": {"content": "Fine."}}], "usage": {"cost": 0.25}}
    world = World(
        Play(headers=JSON, steps=[json.dumps(body).encode()]),
        body=ask(model="openai/gpt-5"),
        book=BOOK,
        address=ROUTER,
    )
    run(world.call())

    record = world.record
    assert ("estimated", 250_000_000_000, "final") == (
        record.basis,
        record.cost_pico,
        record.cost_status,
    )


@pytest.mark.parametrize(
    ("path", "base_url", "sent"),
    [
        ("/groq/openai/v1/models", "http://p/openai/v1", "http://p/openai/v1/models"),
        ("/groq/v1/models", "http://p/openai/v1", "http://p/openai/v1/models"),
        ("/groq/models", "http://p/openai/v1", "http://p/openai/v1/models"),
        ("/groq/openai/v1/models", "http://p", "http://p/openai/v1/models"),
        ("/ollama/v1/models", "http://p", "http://p/v1/models"),
        ("/ollama/v1/models", "http://p/v1", "http://p/v1/models"),
        ("/azure/openai/v1/models", "http://p/openai/v1", "http://p/openai/v1/models"),
        ("/azure/openai/v1/models", "http://p/openai", "http://p/openai/v1/models"),
    ],
)
def test_what_the_base_address_has_already_is_not_said_twice(
    path: str, base_url: str, sent: str
) -> None:
    """Whether or not the operator wrote the version into it."""
    kind = path.split("/")[1]
    address = Address(kind=kind, path=path, method="GET", base_url=base_url)
    world = World(Play(steps=[b"{}"]), body=b"", address=address)
    run(world.call())

    assert [sent] == [request.url for request in world.upstream.requests]
    assert "none" == world.record.basis


OWN_KEY: Final = {"cost": 0.01, "is_byok": True}
BESIDE: Final = {**OWN_KEY, "cost_details": {"upstream_inference_cost": 0.2}}


@pytest.mark.parametrize("path", ["/openrouter/v1/messages", "/openrouter/v1/responses"])
@pytest.mark.parametrize(
    ("told", "cost", "provider_cost"),
    [
        ({"cost": 0.5}, 500_000_000_000, 500_000_000_000),
        (BESIDE, 210_000_000_000, 210_000_000_000),
        (OWN_KEY, 650_000_000, None),
        ({"cost": 10_001}, 650_000_000, None),
        ({}, 650_000_000, None),
    ],
    ids=str,
)
def test_its_other_apis_tell_it_too(
    path: str, told: dict[str, Any], cost: int, provider_cost: int | None
) -> None:
    """200 x 1.25 + 40 x 10 USD per million where it does not, or is not all of the bill."""
    usage = {"input_tokens": 200, "output_tokens": 40, **told}
    body = {"id": "a", "type": "message", "model": "openai/gpt-5", "output": [], "usage": usage}
    address = Address(kind="openrouter", path=path)
    asked = ask(model="openai/gpt-5", input="hi", max_tokens=400, max_output_tokens=400)
    play = Play(headers=JSON, steps=[json.dumps(body).encode()])
    world = World(play, body=asked, book=BOOK, address=address)
    run(world.call())

    assert (cost, provider_cost) == (world.record.cost_pico, world.record.provider_cost_pico)
    assert "final" == world.record.cost_status
