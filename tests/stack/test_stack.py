"""``make stack``: every part comes up, is used, and is gone at the end."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from tests.house.tree import ROOT

WITHIN_S = 120


def descendants(pid: int) -> set[int]:
    """List every process below one."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found |= {child} | descendants(child)
    return found


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has buried yet does not."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(check: Callable[[], bool], what: str) -> None:
    """Wait for something to become true."""
    pause, deadline = threading.Event(), time.monotonic() + WITHIN_S
    while not check():
        assert time.monotonic() < deadline, f"waited {WITHIN_S} s for {what}"
        pause.wait(0.1)


def shown(http: httpx.Client, url: str) -> str:
    """Read a page; nothing where it cannot be read."""
    with suppress(httpx.TransportError):
        return http.get(url).text
    return ""


def test_the_stack_starts_is_used_and_leaves_nothing(tmp_path: Path) -> None:
    """Gateway, stores, Prometheus where it is installed, and traffic that arrives."""
    arguments = ["--folder", str(tmp_path), "--free-ports", "--rate", "30", "--speed", "14400"]
    with (
        subprocess.Popen(
            [sys.executable, "-m", "stack", *arguments],
            cwd=ROOT,
            env={n: t for n, t in os.environ.items() if not n.startswith("TAXIMETER_")},
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
        httpx.Client(timeout=30, trust_env=False) as http,
    ):
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C stops everything" in line:
                break
        urls = dict(re.findall(r"^  (\w+) +(http://\S+)", "".join(said), re.MULTILINE))
        started = descendants(process.pid)
        try:
            assert "everything is up\n" == said[0], said
            assert http.get(urls["gateway"] + "/readyz").status_code == 200
            wait_until(
                lambda: 'outcome="ok"' in shown(http, urls["gateway"] + "/metrics"),
                "traffic to reach the gateway",
            )
            assert 'gateway_store_up{store="redis"} 1.0' in shown(
                http, urls["gateway"] + "/metrics"
            )
            if shutil.which("prometheus"):
                wait_until(
                    lambda: '"health":"up"' in shown(http, urls["prometheus"] + "/api/v1/targets"),
                    "Prometheus to have scraped the gateway",
                )
            assert len(started) >= 6
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            code = process.wait(WITHIN_S)

    assert 0 == code
    assert "everything has stopped" in rest
    assert [] == [pid for pid in started if is_alive(pid)]


def test_a_part_that_ends_is_named_and_ends_the_rest(tmp_path: Path) -> None:
    """A gateway that cannot start does not leave its stores running."""
    (tmp_path / "journal").write_text("a file where the folder should be")
    (tmp_path / "gateway.yaml").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "stack", "--folder", str(tmp_path), "--free-ports"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )

    assert done.returncode != 0
    assert "gateway.yaml" in done.stderr
