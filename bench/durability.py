"""``python -m bench.durability``: what waiting for the journal adds to a response.

Gateways that wait (``durability: commit``) beside gateways that do not (``async``), each under both
settings of ``fsync``. Must never compare figures of different runs.
"""

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.parts import GATEWAY_CORE, HERE, Load, Part, PartBroken, build_gateway, run_load
from bench.parts import start_mock as start_provider
from bench.run import CALL

_P99_MS_MAX: Final = 3.0


def measure(rounds: int, load: Load) -> dict[tuple[str, str], list[float]]:
    """Put the same load on each in turn, in interleaved rounds.

    Args:
        rounds: How many.
        load: Of each slice.

    Returns:
        99th percentiles in milliseconds by ``fsync`` and ``durability``.

    Raises:
        PartBroken: A gateway did not start, or gave bad answers.
    """
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(dir=out) as name, ExitStack() as running:
        folder = Path(name)
        mock = start_provider(folder / "nginx", is_stream=False)
        running.callback(mock.stop)
        parts: dict[tuple[str, str], Part] = {}
        for fsync in ("normal", "full"):
            for durability in ("commit", "async"):
                part = build_gateway(
                    folder / f"{fsync}-{durability}",
                    f"http://127.0.0.1:{mock.port}/v1",
                    fsync=fsync,
                    durability=durability,
                )
                running.callback(part.stop)
                part.start(core=GATEWAY_CORE, probe="/readyz")
                part.wait_quiet()
                parts[fsync, durability] = part
        for part in parts.values():
            run_load(
                part, Load(connections=load.connections, seconds=1), is_stream=False, path=CALL
            )
        for number in range(rounds):
            # Reversed every round, so that a machine that slowly drifts favours nobody.
            order = list(parts.items())[:: 1 if number % 2 == 0 else -1]
            for key, part in order:
                done = run_load(part, load, is_stream=False, path=CALL)
                if done.failures:
                    raise PartBroken(f"{part.name}: {done.failures} bad answers", part.tail())
                found.setdefault(key, []).append(done.p99_ms)
    return found


def to_table(found: dict[tuple[str, str], list[float]]) -> str:
    """Write the table, a row for each setting of ``fsync``.

    Args:
        found: As measured.

    Returns:
        Markdown.
    """
    lines = [
        "| fsync | p99 ms, async | p99 ms, commit | added p99 ms | limit | held |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for fsync in sorted({key[0] for key in found}):
        pairs = list(zip(found[fsync, "commit"], found[fsync, "async"], strict=True))
        added = statistics.median(commit - plain for commit, plain in pairs)
        cells = (
            fsync,
            f"{statistics.median(plain for _, plain in pairs):.2f}",
            f"{statistics.median(commit for commit, _ in pairs):.2f}",
            f"{added:+.2f}",
            f"{_P99_MS_MAX:.0f}",
            "yes" if added <= _P99_MS_MAX else "no",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print.

    Args:
        arguments: As on the command line.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.durability", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s unless given")
    parser.add_argument("--seconds", type=float, default=2, help="of each slice; %(default)s")
    parser.add_argument("--connections", type=int, default=32, help="%(default)s unless given")
    parser.add_argument("--results", type=Path, default=None, help="also write the table here")
    asked = parser.parse_args(arguments)
    load = Load(connections=asked.connections, seconds=asked.seconds)
    try:
        table = to_table(measure(asked.rounds, load))
    except PartBroken as broken:
        sys.stderr.write("bench: " + "\n".join(str(part) for part in broken.args) + "\n")
        return 1
    sys.stdout.write(table)
    if asked.results is not None:
        head = (
            f"# Results of `python -m bench.durability`\n\nAt {asked.connections} connections.\n\n"
        )
        asked.results.write_text(head + table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
