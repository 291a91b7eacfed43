"""What computing a slice of a prompt takes beside weights and KV, measured when a model is loaded."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Generator, Mapping
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import RotatingKVCache
from msgspec.structs import replace

from app.engine.mlx.cache.arrangement import STEP
from app.engine.mlx.cache.attention import as_planned, scores_bytes
from app.engine.mlx.cache.cpu_slices import HELD, left_to_mlx
from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.law import RAISED
from app.engine.mlx.cache.layers import parts
from app.engine.mlx.loaded import ScratchLaw

FEW, MORE, MOST, BEYOND = 8, 32, 96, 192
"""Tokens of the slices that are computed for it, the last of them only where the others leave a doubt."""
REVISION = 4
"""Changes when what is measured does: what was found before is found anew."""
SPARE = 1.25
"""How many times what was seen is booked: peaks vary a little with the order in which things are computed."""
BEFORE = STEP - MORE
"""Positions that stand before one of them; there is room for the slice behind them, so that none is made."""


def scratch_of(model: Any, kv: KV, *, doubt: bool = False) -> Generator[None, None, ScratchLaw]:
    """The law of a model of which ``kv`` is one row of a few tokens. MLX thread; a step is one pass.

    Peaks of four short passes say it: memory is taken alike whatever the numbers in it. Nothing else may be computed
    in this process meanwhile. Where they rise as if with the square of a slice's tokens, a fifth one says whether they
    go on so, or whether a library has taken its room once and for all, as CUDA's do for products above some size. With
    ``doubt`` that is looked at in any case: ranks compute all passes together. Where all attention is that of
    :mod:`app.engine.mlx.cache.cpu_slices`, it holds no more behind longer contexts.
    """
    peaks: dict[tuple[int, int], float] = {}
    seen = Counter[bool]()
    for shape in ((FEW, 0), (MORE, 0), (MOST, 0), (MORE, BEFORE)):
        peaks[shape], seen = yield from _measured(model, kv, *shape)
    law = law_of_peaks(peaks)
    if doubt or law.own > law.pair:
        peaks[BEYOND, 0], _ = yield from _measured(model, kv, BEYOND, 0)
        law = law_of_peaks(peaks)
    law = replace(law, fixed=law.fixed + scores_bytes())
    attending = sum(hasattr(part, "keys") for part in parts(kv.layers))
    if not attending or seen[True] < attending or seen[False]:
        return law
    return replace(law, fixed=law.fixed + HELD, pair=0.0)


def law_of_peaks(peaks: Mapping[tuple[int, int], float]) -> ScratchLaw:
    """The law that no peak lies above, in bytes by the tokens of a slice and the positions before it."""
    few, more, most = (peaks[tokens, 0] for tokens in (FEW, MORE, MOST))
    pair = max(0.0, (peaks[MORE, BEFORE] - more) / (MORE * BEFORE))
    slopes = [(more - few) / (MORE - FEW), (most - more) / (MOST - MORE)]
    squares = [(slopes[1] - slopes[0]) / (MOST - FEW)]
    if (BEYOND, 0) in peaks:
        slopes.append((peaks[BEYOND, 0] - most) / (BEYOND - MOST))
        squares.append((slopes[2] - slopes[1]) / (BEYOND - MORE))
    square = max(pair, min(squares))
    last = (MORE, MOST) if len(slopes) == 2 else (MOST, BEYOND)
    token = max(0.0, slopes[-1] - square * sum(last))
    law = ScratchLaw(0.0, token, pair, square - pair)
    return replace(law, fixed=max(0.0, *(peak - law.nbytes(*shape) for shape, peak in peaks.items())))


def _measured(model: Any, kv: KV, tokens: int, before: int) -> Generator[None, None, tuple[float, Counter[bool]]]:
    """The peak, and the attention that went through a CPU's own or did not."""
    with as_planned(), left_to_mlx() as seen:
        peak = SPARE * _peak(model, kv, tokens, before)
    yield
    return peak, seen


def _peak(model: Any, kv: KV, tokens: int, before: int) -> int:
    """Bytes that were live at most beyond what is left when it is done."""
    row = _filled(kv, before)
    mx.eval(row.arrays)
    mx.synchronize()
    mx.reset_peak_memory()
    model(mx.zeros((1, tokens), dtype=mx.uint32), cache=row.layers)
    mx.eval(row.arrays)
    mx.synchronize()
    return max(0, int(mx.get_peak_memory()) - int(mx.get_active_memory()))


def _filled(kv: KV, positions: int) -> KV:
    """A row whose layers hold ``positions`` positions of nothing; a state is as it was."""
    row = kv.copy()
    for cache in parts(row.layers):
        keys, values = getattr(cache, "keys", None), getattr(cache, "values", None)
        if isinstance(keys, mx.array) and isinstance(values, mx.array):
            _refill(cache, keys, values, positions)
    return row


def _refill(cache: Any, keys: mx.array, values: mx.array, positions: int) -> None:
    """Give a cache so many empty positions instead of those that it has, where it takes them."""
    kept = copy.copy(vars(cache))
    try:
        cache.keys = cache.values = None
        cache.offset = 0
        if isinstance(cache, RotatingKVCache):
            cache._idx = 0  # noqa: SLF001  mlx-lm's windows count apart
        if positions:
            shapes = [(it.shape[0], it.shape[1], positions, it.shape[3]) for it in (keys, values)]
            cache.update_and_fetch(*(mx.zeros(shape, keys.dtype) for shape in shapes))
    except RAISED:
        vars(cache).update(kept)
