"""Puts the panels of a board on one page, where Grafana would put them.

Must never move a panel: places are read from the board.
"""

from collections.abc import Mapping
from html import escape
from typing import Any, Final

from grafana.preview.asking import Sources
from grafana.preview.drawing import draw

WIDTH: Final = 1440
_COLUMN: Final = WIDTH // 24
_ROW: Final = 34
_GAP: Final = 6
_TOP: Final = 58
_THEMES: Final = {
    "light": "--back:#f4f5f5;--panel:#fff;--text:#24292e;--dim:#6e7781;--line:#e4e7eb",
    "dark": "--back:#111217;--panel:#181b1f;--text:#d8d9da;--dim:#8e9297;--line:#2c3235",
}
_STYLE: Final = """
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--text);
font:13px Inter,"DejaVu Sans",sans-serif}
h1{font-size:18px;margin:10px 12px 0}p{margin:2px 12px;color:var(--dim)}
section{position:absolute;background:var(--panel);border:1px solid var(--line);border-radius:3px;
padding:6px 8px;overflow:hidden}h2{font-size:13px;font-weight:600;margin:0 0 4px;
white-space:nowrap}
.stat{display:flex;flex-direction:column;justify-content:center;align-items:center;height:78%}
.value{font-weight:600}.value small{font-size:12px;margin-right:8px;color:var(--dim)}
.bar{display:flex;align-items:center;height:26px;gap:8px}.bar span{width:32%;overflow:hidden;
white-space:nowrap;text-overflow:ellipsis}.bar i{flex:1;background:var(--line);height:14px}
.bar b{display:block;height:14px}.bar em{width:84px;text-align:right;font-style:normal}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:3px 8px;
border-bottom:1px solid var(--line);white-space:nowrap}th{color:var(--dim)}
.number{text-align:right;font-variant-numeric:tabular-nums}
svg line{stroke:var(--line)}svg line.mark{stroke:#b877d9;stroke-width:1.5;stroke-dasharray:4 3}
svg text{fill:var(--dim);font-size:11px}
.legend{height:22px;overflow:hidden;white-space:nowrap;color:var(--dim);font-size:12px}
.legend span{margin-right:12px}.legend i{display:inline-block;width:12px;height:4px;
margin-right:4px;vertical-align:middle}
.empty{color:var(--dim);text-align:center;padding-top:20px}
"""


def to_page(board: Mapping[str, Any], sources: Sources, theme: str) -> tuple[str, int]:
    """Draw a board.

    Args:
        board: Its JSON.
        sources: Who answers its queries.
        theme: ``light`` or ``dark``.

    Returns:
        HTML, and how many pixels high it is.
    """
    parts, bottom = [], 0
    marks = sources.mark(board["annotations"]["list"])
    for panel in board["panels"]:
        place = panel["gridPos"]
        width, height = place["w"] * _COLUMN - _GAP, place["h"] * _ROW - _GAP
        left, top = place["x"] * _COLUMN + _GAP // 2, _TOP + place["y"] * _ROW
        inside = draw(panel, sources.ask(panel), width - 18, height - 36, marks)
        parts.append(
            f'<section style="left:{left}px;top:{top}px;width:{width}px;height:{height}px">'
            f"<h2>{escape(panel['title'])}</h2>{inside}</section>"
        )
        bottom = max(bottom, top + height)
    head = f"<h1>{escape(board['title'])}</h1><p>{escape(board['description'])}</p>"
    style = f"<style>:root{{{_THEMES[theme]}}}{_STYLE}</style>"
    return f'<!doctype html><meta charset="utf-8">{style}{head}{"".join(parts)}', bottom + _GAP
