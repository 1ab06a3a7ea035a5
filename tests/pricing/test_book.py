"""The book: dated look-up, names, and everything it refuses - all of it at once."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.book import BookBroken, read_catalog
from pricing.hours import parse_hours
from pricing.meters import Meter
from pricing.rates import RateRefused
from pricing.rows import parse_prices, prices_text
from tests.pricing.cards import LATER, START, book_of, entry, rate

ALWAYS = "2026-01-01T00:00:00+00:00"
ROW = {
    "meter": "input",
    "amount": "2.50",
    "per": 1_000_000,
    "valid_from": ALWAYS,
    "source": "https://example.com/pricing",
    "checked_at": "2026-01-02",
}


def row(**changes):
    return {name: value for name, value in (ROW | changes).items() if value is not ...}


def model(name="m", *rows, **changes):
    return {"model": name, "rates": list(rows or [ROW])} | changes


def write(folder, *models, file="p.json", **head):
    document = {"provider": "p", "currency": "USD", "models": list(models)} | head
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(document), "utf-8")
    return folder


def problems_in(folder) -> tuple[str, ...]:
    with pytest.raises(BookBroken) as caught:
        read_catalog(folder)
    return caught.value.problems


# --- dated look-up


DATED = book_of(
    rate("input", "2", valid_to=LATER),
    rate("input", "1", valid_from=LATER),
    rate("output", "10"),
)


@pytest.mark.parametrize(
    ("at", "amount"),
    [
        (START, "2"),
        (LATER - timedelta(microseconds=1), "2"),
        (LATER, "1"),
        (datetime(2036, 1, 1, tzinfo=UTC), "1"),
    ],
    ids=str,
)
def test_a_price_holds_from_its_instant_on(at, amount):
    """The old price holds to the last microsecond, the new one from its first."""
    card = DATED.find_card("p", "m", at)

    assert amount == card.rates["standard", None, Meter.INPUT][0].amount_text
    assert "10" == card.rates["standard", None, Meter.OUTPUT][0].amount_text


@given(st.timedeltas(min_value=timedelta(days=-999), max_value=timedelta(days=9999)))
def test_a_call_never_sees_a_price_before_its_time(after):
    """At any instant the card holds exactly the prices whose span includes it."""
    at = LATER + after
    card = DATED.find_card("p", "m", at)
    held = [] if card is None else [c.rate for bands in card.rates.values() for c in bands]

    assert sorted(r.price_id for r in DATED.rates if r.holds_at(at)) == sorted(
        r.price_id for r in held
    )
    assert all(r.valid_from <= at for r in held)


def test_cards_say_from_when_to_when_they_hold():
    """One card from each change of any price to the next."""
    first, second = (DATED.find_card("p", "m", at) for at in (START, LATER))

    assert (START, LATER) == (first.valid_from, first.valid_to)
    assert (LATER, None) == (second.valid_from, second.valid_to)
    assert first is DATED.find_card("p", "m", LATER - timedelta(days=1))


def test_a_model_whose_prices_ended_has_no_card():
    """After the last price ended, as before the first began, there is none."""
    book = book_of(rate("input", "2", valid_to=LATER))

    assert book.find_card("p", "m", START - timedelta(days=1)) is None
    assert book.find_card("p", "m", LATER) is None


def test_a_model_without_prices_has_no_card():
    """A model the book knows and does not price is unpriced, not free."""
    assert book_of(models=[entry()]).find_card("p", "m", START) is None


def test_names_and_snapshots_lead_to_one_model():
    """An alias has the card of its model; other names have none."""
    book = book_of(rate("input", "2"), models=[entry(aliases=["m-2026"]), entry("n", provider="q")])

    assert book.find_card("p", "m", START) is book.find_card("p", "m-2026", START)
    assert "m" == book.find_model("p", "m-2026").model
    assert book.find_model("p", "other") is None
    assert book.find_model("q", "m") is None
    assert book.find_card("p", "other", START) is None
    assert frozenset({"p", "q"}) == book.providers


def test_a_card_knows_its_tiers_and_finds_single_prices():
    """Prices can be asked for one by one, with the same fallbacks as a bill."""
    card = book_of(
        rate("input", "2"),
        rate("input", "4", over=100),
        rate("input", "1", tier="flex"),
        rate("input", "3", region="us"),
    ).find_card("p", "m", START)
    find = card.find_rate

    assert frozenset({"standard", "flex"}) == card.tiers
    assert "4" == find(Meter.INPUT, tier="standard", region=None, input_total=101).amount_text
    assert "3" == find(Meter.CACHE_READ, tier="standard", region="us", input_total=1).amount_text
    assert "1" == find(Meter.INPUT, tier="flex", region="us", input_total=101).amount_text
    assert find(Meter.OUTPUT, tier="standard", region=None, input_total=1) is None
    assert find(Meter.INPUT, tier="bogus", region=None, input_total=1) is None


def test_price_ids_name_what_changes_the_price():
    """Tier, context band and region class are part of the name of a price."""
    assert "p/m/input/standard" == rate("input", "1").price_id
    assert "p/m/input/flex/over_272000/us" == (
        rate("input", "1", tier="flex", over=272_000, region="us").price_id
    )
    assert "p/m/image/standard/us/1024x1024/hd/hours_mon-fri_0900-1730_Asia.Shanghai" == (
        rate(
            "image",
            "1",
            region="us",
            variant="1024x1024/hd",
            hours=parse_hours("mon-fri 09:00-17:30 Asia/Shanghai"),
        ).price_id
    )


# --- what a rate refuses


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount": Decimal("0.1234567891")}, "more than nine decimals"),
        ({"amount": Decimal("NaN")}, "more than nine decimals"),
        ({"amount": Decimal("1000000000.01")}, "is above 10.9: no price is"),
        ({"tier": ""}, "a model, tier, region or variant has a name"),
        ({"variant": ""}, "a model, tier, region or variant has a name"),
        ({"amount": Decimal("-1")}, "is negative"),
        ({"per": 0}, "per 0 is below one"),
        ({"over": -1}, "over -1 is below zero"),
        ({"valid_from": START.replace(tzinfo=None)}, "need a time zone"),
        ({"valid_to": LATER.replace(tzinfo=None)}, "need a time zone"),
        ({"valid_to": START}, "before it starts"),
    ],
    ids=str,
)
def test_what_cannot_be_a_price_is_refused(changes, reason):
    """The message names the price."""
    with pytest.raises(RateRefused, match=rf"p/m/input/.*: .*{reason}"):
        rate("input", changes.pop("amount", "1"), **changes)


def test_nine_decimals_are_a_price():
    """The finest amount that is still taken for one."""
    assert Decimal("0.123456789") == rate("input", "0.123456789").amount


# --- what a book refuses


@pytest.mark.parametrize(
    ("rates", "problem"),
    [
        ([rate("input", "2"), rate("input", "1", valid_from=LATER)], "give it a valid_to"),
        (
            [
                rate("input", "2", valid_to=LATER + timedelta(seconds=1)),
                rate("input", "1", valid_from=LATER),
            ],
            "still holds when",
        ),
        ([rate("input", "2"), rate("input", "2")], "still holds when"),
        ([rate("input", "2"), rate("output", "2", currency="EUR")], "currency: EUR, USD"),
        ([rate("input", "2", model="other")], "p/other/input/standard: its model has no entry"),
        (
            [
                rate("input", "2", hours=parse_hours("daily 08:00-12:00 UTC")),
                rate("input", "1", hours=parse_hours("fri 11:59-13:00 UTC")),
            ],
            "its hours overlap those of p/m/input/standard/hours_",
        ),
        (
            [rate("input", "2", region="hd"), rate("input", "1", variant="hd")],
            "p/m/input/standard/hd: is also the name of another price",
        ),
    ],
    ids=[
        "open end",
        "one second too long",
        "twice",
        "two currencies",
        "no entry",
        "hours overlap",
        "one name for two",
    ],
)
def test_prices_that_contradict_each_other_are_refused(rates, problem):
    """Two prices for one thing at one instant never load."""
    with pytest.raises(BookBroken, match=problem):
        book_of(*rates)


def test_every_contradiction_is_said_at_once():
    """One problem does not hide the next."""
    with pytest.raises(BookBroken) as caught:
        book_of(
            rate("input", "2"),
            rate("input", "1", valid_from=LATER),
            rate("output", "1", model="other"),
        )

    assert 2 == len(caught.value.problems)


@pytest.mark.parametrize(
    "models",
    [
        [entry("a", aliases=["x"]), entry("b", aliases=["x"])],
        [entry("a"), entry("b", aliases=["a"])],
        [entry("a"), entry("a")],
        [entry("a", aliases=["a"])],
    ],
    ids=["alias of two", "alias is a model", "model twice", "own alias"],
)
def test_a_name_belongs_to_one_model(models):
    """A name claimed twice would be priced by chance."""
    with pytest.raises(BookBroken, match="is claimed by a and"):
        book_of(models=models)


# --- files


def test_a_catalog_is_read_as_written(tmp_path):
    """Amounts, dates, bands, tiers and limits come through; what is left out has its default."""
    write(
        tmp_path,
        model(
            "m",
            row(valid_to="2026-02-01T00:00:00+02:00"),
            row(meter="output", tier="flex", over=7, region="us", per=1),
            row(meter="image", variant="4k", hours="sat,sun 00:00-08:00 UTC"),
            aliases=["m-1"],
            context_tokens_max=10,
        ),
    )
    models, (first, second, third) = read_catalog(tmp_path)

    assert [entry("m", aliases=["m-1"], limits=(10, None))] == models
    assert (Decimal("2.50"), "standard", None, None) == (
        first.amount,
        first.tier,
        first.over,
        first.region,
    )
    assert datetime(2026, 1, 31, 22, tzinfo=UTC) == first.valid_to
    assert ("flex", 7, "us", 1) == (second.tier, second.over, second.region, second.per)
    assert date(2026, 1, 2) == second.checked_at
    assert ("4k", "sat,sun 00:00-08:00 UTC") == (third.variant, str(third.hours))


def test_what_rows_share_is_stated_once(tmp_path):
    """A default of the file or of the model holds where a row says nothing else."""
    shared = {name: ROW[name] for name in ("per", "valid_from", "source", "checked_at")}
    bare = {"meter": "input", "amount": "1"}
    write(
        tmp_path,
        model("m", bare, {**bare, "meter": "output", "per": 3}, defaults={"per": 7}),
        defaults=shared,
    )
    _, (first, second) = read_catalog(tmp_path)

    assert (7, 3) == (first.per, second.per)
    assert ROW["source"] == first.source


def test_what_is_written_is_read_back(tmp_path):
    """Every field of a model and a rate survives, and the text does not depend on the order."""
    models = [entry("m", aliases=["m-1"]), entry("n", limits=(None, None)), entry("bare")]
    rates = [
        rate("input", "2", valid_to=LATER),
        rate("input", "1.50", valid_from=LATER, per=7, over=9),
        rate("image", "0.04", variant="4k", tier="batch", region="us", source="elsewhere"),
        rate("output", "1", model="n", hours=parse_hours("daily 16:30-00:30 UTC")),
    ]
    text = prices_text(models, rates)
    read = parse_prices("p.json", text)

    assert text == prices_text(models[::-1], rates[::-1])
    assert (sorted(models, key=str), sorted(rates, key=str)) == (
        sorted(read.models, key=str),
        sorted(read.rates, key=str),
    )


@pytest.mark.parametrize(
    ("models", "rates"),
    [
        ([], []),
        ([entry(), entry(provider="q")], []),
        ([entry()], [rate("input", "1"), rate("output", "1", currency="EUR")]),
    ],
    ids=["nothing", "two providers", "two currencies"],
)
def test_a_file_is_of_one_provider_and_one_currency(models, rates):
    """Anything else cannot be written."""
    with pytest.raises(ValueError, match="one provider and one currency"):
        prices_text(models, rates)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"amount": 2.5}, "write 2.5 as text: prices are never floats"),
        ({"amount": 2}, "write the number as text, not int: 2"),
        ({"amount": "2,5"}, "'2,5' is not a decimal number"),
        ({"amount": "0.0000000001"}, "has more than nine decimals"),
        ({"amount": ...}, "the field 'amount' is missing"),
        ({"meter": "tokens"}, "'tokens' is not a valid Meter"),
        ({"per": "1000"}, "per is a whole number of at least zero, not '1000'"),
        ({"per": ...}, "per 0 is below one"),
        ({"over": True}, "over is a whole number of at least zero, not True"),
        ({"valid_from": "2026-01-01"}, "2026-01-01 needs a time zone"),
        ({"valid_from": "soon"}, "Invalid isoformat string: 'soon'"),
        ({"valid_to": ""}, "Invalid isoformat string: ''"),
        ({"price": "1"}, "unknown fields ['price']"),
        ({"source": ...}, "the field 'source' is missing"),
        ({"source": 5}, "source is text, not 5"),
        ({"amount": "-0.01"}, "-0.01 is negative"),
        ({"amount": "NaN"}, "'NaN' is not a finite number"),
        ({"amount": "1e10"}, "1E+10 is above 10^9: no price is"),
        ({"amount": float("nan")}, "write NaN as text: prices are never floats"),
        ({"variant": 4}, "variant is text, not 4"),
        ({"tier": ""}, "tier is text, not ''"),
        ({"hours": "at night"}, "hours are written mon-fri 16:30-00:30 Asia/Shanghai"),
        ({"hours": "daily 25:00-26:00 UTC"}, "25:00 is not a time of day"),
        ({"hours": "daily 01:00-02:00 Mars/Olympus"}, "'Mars/Olympus' is not an IANA time zone"),
        ({"checked_at": "yesterday"}, "Invalid isoformat string: 'yesterday'"),
    ],
    ids=str,
)
def test_a_broken_rate_is_refused_with_its_place(tmp_path, changes, problem):
    """File, model and number of the rate stand before what is wrong with it."""
    (said,) = problems_in(write(tmp_path, model("m", row(meter="output"), row(**changes))))

    assert problem in said
    assert said.startswith("p.json: m: rate 2: ")


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (model(colour="red"), "model 1: unknown fields ['colour']"),
        (model(context_tokens_max=-1), "model 1: context_tokens_max is a whole number"),
        (model(output_tokens_max="many"), "model 1: output_tokens_max is a whole number"),
        (model(aliases="m-1"), "model 1: m: rates and aliases are lists"),
        (model(rates={}), "model 1: m: rates and aliases are lists"),
        ({"model": "m"}, "model 1: the field 'rates' is missing"),
        ({"rates": []}, "model 1: the field 'model' is missing"),
        ("m", "model 1: write an object, not 'm'"),
        (model(aliases=[1]), "model 1: m: aliases are names, not [1]"),
        (model(defaults={"meter": "input"}), "model 1: unknown fields ['meter']"),
        (model("m", 5), "m: rate 1: write an object, not 5"),
        (model("m", ROW, ROW), "m: rate 2: p/m/input/standard: the price from 2026-01-01"),
        (
            model("m", row(valid_from="2026-02-01T00:00:00Z"), ROW),
            "m: rate 2: p/m/input/standard: the price from 2026-01-01",
        ),
    ],
    ids=str,
)
def test_a_broken_model_is_refused_with_its_place(tmp_path, broken, problem):
    """File and number of the model stand before what is wrong with it."""
    assert (f"p.json: {problem}",) == tuple(
        said[: len(f"p.json: {problem}")] for said in problems_in(write(tmp_path, broken))
    )


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"provider": "p", "currency": "USD"}',
        '{"models": []}',
        '{"models": 1}',
        '{"provider": "p", "currency": "USD", "models": 1}',
        '{"provider": "../p", "currency": "USD", "models": []}',
        '{"provider": "p", "currency": "dollars", "models": []}',
        '{"provider": "p", "currency": "USD", "models": [], "colour": "red"}',
        '{"provider": "p", "provider": "q", "currency": "USD", "models": []}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_a_file_that_is_no_catalog_is_refused(tmp_path, text):
    """Neither broken JSON nor JSON of another shape ends the reading of the other files."""
    (tmp_path / "a.json").write_text(text, "utf-8")
    write(tmp_path, model("m", row(per=...)))
    (tmp_path / "z.json").write_bytes(b"\xff")
    said = problems_in(tmp_path)

    assert ["a.json", "p.json", "z.json"] == [problem.split(":")[0] for problem in said]


def test_every_problem_is_said_at_once(tmp_path):
    """Broken rows, names claimed twice and overlaps of several files stand in one list."""
    write(
        tmp_path,
        model("m", row(amount="-1"), row(meter="tokens"), row(meter="output")),
        model("n", row(), row(), row(meter="output", valid_from="2026-05-01T00:00:00Z")),
        model("n", row(meter="output", valid_to="2026-06-01T00:00:00Z")),
        file="a.json",
    )
    write(
        tmp_path,
        model("m", row(), row(amount="7", valid_from="2027-01-01T00:00:00Z")),
        model("o", aliases=["m"]),
        file="b.json",
        provider="q",
    )

    assert [
        "a.json: m: rate 1: ",
        "a.json: m: rate 2: ",
        "q: the name 'm' is claimed by",
        "b.json: m: rate 2: q",
    ] == [
        problem[: len(start)]
        for problem, start in zip(
            problems_in(tmp_path),
            [
                "a.json: m: rate 1: ",
                "a.json: m: rate 2: ",
                "q: the name 'm' is claimed by",
                "b.json: m: rate 2: q",
            ],
            strict=True,
        )
    ]
