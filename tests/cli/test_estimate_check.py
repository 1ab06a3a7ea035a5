"""estimate --check: a build fails when its recorded test run costs too much, and never by luck."""

import io
import json
import os

import pytest

from gateway.ledger.export import export_records
from gateway.ledger.lines import to_ledger_lines
from pricing.book import load_book
from pricing.meters import Meter
from pricing.rating import rate_usage
from tests.cli.shell import Shell
from tests.contracts.records import NOON_US, make_record, make_refused, make_unknown

AT = ("--at", "2026-11-23")
EXACT = {"model": "openai/gpt-5", "usage": {"input": 224, "cache_read": 1024, "output": 210}}
PLANNED = {"model": "claude-sonnet-4-5", "input_tokens": 1000, "max_output_tokens": 500}
EXPECTED = {"model": "openai/gpt-5", "input_tokens": 1000, "output_tokens": 20}


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def write(shell, *lines):
    """Write a run: objects as JSON, text as it is."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (shell.folder / "run.jsonl").write_text("".join(f"{text}\n" for text in texts))


def check(shell, *more):
    """Check the run."""
    return shell.run("estimate", "--check", "run.jsonl", *AT, *more)


def total(shell, *more):
    """Check the run and read the answer."""
    answer = check(shell, *more, "--json")
    assert answer.code in {0, 1}, answer
    return json.loads(answer.out)


def booked(tier="standard", **changes):
    """A record as the gateway books it: 1,000 plain tokens of gpt-5."""
    card = load_book().find_card("openai", "gpt-5", load_book().version.recorded_at)
    lines = to_ledger_lines(rate_usage({Meter.INPUT: 1000}, card, tier=tier))
    return make_record(**{"lines": lines, "cost_pico": lines[0].cost_pico, **changes})


def export(shell, *records):
    """Write a run as `taximeter ledger export` does."""
    out = io.BytesIO()
    export_records(records, "jsonl", out)
    (shell.folder / "run.jsonl").write_bytes(out.getvalue())


def test_calls_are_priced_one_by_one(shell):
    """Counted usage exactly, a given answer as given, a planned call at its ceiling."""
    write(shell, EXACT, PLANNED, "", EXPECTED)
    found = total(shell)

    assert (found["calls"], found["total"], found["ok"]) == (3, "0.017458", True)
    assert found["models"] == [
        {"model": "anthropic/claude-sonnet-4-5", "calls": 1, "cost": "0.0135"},
        {"model": "openai/gpt-5", "calls": 2, "cost": "0.003958"},
    ]
    assert [(row["line"], row["priced_by"], row["cost"]) for row in found["worst"]] == [
        (2, "ceiling", "0.0135"),
        (1, "usage", "0.002508"),
        (4, "expected", "0.00145"),
    ]


@pytest.mark.parametrize(
    ("limit", "code", "says"),
    [
        ("0.017458 USD", 0, "yes: within what it may cost"),
        ("0.017457999999 USD", 1, "no: 0.017458 USD is 0.000000000001 over the limit of 0.01745"),
        ("5 USD", 0, "total 0.017458 USD"),
    ],
)
def test_the_limit_decides_to_the_last_digit(shell, limit, code, says):
    """What costs the limit exactly is within it."""
    write(shell, EXACT, PLANNED, EXPECTED)
    answer = check(shell, "--limit", limit)

    assert answer.code == code
    assert says in answer.out


def test_only_the_dearest_calls_are_shown(shell):
    """As many as asked for; of equal ones the first."""
    write(shell, EXPECTED, EXACT, EXPECTED)

    assert [row["line"] for row in total(shell, "--worst", "2")["worst"]] == [2, 1]
    assert total(shell, "--worst", "0")["worst"] == []
    assert "dearest" not in check(shell, "--worst", "0").out


def test_exported_records_are_priced_in_the_tier_they_were_served_in(shell):
    """By the names of their prices; what nobody bills is told apart."""
    export(shell, booked(), booked("flex"), make_refused(), booked(provider="mine"))
    found = total(shell)

    assert (found["calls"], found["unbilled"]) == (3, 1)
    assert found["total"] == "0.003125"  # 0.00125 + 0.000625 + 0.00125
    assert found["worst"][0]["id"] is not None


def test_a_record_without_prices_is_priced_by_its_name(shell):
    """It was unpriced when it was made; the book may know the model by now."""
    export(shell, make_record(lines=(), cost_pico=None, cost_status="unpriced"))

    assert total(shell)["total"] == "0.00125"


def test_a_call_of_unknown_size_is_never_free(shell):
    """Nobody knows what it cost, so the answer is no whatever the limit."""
    export(shell, booked(), make_unknown())
    answer = check(shell, "--limit", "100 USD")

    assert answer.code == 1
    assert "no: 1 call is of unknown size, so the true cost is higher" in answer.out


def test_a_record_of_what_is_not_sold_any_more_is_named(shell):
    """At an instant before the model there is no price, and a record may name no model at all."""
    export(shell, booked())
    early = shell.run("estimate", "--check", "run.jsonl", "--at", "2020-01-01")
    export(shell, make_record(lines=(), model=None))
    nameless = check(shell)

    assert (early.code, nameless.code) == (2, 2)
    assert "line 1: openai/gpt-5 has no price at 2020-01-01" in early.err
    assert "line 1: the record names no model" in nameless.err


def test_an_image_is_counted_as_its_text(shell):
    """With an answer given that is what is expected, not a bound."""
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]
    write(shell, {"model": "demo-chat", "messages": messages, "output_tokens": 5})

    assert total(shell)["worst"][0]["priced_by"] == "expected"


def test_a_baseline_of_another_book_is_told(shell):
    """Part of the growth may be the prices'; of nothing there is no growth in percent."""
    write(shell, EXACT)
    saved = {"total": "0", "currency": "USD", "price_version": "older"}
    (shell.folder / "main.json").write_text(json.dumps(saved))
    answer = check(shell, "--baseline", "main.json")

    assert answer.code == 1
    assert "baseline 0 USD\nthe baseline was priced with book older\n" in answer.out
    saved["currency"] = "EUR"
    (shell.folder / "main.json").write_text(json.dumps(saved))
    assert "--baseline is in EUR, the run in USD" in check(shell, "--baseline", "main.json").err


def test_corrections_are_part_of_what_they_correct(shell):
    """They carry differences, in the export behind the record they are about."""
    first, lost, same = booked(), make_unknown(), booked()
    export(
        shell,
        first,
        lost,
        same,
        booked(corrects=first.id, usage={"input": -400}, cost_pico=-1, started_at_us=NOON_US + 1),
        booked(corrects=same.id, usage={}, cost_pico=-5, lines=()),
        make_record(corrects=lost.id, usage={"input": 10}, lines=()),
    )
    found = total(shell)

    assert (found["calls"], found["unknown"]) == (3, 0)
    assert found["total"] == "0.0020125"  # (600 + 10 + 1000) x 1.25 by a million


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense", "JSON is malformed"),
        ("[1]", "it is not a JSON object"),
        ("[" * 100_000, "nested"),
        ("{}", "missing required field `model`"),
        ({"model": "gtp-5", "input_tokens": 1}, "has no model gtp-5; did you mean"),
        ({"model": "gpt-5"}, "give one of usage, input_tokens and messages"),
        ({**EXACT, "input_tokens": 1}, "give one of usage, input_tokens and messages"),
        ({"model": "gpt-5", "input_tokens": -1}, "Expected `int` >= 0 - at `$.input_tokens`"),
        ({"model": "gpt-5", "input_tokens": 1.5}, "Expected `int | null`, got `float`"),
        ({"model": "gpt-5", "usage": {"inptu": 1}}, "Invalid enum value 'inptu'"),
        ({"model": "gpt-5", "usage": {"input": "1e999999999"}}, "is not a number"),
        ({"model": "gpt-5", "usage": {"input": -1}}, "cannot be negative"),
        ({"model": "gpt-5", "usage": {"video_second": "1.5"}}, "has no standard price"),
        ({**PLANNED, "at": "2026-11-23"}, "at `$.at`"),
        ({**PLANNED, "colour": "red"}, "unknown field `colour`"),
        ({**PLANNED, "service_tier": "gold"}, "has no tier 'gold'"),
        ({**PLANNED, "batch": True, "service_tier": "flex"}, "not both"),
        ({"model": "gpt-5", "messages": [{"content": "\ud800"}]}, "truncated"),
        ({"outcome": "ok"}, "missing required field `id`"),
        (
            {
                "outcome": "ok",
                "id": "a",
                "basis": "reported",
                "provider": "openai",
                "model": "gpt-5",
            }
            | {"usage": {"input": 1}, "lines": [{"price_id": "openai/gpt-5/input/gold"}]},
            "has no openai/gpt-5/input/gold",
        ),
    ],
    ids=str,
)
def test_a_line_that_cannot_be_priced_is_named(shell, line, says):
    """Exit code 2 with file and line; the good lines around it do not hide it."""
    write(shell, EXACT, line, EXACT)
    answer = check(shell)

    assert (answer.code, answer.out) == (2, "")
    assert "run.jsonl: line 2: " in answer.err
    assert says in answer.err


def test_every_line_at_fault_is_named_at_once(shell):
    """Up to twenty of them."""
    write(shell, *["nonsense"] * 30)

    assert check(shell).err.count("run.jsonl: line ") == 20


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_run_proves_nothing(shell, text):
    """A run that recorded no call would otherwise pass every limit."""
    (shell.folder / "run.jsonl").write_text(text)
    answer = check(shell, "--limit", "1 USD")

    assert answer.code == 2
    assert "run.jsonl: it holds no call" in answer.err


def test_a_correction_of_what_is_not_there_is_told(shell):
    """Half an export is no run."""
    export(shell, booked(), booked(corrects="01ELSEWHERE"))
    answer = check(shell)

    assert answer.code == 2
    assert "run.jsonl: a record corrects 01ELSEWHERE, which is not in the file" in answer.err


@pytest.mark.parametrize(
    ("growth", "tokens", "code"),
    [
        (("--max-growth", "0"), 1000, 0),
        (("--max-growth", "0"), 1001, 1),
        ((), 1100, 0),
        ((), 1101, 1),
        (("--max-growth", "50%"), 1500, 0),
        (("--max-growth", "50"), 1501, 1),
    ],
    ids=str,
)
def test_a_run_may_grow_so_much_and_no_more(shell, growth, tokens, code):
    """Compared with a total that was saved; ten percent unless another number is given."""
    write(shell, {"model": "gpt-5", "provider": "openai", "usage": {"input": 1000}})
    assert check(shell, "--save", "main.json").code == 0
    write(shell, {"model": "gpt-5", "provider": "openai", "usage": {"input": tokens}})
    answer = check(shell, "--baseline", "main.json", *growth)

    assert answer.code == code
    assert "baseline 0.00125 USD, " in answer.out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--limit", "5"), "limit '5' is not accepted"),
        (("--limit", "5 tokens"), "'5 tokens' is not money"),
        (("--max-growth", "5"), "--max-growth goes with --baseline only"),
        (("--baseline", "x", "--max-growth", "-5"), "-5 is negative"),
        (("--baseline", "nowhere.json"), "cannot read nowhere.json"),
        (("--baseline", "run.jsonl"), "run.jsonl is no total that --save wrote"),
        (("--model", "gpt-5"), "--model does not go with --check"),
        (("--compare", "gpt-5"), "--compare does not go with --check"),
        (("--tier", "flex"), "--tier does not go with --check"),
        (("--check", "nowhere.jsonl"), "cannot read nowhere.jsonl: No such file"),
    ],
    ids=str,
)
def test_wrong_use_of_a_check_is_told(shell, more, says):
    """Nothing given is ignored in silence."""
    write(shell, EXACT)
    answer = check(shell, *more)

    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err


def test_a_run_may_come_through_a_pipe(shell):
    """As from `<(taximeter ledger export)`, which cannot be read twice."""
    reading, writing = os.pipe()
    os.write(writing, json.dumps(EXACT).encode() + b"\n")
    os.close(writing)
    answer = shell.run("estimate", "--check", f"/dev/fd/{reading}", *AT, "--json")
    os.close(reading)

    assert json.loads(answer.out)["total"] == "0.002508"


def test_a_total_that_cannot_be_kept_is_told(shell):
    """And the file that was there before is still there."""
    write(shell, EXACT)
    answer = check(shell, "--save", "nowhere/main.json")

    assert answer.code == 1
    assert "cannot write nowhere/main.json: No such file" in answer.err


def test_the_instant_of_the_prices_can_be_said(shell):
    """For the whole run, or by a call for itself."""
    old = {"model": "openai/o3", "usage": {"input": 1_000_000}, "at": "2025-06-01T00:00:00Z"}
    write(shell, old)

    assert json.loads(shell.run("estimate", "--check", "run.jsonl", "--json").out)["total"] == "10"
    assert total(shell)["total"] == "2"
