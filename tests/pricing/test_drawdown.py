"""Commitments are drawn down in the stated order, and every part of every use is somewhere."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.commitments import (
    HOUR,
    QUARTER,
    CommitmentRefused,
    find_horizon,
    find_step,
    from_pico,
    to_pico,
)
from pricing.drawdown import account_for
from pricing.meters import Meter
from pricing.months import Month, Span, days_of, parse_month
from tests.pricing.commitment_kit import (
    DECEMBER,
    NOVEMBER,
    credit,
    days,
    hours,
    pack,
    throughput,
    units,
    usd,
    use,
)

MONTH = Month(2026, 11)


def accounts(*commitments, uses=(), now=DECEMBER, month=MONTH):
    return account_for(commitments, sorted(uses, key=lambda u: u.at), month, now)


def account(one, *uses, now=DECEMBER, month=MONTH):
    (found,) = accounts(one, uses=uses, now=now, month=month)
    return found


def test_a_pack_says_what_is_used_left_and_over() -> None:
    """Worked by hand: 1,000 tokens for 3 USD, 1,200 used at 0.01 USD each."""
    found = account(
        pack(),
        use(NOVEMBER + days(2), 600, "6"),
        use(NOVEMBER + days(4), 600, "6"),
    )

    assert (units(1000), units(1000), 0, units(200)) == (
        found.committed,
        found.used,
        found.unused,
        found.overflow,
    )
    assert (usd("3"), usd("3"), usd("10"), usd("2")) == (
        found.fee_pico,
        found.amortised_pico,
        found.on_demand_pico,
        found.overflow_cost_pico,
    )
    assert usd("7") == found.saving_pico
    assert 1000 == found.used_permille
    assert (10**6, usd("3000")) == (found.effective_per, found.effective_pico)
    assert NOVEMBER + days(4) == found.exhausted_at
    assert found.projected_at is None
    assert [(2, units(600), units(400)), (4, units(400), 0)] == [
        (day.day.day - 1, day.used, day.left) for day in found.days if day.used
    ]


def test_a_running_pack_projects_when_it_ends() -> None:
    """Pace is that of the last seven days: 70 a day of 1,000, 510 left after eleven days."""
    uses = [use(NOVEMBER + days(n), 70, "1") for n in range(4, 11)]
    found = account(pack(), *uses, now=NOVEMBER + days(11))

    assert units(510) == found.unused
    assert found.projected_at is not None
    assert timedelta(days=510 / 70) - (found.projected_at - found.as_of) < timedelta(seconds=1)
    assert usd("1.47") == found.amortised_pico
    assert 11 == len(found.days)


def test_a_fee_is_worn_by_time_or_by_use() -> None:
    """A third of the time is a third of the fee; what is used up early has cost all of it."""
    idle = account(pack(), now=NOVEMBER + days(10))
    early = account(pack(), use(NOVEMBER + days(1), 1000, "9"), now=NOVEMBER + days(10))

    assert (usd("1"), usd("-1")) == (idle.amortised_pico, idle.saving_pico)
    assert (usd("3"), usd("6")) == (early.amortised_pico, early.saving_pico)
    assert [usd("0.1"), usd("2.9"), 0, 0] == [day.amortised_pico for day in early.days[:4]]


def test_the_pace_of_a_young_pack_is_that_of_its_life() -> None:
    """100 in the first day leaves 900 for nine more."""
    found = account(pack(), use(NOVEMBER, 100, "1"), now=NOVEMBER + days(1))

    assert NOVEMBER + days(10) == found.projected_at


@pytest.mark.parametrize("now", [NOVEMBER - days(3), NOVEMBER, DECEMBER, DECEMBER + days(1)])
def test_nothing_used_is_projected_nowhere(now) -> None:
    """Before, at the start, at the end and after: no pace, no date, no division by zero."""
    found = account(pack(), now=now)

    assert (0, None, None, None) == (
        found.used,
        found.projected_at,
        found.exhausted_at,
        found.effective_pico,
    )
    assert (0 if now <= NOVEMBER else usd("3")) == found.amortised_pico


def test_money_is_drawn_at_on_demand_prices() -> None:
    """10 USD of use for 8 USD; what has no price is never taken for free."""
    found = account(
        credit(),
        use(NOVEMBER, 100, "6"),
        use(NOVEMBER + hours(1), 50, None),
        use(NOVEMBER + hours(2), 100, "8"),
    )

    assert (usd("10"), usd("10"), usd("4")) == (found.committed, found.used, found.overflow)
    assert (units(150), units(100)) == (found.used_quantity, found.overflow_quantity)
    assert usd("2") == found.saving_pico


def test_throughput_is_lost_with_its_hour() -> None:
    """10 tokens a minute are 600 an hour: an hour of 700 overflows though another is idle."""
    found = account(
        throughput(),
        use(NOVEMBER, 700, "7"),
        use(NOVEMBER + hours(2), 100, "1"),
        now=NOVEMBER + hours(2) + timedelta(minutes=30),
    )

    assert (units(1800), units(700), units(1100), units(100)) == (
        found.committed,
        found.used,
        found.unused,
        found.overflow,
    )
    assert (usd("6"), usd("6")) == (found.fee_pico, found.amortised_pico)
    assert usd("7") - usd("6") == found.saving_pico
    assert (usd("2"), usd("48")) == (found.hour_pico, found.day_pico)
    assert found.projected_at is None
    assert [None] == [day.left for day in found.days]


def test_throughput_of_a_whole_month_has_its_hours() -> None:
    """November has 720 hours in UTC; in Berlin October has one more than its days."""
    whole = account(throughput(ends=None))
    berlin = account(
        throughput(starts=datetime(2026, 9, 30, 22, tzinfo=UTC), ends=None, zone="Europe/Berlin"),
        month=Month(2026, 10),
    )

    assert usd("1440") == whole.fee_pico
    assert usd("2") * (31 * 24 + 1) == berlin.fee_pico


def test_an_hour_belongs_to_the_month_it_begins_in() -> None:
    """Hours that do not start at midnight are in one account each, and none is in two."""
    odd = throughput(starts=NOVEMBER - days(9) + QUARTER, ends=DECEMBER + days(2) + QUARTER)
    periods = list(odd.periods(Span(NOVEMBER - days(20), DECEMBER + days(20))))

    assert [odd.starts, NOVEMBER + QUARTER, DECEMBER + QUARTER] == [p.start for p in periods]
    assert [NOVEMBER + QUARTER, DECEMBER + QUARTER, odd.ends] == [p.end for p in periods]
    (late,) = odd.periods(Span(DECEMBER, DECEMBER + timedelta(minutes=1)))
    assert NOVEMBER + QUARTER == late.start


def test_a_pack_that_renews_starts_anew_each_month() -> None:
    """What October left over is gone in November; the first month may be a short one."""
    free = pack(fee="0", renews=True, starts=NOVEMBER - days(10), ends=None)
    uses = [use(NOVEMBER - days(1), 999, "1"), use(NOVEMBER, 999, "1"), use(DECEMBER, 5, "1")]

    october = account(free, *uses, month=Month(2026, 10))
    november = account(free, *uses)

    assert (NOVEMBER - days(10), NOVEMBER) == october.period
    assert [units(999), units(999)] == [october.used, november.used]
    assert [usd("1"), usd("1")] == [october.saving_pico, november.saving_pico]
    assert 0 == november.effective_pico


def test_months_are_those_of_the_zone() -> None:
    """In Kolkata November begins at half past six in the evening, UTC, of October."""
    free = pack(renews=True, starts=NOVEMBER - days(30), ends=None, zone="Asia/Kolkata")
    start = datetime(2026, 10, 31, 18, 30, tzinfo=UTC)
    found = account(
        free,
        use(start - QUARTER, 1),
        use(start, 10),
        use(datetime(2026, 11, 30, 18, 15, tzinfo=UTC), 100),
        use(datetime(2026, 11, 30, 18, 30, tzinfo=UTC), 1000),
    )

    assert units(110) == found.used
    assert QUARTER == find_step([free], find_horizon([free], MONTH))
    assert 30 == len(found.days)


def test_the_earliest_end_is_drawn_first() -> None:
    """An hour before a month, a month before a year; a tie goes by start and then by id."""
    year = pack("year", 10_000, starts=NOVEMBER - days(100), ends=NOVEMBER + days(200))
    month = pack("month", 100)
    late = pack("also-month", 100, starts=NOVEMBER + hours(1))
    hour = throughput(per_minute=1)
    found = accounts(
        year, month, late, hour, uses=[use(NOVEMBER + hours(1), 200), use(NOVEMBER + hours(2), 130)]
    )

    assert {"ptu": 120, "month": 100, "also-month": 100, "year": 10} == {
        one.commitment.id: int(from_pico(one.used)) for one in found
    }
    assert [0, 0, 0, 0] == [one.overflow for one in found]


def test_what_several_could_cover_overflows_from_the_last_of_them() -> None:
    """Nothing overflows twice."""
    found = accounts(
        pack("a", 10), pack("b", 10, ends=DECEMBER + days(1)), uses=[use(NOVEMBER, 50)]
    )

    assert [("a", 0), ("b", 30)] == [(a.commitment.id, int(from_pico(a.overflow))) for a in found]


def test_a_pack_that_started_earlier_brings_what_it_used_then() -> None:
    """A report of November shows a pack of a year from its first day."""
    year = pack(starts=NOVEMBER - days(60), ends=NOVEMBER + days(300))
    horizon = find_horizon([year, pack("other")], MONTH)
    found = account(year, use(NOVEMBER - days(50), 400), use(NOVEMBER, 300), use(DECEMBER, 300))

    assert NOVEMBER - days(60) == horizon.start
    assert units(700) == found.used
    assert DECEMBER == found.as_of


def test_only_what_is_covered_counts() -> None:
    """Provider, model by either name, meter, team and project must all match."""
    one = pack(
        provider="openai",
        models=frozenset({"gpt-5"}),
        meters=frozenset({Meter.INPUT}),
        team="search",
        project="rag",
    )
    found = account(
        one,
        use(NOVEMBER, 1),
        use(NOVEMBER, 10, model="gpt-5-2025-08-07"),
        use(NOVEMBER, 20, asked="alias"),
        use(NOVEMBER, 100, model="x", asked="x"),
        use(NOVEMBER, 100, provider="azure"),
        use(NOVEMBER, 100, meter=Meter.OUTPUT),
        use(NOVEMBER, 100, team="ads"),
        use(NOVEMBER, 100, project=None),
    )

    assert (units(31), 0) == (found.used, found.overflow)


def test_use_without_a_price_is_not_worth_nothing() -> None:
    """It is drawn, and counted beside what is known."""
    found = account(pack(), use(NOVEMBER, 10, None), use(NOVEMBER, 10, "1"))

    assert (units(20), units(10), usd("1")) == (
        found.used,
        found.unpriced_quantity,
        found.on_demand_pico,
    )


def test_corrections_that_outweigh_their_hour_stay_visible() -> None:
    """Less than nothing is never drawn; it lowers the overflow."""
    found = account(pack(quantity=5), use(NOVEMBER, 10, "2"), use(NOVEMBER + hours(1), -2, "-0.5"))

    assert (units(5), units(3), usd("0.5")) == (
        found.used,
        found.overflow,
        found.overflow_cost_pico,
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: pack(quantity=0), "commits nothing"),
        (lambda: pack(fee="-1"), "negative"),
        (lambda: pack(ends=NOVEMBER), "ends before"),
        (lambda: pack(ends=None), "needs an end"),
        (lambda: pack(starts=NOVEMBER + timedelta(minutes=1)), "quarter"),
        (lambda: pack(meters=frozenset({Meter.INPUT, Meter.IMAGE})), "image, token"),
        (lambda: pack(meters=frozenset()), "no meter"),
        (lambda: throughput(meters=frozenset({Meter.PAGE})), "tokens only"),
        (lambda: throughput(ends=DECEMBER + QUARTER), "whole hours"),
    ],
)
def test_what_cannot_be_accounted_for_is_refused(make, says) -> None:
    """Each refusal names the commitment and what is wrong."""
    with pytest.raises(CommitmentRefused, match=says):
        make()


@pytest.mark.parametrize(
    ("meters", "unit", "per"),
    [
        ({Meter.IMAGE}, "image", 1),
        ({Meter.INPUT, Meter.REASONING}, "token", 10**6),
        ({Meter.GPU_SECOND}, "gpu_second", 1),
    ],
)
def test_effective_prices_are_for_the_unit_counted(meters, unit, per) -> None:
    """A million tokens, or one of anything else; several units have no common price."""
    (meter, *_) = sorted(meters)
    found = account(pack(meters=frozenset(meters)), use(NOVEMBER, 6, meter=meter))
    mixed = account(credit(meters=frozenset({Meter.INPUT, Meter.IMAGE})), use(NOVEMBER, 6, "1"))

    assert (unit, per, usd("0.5") * per) == (
        found.commitment.unit,
        found.effective_per,
        found.effective_pico,
    )
    assert (None, "USD") == (mixed.effective_pico, mixed.commitment.unit)


def test_days_of_a_span_are_those_of_the_zone() -> None:
    """The day of a clock change has 25 hours, and parts of days stand for themselves."""
    found = list(
        days_of(
            Span(datetime(2026, 10, 24, 12, tzinfo=UTC), datetime(2026, 10, 26, 1, tzinfo=UTC)),
            ZoneInfo("Europe/Berlin"),
        )
    )

    assert [(24, 10), (25, 25), (26, 2)] == [
        (day.day, (span.end - span.start) // HOUR) for day, span in found
    ]
    assert date(2026, 10, 24) == found[0][0]


@pytest.mark.parametrize("text", ["2026", "2026-13", "2026-1", "26-01", "9999-01", "2026-11-01"])
def test_only_months_are_months(text) -> None:
    """What cannot be a month is said to be none."""
    with pytest.raises(ValueError, match="not a month"):
        parse_month(text)


def test_nothing_committed_is_no_account() -> None:
    """An empty list asks for nothing."""
    assert () == accounts(uses=[use(NOVEMBER, 5)])


# Anything that can be committed, on a coarse grid so that things meet often.
_AMOUNTS = st.integers(1, 400)
_FEES = st.integers(0, 10**13).map(lambda pico: str(from_pico(pico)))
_HOURS = st.integers(0, 45 * 24)
_MODELS = st.sampled_from([frozenset(), frozenset({"gpt-5"}), frozenset({"o9"})])


@st.composite
def _commitment(draw, name):
    start = NOVEMBER - days(10) + hours(draw(_HOURS))
    fields = {
        "starts": start,
        "ends": start + hours(draw(st.integers(1, 40 * 24))),
        "zone": draw(st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"])),
        "models": draw(_MODELS),
        "meters": frozenset({Meter.INPUT}),
    }
    match draw(st.integers(0, 2)):
        case 0:
            return pack(name, draw(_AMOUNTS), draw(_FEES), renews=draw(st.booleans()), **fields)
        case 1:
            worth = str(draw(_AMOUNTS))
            return credit(name, worth, draw(_FEES), renews=draw(st.booleans()), **fields)
        case _:
            return throughput(name, draw(st.integers(1, 3)), draw(_FEES), **fields)


@st.composite
def _commitments(draw):
    return [draw(_commitment(f"c{n}")) for n in range(draw(st.integers(1, 4)))]


@st.composite
def _use(draw):
    return use(
        NOVEMBER - days(10) + draw(st.integers(0, 60 * 96)) * QUARTER,
        0,
        model=(model := draw(st.sampled_from(["gpt-5", "o9"]))),
        asked=model,
        quantity_pico=draw(st.integers(0, 10**15)),
        cost_pico=draw(st.none() | st.integers(0, 10**15)),
    )


_USES = st.lists(_use(), max_size=40)
_LONG_AFTER = NOVEMBER + days(400)


def _every_account(commitments, uses):
    months = [Month(2026, 10), Month(2026, 11), Month(2026, 12), Month(2027, 1)]
    found = {}
    for month in months:
        horizon = find_horizon(commitments, month)
        inside = [u for u in sorted(uses, key=lambda u: u.at) if horizon.holds(u.at)]
        for one in account_for(commitments, inside, month, _LONG_AFTER):
            kept = found.setdefault((one.commitment.id, one.period), one)
            if one.as_of > kept.as_of:
                found[one.commitment.id, one.period] = one
    return list(found.values())


@given(_commitments(), _USES)
def test_parts_sum_to_wholes(commitments, uses) -> None:
    """Every covered use is drawn or overflows once, quantity and cost alike, to the last unit."""
    found = _every_account(commitments, uses)
    covered = [
        u
        for u in uses
        if any(
            c.covers.includes(u) and any(p.holds(u.at) for p in c.periods(Span(u.at, u.at + HOUR)))
            for c in commitments
        )
    ]

    assert sum(u.quantity_pico for u in covered) == sum(
        one.used_quantity + one.overflow_quantity for one in found
    )
    assert sum(u.cost_pico or 0 for u in covered) == sum(
        one.on_demand_pico + one.overflow_cost_pico for one in found
    )


@given(_commitments(), _USES)
def test_an_account_agrees_with_itself(commitments, uses) -> None:
    """Days sum to the account, nobody draws more than there is, and the fee is spread whole."""
    for one in _every_account(commitments, uses):
        assert one.committed == one.used + one.unused
        assert 0 <= one.used <= one.committed
        assert one.used == sum(day.used for day in one.days)
        assert one.on_demand_pico == sum(day.on_demand_pico for day in one.days)
        assert one.amortised_pico == sum(day.amortised_pico for day in one.days)
        if one.as_of == one.period.end:
            assert one.fee_pico == one.amortised_pico
        assert one.days[-1].left in (None, one.unused)
        assert (one.exhausted_at is not None) == (one.days[-1].left == 0)


@given(_commitments(), _USES)
def test_a_report_of_one_month_agrees_with_that_of_all_time(commitments, uses) -> None:
    """The horizon is long enough: use before it decides nothing."""
    ordered = sorted(uses, key=lambda u: u.at)
    horizon = find_horizon(commitments, MONTH)
    inside = [u for u in ordered if horizon.holds(u.at)]

    assert account_for(commitments, ordered, MONTH, _LONG_AFTER) == account_for(
        commitments, inside, MONTH, _LONG_AFTER
    )


@given(st.integers(-(10**30), 10**30))
def test_quantities_come_back_as_they_were(pico) -> None:
    """Counting in parts of a unit loses nothing."""
    assert pico == to_pico(from_pico(pico))


def test_before_the_first_hour_nothing_is_committed() -> None:
    """A share of nothing is not a share, and a pack has no day yet."""
    found = account(throughput(), now=NOVEMBER - days(2))

    assert (0, None, 0, ()) == (found.committed, found.used_permille, found.fee_pico, found.days)


def test_nobody_plans_for_a_hundred_years() -> None:
    """A pace so slow that it never ends has no date."""
    found = account(pack(quantity=10**9), use(NOVEMBER, 1), now=NOVEMBER + days(1))

    assert found.projected_at is None
    assert (usd("0.1"), usd("0.004166666667")) == (found.day_pico, found.hour_pico)


def test_a_zone_that_skips_a_day_loses_none_of_the_time() -> None:
    """Samoa had no 30 December 2011: the days around it meet."""
    found = list(
        days_of(
            Span(datetime(2011, 12, 29, 12, tzinfo=UTC), datetime(2011, 12, 31, tzinfo=UTC)),
            ZoneInfo("Pacific/Apia"),
        )
    )

    assert [29, 31] == [day.day for day, _ in found]
    assert found[0][1].end == found[1][1].start
    assert "2011-12" == str(Month.of(found[0][1].start, ZoneInfo("Pacific/Apia")))
