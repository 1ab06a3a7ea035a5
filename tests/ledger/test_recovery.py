"""What becomes of a journal at start: open calls end, records reach the ledger."""

import zlib
from contextlib import closing

import pytest

from gateway.ledger.errors import JournalBroken
from gateway.ledger.journal import Journal
from gateway.ledger.record import LedgerRecord, Raised
from gateway.ledger.recovery import STOPPED_FLAG, end_aborted, rate_bound, recover
from gateway.ledger.segments import FRAME_HEAD
from tests.contracts.records import NOON_US, make_record
from tests.ledger.journal_kit import (
    MemorySink,
    descriptors_open,
    make_intent,
    newest_segment,
    read_journal,
    settle,
)

LATER_US = NOON_US + 90_000_000


def test_an_open_call_becomes_the_most_it_can_have_come_to():
    """An aborted record says everything the intent said, and bills the bound as an estimate."""
    intent = make_intent(user="ann")

    record = end_aborted(intent, LATER_US)

    assert record == LedgerRecord(
        id=intent.id,
        started_at_us=NOON_US,
        ended_at_us=LATER_US,
        outcome="aborted",
        http_status=None,
        stream=True,
        api="openai.chat",
        provider="openai",
        model_requested="gpt-5",
        model="gpt-5",
        organization="acme",
        team="search",
        project="rag",
        key="rag-ci",
        user="ann",
        tags={"env": "prod"},
        usage={"input": 1000, "output": 500},
        input_total=1000,
        output_total=500,
        basis="estimated",
        cost_pico=6_250_000_000,
        list_cost_pico=6_250_000_000,
        price_version="2026-11-23.1",
        cost_status="estimated",
        lines=rate_bound(intent),
        flags=(STOPPED_FLAG,),
        ceiling_pico=6_250_000_000,
        ceiling_tokens=1500,
        priced_as="openai",
        priced_model="gpt-5",
        tier="standard",
    )


def test_an_unbounded_call_is_unknown_and_never_zero():
    """Without a bound nothing is known: no usage, no totals, no cost."""
    record = end_aborted(make_intent(bound_usage={}), LATER_US)

    assert ("unknown", "unknown", None, None) == (
        record.basis,
        record.cost_status,
        record.cost_pico,
        record.list_cost_pico,
    )
    assert ({}, None, None, ()) == (
        record.usage,
        record.input_total,
        record.output_total,
        record.lines,
    )


def test_a_bounded_call_without_a_price_is_unpriced_and_never_free():
    """A bound that was not rated counts, and has no cost."""
    usage: dict[str, int | str] = {"cache_read_audio": 7, "reasoning": 5, "audio_second": "1.5"}
    record = end_aborted(make_intent(bound_usage=usage, bound_tier=""), LATER_US)

    assert ("estimated", "unpriced", None) == (record.basis, record.cost_status, record.cost_pico)
    assert (usage, 7, 5) == (record.usage, record.input_total, record.output_total)


def test_an_interrupted_call_is_named_as_the_provider_knows_it():
    """Also where that name begins like the provider's id, and where nothing behind it is priced."""
    asked = {"model_requested": "openai/m", "model_asked": "openai/m", "model_behind": "m"}
    record = end_aborted(make_intent(**asked, priced_model=""), LATER_US)

    assert ("openai/m", "m") == (record.model, record.priced_model)
    assert ("openai/m", "m") == (record.model_asked, record.model_behind)
    assert "gpt-5" == end_aborted(make_intent(model_asked=""), LATER_US).model


def test_a_clock_that_stepped_back_ends_no_call_before_it_began():
    """A record never ends before it started."""
    assert NOON_US == end_aborted(make_intent(), NOON_US - 5).ended_at_us


def test_every_call_has_exactly_one_record_after_recovery(tmp_path):
    """Settled calls keep their record, open calls get one, and the ledger holds all of them."""
    done, left, refused = make_intent(), make_intent(), make_record(outcome="refused")
    with closing(Journal.open(tmp_path)) as journal:
        journal.append_intent(done)
        journal.append_intent(left)
        settled = journal.append_record(settle(done))
        refused = journal.append_record(refused)
    with newest_segment(tmp_path).open("ab") as file:
        file.write(b"torn")
    sink = MemorySink()
    journal, report = recover(tmp_path, sink, now_us=LATER_US)
    with closing(journal):
        assert () == journal.open_intents()
        assert [settled, refused] == list(sink.records.values())[:2]
        assert [left.id] == [r.id for r in sink.records.values() if r.outcome == "aborted"]
        assert [1, 2, 3] == sink.seqs(journal.writer)
        assert (1, 3, 4, (), None) == (
            report.aborted,
            report.records_shipped,
            report.torn_bytes,
            report.damaged_files,
            report.store_trouble,
        )


def test_a_call_that_more_was_held_for_is_booked_at_the_last_hold(tmp_path):
    """The intent written last holds, also in a later segment; a call that ended is left alone."""
    raised = Raised(
        ceiling_pico=11_250_000_000,
        ceiling_tokens=2000,
        bound_usage={"input": 1000, "output": 1000},
        bound_tier="standard",
        bound_region=None,
        bound_variants={},
    )
    intent, ended = make_intent(), make_intent()
    with closing(Journal.open(tmp_path, segment_bytes_max=2000)) as journal:
        journal.append_intent(intent)
        journal.append_intent(ended)
        journal.raise_intent(intent.id, raised)
        journal.append_record(settle(ended))
        journal.raise_intent(ended.id, raised)
        for _ in range(20):
            journal.append_record(make_record())
        assert journal.position().segment > 1

    sink = MemorySink()
    journal, report = recover(tmp_path, sink, now_us=LATER_US)
    journal.close()
    aborted = [record for record in sink.records.values() if record.outcome == "aborted"]

    assert 1 == report.aborted
    assert [(intent.id, 11_250_000_000, 2000)] == [
        (one.id, one.cost_pico, one.ceiling_tokens) for one in aborted
    ]


def test_recovery_is_harmless_when_repeated(tmp_path):
    """A second start finds nothing to do and changes nothing."""
    with closing(Journal.open(tmp_path)) as journal:
        journal.append_intent(make_intent())
    sink = MemorySink()
    recover(tmp_path, sink, now_us=LATER_US)[0].close()
    entries, records = read_journal(tmp_path), dict(sink.records)
    journal, report = recover(tmp_path, sink, now_us=LATER_US, fsync="full")
    journal.close()

    assert (0, 0) == (report.aborted, report.records_shipped)
    assert (entries, records) == (read_journal(tmp_path), sink.records)


def test_a_ledger_that_is_down_does_not_keep_the_gateway_from_starting(tmp_path):
    """Open calls end in the journal; the ledger gets everything at a later start."""
    intent = make_intent()
    with closing(Journal.open(tmp_path)) as journal:
        journal.append_intent(intent)
    sink = MemorySink()
    sink.is_up = False
    journal, report = recover(tmp_path, sink, now_us=LATER_US)
    journal.close()
    assert (1, 0, "the ledger is down") == (
        report.aborted,
        report.records_shipped,
        report.store_trouble,
    )
    assert {} == sink.records
    sink.is_up = True
    journal, report = recover(tmp_path, sink, now_us=LATER_US)
    journal.close()

    assert (0, 1, None) == (report.aborted, report.records_shipped, report.store_trouble)
    assert ["aborted"] == [record.outcome for record in sink.records.values()]
    assert LATER_US == sink.records[intent.id].ended_at_us


def test_what_is_damaged_is_reported_and_the_rest_is_shipped(tmp_path):
    """Damage in the middle costs the entry it hits; every other record reaches the ledger."""
    with closing(Journal.open(tmp_path)) as journal:
        records = [journal.append_record(make_record()) for _ in range(5)]
        end = journal.position().offset
    with newest_segment(tmp_path).open("r+b") as file:
        file.seek(end // 2)
        file.write(b"\0")
    sink = MemorySink()
    journal, report = recover(tmp_path, sink, now_us=LATER_US)
    with closing(journal):
        assert [r for r in records if r.seq != 3] == list(sink.records.values())
        assert (tmp_path / "00000001.tmj.damaged",) == report.damaged_files
        assert 6 == journal.append_record(make_record()).seq
    journal, report = recover(tmp_path, sink, now_us=LATER_US)
    journal.close()

    assert () == report.damaged_files
    assert (tmp_path / "00000001.tmj.damaged").exists()


def test_a_recovery_that_fails_lets_the_directory_go(tmp_path):
    """An open call of another version stops the start, which can be repeated at once."""
    Journal.open(tmp_path).close()
    payload = b'{"type":"intent","id":"01JAB"}'
    with newest_segment(tmp_path).open("ab") as file:
        file.write(FRAME_HEAD.pack(len(payload), zlib.crc32(payload)) + payload)
    before = descriptors_open()
    for _ in range(2):
        with pytest.raises(JournalBroken, match="not known"):
            recover(tmp_path, MemorySink(), now_us=LATER_US)

    assert before == descriptors_open()
