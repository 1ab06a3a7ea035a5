"""The FOCUS export charges what the ledger holds, exactly, on both databases."""

import csv
import io
import json
from collections import Counter
from decimal import Decimal

import pytest

from gateway.ledger.csv_file import write_csv
from gateway.ledger.focus import focus_columns, to_focus, to_focus_cells
from gateway.ledger.record import LedgerLine
from tests.contracts.records import DAY_US, make_line, make_record, make_unknown

MONTH_US = 1_793_491_200_000_000  # 2026-11-01T00:00:00Z
NEXT_US = MONTH_US + 30 * DAY_US
PERIOD = (MONTH_US, NEXT_US)


def charges(ledger, version="1.2", period=PERIOD):
    """Export a month and read it back."""
    out = io.BytesIO()
    rows = to_focus(ledger.queries.stream_charged(*period), version, period)
    write_csv(list(focus_columns(version)), map(to_focus_cells, rows), out)
    return list(csv.DictReader(io.StringIO(out.getvalue().decode(), newline="")))


def two_lines(**changes):
    """Make a call with a cached and a plain line, the second at a negotiated price."""
    lines = (
        make_line("cache_read", "700000", 87_500_000_000, unit_price="0.125"),
        LedgerLine(
            sku="openai/gpt-5/output",
            price_id="openai/gpt-5/output/standard",
            meter="output",
            quantity="88231",
            unit_price="9",
            per=1_000_000,
            list_cost_pico=882_310_000_000,
            cost_pico=794_079_000_000,
        ),
    )
    total = sum(line.cost_pico for line in lines)
    return make_record(lines=lines, cost_pico=total, tier="standard", **changes)


def test_each_line_is_a_charge_with_its_price(ledger):
    """Unit price times quantity is the cost, by list and by contract."""
    ledger.post(two_lines(tags={"env": "prod"}, user="=evil"))
    cached, out = charges(ledger)

    assert cached["BilledCost"] == cached["ListCost"] == "0.0875"
    assert (out["ContractedUnitPrice"], out["ListUnitPrice"]) == ("9.0", "10.0")
    assert (out["BilledCost"], out["ListCost"]) == ("0.794079", "0.88231")
    assert (out["ConsumedQuantity"], out["ConsumedUnit"]) == ("88231.0", "Tokens")
    assert (out["PricingQuantity"], out["PricingUnit"]) == ("0.088231", "1000000 Tokens")
    for row in (cached, out):
        quantity = Decimal(row["PricingQuantity"])
        assert Decimal(row["ListUnitPrice"]) * quantity == Decimal(row["ListCost"])
        assert Decimal(row["ContractedUnitPrice"]) * quantity == Decimal(row["ContractedCost"])
    assert json.loads(cached["SkuPriceDetails"]) == {
        "x_ModelId": "gpt-5",
        "x_ServiceTier": "standard",
        "x_TokenCacheAction": "Read",
        "x_TokenDirection": "Input",
    }
    assert json.loads(out["Tags"]) == {"env": "prod", "project": "rag", "team": "search"}
    assert out["SkuMeter"] == "Output Tokens"
    assert (out["ChargePeriodStart"], out["ChargePeriodEnd"]) == (
        "2026-11-23T12:00:00Z",
        "2026-11-23T13:00:00Z",
    )
    assert (out["BillingPeriodStart"], out["BillingPeriodEnd"]) == (
        "2026-11-01T00:00:00Z",
        "2026-12-01T00:00:00Z",
    )
    assert (out["ChargeCategory"], out["ChargeClass"], out["InvoiceId"]) == ("Usage", "", "")


def test_charges_of_all_months_come_to_the_ledger(ledger):
    """Nothing is charged twice or in no month, corrections included."""
    call = two_lines(started_at_us=MONTH_US + DAY_US, ended_at_us=MONTH_US + DAY_US)
    line = make_line("output", "-10", -1_000)
    soon = {"corrects": call.id, "started_at_us": call.started_at_us, "lines": (line,)}
    ledger.post(
        call,
        make_record(**soon, cost_pico=-1_000, ended_at_us=NEXT_US - 1),
        make_record(**soon, cost_pico=-1_000, ended_at_us=NEXT_US + DAY_US),
        make_record(started_at_us=NEXT_US, ended_at_us=NEXT_US),
        make_unknown(started_at_us=MONTH_US),
    )
    months = [charges(ledger), charges(ledger, period=(NEXT_US, NEXT_US + 31 * DAY_US))]
    sums = [sum(Decimal(row["BilledCost"]) for row in rows) for rows in months]
    classes = [Counter(row["ChargeClass"] for row in rows) for rows in months]

    assert sum(sums) * 10**12 == call.cost_pico - 2_000 + 1_250_000_000
    assert classes == [{"": 3}, {"": 1, "Correction": 1}]
    (late,) = [row for row in months[1] if row["ChargeClass"]]
    assert late["ChargePeriodStart"].startswith("2026-11-02")
    assert late["BillingPeriodStart"] == "2026-12-01T00:00:00Z"


@pytest.mark.parametrize(
    ("version", "there", "gone"),
    [
        ("1.2", "ProviderName", "ServiceProviderName"),
        ("1.4", "ServiceProviderName", "ProviderName"),
    ],
)
def test_columns_are_those_of_the_version(ledger, version, there, gone):
    """1.4 renames who sells and who hosts; own columns come last and say so."""
    ledger.post(make_record())
    (row,) = charges(ledger, version)
    own = [name for name in row if name.startswith("x_")]

    assert there in row
    assert gone not in row
    assert list(row)[-len(own) :] == own


def test_a_long_export_reads_in_batches(ledger):
    """Every record is there once, however many there are."""
    ledger.post(*(make_record() for _ in range(1203)))

    assert len({row["x_RecordId"] for row in charges(ledger)}) == 1203
