"""A real Prometheus and a real PostgreSQL answer every query of every board and rule.

Must never compare with a number the gateway was not asked to count: the ledger is the measure.
"""

import json
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import psycopg
import pytest
import yaml

from grafana.generate.boards import BOARDS
from grafana.generate.model import Board
from grafana.preview.asking import Sources
from grafana.preview.filling import fill, fill_sql
from grafana.preview.page import to_page
from tests.grafana.prometheus import RULES, Prometheus, running_prometheus
from tests.grafana.queries import each_target, names_in
from tests.openai_answers import SERVED_MODEL, answer_like_openai, completion
from tests.postgres import PostgresServer, postgres_fixture
from tests.server import KEY, Gateway, Record, plain_config
from tests.upstream import Received, Reply, Script, ScriptedUpstream

__all__ = ["postgres_fixture"]

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no Prometheus is installed"
)

OTHER_KEY: Final = "sk-tm-" + "Bb1_" * 10 + "key"
POOR_KEY: Final = "sk-tm-" + "Cc2_" * 10 + "key"
UNPRICED: Final = "a-model-nobody-has-priced"
SPAN_S: Final = 3600
# Only where alerts of the gateway itself are configured, which this one has none of.
ELSEWHERE: Final = {"llm_budget_alerts_waiting"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A company's afternoon.

    Attributes:
        gateway: Everybody calls through it.
        prometheus: Has scraped it to the last call.
        records: The ledger.
        database: Where that is.
    """

    gateway: Gateway
    prometheus: Prometheus
    records: list[Record]
    database: str


def answer(received: Received) -> Script:
    """Fail, leave usage out, or answer as OpenAI does, as the prompt asks."""
    if b"please fail" in received.body:
        return Reply(status=500, body=b'{"error": {"message": "no", "type": "server_error"}}')
    if b"say no usage" in received.body:
        return Reply(body=completion(usage=None))
    if UNPRICED.encode() in received.body:
        return Reply(body=completion().replace(SERVED_MODEL.encode(), UNPRICED.encode()))
    return answer_like_openai(received)


def config(upstream: str, database: str) -> dict[str, Any]:
    """Three teams; one has tags, one has none, one has nearly no budget."""
    teams = [
        {
            "id": team,
            "projects": [
                {
                    "id": f"{team}-app",
                    "tags": tags,
                    "keys": [{"id": f"{team}-key", "secret": secret}],
                }
            ],
        }
        for team, tags, secret in (
            ("search", {"env": "prod"}, "env:RAG_KEY"),
            ("ads", {}, "env:OTHER_KEY"),
            ("poor", {"env": "dev"}, "env:POOR_KEY"),
        )
    ]
    return plain_config(
        upstream,
        teams=teams,
        storage={"database_url": database},
        metering={"unpriced": "allow"},
        budgets=[
            {"id": "all-month", "scope": {}, "limit": "500 USD", "window": "month", "mode": "soft"},
            {"id": "search-day", "scope": {"team": "search"}, "limit": "5 USD", "window": "day"},
            {"id": "all-minute", "scope": {}, "limit": "100000 requests", "window": "minute"},
            {"id": "poor-day", "scope": {"team": "poor"}, "limit": "1 requests", "window": "day"},
        ],
    )


def play(gateway: Gateway, rounds: int) -> None:
    """Make calls of every kind that boards tell apart."""
    for _ in range(rounds):
        for key in (KEY, OTHER_KEY, POOR_KEY):
            for prompt in ("Hello there", "say no usage"):
                call(gateway, key, "gpt-5", prompt)
            call(gateway, key, "gpt-5", "Tell me more", stream=True)
            call(gateway, key, "gpt-5-mini", "please fail")
        # Under a hard budget of money it would be refused.
        call(gateway, OTHER_KEY, UNPRICED, "Hello")


def call(gateway: Gateway, key: str, model: str, prompt: str, *, stream: bool = False) -> None:
    """Make one call."""
    body = {
        "model": f"openai/{model}",
        "messages": [{"role": "user", "content": prompt}],
        "max_completion_tokens": 300,
    }
    gateway.call("/v1/chat/completions", {**body, "stream": True} if stream else body, key=key)


def recorded() -> list[str]:
    """The names of all recording rules."""
    groups = yaml.safe_load((RULES / "recording.yml").read_text())["groups"]
    return [rule["record"] for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def seen(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Play, scrape, play on until Prometheus knows all the ledger knows and every rule records."""
    folder = tmp_path_factory.mktemp("seen")
    database = postgres.url(postgres.create_database())
    secrets = {"OTHER_KEY": OTHER_KEY, "POOR_KEY": POOR_KEY}
    with (
        ScriptedUpstream(answer) as upstream,
        Gateway(folder, config(upstream.base_url, database), secrets=secrets) as gateway,
    ):
        play(gateway, 1)
        where = folder / "prometheus"
        where.mkdir()
        with running_prometheus(where, f"127.0.0.1:{gateway.port}") as prometheus:
            scraped = "sum(llm_requests_total) >= {}"
            prometheus.wait_until(
                lambda: bool(prometheus.value(scraped.format(1))), "the first scrape"
            )
            play(gateway, 2)
            records = gateway.ledger()
            prometheus.wait_until(
                lambda: bool(prometheus.value(scraped.format(len(records)))),
                "the last call to be scraped",
            )
            for name in recorded():
                prometheus.wait_until(
                    lambda name=name: bool(prometheus.value(name)),  # type: ignore[misc]
                    f"{name} to be recorded",
                )
            yield Seen(gateway=gateway, prometheus=prometheus, records=records, database=database)


def test_metrics_add_up_to_the_ledger(seen: Seen) -> None:
    """Tokens and calls exactly, dollars to 1e-9 of what they are, by team, project and meter."""
    calls: dict[tuple[str, ...], int] = defaultdict(int)
    tokens: dict[tuple[str, ...], int] = defaultdict(int)
    cost: dict[tuple[str, ...], Decimal] = defaultdict(Decimal)
    for record in seen.records:
        base = tuple(record[name] or "unknown" for name in ("team", "project", "provider"))
        calls[*base, record["outcome"]] += 1
        for meter, count in record["usage"].items():
            tokens[*base, meter] += count
        for line in record["lines"]:
            cost[*base, line["meter"]] += Decimal(line["cost"])

    assert told(seen, "llm_requests_total", "outcome") == calls
    assert told(seen, "llm_tokens_total", "meter") == tokens
    assert told(seen, "llm_cost_usd_total", "meter") == pytest.approx(
        {key: float(value) for key, value in cost.items()}, rel=1e-9
    )
    assert len(calls) > 6
    assert sum(cost.values()) > 0


def told(seen: Seen, metric: str, label: str) -> dict[tuple[str, ...], float]:
    """What Prometheus has of a metric, by team, project, provider and one more label."""
    names = ("team", "project", "provider", label)
    rows = seen.prometheus.value(f"sum by ({', '.join(names)}) ({metric})")
    return {tuple(row["metric"][name] for name in names): float(row["value"][1]) for row in rows}


def test_exemplars_name_calls_of_the_ledger(seen: Seen) -> None:
    """What a dot on a board leads to is a record."""
    now = time.time()
    found = seen.prometheus.ask(
        "query_exemplars",
        query="llm_request_duration_seconds_bucket",
        start=now - SPAN_S,
        end=now,
    )
    ids = {one["labels"]["request_id"] for series in found for one in series["exemplars"]}

    assert ids
    assert ids <= {record["id"] for record in seen.records}


def test_every_panel_of_metrics_has_data(seen: Seen) -> None:
    """Every expression parses and returns numbers."""
    now = time.time()
    empty = []
    for where, _, target in each_target(is_sql=False):
        expr = fill(target["expr"], SPAN_S)
        rows = (
            seen.prometheus.value(expr)
            if target["instant"]
            else seen.prometheus.span(expr, now - 60, now, 1)
        )
        if not any(_numbers(row) for row in rows):
            empty.append(f"{where}: {expr}")

    assert empty == []


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_board_can_be_drawn(seen: Seen, board: Board) -> None:
    """In both colours, each panel at its place with something in it."""
    # What was recorded in this very second counts.
    end = int(time.time()) + 1
    sources = Sources(
        prometheus=seen.prometheus.url, database=seen.database, start_s=end - 60, end_s=end
    )
    with sources.http:
        for theme in ("light", "dark"):
            page, height = to_page(board.to_json(), sources, theme)

            empty = re.findall(r"<h2>([^<]*)</h2><div class=.empty", page)

            assert empty == []
            assert page.count("<section") == len(board.panels)
            assert height > 500
            # A book that was put to use is marked wherever there is time.
            assert page.count('<line class="mark"') >= _over_time(board)


def _over_time(board: Board) -> int:
    spans = (panel for panel in board.panels if panel.kind == "timeseries")
    return sum(1 for panel in spans if not panel.is_sql)


def _numbers(row: dict[str, Any]) -> list[float]:
    values = row.get("values") or [row["value"]]
    return [float(value) for _, value in values if value != "NaN"]


def test_every_query_names_metrics_and_labels_that_exist(seen: Seen) -> None:
    """Of boards, their variables and annotations, recording rules and alerts alike."""
    exprs = [target["expr"] for _, _, target in each_target(is_sql=False)]
    for path in RULES.glob("*.yml"):
        groups = yaml.safe_load(path.read_text())["groups"]
        exprs += [rule["expr"] for group in groups for rule in group["rules"]]
    for board in BOARDS:
        shown = board.to_json()
        exprs += [one["expr"] for one in shown["annotations"]["list"]]
    families = seen.gateway.http.get("/metrics").text.splitlines()
    known = {line.split(" ")[2] for line in families if line.startswith("# TYPE")}
    known |= {f"{name}_bucket" for name in known} | {*recorded()} | ELSEWHERE | {"up"}
    labels = set(seen.prometheus.ask("labels"))
    unknown = []
    for expr in exprs:
        metrics, named = names_in(fill(expr, SPAN_S))
        unknown += sorted(metrics - known) + sorted(named - labels)

    assert unknown == []


def test_rules_are_healthy(seen: Seen) -> None:
    """Prometheus evaluates all of them without an error."""
    groups = seen.prometheus.ask("rules")["groups"]
    sick = [rule["name"] for group in groups for rule in group["rules"] if rule["health"] != "ok"]

    assert sick == []


def test_every_panel_of_the_ledger_has_data(seen: Seen) -> None:
    """PostgreSQL takes every statement as it stands, with the gateway's own schema."""
    now = int(time.time())
    with psycopg.connect(seen.database) as connection:
        for where, panel, target in each_target(is_sql=True):
            asked = connection.execute(fill_sql(target["rawSql"], now - SPAN_S, now + 60).encode())
            columns = [column.name for column in asked.description or ()]

            assert asked.fetchall(), where
            assert panel["type"] != "timeseries" or columns[0] == "time", where


@pytest.mark.parametrize(
    ("board", "title"),
    [
        ("executive", "Spend this month"),
        ("executive", "Spend in the span"),
        ("team", "Spend"),
    ],
)
def test_the_spend_of_the_ledger_is_exact(seen: Seen, board: str, title: str) -> None:
    """All that is called spend is the sum of the records, to the last digit it can show."""
    total = sum(Decimal(record["cost"]) for record in seen.records if record["cost"] is not None)

    assert total > 0
    # Sums are added up beside the calls, a moment later.
    seen.gateway.wait_until(
        lambda: shown(seen, board, title) == pytest.approx(float(total), rel=1e-12),
        f"{title} to have every record",
    )


def test_no_agreement_saves_nothing(seen: Seen) -> None:
    """Not a rounded something: here every price is the published one."""
    assert shown(seen, "executive", "Saved by agreements") == 0


def shown(seen: Seen, name: str, title: str) -> float:
    """The one number of a panel that asks the ledger."""
    board = next(board for board in BOARDS if board.name == name)
    panel = next(panel for panel in board.panels if panel.title == title)
    now = int(time.time())
    with psycopg.connect(seen.database) as connection:
        asked = fill_sql(panel.queries[0].text, now - SPAN_S, now + 60)
        row = connection.execute(asked.encode()).fetchone()
    assert row is not None
    return float(row[0])


def test_prices_on_the_board_are_those_calls_were_billed_at(seen: Seen) -> None:
    """The price in force, times a million, stands on the lines of the ledger."""
    shown = {
        (row["metric"]["model"], row["metric"]["meter"]): Decimal(row["value"][1])
        for row in seen.prometheus.value("llm_price_usd_per_million")
    }
    lines = [line for record in seen.records for line in record["lines"]]

    assert lines
    for line in lines:
        _, model, meter = line["sku"].split("/")
        price = Decimal(line["unit_price"]) * 1_000_000 / Decimal(line["per"])
        # A price of output that is not split is that of reasoning too.
        named = meter if (model, meter) in shown else "output"
        assert shown[model, named] == price, json.dumps(line)
