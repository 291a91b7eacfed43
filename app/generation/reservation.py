"""Memory for a job's rows, a part at a time: limits are far above most answers."""

import asyncio
from collections import deque
from heapq import heappush, heappushpop

from msgspec.structs import replace

from app.engine.base import Sequence, TokenStream
from app.engine.leases import Lease
from app.errors import SwitchyardError
from app.generation.meter import Meter

AHEAD = 1024
"""Tokens reserved at a time for a choice."""
LEFT = 256
"""With fewer left of them, the next ones are asked for."""
NOT_YET = -1
"""What a row is granted whose prompt waits for memory."""

Key = tuple[int, int]
"""A sequence's number and a row's."""


class Reservation:
    """A first part of what each choice may grow to, and more as it grows; the engine holds rows to what they have.

    Only as much is reserved as rows that are generated together may take. Where even that could never fit, some of the
    prompts wait until others have ended. ``lease`` gives everything back when it ends.
    """

    def __init__(self, lease: Lease, sequences: tuple[Sequence, ...], meter: Meter) -> None:
        self._lease = lease
        self._law = lease.engine.law
        self._meter = meter
        self._sequences = sequences
        self._granted: dict[Key, int] = {}
        """Tokens of each row that has begun and not ended."""
        self._waiting = deque(range(len(sequences)))
        self._wanting: deque[Key] = deque()
        self._booked = 0
        self._stream: TokenStream | None = None
        self._growing: asyncio.Task[None] | None = None

    async def begin(self) -> tuple[Sequence, ...]:
        """Reserve what is needed to start; raises as :meth:`app.engine.leases.Lease.admit` does. What is to be run."""
        together, total, most = list[int](), 0, self._lease.most
        while self._waiting:
            for nbytes in self._first(self._waiting[0]):
                total += nbytes
                if len(together) < self._lease.rows:
                    heappush(together, nbytes)
                else:
                    total -= heappushpop(together, nbytes)
            if self._granted and total > most:
                break
            self._booked = total
            self._grant(self._waiting.popleft())
        await self._lease.admit(self._booked)
        begun = {sequence for sequence, _ in self._granted}
        return tuple(
            replace(it, granted=min(it.max_tokens, AHEAD) if number in begun else NOT_YET)
            for number, it in enumerate(self._sequences)
        )

    def attach(self, stream: TokenStream) -> None:
        """This is what comes of them."""
        self._stream = stream

    def cover(self, key: Key, tokens: int) -> None:
        """Have room for a choice of ``tokens`` tokens and some more; where none is free, its row waits for it."""
        granted = self._granted[key]
        if granted < self._most(key) and tokens > granted - LEFT and key not in self._wanting:
            self._wanting.append(key)
            self._grow()

    def ended(self, *keys: Key) -> None:
        """Choices have ended: others of the job may have their room."""
        for key in keys:
            self._granted.pop(key, None)
        if self._waiting:
            self._grow()

    def close(self) -> None:
        """Ask for nothing any more."""
        if self._growing is not None:
            self._growing.cancel()

    def _grow(self) -> None:
        if self._growing is None or self._growing.done():
            self._growing = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._wanting or self._may_start():
                if self._wanting:
                    key = self._wanting.popleft()
                    if key in self._granted:
                        self._granted[key] = min(self._granted[key] + AHEAD, self._most(key))
                        await self._book()
                        self._tell([key])
                else:
                    sequence = self._waiting.popleft()
                    self._grant(sequence)
                    await self._book()
                    self._tell([key for key in self._granted if key[0] == sequence])
        except SwitchyardError as failure:
            if self._stream is not None:
                self._stream.abort(failure)

    async def _book(self) -> None:
        """Reserve what the rows take now, waiting for it if need be."""
        held = sorted((self._nbytes(key) for key in self._granted), reverse=True)
        more = sum(held[: self._lease.rows]) - self._booked
        if more <= 0 or self._stream is None:
            return
        with self._meter.waiting():
            back = await self._lease.grow(more, self._stream.put_back)
        self._booked += more
        if back:
            self._tell(list(self._granted))

    def _may_start(self) -> bool:
        """Whether the next prompt that waits has its turn: it takes what others left, or nobody else is there."""
        if not self._waiting:
            return False
        held = sorted((*map(self._nbytes, self._granted), *self._first(self._waiting[0])), reverse=True)
        return not self._granted or sum(held[: self._lease.rows]) <= self._booked

    def _tell(self, keys: list[Key]) -> None:
        for key in keys:
            if self._stream is not None and key in self._granted:
                self._stream.grant(*key, self._granted[key])

    def _grant(self, sequence: int) -> None:
        asked = self._sequences[sequence]
        self._granted |= {(sequence, row): min(asked.max_tokens, AHEAD) for row in range(asked.rows)}

    def _first(self, sequence: int) -> list[int]:
        """Bytes of each of its rows at the beginning."""
        asked = self._sequences[sequence]
        return [self._law.nbytes(len(asked.prompt) + min(asked.max_tokens, AHEAD))] * asked.rows

    def _nbytes(self, key: Key) -> int:
        return self._law.nbytes(len(self._sequences[key[0]].prompt) + self._granted[key])

    def _most(self, key: Key) -> int:
        return self._sequences[key[0]].max_tokens
