"""Budgets of several workers over a real server: what the stories and the machine cannot show."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from gateway.budgets.holds import Hold
from gateway.budgets.protocol import BudgetsUnavailable
from gateway.budgets.rules import (
    Budget,
    BudgetExhausted,
    Demand,
)
from gateway.budgets.shared_link import Laid, OthersPart, OwnPart, SharedLink
from gateway.ledger.errors import StoreUnavailable
from tests.budgets.builders import budget, demand, instant, subject, usd
from tests.budgets.shared_kit import (
    CALLER,
    Crew,
    ListWorkers,
    Mate,
    agree,
    held,
    refused,
    status,
)
from tests.valkey import Valkey

AT = instant("2026-11-23T10:00:00+00:00")


@pytest.fixture
def crew(valkey: Valkey) -> Iterator[Crew]:
    """A deployment with one budget of a hundred dollars for all time."""
    with closing(Crew(valkey, AT, [budget("B total 100 USD")])) as made:
        yield made


def test_in_steady_state_nobody_asks(crew: Crew) -> None:
    """A thousand calls need a handful of commands, not two thousand."""
    mate, _ = crew.start("w-a"), crew.start("w-b")
    before = mate.link.asked

    for number in range(1000):
        mate.settle(held(mate, f"H{number}", "0.01"), demand("0.009"))

    assert mate.link.asked - before < 20
    mate.tick()
    assert usd("9") == status(mate).spent


def test_what_nobody_limits_asks_nobody(crew: Crew) -> None:
    """Soft budgets count here; the others hear of it by the way."""
    crew.budgets = (budget("S total 1 USD", mode="soft"),)
    mate, other = crew.start("w-a"), crew.start("w-b")
    before = mate.link.asked

    for number in range(100):
        mate.settle(held(mate, f"H{number}", "0.05"), demand("0.05"))

    assert before == mate.link.asked
    mate.tick()
    other.tick()
    assert usd("5") == status(other).spent


def test_the_last_cent_goes_to_whoever_asks(crew: Crew) -> None:
    """What one worker does not use is not withheld from another, and nothing is overspent."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "40"), demand("30"))
    second.settle(held(second, "H2", "20"), demand("20"))

    assert isinstance(first.hold("H3", CALLER, demand("50")), Hold)
    told = refused(second, "H4", "0.000000000001")
    assert (usd("50"), usd("50")) == (told.spent, told.held)


def test_a_refusal_waits_for_the_others_and_not_for_long(crew: Crew) -> None:
    """A worker that hangs holds what it has, and a call up for a third of a second."""
    first, second = crew.start("w-a"), crew.start("w-b")
    held(first, "H1", "10")
    first.ear.cancel()

    async def time_it() -> float:
        began = asyncio.get_running_loop().time()
        out = await second.budgets.reserve("H2", CALLER, demand("90"), AT)
        assert isinstance(out, BudgetExhausted)
        return asyncio.get_running_loop().time() - began

    assert 0.2 < crew.run(time_it()) < 1.0
    # Just refused, it is not asked for again.
    before = second.link.asked
    refused(second, "H3", "90")
    assert before == second.link.asked


def test_what_lies_idle_is_given_back_by_itself(crew: Crew) -> None:
    """After some looks that find nothing new, a claim is what is used."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "1"), demand("1"))
    for _ in range(10):
        first.tick()
    first.ear.cancel()

    assert isinstance(second.hold("H2", CALLER, demand("99")), Hold)


def test_many_callers_on_the_last_dollar(crew: Crew) -> None:
    """Sixty-four calls at once over two workers: exactly what fits is let in."""
    mates = [crew.start("w-a"), crew.start("w-b")]

    async def race() -> list[Hold | BudgetExhausted]:
        return await asyncio.gather(
            *(
                mates[number % 2].budgets.reserve(f"H{number}", CALLER, demand("7"), AT)
                for number in range(64)
            )
        )

    assert 14 == sum(isinstance(one, Hold) for one in crew.run(race()))


def test_an_overrun_counts_for_everybody(crew: Crew) -> None:
    """Settled above its hold: the truth wins, and nobody gets what is not there."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "60"), demand("99.5"))
    first.tick()

    assert usd("99.5") == refused(second, "H2", "1").spent


def test_several_budgets_are_held_together_or_not_at_all(crew: Crew) -> None:
    """The second has no room, so the first holds nothing."""
    crew.budgets = (budget("A total 9 USD"), budget("B total 3 requests"))
    first, second = crew.start("w-a"), crew.start("w-b")
    for number in range(3):
        held(first, f"H{number}", "1")

    assert "B" == refused(second, "H9", "1").budget.id
    first.tick()
    assert usd("3") == status(first).held


@pytest.mark.parametrize(
    "limit", ["20000000000 USD", "0.000000000300 USD", "900000000000000 tokens"]
)
def test_amounts_are_exact_however_large_or_small(crew: Crew, limit: str) -> None:
    """To the last unit, where doubles would have rounded long ago."""
    crew.budgets = (one,) = (budget(f"B total {limit}"),)
    first, second = crew.start("w-a"), crew.start("w-b")
    part = one.limit // 3

    def ask(amount: int) -> Demand:
        return Demand(cost_pico=amount, tokens=amount)

    assert isinstance(first.hold("H1", CALLER, ask(part)), Hold)
    assert isinstance(second.hold("H2", CALLER, ask(one.limit - part - 1)), Hold)
    assert isinstance(first.hold("H3", CALLER, ask(2)), BudgetExhausted)
    crew.run(asyncio.sleep(0.3))
    assert isinstance(first.hold("H4", CALLER, ask(1)), Hold)
    assert isinstance(second.hold("H5", CALLER, ask(1)), BudgetExhausted)


# -- workers come and go --


def test_what_a_dead_worker_claimed_counts_until_it_is_back(crew: Crew) -> None:
    """Killed with a call open: nobody gets that money before its journal tells more."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "10"), demand("10"))
    open_hold = held(first, "H2", "50")
    crew.run(first.die())

    assert isinstance(second.hold("H3", CALLER, demand("45")), BudgetExhausted)
    first.record(open_hold, demand("20"))
    again = crew.start("w-a")
    crew.run(asyncio.sleep(0.3))
    assert isinstance(second.hold("H4", CALLER, demand("70")), Hold)
    again.tick()
    assert (usd("30"), usd("70")) == (status(again).spent, status(again).held)


def test_a_worker_that_stops_leaves_nothing_behind_but_what_it_spent(crew: Crew) -> None:
    """Its records move into the base, and its claim goes."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "10"), demand("10"))
    crew.run(first.leave())
    crew.run(second.sync.look_around())
    second.tick()

    fields = crew.run(second.link.look(_key(second), 0, 0))
    assert f"0:{usd('10')}:0" == fields["b"]
    assert "c:w-a" not in fields
    assert usd("10") == status(second).spent
    assert isinstance(second.hold("H2", CALLER, demand("90")), Hold)


def test_a_worker_that_stops_gives_back_then_leaves_then_is_retired(crew: Crew) -> None:
    """Retired earlier it would be folded with claims it may still tell of; and others are told."""
    done: list[str] = []

    class Noting(SharedLink):
        async def tell(
            self, told: Sequence[OwnPart], now_us: int
        ) -> tuple[int, tuple[OthersPart, ...]]:
            done.append(f"claims {sum(one.claim for one in told) // usd('1')}")
            return await super().tell(told, now_us)

        async def leave(self, now_us: int) -> None:
            done.append("leave")
            await super().leave(now_us)

        async def close(self) -> None:
            done.append("close")
            await super().close()

    class NotingWorkers(ListWorkers):
        def retire(self, writer: str, now_us: int) -> bool:
            done.append("retire")
            return super().retire(writer, now_us)

    crew.workers = NotingWorkers()
    mate = Mate(crew, "w-a")
    mate.open_link = Noting
    crew.mates.append(mate)
    crew.run(mate.begin())
    mate.settle(held(mate, "H1", "30"), demand("20"))
    done.clear()
    crew.run(mate.leave())

    assert ["claims 20", "leave", "retire", "close"] == done


@pytest.mark.parametrize("is_shipped", [True, False])
def test_a_worker_is_retired_only_once_the_ledger_has_all_it_did(
    crew: Crew, *, is_shipped: bool
) -> None:
    """Otherwise its claim stands for what it spent, until it is back."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "30"), demand("30"))
    if not is_shipped:
        crew.ledger.rows.clear()
    crew.run(first.leave(is_shipped=is_shipped))
    crew.run(second.sync.look_around())

    assert is_shipped is (crew.workers.rows["w-a"].retired_at_us is not None)
    assert usd("30") == refused(second, "H2", "71").spent
    held(second, "H3", "70")


def test_a_budget_that_comes_later_knows_what_everybody_spent(crew: Crew) -> None:
    """Each worker knows its own part, whoever is gone is in the base, and nothing counts twice."""
    gone, first, second = (crew.start(name) for name in ("w-gone", "w-a", "w-b"))
    for mate, cost in ((gone, "1"), (first, "2"), (second, "4")):
        mate.settle(held(mate, f"H-{mate.name}", cost), demand(cost))
    crew.run(gone.leave())
    both = [budget("B total 100 USD"), budget("NEW month 50 USD")]
    for mate in (first, second):
        crew.run(mate.install(both))
    for mate in (first, second, first):
        mate.tick()

    for mate in (first, second):
        assert [usd("7"), usd("7")] == [s.spent for s in mate.budgets.status(AT)]


NEW = [budget("B total 100 USD"), budget("NEW month 50 USD")]


@pytest.mark.parametrize("is_dead", [False, True])
def test_a_new_budget_counts_those_that_have_not_heard_of_it(crew: Crew, is_dead: bool) -> None:
    """What a worker spent is in the ledger; it counts there until the worker claims it itself."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "30"), demand("30"))
    if is_dead:
        crew.run(first.die())
    crew.run(second.install(NEW))
    assert usd("30") == refused(second, "H2", "21").spent

    if is_dead:
        crew.budgets = tuple(NEW)
        first = crew.start("w-a")
    else:
        crew.run(first.install(NEW))
    agree(first, second)
    assert isinstance(second.hold("H3", CALLER, demand("20")), Hold)
    agree(first, second)
    for mate in (first, second):
        assert [usd("30")] * 2 == [s.spent for s in mate.budgets.status(AT)]
    refused(first, "H4", "1")


def test_what_is_not_read_yet_is_not_told_as_nothing(crew: Crew) -> None:
    """A look between a new budget and its past: nobody may take its silence for zero."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "30"), demand("30"))
    new = first.budgets.install(NEW, AT)
    first.tick()
    crew.run(second.install(NEW))
    assert usd("30") == refused(second, "H2", "21").spent

    crew.run(first.past.load(new, {"w-a": 1}, AT))
    agree(first, second)
    refused(second, "H3", "21")
    crew.run(asyncio.sleep(0.3))
    held(second, "H4", "20")


def test_a_worker_that_starts_again_frees_nothing_before_its_past_is_known(crew: Crew) -> None:
    """Back while the ledger is away: what it had claimed counts until the base holds it."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "50"), demand("50"))
    crew.run(first.die())
    crew.ledger.is_down = True
    again = Mate(crew, "w-a")
    crew.run(again.join())
    try:
        new = again.budgets.install(crew.budgets, AT)
        with pytest.raises(StoreUnavailable):
            crew.run(again.past.load(new, {"w-a": 1}, AT))
        again.tick()
        refused(second, "H2", "51")

        crew.ledger.is_down = False
        agree(again, second)
        crew.run(asyncio.sleep(0.3))
        held(second, "H3", "50")
        refused(again, "H4", "1")
    finally:
        crew.run(again.link.close())


def test_what_a_journal_holds_and_the_ledger_does_not_keeps_its_claim(crew: Crew) -> None:
    """Started again before all it did was shipped: nobody gets the difference."""
    first, second = crew.start("w-a"), crew.start("w-b")
    hold = held(first, "H1", "50")
    first.settle(hold, demand("50"))
    late = crew.ledger.rows.pop()
    crew.run(first.die())
    again = Mate(crew, "w-a")
    crew.run(again.join())
    try:
        new = again.budgets.install(crew.budgets, AT)
        with pytest.raises(StoreUnavailable, match="behind"):
            crew.run(again.past.load(new, {"w-a": 1}, AT))
        again.tick()
        refused(second, "H2", "51")

        crew.ledger.rows.append(late)
        agree(again, second)
        crew.run(asyncio.sleep(0.3))
        held(second, "H3", "50")
        refused(again, "H4", "1")
    finally:
        crew.run(again.link.close())


def test_no_base_is_laid_while_the_ledger_is_behind_what_a_worker_did_before(crew: Crew) -> None:
    """It started again, Redis was emptied: no claim stands for its past, and nobody may have it."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "50"), demand("50"))
    late = crew.ledger.rows.pop()
    crew.run(first.die())
    crew.server.empty()
    again = Mate(crew, "w-a")
    crew.run(again.join())
    try:
        agree(second, again)
        with pytest.raises(BudgetsUnavailable, match="ledger"):
            second.hold("H2", CALLER, demand("51"))

        crew.ledger.rows.append(late)
        assert usd("50") == refused(second, "H3", "51").spent
        held(second, "H4", "50")
    finally:
        crew.run(again.link.close())


def test_a_claim_set_since_the_look_is_not_taken_out(crew: Crew) -> None:
    """Said to be gone and back at once: what it has claimed since then stays."""
    first, second = crew.start("w-a"), crew.start("w-b")
    fields = crew.run(second.link.look(_key(second), 0, 0))
    held(first, "H1", "50")
    laid = Laid(fields["g"], fields["b"], {}, {"w-a": fields["v:w-a"]})

    assert crew.run(second.link.lay(_key(second), 0, 0, laid))
    refused(second, "H2", "51")


def test_corrections_count_once_for_all(crew: Crew) -> None:
    """Every worker sees them come, one tells."""
    mates = [crew.start("w-a"), crew.start("w-b")]
    mates[0].settle(held(mates[0], "H1", "10"), demand("10"))
    crew.ledger.corrections.append((AT, -usd("3"), 0))
    for mate in mates:
        crew.run(mate.past.correct((0, 1), AT))
    crew.ledger.corrections.append((AT, usd("1"), 0))
    # One of them looks later, and then at both.
    crew.run(mates[1].past.correct((1, 2), AT))
    crew.run(mates[0].past.correct((0, 2), AT))
    for mate in (*mates, *mates):
        mate.tick()

    assert [usd("8")] * 2 == [status(mate).spent for mate in mates]


def test_a_lower_limit_holds_at_once(crew: Crew) -> None:
    """What was claimed under the old one and is not used is not usable any more."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "1"), demand("1"))
    lower = [replace(budget("B total 100 USD"), limit=usd("2"))]
    for mate in (first, second):
        crew.run(mate.install(lower))

    assert usd("2") == refused(first, "H2", "1.5").limit
    assert isinstance(second.hold("H3", CALLER, demand("1")), Hold)


def test_a_rolling_window_forgets_what_a_gone_worker_spent(crew: Crew) -> None:
    """The base ages like the rest: late by a part of the window at most, never early."""
    crew.budgets = (budget("R rolling:60 10 USD"),)
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "9"), demand("9"))
    crew.run(first.leave())
    crew.run(second.sync.look_around())
    crew.clock.move(59)
    second.tick()
    assert isinstance(second.hold("H2", CALLER, demand("5")), BudgetExhausted)
    crew.clock.move(5)
    crew.run(asyncio.sleep(0.25))

    assert isinstance(second.hold("H3", CALLER, demand("10")), Hold)


def test_a_new_window_begins_without_the_ledger(crew: Crew) -> None:
    """Once everybody has been there a while nothing can lie behind it, so nothing is read."""
    crew.budgets = (budget("M minute 3 requests"),)
    first, second = crew.start("w-a"), crew.start("w-b")
    held(first, "H1", "0")
    crew.clock.at = AT + timedelta(minutes=3)
    before = first.link.asked
    for number in range(2, 5):
        held(first, f"H{number}", "0")

    assert first.link.asked - before <= 3
    assert isinstance(second.hold("H5", CALLER, demand("0")), BudgetExhausted)


# -- Redis fails --


def open_and_closed() -> tuple[Budget, ...]:
    return (
        budget("CLOSED total 100 USD", scope={"team": "closed"}),
        budget("OPEN total 100 USD", scope={"team": "open"}, on_store_down="open"),
        budget("SOFT total 1 USD", scope={"team": "soft"}, mode="soft"),
        budget("STRICT total 1 USD", scope={"team": "strict"}, mode="soft", on_store_down="closed"),
    )


def test_what_happens_without_redis_is_up_to_the_budget(crew: Crew) -> None:
    """Hard ones are closed but for what is claimed, unless they say otherwise; soft ones go on."""
    crew.budgets = open_and_closed()
    mate = crew.start("w-a")
    try:
        crew.server.kill()
        mate.tick()

        with pytest.raises(BudgetsUnavailable, match="redis"):
            mate.hold("H1", subject(team="closed"), demand("1"))
        for team in ("open", "soft"):
            assert isinstance(mate.hold(team, subject(team=team), demand("1")), Hold)
        assert not mate.sync.is_up
    finally:
        crew.server.start()
    agree(mate)
    assert mate.sync.is_up
    assert isinstance(mate.hold("H2", subject(team="closed"), demand("1")), Hold)
    # What was let in meanwhile is claimed afterwards.
    assert isinstance(mate.hold("H3", subject(team="open"), demand("99.5")), BudgetExhausted)


def test_a_claim_is_good_while_redis_is_away_and_not_after_it_was_emptied(crew: Crew) -> None:
    """Away, others cannot have it either; emptied, they might."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "10"), demand("10"))
    second.settle(held(second, "H2", "10"), demand("10"))
    crew.server.empty()
    second.tick()

    # The first has not noticed. Nothing is given to anybody before it has.
    assert not second.sync.is_up
    with pytest.raises(BudgetsUnavailable, match="redis"):
        second.hold("H3", CALLER, demand("1"))
    held(first, "H4", "1")
    agree(first, second)
    assert second.sync.is_up
    assert isinstance(second.hold("H5", CALLER, demand("79.1")), BudgetExhausted)
    crew.run(asyncio.sleep(0.3))
    assert isinstance(second.hold("H6", CALLER, demand("79")), Hold)


def test_an_emptied_redis_waits_for_a_dead_worker_until_it_is_known_what_it_did(
    crew: Crew,
) -> None:
    """Its journal may hold money nobody knows of; back again, or said to be gone, all goes on."""
    first, second = crew.start("w-a"), crew.start("w-b")
    first.settle(held(first, "H1", "10"), demand("10"))
    crew.run(first.die())
    crew.server.empty()
    agree(second)
    assert not second.sync.is_up
    with pytest.raises(BudgetsUnavailable, match="redis"):
        second.hold("H2", CALLER, demand("1"))

    crew.workers.retire("w-a", 0)
    agree(second)
    assert second.sync.is_up
    assert usd("10") == status(second).spent
    assert isinstance(second.hold("H3", CALLER, demand("90.1")), BudgetExhausted)


def test_an_older_state_of_redis_is_noticed(crew: Crew) -> None:
    """A server that comes back with what it had before is not believed."""
    mate = crew.start("w-a")
    held(mate, "H1", "10")
    with closing(crew.server.client()) as client:
        before = client.dump(_key(mate))
        held(mate, "H2", "60")
        assert before is not None
        client.restore(_key(mate), 0, before, replace=True)

    agree(mate)
    assert mate.sync.is_up
    assert usd("70") == status(mate).held
    assert isinstance(mate.hold("H3", CALLER, demand("31")), BudgetExhausted)


def _key(mate: Mate) -> str:
    (account,) = mate.budgets.accounts()
    share = account.counter_at(mate.crew.clock.now()).share
    assert share is not None
    return share.key
