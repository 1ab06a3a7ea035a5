"""What a benchmark run came to, and how it is told: a table, and a page with the machine.

Must never show a figure without what it is a ratio to.
"""

import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final

from bench.parts import IN_PROCESS, SHARED, Part, Slice

LIBRARIES: Final = ("taximeter", "granian", "pyreqwest", "uvloop", "msgspec", "sqlalchemy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for.

    Attributes:
        rounds: Rounds at ``connections``.
        seconds: Length of a slice.
        connections: Connections of the throughput rounds.
        latency_rounds: Rounds at one connection.
        is_stream: Whether calls ask for a stream.
        with_litellm: Whether the LiteLLM proxy takes part.
        only_bare: Leave the gateway out, to try the bench itself.
        results: File to write; ``None`` writes none.
    """

    rounds: int
    seconds: float
    connections: int
    latency_rounds: int
    is_stream: bool
    with_litellm: bool
    only_bare: bool
    results: Path | None


@dataclass(slots=True, kw_only=True)
class Contestant:
    """A part and its slices, one a round.

    Attributes:
        part: The running processes.
        busy: Slices at many connections.
        single: Slices at one connection.
        rss_mb: Memory of the worker after the load.
    """

    part: Part
    busy: list[Slice] = field(default_factory=list)
    single: list[Slice] = field(default_factory=list)
    rss_mb: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that was measured.

    Attributes:
        options: What was asked for.
        direct: Load straight on the mock provider, for latency only.
        contestants: The baseline first.
    """

    options: Options
    direct: Contestant
    contestants: tuple[Contestant, ...]


def ratios(one: Contestant, base: Contestant) -> list[float]:
    """Throughput as a share of the baseline's in the same round, one per round."""
    return [mine.rps / its.rps for mine, its in zip(one.busy, base.busy, strict=True)]


def middle(slices: Sequence[Slice], name: str) -> float:
    """The median of one figure over slices."""
    return median([float(getattr(each, name)) for each in slices])


def to_table(outcome: Outcome) -> str:
    """Write the table of a run.

    Args:
        outcome: What was measured.

    Returns:
        Markdown, readable as it stands in a terminal too.
    """
    busy = f"c={outcome.options.connections}"
    head = (
        "contestant",
        f"req/s {busy}",
        "ratio to bare",
        "min-max",
        "CPU us",
        "+ after",
        f"p50 ms {busy}",
        f"p99 ms {busy}",
        "p50 ms c=1",
        "p99 ms c=1",
        "added p50 c=1",
        "added p99 c=1",
        "RSS MB",
        "ready s",
    )
    base = outcome.contestants[0]
    rows = [_row(one, base) for one in outcome.contestants]
    rows.append(_direct_row(outcome.direct, len(head)))
    return to_table_of((head, *rows)) + _sharing(outcome.contestants)


def _sharing(contestants: Sequence[Contestant]) -> str:
    """What it costs that budgets are shared, round by round."""
    found = {one.part.name: one for one in contestants}
    if not {SHARED, IN_PROCESS} <= found.keys():
        return ""
    shares = ratios(found[SHARED], found[IN_PROCESS])
    return (
        f"\nBudgets shared over Redis keep {median(shares):.2f} "
        f"({min(shares):.2f}-{max(shares):.2f}) of the throughput in process.\n"
    )


def _row(one: Contestant, base: Contestant) -> tuple[str, ...]:
    shares = ratios(one, base)
    added = [
        f"{middle(one.single, name) - middle(base.single, name):+.3f}"
        for name in ("p50_ms", "p99_ms")
    ]
    return (
        one.part.name,
        f"{middle(one.busy, 'rps'):,.0f}",
        f"{median(shares):.2f}",
        f"{min(shares):.2f}-{max(shares):.2f}",
        f"{middle(one.busy, 'cpu_us'):.0f}",
        f"{middle(one.busy, 'cpu_after_us'):.0f}",
        f"{middle(one.busy, 'p50_ms'):.2f}",
        f"{middle(one.busy, 'p99_ms'):.2f}",
        f"{middle(one.single, 'p50_ms'):.3f}",
        f"{middle(one.single, 'p99_ms'):.3f}",
        *(("-", "-") if one is base else added),
        f"{one.rss_mb:.0f}",
        f"{one.part.ready_s:.2f}",
    )


def _direct_row(direct: Contestant, width: int) -> tuple[str, ...]:
    shown = (
        direct.part.name,
        f"{middle(direct.busy, 'rps'):,.0f}",
        *("-", "-", "-", "-"),
        f"{middle(direct.busy, 'p50_ms'):.2f}",
        f"{middle(direct.busy, 'p99_ms'):.2f}",
        f"{middle(direct.single, 'p50_ms'):.3f}",
        f"{middle(direct.single, 'p99_ms'):.3f}",
    )
    return shown + ("-",) * (width - len(shown))


def to_table_of(rows: Sequence[Sequence[str]]) -> str:
    """Write rows as a Markdown table whose columns align; the first row is the head."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "| "
        + " | ".join(
            _pad(cell, width, at) for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    ruler = (
        "|"
        + "|".join("-" * (width + 1) + ("-" if not at else ":") for at, width in enumerate(widths))
        + "|"
    )
    return "\n".join((lines[0], ruler, *lines[1:])) + "\n"


def _pad(cell: str, width: int, at: int) -> str:
    return cell.ljust(width) if at == 0 else cell.rjust(width)


def to_markdown(outcome: Outcome) -> str:
    """Write the page of a run: the table, how it came about, the machine and the versions.

    Args:
        outcome: What was measured.

    Returns:
        Markdown.
    """
    asked = outcome.options
    answer = (
        "a stream of 202 events and about 60 kB, sent in one go"
        if asked.is_stream
        else "one chat completion of about 1.2 kB with 19 headers"
    )
    notes = [
        f"Upstream: nginx answers every call with {answer}. Load: wrk, 3.4 kB body, the headers "
        "of the OpenAI SDK. The contestants run on core 0, nginx and wrk on core 1.",
        f"{asked.rounds} rounds of {asked.seconds:g} s at {asked.connections} connections, then "
        f"{asked.latency_rounds} at one; contestants alternate, in reversed order every round. "
        "Figures are medians over rounds; a ratio is taken inside its round. Compare nothing "
        "across runs.",
        "The baseline passes bytes through on the same libraries (`bench/bare.py`), with no key, "
        "no count, no price, no budget, no record. The gateway does all of it, under three hard "
        "budgets, and its answers wait for the journal (`durability: commit`).",
        "The gateway asks the kernel for `SCHED_BATCH` (docs/adr/0003); the baseline is also shown "
        "with it, so that what the scheduling gives and what the gateway costs can be told apart.",
        "`CPU us` is the time of all threads per answer during a slice; `+ after` is what was "
        "spent after it until every record was in the ledger and the process was quiet. `added` is "
        "the difference to the baseline.",
    ]
    return "\n".join(
        (
            "# Results of `make bench`" + (" (streams)" if asked.is_stream else ""),
            "",
            to_table(outcome),
            *(f"- {note}" for note in notes),
            "",
            "## Machine",
            "",
            *machine_lines(),
            "",
        )
    )


def machine_lines() -> list[str]:
    """Say on what it was measured, one fact a line."""
    return [f"- {name}: {value}" for name, value in _machine()]


def _machine() -> list[tuple[str, str]]:
    cpus = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return [
        ("date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("CPU", f"{cpus[0] if cpus else platform.processor()}, {len(cpus)} cores"),
        ("memory", f"{int(memory.group(1)) / 2**20:.0f} GiB" if memory else "unknown"),
        ("kernel", platform.release()),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in LIBRARIES),
        ("nginx", _first_line("nginx", "-v").removeprefix("nginx version: nginx/")),
        ("wrk", _first_line("wrk", "-v").removeprefix("wrk ").split(" [")[0]),
    ]


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return next(iter((done.stdout + done.stderr).splitlines()), "unknown")
