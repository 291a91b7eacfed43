"""uvloop on a Mac, with deadlines that count the time in which the machine is awake.

libuv's clock goes on while a Mac sleeps (``mach_continuous_time``), Python's ``time.monotonic()`` does not: for uvloop
a lid that was closed for an hour is an hour that every client has waited, and all of them are sent away at once.
"""

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

import uvloop

_Ts = TypeVarTuple("_Ts")

_SHORT = 1.0
"""Seconds below which nothing is made of a nap in between."""


class AwakeLoop(uvloop.Loop):
    """Its ``time()`` is ``time.monotonic()``, and a timer waits until that has gone on by its delay."""

    def time(self) -> float:
        """Seconds in which the machine was awake."""
        return time.monotonic()

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As in asyncio."""
        if delay < _SHORT:
            return super().call_later(delay, callback, *args, context=context)
        timer = _Timer(self.time() + delay, callback, args, self, context)
        timer.begin(super().call_later)
        return timer

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As in asyncio."""
        return self.call_later(when - self.time(), callback, *args, context=context)


class _Timer(asyncio.TimerHandle):
    """Starts anew when it goes off and the machine has slept meanwhile."""

    _inner: asyncio.TimerHandle

    def begin(self, arm: Callable[[float, Callable[[], object]], asyncio.TimerHandle]) -> None:
        """Start; ``arm`` is uvloop's own ``call_later``."""
        self._arm = arm
        self._go_on()

    def cancel(self) -> None:
        """As in asyncio."""
        self._inner.cancel()
        if not self.cancelled():
            asyncio.Handle.cancel(self)  # a timer of asyncio's would tell a heap that uvloop does not have

    def _go_on(self) -> None:
        left = max(0.0, self.when() - time.monotonic())
        self._inner = self._arm(left, self._due)

    def _due(self) -> None:
        if self.when() - time.monotonic() > _SHORT / 100:
            self._go_on()
        else:
            self._run()
