"""Sends what was settled to an OpenTelemetry collector, beside the path.

Must never make a call wait, keep more than was allowed, or log what a header says.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from gateway.ledger.record import LedgerRecord
from gateway.otlp_messages import write_metrics, write_traces
from gateway.settings_otlp import OtlpSettings
from gateway.upstream import HttpUpstream, Upstream, UpstreamFailed, UpstreamRequest

log = logging.getLogger("taximeter")

BATCH_MAX: Final = 512
ATTEMPTS_MAX: Final = 4
_RETRY_S: Final = 1.0
# Answers after which the same message may be sent again.
# Source: https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes, 2026-11-23.
_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_DONE_BELOW: Final = 300
_LAST_S_MAX: Final = 5.0


class Watcher(Protocol):
    """Somebody who counts what became of calls."""

    def exported(self, outcome: str, calls: int) -> None:
        """So many calls were ``sent`` or ``dropped``."""
        ...


class Observer(Protocol):
    """Somebody who wants to know of settled records."""

    def observe(self, record: LedgerRecord) -> None:
        """Take a frozen record in; must be quick and must not raise."""
        ...


@dataclass(frozen=True, slots=True)
class Both:
    """Two who want to know of settled records.

    Attributes:
        first: Told first.
        second: Told then.
    """

    first: Observer
    second: Observer

    def observe(self, record: LedgerRecord) -> None:
        """Tell both.

        Args:
            record: As journalled.
        """
        self.first.observe(record)
        self.second.observe(record)


class OtlpExporter:
    """Sends settled records on, in batches, one message at a time."""

    def __init__(
        self,
        settings: OtlpSettings,
        *,
        kinds: Mapping[str, str],
        resource: Mapping[str, str],
        watcher: Watcher,
        upstream: Upstream | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            settings: With an endpoint.
            kinds: Kind of each provider.
            resource: Who sends.
            watcher: Told what became of the calls.
            upstream: Where messages go; over HTTP unless given.
        """
        self._settings = settings
        self._kinds = kinds
        self._resource = resource
        self._watcher = watcher
        self._upstream = upstream or HttpUpstream(settings.timeout_s)
        self._queue: deque[LedgerRecord] = deque()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._headers = [
            ("content-type", "application/json"),
            *((name, value.get_secret_value()) for name, value in settings.headers.items()),
        ]

    def observe(self, record: LedgerRecord) -> None:
        """Take a record in; drop it when too many wait.

        Args:
            record: As journalled.
        """
        if len(self._queue) >= self._settings.queue_max:
            self._watcher.exported("dropped", 1)
            return
        self._queue.append(record)

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Send what waits, as far as that goes quickly, and drop the rest."""
        self._stop.set()
        if self._task is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._task, _LAST_S_MAX)
        if self._queue:
            self._watcher.exported("dropped", len(self._queue))
            self._queue.clear()

    async def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._settings.interval_s)
            while self._queue:
                batch = list(islice(self._queue, BATCH_MAX))
                is_sent = await self._send(batch)
                for _ in batch:
                    self._queue.popleft()
                self._watcher.exported("sent" if is_sent else "dropped", len(batch))

    async def _send(self, batch: list[LedgerRecord]) -> bool:
        """Send a batch, spans first; whoever got the spans and not the metrics is told so."""
        for write, path in ((write_traces, "/v1/traces"), (write_metrics, "/v1/metrics")):
            # In a thread: a batch takes milliseconds to write, which calls must not wait for.
            body = await asyncio.to_thread(write, batch, self._kinds, self._resource)
            if not await self._post(path, body):
                return False
        return True

    async def _post(self, path: str, body: bytes) -> bool:
        url = f"{self._settings.endpoint}{path}"
        asked = UpstreamRequest(method="POST", url=url, headers=self._headers, body=body)
        said = ""
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _RETRY_S * 2 ** (attempt - 1))
            try:
                status = await self._status_of(asked)
            except UpstreamFailed as failed:
                said = str(failed)
            else:
                if status < _DONE_BELOW:
                    return True
                said = f"status {status}"
                if status not in _RETRYABLE:
                    break
            if self._stop.is_set():
                break
        log.warning("otlp message dropped path=%s reason=%s", path, said)
        return False

    async def _status_of(self, asked: UpstreamRequest) -> int:
        async with self._upstream.send(asked) as reply:
            while await reply.read_chunk() is not None:
                pass
            return reply.status


def open_otlp(
    settings: OtlpSettings,
    *,
    kinds: Callable[[], Mapping[str, str]],
    resource: Mapping[str, str],
    watcher: Watcher,
) -> OtlpExporter | None:
    """Make the exporter, where there is somebody to send to.

    Args:
        settings: Any.
        kinds: Tells the kind of each provider.
        resource: Who sends.
        watcher: Told what became of the calls.

    Returns:
        The exporter; ``None`` without an endpoint.
    """
    if settings.endpoint is None:
        return None
    return OtlpExporter(settings, kinds=kinds(), resource=resource, watcher=watcher)
