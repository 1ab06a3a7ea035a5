"""The sender beside the path: batches, repeats, drops, and a real gateway with a real collector."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.otlp import ATTEMPTS_MAX, BATCH_MAX, Both, OtlpExporter, open_otlp
from gateway.settings_otlp import OtlpSettings
from gateway.upstream import UpstreamRequest, UpstreamUnsent
from tests.openai_answers import answer_like_openai
from tests.otlp.test_otlp_messages import record
from tests.server import Gateway, free_port, plain_config
from tests.upstream import ScriptedUpstream

ASKED = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hello secret words"}]}


class Reply:
    """An answer without a body."""

    headers = ()

    def __init__(self, status: int) -> None:
        self.status = status

    async def read_chunk(self) -> bytes | None:
        return None


class Collector:
    """Answers by a list of statuses, the last of them for ever; 0 cannot be reached."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.taken: list[UpstreamRequest] = []

    @asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[Reply]:
        self.taken.append(request)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if not status:
            raise UpstreamUnsent("nobody there")
        yield Reply(status)


class Counted(Counter[str]):
    """Counts what became of calls."""

    def exported(self, outcome: str, calls: int) -> None:
        self[outcome] += calls


def exporter(collector: Collector, counted: Counted, **settings: Any) -> OtlpExporter:
    """Make one that sends at once."""
    given = OtlpSettings(endpoint="http://collector:4318", interval_s=0.001, **settings)
    return OtlpExporter(given, kinds={}, resource={}, watcher=counted, upstream=collector)


async def play(sender: OtlpExporter, count: int, is_over: Any) -> None:
    """Take calls in and wait for something to be true; then stop."""
    for _ in range(count):
        sender.observe(record())
    sender.start()
    async with asyncio.timeout(20):
        while not is_over():  # noqa: ASYNC110 - several conditions, no event
            await asyncio.sleep(0.001)
    await sender.stop()


def test_calls_are_sent_in_batches() -> None:
    """Spans and metrics of each batch, with the headers of the settings."""
    collector, counted = Collector(200), Counted()
    sender = exporter(collector, counted, headers={"authorization": "Bearer abc"})
    asyncio.run(play(sender, BATCH_MAX + 1, lambda: counted["sent"] == BATCH_MAX + 1))

    assert ["/v1/traces", "/v1/metrics"] * 2 == [
        one.url.removeprefix("http://collector:4318") for one in collector.taken
    ]
    assert ("authorization", "Bearer abc") in collector.taken[0].headers
    assert {"sent": BATCH_MAX + 1} == counted


def test_a_message_is_sent_again_when_that_may_help() -> None:
    """Busy for a moment: nothing is lost."""
    collector, counted = Collector(503, 200), Counted()
    asyncio.run(play(exporter(collector, counted), 1, lambda: counted.total()))

    assert {"sent": 1} == counted
    assert 3 == len(collector.taken)


def test_a_message_that_is_refused_is_dropped_at_once() -> None:
    """A 400 will be a 400 again."""
    collector, counted = Collector(400), Counted()
    asyncio.run(play(exporter(collector, counted), 1, lambda: counted.total()))

    assert {"dropped": 1} == counted
    assert 1 == len(collector.taken)


def test_a_stop_does_not_wait_for_a_collector_that_is_away() -> None:
    """What waits is dropped, and counted."""
    collector, counted = Collector(0), Counted()
    asyncio.run(play(exporter(collector, counted), 3, lambda: collector.taken))

    assert {"dropped": 3} == counted
    assert len(collector.taken) <= ATTEMPTS_MAX


def test_a_full_queue_drops_what_comes() -> None:
    """Memory is bounded."""

    async def fill() -> None:
        sender = exporter(Collector(200), counted, queue_max=5)
        for _ in range(8):
            sender.observe(record())

    counted = Counted()
    asyncio.run(fill())

    assert {"dropped": 3} == counted


def test_without_an_endpoint_there_is_no_exporter() -> None:
    """A gateway that sends nothing has nothing that could."""
    assert open_otlp(OtlpSettings(), kinds=dict, resource={}, watcher=Counted()) is None


def test_both_are_told() -> None:
    """Metrics first, then the exporter."""

    class Seen(list[Any]):
        def observe(self, one: Any) -> None:
            self.append(one.id)

    first, second = Seen(), Seen()
    Both(first, second).observe(record())

    assert first == second == [record().id]


@pytest.mark.parametrize(
    "given",
    [
        {"endpoint": "collector:4318"},
        {"endpoint": "http://me@collector:4318"},
        {"endpoint": "http://collector:4318?x=1"},
        {"endpoint": "http://collector:port"},
        {"endpoint": "http://coll ector"},
        {"headers": {"a b": "x"}},
        {"headers": {"a": "x\ny"}},
        {"interval_s": 0},
        {"queue_max": 0},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any]) -> None:
    """At the start, not at the first message."""
    with pytest.raises(ValidationError):
        OtlpSettings(**given)


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Plays OpenAI."""
    with ScriptedUpstream(answer_like_openai) as running:
        yield running


@pytest.fixture
def taken() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """A collector on a port: its address, and what it was told."""
    told: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.append((self.path, json.loads(body)))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", told
        server.shutdown()
        thread.join()


def test_a_gateway_tells_a_collector_what_the_ledger_says(
    tmp_path: Path, upstream: ScriptedUpstream, taken: tuple[str, list[Any]]
) -> None:
    """One span a call, with its tokens and its exact cost; no word of the prompt."""
    endpoint, told = taken
    config = plain_config(upstream.base_url, otlp={"endpoint": endpoint, "interval_s": 0.05})
    with Gateway(tmp_path, config) as gateway:
        answer = gateway.call("/v1/chat/completions", ASKED)
        gateway.wait_until(
            lambda: gateway.metric("gateway_otlp_calls_total", outcome="sent") >= 1, "a message"
        )
        kept = gateway.record(answer)
    spans = [
        span
        for path, body in told
        if path == "/v1/traces"
        for span in body["resourceSpans"][0]["scopeSpans"][0]["spans"]
    ]
    mine = [
        {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}
        for span in spans
    ]
    (found,) = [one for one in mine if one["taximeter.request.id"] == kept["id"]]

    assert kept["cost"] == found["taximeter.cost"]
    assert str(kept["input_total"]) == found["gen_ai.usage.input_tokens"]
    assert "/v1/metrics" in {path for path, _ in told}
    assert "secret words" not in json.dumps(told)


def test_a_collector_that_is_away_costs_calls_nothing_and_is_counted(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """Calls go on; what could not be told is counted, and the ledger has it."""
    otlp = {"endpoint": f"http://127.0.0.1:{free_port()}", "interval_s": 0.01, "queue_max": 2}
    with Gateway(tmp_path, plain_config(upstream.base_url, otlp=otlp)) as gateway:
        answers = [gateway.call("/v1/chat/completions", ASKED) for _ in range(5)]
        gateway.wait_until(
            lambda: gateway.metric("gateway_otlp_calls_total", outcome="dropped") >= 3, "drops"
        )
        kept = gateway.record(answers[-1])

    assert [200] * 5 == [answer.status_code for answer in answers]
    assert kept["cost"]
