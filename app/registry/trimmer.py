"""Prefix caches give way before models do."""

import asyncio
from collections.abc import Callable
from math import inf

from app.registry.budget import PrefixCaches

RECLAIM_SECONDS = 0.25
"""After this long memory is looked at again if it did not come free as the books say."""


class Trimmer:
    """Trims prefix caches, one trim at a time; ``done`` is called on the event loop after each."""

    def __init__(self, caches: PrefixCaches, done: Callable[[], None]) -> None:
        self._caches = caches
        self._done = done
        self._task: asyncio.Task[None] | None = None
        self._again = -inf

    def works_on(self, short: int) -> bool:
        """Whether a trim is under way, which begins now if ``short`` bytes are missing and there is what to trim."""
        now = asyncio.get_running_loop().time()
        if self._task is None and short > 0 and now >= self._again and self._caches.nbytes() > 0:
            self._task = asyncio.get_running_loop().create_task(self._trim(short))
        return self._task is not None

    async def _trim(self, short: int) -> None:
        try:
            await self._caches.trim(short)
        finally:
            self._task, self._again = None, asyncio.get_running_loop().time() + RECLAIM_SECONDS
            self._done()
