"""A KV cache in few bits: what mlx-lm's caches hold as one array is held as packed values, scales and biases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import CacheList, KVCache

from app.engine.mlx.cache.padded import PaddedKVCache
from app.engine.options import KV_GROUPS, kv_group


class QuantisedKVCache(CacheList):  # type: ignore[misc]  # mlx-lm has no types
    """One layer's keys and values in ``bits`` bits per value, for one row or for several that were merged.

    Its parts are three plain caches, of the packed values, their scales and their biases. All three have the shape
    ``[rows, heads, tokens, size]``, so that padding, merging, rolling and trimming are what they are elsewhere: a part
    is a ``KVCache`` for a lone row and a ``PaddedKVCache`` once merged. Having ``bits`` is what makes mlx-lm's
    attention take its keys and values as triples, with ``group_size`` values to a scale.
    """

    def __init__(self, bits: int, parts: Sequence[Any] = ()) -> None:
        super().__init__(*(parts or (KVCache(), KVCache(), KVCache())))
        self.bits = bits
        self.group_size = KV_GROUPS[0]

    @property
    def offset(self) -> Any:
        """Tokens held: an int for a lone row, an array with each row's own number once merged."""
        return self.caches[0].offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[tuple[mx.array, ...], tuple[mx.array, ...]]:
        """Append ``[rows, heads, tokens, head size]``; all keys and all values so far, as triples.

        Raises ValueError for heads that are not made of whole groups.
        """
        sizes = keys.shape[-1], values.shape[-1]
        group = kv_group(*sizes)
        if group is None:
            told = " and ".join(str(size) for size in dict.fromkeys(sizes))
            raise ValueError(f"its heads have {told} values, which groups of {KV_GROUPS[-1]} do not divide")
        self.group_size = group
        added = [mx.quantize(it, group_size=group, bits=self.bits) for it in (keys, values)]
        for part, *pair in zip(self.caches, *added, strict=True):
            part.update_and_fetch(*pair)
        return self.keys_and_values()

    def keys_and_values(self) -> tuple[tuple[mx.array, ...], tuple[mx.array, ...]]:
        """All keys and all values so far, as triples."""
        keys, values = zip(*(part.keys_and_values() for part in self.caches), strict=True)
        return keys, values

    def make_mask(self, *args: Any, **kwargs: Any) -> Any:
        """The mask that a cache of plain values has."""
        return self.caches[0].make_mask(*args, **kwargs)

    @classmethod
    def merge(cls, caches: Sequence[QuantisedKVCache]) -> QuantisedKVCache:
        """Rows of one model side by side, left-padded to the longest."""
        columns = zip(*(cache.caches for cache in caches), strict=True)
        return cls(caches[0].bits, [PaddedKVCache.merge(column) for column in columns])

    def extract(self, idx: int) -> QuantisedKVCache:
        """A copy of one merged row."""
        return QuantisedKVCache(self.bits, [part.extract(idx) for part in self.caches])


def quantise_layers(layers: Sequence[Any], bits: int) -> list[Any]:
    """The same empty caches, the plain ones quantised; a sliding window or a recurrent state stays as it is."""
    return [QuantisedKVCache(bits) if type(layer) is KVCache else layer for layer in layers]
