"""The baseline: the same server and client libraries passing bytes through, and nothing else.

Must never gain a feature: whatever the gateway costs above this is what the gateway costs.
"""

import gc
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces, Loops
from granian.server import Server
from pyreqwest.client import Client, ClientBuilder

UPSTREAM: Final = os.environ.get("BENCH_UPSTREAM", "")

# Hop-by-hop headers and those that the next hop writes for itself.
DROPPED_UP: Final = frozenset(
    (b"host", b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"te")
)
DROPPED_DOWN: Final = frozenset(("connection", "keep-alive", "transfer-encoding"))

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def build_client() -> Client:
    """Build the upstream client that changes no byte and follows no redirect."""
    return (
        ClientBuilder()
        .runtime_multithreaded(False)
        .gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .follow_redirects(False)
        .referer(False)
        .http1_only()
        .no_proxy()
        .pool_max_idle_per_host(1024)
        .build()
    )


_client: list[Client] = []


def _client_of_this_process() -> Client:
    # Built on the first call and not at import: the runtime must be the serving process's own.
    if not _client:
        _client.append(build_client())
        # The settings that the gateway runs with, so that they are no advantage of either.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
    return _client[0]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Pass one request through."""
    if scope["type"] != "http":
        return
    body = b""
    is_more = True
    while is_more:
        message = await receive()
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in scope["headers"]
        if name not in DROPPED_UP
    ]
    path = scope["path"].removeprefix("/v1")
    request = (
        _client_of_this_process()
        .request(scope["method"], UPSTREAM + path)
        .headers(headers)
        .body_bytes(body)
        .streamed_read_buffer_limit(0)
        .build_streamed()
    )
    async with request as reply:
        shown = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in reply.headers.items()
            if name not in DROPPED_DOWN
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": shown})
        while (piece := await reply.body_reader.read_chunk()) is not None:
            await send({"type": "http.response.body", "body": bytes(piece), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def main() -> None:
    """Serve on the port given as the only argument."""
    Server(
        "bench.bare:app",
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.ASGI,
        workers=1,
        runtime_threads=1,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
    ).serve()


if __name__ == "__main__":
    main()
