import errno
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import Signals
from socket import AddressFamily, SocketKind
from time import perf_counter
from typing import Any

import pytest

from app.cli.run import listen

ROOT = Path(__file__).parents[1]
PROGRAM = """
import asyncio, sys
from app.cli.run import listen, server
from app.settings import Settings

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if sys.argv[2] == "broken":
                await send({"type": "lifespan.startup.failed", "message": "no room"})
                return
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                print("closed", flush=True)
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"word ", "more_body": True})
        await asyncio.sleep(0.05)

settings = Settings(port=0, stop_grace=float(sys.argv[1]))
socks = listen.bind(settings.host, settings.port)
server.run(app, socks, settings, server.Hooks(on_ready=lambda: print(socks[0].getsockname()[1], flush=True)))
print("ended", flush=True)
"""


@contextmanager
def service(grace: float, kind: str = "sound") -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(grace), kind],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(port: str) -> socket.socket:
    """A connection on which an endless answer has begun."""
    connection = socket.create_connection(("127.0.0.1", int(port)))
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    while b"word" not in received:
        received += connection.recv(4096)
    assert b"server:" not in received.lower()
    return connection


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_idle_service_cleanly(sent: Signals) -> None:
    with service(5) as process:
        assert process.stdout.readline().strip().isdigit()
        process.send_signal(sent)
        out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out.split() == ["closed", "ended"]
    assert "Traceback" not in err


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_busy_service_after_its_grace_period(sent: Signals) -> None:
    with service(1) as process:
        connection = ask(process.stdout.readline())
        began = perf_counter()
        process.send_signal(sent)
        out, err = process.communicate(timeout=10)
        took = perf_counter() - began
        connection.close()
    assert process.returncode == 0
    assert 0.9 < took < 5
    assert out.split() == ["closed", "ended"]
    assert "Traceback" not in err


def test_a_second_signal_ends_it_at_once() -> None:
    with service(60) as process:
        connection = ask(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "\n"
        assert "second signal" in process.stderr.readline()
        began = perf_counter()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        connection.close()
    assert process.returncode == 128 + signal.SIGINT
    assert perf_counter() - began < 2
    assert "Traceback" not in err


def test_a_service_that_cannot_start_says_so() -> None:
    with service(1, "broken") as process:
        out, err = process.communicate(timeout=10)
    assert process.returncode == 5
    assert out == ""
    assert "no room" in err
    assert "could not start" in err
    assert "Traceback" not in err


@contextmanager
def listening(host: str, port: int = 0) -> Iterator[list[socket.socket]]:
    socks = listen.bind(host, port)
    try:
        yield socks
    finally:
        for sock in socks:
            sock.close()


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_localhost_is_listened_on_in_both_families() -> None:
    with listening("localhost") as socks:
        port = socks[0].getsockname()[1]
        for address in ("127.0.0.1", *(["::1"] if has_ipv6() else [])):
            socket.create_connection((address, port), timeout=5).close()
        assert {sock.getsockname()[1] for sock in socks} == {port}


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_an_address_is_listened_on_alone(host: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with listening(host) as socks:
        assert [sock.getsockname()[0] for sock in socks] == [host]


def test_a_port_that_is_taken_in_one_family_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        if family == socket.AF_INET6 and not has_ipv6():
            continue
        with socket.create_server((address, 0), family=family) as other, pytest.raises(SystemExit):
            listen.bind("localhost", other.getsockname()[1])
        assert "is in use" in capsys.readouterr().err


def test_a_family_that_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(address: str, port: int, *, alone: bool) -> socket.socket:
        if ":" in address:
            raise OSError(errno.EADDRNOTAVAIL, "no such address")
        return really(address, port, alone=alone)

    really = listen._listen
    monkeypatch.setattr(listen, "_listen", absent)
    with listening("localhost") as socks:
        assert [sock.getsockname()[0] for sock in socks] == ["127.0.0.1"]
    with pytest.raises(SystemExit):
        listen.bind("::1", 0)


class Sharing(socket.socket):
    """A socket that lets others have its port in other words, as all do on BSD and macOS."""

    def __init__(self, *given: int | AddressFamily | SocketKind, **named: Any) -> None:
        super().__init__(*given, **named)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


@pytest.mark.parametrize("ours", ["127.0.0.1", "0.0.0.0", "localhost"])
@pytest.mark.parametrize("theirs", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_somebody_answers_on_is_taken_although_it_could_be_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ours: str, theirs: str
) -> None:
    with Sharing(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind((theirs, 0))
        other.listen()
        monkeypatch.setattr(socket, "socket", Sharing)
        with pytest.raises(SystemExit) as end:
            listen.bind(ours, other.getsockname()[1])
        assert end.value.code == 3
        assert "is in use; stop the program" in capsys.readouterr().err
    with listening(ours, 0):
        pass


@pytest.mark.parametrize(
    ("system", "port", "named"), [("darwin", 5000, True), ("darwin", 8000, False), ("linux", 5000, False)]
)
def test_airplay_is_named_where_it_is_likely(
    monkeypatch: pytest.MonkeyPatch, system: str, port: int, named: bool
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    said = listen.why_not(OSError(errno.EADDRINUSE, "in use"), "127.0.0.1", port)
    assert ("AirPlay" in said) is named
    assert "--port" in said
