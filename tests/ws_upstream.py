"""A scripted WebSocket provider on a loopback port.

Must never decide anything: it plays the script it is handed and writes down what it received.
"""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

_REALTIME = Subprotocol("realtime")
Frame = str | bytes
Script = Callable[["Played"], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class Played:
    """One session as the provider saw it.

    Attributes:
        line: The socket.
        path: Path with query.
        headers: Of the handshake, names in lower case.
        frames: What came, in order.
        closed: Set when the session has ended; ``code`` and ``reason`` are known then.
        code: Of the peer's close frame; ``None`` when the connection broke.
        reason: Its reason.
    """

    line: ServerConnection
    path: str
    headers: dict[str, str]
    frames: list[Frame] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)
    code: int | None = None
    reason: str = ""

    async def receive(self) -> Frame:
        """Wait for the next frame and write it down."""
        frame = await self.line.recv()
        self.frames.append(frame)
        return frame

    async def receive_event(self) -> dict[str, Any]:
        """Wait for the next frame and read it as JSON."""
        event: dict[str, Any] = json.loads(await self.receive())
        return event

    async def send(self, *events: object) -> None:
        """Send events as JSON, each in a frame; texts and bytes as they are."""
        for event in events:
            await self.line.send(event if isinstance(event, (str, bytes)) else json.dumps(event))


class WsUpstream:
    """A provider that plays one script to every session.

    Attributes:
        sessions: Those played, oldest first.
        script: What is played; a test may replace it between sessions.
        refusal: Status and JSON of what handshakes are answered instead; ``None`` for sessions.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.refusal: tuple[int, str] | None = None
        self.sessions: list[Played] = []
        self._arrived = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def base_url(self) -> str:
        """Its address, as a provider's ``base_url``."""
        assert self._server is not None
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    def newest(self) -> Played:
        """The session played last."""
        return self.sessions[-1]

    async def _start(self) -> None:
        self._server = await serve(
            self._play,
            "127.0.0.1",
            0,
            max_size=2**26,
            subprotocols=[_REALTIME],
            select_subprotocol=lambda _, offered: _REALTIME if _REALTIME in offered else None,
            process_request=self._refuse,
            close_timeout=1,
        )

    def _refuse(self, line: ServerConnection, _: Request) -> Response | None:
        if self.refusal is None:
            return None
        status, body = self.refusal
        response = line.respond(status, body)
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _play(self, line: ServerConnection) -> None:
        request = line.request
        assert request is not None
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        played = Played(line=line, path=request.path, headers=headers)
        self.sessions.append(played)
        with suppress(ConnectionClosed):
            await self.script(played)
        await line.wait_closed()
        received = line.protocol.close_rcvd
        if received is not None:
            played.code, played.reason = received.code, received.reason
        played.closed.set()
