"""Draws one panel as HTML: a number, bars, a table or lines over time.

Must never leave a panel without data looking as if it had some.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from grafana.preview.asking import Answer, Series
from grafana.preview.units import told

_PALETTE: Final = (
    *("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9"),
    *("#37872d", "#8ab8ff", "#fa6400", "#c4162a", "#8f3bb8", "#ffee52"),
)
_COLORS: Final = {
    "green": "#56a64b",
    "yellow": "#e0b400",
    "orange": "#ff780a",
    "red": "#e02f44",
    "blue": "#3274d9",
}
_SERIES_MAX: Final = 12
_EMPTY: Final = '<div class="empty">No data</div>'


def draw(
    panel: Mapping[str, Any],
    answer: Answer,
    width: int,
    height: int,
    marks: Sequence[float] = (),
) -> str:
    """Draw what is inside a panel.

    Args:
        panel: Its JSON.
        answer: What its queries told.
        width: Of the inside, in pixels.
        height: Likewise.
        marks: Moments to mark on lines over time, seconds since 1970.

    Returns:
        HTML.
    """
    if not answer.series and not answer.rows:
        return _EMPTY
    match panel["type"]:
        case "stat":
            return _stat(panel, answer.series, height)
        case "bargauge":
            return _bars(panel, answer.series, height)
        case "table":
            return _table(panel, answer, height)
        case _:
            pass
    return _lines(panel, answer, width, height, marks)


def _unit(panel: Mapping[str, Any]) -> tuple[str, int | None]:
    defaults = panel["fieldConfig"]["defaults"]
    return defaults["unit"], defaults.get("decimals")


def _color(panel: Mapping[str, Any], value: float) -> str:
    chosen = "blue"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            chosen = step["color"]
    return _COLORS.get(chosen, chosen)


def _stat(panel: Mapping[str, Any], series: Sequence[Series], height: int) -> str:
    shown = []
    size = max(15, min(40, height // len(series) - 12))
    for one in series:
        name = escape(one.name) if len(series) > 1 else ""
        value = escape(told(one.last, *_unit(panel)))
        style = f"font-size:{size}px;color:{_color(panel, one.last)}"
        shown.append(f'<div class="value" style="{style}"><small>{name}</small>{value}</div>')
    return f'<div class="stat">{"".join(shown)}</div>'


def _bars(panel: Mapping[str, Any], series: Sequence[Series], height: int) -> str:
    ranked = sorted(series, key=lambda one: -one.last)[: max(1, height // 26)]
    most = max(1.0 if _unit(panel)[0] == "percentunit" else 0.0, *(one.last for one in ranked))
    rows = []
    for one in ranked:
        share = max(0.0, 100 * one.last / most) if most else 0
        color = _color(panel, one.last)
        rows.append(
            f'<div class="bar"><span>{escape(one.name)}</span><i><b style="width:{share:.1f}%;'
            f'background:{color}"></b></i><em style="color:{color}">'
            f"{escape(told(one.last, *_unit(panel)))}</em></div>"
        )
    return "".join(rows)


def _table(panel: Mapping[str, Any], answer: Answer, height: int) -> str:
    unit, decimals = _unit(panel)
    units = {
        one["matcher"]["options"]: one["properties"][0]["value"]
        for one in panel["fieldConfig"]["overrides"]
    }
    is_number = [
        any(isinstance(row[place], int | float) for row in answer.rows)
        for place in range(len(answer.columns))
    ]
    head = "".join(
        f'<th class="{"number" if right else ""}">{escape(str(name))}</th>'
        for name, right in zip(answer.columns, is_number, strict=True)
    )
    body = []
    for row in answer.rows[: max(1, height // 25 - 1)]:
        cells = "".join(
            f'<td class="{"number" if right else ""}">'
            f"{escape(told(value, units.get(name, unit), decimals))}</td>"
            for name, value, right in zip(answer.columns, row, is_number, strict=True)
        )
        body.append(f"<tr>{cells}</tr>")
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


def _lines(
    panel: Mapping[str, Any], answer: Answer, width: int, height: int, marks: Sequence[float]
) -> str:
    custom = panel["fieldConfig"]["defaults"]["custom"]
    is_stacked = custom["stacking"]["mode"] == "normal"
    is_bars = custom["drawStyle"] == "bars"
    series = sorted(answer.series, key=lambda one: -max(value for _, value in one.points))
    series = series[:_SERIES_MAX]
    below: dict[float, float] = {}
    drawn = []
    for one in series:
        points = []
        for at, value in one.points:
            base = below.get(at, 0.0) if is_stacked else 0.0
            points.append((at, base, base + value))
            below[at] = base + value
        drawn.append(points)
    most = max(top for points in drawn for _, _, top in points) or 1.0
    area = _Area(answer, width, height - 22, most * 1.05)
    parts = [_axes(area, panel)]
    for place, points in reversed(list(enumerate(drawn))):
        color = _PALETTE[place % len(_PALETTE)]
        if is_bars:
            parts.append(_bar_marks(area, points, color))
        else:
            parts.append(_path(area, points, color, custom["fillOpacity"] / 100))
    parts += [_mark(area, at) for at in marks if answer.start_s <= at <= answer.end_s]
    legend = "".join(
        f'<span><i style="background:{_PALETTE[place % len(_PALETTE)]}"></i>'
        f"{escape(one.name or panel['title'])}</span>"
        for place, one in enumerate(series)
    )
    return (
        f'<svg width="{width}" height="{height - 22}">{"".join(parts)}</svg>'
        f'<div class="legend">{legend}</div>'
    )


class _Area:
    """Where moments and values lie in a drawing."""

    def __init__(self, answer: Answer, width: int, height: int, most: float) -> None:
        self.left, self.right = 58.0, float(width - 6)
        self.top, self.bottom = 6.0, float(height - 18)
        self.start, self.end, self.most = answer.start_s, answer.end_s, most

    def x(self, at: float) -> float:
        span = max(1.0, self.end - self.start)
        return max(self.left, self.left + (self.right - self.left) * (at - self.start) / span)

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * max(0.0, value) / self.most


def _axes(area: _Area, panel: Mapping[str, Any]) -> str:
    unit, decimals = _unit(panel)
    parts = []
    for step in range(5):
        value = area.most * step / 4
        y = area.y(value)
        parts.append(f'<line x1="{area.left}" x2="{area.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = escape(told(value, unit, decimals))
        parts.append(f'<text x="{area.left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for step in range(6):
        at = area.start + (area.end - area.start) * step / 5
        shape = "%H:%M" if area.end - area.start < 2 * 86_400 else "%m-%d"
        label = datetime.fromtimestamp(at, UTC).strftime(shape)
        anchor = "end" if step == 5 else "start" if step == 0 else "middle"
        parts.append(
            f'<text x="{area.x(at):.1f}" y="{area.bottom + 15}" '
            f'text-anchor="{anchor}">{label}</text>'
        )
    return "".join(parts)


def _mark(area: _Area, at: float) -> str:
    x = f"{area.x(at):.1f}"
    return f'<line class="mark" x1="{x}" x2="{x}" y1="{area.top}" y2="{area.bottom}"/>'


def _path(
    area: _Area, points: Sequence[tuple[float, float, float]], color: str, opacity: float
) -> str:
    if len(points) == 1:
        at, _, top = points[0]
        return f'<circle cx="{area.x(at):.1f}" cy="{area.y(top):.1f}" r="4" fill="{color}"/>'
    tops = " ".join(f"{area.x(at):.1f},{area.y(top):.1f}" for at, _, top in points)
    bases = " ".join(f"{area.x(at):.1f},{area.y(base):.1f}" for at, base, _ in reversed(points))
    return (
        f'<polygon points="{tops} {bases}" fill="{color}" opacity="{opacity:.2f}"/>'
        f'<polyline points="{tops}" fill="none" stroke="{color}" stroke-width="1.5"/>'
    )


def _bar_marks(area: _Area, points: Sequence[tuple[float, float, float]], color: str) -> str:
    wide = max(2.0, min(60.0, (area.right - area.left) / max(8, len(points)) * 0.8))
    return "".join(
        f'<rect x="{min(area.x(at), area.right - wide):.1f}" y="{area.y(top):.1f}" '
        f'width="{wide:.1f}" height="{max(0.5, area.y(base) - area.y(top)):.1f}" fill="{color}"/>'
        for at, base, top in points
    )
