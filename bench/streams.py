"""Many slow streams at once: CPU a chunk and memory a stream, beside the bare pass-through.

Must never compare figures of different runs: every ratio is taken inside one round.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final, cast

import uvloop

from bench.parts import (
    GATEWAY_CORE,
    HERE,
    KEY,
    LOAD_CORE,
    Part,
    PartBroken,
    build_bare,
    build_gateway,
    free_port,
    stream_body,
)

RESULTS: Final = HERE / "RESULTS-streams.md"
PHASES: Final = 5
# Streams that warm a contestant up; memory is counted above theirs.
FEW: Final = 10
_EVENTS: Final = stream_body(200).encode().split(b"\n\n")
_EVENT: Final = _EVENTS[0] + b"\n\n"
_END: Final = b"".join(event + b"\n\n" for event in _EVENTS[-3:-1])
_BODY: Final = (
    b'{"model":"gpt-5","stream":true,"max_completion_tokens":4000,'
    b'"messages":[{"role":"user","content":"Tell me a story"}]}'
)


# -- the provider --------------------------------------------------------------------------------


class _Speaker(asyncio.Protocol):
    """One connection of the provider; speaks when its turn comes."""

    def __init__(self, turns: list[set["_Speaker"]]) -> None:
        self._turns = turns
        self._transport: asyncio.Transport | None = None
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one in all but name.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        head, blank, body = self._head.partition(b"\r\n\r\n")
        if not blank or self._transport is None:
            return
        if not head.startswith(b"POST"):
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            self._head = b""
        elif body.endswith(b"}"):
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\nx-request-id: req_1\r\n\r\n"
            )
            self._head = b""
            min(self._turns, key=len).add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for turn in self._turns:
            turn.discard(self)

    def speak(self, piece: bytes) -> None:
        if self._transport is not None:
            self._transport.write(piece)


async def _provide(port: int, rate: int) -> None:
    """Answer every POST with a stream that never ends, ``rate`` chunks a second."""
    loop = asyncio.get_running_loop()
    turns: list[set[_Speaker]] = [set() for _ in range(PHASES)]
    await loop.create_server(lambda: _Speaker(turns), "127.0.0.1", port, backlog=1024)
    piece = b"%x\r\n%s\r\n" % (len(_EVENT), _EVENT)
    step_s = 1 / rate / PHASES
    due_s, number = loop.time(), 0
    while True:
        due_s += step_s
        await asyncio.sleep(max(0.0, due_s - loop.time()))
        for speaker in tuple(turns[number % PHASES]):
            speaker.speak(piece)
        number += 1


# -- the applications ----------------------------------------------------------------------------


class _Listener(asyncio.Protocol):
    """One application that reads a stream."""

    def __init__(self, port: int) -> None:
        self.chunks = 0
        self.failed = b""
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\n"
            f"authorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
            f"accept: application/json\r\nuser-agent: OpenAI/Python 2.54.0\r\n"
            f"content-length: {len(_BODY)}\r\n\r\n"
        )
        cast("asyncio.Transport", transport).write(head.encode() + _BODY)

    def data_received(self, data: bytes) -> None:
        if not self.chunks and data.startswith(b"HTTP/1.1") and b" 200 " not in data[:16]:
            self.failed = data[:400]
        self.chunks += data.count(b"data: ")


async def _listen(port: int, streams: int, seconds: float) -> None:
    """Read streams; tell when all speak, then how many chunks came in the time."""
    loop = asyncio.get_running_loop()
    listeners = []
    for _ in range(streams):
        _, listener = await loop.create_connection(lambda: _Listener(port), "127.0.0.1", port)
        listeners.append(listener)
    for _ in range(1000):
        if all(one.chunks >= 2 for one in listeners):
            break
        await asyncio.sleep(0.01)
    failed = next((one.failed for one in listeners if one.failed or not one.chunks), None)
    if failed is not None:
        sys.stdout.write(f"FAILED {failed!r}\n")
        return
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    await asyncio.sleep(0.2)
    before, began_s = sum(one.chunks for one in listeners), loop.time()
    sys.stdout.write("BEGIN\n")
    sys.stdout.flush()
    await asyncio.sleep(seconds)
    count, span_s = sum(one.chunks for one in listeners) - before, loop.time() - began_s
    sys.stdout.write(f"RESULT {count} {span_s}\n")


# -- the bench -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Round:
    """What one contestant did in one round.

    Attributes:
        chunks_per_s: Chunks delivered a second.
        cpu_us: CPU a chunk.
        open_mb: Memory while all streams were open.
    """

    chunks_per_s: float
    cpu_us: float
    open_mb: float


@dataclass(slots=True)
class _Contestant:
    part: Part
    stream_kb: float = 0.0
    rounds: list[Round] = field(default_factory=list)


def _measure(one: _Contestant, streams: int, seconds: float) -> Round:
    command = [sys.executable, "-m", "bench.streams", "--listen", str(one.part.port)]
    with subprocess.Popen(
        ["taskset", "-c", LOAD_CORE, *command, f"--streams={streams}", f"--seconds={seconds}"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
    ) as listener:
        assert listener.stdout is not None
        before, count, span_s, open_mb = 0, 0, 0.0, 0.0
        for line in listener.stdout:
            word, *rest = line.split()
            if word == "FAILED":
                raise PartBroken(f"{one.part.name}: {line}", one.part.tail())
            if word == "BEGIN":
                before = one.part.cpu_ns()
            if word == "RESULT":
                spent = one.part.cpu_ns() - before
                count, span_s = int(rest[0]), float(rest[1])
                open_mb = one.part.rss_mb()
                break
    one.part.wait_quiet()
    if not count:
        raise PartBroken(f"{one.part.name}: no chunk came", one.part.tail())
    return Round(count / span_s, spent / 1000 / count, open_mb)


def _run(streams: int, rate: int, seconds: float, rounds: int) -> str:
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as name, ExitStack() as running:
        folder = Path(name)
        port = free_port()
        command = [sys.executable, "-m", "bench.streams", "--provide", str(port), f"--rate={rate}"]
        provider = Part("provider", port, command, folder=folder / "provider")
        running.callback(provider.stop)
        provider.start(core=LOAD_CORE, probe="/")
        upstream = f"http://127.0.0.1:{port}/v1"
        contestants = [
            _Contestant(build_bare(folder / "bare", upstream)),
            _Contestant(build_bare(folder / "bare-batch", upstream, is_batch=True)),
            _Contestant(build_gateway(folder / "gateway", upstream, fsync="normal")),
        ]
        for one in contestants:
            running.callback(one.part.stop)
            is_bare = one.part.name.startswith("bare")
            one.part.start(core=GATEWAY_CORE, probe="/v1/models" if is_bare else "/readyz")
            one.part.wait_quiet()
            # Of a process that has seen hardly any: an allocator keeps what many once needed. The
            # first calls bring in what is there once, as the statements of the sums of usage.
            _measure(one, FEW, 0.5)
            few = _measure(one, FEW, 0.5).open_mb
            many = _measure(one, streams, 0.5).open_mb
            one.stream_kb = (many - few) * 1024 / (streams - FEW)
        for number in range(rounds):
            for one in contestants if number % 2 == 0 else contestants[::-1]:
                one.rounds.append(_measure(one, streams, seconds))
                if sys.stderr.isatty():
                    sys.stderr.write(f"\r\x1b[Kround {number + 1}: {one.part.name}")
        return _to_table(contestants, streams, rate)


def _to_table(contestants: Sequence[_Contestant], streams: int, rate: int) -> str:
    rows = [
        f"{streams} streams of {rate} chunks a second; the first is the baseline of every ratio",
        "",
        "| | chunks/s | CPU us a chunk | ratio, median (least-most) | KB a stream |",
        "| --- | --- | --- | --- | --- |",
    ]
    base = contestants[0]
    for one in contestants:
        ratios = [a.cpu_us / b.cpu_us for a, b in zip(one.rounds, base.rounds, strict=True)]
        told = f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        rows.append(
            f"| {one.part.name} | {median(r.chunks_per_s for r in one.rounds):,.0f} "
            f"| {median(r.cpu_us for r in one.rounds):.1f} | {told} "
            f"| {one.stream_kb:.0f} |"
        )
    return "\n".join(rows) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 when something it needs broke."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__)
    parser.add_argument("--streams", type=int, default=300)
    parser.add_argument("--rate", type=int, default=50, help="chunks a second of each stream")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-results", action="store_true", help="write no RESULTS-streams.md")
    parser.add_argument("--provide", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--listen", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.provide is not None:
        uvloop.run(_provide(asked.provide, asked.rate))
    elif asked.listen is not None:
        uvloop.run(_listen(asked.listen, asked.streams, asked.seconds))
    else:
        try:
            table = _run(asked.streams, asked.rate, asked.seconds, max(asked.rounds, 1))
        except PartBroken as broken:
            sys.stderr.write("bench: " + "\n".join(str(part) for part in broken.args) + "\n")
            return 1
        sys.stdout.write(table)
        if not asked.no_results:
            RESULTS.write_text("# Many slow streams\n\n" + table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
