"""The caches of a batch's layers, whatever each is made of: taken apart, merged, arranged in classes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache

from app.engine.mlx.cache.arrangement import Groups
from app.engine.mlx.cache.classes import ClassedCache
from app.engine.mlx.cache.padded import PaddedKVCache
from app.engine.mlx.cache.quantised import QuantisedKVCache


def class_parts(layer: Any) -> Iterator[Any]:
    """The caches of all classes of a layer, with those that it holds several of taken apart."""
    if isinstance(layer, ClassedCache):
        for part in layer.parts:
            yield from class_parts(part)
    elif isinstance(layer, CacheList):
        for part in layer.caches:
            yield from class_parts(part)
    else:
        yield layer


def parts(layers: Iterable[Any]) -> Iterator[Any]:
    """The caches of all layers, with those that a layer holds several of taken apart."""
    return (part for layer in layers for part in class_parts(layer))


def bytes_per_token(layers: Iterable[Any]) -> int:
    """What one token of every row takes."""
    shapes = [(part.nbytes, part.keys.shape[2]) for part in parts(layers) if getattr(part, "keys", None) is not None]
    return sum(int(-(-nbytes // positions)) for nbytes, positions in shapes)


def trim_rows(layers: Iterable[Any], tokens: Sequence[int]) -> None:
    """Take the last ``tokens`` tokens off each row of caches in which every row lies by itself."""
    for layer in layers:
        for part, count in zip(layer.parts if isinstance(layer, ClassedCache) else [layer], tokens, strict=True):
            part.trim(count)


def own_states(layers: Sequence[Any]) -> None:
    """Let states be arrays of their own: some are the end of a whole slice's, which they would keep alive."""
    for part in (part for layer in layers for part in class_parts(layer)):
        if isinstance(part, ArraysCache):
            part.cache = [None if state is None else mx.contiguous(state) for state in part.cache]


def merged_layer(caches: Sequence[Any], mask_axes: int) -> Any:
    """One layer's caches of lone rows as one, keys and values padded in whole steps wherever they lie in it."""
    first = caches[0]
    if type(first) is KVCache:
        return PaddedKVCache.merge(caches, mask_axes)
    if isinstance(first, CacheList) and not isinstance(first, QuantisedKVCache):
        return CacheList(*(merged_layer(column, mask_axes) for column in _columns(caches)))
    return first.merge([*caches])


def arranged_layer(layers: Sequence[Any], classes: Sequence[Sequence[int]], groups: Groups) -> Any:
    """One layer's merged caches of several batches, each of ``classes`` rows, as one with the rows in ``groups``.

    The caches given are used up. A state of each row needs no classes.
    """
    first = layers[0]
    if isinstance(first, ArraysCache):
        return _ordered(layers, [row for group in groups for row in group])
    if isinstance(first, CacheList) and not isinstance(first, QuantisedKVCache):
        return CacheList(*(arranged_layer(column, classes, groups) for column in _columns(layers)))
    parts: list[tuple[Any, int]] = []
    for layer, sizes in zip(layers, classes, strict=True):
        held = layer.parts if isinstance(layer, ClassedCache) else [layer]
        parts += zip(held, sizes, strict=True)
    made = [_gathered(parts, group) for group in groups]
    return made[0] if len(made) == 1 else ClassedCache(made, [len(group) for group in groups])


def _columns(layers: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """What stands at each place of several lists of caches."""
    return zip(*(layer.caches for layer in layers), strict=True)


def _ordered(layers: Sequence[Any], order: list[int]) -> Any:
    whole = layers[0]
    rows = whole.batch_size
    for layer in layers[1:]:
        rows += layer.batch_size
        whole.extend(layer)
    if order != list(range(rows)):
        whole.filter(mx.array(order))
    return whole


def _gathered(parts: Sequence[tuple[Any, int]], group: list[int]) -> Any:
    """One class: the rows ``group`` out of ``parts``, each a cache and how many rows it has."""
    places = [(number, row) for number, (_, rows) in enumerate(parts) for row in range(rows)]
    runs = [[row for _, row in run] for _, run in groupby((places[row] for row in group), key=lambda place: place[0])]
    whole = None
    for number, rows in zip((it for it, _ in groupby(places[row][0] for row in group)), runs, strict=True):
        cache, size = parts[number]
        if rows != list(range(size)):
            cache = copy.deepcopy(cache)
            cache.filter(mx.array(rows))
        if whole is None:
            whole = cache
        else:
            whole.extend(cache)
    return whole
