"""The processes of a benchmark: mock provider, contestants, load; and what the kernel says of them.

Must never reach beyond the loopback interface, and never leave a process behind.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any, Final, Self

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
GATEWAY_CORE: Final = "0"
LOAD_CORE: Final = "1"
IN_PROCESS: Final = "gateway, fsync normal"
SHARED: Final = "gateway, shared budgets"
KEY: Final = "sk-tm-" + "bench0_" * 6 + "x"
ADMIN_TOKEN: Final = "bench-admin-token"

_RESULT: Final = re.compile(
    r"RESULT requests=(\d+) us=(\d+) p50=(\d+) p99=(\d+) socket=(\d+) status=(\d+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One slice of load.

    Attributes:
        connections: Connections kept busy.
        seconds: How long.
    """

    connections: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What one slice of load came to.

    Attributes:
        requests: Answers received.
        rps: Answers per second.
        p50_ms: Median latency.
        p99_ms: 99th percentile latency.
        failures: Socket errors, timeouts and answers that were not 2xx or 3xx.
        cpu_us: CPU per request during the slice; 0 for a target without processes of its own.
        cpu_after_us: CPU per request spent after it, until the contestant was quiet again.
    """

    requests: int
    rps: float
    p50_ms: float
    p99_ms: float
    failures: int
    cpu_us: float
    cpu_after_us: float


class Part:
    """A process group pinned to one core, with its output in a file.

    Attributes:
        name: As in the table.
        port: Where it listens.
        ready_s: From start to the first good answer.
        has_ledger: Whether records go on their way to a ledger after an answer.
    """

    def __init__(
        self,
        name: str,
        port: int,
        command: list[str],
        *,
        folder: Path,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self.ready_s = 0.0
        self.has_ledger = False
        self._command = command
        self._folder = folder
        self._environ = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, core: str, probe: str, within_s: float = 60) -> Self:
        """Start and wait for the first answer below 500 to ``GET probe``."""
        began = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "output.log").open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", core, *self._command],
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while not self._answers(probe):
            if time.monotonic() - began > within_s:
                raise PartBroken(f"{self.name} gave no answer within {within_s} s", self.tail())
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(0.005)
                raise PartBroken(f"{self.name} ended with status {code}", self.tail())
        self.ready_s = time.monotonic() - began
        return self

    def _answers(self, probe: str) -> bool:
        talk = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            talk.request("GET", probe)
            return talk.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            talk.close()

    def stop(self) -> None:
        """End the whole group: a polite signal, then a final one."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
                break
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def tail(self) -> str:
        """The end of the output."""
        return (self._folder / "output.log").read_text(errors="replace")[-2000:]

    def pids(self) -> list[int]:
        """Every process of the group."""
        if self._process is None:
            return []
        return [pid for pid in _all_pids() if _group_of(pid) == self._process.pid]

    def cpu_ns(self) -> int:
        """CPU time of every thread of the group so far, by the scheduler's own count."""
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with suppress(OSError):
                    total += int(task.read_text().split()[0])
        return total

    def rss_mb(self) -> float:
        """Resident memory of the largest process of the group: the worker."""
        sizes = [0]
        for pid in self.pids():
            with suppress(OSError):
                found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
                sizes.append(int(found.group(1)) if found else 0)
        return max(sizes) / 1024

    def wait_quiet(self, within_s: float = 30) -> float:
        """Wait until the group hardly uses CPU; returns how long that took in seconds.

        What a slice left behind, such as records on their way to the ledger, must not be paid by
        the next contestant's slice.
        """
        began = time.monotonic()
        while not self._is_shipped() and time.monotonic() - began < within_s:
            self._pause()
        calm = 0
        while calm < 3 and time.monotonic() - began < within_s:
            before = self.cpu_ns()
            self._pause()
            calm = calm + 1 if self.cpu_ns() - before < 2_500_000 else 0
        return time.monotonic() - began

    def _pause(self) -> None:
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)

    def _is_shipped(self) -> bool:
        """Whether every record has reached the ledger; true of a part that has none."""
        if not self.has_ledger or self._process is None:
            return True
        talk = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            talk.request("GET", "/metrics")
            return b"\ngateway_ledger_lag_seconds 0.0\n" in talk.getresponse().read()
        finally:
            talk.close()


class PartBroken(RuntimeError):
    """A process of the benchmark did not start, or its answers were not good."""


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def run_load(part: Part, load: Load, *, is_stream: bool, path: str) -> Slice:
    """Put one slice of load on a part.

    Args:
        part: The target.
        load: How much.
        is_stream: Whether the request asks for a stream.
        path: Path of the request.

    Returns:
        What it came to, with the CPU of the part.

    Raises:
        PartBroken: The load generator said nothing that could be read.
    """
    before = part.cpu_ns()
    done = subprocess.run(
        [
            *("taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{load.connections}"),
            *(f"-d{load.seconds:g}s", "--timeout", "10s", "--latency"),
            *("-s", str(HERE / "load.lua"), f"http://127.0.0.1:{part.port}{path}"),
        ],
        env={**os.environ, "BENCH_KEY": KEY, "BENCH_STREAM": "1" if is_stream else "0"},
        capture_output=True,
        text=True,
        timeout=load.seconds + 60,
        check=False,
    )
    within = part.cpu_ns() - before
    part.wait_quiet()
    after = part.cpu_ns() - before - within
    found = _RESULT.search(done.stdout)
    if found is None:
        raise PartBroken(f"no result from wrk for {part.name}", done.stdout + done.stderr)
    requests, span_us, p50, p99, broken, refused = (int(number) for number in found.groups())
    each = max(requests, 1)
    return Slice(
        requests=requests,
        rps=requests * 1e6 / span_us,
        p50_ms=p50 / 1000,
        p99_ms=p99 / 1000,
        failures=broken + refused,
        cpu_us=within / 1000 / each,
        cpu_after_us=after / 1000 / each,
    )


# -- the mock provider ---------------------------------------------------------------------------


def completion_body() -> str:
    """Write the fixed answer: a chat completion of about 1.2 kB with usage in full."""
    text = (
        "The ledger keeps one row for every call so that a bill can be checked line by line; "
        "a sum alone could never be argued with. Each row says what was counted, at which price, "
        "and how sure that is, and none of them is ever edited."
    )
    answer = {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": 1763894400,
        "model": "gpt-5-2025-08-07",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": text,
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": _usage(),
        "service_tier": "default",
        "system_fingerprint": None,
    }
    return json.dumps(answer, indent=2)


def stream_body(chunks: int = 200) -> str:
    """Write the fixed stream: one event a word, usage before the end; about 56 kB."""
    top = {
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "object": "chat.completion.chunk",
        "created": 1763894400,
        "model": "gpt-5-2025-08-07",
        "service_tier": "default",
        "system_fingerprint": None,
    }
    spoken = [
        {
            **top,
            "choices": [{"index": 0, "delta": {"content": f" word{n}"}, "finish_reason": None}],
            "usage": None,
            "obfuscation": "q7Xz0aLw",
        }
        for n in range(chunks)
    ]
    events = [*spoken, {**top, "choices": [], "usage": _usage()}]
    lines = [f"data: {json.dumps(event, separators=(',', ':'))}\n\n" for event in events]
    return "".join(lines) + "data: [DONE]\n\n"


def _usage() -> dict[str, object]:
    return {
        "prompt_tokens": 702,
        "completion_tokens": 58,
        "total_tokens": 760,
        "prompt_tokens_details": {"cached_tokens": 512, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 12,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def start_mock(folder: Path, *, is_stream: bool) -> Part:
    """Start nginx as the provider, on the core of the load.

    Args:
        folder: Where its configuration, files and output go.
        is_stream: Whether it answers with the stream.

    Returns:
        The running part; it answers any method on any path under ``/v1``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    kind = "text/event-stream; charset=utf-8" if is_stream else "application/json"
    (folder / "answer").write_text(stream_body() if is_stream else completion_body())
    (folder / "nginx.conf").write_text(
        _NGINX.format(
            # As root, nginx would read the answer as somebody who may not.
            user="user root;" if os.geteuid() == 0 else "",
            folder=folder,
            port=port,
            kind=kind,
            headers=_HEADERS,
        )
    )
    command = ["nginx", "-p", str(folder), "-e", "error.log", "-c", str(folder / "nginx.conf")]
    mock = Part("nginx, direct", port, command, folder=folder)
    return mock.start(core=LOAD_CORE, probe="/v1/models")


# A static file answers GET only; the 405 for POST is turned back into the file with status 200.
_NGINX: Final = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path {folder}/temp;
  proxy_temp_path {folder}/temp;
  fastcgi_temp_path {folder}/temp;
  uwsgi_temp_path {folder}/temp;
  scgi_temp_path {folder}/temp;
  open_file_cache max=16;
  sendfile on;
  tcp_nodelay on;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      types {{ }}
      default_type "{kind}";
      etag off;
      error_page 405 =200 /answer;
      root {folder};
      try_files /answer =404;
{headers}
    }}
  }}
}}
"""

# With Server, Date, Content-Type, Content-Length and Connection these make nineteen and over.
_HEADERS: Final = "\n".join(
    f'      add_header {name} "{value}" always;'
    for name, value in (
        ("x-request-id", "req_b1946ac92492d2347c6235b4d2611184"),
        ("openai-organization", "acme-1a2b3c"),
        ("openai-processing-ms", "412"),
        ("openai-version", "2020-10-01"),
        ("x-envoy-upstream-service-time", "431"),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "2000000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-remaining-tokens", "1998700"),
        ("x-ratelimit-reset-requests", "6ms"),
        ("x-ratelimit-reset-tokens", "39ms"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains; preload"),
        ("x-content-type-options", "nosniff"),
        ("cf-cache-status", "DYNAMIC"),
    )
)


# -- contestants ---------------------------------------------------------------------------------


def build_bare(folder: Path, upstream: str, *, is_batch: bool = False) -> Part:
    """Prepare the baseline, not started.

    Args:
        folder: Its working directory.
        upstream: Base URL of the mock provider.
        is_batch: Whether it asks the kernel for the scheduling the gateway asks for.

    Returns:
        The part.
    """
    port = free_port()
    command = [sys.executable, "-m", "bench.bare", str(port)]
    return Part(
        "bare, SCHED_BATCH" if is_batch else "bare pass-through",
        port,
        ["chrt", "--batch", "0", *command] if is_batch else command,
        folder=folder,
        environ={"BENCH_UPSTREAM": upstream},
    )


def build_gateway(
    folder: Path, upstream: str, *, fsync: str, redis_url: str = "", durability: str = "commit"
) -> Part:
    """Prepare the gateway, not started: one key, three hard budgets too large to be reached.

    Args:
        folder: Its working directory, with ledger and journal.
        upstream: Base URL of the mock provider.
        fsync: ``normal`` or ``full``.
        redis_url: Where budgets are shared; empty where they are the process's own.
        durability: ``commit`` or ``async``.

    Returns:
        The part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = _gateway_config(port, upstream, fsync)
    config["metering"] = {"durability": durability}
    if redis_url:
        config["storage"]["redis_url"] = redis_url
    # JSON is YAML, and needs no library here.
    (folder / "gateway.yaml").write_text(json.dumps(config))
    command = [str(Path(sys.executable).with_name("taximeter")), "serve", "--config"]
    part = Part(
        SHARED if redis_url else f"gateway, fsync {fsync}",
        port,
        [*command, str(folder / "gateway.yaml")],
        folder=folder,
        environ={"BENCH_KEY": KEY, "BENCH_ADMIN": ADMIN_TOKEN, "BENCH_PROVIDER": "sk-bench"},
    )
    part.has_ledger = True
    return part


def _gateway_config(port: int, upstream: str, fsync: str) -> dict[str, Any]:
    large = {"window": "month", "limit": "1000000 USD"}
    return {
        "server": {"host": "127.0.0.1", "port": port, "admin_token": "env:BENCH_ADMIN"},
        "storage": {
            "database_url": "sqlite:///data/taximeter.db",
            "journal_dir": "data/journal",
            "fsync": fsync,
        },
        "providers": {
            "openai": {"kind": "openai", "base_url": upstream, "api_key": "env:BENCH_PROVIDER"}
        },
        "organization": "acme",
        "teams": [
            {
                "id": "search",
                "projects": [{"id": "rag", "keys": [{"id": "rag-ci", "secret": "env:BENCH_KEY"}]}],
            }
        ],
        "budgets": [
            {"id": "acme-month", "scope": {"organization": "acme"}, **large},
            {"id": "search-month", "scope": {"team": "search"}, **large},
            {
                "id": "key-day",
                "scope": {"key": "rag-ci"},
                "limit": "1000000000000 tokens",
                "window": "day",
            },
        ],
    }


def build_litellm(folder: Path, upstream: str) -> Part:
    """Prepare the LiteLLM proxy, not started, in a virtual environment of its own.

    Args:
        folder: Its working directory.
        upstream: Base URL of the mock provider.

    Returns:
        The part; no database, no key check, no budgets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    venv = HERE / ".venv-litellm"
    if not (venv / "bin" / "litellm").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        # Releases 1.82.7 and 1.82.8 were compromised.
        wanted = "litellm[proxy]>=1.83"
        subprocess.run([str(venv / "bin" / "pip"), "install", "--quiet", wanted], check=True)
    port = free_port()
    served = {"model": "openai/gpt-5", "api_base": upstream, "api_key": "sk-bench"}
    config = {"model_list": [{"model_name": "gpt-5", "litellm_params": served}]}
    (folder / "litellm.yaml").write_text(json.dumps(config))
    command = [str(venv / "bin" / "litellm"), "--config", str(folder / "litellm.yaml")]
    return Part(
        "LiteLLM proxy",
        port,
        [*command, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"],
        folder=folder,
        environ={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
    )


# -- the kernel ----------------------------------------------------------------------------------


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _group_of(pid: int) -> int | None:
    with suppress(OSError, IndexError, ValueError):
        # The command's name may hold blanks and brackets: count from its last bracket.
        after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(after[2])
    return None
