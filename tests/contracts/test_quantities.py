"""Use by the hour is the same on both databases, and agrees with adding records up one by one."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.clock import from_epoch_us
from gateway.ledger.quantities import UseQuery, cut_days
from pricing.commitments import HOUR, QUARTER, TOKEN_METERS, Coverage, from_pico
from pricing.meters import Meter
from pricing.months import Span
from tests.contracts.records import (
    DAY_US,
    HOUR_US,
    NOON_US,
    SECOND_US,
    make_line,
    make_record,
    make_refused,
    make_tenant,
    make_unknown,
)

ALL = Coverage(meters=frozenset(Meter))
WEEK = Span(from_epoch_us(NOON_US - 3 * DAY_US), from_epoch_us(NOON_US + 4 * DAY_US))


def uses(ledger, *covers, step=HOUR, span=WEEK):
    query = UseQuery(covers=covers or (ALL,), span=span, step=step)
    return list(ledger.queries.stream_uses(query))


def plain(found):
    return [
        (use.at, use.meter.value, str(from_pico(use.quantity_pico)), use.cost_pico) for use in found
    ]


def make_use(*rated, **changes):
    """A record that counted what its lines say."""
    usage = {line.meter: line.quantity for line in rated}
    return make_record(**{"lines": rated, "usage": usage, **changes})


def lines(**quantities):
    return tuple(make_line(meter, str(count), 7) for meter, count in quantities.items())


def test_use_is_added_up_by_the_hour(ledger) -> None:
    """By meter, with what it cost; the last microsecond of an hour is in it."""
    ledger.post(
        make_use(*lines(input=1000, output=20)),
        make_use(*lines(input=500), started_at_us=NOON_US + HOUR_US - 1),
        make_use(*lines(input=3), started_at_us=NOON_US + HOUR_US),
        make_use(*lines(input=4), started_at_us=NOON_US - 4 * DAY_US),
        make_refused(),
        make_unknown(),
    )
    noon = from_epoch_us(NOON_US)

    assert [
        (noon, "input", "1500", 14),
        (noon, "output", "20", 7),
        (noon + HOUR, "input", "3", 7),
    ] == plain(uses(ledger))
    assert [noon, noon, noon + 3 * QUARTER, noon + HOUR] == [
        use.at for use in uses(ledger, step=QUARTER)
    ]


def test_fractions_and_huge_costs_are_exact(ledger) -> None:
    """Seconds keep their microseconds, and sums may leave 64 bits."""
    huge = 2**63 - 1
    ledger.post(
        make_use(make_line("gpu_second", "0.100001", huge)),
        make_use(make_line("gpu_second", "0.100001", huge)),
        make_use(make_line("gpu_second", "2", huge)),
    )

    assert [("2.200002", 3 * huge)] == [found[2:] for found in plain(uses(ledger))]


def test_a_correction_counts_where_its_record_lies(ledger) -> None:
    """Whenever it was made; what it makes known is known from the start."""
    record = make_use(*lines(input=1000), started_at_us=NOON_US - DAY_US)
    unknown = make_unknown(started_at_us=NOON_US - DAY_US)
    ledger.post(record, unknown)
    before = ledger.queries.count_unknown([ALL], WEEK)
    ledger.post(
        make_use(make_line("input", "-400", -5), corrects=record.id),
        make_use(make_line("input", "1", 1), corrects=unknown.id),
    )

    assert [(from_epoch_us(NOON_US - DAY_US), "input", "601", 3)] == plain(uses(ledger))
    assert (1, 0) == (before, ledger.queries.count_unknown([ALL], WEEK))


def test_use_without_a_price_stands_apart(ledger) -> None:
    """Unknown cost is not a cost of nothing."""
    free = make_record(lines=(), usage={"input": 50}, cost_pico=None, list_cost_pico=None)
    ledger.post(free, make_use(*lines(input=1)))

    assert [("50", None), ("1", 7)] == [found[2:] for found in plain(uses(ledger))]


@pytest.mark.parametrize(
    ("covers", "expected"),
    [
        (Coverage(), "1111"),
        (Coverage(provider="openai"), "1011"),
        (Coverage(models=frozenset({"gpt-5"})), "1110"),
        (Coverage(models=frozenset({"gpt-5-mini", "o9"})), "1"),
        (Coverage(models=frozenset({"alias"})), "10"),
        (Coverage(team="search"), "1101"),
        (Coverage(project="rag"), "111"),
        (Coverage(team="search", provider="azure"), "100"),
        (Coverage(meters=frozenset({Meter.OUTPUT})), None),
    ],
)
def test_only_covered_use_is_read(ledger, covers, expected) -> None:
    """Each record has its own decimal digit: 1, 10, 100 and 1,000 tokens."""
    ledger.post(
        make_use(*lines(input=1), model="gpt-5-mini", model_requested="mini", project="rag"),
        make_use(*lines(input=10), model_requested="openai/alias", model="gpt-5", team="ads"),
        make_use(*lines(input=100), provider="azure"),
        make_use(*lines(input=1000), model="x", model_requested="openai/gpt-5", project="chat"),
    )
    total = sum(use.quantity_pico for use in uses(ledger, covers) if covers.includes(use))

    assert (expected or "0") == str(from_pico(total))
    assert total == sum(use.quantity_pico for use in uses(ledger, covers))


def test_nothing_covered_is_nothing_read(ledger) -> None:
    """No commitment asks no question."""
    ledger.post(make_record(), make_unknown())
    query = UseQuery(covers=(), span=WEEK, step=HOUR)

    assert [] == list(ledger.queries.stream_uses(query))
    assert 0 == ledger.queries.count_unknown([], WEEK)


def test_calls_are_open_from_start_to_end(ledger) -> None:
    """In the order of their starts, over the border of days; refused ones never were."""
    ledger.post(
        make_record(started_at_us=NOON_US + DAY_US, ended_at_us=NOON_US + DAY_US + 5),
        make_record(ended_at_us=NOON_US + 2 * SECOND_US),
        make_refused(),
        make_record(provider="azure"),
        make_record(corrects="x", started_at_us=NOON_US + 1),
    )

    assert [
        (NOON_US, NOON_US + 2 * SECOND_US),
        (NOON_US + DAY_US, NOON_US + DAY_US + 5),
    ] == list(ledger.queries.stream_spans(Coverage(provider="openai"), WEEK))


def test_a_span_is_read_day_by_day() -> None:
    """The first and the last piece are shorter, and nothing is read twice."""
    span = Span(WEEK.start + HOUR, WEEK.start + timedelta(days=2))
    pieces = list(cut_days(span))

    assert [11, 24, 12] == [(piece.end - piece.start) // HOUR for piece in pieces]
    assert span == (pieces[0].start, pieces[-1].end)


_LINES = st.lists(
    st.tuples(
        st.integers(0, 3 * DAY_US),
        st.sampled_from(["input", "output", "gpu_second", "image"]),
        st.integers(-5, 10**12) | st.decimals(0, 1000, places=6),
        st.none() | st.integers(-(2**62), 2**62),
    ),
    max_size=12,
)


@given(_LINES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sums_agree_with_adding_up_one_by_one(shared_ledger, drawn) -> None:
    """Any lines, at any time: nothing is lost and nothing is rounded."""
    tenant = make_tenant()
    covers = Coverage(team=tenant, meters=TOKEN_METERS | {Meter.GPU_SECOND})
    for after_us, meter, quantity, cost in drawn:
        line = make_line(meter, f"{quantity}", cost or 0)
        is_priced = cost is not None
        record = make_record(
            team=tenant,
            started_at_us=NOON_US + after_us,
            lines=(line,) if is_priced else (),
            usage={meter: quantity if isinstance(quantity, int) else f"{quantity}"},
        )
        shared_ledger.post(record, writer=tenant)
    found = uses(shared_ledger, covers)
    counted = [row for row in drawn if Meter(row[1]) in covers.meters]

    assert sum(Decimal(row[2]) for row in counted) == sum(
        (from_pico(use.quantity_pico) for use in found), Decimal(0)
    )
    assert sum(row[3] or 0 for row in counted) == sum(use.cost_pico or 0 for use in found)
    assert [use.at for use in found] == sorted(use.at for use in found)
