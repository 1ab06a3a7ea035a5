"""Runs that price the past again: what they would change, and the corrections they append.

Must never correct a call twice for the same difference, whatever runs beside it or was killed.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.exc import IntegrityError

from gateway.clock import Clock, epoch_us, to_rfc3339
from gateway.ids import IdSource
from gateway.ledger.corrected import (
    BATCH_RECORDS,
    CORRECTIONS,
    PostedCall,
    count_calls,
    load_with_corrections,
    read_calls,
)
from gateway.ledger.filters import RecordFilter
from gateway.ledger.record import LedgerRecord
from gateway.ledger.store import LedgerStore, reading, store_errors
from gateway.price_versions import PriceVersions
from gateway.rerating import REASONS, Author, Left, Reason, Repriced, Rerater, Verdict, correct
from gateway.tables import rerate_runs
from pricing.money import pico_to_text

RunStatus = Literal["started", "done"]
_EXAMPLES_MAX: Final = 3


class EmptySpan(ValueError):
    """A span of time that holds no instant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerateRequest:
    """What to price again.

    Attributes:
        version: The version that decides.
        as_of_us: Instant whose knowledge it is; ``None`` when the version was named.
        wanted: Which calls, with both ends of the span of time.
    """

    version: str
    as_of_us: int | None
    wanted: RecordFilter


@dataclass(slots=True)
class TeamDiff:
    """What changes for one team in one currency.

    Attributes:
        records: Calls looked at.
        changed: Those whose cost changes.
        newly_priced: Those of them that had no cost before; ``before`` does not hold them.
        left: Calls that cannot be priced again, by reason; they stay as they are.
        before_pico: Known cost before, in 10^-12 currency units.
        after_pico: The same afterwards.
    """

    records: int = 0
    changed: int = 0
    newly_priced: int = 0
    left: Counter[Reason] = field(default_factory=Counter)
    before_pico: int = 0
    after_pico: int = 0

    def add(self, other: "TeamDiff") -> None:
        """Add another diff to this one.

        Args:
            other: In the same currency.
        """
        self.records += other.records
        self.changed += other.changed
        self.newly_priced += other.newly_priced
        self.left += other.left
        self.before_pico += other.before_pico
        self.after_pico += other.after_pico


class RerateDiff:
    """Before and after, team by team.

    Attributes:
        corrected: Calls the run has corrected.
    """

    def __init__(self) -> None:
        self.corrected = 0
        self._teams: dict[tuple[str, str | None], TeamDiff] = {}
        self._examples: dict[Reason, list[str]] = {}

    def add(self, call: PostedCall, verdict: Verdict) -> None:
        """Count one call.

        Args:
            call: As the ledger knows it.
            verdict: Its price under the version.
        """
        key = (call.currency, call.team)
        team = self._teams.get(key)
        if team is None:
            team = self._teams[key] = TeamDiff()
        team.records += 1
        # What this very run added before it was killed belongs to the difference it makes.
        before, after = call.before_pico, call.cost_pico
        self.corrected += call.is_mine
        if type(verdict) is Repriced:
            after = verdict.cost_pico
            if verdict.is_changed or call.is_mine:
                team.changed += 1
                team.newly_priced += before is None
        elif type(verdict) is Left:
            team.left[verdict.reason] += 1
            known = self._examples.setdefault(verdict.reason, [])
            if len(known) < _EXAMPLES_MAX:
                known.append(f"{call.id}: {verdict.detail}")
        team.before_pico += before or 0
        team.after_pico += after or 0

    def to_public(self) -> dict[str, Any]:
        """Write the diff the way the API and the command line show it.

        Returns:
            Teams by name, totals by currency, and what cannot be priced again by reason. Money is
            decimal text.
        """
        totals: dict[str, TeamDiff] = {}
        left: Counter[Reason] = Counter()
        for (currency, _), team in self._teams.items():
            totals.setdefault(currency, TeamDiff()).add(team)
            left += team.left
        order = sorted(self._teams, key=lambda key: (key[0], key[1] is None, key[1] or ""))
        return {
            "teams": [
                {"team": name, "currency": currency, **_numbers(self._teams[currency, name])}
                for currency, name in order
            ],
            "totals": [
                {"currency": currency, **_numbers(totals[currency])} for currency in sorted(totals)
            ],
            "cannot_rerate": [
                {
                    "reason": reason,
                    "detail": REASONS[reason],
                    "records": left[reason],
                    "examples": self._examples[reason],
                }
                for reason in REASONS
                if left[reason]
            ],
        }


def _numbers(team: TeamDiff) -> dict[str, Any]:
    difference = team.after_pico - team.before_pico
    return {
        "records": team.records,
        "changed": team.changed,
        "newly_priced": team.newly_priced,
        "cannot_rerate": team.left.total(),
        "before": pico_to_text(team.before_pico),
        "after": pico_to_text(team.after_pico),
        "difference": pico_to_text(difference),
        "percent": percent_text(difference, team.before_pico),
    }


def percent_text(part: int, whole: int) -> str | None:
    """Write a part of a whole in percent.

    Args:
        part: Signed.
        whole: Of the same unit.

    Returns:
        Decimal text with two decimals, the third cut off; ``None`` where the whole is not positive.
    """
    if whole <= 0:
        return None
    hundredths = abs(part) * 10_000 // whole
    sign = "-" if part < 0 and hundredths else ""
    return f"{sign}{hundredths // 100}.{hundredths % 100:02d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as recorded.

    Attributes:
        id: Its id, which every correction of it names.
        status: ``started`` until it is done; it stays so when it was killed.
        at_us: When it began, microseconds since 1970.
        done_us: When it was done; ``None`` while it is not.
        actor: Who.
        why: Why, in their words.
        request: What was asked for, in public names.
        result: The diff and how many corrections were appended; ``None`` while it is not done.
    """

    id: str
    status: RunStatus
    at_us: int
    done_us: int | None
    actor: str
    why: str
    request: Mapping[str, Any]
    result: Mapping[str, Any] | None

    def to_public(self) -> dict[str, Any]:
        """Write the run the way the API and the command line show it."""
        return {
            "id": self.id,
            "status": self.status,
            "dry_run": False,
            "started_at": to_rfc3339(self.at_us),
            "done_at": None if self.done_us is None else to_rfc3339(self.done_us),
            "actor": self.actor,
            "why": self.why,
            **self.request,
            **({} if self.result is None else self.result),
        }


class Rerates:
    """Prices the past again. Every method waits for the database and is called in a thread.

    A correction is made in a transaction that holds the one place corrections are numbered at, from
    what the ledger says then. So a run that is repeated, resumed or raced finds nothing left to do
    where another one was.
    """

    def __init__(self, engine: Engine, versions: PriceVersions, clock: Clock) -> None:
        """Take what runs work with.

        Args:
            engine: Of the ledger.
            versions: Where price book versions are.
            clock: When corrections are made.
        """
        self._engine = engine
        self._reading = reading(engine)
        self._store = LedgerStore(engine)
        self._versions = versions
        self._clock = clock
        self._ids = IdSource()

    def count(self, wanted: RecordFilter) -> int:
        """Count the calls a run would look at.

        Args:
            wanted: Which calls.

        Returns:
            The number.

        Raises:
            QueryRefused: The filter cannot be used.
            StoreUnavailable: The database cannot be reached.
        """
        with store_errors(), self._reading.connect() as connection:
            return count_calls(connection, wanted)

    def preview(self, request: RerateRequest, step: Callable[[int], None]) -> dict[str, Any]:
        """Tell what a run would change, and change nothing.

        Args:
            request: What to price again.
            step: Told how many more calls are done.

        Returns:
            The request and the diff, in public names.

        Raises:
            QueryRefused: The filter cannot be used.
            EmptySpan: The span of time ends before it starts.
            BookBroken: A version is broken.
            OSError: A version cannot be read.
            StoreUnavailable: The database cannot be reached.
        """
        asked = _public_request(request)
        diff = self._pass(request, None, step)
        return {"id": None, "status": "preview", "dry_run": True, **asked, **diff.to_public()}

    def run(self, request: RerateRequest, actor: str, why: str, step: Callable[[int], None]) -> Run:
        """Append the corrections that are missing.

        Args:
            request: What to price again. One that the same person began for the same reason and
                never finished is resumed: it keeps its id, and its diff holds what it did before.
            actor: Who asks.
            why: Why, for the audit.
            step: As for ``preview``.

        Returns:
            The run, done.

        Raises:
            QueryRefused: The filter cannot be used.
            EmptySpan: The span of time ends before it starts.
            BookBroken: A version is broken; what was appended until then stays.
            OSError: Likewise, it cannot be read.
            StoreUnavailable: Likewise, the database cannot be reached.
        """
        run = self._begin(_public_request(request), actor, why)
        diff = self._pass(request, run, step)
        result = {**diff.to_public(), "corrections": diff.corrected}
        done_us = self._end(run, result)
        return replace(run, status="done", done_us=done_us, result=result)

    def find(self, run_id: str) -> Run | None:
        """Look a run up.

        Args:
            run_id: Its id.

        Returns:
            The run; ``None`` when there is none.

        Raises:
            StoreUnavailable: The database cannot be reached.
        """
        query = select(rerate_runs).where(rerate_runs.c.id == run_id)
        with store_errors(), self._reading.connect() as connection:
            rows = {row.status: row for row in connection.execute(query)}
        started, done = rows.get("started"), rows.get("done")
        if started is None:
            return None
        return Run(
            id=run_id,
            status="started" if done is None else "done",
            at_us=started.at_us,
            done_us=None if done is None else done.at_us,
            actor=started.actor,
            why=started.why,
            request=started.request,
            result=None if done is None else done.result,
        )

    def _pass(
        self, request: RerateRequest, run: Run | None, step: Callable[[int], None]
    ) -> RerateDiff:
        """Look at every call once; in a real run correct those of each batch before the next."""
        diff = RerateDiff()
        rerater = Rerater(self._versions, request.version)
        flag = None if run is None else _flag_of(run.id)
        after: tuple[int, str] | None = None
        while True:
            with store_errors(), self._reading.connect() as connection:
                batch = read_calls(connection, request.wanted, after, flag)
            changed = []
            for call in batch:
                verdict = rerater.rate(call)
                diff.add(call, verdict)
                if type(verdict) is Repriced and verdict.is_changed:
                    changed.append(call.id)
            if run is not None and changed:
                diff.corrected += self._correct(run, rerater, changed)
            step(len(batch))
            if len(batch) < BATCH_RECORDS:
                return diff
            after = (batch[-1].started_at_us, batch[-1].id)

    def _correct(self, run: Run, rerater: Rerater, ids: list[str]) -> int:
        now_us = epoch_us(self._clock.now())
        author = Author(
            run_flag=_flag_of(run.id),
            why=run.why,
            now_us=now_us,
            mint=lambda: self._ids.mint(now_us // 1000),
        )

        def make(connection: Connection) -> list[LedgerRecord]:
            posted = load_with_corrections(connection, ids)
            made = (correct(record, later, rerater, author) for record, later in posted)
            return [correction for correction in made if correction is not None]

        return self._store.append_next(CORRECTIONS, make)

    def _begin(self, asked: Mapping[str, Any], actor: str, why: str) -> Run:
        at_us = epoch_us(self._clock.now())
        with store_errors(), self._engine.begin() as connection:
            unfinished = _find_unfinished(connection, asked, (actor, why))
            if unfinished is not None:
                return unfinished
            run = Run(
                id=self._ids.mint(at_us // 1000),
                status="started",
                at_us=at_us,
                done_us=None,
                actor=actor,
                why=why,
                request=asked,
                result=None,
            )
            connection.execute(insert(rerate_runs).values(_to_row(run, "started", at_us, None)))
        return run

    def _end(self, run: Run, result: Mapping[str, Any]) -> int:
        done_us = epoch_us(self._clock.now())
        # Another process that resumed the same run may have been done first.
        with (
            suppress(IntegrityError),
            store_errors(),
            self._engine.begin() as connection,
        ):
            connection.execute(insert(rerate_runs).values(_to_row(run, "done", done_us, result)))
        return done_us


def _flag_of(run_id: str) -> str:
    return f"re-rated: run {run_id}"


def _to_row(
    run: Run, status: RunStatus, at_us: int, result: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "id": run.id,
        "status": status,
        "at_us": at_us,
        "actor": run.actor,
        "why": run.why,
        "request": run.request,
        "result": result,
    }


def _find_unfinished(
    connection: Connection, asked: Mapping[str, Any], signed: tuple[str, str]
) -> Run | None:
    """Find the run to go on with: the same request, by the same person for the same reason."""
    done = select(rerate_runs.c.id).where(rerate_runs.c.status == "done")
    query = select(rerate_runs).where(
        rerate_runs.c.status == "started", rerate_runs.c.id.not_in(done)
    )
    for row in connection.execute(query.order_by(rerate_runs.c.id.desc())):
        if row.request == asked and (row.actor, row.why) == signed:
            return Run(
                id=row.id,
                status="started",
                at_us=row.at_us,
                done_us=None,
                actor=row.actor,
                why=row.why,
                request=row.request,
                result=None,
            )
    return None


def _public_request(request: RerateRequest) -> dict[str, Any]:
    wanted = request.wanted
    if wanted.from_us is None or wanted.to_us is None or wanted.from_us >= wanted.to_us:
        raise EmptySpan("from must be before to; to is not included")
    given = {
        name: value
        for name, value in asdict(wanted).items()
        if value and name not in ("from_us", "to_us")
    }
    return {
        "from": to_rfc3339(wanted.from_us),
        "to": to_rfc3339(wanted.to_us),
        "price_version": request.version,
        "as_of": None if request.as_of_us is None else to_rfc3339(request.as_of_us),
        "filter": msgspec.to_builtins(given),
    }
