"""The FOCUS export over HTTP."""

import csv
import io

from tests.contracts.records import make_record, make_unknown


def test_a_month_is_exported(world):
    """The body is the CSV that the command writes."""
    world.mailbox.waiting += [make_record(), make_record(), make_unknown()]
    answer = world.call("GET", "/exports/focus?month=2026-11&version=1.4")
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))

    assert answer.headers["content-type"].startswith("text/csv")
    assert "focus-1.4-2026-11.csv" in answer.headers["content-disposition"]
    assert [row["BilledCost"] for row in rows] == ["0.00125", "0.00125"]
    assert all(row["BillingCurrency"] == "USD" for row in rows)


def test_a_month_without_calls_is_a_header(world):
    """An empty export is a table without rows."""
    answer = world.call("GET", "/exports/focus?month=2020-01")

    assert answer.status_code == 200
    assert answer.text.startswith("BilledCost,")
    assert len(answer.text.splitlines()) == 1


def test_wrong_exports_are_refused(world):
    """What cannot be written says what can."""
    for query in ("month=2026-13", "month=soon", "month=2026-11&format=parquet", ""):
        assert world.call("GET", f"/exports/focus?{query}").status_code == 422
