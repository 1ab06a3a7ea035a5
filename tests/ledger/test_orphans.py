"""Journals of several workers: one owner each, and none that is left to itself stays full."""

import os
from contextlib import closing

import pytest

from gateway.ledger.errors import JournalInUse
from gateway.ledger.journal import Journal
from gateway.ledger.orphans import Orphans, claim, worker_journals
from gateway.ledger.recovery import recover
from tests.contracts.records import NOON_US
from tests.ledger.journal_kit import MemorySink, make_intent

LATER_US = NOON_US + 1


@pytest.fixture
def sink():
    """The ledger."""
    return MemorySink()


@pytest.fixture
def take_over(sink):
    """Recovers a journal into the ledger."""
    return lambda folder: recover(folder, sink, now_us=LATER_US)


def leave_open_call(folder, call_id):
    """A journal whose owner died with a call under way."""
    with closing(Journal.open(folder)) as journal:
        journal.append_intent(make_intent(id=call_id))


def test_each_worker_takes_the_first_journal_that_is_free(tmp_path, take_over):
    """Two at once get two; who comes after one has gone gets that one's."""
    first, _ = claim(tmp_path, take_over)
    second, _ = claim(tmp_path, take_over)
    assert first.writer != second.writer
    first.close()
    third, _ = claim(tmp_path, take_over)

    assert [tmp_path / "worker-1", tmp_path / "worker-2"] == list(worker_journals(tmp_path))
    second.close()
    third.close()


def test_the_successor_of_a_dead_worker_ends_its_calls(tmp_path, sink, take_over):
    """At its start, before its own first call."""
    leave_open_call(tmp_path / "worker-1", "a")

    journal, report = claim(tmp_path, take_over)
    journal.close()

    assert 1 == report.aborted
    assert ["aborted"] == [record.outcome for record in sink.records.values()]


def test_a_journal_without_owner_is_swept_and_a_live_one_let_alone(tmp_path, sink, take_over):
    """Once: what is empty is not opened again, unless somebody has owned it since."""
    reports = []
    retired: list[str] = []
    orphans = Orphans(tmp_path, take_over, reports.append, retired.append)
    live, _ = claim(tmp_path, take_over)
    live.append_intent(make_intent(id="live"))
    leave_open_call(tmp_path / "worker-2", "a")

    assert orphans.sweep()
    assert orphans.sweep()
    assert [1] == [report.aborted for report in reports]
    leave_open_call(tmp_path / "worker-2", "b")
    assert orphans.sweep()
    assert [1, 1] == [report.aborted for report in reports]
    assert ["a", "b"] == [record.id for record in sink.records.values()]
    assert 2 == len(retired)
    assert live.writer not in retired
    orphans.close()
    live.close()


def test_whoever_counts_alone_waits_for_workers_that_still_work(tmp_path, sink, take_over):
    """Journals of the dead are emptied; a live one is refused, as nobody would count its calls."""
    orphans = Orphans(tmp_path, take_over, lambda _: None, lambda _: None)
    leave_open_call(tmp_path / "worker-1", "a")

    orphans.inherit()
    assert ["a"] == [record.id for record in sink.records.values()]
    live, _ = claim(tmp_path, take_over)
    with pytest.raises(JournalInUse):
        orphans.inherit()
    live.close()
    orphans.inherit()
    orphans.close()


def test_who_is_gone_leaves_the_list_only_with_everything_shipped(tmp_path, sink, take_over):
    """And while nobody else can have taken the journal over."""
    leave_open_call(tmp_path / "worker-1", "a")
    owners: list[str] = []

    def retire(writer: str) -> None:
        with pytest.raises(JournalInUse):
            Journal.open(tmp_path / "worker-1")
        owners.append(writer)

    orphans = Orphans(tmp_path, take_over, lambda _: None, retire)
    sink.is_up = False
    assert not orphans.sweep()
    assert [] == owners
    sink.is_up = True
    assert orphans.sweep()
    assert 1 == len(owners)
    orphans.close()


def test_one_process_sweeps_at_a_time(tmp_path, take_over):
    """The next one does once the first has gone."""
    leave_open_call(tmp_path / "worker-1", "a")
    one, other = (Orphans(tmp_path, take_over, lambda _: None, lambda _: None) for _ in range(2))

    assert one.sweep()
    assert not other.sweep()
    one.close()
    assert other.sweep()
    other.close()


def test_what_the_ledger_did_not_take_is_tried_again(tmp_path, sink, take_over):
    """An outage leaves the journal as it is: full, and on the list."""
    leave_open_call(tmp_path / "worker-1", "a")
    orphans = Orphans(tmp_path, take_over, lambda _: None, lambda _: None)
    sink.is_up = False

    assert not orphans.sweep()
    sink.is_up = True
    assert orphans.sweep()
    assert ["a"] == [record.id for record in sink.records.values()]
    orphans.close()


def test_nothing_is_made_where_there_are_no_workers(tmp_path, take_over):
    """A gateway that is one process has no such folders."""
    orphans = Orphans(tmp_path / "journal", take_over, lambda _: None, lambda _: None)

    assert orphans.sweep()
    assert [] == os.listdir(tmp_path)
