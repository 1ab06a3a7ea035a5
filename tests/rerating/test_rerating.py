"""Pricing a call again: the differences are exact, and only they are written."""

from collections import Counter
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.corrected import PostedCall, posted_call
from gateway.ledger.record import LedgerRecord
from gateway.rerating import Author, Left, Repriced, Rerater, Unbilled, correct
from pricing.money import round_to_pico
from pricing.usage import Basis
from tests.contracts.records import NOON_US, mint
from tests.rerating.kit import BOOKS, NAMES, VERSIONS, any_call, make_call

LATER_US = NOON_US + 10**12
VERSION = st.sampled_from(NAMES)


def author(run: str = "R") -> Author:
    return Author(run_flag=f"re-rated: run {run}", why="new prices", now_us=LATER_US, mint=mint)


class Story:
    """A record and the corrections it gets."""

    def __init__(self, record: LedgerRecord) -> None:
        self.record = record
        self.later: tuple[LedgerRecord, ...] = ()

    def rerate(self, version: str) -> LedgerRecord | None:
        made = correct(self.record, self.later, Rerater(VERSIONS, version), author())
        if made is not None:
            self.later = (*self.later, made)
        return made

    @property
    def call(self) -> PostedCall:
        return posted_call(self.record, self.later)

    def verdict(self, version: str) -> Repriced | Unbilled | Left:
        return Rerater(VERSIONS, version).rate(posted_call(self.record, ()))


def check_lines(record: LedgerRecord) -> None:
    """Every line is its own arithmetic, and the lines are the cost."""
    for line in record.lines:
        exact = Fraction(line.quantity) * Fraction(line.unit_price) * 10**12 / line.per
        assert line.cost_pico == round_to_pico(exact.numerator, exact.denominator)
    assert record.cost_pico == sum(line.cost_pico for line in record.lines)
    assert record.list_cost_pico == sum(line.list_cost_pico for line in record.lines)


@given(record=any_call())
def test_the_same_version_changes_nothing(record):
    """What was priced with a version has that version's price."""
    assert Story(record).rerate(record.price_version or "v1") is None


@given(record=any_call(), version=VERSION)
def test_the_difference_is_new_less_old(record, version):
    """The call then costs exactly what the version says, as far as it can be priced."""
    story = Story(record)
    verdict = story.verdict(version)
    made = story.rerate(version)

    if not isinstance(verdict, Repriced):
        assert made is None
        return
    assert verdict.cost_pico == story.call.cost_pico
    assert verdict.list_cost_pico == story.call.list_cost_pico
    assert verdict.sums == story.call.sums
    if made is not None:
        check_lines(made)
        assert made.cost_pico == verdict.cost_pico - (record.cost_pico or 0)
        assert record.id == made.corrects
        assert (version, {}, 0, 0) == (
            made.price_version,
            made.usage,
            made.input_total,
            made.output_total,
        )


@given(record=any_call(), version=VERSION)
def test_a_second_time_there_is_nothing_left_to_do(record, version):
    """Asking twice is asking once."""
    story = Story(record)
    story.rerate(version)

    assert story.rerate(version) is None


@given(record=any_call(model="m"), versions=st.lists(VERSION, min_size=1, max_size=5))
def test_the_last_version_decides(record, versions):
    """One version after another ends where the last alone does."""
    story, short = Story(record), Story(record)
    for version in versions:
        story.rerate(version)
    short.rerate(versions[-1])

    assert short.call.sums == story.call.sums
    assert short.call.cost_pico == story.call.cost_pico
    assert short.call.list_cost_pico == story.call.list_cost_pico


@given(record=any_call(model="m"), version=VERSION)
def test_there_and_back_costs_what_it_did(record, version):
    """The lines that are left over are those of the record itself."""
    story = Story(record)
    story.rerate(version)
    story.rerate(record.price_version or "v1")

    assert posted_call(record, ()).sums == story.call.sums
    assert record.cost_pico in (None, story.call.cost_pico)
    lines = Counter()
    for one in (record, *story.later):
        for line in one.lines:
            lines[line.meter, line.unit_price, line.per] += Fraction(line.quantity)
    kept = {key: count for key, count in lines.items() if count}
    own = {(x.meter, x.unit_price, x.per): Fraction(x.quantity) for x in record.lines}
    assert record.cost_pico is None or own == kept


@given(record=any_call(model="m"), versions=st.lists(VERSION, max_size=4), data=st.data())
def test_the_order_corrections_are_read_in_does_not_matter(record, versions, data):
    """A call is the sum of what is known of it."""
    story = Story(record)
    for version in versions:
        story.rerate(version)
    mixed = data.draw(st.permutations(story.later))

    assert story.call == posted_call(record, mixed)


def test_a_correction_says_who_why_and_whose():
    """It stands where the call does, with the call's own names, and counts no usage."""
    record = make_call({"input": 1000, "output": 10}, tags={"env": "prod"})
    made = Story(record).rerate("v2")

    assert made is not None
    same = ("started_at_us", "organization", "team", "project", "key", "tags", "provider", "model")
    assert [getattr(record, name) for name in same] == [getattr(made, name) for name in same]
    assert ("re-rated: run R", "why: new prices") == made.flags
    assert (LATER_US, "final", None) == (made.ended_at_us, made.cost_status, made.ceiling_pico)
    assert ("p", "m", "standard") == (made.priced_as, made.priced_model, made.tier)


def test_only_lines_that_change_are_written():
    """1000 x 1.25 becomes 1000 x 2.50 and 10 x 10 becomes 10 x 12; the cached price stays."""
    made = Story(make_call({"input": 1000, "cache_read": 7, "output": 10})).rerate("v2")

    assert made is not None
    assert [
        ("input", "-1000", "1.25", -1_250_000_000),
        ("output", "-10", "10", -100_000_000),
        ("input", "1000", "2.50", 2_500_000_000),
        ("output", "10", "12", 120_000_000),
    ] == [(x.meter, x.quantity, x.unit_price, x.cost_pico) for x in made.lines]
    assert made.cost_pico == 1_270_000_000


def test_a_call_without_a_price_gets_its_whole_cost():
    """What was unknown becomes known: 1000 x 1.25 by a million."""
    record = make_call({"input": 1000}, version="v3", model="n")
    story = Story(record)
    made = story.rerate("v1")

    assert record.cost_pico is None
    assert made is not None
    assert (1_250_000_000, "final") == (made.cost_pico, made.cost_status)
    assert story.call.cost_pico == made.cost_pico


def test_an_agreement_is_part_of_the_version():
    """The team that has one pays less; the list cost stays, so do the others'."""
    made = Story(make_call({"output": 8}, team="ads")).rerate("v4")

    assert made is not None
    assert (-10_000_000, 0) == (made.cost_pico, made.list_cost_pico)
    assert Story(make_call({"output": 8}, team="search")).rerate("v4") is None


def test_an_estimate_stays_one():
    """A new price makes no count surer."""
    made = Story(make_call({"input": 10}, basis=Basis.ESTIMATED)).rerate("v2")

    assert made is not None
    assert ("estimated", "estimated") == (made.cost_status, made.basis)


def test_usage_that_became_known_later_is_priced():
    """A correction of the counts counts: 30 of the 100 were never billed."""
    record = make_call({"input": 100})
    line = record.lines[0]
    fewer = msgspec.structs.replace(
        record,
        id=mint(),
        corrects=record.id,
        usage={"input": -30},
        cost_pico=-37_500_000,
        list_cost_pico=-37_500_000,
        lines=(
            msgspec.structs.replace(
                line, quantity="-30", cost_pico=-37_500_000, list_cost_pico=-37_500_000
            ),
        ),
    )
    story = Story(record)
    story.later = (fewer,)
    made = story.rerate("v2")

    assert made is not None
    check_lines(made)
    assert (70 * 2_500_000, {"input": 70}) == (story.call.cost_pico, story.call.usage)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (make_call({}, basis=Basis.UNKNOWN), "usage_unknown"),
        (make_call({"input": 5}, provider_cost_pico=7), "provider_cost"),
        (make_call({"input": 1}, model="n"), "no_price"),
        (make_call({"input": 1}, model="unheard-of", is_old=True), "not_said"),
        (make_call({"input": 1}, is_old=True, price_version="v9"), "not_derivable"),
        (make_call({"input": 5}, is_old=True, version="v2", price_version="v1"), "not_derivable"),
        (make_call({"input": 5}, lines=()), "not_derivable"),
        (make_call({"input": 5}, currency="EUR"), "other_currency"),
        (make_call({"input": 5}, usage={"telepathy": 5}), "no_price"),
        (make_call({"output": 10**13}, usage={"output": 10**15}), "too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_priced_is_left_and_said(record, reason):
    """Nothing is guessed and nothing is written."""
    version = "v2" if reason in ("too_large", "other_currency") else "v3"
    verdict = Story(record).verdict("v1" if record.usage.get("telepathy") else version)

    assert isinstance(verdict, Left)
    assert reason == verdict.reason
    assert verdict.detail


def test_a_refused_call_costs_nothing_under_any_version():
    """It is no gap in the diff either."""
    assert isinstance(Story(make_call({}, basis=Basis.NONE)).verdict("v2"), Unbilled)


def test_a_record_that_says_nothing_is_found_by_its_price():
    """Records from before the fields were written are priced as the version they name says."""
    record = make_call({"input": 9, "output": 3}, tier="flex", is_old=True)
    made = Story(record).rerate("v2")

    assert made is not None
    assert ("flex", "m") == (made.tier, made.priced_model)


def test_a_snapshot_with_a_price_of_its_own_by_now_is_priced_by_it():
    """It was priced as the model it is a snapshot of when it was served."""
    record = make_call({"input": 1000})
    named = msgspec.structs.replace(record, model="m-2026-01-01")
    verdict = Story(named).verdict("v1")

    assert isinstance(verdict, Repriced)
    assert ("m", False) == (verdict.priced.model, verdict.is_changed)
    assert BOOKS["v1"].find_model("p", "m-2026-01-01") is None
