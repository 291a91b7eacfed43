"""How much of a prompt is computed between two decode steps."""

from __future__ import annotations

LONE_SLICE = 2048
"""Prompt tokens computed at once while nothing decodes."""
SHORTEST_SLICE = 16
SLICE_SECONDS = 0.04
STEPS = 1.5
"""A slice may take ``SLICE_SECONDS`` or as long as this many decode steps, whichever is longer."""
FORGET = 1.02
"""What a remembered time grows by with every later one, so that a machine that has become slower is noticed."""


class Pace:
    """Measures prefill and decode, and sizes the next slice so that running streams hardly notice it.

    ``most`` bounds the tokens of a slice while rows decode. Where times are ``steady`` the latest slice says how long
    the next one takes: it lies as deep in the prompt. Where they are not, on CUDA, the best time of each size counts:
    the first slice of a new shape is spent on planning, which says nothing of the next.
    """

    def __init__(self, most: int, *, steady: bool) -> None:
        self._steady = steady
        self._sizes = [SHORTEST_SLICE << i for i in range(16) if SHORTEST_SLICE << i <= max(most, SHORTEST_SLICE)]
        self._best: dict[int, float] = {}
        self._step_seconds = 0.0

    def prefilled(self, tokens: int, seconds: float) -> None:
        """A slice of ``tokens`` took ``seconds``."""
        if tokens:
            size = max((size for size in self._sizes if size <= tokens), default=SHORTEST_SLICE)
            time = seconds * size / max(tokens, size)
            self._best = {} if self._steady else {known: best * FORGET for known, best in self._best.items()}
            self._best[size] = min(time, self._best.get(size, time))

    def decoded(self, seconds: float) -> None:
        """A decode step of all rows, with no slice beside it, took ``seconds``."""
        self._step_seconds = seconds if not self._step_seconds else 0.8 * self._step_seconds + 0.2 * seconds

    def slice(self, *, decoding: bool) -> int:
        """Tokens for the next slice, a power of two."""
        if not decoding:
            return LONE_SLICE
        room = max(SLICE_SECONDS, STEPS * self._step_seconds)
        return max((size for size in self._sizes if self._expected(size) <= room), default=SHORTEST_SLICE)

    def _expected(self, size: int) -> float:
        """The latest slice's time by tokens; else no longer than a larger slice took, or smaller ones in a row."""
        least = 0 if self._steady else 1
        return min((best * max(least, size / known) for known, best in self._best.items()), default=0.0)
