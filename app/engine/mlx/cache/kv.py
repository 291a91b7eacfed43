"""The KV cache of a batch: mlx-lm's per-layer caches, told apart only by whether they are merged."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import (
    ArraysCache,
    KVCache,
    _BaseCache,
    can_trim_prompt_cache,
    make_prompt_cache,
    trim_prompt_cache,
)

from app.engine.mlx.cache import cpu_slices
from app.engine.mlx.cache.arrangement import Groups
from app.engine.mlx.cache.journal import Journal, SharedModel, recorded
from app.engine.mlx.cache.layers import arranged_layer, bytes_per_token, merged_layer, own_states, parts, trim_rows
from app.engine.mlx.cache.padded import PaddedKVCache
from app.engine.mlx.cache.quantised import QuantisedKVCache, quantise_layers
from app.engine.mlx.cache.segments import Cuttable
from app.engine.mlx.loaded import ABLE


class KV(Cuttable):
    """One cache object per layer, holding ``rows`` rows.

    A lone row keeps the plain caches that the model made (no padding mask, the fastest attention); several rows share
    merged ones, left-padded to the longest. A model whose caches cannot be merged is never batched. MLX thread only.

    ``mask_axes`` is the model's: see :class:`app.engine.mlx.loaded.Abilities`. ``classes`` are the rows of each class
    (:mod:`app.engine.mlx.cache.classes`); where there is one, layers are as mlx-lm has them.

    What changes it is ``recorded``, for models that lie on several ranks (:mod:`app.engine.mlx.cache.journal`).
    """

    def __init__(
        self,
        layers: list[Any],
        rows: int,
        *,
        merged: bool,
        mask_axes: int = ABLE.mask_axes,
        classes: Sequence[int] = (),
    ) -> None:
        self.layers = layers
        self.rows = rows
        self.merged = merged
        self.mask_axes = mask_axes
        self.classes = tuple(classes) or (rows,)
        self.journal: Journal | None = None

    @classmethod
    def fresh(cls, model: Any, bits: int | None = None, mask_axes: int = ABLE.mask_axes) -> KV:
        """An empty cache for one row, in ``bits`` bits per value where a layer's cache is plain; None: as computed."""
        if isinstance(model, SharedModel):
            shared: KV = model.journal.fresh(model, bits, mask_axes)
            return shared
        layers = make_prompt_cache(model)
        layers = layers if bits is None else quantise_layers(layers, bits)
        return cls(layers, 1, merged=False, mask_axes=mask_axes)

    @property
    def quantised_layers(self) -> int:
        """How many layers hold their keys and values in few bits."""
        return sum(isinstance(layer, QuantisedKVCache) for layer in self.layers)

    @property
    def batchable(self) -> bool:
        """Whether rows can share one cache; mlx-lm's classes say so by having ``merge``."""
        return self.merged or all(callable(getattr(layer, "merge", None)) for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes held by all layers."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def positions(self) -> int:
        """Positions filled, padding among them; 0 where no layer counts them."""
        return max((int(layer.size()) for layer in self.layers if isinstance(layer, _BaseCache)), default=0)

    @property
    def arrays(self) -> list[Any]:
        """What has to be evaluated for the cache to be computed."""
        return [layer.state for layer in self.layers]

    @property
    def plain(self) -> bool:
        """Whether every layer simply appends: what stands behind a row's end can be taken off without a trace."""
        return all(type(part) is KVCache for part in parts(self.layers))

    @property
    def trimmable(self) -> bool:
        """Whether the last tokens can be taken off again."""
        return bool(can_trim_prompt_cache(self.layers))

    @recorded
    def trim(self, tokens: int) -> None:
        """Take the last ``tokens`` tokens off."""
        if tokens:
            trim_prompt_cache(self.layers, tokens)

    def bytes_per_token(self) -> int:
        """Bytes that one token of one row takes, by the shapes ``[rows, heads, allocated tokens, head size]``."""
        return bytes_per_token(self.layers) // self.rows

    @property
    def groups(self) -> Groups:
        """The rows of each class."""
        ends = list(accumulate(self.classes))
        return [list(range(end - rows, end)) for rows, end in zip(self.classes, ends, strict=True)]

    @property
    def grows(self) -> bool:
        """Whether the next token makes some class allocate."""
        return any(type(part) is PaddedKVCache and part.full for part in parts(self.layers))

    @recorded
    def select(self, rows: Sequence[int]) -> KV:
        """Keep these rows, in this order; a row named twice is copied. The receiver must not be used afterwards.

        Where there are classes, the order must be theirs.
        """
        if list(rows) == list(range(self.rows)):
            return self
        kv = self.as_merged()
        if len(kv.classes) > 1:
            wanted = set(rows)
            return kv.arranged([kept for group in kv.groups if (kept := [row for row in group if row in wanted])])
        kept = mx.array(rows)
        for layer in kv.layers:
            layer.filter(kept)
        kv.rows, kv.classes = len(rows), (len(rows),)
        return _queued(kv)

    @recorded
    def join(self, other: KV, groups: Groups | None = None) -> KV:
        """All rows of both, in ``groups`` of their numbers, the receiver's first; by default in one class.

        Neither must be used afterwards. Their order is that of the groups.
        """
        kinds = zip(self.as_merged().layers, other.as_merged().layers, strict=True)
        groups = [list(range(self.rows + other.rows))] if groups is None else groups
        layers = [arranged_layer([mine, theirs], [self.classes, other.classes], groups) for mine, theirs in kinds]
        return self._arranged(layers, groups)

    @recorded
    def arranged(self, groups: Groups) -> KV:
        """The rows in these groups, in their order; rows that are in none are let go. The receiver is used up."""
        layers = [arranged_layer([layer], [self.classes], groups) for layer in self.as_merged().layers]
        return self._arranged(layers, groups)

    def _arranged(self, layers: list[Any], groups: Groups) -> KV:
        sizes = [len(group) for group in groups]
        return _queued(KV(layers, sum(sizes), merged=True, mask_axes=self.mask_axes, classes=sizes))

    @recorded
    def as_merged(self) -> KV:
        """The same rows in merged caches."""
        return self if self.merged else self.beside(())

    @recorded
    def beside(self, others: Sequence[KV]) -> KV:
        """This row and others, all in plain caches, as one merged cache."""
        columns = zip(*(kv.layers for kv in (self, *others)), strict=True)
        layers = [merged_layer(column, self.mask_axes) for column in columns]
        return KV(layers, 1 + len(others), merged=True, mask_axes=self.mask_axes)

    @recorded
    def row(self, index: int) -> KV:
        """A copy of one row in plain caches."""
        if not self.merged:
            return self.copy()
        return KV([layer.extract(index) for layer in self.layers], 1, merged=False, mask_axes=self.mask_axes)

    @recorded
    def apart(self) -> KV:
        """The same rows, each in a cache of its own: a plain one, or a class of one. The receiver is used up."""
        if self.rows == 1:
            return self.row(0) if self.merged else self
        return self if max(self.classes) == 1 else self.arranged([[row] for row in range(self.rows)])

    @recorded
    def take_back(self, tokens: Sequence[int]) -> None:
        """Take the last ``tokens`` tokens off each row; the rows lie :meth:`apart`."""
        trim_rows(self.layers, tokens)

    @recorded
    def copy(self, mask_axes: int | None = None) -> KV:
        """An independent copy; its arrays share memory until either side writes. It may have other ``mask_axes``."""
        axes = self.mask_axes if mask_axes is None else mask_axes
        layers = [copy.deepcopy(layer) for layer in self.layers]
        return KV(layers, self.rows, merged=self.merged, mask_axes=axes, classes=self.classes)

    def fill(self, model: Any, tokens: mx.array) -> None:
        """Compute ``tokens``, ``[rows, positions]``, behind what is held, and wait; the output layer never runs."""
        if isinstance(model, SharedModel):
            model.journal.forward(model, self.layers, tokens, logits=False)
        else:
            with cpu_slices.unread(self.layers[-1]):  # all that follows its keys and values is never computed
                model(tokens, cache=self.layers)
        self.computed()

    def computed(self, *logits: mx.array) -> None:
        """Wait for what was computed, its output layer only for ``logits``, and keep no more of it than is needed."""
        own_states(self.layers)
        mx.eval(self.arrays, *logits)

    @recorded
    def prepare(self, lengths: Sequence[int], padding: Sequence[int]) -> None:
        """Rows to come have ``lengths`` tokens each and ``padding`` behind them, which :meth:`finalize` takes off."""
        for layer in self.layers:
            layer.prepare(lengths=list(lengths), right_padding=list(padding))

    @recorded
    def prepare_slice(self, lengths: Sequence[int]) -> None:
        """Tell how many tokens each row still has in the next slice, none: negative; only states ask for it.

        mlx-lm tells them what is left of the whole prompt, and some then read behind their slice's end.
        """
        for part in parts(self.layers):
            if isinstance(part, ArraysCache) and part.lengths is not None:
                part.lengths = mx.array(lengths)

    @recorded
    def finalize(self) -> None:
        """The rows that were told of are complete."""
        for layer in self.layers:
            layer.finalize()
        mx.eval(self.arrays)


def merge(rows: Sequence[KV]) -> KV:
    """Plain single-row caches as one merged cache."""
    return rows[0].beside(rows[1:])


def _queued(kv: KV) -> KV:
    """Itself, computed apart on a GPU: CUDA keeps a step's graphs for the next if both are of the same operations."""
    if mx.default_device() != mx.Device(mx.cpu):
        mx.async_eval(kv.arrays)
    return kv
