"""The tests that the docs name are there."""

import ast
import re

import pytest

from tests.house.tree import ROOT, functions_of, project_files

_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_PAGES = [path for path in project_files() if path.suffix == ".md" and path.parts[0] == "docs"]


@pytest.mark.parametrize("page", _PAGES, ids=str)
def test_every_test_a_page_names_exists(page) -> None:
    """What a page promises rests on the test beside it."""
    named = _NAMED.findall((ROOT / page).read_text("utf-8"))
    there = {
        file: {f.name for f in functions_of(ast.parse((ROOT / file).read_text("utf-8")))}
        for file in {file for file, _ in named}
    }

    assert [] == [f"{file}::{name}" for file, name in named if name not in there[file]]
