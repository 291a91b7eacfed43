"""Attention of many tokens a row on a CPU, where MLX holds all scores at once and computes exponentials one at a time.

Here a few queries look at a few thousand keys at a time. What is held does not grow with the context and hardly leaves
a core's cache; the parts are put together by their greatest scores and their sums, as FlashAttention does (Dao et al.,
https://arxiv.org/abs/2205.14135).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import mlx.core as mx

from app.engine.mlx.cache.cpu_attention import LOWEST, as_added, exponentials, on_cpu

SCORES = 1 << 17
"""At once, and at most so many ``KEYS``; measured for head sizes of 16 to 128 behind 512 to 32,768 positions."""
KEYS = 4096
FEWEST = 16_000
"""Scores of a layer from which on this is faster."""
HELD = 24 << 20
"""Most bytes that one layer holds of scores: MLX hands over the next few parts while one is computed."""

_seen: ContextVar[Counter[bool] | None] = ContextVar("seen", default=None)
_unread: ContextVar[object] = ContextVar("unread", default=None)


@contextmanager
def unread(cache: object) -> Iterator[None]:
    """Nothing reads what this layer hears: MLX's attention is one operation, which is then left out, ours many."""
    token = _unread.set(cache)
    try:
        yield
    finally:
        _unread.reset(token)


@contextmanager
def left_to_mlx() -> Iterator[Counter[bool]]:
    """Take nothing, but count what else would have been taken however short, and what not."""
    seen = Counter[bool]()
    token = _seen.set(seen)
    try:
        yield seen
    finally:
        _seen.reset(token)


class _Part(NamedTuple):
    """What some queries hear of some keys, not yet divided: ``[rows, key heads, queries, 1 or head size]`` each."""

    greatest: mx.array
    total: mx.array
    heard: mx.array

    def beside(self, other: _Part) -> _Part:
        """What they hear of both."""
        greatest = mx.maximum(self.greatest, other.greatest)
        mine, its = mx.exp(self.greatest - greatest), mx.exp(other.greatest - greatest)
        return _Part(greatest, mine * self.total + its * other.total, mine * self.heard + its * other.heard)


class _Mask(NamedTuple):
    """Who sees what: an array ``[rows or 1, 1, queries or 1, keys]``, or each query all keys up to its own, or all."""

    array: mx.array | None
    causal: bool

    def added(self, queries: range, keys: range) -> mx.array | None:
        """What is added to the scores of some of them, ``[rows or 1, 1, 1, queries, keys]``; positions count keys."""
        if self.array is not None:
            some = self.array if self.array.shape[2] == 1 else self.array[:, :, queries.start : queries.stop]
            return as_added(some[..., keys.start : keys.stop])[:, :, None]
        if not self.causal or keys.stop - 1 <= queries.start:
            return None
        seen = mx.arange(queries.start, queries.stop)[:, None] >= mx.arange(keys.start, keys.stop)
        return mx.where(seen, 0.0, LOWEST)[None, None, None]


def suits(queries: mx.array, keys: object, mask: Any, cache: object = None) -> bool:
    """Whether :func:`attend` takes this and gains: float32, several tokens a row, a mask that is one for all heads.

    ``cache`` is the layer's.
    """
    if cache is not None and cache is _unread.get():
        return False
    takes = isinstance(keys, mx.array) and _takes(queries, keys, mask)
    if (seen := _seen.get()) is not None:
        seen[takes] += 1
        return False
    return takes and queries.size // queries.shape[-1] * keys.shape[2] >= FEWEST  # type: ignore[attr-defined]


def _takes(queries: mx.array, keys: mx.array, mask: Any) -> bool:
    rows, _, tokens, _ = queries.shape
    if not (on_cpu() and tokens > 1 and queries.dtype == keys.dtype == mx.float32):
        return False
    if not isinstance(mask, mx.array):
        return mask is None or mask == "causal"
    for_all = mask.ndim == 2 or (mask.ndim == 4 and mask.shape[1] == 1 and mask.shape[0] in {1, rows})
    return for_all and mask.shape[-2] in {1, tokens} and mask.shape[-1] == keys.shape[2]


def attend(  # noqa: PLR0917  as MLX's own
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Any, sinks: mx.array | None = None
) -> mx.array:
    """``[rows, heads, tokens, value size]`` of ``queries``, ``[rows, heads, tokens, head size]``.

    ``keys`` and ``values`` are ``[rows, key heads, positions, size]``; ``mask`` is None, ``"causal"`` or an array, bool
    or added to the scores, ``[tokens or 1, positions]`` behind ``[rows or 1, 1]`` or nothing. ``sinks`` are scores, one
    for each head, of a key that has no value.
    """
    rows, heads, tokens, size = queries.shape
    groups, positions = keys.shape[1], keys.shape[2]
    each = heads // groups
    queries = (queries * scale).reshape(rows, groups, each, tokens, size)
    sinks = None if sinks is None else sinks.astype(mx.float32).reshape(1, groups, each, 1, 1)
    seen = _Mask(None, causal=mask is not None)
    if isinstance(mask, mx.array):
        seen = _Mask(mask[None, None] if mask.ndim == 2 else mask, causal=False)
    parts = SCORES // (each * min(KEYS, positions))
    some = max(1, min(tokens, parts))
    together = max(1, parts // some)
    heard = list[list[mx.array]]()
    for row in range(0, rows, step := max(1, together // groups)):
        of = slice(row, row + step)
        its = seen if seen.array is None or seen.array.shape[0] == 1 else seen._replace(array=seen.array[of])
        heard.append([])
        for head in range(0, groups, together):
            at = of, slice(head, head + together)
            sunk = None if sinks is None else sinks[:, at[1]]
            heard[-1].append(_by_queries(queries[at], keys[at], values[at], its, sunk, some))
    return _joined([_joined(its, 1) for its in heard], 0).reshape(rows, heads, tokens, -1)


def _by_queries(  # noqa: PLR0917
    queries: mx.array, keys: mx.array, values: mx.array, mask: _Mask, sinks: mx.array | None, some: int
) -> mx.array:
    """What ``[rows, key heads, heads of each, tokens, size]`` hear, so many tokens at a time."""
    rows, groups, each, tokens, size = queries.shape
    before, heard = keys.shape[2] - tokens, list[mx.array]()
    for at in range(0, tokens, some):
        its = range(before + at, before + min(at + some, tokens))
        asked = _after(heard[-1:], queries[:, :, :, at : at + some]).reshape(rows, groups, -1, size)
        part = _by_keys(asked, keys, values, mask, its if mask.array is None else range(at, at + len(its)))
        if sinks is not None:
            sunk = mx.broadcast_to(sinks, (rows, groups, each, len(its), 1)).reshape(rows, groups, -1, 1)
            part = part.beside(_Part(sunk, mx.ones_like(sunk), mx.zeros_like(sunk)))
        heard.append((part.heard / part.total).reshape(rows, groups, each, len(its), -1))
    return _joined(heard, 3)


def _by_keys(queries: mx.array, keys: mx.array, values: mx.array, mask: _Mask, its: range) -> _Part:
    """What some ``[rows, key heads, heads of each * queries, size]`` hear; the latter stand at ``its`` positions."""
    whole: _Part | None = None
    end = its.stop if mask.causal else keys.shape[2]
    for at in range(0, end, KEYS):
        seen = range(at, min(at + KEYS, end))
        scores = _after([] if whole is None else [whole.heard], queries) @ keys[:, :, seen.start : seen.stop].swapaxes(
            -1, -2
        )
        added = mask.added(its, seen)
        if added is not None:
            shape = scores.shape
            scores = (scores.reshape(*shape[:2], -1, len(its), len(seen)) + added).reshape(shape)
        greatest = mx.maximum(mx.max(scores, axis=-1, keepdims=True), LOWEST)
        weights = exponentials(scores - greatest)
        total = weights @ mx.ones((len(seen), 1))
        part = _Part(greatest, total, weights @ values[:, :, seen.start : seen.stop])
        whole = part if whole is None else whole.beside(part)
    if whole is None:
        raise ValueError("There is nothing to look at.")
    return whole


def _after(done: list[mx.array], array: mx.array) -> mx.array:
    """``array``, not before what is ``done``: MLX would begin with twenty parts at once, and hold all of them."""
    return array if not done else mx.depends([array], done)[0]


def _joined(parts: Sequence[mx.array], axis: int) -> mx.array:
    return parts[0] if len(parts) == 1 else mx.concatenate(list(parts), axis=axis)
