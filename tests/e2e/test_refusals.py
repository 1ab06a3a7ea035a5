"""Every way of saying no, as an application meets it.

Must never let a refused call reach the provider, or go unrecorded.
"""

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from select import select
from typing import Any

import httpx
import openai
import pytest

from tests.server import KEY, Gateway, amount, plain_config
from tests.upstream import ScriptedUpstream, closed_port

ASKED = [{"role": "user", "content": "Hello world"}]
BODY_BYTES_MAX = 20_000
ZERO = Decimal(0)


def secret(name: str) -> str:
    """A virtual key's secret, different for each name."""
    return "sk-tm-" + (name + "0" * 43)[:43]


def key_of(name: str, **more: Any) -> dict[str, Any]:
    """A key with that id; its secret is ``secret(name)``."""
    return {"id": name, "secret": secret(name), **more}


def limit_on(key: str, limit: str, window: str) -> dict[str, Any]:
    """A hard budget on one key, named after it."""
    return {"id": f"{key}-limit", "scope": {"key": key}, "limit": limit, "window": window}


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[Gateway]:
    """A gateway with a key for every cause."""
    plain = plain_config(upstream.base_url)
    openai_provider = plain["providers"]["openai"]
    prod = [
        {"id": "rag-ci", "secret": "env:RAG_KEY"},
        key_of("narrow", models=["openai/gpt-5-mini", "gpt-4o*"]),
        key_of("expired", expires_at="2020-01-01T00:00:00Z"),
        key_of("poor"),
        key_of("once"),
        key_of("hasty"),
        key_of("thirsty"),
    ]
    config = plain_config(
        upstream.base_url,
        server={"body_bytes_max": BODY_BYTES_MAX},
        providers={
            "openai": openai_provider,
            "nowhere": {**openai_provider, "base_url": f"http://127.0.0.1:{closed_port()}/v1"},
        },
        teams=[
            {
                "id": "search",
                "projects": [
                    {"id": "rag", "tags": {"env": "prod"}, "keys": prod},
                    {"id": "loose", "keys": [key_of("untagged")]},
                ],
            }
        ],
        budgets=[
            limit_on("poor", "0.0001 USD", "year"),
            limit_on("once", "0.02 USD", "year"),
            limit_on("thirsty", "100 tokens", "year"),
            limit_on("hasty", "1 requests", "rolling:60"),
        ],
        tag_policy={"env": {"required": True, "values": ["prod", "dev"], "on_violation": "reject"}},
    )
    with Gateway(tmp_path_factory.mktemp("gateway"), config) as running:
        yield running


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One refused call.

    Attributes:
        status: Expected status.
        code: Expected code.
        says: Words the message must contain.
        key: Virtual key; ``None`` sends none.
        model: Model asked for.
        body: Exact body; ``None`` writes a small chat request.
        headers: Further headers.
    """

    status: int
    code: str
    says: tuple[str, ...] = ()
    key: str | None = KEY
    model: str = "openai/gpt-5"
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, gateway: Gateway) -> httpx.Response:
        """Make the call."""
        body = {"model": self.model, "messages": ASKED, "max_completion_tokens": 50}
        return gateway.call(
            "/v1/chat/completions",
            self.body if self.body is not None else body,
            key=self.key,
            headers=self.headers,
        )


TAGS = "x-taximeter-tags"
CASES = {
    "no key": Case(status=401, code="invalid_api_key", key=None),
    "unknown key": Case(status=401, code="invalid_api_key", key=secret("stranger")),
    "expired key": Case(status=401, code="invalid_api_key", key=secret("expired")),
    "key not for this model": Case(
        status=403, code="model_not_allowed", key=secret("narrow"), says=("gpt-5",)
    ),
    "unknown model": Case(
        status=403, code="unpriced_model", model="openai/gpt-none", says=("gpt-none",)
    ),
    "required tag missing": Case(
        status=400, code="tag_policy", key=secret("untagged"), says=("env",)
    ),
    "tag value not allowed": Case(
        status=400, code="tag_policy", headers={TAGS: "env=moon"}, says=("env", "prod", "dev")
    ),
    "tags that cannot be read": Case(status=400, code="tag_policy", headers={TAGS: "env"}),
    "not JSON": Case(status=400, code="invalid_request", body=b"{this is no JSON"),
    "empty body": Case(status=400, code="invalid_request", body=b""),
    "no model": Case(status=400, code="invalid_request", body=b'{"messages": []}'),
    "model twice": Case(
        status=400,
        code="invalid_request",
        body=b'{"model":"openai/gpt-5","messages":[],"model":"openai/gpt-4o"}',
    ),
    "body too large": Case(
        status=413, code="request_too_large", body=b"x" * (BODY_BYTES_MAX + 1), says=("20000",)
    ),
    "budget too small": Case(
        status=429, code="budget_exceeded", key=secret("poor"), says=("poor-limit",)
    ),
    "token budget too small": Case(
        status=429, code="budget_exceeded", key=secret("thirsty"), says=("thirsty-limit", "100")
    ),
    "provider unreachable": Case(status=502, code="upstream_unreachable", model="nowhere/gpt-5"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_no_has_its_status_its_code_and_openais_shape(
    gateway: Gateway, upstream: ScriptedUpstream, case: Case
) -> None:
    """Programs can rely on the code, people on the message, and nothing reaches the provider."""
    already = len(upstream.exchanges)
    response = case.send(gateway)

    assert (case.status, case.code) == (response.status_code, response.json()["error"]["code"])
    error = response.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    for word in case.says:
        assert word in error["message"]
    assert "application/json" in response.headers["content-type"]
    assert "false" == response.headers["x-should-retry"]
    assert int(response.headers.get("retry-after", "0")) <= 60
    assert already == len(upstream.exchanges)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_no_is_recorded_and_costs_nothing(gateway: Gateway, case: Case) -> None:
    """Refusals are records too, without lines and without money."""
    response = case.send(gateway)

    record = gateway.record(response)
    outcome = "upstream_error" if case.status == 502 else "refused"
    assert (outcome, case.status) == (record["outcome"], record["http_status"])
    assert [] == record["lines"]
    assert ({}, "0", "none") == (record["usage"], record["cost"], record["basis"])
    assert 0 == gateway.metric("gateway_reservations_open")


@pytest.mark.parametrize("key", ["stranger", "untagged"])
def test_a_refusal_names_no_more_than_is_known(gateway: Gateway, key: str) -> None:
    """An unknown key is booked on nobody; a known one on its team, also when refused."""
    record = gateway.record(Case(status=0, code="", key=secret(key)).send(gateway))

    owner = ("acme", "search", "loose", "untagged") if key == "untagged" else (None,) * 4
    named = ("organization", "team", "project", "key")
    assert owner == tuple(record[name] for name in named)


def test_a_spent_budget_tells_its_numbers(gateway: Gateway) -> None:
    """The first call fits; once its true cost is booked, the next does not, and is told why."""
    case = Case(status=429, code="budget_exceeded", key=secret("once"))
    answers = [case.send(gateway)]
    while answers[-1].status_code == 200 and len(answers) < 20:
        answers.append(case.send(gateway))

    refused = answers[-1]
    assert 429 == refused.status_code, refused.text
    error = refused.json()["error"]
    assert ("budget_exceeded", "insufficient_quota") == (error["code"], error["type"])
    spent = Decimal("0.002508") * (len(answers) - 1)
    assert spent > 0
    assert "once-limit" == error["budget"]
    assert Decimal("0.02") == amount(error["limit"])
    assert spent == amount(error["spent"])
    assert 0 == amount(error["reserved"])
    assert spent + amount(error["asked"]) > Decimal("0.02")
    assert error["window_end"].endswith("-01-01T00:00:00.000000Z")
    for fact in ("once-limit", "0.02", str(spent)):
        assert fact in error["message"]
    shown = gateway.budget("once-limit")
    assert (spent, ZERO) == (shown.spent, shown.reserved)
    assert gateway.metric("llm_budget_refusals_total", budget="once-limit") >= 1


def test_a_rate_limit_says_when_to_come_back(gateway: Gateway) -> None:
    """One request a minute: the second is told to wait, for a minute at most."""
    case = Case(status=429, code="rate_limited", key=secret("hasty"))

    assert 200 == case.send(gateway).status_code
    refused = case.send(gateway)
    assert (429, "rate_limited") == (refused.status_code, refused.json()["error"]["code"])
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "refused" == gateway.record(refused)["outcome"]


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        ("unknown key", openai.AuthenticationError),
        ("key not for this model", openai.PermissionDeniedError),
        ("required tag missing", openai.BadRequestError),
        ("budget too small", openai.RateLimitError),
    ],
)
def test_the_sdk_raises_its_own_error_at_once(
    gateway: Gateway, cause: str, error: type[openai.APIStatusError]
) -> None:
    """With its usual retries on, the SDK asks once only: ``x-should-retry`` holds it back."""
    case = CASES[cause]
    sent: list[httpx.Request] = []
    http_client = httpx.Client(event_hooks={"request": [sent.append]}, trust_env=False)
    with (
        openai.OpenAI(
            api_key=case.key, base_url=f"{gateway.url}/v1", http_client=http_client, max_retries=3
        ) as client,
        pytest.raises(error) as caught,
    ):
        client.chat.completions.create(
            model=case.model,
            messages=ASKED,  # type: ignore[arg-type]
            max_completion_tokens=50,
            extra_headers=case.headers,
        )

    assert 1 == len(sent)
    assert case.code == caught.value.code


def test_a_body_sent_in_chunks_is_measured_too(gateway: Gateway) -> None:
    """Without a content length the limit holds all the same."""
    pieces = (b"x" * 10_000 for _ in range(5))
    response = gateway.http.post(
        "/v1/chat/completions", content=pieces, headers={"authorization": f"Bearer {KEY}"}
    )

    assert 413 == response.status_code
    assert "request_too_large" == response.json()["error"]["code"]


def test_an_early_no_does_not_break_the_next_call_on_the_connection(gateway: Gateway) -> None:
    """A key is refused before the body has come: the connection goes on, or says it closes."""
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer sk-tm-no\r\n"
        b"Content-Type: application/json\r\nContent-Length: 15000\r\n\r\n"
    )
    # Which of the two it is may depend on which of two threads is first: hence several tries.
    for _ in range(80):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as talk:
            talk.sendall(head)
            is_early = bool(select([talk], [], [], 0.1)[0])
            said = talk.recv(65_536) if is_early else b""
            if b"connection: close" in said.lower():
                continue
            is_closed = is_early and bool(select([talk], [], [], 0.1)[0])
            assert not is_closed, "closed without saying so: the next call would break"
            talk.sendall(b"x" * 15_000)
            said = said or talk.recv(65_536)
            talk.sendall(head + b"x" * 15_000)
            assert said.startswith(b"HTTP/1.1 401"), said
            assert talk.recv(65_536).startswith(b"HTTP/1.1 401")


def test_a_bare_name_that_two_providers_serve_is_asked_back(gateway: Gateway) -> None:
    """The gateway never guesses which provider is meant."""
    response = Case(status=400, code="invalid_request", model="gpt-5").send(gateway)

    assert 400 == response.status_code
    assert "openai/gpt-5" in response.json()["error"]["message"]
    assert "nowhere/gpt-5" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/assistants", 404),
        ("POST", "/openai/fine_tuning/jobs", 404),
    ],
)
def test_what_is_not_metered_is_not_forwarded(
    gateway: Gateway, upstream: ScriptedUpstream, method: str, path: str, status: int
) -> None:
    """An address whose usage nobody would count is answered here."""
    already = len(upstream.exchanges)
    response = gateway.http.request(method, path, headers={"authorization": f"Bearer {KEY}"})

    assert status == response.status_code
    assert "error" in response.json()
    assert already == len(upstream.exchanges)
