"""``taximeter rerate``: the table, the run, and everything it refuses."""

import json
import shlex
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from gateway.clock import SystemClock, from_epoch_us
from gateway.ledger.errors import ShippedTo
from gateway.ledger.migrate import upgrade
from gateway.ledger.store import LedgerStore, open_engine
from gateway.prices.asked import PriceEdit, Signature
from gateway.prices.desk import PriceDesk
from gateway.prices.store import PriceStore
from pricing.agreements import Override
from tests.admin.test_rerates import priced
from tests.cli.shell import Shell
from tests.contracts.records import with_seq

SPAN = ("--from", "2026-11-23", "--to", "2026-11-24")


@pytest.fixture
def shell(tmp_path):
    """Two calls and a version with an agreement."""
    (tmp_path / "data").mkdir()
    engine = open_engine(f"sqlite:///{tmp_path}/data/taximeter.db")
    upgrade(engine)
    calls = [with_seq(priced(n, team=team), n + 1) for n, team in enumerate(("search", "ads"))]
    LedgerStore(engine).append("w-1", calls, ShippedTo(segment=1, offset=1))
    store = PriceStore(engine)
    store.record_shipped("taximeter")
    agreed = Override(
        id="search",
        team="search",
        percent=Decimal(-20),
        valid_from=from_epoch_us(calls[0].started_at_us) - timedelta(days=30),
        valid_to=None,
        why="contract 7",
    )
    (made,) = PriceDesk(store).post(PriceEdit(overrides=(agreed,)), Signature(who="a", why="b"))
    engine.dispose()
    opened = Shell(tmp_path)
    opened.version = made.version
    return opened


def test_a_dry_run_shows_the_difference(shell):
    """A row per team and one for all; nothing is written."""
    answer = shell.run("rerate", *SPAN, "--price-version", shell.version, "--dry-run")

    assert 0 == answer.code
    assert [
        f"would be re-rated with price book {shell.version}: "
        "calls from 2026-11-23T00:00:00Z to 2026-11-24T00:00:00Z",
        "TEAM    RECORDS  CHANGED  LEFT  BEFORE   AFTER  DIFFERENCE  PERCENT  CURRENCY",
        "ads           1        0     0  0.0025  0.0025           0    0.00%  USD",
        "search        1        1     0  0.0025   0.002     -0.0005  -20.00%  USD",
        "all           2        1     0   0.005  0.0045     -0.0005  -10.00%  USD",
    ] == answer.out.splitlines()
    assert "nothing was changed" in answer.err
    assert "intact: 2 records" in shell.run("ledger", "verify").out


def test_a_run_appends_and_a_second_one_has_nothing_to_do(shell):
    """The chain stays intact, and the record shows its corrections."""
    wanted = ("rerate", *SPAN, "--price-version", shell.version, "--why", "contract 7", "--json")
    done = json.loads(shell.run(*wanted).out)
    again = json.loads(shell.run(*wanted).out)
    call = priced(0)
    shown = shell.run("ledger", "show", call.id)
    as_json = json.loads(shell.run("ledger", "show", call.id, "--json").out)

    assert (1, 0) == (done["corrections"], again["corrections"])
    assert done["actor"].startswith("cli:")
    assert "intact: 3 records in 2 journals" in shell.run("ledger", "verify").out
    assert "effective cost 0.002 USD (0.0025 as recorded, 1 correction)" in shown.out
    assert "-0.0005" in shown.out
    assert "contract 7" in shown.out
    assert "0.002" == as_json["effective"]["cost"]
    assert [done["price_version"]] == [x["price_version"] for x in as_json["corrections"]]


def test_the_version_known_on_a_day_can_be_asked_for(shell):
    """Prices as they were known before the agreement change nothing."""
    answer = shell.run("rerate", *SPAN, "--as-of", "2026-11-23", "--dry-run", "--json")

    assert 0 == answer.code, answer.err
    assert "0" == json.loads(answer.out)["totals"][0]["difference"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((*SPAN, "--price-version", "2026-11-23.1"), "say --why"),
        ((*SPAN, "--price-version", "nope", "--dry-run"), "no price book version nope"),
        ((), "say --from, --to, --price-version or --as-of: corrections stay"),
        ((*SPAN, "--why", "late list"), "say --price-version or --as-of: corrections stay"),
        (("--to", "2026-11-24", "--as-of", "2026-11-24", "--why", "x"), "say --from: corr"),
        ((*SPAN, "--price-version", "v", "--as-of", "2026-11-24"), "not allowed with argument"),
        (
            ("--from", "2026-11-24", "--to", "2026-11-24", "--as-of", "2026-11-24", "--dry-run"),
            "from must be before to",
        ),
        ((*SPAN, "--as-of", "2020-01-01", "--dry-run"), "no price book version was recorded"),
    ],
)
def test_wrong_use_says_what_to_do(shell, words, told):
    """Exit code 2, and nothing is written."""
    answer = shell.run("rerate", *words)

    assert 2 == answer.code
    assert told in answer.err
    assert "intact: 2 records" in shell.run("ledger", "verify").out


def test_a_look_needs_no_more_than_to_be_asked_for(shell):
    """The last 30 days and the newest version, and the answer says which they are."""
    now = SystemClock().now()
    shown = json.loads(shell.run("rerate", "--dry-run", "--json").out)
    start, end = (datetime.fromisoformat(shown[name]) for name in ("from", "to"))
    named = json.loads(shell.run("rerate", "--dry-run", "--json", "--to", "2026-11-24").out)

    assert shell.version == shown["price_version"] == named["price_version"]
    assert timedelta(days=30) == end - start
    assert now <= end <= SystemClock().now() + timedelta(seconds=1)
    assert ("2026-10-25T00:00:00.000000Z", 2) == (named["from"], named["totals"][0]["records"])
    assert f"price book {shell.version}: calls from " in shell.run("rerate", "--dry-run").out


def test_the_command_that_is_shown_works(shell):
    """Copied from the refusal as it stands."""
    refused = shell.run("rerate", "--why", "late list").err
    (line,) = (x for x in refused.splitlines() if x.startswith("  taximeter rerate --from"))
    answer = shell.run(*shlex.split(line)[1:])

    assert (0, "") == (answer.code, answer.err)
    assert f"re-rated with price book {shell.version}" in answer.out


def test_a_span_without_calls_says_so(shell):
    """Instead of an empty table."""
    words = ("--from", "2020-01-01", "--to", "2020-02-01", "--price-version", "2026-11-23.1")
    answer = shell.run("rerate", *words, "--dry-run")

    assert (0, True) == (answer.code, "there is no call in this span of time" in answer.out)
