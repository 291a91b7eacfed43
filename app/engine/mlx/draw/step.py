"""One decode step on its way: the rows it is for, and the tokens that come of its logits.

The distribution is defined in :class:`app.schemas.sampling.Sampling`. Each row draws one uniform number at a time
from its own generator and inverts the cumulative distribution with it, so a row's text depends on its seed and its
logits alone, never on what runs beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from types import MappingProxyType
from typing import Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from app.engine.mlx.draw import device as draw_device
from app.engine.mlx.draw.logprobs import RowScores, Score
from app.engine.mlx.draw.proposal import Floats, Proposals, proposals_for, proposer
from app.engine.mlx.guide import guidance
from app.engine.mlx.guide.compiler import Mask
from app.engine.mlx.rows import ROW_FAILED, Row
from app.errors import EngineFailed

FEW = 4
"""Where less than one in ``FEW`` tokens is allowed, they are gathered first."""

PER_LAYER = 32768
"""Logits of a step, for each layer of the model, up to which MLX finds the likeliest tokens on a CPU in less time than
queueing the step takes: 16 rows of SmolLM2, whose 30 layers are some 800 operations, two of a model of four layers.
"""

Tokens = NDArray[np.uint32]
NO_MASKS: Mapping[Row, Mask] = MappingProxyType({})


def draw(logits: mx.array, rows: Sequence[Row], masks: Mapping[Row, Mask] = NO_MASKS) -> Tokens:
    """One token per row, ``[rows]`` uint32, from ``[rows, vocabulary]`` logits. Waits for the logits."""
    sampled = [i for i, row in enumerate(rows) if row.request.sampling.temperature and row not in masks]
    proposals = _proposals(rows, sampled)
    values = np.asarray(logits)  # from here on the device has nothing to do
    if not masks and not sampled:
        return _likeliest_of_each(values, rows)
    tokens = np.zeros(len(rows), dtype=np.uint32)
    for place, row in enumerate(rows):
        if row in masks:
            tokens[place] = _draw_masked(values[place], row, masks[row])
        elif not row.request.sampling.temperature:
            tokens[place] = _likeliest(values[place], row)
    for place, token in _sample(values, rows, proposals):
        tokens[place] = token
    return tokens


def _likeliest_of_each(logits: Floats, rows: Sequence[Row]) -> Tokens:
    """In one call for all of them."""
    tokens: Tokens = logits.argmax(axis=1).astype(np.uint32)
    for place, token in enumerate(tokens.tolist()):
        if not _is_number(logits[place, token]):
            _fail(rows[place])
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
    ((_, token),) = _sample(logits[None], [row], _proposals([row], [0]))
    return token


def _proposals(rows: Sequence[Row], places: Sequence[int]) -> Proposals:
    """The first one for each of ``places``."""
    proposals = proposals_for([rows[place].request.sampling for place in places], places)
    proposals["uniform"] = [rows[place].random.random() for place in places]
    return proposals


def _sample(logits: Floats, rows: Sequence[Row], left: Proposals) -> Iterator[tuple[int, int]]:
    """Each place that has a proposal and the token drawn for it; a row whose logits are no numbers ends alone."""
    propose = proposer()
    while left.size:
        propose(logits, left)
        usable = np.isfinite(left["top"])
        for place in left["row"][~usable].tolist():
            yield place, _likeliest(logits[place], rows[place])
        allowed = left["allowed"] == 1
        yield from zip(left["row"][allowed].tolist(), left["token"][allowed].tolist(), strict=True)
        left = left[usable & ~allowed]
        left["refused"] = logits[left["row"], left["token"]]
        left["uniform"] = [rows[place].random.random() for place in left["row"].tolist()]


class Step(Protocol):
    """``tokens``, ``[rows]`` uint32, is what the next step's graph is built on; their values may come later.

    Where they are drawn ``in_graph`` the next step may be queued before this one is read.
    """

    rows: Sequence[Row]
    tokens: mx.array
    in_graph: bool

    def read(self) -> tuple[list[int], dict[int, Score]]:
        """Wait for the tokens, and for the scores of the rows that asked for them, by the row's place."""


class DeviceStep:
    """Draws on the device, as a part of the queued graph: for Metal and CUDA.

    ``logits``, ``[rows, vocabulary]``, are the model's own and ``processed`` what is drawn from; the tokens before must
    have been read if a row is guided.
    """

    in_graph = True

    def __init__(self, rows: Sequence[Row], logits: mx.array, processed: mx.array) -> None:
        self.rows = rows
        self.tokens, self._no_number = draw_device.draw(guidance.on_device(processed, guidance.held(rows)), rows)
        self._scores = RowScores(rows, logits, self.tokens)
        mx.async_eval(self.tokens, self._no_number, *self._scores.arrays)

    def read(self) -> tuple[list[int], dict[int, Score]]:
        """Wait for the device; a row whose logits are no numbers ends alone."""
        tokens: list[int] = self.tokens.tolist()
        for place in np.flatnonzero(np.asarray(self._no_number)).tolist():
            _fail(self.rows[place])
        return tokens, self._scores.read()


class HostStep:
    """Draws on the host as soon as the logits are there: for the CPU, where MLX takes many times longer for it.

    The tokens are a buffer that :meth:`read` fills: the next step's graph is built on it while this one's logits are
    computed, and queued when it is full.
    """

    in_graph = False

    def __init__(self, rows: Sequence[Row], logits: mx.array, processed: mx.array) -> None:
        self.rows = rows
        self.tokens = mx.array([0] * len(rows), dtype=mx.uint32)
        self._logits, self._processed = logits, processed
        mx.async_eval(processed)

    def read(self) -> tuple[list[int], dict[int, Score]]:
        """Draw; what guided rows may say is worked out while the logits are still computed."""
        masks = {self.rows[i]: mask for i, mask in guidance.held(self.rows)}
        tokens = draw(self._processed, self.rows, masks)
        np.asarray(self.tokens)[:] = tokens
        return tokens.tolist(), RowScores(self.rows, self._logits, self.tokens).read()


class GreedyStep:
    """Finds the likeliest tokens in the queued graph, on a CPU: where few rows want nothing else of it."""

    in_graph = True

    def __init__(self, rows: Sequence[Row], _logits: mx.array, processed: mx.array) -> None:
        self.rows = rows
        self.tokens = mx.argmax(processed, axis=-1)
        self._processed = processed
        mx.async_eval(self.tokens, processed)

    def read(self) -> tuple[list[int], dict[int, Score]]:
        """Wait for the tokens; the host sees whether the logits are numbers."""
        tokens: list[int] = self.tokens.tolist()
        for place, top in enumerate(np.asarray(self._processed).max(axis=1)):
            if not _is_number(top):
                _fail(self.rows[place])
        return tokens, {}


def host_step_type(rows: Sequence[Row], logits: mx.array, layers: int) -> type[HostStep | GreedyStep]:
    """How tokens are drawn on a CPU, of ``logits`` that so many ``layers`` compute."""
    plain = all(
        not row.request.sampling.temperature and row.guide is None and row.request.logprobs is None for row in rows
    )
    return GreedyStep if plain and logits.size <= PER_LAYER * layers else HostStep


def step_type() -> type[HostStep | DeviceStep]:
    """How tokens are drawn on this machine."""
    return HostStep if mx.default_device() == mx.Device(mx.cpu) else DeviceStep


def prepare() -> None:
    """Get ready what drawing needs on this machine; once, for some tenths of a second."""
    if step_type() is HostStep:
        proposer()
