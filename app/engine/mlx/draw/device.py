"""Exact sampling on the device, for Metal and CUDA: no sort, no host read, a fixed number of operations.

In one kernel where that is found to do (:mod:`app.engine.mlx.draw.kernel`), else as a graph. There ``top_p`` and
``top_k`` keep the likeliest tokens, that is all logits above some cut. The cut is found by bisection on the logit's
value, all rows at once, each step one masked sum over ``[rows, vocabulary]``; a draw then inverts the cumulative
distribution in two levels. Tokens whose scaled logits differ by less than ``SPAN / 2**STEPS`` (1e-6, the rounding of
float32 logits themselves) are cut or kept together.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from app.engine.mlx.draw.kernel import Wish, asked, kernel
from app.engine.mlx.draw.proposal import Floats
from app.engine.mlx.rows import Row

SPAN = 64.0
"""Scaled logits this far below the maximum weigh e**-64 and are not searched."""
STEPS = 26
BLOCK = 256
"""Tokens summed together, so that a draw looks through ``vocabulary / BLOCK + BLOCK`` numbers."""


def draw(logits: mx.array, rows: Sequence[Row]) -> tuple[mx.array, mx.array]:
    """One token per row, ``[rows]`` uint32, from ``[rows, vocabulary]`` logits, and which rows' are no numbers, bool.

    Their tokens are 0, and so is that of a row in which every token is banned. Nothing is evaluated here.
    """
    wishes = asked([_wish(row) for row in rows])
    draws = (kernel() if np.any(wishes[:, 0]) else None) or by_graph  # a lone argmax is faster still
    return draws(logits, wishes)


def _wish(row: Row) -> Wish:
    sampling = row.request.sampling
    return Wish(sampling, row.random.random() if sampling.temperature else 0.0)


def by_graph(logits: mx.array, wishes: Floats) -> tuple[mx.array, mx.array]:
    """The same from operations that every device has; ``wishes`` are what :func:`asked` makes of the rows."""
    top = mx.max(logits, axis=-1)
    failed = mx.any(mx.isnan(logits), axis=-1) | (top == mx.inf)
    sampled = np.flatnonzero(wishes[:, 0])
    if sampled.size == len(wishes):
        tokens = _sample(logits, wishes)
    else:
        tokens = mx.argmax(logits, axis=-1)
        if sampled.size:
            index = mx.array(sampled)
            tokens[index] = _sample(logits[index], wishes[sampled])
    usable = mx.isfinite(top) & ~failed
    return mx.where(usable, mx.minimum(tokens, logits.shape[-1] - 1), 0).astype(mx.uint32), failed


def _sample(logits: mx.array, wishes: Floats) -> mx.array:
    _, top_p, min_p, top_k, _ = wishes.T
    cuts_mass = bool(np.any(np.isfinite(top_p)) or np.any(min_p))
    columns = mx.array(wishes)
    return _draw(
        logits,
        temperature=columns[:, 0:1],
        top_p=columns[:, 1:2] if cuts_mass else None,
        min_p=columns[:, 2:3],
        top_k=columns[:, 3:4] if np.any(np.isfinite(top_k)) else None,
        uniform=columns[:, 4:5],
    )


def _draw(
    logits: mx.array,
    *,
    temperature: mx.array,
    top_p: mx.array | None,
    min_p: mx.array,
    top_k: mx.array | None,
    uniform: mx.array,
) -> mx.array:
    """All parameters are ``[rows, 1]``; infinity means no cut in that row, None none in any.

    It is not compiled: fused, it becomes kernels that CUDA takes minutes to build.
    """
    scaled = logits / temperature
    scaled = scaled - mx.max(scaled, axis=-1, keepdims=True)
    weights = mx.exp(scaled)
    cut = mx.full(temperature.shape, -float("inf"))
    if top_p is not None:
        wanted = mx.maximum(top_p * mx.sum(weights, axis=-1, keepdims=True), 1e-30)
        cut = mx.maximum(_cut(scaled, weights, wanted), mx.log(min_p))
    if top_k is not None:
        cut = mx.maximum(cut, _cut(scaled, mx.ones_like(weights), top_k))
    return _invert(mx.where(scaled >= cut, weights, 0), uniform)


def _cut(scaled: mx.array, measure: mx.array, wanted: mx.array) -> mx.array:
    """The highest logit, ``[rows, 1]``, at and above which ``measure`` adds up to ``wanted``."""
    low, high = mx.full(wanted.shape, -SPAN), mx.full(wanted.shape, SPAN / 2**STEPS)
    for _ in range(STEPS):
        middle = (low + high) / 2
        enough = mx.sum(mx.where(scaled >= middle, measure, 0), axis=-1, keepdims=True) >= wanted
        low, high = mx.where(enough, middle, low), mx.where(enough, high, middle)
    return mx.where(low <= -SPAN, -float("inf"), low)


def _invert(weights: mx.array, uniform: mx.array) -> mx.array:
    """The index in each row at which the cumulative sum passes ``uniform`` (``[rows, 1]``) of the whole."""
    rows, vocabulary = weights.shape
    blocks = mx.pad(weights, [(0, 0), (0, -vocabulary % BLOCK)]).reshape(rows, -1, BLOCK)
    edges = mx.cumsum(mx.sum(blocks, axis=-1), axis=-1)
    target = uniform * edges[:, -1:]
    block = _first_above(edges, target)
    start = mx.where(block > 0, mx.take_along_axis(edges, mx.maximum(block, 1) - 1, axis=-1), 0)
    inner = mx.cumsum(mx.take_along_axis(blocks, block[:, :, None], axis=1)[:, 0], axis=-1)
    place = _first_above(inner, target - start)
    return (block * BLOCK + place)[:, 0].astype(mx.uint32)


def _first_above(cumulative: mx.array, target: mx.array) -> mx.array:
    """The first index, ``[rows, 1]``, whose cumulative sum is above ``target``; rounding never leads past the mass."""
    last = cumulative[:, -1:]
    target = mx.minimum(target, last * (1 - 2**-23))
    return mx.sum(cumulative <= target, axis=-1, keepdims=True).astype(mx.int32)
