"""What may be done with a model's rows together, found by trying it when the model is loaded.

That a cache can be merged does not mean that its model is right in company: padding may enter a recurrent state, a mask
may have axes that its attention does not expect, a layer may look at its tokens while its graph is built. No list says
which models those are. A few short prompts of different lengths are computed alone, then in the ways that save time;
a way in which the logits are others beyond rounding is not gone.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
import msgspec
import numpy as np
from numpy.typing import NDArray

from app.engine.mlx.cache.classes import attend_by_class
from app.engine.mlx.cache.kv import KV, merge
from app.engine.mlx.draw.step import HostStep, step_type
from app.engine.mlx.load.findings import Findings
from app.engine.mlx.loaded import ABLE, Abilities
from app.engine.mlx.prefill.prefill import Prefill

LENGTHS = (22, 9, 1, 3)
"""Tokens of the prompts: one goes on in a second slice, one ends within the first, of one nothing is computed before
it decodes, of one next to nothing."""
SLICE = 16
STEPS = 2
"""Tokens decoded behind each: the second sees what the first has written."""
IDS = 1000
"""Prompts are made of token ids below it, which every vocabulary has."""
TIMES_ROUNDING = 5.0
LEAST, MOST = 0.02, 0.3
"""What counts as rounding at least and at most, as a part of the logits' own deviation from their mean. Unrelated
logits lie at 1.4; those of a row that has seen padding, seldom below 0.1."""
TIMES = (4, 16, 64, 128)
"""Then the first two are tried this many times as long: for what shows only where there is more to attend to."""
SECONDS, PART_OF_LOAD = 0.25, 0.04
"""What the longer ones may take together, whichever is more."""
POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx", "block_size")
"""Where configurations say how long a prompt may be."""
TRIES = 2
"""A way is wrong if it is with this many sets of prompts: a mixture of experts may send a token elsewhere by rounding.
"""
REVISION = 2
"""Changes when the check does: what was found before is found anew."""
RAISED = (ValueError, TypeError, AttributeError, LookupError, RuntimeError, NotImplementedError)
"""What models raise for shapes, types and caches that they do not take."""

Logits = NDArray[np.float32]
T = TypeVar("T")
Steps = Generator[None, None, T]

log = logging.getLogger(__name__)


def checked(
    model: Any,
    vocabulary: int,
    kv_bits: int | None,
    *,
    config: bytes | None = None,
    load_seconds: float = 0.0,
    cache: Path | None = None,
) -> Steps[Abilities]:
    """What ``model`` is able to do. MLX thread; a step is one pass.

    With ``config``, what describes the model on disk, the result is kept below ``cache`` for the next load; what is
    spent on it grows with ``load_seconds``. Raises what the model raises for a prompt of its own.
    """
    findings = None if config is None else Findings(model, config, kv_bits, REVISION, cache)
    if findings is not None and (known := findings.read()) is not None:
        return known
    started = time.perf_counter()
    budget = max(SECONDS, PART_OF_LOAD * load_seconds)
    abilities = yield from _find(model, min(vocabulary, IDS), kv_bits, _longest(config), budget)
    seconds = time.perf_counter() - started
    if findings is not None:
        findings.write(abilities)
    level = logging.DEBUG if abilities == ABLE else logging.INFO
    log.log(level, "its rows were tried together in %.2f s: %s", seconds, msgspec.structs.asdict(abilities))
    return abilities


def _find(model: Any, ids: int, kv_bits: int | None, longest: int, budget: float) -> Steps[Abilities]:
    attend_by_class(model)
    tries = [_Try(model, ids, kv_bits, seed) for seed in range(TRIES)]
    ahead = step_type() is not HostStep or (yield from _right(tries, _Try.ahead))
    able = Abilities(group=False, batch=False, empty=False, ahead=ahead, classes=False)
    if not KV.fresh(model, kv_bits).batchable:
        return able
    for axes in (4, 5):
        able = yield from _together(tries, msgspec.structs.replace(able, mask_axes=axes))
        if able.batch:
            rows = list(range(len(LENGTHS))) if able.empty else [0, 1]
            classes = yield from _right(tries, lambda it, rows=rows, axes=axes: it.classed(rows, axes))  # type: ignore[misc]
            able = msgspec.structs.replace(able, classes=classes)
            break
    else:
        return msgspec.structs.replace(able, mask_axes=ABLE.mask_axes)
    return (yield from _further(model, able, ids, kv_bits, longest, time.perf_counter() + budget))


def _further(  # noqa: PLR0917
    model: Any, able: Abilities, ids: int, kv_bits: int | None, longest: int, end: float
) -> Steps[Abilities]:
    """``able``, without what is wrong for prompts that are longer, as far as the time goes."""
    took, previous = 0.0, 1
    for times in TIMES:
        started = time.perf_counter()
        late = started + took * (times / previous) ** 1.5 > end
        if late or not able.batch or LENGTHS[0] * times + STEPS > longest:
            break
        tries = [_Try(model, ids, kv_bits, seed, [length * times for length in LENGTHS[:2]]) for seed in range(TRIES)]
        able = yield from _together(tries, able)
        previous, took = times, time.perf_counter() - started
    return able


def _together(tries: Sequence[_Try], able: Abilities) -> Steps[Abilities]:
    """``able``, with what else is right for prompts like these, or without what is wrong."""
    rows, axes = list(range(len(tries[0].lengths))), able.mask_axes
    replace = msgspec.structs.replace
    known = len(rows) == 2
    if (not known or able.group) and (yield from _right(tries, lambda it: it.grouped(rows, axes))):
        return able if known else replace(able, group=True, batch=True, empty=True)
    if (yield from _right(tries, lambda it: it.merged(rows[::-1], axes))):
        return replace(able, group=False, batch=True, empty=able.empty or not known)
    if not known and (yield from _right(tries, lambda it: it.merged([1, 0], axes))):
        return replace(able, group=False, batch=True, empty=False)
    return replace(able, group=False, batch=False, empty=False)


def _right(tries: Sequence[_Try], way: Callable[[_Try], Steps[bool]]) -> Steps[bool]:
    """Whether it is right with any set of prompts."""
    for one in tries:
        yield from one.alone()
        try:
            if (yield from way(one)):
                return True
        except RAISED as failure:
            log.debug("it does not run this way: %s", failure)
            return False
    return False


class _Try:
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
                rounding = _distance(whole[0], self._alone[0][0])
                self._limit = min(max(LEAST, TIMES_ROUNDING * rounding), MOST)

    def ahead(self) -> Steps[bool]:
        """A graph built on a buffer that is filled before it is computed, as on a CPU."""
        kv, (token,) = self._caches[0].copy(), self._tokens([0], 0)
        buffer = mx.array([0], dtype=mx.uint32)
        logits = self._model(buffer[:, None], cache=kv.layers)[:, -1]
        np.asarray(buffer)[:] = token
        yield
        return self._same(np.array(logits.astype(mx.float32)), [0], 0)

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
        return all(_distance(it, self._alone[row][step]) <= self._limit for it, row in zip(logits, rows, strict=True))

    def _computed(self, rows: list[int], axes: int) -> Steps[KV]:
        """The prompts but for what is decoded behind them."""
        prompts = [self._prompts[row][: self.lengths[row] - 1] for row in rows]
        few_shapes = bool(mx.cuda.is_available())
        work = Prefill(self._model, prompts, [self._fresh(axes) for _ in rows], few_shapes=few_shapes)
        while work.left:
            work.step(max(SLICE, self.lengths[0] // 2) * len(rows))
            yield
        return work.kv

    def _tokens(self, rows: list[int], step: int) -> list[list[int]]:
        return [[self._prompts[row][self.lengths[row] - 1 + step]] for row in rows]

    def _pass(self, kv: KV, tokens: list[list[int]]) -> Steps[Logits]:
        logits = self._model(mx.array(tokens, dtype=mx.uint32), cache=kv.layers)[:, -1].astype(mx.float32)
        mx.eval(logits, kv.arrays)
        yield
        return np.array(logits)

    def _fresh(self, axes: int) -> KV:
        return KV.fresh(self._model, self._kv_bits, axes)

    def _lone(self, row: int, axes: int) -> KV:
        kv = self._caches[row].copy()
        kv.mask_axes = axes
        return kv


def _distance(a: Logits, b: Logits) -> float:
    """How far ``a`` lies from ``b``, as a part of the latter's deviation from its mean.

    Tokens that a model bans have no number; infinite unless they are the same ones.
    """
    usable = np.isfinite(b)
    if not np.array_equal(usable, np.isfinite(a)):
        return float("inf")
    a, b = a[usable], b[usable]
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b - b.mean())), 1e-6))


def _longest(config: bytes | None) -> int:
    """How many tokens a prompt may have: the least that is said anywhere, 0 where nothing is."""
    try:
        described = json.loads(config or b"{}")
    except ValueError:
        return 0
    told = [source.get(key) for source in (described, described.get("text_config") or {}) for key in POSITIONS]
    return min((it for it in told if isinstance(it, int)), default=0)
