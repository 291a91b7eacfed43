"""Whose turn it is to fill a file, on disks that know no locks (network disks, some exFAT): a file that says it."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

STALE = 60.0
"""Seconds without a sign of life from an owner that cannot be asked, after which it is taken for dead."""
_SIGN = 10.0
_POLL = 0.1


@asynccontextmanager
async def claimed(path: Path, *, stale: float = STALE) -> AsyncIterator[None]:
    """Own ``path`` among processes, of other machines too, waiting for whoever owns it now.

    The owner's file beside it is touched every ten seconds. One whose process is gone, or which nobody has touched for
    ``stale`` seconds by the clock of whoever waits, is removed.
    """
    claim = _Claim(path.with_name(f"{path.name}.owner"), stale)
    while not await asyncio.to_thread(claim.take):  # noqa: ASYNC110  it is other processes that end it
        await asyncio.sleep(_POLL)
    alive = asyncio.get_running_loop().create_task(_give_signs(claim))
    try:
        yield
    finally:
        alive.cancel()
        claim.end()


async def _give_signs(claim: "_Claim") -> None:
    while True:
        await asyncio.sleep(_SIGN)
        await asyncio.to_thread(claim.touch)


class _Claim:
    """One who wants the file, or has it. The words in it are the machine, the process, and a number of its own."""

    def __init__(self, path: Path, stale: float) -> None:
        self._path = path
        self._words = f"{socket.gethostname()} {os.getpid()} {uuid4().hex}"
        self._stale = stale
        self._seen: tuple[str, float] = ("", 0.0)
        self._since = 0.0

    def take(self) -> bool:
        """Whether it is ours now."""
        try:
            with self._path.open("x", encoding="utf-8") as stream:
                stream.write(self._words)
        except FileExistsError:
            self._remove_abandoned()
            return False
        return True

    def touch(self) -> None:
        """Give a sign of life."""
        with suppress(OSError):
            os.utime(self._path)

    def end(self) -> None:
        """Let others have it."""
        with suppress(OSError):
            if self._path.read_text("utf-8") == self._words:
                self._path.unlink()

    def _remove_abandoned(self) -> None:
        try:
            words, touched = self._path.read_text("utf-8"), self._path.stat().st_mtime
        except OSError:
            return  # given back this moment
        now = time.monotonic()
        if (words, touched) != self._seen:
            self._seen, self._since = (words, touched), now
        if now - self._since < self._stale and not _is_dead(words):
            return
        aside = self._path.with_name(f".{self._path.name}.{uuid4().hex}")
        with suppress(OSError):
            self._path.replace(aside)  # of several who do this one succeeds
            if aside.read_text("utf-8") == words:
                aside.unlink()
            else:
                aside.replace(self._path)  # it was another's already


def _is_dead(words: str) -> bool:
    """Whether the owner was a process of this machine that is gone."""
    host, _, rest = words.partition(" ")
    number = rest.partition(" ")[0]
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass  # somebody else's, or no process's number
    return False
