"""What requests ask of the logits themselves, for all rows in one vectorised step.

What is meant by each field is said in :class:`app.schemas.sampling.Sampling`.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from app.engine.mlx.draw.penalties import Penalties
from app.engine.mlx.rows import Row

BANNED = -float("inf")
FORCED = 1e4
"""Added for a bias of 100: far above any logit, yet fine enough in float32 to keep forced tokens' order."""


class LogitsProcessor:
    """Biases, bans and penalties of a fixed set of rows; made anew when rows come or go. MLX thread only."""

    def __init__(self, rows: Sequence[Row], previous: LogitsProcessor | None = None) -> None:
        self._rows = rows
        self._bias = _bias(rows)
        self._penalties = Penalties.build(rows, previous.penalties if previous is not None else None)

    @property
    def penalties(self) -> Penalties | None:
        """The counts behind penalties, which move on to the next processor with their rows."""
        return self._penalties

    def process(self, logits: mx.array) -> mx.array:
        """Apply them to ``[rows, vocabulary]`` float32 logits; nothing is evaluated."""
        if self._bias is not None:
            rows, ids, values = self._bias
            logits = logits.at[rows, ids].add(values)
        logits = self._mask_stops(logits)
        return self._penalties.apply(logits) if self._penalties is not None else logits

    def count(self, tokens: mx.array) -> None:
        """Note the tokens drawn from what :meth:`process` returned, ``[rows]``; they may not be known yet."""
        if self._penalties is not None:
            self._penalties.count(tokens)

    def _mask_stops(self, logits: mx.array) -> mx.array:
        """Ban the stop tokens of rows that must still grow."""
        held = [
            (i, stop)
            for i, row in enumerate(self._rows)
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
