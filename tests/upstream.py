"""A scripted OpenAI-compatible upstream on a loopback port, exact to the byte.

Must never decide anything: it plays the script it is handed and writes down what it received.
"""

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

Headers = tuple[tuple[str, str], ...]

JSON_HEADERS: Final[Headers] = (
    ("Content-Type", "application/json"),
    ("x-request-id", "req_5f2c9a"),
    ("openai-processing-ms", "412"),
    ("openai-version", "2020-10-01"),
    ("x-ratelimit-remaining-tokens", "149999"),
)
SSE_HEADERS: Final[Headers] = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("x-request-id", "req_5f2c9b"),
    ("openai-processing-ms", "97"),
)


# -- what was received ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as it came off the wire.

    Attributes:
        method: HTTP method.
        target: Path with query, undecoded.
        headers: Names and values in order, names as spelt.
        body: Exact bytes.
    """

    method: str
    target: str
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """Read a header's first value, whatever its case; ``None`` when it is absent."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    def json(self) -> Any:
        """Parse the body."""
        return json.loads(self.body)

    def asks_for_usage(self) -> bool:
        """Tell whether the body has ``stream_options.include_usage``."""
        try:
            options = json.loads(self.body).get("stream_options") or {}
        except (ValueError, AttributeError):
            return False
        return bool(options.get("include_usage"))


@dataclass(slots=True, kw_only=True)
class Exchange:
    """A request and what became of its reply.

    Attributes:
        received: The request.
        finished: Set when the last byte of the script has been handed to the socket.
        left: Set when the peer closed before that.
    """

    received: Received
    finished: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)


# -- scripts -------------------------------------------------------------------------------------


class Gate:
    """A point where the upstream waits until the test lets it go on.

    Attributes:
        reached: Set once the upstream stands at the gate.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.reached = threading.Event()
        self._loop = loop
        self._opened = asyncio.Event()

    def release(self) -> None:
        """Let everybody pass, now and later."""
        self._loop.call_soon_threadsafe(self._opened.set)

    async def pass_through(self) -> None:
        """Wait here; runs on the upstream's loop."""
        self.reached.set()
        await self._opened.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Stop at a gate.

    Attributes:
        gate: Where to stop.
        before: Index of the body piece to stop before; ``None`` stops before the status line.
    """

    gate: Gate
    before: int | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """Finish as HTTP says and keep the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutIn:
    """Hang up in the middle of a body piece.

    Attributes:
        piece: Index of the piece of which only the first half is sent.
        reset: Close with RST instead of FIN.
    """

    piece: int
    reset: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StallBefore:
    """Say nothing more, until the peer leaves.

    Attributes:
        piece: Index of the piece that never comes.
    """

    piece: int


Ending = Whole | CutIn | StallBefore


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer with a content length.

    Attributes:
        status: HTTP status.
        headers: Sent as they stand, after the status line.
        body: Exact bytes.
        write_bytes: Bytes to a write; ``None`` sends the body in one.
        gzip: Compress, if the request accepts it.
        hold: Where to wait for the test.
        ending: How it ends.
        pause_s: How long to think before each piece of the body.
    """

    status: int = 200
    headers: Headers = JSON_HEADERS
    body: bytes = b""
    write_bytes: int | None = None
    gzip: bool = False
    hold: Hold | None = None
    ending: Ending = Whole()
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sse:
    """A streamed answer in chunked transfer coding.

    Attributes:
        events: Payloads, without ``data: ``.
        usage: Payloads sent after them only when the request asks for usage, or ``always_usage``.
        always_usage: Send ``usage`` unasked.
        done: End with ``[DONE]``.
        eol: Line end: LF, CR or CRLF.
        write_bytes: Bytes to a chunk, whatever they cut through; ``None`` sends one event a chunk.
        preamble: Bytes before the first event, such as a byte order mark or a comment.
        headers: Sent after the status line.
        hold: Where to wait for the test.
        ending: How it ends.
        pause_s: How long to think before each piece of the body.
    """

    events: tuple[bytes, ...]
    usage: tuple[bytes, ...] = ()
    always_usage: bool = False
    done: bool = True
    eol: bytes = b"\n"
    write_bytes: int | None = None
    preamble: bytes = b""
    headers: Headers = SSE_HEADERS
    hold: Hold | None = None
    ending: Ending = Whole()
    pause_s: float = 0.0

    def frames(self, *, with_usage: bool) -> tuple[bytes, ...]:
        """Write the events as they stand on the wire.

        Args:
            with_usage: Whether the usage payloads are among them.

        Returns:
            One item per event, blank line included.
        """
        payloads = [*self.events]
        if with_usage:
            payloads += self.usage
        if self.done:
            payloads.append(b"[DONE]")
        frames = [b"data: " + payload + self.eol * 2 for payload in payloads]
        if self.preamble:
            frames[0] = self.preamble + frames[0]
        return tuple(frames)

    def body(self, *, with_usage: bool) -> bytes:
        """Write the whole stream, see ``frames``."""
        return b"".join(self.frames(with_usage=with_usage))


@dataclass(frozen=True, slots=True)
class Silence:
    """Read the request and never answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HangUp:
    """Read the request and close without a byte.

    Attributes:
        reset: Close with RST instead of FIN.
    """

    reset: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Answer with bytes that are not HTTP, then close.

    Attributes:
        data: The bytes.
    """

    data: bytes = b"\x16\x03\x01 this is no HTTP at all\r\n\r\n"


Script = Reply | Sse | Silence | HangUp | Garbage
Answer = Callable[[Received], Script]


def closed_port() -> int:
    """Find a port that refuses connections: it was free a moment ago and nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


# -- the server ----------------------------------------------------------------------------------


class ScriptedUpstream:
    """The server; a thread of its own, so that tests may block.

    Attributes:
        exchanges: Everything received so far, oldest first.
        port: Where it listens.
    """

    def __init__(self, answer: Answer) -> None:
        self.exchanges: list[Exchange] = []
        self.port = 0
        self._answer = answer
        self._arrived = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)
        self._talks: set[asyncio.Task[None]] = set()
        self._listening = threading.Event()
        self._stopping = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(5)

    @property
    def base_url(self) -> str:
        """Base URL to configure, with ``/v1``."""
        return f"http://127.0.0.1:{self.port}/v1"

    def gate(self) -> Gate:
        """Make a gate for a script."""
        return Gate(self._loop)

    @contextmanager
    def plays(self, script: Script | Answer) -> Iterator[list[Exchange]]:
        """Answer with one script, or by a function of the request, for the length of a block.

        Yields:
            A list that holds the exchanges begun inside the block, once it has been left; inside
            it, use ``wait_for``.
        """
        before, first = self._answer, len(self.exchanges)
        self._answer = script if callable(script) else lambda _: script
        seen: list[Exchange] = []
        try:
            yield seen
        finally:
            seen.extend(self.exchanges[first:])
            self._answer = before

    def wait_for(self, count: int, timeout_s: float = 10) -> Exchange:
        """Wait until this many requests have arrived in all; returns the newest of them."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.exchanges) >= count, timeout_s), (
                f"{len(self.exchanges)} of {count} requests reached the upstream"
            )
        return self.exchanges[count - 1]

    def last(self) -> Received:
        """The newest request."""
        return self.exchanges[-1].received

    # -- on the loop --

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stopping.wait()
        server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._talks.discard(talk)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        received = await _read_request(reader)
        exchange = Exchange(received=received)
        script = self._answer(received)
        with self._arrived:
            self.exchanges.append(exchange)
            self._arrived.notify_all()
        try:
            keep = await _play(script, received, reader, writer)
        except (ConnectionError, _PeerLeft):
            exchange.left.set()
            return False
        exchange.finished.set()
        return keep


class _PeerLeft(Exception):
    """The peer closed while the script was still waiting."""


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    method, target, _ = first.split(" ", 2)
    headers = tuple(
        (name, value.strip()) for name, _, value in (line.partition(":") for line in lines)
    )
    low = {name.lower(): value for name, value in headers}
    if "chunked" in low.get("transfer-encoding", ""):
        body = await _read_chunked(reader)
    else:
        body = await reader.readexactly(int(low.get("content-length", "0")))
    return Received(method=method, target=target, headers=headers, body=body)


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return body


async def _play(
    script: Script,
    received: Received,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    """Play a script to its end; returns whether the connection may be used again."""
    match script:
        case Silence():
            await _until_peer_leaves(reader)
            raise _PeerLeft
        case HangUp(reset=reset):
            _close(writer, reset=reset)
            return False
        case Garbage(data=data):
            writer.write(data)
            await writer.drain()
            _close(writer, reset=False)
            return False
        case Reply() | Sse():
            return await _play_http(script, received, reader, writer)


async def _play_http(
    script: Reply | Sse,
    received: Received,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    head, pieces = _to_wire(script, received)
    hold = script.hold
    if hold is not None and hold.before is None:
        await _at_gate(hold.gate, reader)
    writer.write(head)
    for index, piece in enumerate(pieces):
        if hold is not None and hold.before == index:
            await writer.drain()
            await _at_gate(hold.gate, reader)
        if script.pause_s:
            await asyncio.sleep(script.pause_s)
        match script.ending:
            case StallBefore(piece=at) if at == index:
                await writer.drain()
                await _until_peer_leaves(reader)
                raise _PeerLeft
            case CutIn(piece=at, reset=reset) if at == index:
                writer.write(piece[: len(piece) // 2])
                await writer.drain()
                _close(writer, reset=reset)
                return False
            case _:
                writer.write(piece)
                await writer.drain()
                # Lets the bytes leave before the next write, so that borders survive.
                await asyncio.sleep(0)
    return True


def _to_wire(script: Reply | Sse, received: Received) -> tuple[bytes, list[bytes]]:
    if isinstance(script, Sse):
        frames = script.frames(with_usage=script.always_usage or received.asks_for_usage())
        if script.write_bytes is not None:
            frames = tuple(_slices(b"".join(frames), script.write_bytes))
        pieces = [b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames]
        pieces.append(b"0\r\n\r\n")
        return _head(200, (*script.headers, ("Transfer-Encoding", "chunked"))), pieces
    body, headers = script.body, script.headers
    if script.gzip and "gzip" in (received.header("accept-encoding") or ""):
        body, headers = gzip.compress(body, mtime=0), (*headers, ("Content-Encoding", "gzip"))
    head = _head(script.status, (*headers, ("Content-Length", str(len(body)))))
    return head, list(_slices(body, script.write_bytes or max(len(body), 1)))


def _head(status: int, headers: Headers) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode("latin-1")


def _slices(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


async def _at_gate(gate: Gate, reader: asyncio.StreamReader) -> None:
    passing = asyncio.ensure_future(gate.pass_through())
    leaving = asyncio.ensure_future(_until_peer_leaves(reader))
    await asyncio.wait((passing, leaving), return_when=asyncio.FIRST_COMPLETED)
    is_open = passing.done()
    for task in (passing, leaving):
        task.cancel()
    if not is_open:
        raise _PeerLeft


async def _until_peer_leaves(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        await reader.read(1)


def _close(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        # Zero linger: the kernel answers with RST instead of FIN.
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()
    else:
        writer.close()
