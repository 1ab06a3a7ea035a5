"""Changing prices over HTTP: each change is another version, and a repeat changes nothing."""

import pytest

from tests.admin.world import ADMIN, NOON, World

RATE = {"provider": "demo", "model": "demo-chat", "meter": "input", "amount": "3", "per": 1_000_000}
OVERRIDE = {"id": "search-7", "team": "search", "provider": "demo", "percent": "-20"}
WHY = "contract 7"


@pytest.fixture
def priced(world: World) -> World:
    """A world whose versions are recorded."""
    world.versions.record_shipped("taximeter 1.0")
    return world


def amount(world: World, **query) -> tuple[str, str]:
    """The price of input now, and the version it is from."""
    page = world.call("GET", "/prices", params={"model": "demo-chat", **query}).json()
    (price,) = [p for p in page["items"] if p["meter"] == "input"]
    return price["amount"], page["version"]


def test_a_rate_makes_a_version(priced: World):
    """Who, when and why stand beside it; the shipped one stays."""
    answer = priced.call("POST", "/prices", json={"rates": [RATE], "why": WHY})
    made = answer.json()

    assert 201 == answer.status_code
    assert ("2026-11-23.4", "operator", "approved", "admin token", WHY, True, []) == tuple(
        made[name]
        for name in ("version", "origin", "status", "recorded_by", "why", "is_current", "later")
    )
    assert "2026-11-23T12:00:00.000000Z" == made["effective_from"] == made["recorded_at"]
    assert ("3", made["version"]) == amount(priced)
    names = [one["version"] for one in priced.call("GET", "/prices/versions").json()["items"]]
    assert ["2026-11-23.4", "2026-11-23.3", "2026-11-23.2", "2026-11-23.1"] == names


def test_a_negotiated_rate_is_the_payers_alone(priced: World):
    """It ends with another change."""
    priced.call("POST", "/prices", json={"overrides": [OVERRIDE], "why": WHY})

    assert "2" == amount(priced, team="search")[0]
    assert "2.50" == amount(priced)[0]
    end = {"id": "search-7", "valid_to": "2026-11-23T12:00:00Z"}
    priced.call("POST", "/prices", json={"end_overrides": [end], "why": "cancelled"})
    assert "2.50" == amount(priced, team="search")[0]


def test_a_version_that_holds_later_leaves_prices_as_they_are(priced: World):
    """It is in the list, and not current."""
    body = {"rates": [RATE], "why": WHY, "effective_from": "2026-12-01T00:00:00Z"}
    made = priced.call("POST", "/prices", json=body).json()

    assert ("2026-12-01T00:00:00.000000Z", False) == (made["effective_from"], made["is_current"])
    assert "2.50" == amount(priced)[0]
    body = {"overrides": [OVERRIDE], "why": WHY}
    (later,) = priced.call("POST", "/prices", json=body).json()["later"]
    assert (made["version"], made["effective_from"]) == (later["base"], later["effective_from"])


def test_prices_of_a_day_to_come_are_those_of_the_version_in_force_then(priced: World):
    """As calls of that day will be priced; a model that is new then is found."""
    big = {**RATE, "model": "big", "new_model": {}}
    body = {"rates": [RATE, big], "why": WHY, "effective_from": "2026-12-01T00:00:00Z"}
    made = priced.call("POST", "/prices", json=body).json()

    assert ("2.50", "2026-11-23.3") == amount(priced, at="2026-11-30T23:59:59Z")
    assert ("3", made["version"]) == amount(priced, at="2026-12-01T00:00:00Z")
    query = {"model": "demo/big", "at": "2026-12-01T00:00:00Z", "explain": "input"}
    found = priced.call("GET", "/prices", params=query).json()
    assert ["demo/big/input/standard"] == [price["price_id"] for price in found["items"]]
    assert "3" == found["explanations"][0]["price"]["amount"]


def test_the_list_says_which_version_is_in_force_when(priced: World):
    """Also what only carries a change, and what nothing is ever priced with."""
    later = "2026-12-01T00:00:00.000000Z"
    waits = {"rates": [RATE], "why": WHY, "effective_from": later}
    scheduled = priced.call("POST", "/prices", json=waits).json()
    mine = priced.call("POST", "/prices", json={"overrides": [OVERRIDE], "why": WHY}).json()
    (carrying,) = mine["later"]

    found = {one["version"]: one for one in priced.call("GET", "/prices/versions").json()["items"]}

    assert mine["version"] == carrying["carries"]
    assert [(later, None), ("2026-11-23T12:00:00.000000Z", later), (None, None)] == [
        (found[name]["in_force_from"], found[name]["in_force_to"])
        for name in (carrying["version"], mine["version"], scheduled["version"])
    ]


def test_a_repeat_with_the_same_key_changes_nothing(priced: World):
    """The first answer comes again."""
    headers = {**ADMIN, "idempotency-key": "k1"}
    body = {"rates": [RATE], "why": WHY}
    first = priced.call("POST", "/prices", json=body, headers=headers)
    again = priced.call("POST", "/prices", json=body, headers=headers)

    assert first.json() == again.json()
    assert 4 == len(priced.versions.list_versions())


def test_a_new_model_has_to_be_said_to_be_one(priced: World):
    """A misspelt name would otherwise be a model of its own."""
    rate = {**RATE, "model": "demo-caht"}
    refused = priced.call("POST", "/prices", json={"rates": [rate], "why": WHY})
    assert 422 == refused.status_code
    assert "say new_model" in refused.json()["detail"]

    rate["new_model"] = {"aliases": ["typo"], "context_tokens_max": 1000}
    assert 201 == priced.call("POST", "/prices", json={"rates": [rate], "why": WHY}).status_code
    assert [] != priced.call("GET", "/prices", params={"model": "typo"}).json()["items"]


@pytest.mark.parametrize(
    ("body", "status", "field", "said"),
    [
        ({}, 422, None, "nothing is changed"),
        ({"rates": [{**RATE, "amount": "x"}]}, 422, "body.rates.0.amount", "a decimal such as"),
        ({"rates": [{**RATE, "amount": "-1"}]}, 422, "body.rates.0", "negative"),
        ({"rates": [{**RATE, "amount": "0.0000000001"}]}, 422, "body.rates.0", "nine decimals"),
        ({"rates": [{**RATE, "hours": "always"}]}, 422, "body.rates.0.hours", "always"),
        ({"rates": [{**RATE, "meter": "inptu"}]}, 422, "body.rates.0.meter", "input"),
        ({"overrides": [{"id": "a"}]}, 422, "body.overrides.0", "percent or an amount"),
        ({"overrides": [{**OVERRIDE, "percent": "0,5"}]}, 422, "body.overrides.0.percent", "0,5"),
        ({"rates": [{**RATE, "amount": "2.5"}]}, 409, None, "change nothing"),
        ({"end_overrides": [{"id": "a", "valid_to": "2026-12-01T00:00:00Z"}]}, 409, None, "'a'"),
        (
            {"rates": [RATE], "effective_from": "2026-11-01T00:00:00Z"},
            422,
            "body.effective_from",
            "past",
        ),
    ],
    ids=str,
)
def test_a_refusal_names_field_and_mend(priced: World, body, status, field, said):
    """As a problem, and nothing is recorded."""
    answer = priced.call("POST", "/prices", json={"why": WHY, **body})
    problem = answer.json()

    assert status == answer.status_code, problem
    assert "application/problem+json" == answer.headers["content-type"]
    assert said in problem["detail"]
    assert ([] if field is None else [field]) == [one["field"] for one in problem["errors"]]
    assert 3 == len(priced.versions.list_versions())


def test_a_change_needs_a_reason(priced: World):
    """Somebody will ask."""
    answer = priced.call("POST", "/prices", json={"rates": [RATE]})

    assert (422, "body.why") == (answer.status_code, answer.json()["errors"][0]["field"])
    assert NOON == priced.clock.now()
