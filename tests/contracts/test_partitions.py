"""Months of the ledger on PostgreSQL: made ahead, filled late, and closed to changes."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DatabaseError

from gateway.clock import epoch_us
from gateway.ids import IdSource, first_id
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.filters import RecordFilter
from gateway.ledger.partitions import MONTHS_AHEAD, Partitions
from gateway.ledger.record import LedgerRecord
from gateway.ledger.rollups import Rollups
from gateway.ledger.store import open_engine
from tests.contracts.conftest import Ledger
from tests.contracts.records import make_record
from tests.postgres import PostgresServer

SOON = datetime.now(UTC).replace(day=28)


def later(months: int) -> datetime:
    """The middle of a month from now on."""
    month = SOON.year * 12 + SOON.month - 1 + months
    return datetime(month // 12, month % 12 + 1, 15, tzinfo=UTC)


def record_of(at: datetime, ids: IdSource) -> LedgerRecord:
    """A call of some time."""
    at_us = epoch_us(at)
    return make_record(id=ids.mint(at_us // 1000), started_at_us=at_us, ended_at_us=at_us)


def parts(engine: Engine, table: str) -> dict[str, int]:
    """Count the rows in each part of a table."""
    query = text(
        f"SELECT CAST(tableoid AS regclass) AS part, count(*) AS rows FROM {table} GROUP BY 1"
    )
    with engine.connect() as connection:
        return {str(row.part): row.rows for row in connection.execute(query)}


@pytest.fixture
def months(postgres: PostgresServer, postgres_template: str) -> Iterator[Ledger]:
    """A ledger on PostgreSQL, where there are months."""
    opened = open_engine(postgres.url(postgres.create_database(postgres_template)))
    yield Ledger(opened)
    opened.dispose()


def test_sqlite_keeps_one_table(tmp_path: Path) -> None:
    """Nothing is made there, and nothing is asked of it."""
    assert [] == Partitions(open_engine(f"sqlite:///{tmp_path}/none.db")).make_ahead(SOON)


def test_months_are_made_ahead_once(months: Ledger) -> None:
    """This month has its place since the migration; those to come are made, and then are there."""
    partitions = Partitions(months.engine)
    expected = [
        f"{table}_{later(step):%Y_%m}"
        for step in range(1, MONTHS_AHEAD + 1)
        for table in ("records", "record_lines")
    ]

    assert expected == partitions.make_ahead(SOON)
    assert [] == partitions.make_ahead(SOON)


def test_records_go_to_their_month(months: Ledger) -> None:
    """Reports, pages and the chain do not notice."""
    Partitions(months.engine).make_ahead(SOON)
    ids = IdSource()
    posted = months.post(*(record_of(later(step), ids) for step in (0, 1, 2)))

    named = {f"records_{later(step):%Y_%m}": 1 for step in (1, 2)}
    assert {"records_first": 1, **named} == parts(months.engine, "records")
    assert 3 == len(parts(months.engine, "record_lines"))
    assert [] == list(months.queries.verify())
    page, _ = months.queries.page_records(RecordFilter(), limit=10)
    assert {record.id for record in posted} == {record.id for record in page}


def test_what_came_before_its_month_is_moved_into_it(months: Ledger) -> None:
    """A gateway that was off when the month ended makes the next one with records waiting."""
    ids = IdSource()
    months.post(*(record_of(later(step), ids) for step in (1, 1, 2, 60)))
    assert {"records_other": 4} == parts(months.engine, "records")

    Partitions(months.engine).make_ahead(later(1))

    told = {f"records_{later(1):%Y_%m}": 2, f"records_{later(2):%Y_%m}": 1, "records_other": 1}
    assert told == parts(months.engine, "records")
    assert [] == list(months.queries.verify())


def test_an_id_is_unique_over_all_months(months: Ledger) -> None:
    """A record that is brought twice, from whichever journal, is there once."""
    Partitions(months.engine).make_ahead(SOON)
    record = record_of(later(1), IdSource())
    months.post(record)
    months.post(record, writer="w-2")

    assert 1 == months.count("records")


@pytest.mark.parametrize("part", ["first", "other", "next"])
@pytest.mark.parametrize("table", ["records", "record_lines"])
def test_no_part_can_be_changed(months: Ledger, table: str, part: str) -> None:
    """Nor emptied: neither by the name of the table nor by that of the part."""
    Partitions(months.engine).make_ahead(SOON)
    ids = IdSource()
    months.post(*(record_of(later(step), ids) for step in (0, 1, 60)))
    part = part.replace("next", f"{later(1):%Y_%m}")
    changes = [f"UPDATE {table}_{part} SET started_at_us = 0", f"DELETE FROM {table}_{part}"]
    for change in (*changes, f"TRUNCATE {table}_{part}"):
        with (
            pytest.raises(DatabaseError, match=f"{table}(_first)? is append-only"),
            months.engine.begin() as connection,
        ):
            connection.execute(text(change))

    assert 3 == months.count(table)


def test_calls_do_not_wait_for_a_month(months: Ledger) -> None:
    """Somebody has the table: the month is made another time."""
    with closing(months.engine.connect()) as other:
        other.execute(text("LOCK TABLE records IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            Partitions(months.engine).make_ahead(SOON)

    assert Partitions(months.engine).make_ahead(SOON) != []


def test_first_id_stands_between_two_moments() -> None:
    """Ids of the millisecond before sort before it, those of its own behind."""
    at, ids = datetime(2027, 1, 1, tzinfo=UTC), IdSource()
    millis = int(at.timestamp() * 1000)
    before, behind = ids.mint(millis - 1), ids.mint(millis)

    assert before < first_id(at) < behind


def test_views_of_sums_tell_what_records_tell(months: Ledger) -> None:
    """Cost, tokens and calls by day, and quantities by meter, for people who write SQL."""
    from_records = "SELECT count(*), sum(cost_pico) / 1e12, sum(input_total) FROM records"
    from_lines = "SELECT meter, sum(CAST(quantity AS numeric)) FROM record_lines GROUP BY 1"
    ids = IdSource()
    months.post(*(record_of(later(0), ids) for _ in range(5)))
    rollups = Rollups(months.engine)
    while rollups.follow():
        pass

    def ask(query: str) -> list[Any]:
        with months.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    for view in ("usage_by_hour", "usage_by_day"):
        told = ask(f"SELECT sum(calls), sum(cost), sum(input_tokens) FROM {view}")
        assert ask(from_records) == told
    by_meter = "SELECT meter, sum(quantity) FROM usage_by_day_and_meter GROUP BY 1"
    assert ask(from_lines) == ask(by_meter)
