"""Commitments and shared costs over HTTP: exact, by month, and never a change to a record."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from gateway.ledger.record import LedgerLine, LedgerRecord
from tests.admin.test_reports import record, unknown
from tests.admin.world import CONFIG, NOON, World

FIXED = (
    CONFIG
    + """
commitments:
  - {id: pack, covers: {provider: fake, model: demo-chat, team: search}, amount: "10000 tokens",
     fee: "0.02 USD", starts: 2026-11-01, ends: 2026-12-01}
  - {id: free, covers: {provider: fake}, amount: "1 USD", renews: month, starts: 2026-10-01,
     timezone: America/New_York}
shared_costs:
  - {id: platform, amount: "100 USD", timezone: Europe/Berlin}
  - {id: cluster, amount: "90 USD", split_by: cost, among: project, model: demo-chat,
     first_month: 2026-11, last_month: 2026-11}
"""
)


def line(meter: str, quantity: int, cost_pico: int) -> LedgerLine:
    """Make a rated line."""
    return LedgerLine(
        sku=f"demo/demo-chat/{meter}",
        price_id=f"demo/demo-chat/{meter}/standard",
        meter=meter,
        quantity=str(quantity),
        unit_price="2.50",
        per=1_000_000,
        list_cost_pico=cost_pico,
        cost_pico=cost_pico,
    )


def call(n: int, tokens: int = 1000, **changes: Any) -> LedgerRecord:
    """Make the record of a call that cost 2.50 USD a million, ``n`` hours after noon."""
    cost = tokens * 2_500_000
    return record(
        n,
        model="demo-chat-2026-11-01",
        usage={"input": tokens},
        input_total=tokens,
        cost_pico=cost,
        list_cost_pico=cost,
        lines=(line("input", tokens, cost),),
        **changes,
    )


@pytest.fixture
def fixed(tmp_path) -> World:
    """The control plane of somebody who has committed to something."""
    return World(tmp_path, FIXED)


def test_commitments_are_accounted_for(fixed: World) -> None:
    """A snapshot counts as its model; the record itself says what it always said."""
    one = call(-24, 4000)
    fixed.mailbox.waiting += [one, call(-2, 4000), call(-1, 4000), unknown(-3)]
    before = fixed.call("GET", "/ledger?limit=1").json()["items"]
    found = fixed.call("GET", "/commitments").json()
    pack, free = found["items"]

    assert ("2026-11", 1) == (found["month"], found["unknown_usage_requests"])
    assert ("pack", "quantity", "tokens") == (pack["id"], pack["kind"], pack["unit"])
    assert ("10000", "10000", "0", "0", "100.0") == (
        pack["committed"],
        pack["used"],
        pack["unused"],
        pack["overflow"],
        pack["used_percent"],
    )
    assert "2026-11-23T11:00:00.000000Z" == pack["exhausted_at"]
    assert (False, None) == (pack["lasts"], pack["projected_at"])
    assert ("0.02", "0.025", "0.005") == (
        pack["amortized_fee"],
        pack["on_demand_cost"],
        pack["saving"],
    )
    assert ("2", "1000000") == (pack["effective_price"], pack["effective_per"])
    assert [["2026-11-22", "4000", "6000"], ["2026-11-23", "6000", "0"]] == [
        [day["day"], day["used"], day["left"]] for day in pack["days"][-2:]
    ]
    assert ("money", "USD", "1", "0.005") == (
        free["kind"],
        free["unit"],
        free["committed"],
        free["used"],
    )
    assert "2026-11-01T04:00:00.000000Z" == free["period_start"]
    assert ("0.02", "0.03", "0", "0.01") == (
        found["amortized_fee"],
        found["on_demand_cost"],
        found["overflow_cost"],
        found["saving"],
    )
    assert before == fixed.call("GET", "/ledger?limit=1").json()["items"]


def test_a_month_that_is_over_stays_as_it_was(fixed: World) -> None:
    """What was called afterwards is not in it."""
    fixed.mailbox.waiting += [call(0, 1000), call(24 * 20, 5000)]
    fixed.clock.move(timedelta(days=40))
    pack, free = fixed.call("GET", "/commitments?month=2026-11").json()["items"]

    assert ("1000", "0.02", "2026-12-01T00:00:00.000000Z") == (
        pack["used"],
        pack["amortized_fee"],
        pack["as_of"],
    )
    assert "0" == free["used"]
    (december,) = fixed.call("GET", "/commitments?month=2026-12").json()["items"]
    assert ("free", "0.0125") == (december["id"], december["used"])


def test_shared_costs_are_split_by_use(fixed: World) -> None:
    """Everybody is listed, the parts sum to the whole, and the month is that of the zone."""
    fixed.call("POST", "/teams", json={"id": "ads"})
    fixed.mailbox.waiting += [
        call(0, 3000),
        call(1, 1000, team="mail", project="post"),
        call(-24 * 23 + 11, 9999, team="early"),
        unknown(2),
    ]
    platform, cluster = fixed.call("GET", "/shared-costs?month=2026-11").json()["items"]

    assert ("platform", "100", "tokens", "team", False, "0", 1) == tuple(
        platform[name]
        for name in (
            *("id", "amount", "split_by", "among", "is_final", "unallocated"),
            "unknown_requests",
        )
    )
    shares = {share["id"]: (share["amount"], share["percent"]) for share in platform["shares"]}
    assert {"search", "mail", "ads", "early"} == set(shares)
    assert ("0", "0.0") == shares["ads"]
    assert [("rag", "0.0075", "75.0", "67.5"), ("post", "0.0025", "25.0", "22.5")] == [
        tuple(share[name] for name in ("id", "used", "percent", "amount"))
        for share in cluster["shares"]
    ]
    assert Decimal(100) == sum(Decimal(amount) for amount, _ in shares.values())


def test_what_nobody_used_is_unallocated(fixed: World) -> None:
    """And costs are due only in their months."""
    (platform,) = fixed.call("GET", "/shared-costs?month=2026-10").json()["items"]

    assert ("100", True) == (platform["unallocated"], platform["is_final"])
    assert [("search", "0", None, "0")] == [
        tuple(share[name] for name in ("id", "used", "percent", "amount"))
        for share in platform["shares"]
    ]


@pytest.mark.parametrize("path", ["/commitments", "/shared-costs"])
def test_reports_of_nothing_and_of_no_month(world: World, path: str) -> None:
    """An empty report is an answer; a month that is none is a refusal; lag is told."""
    assert [] == world.call("GET", path).json()["items"]
    assert 422 == world.call("GET", f"{path}?month=2026-13").status_code
    refused = world.call("GET", f"{path}?month=0001-01")
    assert 422 == refused.status_code
    assert "not a month" in refused.json()["detail"]
    world.mailbox.is_stuck = True
    assert "behind" == world.call("GET", path).headers["x-taximeter-ledger"]
    assert NOON == world.clock.at
