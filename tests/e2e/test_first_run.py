"""A fresh folder, no configuration: what a newcomer sees in the first minute.

Must never need anything that the first start did not print.
"""

import json
import re
import subprocess
from decimal import Decimal
from pathlib import Path

from tests.server import Gateway, find_curl

SECRET = re.compile(r"sk-tm-[A-Za-z0-9_-]{43}")
ADMIN = re.compile(r"admin[ _-]token\W+([\w~.+/=-]{16,})", re.IGNORECASE)


def first_words(gateway: Gateway, starts: int = 1) -> str:
    """Everything printed, once each start has said that it is ready: that follows the probe."""
    gateway.wait_until(
        lambda: gateway.output().count("taximeter is ready") == starts, "the first words"
    )
    return gateway.output()


def run_in_shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line the way somebody does who pasted it."""
    return subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_first_start_prints_a_curl_line_that_works(tmp_path: Path) -> None:
    """Admin token, key and a call to the built-in provider: printed, true, and priced."""
    with Gateway(tmp_path, None) as gateway:
        said = first_words(gateway)
        line = find_curl(said)
        secret = SECRET.search(said)
        admin = ADMIN.search(said)
        assert secret is not None, said
        assert admin is not None, said

        answered = run_in_shell(line, tmp_path)

        assert 0 == answered.returncode, answered.stderr
        assert "choices" in answered.stdout
        assert "usage" in answered.stdout or "data:" in answered.stdout
        gateway.admin.headers["authorization"] = f"Bearer {admin.group(1)}"
        records = [record for record in gateway.ledger() if record["outcome"] == "ok"]
        assert 1 == len(records)
        record = records[0]
        assert ("default",) * 4 == tuple(
            record[name] for name in ("organization", "team", "project", "key")
        )
        assert ("demo", "reported", "final") == (
            record["provider"],
            record["basis"],
            record["cost_status"],
        )
        assert Decimal(record["cost"]) > 0
        assert sum(Decimal(line["cost"]) for line in record["lines"]) == Decimal(record["cost"])


def test_a_whole_answer_of_the_demo_provider_is_marked_as_fake(tmp_path: Path) -> None:
    """Nobody mistakes canned text for a model; the call is priced all the same."""
    with Gateway(tmp_path, None) as gateway:
        secret = SECRET.search(first_words(gateway))
        assert secret is not None
        body = {"model": "demo-chat", "messages": [{"role": "user", "content": "Hello"}]}
        response = gateway.call("/v1/chat/completions", body, key=secret.group())

    assert 200 == response.status_code, response.text
    answer = response.json()
    assert re.search("demo|fake|canned", json.dumps(answer), re.IGNORECASE)
    assert Decimal(response.headers["x-taximeter-cost"]) > 0


def test_the_second_start_keeps_the_key_and_does_not_print_it(tmp_path: Path) -> None:
    """State lives in ``./data``; a secret is shown once."""
    with Gateway(tmp_path, None) as gateway:
        said = first_words(gateway)
        secret = SECRET.search(said)
        assert secret is not None
        assert 0 == gateway.stop()
        assert (tmp_path / "data").is_dir()
        gateway.restart()

        assert secret.group() not in first_words(gateway, starts=2)[len(said) :]
        body = {"model": "demo-chat", "messages": [{"role": "user", "content": "Hello"}]}
        answer = gateway.call("/v1/chat/completions", body, key=secret.group())
        assert 200 == answer.status_code, answer.text


def test_the_demo_provider_dies_with_the_gateway(tmp_path: Path) -> None:
    """After a kill of the group nothing is left, and the next start works."""
    with Gateway(tmp_path, None) as gateway:
        secret = SECRET.search(first_words(gateway))
        assert secret is not None
        gateway.kill()
        gateway.restart()
        body = {
            "model": "demo/demo-chat",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
        }
        answer = gateway.call("/v1/chat/completions", body, key=secret.group())

    assert 200 == answer.status_code, answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


def test_it_is_ready_quickly(tmp_path: Path) -> None:
    """Two seconds is the promise; a busy machine gets three times that."""
    with Gateway(tmp_path, None) as gateway:
        assert gateway.ready_s < 6
