"""The plan of the made-up company, and what its totals are compared by."""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from gateway.traffic.company import DAY_S, PROJECTS, WORKLOADS, busyness, plan_day
from gateway.traffic.expected import expected_costs, usage_of
from gateway.traffic.requests import Script, script_of, write_request
from gateway.traffic.tally import Outcome, Tally, differences_of
from pricing.book import load_book

AT = datetime(2026, 11, 23, tzinfo=UTC)


def test_the_same_seed_plans_the_same_day() -> None:
    """Two runs can be compared."""
    assert list(plan_day(0, 500, 7)) == list(plan_day(0, 500, 7))
    assert list(plan_day(0, 500, 7)) != list(plan_day(0, 500, 8))
    assert list(plan_day(0, 500, 7)) != list(plan_day(1, 500, 7))


def test_a_day_has_everything_a_dashboard_shows() -> None:
    """Teams, streams, caches, errors, an anomaly and calls without tags."""
    calls = list(plan_day(0, 4_000, 7))
    seen = Counter(call.workload.project for call in calls)

    assert 3_600 <= sum(not call.is_anomaly for call in calls) <= 4_400
    assert {project.id for project in PROJECTS} == set(seen)
    assert {workload.provider for workload in WORKLOADS} == {c.workload.provider for c in calls}
    assert {"", "busy", "broken", "cut", "leaves"} == {call.trouble for call in calls}
    assert any(call.cache_write for call in calls)
    assert any(call.cache_read for call in calls)
    assert any(call.reasoning for call in calls)
    assert 50 <= sum(call.is_anomaly for call in calls)
    assert any(not project.tags and seen[project.id] for project in PROJECTS)
    assert [call.at_s for call in calls] == sorted(call.at_s for call in calls)


def test_nights_are_quiet_and_what_runs_at_night_is_not() -> None:
    """The rhythm of a day shows."""
    office = next(one for one in WORKLOADS if one.rhythm == "office")
    night = next(one for one in WORKLOADS if one.rhythm == "night")

    assert busyness(office, 3 * 3_600) < busyness(office, 10 * 3_600) / 10
    assert busyness(night, 10 * 3_600) < busyness(night, 2 * 3_600) / 10


def test_every_planned_call_counts_what_it_says() -> None:
    """Counts are disjoint and sum to the plan; days go on from each other."""
    for call in plan_day(2, 1_000, 3):
        usage = usage_of(call)

        assert call.input + call.output == sum(usage.values())
        assert all(count > 0 for count in usage.values())
        assert 2 * DAY_S <= call.at_s < 3 * DAY_S + 60
        assert script_of(call) == Script.from_text(script_of(call).to_text())


def test_a_prompt_is_long_enough_for_what_is_counted_of_it() -> None:
    """A gateway bounds tokens by bytes: the demo must not count more than the bound."""
    for call in plan_day(0, 300, 1):
        assert len(write_request(call).body) >= 4 * call.input


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,x,", "1,-2,3,4,5,", "1,2,3,4,5,a,b"])
def test_a_script_that_cannot_be_read_is_refused(text: str) -> None:
    """The demo provider does not guess."""
    with pytest.raises(ValueError, match=r"invalid literal|is not five|min"):
        Script.from_text(text)


def test_what_a_day_will_cost_is_known_by_team() -> None:
    """Budgets can be set that are run into; the unpriced model counts as nothing."""
    costs = expected_costs(plan_day(0, 2_000, 7), load_book(), AT)

    assert {"search", "support", "research", "platform", "sales"} == set(costs)
    assert all(cost > Decimal("0.01") for cost in costs.values())


def outcome(**changes: Any) -> Outcome:
    """One call that went well."""
    fields: dict[str, Any] = {
        "id": "a", "team": "search", "status": 200, "is_refused": False, "input": 10, "output": 5,
        "cost": Decimal("0.1"), "is_retry": False, "is_anomaly": False, "trouble": "",
    }  # fmt: skip
    return Outcome(**{**fields, **changes})


def record(**changes: object) -> dict[str, object]:
    """Its record."""
    fields = {
        "id": "a", "team": "search", "outcome": "ok", "input_total": 10, "output_total": 5,
        "cost": "0.10",
    }  # fmt: skip
    return {**fields, **changes}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ""),
        ({"team": "sales"}, "team"),
        ({"outcome": "refused"}, "refused"),
        ({"input_total": 11}, "input tokens"),
        ({"output_total": None}, "output tokens"),
        ({"cost": "0.11"}, "cost"),
        ({"cost": None}, "cost"),
    ],
    ids=str,
)
def test_a_difference_to_the_ledger_is_told(changed: dict[str, object], told: str) -> None:
    """What a caller knows is compared with the record, field by field."""
    said = differences_of(outcome(), record(**changed))

    assert bool(told) == bool(said)
    assert told in "".join(said)


def test_a_call_without_a_record_is_a_difference() -> None:
    """A missing record is told, not left out."""
    tally = Tally()
    tally.add([outcome(), outcome(id="b"), outcome(id="", status=0)], [record()])

    assert ["b: the ledger has no record"] == tally.differences
    assert (1, Decimal("0.10"), 1) == (tally.total().calls, tally.total().cost, tally.lost)
