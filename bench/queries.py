"""``python -m bench.queries``: how long questions to a big ledger take while calls come in.

Sums of usage and pages of records, asked through ``Queries`` as the API does. Must never touch a
ledger that is in use: it makes its own, and what it fills it with is made up.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, text

from bench.parts import HERE
from bench.report import machine_lines
from bench.rerate import make_records
from gateway.clock import SystemClock
from gateway.commands.output import Progress
from gateway.ledger.errors import ShippedTo
from gateway.ledger.filters import RecordFilter
from gateway.ledger.migrate import upgrade
from gateway.ledger.queries import Queries
from gateway.ledger.rolling import RollupsFollower
from gateway.ledger.rollups import Rollups
from gateway.ledger.store import LedgerStore, open_engine
from gateway.ledger.usage import Granularity, UsageQuery
from pricing.book import load_book
from tests.postgres import running_postgres

RESULTS: Final = HERE / "RESULTS-queries.md"
_DAY_US: Final = 86_400_000_000
_END_US: Final = 1_795_392_000_000_000  # 2026-11-23T00:00:00Z
_DAYS: Final = {"sqlite": 30, "postgres": 90}
_TARGET_MS: Final = {"sqlite": 300, "postgres": 100}
_CHUNK: Final = 100_000
_JOURNALS: Final = 4
_SEED: Final = 7
_LIVE_BATCH: Final = 50
_LIVE_EVERY_S: Final = 0.5

# Two hundred keys, some of them busy, in forty projects of eight teams; every key calls three
# models and has ten end users. One call in fifty was refused or has an unknown cost.
_ROWS: Final = """
SELECT n, CAST(j AS TEXT) AS j,
  :start_us + n * :step_us AS at_us,
  key_no, key_no / 5 AS project_no, key_no / 25 AS team_no,
  (key_no + k % 3) % 12 AS model_no,
  key_no * 10 + k % 10 AS user_no,
  k % 10 AS feature_no,
  CASE WHEN k % 100 = 0 THEN 'refused' WHEN k % 100 = 1 THEN 'aborted' ELSE 'ok' END AS outcome,
  1 + k % 8000 AS tokens_in, 1 + k % 900 AS tokens_out
FROM (
  SELECT n, n % :journals AS j, (n * 2654435761) % 1000003 AS k,
    ((n * 2654435761) % 1000003) * ((n * 2654435761) % 1000003) / 1000003 * 200 / 1000003 AS key_no
  FROM numbers
) AS mixed
"""
_RECORDS: Final = """
INSERT INTO records (id, writer, seq, prev_hash, hash, started_at_us, ended_at_us, outcome,
  http_status, stream, api, provider, model_requested, model, organization, team, project, "key",
  "user", tags, usage, input_total, output_total, basis, currency, cost_pico, list_cost_pico,
  price_version, cost_status, flags)
{numbers}
SELECT {id}, 'bench-' || j, n / :journals + 1, :hash, :hash, at_us, at_us + 900000, outcome,
  200, {yes}, 'openai.chat', 'provider-' || CAST(model_no / 4 AS TEXT),
  'model-' || CAST(model_no AS TEXT), 'model-' || CAST(model_no AS TEXT), 'acme',
  'team-' || CAST(team_no AS TEXT), 'project-' || CAST(project_no AS TEXT),
  'key-' || CAST(key_no AS TEXT), 'user-' || CAST(user_no AS TEXT), {tags}, {empty},
  CASE WHEN outcome = 'ok' THEN tokens_in WHEN outcome = 'refused' THEN 0 END,
  CASE WHEN outcome = 'ok' THEN tokens_out WHEN outcome = 'refused' THEN 0 END,
  CASE WHEN outcome = 'ok' THEN 'reported' WHEN outcome = 'refused' THEN 'none' ELSE 'unknown' END,
  'USD',
  CASE WHEN outcome = 'ok' THEN tokens_in * 1250000 + tokens_out * 10000000
    WHEN outcome = 'refused' THEN 0 END,
  CASE WHEN outcome = 'ok' THEN tokens_in * 1250000 + tokens_out * 10000000
    WHEN outcome = 'refused' THEN 0 END,
  '2026-11-20.1', CASE WHEN outcome = 'aborted' THEN 'unknown' ELSE 'final' END, {nothing}
FROM ({rows}) AS made
"""
_LINES: Final = """
INSERT INTO record_lines (record_id, line, started_at_us, meter, quantity, sku, price_id,
  unit_price, per, list_cost_pico, cost_pico)
{numbers}
SELECT {id}, line, at_us, CASE WHEN line = 0 THEN 'input' ELSE 'output' END,
  CAST(CASE WHEN line = 0 THEN tokens_in ELSE tokens_out END AS TEXT), 'sku', 'price', '1', 1,
  CASE WHEN line = 0 THEN tokens_in * 1250000 ELSE tokens_out * 10000000 END,
  CASE WHEN line = 0 THEN tokens_in * 1250000 ELSE tokens_out * 10000000 END
FROM ({rows}) AS made CROSS JOIN (SELECT 0 AS line UNION ALL SELECT 1) AS both_lines
WHERE outcome = 'ok'
"""
_DIALECTS: Final = {
    "sqlite": {
        "numbers": "WITH RECURSIVE numbers(n) AS (SELECT :first UNION ALL "
        "SELECT n + 1 FROM numbers WHERE n < :last)",
        "id": "printf('B%025d', n)",
        "yes": "1",
        "tags": "json_object('env', CASE WHEN key_no % 3 = 0 THEN 'dev' ELSE 'prod' END, "
        "'feature', 'f' || CAST(feature_no AS TEXT))",
        "empty": "'{}'",
        "nothing": "'[]'",
    },
    "postgresql": {
        "numbers": "WITH numbers(n) AS (SELECT generate_series(CAST(:first AS bigint), "
        "CAST(:last AS bigint)))",
        "id": "'B' || lpad(CAST(n AS TEXT), 25, '0')",
        "yes": "true",
        "tags": "jsonb_build_object('env', CASE WHEN key_no % 3 = 0 THEN 'dev' ELSE 'prod' END, "
        "'feature', 'f' || CAST(feature_no AS TEXT))",
        "empty": "CAST('{}' AS jsonb)",
        "nothing": "CAST('[]' AS jsonb)",
    },
}

Ask = Callable[[Queries, random.Random], object]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How long a question took.

    Attributes:
        name: What was asked.
        seconds: Each time it was.
    """

    name: str
    seconds: list[float]

    def ms(self, share: float) -> float:
        """The time within which so many answers came."""
        ranked = sorted(self.seconds)
        return 1000 * ranked[min(len(ranked) - 1, int(share * len(ranked)))]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a database came to.

    Attributes:
        database: Which one.
        count: How many records.
        days: Over how many days.
        filled_s: How long it took to make them.
        rolled_s: How long it took to add the sums up.
        rollups: How many rows of sums there are.
        asked: The questions.
    """

    database: str
    count: int
    days: int
    filled_s: float
    rolled_s: float
    rollups: int
    asked: list[Asked]


def fill(engine: Engine, count: int, days: int) -> None:
    """Make records up, straight in the tables.

    Args:
        engine: A ledger without records.
        count: How many.
        days: Over how many days.
    """
    words = _DIALECTS[engine.dialect.name]
    step_us = days * _DAY_US // count
    common = {"start_us": _END_US - days * _DAY_US, "step_us": step_us, "journals": _JOURNALS}
    with Progress("records made", count) as progress:
        for first in range(0, count, _CHUNK):
            last = min(first + _CHUNK, count) - 1
            values: dict[str, Any] = {**common, "first": first, "last": last}
            with engine.begin() as connection:
                for statement in (_RECORDS, _LINES):
                    sql = statement.format(**words, rows=_ROWS.strip())
                    mine = values | ({"hash": "0" * 64} if statement is _RECORDS else {})
                    connection.execute(text(sql), mine)
            progress.step(last - first + 1)
    with engine.begin() as connection:
        heads = "SELECT writer, 1, 1, max(seq), :hash FROM records GROUP BY writer"
        connection.execute(text(f"INSERT INTO shipped {heads}"), {"hash": "0" * 64})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def roll(engine: Engine) -> float:
    """Add all sums up.

    Args:
        engine: A filled ledger.

    Returns:
        How many seconds it took.
    """
    rollups, began_s = Rollups(engine), time.perf_counter()
    with Progress("records added to the sums", rollups.pending()) as progress:
        while moved := rollups.follow():
            progress.step(moved)
    took_s = time.perf_counter() - began_s
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    return took_s


def questions(days: int) -> dict[str, Ask]:
    """List what is asked.

    Args:
        days: How many days the ledger has.

    Returns:
        Questions by what they ask; each takes another span or group every time.
    """
    start_us = _END_US - days * _DAY_US

    def usage(span_days: int, granularity: Granularity, *group_by: str, **wanted: str) -> Ask:
        def ask(queries: Queries, chance: random.Random) -> object:
            # Spans begin and end in the middle of an hour.
            at_us = start_us + chance.randrange(max(1, (days - span_days) * _DAY_US))
            span = {"from_us": at_us, "to_us": at_us + span_days * _DAY_US}
            names = {name: f"{value}{chance.randrange(8)}" for name, value in wanted.items()}
            wanted_records = RecordFilter(**span, **names)  # type: ignore[arg-type]
            return queries.usage(
                UsageQuery(wanted=wanted_records, group_by=group_by, granularity=granularity)
            )

        return ask

    def page(**wanted: str) -> Ask:
        def ask(queries: Queries, chance: random.Random) -> object:
            names = {name: f"{value}{chance.randrange(8)}" for name, value in wanted.items()}
            to_us = start_us + chance.randrange(days * _DAY_US)
            first = RecordFilter(to_us=to_us, **names)  # type: ignore[arg-type]
            _, cursor = queries.page_records(first, 100)
            return queries.page_records(first, 100, cursor)

        return ask

    whole: Ask = lambda queries, _: queries.usage(UsageQuery())  # noqa: E731 - one of a list
    return {
        "usage: one total of everything": whole,
        "usage: by team and month, everything": lambda queries, _: queries.usage(
            UsageQuery(group_by=("team",), granularity="month")
        ),
        "usage: by model, a month": usage(28, "none", "model"),
        "usage: by team and day, a month": usage(28, "day", "team"),
        "usage: by team, model and day, a month": usage(28, "day", "team", "model"),
        "usage: by key, a month": usage(28, "none", "key"),
        "usage: by hour, a day": usage(1, "hour", "team"),
        "usage: by hour, a week of one team": usage(7, "hour", "model", team="team-"),
        "usage: by end user, a week of one project": usage(7, "none", "user", project="project-"),
        "usage: by tag and day, a week": usage(7, "day", "tag.feature"),
        "usage: by meter and model, a month": usage(28, "none", "meter", "model"),
        "usage: by tag and meter, a week": usage(7, "none", "tag.env", "meter"),
        "ledger: two pages of everything": page(),
        "ledger: two pages of a team": page(team="team-"),
        "ledger: two pages of a key": page(key="key-19"),
        "ledger: two pages of an end user": page(user="user-199"),
        "ledger: two pages of refusals of a model": page(outcome="refused", model="model-"),
    }


def ask_all(engine: Engine, days: int, rounds: int) -> list[Asked]:
    """Ask every question again and again while calls come in.

    Args:
        engine: A filled ledger with its sums.
        days: How many days it has.
        rounds: How often.

    Returns:
        How long each took; the first round warms up.
    """
    queries, chance, asks = Queries(engine), random.Random(_SEED), questions(days)
    taken: dict[str, list[float]] = {name: [] for name in asks}
    with _calls_coming_in(engine), Progress("rounds", rounds) as progress:
        for number in range(rounds + 1):
            for name, ask in asks.items():
                began_s = time.perf_counter()
                ask(queries, chance)
                if number:
                    taken[name].append(time.perf_counter() - began_s)
            progress.step()
    return [Asked(name=name, seconds=seconds) for name, seconds in taken.items()]


@contextmanager
def _calls_coming_in(engine: Engine) -> Iterator[None]:
    """A hundred records a second, and the sums that follow them."""
    ended = threading.Event()
    store, made = LedgerStore(engine), make_records(1_000_000, load_book())
    rolling = RollupsFollower(Rollups(engine), SystemClock())

    def post() -> None:
        while not ended.wait(_LIVE_EVERY_S):
            batch = [next(made) for _ in range(_LIVE_BATCH)]
            store.append("live", batch, ShippedTo(segment=1, offset=batch[-1].seq))

    def follow() -> None:
        while not ended.wait(rolling.step()):
            pass

    threads = [threading.Thread(target=target) for target in (post, follow)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def measure(database: str, url: str, count: int, rounds: int) -> Outcome:
    """Fill a ledger and question it.

    Args:
        database: What to call it.
        url: An empty database.
        count: How many records.
        rounds: How often each question is asked.

    Returns:
        What it came to.
    """
    engine, days = open_engine(url), _DAYS[database]
    try:
        upgrade(engine)
        began_s = time.perf_counter()
        fill(engine, count, days)
        filled_s = time.perf_counter() - began_s
        rolled_s = roll(engine)
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT count(*) FROM usage_rollups")).scalar_one()
        return Outcome(
            database=database,
            count=count,
            days=days,
            filled_s=filled_s,
            rolled_s=rolled_s,
            rollups=int(rows),
            asked=ask_all(engine, days, rounds),
        )
    finally:
        engine.dispose()


def _table(outcome: Outcome) -> list[str]:
    target = _TARGET_MS[outcome.database]
    every = Asked(name="all", seconds=[s for one in outcome.asked for s in one.seconds])
    lines = [
        f"## {outcome.database}: {outcome.count:,} records of {outcome.days} days",
        "",
        f"Made in {outcome.filled_s:.0f} s; {outcome.rollups:,} rows of sums added up in "
        f"{outcome.rolled_s:.0f} s ({outcome.count / outcome.rolled_s:,.0f} records/s). "
        f"All questions: p50 {every.ms(0.5):.0f} ms, p95 {every.ms(0.95):.0f} ms "
        f"(target {target} ms), slowest {every.ms(1):.0f} ms.",
        "",
        "| question | p50 ms | p95 ms |",
        "|---|---:|---:|",
        *(f"| {one.name} | {one.ms(0.5):.1f} | {one.ms(0.95):.1f} |" for one in outcome.asked),
        "",
    ]
    return lines


def main() -> int:
    """Run from the command line.

    Returns:
        Exit code: 0.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.queries", description=__doc__)
    parser.add_argument("--sqlite", type=int, default=100_000, metavar="N", help="records there")
    parser.add_argument("--postgres", type=int, default=100_000, metavar="N", help="likewise")
    parser.add_argument("--rounds", type=int, default=20, help="how often each question is asked")
    parser.add_argument("--results", type=Path, help="also write a page to this file")
    asked = parser.parse_args()
    page = [
        "# Questions to the ledger",
        "",
        "`python -m bench.queries`: made-up records of 200 keys in 40 projects of 8 teams, 12 "
        "models, 2,000 end users and 20 sets of tags; a hundred new records a second come in and "
        "are added to the sums while it is asked. Spans begin and end inside an hour.",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as undo:
        if asked.sqlite:
            url = f"sqlite:///{folder}/ledger.db"
            page += _table(measure("sqlite", url, asked.sqlite, asked.rounds))
        if asked.postgres:
            settings = {
                "listen_addresses": "",
                "shared_buffers": "256MB",
                "max_wal_size": "4GB",
                "autovacuum": "on",
            }
            server = undo.enter_context(running_postgres(settings))
            page += _table(
                measure(
                    "postgres", server.url(server.create_database()), asked.postgres, asked.rounds
                )
            )
    page += ["## Machine", "", *machine_lines()]
    sys.stdout.write("\n".join(page) + "\n")
    if asked.results is not None:
        asked.results.write_text("\n".join(page) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
