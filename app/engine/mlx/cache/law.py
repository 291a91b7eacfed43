"""What a model's rows hold for their tokens, learnt by asking the model's own caches."""

from __future__ import annotations

import copy
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, RotatingKVCache

from app.engine.facts import Law
from app.engine.mlx.cache.arrangement import SPARE, STEP
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.layers import parts

SLICE = 512
"""Most positions that a window holds beyond its own while a prompt is computed: those of the latest slice."""
FAR = 1 << 18
"""Tokens after which a cache that has not grown so far has an end."""
RAISED = (ValueError, TypeError, AttributeError, LookupError, RuntimeError, NotImplementedError)
"""What caches raise that take something else than keys and values."""


def law_of(kv: KV) -> Law:
    """The law of a model of which ``kv``, one row of a few tokens, is what its layers hold. MLX thread.

    Shapes are asked for, nothing is computed: each layer's cache is given keys and values for very many tokens that are
    never made.
    """
    row = token = 0
    windows: dict[int, int] = {}
    for cache in parts(kv.layers):
        keys, values = getattr(cache, "keys", None), getattr(cache, "values", None)
        if isinstance(cache, ArraysCache) or not (isinstance(keys, mx.array) and isinstance(values, mx.array)):
            row += int(cache.nbytes)
            if not isinstance(cache, ArraysCache):
                token += -(-int(cache.nbytes) // STEP)
            continue
        each = (keys.nbytes + values.nbytes) // keys.shape[2]
        most = _most(cache, keys, values)
        if most is None:
            token += each
        else:
            windows[most] = windows.get(most, 0) + each
    return Law(row, token, tuple((each, most + SLICE) for most, each in windows.items()), SPARE, STEP + STEP // 2)


def has_windows(kv: KV) -> bool:
    """Whether some layer looks back only so far, so that it holds the latest slice beside its window."""
    return any(isinstance(cache, RotatingKVCache) for cache in parts(kv.layers))


def _most(cache: Any, keys: mx.array, values: mx.array) -> int | None:
    """Positions that a cache holds at most; None: all."""
    asked = copy.deepcopy(cache)
    try:
        for tokens in (FAR, 1):
            asked.update_and_fetch(*(_zeros(it, tokens) for it in (keys, values)))
    except RAISED:
        return None
    held = int(asked.keys.shape[2])
    return held if held < FAR else None


def _zeros(like: mx.array, tokens: int) -> mx.array:
    rows, heads, _, size = like.shape
    return mx.zeros((rows, heads, tokens, size), like.dtype)
