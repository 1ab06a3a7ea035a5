"""``python -m bench.scrape``: how long a scrape of many series takes, and what calls notice of it.

The same gateway, with somebody who scrapes it and without, in interleaved slices. Must never count
a scrape that was not whole.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from bench.parts import (
    GATEWAY_CORE,
    HERE,
    KEY,
    Load,
    Part,
    PartBroken,
    build_gateway,
    run_load,
)
from bench.parts import start_mock as start_provider
from bench.run import CALL
from pricing.book import load_book

_SCRAPE_MS_MAX: Final = 200.0
_P99_MS_MAX: Final = 2.0
_ACCEPT: Final = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


@dataclass(slots=True)
class Found:
    """What was measured.

    Attributes:
        series: How many the gateway showed.
        scrapes_ms: How long each scrape took under load.
        idle_ms: Likewise without load.
        p99_ms: 99th percentile of calls in each slice, without a scrape and with.
        p50_ms: Likewise the median.
    """

    series: int = 0
    scrapes_ms: list[float] = field(default_factory=list)
    idle_ms: list[float] = field(default_factory=list)
    p99_ms: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    p50_ms: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))


def measure(series: int, rounds: int, every_s: float, load: Load) -> Found:
    """Make a gateway show so many series, then scrape it under load.

    Args:
        series: At least so many.
        rounds: Pairs of slices.
        every_s: Seconds between scrapes.
        load: Of each slice.

    Returns:
        Every figure.

    Raises:
        PartBroken: The gateway did not start, or gave bad answers.
    """
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    found = Found()
    with tempfile.TemporaryDirectory(dir=out) as name, ExitStack() as running:
        folder = Path(name)
        mock = start_provider(folder / "nginx", is_stream=False)
        running.callback(mock.stop)
        part = build_gateway(folder / "gateway", f"http://127.0.0.1:{mock.port}/v1", fsync="normal")
        _add_budgets(folder / "gateway" / "gateway.yaml", series)
        running.callback(part.stop)
        part.start(core=GATEWAY_CORE, probe="/readyz")
        with httpx.Client(base_url=f"http://127.0.0.1:{part.port}", trust_env=False) as http:
            found.series = _fill(http, part, series)
            part.wait_quiet()
            found.idle_ms = [_scrape(http) for _ in range(10)]
            run_load(
                part, Load(connections=load.connections, seconds=1), is_stream=False, path=CALL
            )
            for number in range(rounds):
                for is_scraped in (False, True) if number % 2 == 0 else (True, False):
                    with _scraping(http, every_s if is_scraped else None, found.scrapes_ms):
                        done = run_load(part, load, is_stream=False, path=CALL)
                    if done.failures:
                        raise PartBroken(f"{done.failures} bad answers", part.tail())
                    found.p99_ms[is_scraped].append(done.p99_ms)
                    found.p50_ms[is_scraped].append(done.p50_ms)
    return found


def _add_budgets(path: Path, series: int) -> None:
    """A budget shows some five series, and calls of many models the rest."""
    config: dict[str, Any] = json.loads(path.read_text())
    config["budgets"] += [
        {
            "id": f"user-{number}",
            "scope": {"user": f"u-{number}"},
            "limit": "10 USD",
            "window": "day",
        }
        for number in range(series // 7)
    ]
    path.write_text(json.dumps(config))


def _fill(http: httpx.Client, part: Part, series: int) -> int:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_completion_tokens": 100}
    # Those that do not chat are refused, which is counted too.
    for one in load_book("2026-11-23.1").models:
        if one.provider != "openai":
            continue
        told = http.post(
            CALL, json={**body, "model": one.model}, headers={"authorization": f"Bearer {KEY}"}
        )
        if told.status_code >= 500:
            raise PartBroken(f"a call was answered {told.status_code}: {told.text}", part.tail())
    shown = _series(http)
    if shown < series:
        raise PartBroken(f"only {shown} series after a call of every model", part.tail())
    return shown


def _series(http: httpx.Client) -> int:
    text = http.get("/metrics").raise_for_status().text
    return sum(1 for line in text.splitlines() if line and not line.startswith("#"))


def _scrape(http: httpx.Client) -> float:
    began = time.perf_counter()
    told = http.get("/metrics", headers={"accept": _ACCEPT, "accept-encoding": "gzip"})
    took_ms = (time.perf_counter() - began) * 1000
    if not told.text.endswith("# EOF\n"):
        raise PartBroken("a scrape was not whole", told.text[-200:])
    return took_ms


@contextmanager
def _scraping(http: httpx.Client, every_s: float | None, took_ms: list[float]) -> Iterator[None]:
    """Scrape in the background, at once and then at intervals; not at all without one."""
    if every_s is None:
        yield
        return
    over = threading.Event()

    def scrape() -> None:
        while True:
            took_ms.append(_scrape(http))
            if over.wait(every_s):
                return

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        yield
    finally:
        over.set()
        scraper.join()


def to_table(found: Found) -> str:
    """Write what was found.

    Args:
        found: As measured.

    Returns:
        Markdown.
    """
    plain, scraped = (statistics.median(one) for one in found.p99_ms)
    added = statistics.median(
        one - other for other, one in zip(found.p99_ms[0], found.p99_ms[1], strict=True)
    )
    slowest = max(found.scrapes_ms)
    rows = (
        ("series", f"{found.series}", ""),
        ("scrape of an idle gateway, ms", f"{statistics.median(found.idle_ms):.0f}", "200"),
        ("scrape under load, median ms", f"{statistics.median(found.scrapes_ms):.0f}", "200"),
        ("scrape under load, slowest ms", f"{slowest:.0f}", ""),
        ("p99 of calls without scrapes, ms", f"{plain:.2f}", ""),
        ("p99 of calls with scrapes, ms", f"{scraped:.2f}", ""),
        ("added p99, median of pairs, ms", f"{added:+.2f}", "2"),
    )
    is_held = statistics.median(found.scrapes_ms) <= _SCRAPE_MS_MAX and added <= _P99_MS_MAX
    lines = ["| | found | limit |", "|---|---:|---:|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines.append(f"\nLimits held: {'yes' if is_held else 'no'}.")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print.

    Args:
        arguments: As on the command line.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.scrape", description=__doc__)
    parser.add_argument("--series", type=int, default=5_000, help="%(default)s unless given")
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s unless given")
    parser.add_argument("--seconds", type=float, default=4, help="of each slice; %(default)s")
    parser.add_argument("--every", type=float, default=2, help="seconds between scrapes")
    parser.add_argument("--connections", type=int, default=4, help="%(default)s unless given")
    parser.add_argument("--results", type=Path, default=None, help="also write the table here")
    asked = parser.parse_args(arguments)
    load = Load(connections=asked.connections, seconds=asked.seconds)
    try:
        table = to_table(measure(asked.series, asked.rounds, asked.every, load))
    except PartBroken as broken:
        sys.stderr.write("bench: " + "\n".join(str(part) for part in broken.args) + "\n")
        return 1
    sys.stdout.write(table)
    if asked.results is not None:
        head = (
            f"# Results of `python -m bench.scrape`\n\nAt {asked.connections} connections, "
            f"a scrape every {asked.every:g} s, gateway and load on a core each.\n\n"
        )
        asked.results.write_text(head + table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
