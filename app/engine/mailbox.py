"""What a reader has not taken yet."""

from __future__ import annotations

import asyncio

from app.engine.base import Item
from app.errors import SwitchyardError


class Mailbox:
    """Hands over all that has come since the last time, so that a slow reader has larger pieces, never a backlog."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._failure: SwitchyardError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, items: list[Item]) -> None:
        """More has come."""
        self._items += items
        self.wake()

    def fail(self, failure: SwitchyardError) -> None:
        """Raise ``failure`` to the reader after what came before."""
        self._failure = failure
        self.wake()

    def wake(self) -> None:
        """Let the reader look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> list[Item]:
        """All that has come, perhaps nothing; raises the failure once nothing is left."""
        items, self._items = self._items, []
        if not items and self._failure is not None:
            raise self._failure
        return items

    async def changed(self) -> None:
        """Return at the next :meth:`wake`."""
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
