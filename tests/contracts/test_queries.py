"""What every ledger database promises about finding and streaming records."""

from datetime import UTC, datetime

import pytest

from gateway.clock import epoch_us
from gateway.ledger.errors import StoreUnavailable
from gateway.ledger.filters import QueryRefused, RecordFilter
from gateway.ledger.queries import Queries
from gateway.ledger.usage import UsageQuery, usage_to_public
from tests.contracts.records import (
    HOUR_US,
    NOON_US,
    SECOND_US,
    make_line,
    make_record,
    make_refused,
    make_tenant,
    make_unknown,
)

ALL = RecordFilter()


def ids_of(records):
    """List ids in order."""
    return [record.id for record in records]


def pages_of(ledger, wanted, limit):
    """Turn all pages, as a client would."""
    cursor = None
    while True:
        page, cursor = ledger.queries.page_records(wanted, limit, cursor)
        yield page
        if cursor is None:
            return


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100])
def test_pages_show_every_record_once_newest_first(ledger, limit):
    """However long the pages are, also where several calls started in the same microsecond."""
    started = [NOON_US + SECOND_US * (n // 3) for n in range(7)]
    posted = ledger.post(*(make_record(started_at_us=at) for at in started))
    pages = list(pages_of(ledger, ALL, limit))
    newest_first = sorted(posted, key=lambda r: (r.started_at_us, r.id), reverse=True)

    assert ids_of(newest_first) == [record.id for page in pages for record in page]
    assert all(len(page) <= limit for page in pages)
    assert newest_first == [record for page in pages for record in page]


def test_a_page_stays_the_same_while_records_arrive(ledger):
    """A cursor is a place between records, not a count of them."""
    ledger.post(*(make_record(started_at_us=NOON_US + n) for n in range(4)))
    first, cursor = ledger.queries.page_records(ALL, 2)
    ledger.post(make_record(started_at_us=NOON_US + 10))
    second, end = ledger.queries.page_records(ALL, 2, cursor)

    assert [3, 2, 1, 0] == [r.started_at_us - NOON_US for r in (*first, *second)]
    assert end is None


def test_an_empty_ledger_has_one_empty_page(ledger):
    """Nothing found is not an error."""
    assert ((), None) == ledger.queries.page_records(ALL, 10)
    assert list(ledger.queries.stream_records(ALL)) == []


@pytest.mark.parametrize("cursor", ["", "x", "12", "12.", "-1.A", "1" * 30 + ".A", "²3.A"])
def test_a_made_up_cursor_is_refused(ledger, cursor):
    """A cursor that was never handed out is the client's mistake."""
    with pytest.raises(QueryRefused, match="cursor"):
        ledger.queries.page_records(ALL, 10, cursor)


def test_a_stream_shows_every_record_oldest_first(ledger):
    """Also when it takes several reads, and when calls started in the same microsecond."""
    posted = ledger.post(*(make_record(started_at_us=NOON_US - n // 3) for n in range(1203)))
    oldest_first = sorted(posted, key=lambda r: (r.started_at_us, r.id))

    assert oldest_first == list(ledger.queries.stream_records(ALL))


def test_a_stream_holds_no_connection_between_reads(ledger):
    """A slow reader of an export does not keep a transaction open."""
    ledger.post(*(make_record() for _ in range(600)))
    stream = ledger.queries.stream_records(ALL)
    next(stream)

    assert ledger.engine.pool.checkedout() == 0


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"team": "search"}, "ab"),
        ({"team": "ads"}, "c"),
        ({"team": "none"}, ""),
        ({"project": "p2"}, "b"),
        ({"key": "k3"}, "c"),
        ({"user": "ann"}, "a"),
        ({"provider": "anthropic"}, "c"),
        ({"outcome": "aborted"}, "b"),
        ({"api": "anthropic.messages"}, "c"),
        ({"model": "gpt-5"}, "ab"),
        ({"model": "openai/gpt-5"}, "ab"),
        ({"model": "gpt-5-2025-08-07"}, "a"),
        ({"model": "claude-x"}, "c"),
        ({"model": "anthropic/claude-x"}, "c"),
        ({"tags": {"env": "prod"}}, "ac"),
        ({"tags": {"env": "prod", "cost centre.ü": "7"}}, "c"),
        ({"tags": {"none": "prod"}}, ""),
        ({"tags": {"7": "seven"}}, "b"),
        ({"from_us": NOON_US + 1}, "bc"),
        ({"to_us": NOON_US + 1}, "a"),
        ({"from_us": NOON_US + 1, "to_us": NOON_US + 2}, "b"),
    ],
)
def test_filters_find_what_they_name(shared_ledger, wanted, expected):
    """Everything given must match; instants are half-open; models go by any of their names."""
    tenant = make_tenant()
    common = {"organization": tenant, "project": "p1"}
    shared_ledger.post(
        make_record(
            **common,
            provider_request_id="a",
            user="ann",
            model="gpt-5-2025-08-07",
            tags={"env": "prod"},
        ),
        make_unknown(
            organization=tenant,
            provider_request_id="b",
            project="p2",
            model_requested="openai/gpt-5",
            tags={"7": "seven"},
            started_at_us=NOON_US + 1,
        ),
        make_record(
            **common,
            provider_request_id="c",
            team="ads",
            key="k3",
            provider="anthropic",
            api="anthropic.messages",
            model_requested="claude-x",
            model="claude-x",
            tags={"cost centre.ü": "7", "env": "prod"},
            started_at_us=NOON_US + 2,
        ),
        writer=tenant,
    )
    found = shared_ledger.queries.stream_records(RecordFilter(organization=tenant, **wanted))

    assert expected == "".join(record.provider_request_id or "" for record in found)


@pytest.mark.parametrize("name", ["", 'a"b', "a\\b", "a\nb"])
def test_a_tag_no_path_can_name_is_refused(ledger, name):
    """A name from outside never becomes part of a JSON path it could break out of."""
    with pytest.raises(QueryRefused, match="tag"):
        ledger.queries.page_records(RecordFilter(tags={name: "x"}), 10)


def test_questions_to_a_missing_database_are_refused_as_such(absent_engine):
    """Every question says so when the database is away."""
    queries = Queries(absent_engine)
    for ask in (
        lambda: queries.page_records(ALL, 1),
        lambda: list(queries.stream_records(ALL)),
        lambda: queries.usage(UsageQuery()),
        lambda: list(queries.verify()),
        queries.seqs,
    ):
        with pytest.raises(StoreUnavailable):
            ask()


def usage_of(ledger, *group_by, granularity="none", **wanted):
    """Ask for usage and drop what is not compared."""
    query = UsageQuery(
        wanted=RecordFilter(**wanted), group_by=tuple(group_by), granularity=granularity
    )
    return ledger.queries.usage(query)


def test_usage_of_nothing_is_nothing(ledger):
    """No row is made up for groups without records."""
    assert usage_of(ledger, "team") == []


def test_usage_adds_up_by_group(ledger):
    """Sums are exact; refusals count as requests, corrections do not; unknown stands beside."""
    ledger.post(
        make_record(output_total=7, cost_pico=3, list_cost_pico=4),
        make_record(cost_pico=5, list_cost_pico=5),
        make_unknown(),
        make_refused(team="ads"),
        make_record(team=None, cost_pico=1, list_cost_pico=1),
    )
    shown = [
        (
            row.group["team"],
            row.requests,
            (row.input_tokens, row.output_tokens),
            (row.cost_pico, row.list_cost_pico),
            (row.unknown_cost_requests, row.unknown_usage_requests),
        )
        for row in usage_of(ledger, "team")
    ]

    assert [
        ("ads", 1, (0, 0), (0, 0), (0, 0)),
        ("search", 3, (2000, 7), (8, 9), (1, 1)),
        (None, 1, (1000, 0), (1, 1), (0, 0)),
    ] == shown


@pytest.mark.parametrize(
    "name", ["organization", "project", "key", "user", "model", "provider", "api", "outcome"]
)
def test_usage_groups_by_every_column(ledger, name):
    """Each name of the interface groups."""
    ledger.post(make_record(), make_record(**{name: "zz-other"}))
    rows = usage_of(ledger, name)
    first = getattr(make_record(), name)

    assert {first: 1, "zz-other": 1} == {row.group[name]: row.requests for row in rows}


def test_usage_groups_by_tags_and_columns_together(ledger):
    """Any number of names; a record without the tag stands under None."""
    ledger.post(
        make_record(tags={"env": "prod", "a.b": "1"}),
        make_record(tags={"env": "dev"}),
        make_record(tags={"env": "prod", "a.b": "2"}, team="ads"),
        make_record(),
    )
    rows = usage_of(ledger, "tag.env", "team", "tag.a.b")

    assert [
        ({"tag.env": "dev", "team": "search", "tag.a.b": None}, 1),
        ({"tag.env": "prod", "team": "ads", "tag.a.b": "2"}, 1),
        ({"tag.env": "prod", "team": "search", "tag.a.b": "1"}, 1),
        ({"tag.env": None, "team": "search", "tag.a.b": None}, 1),
    ] == [(row.group, row.requests) for row in rows]


@pytest.mark.parametrize("names", [("colour",), ("team", "team"), ("tag.",), ("id",)])
def test_usage_refuses_names_it_does_not_know(ledger, names):
    """A typing error is told, not answered with an empty table."""
    with pytest.raises(QueryRefused):
        usage_of(ledger, *names)


def at(*when):
    """Name an instant in UTC."""
    return epoch_us(datetime(*when, tzinfo=UTC))


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [
        (
            "hour",
            [
                (at(2026, 1, 31, 23), 1),
                (at(2026, 2, 1, 0), 2),
                (at(2026, 2, 28, 23), 1),
                (at(2026, 3, 29, 1), 1),
            ],
        ),
        (
            "day",
            [
                (at(2026, 1, 31), 1),
                (at(2026, 2, 1), 2),
                (at(2026, 2, 28), 1),
                (at(2026, 3, 29), 1),
            ],
        ),
        ("month", [(at(2026, 1, 1), 1), (at(2026, 2, 1), 3), (at(2026, 3, 1), 1)]),
        ("none", [(None, 5)]),
    ],
)
def test_usage_periods_are_those_of_utc(ledger, granularity, expected):
    """Periods are half-open and know the length of every month."""
    instants = (
        at(2026, 1, 31, 23, 59, 59, 999_999),
        at(2026, 2, 1),
        at(2026, 2, 1, 0, 59, 59, 999_999),
        at(2026, 2, 28, 23, 30),
        at(2026, 3, 29, 1, 30),
    )
    ledger.post(*(make_record(started_at_us=instant) for instant in instants))
    rows = usage_of(ledger, granularity=granularity)

    assert expected == [(row.period_start_us, row.requests) for row in rows]


def test_usage_by_meter_adds_quantities_exactly(ledger):
    """Whole counts and decimal fractions add up; tokens stand on the side of their meter."""
    lines = (
        make_line("input", "10", 100),
        make_line("cache_read", "5", 10),
        make_line("output", "3", 60),
        make_line("audio_second", "1.5", 7),
    )
    usage = {"input": 10, "cache_read": 5, "output": 3, "audio_second": "1.5"}
    priced = {"usage": usage, "lines": lines, "cost_pico": 177, "list_cost_pico": 177}
    ledger.post(
        make_record(**priced),
        make_record(**priced),
        make_record(
            usage={"audio_second": "0.1", "web_search": 2, "of_tomorrow": 1},
            lines=(),
            cost_pico=None,
            list_cost_pico=None,
            cost_status="unpriced",
        ),
        make_unknown(),
        make_refused(),
    )
    shown = {
        row.group["meter"]: (
            row.requests,
            row.quantity and str(row.quantity),
            (row.input_tokens, row.output_tokens),
            row.cost_pico,
            row.unknown_cost_requests,
        )
        for row in usage_of(ledger, "meter")
    }

    assert {
        "audio_second": (3, "3.1", (0, 0), 14, 1),
        "cache_read": (2, "10", (10, 0), 20, 0),
        "input": (2, "20", (20, 0), 200, 0),
        "of_tomorrow": (1, "1", (0, 0), 0, 1),
        "output": (2, "6", (0, 6), 120, 0),
        "web_search": (1, "2", (0, 0), 0, 1),
        None: (2, None, (0, 0), 0, 1),
    } == shown


def test_usage_by_meter_goes_with_other_groups_filters_and_periods(ledger):
    """The meter is a group like the others."""
    ledger.post(
        make_record(tags={"env": "prod"}),
        make_record(tags={"env": "prod"}, started_at_us=NOON_US + HOUR_US),
        make_record(tags={"env": "dev"}),
    )
    rows = usage_of(
        ledger, "tag.env", "meter", granularity="hour", tags={"env": "prod"}, team="search"
    )

    assert [
        ({"tag.env": "prod", "meter": "input"}, NOON_US, 1, 1000),
        ({"tag.env": "prod", "meter": "input"}, NOON_US + HOUR_US, 1, 1000),
    ] == [(row.group, row.period_start_us, row.requests, row.quantity) for row in rows]


def test_usage_is_shown_with_money_and_quantity_as_text(ledger):
    """The interface writes no number that a reader could round."""
    ledger.post(make_record())
    by_meter = usage_of(ledger, "team", "meter", granularity="day")[0]
    sums = {
        "requests": 1,
        "input_tokens": 1000,
        "output_tokens": 0,
        "currency": "USD",
        "cost": "0.00125",
        "list_cost": "0.00125",
        "unknown_cost_requests": 0,
        "unknown_usage_requests": 0,
    }
    place = {"team": "search", "meter": "input", "period_start": "2026-11-23T00:00:00.000000Z"}

    assert {**place, **sums, "quantity": "1000"} == usage_to_public(by_meter)
    assert sums == usage_to_public(usage_of(ledger)[0])


def test_currencies_are_never_added_together(ledger):
    """Each currency has its own row."""
    ledger.post(make_record(cost_pico=1), make_record(cost_pico=2, currency="EUR"))

    assert [("EUR", 2), ("USD", 1)] == [(r.currency, r.cost_pico) for r in usage_of(ledger)]


def test_a_correction_changes_sums_by_its_difference(ledger):
    """Signed differences lower a sum, and do not count as another request."""
    first = make_record(cost_pico=1_250_000_001, list_cost_pico=1_250_000_001)
    ledger.post(
        first,
        make_record(
            corrects=first.id,
            usage={"input": -100},
            input_total=-100,
            cost_pico=-125_000_001,
            list_cost_pico=-125_000_001,
            lines=(make_line("input", "-100", -125_000_001),),
        ),
    )
    whole = usage_of(ledger)[0]
    by_meter = usage_of(ledger, "meter")[0]

    assert (1, 900, 1_125_000_000) == (whole.requests, whole.input_tokens, whole.cost_pico)
    assert 900 == by_meter.quantity == by_meter.input_tokens


def test_a_correction_makes_the_unknown_known(ledger):
    """A call whose cost was found out later is not counted as unknown any more."""
    unknown, other = make_unknown(), make_unknown()
    ledger.post(unknown, other, make_record(corrects=unknown.id, cost_pico=9, list_cost_pico=9))
    row = usage_of(ledger)[0]

    assert (2, 9) == (row.requests, row.cost_pico)
    assert (1, 1) == (row.unknown_cost_requests, row.unknown_usage_requests)


def test_sums_go_beyond_64_bits(ledger):
    """Nine million dollars is not the end of exact addition."""
    largest = 2**63 - 1
    ledger.post(
        *(
            make_record(
                cost_pico=sign * largest,
                list_cost_pico=largest,
                lines=(make_line("input", cost_pico=sign * largest, list_cost_pico=largest),),
            )
            for sign in (1, 1, 1, -1)
        )
    )

    for row in (*usage_of(ledger), *usage_of(ledger, "meter")):
        assert (2 * largest, 4 * largest) == (row.cost_pico, row.list_cost_pico)
