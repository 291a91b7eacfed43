"""What streams are owed of what a batch made, and when they are told."""

from __future__ import annotations

import time
from functools import partial

from app.engine.base import Prefilled, Token
from app.engine.mlx.batch.stream import MLXTokenStream
from app.engine.mlx.batch.thread import MLXThread
from app.engine.mlx.rows import Row

TELLING_SECONDS = 0.001
"""What each stream adds to the time between two tellings. To tell one of a token takes the event loop about 50 us, in
which no graph can be built, so many streams of a fast model are told of two tokens at once rather than slowed down.
"""
LONGEST_SILENCE = 0.04
"""The most that this adds up to, in seconds: text still flows."""

Owed = dict[MLXTokenStream, tuple[list[Prefilled | Token], list[Row]]]


class Outgoing:
    """Gathers what is reported and hands it to the event loop, for all streams at once. MLX thread only."""

    def __init__(self, thread: MLXThread) -> None:
        self._thread = thread
        self._owed: Owed = {}
        self._handed_over = 0.0
        self._urgent = False

    def prefilled(self, stream: MLXTokenStream, item: Prefilled, ended: list[Row]) -> None:
        """A prompt is computed, which is all that the rows ``ended`` were for."""
        self._add(stream, item, ended)

    def token(self, row: Row, token: Token) -> None:
        """A row's next token; its first and its last cannot wait."""
        self._urgent |= len(row.said) == 1
        self._add(row.stream, token, [row] if token.finish else [])

    def tell(self, *, stalling: bool) -> None:
        """Hand over what was reported, unless it can wait; before what will keep the streams ``stalling`` it cannot.

        At once: what is queued next may keep this thread for the rest of the step.
        """
        silence = 0.0 if stalling else min(TELLING_SECONDS * len(self._owed), LONGEST_SILENCE)
        if self._urgent or time.perf_counter() - self._handed_over > silence:
            self.flush()
            self._thread.flush()

    def flush(self) -> None:
        """Hand it over with whatever the thread notifies next."""
        if self._owed:
            owed, self._owed = self._owed, {}
            self._handed_over, self._urgent = time.perf_counter(), False
            self._thread.notify(partial(_deliver, owed))

    def _add(self, stream: MLXTokenStream, item: Prefilled | Token, ended: list[Row]) -> None:
        items, finished = self._owed.setdefault(stream, ([], []))
        items.append(item)
        finished += ended
        self._urgent |= bool(ended)


def _deliver(owed: Owed) -> None:
    for stream, (items, ended) in owed.items():
        stream.deliver(items, ended)
