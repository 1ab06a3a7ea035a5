"""WebSockets to clients and to providers, both as one kind of line.

Must never change a frame, read ahead without bound, or use a proxy the environment names.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Final, NamedTuple, Protocol

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, ProtocolError
from websockets.protocol import Protocol as Wire
from websockets.protocol import Side, State
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from gateway.client import Client
from gateway.headers import RawHeaders
from gateway.upstream import UpstreamBroken, UpstreamTimedOut, UpstreamUnsent
from gateway.wire.live import Frame

# Providers take frames of 16 MB, and send images and sound in them.
FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
# Frames read before the other side has taken them.
_FRAMES_AHEAD: Final = 2
_CONNECT_S_MAX: Final = 10.0
_HANDOVER_S_MAX: Final = 5.0
_CLOSE_S_MAX: Final = 2.0
# A side that reads slowly holds the other one up, whose pongs are not read meanwhile.
_SILENT_S_MAX: Final = 120.0
_LOOK_S: Final = 0.0005
_FDS: Final = "/dev/fd"
# What a close frame may not carry, RFC 6455 section 7.4: there was none, or no closing handshake.
NO_CODE: Final = 1005
BROKEN_OFF: Final = 1006
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
POLICY: Final = 1008
TROUBLE: Final = 1011


class Closing(NamedTuple):
    """How a line was closed.

    Attributes:
        code: As in RFC 6455; 1005 where none was given, 1006 where the line broke.
        reason: In words.
    """

    code: int
    reason: str


class LineClosed(Exception):
    """The line is closed.

    Attributes:
        closing: How.
    """

    def __init__(self, closing: Closing) -> None:
        self.closing = closing
        super().__init__(f"closed with {closing.code}")


class HandshakeRefused(Exception):
    """The provider answered the handshake with something else than a session.

    Attributes:
        status: HTTP status.
        headers: Names in lower case and values.
        body: All of it.
    """

    def __init__(self, status: int, headers: RawHeaders, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        super().__init__(f"refused with {status}")


class HandoverFailed(Exception):
    """The server's socket could not be taken over."""


class Line:
    """One open WebSocket."""

    def __init__(self, connection: Connection) -> None:
        """Take it.

        Args:
            connection: Open.
        """
        self._connection = connection
        self.subprotocol = connection.subprotocol

    async def receive(self) -> Frame:
        """Wait for the next frame; pings are answered meanwhile.

        Returns:
            Text or bytes.

        Raises:
            LineClosed: There is none.
        """
        try:
            return await self._connection.recv()
        except ConnectionClosed as closed:
            raise LineClosed(_closing_of(closed)) from None

    async def send(self, frame: Frame) -> None:
        """Send a frame, and wait until there is room for the next.

        Args:
            frame: Text or bytes.

        Raises:
            LineClosed: It could not be sent.
        """
        try:
            await self._connection.send(frame)
        except ConnectionClosed as closed:
            raise LineClosed(_closing_of(closed)) from None

    async def wait_closed(self) -> None:
        """Wait until the line is closed, by whichever side."""
        await self._connection.wait_closed()

    async def close(self, closing: Closing) -> None:
        """Close the line; nothing happens where it is closed.

        Args:
            closing: How; codes that may not be sent become the nearest that may.
        """
        code = {NO_CODE: NORMAL, BROKEN_OFF: GOING_AWAY}.get(closing.code, closing.code)
        with suppress(ConnectionClosed):
            try:
                await self._connection.close(code, closing.reason)
            except ProtocolError:
                await self._connection.close(TROUBLE, closing.reason)


def _closing_of(closed: ConnectionClosed) -> Closing:
    told = closed.rcvd or closed.sent
    return Closing(BROKEN_OFF, "") if told is None else Closing(told.code, told.reason)


@cache
def _trust() -> ssl.SSLContext:
    """Load the certificates that are trusted, once: it takes a while."""
    return ssl.create_default_context()


class _Connect(connect):
    """A connection that follows no redirect: it would take the provider's key along."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def connect_line(
    url: str, headers: RawHeaders, subprotocols: Sequence[str], timeout_s: float
) -> Line:
    """Connect to a provider.

    Args:
        url: Address, ``http`` or ``ws``.
        headers: To send, credentials too.
        subprotocols: To offer.
        timeout_s: Longest the handshake may take.

    Returns:
        The line.

    Raises:
        HandshakeRefused: The provider gave another answer.
        UpstreamUnsent: It cannot be reached.
        UpstreamTimedOut: It did not answer in time.
        UpstreamBroken: It does not speak WebSocket.
    """
    try:
        connection = await _Connect(
            "ws" + url.removeprefix("http") if url.startswith("http") else url,
            additional_headers=headers,
            subprotocols=[Subprotocol(one) for one in subprotocols] or None,
            user_agent_header=None,
            proxy=None,
            compression=None,
            open_timeout=min(timeout_s, _CONNECT_S_MAX),
            close_timeout=_CLOSE_S_MAX,
            ping_timeout=_SILENT_S_MAX,
            ssl=_trust() if url.startswith("https") else None,
            max_size=FRAME_BYTES_MAX,
            max_queue=_FRAMES_AHEAD,
        )
    except InvalidStatus as refused:
        answer = refused.response
        head = [(name.lower(), value) for name, value in answer.headers.raw_items()]
        raise HandshakeRefused(answer.status_code, head, bytes(answer.body or b"")) from None
    except TimeoutError as late:
        raise UpstreamTimedOut("the handshake took too long") from late
    except OSError as unreachable:
        raise UpstreamUnsent(type(unreachable).__name__) from unreachable
    except InvalidHandshake as odd:
        raise UpstreamBroken(type(odd).__name__) from odd
    return Line(connection)


class SocketClient(Client, Protocol):
    """A client whose socket can be taken over."""

    @property
    def peer(self) -> str:
        """Its address and port."""
        ...


async def accept_line(
    client: SocketClient, subprotocol: str | None, headers: RawHeaders, bytes_max: int
) -> Line:
    """Accept a session, and take its socket from the HTTP server.

    The server's own WebSockets can answer neither a subprotocol nor a close code, so it is let
    answer the handshake like any request, after which it drops the connection without ending it.

    Args:
        client: The one who asked for a session.
        subprotocol: To answer; ``None`` for none.
        headers: To answer beside those of the handshake.
        bytes_max: Largest frame allowed.

    Returns:
        The line.

    Raises:
        HandoverFailed: The socket was not found, or the client has left.

    Source:
        https://docs.rs/hyper/1/hyper/server/conn/http1/struct.Connection.html: after a 101 the
        connection resolves without a shutdown. Checked 2026-11-23; guarded by
        tests/e2e/test_realtime.py.
    """
    found = _share_socket(client.peer)
    if found is None:
        raise HandoverFailed
    taken, servers_own = found
    key = client.header("sec-websocket-key") or ""
    answer = [
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", accept_key(key)),
        *headers,
    ]
    if subprotocol is not None:
        answer.append(("sec-websocket-protocol", subprotocol))
    client.respond(101, answer, b"")
    try:
        async with asyncio.timeout(_HANDOVER_S_MAX):
            # Until then the answer may not have left, and nothing may overtake it.
            while _is_open(servers_own):  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(_LOOK_S)
        wire = Wire(Side.SERVER, state=State.OPEN, max_size=bytes_max)
        _, connection = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: Connection(
                wire,
                ping_timeout=_SILENT_S_MAX,
                close_timeout=_CLOSE_S_MAX,
                max_queue=_FRAMES_AHEAD,
            ),
            taken,
        )
    except (TimeoutError, OSError):
        taken.close()
        raise HandoverFailed from None
    connection.start_keepalive()
    return Line(connection)


class _Descriptor(NamedTuple):
    """A socket by its number and by what it stands for.

    Attributes:
        fd: The number; may come to stand for something else.
        inode: The socket.
    """

    fd: int
    inode: int


def _is_open(one: _Descriptor) -> bool:
    try:
        return os.fstat(one.fd).st_ino == one.inode
    except OSError:
        return False


def _share_socket(peer: str) -> tuple[socket.socket, _Descriptor] | None:
    """Find the socket of a connection the server has open, and share it."""
    host, _, port = peer.rpartition(":")
    wanted = (host.strip("[]"), int(port)) if port.isdecimal() else None
    # The newest is most often the last.
    for fd in sorted((int(name) for name in os.listdir(_FDS) if name.isdecimal()), reverse=True):
        try:
            shared = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        with suppress(OSError):
            if shared.type == socket.SOCK_STREAM and shared.getpeername()[:2] == wanted:
                shared.setblocking(False)
                return shared, _Descriptor(fd, os.fstat(shared.fileno()).st_ino)
        shared.close()
    return None
