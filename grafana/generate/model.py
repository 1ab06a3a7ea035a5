"""What a board is made of, and Grafana's JSON for it.

Must never place a panel without a title, a unit and a description.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from zlib import crc32

COLUMNS: Final = 24
TAG: Final = "taximeter"
METRICS: Final = {"type": "prometheus", "uid": "taximeter-prometheus"}
LEDGER: Final = {"type": "grafana-postgresql-datasource", "uid": "taximeter-ledger"}
FROM_METRICS: Final = " From Prometheus: fresh to the scrape, and as far back as it keeps data."
FROM_LEDGER: Final = " From the ledger: exact, seconds behind, and as far back as it goes."

Kind = Literal["stat", "timeseries", "table", "bargauge"]
# Lower end and colour of each step; the first has no lower end.
Steps = tuple[tuple[float | None, str], ...]
PLAIN: Final[Steps] = ((None, "blue"),)
LESS_IS_BETTER: Final[Steps] = ((None, "green"), (0.05, "yellow"), (0.2, "red"))
USED: Final[Steps] = ((None, "green"), (0.5, "yellow"), (0.8, "orange"), (1, "red"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question.

    Attributes:
        text: PromQL or SQL.
        legend: Names its series; ``None`` for the source's own names.
        is_sql: Whether it goes to the ledger.
        is_instant: Whether one moment is asked for, not a range.
    """

    text: str
    legend: str | None = None
    is_sql: bool = False
    is_instant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        title: Unique on its board.
        text: What it tells; where it comes from is added.
        unit: Grafana's name of the unit.
        kind: How it is drawn.
        queries: All to one source.
        width: Columns of 24.
        height: Rows of about 30 pixels.
        decimals: Digits after the point; ``None`` leaves it to Grafana.
        steps: Colours by value.
        is_stacked: Whether series are stacked.
        is_bars: Whether they are bars.
        units: Units of single columns of a table, by name.
        columns: Of a table of metrics: these labels come first, and rows are sorted by the first.
        since: Length of a span of its own, as ``30d``; ``None`` for that of the board.
    """

    title: str
    text: str
    unit: str
    kind: Kind
    queries: tuple[Query, ...]
    width: int = 12
    height: int = 8
    decimals: int | None = None
    steps: Steps = PLAIN
    is_stacked: bool = False
    is_bars: bool = False
    units: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    since: str | None = None

    @property
    def id(self) -> int:
        """Stays when panels are moved or added."""
        return crc32(self.title.encode()) % 1_000_000 + 1

    @property
    def is_sql(self) -> bool:
        """Whether it reads the ledger."""
        return self.queries[0].is_sql

    def to_json(self, x: int, y: int) -> dict[str, Any]:
        """Write it as Grafana reads it.

        Args:
            x: Its column.
            y: Its row.

        Returns:
            JSON.
        """
        custom: dict[str, Any] = {}
        if self.kind == "timeseries":
            custom = {
                "drawStyle": "bars" if self.is_bars else "line",
                "fillOpacity": 60 if self.is_bars else 20 if self.is_stacked else 5,
                "lineWidth": 1,
                "showPoints": "auto",
                "spanNulls": False,
                "stacking": {"mode": "normal" if self.is_stacked else "none", "group": "A"},
            }
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "custom": custom,
            "color": {"mode": "palette-classic" if self.kind == "timeseries" else "thresholds"},
            "thresholds": {
                "mode": "absolute",
                "steps": [{"value": value, "color": color} for value, color in self.steps],
            },
        }
        if self.decimals is not None:
            defaults["decimals"] = self.decimals
        source = LEDGER if self.is_sql else METRICS
        own_span = {} if self.since is None else {"timeFrom": self.since}
        return {
            **own_span,
            "id": self.id,
            "type": self.kind,
            "title": self.title,
            "description": self.text + (FROM_LEDGER if self.is_sql else FROM_METRICS),
            "datasource": source,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "fieldConfig": {"defaults": defaults, "overrides": [_unit_of(*u) for u in self.units]},
            "options": _OPTIONS[self.kind],
            "transformations": self._transformations(),
            "targets": [
                self._target(query, chr(ord("A") + place), source)
                for place, query in enumerate(self.queries)
            ],
        }

    def _transformations(self) -> list[dict[str, Any]]:
        if self.kind != "table" or self.is_sql:
            return []
        hidden = {"Time": True, "__name__": True, "job": True, "instance": True}
        named = {
            f"Value #{chr(ord('A') + place)}": query.legend or self.title
            for place, query in enumerate(self.queries)
        }
        if len(self.queries) == 1:
            named["Value"] = self.queries[0].legend or self.title
        places = {name: place for place, name in enumerate(self.columns)}
        organized = {"excludeByName": hidden, "renameByName": named, "indexByName": places}
        return [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": organized},
            *(
                {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": name}]}}
                for name in self.columns[:1]
            ),
        ]

    def _target(self, query: Query, letter: str, source: dict[str, str]) -> dict[str, Any]:
        if query.is_sql:
            shape = "time_series" if self.kind == "timeseries" else "table"
            return {
                "refId": letter,
                "datasource": source,
                "rawSql": query.text,
                "format": shape,
                "rawQuery": True,
                "editorMode": "code",
            }
        is_instant = query.is_instant or self.kind != "timeseries"
        return {
            "refId": letter,
            "datasource": source,
            "expr": query.text,
            "legendFormat": query.legend or "__auto",
            "instant": is_instant,
            "range": not is_instant,
            "exemplar": "_bucket" in query.text and not is_instant,
            "format": "table" if self.kind == "table" else "time_series",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """Something to choose at the top of a board.

    Attributes:
        name: How queries name it.
        query: Lists its values.
    """

    name: str
    query: str

    def to_json(self) -> dict[str, Any]:
        """Write it as Grafana reads it.

        Returns:
            JSON.
        """
        return {
            "type": "query",
            "name": self.name,
            "label": self.name.capitalize(),
            "description": f"Only this {self.name}.",
            "datasource": METRICS,
            "query": {"query": self.query, "refId": f"variable-{self.name}"},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard.

    Attributes:
        name: Of its file and, after ``taximeter-``, its uid.
        title: What people read.
        text: What question it answers.
        since: Beginning of the span it shows first.
        panels: In reading order.
        variables: To choose from.
    """

    name: str
    title: str
    text: str
    since: str
    panels: Sequence[Panel]
    variables: Sequence[Variable] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Write it as Grafana reads it.

        Returns:
            JSON.
        """
        return {
            "uid": f"taximeter-{self.name}",
            "title": f"Taximeter / {self.title}",
            "description": self.text,
            "tags": [TAG],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": f"now-{self.since}", "to": "now"},
            "timezone": "browser",
            "links": [_LINK],
            "annotations": {"list": [_PRICE_CHANGES]},
            "templating": {"list": [variable.to_json() for variable in self.variables]},
            "panels": self._placed(),
        }

    def to_text(self) -> str:
        """Write its file.

        Returns:
            JSON with a line end.
        """
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"

    def _placed(self) -> list[dict[str, Any]]:
        placed, x, y, tallest = [], 0, 0, 0
        for panel in self.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            placed.append(panel.to_json(x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        return placed


def _unit_of(column: str, unit: str) -> dict[str, Any]:
    return {
        "matcher": {"id": "byName", "options": column},
        "properties": [{"id": "unit", "value": unit}],
    }


_REDUCED: Final = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "stat": {
        "reduceOptions": _REDUCED,
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "auto",
        "orientation": "auto",
    },
    "bargauge": {
        "reduceOptions": _REDUCED,
        "displayMode": "basic",
        "orientation": "horizontal",
        "showUnfilled": True,
        "valueMode": "color",
    },
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "calcs": [], "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}
_LINK: Final = {
    "type": "dashboards",
    "title": "Taximeter",
    "tooltip": "The other boards, with the same choice and span",
    "tags": [TAG],
    "asDropdown": False,
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
    "icon": "external link",
    "url": "",
}
_PRICE_CHANGES: Final = {
    "name": "Price changes",
    "datasource": METRICS,
    "enable": True,
    "iconColor": "purple",
    "expr": "count by (price_version) (llm_price_book_info) "
    "unless count by (price_version) (llm_price_book_info offset 10m)",
    "titleFormat": "Price book {{price_version}}",
    "textFormat": "Calls are priced with this version from here on.",
    "step": "60s",
}
