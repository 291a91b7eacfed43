"""Whether an address can be reached from elsewhere: then the service wants keys, or to be told that it needs none."""

import socket
from ipaddress import ip_address

from app.cli.exits import Exit, leave
from app.settings import Settings
from app.settings.keys import read_keys
from app.settings.problem import SettingsProblem


def check_exposure(settings: Settings) -> None:
    """End the process with one line if anybody on the network could use the service, and nobody has allowed that."""
    try:
        keys = read_keys(settings)
    except SettingsProblem as problem:
        leave(Exit.USAGE, str(problem))
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        leave(Exit.USAGE, "tls_certificate and tls_key belong together; give both or none")
    if keys or settings.open_to_network or is_loopback(settings.host):
        return
    leave(
        Exit.USAGE,
        f"{settings.host} can be reached from the network and no API key is set; set SWITCHYARD_API_KEYS, make a key "
        "file with `switchyard key`, or say --open-to-network",
    )


def is_loopback(host: str) -> bool:
    """Whether every address of ``host`` is this machine's own; what is no address fails later, when it is bound."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return True  # binding fails with a message of its own
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
