"""Teams, projects, keys and budgets over HTTP."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import text

from gateway.budgets.rules import Demand, Subject
from gateway.tables import metadata
from tests.admin.world import NOON, World

TEAM = {"id": "ads", "name": "Ads", "tags": {"env": "dev"}}
PROJECT = {"id": "bids", "team": "ads", "name": "Bids", "tags": {}}
KEY = {"id": "bids-ci", "project": "bids", "models": ["fake/demo-*"], "tags": {"a": "b"}}
BUDGET = {
    "id": "ads-day",
    "scope": {"team": "ads"},
    "limit": "12.5 USD",
    "window": "day",
    "timezone": "Europe/Berlin",
    "mode": "soft",
    "thresholds": [80],
    "on_store_down": None,
    "actions": [],
    "anchor": None,
    "rollover": False,
    "valid_from": None,
    "valid_to": None,
}
MADE_AT = "2026-11-23T12:00:00.000000Z"


@pytest.fixture
def tree(world: World) -> World:
    """Make a team with a project."""
    assert world.call("POST", "/teams", json=TEAM).status_code == 201
    assert world.call("POST", "/projects", json=PROJECT).status_code == 201
    return world


def test_a_team_lives_and_dies(world: World):
    """What is made can be listed, shown, changed and deleted."""
    made = world.call("POST", "/teams", json=TEAM)
    shown = {**TEAM, "managed_by": "api", "created_at": MADE_AT}

    assert (made.status_code, made.json()) == (201, shown)
    assert world.call("GET", "/teams/ads").json() == shown
    changed = world.call("PATCH", "/teams/ads", json={"tags": {"x": "y"}})
    assert changed.json() == {**shown, "tags": {"x": "y"}}
    assert [t["id"] for t in world.call("GET", "/teams").json()["items"]] == ["ads", "search"]
    gone = world.call("DELETE", "/teams/ads")
    assert (gone.status_code, gone.content) == (204, b"")
    assert world.call("GET", "/teams/ads").status_code == 404


def test_names_default_to_ids(world: World):
    """Nobody has to write a name twice."""
    assert world.call("POST", "/teams", json={"id": "ads"}).json()["name"] == "ads"


def test_entities_of_the_configuration_are_read_only(world: World):
    """What the file says is changed in the file."""
    for method, path in [
        ("PATCH", "/teams/search"),
        ("DELETE", "/teams/search"),
        ("DELETE", "/projects/rag"),
        ("DELETE", "/keys/rag-ci"),
        ("DELETE", "/budgets/search-month"),
    ]:
        answer = world.call(method, path, **({"json": {}} if method == "PATCH" else {}))

        assert (answer.status_code, answer.json()["code"]) == (409, "managed_by_config")
    assert world.call("GET", "/keys/rag-ci").json()["managed_by"] == "config"
    assert world.call("POST", "/teams", json={"id": "search"}).status_code == 409


def test_a_key_works_as_soon_as_it_was_answered_and_not_after(tree: World):
    """The data plane knows a new key, a changed one and a revoked one before the client does."""
    made = tree.call("POST", "/keys", json=KEY)
    secret = made.json()["secret"]

    assert made.status_code == 201
    assert secret.startswith("sk-tm-")
    assert len(secret) == 49
    caller = tree.follower.callers.find(secret, NOON)
    assert caller is not None
    assert ("acme", "ads", "bids", "bids-ci") == (
        caller.organization,
        caller.team,
        caller.project,
        caller.key,
    )
    assert {"a": "b", "env": "dev"} == caller.tags
    patch = {"expires_at": "2026-11-23T14:00:00+01:00"}
    assert tree.call("PATCH", "/keys/bids-ci", json=patch).json()["expires_at"] == (
        "2026-11-23T13:00:00.000000Z"
    )
    assert tree.follower.callers.find(secret, NOON + timedelta(hours=1)) is None
    assert tree.follower.callers.find(secret, NOON + timedelta(minutes=59)) is not None
    tree.call("DELETE", "/keys/bids-ci")
    assert tree.follower.callers.find(secret, NOON) is None


def test_a_secret_is_shown_once_and_kept_nowhere(tree: World):
    """No table holds a secret, not even the one for repeated requests."""
    headers = {"authorization": "Bearer admin-secret-token", "idempotency-key": "k1"}
    made = tree.call("POST", "/keys", json=KEY, headers=headers)
    again = tree.call("POST", "/keys", json=KEY, headers=headers)

    assert (again.status_code, again.json()["code"]) == (409, "secret_shown_once")
    assert "secret" not in tree.call("GET", "/keys/bids-ci").json()
    with tree.engine.connect() as connection:
        for table in metadata.tables:
            for row in connection.execute(text(f'SELECT * FROM "{table}"')):
                assert made.json()["secret"] not in str(row)


def test_ids_of_revoked_keys_stay_taken(tree: World):
    """The ledger names keys by id, so an id never changes its owner."""
    tree.call("POST", "/keys", json=KEY)
    tree.call("DELETE", "/keys/bids-ci")

    assert tree.call("GET", "/keys/bids-ci").status_code == 404
    assert tree.call("POST", "/keys", json=KEY).status_code == 409


def test_what_others_depend_on_stays(tree: World):
    """A team with projects and a project with keys cannot be deleted."""
    tree.call("POST", "/keys", json=KEY)

    assert tree.call("DELETE", "/teams/ads").status_code == 409
    assert "bids-ci" in tree.call("DELETE", "/projects/bids").json()["detail"]
    tree.call("DELETE", "/keys/bids-ci")
    assert tree.call("DELETE", "/projects/bids").status_code == 204
    assert tree.call("DELETE", "/teams/ads").status_code == 204


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/projects", {**PROJECT, "team": "nobody"}, "body.team"),
        ("/keys", {**KEY, "project": "nobody"}, "body.project"),
        ("/keys", {**KEY, "models": []}, "body.models"),
        ("/keys", {**KEY, "expires_at": "2026-11-23T14:00:00"}, "body.expires_at"),
        ("/teams", {**TEAM, "id": "no good"}, "body.id"),
        ("/teams", {**TEAM, "tags": {"Bad": "x"}}, "body.tags"),
        ("/teams", {**TEAM, "nmae": "x"}, "body.nmae"),
        ("/budgets", {**BUDGET, "scope": {"team": "nobody"}}, "body.scope"),
        ("/budgets", {**BUDGET, "scope": {"organization": "other"}}, "body.scope"),
        ("/budgets", {**BUDGET, "scope": {"colour": "red"}}, "body.scope"),
        ("/budgets", {**BUDGET, "limit": "12 EUR"}, "body.limit"),
        ("/budgets", {**BUDGET, "window": "fortnight"}, "body.window"),
        ("/budgets", {**BUDGET, "anchor": "31"}, "body.anchor"),
        ("/budgets", {**BUDGET, "window": "hour", "anchor": "2026-01-31"}, "body.anchor"),
        ("/budgets", {**BUDGET, "rollover": "5 tokens"}, "body.rollover"),
        ("/budgets", {**BUDGET, "window": "total", "rollover": True}, "body.rollover"),
        ("/budgets", {**BUDGET, "valid_from": MADE_AT, "valid_to": MADE_AT}, "body.valid_to"),
        ("/budgets", {**BUDGET, "valid_to": "2026-11-23T12:00:00"}, "body.valid_to"),
        ("/budgets/search-month/topups", {"amount": "5 tokens", "reason": "x"}, "body.amount"),
        ("/budgets/search-month/topups", {"amount": "-5 USD", "reason": "x"}, "body.amount"),
        ("/budgets/search-month/topups", {"amount": "5 USD", "reason": " "}, "body.reason"),
        (
            "/budgets/search-month/topups",
            {"amount": "5 USD", "reason": "x", "at": "2026-10-01T00:00:00Z"},
            "body.at",
        ),
    ],
)
def test_bad_fields_are_named(tree: World, path: str, body: dict[str, object], field: str):
    """A refused change says which field is wrong and changes nothing."""
    before = tree.parts.directory.load_version()
    answer = tree.call("POST", path, json=body)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert [field] == [error["field"] for error in answer.json()["errors"]]
    assert before == tree.parts.directory.load_version()


def test_a_budget_shows_what_was_spent_and_is_held(tree: World):
    """The status is that of the window that holds now, in exact text."""
    made = tree.call("POST", "/budgets", json=BUDGET)

    assert made.json() == {
        **BUDGET,
        "managed_by": "api",
        "created_at": MADE_AT,
        "status": {
            "limit": "12.5",
            "spent": "0",
            "reserved": "0",
            "remaining": "12.5",
            "parked": "0",
            "unit": "USD",
            "window_start": "2026-11-22T23:00:00.000000Z",
            "window_end": "2026-11-23T23:00:00.000000Z",
            "topped_up": "0",
            "rolled_over": "0",
            "in_force": True,
            "burn_per_day": "0",
            "burn_per_window": "0",
            "exhausted_at": None,
        },
    }

    async def hold() -> None:
        subject = Subject(
            organization="acme",
            team="ads",
            project="bids",
            key="k",
            provider="fake",
            model="m",
            user=None,
            tags={},
        )
        demand = Demand(cost_pico=1_500_000_000_000, tokens=10)
        await tree.budgets.reserve("h1", subject, demand, NOON)

    tree.run_async(hold())
    status = tree.call("GET", "/budgets/ads-day").json()["status"]
    assert ("0", "1.5", "11") == (status["spent"], status["reserved"], status["remaining"])
    raised = tree.call("PATCH", "/budgets/ads-day", json={"limit": "20 USD"}).json()["status"]
    assert ("20", "1.5", "18.5") == (raised["limit"], raised["reserved"], raised["remaining"])
    listed = tree.call("GET", "/budgets").json()["items"]
    assert ["ads-day", "search-month"] == [budget["id"] for budget in listed]
    assert listed[1]["status"]["limit"] == "500"
    tree.call("DELETE", "/budgets/ads-day")
    assert ["search-month"] == [b.budget.id for b in tree.budgets.status(NOON)]


def test_a_budget_outlives_what_it_named(tree: World):
    """Deleting a team leaves its budget changeable, but no new scope may name the dead."""
    tree.call("POST", "/budgets", json=BUDGET)
    tree.call("DELETE", "/projects/bids")
    tree.call("DELETE", "/teams/ads")

    assert tree.call("PATCH", "/budgets/ads-day", json={"limit": "1 USD"}).status_code == 200
    scope = {"team": "ads", "model": "m"}
    assert tree.call("PATCH", "/budgets/ads-day", json={"scope": scope}).status_code == 422


def test_pages_join_without_gap_or_repeat(world: World):
    """Following the cursor visits everything once, configuration and database alike."""
    for name in ["a.1", "a-1", "a_1", "z", "search-2", "sea"]:
        world.call("POST", "/teams", json={"id": name})
    seen, cursor = [], None
    while True:
        query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = world.call("GET", "/teams", params=query).json()
        seen += [team["id"] for team in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == sorted(["a.1", "a-1", "a_1", "z", "search-2", "sea", "search"])


def test_every_change_is_audited(tree: World):
    """The audit says who changed what, with the state before and after."""
    tree.call("PATCH", "/teams/ads", json={"name": "Adverts"})
    with tree.engine.connect() as connection:
        rows = connection.execute(
            text("SELECT actor, action, noun, noun_id, before, after FROM audit ORDER BY id")
        ).all()

    assert [row[1:4] for row in rows] == [
        ("create", "team", "ads"),
        ("create", "project", "bids"),
        ("update", "team", "ads"),
    ]
    assert {row.actor for row in rows} == {"admin token"}
    assert json.loads(rows[-1].before)["name"] == "Ads"
    assert json.loads(rows[-1].after)["name"] == "Adverts"
    assert rows[0].before is None
