"""The made-up company against a real gateway: its totals are the ledger's."""

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.openai_answers import answer_like_openai
from tests.server import ADMIN_TOKEN, TAXIMETER, Gateway, free_port, plain_config
from tests.upstream import ScriptedUpstream

WITHIN_S = 120


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """A provider that is not the demo."""
    with ScriptedUpstream(answer_like_openai) as running:
        yield running


def clean_environ() -> dict[str, str]:
    """No settings of whoever runs the tests."""
    return {name: text for name, text in os.environ.items() if not name.startswith("TAXIMETER_")}


def play(*arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [str(TAXIMETER), "demo", "--traffic", *arguments],
        env=clean_environ() | ({"TAXIMETER_ADMIN_TOKEN": token} if token else {}),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A day in a few seconds, with a gateway of its own."""
    folder = tmp_path_factory.mktemp("company")
    shown = play(
        "--folder", str(folder), "--port", str(free_port()), "--rate", "400", "--speed", "43200"
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return folder, shown.stdout


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Read every record from the database, after everything has ended."""
    with closing(sqlite3.connect(folder / "taximeter.db")) as ledger:
        ledger.row_factory = sqlite3.Row
        return [dict(row) for row in ledger.execute("SELECT * FROM records")]


def test_the_summary_is_what_the_ledger_says(played: tuple[Path, str]) -> None:
    """Calls, tokens and cost of the last line are those of the database."""
    folder, shown = played
    found = re.search(r"^all +(.*)$", shown, re.MULTILINE)
    assert found is not None, shown
    calls, refused, _, asked, said, unpriced, cost = found[1].replace(",", "").split()
    rows = rows_of(folder)

    assert "every call is in the ledger" in shown
    assert len(rows) == int(calls)
    assert sum(row["outcome"] == "refused" for row in rows) == int(refused)
    assert sum(row["input_total"] or 0 for row in rows) == int(asked)
    assert sum(row["output_total"] or 0 for row in rows) == int(said)
    assert sum(row["cost_pico"] is None for row in rows) == int(unpriced)
    assert Decimal(sum(row["cost_pico"] or 0 for row in rows)).scaleb(-12) == Decimal(cost)


def test_a_day_shows_what_there_is_to_see(played: tuple[Path, str]) -> None:
    """Providers, streams, errors, hang-ups, refusals, unpriced and untagged calls, two versions."""
    folder, shown = played
    rows = rows_of(folder)

    assert {"openai", "anthropic", "gemini", "mistral", "local"} == {r["provider"] for r in rows}
    assert {"ok", "upstream_error", "refused"} <= {row["outcome"] for row in rows}
    assert {True, False} == {bool(row["stream"]) for row in rows}
    assert len({row["price_version"] for row in rows if row["price_version"]}) >= 2
    assert any(not json.loads(row["tags"] or "{}") for row in rows)
    assert any(row["user"] for row in rows)
    assert {"reported", "estimated", "none"} <= {row["basis"] for row in rows}
    assert "a price changed with version" in shown
    assert re.search(r"[1-9]\d* retries, [1-9]\d* calls of the anomaly", shown)


def test_nothing_is_left_running_or_working(played: tuple[Path, str]) -> None:
    """Both processes have ended and every key is revoked."""
    folder, _ = played

    with closing(sqlite3.connect(folder / "taximeter.db")) as ledger:
        live = ledger.execute("SELECT id FROM keys WHERE revoked_at_us IS NULL").fetchall()
    assert [] == [name for (name,) in live if name.startswith("demo-")]


def test_a_provider_that_is_not_the_demo_is_left_alone(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """One small call is enough to see that answers may be billed."""
    with Gateway(tmp_path, plain_config(upstream.base_url)) as gateway:
        shown = play("--url", gateway.url, "--calls", "50", token=ADMIN_TOKEN)

        assert shown.returncode == 1
        assert "is not the demo provider" in shown.stderr
        assert len(gateway.ledger()) <= 2


def test_a_wrong_token_is_said(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """The control plane's answer is passed on."""
    with Gateway(tmp_path, plain_config(upstream.base_url)) as gateway:
        shown = play("--url", gateway.url, "--calls", "5", token="wrong")

    assert shown.returncode == 1
    assert "status 401" in shown.stderr


def test_without_a_token_nothing_is_called() -> None:
    """The way to give one is named."""
    shown = play("--url", "http://127.0.0.1:9")

    assert shown.returncode == 2
    assert "TAXIMETER_ADMIN_TOKEN" in shown.stderr


def test_a_stop_ends_the_run_with_its_totals(tmp_path: Path) -> None:
    """Ctrl-C: no more calls, the comparison, and no process left."""
    port = free_port()
    arguments = ["--days", "0", "--rate", "60", "--speed", "43200", "--port", str(port)]
    with subprocess.Popen(
        [str(TAXIMETER), "demo", "--traffic", *arguments, "--folder", str(tmp_path)],
        env=clean_environ() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        code = process.wait(WITHIN_S)

    assert first[1].startswith("day 1: "), first
    assert "every call is in the ledger" in rest
    assert code == 0
