"""Usage that did not pass the gateway is booked once, like a call."""

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.ledger.queries import Queries
from tests.admin.test_reports import record
from tests.admin.world import ADMIN, World
from tests.contracts.records import NOON_US

SPANS = (Path(__file__).parents[1] / "ingest/spans.pb").read_bytes()
SPANS_JSON = (Path(__file__).parents[1] / "ingest/spans.json").read_bytes()
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
PROTOBUF = "application/x-protobuf"
KEY = {"authorization": "Bearer rag-secret"}


def event(number: int = 1, **data: Any) -> dict[str, Any]:
    """Write a CloudEvent of one call of two hours ago."""
    return {
        "specversion": "1.0",
        "type": "taximeter.usage",
        "source": "nightly",
        "id": f"call-{number}",
        "time": "2026-11-23T10:00:00Z",
        "data": {
            "provider": "openai",
            "model": "gpt-5",
            "usage": {"input": 1248, "cache_read": 1024, "output": 210},
            "input_includes_cache": True,
            "project": "rag",
            **data,
        },
    }


def send(world: World, body: object, media: str = STRUCTURED, **headers: str) -> httpx.Response:
    """Tell of usage."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {**ADMIN, "content-type": media, **headers}
    return world.call("POST", "/ingest", headers=sent, content=content)


def ledger(world: World) -> list[dict[str, Any]]:
    """Read every record."""
    items: list[dict[str, Any]] = world.call("GET", "/ledger").json()["items"]
    return items


def spent(world: World) -> str:
    """Read what the one budget of the settings has spent."""
    status: dict[str, Any] = world.call("GET", "/budgets/search-month").json()["status"]
    return str(status["spent"])


def test_an_event_is_booked_like_a_call(world):
    """Rated by the price book at its own instant, owned, in the ledger and in the budgets."""
    answer = send(world, event(user="u-7", tags={"run": "42"}, duration_ms=1500))

    assert answer.status_code == 200
    (booked,) = answer.json()["events"]
    (found,) = ledger(world)
    assert booked["status"] == "recorded"
    assert booked["record_id"] == found["id"]
    # 224 x 1.25 + 1024 x 0.125 + 210 x 10, by the million.
    assert booked["cost"] == found["cost"] == "0.002508"
    assert found["usage"] == {"input": 224, "cache_read": 1024, "output": 210}
    assert (found["input_total"], found["output_total"]) == (1248, 210)
    assert (found["team"], found["project"], found["key"]) == ("search", "rag", None)
    assert found["tags"] == {"cost": "t1", "env": "prod", "run": "42", "unit": "p1"}
    assert (found["api"], found["http_status"], found["basis"]) == (
        "ingest.cloudevents",
        None,
        "reported",
    )
    assert found["started_at"] == "2026-11-23T10:00:00.000000Z"
    assert found["ended_at"] == "2026-11-23T10:00:01.500000Z"
    assert found["flags"] == ["outside usage: call-1 of nightly"]
    assert spent(world) == "0.002508"
    assert [one.id for one in world.observed] == [found["id"]]
    assert list(Queries(world.engine).verify()) == []


def test_a_price_is_that_of_the_events_own_instant(world):
    """Prices are dated: a call of before the model was sold has none."""
    early = send(world, {**event(), "time": "2020-01-01T00:00:00Z"}).json()["events"][0]
    late = send(world, event(2)).json()["events"][0]

    assert (early["cost"], early["cost_status"]) == (None, "unpriced")
    assert late["cost"] == "0.002508"


def test_a_repetition_answers_the_same_and_adds_nothing(world):
    """Whatever way it is framed, and by whichever process it is taken."""
    first = send(world, event())
    again = send(world, event())
    batched = send(world, [event()], BATCHED)
    attributes = {f"ce-{name}": str(v) for name, v in event().items() if name != "data"}
    binary = send(world, event()["data"], "application/json", **attributes)
    other = World(world.folder)
    elsewhere = send(other, event())
    other.engine.dispose()

    assert first.json()["events"] == again.json()["events"] == binary.json()["events"]
    assert first.json()["events"] == batched.json()["events"] == elsewhere.json()["events"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(ledger(world)) == 1
    assert spent(world) == "0.002508"
    assert len(world.observed) == 1


def test_another_content_under_the_same_id_is_a_conflict(world):
    """Which of the two is true nobody can tell, so the first stands."""
    send(world, event())
    answer = send(world, event(usage={"input": 5}))

    assert answer.status_code == 409
    assert answer.json()["code"] == "conflict"
    assert ledger(world)[0]["id"] in answer.json()["detail"]
    assert len(ledger(world)) == 1


def test_each_event_of_a_batch_has_its_own_answer(world):
    """What can be booked is booked, and what cannot says why."""
    batch = [
        event(1),
        event(1),
        event(1, usage={"input": 7}),
        event(2, input_includes_cache=None),
        {"specversion": "1.0"},
        event(3, project="nobody"),
        {**event(4), "time": "2026-11-23T12:11:00Z"},
        event(5, tags={"Bad Name": "x"}),
        event(6),
    ]

    answer = send(world, batch, BATCHED)

    shown = answer.json()
    assert answer.status_code == 207
    assert [one["code"] for one in shown["events"]] == [
        *(None, None, "conflict", "input_includes_cache_missing", "invalid_event"),
        *("unknown_owner", "in_the_future", "invalid_tags", None),
    ]
    assert shown["events"][0] == shown["events"][1]
    assert (shown["recorded"], shown["failed"]) == (3, 6)
    assert len(ledger(world)) == 2
    # Mended and sent again, the rest is booked and nothing twice.
    assert send(world, [event(n) for n in (1, 2, 6)], BATCHED).status_code == 200
    assert len(ledger(world)) == 3


def test_a_missing_flag_is_told_where_it_matters(world):
    """Without a cached count there is nothing to say."""
    silent = send(world, event(input_includes_cache=None))
    plain = send(world, event(2, input_includes_cache=None, usage={"input": 1}))

    assert silent.status_code == 422
    assert silent.json()["code"] == "input_includes_cache_missing"
    assert "input_includes_cache" in silent.json()["detail"]
    assert plain.status_code == 200


@pytest.mark.parametrize(
    ("body", "media"), [(SPANS, PROTOBUF), (SPANS_JSON, "application/json")], ids=["pb", "json"]
)
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
@pytest.mark.parametrize("path", ["/ingest", "/ingest/v1/traces"])
def test_spans_of_an_exporter_are_booked(world, body, media, encoding, path):
    """The exporter of OpenTelemetry needs an endpoint and a key, nothing else."""
    content = gzip.compress(body, mtime=0) if encoding == "gzip" else body
    headers = {**KEY, "content-type": media, "content-encoding": encoding}
    answer = world.call("POST", path, headers=headers, content=content)

    assert answer.status_code == 200
    assert answer.content in (b"", b"{}")
    (found,) = ledger(world)
    assert found["usage"] == {"input": 224, "cache_read": 1024, "output": 146, "reasoning": 64}
    assert (found["project"], found["key"], found["user"]) == ("rag", "rag-ci", "u-7")
    assert found["tags"]["env"] == "prod"
    assert found["cost"] == "0.002508"
    assert found["model"] == "gpt-5-2025-08-07"


def test_spans_that_fail_are_a_partial_success(world):
    """OTLP tells how many, and why."""
    changed = SPANS_JSON.replace(b'"true"', b'"unclear"')
    answer = send(world, changed, "application/json")

    partial = answer.json()["partialSuccess"]
    assert answer.status_code == 200
    assert partial["rejectedSpans"] == "1"
    assert "taximeter.input_includes_cache" in partial["errorMessage"]
    assert ledger(world) == []


def test_a_call_that_passed_the_gateway_is_not_booked_again(world):
    """An instrumented application tells of calls that are metered already."""
    answered = "chatcmpl-AbCdEf0123456789"
    metered = record(0, provider_request_id=answered, provider="openai", started_at_us=NOON_US)
    world.mailbox.waiting += [metered]
    same = {**event(provider_request_id=answered), "time": "2026-11-23T12:00:02Z"}

    (told,) = send(world, same).json()["events"]
    again = send(world, same)

    assert (told["status"], told["record_id"]) == ("metered", metered.id)
    assert again.json()["events"] == [told]
    assert len(ledger(world)) == 1
    # Hours later the same short or recycled id is another call.
    assert send(world, event(3, provider_request_id=answered)).json()["recorded"] == 1


def test_one_call_told_as_event_and_as_span_is_booked_once(world):
    """Two ways of telling are one call where the provider's id is the same."""
    send(world, SPANS, PROTOBUF)
    (told,) = send(world, event(provider_request_id="chatcmpl-AbCdEf0123456789")).json()["events"]

    assert told["status"] == "metered"
    assert len(ledger(world)) == 1


def test_a_key_tells_of_itself_alone(world):
    """An application needs no admin token, and cannot book on others."""
    own = send(world, event(), **KEY)
    other = send(world, event(2, project="other"), **KEY)
    wrong = send(world, event(3), authorization="Bearer sk-unknown")
    elsewhere = world.call("GET", "/ledger", headers=KEY)

    assert own.status_code == 200
    assert ledger(world)[0]["key"] == "rag-ci"
    assert (other.status_code, other.json()["code"]) == (422, "unknown_owner")
    assert wrong.status_code == 401
    assert elsewhere.status_code == 401


def test_names_of_owners_must_agree(world):
    """A project of another team is a mistake, not a choice."""
    by_key = send(world, event(1, project=None, key="rag-ci")).json()["events"][0]
    team_only = send(world, event(2, project=None, team="search"))
    nobody = send(world, event(3, project=None))
    wrong = send(world, event(4, team="ads"))

    assert by_key["status"] == "recorded"
    assert team_only.status_code == nobody.status_code == 200
    assert wrong.json()["code"] == "unknown_owner"
    assert {(one["team"], one["key"]) for one in ledger(world)} == {
        ("search", "rag-ci"),
        ("search", None),
        (None, None),
    }


def test_usage_that_exceeds_a_budget_is_booked_and_says_so(world):
    """It has happened: a budget cannot refuse it any more, only count it."""
    answer = send(world, event(usage={"input": 10**9}))

    assert answer.status_code == 200
    assert answer.json()["events"][0]["cost"] == "1250"
    assert answer.json()["budgets_exceeded"] == ["search-month"]
    assert spent(world) == "1250"


def test_budgets_know_outside_usage_after_a_restart(world):
    """What is in the ledger counts once, whoever reads it."""
    send(world, event())
    other = World(world.folder)
    send(other, event(2))
    sums = spent(other)
    other.engine.dispose()

    assert sums == "0.005016"
    # The first process looks by itself.
    world.run_async(world.follower.take_appended())
    assert spent(world) == "0.005016"


def test_what_has_no_price_is_unknown_never_zero(world):
    """It is booked with its counts, flagged, and can be priced later."""
    told = send(world, event(provider="nobody", model="m")).json()["events"][0]
    (found,) = ledger(world)

    assert (told["cost"], told["cost_status"]) == (None, "unpriced")
    assert (found["cost"], found["usage"]["output"]) == (None, 210)


def test_a_tier_decides_the_price(world):
    """Told tiers are used; one the model is not sold in has no price."""
    flex = send(world, event(1, service_tier="flex")).json()["events"][0]
    plain = send(world, event(2, service_tier="default")).json()["events"][0]
    odd = send(world, event(3, service_tier="gold")).json()["events"][0]

    assert flex["cost"] == "0.001254"
    assert plain["cost"] == "0.002508"
    assert odd["cost_status"] == "unpriced"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_event"),
        (b"[]", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
        (b"{}", {"content-type": "application/json"}, 400, "invalid_event"),
        (b"\xff", {"content-type": PROTOBUF}, 400, "invalid_event"),
        (b"x", {"content-encoding": "gzip"}, 400, "invalid_request"),
        (b"x", {"content-encoding": "br"}, 415, "unsupported_media_type"),
        (gzip.compress(b"{}", mtime=0)[:-3], {"content-encoding": "gzip"}, 400, "invalid_request"),
        (
            gzip.compress(b" " * 17_000_000, mtime=0),
            {"content-encoding": "gzip"},
            413,
            "request_too_large",
        ),
        (b" " * 5_000_000, {}, 413, "request_too_large"),
        (b"[" + b"{}," * 1000 + b"{}]", {"content-type": BATCHED}, 413, "too_many_events"),
    ],
)
def test_requests_that_cannot_be_read_are_refused(world, body, headers, status, code):
    """Sizes are bounded before anything is unpacked or booked."""
    answer = send(world, body, **{"media": STRUCTURED, **headers})

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_an_unreachable_database_books_nothing_and_says_so(world):
    """The sender tries again; nothing is half there."""
    with world.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE ingested RENAME TO gone")

    assert send(world, event()).status_code == 503
    with world.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO ingested")
    assert ledger(world) == []
    assert send(world, event()).status_code == 200


def test_outside_usage_can_be_re_rated(world):
    """Its record says what it was priced as."""
    send(world, event())
    body = {
        "from": "2026-11-23T00:00:00Z",
        "to": "2026-11-24T00:00:00Z",
        "price_version": world.parts.book.version.version,
    }
    world.versions.record_shipped("taximeter 1.0")
    shown = world.call("POST", "/rerates", json=body).json()

    assert shown["corrections"] == 0
    assert shown["cannot_rerate"] == []
    assert shown["totals"][0]["records"] == 1
