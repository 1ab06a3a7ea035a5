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
    assert (status["spent"], status["remaining"], status["reserved"]) == ("0", "500", None)
    assert "[....................]   0%" in shell.run("budgets", "status").out
    assert shell.run("budgets", "delete", "b").out == "budget b deleted\n"
    assert shell.run("budgets", "show", "b").code == 1
