"""Runs an ASGI application, the control plane, under granian's RSGI.

Must never be on the path of a call: that speaks RSGI itself, which costs a fifth less.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from gateway.client import ProtocolClosed, RsgiProtocol, RsgiScope, RsgiTransport
from gateway.headers import RawHeaders

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class _Exchange:
    """One request and its answer, translated message by message."""

    def __init__(self, protocol: RsgiProtocol) -> None:
        self._protocol = protocol
        self._pieces = protocol.__aiter__()
        self._is_read = False
        self._status = 500
        self._headers: RawHeaders = []
        self._transport: RsgiTransport | None = None
        self._is_answered = False

    async def receive(self) -> Message:
        if not self._is_read:
            try:
                piece = await anext(self._pieces)
            except StopAsyncIteration:
                self._is_read = True
                return {"type": "http.request", "body": b"", "more_body": False}
            return {"type": "http.request", "body": bytes(piece), "more_body": True}
        await self._protocol.client_disconnect()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message.get("headers", ())
            ]
            return
        with suppress(ProtocolClosed):
            await self._send_body(message.get("body", b""), message.get("more_body", False))

    async def _send_body(self, body: bytes, has_more: bool) -> None:
        if self._transport is None and not has_more and not self._is_answered:
            headers = [(name, value) for name, value in self._headers if name != "content-length"]
            self._protocol.response_bytes(self._status, headers, bytes(body))
        else:
            if self._transport is None:
                self._transport = self._protocol.response_stream(self._status, self._headers)
            if body:
                await self._transport.send_bytes(bytes(body))
        self._is_answered = True
        if not has_more:
            self._transport = None


async def run_asgi(app: AsgiApp, scope: RsgiScope, protocol: RsgiProtocol) -> None:
    """Serve one HTTP request with an ASGI application.

    Args:
        app: The application.
        scope: The request.
        protocol: Its body and its answer.
    """
    host, _, port = scope.client.rpartition(":")
    server_host, _, server_port = scope.server.rpartition(":")
    exchange = _Exchange(protocol)
    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": scope.http_version,
            "method": scope.method,
            "scheme": scope.scheme,
            "path": scope.path,
            "raw_path": scope.path.encode("utf-8", "surrogateescape"),
            "query_string": scope.query_string.encode("latin-1"),
            "root_path": "",
            "headers": [
                (k.encode("latin-1"), v.encode("latin-1")) for k, v in scope.headers.items()
            ],
            "client": (host, int(port)) if port.isdecimal() else None,
            "server": (server_host, int(server_port)) if server_port.isdecimal() else None,
            "state": {},
        },
        exchange.receive,
        exchange.send,
    )
