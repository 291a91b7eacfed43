"""One row's keys and values, cut into segments and put together again; and the states of layers that cannot be cut.

A layer that simply appends (a ``KVCache``, a part of a quantised one) holds a position's keys and values for good, so
any piece of it can be taken. What another layer holds is a state: of a sliding window, of a recurrence. It is that of
one position and serves there alone.

All layers' keys and values of one shape lie in one array, ``[arrays, heads, tokens, head size]``: devices bound how
many there may be, and a file holds few large ones better.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, BatchKVCache, CacheList, ChunkedKVCache, KVCache, RotatingKVCache

from app.engine.mlx.cache.classes import ClassedCache
from app.engine.mlx.cache.journal import Journal, recorded
from app.engine.mlx.cache.layers import class_parts
from app.engine.mlx.cache.padded import PaddedKVCache

COPIES = 4096
"""About how many copies putting a row together may take, each of which a device launches by itself; of longer rows
several layers are copied at once, and once more when they are next written to.
"""

Layout = tuple[int, ...]
"""Where keys and values stand in a segment: for each layer that appends the number of the array that its keys are
stacked in and that of its values, in the order of the layers; -1 where a layer holds nothing at all."""


class Cut:
    """The keys and values of some consecutive ``tokens``, in all layers that append, instead of layers.

    ``arrays`` may be lazy; there is none where no layer appends.
    """

    __slots__ = ("arrays", "layout", "nbytes", "tokens")

    def __init__(self, arrays: Sequence[mx.array], tokens: int, layout: Layout) -> None:
        self.arrays = tuple(arrays)
        self.tokens = tokens
        self.layout = layout
        self.nbytes: int = sum(array.nbytes for array in self.arrays)

    @property
    def state(self) -> tuple[mx.array, ...]:
        """What has to be evaluated."""
        return self.arrays

    def part(self, start: int, end: int) -> Cut:
        """A copy of the tokens from ``start`` to ``end``, which keeps nothing of the rest."""
        return Cut([mx.contiguous(array[:, :, start:end]) for array in self.arrays], end - start, self.layout)


class States:
    """What the layers that do not append held of a row at one position, in their order, instead of layers."""

    __slots__ = ("leaves", "nbytes")

    def __init__(self, leaves: Sequence[Any]) -> None:
        self.leaves = list(leaves)
        self.nbytes = sum(int(leaf.nbytes) for leaf in self.leaves)

    @property
    def trimmable(self) -> bool:
        """Whether they still hold all that came before, so that they can be made those of an earlier position."""
        return all(_whole(leaf) for leaf in self.leaves)

    @property
    def state(self) -> list[Any]:
        """What has to be evaluated."""
        return [leaf.state for leaf in self.leaves]

    def give(self, layers: Sequence[Any], surplus: int) -> None:
        """To the fresh ``layers``, less the last ``surplus`` tokens."""
        others = [leaf for layer in layers for leaf in class_parts(layer) if type(leaf) is not KVCache]
        for leaf, held in zip(others, self.leaves, strict=True):
            vars(leaf).update(vars(copy.deepcopy(held)))
            if surplus:
                leaf.trim(surplus)


class Cuttable:
    """The operations of a KV cache by which parts of it are kept and put together again."""

    layers: list[Any]
    merged: bool
    mask_axes: int
    journal: Journal | None

    @recorded
    def cut(self, row: int, start: int, end: int) -> Self:
        """The tokens of a row from ``start`` to ``end`` in all layers that append, as :meth:`restore` takes them.

        Nothing is computed before :meth:`settle` has it evaluated.
        """
        return self._held(_cut(self.layers, row if self.merged else None, start, end))

    @recorded
    def states(self, row: int) -> Self:
        """What the layers that do not append hold of a row now, likewise."""
        leaves = [leaf for layer in self.layers for leaf in _leaves(layer, row if self.merged else None)]
        return self._held(States([_compact(leaf.lone()) for leaf in leaves if not leaf.appends]))

    @recorded
    def part(self, start: int, end: int) -> Self:
        """Some tokens of what was :meth:`cut`; it keeps nothing of the rest."""
        return self._held(self.layers[0].part(start, end))

    @recorded
    def restore(self, cuts: Sequence[Self], tokens: int, states: Self | None, surplus: int, room: int) -> None:
        """Fill what is fresh: the first ``tokens`` of ``cuts`` behind each other, lazily, and the states there.

        There is ``room`` for so many in all: what comes next is written behind them. The states are those of a position
        ``surplus`` tokens further on, from which they are trimmed.
        """
        _restore(self.layers, [cut.layers[0] for cut in cuts], tokens, room)
        if states is not None:
            states.layers[0].give(self.layers, surplus)

    @recorded
    def settle(self, taken: Sequence[Self]) -> None:
        """Compute what was taken of it, so that it can be written to; a GPU does so beside what comes next."""
        arrays = [layer.state for it in taken for layer in it.layers]
        if mx.default_device() == mx.Device(mx.cpu):
            mx.eval(arrays)
        else:
            mx.async_eval(arrays)

    def _held(self, held: Cut | States) -> Self:
        return type(self)([held], 1, merged=False, mask_axes=self.mask_axes)  # type: ignore[call-arg]


def _cut(layers: Sequence[Any], row: int | None, start: int, end: int) -> Cut:
    """The tokens from ``start`` to ``end`` of a row of merged ``layers``, or of a lone row where that is None."""
    leaves = [leaf for layer in layers for leaf in _leaves(layer, row) if leaf.appends]
    held = [array for leaf in leaves for array in leaf.arrays]
    kinds = list(dict.fromkeys(it.kind for it in held if it is not None))
    stacks = [[it for it in held if it is not None and it.kind == kind] for kind in kinds]
    stacked = [mx.concatenate([a[at : at + 1, :, first + start : first + end] for a, at, first in s]) for s in stacks]
    return Cut(stacked, end - start, tuple(-1 if it is None else kinds.index(it.kind) for it in held))


def _restore(layers: Sequence[Any], cuts: Sequence[Cut], tokens: int, room: int) -> None:
    """Have fresh ``layers`` hold the first ``tokens`` of ``cuts``, lazily."""
    if not cuts or not cuts[0].arrays:
        return
    layout = cuts[0].layout
    joined = [iter(_joined([cut.arrays[i] for cut in cuts], tokens, room)) for i in range(max(layout) + 1)]
    places = iter(layout)
    for leaf in (leaf for layer in layers for leaf in class_parts(layer) if type(leaf) is KVCache):
        keys, values = next(places), next(places)
        if keys >= 0:
            leaf.keys, leaf.values, leaf.offset = next(joined[keys]), next(joined[values]), tokens


def _joined(pieces: Sequence[mx.array], tokens: int, room: int) -> Iterator[mx.array]:
    """Each of the stacked arrays, ``[1, heads, positions, size]``, lazy: ``tokens``, and zeros up to ``room``."""
    spare = sum(piece.shape[2] for piece in pieces) - tokens
    pieces = [*pieces[:-1], pieces[-1][:, :, : pieces[-1].shape[2] - spare]]
    arrays, heads, _, width = pieces[0].shape
    if room > tokens:
        pieces = [*pieces, mx.zeros((arrays, heads, room - tokens, width), pieces[0].dtype)]
    size = -(-arrays * len(pieces) // COPIES)
    for start in range(0, arrays, size):
        some = mx.concatenate([piece[start : start + size] for piece in pieces], axis=2)
        for i in range(some.shape[0]):
            yield some[i : i + 1]


class _Appended(NamedTuple):
    """An array of a layer that appends, ``[rows, heads, positions, size]``, and where the row's first token stands."""

    array: mx.array
    row: int
    first: int

    @property
    def kind(self) -> tuple[int, int, mx.Dtype]:
        return self.array.shape[1], self.array.shape[3], self.array.dtype


class _Leaf(NamedTuple):
    """A cache that is not made of others, and the number of the row in it; None where it is of a lone row."""

    cache: Any
    row: int | None

    @property
    def appends(self) -> bool:
        return type(self.cache) is KVCache or isinstance(self.cache, BatchKVCache)

    @property
    def arrays(self) -> tuple[_Appended, _Appended] | tuple[None, None]:
        if self.cache.keys is None:
            return None, None
        row, first = (0, 0) if self.row is None else (self.row, self._padding(self.row))
        return _Appended(self.cache.keys, row, first), _Appended(self.cache.values, row, first)

    def _padding(self, row: int) -> int:
        cache = self.cache
        return cache.padding.sizes[row] if isinstance(cache, PaddedKVCache) else int(cache.left_padding[row].item())

    def lone(self) -> Any:
        """The row's own cache."""
        return self.cache if self.row is None else self.cache.extract(self.row)


def _leaves(layer: Any, row: int | None) -> Iterator[_Leaf]:
    """What one row has in a layer."""
    if isinstance(layer, ClassedCache):
        at = 0 if row is None else row
        for part, rows in zip(layer.parts, layer.rows, strict=True):
            if 0 <= at < rows:
                yield from _leaves(part, at)
            at -= rows
    elif isinstance(layer, CacheList):
        for part in layer.caches:
            yield from _leaves(part, row)
    else:
        yield _Leaf(layer, row)


def _compact(leaf: Any) -> Any:
    """A copy of a row's state that keeps nothing which is not looked at any more."""
    leaf = copy.copy(leaf)
    if isinstance(leaf, RotatingKVCache) and leaf.keys is not None:
        surplus = max(0, min(leaf.offset, leaf.keys.shape[2]) - leaf.max_size)
        ordered = [leaf._temporal_order(it) for it in (leaf.keys, leaf.values)]  # noqa: SLF001
        leaf.keys, leaf.values = (mx.contiguous(leaf._trim(surplus, it)) for it in ordered)  # noqa: SLF001
        leaf._idx = leaf.keys.shape[2]  # noqa: SLF001
    elif isinstance(leaf, ChunkedKVCache) and leaf.keys is not None:
        leaf.keys, leaf.values = (mx.contiguous(it) for it in leaf.keys_and_values())
    elif isinstance(leaf, ArraysCache):
        leaf.cache = [None if it is None else mx.contiguous(it) for it in leaf.cache]
    else:
        leaf = copy.deepcopy(leaf)
    return leaf


def _whole(leaf: Any) -> bool:
    """Whether a state holds all that its row has ever held."""
    if isinstance(leaf, ChunkedKVCache):
        return int(leaf.start_position) == 0
    return isinstance(leaf, RotatingKVCache) and bool(leaf.is_trimmable())
