"""The next token of every row in one vectorised step.

The distribution is defined in :class:`app.schemas.sampling.Sampling`. Each row draws one uniform number at a time
from its own generator and inverts the cumulative distribution with it, so a row's text depends on its seed and its
logits alone, never on what runs beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import mlx.core as mx

from app.engine.mlx import draw_device, draw_host, guidance
from app.engine.mlx.penalties import Penalties
from app.engine.mlx.rows import Row

BANNED = -float("inf")
FORCED = 1e4
"""Added for a bias of 100: far above any logit, yet fine enough in float32 to keep forced tokens' order."""

Draw = Callable[[mx.array, Sequence[Row]], mx.array]


class Sampler:
    """Draws for a fixed set of rows; made anew when rows come or go. MLX thread only."""

    def __init__(self, rows: Sequence[Row], previous: Sampler | None = None) -> None:
        self.rows = rows
        self._bias = _bias(rows)
        self._penalties = Penalties.build(rows, previous.penalties if previous is not None else None)
        self._sampled = [i for i, row in enumerate(rows) if row.request.sampling.temperature > 0]
        self._guided = [i for i, row in enumerate(rows) if row.guide is not None]
        self.on_host: list[int] = []
        """The rows that numpy draws for, which on a CPU is faster than MLX; they wait for the logits."""
        if mx.default_device() == mx.Device(mx.cpu):
            self.on_host = sorted({*self._sampled, *self._guided})
        self.in_step = bool(self.on_host or self._guided)
        """Whether the tokens before must be read before :meth:`draw` is called: what guided rows may say depends on
        them, and for rows on the host :meth:`draw` waits for the logits anyway.
        """

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
        masks = guidance.held(self.rows) if self._guided else []
        if self.on_host:
            by_row = {self.rows[i]: mask for i, mask in masks}
            tokens = self._draw(logits, self.on_host, partial(draw_host.draw, masks=by_row))
        else:
            tokens = self._draw(guidance.on_device(logits, masks), self._sampled, draw_device.draw)
        if self._penalties is not None:
            self._penalties.count(tokens)
        return tokens

    def _draw(self, logits: mx.array, places: list[int], draw: Draw) -> mx.array:
        """By ``draw`` for the rows at ``places``, the likeliest token for the others."""
        if len(places) == len(self.rows):
            return draw(logits, self.rows)
        tokens = mx.argmax(logits, axis=-1)
        if places:
            index = mx.array(places)
            tokens[index] = draw(logits[index], [self.rows[i] for i in places])
        return tokens

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
