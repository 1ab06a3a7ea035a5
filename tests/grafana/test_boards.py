"""The dashboards are what the generator writes, whole, and as Grafana's schema has them.

Must never need a running Grafana.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.generate.boards import BOARDS, FOLDER
from grafana.generate.model import COLUMNS, LEDGER, METRICS, Board

register_default_plugins()
UIDS: Final = [
    "taximeter-executive",
    "taximeter-team",
    "taximeter-model",
    "taximeter-quality",
    "taximeter-budgets",
    "taximeter-gateway",
]

# What Prometheus' plug-in reads of an annotation; the schema leaves it to the plug-in.
OF_THE_SOURCE: Final = {"step", "textFormat", "titleFormat"}

each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)


def test_uids_are_those_people_have_linked() -> None:
    """A uid never changes: links and bookmarks hold on to it."""
    assert [board.to_json()["uid"] for board in BOARDS] == UIDS


def test_no_file_is_left_behind() -> None:
    """Each file has its board."""
    assert {path.stem for path in FOLDER.glob("*.json")} == {board.name for board in BOARDS}


@each_board
def test_files_are_what_the_generator_writes(board: Board) -> None:
    """Nobody edited one by hand; ``make boards`` writes them again."""
    assert (FOLDER / f"{board.name}.json").read_text("utf-8") == board.to_text()


def each_value(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of JSON with where it stands."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from each_value(value, f"{path}.{key}")
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from each_value(value, f"{path}.{place}")
    else:
        yield path, node


@each_board
def test_the_schema_knows_every_field(board: Board) -> None:
    """Grafana's published schema, read into its types and written again, loses nothing."""
    mine = board.to_json()
    again = json.loads(json.dumps(Dashboard.from_json(mine), cls=JSONEncoder))
    kept = dict(each_value(again))
    lost = {
        path: value
        for path, value in each_value(mine)
        if kept.get(path) != value
        and not (value in ("", None) and path not in kept)
        and path.rpartition(".")[2] not in OF_THE_SOURCE
    }

    assert lost == {}


@each_board
def test_every_panel_says_what_it_shows(board: Board) -> None:
    """Title, unit, description and a source; ids and titles once; nothing overlaps."""
    panels = board.to_json()["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert re.fullmatch(
            r"(?s).{10,}\. From (Prometheus|the ledger): .+\.", panel["description"]
        )
        assert panel["datasource"] in (METRICS, LEDGER)
        at = panel["gridPos"]
        cells = {
            (at["x"] + right, at["y"] + down) for right in range(at["w"]) for down in range(at["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < COLUMNS
        taken |= cells

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    assert len(taken) / COLUMNS == max(y for _, y in taken) + 1, "a hole in the layout"


def test_boards_link_to_each_other_and_are_readable_in_light_and_dark() -> None:
    """All carry the tag the links look for; no colour is fixed to one theme."""
    for board in BOARDS:
        shown = board.to_json()
        assert shown["tags"] == shown["links"][0]["tags"] == ["taximeter"]
        assert "#" not in json.dumps([p["fieldConfig"] for p in shown["panels"]])
        assert "style" not in shown


def test_data_sources_are_those_the_boards_name() -> None:
    """The provisioned uids and types are the boards'."""
    path = FOLDER.parent / "provisioning/datasources/taximeter.yml"
    sources = yaml.safe_load(path.read_text())["datasources"]

    assert [{"type": s["type"], "uid": s["uid"]} for s in sources] == [METRICS, LEDGER]
