"""Ledger, usage and prices over HTTP."""

import json
from typing import Any

import pytest

from gateway.clock import epoch_us
from gateway.ledger.record import LedgerRecord, to_public
from tests.admin.world import ADMIN, NOON, World

HOUR_US = 3_600_000_000
NDJSON = {**ADMIN, "accept": "application/x-ndjson"}


def record(n: int, **changes: Any) -> LedgerRecord:
    """Make the record of a call that cost 0.0025 USD, ``n`` hours after noon."""
    fields: dict[str, Any] = {
        "id": f"01J{n:023d}",
        "started_at_us": epoch_us(NOON) + n * HOUR_US,
        "ended_at_us": epoch_us(NOON) + n * HOUR_US + 5,
        "outcome": "ok",
        "http_status": 200,
        "stream": False,
        "api": "openai.chat",
        "provider": "fake",
        "model_requested": "demo-chat",
        "model": "demo-chat",
        "organization": "acme",
        "team": "search",
        "project": "rag",
        "key": "rag-ci",
        "tags": {"env": "prod"},
        "usage": {"input": 1000},
        "input_total": 1000,
        "output_total": 0,
        "basis": "reported",
        "cost_pico": 2_500_000_000,
        "list_cost_pico": 2_500_000_000,
        "price_version": "v1",
        "cost_status": "final",
    }
    return LedgerRecord(**{**fields, **changes})


def unknown(n: int, team: str = "search") -> LedgerRecord:
    """Make the record of a call nobody knows the size of."""
    return record(
        n,
        team=team,
        outcome="aborted",
        http_status=None,
        usage={},
        input_total=None,
        output_total=None,
        basis="unknown",
        cost_pico=None,
        list_cost_pico=None,
        cost_status="unknown",
    )


def test_a_reader_sees_what_was_just_written(world: World):
    """A record in the journal is in the next answer, as the contract shows it."""
    one = record(0)
    world.mailbox.waiting.append(one)
    answer = world.call("GET", "/ledger")

    assert answer.json() == {"items": [to_public(one)], "next_cursor": None}
    assert "x-taximeter-ledger" not in answer.headers


def test_a_ledger_that_lags_says_so(world: World):
    """When the shipper cannot catch up the answer is marked instead of pretending."""
    world.mailbox.is_stuck = True

    for path in ("/ledger", "/usage"):
        assert world.call("GET", path).headers["x-taximeter-ledger"] == "behind"


def test_pages_and_filters_of_the_ledger(world: World):
    """Records come newest first, filtered by everything the contract names."""
    world.mailbox.waiting += [record(0), record(1, team="ads"), record(2, outcome="refused")]
    first = world.call("GET", "/ledger", params={"limit": "2"}).json()
    rest = world.call("GET", "/ledger", params={"cursor": first["next_cursor"]}).json()

    assert [r["started_at"][11:13] for r in first["items"] + rest["items"]] == ["14", "13", "12"]
    assert rest["next_cursor"] is None
    for query, hours in [
        ({"team": "ads"}, ["13"]),
        ({"outcome": "refused"}, ["14"]),
        ({"model": "fake/demo-chat", "project": "rag", "key": "rag-ci"}, ["14", "13", "12"]),
        ({"from": "2026-11-23T13:00:00Z", "to": "2026-11-23T15:00:00+01:00"}, ["13"]),
    ]:
        items = world.call("GET", "/ledger", params=query).json()["items"]

        assert hours == [item["started_at"][11:13] for item in items], query


def test_ndjson_streams_everything_oldest_first(world: World):
    """One record a line, however many pages that would have been."""
    world.mailbox.waiting += [record(n) for n in range(1201)]
    answer = world.call("GET", "/ledger", headers=NDJSON)
    lines = [json.loads(line) for line in answer.text.splitlines()]

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [f"01J{n:023d}" for n in range(1201)] == [line["id"] for line in lines]
    assert world.call("GET", "/ledger?team=ads", headers=NDJSON).content == b""


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": "yesterday"}, "query.from"),
        ({"from": "2026-11-23"}, "query.from"),
        ({"from": "2026-11-23T12:00:00 01:00"}, "query.from"),
        ({"to": "2026-11-23T12:00:00"}, "query.to"),
        ({"limit": "0"}, "query.limit"),
        ({"limit": "1001"}, "query.limit"),
        ({"outcome": "fine"}, "query.outcome"),
        ({"team": "a\0b"}, "query.team"),
        ({"tema": "search"}, "query.tema"),
    ],
)
def test_bad_queries_are_named(world: World, query: dict[str, str], field: str):
    """A query that cannot be understood is not answered with everything."""
    answer = world.call("GET", "/ledger", params=query)

    assert answer.status_code == 422
    assert [field] == [error["field"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "zzz"},
        {"from": "2026-11-23T12:00:00Z", "to": "2026-11-23T12:00:00Z"},
    ],
)
def test_impossible_queries_are_refused(world: World, query: dict[str, str]):
    """A cursor of another list and an empty span are mistakes, not empty answers."""
    assert world.call("GET", "/ledger", params=query).status_code == 422


def test_usage_adds_up_exactly(world: World):
    """Sums are exact text; what is not known is counted, not added as zero."""
    world.mailbox.waiting += [record(0), record(1, team="ads"), record(25), unknown(2)]
    by_team = world.call("GET", "/usage", params={"group_by": "team,tag.env"}).json()

    assert by_team["items"] == [
        {
            "team": "ads",
            "tag.env": "prod",
            "requests": 1,
            "input_tokens": 1000,
            "output_tokens": 0,
            "currency": "USD",
            "cost": "0.0025",
            "list_cost": "0.0025",
            "unknown_cost_requests": 0,
            "unknown_usage_requests": 0,
        },
        {
            "team": "search",
            "tag.env": "prod",
            "requests": 3,
            "input_tokens": 2000,
            "output_tokens": 0,
            "currency": "USD",
            "cost": "0.005",
            "list_cost": "0.005",
            "unknown_cost_requests": 1,
            "unknown_usage_requests": 1,
        },
    ]
    by_day = world.call("GET", "/usage", params={"granularity": "day", "limit": "1"}).json()
    assert by_day["items"][0]["period_start"] == "2026-11-23T00:00:00.000000Z"
    second = world.call(
        "GET", "/usage", params={"granularity": "day", "cursor": by_day["next_cursor"]}
    ).json()
    assert [row["period_start"][:10] for row in second["items"]] == ["2026-11-24"]
    assert second["next_cursor"] is None
    world.mailbox.waiting += [unknown(4, team="lost")]
    lost = world.call("GET", "/usage", params={"team": "lost"}).json()["items"]
    assert [None] * 4 == [
        lost[0][name] for name in ("cost", "list_cost", "input_tokens", "output_tokens")
    ]


def test_usage_refuses_groups_it_does_not_know(world: World):
    """A misspelt group is an error with the names that exist."""
    answer = world.call("GET", "/usage", params={"group_by": "teem"})

    assert answer.status_code == 422
    assert "team" in answer.json()["detail"]
    names = ",".join(f"tag.t{n}" for n in range(9))
    assert world.call("GET", "/usage", params={"group_by": names}).status_code == 422


def test_prices_tell_version_and_source(world: World):
    """Every price names its version, its dates and the page it came from, in exact text."""
    page = world.call("GET", "/prices", params={"provider": "fake", "model": "demo-chat"}).json()

    assert page["version"] == world.parts.book.version.version
    assert page["at"] == "2026-11-23T12:00:00.000000Z"
    amounts = {item["meter"]: (item["amount"], item["per"]) for item in page["items"]}
    assert (("2.50", "1000000"), ("10", "1000000")) == (amounts["input"], amounts["output"])
    assert all(item["source"] and item["checked_at"] for item in page["items"])
    aliased = world.call("GET", "/prices", params={"model": "fake/demo-chat-2026-11-01"}).json()
    assert aliased["items"] == page["items"]
    early = world.call("GET", "/prices", params={"provider": "demo", "at": "2020-01-01T00:00:00Z"})
    assert early.json()["items"] == []
    assert world.call("GET", "/prices", params={"provider": "house"}).json()["items"] == []
    assert world.call("GET", "/prices", params={"model": "no-such"}).json()["items"] == []


def test_pages_of_prices_join(world: World):
    """Following the cursor visits every price once."""
    whole = world.call("GET", "/prices", params={"limit": "1000", "provider": "demo"}).json()
    seen: list[str] = []
    query = {"limit": "2", "provider": "demo"}
    while True:
        page = world.call("GET", "/prices", params=query).json()
        seen += [item["price_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]

    assert seen == [item["price_id"] for item in whole["items"]]
