"""One request from a program that ends right after it, with nothing but the standard library.

Must never be used by a gateway: it takes a thread for each request. The gateway's own client keeps
threads that the end of a short program can trip over (pyreqwest 0.15.1 aborts one in ten under
load, seen 2026-11-23).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from gateway.upstream import UpstreamBroken, UpstreamReply, UpstreamRequest, UpstreamTimedOut


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    status: int
    headers: list[tuple[str, str]]

    async def read_chunk(self) -> bytes | None:
        """Nothing but the head is kept."""
        return None


class OneShot:
    """Keeps ``gateway.upstream.Upstream`` without connections of its own."""

    def __init__(self, timeout_s: float) -> None:
        """Prepare; nothing is connected yet.

        Args:
            timeout_s: Longest silence.
        """
        self._timeout_s = timeout_s

    def send(self, request: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamReply]:
        """Send a request and read the head of the answer; redirects are answers.

        Args:
            request: What to send.

        Returns:
            A context whose value is the answer. Entering it raises ``UpstreamFailed``.
        """
        return self._exchange(request)

    @asynccontextmanager
    async def _exchange(self, request: UpstreamRequest) -> AsyncIterator[_Head]:
        yield await asyncio.to_thread(self._ask, request)

    def _ask(self, request: UpstreamRequest) -> _Head:
        parts = urlsplit(request.url)
        make = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = make(parts.hostname or "", parts.port, timeout=self._timeout_s)
        path = parts.path or "/"
        target = f"{path}?{parts.query}" if parts.query else path
        try:
            connection.request(request.method, target, request.body, dict(request.headers))
            answer = connection.getresponse()
            headers = [(name.lower(), value) for name, value in answer.getheaders()]
            return _Head(status=answer.status, headers=headers)
        except TimeoutError as late:
            raise UpstreamTimedOut(type(late).__name__) from late
        except (OSError, HTTPException, UnicodeError) as broken:
            # A host name that cannot be written as one is a UnicodeError.
            raise UpstreamBroken(type(broken).__name__) from broken
        finally:
            connection.close()
