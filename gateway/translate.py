"""An OpenAI-shaped call to a provider that speaks something else: through a child, and back in.

The child says the call in the provider's words and makes it at the gateway's own address for that
provider, with the caller's key. So it is held, sent, metered from the provider's own usage and
recorded like any other; this module only carries the bytes around that.

Must never meter anything, and never let a client pass itself off as the child.
"""

import asyncio
import json
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from gateway.admission import OpenCall, read_secret
from gateway.client import Client
from gateway.headers import RawHeaders
from gateway.translation_frames import ASK, CANCEL, DATA, END, FRAME, HEAD
from gateway.upstream import UpstreamBroken, UpstreamFailed
from gateway.wire.facts import ErrorBody
from gateway.wire.openai_dialect import OpenAIDialect

log = logging.getLogger("taximeter.translate")

TRANSLATED: Final = "x-taximeter-translated"
# Stands in the origin of a call that a budget has sent to another model.
IN_PLACE_OF: Final = " in place of "
_READABLE: Final = " /:,.-_"
_PASSED: Final = ("x-taximeter-tags", "x-taximeter-user")
_DIALECT: Final = OpenAIDialect()
_ENVIRONMENT: Final = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}

_Frame = tuple[int, bytes]


@dataclass(slots=True, kw_only=True)
class Native:
    """What became of the provider's own call.

    Attributes:
        facts: Headers that tell of it.
        error: The gateway's refusal; ``None`` where it did not refuse.
    """

    facts: RawHeaders = field(default_factory=list)
    error: ErrorBody | None = None


class Translation:
    """Carries translated calls, and learns what became of the calls they turn into."""

    def __init__(self, gateway_url: str) -> None:
        """Prepare; the child is started at the first call.

        Args:
            gateway_url: Where the gateway itself can be reached by the child.
        """
        self._gateway_url = gateway_url
        self._secret = secrets.token_urlsafe(24)
        self._natives: dict[str, Native] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None
        self._frames: dict[int, asyncio.Queue[_Frame]] = {}
        self._number = 0

    def origin_of(self, client: Client) -> str | None:
        """Tell whether a call is a translated one, come back in.

        Args:
            client: The one who called.

        Returns:
            Id of the call it was translated for, and the API of that; ``None`` for any other call.
        """
        said = client.header(TRANSLATED)
        if said is None:
            return None
        secret, _, origin = said.partition(" ")
        return origin if secrets.compare_digest(secret.encode(), self._secret.encode()) else None

    def note(self, origin: str, facts: RawHeaders, error: ErrorBody | None = None) -> None:
        """Take note of what became of a translated call.

        Args:
            origin: As ``origin_of`` told.
            facts: Headers that tell of it.
            error: The gateway's refusal, if it was one.
        """
        native = self._natives.get(origin.partition(" ")[0])
        if native is not None:
            native.facts = facts
            native.error = error or native.error

    async def carry(self, call: OpenCall, client: Client) -> None:
        """Have a call translated and made, and bring its answer back.

        Args:
            call: Routed to a provider that speaks something else.
            client: The one who called.

        Raises:
            UpstreamFailed: The child cannot be started, or ended before the answer began.
        """
        native = self._natives[call.id] = Native()
        process = await self._running()
        self._number = number = (self._number + 1) & 0xFFFF_FFFF
        frames = self._frames[number] = asyncio.Queue()
        leaving = asyncio.ensure_future(client.wait_gone())
        leaving.add_done_callback(lambda _: self._send(process, number, CANCEL, b""))
        try:
            self._send(process, number, ASK, self._question(call, client))
            await self._pass_on(call, client, frames, native)
        finally:
            leaving.cancel()
            self._send(process, number, CANCEL, b"")
            del self._natives[call.id], self._frames[number]

    def _question(self, call: OpenCall, client: Client) -> bytes:
        provider = call.provider
        if provider is None:
            raise UpstreamBroken("a call without a provider")
        headers = {name: value for name in _PASSED if (value := client.header(name)) is not None}
        origin = f"{call.id} {call.format.api}"
        if call.replaced is not None:
            origin += quote(f"{IN_PLACE_OF}{call.replaced}", safe=_READABLE)
        headers[TRANSLATED] = f"{self._secret} {origin}"
        return json.dumps(
            {
                "path": call.path,
                "kind": provider.kind,
                "model": call.model,
                "base": f"{self._gateway_url}/{provider.id}",
                "project": provider.project,
                "region": provider.region,
                "key": read_secret(client),
                "headers": headers,
                "timeout_s": provider.call_s_max,
                "body": call.asked.body.decode(),
            }
        ).encode()

    async def _pass_on(
        self, call: OpenCall, client: Client, frames: "asyncio.Queue[_Frame]", native: Native
    ) -> None:
        kind, payload = await frames.get()
        if kind != HEAD:
            raise UpstreamBroken("the child that translates has ended")
        head: Mapping[str, Any] = json.loads(payload)
        marks: RawHeaders = [
            ("content-type", head["content_type"]),
            (TRANSLATED, call.format.api),
            *call.notes,
        ]
        if head["content_type"] == "application/json":
            body = b"".join([piece async for piece in _pieces(frames)])
            if native.error is not None:
                marks.append(("x-should-retry", "false"))
                client.respond(
                    native.error.status,
                    marks + native.facts,
                    _DIALECT.shape_error(native.error),
                )
            else:
                client.respond(head["status"], marks + native.facts, body)
            return
        client.start(head["status"], marks + native.facts)
        try:
            async for piece in _pieces(frames):
                if not await client.write(piece):
                    return
        except UpstreamFailed:
            error = ErrorBody(
                status=502,
                code="upstream_unreachable",
                kind="api_error",
                message="the translation broke off",
                details={},
            )
            await client.finish(call.format.shape_stream_error(error))
            return
        await client.finish(b"")

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                try:
                    self._process = await asyncio.create_subprocess_exec(
                        sys.executable,
                        "-m",
                        "gateway.translator",
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        env={**os.environ, **_ENVIRONMENT},
                    )
                except OSError as failed:
                    raise UpstreamBroken(f"the translator cannot be started: {failed}") from failed
                self._listening = asyncio.ensure_future(self._listen(self._process))
            return self._process

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Hand frames to the calls they are for, until the child has gone."""
        if process.stdout is None:
            return
        try:
            while True:
                head = await process.stdout.readexactly(FRAME.size)
                size, number, kind = FRAME.unpack(head)
                payload = await process.stdout.readexactly(size)
                frames = self._frames.get(number)
                if frames is not None:
                    frames.put_nowait((kind, payload))
        except (OSError, EOFError):
            log.warning("the child that translates has ended")
            if self._process is process:
                self._process = None
            for frames in self._frames.values():
                frames.put_nowait((CANCEL, b""))

    @staticmethod
    def _send(process: asyncio.subprocess.Process, number: int, kind: int, payload: bytes) -> None:
        if process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(FRAME.pack(len(payload), number, kind) + payload)

    def stop(self) -> None:
        """End the child; it also ends by itself when its parent dies."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        self._process = None


async def _pieces(frames: "asyncio.Queue[_Frame]") -> AsyncIterator[bytes]:
    while True:
        kind, payload = await frames.get()
        if kind == END:
            return
        if kind != DATA:
            raise UpstreamBroken("the child that translates has ended")
        yield payload
