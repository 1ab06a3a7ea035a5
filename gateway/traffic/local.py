"""A gateway and the demo provider of one's own, for traffic that has no other gateway to go to.

Must never outlive the run: both processes end with it.
"""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.clock import Clock
from gateway.listening import open_listener
from gateway.upstream import HttpUpstream, UpstreamFailed, UpstreamRequest

# What each provider of the company speaks. `local` has no price: what it costs is not known.
KINDS: Final[Mapping[str, str]] = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "gemini",
    "mistral": "mistral",
    "local": "vllm",
}
_READY_S_MAX: Final = 60.0
_STOP_S_MAX: Final = 30.0
_PAUSE_S: Final = 0.1
_ANSWER_S: Final = 5


class LocalFailed(Exception):
    """A process did not come up; the text is for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalGateway:
    """A gateway that runs for the traffic alone.

    Attributes:
        url: Its address.
        admin_token: Of its control plane.
    """

    url: str
    admin_token: str


def company_settings(provider_url: str) -> dict[str, Any]:
    """Write what a gateway needs so that the company can use it.

    Args:
        provider_url: Of the demo provider.

    Returns:
        Sections of a settings file: the providers, and what is done about calls without a price
        and without tags.
    """
    providers: dict[str, dict[str, Any]] = {}
    for name, kind in KINDS.items():
        url = f"{provider_url}/{name}"
        providers[name] = {"kind": kind, "base_url": url, "api_key": "demo-needs-no-key"}
    providers["local"]["priced_as"] = None
    return {
        "metering": {"unpriced": "allow"},
        "providers": providers,
        "organization": "acme",
        "tag_policy": {"env": {"required": True, "on_violation": "warn"}},
    }


@asynccontextmanager
async def started(folder: Path, port: int, clock: Clock) -> AsyncIterator[LocalGateway]:
    """Start the demo provider and a gateway that has it for every provider.

    Args:
        folder: For settings, ledger, journal and output; kept, so that the next run goes on.
        port: The gateway's.
        clock: For how long the start may take.

    Yields:
        The gateway, ready.

    Raises:
        LocalFailed: One of them did not come up.
    """
    provider_port = _free_port()
    token = secrets.token_urlsafe(24)
    config = _write_settings(folder, port, f"http://127.0.0.1:{provider_port}")
    with (folder / "output.log").open("ab") as out:
        provider = _start(["demo", "--port", str(provider_port)], out.fileno(), {})
        gateway = _start(
            ["serve", "--config", str(config)], out.fileno(), {"TAXIMETER_ADMIN_TOKEN": token}
        )
    url = f"http://127.0.0.1:{port}"
    try:
        await _wait_ready(url, (provider, gateway), folder / "output.log", clock)
        yield LocalGateway(url=url, admin_token=token)
    finally:
        for process in (gateway, provider):
            await asyncio.to_thread(_stop, process)


def _write_settings(folder: Path, port: int, provider_url: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    settings = company_settings(provider_url) | {
        "server": {"port": port, "admin_token": "env:TAXIMETER_ADMIN_TOKEN"},
        "storage": {
            "database_url": f"sqlite:///{(folder / 'taximeter.db').absolute()}",
            "journal_dir": str((folder / "journal").absolute()),
        },
    }
    config = folder / "taximeter.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    return config


def _free_port() -> int:
    with open_listener("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
    return port


def _start(arguments: list[str], out: int, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("TAXIMETER_")}
    return subprocess.Popen(  # noqa: S603 - this program itself
        [sys.executable, "-m", "gateway", *arguments],
        env={**kept, **environ},
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=out,
        # A Ctrl-C is for the traffic, which tells the ledger's side before it ends these.
        start_new_session=True,
    )


async def _wait_ready(
    url: str, processes: tuple[subprocess.Popen[bytes], ...], log: Path, clock: Clock
) -> None:
    deadline_s = clock.monotonic_s() + _READY_S_MAX
    http = HttpUpstream(_ANSWER_S)
    asked = UpstreamRequest(method="GET", url=f"{url}/readyz", headers=[], body=b"")
    try:
        while clock.monotonic_s() < deadline_s:
            if any(process.poll() is not None for process in processes):
                raise LocalFailed(f"the gateway did not start:\n{_end_of(log)}")
            with suppress(UpstreamFailed):
                async with http.send(asked) as reply:
                    if reply.status == 200:
                        return
            await asyncio.sleep(_PAUSE_S)
    finally:
        await http.close()
    raise LocalFailed(f"the gateway was not ready in {_READY_S_MAX:.0f} s; see {log}")


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
