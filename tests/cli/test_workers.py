"""taximeter workers, on a real database."""

import json
from contextlib import closing

import pytest
from sqlalchemy import select

from gateway.clock import SystemClock, epoch_us
from gateway.ledger.journal import Journal
from gateway.ledger.store import open_engine
from gateway.ledger.workers import Workers
from gateway.tables import records
from tests.cli.shell import Shell
from tests.ledger.journal_kit import make_intent

DAY_US = 86_400 * 1_000_000


@pytest.fixture
def shell(tmp_path):
    """A folder with a database and no settings file."""
    return Shell(tmp_path)


def test_a_gateway_that_is_gone_is_retired_once(shell):
    """One that was seen a moment ago is not; nor is one that nobody knows."""
    assert shell.run("teams", "create", "search").code == 0
    now_us = epoch_us(SystemClock().now())
    engine = open_engine(f"sqlite:///{shell.folder}/data/taximeter.db")
    workers = Workers(engine)
    workers.register("w-old", 7, now_us - DAY_US)
    workers.register("w-new", 0, now_us)
    engine.dispose()

    elsewhere = shell.run("workers", "retire", "w-old")
    retired = shell.run("workers", "retire", "w-old", "--lost")
    again = shell.run("workers", "retire", "w-old")
    too_soon = shell.run("workers", "retire", "w-new")
    unknown = shell.run("workers", "retire", "w-none")

    assert (0, "worker w-old retired\n") == (retired.code, retired.out)
    assert 1 == elsewhere.code
    assert "say --lost" in elsewhere.err
    assert [1, 1, 1] == [again.code, too_soon.code, unknown.code]
    assert "w-old has gone already" in again.err
    assert "stop it first" in too_soon.err
    assert "there is no worker w-none" in unknown.err
    rows = json.loads(shell.run("workers", "list", "--json").out)
    assert [("w-new", True), ("w-old", False)] == [
        (row["worker"], row["retired_at"] is None) for row in rows
    ]
    assert "w-old" in shell.run("workers", "list").out


@pytest.mark.parametrize("place", ["journal", "journal/worker-1"])
def test_what_a_gateway_held_is_booked_before_it_is_retired(shell, place):
    """One that hangs holds its journal, and is refused; once it is gone its open call is booked."""
    assert shell.run("teams", "create", "search").code == 0
    engine = open_engine(f"sqlite:///{shell.folder}/data/taximeter.db")
    intent = make_intent()
    with closing(Journal.open(shell.folder / "data" / place)) as journal:
        Workers(engine).register(journal.writer, 0, epoch_us(SystemClock().now()) - DAY_US)
        journal.append_intent(intent)
        hanging = shell.run("workers", "retire", journal.writer, "--lost")
        writer = journal.writer
    retired = shell.run("workers", "retire", writer)

    assert 1 == hanging.code
    assert "end that process first" in hanging.err
    assert (0, f"worker {writer} retired\n") == (retired.code, retired.out)
    with engine.connect() as connection:
        rows = connection.execute(select(records.c.id, records.c.outcome, records.c.cost_pico))
        assert [(intent.id, "aborted", intent.ceiling_pico)] == [tuple(row) for row in rows]
    engine.dispose()
