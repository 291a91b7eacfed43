"""Whether a process still works, and why one has ended."""

import asyncio
import signal
from collections.abc import Callable, Sequence

START_SECONDS = 120.0
"""A process that is starting says nothing while its libraries are imported, from a cold disk for long."""
SECOND_LOOK = 1.0
"""A process that seems to hang is looked at again after so many seconds: perhaps the service was the slow one."""
OOM_EVENTS = "/sys/fs/cgroup/memory.events"


class Watchdog:
    """Calls ``kill`` with the reason if nothing was heard for ``timeout`` seconds of work; 0: never."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float, kill: Callable[[str], None]) -> None:
        self._loop = loop
        self._timeout = timeout and max(timeout, START_SECONDS)
        self._ready_timeout = timeout
        self._kill = kill
        self._heard = loop.time()
        self._alarm: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        """The process has said something."""
        self._heard = self._loop.time()

    def started(self) -> None:
        """It is ready: from now on every step counts."""
        self._timeout = self._ready_timeout
        self.attend(working=False)

    def attend(self, *, working: bool) -> None:
        """It has work from now on, or has none."""
        if working and self._alarm is None and self._timeout:
            self._heard = self._loop.time()
            self._look_later()
        elif not working and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look_later(self) -> None:
        self._alarm = self._loop.call_at(self._heard + self._timeout, self._look)

    def _look(self) -> None:
        if self._loop.time() - self._heard < self._timeout:
            self._look_later()
        else:
            self._alarm = self._loop.call_later(SECOND_LOOK, self._look_again, self._heard)

    def _look_again(self, heard: float) -> None:
        if self._heard > heard:
            self._look_later()
        else:
            self._alarm = None
            self._kill(f"it finished no step for {self._timeout:g} seconds")


def cause(code: int, oom_kills_before: int) -> str:
    """How a process ended that nobody ended; ``code`` is its exit code, negative for a signal."""
    if code == -signal.SIGKILL and oom_kills() > oom_kills_before:
        return "the system ended it because memory ran out"
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it left with exit code {code}"


def oom_kills() -> int:
    """How often the system has ended a process of this control group for want of memory; 0 where it does not say."""
    try:
        with open(OOM_EVENTS, encoding="ascii") as events:  # noqa: PTH123  tiny, and made by the kernel
            counts: Sequence[list[str]] = [line.split() for line in events]
    except OSError:
        return 0
    return next((int(count[1]) for count in counts if count[0] == "oom_kill"), 0)
