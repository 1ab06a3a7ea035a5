"""Published versions: content-addressed, loaded in part, and refused when edited."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from pricing.agreements import Payer
from pricing.book import (
    AGREEMENTS,
    BookBroken,
    Manifest,
    agreements_digest,
    describe_version,
    digest_of,
    load_agreements,
    load_book,
    object_name,
    read_versions,
)
from pricing.hours import parse_hours
from pricing.rows import agreements_text, prices_text
from tests.pricing.cards import LATER, START, entry, override, rate


def publish(catalog, *versions):
    """Write versions the way they are shipped: (name, provider -> amount, overrides)."""
    (catalog / "objects").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (name, amounts, overrides) in enumerate(versions):
        manifest = {}
        for provider, amount in amounts.items():
            models, rates = [entry(provider=provider)], [rate("input", amount, provider=provider)]
            manifest[provider] = digest_of(models, rates)
            put(catalog, provider, manifest[provider], prices_text(models, rates))
        agreed = agreements_digest(overrides) if overrides else None
        if agreed is not None:
            put(catalog, AGREEMENTS, agreed, agreements_text(overrides))
        recorded_at = START + timedelta(days=number)
        version = describe_version(
            name, Manifest(providers=manifest, agreements=agreed), recorded_at=recorded_at
        )
        rows.append(
            {
                "version": name,
                "digest": version.digest,
                "recorded_at": version.recorded_at.isoformat(),
                "note": "",
                "providers": manifest,
                "agreements": agreed,
            }
        )
    (catalog / "versions.json").write_text(json.dumps(rows), "utf-8")
    return catalog


def put(catalog, name, digest, text):
    (catalog / "objects" / object_name(name, digest)).write_text(text, "utf-8")


def edit(catalog, provider, old, new):
    (path,) = (catalog / "objects").glob(f"{provider}.*")
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


def test_the_newest_version_is_taken_unless_named(tmp_path):
    """An old version stays available, with the prices it always had."""
    publish(tmp_path, ("v1", {"p": "1"}, ()), ("v2", {"p": "2"}, ()))

    assert "v2" == load_book(catalog=tmp_path).version.version
    assert Decimal(1) == load_book("v1", tmp_path).rates[0].amount


def test_versions_share_what_did_not_change(tmp_path):
    """A content is kept once, however many versions consist of it."""
    publish(tmp_path, ("v1", {"p": "1", "q": "1"}, ()), ("v2", {"p": "2", "q": "1"}, ()))

    assert 3 == len(list((tmp_path / "objects").iterdir()))


def test_a_part_of_a_version_can_be_loaded(tmp_path):
    """Only the providers asked for are read and checked; unknown ones are passed over."""
    publish(tmp_path, ("v1", {"p": "1", "q": "1"}, ()))
    edit(tmp_path, "q", '"1"', '"2"')
    book = load_book(catalog=tmp_path, providers=["p", "nobody"])

    assert frozenset({"p"}) == book.providers
    assert {"p", "q"} == set(book.version.manifest.providers)
    assert book.find_card("q", "m", START) is None
    with pytest.raises(BookBroken, match="was edited after it was published"):
        load_book(catalog=tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            '"amount": "1"',
            '"amount": "2"',
            r"the content of p\.\w+\.json is sha256:.*publish a new",
        ),
        ('"m"', '"n"', "was edited after it was published"),
        ('"amount": "1"', '"amount": "one"', r"p\.\w+\.json: m: rate 1: 'one' is not a decimal"),
    ],
)
def test_an_edited_version_is_refused(tmp_path, old, new, problem):
    """A published price that was changed in place no longer matches its digest."""
    publish(tmp_path, ("v1", {"p": "1"}, ()))
    edit(tmp_path, "p", old, new)

    with pytest.raises(BookBroken, match=problem):
        load_book(catalog=tmp_path)


def test_every_broken_content_is_said_at_once(tmp_path):
    """Broken prices do not hide broken agreements, nor text that is no text."""
    publish(tmp_path, ("v1", {"p": "1", "q": "1"}, [override()]))
    edit(tmp_path, "p", '"1"', '"2"')
    edit(tmp_path, AGREEMENTS, '"-15"', '"-16"')
    (path,) = (tmp_path / "objects").glob("q.*")
    path.write_bytes(b"\xff")

    with pytest.raises(BookBroken) as caught:
        load_book(catalog=tmp_path)
    assert 3 == len(caught.value.problems)


def test_an_edited_manifest_is_refused(tmp_path):
    """A version cannot be made to consist of something else."""
    publish(tmp_path, ("v1", {"p": "1"}, ()), ("v2", {"p": "2"}, ()))
    path = tmp_path / "versions.json"
    rows = json.loads(path.read_text("utf-8"))
    rows[0]["providers"] = rows[1]["providers"]
    path.write_text(json.dumps(rows), "utf-8")

    with pytest.raises(BookBroken, match="v1 was edited after it was published: its manifest is"):
        read_versions(tmp_path)


def test_agreements_belong_to_a_version(tmp_path):
    """They are loaded with its prices, or alone, and a version without any has none."""
    publish(tmp_path, ("v1", {"p": "2"}, ()), ("v2", {"p": "2"}, [override(team="a")]))
    at = START + timedelta(days=1)
    card = load_book(catalog=tmp_path).find_card("p", "m", at, Payer("acme", "a", "x"))

    assert () == load_agreements("v1", tmp_path)
    assert (override(team="a"),) == load_agreements(catalog=tmp_path)
    assert [("1.7", "2")] == [(c.amount_text, c.listed.amount_text) for c in card.all_prices()]


def test_a_version_says_from_when_it_is_used(tmp_path):
    """From the instant it was recorded, unless it says another."""
    publish(tmp_path, ("v1", {"p": "1"}, ()))
    path = tmp_path / "versions.json"
    (row,) = json.loads(path.read_text("utf-8"))
    path.write_text(
        json.dumps([row, {**row, "version": "v2", "effective_from": "2027-01-01T00:00Z"}])
    )
    first, second = read_versions(tmp_path)

    assert (START, START) == (first.recorded_at, first.effective_from)
    assert datetime(2027, 1, 1, tzinfo=UTC) == second.effective_from


def test_a_version_that_does_not_exist_is_refused_with_those_that_do(tmp_path):
    """The message lists what could have been meant."""
    with pytest.raises(BookBroken, match="no price book version v9; there are: v1"):
        load_book("v9", publish(tmp_path, ("v1", {"p": "1"}, ())))


def test_two_versions_of_one_name_are_refused(tmp_path):
    """A name stands for one set of prices."""
    with pytest.raises(BookBroken, match="listed twice"):
        read_versions(publish(tmp_path, ("v1", {"p": "1"}, ()), ("v1", {"p": "1"}, ())))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '[{"version": "v1"}]',
        '[{"version":"v","digest":"d","recorded_at":"2026-01-01"}]',
        '[{"version":"v","digest":"d","recorded_at":"2026-01-01T00:00Z","note":"","providers":3}]',
    ],
)
def test_a_list_of_versions_of_another_shape_is_refused(tmp_path, text):
    """The message names the file."""
    (tmp_path / "versions.json").write_text(text, "utf-8")

    with pytest.raises(BookBroken, match=r"versions\.json"):
        read_versions(tmp_path)


def test_the_digest_covers_what_changes_a_bill_and_nothing_else():
    """Order, spelling of an amount, source page and day of the check do not count."""
    models = [entry("m", aliases=["a", "b"]), entry("n")]
    rates = [rate("input", "1"), rate("output", "2", valid_to=LATER)]
    same = digest_of(models, rates)

    assert same == digest_of(
        [entry("n"), entry("m", aliases=["b", "a"])],
        [
            rate("output", "2.00", valid_to=LATER, source="elsewhere"),
            rate("input", "1.0", checked_at=date(2026, 2, 2)),
        ],
    )
    assert same != digest_of(models, [rate("input", "1"), rate("output", "2")])
    assert same != digest_of(models, [rate("input", "1.1"), rates[1]])
    assert same != digest_of(models[:1], rates)
    assert same != digest_of([entry("m", limits=(1, 1)), entry("n")], rates)


@pytest.mark.parametrize(
    "changes",
    [
        {"tier": "batch"},
        {"over": 5},
        {"region": "us"},
        {"variant": "us"},
        {"hours": parse_hours("daily 00:00-08:00 UTC")},
        {"per": 1000},
        {"valid_from": LATER},
    ],
    ids=str,
)
def test_every_dimension_of_a_price_is_in_its_digest(changes):
    """Two prices that differ anywhere are two contents, a region and a variant of one name too."""
    others = [{}, {"region": "us"}, {"variant": "us"}]
    digests = {digest_of([], [rate("input", "1", **c)]) for c in (*others, changes)}

    assert (4 if changes not in others else 3) == len(digests)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"organization": "x"},
        {"team": "x"},
        {"project": "x"},
        {"provider": "p"},
        {"meter": "input"},
        {"tier": "batch"},
        {"over": 1},
        {"region": "us"},
        {"variant": "us"},
        {"percent": "-16"},
        {"valid_from": LATER},
        {"valid_to": LATER},
    ],
    ids=str,
)
def test_every_part_of_an_agreement_is_in_its_digest(changes):
    """The reason is for people and does not count."""
    same = agreements_digest([override()])

    assert same == agreements_digest([override(why="another letter", percent="-15.0")])
    assert same != agreements_digest([override(**changes)])
