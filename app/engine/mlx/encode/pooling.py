"""From the vectors of a text's tokens to the vector of the text."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
from mlx import nn

from app.engine.kind import Pooling
from app.engine.mlx.encode.recipe import Activation

ACTIVATIONS = {"Identity": lambda x: x, "Tanh": mx.tanh, "ReLU": nn.relu, "GELU": nn.gelu, "Sigmoid": mx.sigmoid}
LEAST = 1e-12
"""What a vector's length counts as at least when it is divided by it."""


class Dense(nn.Module):
    """A matrix behind the pooling; its tensors are ``linear.weight`` and ``linear.bias``."""

    def __init__(self, wide: int, narrow: int, *, bias: bool, activation: Activation) -> None:
        super().__init__()
        self.linear = nn.Linear(wide, narrow, bias=bias)
        self._activation = ACTIVATIONS[activation]

    def __call__(self, x: mx.array) -> mx.array:
        """``[rows, narrow]``."""
        return self._activation(self.linear(x))


def pooled(hidden: mx.array, lengths: mx.array, skipped: mx.array, modes: Sequence[Pooling]) -> mx.array:
    """``[rows, width * modes]`` of ``[rows, tokens, width]``, in 32 bits.

    A row has ``lengths`` tokens, the first ``skipped`` of which are a prompt that is not pooled; the rest is padding.
    """
    hidden = hidden.astype(mx.float32)
    places = mx.arange(hidden.shape[1])[None]
    real = ((places >= skipped[:, None]) & (places < lengths[:, None]))[..., None]
    return mx.concatenate([_pooled(hidden, lengths, real, mode) for mode in modes], axis=1)


def _pooled(hidden: mx.array, lengths: mx.array, real: mx.array, mode: Pooling) -> mx.array:
    if mode == "cls":
        return hidden[:, 0]
    if mode == "lasttoken":
        return hidden[mx.arange(hidden.shape[0]), lengths - 1]
    if mode == "max":
        return mx.max(mx.where(real, hidden, -mx.inf), axis=1)
    weights = real.astype(mx.float32)
    if mode == "weightedmean":
        weights = weights * mx.arange(1, hidden.shape[1] + 1, dtype=mx.float32)[None, :, None]
    total = mx.sum(mx.where(real, hidden, 0.0) * weights, axis=1)
    count = mx.sum(weights, axis=1)
    return total / (mx.sqrt(count) if mode == "mean_sqrt_len" else count)


def normalised(vectors: mx.array) -> mx.array:
    """Each of length 1."""
    return vectors / mx.maximum(mx.linalg.norm(vectors, axis=-1, keepdims=True), LEAST)
