"""Which book a call is priced with when prices change around it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from gateway.prices.current import NEVER, Prices, Term
from pricing.book import Book
from tests.path.test_agreements import book_with
from tests.path.virtual_time import run
from tests.path.world import AT, BOOK, FULL_COST_PICO, WHOLE, Pause, Play, World

TICK = timedelta(microseconds=1)


def newer(name: str = "v2") -> Book:
    """The same prices, half off, under another name."""
    book = book_with("-50", team="search")
    return Book(replace(book.version, version=name), book.models, book.rates, book.overrides)


def test_the_switch_happens_at_its_very_instant() -> None:
    """A microsecond before it is the old book, then the new one, whoever asked in between."""
    after = newer()
    prices = Prices(BOOK)
    prices.put([Term(book=BOOK, end=AT), Term(book=after, start=AT)], AT - timedelta(days=1))

    assert BOOK is prices.at(AT - TICK)
    assert after is prices.at(AT)
    assert BOOK is prices.at(AT - TICK)
    assert after is prices.at(AT + timedelta(days=400))
    assert BOOK is prices.at(datetime(1970, 1, 1, tzinfo=UTC))
    assert NEVER == prices.terms[-1].end


def test_a_call_keeps_the_book_it_was_held_under() -> None:
    """What comes into force while it is under way is for the calls after it."""
    costs = {}
    for when_s in (0.0, 0.5):
        world = World(Play(steps=[Pause(1.0), *WHOLE]))
        run(_change_after(world, when_s))
        costs[when_s] = (world.record.price_version, world.record.cost_pico)

    assert (BOOK.version.version, FULL_COST_PICO) == costs[0.5]
    assert ("v2", FULL_COST_PICO // 2) == costs[0.0]


async def _change_after(world: World, seconds: float) -> None:
    prices = world.path.admission.prices

    async def change() -> None:
        await asyncio.sleep(seconds)
        prices.put([Term(book=newer())], AT)

    changing = asyncio.ensure_future(change())
    if not seconds:
        await changing
    await world.call()
    await changing
