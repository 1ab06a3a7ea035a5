"""Runs over a ledger: exact, idempotent, resumable, and never twice, on both databases."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from gateway.budgets.rules import Unit
from gateway.ledger.corrected import BATCH_RECORDS, CORRECTIONS, posted_call, read_calls
from gateway.ledger.filters import RecordFilter
from gateway.ledger.usage import UsageQuery
from gateway.rerate_runs import EmptySpan, RerateRequest, Rerates, percent_text
from gateway.rerating import Repriced, Rerater
from pricing.money import pico_to_text
from pricing.usage import Basis
from tests.contracts.records import DAY_US, NOON_US, SECOND_US, make_tenant
from tests.ledger.journal_kit import ManualClock
from tests.rerating.kit import NAMES, VERSIONS, any_call, make_call

ALL = RecordFilter(from_us=NOON_US - DAY_US, to_us=NOON_US + 10 * DAY_US)


class Killed(BaseException):
    """The process is gone in the middle of a run."""


def rerates_of(ledger):
    return Rerates(ledger.engine, VERSIONS, ManualClock())


def ask(version="v2", wanted=ALL):
    return RerateRequest(version=version, as_of_us=None, wanted=wanted)


def ignore(_count):
    pass


def run(ledger, request, step=ignore):
    return rerates_of(ledger).run(request, "cli:ann", "prices were wrong", step)


def costs(ledger, wanted=ALL):
    """What every call costs once its corrections are counted."""
    found = Counter()
    for record in ledger.queries.stream_records(wanted):
        found[record.corrects or record.id] += record.cost_pico or 0
    return found


def test_a_run_appends_the_differences_and_says_so(ledger):
    """The diff is per team; the chain verifies; sums hold each correction once."""
    calls = [
        make_call({"input": 100_000}, team="ads"),
        make_call({"input": 100_000, "output": 10}, team="search"),
        make_call({"cache_read": 5}, team="search"),
        make_call({}, basis=Basis.UNKNOWN, team="search"),
    ]
    ledger.post(*calls)
    preview = rerates_of(ledger).preview(ask(), ignore)
    assert ledger.count("records") == 4
    done = run(ledger, ask()).to_public()

    assert ("done", 2, "cli:ann", "prices were wrong") == tuple(
        done[name] for name in ("status", "corrections", "actor", "why")
    )
    shown = ("records", "changed", "cannot_rerate", "before", "after", "difference", "percent")
    assert [(1, 1, 0, "0.125", "0.25", "0.125", "100.00")] == [
        tuple(row[name] for name in shown) for row in done["teams"] if row["team"] == "ads"
    ]
    assert [("search", 3, 1, 1)] == [
        (row["team"], row["records"], row["changed"], row["cannot_rerate"])
        for row in done["teams"]
        if row["team"] == "search"
    ]
    assert preview["teams"] == done["teams"]
    assert preview["totals"] == done["totals"]
    assert preview["cannot_rerate"] == done["cannot_rerate"]
    assert [("usage_unknown", 1)] == [(x["reason"], x["records"]) for x in done["cannot_rerate"]]
    assert list(ledger.queries.verify()) == []
    assert ledger.queries.seqs()[CORRECTIONS] == 2
    (row,) = ledger.queries.usage(UsageQuery(wanted=ALL))
    assert (4, 1, sum(costs(ledger).values())) == (
        row.requests,
        row.unknown_cost_requests,
        row.cost_pico,
    )


def test_a_second_run_appends_nothing(ledger):
    """Nor does its diff say that anything changes."""
    ledger.post(make_call({"input": 100}), make_call({"output": 1}))
    first, second = run(ledger, ask()), run(ledger, ask())

    assert first.id != second.id
    assert (first.result["corrections"], second.result["corrections"]) == (2, 0)
    assert second.result["totals"][0]["difference"] == "0"
    assert ledger.count("records") == 4


def test_the_ledger_keeps_what_was_asked_for(ledger):
    """What is read in batches is what the record says, and is priced by it."""
    told = {"model_asked": "n", "model_behind": "m", "tier_asked": "flex"}
    named = msgspec.structs.replace(make_call({"input": 1000}, tier="flex"), model="n", **told)
    posted = ledger.post(named, make_call({"input": 1000}))
    with ledger.engine.connect() as connection:
        calls = read_calls(connection, ALL, None, None)

    assert [posted_call(record, ()) for record in posted] == calls
    # Standard costs twice what flex does: the record says flex, and the rule says the dearer one.
    assert 1 == run(ledger, ask("v1")).result["corrections"]
    assert 2 == run(ledger, ask("v2")).result["corrections"]


def test_sums_by_meter_count_later_priced_tokens_once(ledger):
    """A call that had no price counted its tokens already."""
    ledger.post(make_call({"input": 1000, "output": 5}, model="n", version="v3"))
    before = ledger.queries.usage(UsageQuery(wanted=ALL, group_by=("meter",)))
    run(ledger, ask("v1"))
    after = ledger.queries.usage(UsageQuery(wanted=ALL, group_by=("meter",)))

    assert [row.quantity for row in before] == [row.quantity for row in after]
    assert [(0, 1), (0, 1)] == [(row.cost_pico, row.unknown_cost_requests) for row in before]
    assert [(1_250_000_000, 0), (50_000_000, 0)] == [
        (row.cost_pico, row.unknown_cost_requests) for row in after
    ]
    assert [row.input_tokens for row in before] == [row.input_tokens for row in after]
    assert list(ledger.queries.verify()) == []


def test_a_budget_counts_corrections_where_the_calls_are(ledger):
    """Money once, no request more."""
    ledger.post(make_call({"input": 1000}), make_call({"input": 1000}, started_at_us=NOON_US - 9))
    run(ledger, ask())
    window = ({"team": "search"}, NOON_US, NOON_US + SECOND_US, {})
    scope, start, end, cut = window

    assert ledger.queries.sum_spent(scope, Unit.USD, start, end, cut).settled == 2_500_000_000
    assert ledger.queries.sum_spent(scope, Unit.TOKENS, start, end, cut).settled == 1000
    assert ledger.queries.sum_spent(scope, Unit.REQUESTS, start, end, cut).settled == 1


def test_another_person_finishes_a_killed_run_under_their_own_name(ledger):
    """Every correction names who made it and why."""
    count = BATCH_RECORDS + 7
    ledger.post(*(make_call({"input": n + 1}, started_at_us=NOON_US + n) for n in range(count)))

    def die(_done):
        raise Killed

    with pytest.raises(Killed):
        run(ledger, ask(), die)
    before = ledger.count("records")
    done = rerates_of(ledger).run(ask(), "cli:bob", "contract 9", ignore)

    assert ("cli:bob", "contract 9") == (done.actor, done.why)
    assert 2 * count - before == done.result["corrections"] == ledger.count("records") - before
    assert list(ledger.queries.verify()) == []


@pytest.mark.parametrize("killed_after", [0, 1, 2])
def test_a_killed_run_is_resumed(ledger, killed_after):
    """The second attempt keeps the id, finishes, and its diff is that of a run in one go."""
    count = 2 * BATCH_RECORDS + 7
    ledger.post(*(make_call({"input": n + 1}, started_at_us=NOON_US + n) for n in range(count)))
    expected = rerates_of(ledger).preview(ask(), ignore)
    steps = []

    def die(done):
        steps.append(done)
        if len(steps) > killed_after:
            raise Killed

    with pytest.raises(Killed):
        run(ledger, ask(), die)
    partly = ledger.count("records") - count
    done = run(ledger, ask())

    assert min(count, (killed_after + 1) * BATCH_RECORDS) == partly
    assert ledger.count("rerate_runs") == 2
    assert count == done.result["corrections"] == ledger.count("records") - count
    assert expected["teams"] == done.result["teams"]
    assert list(ledger.queries.verify()) == []


def test_runs_that_race_correct_every_call_once(ledger):
    """Two different runs and two of the same kind, all at once."""
    ledger.post(*(make_call({"input": n + 1}) for n in range(300)))
    requests = [ask(), ask(), ask(wanted=replace(ALL, team="search"))]
    with ThreadPoolExecutor(3) as threads:
        done = [threads.submit(run, ledger, request) for request in requests]

    assert ["done"] * 3 == [one.result().status for one in done]
    assert ledger.count("records") == 600
    assert list(ledger.queries.verify()) == []


@settings(deadline=None, max_examples=15)
@given(
    drawn=st.lists(any_call(), min_size=1, max_size=8),
    versions=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
    cut=st.integers(0, 60),
)
def test_a_span_in_two_parts_is_one_span(shared_ledger, drawn, versions, cut):
    """However the time is cut and whatever was run before, calls cost the same."""
    tenants = [make_tenant(), make_tenant()]
    for tenant in tenants:
        shared_ledger.post(*(replace_ids(record, tenant) for record in drawn), writer=f"w-{tenant}")
    at_us = NOON_US + cut * 3600 * SECOND_US
    one, other = (replace(ALL, organization=tenant) for tenant in tenants)
    for version in versions:
        run(shared_ledger, ask(version, one))
        parts = [replace(other, to_us=at_us), replace(other, from_us=at_us)]
        for part in reversed(parts):
            run(shared_ledger, ask(version, part))

    assert sorted(costs(shared_ledger, one).values()) == sorted(
        costs(shared_ledger, other).values()
    )
    again = rerates_of(shared_ledger).preview(ask(versions[-1], one), ignore)
    assert {"0"} == {row["difference"] for row in again["totals"]}


def post_drawn(ledger, drawn):
    """Post records to a tenant of their own, and tell how to find them."""
    tenant = make_tenant()
    posted = ledger.post(*(replace_ids(record, tenant) for record in drawn), writer=f"w-{tenant}")
    return posted, replace(ALL, organization=tenant)


@st.composite
def any_month(draw):
    """Draw calls that were all priced with one version."""
    version = draw(st.sampled_from(NAMES))
    return version, draw(st.lists(any_call(version=version), min_size=1, max_size=8))


@settings(deadline=None, max_examples=20)
@given(month=any_month())
def test_the_version_a_ledger_was_priced_with_changes_nothing_in_it(shared_ledger, month):
    """Every call of it, whatever it was, and whether its record says much or little."""
    version, drawn = month
    _, wanted = post_drawn(shared_ledger, drawn)
    before = costs(shared_ledger, wanted)
    done = run(shared_ledger, ask(version, wanted))

    assert 0 == done.result["corrections"]
    assert {("0", 0)} == {(row["difference"], row["changed"]) for row in done.result["totals"]}
    assert before == costs(shared_ledger, wanted)


@settings(deadline=None, max_examples=20)
@given(drawn=st.lists(any_call(), min_size=1, max_size=8), version=st.sampled_from(NAMES))
def test_corrections_add_up_to_the_new_cost_less_the_old(shared_ledger, drawn, version):
    """In the records, in the sums of the ledger and in what the run says of itself."""
    posted, wanted = post_drawn(shared_ledger, drawn)
    rerater = Rerater(VERSIONS, version)
    verdicts = [rerater.rate(posted_call(record, ())) for record in posted]
    old = [record.cost_pico or 0 for record in posted]
    new = [
        verdict.cost_pico if isinstance(verdict, Repriced) else cost
        for verdict, cost in zip(verdicts, old, strict=True)
    ]
    (before,) = shared_ledger.queries.usage(UsageQuery(wanted=wanted))
    done = run(shared_ledger, ask(version, wanted))
    (after,) = shared_ledger.queries.usage(UsageQuery(wanted=wanted))
    made = [x for x in shared_ledger.queries.stream_records(wanted) if x.corrects is not None]

    difference = sum(new) - sum(old)
    assert difference == sum(record.cost_pico for record in made)
    assert difference == (after.cost_pico or 0) - (before.cost_pico or 0)
    assert [pico_to_text(difference)] == [row["difference"] for row in done.result["totals"]]
    assert all(x.cost_pico == sum(line.cost_pico for line in x.lines) for x in made)


def replace_ids(record, tenant):
    return msgspec.structs.replace(record, id=f"{tenant}-{record.id}", organization=tenant)


def test_only_what_is_meant_is_priced_again(ledger):
    """Filters are those of every other read."""
    calls = [make_call({"input": 1}, team=team, model=model) for team in "ab" for model in "mn"]
    ledger.post(*calls)
    done = run(ledger, ask(wanted=replace(ALL, team="a", model="p/n")))

    assert (1, 1) == (done.result["corrections"], done.result["totals"][0]["records"])
    assert {"team": "a", "model": "p/n"} == done.request["filter"]


def test_runs_are_kept_and_cannot_be_changed(ledger):
    """Who asked for what, when and why stays."""
    ledger.post(make_call({"input": 1}))
    done = run(ledger, ask())

    assert rerates_of(ledger).find(done.id) == done
    assert rerates_of(ledger).find("nobody") is None
    for change in ("UPDATE rerate_runs SET why = 'x'", "DELETE FROM rerate_runs"):
        with (
            pytest.raises(DatabaseError, match="rerate_runs is append-only"),
            ledger.engine.begin() as connection,
        ):
            connection.execute(text(change))


def test_a_span_without_an_instant_is_refused(ledger):
    """It would answer that nothing changes."""
    with pytest.raises(EmptySpan):
        rerates_of(ledger).preview(ask(wanted=replace(ALL, to_us=ALL.from_us)), ignore)


@pytest.mark.parametrize(
    ("part", "whole", "text_"),
    [(1, 3, "33.33"), (-1, 3, "-33.33"), (-1, 10**6, "0.00"), (5, 0, None), (0, 1, "0.00")],
)
def test_percent_is_exact_text(part, whole, text_):
    """No float, and none of what was nothing."""
    assert text_ == percent_text(part, whole)


def test_new_corrections_change_a_budget_by_what_a_fresh_sum_says(ledger):
    """What is added to a running counter is the difference of two full reads, parking included."""
    calls = [
        make_call({"input": 1000}),
        make_call({"input": 5}, model="n", version="v3", ceiling_pico=9_000, ceiling_tokens=5),
        make_call({"input": 1000}, team="ads"),
    ]
    ledger.post(*calls)
    read = ledger.queries.sum_spent
    scope, start, end = {"team": "search"}, NOON_US, NOON_US + SECOND_US
    seen, before = 0, read(scope, Unit.USD, start, end, {})
    for version in ("v2", "v1", "v2"):
        run(ledger, ask(version))
        last = ledger.queries.seqs()[CORRECTIONS]
        change = ledger.queries.sum_corrected(scope, Unit.USD, start, end, (seen, last))
        after = read(scope, Unit.USD, start, end, {})
        assert after.settled - before.settled == change.settled
        assert after.parked - before.parked == change.parked
        assert before == read(scope, Unit.USD, start, end, {CORRECTIONS: seen})
        seen, before = last, after
    change = ledger.queries.sum_corrected(scope, Unit.USD, start, None, (0, seen))

    assert (0, -9_000) == (before.parked, change.parked)
    assert ledger.queries.sum_corrected(scope, Unit.TOKENS, start, end, (0, seen)).settled == 0
