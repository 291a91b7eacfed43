"""The masks of all rows that are held to something, in one operation."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from app.engine.mlx.guide.compiler import Mask
from app.engine.mlx.rows import Row

LEAST = -1e30
"""What an allowed token's logit is raised to if a bias or ``min_tokens`` has banned it: it stays the last resort."""

Allowed = NDArray[np.bool_]


def held(rows: Sequence[Row]) -> list[tuple[int, Mask]]:
    """The rows, by their index, that may not say everything next, and what they may say.

    Called while the device computes the step's logits: only that the tokens before are read must be over.
    """
    masks = [(i, row.guide.mask()) for i, row in enumerate(rows) if row.guide is not None and not row.done]
    return [(i, mask) for i, mask in masks if mask is not None]


def on_device(logits: mx.array, masks: list[tuple[int, Mask]]) -> mx.array:
    """``logits``, ``[rows, vocabulary]``, with what may not come at minus infinity; the other rows as they were."""
    if not masks:
        return logits
    index = mx.array([i for i, _ in masks])
    words = mx.array(np.stack([mask for _, mask in masks]).view(np.uint32))
    bits = (words[:, :, None] >> mx.arange(32, dtype=mx.uint32)) & 1
    allowed = bits.reshape(len(masks), -1)[:, : logits.shape[-1]].astype(mx.bool_)
    logits = mx.array(logits)
    logits[index] = mx.where(allowed, mx.maximum(logits[index], LEAST), -float("inf"))
    return logits


def unpacked(mask: Mask, vocabulary: int) -> Allowed:
    """Whether each token may come, ``[vocabulary]``."""
    allowed: Allowed = np.unpackbits(mask.view(np.uint8), bitorder="little")[:vocabulary].view(np.bool_)
    return allowed
