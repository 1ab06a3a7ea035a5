"""What a start needs before anything can be put together, each part on its own.

Must never keep anything running.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.clock import SystemClock, epoch_us
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.journal import Journal
from gateway.ledger.orphans import Recover
from gateway.ledger.recovery import RecoveryReport, recover
from gateway.ledger.store import LedgerStore
from gateway.own_rates import add_own_prices, book_finder, fleet_of
from gateway.prices.follower import PricesFollower
from gateway.prices.rows import StoredVersion
from gateway.prices.store import PriceStore
from gateway.routes import Provider
from gateway.settings import ProviderSettings, Settings
from gateway.upstreams import open_upstream, region_of
from gateway.wire.table import ENDPOINTS, auth_of
from pricing.book import Book, BookVersion

log = logging.getLogger("taximeter")

DEMO_PROVIDER: Final = "demo"
# Providers that go on producing, and billing, when the connection is closed: reading on costs
# nothing and tells the true usage. OpenRouter's list of stream cancellation, checked 2026-11-23.
_BILLS_ON: Final = frozenset({"bedrock", "groq", "gemini", "vertex", "mistral", "perplexity"})


def begin_logging() -> None:
    """Log to standard error, what libraries have to say only where it matters."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    for name in ("_granian", "alembic", "websockets"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def upgrade(database_url: str) -> None:
    """Bring the tables up to date in a child, whose memory goes with it.

    Args:
        database_url: As configured.

    Raises:
        StoreUnavailable: They cannot be; the text says why.
    """
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


def recovery_of(
    settings: Settings, store: LedgerStore, versions: PriceStore, clock: SystemClock
) -> Recover:
    """Make what takes journals over.

    Args:
        settings: For ``fsync``, and prices of one's own.
        store: The ledger.
        versions: The versions of the price book.
        clock: What time it is.

    Returns:
        It, to be called with the folder of a journal.
    """

    def take_over(journal_dir: Path) -> tuple[Journal, RecoveryReport]:
        return recover(
            journal_dir,
            store,
            now_us=epoch_us(clock.now()),
            fsync=settings.storage.fsync,
            find_book=book_finder(settings, versions.load_book),
        )

    return take_over


def tell_recovered(report: RecoveryReport) -> None:
    """Log what was found in a journal.

    Args:
        report: Of its recovery.
    """
    log.info(
        "journal recovered aborted=%d shipped=%d torn_bytes=%d damaged=%d",
        report.aborted,
        report.records_shipped,
        report.torn_bytes,
        len(report.damaged_files),
    )
    if report.store_trouble is not None:
        log.warning("the ledger is behind: %s", report.store_trouble)


def own_url(settings: Settings, returns: socket.socket | None) -> str:
    """Tell where a process of this machine reaches this very process.

    Args:
        settings: Checked.
        returns: Bound to an address of its own, where there are several workers.

    Returns:
        Its address; loopback where it listens everywhere.
    """
    if returns is not None:
        host, port = returns.getsockname()
        return f"http://{host}:{port}"
    host = settings.server.host
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared, not listened on
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}"


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


def tell_waiting(waiting: Sequence[StoredVersion]) -> None:
    """Log which price books wait for somebody to approve them.

    Args:
        waiting: They.
    """
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
