"""A worker's end of the line to its supervisor, through which workers know of each other.

Must never be waited for by a call: it carries metrics, flushes, and when to go.
"""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

log = logging.getLogger("taximeter.fleet")

# The words of the line. Each message is a word, the number of a question or 0, and JSON.
READY: Final = b"ready"
STATE: Final = b"state"
FLUSH: Final = b"flush"
DONE: Final = b"done"
ASK: Final = b"ask"
TOLD: Final = b"told"
RETIRE: Final = b"retire"

# Counters of a whole worker in one line.
LINE_BYTES_MAX: Final = 256 * 1024 * 1024
# How long others may take to tell how they are, and what is added for the way.
ASK_S_MAX: Final = 1.0
WAY_S_MAX: Final = 2.0
# What a killed worker had counted since is not in the metrics; its records are in its journal.
PUSH_S: Final = 1.0


class Message(NamedTuple):
    """One line.

    Attributes:
        word: What it is.
        number: Of the question it belongs to; 0 for none.
        content: JSON, may be empty.
    """

    word: bytes
    number: int
    content: bytes

    @classmethod
    def parse(cls, line: bytes) -> "Message":
        """Read a line.

        Args:
            line: With its end.

        Returns:
            What it says.

        Raises:
            ValueError: It is not such a line.
        """
        word, number, content = line.rstrip(b"\n").split(b" ", 2)
        return cls(word, int(number), content)

    def to_line(self) -> bytes:
        """Write it as a line.

        Returns:
            The line with its end.
        """
        return b"%b %d %b\n" % self


class FleetSilent(OSError):
    """The supervisor does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfReport:
    """What a worker tells of itself when it is asked.

    Attributes:
        state: What it has counted and how it is, as JSON can hold it.
        flush: Brings everything journalled so far to the ledger, within so many seconds; called in
            a thread. Tells whether it is there.
    """

    state: Callable[[], dict[str, Any]]
    flush: Callable[[float], bool]


class Fleet:
    """The other workers, as one of them sees them.

    Attributes:
        number: Which worker this is.
        is_first: Whether it is the one that greets.
        listener: The socket to serve on, opened by the supervisor.
        leaving: Set when this worker is to make room for its successor.
        lost: Set when the supervisor is gone.
    """

    def __init__(
        self, line: socket.socket, listener: socket.socket, number: int, *, is_first: bool
    ) -> None:
        """Take over what the supervisor has handed down.

        Args:
            line: Connected to the supervisor.
            listener: Bound, not listening yet.
            number: Which worker this is.
            is_first: Whether it is the one that greets.
        """
        self.number = number
        self.is_first = is_first
        self.listener = listener
        self.leaving = asyncio.Event()
        self.lost = asyncio.Event()
        self._line = line
        self._writer: asyncio.StreamWriter | None = None
        self._report = SelfReport(state=dict, flush=lambda _: False)
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._pushed = b""

    async def join(self, report: SelfReport) -> None:
        """Begin to answer, and to tell every second what was counted.

        Args:
            report: What to tell.
        """
        self._report = report
        reader, self._writer = await asyncio.open_unix_connection(
            sock=self._line, limit=LINE_BYTES_MAX
        )
        self._spawn(self._listen(reader))
        self._spawn(self._push())

    def tell_ready(self) -> None:
        """Tell the supervisor that calls can come."""
        self._send(READY, 0, b"")

    async def leave(self) -> None:
        """Tell for the last time what was counted, and hang up."""
        for task in self._tasks:
            task.cancel()
        if self._writer is not None:
            with suppress(OSError):
                await self._tell_state(STATE, 0)
                await self._writer.drain()
            self._writer.close()

    async def gather(self) -> dict[str, Any]:
        """Ask every worker, this one too, what it has counted and how it is.

        Returns:
            ``states`` of those that live, of those that do not answer the last one; ``counts`` and
            ``seen`` of those that are gone. What one call has seen, a later one on whichever
            worker never falls behind.

        Raises:
            FleetSilent: The supervisor does not answer.
        """
        told: dict[str, Any] = json.loads(await self._ask({"what": "state"}, ASK_S_MAX))
        return told

    async def flush(self, timeout_s: float) -> bool:
        """Bring what every worker has journalled so far to the ledger.

        Args:
            timeout_s: How long at most.

        Returns:
            Whether all of it is there.
        """
        try:
            told = await self._ask({"what": "flush", "within_s": timeout_s}, timeout_s)
        except FleetSilent:
            return False
        return bool(json.loads(told))

    async def _ask(self, question: dict[str, Any], within_s: float) -> bytes:
        self._number = number = self._number + 1
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(ASK, number, json.dumps(question).encode())
            async with asyncio.timeout(within_s + WAY_S_MAX):
                content: bytes = await answer
                return content
        except TimeoutError:
            raise FleetSilent("the supervisor does not answer") from None
        finally:
            del self._asked[number]

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, ValueError):
            while line := await reader.readline():
                message = Message.parse(line)
                if message.word == STATE:
                    self._spawn(self._tell_state(DONE, message.number))
                elif message.word == FLUSH:
                    self._spawn(self._flush(message))
                elif message.word == RETIRE:
                    self.leaving.set()
                elif message.word == TOLD and message.number in self._asked:
                    self._asked[message.number].set_result(message.content)
        log.warning("the supervisor is gone: this worker ends")
        self.lost.set()

    async def _push(self) -> None:
        while True:
            await self._tell_state(STATE, 0)
            await asyncio.sleep(PUSH_S)

    async def _tell_state(self, word: bytes, number: int) -> None:
        # In a thread: of thousands of series it takes milliseconds.
        state = await asyncio.to_thread(_write_state, self._report)
        if word == STATE and state == self._pushed:
            return
        self._pushed = state
        self._send(word, number, state)

    async def _flush(self, message: Message) -> None:
        within_s = json.loads(message.content)
        is_done = await asyncio.to_thread(self._report.flush, within_s)
        self._send(DONE, message.number, json.dumps(is_done).encode())

    def _send(self, word: bytes, number: int, content: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(Message(word, number, content).to_line())

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _write_state(report: SelfReport) -> bytes:
    return json.dumps(report.state(), separators=(",", ":")).encode()
