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


async def wait_accepting(*listeners: socket.socket) -> None:
    """Wait until servers listen on sockets that were handed to them.

    Args:
        listeners: Copies of the sockets; closed afterwards.
    """
    for listener in listeners:
        with listener:
            while not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


def open_listener(host: str, port: int) -> socket.socket:
    """Open a socket that shares its address with others of the same kind.

    The kernel spreads connections over those that listen, by a hash of both ends. One socket for
    all workers does not: whoever wakes first takes every connection of a burst, and with
    connections that stay open the others idle (32 connections to two workers: 32 and 0; with a
    socket each 13 and 19, measured 2026-11-23).

    Args:
        host: Address to listen on.
        port: Port to listen on.

    Returns:
        The socket, bound and not listening yet.

    Raises:
        AddressTaken: A program that does not share it listens there.

    Source:
        https://man7.org/linux/man-pages/man7/socket.7.html, SO_REUSEPORT.
    """
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, proto)
    # Processes that share it share this too, and a copy made of a socket that blocks would set it
    # back for all of them: a server would then wait for its next connection and for nothing else.
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind(address)
    except OSError as taken:
        listener.close()
        raise AddressTaken(f"cannot listen on {host}:{port} ({taken.strerror})") from taken
    return listener
