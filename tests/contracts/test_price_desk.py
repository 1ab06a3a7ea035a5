"""What an operator does to the price book, on SQLite and PostgreSQL alike."""

from datetime import timedelta
from decimal import Decimal

import pytest

from gateway.prices.asked import PriceEdit, PriceRefused, Signature
from pricing.agreements import Payer
from tests.contracts.desk_kit import (
    DAY,
    SHIPPED,
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
from tests.pricing.cards import START, entry, rate
from tests.pricing.test_versions import publish


def test_a_price_makes_a_version_that_holds_at_once(desk, store):
    """The version before stays as it is, and says what it always said."""
    (made,) = desk.post(price("2"), SIGNED)

    assert ("2026-11-23.1", "operator", "v1", "approved", "cli:ada", "contract 7", NOW) == (
        made.version,
        made.origin,
        made.base,
        made.status,
        made.recorded_by,
        made.why,
        made.effective_from,
    )
    assert "2" == amount_at(store, NOW)
    assert "1" == amount_at(store, NOW - DAY)
    assert [Decimal(1)] == [r.amount for r in store.find_book("v1", "p").rates]
    assert [None] == [r.valid_to for r in store.find_book("v1", "p").rates]


def test_versions_share_what_did_not_change(desk, store, ledger):
    """One more provider's prices are one more content."""
    before = ledger.count("price_objects")
    desk.post(price("2"), SIGNED)

    assert before + 1 == ledger.count("price_objects")


def test_an_agreement_holds_for_its_payer(desk, store):
    """Everybody else pays the published price."""
    desk.post(agreed(team="search", percent="-20"), SIGNED)

    assert "0.8" == amount_at(store, NOW, payer=Payer("acme", "search", "x"))
    assert "1" == amount_at(store, NOW, payer=Payer("acme", "ads", "y"))


def test_an_agreement_ends(desk, store):
    """From that day on its payer pays what everybody pays."""
    desk.post(agreed(team="search", percent="-20"), SIGNED)
    desk.post(PriceEdit(ends=(("o", NOW + DAY),)), SIGNED)
    payer = Payer("acme", "search", "x")

    assert "0.8" == amount_at(store, NOW, payer=payer)
    assert "1" == amount_at(store, NOW + DAY, payer=payer)
    desk.post(PriceEdit(ends=(("o", START),)), SIGNED)
    assert None is store.list_versions()[-1].manifest.agreements


def test_a_model_can_be_new(desk, store):
    """Of a provider that is new as well."""
    new = rate("input", "3", provider="r", model="big", valid_from=NOW)
    with pytest.raises(PriceRefused, match="say new_model"):
        desk.post(PriceEdit(rates=(new,)), SIGNED)

    desk.post(PriceEdit(rates=(new,), models=(entry("big", provider="r"),)), SIGNED)

    assert {"p", "q", "r"} == store.load_book().providers


@pytest.mark.parametrize(
    ("edit", "kind", "said"),
    [
        (price("1", START), "conflict", "change nothing"),
        (price("2", model="x"), "invalid", "no model 'x'"),
        (price("2", currency="EUR"), "invalid", "currency"),
        (PriceEdit(rates=(rate("input", "2", provider="house"),)), "invalid", "self_hosted"),
        (agreed(provider="house"), "invalid", "self_hosted"),
        (agreed(provider="z"), "invalid", "no provider 'z'"),
        (agreed(provider="p", model="x"), "invalid", "no model 'x'"),
        (agreed(percent="-0.00000000001"), "invalid", "twelve decimals"),
        (PriceEdit(ends=(("o", NOW),)), "conflict", "no override 'o'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_change_is_refused_and_nothing_recorded(desk, store, edit, kind, said):
    """Each with what is wrong and what would help."""
    with pytest.raises(PriceRefused, match=said) as refused:
        desk.post(edit, SIGNED)

    assert kind == refused.value.kind
    assert 1 == len(store.list_versions())


def test_two_prices_of_one_thing_at_once_are_refused(desk, store):
    """The last of them would win in silence."""
    twice = PriceEdit(rates=(rate("input", "3"), rate("input", "4")))

    with pytest.raises(PriceRefused, match="the same price from the same instant"):
        desk.post(twice, SIGNED)

    assert 1 == len(store.list_versions())


def test_two_equal_agreements_are_refused(desk, store):
    """Nothing says which holds."""
    desk.post(agreed("a", team="search"), SIGNED)

    with pytest.raises(PriceRefused, match="as specific"):
        desk.post(agreed("b", team="search"), SIGNED)


def test_a_version_can_hold_later(desk, store):
    """Calls before keep the prices there are."""
    desk.post(price("2"), SIGNED, NOW + DAY)

    assert "1" == amount_at(store, NOW + 2 * DAY, held=NOW)
    assert "2" == amount_at(store, NOW + 2 * DAY)
    with pytest.raises(PriceRefused, match="past") as refused:
        desk.post(price("3"), SIGNED, NOW - DAY)
    assert "effective_from" == refused.value.field


def test_a_change_before_a_version_still_to_come_undoes_neither(desk, store, clock):
    """The change is in both."""
    desk.post(price("2"), SIGNED, NOW + 2 * DAY)
    clock.at = NOW + DAY
    made = desk.post(agreed(team="search", percent="-50"), SIGNED)
    payer = Payer("acme", "search", "x")
    late = NOW + 3 * DAY

    assert 2 == len(made)
    assert "0.5" == amount_at(store, late, held=NOW + DAY, payer=payer)
    assert "1" == amount_at(store, late, payer=payer)
    assert "2" == amount_at(store, late)


def test_a_version_still_to_come_can_be_taken_back(desk, store):
    """One that priced calls cannot."""
    (made,) = desk.post(price("2"), SIGNED, NOW + DAY)

    assert ["rejected"] == [one.status for one in desk.reject(made.version, SIGNED)]
    assert "1" == amount_at(store, NOW + 2 * DAY)
    for name in (made.version, "v1"):
        with pytest.raises(PriceRefused, match="already"):
            desk.reject(name, SIGNED)
    with pytest.raises(PriceRefused, match="no price book version"):
        desk.reject("v9", SIGNED)


def test_a_candidate_holds_when_it_is_approved(desk, store, clock):
    """Until then it is there to be compared."""
    made = desk.propose(listed("3"), Signature(who="cli:ada", why="list of May"), "v1")
    assert ("candidate", "import", "v1") == (made.status, made.origin, made.base)
    assert "1" == amount_at(store, NOW)
    clock.at = NOW + DAY

    (approved,) = desk.approve(made.version, SIGNED, NOW + 2 * DAY)

    assert (made.version, "approved", "cli:ada") == (
        approved.version,
        approved.status,
        approved.decided_by,
    )
    assert "1" == amount_at(store, NOW + 2 * DAY - timedelta(microseconds=1))
    assert "3" == amount_at(store, NOW + 2 * DAY)
    with pytest.raises(PriceRefused, match="approved already"):
        desk.approve(made.version, SIGNED)


def test_a_list_that_says_the_same_is_no_candidate(desk, store):
    """There is nothing to decide."""
    assert None is desk.propose(listed("1"), SIGNED, "v1")
    with pytest.raises(PriceRefused, match="come from the settings"):
        desk.propose(listed("1", provider="house"), SIGNED, "v1")


def test_a_rejected_candidate_is_not_approved_later(desk, store):
    """A no is a no; the same prices can be proposed again."""
    made = desk.propose(listed("3"), SIGNED, "v1")
    desk.reject(made.version, SIGNED)

    with pytest.raises(PriceRefused, match="rejected already"):
        desk.approve(made.version, SIGNED)
    assert made.version != desk.propose(listed("3"), SIGNED, "v1").version


def test_a_price_set_while_a_list_is_read_is_not_undone(desk, store):
    """The candidate is made from what was read, so its approval sees what was changed since."""
    read = store.load_book().version.version
    (meanwhile,) = desk.post(price("2"), SIGNED)

    candidate = desk.propose({**listed("1"), **listed("6", provider="q")}, SIGNED, read)
    assert read == candidate.base
    desk.approve(candidate.version, SIGNED)

    assert ["2", "6"] == [amount_at(store, NOW), amount_at(store, NOW, provider="q")]
    assert meanwhile.version != store.current_at(NOW).version


def test_a_list_that_is_at_odds_with_a_price_set_while_it_was_read_waits(desk, store):
    """Approving it says so; --replace lets the list win."""
    read = store.load_book().version.version
    desk.post(price("2"), SIGNED)
    candidate = desk.propose(listed("3"), SIGNED, read)

    with pytest.raises(PriceRefused, match=r"prices of p were changed since .* --replace"):
        desk.approve(candidate.version, SIGNED)
    assert "2" == amount_at(store, NOW)
    desk.approve(candidate.version, SIGNED, replaces=True)
    assert "3" == amount_at(store, NOW)


def test_what_was_agreed_meanwhile_stays(desk, store):
    """A candidate knows only the prices of lists."""
    candidate = desk.propose(listed("3"), SIGNED, "v1")
    desk.post(agreed(team="search", percent="-50"), SIGNED)

    (made,) = desk.approve(candidate.version, SIGNED)

    assert candidate.version != made.version
    assert made.version == store.find_version(candidate.version).became
    assert "1.5" == amount_at(store, NOW, payer=Payer("acme", "search", "x"))


def test_a_candidate_does_not_undo_a_newer_price_unasked(desk, store):
    """Somebody set it since the candidate was made."""
    candidate = desk.propose({**listed("3"), **listed("6", provider="q")}, SIGNED, "v1")
    desk.post(price("2"), SIGNED)

    with pytest.raises(PriceRefused, match=r"prices of p were changed since .* --replace"):
        desk.approve(candidate.version, SIGNED)
    desk.approve(candidate.version, SIGNED, replaces=True)
    assert "3" == amount_at(store, NOW)
    assert "6" == amount_at(store, NOW, provider="q")


def test_an_upgrade_that_waited_is_approved_like_any_candidate(desk, store, catalog):
    """What the operator set stays, where the upgrade does not touch it."""
    desk.post(price("2"), SIGNED)
    publish(catalog, SHIPPED, ("v2", {"p": "1", "q": "7"}, ()))
    (waiting,) = store.record_shipped("taximeter 1.1")

    desk.approve(waiting.version, SIGNED)

    assert "2" == amount_at(store, NOW)
    assert "7" == amount_at(store, NOW, provider="q")


def test_a_candidate_that_breaks_an_agreement_is_refused(desk, store):
    """An agreement about a model that is gone would be about nothing."""
    desk.post(agreed(provider="q", model="m", meter="input", amount="4"), SIGNED)
    models, rates = [entry("n", provider="q")], [rate("input", "1", model="n", provider="q")]

    with pytest.raises(PriceRefused, match="no model 'm'"):
        desk.propose(contents(models, rates), SIGNED, store.current_at(NOW).version)
    assert "5" == amount_at(store, NOW, provider="q")
