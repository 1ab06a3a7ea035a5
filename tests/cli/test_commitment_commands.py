"""taximeter commitments: the tables people read and the JSON programs read."""

import json
from datetime import timedelta

import msgspec
import pytest

from gateway.clock import SystemClock, epoch_us, from_epoch_us
from gateway.ledger.errors import ShippedTo
from gateway.ledger.migrate import upgrade
from gateway.ledger.store import LedgerStore, open_engine
from tests.cli.shell import Shell
from tests.contracts.records import make_line, make_record, make_unknown

CONFIG = """\
providers:
  openai: {kind: openai}
  house: {kind: vllm, priced_as: null}
teams: [{id: search}, {id: ads}]
commitments:
  - {id: pack, covers: {provider: openai}, amount: "2000 tokens", fee: "3 USD", starts: 2020-01-01,
     ends: 2040-01-01}
  - {id: searches, amount: "10 web_search", renews: month, starts: 2020-01-01}
  - {id: ptu, covers: {provider: openai}, tokens_per_minute: 1, fee_per_hour: "2 USD",
     starts: 2020-01-01, ends: 2020-01-02}
shared_costs:
  - {id: platform, amount: "100 USD"}
self_hosted:
  - {provider: house, model: llama, gpus: 2, gpu_hour: "3 USD", tokens_per_s: 1000,
     utilization: 50, output_weight: 4, output_share: 20, starts: 2020-01-01}
"""


@pytest.fixture
def shell(tmp_path):
    """A ledger of calls made within the last two minutes."""
    shell = Shell(tmp_path)
    (tmp_path / "taximeter.yaml").write_text(CONFIG, "utf-8")
    (tmp_path / "data").mkdir()
    engine = open_engine(f"sqlite:///{tmp_path}/data/taximeter.db")
    upgrade(engine)
    now_us = epoch_us(SystemClock().now())
    made = [
        _used(now_us, make_line("input", "2500", 5 * 10**12)),
        _used(now_us, make_line("web_search", "4", 4 * 10**10), team="ads"),
        _used(
            now_us,
            make_line("input", "6000", 10**12),
            make_line("output", "2000", 10**12),
            provider="house",
            model="llama",
            model_requested="house/llama",
        ),
        make_unknown(started_at_us=now_us - 60_000_000),
    ]
    records = [msgspec.structs.replace(one, seq=n) for n, one in enumerate(made, 1)]
    LedgerStore(engine).append("w", records, ShippedTo(segment=1, offset=0))
    engine.dispose()
    return shell


def _used(now_us, *lines, **changes):
    tokens = {line.meter: int(line.quantity) for line in lines}
    fields = {
        "started_at_us": now_us - 120_000_000,
        "ended_at_us": now_us - 110_000_000,
        "lines": lines,
        "usage": tokens,
        "input_total": tokens.get("input", 0),
        "output_total": tokens.get("output", 0),
        "cost_pico": sum(line.cost_pico for line in lines),
        "list_cost_pico": sum(line.cost_pico for line in lines),
    }
    return make_record(**(fields | changes))


def words(answer):
    assert answer.code == 0, answer.err
    return [line.split() for line in answer.out.splitlines()]


def test_a_report_is_a_table_of_all_that_matters(shell) -> None:
    """Used, committed, left, over, a bar, what it cost and what it saved."""
    answer = shell.run("commitments", "report")
    head, pack, searches = words(answer)

    assert ["ID", "KIND", "USED", "COMMITTED"] == head[:4]
    assert ["pack", "quantity", "2,000", "2,000", "0", "500", "tokens"] == pack[:7]
    assert ["[####################]", "100%"] == pack[7:9]
    assert ["used", "up"] == pack[-3:-1]
    assert ["searches", "quantity", "4", "10", "6", "0", "web_search"] == searches[:7]
    assert ["0.00", "0.040000", "0.040000", "0.0000", "/", "one"] == searches[9:15]
    assert "what overflowed cost 1.00 USD on demand" in answer.err
    assert "1 calls that could be covered are of unknown size" in answer.err


def test_one_commitment_shows_its_days(shell) -> None:
    """The last fortnight of a burn-down, with what was left each day."""
    answer = shell.run("commitments", "report", "searches")
    rows = words(answer)
    today = rows[-1]

    assert ["searches", "by", "day", "(UTC)"] == rows[3]
    assert ["DAY", "USED", "DRAWN", "SO", "FAR", "LEFT", "FEE", "ON", "DEMAND"] in rows
    assert (today[0], ["6", "0.00", "0.040000"]) == (
        from_epoch_us(epoch_us(SystemClock().now() - timedelta(seconds=120))).date().isoformat(),
        today[-3:],
    )


def test_throughput_shows_its_best_day_and_no_rest(shell) -> None:
    """What an hour did not use is lost, so nothing is left over a day."""
    rows = words(shell.run("commitments", "report", "ptu", "--month", "2020-01"))

    assert ["ptu", "throughput", "0", "1,440", "1,440", "0", "tokens"] == rows[1][:7]
    assert ["DAY", "USED", "OF", "ITS", "BEST", "DAY"] == rows[4][:6]
    assert ["2020-01-01", "0", "[....................]", "0%", "-", "48.00", "0.00"] == rows[5]


def test_json_is_exact(shell) -> None:
    """What the API says, for the commitment asked for."""
    answer = json.loads(shell.run("commitments", "report", "pack", "--json").out)

    (pack,) = answer["items"]
    assert ("2000", "500", "4", "1") == (
        pack["used"],
        pack["overflow"],
        pack["on_demand_cost"],
        pack["overflow_cost"],
    )


def test_shared_costs_are_split(shell) -> None:
    """The largest first, and those without use too."""
    rows = words(shell.run("commitments", "shared"))
    answer = json.loads(shell.run("commitments", "shared", "--json").out)

    assert ["platform", "100.00", "USD"] == rows[0][:3]
    assert ["so", "far"] == rows[0][-2:]
    assert ["search", "10,500", "[####################]", "100.0", "100.00"] == rows[2]
    assert ["ads", "0", "[....................]", "0.0", "0.00"] == rows[3]
    assert ["100", "0"] == [share["amount"] for share in answer["items"][0]["shares"]]


def test_what_nobody_used_is_shown_as_nobodys(shell) -> None:
    """An amount is never lost."""
    rows = words(shell.run("commitments", "shared", "--month", "2019-05"))

    assert ["(unallocated)", "-", "-", "-", "100.00"] == rows[-1]


def test_real_prices_stand_beside_assumed_ones(shell) -> None:
    """144 GPU dollars a day for 8,000 tokens: nobody would call that a price."""
    rows = words(shell.run("commitments", "self-hosted", "--days", "1"))
    (one,) = json.loads(shell.run("commitments", "self-hosted", "--days", "1", "--json").out)

    assert ["house/llama", "[#...................]", "0%", "800", "25", "144.00"] == rows[1][:6]
    assert ["2.00", "142.00", "18,000.0000"] == rows[1][6:9]
    assert ("144", "2", "142") == (one["gpu_cost"], one["billed"], one["unrecovered"])
    assert ("18000", "10.000000", "800") == (
        one["price_per_million"],
        one["busy_seconds"],
        one["measured"]["tokens_per_s"],
    )
    assert ["measured", "tokens_per_s:", '"800",'] in [row[:3] for row in rows]
    assert "50" == one["assumed"]["utilization"]


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (("report", "pak"), 1, "there is no commitment 'pak' in the settings; there are: pack"),
        (("report", "--month", "november"), 2, "'november' is not a month such as 2026-11"),
        (("self-hosted", "--days", "0"), 2, "--days is a number from 1"),
        (("shared", "--month"), 2, "expected one argument"),
    ],
)
def test_wrong_use_says_what_is_right(shell, argv, code, says) -> None:
    """Each with its exit code."""
    answer = shell.run("commitments", *argv)

    assert code == answer.code
    assert says in answer.err


def test_nothing_configured_is_no_failure(tmp_path) -> None:
    """An empty report says so in words."""
    shell = Shell(tmp_path)

    assert (
        "no commitments in 2026-11\n"
        == shell.run("commitments", "report", "--month", "2026-11").out
    )
    assert (
        "no shared costs in 2026-11\n"
        == shell.run("commitments", "shared", "--month", "2026-11").out
    )
    assert "no self-hosted models in the settings\n" == shell.run("commitments", "self-hosted").out
