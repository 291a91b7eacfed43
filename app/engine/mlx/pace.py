"""How much of a prompt is computed between two decode steps."""

from __future__ import annotations

LONE_SLICE = 2048
"""Prompt tokens computed at once while nothing decodes."""
SHORTEST_SLICE = 16
SLICE_SECONDS = 0.05
STEPS = 1.5
"""A slice may take ``SLICE_SECONDS`` or as long as this many decode steps, whichever is longer."""


class Pace:
    """Measures prefill and decode, and sizes the next slice so that running streams hardly notice it.

    ``most`` bounds the tokens of a slice while rows decode. A lone slice's time per token is close to the best; short
    slices read all weights for few tokens, so the measure follows the latest one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seconds_per_token = 0.0
        self._step_seconds = 0.0

    def prefilled(self, tokens: int, seconds: float) -> None:
        """A slice of ``tokens`` took ``seconds``."""
        if tokens:
            self._seconds_per_token = seconds / tokens

    def decoded(self, seconds: float) -> None:
        """A decode step of all rows, with no slice beside it, took ``seconds``."""
        self._step_seconds = seconds if not self._step_seconds else 0.8 * self._step_seconds + 0.2 * seconds

    def slice(self, *, decoding: bool) -> int:
        """Tokens for the next slice."""
        if not decoding:
            return LONE_SLICE
        if not self._seconds_per_token:
            return self._most // 8
        room = max(SLICE_SECONDS, STEPS * self._step_seconds)
        return max(SHORTEST_SLICE, min(self._most, int(room / self._seconds_per_token)))
