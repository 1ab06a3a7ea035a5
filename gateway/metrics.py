"""Every metric name, in one place: plain counters on the path, folded at scrape.

Must never label by key, user or request, and never be used for an invoice: that is the ledger's.
Floats are allowed here and nowhere else, because Prometheus has nothing else.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.budget_gauges import read_budgets
from gateway.budgets.rules import BudgetStatus
from gateway.counts import Count, Counts, Row
from gateway.exposition import (
    END,
    OPEN_METRICS,
    Exemplar,
    Labels,
    MetricFamily,
    choose_format,
    gauge,
    to_prometheus,
    write,
)
from gateway.ledger.record import LedgerRecord
from gateway.prices.current import Prices
from pricing.book import Book
from pricing.money import PICO_PER_UNIT
from pricing.rates import BASE_BAND
from pricing.sku import STANDARD_TIER

OTHER: Final = "other"
NOBODY: Final = "unknown"
# Names of models that are remembered: more than this come from a client that makes them up.
NAMES_MAX: Final = 20_000
# Lines written, and numbers added up, before calls get their turn.
LINES_AT_ONCE: Final = 100
COUNTS_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Where values are read at scrape time.

    Attributes:
        now: The time.
        budgets: Status of every budget now.
        reservations_open: Holds that have not ended.
        journal_lag_s: Age of the oldest entry not yet as safe as ``fsync`` asks.
        ledger_lag_s: Age of the oldest journalled record not yet in the database.
        ledger_backlog_bytes: How much of the journal is not in the database yet.
        stores_up: Store name to whether it answers.
        alerts_waiting: Alerts not delivered yet; ``None`` where nobody is told.
    """

    now: Callable[[], datetime]
    budgets: Callable[[], Iterable[BudgetStatus]]
    reservations_open: Callable[[], int]
    journal_lag_s: Callable[[], float]
    ledger_lag_s: Callable[[], float]
    ledger_backlog_bytes: Callable[[], int]
    stores_up: Callable[[], Mapping[str, bool]]
    alerts_waiting: Callable[[], int | None] = lambda: None


class Moment(NamedTuple):
    """What is true of one moment, of one worker or of several.

    Attributes:
        open: Calls under way.
        held: Holds that have not ended.
        journal_lag_s: Age of the oldest entry not yet as safe as ``fsync`` asks.
        ledger_lag_s: Age of the oldest journalled record not yet in the database.
        ledger_backlog_bytes: How much of the journal is not in the database yet.
        stores_up: Store name to whether it answers.
        seen: Provider and model label of every model called so far.
    """

    open: int
    held: int
    journal_lag_s: float
    ledger_lag_s: float
    ledger_backlog_bytes: int
    stores_up: Mapping[str, bool]
    seen: frozenset[tuple[str, str]]


class Metrics(Collector):
    """What happened, as numbers to watch."""

    def __init__(
        self,
        *,
        prices: Prices,
        priced_as: Mapping[str, str],
        required_tags: frozenset[str],
        probes: Probes,
        label_sets_max: int = 2_000,
    ) -> None:
        """Start at zero.

        Args:
            prices: The book that holds; also the closed set of model labels.
            priced_as: Catalog provider of every configured provider.
            required_tags: Tags a call must carry to count as tagged; with none required, any tag.
            probes: Where gauges are read.
            label_sets_max: Label sets that get series of their own; the rest are ``other``.
        """
        self._label_sets_max = label_sets_max
        self._prices_at = prices.at
        self._priced_as = priced_as
        self._required_tags = required_tags
        self._probes = probes
        self._models: dict[tuple[str | None, str | None], tuple[str, str]] = {}
        self._counts = counts = Counts()
        self._rows = counts.rows
        self._unpriced = counts.unpriced
        self._refusals = counts.refusals
        self._actions = counts.actions
        self._alerts = counts.alerts
        self._durations = counts.durations
        self._first_tokens = counts.first_tokens
        self._overhead = counts.overhead
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
        if cost_pico is None:
            row.unknown += 1
        else:
            # What an agreement makes free has a published price all the same.
            row.list_pico += record.list_cost_pico or 0
            if cost_pico:
                self._qualify(row, record, cost_pico)
        if record.cost_status == "unpriced":
            self._unpriced[self._bounded(self._unpriced, (provider, model))] += 1
        if record.user_input_tokens is not None:
            row.user_tokens = (row.user_tokens or 0) + record.user_input_tokens
            # A call that failed was billed nothing, and the provider's count can be less than ours.
            row.user_share_tokens += max(record.input_total or 0, record.user_input_tokens)
        # The time of outside usage was not this gateway's.
        if record.http_status is not None:
            self._time(record, provider, model)

    def _qualify(self, row: Row, record: LedgerRecord, cost_pico: int) -> None:
        if record.cost_status == "estimated":
            row.estimated_pico += cost_pico
        if not record.tags or not self._required_tags <= record.tags.keys():
            row.untagged_pico += cost_pico

    def _time(self, record: LedgerRecord, provider: str, model: str) -> None:
        seconds = (record.ended_at_us - record.started_at_us) / 1e6
        stream = "true" if record.stream else "false"
        labels = self._bounded(self._durations.rows, (provider, model, stream))
        place = self._durations.observe(labels, seconds)
        exemplar = Exemplar(record.id, seconds, record.ended_at_us / 1e6)
        self._durations.exemplify(labels, place, exemplar)

    def correct(self, record: LedgerRecord) -> None:
        """Count what a call turned out to have used beyond what was counted.

        Args:
            record: A correction. What it takes back is in the ledger alone: a counter never falls.
        """
        row = self._row_of(record, *self._label(record.provider, record.model))
        for meter, count in record.usage.items():
            if type(count) is int and count > 0:
                row.tokens[meter] += count
        for line in record.lines:
            row.cost_pico[line.meter] += max(line.cost_pico, 0)
        row.list_pico += max(record.list_cost_pico or 0, 0)

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

    def count_refusals(self) -> Mapping[Labels, int]:
        """Tell how often each budget has said no; may be asked from any thread.

        Returns:
            Refusals by budget and code.
        """
        return dict(self._refusals)

    def acted(self, budget: str, action: str) -> None:
        """A budget did something about a call.

        Args:
            budget: Budget id.
            action: ``throttle``, ``cap``, ``fallback`` or ``cut``.
        """
        self._actions[budget, action] += 1

    def alerted(self, budget: str, kind: str, outcome: str) -> None:
        """An alert was raised or delivered, is tried again, or was given up.

        Args:
            budget: Budget id.
            kind: What it is about.
            outcome: ``raised``, ``delivered``, ``retried`` or ``failed``.
        """
        self._alerts[budget, kind, outcome] += 1

    def exported(self, outcome: str, calls: int) -> None:
        """Calls were told by OTLP, or dropped.

        Args:
            outcome: ``sent`` or ``dropped``.
            calls: How many.
        """
        self._counts.otlp[(outcome,)] += calls

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
        labels = self._bounded(self._first_tokens.rows, self._label(provider, model))
        self._first_tokens.observe(labels, seconds)

    def collect(self) -> Iterator[Metric]:
        """Fold everything for a scrape.

        Yields:
            One family per metric name.
        """
        for family in self._fold(self._counts, self._moment()):
            yield to_prometheus(family)

    async def render(
        self, accept: str, fleet: Mapping[str, Any] | None = None
    ) -> tuple[bytes, str]:
        """Write everything in the format the scraper asks for, with pauses for calls.

        Args:
            accept: The ``accept`` header.
            fleet: What every worker told, as ``gateway.fleet`` gives it; ``None`` where this
                process is the only one.

        Returns:
            Body and content type: Prometheus text or OpenMetrics.
        """
        counts, moment = self._counts, None
        if fleet is not None:
            counts, moment = await _add_up(fleet)
        content_type = choose_format(accept)
        parts: list[str] = []
        async for lines in self._lines(counts, moment or self._moment(), content_type):
            parts.append(lines)
        if content_type == OPEN_METRICS:
            parts.append(END)
        return "".join(parts).encode(), content_type

    async def _lines(self, counts: Counts, moment: Moment, content_type: str) -> AsyncIterator[str]:
        families = self._fold(counts, moment)
        lines = (line for family in families for line in write(family, content_type))
        while some := list(islice(lines, LINES_AT_ONCE)):
            yield "".join(some)
            await asyncio.sleep(0)

    def state(self) -> dict[str, Any]:
        """Tell the other workers what this one has counted and how it is.

        Returns:
            JSON. ``counts`` only rise, and outlive the worker; ``seen`` likewise; the rest is of
            this moment.
        """
        moment = self._moment()
        return {
            **moment._asdict(),
            "seen": sorted(moment.seen),
            "counts": list(self._counts.counts()),
            "exemplars": list(self._counts.exemplars()),
        }

    def describe(self) -> Iterable[Metric]:
        """Tell nothing in advance: names are only known once something happened.

        Returns:
            No families.
        """
        return ()

    def _moment(self) -> Moment:
        probes = self._probes
        return Moment(
            open=self._open,
            held=probes.reservations_open(),
            journal_lag_s=probes.journal_lag_s(),
            ledger_lag_s=probes.ledger_lag_s(),
            ledger_backlog_bytes=probes.ledger_backlog_bytes(),
            stores_up=probes.stores_up(),
            seen=frozenset(self._models.values()),
        )

    def _fold(self, counts: Counts, moment: Moment) -> Iterator[MetricFamily]:
        yield from counts.export()
        yield from self._prices(moment.seen)
        yield from read_budgets(self._probes.budgets())
        waiting = self._probes.alerts_waiting()
        if waiting is not None:
            yield gauge(
                "llm_budget_alerts_waiting", "Alerts not delivered yet.", (), [((), waiting)]
            )
        yield from _moment_gauges(moment)

    def _prices(self, seen: Iterable[tuple[str, str]]) -> Iterator[MetricFamily]:
        now = self._probes.now()
        book = self._prices_at(now)
        yield gauge(
            "llm_price_usd_per_million",
            "Standard price in force of models seen.",
            ("provider", "model", "meter", "price_version"),
            self._standard_prices(book, seen, now),
        )
        yield gauge(
            "llm_price_book_info",
            "The version of the price book in use.",
            ("price_version",),
            [((book.version.version,), 1)],
        )
        age_s = (now - book.version.recorded_at).total_seconds()
        yield gauge("llm_price_book_age_seconds", "Since the book was recorded.", (), [((), age_s)])

    def _standard_prices(
        self, book: Book, seen: Iterable[tuple[str, str]], now: datetime
    ) -> Iterator[tuple[Labels, float]]:
        for provider, model in sorted(seen):
            card = book.find_card(self._priced_as.get(provider, provider), model, now)
            for (tier, region, meter), bands in (card.rates if card else {}).items():
                base = [c for c in bands if c.band == BASE_BAND]
                if tier == STANDARD_TIER and region is None and base and card:
                    pico = base[0].pico_numerator * 1_000_000 / base[0].pico_denominator
                    yield (provider, model, meter.value, card.version), pico / PICO_PER_UNIT

    def _row_of(self, record: LedgerRecord, provider: str, model: str) -> Row:
        base = (
            record.organization or NOBODY,
            record.team or NOBODY,
            record.project or NOBODY,
            provider,
            model,
        )
        row = self._rows.get(base)
        if row is None:
            if len(self._rows) >= self._label_sets_max:
                base = (base[0], OTHER, OTHER, OTHER, OTHER)
                overflow = self._counts.overflow
                overflow["requests",] += 1
                overflow["cost",] += max(record.cost_pico or 0, 0)
            row = self._rows.setdefault(base, Row())
        return row

    def _bounded(self, known: Mapping[Labels, object], labels: Labels) -> Labels:
        """Labels that have a series, or may have one; else ``other`` for provider and model."""
        if labels in known or len(known) < self._label_sets_max:
            return labels
        return (OTHER, OTHER, *labels[2:])

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
        if entry is not None and len(self._models) < NAMES_MAX:
            self._models[provider, model] = label
        return label


def _moment_gauges(moment: Moment) -> Iterator[MetricFamily]:
    gauges = (
        ("gateway_open_requests", "Requests in flight.", moment.open),
        ("gateway_reservations_open", "Holds not ended.", moment.held),
        ("gateway_journal_lag_seconds", "Oldest unsynced entry.", moment.journal_lag_s),
        ("gateway_ledger_lag_seconds", "Oldest unshipped record.", moment.ledger_lag_s),
        ("gateway_ledger_backlog_bytes", "Journal not shipped.", moment.ledger_backlog_bytes),
    )
    for name, text, value in gauges:
        yield gauge(name, text, (), [((), value)])
    rows = [((store,), float(is_up)) for store, is_up in moment.stores_up.items()]
    yield gauge("gateway_store_up", "Whether a store answers.", ("store",), rows)


async def _add_up(fleet: Mapping[str, Any]) -> tuple[Counts, Moment]:
    """Add what every worker told to what those told that are gone."""
    counts = Counts()
    await _add(counts, fleet["counts"])
    seen = {(provider, model) for provider, model in fleet["seen"]}
    stores_up: dict[str, bool] = {}
    states = fleet["states"]
    for state in states:
        await _add(counts, state["counts"])
        counts.exemplify(state.get("exemplars", ()))
        seen.update((provider, model) for provider, model in state["seen"])
        for store, is_up in state["stores_up"].items():
            stores_up[store] = is_up and stores_up.get(store, True)
    moment = Moment(
        open=sum(state["open"] for state in states),
        held=sum(state["held"] for state in states),
        journal_lag_s=max((state["journal_lag_s"] for state in states), default=0.0),
        ledger_lag_s=max((state["ledger_lag_s"] for state in states), default=0.0),
        ledger_backlog_bytes=sum(state["ledger_backlog_bytes"] for state in states),
        stores_up=stores_up,
        seen=frozenset(seen),
    )
    return counts, moment


async def _add(counts: Counts, told: Iterable[Count]) -> None:
    rest = iter(told)
    while some := list(islice(rest, COUNTS_AT_ONCE)):
        counts.add(some)
        await asyncio.sleep(0)
