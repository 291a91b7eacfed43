"""Exact sampling with numpy, for the CPU backend.

MLX's exponential takes 24 ns an element on a CPU where numpy's takes 2, and a numpy view of CPU logits is free.

Truncation needs no sort: a token is drawn from the whole distribution and kept if it lies in the allowed set, which
asks only for the mass (top_p), the count (top_k) or the maximum (min_p) above it. The allowed set holds the likeliest
tokens, so a refused token also rules out every token that is not likelier, and the next draw is from what is left.
Conditioning a draw on being accepted gives exactly the truncated, renormalised distribution.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import nextafter
from types import MappingProxyType

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from app.engine.mlx import guidance
from app.engine.mlx.grammar import Mask
from app.engine.mlx.rows import ROW_FAILED, Row
from app.errors import EngineFailed
from app.schemas.sampling import Sampling

BLOCK = 256
"""Tokens summed together, so that a draw looks through ``vocabulary / BLOCK + BLOCK`` numbers."""

FEW = 4
"""Where less than one in ``FEW`` tokens is allowed, they are gathered first."""
HELPERS = min(3, (os.cpu_count() or 1) - 1)

Floats = NDArray[np.float32]
Tokens = NDArray[np.uint32]
NO_MASKS: Mapping[Row, Mask] = MappingProxyType({})


def draw(logits: mx.array, rows: Sequence[Row], masks: Mapping[Row, Mask] = NO_MASKS) -> Tokens:
    """One token per row, ``[rows]`` uint32, from ``[rows, vocabulary]`` logits. Waits for the logits."""
    values = np.asarray(logits)
    tokens = np.zeros(len(rows), dtype=np.uint32)

    def draw_some(places: Sequence[int]) -> None:
        weights = np.zeros((-(-values.shape[-1] // BLOCK), BLOCK), dtype=np.float32)
        for i in places:
            tokens[i] = _draw_for(values[i], weights, rows[i], masks.get(rows[i]))

    sampled = [i for i, row in enumerate(rows) if row.request.sampling.temperature]
    greedy = [i for i, row in enumerate(rows) if not row.request.sampling.temperature]  # done before a helper wakes up
    shares = max(1, min(1 + HELPERS, len(sampled)))
    helped = [_helpers().submit(draw_some, sampled[share::shares]) for share in range(1, shares)]
    draw_some(greedy + sampled[::shares])
    for share in helped:
        share.result()
    return tokens


@cache
def _helpers() -> ThreadPoolExecutor:
    """Threads that share the rows of a step with the one that asks: numpy lets go of the interpreter meanwhile."""
    return ThreadPoolExecutor(HELPERS, thread_name_prefix="draw")


def _draw_for(logits: Floats, weights: Floats, row: Row, mask: Mask | None) -> int:
    """A token for ``row``; what fails here, such as logits that are no numbers, ends that row."""
    try:
        return _draw_row(logits, weights, row, mask)
    except Exception:
        logging.getLogger(__name__).exception("a token could not be drawn")
        row.failure = EngineFailed("No token could be drawn for this answer; send it again.", code=ROW_FAILED)
        return 0


def _draw_row(logits: Floats, weights: Floats, row: Row, mask: Mask | None) -> int:
    """A token that ``mask`` allows; where it allows few, nothing is computed for the others."""
    if mask is None:
        return _draw_from(logits, weights, row)
    allowed = guidance.unpacked(mask, logits.shape[0])
    count = int(np.count_nonzero(allowed))
    if count * FEW > logits.shape[0]:
        held = np.where(allowed, logits, np.float32(-np.inf))
        if np.isneginf(held.max()):
            held[allowed] = guidance.LEAST
        return _draw_from(held, weights, row)
    places = np.flatnonzero(allowed)
    few = np.maximum(logits[places], np.float32(guidance.LEAST))
    return int(places[_draw_from(few, np.zeros((-(-count // BLOCK), BLOCK), dtype=np.float32), row)])


def _draw_from(logits: Floats, weights: Floats, row: Row) -> int:
    """``weights`` is room for the row's weights, ``[blocks, BLOCK]``, zero behind the vocabulary."""
    sampling = row.request.sampling
    likeliest = int(logits.argmax())
    top = logits[likeliest]
    if np.isnan(top) or np.isposinf(top):
        raise ArithmeticError("The logits are no numbers.")
    if not sampling.temperature or np.isneginf(top):  # the second: biases have banned every token
        return likeliest
    live = weights.reshape(-1)[: logits.shape[0]]
    np.subtract(logits, top, out=live)
    live *= np.float32(1 / sampling.temperature)
    np.exp(live, out=live)
    edges = _edges(weights)
    total = edges[-1]
    while True:
        token = _invert(weights, edges, row.random.random())
        weight = live[token]
        if _allowed(live, weight, total, sampling):
            return token
        live *= live > weight
        edges = _edges(weights)


def _edges(weights: Floats) -> NDArray[np.float64]:
    """The cumulative sum at the end of each block. No BLAS here: its threads would spin beside the model's."""
    sums: Floats = np.einsum("bt->b", weights)
    return sums.cumsum(dtype=np.float64)


def _invert(weights: Floats, edges: NDArray[np.float64], uniform: float) -> int:
    """The index at which the cumulative sum passes ``uniform`` of the whole; its weight is never 0."""
    target = uniform * edges[-1]
    block = _first_above(edges, target)
    start = edges[block - 1] if block else 0.0
    return block * BLOCK + _first_above(weights[block].cumsum(dtype=np.float64), target - start)


def _first_above(cumulative: NDArray[np.float64], target: float) -> int:
    """The first index whose cumulative sum is above ``target``, which rounding may have lifted to the very end."""
    return int(cumulative.searchsorted(min(target, nextafter(cumulative[-1], 0)), side="right"))


def _allowed(live: Floats, weight: np.float32, total: float, sampling: Sampling) -> bool:
    """Whether a token of this weight lies in the set that ``top_k``, ``top_p`` and ``min_p`` leave."""
    if weight < sampling.min_p:  # the likeliest token's weight is 1
        return False
    above = live > weight
    if sampling.top_k and np.count_nonzero(above) >= sampling.top_k:
        return False
    mass = float(live[above].sum())
    return not mass or sampling.top_p >= 1 or mass < sampling.top_p * total  # top_p 0 leaves the likeliest
