"""One decode step on its way: the rows it is for, and the tokens that come of its logits.

The distribution is defined in :class:`app.schemas.sampling.Sampling`. Each row draws one uniform number at a time
from its own generator and inverts the cumulative distribution with it, so a row's text depends on its seed and its
logits alone, never on what runs beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import mlx.core as mx
import numpy as np

from app.engine.mlx.draw import device as draw_device
from app.engine.mlx.draw import host as draw_host
from app.engine.mlx.draw.compiled import proposer
from app.engine.mlx.draw.logprobs import RowScores, Score
from app.engine.mlx.guide import guidance
from app.engine.mlx.rows import Row


class Step(Protocol):
    """``tokens``, ``[rows]`` uint32, is what the next step's graph is built on; their values may come later."""

    rows: Sequence[Row]
    tokens: mx.array

    def read(self) -> tuple[list[int], dict[int, Score]]:
        """Wait for the tokens, and for the scores of the rows that asked for them, by the row's place."""


class DeviceStep:
    """Draws on the device, as a part of the queued graph: for Metal and CUDA.

    The next step is queued before this one is read. ``logits``, ``[rows, vocabulary]``, are the model's own and
    ``processed`` what is drawn from; the tokens before must have been read if a row is guided.
    """

    def __init__(self, rows: Sequence[Row], logits: mx.array, processed: mx.array) -> None:
        self.rows = rows
        self.tokens = draw_device.draw(guidance.on_device(processed, guidance.held(rows)), rows)
        self._scores = RowScores(rows, logits, self.tokens)
        mx.async_eval(self.tokens, *self._scores.arrays)

    def read(self) -> tuple[list[int], dict[int, Score]]:
        """Wait for the device."""
        tokens: list[int] = self.tokens.tolist()
        return tokens, self._scores.read()


class HostStep:
    """Draws on the host as soon as the logits are there: for the CPU, where MLX takes many times longer for it.

    The tokens are a buffer that :meth:`read` fills: the next step's graph is built on it while this one's logits are
    computed, and queued when it is full.
    """

    def __init__(self, rows: Sequence[Row], logits: mx.array, processed: mx.array) -> None:
        self.rows = rows
        self.tokens = mx.array([0] * len(rows), dtype=mx.uint32)
        self._logits, self._processed = logits, processed
        mx.async_eval(processed)

    def read(self) -> tuple[list[int], dict[int, Score]]:
        """Draw; what guided rows may say is worked out while the logits are still computed."""
        masks = {self.rows[i]: mask for i, mask in guidance.held(self.rows)}
        tokens = draw_host.draw(self._processed, self.rows, masks)
        np.asarray(self.tokens)[:] = tokens
        return tokens.tolist(), RowScores(self.rows, self._logits, self.tokens).read()


def step_type() -> type[HostStep | DeviceStep]:
    """How tokens are drawn on this machine."""
    return HostStep if mx.default_device() == mx.Device(mx.cpu) else DeviceStep


def prepare() -> None:
    """Get ready what drawing needs on this machine; once, for some tenths of a second."""
    if step_type() is HostStep:
        proposer()
