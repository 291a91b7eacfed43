"""A bare connection to a live service: bytes in, bytes out."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Wire:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def rest(self, seconds: float = 10) -> bytes:
        """Everything until the other end closes; fails if it does not in time."""
        self.connection.settimeout(seconds)
        received = b""
        try:
            while piece := self.connection.recv(65536):
                received += piece
        except ConnectionResetError:
            pass
        return received

    def until(self, wanted: bytes, seconds: float = 10) -> bytes:
        """What comes up to and with ``wanted``."""
        self.connection.settimeout(seconds)
        received = b""
        while wanted not in received:
            piece = self.connection.recv(65536)
            assert piece, received
            received += piece
        return received

    def closed_within(self, seconds: float) -> float:
        """Seconds until the other end closes."""
        began = time.perf_counter()
        self.rest(seconds)
        return time.perf_counter() - began


@contextmanager
def wire(port: int) -> Iterator[Wire]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield Wire(connection)


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A whole request that asks to be the last on its connection."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Connection: close"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body
