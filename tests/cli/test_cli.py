"""The command line as a whole: quick, helpful, with exit codes that programs can rely on."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import COMMANDS
from gateway.commands.output import Progress, bar_text, write_table
from tests.cli.shell import Shell

HEAVY = ("sqlalchemy", "pydantic", "fastapi", "granian", "yaml", "alembic", "litellm")


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def test_help_answers_at_once_because_nothing_heavy_is_imported():
    """The list of commands needs none of the libraries the commands need."""
    probe = (
        "import sys; from gateway.cli import main; code = main(['--help']); "
        f"sys.exit(code or ','.join(m for m in {HEAVY!r} if m in sys.modules) or None)"
    )

    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"  {command} " in done.stdout for command in COMMANDS)


def test_the_installed_command_runs(tmp_path):
    """`taximeter` and `python -m gateway` are the same thing."""
    installed = Path(sys.executable).with_name("taximeter")

    for command in ([str(installed)], [sys.executable, "-m", "gateway"]):
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=False, cwd=tmp_path
        )

        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("taximeter ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(shell, command):
    """--help of each command, and of each of its actions, shows a line that works."""
    answer = shell.run(command, "--help")

    assert answer.code == 0
    assert "example:\n  " in answer.out
    assert f"taximeter {command}" in answer.out.partition("example:")[2]
    assert "--config" in answer.out


@pytest.mark.parametrize(
    "line",
    [
        "teams list",
        "teams create",
        "projects show",
        "keys revoke",
        "budgets status",
        "prices show",
        "ledger export",
        "ledger verify",
        "ledger rollups",
    ],
)
def test_every_action_has_help_with_an_example(shell, line):
    """Actions take --config and show an example, too."""
    answer = shell.run(*line.split(), "--help")

    assert answer.code == 0
    assert f"taximeter {line}" in answer.out.partition("example:")[2]
    assert "--config" in answer.out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "usage: taximeter"),
        ("kyes list", "there is no command 'kyes'; did you mean keys?"),
        ("keys", "the following arguments are required: ACTION"),
        ("keys lits", "invalid choice: 'lits'"),
        ("keys list --jso", "unrecognized arguments: --jso"),
        ("--confg x keys list", "unrecognized arguments: --confg"),
        ("ledger export --from yesterday", "is not an instant such as 2026-11-23T10:00:00Z"),
        ("ledger export --from 2026-11-02 --to 2026-11-01", "--to must be later than --from"),
        ("estimate --model gpt-5", "give --input-tokens, --messages or --usage"),
        ("keys list --config nowhere.yaml", "nowhere.yaml: cannot be read"),
        ("teams create Big", "id: an id has 1 to 64"),
        ("teams create a --tag env", "'env' is not name=value"),
        ("budgets create b --limit 5EUR --window month", "limit"),
    ],
)
def test_wrong_use_is_told_apart(shell, line, says):
    """Exit code 2, the reason on standard error, nothing on standard output, no traceback."""
    answer = shell.run(*line.split())

    assert answer.code == 2, answer
    assert says in answer.err
    assert answer.out == ""
    assert "Traceback" not in answer.err


def test_config_may_stand_before_or_after_the_command(shell):
    """--config means the same in both places."""
    (shell.folder / "a.yaml").write_text("teams: [{id: search}]\n")

    before = shell.run("--config", "a.yaml", "teams", "list")
    between = shell.run("teams", "--config", "a.yaml", "list")
    after = shell.run("teams", "list", "--config", "a.yaml")

    assert before.out == between.out == after.out
    assert "search" in before.out


def test_columns_align(capsys):
    """Each column is as wide as its widest cell, numbers are flush right, nothing trails."""
    write_table(("ID", "COST", "NOTE"), [["a", "10", ""], ["long-id", "2.5", "x"]], right=("COST",))

    assert capsys.readouterr().out == ("ID       COST  NOTE\na          10  -\nlong-id   2.5  x\n")


@pytest.mark.parametrize(
    ("part", "whole", "bar"),
    [
        (0, 10, "[..........]   0%"),
        (1, 1000, "[#.........]   0%"),
        (999, 1000, "[#########.]  99%"),
        (10, 10, "[##########] 100%"),
        (25, 10, "[##########] 250%"),
    ],
)
def test_a_bar_looks_full_only_when_it_is(part, whole, bar):
    """Something used shows, and nothing looks full before it is."""
    assert bar_text(part, whole, cells=10) == bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


class SteppedClock:
    def __init__(self):
        self.at_s = 0.0

    def now(self):
        raise AssertionError("progress needs no wall clock")

    def monotonic_s(self):
        return self.at_s


@pytest.mark.parametrize(
    ("out", "took_s", "is_drawn"),
    [(Terminal(), 1.9, False), (Terminal(), 2.1, True), (io.StringIO(), 60.0, False)],
    ids=["quick", "slow", "piped"],
)
def test_progress_shows_on_a_terminal_after_two_seconds(out, took_s, is_drawn):
    """What is quick or piped stays clean; what was drawn is wiped away again."""
    clock = SteppedClock()

    with Progress("records", clock=clock, out=out) as progress:
        clock.at_s = took_s
        progress.step(1200)

    assert ("1,200 records" in out.getvalue()) == is_drawn
    assert out.getvalue().endswith("\r\033[K") == is_drawn


def test_check_config_shows_the_settings_in_force(shell):
    """Exit 0, secrets masked, the price version named."""
    (shell.folder / "taximeter.yaml").write_text("server: {port: 9000, admin_token: hush-hush}\n")

    answer = shell.run("check-config")
    shown = json.loads(shell.run("check-config", "--json").out)

    assert answer.code == 0
    assert "  port: 9000\n" in answer.out
    assert "admin_token: '********'" in answer.out
    assert "hush" not in answer.out
    assert answer.out.startswith("# taximeter.yaml; prices ")
    assert shown["settings"]["server"]["port"] == 9000
    assert shown["price_version"]


def test_check_config_names_every_problem(shell):
    """Exit 1; file, line and mend of each."""
    (shell.folder / "taximeter.yaml").write_text("server:\n  prot: 1\n  workers: 2\n")

    answer = shell.run("check-config")
    shown = json.loads(shell.run("check-config", "--json").out)

    assert (answer.code, answer.out) == (1, "")
    assert (
        "taximeter.yaml:2: server.prot: there is no such setting; did you mean port?" in answer.err
    )
    assert "taximeter.yaml:3: server.workers: several workers share" in answer.err
    assert [problem["line"] for problem in shown["problems"]] == [2, 3]


def test_doctor_finds_a_fresh_folder_healthy_and_changes_nothing(shell):
    """All checks pass before the first start, and nothing was made."""
    answer = shell.run("doctor")

    assert answer.code == 0, answer.out
    assert "fail" not in answer.out
    assert list(shell.folder.iterdir()) == []


def test_doctor_fails_with_a_mend(shell):
    """A broken part turns the exit code to 1 and says what to do."""
    (shell.folder / "taximeter.yaml").write_text(
        "storage: {database_url: 'sqlite:///junk.db'}\n"
        "providers: {ai: {kind: openai}, other: {kind: openai, api_key: x, priced_as: null}}\n"
    )
    (shell.folder / "junk.db").write_text("this is not a database, whatever its name says " * 50)

    answer = shell.run("doctor", "--json")

    checks = json.loads(answer.out)["checks"]
    states = {check["check"]: check["state"] for check in checks}
    assert answer.code == 1
    assert (states["database"], states["provider ai"], states["provider other"]) == (
        "fail",
        "warn",
        "warn",
    )
    assert all(check["mend"] for check in checks if check["state"] == "fail")


@pytest.mark.parametrize(
    ("kind", "base_url", "said"),
    [
        ("openai", "http://127.0.0.1:9", "http://127.0.0.1:9/chat/completions"),
        ("mistral", "http://127.0.0.1:9/", "http://127.0.0.1:9/chat/completions"),
        ("openai", "http://127.0.0.1:9/v1/chat/completions", "the address of one call"),
        ("anthropic", "http://127.0.0.1:9/v1/messages", "the address of one call"),
        ("openai", "http://127.0.0.1:9/v1", None),
        ("anthropic", "http://127.0.0.1:9", None),
        ("ollama", "http://127.0.0.1:9", None),
    ],
)
def test_doctor_sees_a_base_address_that_is_too_short_or_too_long(shell, kind, base_url, said):
    """The two mistakes that otherwise show as a 404 of the provider."""
    provider = f"{{kind: {kind}, api_key: x, base_url: '{base_url}'}}"
    (shell.folder / "taximeter.yaml").write_text(f"providers: {{ai: {provider}}}\n")

    checks = json.loads(shell.run("doctor", "--json").out)["checks"]
    (found,) = [check for check in checks if check["check"] == "provider ai"]

    assert ("ok" if said is None else "warn") == found["state"]
    assert said is None or said in found["message"]


def test_doctor_names_broken_settings(shell):
    """Every problem of the settings is a failed check."""
    (shell.folder / "taximeter.yaml").write_text("a: 1\nb: 2\n")

    answer = shell.run("doctor")

    assert answer.code == 1
    assert answer.out.count("fail  settings") == 2
