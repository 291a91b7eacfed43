"""Attention that goes both ways, within bounded memory."""

from __future__ import annotations

import mlx.core as mx

BLOCK = 512
"""Queries whose scores a CPU holds at once: there the fused kernel of the devices is missing."""


def attend(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array, *, scale: float) -> mx.array:
    """``[rows, heads, tokens, width]`` each; ``mask`` is true where a key is seen, one row of it or one per query."""
    tokens = queries.shape[2]
    if tokens <= BLOCK or mx.default_device() != mx.Device(mx.cpu):
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)
    blocks = []
    for at in range(0, tokens, BLOCK):
        some = mask if mask.shape[2] == 1 else mask[:, :, at : at + BLOCK]
        blocks.append(
            mx.fast.scaled_dot_product_attention(queries[:, :, at : at + BLOCK], keys, values, scale=scale, mask=some)
        )
    return mx.concatenate(blocks, axis=2)
