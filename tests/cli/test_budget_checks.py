"""Commands see budgets that limit nothing, what open calls hold, and a Redis that forgets."""

import json
from datetime import timedelta

import pytest

from gateway.clock import SystemClock, epoch_us
from gateway.ledger.journal import Journal
from tests.cli.shell import Shell
from tests.ledger.journal_kit import make_intent
from tests.valkey import running_valkey

CONFIG = """
providers:
  openai: {kind: openai, api_key: "sk-test-1234567890"}
  azure: {kind: azure, api_key: "sk-test-1234567890", base_url: "https://x.example.com",
          deployments: {chat: gpt-5}}
tag_policy:
  env: {values: [prod, dev], on_violation: reject}
  tone: {values: [calm], on_violation: warn}
budgets:
"""
TWO_WORKERS = "server: {workers: 2}\nstorage: {redis_url: URL}\n"


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def write(shell, *budgets):
    """Write a configuration with budgets of ten dollars a day."""
    rows = "".join(
        f"  - {{id: b{n}, limit: 10 USD, window: day, {one}}}\n" for n, one in enumerate(budgets)
    )
    (shell.folder / "taximeter.yaml").write_text(CONFIG + rows)


WELL = (
    "scope: {model: gpt-5}",
    "scope: {model: chat, provider: azure}",
    "scope: {user: ada, tag.team: x, tag.env: dev, tag.tone: loud}",
    "actions: ['fallback:openai/gpt-5-mini']",
    "actions: ['fallback:azure/chat']",
    # Over: nobody needs it any more.
    "scope: {model: gpt-55}, valid_to: '2026-01-01T00:00:00Z'",
)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("scope: {model: gpt-55}", "no call has model=gpt-55"),
        ("scope: {model: openai/gpt-5}", "`model: gpt-5`, and `provider: openai`"),
        ("scope: {model: chat, provider: openai}", "no price is known"),
        ("scope: {tag.env: test}", "the tag policy rejects what is none of dev, prod"),
        ("actions: ['fallback:opena/gpt-5']", "there is no provider 'opena'; did you mean openai?"),
        ("actions: ['fallback:openai/gpt-55']", "openai has no priced model 'gpt-55'"),
    ],
)
def test_a_budget_that_limits_nothing_is_named(shell, budget, said):
    """By both commands, with what to do; neither fails for it."""
    write(shell, *WELL, budget)
    odd = f"b{len(WELL)}"

    checked, doctor = shell.run("check-config"), shell.run("doctor", "--json")
    found = [one for one in json.loads(doctor.out)["checks"] if one["check"].startswith("budget")]
    warnings = json.loads(shell.run("check-config", "--json").out)["warnings"]

    assert (checked.code, doctor.code) == (0, 0)
    assert f"warning: budget {odd}: " in checked.err
    assert said in checked.err
    assert [("budget " + odd, "warn")] == [(one["check"], one["state"]) for one in found]
    assert said in f"{found[0]['message']} {found[0]['mend']}"
    assert 1 == len(warnings)


def test_budgets_that_limit_something_are_well(shell):
    """Names of one's own, tags nobody lists and what is over are no mistakes."""
    write(shell, *WELL)

    checked, doctor = shell.run("check-config"), shell.run("doctor")

    assert "warning: budget" not in checked.err
    assert f"{len(WELL)} budgets, each matches calls" in doctor.out


def test_a_budget_of_a_team_that_has_gone_is_named(shell):
    """The database knows who there is."""
    shell.run("teams", "create", "ads")
    shell.run(
        *("budgets", "create", "b", "--scope", "team=ads"),
        *("--limit", "5 USD", "--window", "day"),
    )
    well = shell.run("doctor")
    gone = shell.run("teams", "delete", "ads")

    odd = shell.run("doctor")

    assert "1 budgets, each matches calls" in well.out
    assert 0 == gone.code
    assert "there is no team 'ads'" in odd.out


def test_the_status_shows_what_open_calls_hold(shell):
    """In the budgets they count in, also while the gateway runs."""
    shell.run("budgets", "create", "all", "--limit", "10 USD", "--window", "total")
    shell.run("budgets", "create", "calls", "--limit", "9 requests", "--window", "rolling:60")
    shell.run(
        *("budgets", "create", "other", "--scope", "model=gpt-4o"),
        *("--limit", "10 USD", "--window", "day"),
    )
    shell.run("budgets", "create", "today", "--limit", "9000 tokens", "--window", "day")
    now = SystemClock().now()
    journal = Journal.open(shell.folder / "data" / "journal")
    for at in (now, now - timedelta(days=3)):
        journal.append_intent(make_intent(started_at_us=epoch_us(at), organization="default"))

    table = shell.run("budgets", "status")
    rows = {row["id"]: row for row in json.loads(shell.run("budgets", "status", "--json").out)}
    journal.close()

    held = {name: row["reserved"] for name, row in rows.items()}
    assert {"all": "0.0125", "calls": "2", "other": "0", "today": "1500"} == held
    assert "9.9875" == rows["all"]["remaining"]
    assert "0 / 60 s" in table.out
    assert "0 / day" in table.out
    assert "  rolling  " in table.out


def test_a_redis_that_may_forget_is_named(shell):
    """Anything but noeviction, with the mend."""
    with running_valkey() as server:
        (shell.folder / "taximeter.yaml").write_text(TWO_WORKERS.replace("URL", server.url))
        found = {}
        for policy in ("noeviction", "allkeys-lru"):
            with server.client() as client:
                client.config_set("maxmemory-policy", policy)
            checks = json.loads(shell.run("doctor", "--json").out)["checks"]
            found[policy] = [one["state"] for one in checks if one["check"] == "redis"]
            mends = [one["mend"] for one in checks if one["state"] == "warn"]

    assert {"noeviction": ["ok"], "allkeys-lru": ["ok", "warn"]} == found
    assert any("CONFIG SET maxmemory-policy noeviction" in mend for mend in mends)


def test_a_budget_command_says_once_what_is_wrong(shell):
    """And that there is nothing to do."""
    shell.run("budgets", "create", "b", "--limit", "5 USD", "--window", "rolling:60")

    wrong = shell.run("budgets", "create", "c", "--limit", "5", "--window", "day")
    rolling = shell.run("budgets", "top-up", "b", "5 USD", "--reason", "more")
    nothing = shell.run("budgets", "update", "b")

    assert (2, 2, 2) == (wrong.code, rolling.code, nothing.code)
    assert wrong.err.startswith("taximeter: budget c: limit '5' is not accepted")
    assert "budget b: at: a rolling window" in rolling.err
    assert "nothing to change; give what is to be another" in nothing.err
