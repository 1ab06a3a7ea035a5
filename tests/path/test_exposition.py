"""What ``/metrics`` writes is what scrapers read, whatever a label holds and how many there are."""

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_text

from gateway.budgets.memory import MemoryBudgets
from gateway.exposition import OPEN_METRICS, TEXT
from gateway.ledger.record import LedgerLine, LedgerRecord
from gateway.metrics import Metrics, Probes
from gateway.prices.current import Prices
from tests.budgets.builders import budget
from tests.path.world import AT, BOOK

US: Final = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp() * 1_000_000)
ACCEPTS: Final = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def metrics(label_sets_max: int = 2_000) -> Metrics:
    """Metrics of a gateway with one budget."""
    budgets = MemoryBudgets()
    budgets.install([budget("cap month 10 USD"), budget("last rolling:60 9 requests")], AT)
    return Metrics(
        prices=Prices(BOOK),
        priced_as={},
        required_tags=frozenset(),
        label_sets_max=label_sets_max,
        probes=Probes(
            now=lambda: AT,
            budgets=lambda: budgets.status(AT),
            reservations_open=lambda: 0,
            journal_lag_s=lambda: 0.0,
            ledger_lag_s=lambda: 0.25,
            ledger_backlog_bytes=lambda: 0,
            stores_up=lambda: {"ledger": True},
        ),
    )


def record(number: int = 1, **changes: Any) -> LedgerRecord:
    """A finished call of 1,000 tokens for a dollar and a half."""
    line = LedgerLine(
        sku="openai/gpt-5/input",
        price_id="openai/gpt-5/input/standard",
        meter="input",
        quantity="1000",
        unit_price="1500",
        per=1_000_000,
        list_cost_pico=2 * 10**12,
        cost_pico=15 * 10**11,
    )
    fields: dict[str, Any] = {
        "id": f"01J{number:023}",
        "started_at_us": US,
        "ended_at_us": US + 300_000,
        "outcome": "ok",
        "http_status": 200,
        "stream": False,
        "api": "openai.chat",
        "provider": "openai",
        "model_requested": "gpt-5",
        "model": "gpt-5",
        "organization": "acme",
        "team": "search",
        "project": "rag",
        "key": "rag-ci",
        "usage": {"input": 1000},
        "input_total": 1000,
        "output_total": 0,
        "basis": "reported",
        "cost_pico": 15 * 10**11,
        "list_cost_pico": 2 * 10**12,
        "price_version": "v",
        "cost_status": "final",
        "lines": (line,),
        **changes,
    }
    return LedgerRecord(**fields)


def page(told: Metrics, accept: str = ACCEPTS, fleet: Mapping[str, Any] | None = None) -> str:
    """What a scrape is answered."""
    body, content_type = asyncio.run(told.render(accept, fleet))

    assert content_type == (OPEN_METRICS if "openmetrics" in accept else TEXT)
    return body.decode()


def samples(text: str, name: str) -> Iterator[tuple[dict[str, str], float]]:
    """Labels and values of a metric in OpenMetrics."""
    for family in read_open(text):
        for sample in family.samples:
            if sample.name == name:
                yield dict(sample.labels), sample.value


def total(text: str, name: str, **labels: str) -> float:
    """Sum of a metric over the label sets that match."""
    return sum(v for found, v in samples(text, name) if labels.items() <= found.items())


def test_both_formats_say_the_same() -> None:
    """Prometheus' own parsers read the same numbers out of either format, hostile labels too."""
    told = metrics()
    told.observe(record(team='a"b\\c\nd', stream=True))
    told.observe(record(2, cost_pico=None, list_cost_pico=None, cost_status="unknown", lines=()))
    told.answered("openai", "gpt-5", 0.4)
    told.timed("admit", 0.0002)

    def numbers(families: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    in_text = numbers(read_text(page(told, "*/*")))
    in_open = numbers(read_open(page(told)))

    assert in_open == in_text
    assert 'a"b\\c\nd' in {dict(labels).get("team") for _, labels in in_open}
    assert {f.name: f.type for f in told.collect()} == {
        f.name: f.type for f in read_open(page(told))
    }


def test_a_bucket_names_its_newest_request() -> None:
    """The exemplar is the newest call of the bucket, with its id, its value and its time."""
    told = metrics()
    told.observe(record(1))
    told.observe(record(2, ended_at_us=US + 310_000))

    found = [
        sample.exemplar
        for family in read_open(page(told))
        for sample in family.samples
        if sample.name == "llm_request_duration_seconds_bucket" and sample.exemplar is not None
    ]

    assert [dict(exemplar.labels) for exemplar in found] == [{"request_id": f"01J{2:023}"}]
    assert found[0].value == 0.31
    assert float(found[0].timestamp) == US / 1e6 + 0.31
    assert "request_id" not in page(told, "*/*")


def test_too_many_label_sets_are_other_and_counted() -> None:
    """Past the limit nothing is lost: it goes to ``other``, and a metric tells how much did."""
    told = metrics(label_sets_max=3)
    for number in range(10):
        told.observe(record(number, team=f"team-{number}"))
    text = page(told)

    assert len(list(samples(text, "llm_requests_total"))) == 4
    assert total(text, "llm_requests_total") == 10
    assert total(text, "llm_requests_total", team="other", model="other") == 7
    assert total(text, "llm_cost_usd_total") == 15.0
    assert total(text, "gateway_metrics_overflow_requests_total") == 7
    assert total(text, "gateway_metrics_overflow_cost_usd_total") == 10.5


def test_names_a_client_makes_up_open_no_series() -> None:
    """However many models and providers are asked for, histograms stay as many as allowed."""
    told = metrics(label_sets_max=3)
    for number in range(50):
        told.observe(record(number, provider=f"p{number}", model=f"made-up-{number}"))
        told.answered(f"p{number}", f"made-up-{number}", 0.1)
    text = page(told)

    assert len(list(samples(text, "llm_request_duration_seconds_count"))) == 4
    assert len(list(samples(text, "llm_time_to_first_token_seconds_count"))) == 4
    assert total(text, "llm_request_duration_seconds_count") == 50


def test_list_cost_and_unknown_cost_are_told() -> None:
    """What agreements save can be seen, and calls of unknown cost are calls, not zeros."""
    told = metrics()
    told.observe(record())
    told.observe(record(2, cost_pico=None, list_cost_pico=None, cost_status="unknown", lines=()))
    text = page(told)

    assert total(text, "llm_list_cost_usd_total") == 2.0
    assert total(text, "llm_cost_usd_total") == 1.5
    assert total(text, "llm_unknown_cost_requests_total") == 1


def test_what_an_agreement_makes_free_is_saved_whole() -> None:
    """A cost of nothing still has its published price beside it."""
    told = metrics()
    told.observe(record(cost_pico=0, lines=()))
    text = page(told)

    assert total(text, "llm_list_cost_usd_total") == 2.0
    assert total(text, "llm_cost_usd_total") == 0


def test_users_wrote_no_more_than_all_there_was() -> None:
    """Calls that were billed less input than users wrote, or none, do not push a share past 1."""
    told = metrics()
    for number, (user, billed) in enumerate([(400, 1000), (100, 0), (60, None), (115, 100)]):
        told.observe(record(number, user_input_tokens=user, input_total=billed))
    text = page(told)

    assert total(text, "llm_user_input_tokens_total") == 675
    assert total(text, "llm_user_counted_input_tokens_total") == 1275


def test_a_correction_adds_what_was_missing_and_takes_nothing_back() -> None:
    """Counters rise by what a late answer adds; it is no further request."""
    told = metrics()
    told.observe(record())
    more = record(2, corrects=f"01J{1:023}", usage={"input": 5, "output": -3})
    told.correct(more)
    text = page(told)

    assert total(text, "llm_requests_total") == 1
    assert total(text, "llm_tokens_total", meter="input") == 1005
    assert total(text, "llm_tokens_total", meter="output") == 0
    assert total(text, "llm_cost_usd_total") == 3.0


def test_several_workers_are_added_up_with_their_newest_exemplars() -> None:
    """Any worker tells of all, those that are gone included, and names the newest request."""
    one, two = metrics(), metrics(label_sets_max=1)
    one.observe(record(1))
    two.observe(record(2, ended_at_us=US + 320_000))
    two.observe(record(3, team="late"))
    gone = metrics()
    gone.observe(record(4))
    fleet = {
        "states": [one.state(), two.state()],
        "counts": gone.state()["counts"],
        "seen": gone.state()["seen"],
    }
    text = page(one, fleet=fleet)

    assert total(text, "llm_requests_total") == 4
    assert total(text, "llm_cost_usd_total") == 6.0
    assert total(text, "gateway_metrics_overflow_requests_total") == 1
    assert text.count(f'request_id="01J{2:023}"') + text.count(f'request_id="01J{3:023}"') == 1


def test_budgets_tell_their_window_and_what_they_are_for() -> None:
    """A calendar window has a beginning and an end; a rolling one moves and has neither."""
    text = page(metrics())
    bounded = {
        labels["budget"] for labels, _ in samples(text, "llm_budget_window_end_timestamp_seconds")
    }
    infos = {labels["budget"]: labels for labels, _ in samples(text, "llm_budget_info")}

    assert bounded == {"cap"}
    assert infos["cap"]["window"] == "month"
    assert infos["cap"]["mode"] == "hard"
    assert infos["last"]["window"] == "rolling:60"
