"""What a submitted group of sequences is told, on the engine process's event loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from app.engine.base import Prefilled, Token
from app.engine.mailbox import Mailbox
from app.engine.mlx.rows import Row
from app.errors import SwitchyardError


class RowStream(ABC):
    """The rows of one group that still run. Event loop only."""

    def __init__(self) -> None:
        self.running: dict[tuple[int, int], Row] = {}

    def expect(self, rows: list[Row]) -> None:
        """Go on until these rows have ended."""
        self.running |= {(row.sequence, row.index): row for row in rows}

    def cancel(self, sequence: int, row: int) -> None:
        """End one row: the batch drops it before its next step."""
        cancelled = self.running.pop((sequence, row), None)
        if cancelled is not None:
            cancelled.cancelled = True

    def close(self) -> None:
        """End every row."""
        for sequence, row in tuple(self.running):
            self.cancel(sequence, row)

    def deliver(self, items: list[Prefilled | Token], ended: list[Row]) -> None:
        """Take what one step made; the rows ``ended`` had their last token in it."""
        for row in ended:
            self.running.pop((row.sequence, row.index), None)
        self.take(items)

    @abstractmethod
    def take(self, items: list[Prefilled | Token]) -> None:
        """Hand on what one step made."""

    @abstractmethod
    def fail(self, failure: SwitchyardError) -> None:
        """Tell ``failure`` after what was delivered before."""


class MLXTokenStream(RowStream):
    """Read in this process, as :class:`app.engine.base.TokenStream` is."""

    def __init__(self) -> None:
        super().__init__()
        self._mailbox = Mailbox()

    def __aiter__(self) -> AsyncIterator[list[Prefilled | Token]]:
        """Iterate once."""
        return self

    async def __anext__(self) -> list[Prefilled | Token]:
        """Everything that has come; waits until there is something."""
        while not (items := self._mailbox.take()):
            if not self.running:
                raise StopAsyncIteration
            await self._mailbox.changed()
        return items

    def take(self, items: list[Prefilled | Token]) -> None:
        """Keep it for the reader."""
        self._mailbox.put(items)

    def fail(self, failure: SwitchyardError) -> None:
        """Raise it to the reader."""
        self._mailbox.fail(failure)
