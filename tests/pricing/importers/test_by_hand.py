"""Prices people set themselves stay in what an import makes, at the instants they were set for."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from pricing.importers.by_hand import Lists, lay_own_prices
from pricing.importers.history import continue_history
from tests.pricing.cards import entry, rate
from tests.pricing.importers.lists import SINCE
from tests.pricing.importers.test_catalogs import FIRST, catalog_of, listed

NOON = SINCE + timedelta(hours=12)
NEXT, AFTER = NOON + timedelta(days=9), NOON + timedelta(days=19)


def own(meter, amount, start=NOON, end=None, **others):
    """A price somebody set."""
    return rate(meter, amount, source="cli:ada: why", valid_from=start, valid_to=end, **others)


def text(one):
    """A rate in a line."""
    end = "" if one.valid_to is None else f" to {short(one.valid_to)}"
    tier = "" if one.tier == "standard" else f" {one.tier}"
    return f"{one.model} {one.meter}{tier} {one.amount} {short(one.valid_from)}{end}"


def short(at: datetime) -> str:
    """A day, and the hour where it is not midnight."""
    return f"{at:%m-%d}{f' {at:%H}h' if at.hour else ''}"


def lay(old, said, *, win=False):
    """What an import makes of what is in force and a list of today."""
    before = catalog_of(*old) if isinstance(old, list) else old
    mine = [one for one in before.rates if one.source.startswith("cli:")]
    new = continue_history(before, said, SINCE)
    lists = Lists(said=said, since=SINCE, win=win)
    return lay_own_prices(new, before, mine, lists)


def told(found):
    """What is said of prices set by hand."""
    return [
        (text(one.rate), None if one.listed is None else str(one.listed.amount), one.is_replaced)
        for one in found
    ]


def today(meter, amount, **others):
    """What an undated list says."""
    return listed(meter, amount, valid_from=SINCE, **others)


@pytest.mark.parametrize(
    ("old", "said", "kept", "disputed"),
    [
        # Over the price of the list, from noon on and not from midnight.
        (
            [listed("input", 1, valid_to=NOON), own("input", 2)],
            [today("input", 1)],
            ["m input 1 01-01 to 11-23 12h", "m input 2 11-23 12h"],
            "1",
        ),
        # The list changed too: its price holds until noon.
        (
            [listed("input", 1, valid_to=NOON), own("input", 2)],
            [today("input", 3)],
            ["m input 1 01-01 to 11-23", "m input 3 11-23 to 11-23 12h", "m input 2 11-23 12h"],
            "3",
        ),
        # The list has come to say the same.
        (
            [listed("input", 1, valid_to=NOON), own("input", 2)],
            [today("input", 2)],
            ["m input 1 01-01 to 11-23", "m input 2 11-23 to 11-23 12h", "m input 2 11-23 12h"],
            None,
        ),
        # Announced for later; the list does not know of it.
        (
            [listed("input", 1, valid_to=NEXT), own("input", 2, NEXT)],
            [today("input", 1)],
            ["m input 1 01-01 to 12-02 12h", "m input 2 12-02 12h"],
            "1",
        ),
        # For some days only: the list before and after.
        (
            [listed("input", 1, valid_to=NEXT), own("input", 2, NEXT, AFTER),
             listed("input", 1, valid_from=AFTER)],
            [today("input", 1)],
            ["m input 1 01-01 to 12-02 12h", "m input 1 12-12 12h",
             "m input 2 12-02 12h to 12-12 12h"],
            "1",
        ),
        # The list has no such price.
        (
            [listed("input", 1), own("input", 2, tier="flex")],
            [today("input", 1)],
            ["m input 1 01-01", "m input flex 2 11-23 12h"],
            None,
        ),
        # The list announces another price for after the end of the own one.
        (
            [own("input", 2, NOON, NEXT)],
            [listed("input", 2, valid_from=SINCE, valid_to=AFTER), today("output", 1),
             listed("input", 5, valid_from=AFTER)],
            ["m input 2 11-23 to 11-23 12h", "m input 2 12-02 12h to 12-12 12h",
             "m input 5 12-12 12h", "m input 2 11-23 12h to 12-02 12h", "m output 1 11-23"],
            None,
        ),
    ],
)  # fmt: skip
def test_a_price_set_by_hand_stays(old, said, kept, disputed):
    """With a word where the list says otherwise."""
    catalog, found = lay(old, catalog_of(*said))
    (mine,) = [one for one in old if one.source.startswith("cli:")]

    assert sorted(kept) == sorted(map(text, catalog.rates))
    assert [(text(mine), disputed, False)] == told(found)


def test_prices_of_the_past_are_history():
    """They stay, and are nothing to tell of; also where a dated list states the past itself."""
    ended = own("input", 2, FIRST, SINCE - timedelta(days=5))
    old = [ended, listed("input", 1, valid_from=ended.valid_to)]
    catalog, found = lay(old, catalog_of(listed("input", 4, "genai-prices 1.0")))

    assert {"m input 2 01-01 to 11-18", "m input 4 11-18"} == set(map(text, catalog.rates))
    assert () == found


def test_the_list_wins_where_it_is_asked_to():
    """From the day it was read; a price it does not have stays."""
    old = [
        listed("input", 1, valid_to=FIRST + timedelta(days=31)),
        own("input", 2, FIRST + timedelta(days=31)),
        own("output", 8, NEXT),
        own("input", 3, tier="flex"),
    ]
    catalog, found = lay(old, catalog_of(today("input", 1), today("output", 9)), win=True)

    assert {
        "m input 1 01-01 to 02-01",
        "m input 2 02-01 to 11-23",
        "m input 1 11-23",
        "m output 9 11-23",
        "m input flex 3 11-23 12h",
    } == set(map(text, catalog.rates))
    assert [
        ("m input 2 02-01", "1", True),
        ("m output 8 12-02 12h", "9", True),
        ("m input flex 3 11-23 12h", None, False),
    ] == told(found)


def test_a_list_whose_price_has_ended_does_not_win():
    """There would be no price at all."""
    ended = listed("input", 1, "genai-prices 1.0", valid_to=SINCE - timedelta(days=2))
    catalog, _ = lay([ended, own("input", 2)], catalog_of(ended, today("output", 1)), win=True)

    assert "m input 2 11-23 12h" in map(text, catalog.rates)


def test_a_model_goes_by_the_name_the_list_gives_it():
    """In other letters, or as another name of a model."""
    said = catalog_of(
        listed("input", 1, model="big", valid_from=SINCE), models=[entry("big", aliases=["M"])]
    )
    catalog, found = lay([own("input", 2)], said)

    assert {"big input 1 11-23 to 11-23 12h", "big input 2 11-23 12h"} == set(
        map(text, catalog.rates)
    )
    assert [("m input 2 11-23 12h", "1", False)] == told(found)


def test_a_model_that_only_people_know_stays():
    """With the names that no list has for another model, and all of its prices."""
    old = catalog_of(own("input", 2), own("output", 3), models=[entry(aliases=["big", "m-1"])])
    catalog, found = lay(old, catalog_of(today("input", 1, model="big")))

    assert [entry("big"), entry(aliases=["m-1"])] == list(catalog.models)
    assert {"m input 2 11-23 12h", "m output 3 11-23 12h", "big input 1 11-23"} == set(
        map(text, catalog.rates)
    )
    assert [None, None] == [one.listed for one in found]


def test_nothing_moves_where_nothing_was_set_by_hand():
    """The catalog is the one the lists make."""
    new = catalog_of(today("input", 1))
    same, found = lay_own_prices(new, new, (), Lists(said=new, since=SINCE))

    assert (new.models, new.rates, ()) == (same.models, same.rates, found)
    assert replace(new, rates=same.rates) == new
