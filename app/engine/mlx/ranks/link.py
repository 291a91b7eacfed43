"""The connection between rank 0 and another one, beside the backend's own: what is to be done, and signs of life.

Both ends prove that they know the group's secret before anything else is said: each answers the other's random
challenge with an HMAC over both challenges, its role and its rank. Whoever hears nothing for too long takes the
other for frozen: a collective would wait for it for ever.
"""

from __future__ import annotations

import faulthandler
import hmac
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import msgspec
import psutil
from msgspec import Struct

from app.engine.framing import Frames
from app.engine.ranks import LOADING_SILENCE

BEAT = 0.5
"""Seconds between two signs of life."""
SLOW = 3
"""How many times as long a process may be silent that the system does run: on a machine that has too much to do."""
STUCK = 1.5
"""Seconds beyond a silence that is too long after which a process that runs no thread of Python ends."""
HANDSHAKE = 5.0
"""Seconds in which a connection proves what it is."""
CHALLENGE = 32
LONGEST = 4096
"""Bytes of a message before both ends are known."""
M = TypeVar("M", bound=Struct)


class Refused(Exception):
    """The other end is not of this group."""


class Hello(Struct, frozen=True):
    """What a rank begins with."""

    rank: int
    challenge: bytes


class Welcome(Struct, frozen=True):
    """Rank 0's own challenge, and its proof."""

    challenge: bytes
    proof: bytes


class Introduction(Struct, frozen=True):
    """The rank's proof, and what it runs: the versions of what must be the same everywhere."""

    proof: bytes
    versions: dict[str, str]


def knock(sock: socket.socket, rank: int, secret: bytes, versions: dict[str, str]) -> None:
    """A rank's side of the handshake; raises :class:`Refused`."""
    with _timed(sock):
        hello = Hello(rank, secrets.token_bytes(CHALLENGE))
        _write(sock, hello)
        welcome = _read(sock, Welcome)
        both = hello.challenge + welcome.challenge
        if len(welcome.challenge) != CHALLENGE or not _proves(welcome.proof, secret, b"leader", rank, both):
            raise Refused("what waits there is not rank 0 of this group")
        _write(sock, Introduction(_proof(secret, b"follower", rank, both), versions))


def admit(sock: socket.socket, secret: bytes) -> tuple[int, dict[str, str]]:
    """Rank 0's side; which rank it is and what it runs. Raises :class:`Refused`."""
    with _timed(sock):
        hello = _read(sock, Hello)
        if len(hello.challenge) != CHALLENGE:
            raise Refused("a challenge of another length")
        challenge = secrets.token_bytes(CHALLENGE)
        both = hello.challenge + challenge
        _write(sock, Welcome(challenge, _proof(secret, b"leader", hello.rank, both)))
        introduction = _read(sock, Introduction)
        if not _proves(introduction.proof, secret, b"follower", hello.rank, both):
            raise Refused("a connection does not know the group's secret")
        return hello.rank, introduction.versions


def _proof(secret: bytes, role: bytes, rank: int, challenges: bytes) -> bytes:
    return hmac.digest(secret, b"%s %d " % (role, rank) + challenges, "sha256")


def _proves(proof: bytes, secret: bytes, role: bytes, rank: int, challenges: bytes) -> bool:
    return hmac.compare_digest(proof, _proof(secret, role, rank, challenges))


@contextmanager
def _timed(sock: socket.socket) -> Iterator[None]:
    """Errors and silence of a handshake are refusals."""
    sock.settimeout(HANDSHAKE)
    try:
        yield
    except (OSError, ValueError, msgspec.MsgspecError) as failure:
        raise Refused(f"the handshake failed: {failure}") from failure


def _write(sock: socket.socket, message: Struct) -> None:
    body = msgspec.msgpack.encode(message)
    sock.sendall(len(body).to_bytes(4, "big") + body)


def _read(sock: socket.socket, kind: type[M]) -> M:
    size = int.from_bytes(_exactly(sock, 4), "big")
    if size > LONGEST:
        raise ValueError("a message that is too long")
    return msgspec.msgpack.decode(_exactly(sock, size), type=kind)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise OSError("the connection was closed")
        data += more
    return data


def still_running(silence: float) -> None:
    """End this process if no thread of it gets to run for that long from now on, or to call this again.

    A native call that waits for a frozen rank may keep every other thread of Python from running.
    """
    faulthandler.dump_traceback_later(SLOW * silence + STUCK, exit=True)


def is_stopped(pid: int) -> bool:
    """Whether the system says that this process does not run at all; one of another host has 0 for a number."""
    try:
        return pid > 0 and psutil.Process(pid).status() in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
    except psutil.Error:
        return True


class Link:
    """One end after the handshake: ``take`` is given each message's body, ``beat`` makes the next sign of life.

    ``lost`` is called once, with True if the other end is silent and False if it has closed. All are called on threads
    of the link's own. ``pid`` is the other end's process, where that is known: one that is stopped is frozen after
    ``silence`` seconds, one that runs is slow for some time yet.
    """

    def __init__(
        self,
        sock: socket.socket,
        take: Callable[[bytes], None],
        beat: Callable[[], bytes],
        lost: Callable[[bool], None],
        *,
        silence: float = LOADING_SILENCE,
    ) -> None:
        self._sock = sock
        self._take = take
        self._beat = beat
        self._lost = lost
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self.pid = 0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.watch(silence)

    def watch(self, silence: float) -> None:
        """From the next sign of life on, that long without one is too long; any thread."""
        self.silence = silence
        self._sock.settimeout(silence)

    def start(self) -> None:
        """Hear the other end, and give signs of life."""
        for work in (self._hear, self._beat_on):
            threading.Thread(target=work, name=f"rank-{work.__name__}", daemon=True).start()

    def send(self, frame: bytes) -> None:
        """Write a message; any thread. What cannot be written is lost with the link."""
        with self._writing:
            try:
                self._sock.sendall(frame)
            except OSError as failure:
                self._lose(silent=isinstance(failure, TimeoutError))

    def close(self) -> None:
        """End it without a word to anybody here."""
        self._closed.set()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _hear(self) -> None:
        frames, waits = Frames(), 0
        while True:
            try:
                data = self._sock.recv(1 << 16)
                waits = 0
            except TimeoutError:
                waits += 1
                if not self.pid or waits >= SLOW or is_stopped(self.pid):
                    return self._lose(silent=True)
                continue
            except OSError:
                data = b""
            if not data:
                return self._lose(silent=False)
            for body in frames.feed(data):
                self._take(body)

    def _beat_on(self) -> None:
        self.send(self._beat())
        while not self._closed.wait(BEAT):
            self.send(self._beat())

    def _lose(self, *, silent: bool) -> None:
        if not self._closed.is_set():
            self._closed.set()
            self._lost(silent)
