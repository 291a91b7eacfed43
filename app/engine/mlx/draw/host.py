"""Exact sampling on the host, for the CPU backend.

MLX's exponential takes 24 ns an element on a CPU where numpy's takes 2 and a compiler's less than 1
(:mod:`app.engine.mlx.draw.compiled`), and a view of CPU logits is free.

Truncation needs no sort: a token is drawn from the whole distribution and kept if it lies in the allowed set, which
asks only for the mass (top_p), the count (top_k) or the maximum (min_p) above it. The allowed set holds the likeliest
tokens, so a refused token also rules out every token that is not likelier, and the next draw is from what is left.
Conditioning a draw on being accepted gives exactly the truncated, renormalised distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from types import MappingProxyType

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from app.engine.mlx.draw.compiled import proposer
from app.engine.mlx.draw.proposal import Floats, proposals_for
from app.engine.mlx.guide import guidance
from app.engine.mlx.guide.compiler import Mask
from app.engine.mlx.rows import ROW_FAILED, Row
from app.errors import EngineFailed

FEW = 4
"""Where less than one in ``FEW`` tokens is allowed, they are gathered first."""

Tokens = NDArray[np.uint32]
NO_MASKS: Mapping[Row, Mask] = MappingProxyType({})


def draw(logits: mx.array, rows: Sequence[Row], masks: Mapping[Row, Mask] = NO_MASKS) -> Tokens:
    """One token per row, ``[rows]`` uint32, from ``[rows, vocabulary]`` logits. Waits for the logits."""
    values = np.asarray(logits)
    tokens = np.zeros(len(rows), dtype=np.uint32)
    sampled = []
    for place, row in enumerate(rows):
        if row in masks:
            tokens[place] = _draw_masked(values[place], row, masks[row])
        elif row.request.sampling.temperature:
            sampled.append(place)
        else:
            tokens[place] = _likeliest(values[place], row)
    for place, token in _sample(values, rows, sampled):
        tokens[place] = token
    return tokens


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


def _draw_masked(logits: Floats, row: Row, mask: Mask) -> int:
    """A token that ``mask`` allows; where it allows few, nothing is computed for the others."""
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
    if not row.request.sampling.temperature:
        return _likeliest(logits, row)
    ((_, token),) = _sample(logits[None], [row], [0])
    return token


def _sample(logits: Floats, rows: Sequence[Row], places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Each of ``places`` and the token drawn for its row; a row whose logits are no numbers ends alone."""
    tops = np.array([logits[place].max() for place in places], dtype=np.float32)
    usable = np.isfinite(tops)
    for place in np.asarray(places)[~usable]:
        yield place, _likeliest(logits[place], rows[place])
    left = proposals_for([rows[place].request.sampling for place in places], places, tops)[usable]
    propose = proposer()
    while left.size:
        left["uniform"] = [rows[place].random.random() for place in left["row"]]
        propose(logits, left)
        allowed = left["allowed"] == 1
        yield from zip(left["row"][allowed].tolist(), left["token"][allowed].tolist(), strict=True)
        left = left[~allowed]
        left["refused"] = logits[left["row"], left["token"]]
