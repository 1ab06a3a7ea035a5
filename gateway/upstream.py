"""Sending a request to a provider: the protocol the path needs, and pyreqwest behind it.

Must never follow a redirect (it would carry the provider's key along), never decompress, and never
hold back the first bytes of a stream.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Final, Protocol

import msgspec
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    BuilderError,
    DetailedPyreqwestError,
    PoolTimeoutError,
    PyreqwestError,
    RequestTimeoutError,
)
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

CONNECT_TIMEOUT_S: Final = 10
POOL_IDLE_PER_HOST_MAX: Final = 1000
_CONNECT_PHASE: Final = "client error (Connect)"


class UpstreamFailed(Exception):
    """The provider could not be talked to; the text is for the log and holds no body."""


class UpstreamUnsent(UpstreamFailed):
    """The request surely never reached the provider: nothing can have been billed."""


class UpstreamTimedOut(UpstreamFailed):
    """The provider was silent for longer than allowed: the call may have been billed."""


class UpstreamBroken(UpstreamFailed):
    """The connection broke after the request may have been sent: it may have been billed."""


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a provider.

    Attributes:
        method: HTTP method.
        url: Absolute address.
        headers: Names and values, the provider's credential among them.
        body: Bytes to send.
    """

    method: str
    url: str
    headers: Sequence[tuple[str, str]]
    body: bytes


class UpstreamReply(Protocol):
    """An answer whose head has arrived."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """Names in lower case and values, repeated names kept."""
        ...

    async def read_chunk(self) -> bytes | None:
        """Wait for the next bytes; ``None`` at the end. Raises ``UpstreamFailed``."""
        ...


class Upstream(Protocol):
    """Where requests are sent."""

    def send(self, request: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamReply]:
        """Send a request; entering waits for the head of the answer, leaving aborts the rest.

        Raises ``UpstreamFailed``.
        """
        ...


class HttpUpstream:
    """One provider over HTTP, with its own pool of connections."""

    def __init__(self, timeout_s: float) -> None:
        """Prepare the pool; nothing is connected yet.

        Args:
            timeout_s: Longest silence of the provider before its answer and inside it.
        """
        # reqwest would add its own accept-encoding and decompress, follow redirects with the
        # provider's key, and send a referer. Seen on the wire 2026-11-23.
        self._client: Client = (
            ClientBuilder()
            .runtime_multithreaded(enable=False)
            .gzip(enable=False)
            .brotli(enable=False)
            .zstd(enable=False)
            .deflate(enable=False)
            .follow_redirects(enable=False)
            .referer(enable=False)
            .http1_only()
            .connect_timeout(timedelta(seconds=min(CONNECT_TIMEOUT_S, timeout_s)))
            .read_timeout(timedelta(seconds=timeout_s))
            .pool_max_idle_per_host(POOL_IDLE_PER_HOST_MAX)
            .build()
        )

    def send(self, request: UpstreamRequest) -> "_Exchange":
        """Send a request; entering waits for the head of the answer, leaving aborts the rest.

        Args:
            request: What to send.

        Returns:
            A context whose value is the answer. Entering it raises ``UpstreamFailed``: which kind
            tells whether the call may have been billed.
        """
        return _Exchange(self._client, request)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


class _Exchange:
    """One request and its answer; a class, because a generator costs more on the path."""

    __slots__ = ("_client", "_request", "_sent")

    def __init__(self, client: Client, request: UpstreamRequest) -> None:
        self._client = client
        self._request = request
        self._sent: StreamRequest | None = None

    async def __aenter__(self) -> "_HttpReply":
        request = self._request
        try:
            # A buffer limit of zero, or the first 64 KB of a stream are held back.
            sent = (
                self._client.request(request.method, request.url)
                .headers(request.headers)
                .body_bytes(request.body)
                .streamed_read_buffer_limit(0)
                .build_streamed()
            )
            response = await sent.__aenter__()
        except PyreqwestError as failed:
            raise _to_failure(failed) from failed
        except ValueError as odd:
            # An address, or a header, that the library cannot read: nothing was sent.
            raise UpstreamUnsent(type(odd).__name__) from odd
        self._sent = sent
        return _HttpReply(response)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sent is not None:
            try:
                await self._sent.__aexit__(kind, error, trace)
            except PyreqwestError as failed:
                raise _to_failure(failed) from failed


class _HttpReply:
    """A pyreqwest response as the path sees it."""

    __slots__ = ("_read", "headers", "status")

    def __init__(self, response: Response) -> None:
        self.status = response.status
        self.headers = _readable(response)
        self._read = response.body_reader.read_chunk

    async def read_chunk(self) -> bytes | None:
        try:
            chunk = await self._read()
        except PyreqwestError as failed:
            raise _to_failure(failed) from failed
        return None if chunk is None else bytes(chunk)


def _readable(response: Response) -> list[tuple[str, str]]:
    """Read the headers; one that is not text is left out rather than let it break the answer."""
    try:
        return list(response.headers.items())
    except ValueError:
        readable: list[tuple[str, str]] = []
        for name in set(response.headers.keys()):
            with suppress(ValueError):
                readable += [(name, value) for value in response.get_header_all(name)]
        return readable


def _to_failure(failed: PyreqwestError) -> UpstreamFailed:
    """Sort a library error by what it means for the bill.

    The library's own classes do not tell: it calls silence before the head a connect timeout, and
    a hang-up after the request was sent a connect error. The phase stands in the causes. Seen with
    pyreqwest 0.15.1; guarded by tests/faults.
    """
    name = type(failed).__name__
    if isinstance(failed, BuilderError | PoolTimeoutError) or _is_connecting(failed):
        return UpstreamUnsent(name)
    if isinstance(failed, RequestTimeoutError):
        return UpstreamTimedOut(name)
    return UpstreamBroken(name)


def _is_connecting(failed: PyreqwestError) -> bool:
    if not isinstance(failed, DetailedPyreqwestError) or failed.details is None:
        return False
    causes = failed.details.get("causes") or ()
    return any(_CONNECT_PHASE in cause["message"] for cause in causes)
