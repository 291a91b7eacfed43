"""The token stream of a group of sequences that another process computes."""

from collections.abc import AsyncIterator, Awaitable, Callable

from app.engine.base import Item, Prefilled, Sequence, Token
from app.engine.mailbox import Mailbox
from app.engine.messages import CancelRow, CloseStream, Grant, Part, PutBack, Questions, ToEngine
from app.errors import SwitchyardError


class ProcessStream:
    """Implements :class:`app.engine.base.TokenStream`. ``ended`` is called once nothing more can come."""

    def __init__(
        self,
        number: int,
        engine: int,
        sequences: tuple[Sequence, ...],
        *,
        send: Callable[[ToEngine], None],
        ask: Callable[[Callable[[int], Questions], type[None]], Awaitable[None]],
        ended: Callable[[int], None],
    ) -> None:
        self._number = number
        self._engine = engine
        self._ask = ask
        self._send = send
        self._ended = ended
        self._scored = {at for at, sequence in enumerate(sequences) if not sequence.max_tokens}
        self._running = {(at, row) for at, sequence in enumerate(sequences) for row in range(sequence.rows)}
        self._mailbox = Mailbox()

    def __aiter__(self) -> AsyncIterator[list[Item]]:
        """Iterate once."""
        return self

    async def __anext__(self) -> list[Item]:
        """Everything that has come; waits until there is something."""
        while not (items := self._mailbox.take()):
            if not self._running:
                raise StopAsyncIteration
            await self._mailbox.changed()
        return items

    def deliver(self, part: Part) -> None:
        """Take what one step made."""
        for item in part.items:
            if isinstance(item, Token):
                if item.finish is not None:
                    self._running.discard((item.sequence, item.row))
            elif isinstance(item, Prefilled) and item.sequence in self._scored:
                self._running = {key for key in self._running if key[0] != item.sequence}
        self._mailbox.put(part.items)
        if part.failure is not None:
            self.fail(part.failure.error())
        elif not self._running:
            self._ended(self._number)

    def fail(self, failure: SwitchyardError) -> None:
        """Raise ``failure`` to the reader after what was delivered before."""
        self._running.clear()
        self._ended(self._number)
        self._mailbox.fail(failure)

    def cancel(self, sequence: int, row: int) -> None:
        """End one row."""
        if (sequence, row) in self._running:
            self._running.discard((sequence, row))
            self._send(CancelRow(self._number, sequence, row))
            if not self._running:
                self._ended(self._number)

    def grant(self, sequence: int, row: int, tokens: int) -> None:
        """More memory is reserved for a row."""
        if (sequence, row) in self._running:
            self._send(Grant(self._number, sequence, row, tokens))

    async def put_back(self) -> None:
        """Have all rows wait without their KV caches."""
        if self._running:
            await self._ask(lambda call: PutBack(call, self._engine, self._number), type(None))

    def abort(self, failure: SwitchyardError) -> None:
        """End every row with ``failure``."""
        self.close()
        self._mailbox.fail(failure)

    def close(self) -> None:
        """End every row."""
        if self._running:
            self._running.clear()
            self._send(CloseStream(self._number))
            self._ended(self._number)
