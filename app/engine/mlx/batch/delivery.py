"""What a batch has made and its streams have not been given yet, and when they are."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from functools import partial

from app.engine.base import Found, Item, Prefilled, Token
from app.engine.mailbox import Mailbox
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.rows import Row, Waiting
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

    def grant(self, sequence: int, row: int, tokens: int) -> None:
        """Let one row have so many tokens; its batch has to be told that there is something to do."""
        granted = self.running.get((sequence, row))
        if granted is not None:
            granted.granted = tokens

    def close(self) -> None:
        """End every row."""
        for sequence, row in tuple(self.running):
            self.cancel(sequence, row)

    def deliver(self, items: list[Item], ended: list[Row]) -> None:
        """Take what one step made; the rows ``ended`` had their last token in it."""
        for row in ended:
            self.running.pop((row.sequence, row.index), None)
        self.take(items)

    @abstractmethod
    def take(self, items: list[Item]) -> None:
        """Hand on what one step made."""

    @abstractmethod
    def fail(self, failure: SwitchyardError) -> None:
        """Tell ``failure`` after what was delivered before."""


class MLXTokenStream(RowStream):
    """Read in this process, as :class:`app.engine.base.TokenStream` is."""

    def __init__(self) -> None:
        super().__init__()
        self._mailbox = Mailbox()

    def __aiter__(self) -> AsyncIterator[list[Item]]:
        """Iterate once."""
        return self

    async def __anext__(self) -> list[Item]:
        """Everything that has come; waits until there is something."""
        while not (items := self._mailbox.take()):
            if not self.running:
                raise StopAsyncIteration
            await self._mailbox.changed()
        return items

    def take(self, items: list[Item]) -> None:
        """Keep it for the reader."""
        self._mailbox.put(items)

    def fail(self, failure: SwitchyardError) -> None:
        """Raise it to the reader."""
        self._mailbox.fail(failure)


MESSAGE_SECONDS, STREAM_SECONDS = 0.003, 0.001
"""The least time between two deliveries, and what each stream adds to it. A message takes both processes some 300 us,
a token the service 50, so streams of a fast model are given two tokens at once rather than slowed down.
"""
LONGEST_WAIT = 0.04
"""The most that this adds up to, in seconds: text still flows."""


class _Parcel:
    """What one stream is given: tokens with their rows, prompts with their sequences, and the rows that have ended."""

    __slots__ = ("ended", "items")

    def __init__(self) -> None:
        self.items: list[tuple[Row, Token] | tuple[Waiting, Found | Prefilled]] = []
        self.ended: list[Row] = []


class Delivery:
    """Gathers what is reported and hands it to the event loop, for all streams at once. MLX thread only."""

    def __init__(self, thread: MLXThread) -> None:
        self._thread = thread
        self._parcels: dict[RowStream, _Parcel] = {}
        self._delivered_at = 0.0
        self._urgent = self._tokens = False

    def found(self, group: list[Waiting], cached: list[int]) -> None:
        """Hand over at once how much is known of prompts whose rest takes a while."""
        for waiting, known in zip(group, cached, strict=True):
            self._parcel(waiting.stream).items.append((waiting, Found(waiting.index, known)))
        self.flush()
        self._thread.flush()

    def prefilled(self, waiting: Waiting, event: Prefilled, ended: list[Row]) -> None:
        """A prompt is computed, which is all that the rows ``ended`` were for."""
        parcel = self._parcel(waiting.stream)
        parcel.items.append((waiting, event))
        parcel.ended += ended
        self._urgent |= bool(ended)

    def token(self, row: Row, token: Token) -> None:
        """A row's next token; its first and its last cannot wait."""
        parcel = self._parcel(row.stream)
        parcel.items.append((row, token))
        if token.finish is not None:
            parcel.ended.append(row)
        self._tokens = True
        self._urgent |= len(row.said) == 1 or token.finish is not None

    def deliver(self, *, stalling: bool) -> None:
        """Hand over what was reported, unless it can wait; before what will keep the streams ``stalling`` it cannot.

        At once: what is queued next may keep this thread for the rest of the step. Computed prompts alone can wait,
        since the first tokens behind them follow.
        """
        longest = min(MESSAGE_SECONDS + STREAM_SECONDS * len(self._parcels), LONGEST_WAIT)
        urgent = self._urgent
        if stalling or urgent or (self._tokens and time.perf_counter() - self._delivered_at > longest):
            self.flush()
            self._thread.flush(gives_way=urgent)

    def flush(self) -> None:
        """Hand it over with whatever the thread notifies next."""
        if self._parcels:
            parcels, self._parcels = self._parcels, {}
            self._delivered_at, self._urgent, self._tokens = time.perf_counter(), False, False
            self._thread.notify(partial(_deliver, parcels))

    def _parcel(self, stream: RowStream) -> _Parcel:
        parcel = self._parcels.get(stream)
        if parcel is None:
            parcel = self._parcels[stream] = _Parcel()
        return parcel


def _deliver(parcels: dict[RowStream, _Parcel]) -> None:
    for stream, parcel in parcels.items():
        stream.deliver([_spelt(whose, item) for whose, item in parcel.items], parcel.ended)


def _spelt(whose: Row | Waiting, item: Item) -> Item:
    if isinstance(item, Found):
        return item
    if isinstance(whose, Row) and isinstance(item, Token):
        return whose.spelling.spelt(item)
    if isinstance(whose, Waiting) and isinstance(item, Prefilled) and whose.spelling is not None:
        return whose.spelling.scored(item)
    raise TypeError(whose)
