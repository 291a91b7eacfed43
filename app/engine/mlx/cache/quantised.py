"""A KV cache in few bits: what mlx-lm's caches hold as one array is held as packed values, scales and biases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import CacheList, KVCache

from app.engine.mlx.cache.padded import PaddedKVCache
from app.engine.options import KV_GROUPS, kv_group


class QuantisedKVCache(CacheList):  # type: ignore[misc]  # mlx-lm has no types
    """One layer's keys and values in ``width`` bits per value, for one row or for several that were merged.

    Its parts are three plain caches, of the packed values, their scales and their biases. All three have the shape
    ``[rows, heads, tokens, size]``, so that padding, merging, rolling and trimming are what they are elsewhere: a part
    is a ``KVCache`` for a lone row and a ``PaddedKVCache`` once merged. Attention is given plain keys and values, made
    of them anew in each pass: any attention takes those, and one layer's at a time are held.
    """

    def __init__(self, width: int, parts: Sequence[Any] = ()) -> None:
        super().__init__(*(parts or (KVCache(), KVCache(), KVCache())))
        self.width = width
        self.group_size = KV_GROUPS[0]

    @property
    def offset(self) -> Any:
        """Tokens held: an int for a lone row, an array with each row's own number once merged."""
        return self.caches[0].offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        """Append ``[rows, heads, tokens, head size]``; all keys and all values so far.

        Raises ValueError for heads that are not made of whole groups.
        """
        sizes = keys.shape[-1], values.shape[-1]
        group = kv_group(*sizes)
        if group is None:
            listed = " and ".join(str(size) for size in dict.fromkeys(sizes))
            raise ValueError(f"its heads have {listed} values, which groups of {KV_GROUPS[-1]} do not divide")
        self.group_size = group
        added = [mx.quantize(it, group_size=group, bits=self.width) for it in (keys, values)]
        for part, *pair in zip(self.caches, *added, strict=True):
            part.update_and_fetch(*pair)
        return self.keys_and_values()

    def keys_and_values(self) -> tuple[Any, Any]:
        """All keys and all values so far; slices of what is allocated, as plain caches hand them out."""
        end, kept = self.caches[0].size(), {"group_size": self.group_size, "bits": self.width}
        keys = mx.dequantize(*(part.keys for part in self.caches), **kept)
        values = mx.dequantize(*(part.values for part in self.caches), **kept)
        return keys[..., :end, :], values[..., :end, :]

    def make_mask(self, *args: Any, **kwargs: Any) -> Any:
        """The mask that a cache of plain values has."""
        return self.caches[0].make_mask(*args, **kwargs)

    @classmethod
    def merge(cls, caches: Sequence[QuantisedKVCache]) -> QuantisedKVCache:
        """Rows of one model side by side, left-padded to the longest."""
        columns = zip(*(cache.caches for cache in caches), strict=True)
        return cls(caches[0].width, [PaddedKVCache.merge(column) for column in columns])

    def extract(self, idx: int) -> QuantisedKVCache:
        """A copy of one merged row."""
        return type(self)(self.width, [part.extract(idx) for part in self.caches])


class PackedKVCache(QuantisedKVCache):
    """The same where attention multiplies packed values, which MLX has no kernel for on CUDA.

    Having ``bits`` is what makes mlx-lm's attention take keys and values as triples, with ``group_size`` values to a
    scale.
    """

    @property
    def bits(self) -> int:
        """Bits per value."""
        return self.width

    def keys_and_values(self) -> tuple[Any, Any]:
        """All keys and all values so far, as triples."""
        keys, values = zip(*(part.keys_and_values() for part in self.caches), strict=True)
        return keys, values


def quantise_layers(layers: Sequence[Any], bits: int) -> list[Any]:
    """The same empty caches, the plain ones quantised; a sliding window or a recurrent state stays as it is."""
    kind = QuantisedKVCache if mx.cuda.is_available() else PackedKVCache
    return [kind(bits) if type(layer) is KVCache else layer for layer in layers]
