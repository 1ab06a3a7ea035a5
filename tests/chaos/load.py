"""Clients that call whatever happens, and a provider that answers each call by its name.

Must never forget a call: what was asked, what arrived and what was heard are written down.
"""

import asyncio
import contextlib
import json
import random
import threading
import zlib
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import httpx

from tests.openai_answers import completion, spoken, usage_chunk
from tests.server import KEY
from tests.upstream import CutIn, HangUp, Received, Reply, Script, Sse, Whole

CLIENTS: Final = 10
PATH: Final = "/v1/chat/completions"
# How calls go, and how often; the names of calls begin with these words.
KINDS: Final = {
    "whole": 34,
    "stream": 30,
    "leave": 8,  # the client hangs up in the middle of the stream
    "vanish": 5,  # the client hangs up before the answer
    "error": 5,  # the provider answers 500
    "busy": 4,  # the provider answers 429
    "cut": 5,  # the provider's stream breaks off
    "drop": 4,  # the provider hangs up without a word
    "slow": 5,  # a stream that takes a while
}
_STREAMED: Final = frozenset({"stream", "leave", "cut", "slow"})
# Each lane has a budget of its own, and `free` none but the one of everybody.
LANES: Final = {"free": 12, "calls": 3, "money": 3, "hour": 2}
PROMPT: Final = "Tell me once more what happens when everything breaks at the same time. " * 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a client saw of one call.

    Attributes:
        name: Of the call.
        status: HTTP status; ``None`` when not even the head arrived.
        request_id: The gateway's id likewise.
        is_whole: The last byte arrived as it was to.
        error: Code of the gateway's own error, where it told one.
    """

    name: str
    status: int | None
    request_id: str | None
    is_whole: bool
    error: str | None = None


def kind_of(name: str) -> str:
    """Tell how a call goes."""
    return name.split("-")[0]


def lane_of(name: str) -> str:
    """Tell which budget a call is under."""
    return name.split("-")[1]


def tokens_of(name: str) -> tuple[int, int]:
    """Tell what the provider counts for a call: input, output."""
    chance = zlib.crc32(name.encode())
    return 20 + chance % 100, 5 + chance // 128 % 50


def cost_of(name: str) -> Decimal:
    """Tell what that costs at gpt-5's 1.25 and 10 USD for a million."""
    tokens_in, tokens_out = tokens_of(name)
    return (Decimal("1.25") * tokens_in + 10 * tokens_out) / 1_000_000


def usage_of(name: str) -> dict[str, int]:
    """Write what the provider counts as it tells it."""
    tokens_in, tokens_out = tokens_of(name)
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


def answer(received: Received) -> Script:
    """Answer a call as its name asks."""
    name = received.json()["metadata"]["call"]
    answer_id = f"chatcmpl-{name}"
    pause_s = zlib.crc32(name.encode()) % 7 / 100
    match kind_of(name):
        case "error" | "busy" as kind:
            status = 500 if kind == "error" else 429
            return Reply(status=status, body=b'{"error":{"message":"no","type":"x"}}')
        case "drop":
            return HangUp(reset=pause_s > 0.03)
        case "whole" | "vanish":
            body = completion(answer_id=answer_id, usage=usage_of(name))
            return Reply(body=body, pause_s=pause_s)
        case kind:
            words = 12 if kind == "slow" else 4
            return Sse(
                events=spoken(*["so "] * words, id=answer_id),
                usage=(usage_chunk(usage_of(name), id=answer_id),),
                pause_s=pause_s / 2,
                ending=CutIn(piece=3, reset=pause_s > 0.03) if kind == "cut" else Whole(),
            )


class Load:
    """Clients in a thread of their own that call until they are told to stop.

    Attributes:
        heard: What became of every call, in the order in which they ended.
    """

    def __init__(self, url: str, seed: int) -> None:
        self.heard: list[Heard] = []
        self._url = url
        self._chance = random.Random(seed)
        self._made = 0
        self._answered = 0
        self._is_over = threading.Event()
        self._ended = threading.Condition()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no more calls, and wait until those under way have ended."""
        self._is_over.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "calls do not end"

    def wait_for(self, calls: int, timeout_s: float, down_s_max: float) -> None:
        """Wait until so many more calls have been answered, in whatever way.

        Args:
            calls: How many.
            timeout_s: How long after the first of them to wait for the others.
            down_s_max: How long to wait for the first.
        """
        with self._ended:
            first = self._answered + 1
            self._ended.wait_for(lambda: self._answered >= first, down_s_max)
            self._ended.wait_for(lambda: self._answered >= first + calls - 1, timeout_s)

    def told(self) -> Counter[str]:
        """Count what clients were told."""
        return Counter(str(one.error or one.status) for one in self.heard)

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(trust_env=False, timeout=20, limits=limits) as client:
            await asyncio.gather(*(self._work(client) for _ in range(CLIENTS)))

    async def _work(self, client: httpx.AsyncClient) -> None:
        while not self._is_over.is_set():
            heard = await self._call(client, self._next_name())
            with self._ended:
                self.heard.append(heard)
                self._answered += heard.status is not None
                self._ended.notify_all()
            # Clients that are told no, or nothing, come again, but not at once.
            if heard.status is None:
                await asyncio.sleep(0.25)
            elif heard.status >= 400:
                await asyncio.sleep(0.05)

    def _next_name(self) -> str:
        self._made += 1
        kind = self._chance.choices(list(KINDS), list(KINDS.values()))[0]
        lane = self._chance.choices(list(LANES), list(LANES.values()))[0]
        return f"{kind}-{lane}-{self._made}"

    async def _call(self, client: httpx.AsyncClient, name: str) -> Heard:
        body = {
            "model": "gpt-5",
            "messages": [{"role": "user", "content": PROMPT}],
            "max_completion_tokens": 100,
            "metadata": {"call": name},
            "stream": kind_of(name) in _STREAMED,
        }
        headers = {
            "authorization": f"Bearer {KEY}",
            "content-type": "application/json",
            "x-taximeter-user": name,
            "x-taximeter-tags": f"lane={lane_of(name)}",
        }
        within_s = 0.03 if kind_of(name) == "vanish" else None
        seen: dict[str, Any] = {"status": None, "request_id": None}
        try:
            async with (
                asyncio.timeout(within_s),
                client.stream(
                    "POST", f"{self._url}{PATH}", content=json.dumps(body), headers=headers
                ) as response,
            ):
                seen["status"] = response.status_code
                seen["request_id"] = response.headers.get("x-taximeter-request-id")
                return await self._read(name, response, seen)
        except (httpx.TransportError, TimeoutError):
            return Heard(name=name, is_whole=False, **seen)

    @staticmethod
    async def _read(name: str, response: httpx.Response, seen: dict[str, Any]) -> Heard:
        read = b""
        async for piece in response.aiter_raw():
            read += piece
            if kind_of(name) == "leave":
                return Heard(name=name, is_whole=False, **seen)
        error = None
        if response.status_code >= 400:
            # A call that is cut off because the gateway stops is told nothing but a status.
            with contextlib.suppress(ValueError):
                error = json.loads(read).get("error", {}).get("code")
        is_stream = kind_of(name) in _STREAMED
        is_whole = read.endswith(b"[DONE]\n\n") if is_stream else bool(read)
        return Heard(name=name, is_whole=is_whole and b'"error"' not in read, error=error, **seen)
