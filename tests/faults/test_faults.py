"""Everything an upstream or a client can do wrong, at every stage of a call.

Must never end with a hold left open, a call without a record, or money that is not in a budget.
"""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import count

import httpx
import pytest

from tests.openai_answers import STREAM, WHOLE, chunk, completion, spoken, usage_chunk
from tests.server import KEY, Gateway, Record, plain_config
from tests.upstream import (
    JSON_HEADERS,
    CutIn,
    Garbage,
    Gate,
    HangUp,
    Hold,
    Reply,
    Script,
    ScriptedUpstream,
    Silence,
    Sse,
    StallBefore,
    closed_port,
)

BUDGET = "acme-month"
FULL_COST = Decimal("0.002508")
ZERO = Decimal(0)
_users = count()


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with an impatient way to the same upstream, and one to nowhere."""
    usual = plain_config(upstream.base_url)["providers"]["openai"]
    config = plain_config(
        upstream.base_url,
        providers={
            "openai": usual,
            "hasty": {**usual, "timeout_s": 0.3},
            "nowhere": {**usual, "base_url": f"http://127.0.0.1:{closed_port()}/v1"},
        },
        budgets=[
            {
                "id": BUDGET,
                "scope": {"organization": "acme"},
                "limit": "5000 USD",
                "window": "year",
            },
            {"id": "acme-tokens", "limit": "9000000000 tokens", "window": "year"},
        ],
    )
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a client was told.

    Attributes:
        status: HTTP status.
        body: Bytes received.
        is_whole: Whether the answer ended as HTTP says.
    """

    status: int
    body: bytes
    is_whole: bool


def ask(gateway: Gateway, provider: str, *, stream: bool, user: str) -> Told:
    """Make one call and read as much as comes."""
    body = {
        "model": f"{provider}/gpt-5",
        "messages": [{"role": "user", "content": "Hello world"}],
        "max_completion_tokens": 400,
        "stream": stream,
    }
    got = b""
    headers = {"authorization": f"Bearer {KEY}", "x-taximeter-user": user}
    with gateway.http.stream(
        "POST", "/v1/chat/completions", content=json.dumps(body), headers=headers
    ) as response:
        try:
            for piece in response.iter_raw():
                got += piece
        except httpx.TransportError:
            return Told(status=response.status_code, body=got, is_whole=False)
    return Told(status=response.status_code, body=got, is_whole=True)


def only_record(gateway: Gateway, user: str) -> Record:
    """The one record of a user's only call."""
    records = gateway.records_of(user)
    assert 1 == len(records), f"{len(records)} records"
    return records[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fault and what must come of it.

    Attributes:
        script: What the upstream plays.
        status: Status the client must see.
        stream: Whether the client asks for a stream.
        provider: Which way to the upstream.
        outcome: Outcome recorded.
        bases: Bases that are true; more than one where a setting may choose.
        code: Code of the gateway's own error; ``None`` when the provider's answer is passed on.
    """

    script: Script
    status: int
    stream: bool = False
    provider: str = "openai"
    outcome: str = "upstream_error"
    bases: tuple[str, ...] = ("estimated", "unknown", "partial")
    code: str | None = None


FREE = ("none",)
SURE = ("reported",)
ERROR_BODY = b'{"error":{"message":"The server is  overloaded","type":"server_error","code":null}}'


def failed(status: int) -> Reply:
    """An error of the provider's own."""
    return Reply(status=status, headers=(*JSON_HEADERS, ("Retry-After", "3")), body=ERROR_BODY)


CUT = CutIn(piece=3)
RESET = CutIn(piece=3, reset=True)
BROKEN_WHOLE = Reply(body=completion(), write_bytes=100, ending=CutIn(piece=4))
TOLD_ERROR = chunk(None, error={"message": "overloaded", "type": "server_error", "code": None})

CASES = {
    # before anything was sent: surely free
    "refused": Case(
        script=WHOLE, provider="nowhere", status=502, bases=FREE, code="upstream_unreachable"
    ),
    "refused, stream": Case(
        script=WHOLE,
        provider="nowhere",
        status=502,
        bases=FREE,
        code="upstream_unreachable",
        stream=True,
    ),
    # after the request, before a status: it may have cost money
    "silence": Case(script=Silence(), provider="hasty", status=504, code="upstream_timeout"),
    "silence, stream": Case(
        script=Silence(), provider="hasty", status=504, code="upstream_timeout", stream=True
    ),
    "hang-up": Case(script=HangUp(), status=502, code="upstream_unreachable"),
    "reset": Case(script=HangUp(reset=True), status=502, code="upstream_unreachable"),
    "garbage": Case(script=Garbage(), status=502, code="upstream_unreachable"),
    "garbage, stream": Case(script=Garbage(), status=502, code="upstream_unreachable", stream=True),
    # the provider's own errors pass as they are
    "400": Case(script=failed(400), status=400, bases=FREE),
    "401": Case(script=failed(401), status=401, bases=FREE),
    "404": Case(script=failed(404), status=404, bases=FREE),
    "429": Case(script=failed(429), status=429, bases=FREE),
    "429, stream": Case(script=failed(429), status=429, bases=FREE, stream=True),
    "500": Case(script=failed(500), status=500, bases=("none", "unknown", "estimated")),
    "503": Case(script=failed(503), status=503, bases=("none", "unknown", "estimated")),
    # a whole answer that breaks off or says nothing of usage
    "cut answer": Case(script=BROKEN_WHOLE, status=502, code="upstream_unreachable"),
    "stalled answer": Case(
        script=Reply(body=completion(), write_bytes=100, ending=StallBefore(piece=4)),
        provider="hasty",
        status=504,
        code="upstream_timeout",
    ),
    "answer without usage": Case(
        script=Reply(body=completion(usage=None)),
        status=200,
        outcome="ok",
        bases=("estimated", "partial"),
    ),
    "answer that is no JSON": Case(
        script=Reply(body=b"<html>It works!</html>"), status=200, outcome="ok"
    ),
    "empty answer": Case(script=Reply(body=b""), status=200, outcome="ok"),
    # streams
    "cut stream": Case(script=Sse(events=STREAM.events, ending=CUT), status=200, stream=True),
    "reset stream": Case(script=Sse(events=STREAM.events, ending=RESET), status=200, stream=True),
    "stream cut before its first event": Case(
        script=Sse(events=STREAM.events, ending=CutIn(piece=0)), status=200, stream=True
    ),
    "stalled stream": Case(
        script=Sse(events=STREAM.events, ending=StallBefore(piece=3)),
        provider="hasty",
        status=200,
        stream=True,
    ),
    "stream cut after its usage": Case(
        script=Sse(
            events=STREAM.events, usage=(usage_chunk(),), ending=CutIn(piece=len(STREAM.events) + 1)
        ),
        status=200,
        stream=True,
        bases=("reported", "partial"),
    ),
    "error inside a stream": Case(
        script=Sse(events=(*STREAM.events[:3], TOLD_ERROR), done=False), status=200, stream=True
    ),
    "stream without usage": Case(
        script=Sse(events=STREAM.events),
        status=200,
        stream=True,
        outcome="ok",
        bases=("estimated", "partial"),
    ),
    "stream of garbage events": Case(
        script=Sse(events=(b"{not json", b"[1,2]", b'"text"')),
        status=200,
        stream=True,
        outcome="ok",
    ),
    "empty stream": Case(
        script=Sse(events=(), done=False, preamble=b""), status=200, stream=True, outcome=""
    ),
    "usage twice": Case(
        script=Sse(events=STREAM.events, usage=(usage_chunk(), usage_chunk())),
        status=200,
        stream=True,
        outcome="ok",
        bases=SURE,
    ),
    "an error that calls itself a stream": Case(
        script=Reply(status=429, headers=(("Content-Type", "text/event-stream"),), body=ERROR_BODY),
        status=429,
        stream=True,
        bases=FREE,
    ),
    "redirect": Case(
        script=Reply(status=302, headers=(("Location", "/v1/elsewhere"),)), status=302, bases=FREE
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_whatever_breaks_the_call_ends_once_and_no_money_is_lost(
    gateway: Gateway, upstream: ScriptedUpstream, case: Case
) -> None:
    """One record, no hold left, and the budget rises by the cost, or by the hold if unknown."""
    gateway.settle()
    before, tokens_before = gateway.budget(BUDGET), gateway.budget("acme-tokens")
    user = f"fault-{next(_users)}"
    with upstream.plays(case.script) as seen:
        told = ask(gateway, case.provider, stream=case.stream, user=user)
        record = only_record(gateway, user)

    assert case.status == told.status
    assert len(seen) == (0 if case.provider == "nowhere" else 1)
    assert case.outcome in ("", record["outcome"])
    assert (case.status, case.stream) == (record["http_status"], record["stream"])
    assert record["basis"] in case.bases
    after, tokens_after = gateway.budget(BUDGET), gateway.budget("acme-tokens")
    assert (ZERO, ZERO) == (after.reserved, tokens_after.reserved)
    rise, tokens_rise = after.spent - before.spent, tokens_after.spent - tokens_before.spent
    check_money(record, rise, tokens_rise)


def check_money(record: Record, rise: Decimal, tokens_rise: Decimal) -> None:
    """Compare a record with what the budgets have taken on for it."""
    match record["basis"]:
        case "none":
            assert ({}, [], "0") == (record["usage"], record["lines"], record["cost"])
            assert (ZERO, ZERO) == (rise, tokens_rise)
        case "unknown":
            assert ({}, [], None) == (record["usage"], record["lines"], record["cost"])
            assert (None, None) == (record["input_total"], record["output_total"])
            assert "unknown" == record["cost_status"]
            assert rise > 0
            assert tokens_rise > 0
        case basis:
            assert rise == sum(Decimal(line["cost"]) for line in record["lines"])
            assert rise == Decimal(record["cost"])
            assert rise > 0
            assert tokens_rise == record["input_total"] + record["output_total"]
            assert ("final" if basis == "reported" else "estimated") == record["cost_status"]


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.code is not None], ids=str
)
def test_the_gateways_own_errors_have_the_shape_of_the_dialect(
    gateway: Gateway, upstream: ScriptedUpstream, name: str
) -> None:
    """502 and 504 are told in OpenAI's error shape, with the code of the contract."""
    case = CASES[name]
    with upstream.plays(case.script):
        told = ask(gateway, case.provider, stream=case.stream, user=f"shape-{next(_users)}")

    assert told.is_whole
    assert case.code == json.loads(told.body)["error"]["code"]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_the_providers_own_errors_pass_byte_for_byte(
    gateway: Gateway, upstream: ScriptedUpstream, status: int
) -> None:
    """Nobody rewrites what the provider said."""
    with upstream.plays(failed(status)):
        told = ask(gateway, "openai", stream=False, user=f"pass-{next(_users)}")

    assert Told(status=status, body=ERROR_BODY, is_whole=True) == told


@pytest.mark.parametrize("name", ["cut stream", "reset stream", "stalled stream"])
def test_a_stream_that_breaks_off_never_looks_whole(
    gateway: Gateway, upstream: ScriptedUpstream, name: str
) -> None:
    """What had arrived is passed on; then comes an error event, or the connection breaks."""
    case = CASES[name]
    assert isinstance(case.script, Sse)
    with upstream.plays(case.script):
        told = ask(gateway, case.provider, stream=True, user=f"broken-{next(_users)}")

    arrived = b"".join(case.script.frames(with_usage=False)[:3])
    assert told.body.startswith(arrived)
    assert b"[DONE]" not in told.body
    events = [event for event in told.body[len(arrived) :].split(b"\n\n") if event]
    if told.is_whole:
        assert "error" in json.loads(events[-1].removeprefix(b"data: "))


def test_a_redirect_is_not_followed_with_the_providers_key(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """The client sees the redirect; the provider's key goes nowhere."""
    with upstream.plays(CASES["redirect"].script) as seen:
        told = ask(gateway, "openai", stream=False, user=f"moved-{next(_users)}")

    assert (302, 1) == (told.status, len(seen))


def test_a_client_that_leaves_a_stream_is_not_the_end_of_its_record(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """The provider stops the bill when the call is cancelled; what was heard is estimated."""
    user = f"gone-{next(_users)}"
    gate = upstream.gate()
    gateway.settle()
    before, tokens_before = gateway.budget(BUDGET), gateway.budget("acme-tokens")
    with upstream.plays(
        Sse(events=spoken(*("word " * 40).split()), hold=Hold(gate=gate, before=9))
    ):
        leave_midway(gateway, user, gate=gate)
        assert upstream.exchanges[-1].left.wait(5), "the upstream call was not cancelled"
        record = only_record(gateway, user)

    assert "client_disconnected" == record["outcome"]
    assert record["basis"] in ("partial", "estimated")
    after, tokens_after = gateway.budget(BUDGET), gateway.budget("acme-tokens")
    assert (ZERO, ZERO) == (after.reserved, tokens_after.reserved)
    check_money(record, after.spent - before.spent, tokens_after.spent - tokens_before.spent)


def test_a_client_that_leaves_before_the_first_word_leaves_no_hold(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """Leaving while the provider thinks is leaving too: one record, nothing stays reserved."""
    user = f"early-{next(_users)}"
    gate = upstream.gate()
    with upstream.plays(Sse(events=STREAM.events, usage=STREAM.usage, hold=Hold(gate=gate))):
        leave_before_an_answer(gateway, user, gate)
        gate.release()
        record = only_record(gateway, user)

    assert "client_disconnected" == record["outcome"]
    assert Decimal(record["cost"]) > 0


def leave_before_an_answer(gateway: Gateway, user: str, gate: Gate) -> None:
    """Ask for a stream and hang up once the provider has the request."""
    body = stream_request()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\n"
        f"x-taximeter-user: {user}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as talk:
        talk.sendall(head.encode() + body)
        assert gate.reached.wait(10)


def stream_request() -> bytes:
    """The body of a plain call for a stream."""
    asked = {
        "model": "openai/gpt-5",
        "messages": [{"role": "user", "content": "Hello world"}],
        "stream": True,
    }
    return json.dumps(asked).encode()


def leave_midway(gateway: Gateway, user: str, *, gate: Gate | None = None) -> None:
    """Ask for a stream, read its first bytes and hang up, at a gate of the upstream if given."""
    headers = {"authorization": f"Bearer {KEY}", "x-taximeter-user": user}
    with (
        httpx.Client(base_url=gateway.url, trust_env=False, timeout=10) as client,
        client.stream(
            "POST", "/v1/chat/completions", content=stream_request(), headers=headers
        ) as response,
    ):
        # Kept by name: a generator that is dropped closes the connection at once.
        pieces = response.iter_raw()
        assert next(pieces)
        assert gate is None or gate.reached.wait(5)


def test_a_client_that_leaves_a_whole_answer_pays_for_it(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """The provider finishes and bills a whole answer anyway, so it is read to its end."""
    user = f"left-{next(_users)}"
    gate = upstream.gate()
    gateway.settle()
    before = gateway.budget(BUDGET)
    already = len(upstream.exchanges)
    with upstream.plays(Reply(body=WHOLE.body, hold=Hold(gate=gate))):
        with (
            httpx.Client(base_url=gateway.url, trust_env=False) as client,
            pytest.raises(httpx.ReadTimeout),
        ):
            client.post(
                "/v1/chat/completions",
                json={"model": "openai/gpt-5", "messages": [{"role": "user", "content": "Hi"}]},
                headers={"authorization": f"Bearer {KEY}", "x-taximeter-user": user},
                timeout=httpx.Timeout(5, read=0.2),
            )
        upstream.wait_for(already + 1)
        gate.release()
        record = only_record(gateway, user)

    # The hang-up and the answer cross on the wire: either may be seen first, the money is the same.
    assert record["outcome"] in ("client_disconnected", "ok")
    assert ("reported", "0.002508") == (record["basis"], record["cost"])
    after = gateway.budget(BUDGET)
    assert (FULL_COST, ZERO) == (after.spent - before.spent, after.reserved)


def test_the_gateway_still_answers_after_all_that(gateway: Gateway) -> None:
    """Nothing above leaves a trace in the next call, and the chain of records is whole."""
    told = ask(gateway, "openai", stream=False, user=f"after-{next(_users)}")

    assert Told(status=200, body=WHOLE.body, is_whole=True) == told
    records = gateway.ledger()
    assert len({record["id"] for record in records}) == len(records)
    verified = gateway.run("ledger", "verify")
    assert 0 == verified.returncode, verified.stdout + verified.stderr
