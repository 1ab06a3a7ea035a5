"""The client side of a call: a small protocol, and granian's RSGI behind it.

Must never buffer a stream, and never raise because the client has left.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Final, Protocol
from urllib.parse import parse_qs

from granian.rsgi import ProtocolClosed as ProtocolClosed  # type: ignore[attr-defined] # stub lacks it

from gateway.headers import RawHeaders

DRAINED_PER_ALLOWED: Final = 4
DISCARDED_BYTES_MAX: Final = 1024 * 1024
_SWITCHING: Final = 101


class BodyTooLarge(Exception):
    """The request body is larger than allowed."""


class ClientGone(Exception):
    """The client left before its request was complete."""


class Client(Protocol):
    """The one who called."""

    @property
    def method(self) -> str:
        """HTTP method."""
        ...

    @property
    def path(self) -> str:
        """Path, percent-decoded."""
        ...

    @property
    def query_string(self) -> str:
        """Query string as sent, without the question mark."""
        ...

    @property
    def headers(self) -> RawHeaders:
        """Names in lower case and values."""
        ...

    def header(self, name: str) -> str | None:
        """Read the header of that name."""
        ...

    def is_unreadable(self, name: str) -> bool:
        """Tell whether a header is there that ``header`` cannot give in full."""
        ...

    def query(self, name: str) -> str | None:
        """Read the first query parameter of that name."""
        ...

    async def read_body(self, bytes_max: int) -> bytes:
        """Read the whole request body. Raises ``BodyTooLarge`` or ``ClientGone``."""
        ...

    async def discard_body(self) -> None:
        """Read what is left of the request body and throw it away, up to a point."""
        ...

    def respond(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a whole answer."""
        ...

    def start(self, status: int, headers: RawHeaders) -> None:
        """Send the head of a streamed answer."""
        ...

    async def write(self, chunk: bytes) -> bool:
        """Send some bytes of a streamed answer; tell whether the client is still there."""
        ...

    async def finish(self, chunk: bytes) -> None:
        """Send the last bytes of a streamed answer."""
        ...

    async def wait_gone(self) -> None:
        """Return when the client has left."""
        ...


class RsgiHeaders(Protocol):
    """Request headers as granian keeps them."""

    def get(self, key: str, default: str | None = None) -> str | None:
        """Read the header of that name."""
        ...

    def items(self) -> RawHeaders:
        """List all of them, repeated names kept."""
        ...

    def keys(self) -> list[str]:
        """List the names, once each."""
        ...

    def __contains__(self, key: str) -> bool:
        """Tell whether a header of that name came, readable or not."""
        ...


class RsgiScope(Protocol):
    """What granian tells of a request before its body."""

    proto: str
    http_version: str
    scheme: str
    server: str
    client: str
    method: str
    path: str
    query_string: str

    @property
    def headers(self) -> RsgiHeaders:
        """Request headers."""
        ...


class RsgiTransport(Protocol):
    """An answer that has begun; it ends when this object is dropped."""

    async def send_bytes(self, data: bytes) -> None:
        """Send some bytes."""
        ...


class RsgiProtocol(Protocol):
    """How granian takes a body in and gives an answer out.

    Source:
        https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md, 2026-11-23.
    """

    async def __call__(self) -> bytes:
        """Read the whole body."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Read the body in pieces."""
        ...

    async def client_disconnect(self) -> None:
        """Return when the client has left."""
        ...

    def response_bytes(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a whole answer."""
        ...

    def response_stream(self, status: int, headers: RawHeaders) -> RsgiTransport:
        """Send the head of a streamed answer."""
        ...


class RsgiClient:
    """One RSGI request."""

    __slots__ = (
        "_has_repeats",
        "_is_read",
        "_protocol",
        "_scope",
        "_transport",
        "_values",
        "headers",
        "method",
        "path",
        "query_string",
    )

    def __init__(self, scope: RsgiScope, protocol: RsgiProtocol) -> None:
        self._scope = scope
        self._protocol = protocol
        self._transport: RsgiTransport | None = None
        self._is_read = False
        self.headers = headers = scope.headers.items()
        values = dict(headers)
        self._has_repeats = len(values) < len(headers)
        # Of a repeated name the first counts.
        self._values = dict(reversed(headers)) if self._has_repeats else values
        self.method = scope.method
        self.path = scope.path
        self.query_string = scope.query_string

    def header(self, name: str) -> str | None:
        """Read the header of that name.

        Args:
            name: In lower case.

        Returns:
            Its value, or ``None``.
        """
        return self._values.get(name)

    @property
    def asks_for_session(self) -> bool:
        """Whether a WebSocket is asked for."""
        return (self._values.get("upgrade") or "").lower() == "websocket"

    @property
    def peer(self) -> str:
        """Address and port of the client's end of the connection."""
        return self._scope.client

    def is_unreadable(self, name: str) -> bool:
        """Tell whether a header is there that ``header`` cannot give in full.

        granian leaves out values that are not ASCII; a tag or a user must not vanish like that.

        Args:
            name: In lower case.

        Returns:
            True when it came more than once, or with a value that is not ASCII.
        """
        if name not in self._values:
            return name in self._scope.headers
        return self._has_repeats and [key for key, _ in self.headers].count(name) > 1

    def query(self, name: str) -> str | None:
        """Read the first query parameter of that name.

        Args:
            name: As in the address.

        Returns:
            Its value, or ``None``.
        """
        text = self._scope.query_string
        if not text:
            return None
        parameters: Mapping[str, list[str]] = parse_qs(text)
        return parameters.get(name, [None])[0]

    async def read_body(self, bytes_max: int) -> bytes:
        """Read the whole request body.

        Args:
            bytes_max: Largest body allowed.

        Returns:
            The body.

        Raises:
            BodyTooLarge: More bytes came than allowed.
            ClientGone: The client left first.
        """
        declared = self._values.get("content-length")
        self._is_read = True
        try:
            if declared is not None and declared.isdecimal():
                size = int(declared)
                if size <= bytes_max:
                    body = await self._protocol()
                    if len(body) < size:
                        raise ClientGone
                    return body
            return await self._read_pieces(bytes_max)
        except (ProtocolClosed, OSError, RuntimeError) as gone:
            raise ClientGone from gone

    async def _read_pieces(self, bytes_max: int) -> bytes:
        """Read a body of unknown or excessive length.

        A client still writing its body would not read an early answer, so an oversized body is
        read to its end, up to a point, and thrown away.
        """
        parts: list[bytes] = []
        size = 0
        async for chunk in self._protocol:
            size += len(chunk)
            if size <= bytes_max:
                parts.append(chunk)
            elif size > DRAINED_PER_ALLOWED * bytes_max:
                break
            else:
                parts.clear()
        if size > bytes_max:
            raise BodyTooLarge
        return b"".join(parts)

    async def discard_body(self) -> None:
        """Read what is left of the request body and throw it away, up to a point.

        A connection whose request was not read to its end cannot carry the next one.
        """
        size = 0
        if self._is_read:
            return
        self._is_read = True
        with suppress(ProtocolClosed, OSError, RuntimeError):
            async for chunk in self._protocol:
                size += len(chunk)
                if size > DISCARDED_BYTES_MAX:
                    break

    def respond(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a whole answer.

        Args:
            status: HTTP status.
            headers: Names in lower case and values, without a length.
            body: All of it.
        """
        try:
            self._protocol.response_bytes(status, headers, body)
        except ProtocolClosed:
            return

    def start(self, status: int, headers: RawHeaders) -> None:
        """Send the head of a streamed answer.

        Args:
            status: HTTP status.
            headers: Names in lower case and values.
        """
        with suppress(ProtocolClosed):
            self._transport = self._protocol.response_stream(status, headers)

    async def write(self, chunk: bytes) -> bool:
        """Send some bytes of a streamed answer; nothing happens when the client has left.

        Args:
            chunk: Not empty.

        Returns:
            Whether the client is still there, as far as is known.
        """
        if self._transport is None:
            return False
        try:
            await self._transport.send_bytes(chunk)
        except ProtocolClosed:
            self._transport = None
            return False
        return True

    async def finish(self, chunk: bytes) -> None:
        """Send the last bytes of a streamed answer.

        Args:
            chunk: May be empty.
        """
        if chunk:
            await self.write(chunk)
        self._transport = None

    async def wait_gone(self) -> None:
        """Return when the client has left."""
        await self._protocol.client_disconnect()


class LastAnswer:
    """What ``RsgiProtocol`` does, for the last answer on its connection: it says so."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: RsgiProtocol) -> None:
        self._protocol = protocol

    async def __call__(self) -> bytes:
        return await self._protocol()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._protocol.__aiter__()

    async def client_disconnect(self) -> None:
        """Return when the client has left."""
        await self._protocol.client_disconnect()

    def response_bytes(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a whole answer.

        Args:
            status: HTTP status.
            headers: Names in lower case and values.
            body: All of it.
        """
        self._protocol.response_bytes(status, _closing(status, headers), body)

    def response_stream(self, status: int, headers: RawHeaders) -> RsgiTransport:
        """Send the head of a streamed answer.

        Args:
            status: HTTP status.
            headers: Names in lower case and values.

        Returns:
            Takes the rest of it.
        """
        return self._protocol.response_stream(status, _closing(status, headers))


def _closing(status: int, headers: RawHeaders) -> RawHeaders:
    # An upgrade says something else of its connection.
    return headers if status == _SWITCHING else [*headers, ("connection", "close")]
