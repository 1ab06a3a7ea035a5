"""Every way to say no has a status, and the decision about statuses says which."""

import re
from collections.abc import Iterator

from gateway.refusals import RATE_LIMITED, ROWS, TIMED_OUT, UNREACHABLE, Refusal
from tests.house.tree import ROOT


def _descendants(parent: type[Refusal]) -> Iterator[type[Refusal]]:
    for child in parent.__subclasses__():
        yield child
        yield from _descendants(child)


def test_every_refusal_has_a_row() -> None:
    """A refusal nobody gave a status would end as a 500."""
    assert set(_descendants(Refusal)) == set(ROWS)


def test_the_decision_names_every_status_and_code() -> None:
    """docs/adr/0006 and the table in the code say the same."""
    page = (ROOT / "docs/adr/0006-refusal-statuses.md").read_text("utf-8")
    told = set()
    for statuses, codes in re.findall(r"^\| [^|]+ \| ([\d, ]+) \| ([`\w, ]+) \|$", page, re.M):
        told |= set(zip(re.findall(r"\d+", statuses), re.findall(r"\w+", codes), strict=True))
    rows = [*ROWS.values(), RATE_LIMITED, TIMED_OUT, UNREACHABLE]

    assert told == {(str(row.status), row.code) for row in rows}
