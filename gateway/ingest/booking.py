"""Books usage that did not pass the gateway: attributed, rated, and added to the ledger once.

Must never book a call twice, whether it is told twice or passed the gateway after all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import UNSET
from sqlalchemy import Connection, Engine, insert, select

from gateway.callers import Caller
from gateway.clock import Clock, epoch_us, from_epoch_us
from gateway.directory import Directory
from gateway.directory_model import NotFound
from gateway.estimating import read_terms
from gateway.ids import IdSource
from gateway.ingest.usage import EventRefused, OutsideUsage, Owner, Told, Unreadable
from gateway.ledger.corrected import CORRECTIONS
from gateway.ledger.lines import to_ledger_lines
from gateway.ledger.record import LedgerRecord
from gateway.ledger.store import LedgerStore
from gateway.settings import Settings
from gateway.settlement import Bill, rate_call
from gateway.tables import ingested, records
from gateway.tags import merge_tags, name_problem, value_problem
from gateway.upstreams import region_of
from pricing.agreements import Payer
from pricing.book import Book
from pricing.money import pico_to_text
from pricing.served import Served, find_card_asked
from pricing.usage import Basis, Usage

# Clocks of others may be wrong by so much.
AHEAD_MAX: Final = timedelta(minutes=10)
# How far apart a call and what is told of it may say that it began.
_SAME_CALL_US: Final = 5 * 60 * 1_000_000
# Some servers count their answers with a few digits, which come again.
_REQUEST_ID_CHARS_MIN: Final = 16
_PICO_MAX: Final = 2**63 - 1

FindBook = Callable[[str], Book]


class Booked(msgspec.Struct, frozen=True, kw_only=True):
    """An event that is in the ledger.

    Attributes:
        source: As sent.
        id: As sent.
        status: ``recorded``; ``metered`` for a call that passed the gateway, or was told of under
            another name, and has its record already.
        record_id: Its record.
        cost: In ``currency``, decimal text; ``None`` when unknown, as for ``metered``.
        currency: Of the cost.
        cost_status: How final it is; ``None`` for ``metered``, whose record says it.
        price_version: Version of the price book; ``None`` for ``metered``.
        flags: What was odd, in words.
    """

    source: str
    id: str
    status: str
    record_id: str
    cost: str | None
    currency: str
    cost_status: str | None
    price_version: str | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What became of events.

    Attributes:
        outcomes: One for each, in order.
        records: Those that are new in the ledger.
        replayed: How many were told before.
    """

    outcomes: tuple[Booked | Unreadable, ...]
    records: tuple[LedgerRecord, ...]
    replayed: int

    @property
    def problems(self) -> list[Unreadable]:
        """Events that are not booked."""
        return [one for one in self.outcomes if isinstance(one, Unreadable)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bearer:
    organization: str
    team: str | None
    project: str | None
    key: str | None
    tags: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class _Batch:
    """What one transaction finds and adds."""

    outcomes: list[Booked | Unreadable] = field(default_factory=list)
    records: list[LedgerRecord] = field(default_factory=list)
    replayed: int = 0


class Bookings:
    """Books events. Every method waits for the database and is called in a thread.

    An event, its record and the note that it was told are one transaction, so that no crash leaves
    one without the other; it is on disk when ``book`` returns. The journal is not needed for that.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        directory: Directory,
        settings: Settings,
        find_book: FindBook,
        clock: Clock,
    ) -> None:
        """Take what bookings work with.

        Args:
            engine: Of the ledger.
            directory: Who there is.
            settings: For providers and the tag policy.
            find_book: Finds the book that holds now, with the prices of a catalog provider.
            clock: What time it is.
        """
        self._store = LedgerStore(engine)
        self._directory = directory
        self._settings = settings
        self._find_book = find_book
        self._clock = clock
        self._ids = IdSource()

    def book(self, told: Sequence[Told], caller: Caller | None) -> Intake:
        """Book events.

        Args:
            told: As read.
            caller: Who tells, with a key; ``None`` for the administrator, who may name anybody.

        Returns:
            What became of each. What is not booked has changed nothing.

        Raises:
            StoreUnavailable: The database cannot be reached; nothing was booked.
        """
        now = self._clock.now()
        bearers: dict[str, _Bearer] = {}
        ready = [self._prepare(one, caller, now, bearers) for one in told]
        batch = _Batch()
        if any(isinstance(one, tuple) for one in ready):

            def make(connection: Connection) -> Sequence[LedgerRecord]:
                nonlocal batch
                batch = _settle(connection, ready, self._same_provider, epoch_us(now))
                return batch.records

            self._store.append_next(CORRECTIONS, make)
        else:
            batch.outcomes += [one for one in ready if isinstance(one, Unreadable)]
        return Intake(
            outcomes=tuple(batch.outcomes),
            records=tuple(batch.records),
            replayed=batch.replayed,
        )

    def _prepare(
        self, told: Told, caller: Caller | None, now: datetime, bearers: dict[str, _Bearer]
    ) -> "_Ready":
        if isinstance(told, Unreadable):
            return told
        try:
            _refuse_future(told, now)
            bearer = self._find_bearer(told.owner, caller, bearers)
            return told, self._to_record(told, bearer, now)
        except EventRefused as refused:
            return Unreadable(
                source=told.source, id=told.id, code=refused.code, detail=str(refused)
            )

    def _find_bearer(
        self, owner: Owner, caller: Caller | None, known: dict[str, _Bearer]
    ) -> _Bearer:
        who = msgspec.structs.replace(owner, user=None, tags={})
        if caller is not None:
            return _own_bearer(who, caller)
        name = repr(who)
        if name not in known:
            try:
                known[name] = self._load_bearer(who)
            except NotFound as unknown:
                raise EventRefused("unknown_owner", unknown.reason) from unknown
        return known[name]

    def _load_bearer(self, who: Owner) -> _Bearer:
        directory = self._directory
        key = None if who.key is None else directory.keys.load(who.key)
        project_id = _agreeing("project", who.project, None if key is None else key.project)
        project = None if project_id is None else directory.projects.load(project_id)
        team_id = _agreeing("team", who.team, None if project is None else project.team)
        team = None if team_id is None else directory.teams.load(team_id)
        tags: dict[str, str] = {}
        for one in (team, project, key):
            tags |= {} if one is None else one.tags
        return _Bearer(
            organization=directory.organization,
            team=team_id,
            project=project_id,
            key=who.key,
            tags=dict(sorted(tags.items())),
        )

    def _to_record(self, told: OutsideUsage, bearer: _Bearer, now: datetime) -> LedgerRecord:
        tags, flags = self._tags(told.owner.tags, bearer)
        usage = Usage(counts=told.quantities(), basis=Basis.REPORTED)
        bill, served = self._rate(told, usage, bearer)
        cost_pico = None if bill.cost is None else bill.cost.pico
        if cost_pico is not None and cost_pico > _PICO_MAX:
            raise EventRefused("too_large", "the ledger cannot hold an amount of this size")
        input_total, output_total = usage.totals()
        return LedgerRecord(
            id=self._ids.mint(epoch_us(now) // 1000),
            started_at_us=told.started_at_us,
            ended_at_us=told.ended_at_us,
            outcome=told.outcome,
            http_status=None,
            stream=told.stream,
            api=told.api,
            provider=told.provider,
            model_requested=told.model_requested,
            model=told.model or told.model_requested,
            provider_request_id=told.provider_request_id,
            organization=bearer.organization,
            team=bearer.team,
            project=bearer.project,
            key=bearer.key,
            user=told.owner.user,
            tags=tags,
            usage=told.counts,
            input_total=input_total,
            output_total=output_total,
            basis=Basis.REPORTED.value,
            cost_pico=cost_pico,
            list_cost_pico=None if bill.list_cost is None else bill.list_cost.pico,
            price_version=bill.version,
            cost_status=bill.status,
            lines=to_ledger_lines(bill.lines),
            flags=(f"outside usage: {told.id} of {told.source}", *flags, *bill.flags),
            priced_as=served.priced_as,
            priced_model=bill.priced_model or UNSET,
            tier=bill.tier or UNSET,
            region=served.region or UNSET,
            model_asked=served.asked,
            model_behind=served.behind or UNSET,
        )

    def _tags(
        self, own: Mapping[str, str], bearer: _Bearer
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        for name, value in own.items():
            problem = name_problem(name) or value_problem(value)
            if problem is not None:
                raise EventRefused("invalid_tags", f"tag {name[:80]!r}: {problem}")
        merged = dict(sorted({**bearer.tags, **own}.items()))
        # What was used was used: a policy can no longer refuse it, only say so.
        decision = merge_tags(merged, None, self._settings.tag_policy)
        return merged, tuple(f"tag policy: {one.reason}" for one in decision.violations)

    def _rate(self, told: OutsideUsage, usage: Usage, bearer: _Bearer) -> tuple[Bill, Served]:
        configured = self._settings.providers.get(told.provider)
        priced_as, behind, region = told.provider, None, told.region
        asked = (told.model_requested or told.model or "").removeprefix(f"{told.provider}/")
        if configured is not None:
            priced_as = configured.priced_as or told.provider
            behind = configured.deployments.get(asked)
            address = configured.base_url or ""
            region = region or region_of(configured.kind, address, configured.region)
        try:
            tier = None if told.service_tier is None else read_terms(told.service_tier, None).tier
        except ValueError as wrong:
            raise EventRefused("invalid_event", str(wrong)) from wrong
        served = Served(
            priced_as=priced_as,
            asked=asked,
            behind=behind,
            model=told.model,
            tier=tier,
            region=region,
            at=from_epoch_us(told.started_at_us),
            payer=Payer(bearer.organization, bearer.team, bearer.project),
        )
        book = self._find_book(priced_as)
        return rate_call(usage, served, find_card_asked(served, book), book), served

    def _same_provider(self, provider: str) -> frozenset[str]:
        """Name every provider id that may mean the same provider in records."""
        providers = self._settings.providers
        one = providers.get(provider)
        priced_as = provider if one is None else one.priced_as or provider
        return frozenset(
            {
                provider,
                *(name for name, other in providers.items() if other.priced_as == priced_as),
            }
        )


_Ready = Unreadable | tuple[OutsideUsage, LedgerRecord]


def _refuse_future(told: OutsideUsage, now: datetime) -> None:
    if from_epoch_us(told.started_at_us) > now + AHEAD_MAX:
        raise EventRefused("in_the_future", "the call has not begun yet")


def _own_bearer(who: Owner, caller: Caller) -> _Bearer:
    own = {"team": caller.team, "project": caller.project, "key": caller.key}
    for name, value in own.items():
        if getattr(who, name) not in (None, value):
            raise EventRefused(
                "unknown_owner", f"this key belongs to {name} {value} and cannot tell of others"
            )
    return _Bearer(organization=caller.organization, tags=caller.tags, **own)


def _agreeing(noun: str, named: str | None, owns: str | None) -> str | None:
    if named is not None and owns is not None and named != owns:
        raise EventRefused("unknown_owner", f"the {noun} is {owns}, not {named[:64]}")
    return named or owns


def _settle(
    connection: Connection,
    ready: Sequence[_Ready],
    same_provider: Callable[[str], frozenset[str]],
    now_us: int,
) -> _Batch:
    events = [one for one in ready if isinstance(one, tuple)]
    known = _load_known(connection, [usage.name_digest for usage, _ in events])
    metered = _load_metered(connection, [record for _, record in events])
    batch = _Batch()
    rows: list[dict[str, Any]] = []
    for one in ready:
        if isinstance(one, Unreadable):
            batch.outcomes.append(one)
            continue
        usage, record = one
        name, content = usage.name_digest, usage.content_digest
        earlier = known.get(name)
        if earlier is not None:
            batch.replayed += earlier[0] == content
            batch.outcomes.append(
                earlier[1] if earlier[0] == content else _contradiction(usage, earlier[1])
            )
            continue
        same = _find_metered(record, metered, same_provider)
        if same is None:
            batch.records.append(record)
            metered.append(record)
            booked = _to_booked(usage, record)
        else:
            booked = _to_metered(usage, same)
        known[name] = (content, booked)
        batch.outcomes.append(booked)
        rows.append(
            {
                "name_sha256": name,
                "content_sha256": content,
                "record_id": booked.record_id,
                "at_us": now_us,
                "answer": msgspec.to_builtins(booked),
            }
        )
    if rows:
        connection.execute(insert(ingested), rows)
    return batch


def _load_known(connection: Connection, names: Sequence[str]) -> dict[str, tuple[str, Booked]]:
    table = ingested.c
    query = select(table.name_sha256, table.content_sha256, table.answer)
    rows = connection.execute(query.where(table.name_sha256.in_(names)))
    return {
        row.name_sha256: (row.content_sha256, msgspec.convert(row.answer, Booked)) for row in rows
    }


def _load_metered(connection: Connection, new: Sequence[LedgerRecord]) -> list[Any]:
    """Load the records that may be of the same calls: they have the provider's own ids."""
    wanted = {r.provider_request_id for r in new if _is_telling(r.provider_request_id)}
    if not wanted:
        return []
    one = records.c
    query = select(
        one.id, one.provider, one.provider_request_id, one.started_at_us, one.currency
    ).where(
        one.provider_request_id.in_(sorted(filter(None, wanted))),
        one.corrects.is_(None),
        one.basis != Basis.NONE.value,
    )
    return list(connection.execute(query))


def _find_metered(
    record: LedgerRecord, metered: Sequence[Any], same: Callable[[str], frozenset[str]]
) -> Any | None:  # noqa: ANN401 - a row or a record
    if not _is_telling(record.provider_request_id):
        return None
    providers = same(record.provider or "")
    return next(
        (
            one
            for one in metered
            if one.provider_request_id == record.provider_request_id
            and one.provider in providers
            and abs(one.started_at_us - record.started_at_us) <= _SAME_CALL_US
        ),
        None,
    )


def _is_telling(request_id: str | None) -> bool:
    return request_id is not None and len(request_id) >= _REQUEST_ID_CHARS_MIN


def _to_booked(usage: OutsideUsage, record: LedgerRecord) -> Booked:
    return Booked(
        source=usage.source,
        id=usage.id,
        status="recorded",
        record_id=record.id,
        cost=None if record.cost_pico is None else pico_to_text(record.cost_pico),
        currency=record.currency,
        cost_status=record.cost_status,
        price_version=record.price_version,
        flags=record.flags[1:],
    )


def _to_metered(usage: OutsideUsage, same: Any) -> Booked:  # noqa: ANN401 - a row or a record
    return Booked(
        source=usage.source,
        id=usage.id,
        status="metered",
        record_id=same.id,
        cost=None,
        currency=same.currency,
        cost_status=None,
        price_version=None,
        flags=("the call has its record already: nothing was added",),
    )


def _contradiction(usage: OutsideUsage, earlier: Booked) -> Unreadable:
    return Unreadable(
        source=usage.source,
        id=usage.id,
        code="conflict",
        detail=(
            f"this source and id were told before, with other content, as record "
            f"{earlier.record_id}"
        ),
    )
