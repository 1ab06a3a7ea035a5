"""estimate: three costs of a planned call, from this ledger's history, here and on other models."""

import json
import subprocess
import sys
from decimal import Decimal

import pytest

from gateway.clock import SystemClock, epoch_us
from gateway.ledger.errors import ShippedTo
from gateway.ledger.migrate import upgrade
from gateway.ledger.store import LedgerStore, open_engine
from tests.cli.shell import Shell
from tests.contracts.records import HOUR_US, make_record, with_seq

AT = ("--at", "2026-11-23")
CALL = ("estimate", "--model", "openai/gpt-5", "--input-tokens", "1_000", *AT)
TEAMS = "teams: [{id: search, projects: [{id: rag}]}, {id: ads, projects: [{id: banner}]}]\n"


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def post(shell, *records):
    """Fill the ledger of the shell's folder."""
    engine = open_engine(f"sqlite:///{shell.folder}/data/taximeter.db")
    upgrade(engine)
    numbered = [with_seq(record, n) for n, record in enumerate(records, 1)]
    LedgerStore(engine).append("w-1", numbered, ShippedTo(segment=1, offset=0))
    engine.dispose()


def spoken(hours=1, **changes):
    """A call some hours ago with half its prompt out of the cache and an answer of 40 tokens."""
    fields = {
        "started_at_us": epoch_us(SystemClock().now()) - hours * HOUR_US,
        "usage": {"input": 50, "cache_read": 50, "output": 30, "reasoning": 10},
        "input_total": 100,
        "output_total": 40,
        "lines": (),
    }
    return make_record(**{**fields, **changes})


def ask(shell, *more):
    """Estimate 1,000 tokens for gpt-5 as JSON."""
    answer = shell.run(*CALL, *more, "--json")
    assert answer.code == 0, answer
    return json.loads(answer.out)


def test_without_a_ledger_nothing_is_expected_and_nothing_is_made(shell):
    """The two bounds stand; the reason for the gap is told; no file appears."""
    found = ask(shell, "--max-output-tokens", "500")

    assert (found["low"]["cost"], found["ceiling"]["cost"]) == ("0.000135", "0.00625")
    assert (found["expected"], found["expected_from"], found["history"]) == (None, None, None)
    assert found["no_history"].startswith("the ledger was not read: there is no ledger at data/")
    assert list(shell.folder.iterdir()) == []


def test_the_expectation_is_what_calls_have_used(shell):
    """500 x 1.25 + 500 x 0.125 + 40 x 10 dollars per million, and on how many calls it rests."""
    post(
        shell, spoken(), spoken(2, provider="mine"), spoken(3, model="gpt-4o", model_requested="x")
    )
    (shell.folder / "taximeter.yaml").write_text(
        "providers: {mine: {kind: openai, base_url: 'http://127.0.0.1:9/v1'}}\n"
    )
    found = ask(shell)

    assert found["expected"]["cost"] == "0.0010875"
    assert [line["quantity"] for line in found["expected"]["lines"]] == ["500", "500", "30", "10"]
    assert found["expected_from"] == "history"
    assert {**found["history"], "first_day": "", "last_day": ""} == {
        "scope": "model",
        "id": None,
        "records": 2,
        "first_day": "",
        "last_day": "",
        "output_tokens": 40,
        "cached_percent": 50,
    }
    costs = [Decimal(found[part]["cost"]) for part in ("low", "expected", "ceiling")]
    assert costs == sorted(costs)


def test_a_project_tells_before_everybody_does(shell):
    """Its own calls where they are enough, and the table says whose they were."""
    (shell.folder / "taximeter.yaml").write_text(TEAMS)
    mine = [spoken(organization="default", usage={"input": 100, "output": 7}) for _ in range(20)]
    post(shell, *mine, *(spoken(project="other") for _ in range(30)))

    assert ask(shell, "--project", "rag")["history"]["output_tokens"] == 7
    table = shell.run(*CALL, "--project", "rag").out
    assert "7 tokens of answer, 0 % cached, from 20 calls of project rag, 20" in table
    assert ask(shell, "--no-history")["no_history"] == "the ledger was left out"


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (("--project", "nope"), 1, "there is no project nope"),
        (("--team", "nope"), 1, "there is no team nope"),
        (("--team", "ads", "--project", "rag"), 2, "project rag is of team search, not ads"),
        (("--output-tokens", "9", "--max-output-tokens", "8"), 2, "more than --max-output-tokens"),
        (("--limit", "1 USD"), 2, "--limit goes with --check only"),
        (("--worst", "0"), 2, "--worst goes with --check only"),
        (("--compare", "gtp-5"), 1, "has no model gtp-5; did you mean"),
        (("--price-version", "1999"), 2, "no price book version 1999; there are: "),
        (("--tier", "gold"), 1, "has no tier 'gold'; there are batch, flex, priority, standard"),
    ],
    ids=str,
)
def test_what_cannot_be_estimated_is_told(shell, more, code, says):
    """Wrong use and unknown names, each with its mend, and nothing on standard output."""
    (shell.folder / "taximeter.yaml").write_text(TEAMS)
    post(shell, spoken())
    answer = shell.run(*CALL, *more)

    assert (answer.code, answer.out) == (code, "")
    assert says in answer.err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "give --input-tokens, --messages or --usage"),
        ("--usage input=1 --output-tokens 2", "--output-tokens does not go with --usage"),
        ("--usage input=1 --no-history", "--no-history does not go with --usage"),
        ("--usage input=1 --input-tokens 1", "not allowed with argument"),
        ("--messages nowhere.json", "cannot read nowhere.json: No such file"),
        ("--messages bad.json", "bad.json is not JSON"),
        ("--messages none.json", "none.json holds no list of chat messages"),
        ("--messages half.json", "half.json is not JSON"),
    ],
)
def test_wrong_use_is_told_apart(shell, line, says):
    """An option that would change nothing is refused, and so are files that hold no messages."""
    (shell.folder / "bad.json").write_text("[{")
    (shell.folder / "none.json").write_text('{"messages": []}')
    (shell.folder / "half.json").write_text(r'["\ud800"]')
    answer = shell.run("estimate", "--model", "openai/gpt-5", *line.split())

    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err


def test_a_named_project_needs_the_ledger(shell):
    """A question about a project is not answered without it."""
    answer = shell.run(*CALL, "--project", "rag")

    assert answer.code == 1
    assert "there is no ledger at data/taximeter.db yet" in answer.err


AGREED = ("prices", "override", "ads", "--team", "ads", "--percent", "-20")
USAGE = ("estimate", "--model", "openai/gpt-5", "--usage", "input=1_000")


@pytest.mark.parametrize(
    ("whose", "cost"),
    [
        ((), "0.00125"),
        (("--team", "search"), "0.00125"),
        (("--team", "ads"), "0.001"),
        (("--project", "banner"), "0.001"),
        (("--project", "made-later"), "0.001"),
        (("--team", "ads", "--compare", "gpt-4o"), "0.001"),
    ],
    ids=str,
)
def test_usage_is_rated_at_the_prices_agreed_for_whose_it_is(shell, whose, cost):
    """A team's, or a project's team's, also that of a project which no file names."""
    (shell.folder / "taximeter.yaml").write_text(TEAMS)
    post(shell, spoken())
    assert 0 == shell.run("projects", "create", "made-later", "--team", "ads").code
    assert 0 == shell.run(*AGREED, "--why", "contract 7").code
    shown = json.loads(shell.run(*USAGE, *whose, "--json").out)

    assert cost == shown["cost"]
    if "--compare" in whose:
        assert ["0.001", "0.002"] == [row["cost"] for row in shown["comparison"]["models"]]


@pytest.mark.parametrize(
    ("whose", "code", "says"),
    [
        (("--team", "nope"), 1, "there is no team nope"),
        (("--project", "nope"), 1, "there is no project nope"),
        (("--team", "ads", "--project", "rag"), 2, "project rag is of team search, not ads"),
    ],
    ids=str,
)
def test_usage_of_nobody_is_not_rated(shell, whose, code, says):
    """A name with a mistake in it would have list prices."""
    (shell.folder / "taximeter.yaml").write_text(TEAMS)
    missing = shell.run(*USAGE, *whose)
    post(shell, spoken())
    answer = shell.run(*USAGE, *whose)

    assert (1, "") == (missing.code, missing.out)
    assert "there is no ledger at data/taximeter.db yet" in missing.err
    assert (code, "") == (answer.code, answer.out)
    assert says in answer.err


@pytest.mark.parametrize("shape", ["list", "body"])
def test_messages_are_counted_and_bounded(shell, shape):
    """A list of messages, or the body of a request: counted for low, by their bytes for ceiling."""
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    text = json.dumps(messages if shape == "list" else {"model": "x", "messages": messages})
    (shell.folder / "prompt.json").write_text(text)
    answer = shell.run("estimate", "--model", "openai/gpt-5", "--messages", "prompt.json", "--json")

    found = json.loads(answer.out)
    assert found["input_tokens_from"] == "counted"
    assert found["low"]["input_tokens"] == 7 + 3 + 3
    assert found["ceiling"]["input_tokens"] > len(messages[0]["content"])


def test_the_same_call_on_other_models(shell):
    """An aligned table with how many times the first one's cost it is, and the same as JSON."""
    line = (*CALL, "--output-tokens", "100", "--max-output-tokens", "100", "--no-history")
    others = ("--compare", "claude-sonnet-4-5,demo-chat")
    table = shell.run(*line, *others).out.partition("the same call")[2].splitlines()
    rows = json.loads(shell.run(*line, *others, "--json").out)["comparison"]

    assert [row.split() for row in table[1:]] == [
        ["MODEL", "LOW", "EXPECTED", "CEILING", "RATIO", "NOTE"],
        ["openai/gpt-5", "0.000135", "0.00225", "0.00225", "1x", "-"],
        ["anthropic/claude-sonnet-4-5", "0.000315", "0.0045", "0.0075", "2x", "-"],
        ["demo/demo-chat", "0.00026", "0.0035", "0.0035", "1.556x", "-"],
    ]
    assert rows["by"] == "expected"
    assert [row["ratio"] for row in rows["models"]] == ["1", "2", "1.556"]


def test_usage_is_compared_at_its_exact_cost(shell):
    """What a model does not sell is counted as plain tokens there, and said."""
    answer = shell.run(
        *("estimate", "--model", "claude-sonnet-4-5", "--usage", "cache_write=1000,output=10"),
        *("--compare", "demo-chat"),
    )

    assert "\ncost 0.0039 USD\n" in answer.out
    assert answer.out.endswith("cache_write counted as input\n")
    assert "0.0026  0.6667x" in answer.out


def test_what_nobody_sells_has_no_cost(shell):
    """Given usage without a price, a name several sell, and a model without any."""
    unsold = shell.run("estimate", "--model", "demo-chat", "--usage", "web_search=1")
    nameless = shell.run("estimate", "--input-tokens", "1")
    other = shell.run(*CALL, "--tier", "flex", "--no-history", "--compare", "demo-chat")

    assert (unsold.code, unsold.out) == (1, "")
    assert "has no standard price for demo/demo-chat/web_search" in unsold.err
    assert (nameless.code, nameless.out) == (2, "")
    assert "give --model, or --check FILE" in nameless.err
    assert other.out.endswith("demo/demo-chat has no tier 'flex'; there are standard\n")


def test_messages_may_come_through_a_pipe(shell):
    """A question about a prompt that another program writes."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "estimate", "--model", "openai/gpt-5", "--messages", "-"],
        input='[{"role": "user", "content": "Hi"}]',
        capture_output=True,
        text=True,
        check=False,
        cwd=shell.folder,
    )

    assert done.returncode == 0, done.stderr
    assert "low 0.00001" in done.stdout


def test_a_prompt_that_does_not_fit_is_told(shell):
    """It is priced all the same: the limit may be newer than the book."""
    answer = shell.run(
        "estimate", "--model", "demo-chat", "--input-tokens", "200000", "--no-history"
    )

    assert answer.code == 0
    assert "warning: demo/demo-chat takes prompts of at most 128,000 tokens" in answer.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "there is no ledger at data/taximeter.db yet; `taximeter serve` makes one"),
        (b"no database at all" * 100, "storage.database_url: file is not a database"),
    ],
    ids=["empty", "damaged"],
)
def test_a_ledger_that_cannot_be_read_is_left_alone(shell, content, says):
    """An estimate goes on without it and says so; a question about a project does not."""
    file = shell.folder / "data/taximeter.db"
    file.parent.mkdir()
    file.write_bytes(content)

    assert ask(shell)["no_history"] == f"the ledger was not read: {says}"
    answer = shell.run(*CALL, "--project", "rag")
    assert (answer.code, answer.out) == (1, "")
    assert says in answer.err
    assert file.read_bytes() == content


def test_tables_of_another_version_are_left_alone(shell):
    """Only a start of the gateway changes them."""
    post(shell)
    engine = open_engine(f"sqlite:///{shell.folder}/data/taximeter.db")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()

    assert "the ledger is of another version" in ask(shell)["no_history"]


def test_settings_that_cannot_be_used_cost_only_the_history(shell):
    """In a build the secrets of the gateway are not there."""
    (shell.folder / "taximeter.yaml").write_text(
        "providers: {openai: {kind: openai, api_key: env:NOT_IN_THIS_BUILD}}\n"
    )

    assert ask(shell)["no_history"].startswith("the ledger was not read: the settings cannot be")
    assert "note: these are the prices that came with taximeter: " in shell.run(*CALL).err
    assert (shell.run(*CALL, "--project", "rag").code, shell.run("keys", "list").code) == (2, 2)


@pytest.mark.parametrize("command", [USAGE, CALL, ("estimate", "--check", "run.jsonl")])
def test_settings_that_are_named_have_to_be_there(shell, command):
    """Prices of another installation are no answer."""
    (shell.folder / "run.jsonl").write_text('{"model": "demo-chat", "usage": {"input": 1}}')
    for name, why in (("nope.yaml", "No such file"), (".", "Is a directory")):
        answer = shell.run(*command, "--config", name)
        assert (2, "") == (answer.code, answer.out)
        assert "the settings cannot be used:\n" in answer.err
        assert f"cannot be read: {why}" in answer.err


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("gpt-5", 0, "openai/gpt-5  tier standard"),
        ("gemini-2.5-pro", 0, "gemini/gemini-2.5-pro  tier standard"),
        ("llama-3.3-70b-versatile", 2, "sold by several: groq, inferenceapis; name the one"),
        ("nobody/gpt-5", 1, "no prices for a provider 'nobody'"),
        ("openai/gtp-5", 1, "has no model gtp-5 of openai; did you mean gpt-5"),
    ],
)
def test_a_bare_name_is_its_makers(shell, name, code, says):
    """Without settings; what only others sell has to be said."""
    answer = shell.run("estimate", "--model", name, "--usage", "input=1")

    assert code == answer.code
    assert says in answer.out + answer.err


def test_a_bare_name_is_first_that_of_a_configured_provider(shell):
    """For estimates and for prices, in the order of the file."""
    (shell.folder / "taximeter.yaml").write_text(
        "providers:\n"
        "  mine: {kind: openai, base_url: 'http://127.0.0.1:9/v1', priced_as: azure}\n"
        "  theirs: {kind: openai, base_url: 'http://127.0.0.1:9/v1'}\n"
    )

    usage = ("--usage", "input=1")
    assert shell.run("estimate", "--model", "gpt-5", *usage).out.startswith("azure/gpt-5 ")
    assert shell.run("estimate", "--model", "theirs/gpt-5", *usage).out.startswith("openai/gpt-5 ")
    assert shell.run("prices", "show", "gpt-5").out.startswith("azure/gpt-5 ")
