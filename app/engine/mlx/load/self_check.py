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
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from app.engine.mlx.cache.classes import attend_by_class
from app.engine.mlx.cache.journal import SharedModel
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.draw.step import HostStep, step_type
from app.engine.mlx.load.findings import Findings
from app.engine.mlx.load.sweep import Sweep
from app.engine.mlx.load.trial import LENGTHS, RAISED, STEPS, Steps, Trial
from app.engine.mlx.loaded import ABLE, Abilities
from app.engine.mlx.memory import compiles_kernels

IDS = 1000
"""Prompts are made of token ids below it, which every vocabulary has."""
TIMES = (7, 31, 127, 255)
"""Then the first two are tried this many times as long: for what shows only where there is more to attend to. They are
odd, for attention that looks at blocks is right where padding fills whole ones."""
SECONDS, PART_OF_LOAD = 0.5, 0.05
"""What all of it may take where nothing is wrong, whichever is more; longer prompts are tried as far as it goes."""
POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx", "block_size")
"""Where configurations say how long a prompt may be."""
ONE_BY_ONE = 4.0
"""How many times longer it takes at least where something is wrong."""
TRIES = 2
"""A way is wrong if it is with this many sets of prompts: a mixture of experts may send a token elsewhere by rounding.
"""
REVISION = 6
"""Changes when the check does: what was found before is found anew."""

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
    findings = None if config is None else Findings(Abilities, model, config, kv_bits, REVISION, cache)
    if findings is not None and (known := findings.read()) is not None:
        return known
    started = time.perf_counter()
    budget = max(SECONDS, PART_OF_LOAD * load_seconds)
    abilities = yield from _find(_Subject(model, min(vocabulary, IDS), kv_bits), _longest(config), budget)
    seconds = time.perf_counter() - started
    if findings is not None:
        findings.write(abilities)
    level = logging.DEBUG if abilities == ABLE else logging.INFO
    log.log(level, "its rows were tried together in %.2f s: %s", seconds, msgspec.structs.asdict(abilities))
    return abilities


class _Subject(msgspec.Struct, frozen=True):
    """What is tried, with token ids below ``ids``."""

    model: Any
    ids: int
    kv_bits: int | None

    def sweep(self, lengths: Sequence[int] = LENGTHS, limit: float | None = None) -> Sweep:
        """Everything in a few passes."""
        return Sweep(self.model, self.ids, self.kv_bits, lengths, limit)

    def trials(self, lengths: Sequence[int] = LENGTHS) -> list[Trial]:
        """One way at a time."""
        return [Trial(self.model, self.ids, self.kv_bits, seed, lengths) for seed in range(TRIES)]

    @property
    def batchable(self) -> bool:
        """Whether rows can lie in one cache at all."""
        return KV.fresh(self.model, self.kv_bits).batchable


def _find(it: _Subject, longest: int, budget: float) -> Steps[Abilities]:
    attend_by_class(it.model)
    started = time.perf_counter()
    ahead = step_type() is HostStep
    classes = not (
        isinstance(it.model, SharedModel) and it.model.whole_layers
    )  # these look into their caches themselves
    sweep = it.sweep()
    end = inf if compiles_kernels() else started + budget
    whole = it.batchable and (yield from _tried(sweep.right(ABLE.mask_axes, ahead=ahead, classes=classes, end=end)))
    if whole:
        able = msgspec.structs.replace(ABLE, classes=classes)
    else:
        able = yield from _one_by_one(it, ahead=ahead, classes=classes)
    able = msgspec.structs.replace(able, last_logits=sweep.last_logits)
    seconds = time.perf_counter() - started
    took = seconds if whole else seconds / ONE_BY_ONE
    if compiles_kernels():  # which most of the time went to
        started, took = started + seconds, 0.0
    return (yield from _further(it, able, sweep.limit, longest, started + budget, took))


def _one_by_one(it: _Subject, *, ahead: bool, classes: bool) -> Steps[Abilities]:
    """What is right with a model with which something is wrong."""
    tries = it.trials()
    ahead = not ahead or (yield from _right(tries, Trial.ahead))
    able = Abilities(group=False, batch=False, empty=False, ahead=ahead, classes=False)
    for axes in (4, 5) if it.batchable else ():
        able = yield from _together(tries, msgspec.structs.replace(able, mask_axes=axes))
        if able.batch:
            rows = list(range(len(LENGTHS))) if able.empty else [0, 1]
            classes = classes and (yield from _right(tries, lambda it, rows=rows, axes=axes: it.classed(rows, axes)))  # type: ignore[misc]
            return msgspec.structs.replace(able, classes=classes)
    return msgspec.structs.replace(able, mask_axes=ABLE.mask_axes)


def _further(  # noqa: PLR0917
    it: _Subject, able: Abilities, limit: float, longest: int, end: float, took: float
) -> Steps[Abilities]:
    """``able``, without what is wrong for longer prompts, as far as the time goes; short ones ``took`` so long."""
    previous = 1
    for times in TIMES:
        started = time.perf_counter()
        late = started + took * times / previous > end
        if late or not able.batch or LENGTHS[0] * times + STEPS > longest:
            break
        lengths = [length * times for length in LENGTHS[:2]]
        sweep = it.sweep(lengths, limit)
        if not (able.group and (yield from _tried(sweep.right(able.mask_axes, ahead=False, classes=False)))):
            able = yield from _together(it.trials(lengths), able)
        previous, took = times, time.perf_counter() - started
    return able


def _together(tries: Sequence[Trial], able: Abilities) -> Steps[Abilities]:
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


def _right(tries: Sequence[Trial], way: Callable[[Trial], Steps[bool]]) -> Steps[bool]:
    """Whether it is right with any set of prompts."""
    for one in tries:
        yield from one.alone()
        if (yield from _tried(way(one))):
            return True
    return False


def _tried(way: Steps[bool]) -> Steps[bool]:
    """Whether it is right; what raises is not."""
    try:
        return (yield from way)
    except RAISED as failure:
        log.debug("it does not run this way: %s", failure)
        return False


def _longest(config: bytes | None) -> int:
    """How many tokens a prompt may have: the least that is said anywhere, 0 where nothing is."""
    try:
        described = json.loads(config or b"{}")
    except ValueError:
        return 0
    lengths = [source.get(key) for source in (described, described.get("text_config") or {}) for key in POSITIONS]
    return min((it for it in lengths if isinstance(it, int)), default=0)
