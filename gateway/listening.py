"""The address the gateway listens on: free before, taken afterwards.

Must never keep it.
"""

import asyncio
import socket


class AddressTaken(OSError):
    """Something else listens where the gateway should."""


def refuse_taken_address(host: str, port: int) -> None:
    """Make sure that nobody listens there: the server would share the port in silence.

    Args:
        host: Address to listen on.
        port: Port to listen on.

    Raises:
        AddressTaken: Somebody does, or the address is not this machine's.
    """
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, proto) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as taken:
            raise AddressTaken(
                f"cannot listen on {host}:{port} ({taken.strerror}); "
                "set server.host and server.port, or stop what listens there"
            ) from taken


async def wait_listening(host: str, port: int) -> None:
    """Wait until the address takes connections.

    Args:
        host: Address to listen on.
        port: Port to listen on.
    """
    while True:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        return
