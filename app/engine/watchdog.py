"""Notices an engine thread that has died, or that one piece of work holds for too long."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from app.errors import EngineFailed

EVERY = 1.0
"""Seconds between two looks."""


class Watched(Protocol):
    """A thread that works in short pieces. Both may be asked from any thread."""

    def alive(self) -> bool:
        """Whether it runs at all."""

    def busy_seconds(self) -> float:
        """How long its present piece of work has taken; 0 while it waits for work."""


async def watch(thread: Watched, limit: float, lost: Callable[[EngineFailed], None], *, every: float = EVERY) -> None:
    """Look until the thread is lost, and say so once. A ``limit`` of 0 seconds bears with it for ever."""
    while True:
        await asyncio.sleep(every)
        busy = thread.busy_seconds()
        if not thread.alive():
            reason = "the engine's thread has ended"
        elif limit and busy > limit:
            reason = f"the engine has not answered for {busy:.0f} seconds"
        else:
            continue
        structlog.get_logger("switchyard").error("engine lost", reason=reason)
        lost(EngineFailed("The engine has stopped answering, and the service restarts. Send the request again later."))
        return
