"""Re-rating over HTTP: preview, run, repeat, and the budgets that learn of it."""

from datetime import timedelta
from decimal import Decimal

import pytest

from gateway.clock import epoch_us, from_epoch_us
from gateway.ledger.lines import to_ledger_lines
from gateway.prices.asked import PriceEdit, Signature
from gateway.prices.desk import PriceDesk
from gateway.prices.store import PriceStore
from pricing.agreements import Override
from pricing.meters import Meter
from pricing.rating import rate_usage
from tests.admin.test_reports import record, unknown
from tests.admin.world import ADMIN, NOON, World, the_book

HOUR = timedelta(hours=1)
ASKED = {"from": "2026-11-23T00:00:00Z", "to": "2026-11-25T00:00:00Z"}


def priced(n, **changes):
    """A call of the demo provider that says what it was priced as: 1000 x 2.50 by a million."""
    at = from_epoch_us(epoch_us(NOON) + n)
    card = the_book().find_card("demo", "demo-chat", at)
    said = {
        "lines": to_ledger_lines(rate_usage({Meter.INPUT: 1000}, card)),
        "priced_as": "demo",
        "priced_model": "demo-chat",
        "tier": "standard",
        "price_version": the_book().version.version,
    }
    return record(n, started_at_us=epoch_us(NOON) + n, **{**said, **changes})


@pytest.fixture
def world(tmp_path):
    """Three calls, and a version in which the team search pays a fifth less."""
    made = World(tmp_path)
    store = PriceStore(made.engine, made.clock)
    store.record_shipped("taximeter")
    made.clock.move(HOUR)
    override = Override(
        id="search",
        team="search",
        percent=Decimal(-20),
        valid_from=NOON - timedelta(days=30),
        valid_to=None,
        why="contract 7",
    )
    PriceDesk(store).post(PriceEdit(overrides=(override,)), Signature(who="ada", why="contract 7"))
    made.mailbox.waiting += [priced(0), priced(1, team="ads"), unknown(2)]
    return made


def newest(world):
    """Name the version with the agreement."""
    return PriceStore(world.engine).list_approved()[-1].version


def spent(world):
    """What the budget of the month has spent."""
    return world.call("GET", "/budgets/search-month").json()["status"]["spent"]


def test_a_preview_changes_nothing(world):
    """It says what would change, by team, and what cannot be priced again."""
    answer = world.call(
        "POST", "/rerates", json={**ASKED, "as_of": "2026-11-24T00:00:00Z", "dry_run": True}
    )
    shown = answer.json()

    assert 200 == answer.status_code
    assert (None, "preview", newest(world)) == tuple(
        shown[k] for k in ("id", "status", "price_version")
    )
    assert [("ads", 0, "0.0025", "0.0025", "0"), ("search", 1, "0.0025", "0.002", "-0.0005")] == [
        tuple(row[k] for k in ("team", "changed", "before", "after", "difference"))
        for row in shown["teams"]
    ]
    assert "-10.00" == shown["totals"][0]["percent"]
    assert [("usage_unknown", 1)] == [(x["reason"], x["records"]) for x in shown["cannot_rerate"]]
    assert 3 == len(world.call("GET", "/ledger").json()["items"])


def test_a_run_appends_corrections_and_budgets_know(world):
    """The records, the usage and the budget say the same; a second run has nothing to do."""
    world.mailbox.flush(1)
    world.run_async(world.follower.reload())
    body = {**ASKED, "price_version": newest(world), "why": "contract 7"}
    before = Decimal(spent(world))
    done = world.call("POST", "/rerates", json=body).json()
    again = world.call("POST", "/rerates", json=body).json()
    items = world.call("GET", "/ledger").json()["items"]
    made = next(item for item in items if item["corrects"] is not None)

    assert ("done", 1, "admin token", "contract 7") == tuple(
        done[k] for k in ("status", "corrections", "actor", "why")
    )
    assert 0 == again["corrections"]
    assert ("-0.0005", "0", {}, newest(world)) == tuple(
        made[k] for k in ("cost", "list_cost", "usage", "price_version")
    )
    assert [f"re-rated: run {done['id']}", "why: contract 7"] == made["flags"]
    assert done == world.call("GET", f"/rerates/{done['id']}").json()
    (row,) = world.call("GET", "/usage?team=search").json()["items"]
    assert ("0.002", 2) == (row["cost"], row["requests"])
    assert before - Decimal("0.0005") == Decimal(spent(world))


def test_a_running_gateway_learns_of_corrections_by_another_process(world):
    """The counters in memory are those a start would read."""
    world.mailbox.flush(1)
    world.run_async(world.follower.reload())
    other = World(world.folder)
    body = {**ASKED, "price_version": newest(world)}
    assert 200 == other.call("POST", "/rerates", json=body).status_code
    world.run_async(world.follower.reload())

    assert spent(other) == spent(world)


def test_a_repeat_with_the_same_key_gets_the_first_answer(world):
    """As every POST."""
    headers = {**ADMIN, "idempotency-key": "k1"}
    body = {**ASKED, "price_version": newest(world)}
    first = world.call("POST", "/rerates", json=body, headers=headers)
    second = world.call("POST", "/rerates", json=body, headers=headers)

    assert first.json() == second.json()
    assert 1 == second.json()["corrections"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "give price_version or as_of"),
        ({"price_version": "1", "as_of": "2026-11-23T00:00:00Z"}, "one of them"),
        ({"price_version": "nope"}, "no price book version nope; there are: 2026"),
        ({"price_version": "2026-11-23.1", "to": ASKED["from"]}, "from must be before to"),
        ({"as_of": "2020-01-01T00:00:00Z"}, "no price book version was recorded by 2020"),
        ({"price_version": "2026-11-23.1", "filter": {"teem": "x"}}, "teem"),
    ],
)
def test_a_request_that_means_nothing_is_refused(world, change, told):
    """With what to ask instead."""
    answer = world.call("POST", "/rerates", json={**ASKED, **change})

    assert 422 == answer.status_code
    assert told in answer.text


def test_a_run_that_is_not_there_is_not_found(world):
    """Like any other thing."""
    assert 404 == world.call("GET", "/rerates/nobody").status_code
