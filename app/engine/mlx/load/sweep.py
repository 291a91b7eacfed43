"""All that saves time, tried in a few passes one behind another.

Where every answer is right nothing else need be tried, and nearly every model gets there; what is wrong is found by
:class:`app.engine.mlx.load.trial.Trial`, one way at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from math import inf
from typing import Any

import mlx.core as mx
import numpy as np

from app.engine.mlx.cache.journal import SharedModel
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.load.trial import LEAST, LENGTHS, RAISED, SLICE, Logits, Steps, Trial, distance, limit_of
from app.engine.mlx.loaded import ABLE
from app.engine.mlx.prefill.backbone import Backbone

log = logging.getLogger(__name__)

SOURCES = (0, 1, 1, 0)
"""The sequence that each prompt is the beginning of: what a model that looks only backwards says of a sequence in one
pass is what it says of all its beginnings. Neighbours are of different ones, for rows that hear each other."""
DECODED = 2
"""Steps: one in two classes, its graph built ahead, each where it is to be tried, then one of all rows in a rectangle,
which sees what caches of ours have written. The larger class is a rectangle too, so the second step is left out where
there is no time for it."""


class Sweep(Trial):
    """A trial whose prompts are beginnings of two sequences, each of which is computed alone once.

    The first two prompts are the longest. ``limit`` is what counts as rounding, where it is known.
    """

    def __init__(
        self, model: Any, ids: int, kv_bits: int | None, lengths: Sequence[int] = LENGTHS, limit: float | None = None
    ) -> None:
        super().__init__(model, ids, kv_bits, 0, lengths)
        numbers = np.random.default_rng(len(lengths))
        self._sequences = [numbers.integers(0, ids, length - 1 + DECODED).tolist() for length in lengths[:2]]
        self._prompts = [self._sequences[SOURCES[row]] for row in range(len(lengths))]
        self._known = self._tried_alone = limit is not None
        self.last_logits = False
        """Whether what is said behind a last token can be had alone; known behind :meth:`alone` without a ``limit``."""
        self._limit = LEAST if limit is None else limit

    @property
    def limit(self) -> float:
        """What counts as rounding."""
        return self._limit

    def right(self, axes: int, *, ahead: bool, classes: bool, end: float = inf) -> Steps[bool]:
        """Whether everything is; ``ahead`` and ``classes`` where they are to be tried. Raises what the model does.

        ``end`` is when there is no time left, by :func:`time.perf_counter`.
        """
        took = 0.0
        yield from self.alone()
        rows = list(range(len(self.lengths)))
        kv = yield from self._computed(rows[:2], axes)
        for row in rows[2:]:
            kv = kv.join(self._lone(row, axes))
        for step in range(DECODED):
            started = time.perf_counter()
            if step == DECODED - 1 and started + took > end:
                break
            if classes:
                kv = kv.arranged([rows] if step else [rows[:1], rows[1:]])
            way = self._ahead if ahead and not step else self._pass
            logits = yield from way(kv, self._tokens(rows, step))
            if not self._same(logits, rows, step):
                return False
            took = time.perf_counter() - started
        return True

    def alone(self) -> Steps[None]:
        """Each sequence in one pass, the first in slices too, which says what is rounding, and what is to join.

        On a CPU, where numbers are exact, what is to join is a beginning of a sequence where that can be cut off.
        """
        exact = mx.default_device() == mx.Device(mx.cpu) and self._kv_bits is None
        sequences = yield from self._sequences_alone()
        if not exact and not self._known:
            sliced = self._fresh(ABLE.mask_axes)
            sliced.fill(self._model, mx.array([self._sequences[0][:SLICE]], dtype=mx.uint32))
            yield
            (again,) = yield from self._read([(sliced, self._sequences[0][SLICE:])])
            self._limit = limit_of(float(np.median(list(map(distance, again, sequences[0][2][SLICE:])))))
        for row, length in enumerate(self.lengths):
            whole, start, logits = sequences[SOURCES[row]]
            self._alone.append(logits[length - 1 - start :][:DECODED])
            kv = self._fresh(ABLE.mask_axes)
            if row > 1 and length > 1 and exact and whole.plain:
                kv = whole.copy()
                kv.trim(len(logits) - length + 1)
            elif row > 1 and length > 1:
                kv.fill(self._model, mx.array([self._prompts[row][: length - 1]], dtype=mx.uint32))
                yield
            self._caches.append(kv)

    def _sequences_alone(self) -> Steps[list[tuple[KV, int, list[Logits]]]]:
        """What is held at the end of each, and what is said from some position on, before any prompt ends.

        Both are computed at once: a CPU reads hardly more of the weights for two graphs than for one.
        """
        begun = []
        for source, tokens in enumerate(self._sequences):
            first = min(length for row, length in enumerate(self.lengths) if SOURCES[row] == source) - 1
            kv, start = self._fresh(ABLE.mask_axes), first if first > SLICE else 0
            if start:  # logits of many positions would take much memory
                kv.fill(self._model, mx.array([tokens[:start]], dtype=mx.uint32))
                yield
            begun.append((kv, start, tokens[start:]))
        said = yield from self._read([(kv, tokens) for kv, _, tokens in begun])
        return [(kv, start, logits) for (kv, start, _), logits in zip(begun, said, strict=True)]

    def _read(self, its: Sequence[tuple[KV, list[int]]]) -> Steps[list[list[Logits]]]:
        """The logits of every position of each."""
        said, behind = list[mx.array](), list[mx.array]()
        for kv, tokens in its:
            logits, last = self._forward(mx.array([tokens], dtype=mx.uint32), kv)
            if logits.shape[1] != len(tokens):
                raise ValueError("it says something of its last token only")
            said.append(logits[0].astype(mx.float32))
            behind += last
        mx.eval(said, behind, [kv.arrays for kv, _ in its])
        yield
        read = [list(np.array(logits)) for logits in said]
        if behind:
            alone = np.array(behind[0][0, -1].astype(mx.float32))
            self.last_logits = distance(alone, read[0][-1]) <= self._limit
        return read

    def _forward(self, tokens: mx.array, kv: KV) -> tuple[mx.array, list[mx.array]]:
        """All logits and, the first time, those that are made of the last position alone, if any are."""
        shared = isinstance(self._model, SharedModel)
        backbone = None if self._tried_alone or shared else Backbone.of(self._model)
        if backbone is None:
            return self._model(tokens, cache=kv.layers), []
        self._tried_alone = True
        logits, given = backbone.forward(tokens, kv.layers)
        try:
            return logits, [backbone.output(given[:, -1:], tokens, self._fresh(ABLE.mask_axes).layers)]
        except RAISED as failure:
            log.debug("its output layer does not take the last position alone: %s", failure)
            return logits, []
