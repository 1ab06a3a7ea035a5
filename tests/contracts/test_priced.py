"""How much was counted at each price, on both databases."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from gateway.clock import epoch_us
from pricing.months import Span
from tests.contracts.records import make_line, make_record

DAY = timedelta(days=1)
START = datetime(2026, 11, 1, tzinfo=UTC)


def call(days, *lines):
    """One call that began that many days after the start."""
    at = epoch_us(START + days * DAY)
    usage = {line.meter: line.quantity for line in lines}
    return make_record(started_at_us=at, ended_at_us=at, lines=lines, usage=usage)


def test_quantities_are_added_up_by_price(ledger):
    """Whole ones and fractions, exactly, from the first instant to before the last."""
    lines = [make_line("input", quantity) for quantity in ("100", "7", "5")]
    ledger.post(
        call(-1, lines[2]),
        call(0, lines[0], make_line("audio_second", "0.1")),
        call(3, lines[1], make_line("audio_second", "0.2")),
        call(9, lines[2]),
    )
    days = []
    span = Span(START, START + 9 * DAY)

    found = ledger.queries.sum_priced(span, lambda: days.append(1))

    assert {
        lines[0].price_id: 107,
        make_line("audio_second").price_id: Decimal("0.3"),
    } == found
    assert 9 == len(days)


def test_an_empty_ledger_has_counted_nothing(ledger):
    """Nor does it take a step for each day of years."""
    assert {} == ledger.queries.sum_priced(Span(START, START + 900 * DAY), lambda: None)
