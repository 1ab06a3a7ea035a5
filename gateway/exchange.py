"""Carrying bytes between client and provider, with a tap on the answer.

Must never hold a whole stream, never write to a client that has left, and never leave an upstream
call open after its handler has gone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote

from gateway.admission import OpenCall
from gateway.client import Client
from gateway.headers import TO_UPSTREAM, RawHeaders
from gateway.upstream import UpstreamFailed, UpstreamReply, UpstreamRequest, UpstreamTimedOut
from gateway.wire.facts import NO_NAMES, Answer, StreamLane, WireFormat, header_of
from gateway.wire.inflate import Incompressible, InflatedLane, inflate_whole, open_inflater
from gateway.wire.tap import ODD, note_odd
from pricing.usage import Basis

EVENTS: Final = "text/event-stream"
REQUEST_ID_CHARS_MAX: Final = 256
# Where a virtual key can stand in an address.
_KEY_PARAMETERS: Final = frozenset({"key", "api-key"})
# As the providers' API references name them, checked 2026-11-23.
_REQUEST_IDS: Final = (
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "apim-request-id",
    "x-goog-request-id",
)
WHOLE_BYTES_MAX: Final = 128 * 1024 * 1024
# After the client has left, an answer that is all but done is read to its end this long; one that
# the provider bills in full anyway, that long.
# A client that waited longer than this may have given up; asking the server takes this long.
PATIENT_S: Final = 0.1
LOOK_S: Final = 0.0005
LINGER_S: Final = 5.0
DRAIN_S: Final = 300.0


class ReplyTooLarge(UpstreamFailed):
    """A whole answer is larger than the gateway holds in memory."""


def request_of(call: OpenCall) -> UpstreamRequest:
    """Make the request to send.

    Args:
        call: An admitted call.

    Returns:
        The client's request with the provider's address and credential.
    """
    assert call.provider is not None
    assert call.facts is not None
    asked = call.asked
    headers = session_headers(call)
    headers.append(("accept-encoding", "identity"))
    url = call.provider.base_url + call.path
    if asked.query:
        url += query_of(asked.query)
    return UpstreamRequest(
        method=asked.method,
        url=url,
        headers=headers,
        body=call.format.prepare_body(asked, call.facts, call.model),
    )


def session_headers(call: OpenCall) -> RawHeaders:
    """Choose the headers to send, with the provider's credential.

    Args:
        call: Routed.

    Returns:
        The client's headers but those that are not for the provider, and the provider's own.
    """
    assert call.provider is not None
    headers = TO_UPSTREAM.choose(call.headers)
    if call.provider.headers:
        # What the operator set, such as the project that is billed, no client may set.
        own = {name for name, _ in call.provider.headers}
        headers = [header for header in headers if header[0] not in own]
    headers.extend(call.provider.headers)
    if call.provider.auth is not None:
        headers.append(call.provider.auth)
    return headers


def query_of(query: str, renamed: Mapping[str, str] = NO_NAMES) -> str:
    """Write the query string to send: as it came, without the caller's key.

    Args:
        query: As it came.
        renamed: What parameters are sent with another value, where they are there.

    Returns:
        With its question mark; empty where nothing is left.
    """
    parts = []
    for part in query.split("&") if query else ():
        name = part.partition("=")[0]
        if name not in _KEY_PARAMETERS:
            parts.append(f"{name}={quote(renamed[name])}" if name in renamed else part)
    return "?" + "&".join(parts) if parts else ""


def open_exchange(call: OpenCall) -> AbstractAsyncContextManager[UpstreamReply]:
    """Send an admitted call.

    Args:
        call: The call.

    Returns:
        A context whose value is the answer, as ``Upstream.send``. Where time has a price the call
        ends at the provider's time limit, whether or not it is silent: what was held is for that
        long.
    """
    assert call.provider is not None
    request = request_of(call)
    sent = call.provider.upstream.send(request)
    return _within(sent, call.provider.call_s_max) if call.gpus else sent


@asynccontextmanager
async def _within(
    sent: AbstractAsyncContextManager[UpstreamReply], limit_s: float
) -> AsyncIterator[UpstreamReply]:
    deadline_s = asyncio.get_running_loop().time() + limit_s
    async with AsyncExitStack() as exits:
        try:
            async with asyncio.timeout_at(deadline_s):
                reply = await exits.enter_async_context(sent)
        except TimeoutError:
            raise _took_too_long(limit_s) from None
        yield _LimitedReply(reply, deadline_s, limit_s)


def _took_too_long(limit_s: float) -> UpstreamTimedOut:
    return UpstreamTimedOut(f"the call took longer than {limit_s:g} s")


class _LimitedReply:
    """An answer that is read until a moment and not longer."""

    __slots__ = ("_deadline_s", "_limit_s", "_reply", "headers", "status")

    def __init__(self, reply: UpstreamReply, deadline_s: float, limit_s: float) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._reply = reply
        self._deadline_s = deadline_s
        self._limit_s = limit_s

    async def read_chunk(self) -> bytes | None:
        try:
            async with asyncio.timeout_at(self._deadline_s):
                return await self._reply.read_chunk()
        except TimeoutError:
            raise _took_too_long(self._limit_s) from None


def is_streamed(reply: UpstreamReply, format: WireFormat, *, is_asked: bool) -> bool:  # noqa: A002 - the field's word
    """Tell whether an answer is a stream.

    Args:
        reply: Its head.
        format: Wire format of the call, which knows the content types of its streams.
        is_asked: Whether the client asked for a stream.

    Returns:
        What the content type says; what was asked where a success has none.
    """
    is_success = reply.status < 300
    for name, value in reply.headers:
        if name == "content-type":
            kind = value.lower()
            return kind.startswith(EVENTS) or (is_success and kind.startswith(format.stream_types))
    return is_asked and is_success


def open_lane(call: OpenCall, reply: UpstreamReply) -> StreamLane:
    """Begin to read a streamed answer.

    Args:
        call: Its facts decide what the client may see.
        reply: Its head.

    Returns:
        The lane its bytes go through.
    """
    assert call.facts is not None
    lane = call.format.open_stream(call.facts, reply)
    encoding = header_of(reply, "content-encoding")
    if encoding is None:
        return lane
    try:
        inflater = open_inflater(encoding)
    except Incompressible as unknown:
        lane.answer.flags = (*lane.answer.flags, str(unknown))
        return InflatedLane(lane, None)
    return lane if inflater is None else InflatedLane(lane, inflater)


def read_answer(call: OpenCall, reply: UpstreamReply, body: bytes) -> Answer:
    """Read a whole answer.

    Args:
        call: The call.
        reply: Its head.
        body: As it came.

    Returns:
        What it says.
    """
    assert call.facts is not None
    plain = inflate_whole(body, header_of(reply, "content-encoding"))
    try:
        answer = call.format.read_whole(plain, call.facts, reply)
    except ODD as odd:
        answer = Answer()
        note_odd(answer, odd, "the answer")
    if answer.request_id is None:
        answer.request_id = request_id_of(call, reply)
    return answer


def request_id_of(call: OpenCall, reply: UpstreamReply) -> str | None:
    """Find the provider's id of a request, where its body has none.

    Args:
        call: The call.
        reply: Head of its answer.

    Returns:
        What one of the usual headers says; ``None`` where there is none, or where it only says
        again what the caller said: by such an id what others have used could seem to be metered.
    """
    for name in _REQUEST_IDS:
        told = header_of(reply, name)
        if told and not any(told == value for _, value in call.headers):
            return told[:REQUEST_ID_CHARS_MAX]
    return None


async def read_whole(reply: UpstreamReply) -> bytes:
    """Read a whole answer.

    Args:
        reply: Its head has arrived.

    Returns:
        The body.

    Raises:
        UpstreamFailed: It broke off, stalled, or is too large to hold.
    """
    first = await reply.read_chunk()
    if first is None:
        return b""
    second = await reply.read_chunk()
    if second is None:
        return first
    parts = [first, second]
    size = len(first) + len(second)
    while (chunk := await reply.read_chunk()) is not None:
        size += len(chunk)
        if size > WHOLE_BYTES_MAX:
            raise ReplyTooLarge(f"more than {WHOLE_BYTES_MAX} bytes")
        parts.append(chunk)
    return b"".join(parts)


async def has_left(client: Client) -> bool:
    """Ask the server whether a client that has waited long is still there.

    Args:
        client: The one who called.

    Returns:
        Whether it has left.
    """
    departure = Departure(client)
    try:
        return await departure.look()
    finally:
        departure.close()


@dataclass(slots=True, kw_only=True)
class Passage:
    """How the carrying of a stream went.

    Attributes:
        is_client_gone: The client left before the end.
        is_cut: The answer was ended because a budget had no more for it.
        is_cut_short: The answer was not read to its end because the client had left.
        is_crowded_out: That is so because too many others were being read for nobody.
        failure: What broke on the provider's side.
    """

    is_client_gone: bool = False
    is_cut: bool = False
    is_cut_short: bool = False
    is_crowded_out: bool = False
    failure: UpstreamFailed | None = None


class Guard(Protocol):
    """Somebody who looks at a stream every so many bytes."""

    look_at: int

    async def may_go_on(self, seen_bytes: int) -> bool:
        """Tell whether the stream may go on after so many bytes."""
        ...


class Drains:
    """Counts the answers that are read to their end for nobody, so that they stay few.

    Where there is no room, the newcomer is cancelled and not one that is being read: under an
    endless stream of hang-ups the oldest would never be read to its end, and no usage be learned.
    """

    __slots__ = ("_most", "_open")

    def __init__(self, most: int) -> None:
        """Begin with none.

        Args:
            most: So many at once.
        """
        self._most = most
        self._open = 0

    def begin(self) -> bool:
        """Take a place; whoever gets one calls ``end`` afterwards.

        Returns:
            Whether there was one.
        """
        if self._open >= self._most:
            return False
        self._open += 1
        return True

    def end(self) -> None:
        """Give a place back."""
        self._open -= 1


class Departure:
    """Watches for the client's leaving; can interrupt a read that waits for the provider.

    Attributes:
        is_gone: Whether the client has left.
        has_interrupted: Whether a read was interrupted because of that.
        is_crowded_out: Whether the answer would have been read to its end but for all the others.
    """

    __slots__ = (
        "_answer",
        "_client",
        "_drains",
        "_is_draining",
        "_is_taken_back",
        "_reader",
        "_timer",
        "_watcher",
        "has_interrupted",
        "is_crowded_out",
        "is_gone",
    )

    def __init__(self, client: Client, drains: Drains | None = None) -> None:
        """Prepare; nothing is watched before ``interrupt_reads`` or ``look``.

        Args:
            client: The one who called.
            drains: Where a place is taken to read the answer to its end after the client has left;
                ``None`` where it is not read on.
        """
        self.is_gone = False
        self.is_crowded_out = False
        self._is_draining = False
        self.has_interrupted = False
        self._is_taken_back = False
        self._client = client
        self._reader: asyncio.Task[object] | None = None
        self._drains = drains
        self._answer: Answer | None = None
        self._watcher: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def interrupt_reads(self, answer: Answer) -> None:
        """Interrupt the calling task's reads once the client has left.

        Args:
            answer: What is being read; decides how long it is read on.
        """
        self._reader = asyncio.current_task()
        self._answer = answer
        self._watch()
        if self.is_gone:
            self._leave()

    async def end_interruptions(self) -> None:
        """Leave the calling task alone from now on.

        The read may have ended by itself just as it was interrupted; then the interruption waits
        for the next await, which must not be one that the end of the call depends on. Or the
        awaited library swallowed it; then only the count of requests to cancel is left.
        """
        self._reader = None
        if self.has_interrupted and not self._is_taken_back:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            self.take_back()

    def take_back(self) -> None:
        """Take note that an interruption has arrived.

        Raises:
            CancelledError: Somebody else has cancelled the task as well.
        """
        self._is_taken_back = True
        task = asyncio.current_task()
        if task is not None and task.uncancel() > 0:
            raise asyncio.CancelledError

    async def look(self) -> bool:
        """Look once more, where the answer came too fast for the watch.

        Returns:
            Whether the client has left.
        """
        self._watch()
        if self._watcher is not None:
            await asyncio.wait({self._watcher}, timeout=LOOK_S)
        return self.is_gone

    def left(self) -> None:
        """Take note of what a failed write has shown."""
        if not self.is_gone:
            self.is_gone = True
            self._leave()

    def close(self) -> None:
        """Stop watching; no interruption comes after this."""
        self._reader = None
        if self._is_draining and self._drains is not None:
            self._is_draining = False
            self._drains.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watcher is not None:
            self._watcher.cancel()

    def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.ensure_future(self._client.wait_gone())
            self._watcher.add_done_callback(self._on_gone)

    def _on_gone(self, watcher: "asyncio.Future[None]") -> None:
        if not watcher.cancelled() and watcher.exception() is None:
            self.left()

    def _leave(self) -> None:
        answer = self._answer
        if answer is None:
            return
        drains = self._drains
        if drains is not None and drains.begin():
            self._is_draining = True
            self._interrupt_after(DRAIN_S)
        elif answer.is_finished or _is_reported(answer):
            # Every token has been produced: the usage is worth the few bytes that are left. Most
            # clients leave here, so these are not counted: their end is near by itself.
            self._interrupt_after(LINGER_S)
        else:
            self.is_crowded_out = drains is not None
            self._interrupt()

    def _interrupt_after(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._interrupt)

    def _interrupt(self) -> None:
        if self._reader is not None:
            self.has_interrupted = True
            self._reader.cancel()


def _is_reported(answer: Answer) -> bool:
    """Tell whether the provider has counted the output, and not only the prompt."""
    return answer.usage is not None and answer.usage.basis is not Basis.PARTIAL


async def pass_stream(  # noqa: PLR0913 - everybody whom a chunk concerns
    client: Client,
    reply: UpstreamReply,
    lane: StreamLane,
    departure: Departure,
    on_first_byte: Callable[[], None],
    *,
    guard: Guard | None,
) -> Passage:
    """Pass a stream on as it comes, until it ends, breaks or nobody listens.

    Args:
        client: Its answer has been started.
        reply: The provider's answer.
        lane: Folds what passes and holds the last events back.
        departure: Tells when the client has left.
        on_first_byte: Called when the first bytes have been sent on.
        guard: Asked every so many bytes whether the stream may go on; ``None`` where it may.

    Returns:
        How it went. The bytes the lane holds back are not sent yet.
    """
    passage = Passage()
    has_sent = False
    seen = 0
    try:
        departure.interrupt_reads(lane.answer)
        while (chunk := await reply.read_chunk()) is not None:
            passed = lane.feed(chunk)
            if passed and not departure.is_gone:
                if not await client.write(passed):
                    departure.left()
                elif not has_sent:
                    has_sent = True
                    on_first_byte()
            if departure.has_interrupted:
                # The interruption came while the library was writing, and it swallowed it.
                passage.is_cut_short = True
                break
            seen += len(chunk)
            if guard and seen >= guard.look_at and not await guard.may_go_on(seen):
                passage.is_cut = True
                break
        await departure.look()
    except UpstreamFailed as failed:
        passage.failure = failed
    except asyncio.CancelledError:
        if not departure.has_interrupted:
            raise
        departure.take_back()
        passage.is_cut_short = True
    await departure.end_interruptions()
    passage.is_client_gone = departure.is_gone
    passage.is_crowded_out = departure.is_crowded_out
    return passage
