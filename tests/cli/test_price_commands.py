"""prices and estimate: every figure is one that can be checked by hand."""

import json
from decimal import Decimal

import pytest

from tests.cli.shell import Shell


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def test_usage_is_rated_to_the_last_digit(shell):
    """224 x 1.25 + 1024 x 0.125 + 210 x 10 dollars per million."""
    answer = shell.run(
        *("estimate", "--model", "openai/gpt-5", "--at", "2026-11-23", "--json"),
        *("--usage", "input=224,cache_read=1024,output=146,reasoning=64"),
    )

    rated = json.loads(answer.out)
    assert rated["cost"] == "0.002508"
    assert [line["cost"] for line in rated["lines"]] == [
        "0.00028",
        "0.000128",
        "0.00146",
        "0.00064",
    ]
    assert rated["lines"][1]["price_id"] == "openai/gpt-5/cache_read/standard"


def test_bounds_are_in_order(shell):
    """low <= expected <= ceiling; expected is the plain price of all tokens."""
    answer = shell.run(
        *("estimate", "--model", "gpt-5", "--provider", "openai", "--at", "2026-11-23", "--json"),
        *("--input-tokens", "1_248", "--max-output-tokens", "500"),
    )

    bounds = json.loads(answer.out)
    assert bounds["low"]["cost"] == "0.000156"
    assert bounds["expected"]["cost"] == "0.00656"
    assert Decimal(bounds["expected"]["cost"]) <= Decimal(bounds["ceiling"]["cost"])


def test_the_table_and_json_agree(shell):
    """The same cost in both."""
    line = ("estimate", "--model", "openai/gpt-5", "--usage", "input=1000000")

    assert "\ncost 1.25 USD\n" in shell.run(*line).out
    assert json.loads(shell.run(*line, "--json").out)["cost"] == "1.25"


def test_prices_name_their_source(shell):
    """Price id, amount, per, tier, valid from, version and source of every rate in force."""
    rates = json.loads(shell.run("prices", "show", "openai/gpt-5", "--json").out)

    (plain,) = [r for r in rates if (r["meter"], r["tier"]) == ("input", "standard")]
    assert (plain["amount"], plain["per"], plain["currency"]) == ("1.25", "1000000", "USD")
    assert plain["source"].startswith("https://")
    assert plain["version"]
    table = shell.run("prices", "show", "openai/gpt-5", "--tier", "standard").out
    assert "openai/gpt-5/input/standard" in table
    assert "batch" not in table


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("prices show gtp-5 --provider openai", 1, "has no model gtp-5 of openai; did you mean"),
        ("prices show gpt-5 --at 1999-01-01", 1, "gpt-5 had no price yet"),
        ("prices show x --provider nobody", 1, "no prices for a provider 'nobody'"),
        ("estimate --model openai/gpt-5 --usage inptu=1", 2, "'inptu' is not a meter"),
        ("estimate --model openai/gpt-5 --usage input=1,input=2", 2, "input is given twice"),
        ("estimate --model openai/gpt-5 --usage input=-1", 2, "is not a whole number"),
        ("estimate --model openai/gpt-5 --usage input=1.5", 2, "is not a whole number"),
        ("estimate --model openai/gpt-5 --usage video_second=1.5", 1, "has no standard price"),
        ("estimate --model openai/gpt-5 --usage input=1 --tier gold", 1, "has no tier 'gold'"),
    ],
)
def test_no_price_is_an_answer(shell, line, code, says):
    """Unknown prices are named, never zero."""
    answer = shell.run(*line.split())

    assert (answer.code, answer.out) == (code, "")
    assert says in answer.err


def test_a_provider_of_the_settings_is_priced_as_they_say(shell):
    """--provider takes our own provider ids, too."""
    (shell.folder / "taximeter.yaml").write_text(
        "providers: {mine: {kind: openai, base_url: 'http://127.0.0.1:9/v1'}}\n"
    )

    answer = shell.run("estimate", "--model", "mine/gpt-5", "--usage", "input=1000000", "--json")

    assert json.loads(answer.out)["cost"] == "1.25"


def test_a_price_is_explained(shell):
    """Which rate applies, why, and what the others lost by; table and JSON say the same."""
    line = ("prices", "show", "gemini/gemini-2.5-pro", "--at", "2026-11-23", "--why", "input")
    longer = (*line, "--input-tokens", "250_000", "--team", "search")
    table = shell.run(*longer).out
    (found,) = json.loads(shell.run(*longer, "--json").out)

    assert ("2.5", "2.5", "1000000") == (found["amount"], found["list_amount"], found["per"])
    assert "gemini/gemini-2.5-pro/input/standard/over_200000" == found["price_id"]
    assert "the whole prompt has 250,000 tokens, more than 200,000" in found["reasons"]
    assert found["reasons"][0] in table
    assert "price       2.5 USD per 1,000,000\n" in table
    assert ["applies"] == [r["verdict"] for r in found["rates"] if r["name"] == found["price_id"]]
    columns = {row.index("USD") for row in table.splitlines() if "USD per" in row and "/" in row}
    assert all(rate["verdict"] in table for rate in found["rates"])
    assert len(columns) <= 4  # amounts of different length, the verdicts flush under one heading


def test_a_meter_without_a_price_says_so(shell):
    """The answer is no, and why."""
    answer = shell.run("prices", "show", "openai/gpt-5", "--why", "page")

    assert 1 == answer.code
    assert "price       none\n" in answer.out
    assert "page is never priced for this model" in answer.out


def test_a_column_nobody_needs_is_left_out(shell):
    """Bands are shown where there are any."""
    assert "PROMPT OVER" not in shell.run("prices", "show", "demo-chat").out
    assert "PROMPT OVER" in shell.run("prices", "show", "gemini-2.5-pro").out
