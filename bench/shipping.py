"""``python -m bench.shipping``: how many records a second go from the journal to the ledger.

Through the real shipper: frames read and checked, records chained, rows committed. Must never touch
a ledger or a journal that is in use: it makes its own.
"""

import argparse
import gc
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from sqlalchemy import func, select

from bench.parts import HERE
from bench.report import machine_lines
from bench.rerate import make_records
from gateway.clock import SystemClock
from gateway.ledger.journal import Journal
from gateway.ledger.migrate import upgrade
from gateway.ledger.queries import Queries
from gateway.ledger.record import Intent, LedgerRecord
from gateway.ledger.shipper import Shipper
from gateway.ledger.store import LedgerStore, open_engine
from gateway.tables import records
from pricing.book import load_book
from tests.postgres import running_postgres

RESULTS: Final = HERE / "RESULTS-shipping.md"
# Records journalled before each stretch of shipping: the journal of a million at once would take
# two gigabytes of disk, and a real one is emptied while it grows.
_STRETCH: Final = 20_000
_PATIENCE_S: Final = 600.0
# As a server is set up whose data somebody wants to keep.
_DURABLE: Final = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "autovacuum": "on",
}


@dataclass(kw_only=True)
class Outcome:
    """What shipping came to.

    Attributes:
        database: Which one.
        shipped: How many records.
        seconds: How long shipping took, the journalling in between aside.
        cpu_s: Processor time of this process during it, the database server's aside.
        rates: Records a second of each stretch.
        rss_mb: Resident memory after each stretch.
        problems: What the check of the chains found.
    """

    database: str
    shipped: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    rates: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    problems: int = 0

    @property
    def growth_mb(self) -> float:
        """How much memory grew after the first tenth, in which caches fill up."""
        return max(self.rss_mb) - self.rss_mb[len(self.rss_mb) // 10]


def ship(database: str, url: str, folder: Path, count: int) -> Outcome:
    """Journal records and ship them, stretch after stretch.

    Args:
        database: What to call it.
        url: An empty database.
        folder: Where the journal goes.
        count: How many records.

    Returns:
        What it came to.

    Raises:
        RuntimeError: Not every record arrived, or not in time.
    """
    engine = open_engine(url)
    upgrade(engine)
    outcome = Outcome(database=database)
    made = make_records(count, load_book())
    with ExitStack() as undo:
        undo.callback(engine.dispose)
        journal = Journal.open(folder / "journal")
        undo.callback(journal.close)
        shipper = Shipper(journal, LedgerStore(engine), SystemClock())
        shipper.start()
        undo.callback(shipper.stop)
        gc.freeze()
        while shipped := _journal_some(journal, made):
            _ship_some(shipper, shipped, outcome)
            _show(outcome, count)
        with engine.connect() as connection:
            arrived = connection.execute(select(func.count()).select_from(records)).scalar_one()
        if arrived != count:
            raise RuntimeError(f"{arrived} records arrived of {count}")
        outcome.problems = sum(1 for _ in Queries(engine).verify())
    return outcome


def _journal_some(journal: Journal, made: Iterator[LedgerRecord]) -> int:
    count = 0
    for record in islice(made, _STRETCH):
        journal.append_intent(_intent_of(record))
        journal.append_record(record)
        count += 1
    return count


def _ship_some(shipper: Shipper, count: int, outcome: Outcome) -> None:
    began_s, cpu_s = time.perf_counter(), _cpu_s()
    if not shipper.flush(_PATIENCE_S):
        raise RuntimeError(f"{count} records were not shipped: {shipper.trouble}")
    took_s = time.perf_counter() - began_s
    outcome.shipped += count
    outcome.seconds += took_s
    outcome.cpu_s += _cpu_s() - cpu_s
    outcome.rates.append(count / took_s)
    outcome.rss_mb.append(_rss_mb())


def _intent_of(record: LedgerRecord) -> Intent:
    return Intent(
        id=record.id,
        started_at_us=record.started_at_us,
        stream=record.stream,
        api=record.api,
        provider=record.provider or "",
        model_requested=record.model_requested or "",
        organization=record.organization or "",
        team=record.team or "",
        project=record.project or "",
        key=record.key or "",
        tags=record.tags,
        price_version=record.price_version,
        ceiling_pico=record.cost_pico,
        ceiling_tokens=record.input_total,
        bound_usage=record.usage,
        bound_tier="standard",
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _rss_mb() -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 0.0 if found is None else int(found.group(1)) / 1024


def _show(outcome: Outcome, count: int) -> None:
    if sys.stderr.isatty():
        done = f"{outcome.shipped:,} of {count:,}"
        sys.stderr.write(f"\r\x1b[K{outcome.database}: {done}, {outcome.rates[-1]:,.0f}/s")
        sys.stderr.write("\n" if outcome.shipped == count else "")
        sys.stderr.flush()


@contextmanager
def _opened(database: str, url: str | None, folder: Path) -> Iterator[str]:
    if url is not None:
        yield url
    elif database == "sqlite":
        yield f"sqlite:///{folder}/ledger.db"
    else:
        with running_postgres(_DURABLE) as server:
            yield server.url(server.create_database())


def to_line(outcome: Outcome) -> str:
    """Write one row of the table.

    Args:
        outcome: Of one database.

    Returns:
        The row, with its bars.
    """
    each_us = 1e6 / outcome.shipped
    cells = (
        outcome.database,
        f"{outcome.shipped:,}",
        f"{outcome.shipped / outcome.seconds:,.0f}",
        f"{min(outcome.rates):,.0f}",
        f"{outcome.cpu_s * each_us:.0f}",
        f"{outcome.rss_mb[0]:.0f}",
        f"{max(outcome.rss_mb):.0f}",
        f"{outcome.growth_mb:+.1f}",
        str(outcome.problems),
    )
    return "| " + " | ".join(cells) + " |"


_HEAD: Final = (
    "| database | records | records/s | slowest stretch | CPU us a record | RSS MB at first | most "
    "| growth | chain problems |"
)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print.

    Args:
        arguments: As on the command line.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.shipping", description=__doc__)
    parser.add_argument("--records", type=int, default=100_000, help="%(default)s unless given")
    parser.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--url", help="an empty PostgreSQL database to use instead of a new server")
    parser.add_argument("--results", type=Path, default=None, help="also write the table here")
    asked = parser.parse_args(arguments)
    names = ("sqlite", "postgresql") if asked.database == "both" else (asked.database,)
    rows = [_HEAD, "|---|" + "---:|" * (_HEAD.count("|") - 2)]
    for name in names:
        rows.append(to_line(_measure(name, asked.url, asked.records)))
    table = "\n".join(rows)
    sys.stdout.write(f"{table}\n")
    if asked.results is not None:
        told = "\n".join(("# Results of `python -m bench.shipping`", "", table, "", *_NOTES, ""))
        asked.results.write_text(told + "\n".join(("", "## Machine", "", *machine_lines(), "")))
    return 0


_NOTES: Final = (
    f"- Each stretch is {_STRETCH:,} calls (intent and record, three rated lines) written to the "
    "journal, then shipped by the shipper's thread until the ledger has them all: records/s is "
    "that second part, from the file to committed rows, chain and syncs included.",
    "- CPU is that of the gateway's process; growth is the most memory after the first tenth of "
    "the stretches, less the memory there.",
    "- PostgreSQL runs beside it on the same two cores, with `fsync` and `synchronous_commit` on.",
)


def _measure(name: str, url: str | None, count: int) -> Outcome:
    # On the disk of the checkout and not in memory, or syncing would be free.
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out))
    try:
        with _opened(name, url if name == "postgresql" else None, folder) as opened:
            return ship(name, opened, folder, count)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
