"""The process that waits for the next load, with its imports done."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import psutil

from app.engine.client.process import EngineProcess
from app.engine.messages import ReadTokenizer
from app.errors import SwitchyardError

DELAY = 1.0
"""Seconds after a load before the next process is started: importing takes a core for a second."""
ROOM = 1 << 30
"""Bytes of free memory without which no process waits."""


class Spare:
    """At most one; event loop only. ``start`` makes a process, an urgent one if somebody waits for it.

    Without ``wanted`` none is started but what :meth:`now` is asked for.
    """

    def __init__(self, start: Callable[[bool], EngineProcess], *, wanted: bool) -> None:
        self._start = start
        self._wanted = wanted
        self._process: EngineProcess | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.last_closed: Path | None = None
        """The model that went last, which may well be the next: its tokenizer is read ahead."""

    @property
    def process(self) -> EngineProcess | None:
        """What waits now, unless it has ended."""
        return None if self._process is None or self._process.loss is not None else self._process

    def now(self) -> EngineProcess:
        """What waits, or one that is started at once; it stays."""
        process = self._process = self.process or self._start(True)
        return process

    def expect(self) -> None:
        """A load is about to come: importing needs neither its turn nor its memory."""
        if self.process is None and self._has_room():
            self.hold_off()
            self.now()

    def take(self) -> EngineProcess | None:
        """What waits, which does so no more."""
        process, self._process = self.process, None
        return process

    def put(self, process: EngineProcess) -> None:
        """``process`` was taken for something that is over, and waits again unless another does."""
        if self.process is None:
            self._process = process
        elif self._process is not process:
            self._spawn(process.end())

    def hold_off(self) -> None:
        """A load comes first: what would be made ready meanwhile competes with it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def later(self) -> None:
        """Be ready for the next load once what happens now has had its moment."""
        self.hold_off()
        if not self._closed:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self._prepare)

    async def close(self) -> None:
        """End it; none is started any more."""
        self._closed = True
        self.hold_off()
        for task in tuple(self._tasks):
            task.cancel()
        if self._process is not None:
            await self._process.end()

    def _has_room(self) -> bool:
        return self._wanted and not self._closed and psutil.virtual_memory().available > ROOM

    def _prepare(self) -> None:
        self._timer = None
        if self.process is None and self._has_room():
            self._process = self._start(False)
        if self.process is not None and self.last_closed is not None:
            self._spawn(_read(self.process, str(self.last_closed)))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _read(process: EngineProcess, path: str) -> None:
    try:
        await process.ask(lambda call: ReadTokenizer(call, path), type(None))
    except SwitchyardError:
        return
