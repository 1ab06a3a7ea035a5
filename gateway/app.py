"""The composition root: the only place that builds real parts and joins them.

Must never hold a rule of its own; every decision lives in the part that is built here.
"""

import asyncio
import contextlib
import gc
import json
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version as version_of
from typing import Any, Final

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from sqlalchemy import Engine

from gateway.admin.books import WholeBook
from gateway.admin.control import build_control_app
from gateway.admin.parts import ControlParts
from gateway.admission import Admission, AdmissionPolicy
from gateway.asgi import AsgiApp, run_asgi
from gateway.budgets.memory import MemoryBudgets
from gateway.call import CallPath
from gateway.client import RsgiClient, RsgiProtocol, RsgiScope
from gateway.clock import SystemClock, epoch_us
from gateway.directory import Directory
from gateway.earlier import LedgerRecords, Metered
from gateway.ending import Endings
from gateway.estimating import bound_messages, count_messages
from gateway.ids import IdSource
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.journal import Journal
from gateway.ledger.queries import Queries
from gateway.ledger.recovery import RecoveryReport, recover
from gateway.ledger.shipper import Shipper
from gateway.ledger.store import LedgerStore, is_current, open_engine
from gateway.listening import refuse_taken_address, wait_listening
from gateway.metrics import Metrics, Probes
from gateway.models_list import list_models
from gateway.own_rates import add_own_prices, book_finder, fleet_of, open_book
from gateway.prices.current import Prices
from gateway.prices.follower import PricesFollower
from gateway.prices.rows import StoredVersion
from gateway.prices.store import PriceStore, program_name
from gateway.recall import Recall
from gateway.refusals import Refusal, to_error
from gateway.routes import Provider, Router
from gateway.running import DirectoryFollower
from gateway.session import Sessions
from gateway.settings import ProviderSettings, Settings
from gateway.sockets import FRAME_BYTES_MAX
from gateway.tokens import TokenizerProcess
from gateway.translate import Translation
from gateway.upstreams import open_upstream, region_of
from gateway.user_tokens import UserTokens
from gateway.welcome import Welcome, say
from gateway.wire.table import ENDPOINTS, OPENAI_DIALECT, auth_of
from pricing.book import Book, BookVersion

log = logging.getLogger("taximeter")

DEMO_PROVIDER: Final = "demo"
# Providers that go on producing, and billing, when the connection is closed: reading on costs
# nothing and tells the true usage. OpenRouter's list of stream cancellation, checked 2026-11-23.
_BILLS_ON: Final = frozenset({"bedrock", "groq", "gemini", "vertex", "mistral", "perplexity"})
_GC_FIRST: Final = 50_000
_SWITCH_S: Final = 0.0005
_STOP_S_MAX: Final = 10.0


def serve(settings: Settings) -> int:
    """Serve until told to stop.

    Args:
        settings: Checked.

    Returns:
        Exit code: 0 after a stop, 1 when the start failed.

    Raises:
        StoreUnavailable: The journal or the database cannot be used; the text says why.
    """
    started_s = time.perf_counter()
    if settings.server.scheduling == "batch":
        _run_without_preemption()
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("_granian").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("websockets").setLevel(logging.WARNING)
    uvloop.run(_run(settings, started_s))
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


async def _run(settings: Settings, started_s: float) -> None:
    clock, ids = SystemClock(), IdSource()
    engine = open_engine(settings.storage.database_url)
    if not is_current(engine):
        await _upgrade(settings.storage.database_url)
    store, versions = LedgerStore(engine), PriceStore(engine, clock)
    follower = prices_follower(settings, versions, clock)
    _tell_waiting(await asyncio.to_thread(versions.record_shipped, program_name()))
    prices = await follower.open()
    journal, report = recover(
        settings.storage.journal_dir,
        store,
        now_us=epoch_us(clock.now()),
        fsync=settings.storage.fsync,
        find_book=book_finder(settings, versions.load_book),
    )
    _tell(report)
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
            )
        )
        exits.callback(gateway.tokenizer.stop)
        exits.callback(gateway.translation.stop)
        secret = await asyncio.to_thread(gateway.directory.first_start)
        await gateway.follower.reload()
        for one in (gateway.follower.follow(), follower.follow()):
            exits.callback(asyncio.create_task(one).cancel)
        welcome = Welcome(
            address=f"http://{settings.server.host}:{settings.server.port}",
            admin_token=gateway.fresh_token,
            key=secret,
            model=gateway.some_model(),
            ready_s=0.0,
            aborted=report.aborted,
        )
        await _listen(settings, gateway, welcome, started_s)
        await gateway.wait_idle(_STOP_S_MAX)


async def _upgrade(database_url: str) -> None:
    """Bring the tables up to date in a child, whose memory goes with it."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.ledger.migrate",
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await child.communicate(database_url.encode() + b"\n")
    if child.returncode:
        raise StoreUnavailable(f"the database cannot be brought up to date: {told.decode()}")


async def _listen(
    settings: Settings, gateway: "_Gateway", welcome: Welcome, started_s: float
) -> None:
    refuse_taken_address(settings.server.host, settings.server.port)
    server = Server(
        gateway,
        address=settings.server.host,
        port=settings.server.port,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        websockets=False,
        backlog=2048,
        log_enabled=False,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_FIRST)
    # A batch insert in the shipper's thread must not hold the event loop up for the usual 5 ms.
    sys.setswitchinterval(_SWITCH_S)
    serving = asyncio.ensure_future(server.serve())
    ready = asyncio.ensure_future(wait_listening(settings.server.host, settings.server.port))
    await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done() and not serving.done():
        say(welcome, time.perf_counter() - started_s)
        gateway.warm()
    ready.cancel()
    await serving


def _tell(report: RecoveryReport) -> None:
    log.info(
        "journal recovered aborted=%d shipped=%d torn_bytes=%d damaged=%d",
        report.aborted,
        report.records_shipped,
        report.torn_bytes,
        len(report.damaged_files),
    )
    if report.store_trouble is not None:
        log.warning("the ledger is behind: %s", report.store_trouble)


def own_url(settings: Settings) -> str:
    """Tell where a process of this machine reaches the gateway.

    Args:
        settings: Checked.

    Returns:
        Its address; loopback where it listens everywhere.
    """
    host = settings.server.host
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared, not listened on
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}"


def admin_token_of(settings: Settings) -> tuple[str, bool]:
    """Find what opens the control plane, making it at the first start.

    Args:
        settings: The configured token wins.

    Returns:
        The token, and whether it was made just now. A made one is kept beside the journal,
        readable by the owner alone.
    """
    if settings.server.admin_token is not None:
        return settings.server.admin_token.get_secret_value(), False
    path = settings.storage.journal_dir.parent / "admin-token"
    if path.exists():
        return path.read_text("ascii").strip(), False
    token = "tm-admin-" + secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(token + "\n")
    return token, True


def prices_follower(settings: Settings, versions: PriceStore, clock: SystemClock) -> PricesFollower:
    """Make what keeps the prices of the path as the database says.

    Args:
        settings: For the providers calls can need, and GPUs of one's own.
        versions: The versions of the price book.
        clock: What time it is.

    Returns:
        A follower that has read nothing yet.
    """
    providers = priced_providers(settings)

    def open_part(version: BookVersion) -> Book:
        return add_own_prices(versions.open_book(version, providers), settings)

    return PricesFollower(store=versions, open_book=open_part, clock=clock)


def _tell_waiting(waiting: Sequence[StoredVersion]) -> None:
    for version in waiting:
        log.warning(
            "price book %s came with this version of taximeter and waits for approval, because "
            "prices were changed here: compare it with `taximeter prices diff %s`",
            version.version,
            version.version,
        )


def build_providers(settings: Settings) -> dict[str, Provider]:
    """Make the configured providers ready; with none, the demo provider stands in.

    Args:
        settings: Checked.

    Returns:
        Providers by id, in the order of the configuration.
    """
    configured = settings.providers or {DEMO_PROVIDER: ProviderSettings(kind="demo")}
    return {
        provider_id: _build_provider(provider_id, one, settings)
        for provider_id, one in configured.items()
    }


def priced_providers(settings: Settings) -> frozenset[str]:
    """Tell which part of the price book calls can need.

    Args:
        settings: Checked.

    Returns:
        Catalog providers of everything configured, and the demo provider.
    """
    configured = [
        ENDPOINTS.list_priced(one.kind, one.priced_as or name)
        for name, one in settings.providers.items()
    ]
    return frozenset({DEMO_PROVIDER}).union(*configured)


def _build_provider(provider_id: str, one: ProviderSettings, settings: Settings) -> Provider:
    on_disconnect = settings.metering.on_client_disconnect
    key = None if one.api_key is None else one.api_key.get_secret_value()
    return Provider(
        id=provider_id,
        kind=one.kind,
        base_url=(one.base_url or "").rstrip("/"),
        priced_as=one.priced_as or provider_id,
        auth=None if key is None else auth_of(one.kind, key),
        headers=tuple((name.lower(), value) for name, value in one.headers.items()),
        upstream=open_upstream(one),
        region=region_of(one.kind, one.base_url or "", one.region),
        drains=on_disconnect == "drain" or (on_disconnect == "auto" and one.kind in _BILLS_ON),
        deployments=one.deployments,
        fleet=fleet_of(settings, provider_id),
        call_s_max=one.timeout_s,
        project=project_of(one),
    )


def project_of(one: ProviderSettings) -> str | None:
    """Write whose project Vertex bills, as in an address there.

    Args:
        one: Settings of a provider.

    Returns:
        Project and location; ``None`` where the settings name no project.
    """
    if one.project is None:
        return None
    return f"projects/{one.project}/locations/{one.region or 'global'}"


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
        self.translation = Translation(own_url(settings))
        self.budgets = MemoryBudgets()
        self.directory = Directory(engine, settings, clock, ids)
        self.queries = Queries(engine)
        self.follower = DirectoryFollower(
            directory=self.directory,
            budgets=self.budgets,
            queries=self.queries,
            journal=_JournalCut(journal, shipper),
            clock=clock,
        )
        self.router = Router(build_providers(settings))
        self.metrics = self._build_metrics()
        self._path = self._build_path(ids)
        self._sessions = Sessions(
            path=self._path, frame_bytes_max=max(settings.server.body_bytes_max, FRAME_BYTES_MAX)
        )
        self._admin_token, is_fresh = admin_token_of(settings)
        self.fresh_token = self._admin_token if is_fresh else None
        self._control: AsgiApp = build_control_app(self._build_control(base))

    async def __rsgi__(self, scope: RsgiScope, protocol: RsgiProtocol) -> None:
        """Take one HTTP request."""
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
            self._scrape(RsgiClient(scope, protocol))
        else:
            await run_asgi(self._control, scope, protocol)

    def warm(self) -> None:
        """Load what the first call will need and the start could do without."""
        if self._settings.metering.user_input_tokens:
            self.tokenizer.warm()

    def some_model(self) -> str:
        """Name a model that can be called at once, for the first example."""
        now = self._clock.now()
        models = self.router.models(self._prices.at(now), now)
        return models[0][1] if models else "MODEL"

    async def wait_idle(self, seconds: float) -> None:
        """End the sessions, and wait until no call is open, so long at most."""
        self._sessions.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.metrics.wait_idle()

    def _build_metrics(self) -> Metrics:
        return Metrics(
            prices=self._prices,
            priced_as={p.id: p.priced_as for p in self.router.providers.values()},
            required_tags=frozenset(
                name for name, rule in self._settings.tag_policy.items() if rule.required
            ),
            probes=Probes(
                now=self._clock.now,
                budgets=lambda: self.budgets.status(self._clock.now()),
                reservations_open=lambda: self.budgets.open_holds,
                journal_lag_s=self._journal.sync_lag_s,
                ledger_lag_s=self._shipper.lag_s,
                stores_up=self._stores_up,
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
            subscriber=self.metrics,
            missing_usage=metering.missing_usage,
        )
        return CallPath(
            clock=self._clock,
            ids=ids,
            admission=self._admission,
            endings=endings,
            recall=Recall(
                clock=self._clock,
                ids=ids,
                metered=Metered(LedgerRecords(self.queries)),
                budgets=self.budgets,
                journal=self._journal,
            ),
            budgets=self.budgets,
            journal=self._journal,
            watcher=self.metrics,
            translation=self.translation,
            user_tokens=UserTokens(self.tokenizer, float(metering.user_input_tokens)),
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
            flush=self._shipper.flush,
            on_change=self.follower.reload,
            is_ready=lambda: {**self._stores_up(), "price_book": True},
            count_tokens=self._count_tokens,
            bound_tokens=lambda messages, _model: bound_messages(messages),
        )

    def _stores_up(self) -> Mapping[str, bool]:
        return {
            "journal": self._journal.failure is None,
            "ledger": self._shipper.is_store_up,
            "budgets": self.follower.is_spending_known,
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

    def _scrape(self, client: RsgiClient) -> None:
        token = self._settings.server.metrics_token
        given = client.header("authorization") or ""
        if token is not None and not secrets.compare_digest(
            given.encode("latin-1"), b"Bearer " + token.get_secret_value().encode()
        ):
            client.respond(
                401, [("www-authenticate", "Bearer")], b"send the metrics token as a bearer token\n"
            )
            return
        body, content_type = self.metrics.render(client.header("accept") or "")
        client.respond(200, [("content-type", content_type)], body)
