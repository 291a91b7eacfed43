import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import asyncio, sys
from app.cli import server
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
sock = server.bind(settings.host, settings.port)
server.run(app, sock, settings, server.Hooks(on_ready=lambda: print(sock.getsockname()[1], flush=True)))
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
def test_a_signal_ends_an_idle_service_cleanly(sent):
    with service(5) as process:
        assert process.stdout.readline().strip().isdigit()
        process.send_signal(sent)
        out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out.split() == ["closed", "ended"]
    assert "Traceback" not in err


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_busy_service_after_its_grace_period(sent):
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


def test_a_second_signal_ends_it_at_once():
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


def test_a_service_that_cannot_start_says_so():
    with service(1, "broken") as process:
        out, err = process.communicate(timeout=10)
    assert process.returncode == 5
    assert out == ""
    assert "no room" in err
    assert "could not start" in err
    assert "Traceback" not in err
