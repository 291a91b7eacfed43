"""The token stream that the event loop reads: a mailbox that hands over all that has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from app.engine.base import Prefilled, Token
from app.errors import SwitchyardError

if TYPE_CHECKING:
    from app.engine.mlx.rows import Row


class MLXTokenStream:
    """Yields lists of what the MLX thread delivered since the last one. Event loop only."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], Row] = {}
        self._items: list[Prefilled | Token] = []
        self._failure: SwitchyardError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> AsyncIterator[list[Prefilled | Token]]:
        """Iterate once."""
        return self

    async def __anext__(self) -> list[Prefilled | Token]:
        """Everything that has come; waits until there is something."""
        while not self._items:
            if self._failure is not None:
                raise self._failure
            if not self._open:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        items, self._items = self._items, []
        return items

    def expect(self, rows: list[Row]) -> None:
        """Go on until these rows have ended."""
        self._open |= {(row.sequence, row.index): row for row in rows}

    def cancel(self, sequence: int, row: int) -> None:
        """End one row: the batch drops it before its next step."""
        cancelled = self._open.pop((sequence, row), None)
        if cancelled is not None:
            cancelled.cancelled = True

    def close(self) -> None:
        """End every row."""
        for sequence, row in tuple(self._open):
            self.cancel(sequence, row)

    def deliver(self, items: list[Prefilled | Token], ended: list[Row]) -> None:
        """Take what one step made; the rows ``ended`` had their last token in it."""
        self._items += items
        for row in ended:
            self._open.pop((row.sequence, row.index), None)
        self._wake()

    def fail(self, failure: SwitchyardError) -> None:
        """Raise ``failure`` to the reader after what was delivered before."""
        self._failure = failure
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
