"""The KV cache that a request has reserved, choice by choice."""

from app.engine.base import Lease, Sequence
from app.generation.meter import Meter

AHEAD = 1024
"""Tokens reserved at a time for a choice."""
LEFT = 256
"""With fewer left of them, the next ones are asked for."""

Key = tuple[int, int]
"""A sequence's number and a row's."""


class Reservation:
    """A first part of what each choice may grow to, and more as it grows: limits are far above most answers.

    ``lease`` gives everything back when it ends.
    """

    def __init__(self, lease: Lease, sequences: tuple[Sequence, ...], meter: Meter) -> None:
        self._lease = lease
        self._meter = meter
        self._most = {(s, row): it.max_tokens for s, it in enumerate(sequences) for row in range(it.rows)}
        self._prompts = sum(it.rows * len(it.prompt) for it in sequences)
        self._reserved = {key: min(most, AHEAD) for key, most in self._most.items()}

    async def begin(self) -> None:
        """Reserve what is needed to start; raises as :meth:`app.engine.base.Lease.admit` does."""
        await self._lease.admit(self._prompts + sum(self._reserved.values()))

    async def cover(self, key: Key, tokens: int) -> None:
        """Have room for a choice of ``tokens`` tokens and some more, waiting for it if need be; raises likewise."""
        reserved, most = self._reserved[key], self._most[key]
        if reserved < most and tokens > reserved - LEFT:
            more = min(AHEAD, most - reserved)
            with self._meter.waiting():
                await self._lease.admit(more)
            self._reserved[key] = reserved + more
