"""Attention on CUDA that asks for no plan: one kernel for a new token a row, plain products for short slices.

MLX has cuDNN plan its attention there, a tenth of a second for each new shape: rows, tokens and the positions before
them; and where rows are padded it has no kernel for a new token at all, so that a mask goes through six operations a
layer. What is computed here knows where each row begins and reads nothing before it, whatever the shape.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from app.engine.mlx.cache.padded import PaddedKVCache
from app.engine.mlx.cache.quantised import QuantisedKVCache
from app.engine.mlx.nvrtc import architecture, compiled, on_cuda

MOST_SCORES = 64 << 20
"""Bytes of scores up to which a slice of a prompt is attended to by plain products: beyond, a plan costs less."""
SCORES_HELD = 3
"""How many times those are held at once."""
LOG2_E = 1.4426950408889634
SOURCE = Path(__file__).with_name("attention.cu")
HEADS = (64, 96, 128, 256)
"""Head sizes that the kernel takes; half a warp has one."""
MOST_VALUES = 1024
"""Of the queries that look at one head of keys; twice as many are too many for a thread's registers."""
WARPS, WARP = 8, 32
BLOCKS = 264
"""Blocks that keep a large GPU busy, two for each of its multiprocessors."""
PART = 256
"""Positions that are worth a block of their own."""
MOST_PARTS = 32
TYPES = {mx.float32: 0, mx.float16: 1, mx.bfloat16: 2}
KINDS = ("whole", "part", "merged")

log = logging.getLogger(__name__)
_planned: ContextVar[bool] = ContextVar("planned", default=False)


class Form(NamedTuple):
    """What a kernel is compiled for: values of this type, heads of this size, queries for each head of keys."""

    dtype: mx.Dtype
    head: int
    group: int


Attend = Callable[[mx.array, mx.array, mx.array, mx.array, int, float], mx.array]
"""Of queries ``[rows, heads, 1, head size]``, keys and values ``[rows, heads of keys, room, head size]``, each row's
first position, ``[rows]`` int32, where all rows end, and the scale: what is heard, shaped as the queries. Nothing is
evaluated.
"""


def attend(  # noqa: PLR0917  as mlx-lm's
    queries: mx.array, keys: mx.array, values: mx.array, cache: Any, scale: float, mask: Any, sinks: mx.array | None
) -> mx.array | None:
    """What is heard, where this module has a better way than MLX; None where it has not."""
    if not on_cuda() or sinks is not None or values.shape[-1] != keys.shape[-1]:
        return None
    if queries.shape[2] > 1:
        return by_products(queries, keys, values, scale, mask) if _is_short(queries, keys, mask) else None
    part = cache.caches[0] if type(cache) is QuantisedKVCache else cache
    if type(part) is not PaddedKVCache or len(part.padding.sizes) == 1 or not part.is_padding(mask):
        return None
    made = kernel(Form(queries.dtype, queries.shape[-1], queries.shape[1] // keys.shape[1]))
    if made is None:
        return by_products(queries, keys, values, scale, mask)
    end = keys.shape[2]
    if part is cache and part.handed(keys, values):
        keys, values = part.keys, part.values  # whole arrays are read in place, slices of them would be copied
    return made(queries, keys, values, part.padding.array, end, scale)


@contextmanager
def as_planned() -> Iterator[None]:
    """Have slices attended to as long ones are, however short: to see what those take."""
    token = _planned.set(True)
    try:
        yield
    finally:
        _planned.reset(token)


def scores_bytes() -> int:
    """Most bytes that short slices hold of scores on this machine."""
    return SCORES_HELD * MOST_SCORES if on_cuda() else 0


def _is_short(queries: mx.array, keys: mx.array, mask: Any) -> bool:
    """Whether a slice is attended to by products: where MLX would plan, and little is held."""
    rows, heads, tokens, size = queries.shape
    plans = queries.dtype in {mx.bfloat16, mx.float16} and size <= 128
    known = mask is None or isinstance(mask, str) or (mask.ndim == 4 and mask.shape[1] == 1)
    held = rows * heads * tokens * keys.shape[2] * queries.dtype.size
    return plans and known and held <= MOST_SCORES and not _planned.get()


def by_products(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Any) -> mx.array:
    """Attention as two products with a softmax between; queries of one head of keys are one matrix.

    ``mask`` is None, ``"causal"`` or an array ``[rows or 1, 1, tokens, positions]``, bool or added to the scores.
    """
    rows, heads, tokens, size = queries.shape
    groups, positions = keys.shape[1], keys.shape[2]
    shape = (rows, groups, heads // groups, tokens, positions)
    together = (queries * scale).reshape(rows, groups, heads // groups * tokens, size)
    scores = (together @ keys.swapaxes(-1, -2)).reshape(shape)
    if isinstance(mask, str):
        mask = _causal(tokens, positions)
    if mask is not None:
        mask = mx.expand_dims(mask, 2)
        least = mx.array(mx.finfo(scores.dtype).min, scores.dtype)
        scores = mx.where(mask, scores, least) if mask.dtype == mx.bool_ else scores + mask.astype(scores.dtype)
    weights = mx.softmax(scores, axis=-1, precise=True).reshape(rows, groups, -1, positions)
    return (weights @ values).reshape(queries.shape)


@lru_cache(maxsize=16)
def _causal(tokens: int, positions: int) -> mx.array:
    """What each of the last ``tokens`` positions sees, ``[1, 1, tokens, positions]``; one for all layers."""
    seen = mx.arange(positions)[None] <= mx.arange(positions - tokens, positions)[:, None]
    return seen[None, None]


@cache
def kernel(form: Form) -> Attend | None:
    """The kernel for a new token of each row, if this GPU compiles it and it says what attention is. MLX thread only.

    The first call of each form compiles it, for a second.
    """
    if form.dtype not in TYPES or form.head not in HEADS or form.group * form.head > MOST_VALUES:
        return None
    try:
        made = _made(form)
        if all(_agrees(made, form, rows, positions) for rows, positions in ((3, 40), (1, 900))):
            return made
        log.warning("padded rows are attended to with masks: the kernel for it says something else here")
    except (RuntimeError, ValueError, TypeError) as failure:
        log.warning("padded rows are attended to with masks: the kernel for it fails here: %.300s", failure)
    return None


def _made(form: Form) -> Attend:
    """Not looked at yet."""
    dtype, head, group = form
    source, target = SOURCE.read_text(encoding="ascii"), architecture()
    given = f"#define D {head}\n#define G {group}\n#define W {WARPS}\n#define TYPE {TYPES[dtype]}\n"
    kinds: list[Callable[..., list[mx.array]]] = [
        partial(
            mx.fast.precompiled_cuda_kernel,
            name=kind,
            compiled_source=compiled(f"{given}#define KIND {i}\n{source}", target),
            ensure_row_contiguous=True,
        )
        for i, kind in enumerate(KINDS)
    ]
    whole, part, merged = kinds

    def run(queries: mx.array, keys: mx.array, values: mx.array, starts: mx.array, end: int, scale: float) -> mx.array:  # noqa: PLR0917
        rows, groups, room = keys.shape[:3]
        parts = parts_of(rows * groups, end)
        (made,) = (whole if parts == 1 else part)(
            inputs=[queries, keys, values, starts],
            scalars=[room, end, int(np.float32(scale * LOG2_E).view(np.int32))],
            grid=(parts * WARPS * WARP, groups, rows),
            threadgroup=(WARPS * WARP, 1, 1),
            output_shapes=[queries.shape if parts == 1 else (rows * groups * group, parts, head + 2)],
            output_dtypes=[dtype if parts == 1 else mx.float32],
        )
        if parts > 1:
            (made,) = merged(
                inputs=[made],
                scalars=[parts],
                grid=(rows * groups * group * head, 1, 1),
                threadgroup=(head, 1, 1),
                output_shapes=[queries.shape],
                output_dtypes=[dtype],
            )
        return made

    return run


def parts_of(blocks: int, positions: int) -> int:
    """Into how many parts each row's ``positions`` are cut, so that a GPU has enough to do beside ``blocks``."""
    return max(1, min(MOST_PARTS, BLOCKS // blocks, -(-positions // PART)))


def _agrees(made: Attend, form: Form, rows: int, positions: int) -> bool:
    """Whether it says what attention is, computed in float64, with rows that begin at different places."""
    random = np.random.default_rng(0)
    scale = float(form.head) ** -0.5
    starts = [7 * row for row in range(rows)]
    shapes = (rows, 2 * form.group, 1, form.head), *[(rows, 2, positions + 24, form.head)] * 2
    given = [mx.array(random.standard_normal(shape).astype(np.float32)).astype(form.dtype) for shape in shapes]
    queries, keys, values = given
    heard = made(queries, keys, values, mx.array(starts), positions, scale).astype(mx.float32)
    q, k, v = (np.array(it.astype(mx.float32)).astype(np.float64) for it in given)
    for row, start in enumerate(starts):
        scores = np.einsum("hgd,hpd->hgp", q[row].reshape(2, form.group, -1), k[row, :, start:positions]) * scale
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        wanted = np.einsum("hgp,hpd->hgd", weights, v[row, :, start:positions]).reshape(2 * form.group, -1)
        if not np.allclose(np.array(heard[row, :, 0]), wanted, rtol=2e-2, atol=2e-2):
            return False
    return True
