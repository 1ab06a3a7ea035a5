"""``taximeter apply``: the directory follows a file, and says what it would do before."""

import json

import pytest

from tests.cli.shell import Shell

ORG = """\
organization: default
teams:
  - id: search
    name: Search
    tags: {cost_center: cc-1}
    projects:
      - id: rag
        tags: {env: prod}
        keys:
          - {id: rag-ci, models: ["openai/*"]}
budgets:
  - {id: search-month, scope: {team: search}, limit: "500 USD", window: month, thresholds: [80]}
"""


@pytest.fixture
def shell(tmp_path):
    (tmp_path / "org.yaml").write_text(ORG)
    return Shell(tmp_path)


def test_a_dry_run_shows_and_changes_nothing(shell):
    """Exit code 1: the directory is not as the file says."""
    shown = shell.run("apply", "--dry-run", "-f", "org.yaml")

    assert 1 == shown.code
    assert ["+ team search", "+ project rag", "+ key rag-ci", "+ budget search-month"] == [
        line for line in shown.out.splitlines() if not line.startswith(" ")
    ]
    assert "    limit: 500 USD" in shown.out
    assert shown.out == shell.run("apply", "--dry-run", "-f", "org.yaml").out


def test_what_is_applied_is_there_and_is_not_applied_again(shell):
    """A key's secret is shown once; the second time there is nothing to do."""
    first = shell.run("apply", "-f", "org.yaml")
    again = shell.run("apply", "-f", "org.yaml")
    kept = json.loads(shell.run("keys", "show", "rag-ci", "--json").out)

    assert 0 == first.code
    assert "secret sk-tm-" in first.out
    assert (0, "everything is as the file says\n") == (again.code, again.out)
    assert 0 == shell.run("apply", "--dry-run", "-f", "org.yaml").code
    assert ["openai/*"] == kept["models"]


def test_a_change_is_shown_with_both_values_and_made(shell):
    """Only what differs; what the file does not name stays."""
    shell.run("apply", "-f", "org.yaml")
    shell.run("teams", "create", "sales")
    text = ORG.replace("500 USD", "800 USD").replace("env: prod", "env: dev")
    (shell.folder / "org.yaml").write_text(text)
    shown = shell.run("apply", "-f", "org.yaml")
    budget = json.loads(shell.run("budgets", "show", "search-month", "--json").out)

    assert shown.out == (
        "~ project rag\n    tags: env=prod -> env=dev\n"
        "~ budget search-month\n    limit: 500 USD -> 800 USD\n"
    )
    assert "800 USD" == budget["limit"]
    assert 0 == shell.run("teams", "show", "sales").code


def test_json_tells_the_changes_and_the_secrets(shell):
    """For programs; nothing but JSON on standard output."""
    told = json.loads(shell.run("apply", "-f", "org.yaml", "--json").out)

    assert ["team", "project", "key", "budget"] == [one["noun"] for one in told["changes"]]
    assert told["changes"][2]["secret"].startswith("sk-tm-")
    assert {"before": None, "after": "500 USD"} == told["changes"][3]["fields"]["limit"]


def test_a_project_cannot_move_to_another_team(shell):
    """Reports and budgets rest on where it is."""
    shell.run("apply", "-f", "org.yaml")
    (shell.folder / "org.yaml").write_text(ORG.replace("id: search\n", "id: sales\n"))
    shown = shell.run("apply", "-f", "org.yaml")

    assert 1 == shown.code
    assert "project rag is of team search, and cannot move to sales" in shown.err
    assert 1 == shell.run("teams", "show", "sales").code


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("organization: other\n", "is for organization other"),
        ("teams: [{id: a}, {id: a}]\n", "team 'a' stands twice"),
        ("teams: [{id: a, colour: red}]\n", "colour"),
        ("budgets: [{id: b, limit: plenty, window: month}]\n", "org.yaml:1"),
        ("teams: [\n", "not YAML"),
        ("teams: [{id: a, projects: [{id: p, keys: [{id: k, secret: x}]}]}]\n", "secret"),
    ],
)
def test_a_file_that_cannot_be_followed_is_refused_as_a_whole(shell, text, said):
    """Exit code 2, with the place, and nothing is changed."""
    (shell.folder / "org.yaml").write_text(text)
    shown = shell.run("apply", "-f", "org.yaml")

    assert 2 == shown.code
    assert said in shown.err
    assert "search" not in shell.run("teams", "list").out


def test_what_the_settings_own_is_not_changed(shell):
    """It is named, with the file it comes from."""
    (shell.folder / "taximeter.yaml").write_text("teams: [{id: search, name: Fixed}]\n")
    shown = shell.run("apply", "-f", "org.yaml")

    assert 1 == shown.code
    assert "comes from taximeter.yaml" in shown.err
