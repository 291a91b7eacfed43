"""Exact sampling with numpy, for the CPU backend.

MLX's exponential takes 24 ns an element on a CPU where numpy's takes 2, and a numpy view of CPU logits is free. What
each token weighs is in :mod:`app.engine.mlx.weighing`.

Truncation needs no sort: a token is drawn from the whole distribution and kept if it lies in the allowed set, which
asks only for the mass (top_p), the count (top_k) or the maximum (min_p) above it. The allowed set holds the likeliest
tokens, so a refused token also rules out every token that is not likelier, and the next draw is from what is left.
Conditioning a draw on being accepted gives exactly the truncated, renormalised distribution.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import isfinite
from types import MappingProxyType

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from app.engine.mlx import guidance
from app.engine.mlx.grammar import Mask
from app.engine.mlx.rows import ROW_FAILED, Row
from app.engine.mlx.weighing import Floats, Weights, room
from app.errors import EngineFailed

RUN = 8
"""Rows computed together: fewer calls than one by one, and less memory to go through than all at once."""
FEW = 4
"""Where less than one in ``FEW`` tokens is allowed, they are gathered first."""

Tokens = NDArray[np.uint32]
NO_MASKS: Mapping[Row, Mask] = MappingProxyType({})


def draw(logits: mx.array, rows: Sequence[Row], masks: Mapping[Row, Mask] = NO_MASKS) -> Tokens:
    """One token per row, ``[rows]`` uint32, from ``[rows, vocabulary]`` logits. Waits for the logits."""
    values = np.asarray(logits)
    tokens = np.zeros(len(rows), dtype=np.uint32)
    greedy = [not (row.request.sampling.temperature or row in masks) for row in rows]
    for i, row in enumerate(rows):
        if greedy[i]:
            tokens[i] = _likeliest(values[i], row)
    for run in _runs(greedy):
        tokens[run] = _draw_run(values[run], rows[run], masks)
    return tokens


def _runs(greedy: Sequence[bool]) -> Iterator[slice]:
    """The other rows, neighbours together."""
    start = 0
    for is_greedy, same in groupby(greedy):
        stop = start + len(list(same))
        if not is_greedy:
            yield from (slice(first, min(first + RUN, stop)) for first in range(start, stop, RUN))
        start = stop


def _likeliest(logits: Floats, row: Row) -> int:
    token = int(logits.argmax())
    if not _is_number(logits[token]):
        _fail(row)
    return token


def _is_number(top: np.float32) -> bool:
    """Whether a row's highest logit can be used; minus infinity can: biases have banned every token."""
    return isfinite(top) or bool(top < 0)


def _fail(row: Row) -> None:
    """End this row alone."""
    row.failure = EngineFailed("No token could be drawn for this answer; send it again.", code=ROW_FAILED)


def _draw_run(logits: Floats, rows: Sequence[Row], masks: Mapping[Row, Mask]) -> list[int]:
    """A token for each of ``rows``, ``logits`` ``[rows, vocabulary]``; those that have masks one by one."""
    if not any(row in masks for row in rows):
        return _draw_together(logits, rows)
    return [_draw_masked(it, row, masks.get(row)) for it, row in zip(logits, rows, strict=True)]


def _draw_masked(logits: Floats, row: Row, mask: Mask | None) -> int:
    """A token that ``mask`` allows; where it allows few, nothing is computed for the others."""
    if mask is None:
        return _draw_one(logits, row)
    allowed = guidance.unpacked(mask, logits.shape[0])
    if np.count_nonzero(allowed) * FEW > logits.shape[0]:
        held = np.where(allowed, logits, np.float32(-np.inf))
        if np.isneginf(held.max()):
            held[allowed] = guidance.LEAST
        return _draw_one(held, row)
    places = np.flatnonzero(allowed)
    few = np.maximum(logits[places], np.float32(guidance.LEAST))
    return int(places[_draw_one(few, row)])


def _draw_one(logits: Floats, row: Row) -> int:
    return _draw_together(logits[None], [row])[0] if row.request.sampling.temperature else _likeliest(logits, row)


def _draw_together(logits: Floats, rows: Sequence[Row]) -> list[int]:
    """A token for each row, none of them greedy; what fails, such as logits that are no numbers, ends its row alone."""
    tops = logits.max(axis=1)
    weights = room(logits.shape[1], RUN).weigh(logits, tops, [row.request.sampling for row in rows])
    return [
        _draw_row(weights[i], row) if isfinite(tops[i]) else _likeliest(logits[i], row) for i, row in enumerate(rows)
    ]


def _draw_row(weights: Weights, row: Row) -> int:
    try:
        while True:
            token = weights.propose(row.random)
            if weights.allow(token):
                return token
    except Exception:
        logging.getLogger(__name__).exception("a token could not be drawn")
        _fail(row)
        return 0
