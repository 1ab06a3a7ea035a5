"""A call of the past is priced by the rule of live calls: both are made here, and compared."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.corrected import posted_call
from gateway.ledger.record import Intent, LedgerRecord
from gateway.ledger.recovery import end_aborted
from gateway.rerating import Left, Repriced, Rerater, Unbilled
from pricing.book import Book, Manifest, describe_version
from tests.openai_answers import USAGE
from tests.path.virtual_time import run
from tests.path.world import Play, World, ask
from tests.pricing.cards import entry, override, rate
from tests.rerating.kit import DAY_ONE, MadeUpVersions

# Snapshots of m, of a snapshot, and names that are none: each is a model, an alias or nothing.
NAMES = ("m", "m-2026-01-01", "m-2026-01-01-002", "m-mini", "n", "ours")
TIERS = ("flex", "priority")


def book_of(version: str, owners: Mapping[str, str], amounts: Mapping[Any, int], agreed=()) -> Book:
    """Models with their aliases, and what a million tokens cost by model and tier."""
    described = describe_version(
        version, Manifest(providers={"openai": "sha256:made-up"}), recorded_at=DAY_ONE
    )
    models = [
        entry(
            model,
            provider="openai",
            aliases=[name for name, owner in owners.items() if owner == model != name],
        )
        for model in sorted(set(owners.values()))
    ]
    rates = [
        rate(meter, amount, model=model, tier=tier, provider="openai")
        for (model, tier), amount in amounts.items()
        for meter in ("input", "output")
    ]
    return Book(described, models, rates, agreed)


@st.composite
def any_book(draw: st.DrawFn, version: str = "v1") -> Book:
    """Draw which names are models, aliases or unheard of, each with its own price in some tiers."""
    models = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    owners = {model: model for model in models}
    for name in NAMES:
        if name not in owners and draw(st.booleans()):
            owners[name] = draw(st.sampled_from(models))
    amounts = {
        (model, tier): draw(st.integers(1, 50))
        for model in models
        for tier in ("standard", *draw(st.sets(st.sampled_from(TIERS))))
    }
    agreed = []
    if draw(st.booleans()):
        agreed = [override("search", team="search", model=models[0], provider="openai")]
    return book_of(version, owners, amounts, agreed)


def answer_of(served: str | None, tier: str | None) -> bytes:
    """What a provider says, with or without the model and the tier it served."""
    told: dict[str, Any] = {
        "model": served,
        "service_tier": tier,
        "usage": USAGE,
        "id": "c",
        "choices": [],
    }
    return json.dumps({name: value for name, value in told.items() if value is not None}).encode()


@st.composite
def any_scene(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what is asked for and what is served, deployments between them included."""
    asked = draw(st.sampled_from(NAMES))
    name = st.sampled_from(NAMES)
    tier = st.sampled_from([None, "default", *TIERS])
    return {
        "body": ask(
            model=draw(st.sampled_from(["", "openai/"])) + asked,
            service_tier=draw(tier) or ...,
        ),
        "play": Play(steps=[answer_of(draw(st.none() | st.just(asked) | name), draw(tier))]),
        "deployments": draw(st.dictionaries(name, name, max_size=2)),
    }


def live(book: Book, scene: Mapping[str, Any]) -> tuple[LedgerRecord, list[Intent]]:
    """Make a call on the whole path, as it is settled and journalled."""
    world = World(book=book, unpriced="allow", limits=(), **scene)
    run(world.call())
    return world.record, world.journal.intents


def verdict_on(record: LedgerRecord, *books: Book) -> Repriced | Unbilled | Left:
    """Price a record again, with the last of the books."""
    versions = MadeUpVersions(books)
    return Rerater(versions, books[-1].version.version).rate(posted_call(record, ()))


@given(book=any_book(), scene=any_scene())
def test_a_call_is_not_changed_by_the_version_it_was_priced_with(book, scene):
    """Whatever was asked, served, deployed and told; also where a crash cut the call off."""
    settled, intents = live(book, scene)
    aborted = [end_aborted(one, one.started_at_us, lambda *_: book) for one in intents]
    for record in (settled, *aborted):
        verdict = verdict_on(record, book)

        assert isinstance(verdict, Repriced) == (record.cost_pico is not None), verdict
        if isinstance(verdict, Repriced):
            assert (record.cost_pico, False) == (verdict.cost_pico, verdict.is_changed)
            assert (record.priced_model, record.tier) == (verdict.priced.model, verdict.priced.tier)


@given(book=any_book(), later=any_book("v2"), scene=any_scene())
def test_another_version_makes_of_a_call_what_it_would_have_cost_then(book, later, scene):
    """The same call, made when the other version held, comes to the same cost, or to none."""
    record, _ = live(book, scene)
    then, _ = live(later, scene)
    verdict = verdict_on(record, book, later)

    assert then.cost_pico == (verdict.cost_pico if isinstance(verdict, Repriced) else None)


OURS = {("m", "standard"): 10, ("m-2026-01-01", "standard"): 1}
BOOK = book_of("v1", {"m": "m", "m-2026-01-01": "m-2026-01-01"}, OURS)
NAMED_LIKE_A_SNAPSHOT = {
    "body": ask(model="m-2026-01-01"),
    "play": Play(steps=[answer_of("m-2026-01-01", None)]),
    "deployments": {"m-2026-01-01": "m"},
}


def test_a_deployment_named_like_a_snapshot_is_the_model_behind_it():
    """1,458 tokens at 10 for a million, though the book sells a snapshot of that name for 1."""
    record, _ = live(BOOK, NAMED_LIKE_A_SNAPSHOT)
    verdict = verdict_on(record, BOOK)

    assert isinstance(verdict, Repriced)
    assert 1_458 * 10_000_000 == record.cost_pico == verdict.cost_pico
    assert ("m-2026-01-01", "m") == (record.model_asked, record.model_behind)


def test_a_record_from_before_is_read_as_it_was():
    """It does not say what was asked for: the snapshot's own price is taken."""
    record, _ = live(BOOK, NAMED_LIKE_A_SNAPSHOT)
    unset = dict.fromkeys(("model_asked", "model_behind", "tier_asked"), msgspec.UNSET)
    verdict = verdict_on(msgspec.structs.replace(record, **unset), BOOK)

    assert isinstance(verdict, Repriced)
    assert ("m-2026-01-01", 1_458 * 1_000_000) == (verdict.priced.model, verdict.cost_pico)


def tiered(version: str, standard: int, flex: int) -> Book:
    """One model in two tiers."""
    return book_of(version, {"m": "m"}, {("m", "standard"): standard, ("m", "flex"): flex})


@pytest.mark.parametrize(
    ("told", "tier", "amount"),
    [(None, "standard", 4), ("flex", "flex", 3), ("default", "standard", 4)],
)
def test_a_tier_nobody_told_is_the_dearer_one_under_every_version(told, tier, amount):
    """Flex was dearer by mistake; once it is put right the standard price is the dearer one."""
    scene = {
        "body": ask(model="m", service_tier="flex"),
        "play": Play(steps=[answer_of("m", told)]),
    }
    before, after = tiered("v1", 4, 8), tiered("v2", 4, 3)
    record, _ = live(before, scene)
    verdict = verdict_on(record, before, after)

    assert isinstance(verdict, Repriced)
    assert (tier, 1_458 * 1_000_000 * amount) == (verdict.priced.tier, verdict.cost_pico)
    if told is None:
        assert ("flex", "flex") == (record.tier, record.tier_asked)
        old = msgspec.structs.replace(record, tier_asked=msgspec.UNSET)
        kept = verdict_on(old, before, after)
        assert isinstance(kept, Repriced)
        assert "flex" == kept.priced.tier
