"""The control plane on a real SQLite ledger, with the real budgets and the real price book.

Must never need the network; time moves when a test moves it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from gateway.admin import build_control_app
from gateway.admin.parts import ControlParts
from gateway.budgets.loading import LocalPast
from gateway.budgets.memory import MemoryBudgets
from gateway.directory import Directory
from gateway.ids import IdSource
from gateway.ledger.errors import ShippedTo
from gateway.ledger.migrate import upgrade
from gateway.ledger.queries import Queries
from gateway.ledger.record import LedgerRecord
from gateway.ledger.store import LedgerStore, open_engine
from gateway.prices.current import Prices, Term
from gateway.prices.store import PriceStore
from gateway.running import DirectoryFollower
from gateway.settings import load_settings
from pricing.book import Book, load_book

TOKEN = "admin-secret-token"
ADMIN = {"authorization": f"Bearer {TOKEN}"}
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CONFIG = """
organization: acme
providers:
  fake: {kind: demo}
  house: {kind: openai, base_url: "http://127.0.0.1:9/v1", priced_as: null}
teams:
  - id: search
    tags: {env: staging, cost: t1}
    projects:
      - id: rag
        tags: {env: prod, unit: p1}
        keys: [{id: rag-ci, secret: rag-secret, tags: {unit: k1}, models: ["fake/*"]}]
budgets:
  - {id: search-month, scope: {team: search}, limit: "500 USD", window: month,
     timezone: Europe/Berlin, thresholds: [50, 100]}
"""


@cache
def the_book() -> Book:
    """Load the newest price book once."""
    return load_book()


@dataclass(slots=True)
class HandClock:
    """A clock that a test moves."""

    at: datetime = NOON

    def now(self) -> datetime:
        """Tell the time."""
        return self.at

    def monotonic_s(self) -> float:
        """Tell seconds since some moment."""
        return self.at.timestamp()

    def move(self, span: timedelta) -> None:
        """Let time pass."""
        self.at += span


@dataclass(slots=True)
class Mailbox:
    """Records that are not in the ledger yet, shipped by ``flush`` as a journal's would be."""

    store: LedgerStore
    waiting: list[LedgerRecord] = field(default_factory=list)
    shipped: int = 0
    is_stuck: bool = False
    writer: str = "w-1"

    def position_seq(self) -> int:
        """Number of the last record."""
        return self.shipped + len(self.waiting)

    def flush(self, _timeout_s: float) -> bool:
        """Ship what waits."""
        if self.is_stuck:
            return False
        if self.waiting:
            numbered = [
                replace_seq(record, self.shipped + n) for n, record in enumerate(self.waiting, 1)
            ]
            self.store.append(self.writer, numbered, ShippedTo(segment=1, offset=0))
            self.shipped += len(numbered)
            self.waiting.clear()
        return True


def replace_seq(record: LedgerRecord, seq: int) -> LedgerRecord:
    """Give a record its number."""
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    return LedgerRecord(**{**fields, "seq": seq})


def count_words(messages: Sequence[Mapping[str, Any]], _model: str) -> int:
    """Count tokens as far as these tests need it: one a word."""
    return sum(len(str(message.get("content", "")).split()) for message in messages)


def bound_bytes(messages: Sequence[Mapping[str, Any]], _model: str) -> int | None:
    """Bound tokens by bytes; a part that is not text has no bound."""
    texts = [message.get("content", "") for message in messages]
    if not all(isinstance(text, str) for text in texts):
        return None
    return sum(len(text.encode()) for text in texts)


class World:
    """Everything a test of the control plane can reach.

    Attributes:
        clock: The only time there is.
        parts: What the app was built from.
        app: The control plane.
        mailbox: Where calls leave their records.
        folder: Where its database is; another world on it is another process.
    """

    def __init__(self, folder: Path, config: str = CONFIG) -> None:
        self.folder = folder
        self.observed: list[LedgerRecord] = []
        file = folder / "taximeter.yaml"
        file.write_text(config, "utf-8")
        settings = load_settings(file, {})
        self.clock = HandClock()
        self.engine = open_engine(f"sqlite:///{folder}/ledger.db")
        upgrade(self.engine)
        self.mailbox = Mailbox(LedgerStore(self.engine))
        directory = Directory(self.engine, settings, self.clock, IdSource())
        self.budgets = MemoryBudgets()
        self.follower = DirectoryFollower(
            directory=directory,
            budgets=self.budgets,
            past=LocalPast(self.budgets, Queries(self.engine)),
            journal=self.mailbox,
            clock=self.clock,
        )
        self.versions = PriceStore(self.engine, self.clock)
        self.ready = {"journal": True, "ledger": True, "price_book": True}
        self.parts = ControlParts(
            settings=settings,
            admin_token=TOKEN,
            version="0.0.test",
            engine=self.engine,
            directory=directory,
            queries=Queries(self.engine),
            budgets=self.budgets,
            prices=Prices(the_book()),
            find_whole=lambda _: the_book(),
            versions=self.versions,
            on_price_change=self.reload_prices,
            clock=self.clock,
            flush=self.mailbox.flush,
            on_change=self.follower.reload,
            on_outside_usage=self.take_outside_usage,
            find_caller=lambda secret: self.follower.callers.find(secret, self.clock.now()),
            is_ready=lambda: self.ready,
            count_tokens=count_words,
            bound_tokens=bound_bytes,
        )
        self.app: FastAPI = build_control_app(self.parts)
        asyncio.run(self.follower.reload())

    async def take_outside_usage(self, added: Sequence[LedgerRecord]) -> None:
        """Tell the budgets, and remember what metrics would be told."""
        self.observed += added
        await self.follower.take_appended()

    async def reload_prices(self) -> None:
        """Put the version in force that the database says holds now."""
        book = await asyncio.to_thread(self.versions.load_book)
        self.parts.prices.put([Term(book=book)], self.clock.now())

    def rebuild(self, **changes: Any) -> None:
        """Build the app again with other parts."""
        self.parts = replace(self.parts, **changes)
        self.app = build_control_app(self.parts)

    def call(
        self, method: str, path: str, *, headers: Mapping[str, str] = ADMIN, **more: Any
    ) -> httpx.Response:
        """Send one request to ``/api/v1``."""
        if "json" in more:
            # With escapes, so that a test can send text that is not Unicode.
            more["content"] = json.dumps(more.pop("json")).encode()
            headers = {"content-type": "application/json", **headers}
        return self.raw(method, f"/api/v1{path}", headers=headers, **more)

    def raw(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send one request anywhere."""
        return self.run(lambda client: client.request(method, path, **more))

    def run_async(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something on an event loop."""
        asyncio.run(work)

    def run(self, work: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> httpx.Response:
        """Do something with a client."""

        async def go() -> httpx.Response:
            # An exception that got past the app is a test's failure, unless it was answered: the
            # server logs those.
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://tm") as client:
                return await work(client)

        return asyncio.run(go())
