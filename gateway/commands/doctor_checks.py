"""Single checks of ``taximeter doctor``. None must ever change anything."""

import fcntl
import os
import shutil
import socket
import ssl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from gateway.ledger.orphans import worker_journals
from gateway.ledger.segments import (
    FORMAT,
    PLACES_MAX,
    SegmentScan,
    list_segments,
    scan_segment,
    segment_path,
)
from gateway.settings import ProviderSettings, Settings
from gateway.settings_models import BASE_URLS
from pricing.book import BookBroken, load_book, read_versions

State = Literal["ok", "warn", "fail"]

_PACKAGES: Final = (
    "fastapi",
    "granian",
    "litellm",
    "msgspec",
    "prometheus-client",
    "pydantic",
    "pyreqwest",
    "sqlalchemy",
    "tiktoken",
    "uvloop",
)
# The floor in pyproject.toml keeps them out; this looks whether somebody put one in by hand.
_COMPROMISED: Final = frozenset({("litellm", "1.82.7"), ("litellm", "1.82.8")})
_PYTHON_MIN: Final = (3, 11)
_FREE_BYTES_WARN: Final = 1024**3
_FREE_BYTES_FAIL: Final = 64 * 1024**2
_BOOK_DAYS_MAX: Final = 45
_PROBE_TIMEOUT_S: Final = 5
# Ends of addresses that were copied from an example of a call.
_CALLS: Final = ("/completions", "/messages", "/responses", "/embeddings", "/chat")
_KEYLESS_KINDS: Final = frozenset({"vllm", "ollama", "demo"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check saw.

    Attributes:
        what: What was checked.
        state: How it is.
        message: What was seen.
        mend: What to do about it; empty when nothing needs to be done.
    """

    what: str
    state: State
    message: str
    mend: str = ""

    @classmethod
    def ok(cls, what: str, message: str) -> Self:
        """Say that something is as it should be.

        Args:
            what: What was checked.
            message: What was seen.

        Returns:
            The finding.
        """
        return cls(what=what, state="ok", message=message)

    @classmethod
    def warn(cls, what: str, message: str, mend: str) -> Self:
        """Say that something works but probably not as meant.

        Args:
            what: What was checked.
            message: What was seen.
            mend: What to do about it.

        Returns:
            The finding.
        """
        return cls(what=what, state="warn", message=message, mend=mend)

    @classmethod
    def fail(cls, what: str, message: str, mend: str) -> Self:
        """Say that the gateway cannot work like this.

        Args:
            what: What was checked.
            message: What was seen.
            mend: What to do about it.

        Returns:
            The finding.
        """
        return cls(what=what, state="fail", message=message, mend=mend)


def check_python() -> Finding:
    """Check the interpreter.

    Returns:
        What it is.
    """
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _PYTHON_MIN:
        return Finding.fail("python", found, "install Python 3.11 or newer")
    return Finding.ok("python", f"{found} at {sys.executable}")


def check_packages() -> Iterator[Finding]:
    """Check what is installed.

    Yields:
        One finding for all that is well, one for each package that is not.
    """
    versions = []
    for name in _PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding.fail("packages", f"{name} is not installed", f"pip install {name}")
            continue
        if (name, version) in _COMPROMISED:
            mend = f"remove it, change every secret this machine knew, pip install '{name}>=1.83'"
            yield Finding.fail("packages", f"{name} {version} is a compromised release", mend)
        versions.append(f"{name} {version}")
    yield Finding.ok("packages", ", ".join(versions))


def check_prices(at: datetime) -> Finding:
    """Check the price book.

    Args:
        at: Now.

    Returns:
        Its version and age.
    """
    try:
        book = load_book()
    except (BookBroken, OSError) as broken:
        return Finding.fail("prices", str(broken).splitlines()[0], "install taximeter again")
    days = (at - book.version.recorded_at).days
    seen = f"version {book.version.version}, {len(book.models)} models, {days} days old"
    if days > _BOOK_DAYS_MAX:
        return Finding.warn("prices", seen, "upgrade taximeter to get newer prices")
    return Finding.ok("prices", seen)


def check_admin(settings: Settings) -> Iterator[Finding]:
    """Check who can reach the control plane.

    Args:
        settings: As loaded.

    Yields:
        A finding when the address is open to the network.
    """
    host = settings.server.host
    if host not in {"127.0.0.1", "::1", "localhost"} and settings.server.metrics_token is None:
        mend = "set server.metrics_token, or let only your network reach it"
        yield Finding.warn("server", f"/metrics is open to whoever reaches {host}", mend)


def check_journal(settings: Settings) -> Iterator[Finding]:
    """Check the folder of the journal and what is in it.

    Args:
        settings: As loaded.

    Yields:
        What was seen of the folder, the disk and the segments.
    """
    folder = settings.storage.journal_dir
    parent = _nearest_folder(folder)
    if not os.access(parent, os.W_OK | os.X_OK):
        mend = f"let this account write there, or set storage.journal_dir: chown {parent}"
        yield Finding.fail("journal", f"{parent} is not writable", mend)
        return
    free = shutil.disk_usage(parent).free
    disk = f"{free // 1024**2:,} MiB free for {folder}"
    if free < _FREE_BYTES_FAIL:
        yield Finding.fail("disk", disk, "make room: new calls are refused when the disk is full")
    elif free < _FREE_BYTES_WARN:
        yield Finding.warn("disk", disk, "make room: new calls are refused when the disk is full")
    else:
        yield Finding.ok("disk", disk)
    if not folder.is_dir():
        yield Finding.ok("journal", f"{folder} will be made at the first start")
        return
    try:
        for journal in (folder, *worker_journals(folder)):
            yield from _check_segments(journal)
    except OSError as broken:
        yield Finding.fail("journal", f"{folder} cannot be read: {broken}", "check its permissions")


def _check_segments(folder: Path) -> Iterator[Finding]:
    is_owned = _is_owned(folder)
    unsettled: dict[str, bytes] = {}
    numbers = list_segments(folder)
    scans: list[SegmentScan] = []
    for number in numbers:
        try:
            scans.append(scan_segment(segment_path(folder, number), unsettled))
        except FileNotFoundError:
            continue  # Its owner has shipped and deleted it meanwhile.
    entries = sum(scan.entries for scan in scans)
    owner = "a running gateway owns it" if is_owned else "no gateway runs on it"
    held = f"{len(scans)} segments of format {FORMAT}, {entries} entries"
    yield Finding.ok("journal", f"{folder}: {held}; {owner}")
    for scan in scans:
        if scan.damaged_bytes:
            yield _tell_damage(scan)
        # The owner may be writing just now; after a crash a torn end is normal and is cut off.
        if scan.torn_bytes and not is_owned:
            torn = scan.torn_bytes
            yield Finding.ok(
                "journal", f"{scan.path}: {torn} bytes of an entry that was never finished"
            )
    if unsettled and not is_owned:
        yield Finding.warn(
            "journal",
            f"{len(unsettled)} calls were open when the gateway stopped",
            "nothing: the next start records them as aborted, at their ceiling",
        )


def _tell_damage(scan: SegmentScan) -> Finding:
    places = ", ".join(str(at) for at in scan.damaged_at)
    more = " and further on" if len(scan.damaged_at) == PLACES_MAX else ""
    seen = f"{scan.path}: {scan.damaged_bytes} bytes are no entry, from byte {places}{more}"
    if scan.damaged_at[0] == 0:
        mend = (
            f"it does not begin as format {FORMAT} does: a newer taximeter can have written it, "
            "then start that one; else entries behind it are saved at the next start"
        )
    else:
        mend = "records around it are saved at the next start; keep the copy and find the cause"
    return Finding.warn("journal", seen, mend)


def _is_owned(folder: Path) -> bool:
    try:
        fd = os.open(folder / "LOCK", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared, and let go at once: a gateway that starts this very moment may see it taken.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _nearest_folder(path: Path) -> Path:
    absolute = path.absolute()
    return next(folder for folder in (absolute, *absolute.parents) if folder.is_dir())


def check_provider(
    name: str, provider: ProviderSettings, unpriced: str, *, has_own_prices: bool = False
) -> Finding:
    """Check what the settings say of a provider, without asking it.

    Args:
        name: Its id.
        provider: Its settings.
        unpriced: What happens to models without a price.
        has_own_prices: Whether the settings price a model of it themselves.

    Returns:
        How likely it is to work.
    """
    what = f"provider {name}"
    where = provider.base_url or "inside this process"
    seen = f"{provider.kind} at {where}, priced as {provider.priced_as}"
    if not has_own_prices and provider.priced_as not in read_versions()[-1].manifest.providers:
        effect = "is refused" if unpriced == "block" else "is recorded without a cost"
        mend = f"every call to it {effect}: set priced_as to a provider with prices"
        return Finding.warn(what, f"{seen}, which has no prices", mend)
    if provider.api_key is None and not provider.headers and provider.kind not in _KEYLESS_KINDS:
        return Finding.warn(what, f"{seen}, without a credential", f"set providers.{name}.api_key")
    parts = urlsplit(provider.base_url or "")
    wants = urlsplit(BASE_URLS.get(provider.kind, "")).path
    if wants and provider.base_url is not None and not parts.path.strip("/"):
        mend = f"add the rest of the address, such as {provider.base_url}/v1, unless it has none"
        seen = f"{seen}: calls of /v1 go to {provider.base_url}/chat/completions"
        return Finding.warn(what, seen, mend)
    if parts.path.endswith(_CALLS):
        mend = "leave out the end: the path of each call is appended to base_url"
        return Finding.warn(what, f"{seen}: that is the address of one call", mend)
    is_near = parts.hostname in {"127.0.0.1", "::1", "localhost", None}
    if parts.scheme == "http" and provider.api_key is not None and not is_near:
        return Finding.warn(what, f"{seen}: the credential travels in the clear", "use https")
    return Finding.ok(what, seen)


def probe_provider(name: str, base_url: str) -> Finding:
    """Connect to a provider and hang up.

    Args:
        name: Its id.
        base_url: Where it is.

    Returns:
        Whether it answers, and with a certificate that holds.
    """
    what = f"provider {name}"
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((host, port), timeout=_PROBE_TIMEOUT_S) as plain:
            if parts.scheme == "https":
                with ssl.create_default_context().wrap_socket(plain, server_hostname=host):
                    pass
    except OSError as broken:
        reason = broken.strerror or str(broken)
        return Finding.fail(what, f"{host}:{port} cannot be reached: {reason}", "check base_url")
    return Finding.ok(what, f"{host}:{port} answers")
