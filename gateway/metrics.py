"""Every metric name, in one place: plain counters on the path, folded at scrape.

Must never label by key, user or request, and never be used for an invoice: that is the ledger's.
Floats are allowed here and nowhere else, because Prometheus has nothing else.
"""

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from gateway.budgets.rules import BudgetStatus, Unit
from gateway.ledger.record import LedgerRecord
from gateway.prices.current import Prices
from pricing.money import PICO_PER_UNIT
from pricing.rates import BASE_BAND
from pricing.sku import STANDARD_TIER

OTHER: Final = "other"
NOBODY: Final = "unknown"
# Base label sets; what comes after them is counted under ``other``.
ROWS_MAX: Final = 2_000
_BASE: Final = ("organization", "team", "project", "provider", "model")
_DURATIONS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_FIRST_TOKEN_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
_OVERHEAD_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Where values are read at scrape time.

    Attributes:
        now: The time.
        budgets: Status of every budget now.
        reservations_open: Holds that have not ended.
        journal_lag_s: Age of the oldest entry not yet as safe as ``fsync`` asks.
        ledger_lag_s: Age of the oldest journalled record not yet in the database.
        stores_up: Store name to whether it answers.
    """

    now: Callable[[], datetime]
    budgets: Callable[[], Iterable[BudgetStatus]]
    reservations_open: Callable[[], int]
    journal_lag_s: Callable[[], float]
    ledger_lag_s: Callable[[], float]
    stores_up: Callable[[], Mapping[str, bool]]


class _Histogram:
    """Counts by bucket for each label set."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self._edges = edges
        self.rows: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = defaultdict(float)

    def observe(self, labels: Labels, value: float) -> None:
        row = self.rows.get(labels)
        if row is None:
            row = self.rows[labels] = [0] * (len(self._edges) + 1)
        row[bisect_left(self._edges, value)] += 1
        self.sums[labels] += value

    def export(self, name: str, text: str, names: tuple[str, ...]) -> Metric:
        family = HistogramMetricFamily(name, text, labels=names)
        for labels, row in list(self.rows.items()):
            total = 0
            buckets = []
            for edge, count in zip((*map(str, self._edges), "+Inf"), row, strict=True):
                total += count
                buckets.append((edge, total))
            family.add_metric(labels, buckets, self.sums[labels])
        return family


class _Row:
    """Counters of one base label set."""

    __slots__ = (
        "cost_pico",
        "estimated_pico",
        "requests",
        "tokens",
        "untagged_pico",
        "user_share_tokens",
        "user_tokens",
    )

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str], int] = defaultdict(int)
        self.tokens: dict[str, int] = defaultdict(int)
        self.cost_pico: dict[str, int] = defaultdict(int)
        self.estimated_pico = 0
        self.untagged_pico = 0
        self.user_tokens: int | None = None
        self.user_share_tokens = 0


class Metrics(Collector):
    """What happened, as numbers to watch."""

    def __init__(
        self,
        *,
        prices: Prices,
        priced_as: Mapping[str, str],
        required_tags: frozenset[str],
        probes: Probes,
    ) -> None:
        """Start at zero.

        Args:
            prices: The book that holds; also the closed set of model labels.
            priced_as: Catalog provider of every configured provider.
            required_tags: Tags a call must carry to count as tagged; with none required, any tag.
            probes: Where gauges are read.
        """
        self._prices_at = prices.at
        self._priced_as = priced_as
        self._required_tags = required_tags
        self._probes = probes
        self._models: dict[tuple[str | None, str | None], tuple[str, str]] = {}
        self._rows: dict[Labels, _Row] = {}
        self._unpriced: dict[Labels, int] = defaultdict(int)
        self._refusals: dict[Labels, int] = defaultdict(int)
        self._durations = _Histogram(_DURATIONS_S)
        self._first_tokens = _Histogram(_FIRST_TOKEN_S)
        self._overhead = _Histogram(_OVERHEAD_S)
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def observe(self, record: LedgerRecord) -> None:
        """Count a settled record.

        Args:
            record: As journalled.
        """
        provider, model = self._label(record.provider, record.model)
        row = self._row_of(record, provider, model)
        row.requests[record.api, record.outcome] += 1
        for meter, count in record.usage.items():
            if type(count) is int:
                row.tokens[meter] += count
        for line in record.lines:
            row.cost_pico[line.meter] += line.cost_pico
        cost_pico = record.cost_pico
        if cost_pico:
            if record.cost_status == "estimated":
                row.estimated_pico += cost_pico
            if not record.tags or not self._required_tags <= record.tags.keys():
                row.untagged_pico += cost_pico
        if record.cost_status == "unpriced":
            self._unpriced[provider, model] += 1
        if record.user_input_tokens is not None:
            row.user_tokens = (row.user_tokens or 0) + record.user_input_tokens
            row.user_share_tokens += record.input_total or 0
        seconds = (record.ended_at_us - record.started_at_us) / 1e6
        self._durations.observe((provider, model, "true" if record.stream else "false"), seconds)

    @property
    def open_calls(self) -> int:
        """How many calls are open."""
        return self._open

    def opened(self) -> None:
        """A call arrived."""
        if not self._open:
            self._idle.clear()
        self._open += 1

    def closed(self) -> None:
        """A call has gone, however it ended."""
        self._open -= 1
        if not self._open:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until no call is open."""
        await self._idle.wait()

    def refused_by_budget(self, budget: str, reason: str) -> None:
        """A budget said no.

        Args:
            budget: Budget id.
            reason: Refusal code.
        """
        self._refusals[budget, reason] += 1

    def timed(self, phase: str, seconds: float) -> None:
        """The gateway's own work in one phase took a while.

        Args:
            phase: ``admit`` or ``settle``.
            seconds: How long.
        """
        self._overhead.observe((phase,), seconds)

    def answered(self, provider: str, model: str, seconds: float) -> None:
        """The first bytes of a stream went out.

        Args:
            provider: Provider id.
            model: Model asked for.
            seconds: After the call arrived.
        """
        self._first_tokens.observe(self._label(provider, model), seconds)

    def collect(self) -> Iterator[Metric]:
        """Fold everything for a scrape.

        Yields:
            One family per metric name.
        """
        yield from self._counters()
        yield self._durations.export(
            "llm_request_duration_seconds",
            "From arrival to settlement.",
            ("provider", "model", "stream"),
        )
        yield self._first_tokens.export(
            "llm_time_to_first_token_seconds",
            "From arrival to the first streamed bytes sent on.",
            ("provider", "model"),
        )
        yield self._overhead.export(
            "gateway_overhead_seconds", "The gateway's own work in a call.", ("phase",)
        )
        yield from self._prices()
        yield from self._budgets()
        yield from self._stores()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Write everything in the format the scraper asks for.

        Args:
            accept: The ``accept`` header.

        Returns:
            Body and content type: Prometheus text or OpenMetrics.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def describe(self) -> Iterable[Metric]:
        """Tell nothing in advance: names are only known once something happened.

        Returns:
            No families.
        """
        return ()

    def _counters(self) -> Iterator[Metric]:
        meter = (*_BASE, "meter")
        requests = CounterMetricFamily(
            "llm_requests", "Requests by how they ended.", labels=(*_BASE, "api", "outcome")
        )
        tokens = CounterMetricFamily("llm_tokens", "Units counted by meter.", labels=meter)
        cost = CounterMetricFamily("llm_cost_usd", "Cost by meter.", labels=meter)
        estimated = CounterMetricFamily(
            "llm_estimated_cost_usd", "Cost that rests on estimates.", labels=_BASE
        )
        untagged = CounterMetricFamily(
            "llm_untagged_cost_usd", "Cost of calls without their tags.", labels=_BASE
        )
        users = CounterMetricFamily(
            "llm_user_input_tokens", "Tokens that users wrote.", labels=_BASE
        )
        counted = CounterMetricFamily(
            "llm_user_counted_input_tokens",
            "Input tokens of the calls whose user tokens were counted.",
            labels=_BASE,
        )
        for base, row in list(self._rows.items()):
            for end, count in list(row.requests.items()):
                requests.add_metric((*base, *end), count)
            for name, count in list(row.tokens.items()):
                tokens.add_metric((*base, name), count)
            for name, pico in list(row.cost_pico.items()):
                cost.add_metric((*base, name), pico / PICO_PER_UNIT)
            estimated.add_metric(base, row.estimated_pico / PICO_PER_UNIT)
            untagged.add_metric(base, row.untagged_pico / PICO_PER_UNIT)
            if row.user_tokens is not None:
                users.add_metric(base, row.user_tokens)
                counted.add_metric(base, row.user_share_tokens)
        yield from (requests, tokens, cost, estimated, untagged, users, counted)
        yield _count(
            "llm_unpriced_requests", "Calls without a price.", ("provider", "model"), self._unpriced
        )
        yield _count(
            "llm_budget_refusals", "Calls a budget refused.", ("budget", "reason"), self._refusals
        )

    def _prices(self) -> Iterator[Metric]:
        now = self._probes.now()
        book = self._prices_at(now)
        names = ("provider", "model", "meter", "price_version")
        prices = GaugeMetricFamily(
            "llm_price_usd_per_million", "Standard price in force of models seen.", labels=names
        )
        for provider, model in sorted(set(self._models.values())):
            card = book.find_card(self._priced_as.get(provider, provider), model, now)
            for (tier, region, meter), bands in (card.rates if card else {}).items():
                base = [c for c in bands if c.band == BASE_BAND]
                if tier == STANDARD_TIER and region is None and base and card:
                    pico = base[0].pico_numerator * 1_000_000 / base[0].pico_denominator
                    labels = (provider, model, meter.value, card.version)
                    prices.add_metric(labels, pico / PICO_PER_UNIT)
        yield prices
        age = (now - book.version.recorded_at).total_seconds()
        yield GaugeMetricFamily(
            "llm_price_book_age_seconds", "Since the book was recorded.", value=age
        )

    def _budgets(self) -> Iterator[Metric]:
        names = ("budget", "unit")
        limit = GaugeMetricFamily("llm_budget_limit", "Limit of the window.", labels=names)
        spent = GaugeMetricFamily("llm_budget_spent", "Spent in the window.", labels=names)
        held = GaugeMetricFamily("llm_budget_reserved", "Held by open calls.", labels=names)
        for status in self._probes.budgets():
            unit = status.budget.unit
            labels = (status.budget.id, unit.value)
            scale = PICO_PER_UNIT if unit is Unit.USD else 1
            limit.add_metric(labels, status.budget.limit / scale)
            spent.add_metric(labels, status.spent / scale)
            held.add_metric(labels, status.held / scale)
        yield from (limit, spent, held)

    def _stores(self) -> Iterator[Metric]:
        gauges = (
            ("gateway_open_requests", "Requests in flight.", self._open),
            ("gateway_reservations_open", "Holds not ended.", self._probes.reservations_open()),
            ("gateway_journal_lag_seconds", "Oldest unsynced entry.", self._probes.journal_lag_s()),
            ("gateway_ledger_lag_seconds", "Oldest unshipped record.", self._probes.ledger_lag_s()),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(name, text, value=value)
        up = GaugeMetricFamily("gateway_store_up", "Whether a store answers.", labels=("store",))
        for store, is_up in self._probes.stores_up().items():
            up.add_metric((store,), float(is_up))
        yield up

    def _row_of(self, record: LedgerRecord, provider: str, model: str) -> _Row:
        base = (
            record.organization or NOBODY,
            record.team or NOBODY,
            record.project or NOBODY,
            provider,
            model,
        )
        row = self._rows.get(base)
        if row is None:
            if len(self._rows) >= ROWS_MAX:
                base = (base[0], OTHER, OTHER, OTHER, OTHER)
            row = self._rows.setdefault(base, _Row())
        return row

    def _label(self, provider: str | None, model: str | None) -> tuple[str, str]:
        """Provider and catalog model; names the book does not know share one label."""
        known = self._models.get((provider, model))
        if known is not None:
            return known
        entry = None
        if provider is not None and model is not None:
            book = self._prices_at(self._probes.now())
            entry = book.find_model(self._priced_as.get(provider, provider), model)
        label = (provider or NOBODY, OTHER if entry is None else entry.model)
        if entry is not None:
            self._models[provider, model] = label
        return label


def _count(name: str, text: str, names: tuple[str, ...], rows: Mapping[Labels, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=names)
    for labels, value in list(rows.items()):
        family.add_metric(labels, value)
    return family
