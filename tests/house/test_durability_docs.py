"""The page on durability promises nothing without naming the test that shows it."""

import re
from typing import Final

from tests.house.tree import ROOT

_EVIDENCE: Final = re.compile(r"`tests/[\w/]+\.py::\w+`")


def test_every_promise_names_its_evidence() -> None:
    """Each point of the page has a test behind it; that it exists, test_named_tests.py checks."""
    text = (ROOT / "docs/durability.md").read_text("utf-8")
    points = re.split(r"\n(?=- |#|\n)", text)
    bare = [point for point in points if point.startswith("- ") and not _EVIDENCE.search(point)]

    assert bare == []
    assert len([point for point in points if point.startswith("- ")]) > 10
