"""A budget that slows calls down spreads them over its window, for a bounded time each."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from gateway.budgets.memory import MemoryBudgets
from gateway.budgets.rules import Demand
from gateway.callers import Callers
from gateway.prices.current import Term
from pricing.book import load_book
from tests.budgets.builders import at_once, budget, instant, subject, usd
from tests.path.virtual_time import run
from tests.path.world import AT, BOOK, LEAVE, WHOLE, Keys, Play, World, ask

NOTHING = Demand(cost_pico=0, tokens=0)


def paced(limit: str, seconds: int = 10, **fields: Any) -> Any:
    """A budget that slows down."""
    return budget(limit, actions=[f"throttle:{seconds}"], **fields)


def spend(one: World | MemoryBudgets, **amounts: Any) -> None:
    """Have something spent at the beginning of the minute."""
    store = one.budgets if isinstance(one, World) else one
    used = Demand(**({"cost_pico": 0, "tokens": 0, "requests": 0} | amounts))
    held: Any = at_once(store.reserve("before", subject(), used, AT))
    store.settle(held, used)


def timed(one: World) -> float:
    """Make a call and tell how long it took."""

    async def call() -> float:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await one.call()
        return loop.time() - began_s

    return run(call())


def test_a_call_waits_until_spending_is_in_step() -> None:
    """Three of sixty requests are three seconds of a minute."""
    one = World(Play(steps=WHOLE), limits=[paced("cap minute 60 requests")])
    spend(one, requests=3)
    took_s = timed(one)

    assert (200, "3.000") == (one.client.status, one.client.told["x-taximeter-throttled"])
    assert took_s == pytest.approx(3, abs=0.01)
    assert "throttled for 3.000 s" in one.record.flags


def test_a_call_waits_no_longer_than_is_stated() -> None:
    """However far spending is ahead, the delay has a bound; then the budget itself decides."""
    one = World(Play(steps=WHOLE), limits=[paced("cap minute 60 requests", 5)])
    spend(one, requests=50)

    assert timed(one) == pytest.approx(5, abs=0.01)
    assert 200 == one.client.status


def test_a_call_in_step_does_not_wait() -> None:
    """Nothing spent, nothing ahead: no wait, no header."""
    one = World(Play(steps=WHOLE), limits=[paced("cap minute 60 requests")])

    assert timed(one) < 0.01
    assert "x-taximeter-throttled" not in one.client.told


def test_nothing_is_held_while_a_call_waits() -> None:
    """Who waits takes no room from others."""
    one = World(Play(steps=WHOLE), limits=[paced("cap minute 60 requests")])
    spend(one, requests=5)

    async def look() -> tuple[int, int]:
        calling = asyncio.ensure_future(one.call())
        await asyncio.sleep(1)
        held = one.budgets.open_holds, len(one.upstream.requests)
        await calling
        return held

    assert (0, 0) == run(look())
    assert 200 == one.client.status


def test_a_call_that_waited_counts_when_it_was_let_in() -> None:
    """At the end of a full minute it waits for the next one, and counts there."""
    late = instant("2026-11-23T12:00:58+00:00")
    store = MemoryBudgets()
    store.install([paced("cap minute 6 requests")], AT)
    spend(store, requests=6)
    wait_s = store.ahead_s(subject(), late, 0)
    after_s = store.ahead_s(subject(), instant("2026-11-23T12:01:00+00:00"), wait_s)

    assert (2, True) == (wait_s, after_s <= 0)
    one = World(Play(steps=WHOLE), limits=[paced("cap minute 60 requests")])
    spend(one, requests=3)
    run(one.call())
    assert one.record.started_at_us == one.journal.intents[0].started_at_us
    assert 3_000_000 == one.record.started_at_us - int(AT.timestamp()) * 1_000_000


def test_calls_that_wait_together_go_one_after_the_other() -> None:
    """Each one that goes is spent for those behind it."""
    store = MemoryBudgets()
    store.install([paced("cap minute 60 requests")], AT)
    spend(store, requests=1)
    second = instant("2026-11-23T12:00:01+00:00")

    assert store.ahead_s(subject(), second, 1) <= 0
    at_once(store.reserve("first", subject(), NOTHING, second))
    assert 1 == store.ahead_s(subject(), second, 1)


def test_money_counts_once_it_is_settled() -> None:
    """A hold is the most a call can come to: waiting for that would be waiting for nothing."""
    store = MemoryBudgets()
    store.install([paced("cap minute 60 USD")], AT)
    at_once(store.reserve("open", subject(), Demand(cost_pico=usd("30"), tokens=0), AT))

    assert 0 == store.ahead_s(subject(), AT, 0)
    spend(store, cost_pico=usd("4"))
    assert 4 == store.ahead_s(subject(), AT, 0)


def test_a_client_that_leaves_while_it_waits_is_not_sent_on() -> None:
    """Nobody pays for an answer that nobody waits for."""
    one = World(Play(head=LEAVE, steps=WHOLE), limits=[paced("cap minute 60 requests")])
    spend(one, requests=9)

    async def leave() -> None:
        calling = asyncio.ensure_future(one.call())
        await asyncio.sleep(1)
        one.client.gone.set()
        await calling

    run(leave())
    assert ([], [], 0) == (one.upstream.requests, one.journal.records, one.budgets.open_holds)
    assert one.watcher.opened_calls == one.watcher.closed_calls


def test_only_budgets_of_the_call_slow_it_down() -> None:
    """A budget of another team is nobody's delay."""
    other = paced("other minute 60 requests", scope={"team": "ads"})
    one = World(Play(steps=WHOLE), limits=["cap year 100 USD", other])

    assert one.budgets.is_pacing
    assert timed(one) < 0.01


def test_without_such_a_budget_nobody_is_asked() -> None:
    """One look at a flag is all it costs."""
    assert not World(Play(steps=WHOLE)).budgets.is_pacing


def test_a_key_that_stops_working_while_a_call_waits_is_refused() -> None:
    """Who may call is asked again when the wait is over."""
    one = World(Play(steps=WHOLE), limits=[paced("cap minute 60 requests")])
    spend(one, requests=9)

    async def revoke() -> None:
        calling = asyncio.ensure_future(one.call())
        await asyncio.sleep(1)
        one.directory.callers = Callers(Keys({}))
        await calling

    run(revoke())
    assert (401, []) == (one.client.status, one.upstream.requests)
    assert ["refused"] == [record.outcome for record in one.journal.records]


def test_a_call_that_waited_has_the_prices_of_when_it_was_let_in() -> None:
    """Another version that comes into force meanwhile is the one that holds."""
    one = World(Play(steps=WHOLE), limits=["cap year 100 USD", paced("calls minute 60 requests")])
    turn = AT + timedelta(seconds=2)
    terms = [Term(book=load_book("2026-11-23.2"), end=turn), Term(book=BOOK, start=turn)]
    one.path.admission.prices.put(terms, AT)
    spend(one, requests=3)
    run(one.call())

    assert BOOK.version.version == one.record.price_version
    one.check_books()


def test_a_call_that_waited_and_fell_back_tells_both() -> None:
    """Neither header nor flag is lost on the way to the cheaper model."""
    cap = budget("cap year 0.05 USD", actions=["fallback:openai/gpt-5-mini"])
    one = World(
        Play(steps=WHOLE),
        body=ask(max_completion_tokens=4000),
        limits=[cap, paced("calls minute 60 requests")],
    )
    spend(one, requests=3)
    run(one.call())
    told = one.client.told

    assert ("3.000", "openai/gpt-5-mini") == (
        told["x-taximeter-throttled"],
        told["x-taximeter-fallback"],
    )
    assert {"throttled for 3.000 s"} < set(one.record.flags)
    assert [("calls", "throttle"), ("cap", "fallback")] == one.watcher.acts


def test_the_budget_that_slows_most_is_the_one_counted() -> None:
    """Of several the one with the longest wait."""
    limits = [paced("cap minute 60 requests"), paced("tight minute 30 requests")]
    one = World(Play(steps=WHOLE), limits=limits)
    spend(one, requests=3)
    run(one.call())

    assert "6.000" == one.client.told["x-taximeter-throttled"]
    assert [("tight", "throttle")] == one.watcher.acts
    assert one.budgets.slowed_by(subject(), AT + timedelta(seconds=50)) is None
