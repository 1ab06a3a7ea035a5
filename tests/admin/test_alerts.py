"""The log of alerts over HTTP."""

from gateway.alerts.message import Occasion, write_facts
from gateway.alerts.outbox import NewAlert, Outbox
from gateway.budgets.alerting import AlertKind, Mark
from gateway.clock import epoch_us
from tests.admin.world import NOON, World


def raise_alerts(world: World) -> None:
    """Record three alerts of the month; the highest was told, and refused at first."""
    (status,) = world.budgets.status(NOON)
    status = replace_spent(status)
    box = Outbox(world.engine, "g")
    for n, (mark, is_silent) in enumerate(
        [
            (Mark(AlertKind.THRESHOLD, 50), True),
            (Mark(AlertKind.THRESHOLD, 100), False),
            (Mark(AlertKind.REFUSAL), False),
        ]
    ):
        occasion = Occasion(alert_id=f"01A{n}", organization="acme", at=NOON)
        alert = NewAlert(
            id=occasion.alert_id,
            budget=status.budget.id,
            mark=mark,
            window_start_us=epoch_us(status.window.start),
            window_end_us=None,
            raised_at_us=epoch_us(NOON),
            is_silent=is_silent,
            facts=write_facts(mark, status, occasion),
            receivers=() if is_silent else ("ops",),
        )
        box.claim([alert])
    taken = box.take("ops", epoch_us(NOON), 1)
    assert taken is not None
    box.put_back(taken, "answered 500", epoch_us(NOON) + 9)


def replace_spent(status):
    """Make counters that say that everything is spent."""
    fields = {name: getattr(status, name) for name in status.__struct_fields__}
    return type(status)(**{**fields, "spent": status.limit})


def test_alerts_are_listed_newest_first_with_their_deliveries(world: World) -> None:
    """Everything as text or null, and who was told what."""
    raise_alerts(world)
    shown = world.call("GET", "/alerts").json()

    assert None is shown["next_cursor"]
    assert [("refusal", None), ("threshold", 100), ("threshold", 50)] == [
        (alert["kind"], alert["threshold"]) for alert in shown["items"]
    ]
    alert = shown["items"][1]
    assert ("500", "500", "0", 100, "USD", "search-month") == tuple(
        alert[name] for name in ("limit", "spent", "reserved", "percent", "unit", "budget")
    )
    assert ("2026-10-31T23:00:00.000000Z", "2026-11-30T23:00:00.000000Z", None) == (
        alert["window_start"],
        alert["window_end"],
        alert["forecast"],
    )
    assert [
        {
            "receiver": "ops",
            "status": "waiting",
            "attempts": 1,
            "last_error": "answered 500",
            "next_attempt_at": "2026-11-23T12:00:00.000009Z",
            "done_at": None,
        }
    ] == alert["deliveries"]
    assert [] == shown["items"][2]["deliveries"]
    assert shown["items"][2]["is_silent"]


def test_alerts_come_in_pages_and_by_budget(world: World) -> None:
    """A cursor leads from page to page; a filter that is misspelt is refused."""
    raise_alerts(world)
    first = world.call("GET", "/alerts?limit=2").json()
    rest = world.call("GET", f"/alerts?limit=2&cursor={first['next_cursor']}").json()

    assert [["01A2", "01A1"], ["01A0"]] == [
        [alert["id"] for alert in page["items"]] for page in (first, rest)
    ]
    assert None is rest["next_cursor"]
    assert [] == world.call("GET", "/alerts?budget=other").json()["items"]
    assert 3 == len(world.call("GET", "/alerts?budget=search-month").json()["items"])
    assert 422 == world.call("GET", "/alerts?budgets=other").status_code


def test_only_the_admin_token_opens_the_log(world: World) -> None:
    """As everything under ``/api/v1``."""
    assert 401 == world.raw("GET", "/api/v1/alerts").status_code
