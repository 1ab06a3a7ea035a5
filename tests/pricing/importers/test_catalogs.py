"""Catalogs beside and on top of each other: merge, comparison, differences, history."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from pricing.hours import parse_hours
from pricing.importers.catalogs import Catalog, check_candidate, keep_checked_by_hand
from pricing.importers.compare import (
    compare_catalogs,
    percent_between,
    price_text,
    slot_of,
    slot_text,
)
from pricing.importers.diff import Kind, diff_catalogs, effect_of, refuse_shrinkage
from pricing.importers.history import continue_history
from pricing.importers.merge import merge_catalogs
from pricing.importers.sources import assemble
from pricing.manifest import BookBroken
from pricing.meters import Meter
from pricing.money import Money
from tests.pricing.cards import entry, rate
from tests.pricing.importers.lists import DAY, SINCE, genai_of, json_text, map_of, read_map, row_of

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
CHANGE = datetime(2026, 6, 1, tzinfo=UTC)
GENAI, LITELLM = "genai-prices 1.0", "litellm 1.0"


def catalog_of(*rates, models=None, source=LITELLM):
    named = dict.fromkeys((r.provider, r.model) for r in rates)
    models = models or [entry(model, provider=provider) for provider, model in named]
    return Catalog(source=source, models=tuple(models), rates=tuple(rates))


def listed(meter, amount, source=LITELLM, **others):
    return rate(meter, amount, source=source, **others)


def inside(catalog):
    return {
        f"{r.model} {slot_text(slot_of(r))} {price_text(r)} {r.valid_from:%m-%d}"
        f"{f' to {r.valid_to:%m-%d}' if r.valid_to else ''}"
        for r in catalog.rates
    }


# --- merge


def test_a_model_has_the_prices_of_the_first_source_that_knows_it():
    """Under any of its names, in small letters; the second one adds a spelling and limits."""
    first = catalog_of(
        listed("input", 1, GENAI, model="a"),
        models=[entry("a", aliases=["a-1"], limits=(None, None))],
        source=GENAI,
    )
    second = catalog_of(
        listed("input", "0.9", model="A-1"), listed("input", 5, model="b"),
        models=[entry("A-1", limits=(100, 10)), entry("b")],
    )  # fmt: skip
    merged = merge_catalogs([first, second], SINCE, source="both")

    assert {"a input 1 per 1M 01-01", "b input 5 per 1M 01-01"} == inside(merged)
    assert entry("a", aliases=["a-1", "A-1"], limits=(100, 10)) == merged.models[0]


def test_sources_that_agree_complete_each_other():
    """Tiers, regions, makes and meters the first one does not know."""
    first = catalog_of(listed("input", 1, GENAI), source=GENAI)
    second = catalog_of(
        listed("input", 1),
        listed("input", 2, region="eu"),
        listed("input", "0.5", tier="batch"),
        listed("cache_read", "0.1"),
    )
    merged = merge_catalogs([first, second], SINCE, source="both")

    assert {
        "m input 1 per 1M 01-01",
        "m input eu 2 per 1M 01-01",
        "m input batch 0.5 per 1M 01-01",
        "m cache_read 0.1 per 1M 01-01",
    } == inside(merged)
    assert {GENAI, LITELLM} == {r.source for r in merged.rates}


@pytest.mark.parametrize(
    "others",
    [
        [listed("input", 2)],  # another price
        [listed("input", 1), listed("input", 1, hours=parse_hours("daily 20:00-08:00 UTC"))],
        [listed("output", 2)],  # nothing in common
    ],
)
def test_sources_that_do_not_agree_are_not_mixed(others):
    """Half a price list of each is no price list."""
    first = catalog_of(listed("input", 1, GENAI), source=GENAI)
    second = catalog_of(*others, listed("cache_read", "0.1"))

    assert {"m input 1 per 1M 01-01"} == inside(merge_catalogs([first, second], SINCE, source=""))


def test_a_context_band_only_the_second_source_knows_is_added():
    """Where both agree below it; a tier that has not got it goes, or long prompts were cheap."""
    first = catalog_of(listed("input", 1, GENAI), listed("input", 1, GENAI, tier="flex"))
    second = catalog_of(listed("input", 1), listed("input", 2, over=100))
    both = merge_catalogs([first, second], SINCE, source="")
    stepped = catalog_of(listed("input", 1, GENAI), listed("input", 3, GENAI, over=50))

    assert {"m input 1 per 1M 01-01", "m input over 100 2 per 1M 01-01"} == inside(both)
    assert inside(stepped) == inside(merge_catalogs([stepped, second], SINCE, source=""))


def test_a_tier_without_the_band_is_taken_from_a_list_that_has_it():
    """The first source left it out."""
    steps = [listed("input", 1), listed("input", 2, over=100)]
    first = catalog_of(*steps)
    second = catalog_of(
        *steps, listed("input", "0.5", tier="batch"), listed("input", 1, tier="batch", over=100)
    )

    assert 4 == len(merge_catalogs([first, second], SINCE, source="").rates)


@pytest.mark.parametrize(
    ("name", "amount", "models"),
    [
        ("own", 2, {"m", "own"}),  # dearer by its own name
        ("own", "0.5", {"m"}),  # a lower price is not taken
        ("own", 1, {"m"}),
        ("host/m", 2, {"m"}),  # a spelling of the same name
    ],
)
def test_a_name_with_a_dearer_price_of_its_own_is_no_alias(name, amount, models):
    """Else a call by that name would be billed at the price of another model."""
    first = catalog_of(listed("input", 1, GENAI), models=[entry(aliases=[name])], source=GENAI)
    second = catalog_of(listed("input", amount, model=name))
    merged = merge_catalogs([first, second], SINCE, source="")

    assert models == {model.model for model in merged.models}
    assert all(name not in model.aliases for model in merged.models) == ("own" in models)


def test_a_name_the_second_source_prices_as_the_model_stays_an_alias():
    """Then the two only disagree on the price."""
    first = catalog_of(listed("input", 1, GENAI), models=[entry(aliases=["own"])], source=GENAI)
    second = catalog_of(listed("input", 2), listed("input", 2, model="own"))

    assert ("own",) == merge_catalogs([first, second], SINCE, source="").models[0].aliases


def test_prices_that_all_ended_go_on_with_those_of_the_next_source():
    """And a later import of the undated list keeps the day they began."""
    ended = listed("input", 9, GENAI, valid_to=CHANGE)
    first = catalog_of(ended, source=GENAI)
    undated = catalog_of(listed("input", 1, valid_from=SINCE))
    once = merge_catalogs([first, undated], SINCE, source="")
    later = SINCE.replace(month=12)
    fresh = merge_catalogs(
        [first, catalog_of(listed("input", 1, valid_from=later))], later, source=""
    )
    rows = {"m input 9 per 1M 01-01 to 06-01", "m input 1 per 1M 11-23"}

    assert rows == inside(once) == inside(continue_history(once, fresh, later))


@pytest.mark.parametrize(
    ("limits", "source", "expected"),
    [
        ([(64, 8), (128, 4)], GENAI, (128, 8)),  # the larger, as it bounds a cost
        ([(64, 0), (128, 4)], "page", (64, 0)),  # what was checked by hand stays
    ],
)
def test_of_two_limits_the_larger_is_taken(limits, source, expected):
    """Too small a limit would hold too little money."""
    first = catalog_of(listed("input", 1, source), models=[entry(limits=limits[0])])
    second = catalog_of(listed("input", 1), models=[entry(limits=limits[1])])
    (model,) = merge_catalogs([first, second], SINCE, source="").models

    assert expected == (model.context_tokens_max, model.output_tokens_max)


@pytest.mark.parametrize(
    ("name", "limit", "expected"),
    [("m", 100, None), ("m", 101, 101), ("claude-sonnet-4-5", 100, 1_000_000), ("m", None, None)],
)
def test_a_window_that_ends_at_a_band_is_not_believed(name, limit, expected):
    """Nobody could ever send the prompts that band prices."""
    catalog = catalog_of(
        listed("input", 1, model=name),
        listed("input", 2, model=name, over=100),
        models=[entry(name, limits=(limit, 10))],
    )
    (model,) = merge_catalogs([catalog], SINCE, source="").models

    assert expected == model.context_tokens_max


def test_regions_are_added_to_a_price_of_the_world_even_without_a_common_price():
    """Else a call in the region would be billed at the lower price."""
    first = catalog_of(listed("input", 1, GENAI), source=GENAI)
    second = catalog_of(listed("input", "1.1", region="eu"))
    merged = merge_catalogs([first, second], SINCE, source="")

    assert {"m input 1 per 1M 01-01", "m input eu 1.1 per 1M 01-01"} == inside(merged)


def test_what_was_checked_by_hand_takes_no_price_from_a_list():
    """A tier that is not there is not sold."""
    by_hand = catalog_of(rate("input", 1), source="by hand")
    second = catalog_of(listed("input", 1), listed("input", "0.5", tier="batch"))
    merged = merge_catalogs([by_hand, second], SINCE, source="")

    assert {"m input 1 per 1M 01-01"} == inside(merged)
    assert merged.rates == keep_checked_by_hand(merged).rates
    assert () == keep_checked_by_hand(second).models


# --- comparison


def test_two_sources_are_compared_price_by_price():
    """Equal prices of another quantity agree; a price of one side only is counted, not compared."""
    ours = catalog_of(rate("input", 1), rate("output", 2), rate("web_search", 10, per=1000))
    theirs = catalog_of(
        rate("input", "1.5"), rate("web_search", "0.01", per=1), rate("input", 3, tier="batch")
    )
    found = compare_catalogs(ours, theirs, SINCE)
    (one,) = found.disagreements

    assert (1, 2, 2) == (found.models_common, found.prices_common, found.prices_alone)
    assert "input" == slot_text(one.slot)
    assert Decimal("50.0") == percent_between(one.ours, one.theirs)


def test_prices_with_hours_are_compared_over_a_week():
    """Cheap nights of one source are the same as dear days of the other."""
    nights = catalog_of(
        rate("input", 2), rate("input", 1, hours=parse_hours("daily 20:00-08:00 UTC"))
    )
    days = catalog_of(
        rate("input", 1), rate("input", 2, hours=parse_hours("daily 08:00-20:00 UTC"))
    )
    workdays = catalog_of(
        rate("input", 1), rate("input", 2, hours=parse_hours("mon-fri 08:00-20:00 UTC"))
    )

    assert () == compare_catalogs(nights, days, SINCE).disagreements
    (one,) = compare_catalogs(nights, workdays, SINCE).disagreements
    assert datetime(2026, 11, 28, 8, tzinfo=UTC) == one.at  # the first Saturday


# --- differences


def test_a_diff_says_what_is_added_removed_and_changed_by_how_much():
    """By price and span of time; another source of the same price is no change."""
    old = catalog_of(rate("input", 1), rate("output", 2), rate("cache_read", "0.1"))
    new = catalog_of(
        rate("input", 1, valid_to=CHANGE),
        rate("input", "1.25", valid_from=CHANGE),
        rate("output", 2000, per=1_000_000_000, source="another page"),
        rate("image", "0.04", per=1),
    )
    diff = diff_catalogs(old, new)
    rows = {(c.kind, slot_text(c.slot), c.since, c.until, c.percent) for c in diff.changes}

    assert {
        (Kind.CHANGED, "input", CHANGE, None, Decimal("25.0")),
        (Kind.REMOVED, "cache_read", FIRST, None, None),
        (Kind.ADDED, "image", FIRST, None, None),
    } == rows
    assert {Kind.CHANGED: 1, Kind.REMOVED: 1, Kind.ADDED: 1} == diff.count_kinds()


def test_a_price_that_moves_for_a_while_is_one_change_with_an_end():
    """Before and after the two catalogs agree."""
    middle = (FIRST, CHANGE)
    old = catalog_of(rate("input", 1))
    new = catalog_of(
        rate("input", 1, valid_from=datetime(2025, 1, 1, tzinfo=UTC), valid_to=middle[0]),
        rate("input", 0, valid_from=middle[0], valid_to=middle[1]),
        rate("input", 1, valid_from=middle[1]),
    )
    kinds = [(c.kind, c.since, c.until, c.percent) for c in diff_catalogs(old, new).changes]

    assert [
        (Kind.ADDED, datetime(2025, 1, 1, tzinfo=UTC), FIRST, None),
        (Kind.CHANGED, FIRST, CHANGE, Decimal("-100.0")),
    ] == kinds


def test_a_catalog_does_not_differ_from_itself():
    """Nor in another order."""
    rates = [rate("input", 1), rate("output", 2), rate("input", 3, tier="batch")]

    assert () == diff_catalogs(catalog_of(*rates), catalog_of(*reversed(rates))).changes


def test_the_effect_of_a_diff_is_what_was_counted_at_both_prices():
    """Quantities come from a ledger by price id; a removed price would leave them unpriced."""
    old = catalog_of(rate("input", 1), rate("output", 2), rate("image", "0.04", per=1))
    new = catalog_of(
        rate("input", 1, valid_to=CHANGE),
        rate("input", "1.25", valid_from=CHANGE),
        rate("image", "0.04", per=1),
    )
    quantities = {"p/m/input/standard": 4_000_000, "p/m/output/standard": 1_000_000}
    diff = diff_catalogs(old, new)
    later = {e.change.rate.meter: (e.before, e.after) for e in effect_of(diff, quantities, CHANGE)}
    before = effect_of(diff, quantities, FIRST)

    assert {
        Meter.INPUT: (Money(4 * 10**12), Money(5 * 10**12)),
        Meter.OUTPUT: (Money(2 * 10**12), None),
    } == later
    assert [Meter.OUTPUT] == [effect.change.rate.meter for effect in before]


def test_an_effect_is_rounded_once_half_to_even():
    """Half of 10^-12 dollars, twice."""
    old = catalog_of(rate("input", 1, per=2 * 10**12))
    new = catalog_of(rate("input", 3, per=2 * 10**12))
    (effect,) = effect_of(diff_catalogs(old, new), {"p/m/input/standard": 1}, CHANGE)

    assert (Money(0), Money(2)) == (effect.before, effect.after)


# --- shrinking


def many(count, provider="p"):
    return [rate("input", 1, provider=provider, model=f"m{n}") for n in range(count)]


@pytest.mark.parametrize(
    ("old", "new", "allowed", "problems"),
    [
        (many(40), many(38), (), 0),  # exactly one in twenty
        (many(40), many(37), (), 1),
        (many(40), many(37), ("p",), 0),
        (many(40) + many(3, "q"), many(40), (), 1),
        (many(40) + many(3, "q"), many(40), ("q",), 0),
        (many(40) + many(3, "q"), many(20), (), 2),
        (many(3), many(3) + many(9, "q"), (), 0),
    ],
)
def test_a_catalog_that_shrinks_is_refused(old, new, allowed, problems):
    """Unless the provider is named; every provider at once."""
    if not problems:
        refuse_shrinkage(catalog_of(*old), catalog_of(*new), SINCE, allowed=allowed)
        return
    with pytest.raises(BookBroken) as broken:
        refuse_shrinkage(catalog_of(*old), catalog_of(*new), SINCE, allowed=allowed)

    assert problems == len(broken.value.problems)


def test_a_model_whose_prices_have_ended_counts_as_lost():
    """A list that closed every price is not an update."""
    closed = [rate("input", 1, model=f"m{n}", valid_to=CHANGE) for n in range(40)]

    with pytest.raises(BookBroken, match="p: all of 40 models are gone"):
        refuse_shrinkage(catalog_of(*many(40)), catalog_of(*closed), SINCE)


def test_a_model_that_keeps_only_some_of_its_prices_counts_as_lost():
    """A list without the prices of output would leave every call without a cost."""
    answers = [rate("output", 1, model=f"m{n}") for n in range(40)]

    with pytest.raises(BookBroken, match="p: 40 of 40 models are gone"):
        refuse_shrinkage(catalog_of(*many(40), *answers), catalog_of(*many(40)), SINCE)


def test_a_model_that_became_another_name_of_one_is_not_lost():
    """A list may join two entries."""
    joined = catalog_of(*many(1), models=[entry("m0", aliases=[f"m{n}" for n in range(1, 40)])])

    refuse_shrinkage(catalog_of(*many(40)), joined, SINCE)


# --- history


@pytest.mark.parametrize(
    ("old", "new", "joined"),
    [
        # The same price goes on: it is one price since it was first seen.
        ([listed("input", 1)], [("input", 1)], {"m input 1 per 1M 01-01"}),
        # Another one starts where the old one ends.
        (
            [listed("input", 1)],
            [("input", 2)],
            {"m input 1 per 1M 01-01 to 11-23", "m input 2 per 1M 11-23"},
        ),
        # A price the list no longer has keeps its past.
        (
            [listed("input", 1), listed("output", 2)],
            [("input", 1)],
            {"m input 1 per 1M 01-01", "m output 2 per 1M 01-01 to 11-23"},
        ),
        # A change that was announced is dropped: the list knows better now.
        (
            [listed("input", 1, valid_to=SINCE.replace(year=2027)),
             listed("input", 7, valid_from=SINCE.replace(year=2027))],
            [("input", 1)],
            {"m input 1 per 1M 01-01"},
        ),
    ],
)  # fmt: skip
def test_an_undated_list_continues_the_history(old, new, joined):
    """It says nothing about the day before it was read."""
    fresh = catalog_of(*(listed(meter, amount, valid_from=SINCE) for meter, amount in new))

    assert joined == inside(continue_history(catalog_of(*old), fresh, SINCE))


def test_a_source_with_dates_states_the_past_itself():
    """What it corrected or took back is not carried over."""
    old = catalog_of(listed("input", 1, GENAI), listed("output", 2, GENAI), source=GENAI)
    new = catalog_of(listed("input", 3, GENAI), source=GENAI)

    assert {"m input 3 per 1M 01-01"} == inside(continue_history(old, new, SINCE))


def test_a_model_that_is_gone_keeps_its_past():
    """Calls of that time stay priced; the guard against shrinking counts it as lost."""
    old = catalog_of(listed("input", 1, model="gone"), listed("input", 1, model="stays"))
    new = catalog_of(listed("input", 1, model="stays", valid_from=SINCE))
    found = continue_history(old, new, SINCE)

    assert {"gone input 1 per 1M 01-01 to 11-23", "stays input 1 per 1M 01-01"} == inside(found)
    with pytest.raises(BookBroken):
        refuse_shrinkage(old, found, SINCE)


# --- all together


def test_importing_the_same_list_again_changes_nothing():
    """A second reading of the same file is the same catalog."""
    text = json_text(
        {"a": row_of(input_cost_per_token="=1e-06"), "b": row_of(input_cost_per_token="=2e-06")}
    )
    once = assemble(catalog_of(), [read_map(text)], checked_at=DAY)
    later = DAY.replace(month=12)
    twice = assemble(once, [read_map(text, at=later)], checked_at=later)

    assert () == diff_catalogs(once, twice).changes
    assert {later} == {r.checked_at for r in twice.rates}


def test_every_rate_cites_its_list_and_the_day():
    """Provenance per rate."""
    catalog = check_candidate(map_of(input_cost_per_token="=1e-06"))

    assert {("litellm 1.0", DAY, "USD")} == {
        (r.source, r.checked_at, r.currency) for r in catalog.rates
    }


def test_two_spans_that_change_alike_are_one_change():
    """Where only the row is cut, nothing changes in between."""
    old = catalog_of(rate("input", 1, valid_to=CHANGE), rate("input", 1, valid_from=CHANGE))
    new = catalog_of(rate("input", 2))
    (change,) = diff_catalogs(old, new).changes

    assert (FIRST, None) == (change.since, change.until)


def test_a_price_of_zero_has_no_percent():
    """Nothing is a percentage of it."""
    assert percent_between(rate("input", 0), rate("input", 1)) is None


def test_every_problem_of_every_list_is_reported_at_once():
    """Two lists, two problems."""
    windows = [
        {"constraint": {"start_time": start, "end_time": "05:00"}, "prices": {"input_mtok": 2}}
        for start in ("01:00", "03:00")
    ]
    bad = genai_of(prices=[{"prices": {"input_mtok": 1}}, *windows])

    with pytest.raises(BookBroken) as broken:
        assemble(catalog_of(), [bad, bad], checked_at=DAY)

    assert 2 == len(broken.value.problems)
