"""Attention that goes both ways, within bounded memory."""

from __future__ import annotations

import mlx.core as mx

from app.engine.mlx.cache import cpu_slices


def attend(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array, *, scale: float) -> mx.array:
    """``[rows, heads, tokens, width]`` each; ``mask`` is true where a key is seen, one row of it or one per query."""
    if cpu_slices.suits(queries, keys, mask):
        return cpu_slices.attend(queries, keys, values, scale, mask)
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
