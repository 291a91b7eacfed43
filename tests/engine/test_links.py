"""The connection between ranks: who is let in, and that silence and a cut are noticed from both sides."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.mlx.ranks import link as links
from app.engine.mlx.ranks.link import Link, Refused, admit, knock
from app.engine.mlx.ranks.operations import Drop, framed

SECRET = b"s" * 32


def handshake(ours: bytes, theirs: bytes, rank: int = 1) -> tuple[tuple[int, dict[str, str]] | Refused, Refused | None]:
    """What came of it at rank 0's end and at the other."""
    a, b = socket.socketpair()
    results: dict[str, Any] = {}

    def run(name: str, work: Callable[..., Any]) -> None:
        try:
            results[name] = work()
        except Refused as failure:
            results[name] = failure
            (a if name == "leader" else b).close()

    other = threading.Thread(target=run, args=("follower", lambda: knock(b, rank, theirs, {"mlx": "1"})))
    other.start()
    run("leader", lambda: admit(a, ours))
    other.join()
    a.close()
    b.close()
    return results["leader"], results["follower"]


def test_ranks_that_know_the_secret_find_each_other() -> None:
    assert handshake(SECRET, SECRET, rank=3) == ((3, {"mlx": "1"}), None)


def test_either_end_refuses_another_that_does_not_know_it() -> None:
    leader, follower = handshake(SECRET, b"t" * 32)
    assert isinstance(leader, Refused)
    assert isinstance(follower, Refused)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_else_comes_to_the_door_is_refused_at_once(noise: bytes) -> None:
    a, b = socket.socketpair()
    with a, b:
        b.sendall(noise)
        b.shutdown(socket.SHUT_WR)
        began = time.monotonic()
        with pytest.raises(Refused):
            admit(a, SECRET)
        assert time.monotonic() - began < 2


def test_a_proof_seen_once_is_none_for_another_connection() -> None:
    """Both challenges are part of it."""
    a, b = socket.socketpair()
    with a, b:
        outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def wait() -> None:
            try:
                outcomes.put(admit(a, SECRET))
            except Refused as refusal:
                outcomes.put(refusal)

        taken = threading.Thread(target=wait)
        taken.start()
        links._write(b, links.Hello(1, b"c" * 32))
        welcome = links._read(b, links.Welcome)
        links._write(b, links.Introduction(welcome.proof, {}))  # rank 0's own, sent back to it
        assert isinstance(outcomes.get(timeout=10), Refused)


@pytest.fixture
def linked() -> Iterator[tuple["Heard", "Heard"]]:
    a, b = (Heard(it) for it in _tcp())
    yield a, b
    a.link.close()
    b.link.close()


class Heard:
    """A link and what it has told."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.losses: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.link = Link(sock, self.messages.put, lambda: framed(Drop([])), self.losses.put, silence=1.0)


def _tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        a = socket.create_connection(door.getsockname())
        return a, door.accept()[0]


def test_signs_of_life_keep_a_link_and_messages_come_whole(linked: tuple[Heard, Heard]) -> None:
    a, b = linked
    a.link.start()
    b.link.start()
    big = framed(Drop(list(range(100_000))))
    a.link.send(big)
    bodies = [b.messages.get(timeout=5)]
    while len(bodies[-1]) < 1000:
        bodies.append(b.messages.get(timeout=5))
    assert bodies[-1] == big[4:]
    time.sleep(1.5)
    assert a.losses.empty()
    assert b.losses.empty()


def test_a_cut_connection_is_noticed_at_once_from_both_sides(linked: tuple[Heard, Heard]) -> None:
    a, b = linked
    a.link.start()
    b.link.start()
    a.sock.shutdown(socket.SHUT_RDWR)
    assert (a.losses.get(timeout=2), b.losses.get(timeout=2)) == (False, False)


def test_silence_is_noticed_even_by_who_has_nothing_to_say(linked: tuple[Heard, Heard]) -> None:
    a, _ = linked
    began = time.monotonic()
    a.link.start()
    assert a.losses.get(timeout=5) is True
    assert time.monotonic() - began < 2


def test_a_message_to_somebody_who_takes_nothing_does_not_wait_for_ever(linked: tuple[Heard, Heard]) -> None:
    a, _ = linked
    a.link.send(os.urandom(64 << 20))
    assert a.losses.get(timeout=5) is True


def test_a_process_that_runs_but_is_slow_is_waited_for_longer_than_one_that_is_stopped(
    linked: tuple[Heard, Heard],
) -> None:
    a, b = linked
    stopped = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        stopped.send_signal(signal.SIGSTOP)
        a.link.pid, b.link.pid = os.getpid(), stopped.pid
        began = time.monotonic()
        a.link._beat = b.link._beat = lambda: b""
        a.link.start()
        b.link.start()
        assert b.losses.get(timeout=5) is True
        assert time.monotonic() - began < 2
        assert a.losses.empty()
    finally:
        stopped.kill()
        stopped.communicate()
