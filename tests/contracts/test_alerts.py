"""Alerts in the database: recorded once, delivered until they arrive, on both databases."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from sqlalchemy import event

from gateway.alerts.follower import POLL_S, AlertsFollower, AlertSources, Sending
from gateway.alerts.log import AlertLog
from gateway.alerts.outbox import KEPT_US, UNKNOWN_KEPT_US, NewAlert, Outbox
from gateway.alerts.sending import ATTEMPTS_MAX, Receiver
from gateway.budgets.alerting import AlertKind, Mark
from gateway.budgets.rules import BudgetId, BudgetStatus
from gateway.clock import epoch_us
from gateway.ledger.errors import StoreUnavailable
from gateway.upstream import UpstreamBroken
from tests.budgets.builders import budget, instant

NOON = instant("2026-11-23T12:00:00+00:00")
NOW_US = epoch_us(NOON)
SECOND_US = 10**6
LEASE_US = 40 * SECOND_US
END_US = epoch_us(instant("2026-12-01T00:00:00+00:00"))
HALF = Mark(AlertKind.THRESHOLD, 50)


def new(alert_id="A1", **changes):
    """Make an alert of a month for one receiver."""
    fields = {
        "id": alert_id,
        "budget": BudgetId("b"),
        "mark": HALF,
        "window_start_us": 5,
        "window_end_us": END_US,
        "raised_at_us": NOW_US,
        "is_silent": False,
        "facts": {"id": alert_id, "budget": "b", "kind": "threshold"},
        "receivers": ("ops",),
    }
    return NewAlert(**{**fields, **changes})


def rolling(alert_id):
    """Make an alert of a rolling window."""
    return new(alert_id, window_start_us=None, window_end_us=None)


def test_an_alert_is_recorded_once_whoever_races(ledger):
    """Twelve gateways see the same threshold at once: one claims it, and one delivery waits."""
    boxes = [Outbox(ledger.engine, f"g{n}") for n in range(12)]
    with ThreadPoolExecutor(12) as pool:
        claimed = list(pool.map(lambda n: boxes[n].claim([new(f"A{n}")]), range(12)))

    (winner,) = [ids for ids in claimed if ids]
    assert 1 == ledger.count("budget_alerts") == ledger.count("alert_deliveries")
    assert winner == [alert.facts["id"] for alert in AlertLog(ledger.engine).page(9)[0]]
    (mark,) = boxes[3].load_marks(NOW_US)
    assert ("b", HALF, 5, False) == (mark.budget, mark.mark, mark.window_start_us, mark.is_open)


def test_other_windows_kinds_and_thresholds_are_other_alerts(ledger):
    """All of them are recorded; what ended is not among what was told."""
    box = Outbox(ledger.engine, "g")
    others = [
        new("A2", window_start_us=6),
        new("A3", mark=Mark(AlertKind.THRESHOLD, 80)),
        new("A4", mark=Mark(AlertKind.REFUSAL)),
        new("A5", budget=BudgetId("c")),
        new("A6", window_start_us=7, window_end_us=NOW_US),
    ]

    assert ["A1"] == box.claim([new()])
    assert ["A2", "A3", "A4", "A5", "A6"] == box.claim(others)
    assert 5 == len(box.load_marks(NOW_US))


def test_a_rolling_window_claims_again_only_after_it_ended(ledger):
    """Whoever races: once, and once more after it has fallen clearly below."""
    box, other = Outbox(ledger.engine, "g"), Outbox(ledger.engine, "h")

    assert ["A1"] == box.claim([rolling("A1")])
    assert [] == other.claim([rolling("A2")])
    box.end_marks(BudgetId("b"), [HALF], NOW_US + 1)
    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda n: other.claim([rolling(f"B{n}")]), range(8)))
    assert 1 == len([ids for ids in again if ids])
    assert [True] == [mark.is_open for mark in box.load_marks(NOW_US + 2)]
    assert 2 == ledger.count("budget_alerts")


def test_a_delivery_is_with_one_gateway_at_a_time(ledger):
    """Until its lease ends; each time it is taken counts as an attempt."""
    box, other = Outbox(ledger.engine, "g"), Outbox(ledger.engine, "h")
    box.claim([new()])
    first = box.take("ops", NOW_US, LEASE_US)

    assert ("A1", "ops", 1, "b") == (
        first.alert,
        first.receiver,
        first.attempts,
        first.facts["budget"],
    )
    assert None is other.take("ops", NOW_US + LEASE_US - 1, LEASE_US)
    assert None is other.take("pager", NOW_US + LEASE_US, LEASE_US)
    second = other.take("ops", NOW_US + LEASE_US, LEASE_US)
    assert 2 == second.attempts
    # The first comes back late with bad news, which no longer counts; good news would.
    box.put_back(first, "late", NOW_US)
    assert None is box.take("ops", NOW_US + LEASE_US + 1, LEASE_US)
    box.finish(first, NOW_US + LEASE_US + 2)
    assert 0 == box.count_waiting()
    other.give_up(second, "late as well", NOW_US + LEASE_US + 3)
    (shown,) = AlertLog(ledger.engine).page(1)[0]
    assert ["delivered"] == [one.status for one in shown.deliveries]


def test_racing_gateways_take_different_deliveries(ledger):
    """Twenty alerts and six takers: every alert is taken once."""
    box = Outbox(ledger.engine, "g")
    for n in range(20):
        box.claim([new(f"A{n:02}", window_start_us=n)])

    def take_all(n):
        mine = Outbox(ledger.engine, f"g{n}")
        found = []
        while (delivery := mine.take("ops", NOW_US, LEASE_US)) is not None:
            found.append(delivery.alert)
        return found

    with ThreadPoolExecutor(6) as pool:
        taken = [alert for found in pool.map(take_all, range(6)) for alert in found]
    # A taker may have stopped while the last ones were locked by others.
    taken += take_all(7)

    assert [f"A{n:02}" for n in range(20)] == sorted(taken)


def test_a_gateway_that_starts_again_takes_over_what_it_had_taken(ledger):
    """At once, and nothing of another's."""
    for name, alert in (("g", new()), ("h", new("A2", window_start_us=6))):
        Outbox(ledger.engine, name).claim([alert])
    assert "A1" == Outbox(ledger.engine, "g").take("ops", NOW_US, LEASE_US).alert
    assert "A2" == Outbox(ledger.engine, "h").take("ops", NOW_US, LEASE_US).alert
    again = Outbox(ledger.engine, "g")
    again.release()

    assert ("A1", 2) == (
        (taken := again.take("ops", NOW_US, LEASE_US)).alert,
        taken.attempts,
    )
    assert None is again.take("ops", NOW_US, LEASE_US)


def test_a_failed_attempt_is_due_again_when_it_says(ledger):
    """Not before; what is given up is not due any more and says why."""
    box = Outbox(ledger.engine, "g")
    box.claim([new()])
    box.put_back(box.take("ops", NOW_US, LEASE_US), "answered 500", NOW_US + 7)

    assert None is box.take("ops", NOW_US + 6, LEASE_US)
    last = box.take("ops", NOW_US + 7, LEASE_US)
    (waiting,) = AlertLog(ledger.engine).page(1)[0][0].deliveries
    box.give_up(last, "answered 500", NOW_US + 8)
    assert ("waiting", "answered 500") == (waiting.status, waiting.last_error)
    assert None is box.take("ops", END_US, LEASE_US)
    (failed,) = AlertLog(ledger.engine).page(1)[0][0].to_public()["deliveries"]
    assert {
        "receiver": "ops",
        "status": "failed",
        "attempts": 2,
        "last_error": "answered 500",
        "next_attempt_at": None,
        "done_at": "2026-11-23T12:00:00.000008Z",
    } == failed


def test_old_alerts_are_forgotten_and_lost_ones_given_up(ledger):
    """An alert of a window that may still tell stays, however old."""
    box = Outbox(ledger.engine, "g")
    box.claim([new("A1"), new("A2", window_start_us=6, window_end_us=None)])
    box.prune(NOW_US + UNKNOWN_KEPT_US + 1)

    assert 0 == box.count_waiting()
    assert {"no gateway has this receiver any more"} == {
        one.last_error for alert in AlertLog(ledger.engine).page(9)[0] for one in alert.deliveries
    }
    box.prune(END_US + KEPT_US + 1)
    assert ["A2"] == [alert.facts["id"] for alert in AlertLog(ledger.engine).page(9)[0]]
    assert 1 == ledger.count("alert_deliveries")


def test_the_log_is_read_in_pages_newest_first(ledger):
    """Every alert once, of all budgets or of one."""
    box = Outbox(ledger.engine, "g")
    for n in range(7):
        box.claim([new(f"A{n}", window_start_us=n, budget=BudgetId("bc"[n % 2]))])
    log, seen, cursor = AlertLog(ledger.engine), [], None
    while True:
        page, cursor = log.page(3, cursor)
        seen.append([alert.facts["id"] for alert in page])
        if cursor is None:
            break

    assert [["A6", "A5", "A4"], ["A3", "A2", "A1"], ["A0"]] == seen
    assert ["A5", "A3", "A1"] == [a.facts["id"] for a in log.page(9, None, "c")[0]]


def test_a_database_that_is_away_is_said_so(absent_engine):
    """By every way into it."""
    box = Outbox(absent_engine, "g")
    for way in (
        lambda: box.load_marks(NOW_US),
        lambda: box.claim([new()]),
        lambda: box.take("ops", NOW_US, 1),
        lambda: AlertLog(absent_engine).page(1),
    ):
        with pytest.raises(StoreUnavailable):
            way()


# -- what a gateway does with it -------------------------------------------------------------------


@dataclass
class Hands:
    """A clock that a test moves."""

    at: object = NOON

    def now(self):
        """Tell the time."""
        return self.at

    def monotonic_s(self):
        """Tell seconds."""
        return self.at.timestamp()

    def move(self, seconds):
        """Let time pass."""
        self.at += timedelta(seconds=seconds)


class Counted:
    """Counts what happened to alerts."""

    def __init__(self):
        self.outcomes = []

    def alerted(self, budget, kind, outcome):
        """Write it down."""
        self.outcomes.append(f"{budget} {kind} {outcome}")


class Wire:
    """A receiver without a network: fails as often as it is told."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.bodies = []

    @asynccontextmanager
    async def _answer(self, request):
        self.bodies.append(request.body)
        if self.failures:
            raise self.failures.pop(0)
        yield Head()

    def send(self, request):
        """Send."""
        return self._answer(request)


class Head:
    """The head of an answer that takes an alert."""

    status = 204
    headers = ()

    async def read_chunk(self):
        """Nothing follows."""
        return None


OPS = Receiver(
    id="ops",
    url="http://receiver.test/",
    secret=None,
    form="json",
    kinds=frozenset(AlertKind),
    budgets=("*",),
    scope=frozenset(),
    timeout_s=10,
)


class Watch:
    """A gateway's alerts over counters that a test sets."""

    def __init__(self, ledger, *failures, text="b month 1000 tokens", name="g", clock=None, **more):
        self.budget = budget(text, **more)
        self.clock = clock or Hands()
        self.spent = 0
        self.past = {}
        self.refusals = {}
        self.is_known = True
        self.counted = Counted()
        self.wire = Wire(*failures)
        self.log = AlertLog(ledger.engine)
        self.alerts = AlertsFollower(
            outbox=Outbox(ledger.engine, name),
            sources=AlertSources(
                statuses=lambda at: [self.status(at)],
                refusals=lambda: self.refusals,
                is_spending_known=lambda: self.is_known,
            ),
            sending=Sending(
                receivers=[OPS],
                open_upstream=lambda _: self.wire,
                version="0",
                organization="acme",
            ),
            watcher=self.counted,
            clock=self.clock,
        )

    def status(self, at):
        """Make the counters."""
        window = self.budget.window.window_at(at)
        spent, held = self.past.get(window.start, (self.spent, 0))
        return BudgetStatus(
            budget=self.budget, window=window, spent=spent, held=held, parked=0, limit=1000
        )

    def look(self, spent=None):
        """Look once."""
        self.spent = self.spent if spent is None else spent
        asyncio.run(self.alerts.look())

    def deliver(self):
        """Send what is due; tells when to look again."""
        return asyncio.run(self.alerts.deliver_due(OPS, self.wire))

    def told(self):
        """Write the log in words, oldest first; what nobody was told in brackets."""
        words = []
        for alert in reversed(self.log.page(99)[0]):
            facts = alert.facts
            word = f"{facts['kind']} {facts['threshold'] or facts['window_start'][:10]}"
            words.append(f"({word})" if alert.is_silent else word)
        return words


def test_every_look_records_what_is_new(ledger):
    """Once each, the highest for those passed together; counted as raised."""
    watch = Watch(ledger, thresholds=[50, 80, 100])
    for spent in (499, 500, 500, 1000, 1200):
        watch.look(spent)

    assert ["threshold 50", "(threshold 80)", "threshold 100"] == watch.told()
    assert ["b threshold raised"] * 3 == watch.counted.outcomes
    assert [[], [], [80]] == [alert.facts["passed"] for alert in reversed(watch.log.page(9)[0])]


def test_a_new_window_tells_again(ledger):
    """A month later; and after a restart nothing is told twice."""
    watch = Watch(ledger, thresholds=[50])
    watch.look(600)
    watch.clock.move(86_400 * 10)
    watch.look(10)
    watch.look(700)
    again = Watch(ledger, thresholds=[50], clock=watch.clock)
    again.look(700)

    assert ["threshold 50", "threshold 50"] == watch.told()
    assert [] == again.counted.outcomes


def test_nothing_is_told_while_past_spending_is_not_known(ledger):
    """Counters that are still being read back would tell of too little, and end what holds."""
    watch = Watch(ledger, thresholds=[50])
    watch.is_known = False
    watch.look(600)
    assert [] == watch.told()
    watch.is_known = True
    watch.look()

    assert ["threshold 50"] == watch.told()


def test_what_could_not_be_recorded_is_due_at_the_next_look(ledger):
    """A database that is away loses no alert, nor a refusal seen meanwhile."""
    watch = Watch(ledger, thresholds=[])
    is_down = [True]

    @event.listens_for(ledger.engine, "before_cursor_execute")
    def fail(_connection, _cursor, statement, *_rest):
        if is_down[0] and statement.startswith("INSERT"):
            raise StoreUnavailable("away")

    watch.refusals = {("b", "budget_exceeded"): 1}
    with pytest.raises(StoreUnavailable):
        watch.look(990)
    is_down[0] = False
    watch.look()

    assert ["refusal 2026-11-01"] == watch.told()


def test_refusals_before_the_end_of_a_window_are_not_told_of_the_next_one(ledger):
    """A budget that was hammered until midnight starts its new day without a false alarm."""
    watch = Watch(ledger, text="b day 1000 tokens", thresholds=[])
    watch.refusals = {("b", "budget_exceeded"): 1, ("b", "rate_limited"): 8}
    watch.look(990)
    watch.clock.move(43_199)
    watch.refusals = {("b", "budget_exceeded"): 70}
    watch.look(990)
    watch.clock.move(2)
    watch.refusals = {("b", "budget_exceeded"): 90}
    watch.look(0)
    assert ["refusal 2026-11-23"] == watch.told()
    watch.refusals = {("b", "budget_exceeded"): 91}
    watch.look(0)

    assert ["refusal 2026-11-23", "refusal 2026-11-24"] == watch.told()


def test_what_is_reached_just_before_a_window_ends_is_told(ledger):
    """Between two looks lies the end of the window: it is looked at once more."""
    watch = Watch(ledger, text="b day 1000 tokens", thresholds=[50, 80])
    watch.clock.move(43_199)
    watch.look(600)
    watch.clock.move(2)
    watch.past = {instant("2026-11-23T00:00:00+00:00"): (900, 0)}
    watch.look(10)
    watch.look(10)
    (newest, _) = watch.log.page(9)[0]

    assert ["threshold 50", "threshold 80"] == watch.told()
    assert ("900", "2026-11-23") == (newest.facts["spent"], newest.facts["window_start"][:10])


def test_what_open_calls_come_to_after_their_window_is_told(ledger):
    """A call counts in the window it was let in, so that one may reach a threshold later."""
    watch = Watch(ledger, text="b hour 1000 tokens", thresholds=[50, 80])
    first = instant("2026-11-23T12:00:00+00:00")
    watch.look(600)
    watch.past = {first: (600, 300)}
    told = []
    for seconds, spent in ((3600, (600, 300)), (30, (600, 300)), (30, (900, 0)), (30, (999, 0))):
        watch.clock.move(seconds)
        watch.past[first] = spent
        watch.look(10)
        told.append(len(watch.told()))
    again = Watch(ledger, text="b hour 1000 tokens", thresholds=[50, 80], clock=watch.clock)
    again.past = watch.past
    again.look(10)

    assert [1, 1, 2, 2] == told
    assert ["threshold 50", "threshold 80"] == again.told()


def test_rate_limits_and_soft_budgets_do_not_tell_that_they_refuse(ledger):
    """To refuse is what a rate limit is for."""
    watch = Watch(ledger, thresholds=[])
    watch.refusals = {("b", "rate_limited"): 8}
    watch.look(500)

    assert [] == watch.told()


def test_a_forecast_is_told_once_a_window(ledger):
    """With the instant it foresees."""
    watch = Watch(ledger, thresholds=[])
    for _ in range(3):
        watch.look(800)
        watch.clock.move(3600)

    (alert,) = watch.log.page(9)[0]
    assert "forecast" == alert.facts["kind"]
    assert "2026-11-29" == alert.facts["forecast"][:10]


def test_a_rolling_window_rearms_after_falling_clearly_below(ledger):
    """And only then: hovering does not ring."""
    watch = Watch(ledger, text="b rolling:3600 1000 tokens", thresholds=[50])
    for spent in (500, 460, 500, 449, 500):
        watch.look(spent)
        watch.clock.move(60)

    assert ["threshold 50", "threshold 50"] == watch.told()


def test_a_gateway_that_has_seen_little_does_not_rearm_what_another_told(ledger):
    """Until a window's length later, when the other may be gone."""
    busy = Watch(ledger, text="b rolling:3600 1000 tokens", thresholds=[50], name="busy")
    idle = Watch(
        ledger, text="b rolling:3600 1000 tokens", thresholds=[50], name="idle", clock=busy.clock
    )
    for _ in range(10):
        busy.look(500)
        idle.look(10)
        busy.clock.move(POLL_S)
    assert ["threshold 50"] == busy.told()
    busy.clock.move(3600)
    idle.look(10)
    idle.look(600)

    assert ["threshold 50", "threshold 50"] == busy.told()


def test_a_delivery_is_tried_again_until_it_arrives(ledger):
    """With the same bytes; the delay grows, and the metric tells."""
    watch = Watch(ledger, UpstreamBroken("reset"), UpstreamBroken("reset"), thresholds=[50])
    watch.look(500)
    pauses = []
    for _ in range(3):
        pauses.append(watch.deliver())
        watch.clock.move(POLL_S)

    assert 3 == len(watch.wire.bodies)
    assert 1 == len(set(watch.wire.bodies))
    assert 0.25 <= pauses[0] <= 0.5 <= pauses[1] <= 1.0
    assert POLL_S == pauses[2]
    assert [
        "b threshold raised",
        "b threshold retried",
        "b threshold retried",
        "b threshold delivered",
    ] == watch.counted.outcomes
    assert 0 == watch.alerts.waiting


def test_a_delivery_that_never_arrives_is_given_up(ledger):
    """After its last attempt, and it says so."""
    failures = [UpstreamBroken("reset") for _ in range(ATTEMPTS_MAX + 5)]
    watch = Watch(ledger, *failures, thresholds=[50])
    watch.look(500)
    for _ in range(ATTEMPTS_MAX + 3):
        watch.deliver()
        watch.clock.move(3601)

    assert ATTEMPTS_MAX == len(watch.wire.bodies)
    (delivery,) = watch.log.page(1)[0][0].deliveries
    assert ("failed", ATTEMPTS_MAX, "not reached: reset") == (
        delivery.status,
        delivery.attempts,
        delivery.last_error,
    )
    assert "b threshold failed" == watch.counted.outcomes[-1]


def test_a_defect_that_ends_alerting_is_told(ledger, caplog):
    """It is no silence that looks like peace."""
    watch = Watch(ledger, thresholds=[50])
    watch.budget = None

    async def go():
        watch.alerts.start()
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(go())

    (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "alerts have stopped: nobody is told of budgets" == told.message


def test_a_receiver_takes_what_it_wants():
    """Kinds, patterns of ids and parts of the scope: all of them must match."""
    search = budget("search-month month 5 USD", scope={"team": "search", "tag.env": "prod"})
    wants = {
        "all": OPS,
        "kind": replace(OPS, kinds=frozenset({AlertKind.REFUSAL})),
        "pattern": replace(OPS, budgets=("rag", "search-*")),
        "scope": replace(OPS, scope=frozenset({("team", "search")})),
        "other scope": replace(OPS, scope=frozenset({("team", "rag")})),
    }

    assert ["all", "pattern", "scope"] == [
        name for name, one in wants.items() if one.wants(AlertKind.THRESHOLD, search)
    ]
