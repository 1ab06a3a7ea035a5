"""Every no is said in words that help, in OpenAI's shape, and never invites a hammering."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.budgets.rules import BudgetExhausted
from gateway.refusals import (
    RETRY_AFTER_S_MAX,
    ROWS,
    BudgetRefused,
    InvalidRequest,
    KeyRefused,
    ModelNotAllowed,
    Refusal,
    RequestTooLarge,
    StoreDown,
    TagsRefused,
    UnpricedModel,
    to_error,
    to_failure,
)
from gateway.upstream import UpstreamBroken, UpstreamFailed, UpstreamTimedOut, UpstreamUnsent
from tests.budgets.builders import budget, usd
from tests.path.virtual_time import run
from tests.path.world import SECRET, WHOLE, Play, World, ask
from tests.wire.chat import Chat

NOW = datetime(2026, 11, 23, 12, 30, 30, tzinfo=UTC)


def exhausted(text: str, asked: int | None) -> BudgetExhausted:
    """A budget with no room."""
    one = budget(text)
    return BudgetExhausted(
        budget=one,
        window=one.window.window_at(NOW),
        limit=one.limit,
        spent=usd("4.5"),
        held=0,
        asked=asked,
    )


SPENT = BudgetRefused(exhausted("cap month 5 USD", usd("1.25")))
RATE = BudgetRefused(exhausted("pace minute 5 USD", usd("1.25")), retry_after_s=30)
SAID: dict[str, tuple[Refusal, int, str, list[str]]] = {
    "no key": (KeyRefused(is_missing=True), 401, "invalid_api_key", ["no API key"]),
    "wrong key": (KeyRefused(is_missing=False), 401, "invalid_api_key", ["unknown, revoked"]),
    "model": (ModelNotAllowed("m", "ask"), 403, "model_not_allowed", ["'m'", "ask"]),
    "tags": (TagsRefused(("a", "b")), 400, "tag_policy", ["a; b"]),
    "unpriced": (
        UnpricedModel("openai", "m", "v1", "why"),
        403,
        "unpriced_model",
        ["v1", "openai/m", "why", "metering.unpriced"],
    ),
    "spent": (SPENT, 429, "budget_exceeded", ["'cap'", "5 USD", "4.5", "1.25", "2026-12-01"]),
    "endless": (
        BudgetRefused(exhausted("cap total 5 USD", None)),
        429,
        "budget_exceeded",
        ["max_completion_tokens"],
    ),
    "rate": (RATE, 429, "rate_limited", ["'pace'"]),
    "large": (RequestTooLarge(99), 413, "request_too_large", ["99", "server.body_bytes_max"]),
    "invalid": (InvalidRequest("why"), 400, "invalid_request", ["why"]),
    "no such path": (InvalidRequest("why", status=404), 404, "invalid_request", ["why"]),
    "store": (StoreDown("journal"), 503, "store_unavailable", ["journal"]),
}


@pytest.mark.parametrize(("refusal", "status", "code", "words"), SAID.values(), ids=SAID.keys())
def test_a_no_has_status_code_and_words(
    refusal: Refusal, status: int, code: str, words: list[str]
) -> None:
    """The table and the words agree, in the shape SDKs read."""
    error = to_error(refusal)
    shaped = json.loads(Chat().shape_error(error))["error"]

    assert (status, code) == (error.status, shaped["code"])
    assert {"message", "type", "param", "code"} <= shaped.keys()
    for word in words:
        assert word in shaped["message"]


def test_every_class_is_said_in_words_here() -> None:
    """A new refusal needs a line above."""
    assert set(ROWS) == {type(refusal) for refusal, *_ in SAID.values()}


def test_a_spent_budget_tells_its_numbers() -> None:
    """A program can read what a person reads."""
    assert {
        "budget": "cap",
        "unit": "USD",
        "limit": "5",
        "spent": "4.5",
        "reserved": "0",
        "asked": "1.25",
        "window_start": "2026-11-01T00:00:00.000000Z",
        "window_end": "2026-12-01T00:00:00.000000Z",
    } == to_error(SPENT).details


@pytest.mark.parametrize(
    ("failed", "status", "code"),
    [
        (UpstreamUnsent("secret host"), 502, "upstream_unreachable"),
        (UpstreamBroken("secret host"), 502, "upstream_unreachable"),
        (UpstreamTimedOut("secret host"), 504, "upstream_timeout"),
        (UpstreamFailed("secret host"), 502, "upstream_unreachable"),
    ],
)
def test_a_failure_tells_nothing_of_the_provider(
    failed: UpstreamFailed, status: int, code: str
) -> None:
    """The log knows why; the client knows what to do."""
    error = to_failure(failed)

    assert (status, code) == (error.status, error.code)
    assert "secret" not in error.message


@contextmanager
def _anything() -> Iterator[None]:
    yield


def test_a_refusal_passes_through_any_context_manager() -> None:
    """contextlib sets the traceback of what passes; a frozen exception would break there."""
    for refusal, *_ in SAID.values():
        with pytest.raises(Refusal) as caught, _anything():
            raise refusal

        assert refusal is caught.value


# -- on the path ---------------------------------------------------------------------------------


def world(**setting: Any) -> World:
    """A provider that would answer."""
    return World(Play(steps=WHOLE), **setting)


REFUSED = {
    "no key": (world(), "invalid_api_key", 401),
    "model": (world(body=ask(model="nobody/m")), "unpriced_model", 403),
    "no JSON": (world(body=b"{"), "invalid_request", 400),
    "too large": (world(body=b" " * 10**6 + ask()), "request_too_large", 413),
    "tags": (
        world(headers=[("x-taximeter-tags", "no equals sign")]),
        "tag_policy",
        400,
    ),
    "spent": (world(limits=["cap year 0.000001 USD"]), "budget_exceeded", 429),
    "rate": (world(limits=["cap minute 0.000001 USD"]), "rate_limited", 429),
    "tokens": (world(limits=["cap year 1 tokens"]), "budget_exceeded", 429),
}


@pytest.mark.parametrize(("refused", "code", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_is_said_once_recorded_once_and_sends_nothing(
    refused: World, code: str, status: int
) -> None:
    """No SDK retries it, no hold stays, and the ledger knows of it at no cost."""
    if code == "invalid_api_key":
        del refused.client.headers[0]
    run(refused.call())
    client = refused.client

    assert (status, "false") == (client.status, client.told["x-should-retry"])
    assert code == json.loads(b"".join(client.got))["error"]["code"]
    assert refused.record.id == client.told["x-taximeter-request-id"]
    assert ("refused", status, "none", 0) == (
        refused.record.outcome,
        refused.record.http_status,
        refused.record.basis,
        refused.record.cost_pico,
    )
    assert ("unknown" if code == "invalid_api_key" else "openai.chat") == refused.record.api
    assert [] == refused.upstream.requests
    assert 0 == refused.budgets.open_holds
    assert int(client.told.get("retry-after", "0")) <= RETRY_AFTER_S_MAX
    assert ("retry-after" in client.told) == (code == "rate_limited")


@pytest.mark.parametrize("digits", [19, 400, 4290])
@pytest.mark.parametrize("limit", ["cap year 100 requests", "cap year 100 USD"])
def test_a_limit_beyond_reason_leaves_no_hold(digits: int, limit: str) -> None:
    """Whoever asks for 10^4000 tokens gets a no or an answer, never a crash that keeps a hold."""
    asked = ask().replace(b"400", b"9" * digits)
    strange = World(Play(steps=WHOLE), body=asked, limits=[limit])
    run(strange.call())

    assert 0 == strange.budgets.open_holds
    assert strange.client.is_finished
    assert 1 == len(strange.journal.records)


def test_budgets_that_do_not_know_what_was_spent_let_nothing_through() -> None:
    """Before the ledger has been read, a budget may be spent already."""
    early = world()
    early.directory.is_spending_known = False
    run(early.call())

    assert (503, []) == (early.client.status, early.upstream.requests)
    assert ("refused", 0) == (early.record.outcome, early.record.cost_pico)
    early.check_books()


def test_a_client_that_left_while_asking_leaves_nothing_behind() -> None:
    """No record of a request that never was complete."""
    left = world()
    left.client.leaves_early = True
    run(left.call())

    assert ([], [], None) == (left.journal.records, left.upstream.requests, left.client.status)
    left.check_books()


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key", "x-goog-api-key"])
@pytest.mark.parametrize("prefix", ["", "Bearer ", "bearer  "])
def test_the_key_is_found_wherever_an_sdk_puts_it(header: str, prefix: str) -> None:
    """And goes no further."""
    asked = world()
    asked.client.headers[:] = [(header, prefix + SECRET)]
    run(asked.call())

    assert 200 == asked.client.status
    (sent,) = asked.upstream.requests
    assert SECRET not in str(sent.headers)
    assert ("authorization", "Bearer sk-provider") in sent.headers
