"""Who calls decides the price: held, billed and recorded at what was agreed, beside list price."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from gateway.ledger.recovery import end_aborted, rate_bound
from gateway.models_list import list_models
from pricing.agreements import Override
from pricing.book import Book
from pricing.meters import Meter
from tests.openai_answers import completion
from tests.path.virtual_time import run
from tests.path.world import AT, BOOK, FULL_COST_PICO, SECRET, WHOLE, Play, World, ask


def book_with(percent: str, **named: Any) -> Book:
    """The published book and one agreement."""
    agreed = Override(
        id="contract",
        percent=Decimal(percent),
        valid_from=AT - timedelta(days=1),
        valid_to=None,
        why="contract 7",
        **named,
    )
    return Book(BOOK.version, BOOK.models, BOOK.rates, [agreed])


@pytest.mark.parametrize(
    ("named", "factor"),
    [({"team": "search"}, 80), ({"project": "rag"}, 80), ({}, 80), ({"team": "other"}, 100)],
    ids=str,
)
def test_a_call_is_held_and_billed_at_its_payers_price(named: dict[str, str], factor: int) -> None:
    """The hold, the record and the budget have the negotiated price; the list cost stays."""
    plain = World(Play(steps=WHOLE))
    run(plain.call())
    world = World(Play(steps=WHOLE), book=book_with("-20", **named))
    run(world.call())
    record, published = world.record, plain.record

    world.check_books()
    assert published.ceiling_pico is not None
    assert record.ceiling_pico == published.ceiling_pico * factor // 100
    assert (FULL_COST_PICO * factor // 100, FULL_COST_PICO) == (
        record.cost_pico,
        record.list_cost_pico,
    )
    assert [line.list_cost_pico for line in record.lines] == [
        line.cost_pico for line in published.lines
    ]
    assert [line.price_id for line in record.lines] == [line.price_id for line in published.lines]


def test_a_call_booked_at_its_bound_never_exceeds_its_hold() -> None:
    """Also where the price that was agreed is finer than published ones are."""
    world = World(Play(steps=[completion(usage=None)]), book=book_with("-12.5"))
    world.counter.is_able = False
    run(world.call())

    world.check_books()
    assert world.record.cost_pico is not None
    assert world.record.ceiling_pico is not None
    assert 0 < world.record.cost_pico <= world.record.ceiling_pico
    assert world.record.list_cost_pico == world.record.cost_pico * 1000 // 875


def test_a_call_cut_off_by_a_crash_is_rated_at_its_payers_price() -> None:
    """The intent says enough to find the same price again, in the book it was admitted under."""
    book = book_with("-20", team="search")
    world = World(Play(steps=WHOLE), book=book)
    run(world.call())
    (intent,) = world.journal.intents
    record = end_aborted(intent, intent.started_at_us, lambda _version, _provider: book)

    assert record.cost_pico == intent.ceiling_pico
    assert record.list_cost_pico is not None
    assert record.cost_pico is not None
    assert record.cost_pico * 100 == record.list_cost_pico * 80


def test_a_make_that_was_held_is_found_again_after_a_crash() -> None:
    """The dearest make of the ceiling stands in the intent."""
    searches = [
        rate for rate in BOOK.rates if (rate.model, rate.meter) == ("gpt-5", Meter.WEB_SEARCH)
    ]
    dearer = [
        type(rate)(
            **{name: getattr(rate, name) for name in rate.__dataclass_fields__}
            | {"variant": "high", "amount": rate.amount * 3}
        )
        for rate in searches
    ]
    book = Book(BOOK.version, BOOK.models, [*BOOK.rates, *dearer])
    costs = {}
    for size in ("low", "high", "unheard of"):
        body = ask(web_search_options={"search_context_size": size})
        world = World(Play(steps=WHOLE), body=body, book=book)
        run(world.call())
        (intent,) = world.journal.intents
        lines = rate_bound(intent, lambda _version, _provider: book)
        costs[size] = [line.cost_pico for line in lines if line.meter == "web_search"]
        assert ({"web_search": "high"} if size != "low" else {}) == intent.bound_variants
        assert intent.ceiling_pico == sum(line.cost_pico for line in lines)

    assert costs["high"] == costs["unheard of"] == [3 * costs["low"][0]]


def test_a_key_is_shown_the_prices_it_pays() -> None:
    """The list of models has the negotiated price."""
    book = book_with("-20", team="search", model="gpt-5", provider="openai")
    world = World(Play(steps=WHOLE), book=book)
    caller = world.directory.callers.find(SECRET, AT)
    assert caller is not None
    router = world.path.admission.router
    rows = {row["id"]: row for row in list_models(caller, router, book, AT)["data"]}

    assert "1" == rows["openai/gpt-5"]["pricing"]["standard"]["input"]["amount"]
    assert "2.5" == rows["openai/gpt-4o"]["pricing"]["standard"]["input"]["amount"]


@pytest.mark.parametrize("served", ["gpt-5-2025-08-07", "ours"])
def test_a_deployment_is_priced_as_the_model_behind_it(served: str) -> None:
    """Whatever its owner called it, held and billed, also where a crash cuts it off."""
    world = World(
        Play(steps=[completion().replace(b"gpt-5-2025-08-07", served.encode())]),
        body=ask(model="ours"),
        deployments={"ours": "gpt-5"},
    )
    run(world.call())
    (intent,) = world.journal.intents

    world.check_books()
    assert FULL_COST_PICO == world.record.cost_pico
    assert ("ours", "gpt-5") == (world.record.model_requested, intent.priced_model)
    assert intent.ceiling_pico == end_aborted(intent, intent.started_at_us).cost_pico


def test_a_name_without_a_deployment_is_what_it_says() -> None:
    """No price for a name nobody knows."""
    world = World(Play(steps=WHOLE), body=ask(model="theirs"), deployments={"ours": "gpt-5"})
    run(world.call())

    assert ("refused", 403) == (world.record.outcome, world.record.http_status)


def test_a_record_says_what_it_was_priced_as() -> None:
    """Enough to price it again with another book; a refusal says nothing."""
    world = World(Play(steps=WHOLE))
    run(world.call())
    record = world.record

    assert ("openai", "gpt-5", "standard") == (record.priced_as, record.priced_model, record.tier)
    assert not record.region
    assert not record.variants
