"""The process above several workers: starts them, restarts them, renews them, and stops them.

Must never import what a worker needs: it stays small, and has nothing of its own to lose.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.fleet import (
    ASK,
    ASK_S_MAX,
    DONE,
    FLUSH,
    LINE_BYTES_MAX,
    READY,
    RETIRE,
    STATE,
    TOLD,
    Message,
)
from gateway.listening import open_listener

log = logging.getLogger("taximeter.supervisor")

# How long a worker may take to be ready, and to end after its calls have.
START_S_MAX: Final = 60.0
END_S_MAX: Final = 30.0
# A worker that dies is replaced at once; one that dies again soon after it started, later each
# time.
BACKOFF_S: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
HEALTHY_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run.

    Attributes:
        workers: How many.
        host: Address to listen on.
        port: Port to listen on.
        stop_s: How long open calls may take to end when everything stops.
        command: Arguments of the worker program, the handed down ones aside.
    """

    workers: int
    host: str
    port: int
    stop_s: float
    command: tuple[str, ...]


@dataclass(eq=False, kw_only=True)
class WorkerProcess:
    """One worker process.

    Attributes:
        number: Which one it is; no other ever has the same.
        process: The process.
        writer: Its line.
        ready: Set once calls can come.
        gone: Set once it has ended.
        ready_s: When that was.
        state: What it told last; empty before it did.
        is_leaving: Whether it was told to end.
        questions: What it was asked and has not answered.
    """

    number: int
    process: asyncio.subprocess.Process
    writer: asyncio.StreamWriter
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    ready_s: float = 0.0
    state: bytes = b""
    is_leaving: bool = False
    questions: dict[int, "asyncio.Future[bytes]"] = field(default_factory=dict)

    def send(self, word: bytes, number: int, content: bytes = b"") -> None:
        """Write a message to its line.

        Args:
            word: What it is.
            number: Of the question.
            content: JSON.
        """
        if not self.writer.is_closing():
            self.writer.write(Message(word, number, content).to_line())

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens where it has ended.

        Args:
            number: The signal.
        """
        with suppress(ProcessLookupError):
            self.process.send_signal(number)


@dataclass(eq=False, kw_only=True)
class Berth:
    """The place of one worker: its socket, and whoever serves on it now.

    Attributes:
        listener: Shared by a worker and its successor, so that no connection is lost between them.
        worker: Who serves on it; ``None`` while nobody does.
        deaths: How often in a row its worker died young.
    """

    listener: socket.socket | None = None
    worker: WorkerProcess | None = None
    deaths: int = 0

    def take(self, worker: WorkerProcess, listener: socket.socket) -> None:
        """Let a worker serve from now on.

        Args:
            worker: Ready.
            listener: What it serves on.
        """
        if listener is not self.listener:
            self.close()
        self.listener, self.worker = listener, worker

    def close(self) -> None:
        """Let the socket go."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None


class Supervisor:
    """Keeps as many workers running as it was told to."""

    def __init__(self, plan: Plan) -> None:
        """Prepare; nothing is started before ``run``.

        Args:
            plan: What to run.
        """
        self._plan = plan
        self._berths = [Berth() for _ in range(plan.workers)]
        self._workers: set[WorkerProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self._rolling = asyncio.Lock()
        self._started = 0
        self._asked = 0
        # What workers that are gone had counted, and which models they had seen.
        self._past: dict[tuple[str, ...], int | float] = {}
        self._seen: set[tuple[str, ...]] = set()

    async def run(self) -> int:
        """Run until told to stop.

        Returns:
            Exit code: 0 after a stop, that of the first worker when it could not start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._roll()))
        first, *others = self._berths
        # The first one brings the database up to date and makes the first key; then the others.
        if await self._fill(first, is_first=True):
            for berth in others:
                self._spawn(self._refill(berth))
            await self._stopping.wait()
        await self._stop()
        return self._exit_code

    async def _refill(self, berth: Berth) -> None:
        """Start workers on a berth until one serves."""
        while berth.worker is None and not self._stopping.is_set():
            await asyncio.sleep(BACKOFF_S[min(berth.deaths, len(BACKOFF_S) - 1)])
            berth.deaths += 1
            if berth.worker is None and not self._stopping.is_set():
                await self._fill(berth)

    async def _fill(self, berth: Berth, *, is_first: bool = False) -> bool:
        """Start a worker on a new socket and wait until it serves."""
        try:
            listener = open_listener(self._plan.host, self._plan.port)
        except OSError as taken:
            log.error("cannot listen on %s:%d: %s", self._plan.host, self._plan.port, taken)  # noqa: TRY400
            self._exit_code = 2 if is_first else 0
            return False
        worker = await self._start(berth, listener, is_first=is_first)
        is_ready = await self._became_ready(worker)
        if is_ready and berth.worker is None:
            berth.take(worker, listener)
            return True
        listener.close()
        if is_ready:
            self._retire(worker)
        elif is_first and not self._stopping.is_set():
            self._exit_code = worker.process.returncode or 1
        return False

    async def _start(
        self, berth: Berth, listener: socket.socket, *, is_first: bool = False
    ) -> WorkerProcess:
        ours, theirs = socket.socketpair()
        self._started += 1
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gateway.worker",
                f"--number={self._started}",
                f"--line-fd={theirs.fileno()}",
                f"--listen-fd={listener.fileno()}",
                *(["--first"] if is_first else []),
                *self._plan.command,
                pass_fds=(theirs.fileno(), listener.fileno()),
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_BYTES_MAX)
        worker = WorkerProcess(number=self._started, process=process, writer=writer)
        self._workers.add(worker)
        self._spawn(self._attend(worker, berth, reader))
        return worker

    async def _became_ready(self, worker: WorkerProcess) -> bool:
        """Wait until a worker serves; one that does not in time is ended."""
        waiting = [asyncio.ensure_future(one.wait()) for one in (worker.ready, worker.gone)]
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait(
            [*waiting, stopping], timeout=START_S_MAX, return_when=asyncio.FIRST_COMPLETED
        )
        for one in (*waiting, stopping):
            one.cancel()
        if worker.ready.is_set() and not worker.gone.is_set():
            return True
        if not worker.gone.is_set() and not self._stopping.is_set():
            log.error("worker %d was not ready within %d s", worker.number, START_S_MAX)
            worker.signal(signal.SIGKILL)
            await worker.gone.wait()
        return False

    async def _attend(
        self, worker: WorkerProcess, berth: Berth, reader: asyncio.StreamReader
    ) -> None:
        """Hear a worker to its end, and replace it where it was still needed."""
        with suppress(OSError, ValueError):
            while line := await reader.readline():
                self._hear(worker, Message.parse(line))
        code = await worker.process.wait()
        worker.writer.close()
        self._workers.discard(worker)
        self._bury(worker)
        worker.gone.set()
        for question in worker.questions.values():
            if not question.done():
                question.set_result(b"")
        if self._stopping.is_set() or worker.is_leaving:
            return
        log.error(
            "worker %d (pid %d) ended unasked: %s",
            worker.number,
            worker.process.pid,
            f"signal {-code}" if code < 0 else f"exit status {code}",
        )
        if berth.worker is worker:
            # Its socket goes with it, or connections would wait there for nobody.
            berth.worker = None
            berth.close()
            if asyncio.get_running_loop().time() - worker.ready_s > HEALTHY_S:
                berth.deaths = 0
            await self._refill(berth)

    def _hear(self, worker: WorkerProcess, message: Message) -> None:
        if message.word == READY:
            log.info("worker %d (pid %d) is ready", worker.number, worker.process.pid)
            worker.ready_s = asyncio.get_running_loop().time()
            worker.ready.set()
        elif message.word == STATE:
            worker.state = message.content
        elif message.word == DONE:
            question = worker.questions.get(message.number)
            if question is not None and not question.done():
                question.set_result(message.content)
        elif message.word == ASK:
            self._spawn(self._answer(worker, message))

    async def _answer(self, asker: WorkerProcess, message: Message) -> None:
        """Put a worker's question to all of them, and tell it what they said."""
        asked = json.loads(message.content)
        if asked["what"] == "flush":
            within_s = float(asked["within_s"])
            said = await self._ask_all(FLUSH, json.dumps(within_s).encode(), within_s)
            # What one that has ended had not shipped is brought by whoever takes its journal.
            is_done = all(one is not None and one in {b"", b"true"} for one in said.values())
            asker.send(TOLD, message.number, json.dumps(is_done).encode())
            return
        for worker, state in (await self._ask_all(STATE, b"", ASK_S_MAX)).items():
            # One that has ended meanwhile is among those of the past, with what it told last.
            if state:
                worker.state = state
        states = [worker.state for worker in self._workers if worker.state]
        past = [[list(key), count] for key, count in self._past.items()]
        asker.send(
            TOLD,
            message.number,
            b'{"counts":%b,"seen":%b,"states":[%b]}'
            % (
                json.dumps(past).encode(),
                json.dumps(sorted(self._seen)).encode(),
                b",".join(states),
            ),
        )

    async def _ask_all(
        self, word: bytes, content: bytes, within_s: float
    ) -> dict[WorkerProcess, bytes | None]:
        """Ask every worker that is ready; ``None`` for those that do not answer in time."""
        asked = {}
        self._asked += 1
        number = self._asked
        for worker in self._workers:
            if worker.ready.is_set():
                asked[worker] = worker.questions[number] = (
                    asyncio.get_running_loop().create_future()
                )
                worker.send(word, number, content)
        if asked:
            await asyncio.wait(asked.values(), timeout=within_s)
        for worker in asked:
            del worker.questions[number]
        return {one: answer.result() if answer.done() else None for one, answer in asked.items()}

    def _bury(self, worker: WorkerProcess) -> None:
        """Keep what a worker had counted: totals must not fall because it is gone."""
        if not worker.state:
            return
        state: dict[str, Any] = json.loads(worker.state)
        for key, count in state["counts"]:
            self._past[tuple(key)] = self._past.get(tuple(key), 0) + count
        self._seen.update(tuple(one) for one in state["seen"])

    async def _roll(self) -> None:
        """Renew the workers one by one, each served by its successor before it goes."""
        async with self._rolling:
            log.info("renewing %d workers", len(self._berths))
            for berth in self._berths:
                if berth.listener is None or self._stopping.is_set():
                    continue
                listener = berth.listener.dup()
                fresh = await self._start(berth, listener)
                if not await self._became_ready(fresh):
                    listener.close()
                    log.error("the workers are not renewed: worker %d did not start", fresh.number)
                    return
                old = berth.worker
                berth.take(fresh, listener)
                if old is not None:
                    self._retire(old)
        log.info("all workers are renewed")

    @staticmethod
    def _retire(worker: WorkerProcess) -> None:
        worker.is_leaving = True
        worker.send(RETIRE, 0)

    async def _stop(self) -> None:
        log.info("stopping: open calls have %g s", self._plan.stop_s)
        self._stopping.set()
        for berth in self._berths:
            berth.close()
        workers = tuple(self._workers)
        for worker in workers:
            worker.signal(signal.SIGTERM)
        if workers:
            ends = [asyncio.ensure_future(worker.gone.wait()) for worker in workers]
            _, late = await asyncio.wait(ends, timeout=self._plan.stop_s + END_S_MAX)
            if late:
                log.error("%d workers did not end in time and are killed", len(late))
        for worker in workers:
            worker.signal(signal.SIGKILL)
            await worker.gone.wait()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def parse_plan(argv: Sequence[str]) -> tuple[Plan, int]:
    """Read the arguments of this process.

    Args:
        argv: As ``gateway.workforce`` writes them.

    Returns:
        What to run, and the descriptor that holds the lock of the journals.
    """
    parser = argparse.ArgumentParser(prog="taximeter supervisor")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--stop-s", type=float, required=True)
    parser.add_argument("--lock-fd", type=int, required=True)
    parser.add_argument("command", nargs="*")
    args = parser.parse_args(argv)
    plan = Plan(
        workers=args.workers,
        host=args.host,
        port=args.port,
        stop_s=args.stop_s,
        command=tuple(args.command),
    )
    return plan, args.lock_fd


def main() -> int:
    """Supervise until told to stop.

    Returns:
        Exit code.
    """
    plan, lock_fd = parse_plan(sys.argv[1:])
    os.set_inheritable(lock_fd, False)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )

    async def supervise() -> int:
        return await Supervisor(plan).run()

    return asyncio.run(supervise())


if __name__ == "__main__":
    sys.exit(main())
