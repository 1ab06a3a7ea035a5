"""What budgets have spent, compared with the same sum in plain Python."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.budgets.rules import Unit
from gateway.ledger.filters import QueryRefused
from gateway.ledger.queries import Spent
from tests.contracts.records import (
    INT64,
    NOON_US,
    make_record,
    make_refused,
    make_tenant,
    make_unknown,
)

START_US, END_US = NOON_US, NOON_US + 10


def fold_spent(records, unit, end_us, last_seq):
    """Add up in Python, record by record, what ``sum_spent`` adds up in the database."""
    seen = [r for r in records if r.seq <= last_seq]
    counted = [
        r
        for r in seen
        if r.outcome != "refused"
        and r.started_at_us >= START_US
        and (end_us is None or r.started_at_us < end_us)
    ]
    if unit is Unit.REQUESTS:
        return Spent(settled=sum(r.corrects is None for r in counted), parked=0)

    def amount(record):
        if unit is Unit.USD:
            return record.cost_pico
        if record.input_total is None or record.output_total is None:
            return None
        return record.input_total + record.output_total

    first = "cost_pico" if unit is Unit.USD else "input_total"
    made_known = {r.corrects for r in seen if getattr(r, first) is not None}
    if unit is Unit.USD:
        counted = [r for r in counted if r.currency == "USD"]
    parked = [r for r in counted if amount(r) is None and r.id not in made_known]
    ceiling = "ceiling_pico" if unit is Unit.USD else "ceiling_tokens"
    return Spent(
        settled=sum(amount(r) or 0 for r in counted),
        parked=sum(getattr(r, ceiling) or 0 for r in parked),
    )


@st.composite
def any_spending(draw):
    """Draw a few records of one organisation, some of them correcting earlier calls."""
    tenant = make_tenant()
    found = []
    for _ in range(draw(st.integers(1, 8))):
        calls = [r.id for r in found if r.corrects is None]
        corrects = draw(st.none() | st.sampled_from(calls)) if calls else None
        record = make_record(
            organization=tenant,
            corrects=corrects,
            outcome=draw(st.sampled_from(["ok", "ok", "aborted", "refused"])),
            started_at_us=draw(st.sampled_from([START_US - 1, START_US, END_US - 1, END_US])),
            currency=draw(st.sampled_from(["USD", "USD", "USD", "EUR"])),
            cost_pico=draw(st.none() | INT64),
            ceiling_pico=draw(st.none() | INT64),
            input_total=draw(st.none() | INT64),
            output_total=draw(st.none() | INT64),
            ceiling_tokens=draw(st.none() | INT64),
            lines=(),
        )
        found.append(record)
    return tenant, found


@given(
    drawn=any_spending(),
    unit=st.sampled_from(Unit),
    end_us=st.sampled_from([None, END_US]),
    last_seq=st.integers(0, 8),
)
def test_what_was_spent_agrees_with_a_plain_sum(shared_ledger, drawn, unit, end_us, last_seq):
    """In every unit, window and cut; exact, of any size, unknown amounts at their ceiling."""
    tenant, records = drawn
    posted = shared_ledger.post(*records, writer=tenant)
    found = shared_ledger.queries.sum_spent(
        {"organization": tenant}, unit, START_US, end_us, {tenant: last_seq}
    )

    assert fold_spent(posted, unit, end_us, last_seq) == found


def spent(ledger, scope, unit=Unit.USD, up_to=None):
    """Ask for everything a scope has spent."""
    return ledger.queries.sum_spent(scope, unit, 0, None, up_to or {})


def test_nothing_spent_is_zero(ledger):
    """An empty window starts at nothing."""
    for unit in Unit:
        assert Spent(settled=0, parked=0) == spent(ledger, {}, unit)


def test_refused_calls_spend_nothing(ledger):
    """A call that was not let through takes nothing from any budget."""
    ledger.post(make_refused(), make_refused(cost_pico=None, ceiling_pico=7))

    for unit in Unit:
        assert Spent(settled=0, parked=0) == spent(ledger, {}, unit)


def test_unknown_amounts_count_at_their_ceiling(ledger):
    """Nothing that may have cost money is handed back for free."""
    ledger.post(make_unknown(ceiling_pico=40, ceiling_tokens=400), make_record(cost_pico=2))

    assert Spent(settled=2, parked=40) == spent(ledger, {})
    assert Spent(settled=1000, parked=400) == spent(ledger, {}, Unit.TOKENS)
    assert Spent(settled=2, parked=0) == spent(ledger, {}, Unit.REQUESTS)


def test_a_correction_ends_the_parking(ledger):
    """The truth replaces the ceiling; it is not added to it."""
    unknown = make_unknown(ceiling_pico=40, ceiling_tokens=400)
    ledger.post(unknown, make_record(corrects=unknown.id, cost_pico=3))

    assert Spent(settled=3, parked=0) == spent(ledger, {})
    assert Spent(settled=1000, parked=0) == spent(ledger, {}, Unit.TOKENS)
    assert Spent(settled=1, parked=0) == spent(ledger, {}, Unit.REQUESTS)
    assert Spent(settled=0, parked=40) == spent(ledger, {}, up_to={"w-1": 1})


def test_a_cut_holds_for_the_journals_it_names(ledger):
    """Other journals count fully: nobody else counts them."""
    ledger.post(make_record(cost_pico=1), make_record(cost_pico=20))
    ledger.post(make_record(cost_pico=300), writer="w-2")

    assert 321 == spent(ledger, {}).settled
    assert 301 == spent(ledger, {}, up_to={"w-1": 1}).settled
    assert 300 == spent(ledger, {}, up_to={"w-1": 0}).settled
    assert 1 == spent(ledger, {}, up_to={"w-1": 1, "w-2": 0, "w-3": 5}).settled


@pytest.mark.parametrize(
    ("scope", "settled"),
    [
        ({}, 111),
        ({"team": "search"}, 11),
        ({"team": "search", "project": "p2"}, 10),
        ({"key": "k3"}, 100),
        ({"user": "ann"}, 1),
        ({"provider": "openai"}, 11),
        ({"model": "gpt-5"}, 11),
        ({"model": "openai/gpt-4o"}, 100),
        ({"model": "gpt-4o"}, 0),
        ({"tag.env": "prod"}, 101),
        ({"tag.env": "prod", "tag.x.y": "1"}, 1),
        ({"tag.env": "none"}, 0),
    ],
)
def test_a_scope_finds_the_calls_it_would_hold(shared_ledger, scope, settled):
    """All parts must match; a model counts whether or not the provider was named with it."""
    tenant = make_tenant()
    shared_ledger.post(
        make_record(organization=tenant, cost_pico=1, user="ann", tags={"env": "prod", "x.y": "1"}),
        make_record(
            organization=tenant, cost_pico=10, project="p2", model_requested="openai/gpt-5"
        ),
        make_record(
            organization=tenant,
            cost_pico=100,
            team="ads",
            key="k3",
            provider="openrouter",
            model_requested="openrouter/openai/gpt-4o",
            tags={"env": "prod"},
        ),
        writer=tenant,
    )

    assert settled == spent(shared_ledger, {**scope, "organization": tenant}).settled


def test_an_unknown_part_of_a_scope_is_refused(ledger):
    """A budget over something records do not have would never count anything."""
    with pytest.raises(QueryRefused, match="colour"):
        spent(ledger, {"colour": "red"})


def test_all_records_of_one_window_count_whatever_journal_they_came_from(ledger):
    """Correcting records count where they started."""
    first = ledger.post(make_record(cost_pico=5, started_at_us=START_US))[0]
    late = msgspec.structs.replace(
        make_record(corrects=first.id, cost_pico=-2, started_at_us=END_US), lines=()
    )
    ledger.post(late, writer="w-2")

    assert 5 == ledger.queries.sum_spent({}, Unit.USD, START_US, END_US, {}).settled
    assert 3 == ledger.queries.sum_spent({}, Unit.USD, START_US, END_US + 1, {}).settled
