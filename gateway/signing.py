"""Sending to a provider that wants every request signed, with a signer made off the event loop.

Must never send a request unsigned, and never hold the event loop up to fetch credentials.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

from gateway.upstream import Upstream, UpstreamReply, UpstreamRequest


class RequestSigner(Protocol):
    """Signs requests; its calls may be slow where ``must_wait`` says so."""

    def must_wait(self) -> bool:
        """Whether signing would wait for fresh credentials."""
        ...

    def sign(self, request: UpstreamRequest) -> UpstreamRequest:
        """Add the signature; raises ``UpstreamUnsent`` where there are no credentials."""
        ...


class SignedUpstream:
    """An upstream whose requests are signed as they are sent."""

    def __init__(self, upstream: Upstream, open_signer: Callable[[], RequestSigner]) -> None:
        """Take the parts; nothing is opened before the first request.

        Args:
            upstream: Where signed requests are sent.
            open_signer: Makes the signer; called in a thread, because it may import, read files and
                ask the network.
        """
        self._upstream = upstream
        self._open_signer = open_signer
        self._signer: RequestSigner | None = None
        self._opening = asyncio.Lock()

    def send(self, request: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamReply]:
        """Sign and send a request.

        Args:
            request: Without credentials.

        Returns:
            As ``Upstream.send``. Entering it raises ``UpstreamUnsent`` where it cannot be signed.
        """
        return _SignedExchange(self, request)

    async def open_exchange(
        self, request: UpstreamRequest
    ) -> AbstractAsyncContextManager[UpstreamReply]:
        """Sign a request, waiting for credentials where there are none yet or they grow old.

        Args:
            request: Without credentials.

        Returns:
            The exchange of the signed request, not entered yet.
        """
        signer = self._signer or await self._open()
        if signer.must_wait():
            signed = await asyncio.to_thread(signer.sign, request)
        else:
            signed = signer.sign(request)
        return self._upstream.send(signed)

    async def _open(self) -> RequestSigner:
        async with self._opening:
            if self._signer is None:
                self._signer = await asyncio.to_thread(self._open_signer)
            return self._signer


class _SignedExchange:
    """One request, signed when it is entered."""

    __slots__ = ("_request", "_sent", "_upstream")

    def __init__(self, upstream: SignedUpstream, request: UpstreamRequest) -> None:
        self._upstream = upstream
        self._request = request
        self._sent: AbstractAsyncContextManager[UpstreamReply] | None = None

    async def __aenter__(self) -> UpstreamReply:
        sent = await self._upstream.open_exchange(self._request)
        reply = await sent.__aenter__()
        self._sent = sent
        return reply

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sent is not None:
            await self._sent.__aexit__(kind, error, trace)
