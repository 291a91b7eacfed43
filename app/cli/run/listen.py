"""Sockets to listen on, and why they cannot be had."""

import errno
import os
import socket
import sys

from app.cli.exits import Exit, leave

BACKLOG = 2048
LOOPBACK = ("127.0.0.1", "::1")
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""How a machine says that it has no such address."""
AIRPLAY = " (on a Mac that is usually AirPlay Receiver: System Settings, General, AirDrop & Handoff)"
AIRPLAY_PORTS = (5000, 7000)
_NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  connected to, not bound
_PATIENCE = 0.5


def bind(host: str, port: int) -> list[socket.socket]:
    """What :func:`open_all` gives; ends the process with one line when that cannot be had."""
    try:
        return open_all(host, port)
    except OSError as failure:
        leave(Exit.PORT_TAKEN, why_not(failure, host, port))


def open_all(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on one port, one for each address of ``host``: clients try them in an order of their own.

    Addresses of a family that this machine has not are left out. Raises OSError when one cannot be had, or none is
    left.
    """
    bound: list[socket.socket] = []
    missing: OSError | None = None
    addresses = _addresses(host)
    for address in addresses:
        try:
            bound.append(_listen(address, bound[0].getsockname()[1] if bound else port, alone=len(addresses) == 1))
        except OSError as failure:
            if failure.errno not in NOT_HERE:
                for sock in bound:
                    sock.close()
                raise
            missing = failure
    if missing is not None and not bound:
        raise missing
    return bound


def _addresses(host: str) -> list[str]:
    """What ``host`` stands for on this machine; for ``localhost`` both families, whatever its hosts file says."""
    names = LOOPBACK if host.rstrip(".").lower() == "localhost" else (host,)
    found = [
        str(address[0])
        for name in names
        for *_, address in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    ]
    return list(dict.fromkeys(found))


def _listen(address: str, port: int, *, alone: bool) -> socket.socket:
    """One socket; beside others a wildcard of IPv6 leaves IPv4 to them. Raises :class:`OSError`."""
    family, kind, proto, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, proto)
    try:
        if is_answered(address, port):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not alone:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def why_not(failure: OSError, host: str, port: int) -> str:
    """A line for people: why an address cannot be listened on."""
    if isinstance(failure, socket.gaierror):
        return f"{host} is no address of this machine ({failure.strerror}); choose another with --host"
    match failure.errno:
        case errno.EADDRINUSE:
            hint = AIRPLAY if sys.platform == "darwin" and port in AIRPLAY_PORTS else ""
            return f"port {port} on {host} is in use; stop the program that has it or choose another with --port{hint}"
        case errno.EACCES:
            return f"port {port} needs privileges; choose one above 1023 with --port"
        case _:
            return f"{host} cannot be listened on ({failure.strerror}); choose another address with --host"


def is_answered(address: str, port: int) -> bool:
    """Whether a program listens on a port already.

    To try to bind it tells that on Linux. macOS lets one program have ``*:8000`` and another ``127.0.0.1:8000``, and
    gives each connection to one of them.
    """
    if port == 0:
        return False
    try:
        socket.create_connection((_NEAR.get(address, address), port), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True
