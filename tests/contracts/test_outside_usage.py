"""Usage without a journal joins the ledger once, on both databases, and budgets count it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.budgets.rules import Unit
from gateway.clock import SystemClock
from gateway.directory import Directory
from gateway.ingest.booking import Bookings
from gateway.ingest.usage import OutsideUsage, Owner
from gateway.ledger.corrected import CORRECTIONS
from gateway.settings import Settings
from pricing.book import load_book
from tests.contracts.records import HOUR_US, NOON_US, make_record


@pytest.fixture
def bookings(ledger):
    """Book on a ledger without any team."""
    settings = Settings.model_validate({})
    book = load_book(providers=["openai"])
    return Bookings(
        engine=ledger.engine,
        directory=Directory(ledger.engine, settings),
        settings=settings,
        find_book=lambda _: book,
        clock=SystemClock(),
    )


def told(number: int, **changes: object) -> OutsideUsage:
    """Tell of a call."""
    fields: dict[str, Any] = {
        "source": "job",
        "id": f"{number}",
        "api": "ingest.cloudevents",
        "started_at_us": NOON_US - HOUR_US,
        "ended_at_us": NOON_US - HOUR_US,
        "provider": "openai",
        "model_requested": "gpt-5",
        "counts": {"input": 1000, "output": 100},
        "owner": Owner(),
    }
    return OutsideUsage(**{**fields, **changes})


def test_events_join_the_chain_once(ledger, bookings):
    """Told twice, in one batch or in two, they are one record, and the chain is whole."""
    ledger.post(make_record())
    first = bookings.book([told(1), told(2), told(1)], None)
    again = bookings.book([told(2), told(1)], None)

    assert len(first.records) == 2
    assert first.replayed == 1
    assert again.records == ()
    assert again.replayed == 2
    assert again.outcomes == (first.outcomes[1], first.outcomes[0])
    assert ledger.count("records") == 3
    assert list(ledger.queries.verify()) == []


def test_the_same_event_told_by_many_at_once_is_one_record(ledger, bookings):
    """Whoever comes second waits, and finds what the first one booked."""
    with ThreadPoolExecutor(8) as pool:
        intakes = list(pool.map(lambda _: bookings.book([told(1), told(2)], None), range(16)))

    assert sum(len(intake.records) for intake in intakes) == 2
    assert len({intake.outcomes for intake in intakes}) == 1
    assert ledger.queries.seqs()[CORRECTIONS] == 2


@pytest.mark.parametrize(
    ("unit", "amount"),
    [(Unit.USD, 2 * 2_250_000_000), (Unit.TOKENS, 2200), (Unit.REQUESTS, 2)],
)
def test_budgets_count_what_was_added(ledger, bookings, unit, amount):
    """What is new since a look is what the ledger holds in all, in every unit."""
    bookings.book([told(1)], None)
    bookings.book([told(2), told(3, started_at_us=NOON_US + HOUR_US)], None)
    scope = {"organization": "default"}
    window = (NOON_US - 2 * HOUR_US, NOON_US)

    new = ledger.queries.sum_corrected(scope, unit, *window, (0, 3))
    later = ledger.queries.sum_corrected(scope, unit, *window, (1, 3))
    whole = ledger.queries.sum_spent(scope, unit, *window, {})
    other = ledger.queries.sum_corrected({"organization": "x"}, unit, *window, (0, 3))

    assert new.settled == whole.settled == amount
    assert later.settled == amount // 2
    assert new.parked == 0
    assert other.settled == 0


def test_a_call_without_a_price_takes_nothing_from_a_budget_yet(ledger, bookings):
    """Nothing was held for it, so nothing is parked; its record says unpriced."""
    (one,) = bookings.book([told(1, model_requested="nobody-knows")], None).outcomes
    new = ledger.queries.sum_corrected({}, Unit.USD, 0, None, (0, 1))

    assert (one.cost, one.cost_status) == (None, "unpriced")
    assert (new.settled, new.parked) == (0, 0)
