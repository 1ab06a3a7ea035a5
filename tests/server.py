"""The real gateway, started the way a user starts it, in a process group of its own.

Must never reach into the gateway: a command line, a file, HTTP and signals are all there is.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Self

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

ADMIN_TOKEN: Final = "admin-Zx81-token-only-for-tests"
PROVIDER_KEY: Final = "sk-provider-Qp44-only-for-tests"
KEY: Final = "sk-tm-" + "Aa0_" * 10 + "key"

TAXIMETER: Final = Path(sys.executable).with_name("taximeter")

Record = dict[str, Any]


BROKEN_OFF: Final = (httpx.RemoteProtocolError, httpx.ReadError)


class GatewayGone(AssertionError):
    """The gateway process ended while a test was waiting for it."""


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def plain_config(base_url: str, **sections: Any) -> dict[str, Any]:
    """Write a configuration with one OpenAI provider, one team, one project and one key.

    Args:
        base_url: The upstream's, with ``/v1``.
        sections: Top-level sections to add or replace.

    Returns:
        Everything but the address and the storage, which ``Gateway`` fills in. The key is ``KEY``.
    """
    return {
        "providers": {
            "openai": {"kind": "openai", "base_url": base_url, "api_key": "env:OPENAI_API_KEY"}
        },
        "organization": "acme",
        "teams": [
            {
                "id": "search",
                "projects": [
                    {
                        "id": "rag",
                        "tags": {"env": "prod"},
                        "keys": [{"id": "rag-ci", "secret": "env:RAG_KEY"}],
                    }
                ],
            }
        ],
        **sections,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetView:
    """A budget's counters as the control plane shows them.

    Attributes:
        limit: Largest amount.
        spent: Settled and parked.
        reserved: Held by open calls.
        remaining: What is left.
    """

    limit: Decimal
    spent: Decimal
    reserved: Decimal
    remaining: Decimal


class Gateway:
    """One gateway with its folder; may be killed and started again.

    Attributes:
        folder: Working directory: configuration, data and captured output.
        port: Where it listens.
        http: Client without credentials, for the data plane and the probes.
        admin: Client of ``/api/v1`` with the admin token.
        ready_s: How long the last start took.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any] | None,
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.ready_s = 0.0
        self._arguments = ["serve"]
        self._environ = _clean_environ() | {"TAXIMETER_SERVER__PORT": str(self.port)}
        if config is not None:
            self._write_config(config)
            self._environ |= {
                "TAXIMETER_ADMIN_TOKEN": ADMIN_TOKEN,
                "OPENAI_API_KEY": PROVIDER_KEY,
                "RAG_KEY": KEY,
            }
        self._environ |= secrets or {}
        self._process: subprocess.Popen[bytes] | None = None
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self.http = httpx.Client(base_url=self.url, timeout=30, limits=limits, trust_env=False)
        self.admin = httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers={"authorization": f"Bearer {ADMIN_TOKEN}"},
            timeout=30,
            trust_env=False,
        )

    def write_server(self, **settings: Any) -> None:
        """Change settings of the server in the file, for the next start."""
        self._change("server", settings)

    def write_storage(self, **settings: Any) -> None:
        """Change settings of the storage in the file, for the next start."""
        self._change("storage", settings)

    def _change(self, section: str, settings: Mapping[str, Any]) -> None:
        path = self.folder / "gateway.yaml"
        config = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**config, section: {**config[section], **settings}}))

    def _write_config(self, config: Mapping[str, Any]) -> None:
        path = self.folder / "gateway.yaml"
        server = {
            "host": "127.0.0.1",
            "port": self.port,
            "admin_token": "env:TAXIMETER_ADMIN_TOKEN",
            **config.get("server", {}),
        }
        path.write_text(yaml.safe_dump({**config, "server": server}, sort_keys=False))
        self._arguments += ["--config", str(path)]

    @property
    def url(self) -> str:
        """Root URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the leader of the group."""
        assert self._process is not None, "not started"
        return self._process.pid

    # -- life --

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop()
        self.http.close()
        self.admin.close()

    def start(self, ready_within_s: float = 30) -> None:
        """Start and wait until ``/readyz`` says yes."""
        assert self._process is None, "already started"
        began = time.monotonic()
        self.spawn()
        try:
            self.wait_until(self.is_ready, "the gateway to be ready", ready_within_s)
        except BaseException:
            self.kill()
            raise
        self.ready_s = time.monotonic() - began

    def spawn(self) -> None:
        """Start and go on at once; one that has ended is left behind."""
        if self._process is not None:
            self._process.wait(10)
        with (
            (self.folder / "stdout.log").open("ab") as out,
            (self.folder / "stderr.log").open("ab") as err,
        ):
            self._process = subprocess.Popen(
                [str(TAXIMETER), *self._arguments],
                cwd=self.folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def is_running(self) -> bool:
        """Tell whether its first process is there."""
        return self.running_pid() is not None

    def running_pid(self) -> int | None:
        """Tell the id of its first process; ``None`` once that has ended."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def kill_running(self) -> None:
        """End the whole group with SIGKILL, where it runs; ``spawn`` may follow."""
        pid = self.running_pid()
        if pid is not None:
            _kill_group(pid)

    def is_ready(self) -> bool:
        """Tell whether ``/readyz`` says yes."""
        with suppress(httpx.TransportError):
            return self.http.get("/readyz", timeout=2).status_code == 200
        return False

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the leader, as a supervisor does, and go on."""
        assert self._process is not None, "not started"
        with suppress(ProcessLookupError):
            self._process.terminate()

    def stop(self, within_s: float = 20) -> int:
        """Ask it to end and wait for that; returns its exit status."""
        self.ask_to_stop()
        assert self._process is not None
        process, self._process = self._process, None
        try:
            return process.wait(within_s)
        finally:
            _kill_group(process.pid)
            process.wait(5)

    def kill(self) -> None:
        """End the whole group with SIGKILL: nobody gets to say goodbye."""
        assert self._process is not None, "not started"
        process, self._process = self._process, None
        _kill_group(process.pid)
        process.wait(10)

    def kill_leader(self) -> None:
        """End the first process alone with SIGKILL; those it has started are left to themselves."""
        assert self._process is not None, "not started"
        process, self._process = self._process, None
        process.kill()
        process.wait(10)

    def start_when(self, check: Callable[[], bool], within_s: float = 20) -> None:
        """Start again as soon as something has become true, while nothing of this runs."""
        pause = threading.Event()
        deadline = time.monotonic() + within_s
        while not check():
            assert time.monotonic() < deadline, f"waited {within_s} s to start again{self.said()}"
            pause.wait(0.02)
        self.start()

    def restart(self) -> None:
        """Start again after ``kill`` or ``stop``, over the same folder and port."""
        self.start()

    def run(self, *arguments: str, within_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run another ``taximeter`` command in the same folder and environment."""
        config = self._arguments[1:]
        return subprocess.run(
            [str(TAXIMETER), *arguments, *config],
            cwd=self.folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def wait_until(self, check: Callable[[], bool], what: str, within_s: float = 10) -> None:
        """Wait for something to become true; fails at once when the gateway ends meanwhile.

        Args:
            check: Asked again and again.
            what: Words for the failure.
            within_s: When to give up.
        """
        assert self._process is not None, "not started"
        deadline = time.monotonic() + within_s
        while not check():
            try:
                code = self._process.wait(timeout=0.01)
            except subprocess.TimeoutExpired:
                assert time.monotonic() < deadline, f"waited {within_s} s for {what}{self.said()}"
            else:
                raise GatewayGone(f"exit status {code} while waiting for {what}{self.said()}")

    def output(self) -> str:
        """Everything written to standard output so far, over all starts."""
        return (self.folder / "stdout.log").read_text()

    def errors(self) -> str:
        """Everything written to standard error so far, over all starts."""
        return (self.folder / "stderr.log").read_text()

    def said(self) -> str:
        """The end of both outputs, for failures."""
        return f"\n--- stdout\n{self.output()[-2000:]}\n--- stderr\n{self.errors()[-4000:]}"

    # -- calls --

    def call(
        self,
        path: str,
        body: bytes | Mapping[str, Any],
        *,
        key: str | None = KEY,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Make one data plane call and read its answer.

        Args:
            path: Such as ``/v1/chat/completions``.
            body: Exact bytes, or an object to write as JSON.
            key: Virtual key; ``None`` sends none.
            headers: Further headers.
        """
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **(headers or {})}
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        return self.http.post(path, content=content, headers=sent)

    # -- what it knows --

    def metric(self, name: str, **labels: str) -> float:
        """Read a metric, summed over the label sets that match; 0 when there is none."""
        families = text_string_to_metric_families(self.http.get("/metrics").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def settle(self) -> None:
        """Wait until no call is open and every record written so far is in the ledger."""
        self.wait_until(self._is_idle, "every call to end")
        barrier = self.call("/v1/chat/completions", b"barrier", key="sk-tm-nobody")
        wanted = barrier.headers["x-taximeter-request-id"]
        self.wait_until(
            lambda: any(record["id"] == wanted for record in self._page()),
            "the ledger to catch up with the journal",
        )

    def _is_idle(self) -> bool:
        return (
            self.metric("gateway_open_requests") == 0
            and self.metric("gateway_reservations_open") == 0
        )

    def _page(self) -> list[Record]:
        # The newest records only: enough to see whether the ledger has caught up.
        shown = self.admin.get("/ledger", params={"limit": 20})
        assert shown.status_code == 200, shown.text
        body = shown.json()
        rows: list[Record] = (
            body
            if isinstance(body, list)
            else next(value for value in body.values() if isinstance(value, list))
        )
        return rows

    def ledger(self) -> list[Record]:
        """Read every record, oldest first, once all calls have ended and been shipped."""
        self.settle()
        shown = self.admin.get("/ledger", headers={"accept": "application/x-ndjson"})
        assert shown.status_code == 200, shown.text
        return [json.loads(line) for line in shown.text.splitlines() if line]

    def records_of(self, user: str) -> list[Record]:
        """Read the records of one end user; tests name a fresh one per call."""
        return [record for record in self.ledger() if record["user"] == user]

    def record(self, response: httpx.Response) -> Record:
        """Read the one record of a response; fails when there is none or more than one."""
        wanted = response.headers["x-taximeter-request-id"]
        found = [record for record in self.ledger() if record["id"] == wanted]
        assert len(found) == 1, f"{len(found)} records with id {wanted}"
        return found[0]

    def budget(self, budget_id: str) -> BudgetView:
        """Read a budget's counters."""
        shown = self.admin.get(f"/budgets/{budget_id}")
        assert shown.status_code == 200, shown.text
        status = shown.json()["status"]
        return BudgetView(
            **{name: amount(status[name]) for name in ("limit", "spent", "reserved", "remaining")}
        )


def amount(text: object) -> Decimal:
    """Read an amount that may be followed by its unit."""
    return Decimal(str(text).split()[0])


def find_curl(output: str) -> str:
    """Find the shell command that the first start prints, continuation lines included."""
    found = re.search(r"^[ \t]*(curl (?:.*\\\n)*.*)$", output, re.MULTILINE)
    assert found is not None, f"no curl line in:\n{output}"
    return found.group(1)


def each_file(folder: Path) -> Iterator[Path]:
    """List every regular file under a folder."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _clean_environ() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TAXIMETER_", "OPENAI_", "COV_", "PYTEST_"))
        and not name.lower().endswith("_proxy")
    }
    return kept | {"PYTHONUNBUFFERED": "1"}


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
