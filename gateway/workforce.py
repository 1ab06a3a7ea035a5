"""The start of a gateway of several processes: what is done once, before there are any.

Must never serve a call itself, nor leave anything of this behind in memory: the process becomes the
supervisor.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final, NoReturn

from gateway.clock import SystemClock, epoch_us
from gateway.ledger.journal_dir import take_lock
from gateway.ledger.segments import list_segments
from gateway.ledger.store import LedgerStore, is_current, open_engine
from gateway.ledger.workers import Workers
from gateway.listening import refuse_taken_address
from gateway.prices.store import PriceStore
from gateway.settings import Settings
from gateway.starting import begin_logging, recovery_of, tell_recovered, upgrade

_SUPERVISOR: Final = "gateway.supervisor"


def supervise(settings: Settings, config: Path | None) -> NoReturn:
    """Become the supervisor of several workers.

    Args:
        settings: Checked.
        config: What ``--config`` says, for the workers, which read their settings themselves.

    Raises:
        AddressTaken: Something else listens there.
        StoreUnavailable: The database or the journal cannot be used.
    """
    begin_logging()
    host, port = settings.server.host, settings.server.port
    refuse_taken_address(host, port)
    root = settings.storage.journal_dir
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    _bring_over(settings)
    # Held as long as the supervisor lives: a second gateway would take the journals of workers
    # that are being replaced.
    lock_fd = take_lock(root)
    os.set_inheritable(lock_fd, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(  # noqa: S606 - this very program
        sys.executable,
        [
            sys.executable,
            "-m",
            _SUPERVISOR,
            f"--workers={settings.server.workers}",
            f"--host={host}",
            f"--port={port}",
            f"--stop-s={settings.server.stop_s}",
            f"--lock-fd={lock_fd}",
            "--",
            *(() if config is None else ("--config", str(config))),
        ],
    )


def _bring_over(settings: Settings) -> None:
    """Bring the ledger what a gateway of one process has left in the journal's own folder."""
    root = settings.storage.journal_dir
    if not list_segments(root):
        return
    engine = open_engine(settings.storage.database_url)
    if not is_current(engine):
        asyncio.run(upgrade(settings.storage.database_url))
    clock = SystemClock()
    take_over = recovery_of(settings, LedgerStore(engine), PriceStore(engine, clock), clock)
    journal, report = take_over(root)
    try:
        if report.store_trouble is None:
            # Else shared budgets would wait for the one that is gone, and keep what it had claimed.
            Workers(engine).retire(journal.writer, epoch_us(clock.now()))
    finally:
        journal.close()
        engine.dispose()
    tell_recovered(report)
