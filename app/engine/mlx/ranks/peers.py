"""The other ranks, as rank 0 knows them: let in, told things, listened to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TypeVar

import msgspec

from app.engine.mlx.ranks.group import versions
from app.engine.mlx.ranks.link import Link, Refused, admit
from app.engine.mlx.ranks.operations import Beat, Done, Failed, Raised, ToLeader, Watch, framed
from app.engine.ranks import LOADING_SILENCE, SILENCE, RankState, Seat
from app.errors import Unavailable

T = TypeVar("T")
Steps = Generator[None, None, T]

WAIT = 0.02
"""Seconds between two looks at whether the others have done something."""
PATIENCE = 120.0
"""Seconds in which every rank has to start: libraries are imported, from a cold disk for long."""


class Peers:
    """``lost`` is called, on any thread, with the reason for which the group is no good any more.

    ``beat`` makes the next sign of life, ``greeting`` is what a rank is told first.
    """

    def __init__(self, seat: Seat, lost: Callable[[str], None], beat: Callable[[], bytes]) -> None:
        self._seat = seat
        self._lost = lost
        self._beat = beat
        self._links: dict[int, Link] = {}
        self._states: dict[int, RankState] = {}
        self._admitting = threading.Lock()
        self._done: dict[int, dict[int, int]] = {}
        self._raised: dict[int, set[int]] = {}
        self._decoder: msgspec.msgpack.Decoder[ToLeader] = msgspec.msgpack.Decoder(ToLeader)
        self.greeting = b""
        self.silence = LOADING_SILENCE

    @property
    def states(self) -> list[RankState]:
        """As they last said; any thread."""
        return [self._states[rank] for rank in sorted(self._states)]

    # --- letting in --------------------------------------------------------------------------------------------------

    def gather(self) -> Steps[None]:
        """Wait for every rank to come and prove itself; raises :class:`app.errors.Unavailable` where one does not."""
        if not isinstance(self._seat.door, int):
            raise TypeError("Rank 0 inherits its door.")
        door = socket.socket(fileno=self._seat.door)
        threading.Thread(target=self._open, args=(door,), name="rank-door", daemon=True).start()
        deadline = time.monotonic() + PATIENCE
        while len(self._links) < self._seat.size - 1:
            if time.monotonic() > deadline:
                missing = [self._seat.names[rank] for rank in range(1, self._seat.size) if rank not in self._links]
                raise Unavailable(f"{' and '.join(missing)} did not start within {PATIENCE:g} seconds.", retry_after=10)
            time.sleep(WAIT)
            yield
        with suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)
        door.close()

    def _open(self, door: socket.socket) -> None:
        """The thread that lets ranks in; what is not of this group is sent away."""
        door.settimeout(None)
        while True:
            try:
                sock, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=self._admit, args=(sock,), name="rank-handshake", daemon=True).start()

    def _admit(self, sock: socket.socket) -> None:
        try:
            rank, theirs = admit(sock, bytes.fromhex(self._seat.secret))
        except Refused:
            sock.close()
            return
        with self._admitting:
            if rank in self._links or not 0 < rank < self._seat.size:
                sock.close()
                return
            ours = versions()
            if theirs != ours:
                other = ", ".join(f"{it} {theirs.get(it)}, not {ours[it]}" for it in ours if theirs.get(it) != ours[it])
                self._lost(f"{self._seat.names[rank]} runs {other}: install the same versions on every host")
            link = Link(sock, lambda body: self._hear(rank, body), self._beat, lambda silent: self._miss(rank, silent))
            self._links[rank] = link
            link.start()
            if self.greeting:
                link.send(self.greeting)

    # --- telling and hearing -----------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Tell all; any thread."""
        for link in tuple(self._links.values()):
            link.send(frame)

    def watch(self, silence: float) -> None:
        """So many seconds of silence are too long from now on, at both ends."""
        self.silence = silence
        for link in self._links.values():
            link.watch(silence)
        self.send(framed(Watch(silence)))

    def wait(self, number: int) -> Steps[dict[int, int]]:
        """Until every other rank has done an operation that is answered; its bytes, by rank."""
        while len(self._done.get(number, ())) < len(self._links):
            time.sleep(WAIT)
            yield
        return self._done.pop(number)

    def raised(self, number: int, failure: Exception) -> None:
        """An operation has failed here: wait for all others to say so too, or the ranks no longer agree."""
        self.send(framed(Raised(number)))
        deadline = time.monotonic() + SILENCE
        while len(self._raised.get(number, ())) < len(self._links):
            if time.monotonic() > deadline:
                self._lost(f"rank 0 failed: {failure!r:.200}")
                break
            time.sleep(WAIT)
        self._raised.pop(number, None)

    def _hear(self, rank: int, body: bytes) -> None:
        """What a rank says; its link's thread."""
        match self._decoder.decode(body):
            case Beat(pid, resident, active, pool):
                host = self._seat.names[rank].partition("(")[2].rstrip(")")
                self._links[rank].pid = 0 if host else pid
                self._states[rank] = RankState(rank, pid, resident, active, pool, host)
            case Done(number, nbytes):
                self._done.setdefault(number, {})[rank] = nbytes
            case Raised(number, reason):
                self._raised.setdefault(number, set()).add(rank)
                threading.Timer(SILENCE, self._expect_raised, (number, rank, reason)).start()
            case Failed(reason):
                self._lost(f"{self._seat.names[rank]} failed: {reason}")

    def _expect_raised(self, number: int, rank: int, reason: str) -> None:
        """A rank has failed where this one has not: it waits for nobody, but others wait for it."""
        if number in self._raised:
            self._lost(f"{self._seat.names[rank]} failed: {reason}")

    def _miss(self, rank: int, silent: bool) -> None:
        name = self._seat.names[rank]
        if not silent:
            time.sleep(SILENCE / 10)  # whoever started it may know more of its end
        self._lost(f"{name} was silent for too long" if silent else f"the connection to {name} was lost")
