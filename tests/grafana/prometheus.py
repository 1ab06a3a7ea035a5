"""A real Prometheus that scrapes a gateway every second, with the rules of the project.

Must never keep anything: its data ends with it.
"""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from tests.server import free_port

RULES: Final = Path(__file__).parents[2] / "grafana/prometheus/rules"


class Prometheus:
    """A running server.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.Client(base_url=f"{self.url}/api/v1", timeout=30, trust_env=False)

    def ask(self, path: str, **params: Any) -> Any:
        """Ask its API; the ``data`` of the answer, or a failure with what it said."""
        shown = self._http.get(path, params=params)

        assert shown.status_code == 200, f"{params}: {shown.text}"
        return shown.json()["data"]

    def value(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """Ask for one moment."""
        more = {} if at is None else {"time": at}
        found: list[dict[str, Any]] = self.ask("query", query=expr, **more)["result"]
        return found

    def span(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Ask for a span."""
        params = {"query": expr, "start": start, "end": end, "step": step}
        found: list[dict[str, Any]] = self.ask("query_range", **params)["result"]
        return found

    def wait_until(self, check: Callable[[], bool], what: str, within_s: float = 60) -> None:
        """Wait for something to become true."""
        pause, deadline = threading.Event(), time.monotonic() + within_s
        while not check():
            assert time.monotonic() < deadline, f"waited {within_s} s for {what}"
            pause.wait(0.2)

    def close(self) -> None:
        """Let go of its connections."""
        self._http.close()

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            return self._http.get("query", params={"query": "1"}).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running_prometheus(
    folder: Path, target: str, blocks: Path | None = None
) -> Iterator[Prometheus]:
    """Start one.

    Args:
        folder: For its configuration and data.
        target: Address to scrape.
        blocks: Data it begins with, as promtool makes it; ``None`` for none.

    Yields:
        The server, ready.
    """
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules" / "*.yml")],
        "scrape_configs": [
            {"job_name": "taximeter", "static_configs": [{"targets": [target]}]},
        ],
    }
    _quicken(folder / "rules")
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    data = folder / "data"
    if blocks is not None:
        shutil.copytree(blocks, data)
    port = free_port()
    with (folder / "prometheus.log").open("ab") as log:
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={path}",
                f"--storage.tsdb.path={data}",
                "--storage.tsdb.retention.time=60d",
                "--enable-feature=exemplar-storage",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    prometheus = Prometheus(port)
    try:
        prometheus.wait_until(prometheus.is_ready, "Prometheus to answer")
        yield prometheus
    finally:
        prometheus.close()
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _quicken(folder: Path) -> None:
    """Copy the rules, evaluated every second: a test does not wait for a minute."""
    folder.mkdir(parents=True)
    for path in RULES.glob("*.yml"):
        rules = yaml.safe_load(path.read_text())
        for group in rules["groups"]:
            group["interval"] = "1s"
        (folder / path.name).write_text(json.dumps(rules))
