"""ledger export, verify and show, and what budgets status reads: with and without a gateway."""

import json
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.clock import SystemClock
from gateway.commands.catch_up import wait_for_owner
from gateway.ledger.journal import Journal
from gateway.ledger.migrate import upgrade
from gateway.ledger.record import Intent, LedgerLine, LedgerRecord
from gateway.ledger.shipper import Shipper
from gateway.ledger.store import LedgerStore, open_engine
from tests.cli.shell import Shell

# 2026-11-23T10:33:20Z.
AT_US = 1_795_430_000_000_000
OPEN_ID = "01JDC4Q8V6C1Y3W9S5N7T2BZZZ"


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def record(number: int, team: str = "search") -> LedgerRecord:
    line = LedgerLine(
        sku="openai/gpt-5/input",
        price_id="openai/gpt-5/input/standard",
        meter="input",
        quantity="1000",
        unit_price="1.25",
        per=1_000_000,
        list_cost_pico=1_250_000_000,
        cost_pico=1_250_000_000,
    )
    return LedgerRecord(
        id=record_id(number),
        started_at_us=AT_US + number,
        ended_at_us=AT_US + number + 1,
        outcome="ok",
        http_status=200,
        stream=False,
        api="openai.chat",
        provider="openai",
        model_requested="gpt-5",
        model="gpt-5",
        organization="default",
        team=team,
        project="rag",
        key="ci",
        tags={"env": "prod"},
        usage={"input": 1000},
        input_total=1000,
        output_total=0,
        basis="reported",
        cost_pico=1_250_000_000,
        list_cost_pico=1_250_000_000,
        price_version="2026-11-23.1",
        cost_status="final",
        lines=(line,),
    )


def record_id(number: int) -> str:
    return f"01JDC4Q8V6C1Y3W9S5N7T2B{number:03d}"


def open_intent() -> Intent:
    return Intent(
        id=OPEN_ID,
        started_at_us=AT_US,
        stream=True,
        api="openai.chat",
        provider="openai",
        model_requested="gpt-5",
        organization="default",
        team="search",
        project="rag",
        key="ci",
        price_version="2026-11-23.1",
        ceiling_pico=5 * 10**12,
        ceiling_tokens=100,
    )


@pytest.fixture
def journal(shell):
    """The journal of a gateway that runs, with three records and a call under way."""
    journal = Journal.open(shell.folder / "data" / "journal")
    for number in range(3):
        journal.append_record(record(number, team="search" if number else "ads"))
    journal.append_intent(open_intent())
    yield journal
    if journal.failure is None:
        journal.close()


@pytest.fixture
def ledger(shell):
    (shell.folder / "data").mkdir(exist_ok=True)
    engine = open_engine(database_url(shell.folder))
    upgrade(engine)
    yield engine
    engine.dispose()


def database_url(folder: Path) -> str:
    return f"sqlite:///{folder}/data/taximeter.db"


def exported(shell: Shell, *more: str) -> list[dict]:
    answer = shell.run("ledger", "export", *more)
    assert answer.code == 0, answer.err
    return [json.loads(line) for line in answer.out.splitlines()]


def test_an_export_ships_what_a_stopped_gateway_left(shell, journal):
    """Records in the journal are not forgotten, and calls that never ended are there as aborted."""
    journal.close()

    records = exported(shell)

    assert {row["id"]: row["outcome"] for row in records} == {
        record_id(0): "ok",
        record_id(1): "ok",
        record_id(2): "ok",
        OPEN_ID: "aborted",
    }
    assert records == exported(shell)


def test_an_export_is_filtered(shell, journal):
    """Times are half-open; scope and tags must match."""
    journal.close()

    assert len(exported(shell, "--team", "ads")) == 1
    assert len(exported(shell, "--tag", "env=prod", "--outcome", "ok")) == 3
    assert len(exported(shell, "--tag", "env=dev")) == 0
    assert len(exported(shell, "--from", "2026-11-23T10:33:20Z", "--to", "2026-11-24")) == 4
    assert len(exported(shell, "--to", "2026-11-23T10:33:20Z")) == 0


def test_a_file_is_written_whole(shell, journal):
    """CSV with a heading; no partial file stays behind."""
    journal.close()

    answer = shell.run("ledger", "export", "--format", "csv", "--out", "out.csv")

    assert (answer.code, answer.out) == (0, "")
    assert "4 records written to out.csv" in answer.err
    lines = (shell.folder / "out.csv").read_text().splitlines()
    assert lines[0].startswith("id,started_at,")
    assert len(lines) == 5
    assert not list(shell.folder.glob(".*partial"))
    assert shell.run("ledger", "export", "--out", "no/such/dir.csv").code == 1


def test_an_export_waits_for_the_gateway_that_owns_the_journal(shell, journal, ledger):
    """Everything journalled before the command is in the export, although another process ships."""
    shipper = Shipper(journal, LedgerStore(ledger), SystemClock())
    shipper.start()
    try:
        records = exported(shell)
    finally:
        shipper.stop()

    assert [row["id"] for row in records] == [record_id(0), record_id(1), record_id(2)]


def test_a_gateway_that_does_not_ship_is_not_waited_for_forever(journal, ledger):
    """The answer is no once the time is up, and yes once the records are there."""
    store = LedgerStore(ledger)
    folder = journal.extents()[0].path.parent

    assert wait_for_owner(folder, store, SystemClock(), wait_s_max=0.0) is False

    late = threading.Timer(0.1, Shipper(journal, store, SystemClock()).ship_pending)
    late.start()
    assert wait_for_owner(folder, store, SystemClock()) is True
    late.join()


def test_a_ledger_nobody_touched_is_intact(shell, journal):
    """Exit 0 with the number of records checked."""
    journal.close()

    answer = shell.run("ledger", "verify")

    assert (answer.code, answer.out) == (
        0,
        "intact: 4 records in 1 journals, every hash recomputed\n",
    )


def test_a_changed_record_is_found(shell, journal):
    """Whoever can drop the triggers still cannot forge the chain, nor the arithmetic."""
    journal.close()
    assert shell.run("ledger", "verify").code == 0
    engine = open_engine(database_url(shell.folder))
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER record_lines_refuse_update"))
        connection.execute(
            text("UPDATE record_lines SET cost_pico = 1 WHERE record_id = :id"),
            {"id": record_id(1)},
        )
    engine.dispose()

    verified = shell.run("ledger", "verify", "--json")
    shown = shell.run("ledger", "show", record_id(1))

    assert (verified.code, shown.code) == (1, 1)
    (problem,) = json.loads(verified.out)["problems"]
    assert (problem["kind"], problem["record_id"]) == ("changed", record_id(1))
    assert "input: 0.00125 derived, 0.000000000001 booked" in shown.err


def test_sums_of_usage_are_checked_and_made_again(shell, journal):
    """A sum that is not what the records make is told with both, and mended from the records."""
    journal.close()
    fresh = shell.run("ledger", "rollups", "check")
    assert (fresh.code, fresh.out) == (0, "the sums of 1 days are what the records make\n")
    engine = open_engine(database_url(shell.folder))
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE usage_rollups SET requests = 9 WHERE view = 'plain.day' AND requests > 0")
        )
    engine.dispose()

    told = shell.run("ledger", "rollups", "check")
    checked = shell.run("ledger", "rollups", "check", "--json")
    rebuilt = shell.run("ledger", "rollups", "rebuild", "--json")
    again = shell.run("ledger", "rollups", "check")

    assert (told.code, checked.code, rebuilt.code, again.code) == (1, 1, 0, 0)
    assert "plain.day" in told.out
    assert "taximeter ledger rollups rebuild" in told.err
    found = json.loads(checked.out)
    assert found["ok"] is False
    assert {9} == {one["kept"]["requests"] for one in found["differences"]}
    assert {"ok": True, "days": 1} == json.loads(rebuilt.out)


def test_a_record_shows_how_its_cost_came_about(shell, journal):
    """Quantity times price by per, worked out again beside what was booked."""
    journal.close()

    shown = shell.run("ledger", "show", record_id(2))
    plain = json.loads(shell.run("ledger", "show", record_id(2), "--json").out)

    assert shown.code == 0
    assert "1000 x 1.25 / 1000000  0.00125  0.00125" in shown.out
    assert plain["cost"] == "0.00125"
    assert "price book 2026-11-23.1 says the same of every line" in shown.out
    derived = plain["derived"]
    assert (derived["ok"], derived["problems"]) == (True, [])
    (line,) = derived["lines"]
    assert ("1.25", "1000000", "0.00125", None) == (
        *(line[name] for name in ("unit_price", "per", "cost", "override")),
    )
    assert line["source"].startswith("https://")
    assert shell.run("ledger", "show", "01NOBODY").code == 1


def test_a_budget_counts_what_the_journal_holds(shell, journal):
    """Spent is the two settled records; the call that never ended counts at its ceiling."""
    (shell.folder / "taximeter.yaml").write_text(
        "budgets: [{id: all-time, scope: {team: search}, limit: 10 USD, window: total}]\n"
    )
    journal.close()

    status = json.loads(shell.run("budgets", "status", "all-time", "--json").out)
    table = shell.run("budgets", "status")

    assert (status["spent"], status["parked"], status["remaining"]) == ("5.0025", "5", "4.9975")
    assert status["window_end"] is None
    assert "[##########..........]  50%" in table.out
    assert "5 USD of it is the ceiling of calls of unknown cost" in table.err


def test_doctor_explains_a_journal(shell, journal):
    """A running gateway is recognised; a stopped one's open calls are explained."""
    running = shell.run("doctor")
    journal.close()
    stopped = shell.run("doctor")

    assert "4 entries; a running gateway owns it" in running.out
    assert "calls were open" not in running.out
    assert "1 calls were open when the gateway stopped" in stopped.out
    assert stopped.code == 0


def test_doctor_says_where_a_journal_is_damaged(shell, journal):
    """By file and byte, with what becomes of the rest; nothing is changed by looking."""
    journal.close()
    (segment,) = (shell.folder / "data" / "journal").glob("*.tmj")
    content = bytearray(segment.read_bytes())
    second = content.index(b'{"type":"', content.index(b'{"type":"') + 1)
    content[second + 20] ^= 255
    segment.write_bytes(content)

    told = shell.run("doctor")

    assert "1 segments of format 1, 3 entries" in told.out
    assert f"bytes are no entry, from byte {second - 8}" in told.out
    assert "records around it are saved at the next start" in told.out
    assert bytes(content) == segment.read_bytes()


def test_doctor_knows_a_journal_of_another_format(shell, journal):
    """Its first line says so; nothing in it is taken for a record of this version."""
    journal.close()
    (segment,) = (shell.folder / "data" / "journal").glob("*.tmj")
    content = segment.read_bytes().replace(b"taximeter-journal 1 ", b"taximeter-journal 9 ", 1)
    segment.write_bytes(content)

    told = shell.run("doctor")

    assert "from byte 0" in told.out
    assert "it does not begin as format 1 does: a newer taximeter can have written it" in told.out
