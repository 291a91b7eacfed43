"""How far a download is, published by the hub's thread and watched from event loops without polling."""

import asyncio
from collections.abc import AsyncGenerator
from threading import Lock
from typing import Literal

from msgspec import Struct

State = Literal["resolving", "downloading", "verifying", "done", "failed", "cancelled"]
FINAL: frozenset[State] = frozenset({"done", "failed", "cancelled"})


class FileProgress(Struct, frozen=True):
    """Bytes on disk of one file."""

    name: str
    done: int
    size: int


class Progress(Struct, frozen=True):
    """One moment of a download. ``commit``, ``total`` and ``files`` are unknown while ``resolving``.

    ``message`` says what went wrong once the state is ``failed`` or ``cancelled``.
    """

    repo: str
    revision: str
    state: State = "resolving"
    commit: str | None = None
    done: int = 0
    total: int = 0
    files: tuple[FileProgress, ...] = ()
    message: str | None = None


class Board:
    """Where the latest progress stands. :meth:`post` is for one thread at a time, :meth:`watch` for any event loop."""

    def __init__(self, first: Progress) -> None:
        self._latest = first
        self._watchers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock = Lock()

    @property
    def latest(self) -> Progress:
        """The newest moment; may be read from any thread."""
        return self._latest

    def post(self, progress: Progress) -> None:
        """Replace the latest and wake everyone who watches; a loop that has ended is forgotten."""
        self._latest = progress
        with self._lock:
            for loop, event in tuple(self._watchers):
                if loop.is_closed():
                    self._watchers.discard((loop, event))
                else:
                    loop.call_soon_threadsafe(event.set)

    async def watch(self) -> AsyncGenerator[Progress, None]:
        """The latest now and after every change, ending with the final one; a slow reader skips moments."""
        watcher = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._watchers.add(watcher)
        try:
            while True:
                watcher[1].clear()
                progress = self._latest
                yield progress
                if progress.state in FINAL:
                    return
                await watcher[1].wait()
        finally:
            with self._lock:
                self._watchers.discard(watcher)
