"""Rows of one batch in classes of like length, so that no row pays for another's length.

A rectangle of keys is as long as its longest row. Rows whose lengths are too different therefore lie in rectangles of
their own, the classes: a layer computes its projections for all rows at once and its attention class by class.
mlx-lm's models take what a cache returns for keys, values and mask, and hand it to one function, which is given a
version that knows classes. A model that does something else with them is found by the check at load and keeps one
rectangle a batch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import mlx.core as mx
from mlx_lm.models import base
from mlx_lm.models.cache import _BaseCache

from app.engine.mlx.cache import cpu_attention, cpu_slices
from app.engine.mlx.cache.attention import attend
from app.engine.mlx.cache.padded import PaddedKVCache

ATTENTION = "scaled_dot_product_attention"


class Parts:
    """Keys, values or masks, class by class, as far as models look at them on the way to their attention.

    ``caches`` are what they come from and ``ends`` where arrays of all rows are split.
    """

    def __init__(self, arrays: Sequence[Any], caches: Sequence[Any], ends: list[int]) -> None:
        self.arrays = arrays
        self.caches = caches
        self.ends = ends

    @property
    def dtype(self) -> Any:
        """The arrays' own."""
        return self.arrays[0].dtype

    def astype(self, dtype: mx.Dtype) -> Parts:
        """The same in another type."""
        return Parts([array.astype(dtype) for array in self.arrays], self.caches, self.ends)

    @cached_property
    def added(self) -> list[mx.array | None]:
        """Masks to be added, made once for all layers of a step."""
        return [None if mask is None else cpu_attention.as_added(mask) for mask in self.arrays]


class ClassedCache(_BaseCache):  # type: ignore[misc]  # mlx-lm has no types
    """One layer's caches of several rows each, one for each class. MLX thread only."""

    def __init__(self, parts: Sequence[Any], rows: Sequence[int]) -> None:
        self.parts = list(parts)
        self.rows = list(rows)

    @property
    def ends(self) -> list[int]:
        """Where each class's rows begin, but for the first: where arrays of all rows are split."""
        return list(accumulate(self.rows))[:-1]

    @property
    def offset(self) -> mx.array:
        """Tokens that each row holds."""
        if all(type(part) is PaddedKVCache for part in self.parts):
            return _offsets(tuple((part.padding.sizes, part.size()) for part in self.parts))
        return mx.concatenate([part.offset for part in self.parts])

    @property
    def state(self) -> list[Any]:
        """What has to be evaluated."""
        return [part.state for part in self.parts]

    @property
    def nbytes(self) -> int:
        """Bytes held by all classes."""
        return sum(part.nbytes for part in self.parts)

    def size(self) -> int:
        """Positions of the longest class."""
        return max(int(part.size()) for part in self.parts)

    def empty(self) -> bool:
        """Whether nothing is held."""
        return all(part.empty() for part in self.parts)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Parts, Parts]:
        """Append ``[rows, heads, tokens, head size]``; all keys and values so far, class by class."""
        added = zip(self.parts, mx.split(keys, self.ends), mx.split(values, self.ends), strict=True)
        return self._parts([part.update_and_fetch(k, v) for part, k, v in added])

    def keys_and_values(self) -> tuple[Parts, Parts]:
        """All keys and values so far, class by class."""
        return self._parts([part.keys_and_values() for part in self.parts])

    def _parts(self, held: Sequence[tuple[Any, Any]]) -> tuple[Parts, Parts]:
        keys, values = zip(*held, strict=True)
        return Parts(keys, self.parts, self.ends), Parts(values, self.parts, self.ends)

    def make_mask(self, *args: Any, **kwargs: Any) -> Parts | None:
        """Each class's mask, or None where none of them needs one."""
        masks = [part.make_mask(*args, **kwargs) for part in self.parts]
        return None if all(mask is None for mask in masks) else Parts(masks, self.parts, self.ends)

    def extract(self, idx: int) -> Any:
        """A copy of one row."""
        for part, rows in zip(self.parts, self.rows, strict=True):
            if idx < rows:
                return part.extract(idx)
            idx -= rows
        raise IndexError(idx)


@lru_cache(maxsize=64)
def _offsets(classes: tuple[tuple[tuple[int, ...], int], ...]) -> mx.array:
    """One array for all layers of a step."""
    return mx.array([end - size for sizes, end in classes for size in sizes])


def attend_by_class(model: Any) -> None:
    """Let the modules that ``model`` is made of attend class by class where a cache has classes."""
    for name in {type(module).__module__ for _, module in model.named_modules()}:
        module = sys.modules[name]
        if vars(module).get(ATTENTION) is base.scaled_dot_product_attention:
            setattr(module, ATTENTION, scaled_dot_product_attention)


def scaled_dot_product_attention(  # noqa: PLR0917  as mlx-lm's
    queries: mx.array, keys: Any, values: Any, cache: Any, scale: float, mask: Any, sinks: mx.array | None = None
) -> mx.array:
    """mlx-lm's, for one class after the other where ``keys`` are :class:`Parts`.

    Raises ValueError for a mask over the keys of all rows, which classes do not have.
    """
    if not isinstance(keys, Parts):
        if not hasattr(cache, "bits") and cpu_attention.suits(queries, keys, mask, sinks):
            added = None if mask is None else cpu_attention.as_added(mask)
            return cpu_attention.attend(queries, [(keys, values, added)], scale)
        return _attention(queries, keys, values, cache, scale, mask, sinks)
    if mask is not None and not isinstance(mask, Parts):
        raise ValueError("A mask of all rows does not fit their classes.")
    masks = [None] * len(keys.arrays) if mask is None else mask.arrays
    if all(cpu_attention.suits(queries, k, its, sinks) for k, its in zip(keys.arrays, masks, strict=True)):
        added = masks if mask is None else mask.added
        return cpu_attention.attend(queries, list(zip(keys.arrays, values.arrays, added, strict=True)), scale)
    classes = zip(mx.split(queries, keys.ends), keys.arrays, values.arrays, keys.caches, masks, strict=True)
    return mx.concatenate([_attention(q, k, v, part, scale, its, sinks) for q, k, v, part, its in classes])


def _attention(  # noqa: PLR0917  as mlx-lm's
    queries: mx.array, keys: mx.array, values: mx.array, cache: Any, scale: float, mask: Any, sinks: mx.array | None
) -> mx.array:
    if not hasattr(cache, "bits") and cpu_slices.suits(queries, keys, mask, cache):
        return cpu_slices.attend(queries, keys, values, scale, mask, sinks)
    heard = attend(queries, keys, values, cache, scale, mask, sinks)
    if heard is None:
        heard = base.scaled_dot_product_attention(queries, keys, values, cache, scale, mask, sinks)
    return heard
