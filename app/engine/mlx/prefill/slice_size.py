"""How much of a prompt is computed between two decode steps."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

LONE_SLICE = 2048
"""Prompt tokens computed at once while nothing decodes, if that takes no more than ``LONE_SECONDS``: somebody else may
come, or this one may leave.
"""
LONE_SECONDS = 0.5
FIRST_SLICE = 256
"""Where times are steady and none is known yet."""
SHORTEST_SLICE = 16
SLICE_SECONDS = 0.04
STEPS = 1.5
"""A slice may take ``SLICE_SECONDS`` or as long as this many decode steps, whichever is longer."""
MOST_FIXED = 0.75
"""Of the time of a slice, what at most is taken for the part that does not grow with its tokens."""
FORGET = 1.02
"""What a remembered time grows by with every later one, so that a machine that has become slower is noticed."""
BOLD = 4
"""How many times the largest size known may be tried where that one fits; larger ones are counted by their tokens."""
PLANS = 256
"""Shapes that are remembered as planned."""


class Slice(NamedTuple):
    """The shape of a piece of prefill: ``positions`` of each of ``rows``, behind ``before`` that were filled."""

    rows: int
    before: int
    positions: int

    @property
    def tokens(self) -> int:
        """How much was computed."""
        return self.rows * self.positions


class SliceSize:
    """Measures prefill and decode, and sizes the next slice so that running streams hardly notice it.

    ``most`` bounds the tokens of a slice while rows decode. Where times are ``steady`` the latest slice says how long
    the next one takes, which lies as deep in the prompt: by its tokens, but for what a step of few rows takes as well.
    Where they are not, on CUDA, the best time of each size counts, and the first slice of a shape does not: it is spent
    on planning, which says nothing of the next. There a larger slice hardly takes longer until it fills the device.
    """

    def __init__(self, most: int, *, steady: bool) -> None:
        self._steady = steady
        self._most = max(most, SHORTEST_SLICE)
        self._sizes = [SHORTEST_SLICE << i for i in range(16) if SHORTEST_SLICE << i <= max(self._most, LONE_SLICE)]
        self._lone = LONE_SLICE
        self._best: dict[int, float] = {}
        self._step_seconds = self._least = 0.0
        self._planned: deque[Slice] = deque(maxlen=PLANS)

    def prefilled(self, piece: Slice, seconds: float) -> None:
        """A slice took ``seconds``."""
        if self._steady:
            self._best = {piece.tokens: seconds} if piece.tokens else self._best
        elif piece not in self._planned:
            self._planned.append(piece)
        elif piece.tokens:
            size = max((size for size in self._sizes if size <= piece.tokens), default=SHORTEST_SLICE)
            time = seconds * size / max(piece.tokens, size)
            self._best = {known: best * FORGET for known, best in self._best.items()}
            self._best[size] = min(time, self._best.get(size, time))

    def gave_up(self, tokens: int) -> None:
        """The device gave up on so many: slices are an eighth of the longest, half of this one at most, ever after."""
        self._lone = max(SHORTEST_SLICE, min(self._lone // 8, tokens // 2))
        self._sizes = [size for size in self._sizes if size <= self._lone] or [SHORTEST_SLICE]
        self._best = {}

    def decoded(self, seconds: float) -> None:
        """A decode step of all rows, with no slice beside it, took ``seconds``."""
        self._step_seconds = seconds if not self._step_seconds else 0.8 * self._step_seconds + 0.2 * seconds
        self._least = min(seconds, FORGET * self._least) if self._least else seconds

    def tokens(self, *, decoding: bool) -> int:
        """Tokens for the next slice, a power of two."""
        room = max(SLICE_SECONDS, STEPS * self._step_seconds) if decoding else LONE_SECONDS
        most = self._most if decoding else self._lone
        if self._steady and not self._best:
            most = min(most, FIRST_SLICE)
        sizes = [size for size in self._sizes if size <= most]
        return max((size for size in sizes if self._expected(size) <= room), default=SHORTEST_SLICE)

    def _expected(self, size: int) -> float:
        """By the latest slice where times are steady; else as long as a larger slice took, or smaller ones in a row."""
        if self._steady or not self._best:
            return next((self._longer(time, size / known) for known, time in self._best.items()), 0.0)
        largest = max(self._best)
        if largest < size <= BOLD * largest:
            return self._best[largest]
        return min(best * max(1, size / known) for known, best in self._best.items())

    def _longer(self, seconds: float, times: float) -> float:
        """How long a slice of so many ``times`` the tokens takes."""
        fixed = min(self._least, MOST_FIXED * seconds)
        return fixed + times * (seconds - fixed)
