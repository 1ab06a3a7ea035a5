"""Syncs a file in a thread for all who wait at that moment, in one go and without a timer.

Must never tell a waiter that its bytes are on disk when they may not be.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

from gateway.ledger.errors import JournalBroken


class GroupSync:
    """Natural batches: whoever comes while one sync runs is served together by the next.

    A waiter has a future of its own, so cancelling one leaves the others alone. Once a sync has
    failed nothing is synced any more: the kernel reports a lost page only once, so a later sync
    that succeeds would prove nothing.
    """

    def __init__(
        self,
        sync: Callable[[], int],
        on_failure: Callable[[str], None],
        monotonic_s: Callable[[], float],
    ) -> None:
        """Start the thread.

        Args:
            sync: Makes everything written so far durable and returns a mark of how far that is;
                called in the thread. Marks only grow.
            on_failure: Told once, in the thread, why syncing has stopped for good.
            monotonic_s: Seconds that never step back.
        """
        self._sync = sync
        self._on_failure = on_failure
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._waiting_since_s: float | None = None
        self._syncing_since_s: float | None = None
        self._durable = 0
        self._failure: str | None = None
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self._thread.start()

    async def join(self, mark: int) -> None:
        """Wait until a mark is durable.

        Args:
            mark: What has been written so far, in the terms of ``sync``.

        Raises:
            JournalBroken: It may never be.
        """
        if mark <= self._durable:
            return
        future = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._failure is not None:
                raise JournalBroken(self._failure)
            if not self._waiting:
                self._waiting_since_s = self._monotonic_s()
            self._waiting.append(future)
            self._wake.set()
        await future

    def lag_s(self) -> float:
        """Tell how long the one who waits longest has waited; 0 when nobody does."""
        with self._lock:
            since_s = self._syncing_since_s
            if since_s is None:
                since_s = self._waiting_since_s
        return 0.0 if since_s is None else max(0.0, self._monotonic_s() - since_s)

    def stop(self) -> None:
        """Serve those who wait already, then end the thread."""
        with self._lock:
            self._is_ending = True
            self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        group: list[asyncio.Future[None]] = []
        failure = "the journal's sync thread has died"
        try:
            is_ending = False
            while not is_ending:
                self._wake.wait()
                with self._lock:
                    self._wake.clear()
                    is_ending = self._is_ending
                    group, self._waiting = self._waiting, []
                    self._syncing_since_s, self._waiting_since_s = self._waiting_since_s, None
                self._durable = self._sync()
                self._syncing_since_s = None
                _resolve(group, None)
                group = []
            failure = "the journal is closed"
        except OSError as error:
            failure = f"the journal cannot be synced: {error}"
        finally:
            with self._lock:
                self._failure = failure
                group = group + self._waiting
                self._waiting = []
            self._on_failure(failure)
            _resolve(group, failure)


def _resolve(futures: Iterable[asyncio.Future[None]], failure: str | None) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for future in futures:
        by_loop.setdefault(future.get_loop(), []).append(future)
    for loop, group in by_loop.items():
        # A loop that is closed has nobody left who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_finish, group, failure)


def _finish(futures: Iterable[asyncio.Future[None]], failure: str | None) -> None:
    for future in futures:
        if future.done():
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(JournalBroken(failure))
