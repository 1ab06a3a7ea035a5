"""What the gateway has counted since it started: numbers that only rise, and how to add them up.

Must never count a gauge: what is true of one moment is read at the scrape.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from gateway.exposition import Exemplar, Labels, MetricFamily, Sample, counter
from pricing.money import PICO_PER_UNIT

BASE: Final = ("organization", "team", "project", "provider", "model")
_DURATIONS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_FIRST_TOKEN_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
_OVERHEAD_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)
_SUM: Final = ".sum"

# One number that only rises: what is counted and its labels, and how many.
Count = tuple[Labels, int | float]


class Histogram:
    """Counts by bucket for each label set."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        """Start empty.

        Args:
            edges: Upper ends of the buckets; one more holds what is above.
        """
        self._edges = edges
        self.rows: dict[Labels, list[int]] = {}
        self.sums: dict[Labels, float] = defaultdict(float)
        self._exemplars: dict[Labels, list[Exemplar | None]] = {}

    def observe(self, labels: Labels, value: float) -> int:
        """Count a value.

        Args:
            labels: Which series.
            value: What was seen.

        Returns:
            The place of its bucket.
        """
        row = self.rows.get(labels)
        if row is None:
            row = self._row(labels)
        place = bisect_left(self._edges, value)
        row[place] += 1
        self.sums[labels] += value
        return place

    def exemplify(self, labels: Labels, place: int, exemplar: Exemplar) -> None:
        """Name a request that stands for a bucket; the newest stays.

        Args:
            labels: Which series.
            place: Of the bucket.
            exemplar: The request.
        """
        known = self._exemplars.get(labels)
        if known is None:
            known = self._exemplars[labels] = [None] * (len(self._edges) + 1)
        before = known[place]
        if before is None or before.at_s <= exemplar.at_s:
            known[place] = exemplar

    def exemplars(self) -> Iterator[tuple[Labels, int, Exemplar]]:
        """Take out the requests that stand for buckets.

        Yields:
            Which series, which bucket and which request.
        """
        for labels, known in list(self._exemplars.items()):
            for place, exemplar in enumerate(known):
                if exemplar is not None:
                    yield labels, place, exemplar

    def counts(self, name: str) -> Iterator[Count]:
        """Take the numbers out, to be added elsewhere.

        Args:
            name: Under which name.

        Yields:
            Every bucket and every sum.
        """
        for labels, row in list(self.rows.items()):
            yield (name + _SUM, *labels), self.sums[labels]
            for place, count in enumerate(row):
                if count:
                    yield (name, *labels, str(place)), count

    def add(self, labels: Labels, count: int | float, *, is_sum: bool) -> None:
        """Add a number that was taken out.

        Args:
            labels: As given, the place of the bucket last.
            count: How many.
            is_sum: Whether it is a sum of values, whose labels name no bucket.
        """
        if is_sum:
            self._row(labels)
            self.sums[labels] += count
        else:
            self._row(labels[:-1])[int(labels[-1])] += int(count)

    def export(self, name: str, text: str, names: tuple[str, ...]) -> MetricFamily:
        """Fold everything for a scrape.

        Args:
            name: Of the metric.
            text: What it tells.
            names: Of its labels.

        Returns:
            The family.
        """
        return MetricFamily(
            name=name, kind="histogram", text=text, names=names, samples=self._samples()
        )

    def _samples(self) -> Iterator[Sample]:
        edges = (*map(str, self._edges), "+Inf")
        for labels, row in list(self.rows.items()):
            seen = self._exemplars.get(labels)
            total = 0
            for place, count in enumerate(row):
                total += count
                exemplar = None if seen is None else seen[place]
                yield Sample("_bucket", (*labels, edges[place]), total, exemplar)
            yield Sample("_count", labels, total)
            yield Sample("_sum", labels, self.sums[labels])

    def _row(self, labels: Labels) -> list[int]:
        row = self.rows.get(labels)
        if row is None:
            row = self.rows[labels] = [0] * (len(self._edges) + 1)
        return row


class Row:
    """Counters of one base label set."""

    __slots__ = (
        "cost_pico",
        "estimated_pico",
        "list_pico",
        "requests",
        "tokens",
        "unknown",
        "untagged_pico",
        "user_share_tokens",
        "user_tokens",
    )

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str], int] = defaultdict(int)
        self.tokens: dict[str, int] = defaultdict(int)
        self.cost_pico: dict[str, int] = defaultdict(int)
        self.list_pico = 0
        self.estimated_pico = 0
        self.untagged_pico = 0
        self.unknown = 0
        self.user_tokens: int | None = None
        self.user_share_tokens = 0

    def counts(self, base: Labels) -> Iterator[Count]:
        """Take the numbers out, to be added elsewhere.

        Args:
            base: Its labels.

        Yields:
            Every number.
        """
        for (api, outcome), count in list(self.requests.items()):
            yield ("requests", *base, api, outcome), count
        for meter, count in list(self.tokens.items()):
            yield ("tokens", *base, meter), count
        for meter, pico in list(self.cost_pico.items()):
            yield ("cost", *base, meter), pico
        yield ("list", *base), self.list_pico
        yield ("estimated", *base), self.estimated_pico
        yield ("untagged", *base), self.untagged_pico
        if self.unknown:
            yield ("unknown", *base), self.unknown
        if self.user_tokens is not None:
            yield ("users", *base), self.user_tokens
            yield ("user_share", *base), self.user_share_tokens

    def add(self, name: str, labels: Labels, count: int) -> None:
        """Add a number that was taken out.

        Args:
            name: What is counted.
            labels: Those beyond its own.
            count: How many.
        """
        match name:
            case "requests":
                self.requests[labels[0], labels[1]] += count
            case "tokens":
                self.tokens[labels[0]] += count
            case "cost":
                self.cost_pico[labels[0]] += count
            case "list":
                self.list_pico += count
            case "unknown":
                self.unknown += count
            case "estimated":
                self.estimated_pico += count
            case "untagged":
                self.untagged_pico += count
            case "users":
                self.user_tokens = (self.user_tokens or 0) + count
            case "user_share":
                self.user_share_tokens += count
            case _:
                # A worker of another version counts what this one does not know.
                return


class Counts:
    """Everything that is counted.

    Attributes:
        rows: By base label set.
        unpriced: Calls without a price, by provider and model.
        refusals: Calls a budget refused, by budget and reason.
        overflow: Calls and 10^-12 USD counted under ``other``: there were too many label sets.
        actions: What budgets did about calls, by budget and action.
        alerts: What became of alerts, by budget, kind and outcome.
        otlp: Calls told by OTLP or dropped, by outcome.
        durations: Seconds from arrival to settlement.
        first_tokens: Seconds to the first bytes of a stream.
        overhead: Seconds of the gateway's own work.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.rows: dict[Labels, Row] = {}
        self.unpriced: dict[Labels, int] = defaultdict(int)
        self.refusals: dict[Labels, int] = defaultdict(int)
        self.actions: dict[Labels, int] = defaultdict(int)
        self.alerts: dict[Labels, int] = defaultdict(int)
        self.otlp: dict[Labels, int] = defaultdict(int)
        self.overflow: dict[Labels, int] = defaultdict(int)
        self.durations = Histogram(_DURATIONS_S)
        self.first_tokens = Histogram(_FIRST_TOKEN_S)
        self.overhead = Histogram(_OVERHEAD_S)

    def counts(self) -> Iterator[Count]:
        """Take all numbers out, to be added elsewhere.

        Yields:
            Each with its name and its labels; whole numbers exactly.
        """
        for base, row in list(self.rows.items()):
            yield from row.counts(base)
        for name, totals in self._totals().items():
            for labels, count in list(totals.items()):
                yield (name, *labels), count
        for name, histogram in self._histograms().items():
            yield from histogram.counts(name)

    def add(self, counts: Iterable[Count]) -> None:
        """Add numbers that were taken out.

        Args:
            counts: As ``counts`` gave them; what this version does not know is left out.
        """
        histograms = self._histograms()
        totals = self._totals()
        for (name, *rest), count in counts:
            labels = tuple(rest)
            if name in totals:
                totals[name][labels] += int(count)
            elif name.removesuffix(_SUM) in histograms:
                histogram = histograms[name.removesuffix(_SUM)]
                histogram.add(labels, count, is_sum=name.endswith(_SUM))
            else:
                row = self.rows.setdefault(labels[: len(BASE)], Row())
                row.add(name, labels[len(BASE) :], int(count))

    def exemplars(self) -> Iterator[list[Any]]:
        """Take out the requests that stand for buckets, to be added elsewhere.

        Yields:
            JSON.
        """
        for name, histogram in self._histograms().items():
            for labels, place, exemplar in histogram.exemplars():
                yield [name, labels, place, *exemplar]

    def exemplify(self, exemplars: Iterable[list[Any]]) -> None:
        """Add requests that were taken out.

        Args:
            exemplars: As ``exemplars`` gave them.
        """
        histograms = self._histograms()
        for name, labels, place, *exemplar in exemplars:
            if name in histograms:
                histograms[name].exemplify(tuple(labels), place, Exemplar(*exemplar))

    def export(self) -> Iterator[MetricFamily]:
        """Fold everything for a scrape.

        Yields:
            One family per metric name.
        """
        yield from self._of_rows()
        yield from self._of_totals()
        yield self.durations.export(
            "llm_request_duration_seconds",
            "From arrival to settlement.",
            ("provider", "model", "stream"),
        )
        yield self.first_tokens.export(
            "llm_time_to_first_token_seconds",
            "From arrival to the first streamed bytes sent on.",
            ("provider", "model"),
        )
        yield self.overhead.export(
            "gateway_overhead_seconds", "The gateway's own work in a call.", ("phase",)
        )

    def _totals(self) -> Mapping[str, dict[Labels, int]]:
        return {
            "unpriced": self.unpriced,
            "refusals": self.refusals,
            "budget_actions": self.actions,
            "alerts": self.alerts,
            "overflow": self.overflow,
            "otlp": self.otlp,
        }

    def _histograms(self) -> Mapping[str, Histogram]:
        return {
            "durations": self.durations,
            "first_tokens": self.first_tokens,
            "overhead": self.overhead,
        }

    def _of_rows(self) -> Iterator[MetricFamily]:
        for name, text, more, read in _ROW_FAMILIES:
            rows = (pair for base, row in list(self.rows.items()) for pair in read(base, row))
            yield counter(name, text, (*BASE, *more), rows)

    def _of_totals(self) -> Iterator[MetricFamily]:
        for name, text, names, rows in (
            (
                "llm_unpriced_requests",
                "Calls without a price.",
                ("provider", "model"),
                self.unpriced,
            ),
            ("llm_budget_refusals", "Calls a budget refused.", ("budget", "reason"), self.refusals),
            (
                "llm_budget_actions",
                "Calls a budget slowed down, capped, sent to another model or cut.",
                ("budget", "action"),
                self.actions,
            ),
            (
                "llm_budget_alerts",
                "Alerts raised, and how telling their receivers went.",
                ("budget", "kind", "outcome"),
                self.alerts,
            ),
            (
                "gateway_otlp_calls",
                "Calls told to a collector by OTLP, or dropped.",
                ("outcome",),
                self.otlp,
            ),
        ):
            yield counter(name, text, names, list(rows.items()))
        yield counter(
            "gateway_metrics_overflow_requests",
            "Calls counted under other labels because there were too many label sets.",
            (),
            [((), self.overflow.get(("requests",), 0))],
        )
        yield counter(
            "gateway_metrics_overflow_cost_usd",
            "Cost counted under other labels because there were too many label sets.",
            (),
            [((), self.overflow.get(("cost",), 0) / PICO_PER_UNIT)],
        )


Reading = Callable[[Labels, Row], Iterable[tuple[Labels, float]]]


def _read_requests(base: Labels, row: Row) -> Iterable[tuple[Labels, float]]:
    return [((*base, *end), count) for end, count in list(row.requests.items())]


def _read_tokens(base: Labels, row: Row) -> Iterable[tuple[Labels, float]]:
    return [((*base, meter), count) for meter, count in list(row.tokens.items())]


def _read_cost(base: Labels, row: Row) -> Iterable[tuple[Labels, float]]:
    return [((*base, m), pico / PICO_PER_UNIT) for m, pico in list(row.cost_pico.items())]


def _read_list(base: Labels, row: Row) -> Iterable[tuple[Labels, float]]:
    return ((base, row.list_pico / PICO_PER_UNIT),)


def _read_estimated(base: Labels, row: Row) -> Iterable[tuple[Labels, float]]:
    return ((base, row.estimated_pico / PICO_PER_UNIT),)


def _read_untagged(base: Labels, row: Row) -> Iterable[tuple[Labels, float]]:
    return ((base, row.untagged_pico / PICO_PER_UNIT),)


def _read_unknown(base: Labels, row: Row) -> Iterable[tuple[Labels, float]]:
    return ((base, row.unknown),)


def _read_user_tokens(base: Labels, row: Row) -> Iterable[tuple[Labels, float]]:
    return () if row.user_tokens is None else ((base, row.user_tokens),)


def _read_counted(base: Labels, row: Row) -> Iterable[tuple[Labels, float]]:
    return () if row.user_tokens is None else ((base, row.user_share_tokens),)


_ROW_FAMILIES: Final[tuple[tuple[str, str, Labels, Reading], ...]] = (
    ("llm_requests", "Requests by how they ended.", ("api", "outcome"), _read_requests),
    ("llm_tokens", "Units counted by meter.", ("meter",), _read_tokens),
    ("llm_cost_usd", "Cost by meter.", ("meter",), _read_cost),
    ("llm_list_cost_usd", "The same at published prices.", (), _read_list),
    ("llm_estimated_cost_usd", "Cost that rests on estimates.", (), _read_estimated),
    ("llm_untagged_cost_usd", "Cost of calls without their tags.", (), _read_untagged),
    ("llm_unknown_cost_requests", "Calls whose cost is not known.", (), _read_unknown),
    ("llm_user_input_tokens", "Tokens that users wrote.", (), _read_user_tokens),
    (
        "llm_user_counted_input_tokens",
        "Input tokens of the calls whose user tokens were counted.",
        (),
        _read_counted,
    ),
)
