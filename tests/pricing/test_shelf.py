"""The shelf of versions: which held when, what was known when, and how many are in memory."""

from datetime import UTC, datetime, timedelta

import pytest

from pricing.book import Book, Manifest, describe_version
from pricing.shelf import BookShelf, NoSuchVersion
from tests.pricing.cards import entry, rate

DAY = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 32)]


def version(name, recorded, effective=None):
    """A version recorded on one day of January and in effect from another."""
    return describe_version(
        name,
        Manifest(providers={}),
        recorded_at=DAY[recorded - 1],
        effective_from=None if effective is None else DAY[effective - 1],
    )


def load_small(described):
    return Book(described, [entry()], [rate("input", "1")])


VERSIONS = [version("v1", 2), version("v2", 5, 20), version("v3", 8), version("v4", 12, 3)]
SHELF = BookShelf(VERSIONS, load_small)


@pytest.mark.parametrize(
    ("day", "current", "known"),
    [
        (2, "v1", "v1"),
        # v4 was recorded on the 12th and says it held from the 3rd on: asked now, it did.
        (3, "v4", "v1"),
        (5, "v4", "v2"),
        (8, "v4", "v3"),
        (12, "v4", "v4"),
        (20, "v4", "v4"),
    ],
)
def test_two_times_give_two_answers(day, current, known):
    """What holds at an instant, and what was known by then, are different questions."""
    assert (current, known) == (
        SHELF.current_at(DAY[day - 1]).version,
        SHELF.known_at(DAY[day - 1]).version,
    )


@pytest.mark.parametrize(
    ("day", "current"), [(2, "v1"), (7, "v1"), (8, "v3"), (19, "v3"), (20, "v3")]
)
def test_the_one_approved_last_holds_of_those_in_effect(day, current):
    """A version that was announced for later and overtaken meanwhile never comes back."""
    assert current == BookShelf(VERSIONS[:3], load_small).current_at(DAY[day - 1]).version


def test_an_announced_version_waits_for_its_day():
    """Approved today, in effect from the 20th, to the microsecond."""
    shelf = BookShelf(VERSIONS[:2], load_small)
    last = DAY[19] - timedelta(microseconds=1)

    assert ["v1", "v2"] == [shelf.current_at(at).version for at in (last, DAY[19])]
    assert [DAY[1], DAY[19], None] == [shelf.next_change(at) for at in (DAY[0], DAY[1], DAY[19])]


def test_before_the_first_version_there_is_none():
    """Nothing is priced with prices nobody had."""
    with pytest.raises(NoSuchVersion, match="in effect at 2026-01-01"):
        SHELF.current_at(DAY[0])
    with pytest.raises(NoSuchVersion, match="recorded by 2026-01-01"):
        SHELF.known_at(DAY[0])
    with pytest.raises(NoSuchVersion, match="no price book version v9; there are: v1, v2"):
        SHELF.load_book("v9")


def test_books_are_loaded_once_and_only_a_few_are_kept():
    """The one used longest ago is put away, and loaded again when it is asked for."""
    loaded = []

    def load(described):
        loaded.append(described.version)
        return load_small(described)

    shelf = BookShelf(VERSIONS, load, books_max=2)
    first = shelf.load_book("v1")
    for name in ("v2", "v1", "v3", "v1", "v2"):
        assert name == shelf.load_book(name).version.version

    assert first is shelf.load_book("v1")
    assert ["v1", "v2", "v3", "v2"] == loaded


@pytest.mark.parametrize(
    ("versions", "problem"),
    [
        ([version("v1", 1), version("v1", 2)], "given twice"),
        ([version("v1", 2), version("v2", 1)], "in the order in which they were recorded"),
    ],
)
def test_a_shelf_in_disorder_is_refused(versions, problem):
    """Order is what decides which version holds."""
    with pytest.raises(ValueError, match=problem):
        BookShelf(versions, load_small)
