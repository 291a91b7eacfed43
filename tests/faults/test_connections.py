"""Clients that are slow, silent, greedy or crafty, each on a bare connection."""

import re
import socket
import time
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from tests.faults.conftest import HASTY, Live, scripted_service
from tests.faults.wire import post, wire

ASK = b'{"model": "tiny", "prompt": "Hi", "max_tokens": 4}'


def ask(port: int) -> bytes:
    with wire(port) as line:
        line.send(post("/v1/completions", ASK))
        return line.rest()


def test_a_silent_connection_is_closed(hasty: Live) -> None:
    with wire(hasty.port) as line:
        assert 0.2 < line.closed_within(5) < 3


def test_a_head_that_trickles_in_is_given_up(hasty: Live) -> None:
    with wire(hasty.port) as line:
        began = time.perf_counter()
        line.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        line.connection.settimeout(0.1)
        received = b""
        while time.perf_counter() - began < 5:
            try:
                line.send(b"X-Slow: 1\r\n")
                piece = line.connection.recv(4096)
                received += piece
                if not piece:
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert received.startswith(b"HTTP/1.1 408 ")
        assert re.search(rb"\r\nx-request-id: [0-9a-f]{32}\r\n", received), "told like any other answer"
        assert time.perf_counter() - began < 3


def test_a_second_head_that_trickles_in_is_given_up_too(hasty: Live) -> None:
    with wire(hasty.port) as line:
        line.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        line.until(b'"ok"')
        line.send(b"G")
        assert line.closed_within(5) < 3


def test_a_body_that_does_not_come_is_a_408(hasty: Live) -> None:
    with wire(hasty.port) as line:
        line.send(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{")
        answer = line.rest()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer


def test_an_endless_head_is_refused_before_it_is_held(hasty: Live) -> None:
    with wire(hasty.port) as line:
        line.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        try:
            for _ in range(64):
                line.send(b"a" * 4096)
        except OSError:
            pass
        answer = line.rest()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")


def test_a_large_body_is_refused_before_it_is_read(hasty: Live) -> None:
    size = 256 << 20
    with wire(hasty.port) as line:
        line.send(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        answer = line.until(b"\r\n\r\n")
        assert line.closed_within(5) < 3
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


def test_a_large_body_in_chunks_is_cut_off(hasty: Live) -> None:
    sent = 0
    with wire(hasty.port) as line:
        line.send(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while sent < 64 << 20:
                line.send(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                sent += 0x10000
        except OSError:
            pass
    assert sent < 32 << 20


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Transfer-Encoding: gzip, chunked, identity\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length : 5\r\n",
    ],
)
def test_no_request_is_smuggled(hasty: Live, headers: bytes) -> None:
    inner = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with wire(hasty.port) as line:
        line.send(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n0\r\n\r\n" + inner)
        answer = line.rest()
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"object":"list"' not in answer
    msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])


def test_one_connection_too_many_is_told_to_come_back(tmp_path: Path) -> None:
    with scripted_service(tmp_path, structs.replace(HASTY, max_connections=3, header_timeout=5)) as live:
        held = [socket.create_connection(("127.0.0.1", live.port)) for _ in range(3)]
        time.sleep(0.1)
        with wire(live.port) as line:
            answer = line.rest()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after" in answer
        for connection in held:
            connection.close()
        time.sleep(0.1)
        assert ask(live.port).startswith(b"HTTP/1.1 200 ")


def test_a_reader_that_stops_reading_is_cut_off_and_gives_its_place_back(tmp_path: Path) -> None:
    long = "word " * 400_000
    with scripted_service(tmp_path, script=lambda _sequence, _row: long.encode()) as live:
        body = b'{"model": "tiny", "prompt": "Hi", "max_tokens": 3000, "stream": true, "n": 16}'
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", live.port))
            connection.sendall(post("/v1/completions", body))
            deadline = time.perf_counter() + 10
            while not live.app.state.service_state.running and time.perf_counter() < deadline:
                time.sleep(0.02)
            assert live.app.state.service_state.running
            while live.app.state.service_state.running and time.perf_counter() < deadline:
                time.sleep(0.05)
            assert not live.app.state.service_state.running
        assert ask(live.port).startswith(b"HTTP/1.1 200 ")


def test_sixty_four_connections_at_once_are_all_answered(hasty: Live) -> None:
    lines = [socket.create_connection(("127.0.0.1", hasty.port)) for _ in range(64)]
    for line in lines:
        line.sendall(post("/v1/completions", ASK))
    for line in lines:
        line.settimeout(20)
        assert line.recv(64).startswith(b"HTTP/1.1 200 ")
        line.close()


@pytest.mark.parametrize("stream", [False, True])
def test_http_1_0_is_answered_without_chunks_and_the_connection_ends_the_answer(hasty: Live, stream: bool) -> None:
    body = msgspec.json.encode({"model": "tiny", "prompt": "Hi", "max_tokens": 13, "stream": stream})
    with wire(hasty.port) as line:
        line.send(b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        head, _, answer = line.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    if stream:
        assert answer.endswith(b"data: [DONE]\n\n")
        assert all(piece.startswith(b"data: ") for piece in answer.split(b"\n\n")[:-1])
    else:
        assert msgspec.json.decode(answer)["choices"][0]["text"] == "Hello, world."


def test_head_over_http_has_the_headers_of_get_and_keeps_the_connection(hasty: Live) -> None:
    with wire(hasty.port) as line:
        line.send(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = line.until(b"\r\n\r\n")
        assert head.endswith(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head)[1]
        line.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got, _, body = line.until(b"}").partition(b"\r\n\r\n")
        assert b"content-length: " + length in got
        assert body.startswith(b'{"status":"ok"')
