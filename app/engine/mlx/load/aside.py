"""Evaluation beside running streams: arrays are computed on a stream of their own while decoding goes on."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import mlx.core as mx

AT_ONCE = 4
"""Arrays handed over together: MLX makes who hands over more than some ten operations wait for them."""
POLL_SECONDS = 0.001
"""What one look at whether they are done may take away from running streams."""


class Aside:
    """A stream for loading. MLX thread only, but for the wait."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._waiting = ThreadPoolExecutor(1, "mlx-aside")

    @property
    def stream(self) -> Any:
        """For ``with mx.stream(...)`` around what builds the arrays, within one step."""
        if self._stream is None:
            self._stream = mx.new_stream(mx.default_device())
        return self._stream

    def evaluate(self, arrays: Sequence[Any]) -> Generator[None, None, None]:
        """Make arrays that were built on the stream real, a few at a time."""
        for first in range(0, len(arrays), AT_ONCE):
            some = list(arrays[first : first + AT_ONCE])
            mx.async_eval(some)
            done = Event()
            self._waiting.submit(self._wait, done)
            while not done.wait(POLL_SECONDS):
                yield
            mx.eval(some)

    def _wait(self, done: Event) -> None:
        try:
            mx.synchronize(self._stream)
        finally:
            done.set()
