"""A call's surroundings in memory: client, provider, journal and counter that follow a script.

Must never look inside the gateway: everything is passed in and read back through its protocols.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from gateway.admission import Admission, AdmissionPolicy
from gateway.budgets.memory import MemoryBudgets
from gateway.budgets.rules import Budget
from gateway.call import CallPath
from gateway.callers import Caller, Callers, secret_digest
from gateway.client import BodyTooLarge, ClientGone
from gateway.counting import count_parts, count_tokens
from gateway.earlier import Metered, NoRecords
from gateway.ending import CountingFailed, Endings
from gateway.exchange import Drains
from gateway.headers import RawHeaders
from gateway.ids import IdSource
from gateway.ledger.errors import JournalBroken, JournalFull
from gateway.ledger.record import Intent, LedgerRecord, Raised
from gateway.prices.current import Prices
from gateway.recall import Recall
from gateway.relief import ReliefPolicy, relief_of
from gateway.routes import Provider, Router
from gateway.settings_models import PRICED_AS
from gateway.translate import Translation
from gateway.upstream import UpstreamFailed, UpstreamRequest
from gateway.user_tokens import UserTokens
from pricing.book import Book, load_book
from pricing.selfhosted import NO_FLEET, Deployment, add_to_book, derive_prices, fleets_of
from tests.budgets.builders import budget
from tests.openai_answers import USAGE, completion, spoken, usage_chunk
from tests.path.watcher import Watcher

AT: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)
BOOK: Final = load_book("2026-11-23.1")
SECRET: Final = "sk-tm-test"
CALL_S_MAX: Final = 30.0
JSON: Final = (("content-type", "application/json"), ("x-request-id", "req_1"))
EVENTS: Final = (("content-type", "text/event-stream; charset=utf-8"), ("x-request-id", "req_2"))
FULL_COST_PICO: Final = 2_508_000_000  # (224 x 1.25 + 1024 x 0.125 + 210 x 10) / 10^6 USD
DONE: Final = b"data: [DONE]\n\n"


def frames(*data: bytes) -> list[bytes]:
    """Frame events."""
    return [b"data: " + one + b"\n\n" for one in data]


WORDS: Final = frames(*spoken("Fine", ", ", "thanks", "."))
STREAM: Final = [*WORDS, *frames(usage_chunk(USAGE)), DONE]
WHOLE: Final = [completion()]


class Leave:
    """A step of a script: the client leaves, and everybody gets to know."""


class Stall:
    """A step of a script: nothing comes any more."""


LEAVE: Final = Leave()
STALL: Final = Stall()


@dataclass(frozen=True)
class Pause:
    """A step of a script: so many seconds pass.

    Attributes:
        seconds: How many.
    """

    seconds: float


Step = bytes | UpstreamFailed | Leave | Stall | Pause


@dataclass(kw_only=True)
class Play:
    """What the provider does with one request.

    Attributes:
        status: Status of its answer.
        headers: Headers of its answer.
        head: What goes wrong instead of, or happens before, a head.
        steps: What follows.
        parting: What goes wrong when the answer is let go.
    """

    status: int = 200
    headers: Sequence[tuple[str, str]] = JSON
    head: UpstreamFailed | Leave | Stall | Pause | None = None
    steps: Sequence[Step] = ()
    parting: UpstreamFailed | None = None


@dataclass(frozen=True, kw_only=True)
class Address:
    """What is called, and of which kind of provider; its id is its kind.

    Attributes:
        kind: Provider kind.
        path: Path of the request.
        method: HTTP method.
        query: Query string.
        base_url: Address of the provider.
        region: Region class the address stands for.
    """

    kind: str = "openai"
    path: str = "/v1/chat/completions"
    method: str = "POST"
    query: str = ""
    base_url: str = "http://provider/v1"
    region: str | None = None


CHAT: Final = Address()


@dataclass
class Awaits:
    """Every place where a call waits, in order; at one of them its task can be cancelled.

    Attributes:
        cancel_at: Which one, from 0; ``None`` for none.
        places: Names of those passed.
    """

    cancel_at: int | None = None
    places: list[str] = field(default_factory=list)

    async def here(self, place: str) -> None:
        """Wait for one turn of the loop."""
        self.places.append(place)
        if len(self.places) - 1 == self.cancel_at:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await asyncio.sleep(0)


class FakeClient:
    """Somebody who asks once and writes down what comes."""

    def __init__(
        self, body: bytes, awaits: Awaits, headers: RawHeaders, address: "Address"
    ) -> None:
        self.method = address.method
        self.path = address.path
        self.query_string = address.query
        self.headers = headers
        self.body = body
        self.awaits = awaits
        self.gone = asyncio.Event()
        self.leaves_early = False
        self.status: int | None = None
        self.told: dict[str, str] = {}
        self.got: list[bytes] = []
        self.is_finished = False
        self.late_writes = 0

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def is_unreadable(self, name: str) -> bool:
        return [key for key, _ in self.headers].count(name) > 1

    def query(self, name: str) -> str | None:
        return None

    async def read_body(self, bytes_max: int) -> bytes:
        await self.awaits.here("read_body")
        if self.leaves_early:
            raise ClientGone
        if len(self.body) > bytes_max:
            raise BodyTooLarge
        return self.body

    async def discard_body(self) -> None:
        await self.awaits.here("discard_body")

    def respond(self, status: int, headers: RawHeaders, body: bytes) -> None:
        self.start(status, headers)
        self.got.append(body)
        self.is_finished = True

    def start(self, status: int, headers: RawHeaders) -> None:
        assert self.status is None, "two heads"
        self.status = status
        self.told = dict(headers)

    async def write(self, chunk: bytes) -> bool:
        assert self.status is not None
        assert not self.is_finished
        assert chunk, "an empty chunk would end the answer"
        # A turn or two pass before anybody can know that the client has left.
        self.late_writes += self.gone.is_set()
        assert self.late_writes <= 2, "written to a client that has left"
        self.got.append(chunk)
        await self.awaits.here("write")
        return True

    async def finish(self, chunk: bytes) -> None:
        assert self.status is not None
        assert not self.is_finished
        self.is_finished = True
        self.got.append(chunk)
        await self.awaits.here("finish")

    async def wait_gone(self) -> None:
        await self.gone.wait()


class FakeReply:
    """An answer that follows its script."""

    def __init__(self, play: Play, world: "World") -> None:
        self.status = play.status
        self.headers = play.headers
        self._steps = iter(play.steps)
        self._world = world

    async def read_chunk(self) -> bytes | None:
        await self._world.awaits.here("read_chunk")
        for step in self._steps:
            if isinstance(step, bytes):
                return step
            await self._world.perform(step)
        return None


class FakeUpstream:
    """A provider that follows its script and writes down what it got."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.requests: list[UpstreamRequest] = []
        self.open = 0

    def send(self, request: UpstreamRequest) -> "_Exchange":
        self.requests.append(request)
        return _Exchange(self)


class _Exchange:
    """One request and its answer."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self._upstream = upstream

    async def __aenter__(self) -> FakeReply:
        world = self._upstream.world
        await world.awaits.here("send")
        if world.play.head is not None:
            await world.perform(world.play.head)
        self._upstream.open += 1
        return FakeReply(world.play, world)

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self._upstream.open -= 1
        parting = self._upstream.world.play.parting
        if parting is not None:
            raise parting


class ListJournal:
    """A journal in a list, that can be full.

    Attributes:
        takes_intents: Whether it has room for intents.
        takes_records: Whether it has room for records.
        takes_more: Whether it has room to write that more is held for a call.
        is_syncing: Whether what it took can be made safe.
    """

    def __init__(self, awaits: Awaits) -> None:
        self.intents: list[Intent] = []
        self.records: list[LedgerRecord] = []
        self.awaits = awaits
        self.takes_intents = self.takes_more = self.takes_records = self.is_syncing = True

    def append_intent(self, intent: Intent) -> None:
        if not self.takes_intents:
            raise JournalFull("no room")
        msgspec.json.encode(intent)
        self.intents.append(intent)

    def raise_intent(self, intent_id: str, raised: Raised) -> None:
        if not self.takes_more:
            raise JournalFull("no room")
        (at,) = [n for n, intent in enumerate(self.intents) if intent.id == intent_id]
        old = self.intents[at]
        self.intents[at] = msgspec.structs.replace(old, **msgspec.structs.asdict(raised))

    def append_record(self, record: LedgerRecord) -> LedgerRecord:
        if not self.takes_records:
            raise JournalFull("no room")
        msgspec.json.encode(record)
        numbered = msgspec.structs.replace(record, seq=len(self.records) + 1)
        self.records.append(numbered)
        return numbered

    @property
    def must_sync(self) -> bool:
        return True

    async def synced(self) -> None:
        await self.awaits.here("synced")
        if not self.is_syncing:
            raise JournalBroken("the disk has gone")


class Counter:
    """Counts in this process, or fails."""

    def __init__(self, awaits: Awaits) -> None:
        self.awaits = awaits
        self.is_able = True

    is_warm = True

    def count_prompt(
        self, api: str, body: bytes, model: str
    ) -> "asyncio.Future[Mapping[str, int] | None] | None":
        if not self.is_able:
            return None
        counted: asyncio.Future[Mapping[str, int] | None]
        counted = asyncio.get_running_loop().create_future()
        counted.set_result(count_parts(api, body, "o200k_base"))
        return counted

    async def count(self, texts: Sequence[str], model: str) -> int:
        await self.awaits.here("count")
        if not self.is_able:
            raise CountingFailed("no tokenizer")
        return count_tokens(texts, "o200k_base")


class StillClock:
    """Time that stands."""

    def now(self) -> datetime:
        return AT

    def monotonic_s(self) -> float:
        return 100.0


class LoopClock:
    """Time that passes on the loop, from some moment on."""

    def now(self) -> datetime:
        return AT

    def monotonic_s(self) -> float:
        return 100.0 + asyncio.get_running_loop().time()


@dataclass(frozen=True)
class Keys:
    """One key that may call everything."""

    callers: Mapping[bytes, Caller]


class Directory:
    """Who may call."""

    def __init__(self, models: Sequence[str] = ("*",)) -> None:
        caller = Caller(
            organization="acme",
            team="search",
            project="rag",
            key="ci",
            tags={"env": "test"},
            models=tuple(models),
            expires_at=None,
        )
        self.callers = Callers(Keys({secret_digest(SECRET): caller}))
        self.is_spending_known = True

    async def learn_spending(self) -> bool:
        """Nobody comes to tell: what is not known stays so."""
        return self.is_spending_known


def ask(**fields: Any) -> bytes:
    """Write a request; fields replace those of a plain one, ``...`` leaves one out."""
    usual = {
        "model": "gpt-5",
        "messages": [{"role": "user", "content": "Hello world"}],
        "max_completion_tokens": 400,
    }
    return json.dumps({k: v for k, v in (usual | fields).items() if v is not ...}).encode()


class World:
    """One call path and everything around it."""

    def __init__(
        self,
        play: Play,
        *,
        body: bytes | None = None,
        cancel_at: int | None = None,
        drains: bool = False,
        drains_max: int = 9,
        missing_usage: Literal["estimate", "fail"] = "estimate",
        limits: Sequence[str | Budget] = ("cap year 100 USD", "tokens year 90000000 tokens"),
        headers: RawHeaders | None = None,
        book: Book = BOOK,
        deployments: Mapping[str, str] | None = None,
        timed: Deployment | None = None,
        own_headers: Sequence[tuple[str, str]] = (),
        address: Address = CHAT,
        mode: Literal["hard", "soft", "observe"] = "hard",
        unpriced: Literal["block", "allow"] = "block",
        models: Sequence[str] = ("*",),
    ) -> None:
        """Set the scene; ``timed`` is a model that is priced by its time."""
        self.address = address
        self.unpriced = unpriced
        self.book = book
        self.deployments = deployments or {}
        self.play = play
        self.awaits = Awaits(cancel_at)
        self.budgets = MemoryBudgets()
        listed = [budget(one, mode=mode) if isinstance(one, str) else one for one in limits]
        self.budgets.install(listed, AT)
        self.journal = ListJournal(self.awaits)
        self.counter = Counter(self.awaits)
        self.watcher = Watcher()
        self.directory = Directory(models)
        self.upstream = FakeUpstream(self)
        extra = headers or []
        self.client = FakeClient(
            ask() if body is None else body,
            self.awaits,
            [("authorization", "Bearer " + SECRET), *extra],
            address,
        )
        self.timed = timed
        self.own_headers = tuple(own_headers)
        self.path = self._path(drains, drains_max, missing_usage)

    def _path(
        self,
        drains: bool,
        drains_max: int,
        missing_usage: Literal["estimate", "fail"],
    ) -> CallPath:
        own = () if self.timed is None else (self.timed,)
        book = add_to_book(self.book, derive_prices(own))
        kind = self.address.kind
        priced_as = PRICED_AS.get(kind, kind)
        provider = Provider(
            id=kind,
            kind=kind,
            base_url=self.address.base_url,
            priced_as=priced_as if self.timed is None else self.timed.provider,
            auth=("authorization", "Bearer sk-provider"),
            headers=self.own_headers,
            upstream=self.upstream,
            region=self.address.region,
            drains=drains,
            deployments=self.deployments,
            fleet=fleets_of(own).get("house", NO_FLEET),
            call_s_max=CALL_S_MAX,
        )
        clock = StillClock() if self.timed is None else LoopClock()
        ids = IdSource()
        admission = Admission(
            directory=self.directory,
            router=Router({kind: provider}),
            prices=Prices(book),
            budgets=self.budgets,
            journal=self.journal,
            policy=AdmissionPolicy(body_bytes_max=10**6, unpriced=self.unpriced, tag_policy={}),
        )
        return CallPath(
            clock=clock,
            ids=ids,
            admission=admission,
            relief=relief_of(admission, ReliefPolicy(), self.watcher),
            endings=Endings(
                clock=clock,
                budgets=self.budgets,
                journal=self.journal,
                counter=self.counter,
                subscriber=self.watcher,
                missing_usage=missing_usage,
            ),
            recall=Recall(
                clock=clock,
                ids=ids,
                metered=Metered(NoRecords()),
                budgets=self.budgets,
                journal=self.journal,
            ),
            budgets=self.budgets,
            journal=self.journal,
            watcher=self.watcher,
            translation=Translation("http://127.0.0.1:1"),
            user_tokens=UserTokens(self.counter, 1),
            drains=Drains(drains_max),
            is_committing=True,
        )

    async def perform(self, step: UpstreamFailed | Leave | Stall | Pause) -> None:
        """Do what a script says."""
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return
        if isinstance(step, UpstreamFailed):
            raise step
        if isinstance(step, Stall):
            await asyncio.Event().wait()
        self.client.gone.set()
        # The watcher wakes, its callback runs, and a cancelled reader is woken.
        for _ in range(4):
            await asyncio.sleep(0)

    async def call(self) -> None:
        """Make the call as a server would: in a task of its own."""
        await asyncio.ensure_future(self.path.serve(self.client))

    def spent(self, name: str = "cap") -> tuple[int, int, int]:
        """Read spent, parked and held of a budget."""
        (status,) = (s for s in self.budgets.status(AT) if s.budget.id == name)
        return status.spent, status.parked, status.held

    @property
    def record(self) -> LedgerRecord:
        """The only record."""
        (record,) = self.journal.records
        return record

    def check_books(self) -> None:
        """However it went: one end, no hold, and the budget has what the record says."""
        assert 0 == self.budgets.open_holds
        assert 0 == self.upstream.open
        assert self.watcher.opened_calls == self.watcher.closed_calls
        ids = [record.id for record in self.journal.records]
        assert len(ids) <= 1, f"{len(ids)} records"
        if self.journal.intents and self.journal.takes_records:
            assert [intent.id for intent in self.journal.intents] == ids
        if not self.journal.records:
            return
        record = self.record
        if record.outcome == "refused":
            assert (0, 0, 0) == self.spent()
            return
        # Without a price nothing bounds a call, and nothing can be booked of it.
        ceiling = record.ceiling_pico or 0
        pico = record.cost_pico if record.cost_pico is not None else ceiling
        assert (pico, 0 if record.cost_pico is not None else pico, 0) == self.spent()
        assert self.watcher.observed == [record]
