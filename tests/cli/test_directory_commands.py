"""teams, projects, keys and budgets on the command line, on a real database."""

import json
from pathlib import Path

import pytest

from gateway.callers import secret_digest
from gateway.directory import Directory
from gateway.ledger.store import open_engine
from gateway.settings import Settings
from tests.cli.shell import Shell

CONFIG = """\
teams:
  - id: fixed
    projects: [{id: fixed-p, keys: [{id: fixed-k, secret: sk-of-the-file-0123456789}]}]
"""


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def callers_of(folder: Path) -> dict[bytes, str]:
    engine = open_engine(f"sqlite:///{folder}/data/taximeter.db")
    try:
        snapshot = Directory(engine, Settings()).load_snapshot()
    finally:
        engine.dispose()
    return {digest: caller.key for digest, caller in snapshot.callers.items()}


def test_a_key_made_here_opens_the_gateway_until_it_is_revoked(shell):
    """What the command line writes is what the gateway's snapshot holds."""
    assert shell.run("teams", "create", "search", "--tag", "env=prod").code == 0
    assert shell.run("projects", "create", "rag", "--team", "search").code == 0
    made = shell.run("keys", "create", "ci", "--project", "rag", "--models", "openai/*,demo/*")

    secret = made.out.split("secret")[1].strip()
    assert secret.startswith("sk-tm-")
    assert {secret_digest(secret): "ci"} == callers_of(shell.folder)
    assert secret not in shell.run("keys", "show", "ci").out
    assert secret not in shell.run("keys", "list", "--json").out

    assert shell.run("keys", "revoke", "ci").out == "key ci revoked\n"
    assert callers_of(shell.folder) == {}


def test_json_holds_what_the_table_shows(shell):
    """--json is for programs: same entities, whole values."""
    shell.run("teams", "create", "search", "--name", "Search people")
    shell.run("projects", "create", "rag", "--team", "search", "--tag", "env=prod")
    made = shell.run(
        "keys", "create", "ci", "--project", "rag", "--expires-at", "2027-01-31", "--json"
    )

    key = json.loads(made.out)
    assert key["secret"].startswith("sk-tm-")
    assert (key["models"], key["expires_at"]) == (["*"], "2027-01-31T00:00:00Z")
    (team,) = json.loads(shell.run("teams", "list", "--json").out)
    (project,) = json.loads(shell.run("projects", "list", "--json").out)
    assert (team["name"], project["tags"]) == ("Search people", {"env": "prod"})
    assert "Search people" in shell.run("teams", "list").out


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("teams show nobody", 1, "there is no team nobody"),
        ("teams delete nobody", 1, "there is no team nobody"),
        ("teams create fixed", 1, "fixed"),
        ("teams delete fixed", 1, "team fixed comes from taximeter.yaml; change it there"),
        ("keys revoke fixed-k", 1, "key fixed-k comes from taximeter.yaml"),
        ("projects create p --team nobody", 2, "project p: team: there is no team nobody"),
        ("budgets create b --limit 1USD --window day", 2, "budget b: limit"),
        ("budgets create b --limit 1\tUSD --window day --scope team=nobody", 2, "no team nobody"),
    ],
)
def test_the_directory_says_no_in_one_sentence(shell, line, code, says):
    """No is exit code 1, wrong use is 2; both in words."""
    (shell.folder / "taximeter.yaml").write_text(CONFIG)

    answer = shell.run(*(word.replace("\t", " ") for word in line.split(" ")))

    assert answer.code == code, answer
    assert says in answer.err
    assert answer.err.count("\n") == 1
    assert answer.out == ""


def test_what_the_file_says_is_listed_as_such(shell):
    """The origin of every entity shows."""
    (shell.folder / "taximeter.yaml").write_text(CONFIG)
    shell.run("teams", "create", "made")

    rows = shell.run("teams", "list").out.splitlines()

    assert [row.split() for row in rows] == [
        ["ID", "NAME", "TAGS", "FROM"],
        ["fixed", "fixed", "-", "config"],
        ["made", "made", "-", "api"],
    ]


def test_an_empty_list_says_so(shell):
    """Nothing is not an error; programs get an empty array."""
    assert shell.run("budgets", "list").out == "no budgets\n"
    assert shell.run("budgets", "status").out == "no budgets\n"
    assert json.loads(shell.run("keys", "list", "--json").out) == []


def test_a_database_that_is_none_is_named(shell):
    """No traceback for a file that is no database, and no password in the message."""
    (shell.folder / "junk.db").write_text("not a database at all, only text " * 50)
    (shell.folder / "taximeter.yaml").write_text("storage: {database_url: 'sqlite:///junk.db'}\n")
    (shell.folder / "pg.yaml").write_text(
        "storage: {database_url: 'postgresql://u:hush@127.0.0.1:1/x'}\n"
    )

    junk = shell.run("teams", "list")
    gone = shell.run("teams", "list", "--config", "pg.yaml")

    assert (junk.code, gone.code) == (1, 1)
    assert "file is not a database" in junk.err
    assert "the ledger database is not available" in gone.err
    assert "hush" not in gone.err


def test_a_budget_is_made_shown_and_deleted(shell):
    """Every option arrives, and the status starts at nothing spent."""
    made = shell.run(
        *("budgets", "create", "b", "--limit", "500 USD", "--window", "month"),
        *("--timezone", "Europe/Berlin", "--mode", "soft", "--thresholds", "50,80%", "--json"),
    )

    entry = json.loads(made.out)
    assert (entry["limit"], entry["mode"], entry["thresholds"]) == ("500 USD", "soft", [50, 80])
    status = json.loads(shell.run("budgets", "status", "b", "--json").out)
    assert (status["spent"], status["remaining"], status["reserved"]) == ("0", "500", "0")
    assert "[....................]   0%" in shell.run("budgets", "status").out
    assert shell.run("budgets", "delete", "b").out == "budget b deleted\n"
    assert shell.run("budgets", "show", "b").code == 1


def test_a_budget_is_changed_field_by_field(shell):
    """What is not given stays; none takes a field away."""
    shell.run(
        *("budgets", "create", "b", "--limit", "500 USD", "--window", "month"),
        *("--anchor", "2026-01-31T09:00:00", "--rollover", "--valid-from", "2026-10-31T09:00:00Z"),
        *("--valid-to", "2030-01-01", "--scope", "model=gpt-5"),
    )

    shown = json.loads(shell.run("budgets", "show", "b", "--json").out)
    assert ("2026-01-31T09:00:00", True, {"model": "gpt-5"}) == (
        shown["anchor"],
        shown["rollover"],
        shown["scope"],
    )
    assert ("2026-10-31T09:00:00Z", "2030-01-01T00:00:00Z") == (
        shown["valid_from"],
        shown["valid_to"],
    )
    changed = shell.run(
        *("budgets", "update", "b", "--limit", "800 USD", "--rollover", "100 USD"),
        *("--valid-to", "none", "--anchor", "none", "--json"),
    )
    expected = {"limit": "800 USD", "rollover": "100 USD", "valid_to": None, "anchor": None}
    assert {**shown, **expected} == json.loads(changed.out)
    assert "rollover    at most 100 USD" in shell.run("budgets", "show", "b").out
    assert not json.loads(shell.run("budgets", "update", "b", "--no-rollover", "--json").out)[
        "rollover"
    ]
    assert shell.run("budgets", "update", "nobody", "--limit", "1 USD").code == 1
    assert shell.run("budgets", "update", "b", "--rollover", "--no-rollover").code == 2


def test_a_budget_says_what_happens_without_redis(shell):
    """Open or closed; none leaves it to the mode."""
    shell.run("budgets", "create", "b", "--limit", "5 USD", "--window", "day")

    for given, shown in (("open", "open"), ("closed", "closed"), ("none", None)):
        out = shell.run("budgets", "update", "b", "--on-store-down", given, "--json").out
        assert shown == json.loads(out)["on_store_down"]
    assert shell.run("budgets", "update", "b", "--on-store-down", "ajar").code == 2


def test_a_budget_is_topped_up(shell):
    """By name and with a reason; the limit of this window grows, and the list tells why."""
    shell.run("budgets", "create", "b", "--limit", "500 USD", "--window", "month")
    assert shell.run("budgets", "top-ups", "b").out == "nothing was added\n"

    made = shell.run("budgets", "top-up", "b", "100 USD", "--reason", "launch week")
    more = shell.run("budgets", "top-up", "b", "0.5 USD", "--reason", "tests", "--json")

    assert (0, 0) == (made.code, more.code)
    assert "launch week" in made.out
    assert json.loads(more.out)["amount"] == "0.5 USD"
    rows = [row.split() for row in shell.run("budgets", "top-ups", "b").out.splitlines()]
    assert ["100", "0.5"] == [row[1] for row in rows[1:]]
    listed = json.loads(shell.run("budgets", "top-ups", "b", "--json").out)
    assert ["launch week", "tests"] == [one["reason"] for one in listed]
    status = json.loads(shell.run("budgets", "status", "b", "--json").out)
    assert ("600.5", "100.5", "0") == (
        status["limit"],
        status["topped_up"],
        status["rolled_over"],
    )
    refused = shell.run("budgets", "top-up", "b", "5 tokens", "--reason", "x")
    assert refused.code == 2
    assert 'write one such as "100 USD"' in refused.err
    assert shell.run("budgets", "top-up", "b", "5 USD").code == 2


def test_the_status_is_an_aligned_table(shell):
    """Every number under its heading; what is held is known without a gateway."""
    shell.run("budgets", "create", "b", "--limit", "500 USD", "--window", "month")
    shell.run(
        *("budgets", "create", "later", "--limit", "5 requests", "--window", "total"),
        *("--valid-from", "2999-01-01"),
    )

    answer = shell.run("budgets", "status")

    lines = answer.out.splitlines()
    assert lines[0].split() == (
        [
            "ID",
            "SPENT",
            "RESERVED",
            "REMAINING",
            "LIMIT",
            "UNIT",
            "USED",
            "RATE",
            "USED",
            "UP",
            "WINDOW",
            "ENDS",
            "MODE",
        ]
    )
    for heading in ("UNIT", "USED UP", "WINDOW ENDS", "MODE"):
        column = lines[0].index(heading)
        assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    assert lines[1].split()[:4] == ["b", "0", "0", "500"]
    assert "later: not in force now, but from 2999-01-01T00:00:00Z for ever" in answer.err


def test_a_budgets_actions_can_be_given_and_changed(shell):
    """Each ``--action`` is one; those given replace those there were."""
    made = shell.run(
        *("budgets", "create", "b", "--limit", "5 USD", "--window", "day", "--mode", "soft"),
        *("--action", "warn", "--json"),
    )
    kept = shell.run("budgets", "update", "b", "--limit", "6 USD", "--json")

    assert [["warn"]] * 2 == [json.loads(one.out)["actions"] for one in (made, kept)]
