"""Prices set, agreed, imported, compared and approved on the command line."""

import json
import re

import pytest

from gateway.ledger.store import open_engine
from gateway.prices.store import PriceStore
from pricing.importers.litellm_map import find_litellm_map
from tests.cli.shell import Shell
from tests.pricing.test_versions import publish

WHY = ("--why", "contract 7")
SET = ("prices", "set", "openai/gpt-5", "input", "1.10", *WHY)

TEAMS = """
organization: acme
providers:
  openai: {kind: openai, api_key: x}
teams:
  - {id: search, projects: [{id: rag}]}
"""


@pytest.fixture
def shell(tmp_path):
    """Start without a database."""
    return Shell(tmp_path)


def versions(shell):
    """What there is, by name."""
    found = json.loads(shell.run("prices", "versions", "--json").out)
    return {one["version"]: one for one in found}


def input_price(shell, *more):
    """The price of input now."""
    shown = json.loads(shell.run("prices", "show", "openai/gpt-5", *more, "--json").out)
    (row,) = [r for r in shown if (r["meter"], r["tier"]) == ("input", "standard")]
    return row


def test_a_price_that_is_set_is_in_force(shell):
    """The shipped version stays, and the list says who changed what."""
    answer = shell.run(*SET)
    found = versions(shell)
    (mine,) = [one for one in found.values() if one["origin"] == "operator"]

    assert 0 == answer.code, answer.err
    assert f"price book  {mine['version']}" in answer.out
    assert (True, "contract 7") == (mine["is_current"], mine["why"])
    assert ("1.10", mine["version"]) == (
        input_price(shell)["amount"],
        input_price(shell)["version"],
    )
    assert "current" in shell.run("prices", "versions").out
    assert {"shipped", "operator"} == {one["origin"] for one in found.values()}
    shell.run("estimate", "--model", "openai/gpt-5", "--usage", "input=1000000")


def test_an_agreement_is_made_and_ended(shell):
    """On the command line as over the API."""
    made = shell.run("prices", "override", "o1", "--team", "search", "--percent", "-15", *WHY)
    assert 0 == made.code, made.err
    assert "1.0625" == input_price(shell, "--team", "search")["amount"]

    assert 0 == shell.run("prices", "end-override", "o1", "--at", "2026-01-01", *WHY).code
    assert "1.25" == input_price(shell, "--team", "search")["amount"]


def test_a_price_to_come_is_shown_and_listed_as_scheduled(shell):
    """What carries today's change into it is marked, and says when it is in force."""
    shell.run(*SET, "--effective-from", "2099-01-01")
    shell.run("prices", "override", "o1", "--team", "search", "--percent", "-15", *WHY)
    listed = shell.run("prices", "versions").out.splitlines()
    found = versions(shell)
    waits, today, carries = [n for n, one in found.items() if one["origin"] == "operator"]
    by_name = {line.split()[0]: line for line in listed}

    assert ["VERSION", "STATUS", "IN", "FORCE", "FROM", "TO"] == listed[0].split()[:6]
    assert f"scheduled as part of {carries}" in by_name[waits]
    assert f"scheduled, carries {today}" in by_name[carries]
    assert "2099-01-01T00:00:00Z" in by_name[carries]
    assert "current" in by_name[today]
    assert "past" in by_name["2026-11-23.2"]
    assert ("1.25", "1.10") == (
        input_price(shell)["amount"],
        input_price(shell, "--at", "2099-01-01")["amount"],
    )
    shown = shell.run("prices", "show", "openai/gpt-5", "--at", "2099-01-01").out
    assert f"price book {carries}, in force from 2099-01-01T00:00:00Z" in shown


def test_an_agreement_with_nobody_is_noted_and_made(shell):
    """The name may be misspelt, or its team may come later."""
    (shell.folder / "taximeter.yaml").write_text(TEAMS, "utf-8")
    made = shell.run("prices", "override", "a", "--team", "saerch", "--percent", "-15", *WHY)
    assert 0 == made.code
    assert "note: no team saerch yet: nobody gets this rate before; there are search\n" == made.err

    payer = ("--organization", "amce", "--team", "search", "--project", "rga")
    made = shell.run("prices", "override", "b", *payer, "--percent", "-15", *WHY)
    assert ["organization amce", "project rga"] == [
        line.partition("note: no ")[2].partition(" yet")[0] for line in made.err.splitlines()
    ]
    payer = ("--organization", "acme", "--team", "search", "--project", "rag")
    assert "" == shell.run("prices", "override", "c", *payer, "--percent", "-15", *WHY).err
    assert {"a", "b", "c"} == set(re.findall(r"^([abc])  ", explained(shell), re.M))


def explained(shell):
    """Why input has its price."""
    return shell.run("prices", "show", "openai/gpt-5", "--why", "input").out


def test_what_was_agreed_is_hinted_at(shell):
    """Whoever asks for the published prices may be somebody who does not pay them."""
    assert "agreed" not in shell.run("prices", "show", "openai/gpt-5").err
    for team in ("search", "ads"):
        shell.run("prices", "override", team, "--team", team, "--percent", "-15", *WHY)

    hint = "2 agreed rates apply to some payers: --team ads, --team search\n"
    assert hint == shell.run("prices", "show", "openai/gpt-5").err
    assert "" == shell.run("prices", "show", "openai/gpt-5", "--team", "search").err
    assert "" == shell.run("prices", "show", "openai/gpt-5", "--json").err


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("set gpt-5 input 1 --why x", 2, "is not provider/model"),
        ("set openai/gtp-5 input 1 --why x", 2, "say new_model"),
        ("set openai/gpt-5 input x --why x", 2, "amount: 'x' is not"),
        ("set openai/gpt-5 input 1.25 --why x", 1, "change nothing"),
        ("set openai/gpt-5 input 1", 2, "--why"),
        ("set openai/gpt-5 inptu 1 --why x", 2, "not a meter"),
        ("override o1 --why x", 2, "percent or an amount"),
        ("end-override o1 --why x", 1, "no override 'o1'"),
        ("diff", 1, "there is no candidate"),
        ("diff v9", 1, "no price book version v9"),
        ("approve v9 --why x", 1, "no price book version v9"),
        ("import --source nowhere.json", 1, "nowhere.json"),
    ],
)
def test_a_refusal_is_a_sentence(shell, line, code, says):
    """With its mend, and the exit code of its kind."""
    answer = shell.run("prices", *line.split())

    assert code == answer.code, answer
    assert says in answer.err


def test_lists_that_say_the_same_change_nothing(shell):
    """The shipped catalog is what the import makes."""
    answer = shell.run("prices", "import", "--source", "litellm")

    assert 0 == answer.code, answer.err
    assert "nothing changes" in answer.out


def test_a_candidate_is_compared_approved_and_rejected(shell, tmp_path):
    """Nothing is in force before somebody said so."""
    row = {
        "litellm_provider": "openai",
        "mode": "chat",
        "input_cost_per_token": 0.000002,
        "output_cost_per_token": 0.000008,
    }
    (tmp_path / "list.json").write_text(json.dumps({"gpt-made-up": row}), "utf-8")
    shrunk = shell.run("prices", "import", "--source", "list.json")
    assert 1 == shrunk.code
    assert "models are gone" in shrunk.err

    installed = json.loads(_installed_map())
    installed["gpt-made-up"] = row
    (tmp_path / "list.json").write_text(json.dumps(installed), "utf-8")
    made = shell.run("prices", "import", "--source", "list.json", "--json")
    assert 0 == made.code, made.err
    name = json.loads(made.out)["candidate"]["version"]
    found = json.loads(shell.run("prices", "diff", "--json").out)
    assert name == found["to"]
    assert "openai/gpt-made-up/input/standard" in {c["price_id"] for c in found["changes"]}
    assert "cost of 30 days" in shell.run("prices", "diff", name).out

    assert 1 == shell.run("prices", "show", "openai/gpt-made-up").code
    assert 0 == shell.run("prices", "approve", name, *WHY).code
    assert 0 == shell.run("prices", "show", "openai/gpt-made-up").code
    again = shell.run("prices", "reject", name, *WHY)
    assert (1, True) == (again.code, "already" in again.err)


def test_an_import_says_what_it_keeps_of_prices_set_by_hand(shell):
    """And which of them the lists are at odds with; they win where they are asked to."""
    shell.run(*SET)
    shell.run("prices", "set", "openai/gpt-5", "input", "0.1", "--tier", "mine", *WHY)
    read = ("prices", "import", "--source", "litellm")
    answer = shell.run(*read)

    assert "prices set by hand: 2 kept; the lists say otherwise of 1, --replace-own" in answer.out
    assert re.search(r"openai/gpt-5/input/standard +1.10 .* 1.25 ", answer.out)
    assert "nothing changes" in answer.out

    replacing = shell.run(*read, "--replace-own")
    assert "prices set by hand: 1 replaced, 1 kept; the lists say otherwise of 0" in replacing.out
    assert "prices set by hand that it keeps: 1" in shell.run("prices", "diff").out
    (kept,) = json.loads(shell.run("prices", "diff", "--json").out)["kept"]
    assert ("openai/gpt-5/input/mine", None) == (kept["price_id"], kept["list_amount"])


def test_a_page_that_is_called_like_a_list_is_still_somebodys_price(shell):
    """Else the next list would replace it."""
    shell.run(*SET, "--source", "litellm 1.0 says so")

    found = input_price(shell)["source"]
    assert re.fullmatch(r"cli:.*: litellm 1.0 says so", found)


def test_a_broken_list_is_refused_with_file_and_row(shell, tmp_path):
    """The last good version stays."""
    (tmp_path / "list.json").write_text("{", "utf-8")
    answer = shell.run("prices", "import", "--source", "list.json")

    assert 1 == answer.code
    assert "list.json" in answer.err
    assert {"approved"} == {one["status"] for one in versions(shell).values()}


def _installed_map() -> str:
    path = find_litellm_map()
    assert path is not None
    return path.read_text("utf-8")


def test_doctor_tells_of_prices_that_wait(shell, tmp_path):
    """An upgrade brought them, and an operator has changed prices here."""
    shell.run(*SET)
    assert "is in force, 4 versions known" in shell.run("doctor").out
    catalog = publish(tmp_path / "catalog", ("2027-01-01.1", {"p": "1"}, ()))
    engine = open_engine(f"sqlite:///{tmp_path}/data/taximeter.db")
    PriceStore(engine, catalog=catalog).record_shipped("taximeter 9.9")
    engine.dispose()

    said = shell.run("doctor").out

    assert "2027-01-01.1 came with taximeter 9.9 and waits" in said
    assert "taximeter prices diff 2027-01-01.1" in said
