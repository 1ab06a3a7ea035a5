"""The composition root: the only place that builds real parts and joins them.

Must never hold a rule of its own; every decision lives in the part that is built here.
"""

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as version_of
from typing import Any, Final

import uvloop
from sqlalchemy import Engine

from gateway.admin.auth import admin_token_of
from gateway.admin.books import WholeBook
from gateway.admin.control import build_control_app
from gateway.admin.parts import ControlParts
from gateway.admission import Admission, AdmissionPolicy
from gateway.alerts.follower import AlertSources, open_alerts
from gateway.alerts.outbox import Outbox
from gateway.asgi import AsgiApp, run_asgi
from gateway.call import CallPath
from gateway.client import LastAnswer, RsgiClient, RsgiProtocol, RsgiScope
from gateway.clock import SystemClock
from gateway.directory import Directory
from gateway.earlier import LedgerRecords, Metered
from gateway.ending import Endings
from gateway.estimating import bound_messages, count_messages
from gateway.exchange import Drains
from gateway.fleet import Fleet, FleetSilent, SelfReport
from gateway.ids import IdSource
from gateway.ledger.journal import Journal
from gateway.ledger.orphans import Orphans, claim
from gateway.ledger.partitions import Partitions, PartitionsFollower
from gateway.ledger.queries import Queries
from gateway.ledger.record import LedgerRecord
from gateway.ledger.rolling import RollupsFollower
from gateway.ledger.rollups import Rollups
from gateway.ledger.shipper import Shipper
from gateway.ledger.store import LedgerStore, is_current, open_engine
from gateway.listening import open_listener, refuse_taken_address, wait_accepting, wait_listening
from gateway.metrics import Metrics, Probes
from gateway.models_list import list_models, pick_example
from gateway.otlp import Both, open_otlp
from gateway.own_rates import open_book
from gateway.prices.current import Prices
from gateway.prices.follower import PricesFollower
from gateway.prices.store import PriceStore, program_name
from gateway.recall import Recall
from gateway.refusals import Refusal, to_error
from gateway.relief import relief_of
from gateway.routes import Router
from gateway.running import DirectoryFollower
from gateway.serving import HandedServer, Service, open_server
from gateway.session import Sessions
from gateway.settings import Settings
from gateway.sharing import open_sharing
from gateway.sockets import FRAME_BYTES_MAX
from gateway.starting import (
    begin_logging,
    build_providers,
    own_url,
    prices_follower,
    recovery_of,
    tell_recovered,
    tell_waiting,
    upgrade,
)
from gateway.tokens import TokenizerProcess
from gateway.translate import Translation
from gateway.user_tokens import UserTokens
from gateway.welcome import Welcome, say
from gateway.wire.table import OPENAI_DIALECT

log = logging.getLogger("taximeter")

_GC_FIRST: Final = 50_000
_M_ARENA_MAX: Final = -8
_SWITCH_S: Final = 0.0005
_STOP_S_MAX: Final = 10.0
# How long an answer that may have been metered by another worker waits for that one's records.
CATCH_UP_S_MAX: Final = 2.0


def serve(settings: Settings, fleet: Fleet | None = None) -> int:
    """Serve until told to stop.

    Args:
        settings: Checked.
        fleet: The other workers; ``None`` for a gateway that is one process.

    Returns:
        Exit code: 0 after a stop, 1 when the start failed.

    Raises:
        StoreUnavailable: The journal or the database cannot be used; the text says why.
    """
    started_s = time.perf_counter()
    _keep_one_heap()
    if settings.server.scheduling == "batch":
        _run_without_preemption()
    begin_logging()
    uvloop.run(_run(settings, started_s, fleet))
    return 0


def _run_without_preemption() -> None:
    """Ask the kernel not to interrupt one thread of this process for another that has just woken.

    Three threads carry a call: the server's, the client's and the event loop. On a busy core each
    packet would take the loop off it; unasked, they work through what has come in bunches, with a
    tenth of the switches and a quarter more calls. Every thread made later inherits this. Where
    other programs keep the same core busy, it waits for its turn among them.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _keep_one_heap() -> None:
    """Ask glibc for one heap for all threads: what one of them frees another can use, 5 MB less.

    Must come before there are threads. https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)


async def _run(settings: Settings, started_s: float, fleet: Fleet | None) -> None:
    clock, ids = SystemClock(), IdSource()
    engine = open_engine(settings.storage.database_url)
    if not is_current(engine):
        await upgrade(settings.storage.database_url)
    store, versions = LedgerStore(engine), PriceStore(engine, clock)
    follower = prices_follower(settings, versions, clock)
    tell_waiting(await asyncio.to_thread(versions.record_shipped, program_name()))
    prices = await follower.open()
    root, take_over = settings.storage.journal_dir, recovery_of(settings, store, versions, clock)
    journal, report = take_over(root) if fleet is None else claim(root, take_over)
    tell_recovered(report)
    async with contextlib.AsyncExitStack() as exits:
        exits.callback(engine.dispose)
        exits.callback(journal.close)
        shipper = Shipper(journal, store, clock)
        shipper.start()
        exits.callback(shipper.stop, _STOP_S_MAX)
        gateway = _Gateway(
            _Base(
                settings=settings,
                clock=clock,
                ids=ids,
                prices=prices,
                prices_follower=follower,
                versions=versions,
                engine=engine,
                journal=journal,
                shipper=shipper,
                fleet=fleet,
                returns=None if fleet is None else open_listener("127.0.0.1", 0),
            )
        )
        exits.callback(gateway.tokenizer.stop)
        exits.callback(gateway.translation.stop)
        secret = await asyncio.to_thread(gateway.directory.first_start)
        orphans = Orphans(root, take_over, tell_recovered, gateway.sharing.retire)
        exits.callback(orphans.close)
        if settings.storage.redis_url is None:
            # Its budgets know of others what the ledger knows now, and nothing that comes later.
            await asyncio.to_thread(orphans.inherit)
        await gateway.sharing.start()
        await gateway.follower.reload()
        following = orphans.follow(is_lasting=fleet is not None)
        sums = RollupsFollower(Rollups(engine), clock, is_busy=lambda: shipper.is_busy)
        months = PartitionsFollower(Partitions(engine), clock)
        kept_up = (sums.follow(), months.follow())
        for one in (gateway.follower.follow(), follower.follow(), following, *kept_up):
            exits.callback(asyncio.create_task(one).cancel)
        if fleet is not None:
            await fleet.join(SelfReport(state=gateway.metrics.state, flush=shipper.flush))
            exits.push_async_callback(fleet.leave)
        gateway.start_senders(exits)
        await _listen(settings, gateway, gateway.welcome(secret, report.aborted), started_s)
        await gateway.wait_idle(_STOP_S_MAX)
        await gateway.sharing.stop(gateway.ship_all)


async def _listen(
    settings: Settings, gateway: "_Gateway", welcome: Welcome, started_s: float
) -> None:
    host, port, fleet = settings.server.host, settings.server.port, gateway.fleet
    if fleet is None:
        refuse_taken_address(host, port)
        servers = [open_server(gateway, host, port)]
        until_ready = asyncio.ensure_future(wait_listening(host, port))
    else:
        assert gateway.returns is not None
        servers = [HandedServer(gateway, fleet.listener), HandedServer(gateway, gateway.returns)]
        # A connection to the shared address would be answered by another worker.
        until_ready = asyncio.ensure_future(
            wait_accepting(fleet.listener.dup(), gateway.returns.dup())
        )

    def greet() -> None:
        if fleet is None or fleet.is_first:
            say(welcome, time.perf_counter() - started_s)
        if fleet is not None:
            fleet.tell_ready()
        gateway.warm()

    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_FIRST)
    # A batch insert in the shipper's thread must not hold the event loop up for the usual 5 ms.
    sys.setswitchinterval(_SWITCH_S)
    service = Service(
        servers=servers, fleet=fleet, limits=settings.server, on_leaving=gateway.begin_leaving
    )
    await service.run(until_ready, greet)


class _JournalCut:
    """The journal and its shipper, as the directory follower needs them."""

    def __init__(self, journal: Journal, shipper: Shipper) -> None:
        self._journal = journal
        self.writer = journal.writer
        self.flush = shipper.flush

    def position_seq(self) -> int:
        return self._journal.position().seq


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """What has to exist before the gateway can be put together."""

    settings: Settings
    clock: SystemClock
    ids: IdSource
    prices: Prices
    prices_follower: PricesFollower
    versions: PriceStore
    engine: Engine
    journal: Journal
    shipper: Shipper
    fleet: Fleet | None
    returns: socket.socket | None


class _Gateway:
    """Everything built, behind one ASGI callable."""

    def __init__(
        self,
        base: _Base,
    ) -> None:
        self._settings = settings = base.settings
        self._clock = clock = base.clock
        self._prices = base.prices
        self._journal = journal = base.journal
        self._shipper = shipper = base.shipper
        ids, engine = base.ids, base.engine
        self._loop = asyncio.get_running_loop()
        self.tokenizer = TokenizerProcess()
        self.fleet, self.returns = base.fleet, base.returns
        self._is_leaving = False
        self.translation = Translation(own_url(settings, base.returns))
        self.sharing = open_sharing(settings, engine, journal, clock)
        self.budgets = self.sharing.budgets
        self.directory = Directory(engine, settings, clock, ids)
        self.queries = Queries(engine)
        self.follower = DirectoryFollower(
            directory=self.directory,
            budgets=self.budgets,
            past=self.sharing.past,
            journal=_JournalCut(journal, shipper),
            clock=clock,
        )
        self.router = Router(build_providers(settings))
        self.metrics = self._build_metrics()
        self.alerts = open_alerts(
            settings,
            outbox=Outbox(engine, journal.writer),
            sources=AlertSources(
                statuses=self.budgets.status,
                refusals=self.metrics.count_refusals,
                is_spending_known=lambda: self.follower.is_spending_known,
            ),
            watcher=self.metrics,
            clock=clock,
        )
        self.otlp = open_otlp(
            settings.otlp,
            kinds=lambda: {name: one.kind for name, one in settings.providers.items()},
            resource={"service.name": "taximeter", "service.instance.id": journal.writer},
            watcher=self.metrics,
        )
        self._path = self._build_path(ids)
        self._sessions = Sessions(
            path=self._path, frame_bytes_max=max(settings.server.body_bytes_max, FRAME_BYTES_MAX)
        )
        self._admin_token, is_fresh = admin_token_of(settings)
        self.fresh_token = self._admin_token if is_fresh else None
        self._control: AsgiApp = build_control_app(self._build_control(base))

    async def __rsgi__(self, scope: RsgiScope, protocol: RsgiProtocol) -> None:
        """Take one HTTP request."""
        if self._is_leaving:
            protocol = LastAnswer(protocol)
        path = scope.path
        if self.router.is_data_plane(path):
            client = RsgiClient(scope, protocol)
            if client.asks_for_session:
                await self._sessions.serve(client)
            elif path == "/v1/models" and scope.method == "GET":
                self._models(client)
            else:
                await self._path.serve(client)
        elif path == "/metrics":
            await self._scrape(RsgiClient(scope, protocol))
        else:
            await run_asgi(self._control, scope, protocol)

    def warm(self) -> None:
        """Load what the first call will need and the start could do without."""
        if self._settings.metering.user_input_tokens:
            self.tokenizer.warm()

    def begin_leaving(self) -> None:
        """Have every client connect anew after its answer: a successor serves on the address."""
        self._is_leaving = True

    def welcome(self, secret: str | None, aborted: int) -> Welcome:
        """Say what the one who started it is to know, once it is ready."""
        now, server = self._clock.now(), self._settings.server
        return Welcome(
            address=f"http://{server.host}:{server.port}",
            admin_token=self.fresh_token,
            key=secret,
            # One that can be called at once, for the first example.
            model=pick_example(self.router.models(self._prices.at(now), now)),
            ready_s=0.0,
            aborted=aborted,
        )

    async def wait_idle(self, seconds: float) -> None:
        """End the sessions, and wait until no call is open, so long at most."""
        self._sessions.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.metrics.wait_idle()
        self._path.endings.catch_up()

    def ship_all(self, timeout_s: float) -> bool:
        """Bring everything to the ledger; tells whether it has every call this process let in."""
        return self._shipper.flush(timeout_s) and not self._journal.open_intents()

    def start_senders(self, exits: contextlib.AsyncExitStack) -> None:
        """Start what tells others of calls and budgets, where somebody is to be told."""
        if self.alerts is not None:
            exits.callback(self.alerts.start())
        if self.otlp is not None:
            self.otlp.start()
            exits.push_async_callback(self.otlp.stop)

    def _build_metrics(self) -> Metrics:
        return Metrics(
            prices=self._prices,
            priced_as={p.id: p.priced_as for p in self.router.providers.values()},
            required_tags=frozenset(
                name for name, rule in self._settings.tag_policy.items() if rule.required
            ),
            label_sets_max=self._settings.server.metrics_label_sets_max,
            probes=Probes(
                now=self._clock.now,
                budgets=lambda: self.budgets.status(self._clock.now()),
                reservations_open=lambda: self.budgets.open_holds,
                journal_lag_s=self._journal.sync_lag_s,
                ledger_lag_s=self._shipper.lag_s,
                ledger_backlog_bytes=self._shipper.pending_bytes,
                stores_up=self._stores_up,
                alerts_waiting=lambda: None if self.alerts is None else self.alerts.waiting,
            ),
        )

    def _build_path(self, ids: IdSource) -> CallPath:
        metering = self._settings.metering
        self._admission = Admission(
            directory=self.follower,
            router=self.router,
            prices=self._prices,
            budgets=self.budgets,
            journal=self._journal,
            policy=AdmissionPolicy(
                body_bytes_max=self._settings.server.body_bytes_max,
                unpriced=metering.unpriced,
                tag_policy=self._settings.tag_policy,
            ),
        )
        endings = Endings(
            clock=self._clock,
            budgets=self.budgets,
            journal=self._journal,
            counter=self.tokenizer,
            subscriber=self.metrics if self.otlp is None else Both(self.metrics, self.otlp),
            missing_usage=metering.missing_usage,
        )
        return CallPath(
            clock=self._clock,
            ids=ids,
            admission=self._admission,
            relief=relief_of(self._admission, metering, self.metrics),
            endings=endings,
            recall=Recall(
                clock=self._clock,
                ids=ids,
                metered=Metered(
                    LedgerRecords(
                        self.queries,
                        None if self.fleet is None else partial(self.fleet.flush, CATCH_UP_S_MAX),
                    )
                ),
                budgets=self.budgets,
                journal=self._journal,
                on_correction=self.metrics.correct,
            ),
            budgets=self.budgets,
            journal=self._journal,
            watcher=self.metrics,
            translation=self.translation,
            user_tokens=UserTokens(self.tokenizer, float(metering.user_input_tokens)),
            drains=Drains(metering.drains_max),
            is_committing=metering.durability == "commit",
        )

    def _build_control(self, base: _Base) -> ControlParts:
        load_whole = partial(open_book, self._settings, load=base.versions.load_book)
        return ControlParts(
            settings=self._settings,
            admin_token=self._admin_token,
            version=version_of("taximeter"),
            engine=base.engine,
            directory=self.directory,
            queries=self.queries,
            budgets=self.budgets,
            prices=self._prices,
            find_whole=WholeBook(load_whole),
            versions=base.versions,
            on_price_change=base.prices_follower.reload,
            clock=self._clock,
            flush=self._flush,
            on_change=self.follower.reload,
            on_outside_usage=self._take_outside_usage,
            find_caller=lambda secret: self.follower.callers.find(secret, self._clock.now()),
            is_ready=lambda: {**self._stores_up(), "price_book": True},
            count_tokens=self._count_tokens,
            bound_tokens=lambda messages, _model: bound_messages(messages),
        )

    async def _take_outside_usage(self, added: Sequence[LedgerRecord]) -> None:
        for record in added:
            self.metrics.observe(record)
        await self.follower.take_appended()

    def _flush(self, timeout_s: float) -> bool:
        """Bring what was journalled to the ledger, by every worker; in a thread."""
        if self.fleet is None:
            return self._shipper.flush(timeout_s)
        flushing = asyncio.run_coroutine_threadsafe(self.fleet.flush(timeout_s), self._loop)
        return flushing.result()

    def _stores_up(self) -> Mapping[str, bool]:
        return {
            "journal": self._journal.failure is None,
            "ledger": self._shipper.is_store_up,
            "budgets": self.follower.is_spending_known,
            **self.sharing.stores_up(),
        }

    def _count_tokens(self, messages: Sequence[Mapping[str, Any]], model: str) -> int:
        """Count in the tokenizer process, from a thread of the control plane."""

        def count(texts: Sequence[str]) -> int:
            counting = asyncio.run_coroutine_threadsafe(
                self.tokenizer.count(texts, model), self._loop
            )
            return counting.result()

        return count_messages(messages, count)

    def _models(self, client: RsgiClient) -> None:
        call = self._path.open(client)
        try:
            self._admission.identify(call, client)
            assert call.caller is not None
            status, body = (
                200,
                list_models(call.caller, self.router, self._prices.at(call.at), call.at),
            )
            shown = json.dumps(body).encode()
        except Refusal as refusal:
            error = to_error(refusal)
            status, shown = error.status, OPENAI_DIALECT.shape_error(error)
        headers = [("content-type", "application/json"), ("x-taximeter-request-id", call.id)]
        client.respond(status, headers, shown)

    async def _scrape(self, client: RsgiClient) -> None:
        token = self._settings.server.metrics_token
        given = client.header("authorization") or ""
        if token is not None and not secrets.compare_digest(
            given.encode("latin-1"), b"Bearer " + token.get_secret_value().encode()
        ):
            client.respond(
                401, [("www-authenticate", "Bearer")], b"send the metrics token as a bearer token\n"
            )
            return
        try:
            fleet = None if self.fleet is None else await self.fleet.gather()
        except FleetSilent as silent:
            client.respond(503, [("retry-after", "1")], f"{silent}\n".encode())
            return
        body, content_type = await self.metrics.render(client.header("accept") or "", fleet)
        client.respond(200, [("content-type", content_type)], body)
