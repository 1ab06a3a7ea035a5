"""Prices that are scheduled, what is set before their time, and taking either back."""

from datetime import timedelta

import pytest

from gateway.prices.asked import PriceEdit, PriceRefused
from pricing.agreements import Payer
from tests.contracts.desk_kit import (
    DAY,
    SIGNED,
    agreed,
    amount_at,
    catalog_fixture,  # noqa: F401 - found by its name
    clock_fixture,  # noqa: F401 - likewise
    contents,
    desk_fixture,  # noqa: F401 - likewise
    listed,
    price,
    store_fixture,  # noqa: F401 - likewise
)
from tests.contracts.test_price_store import NOW
from tests.pricing.cards import START, entry, override, rate

SEARCH = Payer("acme", "search", "x")
SOON, LATE = NOW + 10 * DAY, NOW + 20 * DAY
TICK = timedelta(microseconds=1)


def end(name, at):
    """The end of one agreement."""
    return PriceEdit(ends=((name, at),))


def output(amount, at=NOW, **fields):
    """One new price of output."""
    return PriceEdit(rates=(rate("output", amount, valid_from=at, **fields),))


def output_at(store, at, *, held=None):
    """The price of output, in the version that holds."""
    card = store.open_book(store.current_at(held or at)).find_card("p", "m", at, None)
    found = card.find_rate("output", tier="standard", region=None, input_total=1)
    return None if found is None else found.amount_text


# --- a price set before one that is scheduled


def test_a_price_does_not_overrule_one_that_is_scheduled(desk, store):
    """The refusal names the version, its instant, and what to do."""
    (made,) = desk.post(price("2", SOON), SIGNED, SOON)

    with pytest.raises(PriceRefused, match=f"version {made.version}, in force from") as refused:
        desk.post(price("3", NOW, valid_to=LATE), SIGNED)

    assert "conflict" == refused.value.kind
    for said in ("p/m/input/standard", SOON.isoformat(), "valid_to", f"reject {made.version}"):
        assert said in refused.value.reason
    assert f"effective_from {SOON.isoformat()}" in refused.value.reason
    assert ["1", "2"] == [amount_at(store, SOON - TICK), amount_at(store, SOON)]


def test_a_price_is_scheduled_to_correct_the_past_too(desk, store):
    """What a version says from its start on is what counts, whenever its price began."""
    desk.post(price("2", START), SIGNED, SOON)

    with pytest.raises(PriceRefused, match="changes this price"):
        desk.post(price("3"), SIGNED)

    assert ["1", "2"] == [amount_at(store, SOON - TICK), amount_at(store, SOON)]


def test_each_way_out_of_the_refusal_works(desk, store):
    """End the new price by then; give it that instant; or reject the version."""
    (made,) = desk.post(price("2", SOON), SIGNED, SOON)

    desk.post(price("3", NOW, valid_to=SOON), SIGNED)
    assert ["3", "2"] == [amount_at(store, SOON - TICK), amount_at(store, SOON)]

    desk.post(price("4", SOON), SIGNED, SOON)
    assert ["3", "4"] == [amount_at(store, SOON - TICK), amount_at(store, SOON)]

    with pytest.raises(PriceRefused, match="changes this price"):
        desk.post(price("5", SOON), SIGNED)
    desk.reject(store.list_versions()[-1].version, SIGNED)
    desk.reject(made.version, SIGNED)
    desk.post(price("5", SOON), SIGNED)
    assert ["3", "5"] == [amount_at(store, SOON - TICK), amount_at(store, SOON)]


def test_the_change_that_is_named_is_the_one_at_fault(desk, store):
    """Not one that is scheduled for the same instant, nor what carries something there."""
    (at_fault,) = desk.post(price("2", SOON), SIGNED, SOON)
    desk.post(output("8", SOON), SIGNED, SOON)
    desk.post(agreed(team="search"), SIGNED)

    with pytest.raises(PriceRefused, match=f"version {at_fault.version}, in force"):
        desk.post(price("3"), SIGNED)


def test_a_price_nobody_scheduled_is_carried(desk, store):
    """Of the same model, in the same version; and one that the version says itself."""
    desk.post(price("2", START), SIGNED, SOON)
    desk.post(output("8"), SIGNED)
    desk.post(price("2"), SIGNED)

    assert ["8", "8"] == [output_at(store, NOW), output_at(store, LATE)]
    assert ["2", "2"] == [amount_at(store, NOW), amount_at(store, LATE)]


def test_a_price_does_not_overrule_an_approved_list_that_waits(desk, store):
    """It is scheduled like any other."""
    waiting = desk.propose(listed("4"), SIGNED, "v1")
    desk.approve(waiting.version, SIGNED, SOON)

    with pytest.raises(PriceRefused, match=f"version {waiting.version}, in force"):
        desk.post(price("3"), SIGNED)
    assert "4" == amount_at(store, SOON)


def test_a_list_does_not_overrule_what_is_scheduled(desk, store):
    """Approval names the version; --replace is for that."""
    (made,) = desk.post(output("8", SOON), SIGNED, SOON)
    candidate = desk.propose(listed("4"), SIGNED, "v1")

    with pytest.raises(PriceRefused, match=rf"prices of p .*{made.version}"):
        desk.approve(candidate.version, SIGNED)
    assert [None, "8"] == [output_at(store, NOW), output_at(store, SOON)]
    desk.approve(candidate.version, SIGNED, replaces=True)
    assert ["4", "4"] == [amount_at(store, NOW), amount_at(store, SOON)]
    assert None is output_at(store, SOON)


def test_a_model_that_is_scheduled_has_no_price_before(desk):
    """The refusal says when to set it."""
    new = rate("input", "3", model="big", valid_from=SOON)
    edit = PriceEdit(rates=(new,), models=(entry("big"),))
    (made,) = desk.post(edit, SIGNED, SOON)
    more = PriceEdit(rates=(rate("output", "9", model="big", valid_from=NOW),))

    with pytest.raises(PriceRefused, match=f"before version {made.version}.* effective_from"):
        desk.post(more, SIGNED)
    with pytest.raises(PriceRefused, match=f"sells 'big' already.*{made.version}"):
        desk.post(PriceEdit(rates=(new,), models=(entry("big"),)), SIGNED)
    desk.post(more, SIGNED, SOON)


# --- agreements


def test_an_agreement_that_is_pending_can_be_ended(desk, store):
    """Nobody has to know the instant of its version: the end takes effect with it."""
    (made,) = desk.post(agreed(team="search", percent="-50", valid_from=SOON), SIGNED, SOON)

    (ended,) = desk.post(end("o", NOW), SIGNED)

    assert (made.version, SOON) == (ended.base, ended.effective_from)
    assert "1" == amount_at(store, LATE, payer=SEARCH)
    with pytest.raises(PriceRefused, match=r"no override 'o'; there are: none|already|nothing"):
        desk.post(end("o", NOW), SIGNED)


def test_an_agreement_that_is_pending_is_ended_in_later_versions_too(desk, store):
    """And stays in those before."""
    desk.post(agreed(team="search", percent="-50"), SIGNED, SOON)
    desk.post(output("8", LATE), SIGNED, LATE)

    desk.post(end("o", LATE + DAY), SIGNED)

    prices = [amount_at(store, at, payer=SEARCH) for at in (NOW, SOON, LATE, LATE + DAY)]
    assert ["1", "0.5", "0.5", "1"] == prices


def test_an_agreement_of_the_name_of_a_pending_one_is_refused(desk):
    """With the version that has it."""
    (made,) = desk.post(agreed(team="search"), SIGNED, SOON)

    with pytest.raises(PriceRefused, match=f"'o' is there already.*{made.version}, in force"):
        desk.post(agreed(team="ads"), SIGNED)
    with pytest.raises(PriceRefused, match=f"as specific.*{made.version}, in force"):
        desk.post(agreed("other", team="search"), SIGNED)


def test_an_end_later_than_the_scheduled_one_is_refused(desk, store):
    """An earlier one is carried."""
    desk.post(agreed(team="search", percent="-50"), SIGNED)
    (made,) = desk.post(end("o", LATE), SIGNED, SOON)

    with pytest.raises(PriceRefused, match=f"{made.version}.* ends override 'o' at"):
        desk.post(end("o", LATE + DAY), SIGNED)
    desk.post(end("o", SOON + DAY), SIGNED)

    assert ["0.5", "1"] == [amount_at(store, at, payer=SEARCH) for at in (SOON, SOON + DAY)]


def test_an_end_of_two_agreements_of_one_name_is_refused(desk):
    """Nothing says which is meant."""
    desk.post(agreed(team="search"), SIGNED)
    desk.post(end("o", START), SIGNED, SOON)
    (made,) = desk.post(agreed(team="ads", valid_from=LATE), SIGNED, LATE)

    with pytest.raises(PriceRefused, match=f"another one in version {made.version}"):
        desk.post(end("o", LATE + DAY), SIGNED)


# --- taking back what is scheduled


def test_rejecting_keeps_what_was_set_before_its_time(desk, store):
    """The scheduled price is gone, and so is what carried today's into it."""
    (made,) = desk.post(price("2", SOON), SIGNED, SOON)
    mine, carried = desk.post(output("8"), SIGNED)
    assert (mine.version, None) == (carried.carries, mine.carries)

    desk.reject(made.version, SIGNED)

    assert ["1", "8"] == [amount_at(store, LATE), output_at(store, LATE)]
    assert mine.version == store.current_at(LATE).version
    assert "rejected" == store.find_version(carried.version).status


def test_what_only_carries_is_not_rejected(desk, store):
    """The refusal says what it carries, into what, and what to reject instead."""
    (made,) = desk.post(price("2", SOON), SIGNED, SOON)
    mine, carried = desk.post(output("8"), SIGNED)

    with pytest.raises(PriceRefused, match=f"carries {mine.version} into {made.version}"):
        desk.reject(carried.version, SIGNED)

    assert ["2", "8"] == [amount_at(store, SOON), output_at(store, SOON)]


def test_rejecting_does_not_lose_what_others_scheduled(desk, store):
    """What was laid over it is made again without it, and has another name."""
    (first,) = desk.post(price("2", SOON), SIGNED, SOON)
    (other,) = desk.post(output("8", LATE), SIGNED, LATE)
    desk.post(agreed(team="search", percent="-50"), SIGNED)

    rejected, *again = desk.reject(first.version, SIGNED)

    assert (first.version, "rejected") == (rejected.version, rejected.status)
    assert again[0].version == store.find_version(other.version).became
    assert ["1", "1"] == [amount_at(store, SOON), amount_at(store, LATE)]
    assert [None, "8"] == [output_at(store, SOON), output_at(store, LATE)]
    assert "0.5" == amount_at(store, LATE, payer=SEARCH)
    with pytest.raises(PriceRefused, match=f"became {again[0].version} already"):
        desk.reject(other.version, SIGNED)
    desk.reject(again[0].version, SIGNED)
    assert [None, "0.5"] == [output_at(store, LATE), amount_at(store, LATE, payer=SEARCH)]


def test_rejecting_an_earlier_one_that_was_scheduled_later(desk, store):
    """It had been carried into the later one, and today's price into both."""
    (late,) = desk.post(output("8", LATE), SIGNED, LATE)
    soon, into_late = desk.post(price("2", SOON), SIGNED, SOON)
    assert soon.version == into_late.carries
    desk.post(agreed(team="search", percent="-50"), SIGNED)

    desk.reject(soon.version, SIGNED)

    assert ["1", "1", "8"] == [
        amount_at(store, SOON),
        amount_at(store, LATE),
        output_at(store, LATE),
    ]
    assert "0.5" == amount_at(store, LATE, payer=SEARCH)
    desk.reject(late.version, SIGNED)
    assert [None, "0.5"] == [output_at(store, LATE), amount_at(store, LATE, payer=SEARCH)]


def test_rejecting_an_approved_list_that_waits(desk, store):
    """What was set since, elsewhere, is kept."""
    candidate = desk.propose(listed("4"), SIGNED, "v1")
    desk.approve(candidate.version, SIGNED, SOON)
    desk.post(price("6", provider="q"), SIGNED)

    desk.reject(candidate.version, SIGNED)

    assert ["1", "6"] == [amount_at(store, LATE), amount_at(store, LATE, provider="q")]


def test_an_approved_list_is_made_again_without_what_was_rejected(desk, store):
    """Its prices are its own; the price of another provider was not."""
    (first,) = desk.post(price("6", provider="q"), SIGNED, SOON)
    candidate = desk.propose(listed("4"), SIGNED, "v1")
    (approved,) = desk.approve(candidate.version, SIGNED, LATE)

    desk.reject(first.version, SIGNED)

    assert ["4", "5"] == [amount_at(store, LATE), amount_at(store, LATE, provider="q")]
    assert store.find_version(approved.version).became is not None


def test_what_cannot_stand_without_it_is_rejected_first(desk, store):
    """A price of a model that the rejected version adds."""
    new = rate("input", "3", model="big", valid_from=SOON)
    (first,) = desk.post(PriceEdit(rates=(new,), models=(entry("big"),)), SIGNED, SOON)
    more = PriceEdit(rates=(rate("output", "9", model="big", valid_from=SOON),))
    (second,) = desk.post(more, SIGNED, SOON)
    before = store.list_versions()

    with pytest.raises(PriceRefused, match=f"reject {second.version} first"):
        desk.reject(first.version, SIGNED)
    assert before == store.list_versions()
    desk.reject(second.version, SIGNED)
    desk.reject(first.version, SIGNED)

    assert ["v1", "v1"] == [store.current_at(at).version for at in (NOW, LATE)]


def test_what_holds_already_cannot_be_rejected_first(desk, store):
    """An agreement about a model that a list drops, and a later version brings back."""
    models, rates = [entry("n", provider="q")], [rate("input", "1", model="n", provider="q")]
    gone = desk.propose(contents(models, rates), SIGNED, "v1")
    desk.approve(gone.version, SIGNED, SOON)
    back = PriceEdit(
        rates=(rate("input", "7", provider="q", valid_from=SOON),), models=(entry(provider="q"),)
    )
    (brought,) = desk.post(back, SIGNED, SOON)
    agreement = override("o", provider="q", model="m", meter="input", amount="4")
    (held, _) = desk.post(PriceEdit(overrides=(agreement,)), SIGNED)

    with pytest.raises(PriceRefused, match=f"{held.version} .*set other prices instead"):
        desk.reject(brought.version, SIGNED)
