"""Asks Prometheus and the ledger what a panel asks, and brings both answers into one shape.

Must never ask anything that does not stand in the board.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import psycopg

from grafana.preview.filling import fill, fill_sql

_HIDDEN: Final = frozenset({"__name__", "job", "instance", "Time"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a panel.

    Attributes:
        name: For its legend.
        labels: What tells it from the others.
        points: Seconds since 1970 and value; one point where one moment was asked for.
        query: Which of the panel's queries it answers, from 0.
    """

    name: str
    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]
    query: int = 0

    @property
    def last(self) -> float:
        """Its newest value."""
        return self.points[-1][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a panel has to show.

    Attributes:
        series: Of panels other than tables.
        columns: Names of a table's columns.
        rows: Of a table.
        start_s: Beginning of the span, seconds since 1970.
        end_s: Its end.
    """

    series: Sequence[Series] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    start_s: float = 0
    end_s: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where answers come from.

    Attributes:
        prometheus: Its address, as ``http://127.0.0.1:9090``.
        database: Address of the ledger.
        start_s: Beginning of the span, seconds since 1970.
        end_s: Its end.
        http: Asks Prometheus.
    """

    prometheus: str
    database: str
    start_s: int
    end_s: int
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30, trust_env=False))

    def ask(self, panel: Mapping[str, Any]) -> Answer:
        """Ask everything one panel asks.

        Args:
            panel: Its JSON.

        Returns:
            Everything it has to show.

        Raises:
            httpx.HTTPError: Prometheus refused, or is not there.
            psycopg.Error: The database did.
        """
        if "rawSql" in panel["targets"][0]:
            return self._ask_ledger(panel)
        found: list[Series] = []
        for place, target in enumerate(panel["targets"]):
            found += self._ask_metrics(target, place)
        if panel["type"] == "table":
            return self._to_table(panel, found)
        return Answer(series=found, start_s=self.start_s, end_s=self.end_s)

    def mark(self, annotations: Sequence[Mapping[str, Any]]) -> list[float]:
        """Ask when something happened that a board marks on its lines over time.

        Args:
            annotations: Their JSON.

        Returns:
            When each began, seconds since 1970.

        Raises:
            httpx.HTTPError: Prometheus refused, or is not there.
        """
        asked = ({**one, "legendFormat": "__auto", "instant": False} for one in annotations)
        return sorted(one.points[0][0] for each in asked for one in self._ask_metrics(each, 0))

    def _ask_metrics(self, target: Mapping[str, Any], place: int) -> list[Series]:
        span_s = self.end_s - self.start_s
        params: dict[str, str | int] = {"query": fill(target["expr"], span_s)}
        if target["instant"]:
            path, params["time"] = "query", self.end_s
        else:
            path, step = "query_range", max(1, span_s // 120)
            params |= {"start": self.start_s, "end": self.end_s, "step": step}
        told = self.http.get(f"{self.prometheus}/api/v1/{path}", params=params)
        told.raise_for_status()
        found = []
        for one in told.json()["data"]["result"]:
            labels = one["metric"]
            values = one.get("values") or [one["value"]]
            points = [(float(at), float(value)) for at, value in values if value != "NaN"]
            if points:
                name = _legend(target["legendFormat"], labels)
                found.append(Series(name=name, labels=labels, points=points, query=place))
        return found

    def _ask_ledger(self, panel: Mapping[str, Any]) -> Answer:
        start_s = self.end_s - _seconds(panel["timeFrom"]) if "timeFrom" in panel else self.start_s
        statement = fill_sql(panel["targets"][0]["rawSql"], start_s, self.end_s)
        with psycopg.connect(self.database) as connection:
            asked = connection.execute(statement.encode())
            columns = [column.name for column in asked.description or ()]
            rows = asked.fetchall()
        if panel["type"] == "table":
            return Answer(columns=columns, rows=rows)
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            named = dict(zip(columns, row, strict=True))
            at = named.pop("time").timestamp() if "time" in named else self.end_s
            name = str(named.pop("metric", columns[-1]))
            value = next(iter(named.values()))
            if value is not None:
                lines.setdefault(name, []).append((at, float(value)))
        series = [Series(name=name, labels={}, points=points) for name, points in lines.items()]
        return Answer(series=series, start_s=start_s, end_s=self.end_s)

    def _to_table(self, panel: Mapping[str, Any], found: Sequence[Series]) -> Answer:
        organized = next(
            one["options"] for one in panel["transformations"] if one["id"] == "organize"
        )
        renamed, places = organized["renameByName"], organized["indexByName"]
        titles = [renamed.get(f"Value #{target['refId']}") for target in panel["targets"]]
        if len(titles) == 1:
            titles = [renamed["Value"]]
        named = {name for one in found for name in one.labels} - _HIDDEN
        labels = sorted(named, key=lambda name: (places.get(name, len(places)), name))
        rows: dict[tuple[str, ...], list[object]] = {}
        for one in found:
            key = tuple(one.labels.get(name, "") for name in labels)
            rows.setdefault(key, [None] * len(titles))[one.query] = one.last
        return Answer(
            columns=[*labels, *titles], rows=[[*key, *row] for key, row in sorted(rows.items())]
        )


def _seconds(span: str) -> int:
    return int(span[:-1]) * {"d": 86_400, "h": 3_600}[span[-1]]


def _legend(pattern: str, labels: Mapping[str, str]) -> str:
    if pattern == "__auto":
        return ", ".join(value for name, value in labels.items() if name not in _HIDDEN)
    put: Callable[[re.Match[str]], str] = lambda found: labels.get(found[1], "")  # noqa: E731
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", put, pattern)
