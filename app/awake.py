"""A Mac that works does not fall asleep: while there is work, macOS's own ``caffeinate`` holds it awake.

A closed lid and an empty battery still send it to sleep; what that does to deadlines is told in
:mod:`app.cli.run.awake_loop`.
"""

import asyncio
import os
import platform
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

import structlog

CAFFEINATE = "/usr/bin/caffeinate"
EVERY = 5.0
"""Seconds between two looks; no Mac falls asleep after less than a minute."""
PATIENCE = 5.0
"""Seconds in which the program ends once it is told to."""


@asynccontextmanager
async def awake(
    busy: Callable[[], bool], *, program: str = CAFFEINATE, every: float = EVERY
) -> AsyncGenerator[None, None]:
    """Keep the machine awake whenever ``busy()`` is true, for as long as the context is entered; on macOS only."""
    if platform.system() != "Darwin":
        yield
        return
    keeper = _Keeper(program)
    task = asyncio.get_running_loop().create_task(_look(keeper, busy, every))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await keeper.let_go()


async def _look(keeper: "_Keeper", busy: Callable[[], bool], every: float) -> None:
    while True:
        try:
            if busy():
                keeper.hold()
            else:
                await keeper.let_go()
        except OSError as failure:
            structlog.get_logger("switchyard").warning("this machine may fall asleep", reason=str(failure))
            return
        await asyncio.sleep(every)


class _Keeper:
    """The program, while it runs. It ends by itself when this process does."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._running: subprocess.Popen[bytes] | None = None

    def hold(self) -> None:
        if self._running is None or self._running.poll() is not None:
            words = (self._program, "-i", "-w", str(os.getpid()))  # no sleep for idleness, while that process lives
            self._running = subprocess.Popen(  # noqa: S603  a program of the system's
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    async def let_go(self) -> None:
        """Whoever is cancelled meanwhile leaves the rest to the next call."""
        running = self._running
        if running is not None:
            running.terminate()
            await asyncio.to_thread(_wait, running)
            self._running = None


def _wait(running: "subprocess.Popen[bytes]") -> None:
    try:
        running.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
