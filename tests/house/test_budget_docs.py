"""The page on budgets promises nothing without naming the test that shows it."""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests.house.tree import ROOT

_PAGES: Final = sorted((ROOT / "docs").glob("budgets*.md"))
_TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_EVIDENCE: Final = re.compile(r"`tests/[\w/]+\.(?:py(?:::\w+)?|txt)`")


def _names(path: Path) -> set[str]:
    nodes = ast.parse(path.read_text("utf-8")).body
    named = {one.name for one in nodes if isinstance(one, ast.FunctionDef | ast.ClassDef)}
    targets = (one.targets for one in nodes if isinstance(one, ast.Assign))
    return named.union(one.id for many in targets for one in many if isinstance(one, ast.Name))


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_test_that_is_named_exists(page: Path) -> None:
    """A renamed test is renamed in the docs too."""
    named = _TEST.findall(page.read_text("utf-8"))
    missing = [f"{file}::{name}" for file, name in named if name not in _names(ROOT / file)]

    assert missing == []


def test_every_promise_names_its_evidence() -> None:
    """Each point of docs/budgets.md has a test or a story behind it."""
    text = (ROOT / "docs/budgets.md").read_text("utf-8")
    points = re.split(r"\n(?=- |#|\n)", text)
    bare = [point for point in points if point.startswith("- ") and not _EVIDENCE.search(point)]

    assert bare == []
