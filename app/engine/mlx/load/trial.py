"""One set of prompts, computed alone and in the ways that save time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from app.engine.mlx.cache.kv import KV, merge
from app.engine.mlx.loaded import ABLE
from app.engine.mlx.prefill.prefill import Prefill
from app.engine.mlx.prefill.slice_size import SHORTEST_SLICE

LENGTHS = (11, 5, 1, 3)
"""Tokens of the prompts: one goes on in a second slice, one ends within the first, of one nothing is computed before
it decodes, of one next to nothing."""
SLICE = 8
STEPS = 2
"""Tokens decoded behind each: the second sees what the first has written."""
TIMES_ROUNDING = 5.0
LEAST, MOST = 0.02, 0.3
"""What counts as rounding at least and at most, as a part of the logits' own deviation from their mean. Unrelated
logits lie at 1.4; those of a row that has seen padding, seldom below 0.1."""
RAISED = (ValueError, TypeError, AttributeError, LookupError, RuntimeError, NotImplementedError)
"""What models raise for shapes, types and caches that they do not take."""

Logits = NDArray[np.float32]
T = TypeVar("T")
Steps = Generator[None, None, T]


class Trial:
    """One set of prompts, what comes of each alone, and how much of a difference is rounding."""

    def __init__(self, model: Any, ids: int, kv_bits: int | None, seed: int, lengths: Sequence[int] = LENGTHS) -> None:
        self.lengths = lengths
        self._model = model
        self._kv_bits = kv_bits
        numbers = np.random.default_rng(seed)
        self._prompts = [numbers.integers(0, ids, length + STEPS).tolist() for length in lengths]
        self._caches: list[KV] = []
        self._alone: list[list[Logits]] = []
        self._limit = 0.0

    def alone(self) -> Steps[None]:
        """Each prompt by itself; the first also at once, which is what says how much is rounding."""
        if self._alone:
            return
        for i, length in enumerate(self.lengths):
            kv = yield from self._computed([i], ABLE.mask_axes)
            self._caches.append(kv.copy())
            said = []
            for step in range(STEPS):
                logits = yield from self._pass(kv, self._tokens([i], step))
                said.append(logits[0])
            self._alone.append(said)
            if not i:
                whole = yield from self._pass(self._fresh(ABLE.mask_axes), [self._prompts[0][:length]])
                self._limit = limit_of(distance(whole[0], self._alone[0][0]))

    def ahead(self) -> Steps[bool]:
        """A graph built on a buffer that is filled before it is computed, as on a CPU."""
        logits = yield from self._ahead(self._caches[0].copy(), self._tokens([0], 0))
        return self._same(logits, [0], 0)

    def grouped(self, rows: list[int], axes: int) -> Steps[bool]:
        """The first two computed together in slices, the others joining one by one."""
        kv = yield from self._computed(rows[:2], axes)
        for row in rows[2:]:
            kv = kv.join(self._lone(row, axes))
        return (yield from self._decoded(kv, rows))

    def merged(self, rows: list[int], axes: int) -> Steps[bool]:
        """All computed alone, decoded together."""
        kv = merge([self._lone(row, axes) for row in rows[:-1]])
        return (yield from self._decoded(kv.join(self._lone(rows[-1], axes)), rows))

    def classed(self, rows: list[int], axes: int) -> Steps[bool]:
        """All computed alone, decoded in two classes."""
        kv = merge([self._lone(row, axes) for row in rows])
        return (yield from self._decoded(kv.arranged([rows[:1], rows[1:]]), rows))

    def _decoded(self, kv: KV, rows: list[int]) -> Steps[bool]:
        for step in range(STEPS):
            logits = yield from self._pass(kv, self._tokens(rows, step))
            if not self._same(logits, rows, step):
                return False
        return True

    def _same(self, logits: Logits, rows: list[int], step: int) -> bool:
        """Whether ``logits``, one line for each of ``rows``, are what those say alone."""
        return all(distance(it, self._alone[row][step]) <= self._limit for it, row in zip(logits, rows, strict=True))

    def _computed(self, rows: list[int], axes: int) -> Steps[KV]:
        """The prompts but for what is decoded behind them."""
        prompts = [self._prompts[row][: self.lengths[row] - 1] for row in rows]
        few_shapes = bool(mx.cuda.is_available())
        work = Prefill(self._model, prompts, [self._fresh(axes) for _ in rows], few_shapes=few_shapes)
        size = max(SLICE, self.lengths[0] // 2)
        while work.left:
            work.step(size if size < SHORTEST_SLICE else size * len(rows))
            yield
        return work.kv

    def _tokens(self, rows: list[int], step: int) -> list[list[int]]:
        return [[self._prompts[row][self.lengths[row] - 1 + step]] for row in rows]

    def _pass(self, kv: KV, tokens: list[list[int]]) -> Steps[Logits]:
        logits = self._model(mx.array(tokens, dtype=mx.uint32), cache=kv.layers)[:, -1].astype(mx.float32)
        mx.eval(logits, kv.arrays)
        yield
        return np.array(logits)

    def _ahead(self, kv: KV, tokens: list[list[int]]) -> Steps[Logits]:
        """The same for a graph that is built before the tokens are there, one of each row."""
        buffer = mx.array([0] * len(tokens), dtype=mx.uint32)
        logits = self._model(buffer[:, None], cache=kv.layers)[:, -1].astype(mx.float32)
        np.asarray(buffer)[:] = [token for (token,) in tokens]
        mx.eval(logits, kv.arrays)
        yield
        return np.array(logits)

    def _fresh(self, axes: int) -> KV:
        return KV.fresh(self._model, self._kv_bits, axes)

    def _lone(self, row: int, axes: int) -> KV:
        return self._caches[row].copy(axes)


def limit_of(rounding: float) -> float:
    """The distance up to which two logits are the same, where ``rounding`` alone is that far."""
    return min(max(LEAST, TIMES_ROUNDING * rounding), MOST)


def distance(a: Logits, b: Logits) -> float:
    """How far ``a`` lies from ``b``, as a part of the latter's deviation from its mean.

    Tokens that a model bans have no number; infinite unless they are the same ones.
    """
    usable = np.isfinite(b)
    if not np.array_equal(usable, np.isfinite(a)):
        return float("inf")
    a, b = a[usable], b[usable]
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b - b.mean())), 1e-6))
