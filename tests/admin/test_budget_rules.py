"""Anchors, rollover, validity, top-ups and forecasts of budgets over HTTP."""

from datetime import timedelta

from gateway.budgets.holds import Hold
from gateway.budgets.rules import Demand, Subject
from tests.admin.world import World

CALL = Subject(
    organization="acme",
    team="search",
    project="rag",
    key="rag-ci",
    provider="fake",
    model="m",
    user=None,
    tags={},
)
DAY = {"id": "day", "limit": "10 USD", "window": "day"}


async def spend(world: World, usd: int) -> None:
    """Spend whole dollars now."""
    used = Demand(cost_pico=usd * 10**12, tokens=1)
    hold = await world.budgets.reserve(f"h{world.clock.at}{usd}", CALL, used, world.clock.at)
    assert isinstance(hold, Hold)
    assert world.budgets.settle(hold, used)


def test_a_budget_has_every_field_it_was_given(world: World) -> None:
    """And one of them can be changed alone."""
    given = {
        **DAY,
        "window": "month",
        "anchor": "2026-01-31T09:00:00",
        "rollover": "5 USD",
        "valid_from": "2026-10-31T09:00:00.000000Z",
        "valid_to": "2027-12-31T00:00:00.000000Z",
    }

    made = world.call("POST", "/budgets", json=given).json()

    assert given.items() <= made.items()
    assert "2026-10-31T09:00:00.000000Z" == made["status"]["window_start"]
    assert "2026-11-30T09:00:00.000000Z" == made["status"]["window_end"]
    changed = world.call("PATCH", "/budgets/day", json={"rollover": True}).json()
    assert {**given, "rollover": True}.items() <= changed.items()
    cleared = world.call(
        "PATCH", "/budgets/day", json={"rollover": False, "anchor": None, "valid_to": None}
    ).json()
    assert (False, None, None) == (cleared["rollover"], cleared["anchor"], cleared["valid_to"])


def test_a_top_up_holds_at_once_and_is_listed(world: World) -> None:
    """In the window that holds now; asked twice with one key it is added once."""
    wish = {"amount": "100 USD", "reason": "launch week"}
    headers = {"authorization": "Bearer admin-secret-token", "idempotency-key": "one"}

    made = world.call("POST", "/budgets/search-month/topups", json=wish, headers=headers)
    again = world.call("POST", "/budgets/search-month/topups", json=wish, headers=headers)

    assert (201, made.json()) == (made.status_code, again.json())
    status = world.call("GET", "/budgets/search-month").json()["status"]
    assert ("600", "100", "600") == (status["limit"], status["topped_up"], status["remaining"])
    listed = world.call("GET", "/budgets/search-month/topups").json()
    assert {"items": [made.json()], "next_cursor": None} == listed
    assert {
        "budget": "search-month",
        "amount": "100 USD",
        "reason": "launch week",
        "actor": "admin token",
        "created_at": "2026-11-23T12:00:00.000000Z",
        "window_start": "2026-10-31T23:00:00.000000Z",
        "window_end": "2026-11-30T23:00:00.000000Z",
    }.items() <= made.json().items()
    world.clock.move(timedelta(days=10))
    assert "500" == world.call("GET", "/budgets/search-month").json()["status"]["limit"]


def test_top_ups_come_in_pages(world: World) -> None:
    """Following the cursor visits each once."""
    for n in (1, 2, 3):
        wish = {"amount": f"{n} USD", "reason": "more"}
        assert 201 == world.call("POST", "/budgets/search-month/topups", json=wish).status_code

    first = world.call("GET", "/budgets/search-month/topups", params={"limit": "2"}).json()
    query = {"limit": "2", "cursor": first["next_cursor"]}
    second = world.call("GET", "/budgets/search-month/topups", params=query).json()

    amounts = [one["amount"] for one in (*first["items"], *second["items"])]
    assert (["1 USD", "2 USD", "3 USD"], None) == (amounts, second["next_cursor"])
    assert 404 == world.call("GET", "/budgets/nobody/topups").status_code
    more = {"amount": "1 USD", "reason": "more"}
    assert 404 == world.call("POST", "/budgets/nobody/topups", json=more).status_code


def test_the_status_tells_what_was_rolled_over_and_when_it_will_be_used_up(world: World) -> None:
    """At the rate of the window so far, as text."""
    world.call("POST", "/budgets", json={**DAY, "rollover": True})
    world.run_async(spend(world, 6))
    # Six in twelve hours: ten by eight in the evening.
    status = world.call("GET", "/budgets/day").json()["status"]
    assert ("12", "2026-11-23T20:00:00.000000Z") == (
        status["burn_per_day"],
        status["exhausted_at"],
    )
    world.clock.move(timedelta(days=1))

    status = world.call("GET", "/budgets/day").json()["status"]

    assert ("14", "4", "0") == (status["limit"], status["rolled_over"], status["burn_per_day"])
    assert status["exhausted_at"] is None


def test_a_budget_that_is_not_in_force_says_so(world: World) -> None:
    """It shows its first window, and nothing is forecast."""
    later = {**DAY, "valid_from": "2026-12-01T00:00:00Z"}

    status = world.call("POST", "/budgets", json=later).json()["status"]

    assert (False, "2026-12-01T00:00:00.000000Z", None) == (
        status["in_force"],
        status["window_start"],
        status["burn_per_day"],
    )


def test_a_top_up_by_another_process_arrives(world: World) -> None:
    """It counts as a change of the directory, which a running gateway looks for."""
    elsewhere = World(world.folder)
    wish = {"amount": "5 USD", "reason": "from elsewhere"}
    before = world.parts.directory.load_version()
    elsewhere.call("POST", "/budgets/search-month/topups", json=wish)
    assert before < world.parts.directory.load_version()

    world.run_async(world.follower.reload())

    status = world.call("GET", "/budgets/search-month").json()["status"]
    assert ("505", "5") == (status["limit"], status["topped_up"])
    elsewhere.engine.dispose()
