"""Everything that can fail, real: gateway, database, Redis, disk and clock, each with its lever.

Must never help the gateway: it is started again when it has ended, as a service manager would.
"""

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos.schedule import Act, Plan, Step
from tests.postgres import PostgresServer
from tests.server import Gateway, plain_config
from tests.upstream import ScriptedUpstream
from tests.valkey import Valkey

_MIB: Final = 1024 * 1024
_DISK_BYTES: Final = 96 * _MIB
# Builds the clock that jumps; empty where there is none.
_COMPILER: Final = shutil.which("cc") or ""
LIMITS: Final = {"calls": "40", "money": "0.06", "hour": "25"}
BUDGETS: Final[list[dict[str, Any]]] = [
    {"id": "everybody", "limit": "5000 USD", "window": "total"},
    {"id": "everybody-calls", "limit": "900000 requests", "window": "total", "mode": "soft"},
    {"id": "everybody-tokens", "limit": "900000000 tokens", "window": "total"},
    {
        "id": "calls",
        "scope": {"tag.lane": "calls"},
        "limit": f"{LIMITS['calls']} requests",
        "window": "total",
    },
    {
        "id": "money",
        "scope": {"tag.lane": "money"},
        "limit": f"{LIMITS['money']} USD",
        "window": "total",
    },
    {
        "id": "hour",
        "scope": {"tag.lane": "hour"},
        "limit": f"{LIMITS['hour']} requests",
        "window": "hour",
    },
]


class Clock:
    """The wall clock of every process of a gateway, through a library loaded before all others.

    Attributes:
        is_there: Whether it could be built; without it time goes its way, whatever is asked.
        offset_s: How far it has been moved.
    """

    def __init__(self, folder: Path, compiler: str = _COMPILER) -> None:
        """Compile the library.

        Args:
            folder: Where it is kept, and what time it is.
            compiler: For C; empty where there is none.
        """
        self.offset_s = 0
        self._file = folder / "clock"
        self._file.write_bytes(bytes(8))
        self._library = folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        command: list[str | Path] = [
            compiler,
            "-O2",
            "-shared",
            "-fPIC",
            "-o",
            self._library,
            source,
            "-ldl",
        ]
        self.is_there = (
            compiler != ""
            and subprocess.run(command, capture_output=True, check=False).returncode == 0
        )

    def environ(self) -> dict[str, str]:
        """Tell what a process is started with."""
        if not self.is_there:
            return {}
        return {"LD_PRELOAD": str(self._library), "TEST_CLOCK_FILE": str(self._file)}

    def jump(self, seconds: int) -> None:
        """Move the time, for processes that run and for those to come."""
        self.offset_s += seconds
        with self._file.open("r+b") as file:
            file.write(struct.pack("q", self.offset_s * 1_000_000_000))


class Disk:
    """Where the journal lies: a small file system where that may be mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "disk"
        self.folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "none", str(self.folder)]
        self._is_mounted = (
            os.geteuid() == 0
            and shutil.which("mount") is not None
            and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        )
        self._filler = self.folder / "filler"

    def fill(self, pids: list[int]) -> None:
        """Leave no room at all; without a file system of its own, let files grow no more."""
        if not self._is_mounted:
            _limit_files(pids, _MIB)
            return
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(64 * 1024))

    def free(self, pids: list[int]) -> None:
        """Give the room back."""
        if not self._is_mounted:
            _limit_files(pids, resource.RLIM_INFINITY)
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Take the file system away."""
        if self._is_mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)


def _limit_files(pids: list[int], size: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


class Lock:
    """An embedded database that somebody else holds the lock of."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def take(self) -> None:
        """Let nobody write, as soon as nobody does."""
        self._connection = sqlite3.connect(self._path, timeout=20, check_same_thread=False)
        self._connection.execute("BEGIN EXCLUSIVE")

    def release(self) -> None:
        """Let them write again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Keeper:
    """Starts the gateway again whenever it has ended, as a service manager would."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._turn = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Let it end from now on."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(0.1):
            if not self._gateway.is_running():
                self._gateway.spawn()


@dataclass(slots=True, kw_only=True)
class World:
    """What a plan happens to.

    Attributes:
        plan: What happens.
        gateway: The gateway.
        upstream: The provider.
        disk: Where the journal lies.
        clock: What time it is.
        postgres: The database, where it is one.
        lock: The lock of the embedded database otherwise.
        valkey: Redis, where there is one.
        keeper: Starts the gateway again.
        size: How many workers it has from its next start on.
        frozen: Workers that are stopped.
    """

    plan: Plan
    gateway: Gateway
    upstream: ScriptedUpstream
    disk: Disk
    clock: Clock
    postgres: PostgresServer | None
    lock: Lock
    valkey: Valkey | None
    keeper: Keeper
    size: int
    frozen: list[int] = field(default_factory=list)

    def do(self, step: Step) -> None:
        """Let one thing go wrong, or come right again.

        Args:
            step: What.
        """
        acts: dict[Act, Callable[[], None]] = {
            Act.KILL_WORKER: lambda: self._signal_one(step, signal.SIGKILL),
            Act.KILL_SUPERVISOR: lambda: self._signal(signal.SIGKILL),
            Act.KILL_ALL: self.gateway.kill_running,
            Act.STOP: lambda: self._signal(signal.SIGTERM),
            Act.RENEW: lambda: self._signal(signal.SIGHUP),
            Act.RESIZE: self._resize,
            Act.DATABASE_DOWN: self._database_down,
            Act.DATABASE_UP: self._database_up,
            Act.REDIS_DOWN: lambda: self._redis().kill(),
            Act.REDIS_UP: lambda: self._redis().start(),
            Act.REDIS_EMPTY: lambda: self._redis().empty(),
            Act.DISK_FULL: lambda: self.disk.fill(self._pids()),
            Act.DISK_FREE: lambda: self.disk.free(self._pids()),
            Act.FREEZE_WORKER: lambda: self._signal_one(step, signal.SIGSTOP),
            Act.THAW_WORKER: self.thaw,
            Act.CLOCK: lambda: self.clock.jump(step.seconds),
        }
        acts[step.act]()

    def workers(self) -> list[int]:
        """List the processes that serve; the gateway itself where it is one."""
        pid = self.gateway.running_pid()
        if pid is None:
            return []
        return _workers_under(pid) or [pid]

    def thaw(self) -> None:
        """Let workers go on that were stopped."""
        while self.frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.frozen.pop(), signal.SIGCONT)

    def _pids(self) -> list[int]:
        pid = self.gateway.running_pid()
        return [] if pid is None else [pid, *self.workers()]

    def _signal(self, number: signal.Signals) -> None:
        pid = self.gateway.running_pid()
        # A start that has not got as far as its handlers would be ended by SIGHUP.
        if pid is None or (number is signal.SIGHUP and not self.gateway.is_ready()):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def _signal_one(self, step: Step, number: signal.Signals) -> None:
        workers = self.workers()
        if not workers:
            return
        pid = workers[int(step.which * len(workers))]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            if number is signal.SIGSTOP:
                self.frozen.append(pid)

    def _resize(self) -> None:
        self.size = 3 - self.size
        self.gateway.write_server(workers=self.size)
        self._signal(signal.SIGTERM)

    def _redis(self) -> Valkey:
        assert self.valkey is not None
        return self.valkey

    def _database_down(self) -> None:
        if self.postgres is None:
            self.lock.take()
        else:
            self.postgres.kill()

    def _database_up(self) -> None:
        if self.postgres is None:
            self.lock.release()
        else:
            self.postgres.start()


def _workers_under(pid: int) -> list[int]:
    """List the workers of a supervisor; none where the process serves itself."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if b"gateway.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


@contextlib.contextmanager
def open_world(
    plan: Plan, folder: Path, upstream: ScriptedUpstream, postgres: PostgresServer
) -> Iterator[World]:
    """Start everything that a plan needs.

    Args:
        plan: The plan.
        folder: Empty; everything is kept there.
        upstream: The provider.
        postgres: A server, for plans that need one.

    Yields:
        The world, the gateway in it ready.
    """
    with contextlib.ExitStack() as exits:
        disk, clock = Disk(folder), Clock(folder)
        exits.callback(disk.close)
        storage: dict[str, Any] = {"journal_dir": str(disk.folder / "journal"), "fsync": plan.fsync}
        if plan.database == "postgres":
            storage["database_url"] = postgres.url(postgres.create_database())
        valkey = None
        if plan.has_redis:
            valkey = Valkey()
            valkey.start()
            exits.callback(valkey.kill)
            storage["redis_url"] = valkey.url
        config = plain_config(
            upstream.base_url,
            budgets=BUDGETS,
            server={"workers": plan.workers, "stop_s": 5},
            storage=storage,
        )
        gateway = Gateway(folder, config, secrets=clock.environ())
        keeper = Keeper(gateway)
        lock = Lock(folder / "data" / "taximeter.db")
        exits.callback(lock.release)
        world = World(
            plan=plan,
            gateway=gateway,
            upstream=upstream,
            disk=disk,
            clock=clock,
            postgres=postgres if plan.database == "postgres" else None,
            lock=lock,
            valkey=valkey,
            keeper=keeper,
            size=plan.workers,
        )
        with gateway:
            keeper.start()
            try:
                yield world
            finally:
                world.thaw()
                keeper.stop()
