"""Metrics as text: the Prometheus format and OpenMetrics, written a line at a time.

Must never build the whole page in one step: a scrape of thousands of series shares the event loop
with calls, so whoever writes it can let them pass between any two lines.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from prometheus_client.core import Metric

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
END: Final = "# EOF\n"

Labels = tuple[str, ...]


class Exemplar(NamedTuple):
    """One request that stands for the others of its bucket.

    Attributes:
        request: Its id.
        value: What was observed of it.
        at_s: When, in seconds since 1970.
    """

    request: str
    value: float
    at_s: float


class Sample(NamedTuple):
    """One number.

    Attributes:
        suffix: What stands after the family's name, such as ``_total``.
        labels: Values, in the order of the family's names; of a bucket its upper end last.
        value: The number.
        exemplar: A request behind it; ``None`` for none.
    """

    suffix: str
    labels: Labels
    value: float
    exemplar: Exemplar | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFamily:
    """Everything of one name.

    Attributes:
        name: Without ``_total``.
        kind: ``counter``, ``gauge`` or ``histogram``.
        text: What it tells.
        names: Of its labels.
        samples: Read once, and only as fast as they are written.
    """

    name: str
    kind: str
    text: str
    names: tuple[str, ...] = ()
    samples: Iterable[Sample] = field(default=())


def counter(
    name: str, text: str, names: tuple[str, ...], rows: Iterable[tuple[Labels, float]]
) -> MetricFamily:
    """Describe a number that only rises.

    Args:
        name: Without ``_total``.
        text: What it tells.
        names: Of its labels.
        rows: Values of the labels, and the number.

    Returns:
        The family.
    """
    samples = (Sample("_total", labels, value) for labels, value in rows)
    return MetricFamily(name=name, kind="counter", text=text, names=names, samples=samples)


def gauge(
    name: str, text: str, names: tuple[str, ...], rows: Iterable[tuple[Labels, float]]
) -> MetricFamily:
    """Describe a number of this moment.

    Args:
        name: Whole.
        text: What it tells.
        names: Of its labels.
        rows: Values of the labels, and the number.

    Returns:
        The family.
    """
    samples = (Sample("", labels, value) for labels, value in rows)
    return MetricFamily(name=name, kind="gauge", text=text, names=names, samples=samples)


def choose_format(accept: str) -> str:
    """Choose what the scraper asks for.

    Args:
        accept: The ``accept`` header.

    Returns:
        ``OPEN_METRICS`` where it is asked for, else ``TEXT``.
    """
    return OPEN_METRICS if "application/openmetrics-text" in accept else TEXT


def write(family: MetricFamily, content_type: str) -> Iterator[str]:
    """Write a family.

    Args:
        family: Its samples are used up.
        content_type: ``TEXT`` or ``OPEN_METRICS``, which alone carries exemplars.

    Yields:
        A line or two at a time, with their ends.
    """
    is_open = content_type == OPEN_METRICS
    called = family.name
    if family.kind == "counter" and not is_open:
        called += "_total"
    text = family.text.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {called} {text}\n# TYPE {called} {family.kind}\n"
    names, bucket_names = family.names, (*family.names, "le")
    for suffix, labels, value, exemplar in family.samples:
        shown = _labels(bucket_names if suffix == "_bucket" else names, labels)
        line = f"{family.name}{suffix}{shown} {_number(value)}"
        if exemplar is not None and is_open:
            seen = f'{{request_id="{exemplar.request}"}}'
            line += f" # {seen} {_number(exemplar.value)} {exemplar.at_s:.3f}"
        yield line + "\n"


def to_prometheus(family: MetricFamily) -> Metric:
    """Give a family to whoever takes those of the Prometheus library.

    Args:
        family: Its samples are used up.

    Returns:
        The same.
    """
    metric = Metric(family.name, family.text, family.kind)
    for suffix, labels, value, _ in family.samples:
        names = (*family.names, "le") if suffix == "_bucket" else family.names
        metric.add_sample(family.name + suffix, dict(zip(names, labels, strict=True)), value)
    return metric


def _labels(names: tuple[str, ...], values: Labels) -> str:
    if not names:
        return ""
    pairs = ",".join(
        [f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)]
    )
    return "{" + pairs + "}"


def _escaped(value: str) -> str:
    # Nearly no value needs it, and each of these looks costs less than a replacement.
    if '"' in value or "\\" in value or "\n" in value:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    return repr(value)
