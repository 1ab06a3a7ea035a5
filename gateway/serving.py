"""The HTTP server around the gateway: how it begins to listen, and how it comes to its end.

Must never cut a call short while there is time for it.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from gateway.fleet import Fleet
from gateway.settings import ServerSettings

log = logging.getLogger("taximeter")

_BACKLOG: Final = 2048
# How long a worker that leaves tells its clients to connect anew, before it closes connections.
LEAVE_S: Final = 1.0
_CUT_S_MAX: Final = 5.0


class HandedServer(Server):
    """granian on a socket that was opened elsewhere.

    Source:
        granian 2.8 has no argument for it; ``SocketHolder`` is how its own processes hand sockets
        on. Checked 2026-11-23; guarded by tests/e2e/test_workers.py.
    """

    def __init__(self, target: object, listener: socket.socket) -> None:
        """Take the socket over.

        Args:
            target: The application.
            listener: Bound; the server listens on it, and closes it.
        """
        super().__init__(target, **_OPTIONS)
        self._listener = listener

    def _init_shared_socket(self) -> None:
        self._ssp = None
        hold: Any = SocketHolder  # the stub knows none of its arguments
        self._shd = hold(self._listener.detach(), False, _BACKLOG)


_OPTIONS: Final[dict[str, Any]] = {
    "interface": Interfaces.RSGI,
    "http": HTTPModes.http1,
    "websockets": False,
    "backlog": _BACKLOG,
    "log_enabled": False,
}


def open_server(target: object, host: str, port: int) -> Server:
    """Make the server of a gateway that is one process.

    Args:
        target: The application.
        host: Address to listen on.
        port: Port to listen on.

    Returns:
        The server, which opens its socket itself.
    """
    return Server(target, address=host, port=port, **_OPTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What serves, and what is done at its turns.

    Attributes:
        servers: Where calls come in; the last one, of several, is for calls that others caused.
        fleet: The other workers; ``None`` where there are none.
        limits: How long open calls may take to end.
        on_leaving: Called when this worker is to make room for its successor.
    """

    servers: Sequence[Server]
    fleet: Fleet | None
    limits: ServerSettings
    on_leaving: Callable[[], None]

    async def run(self, until_ready: asyncio.Future[None], on_ready: Callable[[], None]) -> None:
        """Serve until told to stop, and let open calls end.

        Args:
            until_ready: Done when calls can come.
            on_ready: Called then.
        """
        asked = self._wait_asked()
        serving = [asyncio.ensure_future(server.serve()) for server in self.servers]
        # Once round the loop, so that what the servers run beside calls is known from them.
        await asyncio.sleep(0)
        others = asyncio.all_tasks()
        await asyncio.wait({*serving, until_ready}, return_when=asyncio.FIRST_COMPLETED)
        if until_ready.done() and not serving[0].done():
            on_ready()
        until_ready.cancel()
        await asyncio.wait({*serving, asked.stop, asked.leave}, return_when=asyncio.FIRST_COMPLETED)
        limit_s = float(self.limits.stop_s)
        if asked.leave.done() and not asked.stop.done():
            self.on_leaving()
            limit_s = self.limits.retire_s
            await asyncio.wait({asked.stop}, timeout=LEAVE_S)
        # One after the other: calls under way at the first one may come back in at the last.
        for server, one in zip(self.servers, serving, strict=True):
            server.stop()  # type: ignore[no-untyped-call] # granian's own
            await self._wait_ended(one, limit_s, asked.stop, others)
        asked.leave.cancel()
        asked.stop.cancel()

    def _wait_asked(self) -> "_Asked":
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        leave = asyncio.Event() if self.fleet is None else self.fleet.leaving
        lost = asyncio.Event() if self.fleet is None else self.fleet.lost

        async def wait_either() -> None:
            waiting = [asyncio.ensure_future(one.wait()) for one in (told, lost)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

        return _Asked(
            stop=asyncio.ensure_future(wait_either()), leave=asyncio.ensure_future(leave.wait())
        )

    async def _wait_ended(
        self,
        serving: "asyncio.Task[None]",
        limit_s: float,
        stop: "asyncio.Future[None]",
        others: "set[asyncio.Task[Any]]",
    ) -> None:
        """Wait until a server has answered what it had accepted; cut off what takes too long."""
        if not stop.done():
            await asyncio.wait(
                {serving, stop}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
            )
            limit_s = self.limits.stop_s if stop.done() else 0.0
        await asyncio.wait({serving}, timeout=limit_s)
        if not serving.done():
            calls = asyncio.all_tasks() - others
            log.warning("calls are cut off, for they take too long to end tasks=%d", len(calls))
            for call in calls:
                call.cancel()
            await asyncio.wait({serving}, timeout=_CUT_S_MAX)
        if serving.done():
            serving.result()
        else:
            serving.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    stop: "asyncio.Future[None]"
    leave: "asyncio.Future[Any]"
