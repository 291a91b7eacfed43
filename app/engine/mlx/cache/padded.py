"""The KV cache of several rows, left-padded to the longest, whose padding the host knows as well.

mlx-lm's own asks the device of every layer how the rows are padded whenever one of them ends, and counts every layer's
positions apart. All layers of a batch are padded alike, so here they share what is known of it: rows come and go
without waiting for the device, and a step computes nothing that is not the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from weakref import ref

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, KVCache, dynamic_roll

from app.engine.mlx.cache.arrangement import STEP
from app.engine.mlx.loaded import ABLE

MASKS = 8


class Padding:
    """How many positions stand empty before each row's first token, on the host and on the device."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes
        self.array = mx.array(sizes)
        self._end, self._tokens = 0, mx.array([-size for size in sizes])
        self.masks: dict[int, Callable[[], mx.array | None]] = {}
        """References to masks of the next token that were made lately, by the positions filled before it."""

    def tokens(self, end: int) -> mx.array:
        """How many tokens each row holds where ``end`` positions are filled, ``[rows]``."""
        if end != self._end:
            self._end, self._tokens = end, mx.array([end - size for size in self.sizes])
        return self._tokens


@lru_cache(maxsize=64)
def padding_of(sizes: tuple[int, ...]) -> Padding:
    """One object for all layers of a batch."""
    return Padding(sizes)


class PaddedKVCache(BatchKVCache):  # type: ignore[misc]  # mlx-lm has no types
    """One layer's keys and values, each ``[rows, heads, allocated positions, head size]``. MLX thread only.

    ``left_padding`` and ``offset`` are what mlx-lm's models read: ``[rows]``, positions before the first token and
    tokens held. ``mask_axes`` of the mask are what the model takes.
    """

    def __init__(self, sizes: Sequence[int], mask_axes: int = ABLE.mask_axes) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self._idx = 0
        self._right: Sequence[int] = ()
        self._handed: tuple[Callable[[], mx.array | None], ...] = (_nothing, _nothing)
        self.padding = padding_of(tuple(sizes))
        self.mask_axes = mask_axes

    @property
    def left_padding(self) -> mx.array:
        """Positions before each row's first token."""
        return self.padding.array

    @property
    def offset(self) -> mx.array:
        """Tokens that each row holds."""
        return self.padding.tokens(self._idx)

    @property
    def state(self) -> tuple[mx.array | None, mx.array | None]:
        """What has to be evaluated."""
        return self.keys, self.values

    @property
    def full(self) -> bool:
        """Whether the next token needs room that is not there yet."""
        return self.keys is not None and self._idx >= self.keys.shape[2]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append ``[rows, heads, tokens, head size]``; all keys and all values so far."""
        start, self._idx = self._idx, self._idx + keys.shape[2]
        self.keys = self._with_room(self.keys, keys, start)
        self.values = self._with_room(self.values, values, start)
        self.keys[..., start : self._idx, :] = keys
        self.values[..., start : self._idx, :] = values
        fetched: tuple[mx.array, mx.array] = self.keys_and_values()
        self._handed = ref(fetched[0]), ref(fetched[1])  # to hold them would have what is held copied at the next step
        return fetched

    def _with_room(self, held: mx.array | None, added: mx.array, start: int) -> mx.array:
        """``held`` with positions for ``added`` behind ``start``; room is made in whole steps."""
        if held is not None and self._idx <= held.shape[2]:
            return held
        rows, heads, _, size = added.shape
        room = mx.zeros((rows, heads, _room(self._idx) - start, size), added.dtype)
        return room if held is None else mx.concatenate([held[..., :start, :], room], axis=2)

    def make_mask(self, N: int, return_array: bool = False, **kwargs: Any) -> mx.array | None:  # noqa: N803  as mlx-lm calls it
        """Which keys each of the next ``N`` queries sees, ``[rows, 1, N, keys]``; one axis more where that is asked.

        None where the next token sees all: attention without a mask is faster.
        """
        if N == 1 and not return_array and kwargs.get("window_size") is None and not any(self.padding.sizes):
            return None
        mask: mx.array = super().make_mask(N, return_array, **kwargs)
        mask = mask if self.mask_axes == mask.ndim else mx.expand_dims(mask, 1)
        if N == 1 and kwargs.get("window_size") is None:
            if len(self.padding.masks) >= MASKS:
                self.padding.masks.clear()
            self.padding.masks[self._idx] = ref(mask)
        return mask

    def is_padding(self, mask: Any) -> bool:
        """Whether ``mask`` says of the latest token what the padding says, and nothing else."""
        if mask is None:
            return not any(self.padding.sizes)
        return mask is self.padding.masks.get(self._idx - 1, _nothing)()

    def handed(self, keys: mx.array, values: mx.array) -> bool:
        """Whether these are what was handed out last, all that is held."""
        return self._handed[0]() is keys and self._handed[1]() is values

    def prepare(
        self,
        *,
        left_padding: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,  # noqa: ARG002  a sliding window's cache asks for them
        right_padding: Sequence[int] | None = None,
    ) -> None:
        """Tell that the rows to come are padded; what stands behind their ends is moved away by :meth:`finalize`."""
        if left_padding is not None:
            self._pad(left_padding)
        self._right = right_padding or ()

    def finalize(self) -> None:
        """Move what stands behind each row's end before its beginning."""
        if any(self._right):
            shifts = mx.array(self._right)[:, None]
            self.keys = dynamic_roll(self.keys, shifts, axis=2)
            self.values = dynamic_roll(self.values, shifts, axis=2)
            self._pad(self._right)
        self._right = ()

    def trim(self, n: int) -> int:
        """Take the last ``n`` tokens off; how many there were."""
        n = min(self._idx, n)
        self._idx -= n
        return n

    def filter(self, batch_indices: mx.array) -> None:
        """Keep these rows, in this order, and no padding that none of them needs."""
        sizes = [self.padding.sizes[row] for row in batch_indices.tolist()]
        spare = min(sizes)
        if self.keys is not None and self.values is not None:
            kept = slice(spare, spare + _room(self._idx - spare))
            self.keys, self.values = (it[batch_indices][..., kept, :] for it in (self.keys, self.values))
        self._idx -= spare
        self.padding = padding_of(tuple(size - spare for size in sizes))

    def extend(self, other: PaddedKVCache) -> None:
        """Add another cache's rows behind these."""
        both = (self, other)
        end = max(cache.size() for cache in both)
        sizes = [size + end - cache.size() for cache in both for size in cache.padding.sizes]
        ends = [(len(cache.padding.sizes), cache.size()) for cache in both]
        self.keys = _side_by_side([cache.keys for cache in both], ends)
        self.values = _side_by_side([cache.values for cache in both], ends)
        self._idx, self.padding = end, padding_of(tuple(sizes))

    def extract(self, idx: int) -> KVCache:
        """A copy of one row."""
        cache = KVCache()
        if self.keys is not None and self.values is not None:
            held = slice(self.padding.sizes[idx], self._idx)
            cache.keys, cache.values = (mx.contiguous(it[idx : idx + 1, :, held]) for it in (self.keys, self.values))
            cache.offset = cache.keys.shape[2]
        return cache

    @classmethod
    def merge(cls, caches: Sequence[KVCache], mask_axes: int = ABLE.mask_axes) -> PaddedKVCache:
        """Lone rows side by side."""
        end = max(cache.offset for cache in caches)
        ends = [(1, cache.offset) for cache in caches]
        merged = cls([end - cache.offset for cache in caches], mask_axes)
        merged.keys = _side_by_side([cache.keys for cache in caches], ends)
        merged.values = _side_by_side([cache.values for cache in caches], ends)
        merged._idx = end
        return merged

    def _pad(self, sizes: Sequence[int]) -> None:
        self.padding = padding_of(tuple(map(sum, zip(self.padding.sizes, sizes, strict=True))))


def _nothing() -> None:
    """Nothing was handed out yet."""


def _room(positions: int) -> int:
    """What is allocated for so many: whole steps."""
    return -(-positions // STEP) * STEP


def _side_by_side(parts: Sequence[mx.array | None], ends: Sequence[tuple[int, int]]) -> mx.array | None:
    """``parts``, each ``[rows, heads, positions, size]``, as one in which all rows end at the same position.

    ``ends`` are the rows of each part and its filled positions; a part is None where nothing is filled.
    """
    known = [part for part in parts if part is not None]
    if not known:
        return None
    _, heads, _, size = known[0].shape
    end = max(filled for _, filled in ends)
    room = min(_room(end), max(part.shape[2] for part in known))
    placed = []
    for part, (rows, filled) in zip(parts, ends, strict=True):
        left = end - filled
        held = mx.zeros((rows, heads, 0, size), known[0].dtype) if part is None else part[..., : room - left, :]
        right = room - left - held.shape[2]
        placed.append(mx.pad(held, [(0, 0), (0, 0), (left, right), (0, 0)]) if left or right else held)
    return mx.concatenate(placed)
