"""Sums that are kept ready say at any time what the records say, on every database."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from gateway.ledger.errors import ShippedTo, StoreUnavailable
from gateway.ledger.filters import RecordFilter
from gateway.ledger.rollups import Rollups
from gateway.ledger.rows import to_line_rows
from gateway.ledger.usage import UsageQuery
from pricing.meters import TRAITS, Meter
from tests.contracts.records import (
    DAY_US,
    HOUR_US,
    NOON_US,
    any_record,
    make_line,
    make_record,
    make_refused,
    make_tenant,
    make_unknown,
    mint,
    with_seq,
)

MIDNIGHT_US = NOON_US - 12 * HOUR_US
KNOWN_METERS = {meter.value for meter in Meter}
GROUPS = ("team", "key", "user", "model", "outcome", "tag.env", "meter")
QUANTITIES = ("7", "-3", "0.5", "-0.5", "12.000000000001", "0.0000000000001", "1.5e-3", "1E+2")


def add_up(records, query):
    """Add usage up the plain way: one record after the other, in exact numbers."""
    corrected_cost = {r.corrects for r in records if r.cost_pico is not None}
    corrected_usage = {r.corrects for r in records if r.input_total is not None}
    sums = defaultdict(lambda: defaultdict(Decimal))
    for record in records:
        if not is_wanted(record, query.wanted):
            continue
        is_call = record.corrects is None
        was_sent = is_call and record.outcome != "refused"
        lacks_usage = record.input_total is None or record.output_total is None
        lines = to_line_rows(record) if "meter" in query.group_by else []
        for line in lines or [None]:
            row = sums[place_of(record, line, query)]
            cost, listed = costs_of(record, line)
            row["requests"] += is_call
            row["cost"] += cost or 0
            row["list_cost"] += listed or 0
            row["unknown_cost"] += was_sent and cost is None and record.id not in corrected_cost
            row["unknown_usage"] += was_sent and lacks_usage and record.id not in corrected_usage
            if line is not None:
                row["quantity"] += Decimal(line["quantity"])
            elif "meter" not in query.group_by:
                row["input"] += record.input_total or 0
                row["output"] += record.output_total or 0
    for (_, _, values), row in sums.items():
        meter = dict(zip(query.group_by, values, strict=True)).get("meter")
        if meter in KNOWN_METERS and TRAITS[Meter(meter)].direction != "none":
            row[TRAITS[Meter(meter)].direction] = Decimal(int(row["quantity"]))
    return {place: {name: n for name, n in row.items() if n} for place, row in sums.items()}


def is_wanted(record, wanted):
    """Tell whether a filter lets a record through."""
    start, end = wanted.from_us, wanted.to_us
    return (
        (start is None or record.started_at_us >= start)
        and (end is None or record.started_at_us < end)
        and all(
            getattr(wanted, name) in (None, getattr(record, name))
            for name in ("organization", "team", "user", "outcome")
        )
        and all(record.tags.get(name) == value for name, value in wanted.tags.items())
        and (wanted.model is None or wanted.model in (record.model, record.model_requested))
    )


def place_of(record, line, query):
    """Name the row a record or a line belongs to."""
    steps = {"hour": HOUR_US, "day": DAY_US, "none": None}
    step = steps[query.granularity]
    values = []
    for name in query.group_by:
        if name == "meter":
            values.append(None if line is None else line["meter"])
        elif name.startswith("tag."):
            values.append(record.tags.get(name.removeprefix("tag.")))
        else:
            values.append(getattr(record, name))
    period = None if step is None else record.started_at_us // step * step
    return (period, record.currency, tuple(values))


def costs_of(record, line):
    """Tell what a record or a line costs."""
    if line is None:
        return record.cost_pico, record.list_cost_pico
    return line["cost_pico"], line["list_cost_pico"]


def answer(ledger, query):
    """Ask the ledger, in the shape of ``add_up``."""
    found = {}
    for row in ledger.queries.usage(query):
        sums = {
            "requests": row.requests,
            "cost": row.cost_pico,
            "list_cost": row.list_cost_pico,
            "unknown_cost": row.unknown_cost_requests,
            "unknown_usage": row.unknown_usage_requests,
            "input": row.input_tokens,
            "output": row.output_tokens,
            "quantity": row.quantity or 0,
        }
        place = (row.period_start_us, row.currency, tuple(row.group.values()))
        found[place] = {name: Decimal(n) for name, n in sums.items() if n}
    return found


@st.composite
def histories(draw):
    """Draw records of two journals and when the sums take them up."""
    hours = st.sampled_from([0, 1, 23, 24, 47, 48])
    within = st.sampled_from([0, 1, HOUR_US // 2, HOUR_US - 1])
    tags = st.dictionaries(st.sampled_from(["env", "x"]), st.sampled_from(["a", "b", ""]))
    drawn = []
    for _ in range(draw(st.integers(1, 8))):
        record = draw(any_record())
        usage, lines = record.usage, record.lines
        if draw(st.booleans()):
            quantity = draw(st.sampled_from(QUANTITIES))
            usage, lines = {"audio_second": quantity}, (make_line("audio_second", quantity, 5),)
        drawn.append(
            msgspec.structs.replace(
                record,
                id=mint(),
                corrects=None,
                usage=usage,
                lines=lines,
                tags=draw(tags),
                user=draw(st.sampled_from([None, "", "ann"])),
                team=draw(st.sampled_from([None, "t"])),
                started_at_us=MIDNIGHT_US + draw(hours) * HOUR_US + draw(within),
            )
        )
    for one in draw(st.lists(st.sampled_from(drawn), max_size=4)):
        change = draw(any_record())
        drawn.append(
            msgspec.structs.replace(
                change, id=mint(), corrects=one.id, started_at_us=one.started_at_us
            )
        )
    order = draw(st.permutations(drawn))
    return [(one, draw(st.sampled_from("ab")), draw(st.integers(0, 2))) for one in order]


@st.composite
def questions(draw):
    """Draw a question."""
    instants = st.none() | st.integers(-1, 100).map(
        lambda halves: MIDNIGHT_US + halves * HOUR_US // 2 + draw(st.integers(-1, 1))
    )
    start, end = draw(instants), draw(instants)
    wanted = RecordFilter(
        from_us=start,
        to_us=end,
        team=draw(st.sampled_from([None, None, "t"])),
        user=draw(st.sampled_from([None, None, None, "ann", ""])),
        outcome=draw(st.sampled_from([None, None, "ok"])),
        tags=draw(st.sampled_from([{}, {}, {"env": "a"}])),
    )
    return UsageQuery(
        wanted=wanted,
        group_by=tuple(draw(st.lists(st.sampled_from(GROUPS), max_size=3, unique=True))),
        granularity=draw(st.sampled_from(["hour", "day", "none"])),
    )


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    deadline=None,
)
@given(history=histories(), asked=st.lists(questions(), min_size=4, max_size=6))
def test_an_answer_is_what_the_records_make_however_far_the_sums_are(shared_ledger, history, asked):
    """Whatever came in which order, corrections before their calls included."""
    tenant = make_tenant()
    rollups = Rollups(shared_ledger.engine, batch_records=2)
    queries = [replace(query, wanted=replace(query.wanted, organization=tenant)) for query in asked]
    posted, seqs = [], defaultdict(int)
    for record, journal, steps in history:
        seqs[journal] += 1
        writer = f"{tenant}-{journal}"
        mine = msgspec.structs.replace(record, organization=tenant)
        at = ShippedTo(segment=1, offset=seqs[journal])
        shared_ledger.store.append(writer, [with_seq(mine, seqs[journal])], at)
        posted.append(mine)
        for _ in range(steps):
            rollups.follow()
        query = queries[len(posted) % len(queries)]
        assert add_up(posted, query) == answer(shared_ledger, query)
    while rollups.follow():
        pass
    for query in queries:
        assert add_up(posted, query) == answer(shared_ledger, query)


def follow_all(ledger):
    """Bring the sums up to date."""
    rollups = Rollups(ledger.engine)
    while rollups.follow():
        pass
    return rollups


def post_some(ledger):
    """Add records of two days of which one call is made known later."""
    unknown = make_unknown(tags={"env": "prod"})
    ledger.post(
        make_record(user="ann", tags={"env": "prod"}),
        make_record(started_at_us=NOON_US + DAY_US, team=None),
        make_refused(),
        unknown,
    )
    ledger.post(make_record(corrects=unknown.id, cost_pico=9), writer="w-2")


def test_sums_agree_with_the_records_and_can_be_made_again(ledger):
    """A check finds every sum that was changed, lost or slipped in; making them again mends it."""
    post_some(ledger)
    rollups = follow_all(ledger)
    days = rollups.days()

    assert [MIDNIGHT_US, MIDNIGHT_US + DAY_US] == days
    assert [] == [one for day in days for one in rollups.check(day)]

    with ledger.engine.begin() as connection:
        for statement in (
            "UPDATE usage_rollups SET cost_low = cost_low + 1 WHERE view = 'plain.hour'",
            "DELETE FROM usage_rollups WHERE view = 'users.day'",
            "UPDATE usage_rollups SET start_us = start_us + 86400000000 WHERE view = 'tags.day'",
        ):
            assert connection.execute(text(statement)).rowcount > 0
    found = [one for day in days for one in rollups.check(day)]

    assert {"plain.hour", "users.day", "tags.day"} == {one.view for one in found}
    for day in [*days, MIDNIGHT_US + 2 * DAY_US]:
        rollups.rebuild(day)
    assert [] == [one for day in rollups.days() for one in rollups.check(day)]


def test_what_is_pending_stays_pending_when_sums_are_made_again(ledger):
    """A day that is made again holds what its sums held, and the rest is added once."""
    post_some(ledger)
    rollups = follow_all(ledger)
    ledger.post(make_record(cost_pico=11))
    rollups.rebuild(MIDNIGHT_US)

    assert 1 == rollups.pending()
    query = UsageQuery()
    before = answer(ledger, query)
    follow_all(ledger)
    assert before == answer(ledger, query)
    assert 0 == rollups.pending()


def test_many_processes_may_keep_the_sums_at_once(ledger):
    """Each record is added once, whoever does it and however they meet; records keep coming."""
    journals = 3

    def post(number):
        for _ in range(10):
            ledger.post(make_record(cost_pico=7), writer=f"w-{number}")

    def follow(_number):
        rollups = Rollups(ledger.engine, batch_records=3)
        done = 0
        while done < 2:
            try:
                done = 0 if rollups.follow() else done + 1
            except StoreUnavailable:
                done = 0

    with ThreadPoolExecutor(2 * journals) as pool:
        jobs = [pool.submit(post, n) for n in range(journals)]
        jobs += [pool.submit(follow, n) for n in range(journals)]
        for job in jobs:
            job.result()
    rollups = follow_all(ledger)
    (row,) = ledger.queries.usage(UsageQuery())

    assert (10 * journals, 70 * journals) == (row.requests, row.cost_pico)
    assert [] == list(rollups.check(MIDNIGHT_US))


def test_texts_of_any_length_have_sums(ledger):
    """An index that holds texts of some length only does not stop the rest."""
    tags = {f"n{number}": f"{number}" * 250 for number in range(32)}
    ledger.post(make_record(user="u" * 9000, tags=tags))
    follow_all(ledger)
    (row,) = ledger.queries.usage(UsageQuery(group_by=("user",)))

    assert "u" * 9000 == row.group["user"]


def test_sums_of_a_missing_database_are_refused_as_such(absent_engine):
    """A follower is told what every other one is."""
    with pytest.raises(StoreUnavailable):
        Rollups(absent_engine).follow()
