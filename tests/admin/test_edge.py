"""The door, problems, repeats and the routes outside the API."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from gateway.ledger.queries import Queries
from gateway.ledger.store import open_engine
from tests.admin.world import ADMIN, TOKEN, World

TEAM = {"id": "ads"}


def with_key(key: str) -> dict[str, str]:
    """Make headers with an idempotency key."""
    return {**ADMIN, "idempotency-key": key}


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        "Bearer sk-tm-key",
    ],
)
def test_only_the_admin_token_opens_the_door(world: World, authorization: str | None):
    """Without the token nothing answers, not even with a 404."""
    headers = {} if authorization is None else {"authorization": authorization}
    for path in ("/teams", "/no-such-thing"):
        answer = world.call("GET", path, headers=headers)

        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_the_scheme_is_spelled_either_way(world: World):
    """Scheme names have no case."""
    headers = {"authorization": f"bearer {TOKEN}"}

    assert world.call("GET", "/teams", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("request_line", "more", "status", "code"),
    [
        ("GET /no-such", {}, 404, "not_found"),
        ("GET /teams/no-such", {}, 404, "not_found"),
        ("GET /teams/%00", {}, 404, "not_found"),
        ("PUT /teams", {}, 405, "method_not_allowed"),
        ("PUT /prices", {"json": {}}, 405, "method_not_allowed"),
        ("POST /teams", {"content": b"{"}, 400, "invalid_request"),
        ("POST /teams", {"content": b"\xff"}, 400, "invalid_request"),
        ("POST /teams", {"content": b"[" * 100_000}, 400, "invalid_request"),
        ("POST /teams", {"json": [1]}, 422, "invalid_request"),
        ("POST /teams", {"content": b""}, 422, "invalid_request"),
        ("POST /teams", {"json": {"id": "\ud800"}}, 422, "invalid_request"),
        ("POST /teams", {"content": b"x" * (4 * 1024 * 1024 + 1)}, 413, "request_too_large"),
    ],
)
def test_every_error_is_a_problem(
    world: World, request_line: str, more: dict[str, Any], status: int, code: str
):
    """Clients read one shape, whatever went wrong."""
    headers = {**ADMIN, "content-type": "application/json"}
    answer = world.call(*request_line.split(), headers=headers, **more)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "code", "detail", "errors"} == set(answer.json())
    assert answer.json()["status"] == status


@pytest.mark.parametrize(
    "path", ["/chat/completions", "//v1/chat/completions", "/opnai/chat/completions", "/api/chat"]
)
def test_an_address_nobody_has_says_where_models_are_called(world: World, path: str):
    """It is what an SDK shows whose base URL lacks /v1 or misspells the provider."""
    answer = world.raw("POST", f"http://testserver{path}", json={})

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "below /v1 or below the id of a configured provider" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "reason"),
    [("?team=a&team=b", "given more than once"), ("?taem=a", "is not known")],
)
def test_a_filter_that_would_be_ignored_is_refused(world: World, query: str, reason: str):
    """A misspelt filter, or one of two, would answer with more than was asked for."""
    answer = world.call("GET", f"/ledger{query}")

    assert 422 == answer.status_code
    assert reason in answer.text


def test_a_body_without_a_declared_length_is_bounded_too(world: World):
    """Chunked bodies are counted as they come."""

    async def chunks():
        for _ in range(5):
            yield b"x" * 1024 * 1024

    for headers in (ADMIN, with_key("k")):
        answer = world.call("POST", "/teams", headers=headers, content=chunks())

        assert answer.status_code == 413


def test_a_repeat_gets_the_first_answer(world: World):
    """Same key, same body: one team, one answer."""
    first = world.call("POST", "/teams", json=TEAM, headers=with_key("k1"))
    world.clock.move(timedelta(minutes=5))
    again = world.call("POST", "/teams", json=TEAM, headers=with_key("k1"))

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert again.headers["content-type"] == "application/json"
    assert again.headers["idempotency-replayed"] == "true"
    other = world.call("POST", "/teams", json={"id": "x"}, headers=with_key("k1"))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_a_failure_is_not_kept(world: World):
    """What was refused may be tried again with the same key once it can work."""
    project = {"id": "bids", "team": "ads"}
    refused = world.call("POST", "/projects", json=project, headers=with_key("k1"))
    world.call("POST", "/teams", json=TEAM)
    made = world.call("POST", "/projects", json=project, headers=with_key("k1"))

    assert (refused.status_code, made.status_code) == (422, 201)


def test_stored_answers_need_the_token_too(world: World):
    """A key that was used before does not open the door."""
    world.call("POST", "/teams", json=TEAM, headers=with_key("k1"))
    headers = {"idempotency-key": "k1"}

    assert world.call("POST", "/teams", json=TEAM, headers=headers).status_code == 401


def test_a_claim_left_behind_gives_way(world: World):
    """A crash between the change and its answer blocks the key for a minute, not for ever."""
    world.call("POST", "/teams", json=TEAM, headers=with_key("k1"))
    with world.engine.begin() as connection:
        connection.execute(text("UPDATE idempotency SET status = 0, body = ''"))
    soon = world.call("POST", "/teams", json=TEAM, headers=with_key("k1"))
    world.clock.move(timedelta(seconds=61))
    later = world.call("POST", "/teams", json=TEAM, headers=with_key("k1"))

    assert (soon.status_code, soon.json()["code"]) == (409, "idempotency_key_in_use")
    assert (later.status_code, later.json()["code"]) == (409, "conflict")


def test_answers_are_kept_for_a_day(world: World):
    """The table of answers does not grow for ever."""
    world.call("POST", "/teams", json=TEAM, headers=with_key("k1"))
    world.clock.move(timedelta(hours=25))
    again = world.call("POST", "/teams", json=TEAM, headers=with_key("k1"))

    assert again.status_code == 409
    with world.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM idempotency")).scalar() == 0


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9"])
def test_odd_idempotency_keys_are_refused(world: World, key: str):
    """A key that cannot be stored is a mistake to hear about."""
    headers = {k.encode(): v.encode("latin-1") for k, v in with_key(key).items()}
    answer = world.raw("POST", "/api/v1/teams", json=TEAM, headers=headers)

    assert answer.status_code == 400


def test_estimates_honour_idempotency_keys(world: World):
    """A repeated estimate is the same one, even after a price change."""
    body = {"model": "demo-chat", "input_tokens": 5}
    first = world.call("POST", "/estimates", json=body, headers=with_key("e"))
    world.clock.move(timedelta(minutes=1))

    assert (
        first.content == world.call("POST", "/estimates", json=body, headers=with_key("e")).content
    )


def test_a_database_that_is_away_is_a_503(world: World, tmp_path):
    """Stores that are down are said to be down, with a time to come back."""
    (tmp_path / "gone.db").mkdir()
    gone = open_engine(f"sqlite:///{tmp_path}/gone.db")
    world.rebuild(queries=Queries(gone), engine=gone)
    for answer in (
        world.call("GET", "/ledger"),
        world.call("GET", "/ledger", headers={**ADMIN, "accept": "application/x-ndjson"}),
        world.call("POST", "/teams", json=TEAM, headers=with_key("k")),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert answer.headers["retry-after"] == "5"
    gone.dispose()


def test_a_bug_is_a_problem_that_tells_nothing(world: World):
    """What went wrong inside is for the log."""

    def broken(_timeout_s: float) -> bool:
        raise RuntimeError("secret detail")

    world.rebuild(flush=broken)
    answer = world.call("GET", "/ledger")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret detail" not in answer.text


def test_health_needs_no_token_and_readiness_tells_what_is_down(world: World):
    """Orchestrators ask without a token."""
    assert world.raw("GET", "/healthz").json() == {"status": "ok"}
    assert world.raw("GET", "/readyz").json()["status"] == "ready"
    world.ready["ledger"] = False
    answer = world.raw("GET", "/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "unavailable",
        "checks": {"journal": True, "ledger": False, "price_book": True},
    }


def test_the_front_page_leads_on(world: World):
    """A newcomer finds the docs, the metrics and a first command; no header gets into the page."""
    page = world.raw("GET", "/", headers={"host": 'x"><script>alert(1)</script>'})

    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for part in (
        'href="docs"',
        'href="metrics"',
        'href="openapi.json"',
        "/v1/models",
        "$TAXIMETER",
    ):
        assert part in page.text
    assert "<script>" not in page.text
    assert world.raw("GET", "/docs").status_code == 200


def test_the_document_knows_the_contract(world: World):
    """Every route of this version is described, and none that does not exist yet."""
    document = world.raw("GET", "/openapi.json").json()

    paths = set(document["paths"])
    nouns = {"teams", "projects", "keys", "budgets"}
    assert paths == {
        *(f"/api/v1/{noun}" for noun in nouns),
        *(f"/api/v1/{noun}/{{id}}" for noun in nouns),
        *(f"/api/v1/{noun}" for noun in ("ledger", "usage", "prices", "estimates", "alerts")),
        *(f"/api/v1/{noun}" for noun in ("commitments", "shared-costs", "prices/versions")),
        "/api/v1/budgets/{id}/topups",
        "/api/v1/exports/focus",
        "/api/v1/ingest",
        "/api/v1/ingest/v1/traces",
        "/api/v1/rerates",
        "/api/v1/rerates/{id}",
        "/healthz",
        "/readyz",
    }
    assert {"get", "post"} == document["paths"]["/api/v1/prices"].keys()
    assert TOKEN not in json.dumps(document)
