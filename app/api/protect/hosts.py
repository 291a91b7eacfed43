"""Under which names this service may be asked, and by whose pages.

A web page can point its own name at 127.0.0.1 and then read what a service there answers (DNS rebinding): the browser
still sends the page's name as ``Host``, so names that are not ours are refused. Addresses are no names and pass.
"""

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

MACHINE = frozenset(
    {
        "host.docker.internal", "gateway.docker.internal", "host.containers.internal", "host.lima.internal",
        "host.orb.internal", "host.rancher-desktop.internal", "host.minikube.internal", "host.k3d.internal",
    }
)  # fmt: skip
"""What containers and virtual machines call the machine that they run on. No page of the web can have such a name:
``.internal`` is nobody's in the public DNS."""


class Names:
    """The host names that are ours."""

    def __init__(self, host: str, allowed: tuple[str, ...]) -> None:
        own = socket.gethostname().lower()
        self._names = {"localhost", host.lower(), own, f"{own.partition('.')[0]}.local", *MACHINE}
        self._names |= {name.lower() for name in allowed if not name.startswith("*")}
        self._suffixes = tuple(name[1:].lower() for name in allowed if name.startswith("*."))
        self._any = "*" in allowed

    def known(self, header: str) -> bool:
        """Whether a Host header names this service; ports are not looked at."""
        name = _name(header)
        if name is None:
            return False
        return self._any or name in self._names or name.endswith((".localhost", *self._suffixes)) or _address(name)


def same_site(origin: str, host: str) -> bool:
    """Whether a page of ``origin`` was served by the service that is asked as ``host``."""
    parts = urlsplit(origin)
    return parts.scheme in {"http", "https"} and parts.netloc.lower() == host.lower()


def _name(header: str) -> str | None:
    """The name of ``name``, ``name:port``, ``[v6]`` or ``[v6]:port``."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc or not parts.hostname:
        return None
    return parts.hostname.rstrip(".")


def _address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
