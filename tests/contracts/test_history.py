"""What calls of a model used lately, the same on every database, and never a whole ledger read."""

import pytest
from sqlalchemy import event

from gateway.ledger import history
from gateway.ledger.history import NO_HISTORY, CallHistory, HistoryQuery
from pricing.meters import Meter
from tests.contracts.records import (
    DAY_US,
    NOON_US,
    SECOND_US,
    make_record,
    make_refused,
    make_unknown,
)


def spoken(n=0, **changes):
    """A call of n seconds after noon: 80 plain and 20 cached tokens in, 5 and 3 out."""
    fields = {
        "started_at_us": NOON_US + n * SECOND_US,
        "usage": {"input": 80, "cache_read": 20, "output": 5, "reasoning": 3, "web_search": 2},
        "input_total": 100,
        "output_total": 8,
        "lines": (),
    }
    return make_record(**{**fields, **changes})


def wanted(**changes):
    """All calls of gpt-5 at the provider openai, in the day around noon."""
    fields = {
        "providers": frozenset({"openai"}),
        "models": frozenset({"gpt-5", "gpt-5-2025-08-07"}),
        "from_us": NOON_US - DAY_US // 2,
        "to_us": NOON_US + DAY_US // 2,
    }
    return HistoryQuery(**{**fields, **changes})


def test_an_empty_ledger_has_no_history(ledger):
    """Nothing is known, and no number pretends otherwise."""
    assert NO_HISTORY == ledger.queries.history(wanted())


def test_tokens_are_added_up_meter_by_meter(ledger):
    """Both directions apart, with the span they rest on; what is not tokens is left out."""
    ledger.post(spoken(5), spoken(-7, usage={"input": 10, "output": 1}))

    assert CallHistory(
        records=2,
        first_us=NOON_US - 7 * SECOND_US,
        last_us=NOON_US + 5 * SECOND_US,
        input_counts={Meter.INPUT: 90, Meter.CACHE_READ: 20},
        output_counts={Meter.OUTPUT: 6, Meter.REASONING: 3},
    ) == ledger.queries.history(wanted())


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({}, 1),
        ({"model": "gpt-5-2025-08-07"}, 1),
        ({"model": "gpt-5-2031-01-01", "model_requested": "openai/gpt-5"}, 1),
        ({"basis": "estimated"}, 1),
        ({"model": "gpt-4o", "model_requested": "gpt-4o"}, 0),
        ({"provider": "azure"}, 0),
        ({"provider": None}, 0),
        ({"outcome": "client_disconnected"}, 0),
        ({"basis": "none", "usage": {}}, 0),
        ({"corrects": "01J"}, 0),
        ({"started_at_us": NOON_US - DAY_US}, 0),
        ({"started_at_us": NOON_US + DAY_US // 2}, 0),
    ],
    ids=str,
)
def test_only_finished_counted_calls_of_the_model_tell_what_is_usual(ledger, changes, counted):
    """A call that broke off, was corrected or is another model's says nothing."""
    ledger.post(spoken(**changes), make_unknown(), make_refused())

    assert counted == ledger.queries.history(wanted()).records


@pytest.mark.parametrize(
    ("whose", "counted"),
    [
        ({}, 4),
        ({"organization": "acme"}, 3),
        ({"organization": "acme", "team": "search"}, 2),
        ({"organization": "acme", "team": "search", "project": "rag"}, 1),
        ({"project": "rag"}, 1),
        ({"team": "nobody"}, 0),
    ],
    ids=str,
)
def test_history_is_of_whom_it_is_asked_for(ledger, whose, counted):
    """Everything given must match."""
    ledger.post(
        spoken(),
        spoken(project="other"),
        spoken(team="ads", project="banner"),
        spoken(organization="elsewhere", team="x", project="y"),
    )

    assert counted == ledger.queries.history(wanted(**whose)).records


def test_the_newest_calls_count(ledger):
    """However many there are, a bounded number of rows is taken."""
    extra = 3
    calls = [spoken(n, usage={"output": n}) for n in range(history.RECORDS_MAX + extra)]
    ledger.post(*calls)
    found = ledger.queries.history(wanted())

    assert found.records == history.RECORDS_MAX
    assert found.first_us == calls[extra].started_at_us
    assert found.output_counts == {Meter.OUTPUT: sum(range(extra, len(calls)))}


def test_the_ledger_is_read_along_an_index_and_not_to_its_end(ledger):
    """One statement with two limits, which no sort stands in the way of."""
    seen = []
    event.listen(
        ledger.engine,
        "before_cursor_execute",
        lambda _c, _cursor, text, values, *_: seen.append((text, values)),
    )
    ledger.queries.history(wanted(team="search", project="rag"))
    (statement, values) = next(row for row in seen if "records" in row[0])

    assert statement.upper().count("LIMIT") == 2
    assert {history.SCANNED_MAX, history.RECORDS_MAX} <= set(
        values.values() if isinstance(values, dict) else values
    )
    if ledger.engine.dialect.name == "sqlite":
        with ledger.engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
        assert any("ix_records_team_started_at_us" in row[-1] for row in plan), plan
