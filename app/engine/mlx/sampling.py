"""The next token of every row in one vectorised step.

The distribution is defined in :class:`app.schemas.sampling.Sampling`. Each row draws one uniform number at a time
from its own generator and inverts the cumulative distribution with it, so a row's text depends on its seed and its
logits alone, never on what runs beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from app.engine.mlx import draw_device, draw_host
from app.engine.mlx.penalties import Penalties
from app.engine.mlx.rows import Row

BANNED = -float("inf")
FORCED = 1e4
"""Added for a bias of 100: far above any logit, yet fine enough in float32 to keep forced tokens' order."""


class Sampler:
    """Draws for a fixed set of rows; made anew when rows come or go. MLX thread only."""

    def __init__(self, rows: Sequence[Row], previous: Sampler | None = None) -> None:
        self.rows = rows
        self._bias = _bias(rows)
        self._penalties = Penalties.build(rows, previous.penalties if previous is not None else None)
        self._sampled = [i for i, row in enumerate(rows) if row.request.sampling.temperature > 0]
        self._index = mx.array(self._sampled) if self._sampled else None
        self.on_host = bool(self._sampled) and mx.default_device() == mx.Device(mx.cpu)
        """Whether :meth:`draw` waits for the logits: on a CPU numpy draws faster than MLX can."""

    @property
    def penalties(self) -> Penalties | None:
        """The counts behind penalties, which move on to the next sampler with their rows."""
        return self._penalties

    def draw(self, logits: mx.array) -> mx.array:
        """The next tokens, ``[rows]`` uint32, from ``[rows, vocabulary]`` float32 logits."""
        if self._bias is not None:
            rows, ids, values = self._bias
            logits = logits.at[rows, ids].add(values)
        logits = self._mask_stops(logits)
        if self._penalties is not None:
            logits = self._penalties.apply(logits)
        if self._index is None:
            tokens = mx.argmax(logits, axis=-1)
        elif len(self._sampled) == len(self.rows):
            tokens = self._draw_sampled(logits)
        else:
            tokens = mx.argmax(logits, axis=-1)
            tokens[self._index] = self._draw_sampled(logits[self._index])
        if self._penalties is not None:
            self._penalties.count(tokens)
        return tokens

    def _draw_sampled(self, logits: mx.array) -> mx.array:
        rows = [self.rows[i] for i in self._sampled]
        if self.on_host:
            return draw_host.draw(logits, rows)
        return draw_device.draw(logits, rows)

    def _mask_stops(self, logits: mx.array) -> mx.array:
        """Ban the stop tokens of rows that must still grow."""
        held = [
            (i, stop)
            for i, row in enumerate(self.rows)
            if row.queued < row.request.min_tokens
            for stop in row.request.stop_ids
        ]
        if not held:
            return logits
        rows, ids = zip(*held, strict=True)
        return logits.at[mx.array(rows), mx.array(ids)].add(BANNED)


def _bias(rows: Sequence[Row]) -> tuple[mx.array, mx.array, mx.array] | None:
    """All rows' logit biases as (row, token id, value) columns."""
    entries = [
        (i, token, BANNED if value <= -100 else FORCED if value >= 100 else value)
        for i, row in enumerate(rows)
        for token, value in row.request.sampling.logit_bias
    ]
    if not entries:
        return None
    index, ids, values = zip(*entries, strict=True)
    return mx.array(index), mx.array(ids), mx.array(values, dtype=mx.float32)
