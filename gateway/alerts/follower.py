"""What a running gateway does about alerts: looks at the budgets, records, sends, tries again.

Must never be waited for by a call, nor hold one up: it looks at the counters from a thread.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version as version_of
from typing import Final, Protocol

from msgspec.structs import replace

from gateway.alerts.message import Occasion, write_facts
from gateway.alerts.outbox import Delivery, NewAlert, Outbox, RaisedMark
from gateway.alerts.sending import Receiver, retry_delay_s, send_alert, to_receiver
from gateway.budgets.alerting import (
    AlertKind,
    DueAlert,
    due_alerts,
    ended_marks,
    forecast_to_tell,
)
from gateway.budgets.rules import BudgetId, BudgetStatus
from gateway.budgets.windows import RollingWindow
from gateway.clock import Clock, epoch_us
from gateway.ids import IdSource
from gateway.ledger.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.upstream import HttpUpstream, Upstream

log = logging.getLogger("taximeter.alerts")

LOOK_S: Final = 1.0
# How soon what other gateways recorded, or left behind, is seen.
POLL_S: Final = 5.0
PRUNE_S: Final = 3600.0
# A lease outlasts the attempt, so that nobody else sends the same alert while one is on its way.
_LEASE_MORE_S: Final = 30.0
_REFUSED: Final = "budget_exceeded"
_TICK: Final = timedelta(microseconds=1)


class AlertWatcher(Protocol):
    """Somebody who counts alerts."""

    def alerted(self, budget: str, kind: str, outcome: str) -> None:
        """An alert was raised or delivered, is tried again, or was given up."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSources:
    """What the budgets of this gateway say; asked from a thread.

    Attributes:
        statuses: Every budget's counters at an instant.
        refusals: How often each budget has said no, by budget and code.
        is_spending_known: Whether the counters hold what was spent before.
    """

    statuses: Callable[[datetime], Iterable[BudgetStatus]]
    refusals: Callable[[], Mapping[tuple[str, ...], int]]
    is_spending_known: Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What it takes to tell receivers.

    Attributes:
        receivers: All of them.
        open_upstream: Makes the connections to one.
        version: Of the program.
        organization: Whose budgets these are.
    """

    receivers: Sequence[Receiver]
    open_upstream: Callable[[Receiver], Upstream]
    version: str
    organization: str


class AlertsFollower:
    """Raises and delivers the alerts of one gateway.

    Attributes:
        waiting: Deliveries of all gateways that wait, as of the last count.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        sources: AlertSources,
        sending: Sending,
        watcher: AlertWatcher,
        clock: Clock,
    ) -> None:
        """Prepare; nothing is looked at before ``start``."""
        self._outbox = outbox
        self._sources = sources
        self._sending = sending
        self._watcher = watcher
        self._clock = clock
        self._ids = IdSource()
        self._marks: dict[BudgetId, list[RaisedMark]] = {}
        self._last: dict[BudgetId, BudgetStatus] = {}
        # Windows that have ended and may still have something to tell.
        self._ended: dict[BudgetId, BudgetStatus] = {}
        self._refused: dict[BudgetId, int] = {}
        self._wakes = {receiver.id: asyncio.Event() for receiver in sending.receivers}
        self._reload_s = self._prune_s = clock.monotonic_s()
        self._is_down = False
        self.waiting = 0

    def start(self) -> Callable[[], object]:
        """Look and deliver from now on.

        Returns:
            Ends it.
        """
        task = asyncio.create_task(self._run())
        task.add_done_callback(_tell_end)
        return task.cancel

    async def _run(self) -> None:
        with suppress(StoreUnavailable):  # leases of an earlier start end by themselves, later
            await asyncio.to_thread(self._outbox.release)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            for receiver in self._sending.receivers:
                group.create_task(self._deliver(receiver))

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
                self._is_down = False
            except StoreUnavailable as down:
                if not self._is_down:
                    log.warning("alerts wait for the database: %s", down)
                self._is_down = True

    async def look(self) -> None:
        """Look at every budget once and record what it has to tell.

        Raises:
            StoreUnavailable: The database cannot be reached; what was not recorded is due again at
                the next look.
        """
        for receiver in await asyncio.to_thread(self._look):
            self._wakes[receiver].set()

    def _look(self) -> set[str]:
        """Do it; returns the receivers that have something to come."""
        if not self._sources.is_spending_known():
            return set()
        at = self._clock.now()
        self._catch_up(at)
        refusals = {
            BudgetId(budget): count
            for (budget, code), count in self._sources.refusals().items()
            if code == _REFUSED
        }
        statuses = {status.budget.id: status for status in self._sources.statuses(at)}
        # What was spent before may have become unknown while the counters were read.
        if not self._sources.is_spending_known():
            return set()
        woken: set[str] = set()
        for budget_id, status in statuses.items():
            before = self._last.get(budget_id)
            if before is not None and _is_next_window(before, status):
                self._ended[budget_id] = before
        ended = self._look_back(at)
        for budget_id, status in statuses.items():
            count = refusals.get(budget_id, 0)
            is_refusing = count > self._refused.get(budget_id, 0)
            woken |= self._look_at(status, at, ended.get(budget_id), is_refusing=is_refusing)
            self._refused[budget_id] = count
            self._last[budget_id] = status
            # Calls that were let in before its end may end at any time.
            if budget_id in ended and not ended[budget_id].held:
                del self._ended[budget_id]
        for gone in self._last.keys() - statuses.keys():
            del self._last[gone]
            self._ended.pop(gone, None)
        return woken

    def _look_back(self, at: datetime) -> dict[BudgetId, BudgetStatus]:
        """Read the windows that have ended, as they stand by now."""
        looks: dict[datetime, dict[BudgetId, BudgetStatus]] = {}
        for budget_id, ended in list(self._ended.items()):
            last = (ended.window.end or at) - _TICK
            if last not in looks:
                looks[last] = {one.budget.id: one for one in self._sources.statuses(last)}
            now = looks[last].get(budget_id)
            # Another window rule meanwhile: what was seen last is what there is to tell.
            is_same = now is not None and now.window == ended.window
            self._ended[budget_id] = now if now and is_same else replace(ended, held=0)
        return dict(self._ended)

    def _catch_up(self, at: datetime) -> None:
        now_s = self._clock.monotonic_s()
        if now_s >= self._prune_s:
            self._outbox.prune(epoch_us(at))
            self._prune_s = now_s + PRUNE_S
        if now_s >= self._reload_s:
            marks: dict[BudgetId, list[RaisedMark]] = defaultdict(list)
            for raised in self._outbox.load_marks(epoch_us(at)):
                marks[raised.budget].append(raised)
            for budget_id, ended in self._ended.items():
                marks[budget_id] += [
                    one for one in self._fired(ended) if one not in marks[budget_id]
                ]
            self._marks = dict(marks)
            self.waiting = self._outbox.count_waiting()
            self._reload_s = now_s + POLL_S

    def _look_at(
        self, status: BudgetStatus, at: datetime, ended: BudgetStatus | None, *, is_refusing: bool
    ) -> set[str]:
        before, woken = self._last.get(status.budget.id), set[str]()
        if ended is not None:
            # Refused between two looks with the end of a window between them. Most likely the
            # window that is over had no room: a new one that has none says so at the next look.
            is_turn = before is not None and _is_next_window(before, status)
            woken = self._raise(ended, at, None, is_refusing=is_refusing and is_turn)
            is_refusing = is_refusing and not is_turn
        self._end_marks(status, at)
        forecast = forecast_to_tell(status, at)
        return woken | self._raise(status, at, forecast, is_refusing=is_refusing)

    def _raise(
        self,
        status: BudgetStatus,
        at: datetime,
        forecast: datetime | None,
        *,
        is_refusing: bool = False,
    ) -> set[str]:
        fired = {raised.mark for raised in self._fired(status)}
        due = due_alerts(status, fired, forecast, is_refusing=is_refusing)
        if not due:
            return set()
        # The log is read newest first, so the highest threshold gets the newest id.
        alerts = [self._new_alert(one, due, status, at, forecast) for one in reversed(due)]
        alerts.reverse()
        claimed = set(self._outbox.claim(alerts))
        known = self._marks.setdefault(status.budget.id, [])
        woken: set[str] = set()
        for alert in alerts:
            is_mine = alert.id in claimed
            known.append(_raised(alert, self._outbox.by if is_mine else ""))
            if is_mine:
                kind = alert.mark.kind.value
                self._watcher.alerted(alert.budget, kind, "raised")
                self.waiting += len(alert.receivers)
                woken.update(alert.receivers)
                told = "" if alert.receivers else " nobody=told"
                log.info(
                    "alert raised id=%s budget=%s kind=%s threshold=%d%s",
                    *(alert.id, alert.budget, kind, alert.mark.threshold, told),
                )
        return woken

    def _new_alert(
        self,
        one: DueAlert,
        due: Sequence[DueAlert],
        status: BudgetStatus,
        at: datetime,
        forecast: datetime | None,
    ) -> NewAlert:
        budget, window, kind = status.budget, status.window, one.mark.kind
        is_rolling = isinstance(budget.window, RollingWindow)
        end_us = None if is_rolling or window.end is None else epoch_us(window.end)
        alert_id = self._ids.mint(epoch_us(at) // 1000)
        speaks_for = kind is AlertKind.THRESHOLD and not one.is_silent
        passed = tuple(d.mark.threshold for d in due if d.is_silent) if speaks_for else ()
        occasion = Occasion(
            alert_id=alert_id,
            organization=self._sending.organization,
            at=at,
            forecast=forecast,
            passed=passed,
        )
        told = () if one.is_silent else self._sending.receivers
        return NewAlert(
            id=alert_id,
            budget=budget.id,
            mark=one.mark,
            window_start_us=None if is_rolling else epoch_us(window.start),
            window_end_us=end_us,
            raised_at_us=epoch_us(at),
            is_silent=one.is_silent,
            facts=write_facts(one.mark, status, occasion),
            receivers=tuple(receiver.id for receiver in told if receiver.wants(kind, budget)),
        )

    def _fired(self, status: BudgetStatus) -> list[RaisedMark]:
        raised = self._marks.get(status.budget.id, [])
        if isinstance(status.budget.window, RollingWindow):
            return [one for one in raised if one.is_open]
        start_us = epoch_us(status.window.start)
        return [one for one in raised if one.window_start_us == start_us]

    def _end_marks(self, status: BudgetStatus, at: datetime) -> None:
        rule = status.budget.window
        if not isinstance(rule, RollingWindow):
            return
        at_us = epoch_us(at)
        # Each gateway may count for itself. One that has seen little must not let another, which
        # has not fallen below anything, tell it again and again; unless that one is long gone.
        mine = {
            one.mark: one
            for one in self._fired(status)
            if one.raised_by == self._outbox.by or one.raised_at_us + rule.seconds * 10**6 <= at_us
        }
        ended = ended_marks(status, mine.keys())
        if ended:
            self._outbox.end_marks(status.budget.id, ended, at_us)
            raised = self._marks[status.budget.id]
            self._marks[status.budget.id] = [
                one for one in raised if not (one.is_open and one.mark in ended)
            ]

    async def _deliver(self, receiver: Receiver) -> None:
        """Tell one receiver, alert after alert, for ever: a slow one holds up nobody else."""
        upstream, wake = self._sending.open_upstream(receiver), self._wakes[receiver.id]
        while True:
            pause_s = POLL_S
            with suppress(StoreUnavailable):  # the look at the budgets says so
                pause_s = await self.deliver_due(receiver, upstream)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await wake.wait()
            wake.clear()

    async def deliver_due(self, receiver: Receiver, upstream: Upstream) -> float:
        """Send everything that is due for a receiver.

        Args:
            receiver: Whom.
            upstream: Connections to it.

        Returns:
            How many seconds later to look again.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        lease_us = int((receiver.timeout_s + _LEASE_MORE_S) * 10**6)
        pause_s = POLL_S
        while True:
            at_us = epoch_us(self._clock.now())
            delivery = await asyncio.to_thread(self._outbox.take, receiver.id, at_us, lease_us)
            if delivery is None:
                return pause_s
            delay_s = await self._attempt(receiver, delivery, upstream)
            pause_s = pause_s if delay_s is None else min(pause_s, delay_s)

    async def _attempt(
        self, receiver: Receiver, delivery: Delivery, upstream: Upstream
    ) -> float | None:
        """Try once; tells how many seconds later to try again."""
        facts = delivery.facts
        sent = await send_alert(receiver, facts, upstream, self._clock, self._sending.version)
        at_us = epoch_us(self._clock.now())
        name = f"id={delivery.alert} receiver={receiver.id} attempts={delivery.attempts}"
        if sent.error is None:
            await asyncio.to_thread(self._outbox.finish, delivery, at_us)
            outcome, delay_s = "delivered", None
            log.info("alert delivered %s", name)
        else:
            # Not for secrets: it only spreads the attempts.
            delay_s = retry_delay_s(delivery.attempts, random.random(), sent.retry_after_s)  # noqa: S311
            if delay_s is None:
                await asyncio.to_thread(self._outbox.give_up, delivery, sent.error, at_us)
                outcome = "failed"
                log.error("alert given up %s: %s", name, sent.error)
            else:
                next_us = at_us + int(delay_s * 10**6)
                await asyncio.to_thread(self._outbox.put_back, delivery, sent.error, next_us)
                outcome = "retried"
                log.warning("alert not delivered yet %s: %s", name, sent.error)
        self._watcher.alerted(facts["budget"], facts["kind"], outcome)
        self.waiting = await asyncio.to_thread(self._outbox.count_waiting)
        return delay_s


def _is_next_window(before: BudgetStatus, now: BudgetStatus) -> bool:
    end = before.window.end
    is_rolling = isinstance(now.budget.window, RollingWindow)
    return end is not None and end <= now.window.start and not is_rolling


def _raised(alert: NewAlert, by: str) -> RaisedMark:
    return RaisedMark(
        budget=alert.budget,
        mark=alert.mark,
        window_start_us=alert.window_start_us or 0,
        is_open=alert.window_end_us is None,
        raised_at_us=alert.raised_at_us,
        raised_by=by,
    )


def open_alerts(
    settings: Settings,
    *,
    outbox: Outbox,
    sources: AlertSources,
    watcher: AlertWatcher,
    clock: Clock,
) -> AlertsFollower | None:
    """Make what the settings ask for.

    Args:
        settings: Checked.
        outbox: Where alerts are recorded.
        sources: What the budgets say.
        watcher: Counts alerts.
        clock: What time it is.

    Returns:
        A follower that has not begun; ``None`` when nobody is to be told.
    """
    if not settings.alerts:
        return None
    sending = Sending(
        receivers=tuple(to_receiver(one) for one in settings.alerts),
        open_upstream=lambda receiver: HttpUpstream(receiver.timeout_s),
        version=version_of("taximeter"),
        organization=settings.organization,
    )
    return AlertsFollower(
        outbox=outbox, sources=sources, sending=sending, watcher=watcher, clock=clock
    )


def _tell_end(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("alerts have stopped: nobody is told of budgets", exc_info=task.exception())
