"""The built-in demo provider: canned text in OpenAI's shape with realistic usage, marked as fake.

Must never be mistaken for a model: every answer says that it is canned.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from gateway.client import RsgiClient, RsgiProtocol, RsgiScope
from gateway.upstream import UpstreamReply, UpstreamRequest

MODEL: Final = "demo-chat"
_SNAPSHOT: Final = "demo-chat-2026-11-01"
_MARK: Final = "[demo: canned text, no model was called]"
_STORY: Final = (
    "A taximeter shows the fare while you ride. This one counts the tokens of every call from the "
    "provider's own answer, prices them at the rate in force at that instant, holds the call "
    "against its budgets before it is sent, and writes the result where a crash cannot lose it. "
    "Point your own provider at it and this text will be replaced by a real answer."
)
_PACE_S: Final = 0.01
_CACHEABLE_TOKENS_MIN: Final = 1024
_BYTES_PER_TOKEN: Final = 4
_TOO_LONG: Final = 4096
BODY_BYTES_MAX: Final = 32 * 1024 * 1024

DemoApp = Callable[[RsgiScope, RsgiProtocol], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoAnswer:
    """One canned answer.

    Attributes:
        status: HTTP status.
        content_type: Of the body.
        chunks: The body in the pieces it is sent in.
    """

    status: int
    content_type: str
    chunks: tuple[bytes, ...]


def answer_chat(body: bytes) -> DemoAnswer:
    """Answer a chat completion request.

    Args:
        body: The request body.

    Returns:
        Canned text cut at ``max_completion_tokens``, whole or streamed as asked, with usage: four
        bytes of text a prompt token, one word a completion token, and a cached share for long
        prompts. Usage of a stream is sent only when asked for, as OpenAI does.
    """
    try:
        asked = json.loads(body)
        prompt_bytes = len(json.dumps(asked["messages"], ensure_ascii=False).encode())
        model = asked["model"]
    except (ValueError, KeyError, TypeError):
        return _error(400, "the demo provider takes a chat completion request", "invalid_request")
    if model not in (MODEL, _SNAPSHOT):
        return _error(404, f"the demo provider has one model, {MODEL}", "model_not_found")
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or _TOO_LONG
    words = [word + " " for word in f"{_MARK} {_STORY}".split()]
    said = words[: int(limit)]
    usage = _usage_of(-(-prompt_bytes // _BYTES_PER_TOKEN), len(said))
    identity = {
        "id": "chatcmpl-demo-" + sha256(body).hexdigest()[:24],
        "created": 1_763_856_000,
        "model": _SNAPSHOT,
        "system_fingerprint": "taximeter-demo",
    }
    reason = "stop" if len(said) == len(words) else "length"
    if asked.get("stream"):
        wants_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        chunks = _stream(identity, said, reason, usage if wants_usage else None)
        return DemoAnswer(status=200, content_type="text/event-stream", chunks=chunks)
    message = {"role": "assistant", "content": "".join(said).rstrip(), "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    whole = {"object": "chat.completion", **identity, "choices": [choice], "usage": usage}
    return DemoAnswer(
        status=200, content_type="application/json", chunks=(json.dumps(whole).encode(),)
    )


def _usage_of(prompt: int, completion: int) -> dict[str, Any]:
    cached = prompt // 2 // 128 * 128 if prompt >= _CACHEABLE_TOKENS_MIN else 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _stream(
    identity: dict[str, Any], said: Sequence[str], reason: str, usage: dict[str, Any] | None
) -> tuple[bytes, ...]:
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in said), {}]
    reasons = [None] * (len(deltas) - 1) + [reason]
    events: list[dict[str, Any]] = [
        {
            "object": "chat.completion.chunk",
            **identity,
            "choices": [{"index": 0, "delta": delta, "finish_reason": why}],
        }
        for delta, why in zip(deltas, reasons, strict=True)
    ]
    if usage is not None:
        events.append(
            {"object": "chat.completion.chunk", **identity, "choices": [], "usage": usage}
        )
    lines = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return (*lines, b"data: [DONE]\n\n")


def _error(status: int, message: str, code: str) -> DemoAnswer:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    body = json.dumps({"error": error}).encode()
    return DemoAnswer(status=status, content_type="application/json", chunks=(body,))


class DemoUpstream:
    """The demo provider inside this process, where another provider would be behind HTTP."""

    @asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[UpstreamReply]:
        """Answer a request.

        Args:
            request: As it would go over the wire.

        Yields:
            The canned answer, paced like a fast model.
        """
        yield _DemoReply(answer_chat(request.body))


class _DemoReply:
    """A canned answer as the path sees it."""

    def __init__(self, answer: DemoAnswer) -> None:
        self.status = answer.status
        self.headers = [("content-type", answer.content_type), ("x-demo", "true")]
        self._chunks = iter(answer.chunks)
        self._is_stream = len(answer.chunks) > 1

    async def read_chunk(self) -> bytes | None:
        if self._is_stream:
            await asyncio.sleep(_PACE_S)
        return next(self._chunks, None)


async def demo_app(scope: RsgiScope, protocol: RsgiProtocol) -> None:
    """Serve the demo provider over HTTP.

    Args:
        scope: The request.
        protocol: Its body and its answer.
    """
    client = RsgiClient(scope, protocol)
    answer = answer_chat(await client.read_body(BODY_BYTES_MAX))
    if not client.path.endswith("/chat/completions"):
        answer = _error(404, "the demo provider answers /chat/completions", "not_found")
    headers = [("content-type", answer.content_type)]
    if len(answer.chunks) == 1:
        client.respond(answer.status, headers, answer.chunks[0])
        return
    client.start(answer.status, headers)
    for chunk in answer.chunks:
        await client.write(chunk)
        await asyncio.sleep(_PACE_S)
    await client.finish(b"")


def serve_demo(host: str, port: int, app: DemoApp = demo_app) -> int:
    """Serve the demo provider alone until interrupted.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        app: What answers.

    Returns:
        Exit code.
    """
    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        websockets=False,
    )
    uvloop.run(server.serve())
    return 0
