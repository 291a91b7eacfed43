"""Rows that give up their KV caches because requests wait for each other's memory."""

import asyncio
from collections.abc import Callable

from app.errors import SwitchyardError
from app.registry.queue import Waiter


class Yielding:
    """Puts back the rows of one request at a time; ``done`` is called on the event loop after each."""

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether somebody's rows are on their way back."""
        return self._task is not None

    def begin(self, waiter: Waiter) -> None:
        """Free what the waiter's rows hold; from then on it waits for all of that as well."""
        self._task = asyncio.get_running_loop().create_task(self._run(waiter))

    async def _run(self, waiter: Waiter) -> None:
        try:
            if waiter.put_back is not None:
                await waiter.put_back()
        except SwitchyardError:
            pass  # its process has ended, and its rows with it
        finally:
            self._task = None
            if waiter.lease is not None:
                waiter.nbytes, waiter.lease.kv = waiter.nbytes + waiter.lease.kv, 0
            waiter.back = True
            self._done()
