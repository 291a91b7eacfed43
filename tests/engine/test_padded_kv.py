"""Rows side by side: whatever comes and goes, each keeps its own, exactly as in mlx-lm's own batched cache."""

from collections.abc import Callable
from typing import Any, Self

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import BatchKVCache, KVCache
from numpy.typing import NDArray

from app.engine.mlx.cache.padded import PaddedKVCache

HEADS, SIZE = 2, 4
numbers = np.random.default_rng(26)


def fresh_values(rows: int, tokens: int) -> mx.array:
    """Values that no other token has, ``[rows, HEADS, tokens, SIZE]``."""
    return mx.array(numbers.random((rows, HEADS, tokens, SIZE), dtype=np.float32))


def lone(tokens: int) -> Any:
    cache = KVCache()
    if tokens:
        cache.update_and_fetch(fresh_values(1, tokens), fresh_values(1, tokens))
    return cache


def seen(cache: Any, tokens: int, window: int | None) -> NDArray[Any]:
    """Which keys the next tokens see; where there is no mask, one token sees all."""
    mask = cache.make_mask(tokens, window_size=window)
    if mask is not None:
        return np.array(mask)
    assert tokens == 1
    return np.ones((cache.offset.size, 1, 1, cache.size() + 1), dtype=bool)


def look(cache: Any) -> list[NDArray[Any]]:
    """All that a model or an owner can see of it."""
    held = [np.array(it) for it in cache.keys_and_values()] if cache.size() else []
    masks = [seen(cache, n, window) for n in (1, 3) for window in (None, 5)]
    return [*held, *masks, np.array(cache.offset), np.array(cache.left_padding), np.array(cache.size())]


def same(ours: PaddedKVCache, theirs: Any) -> None:
    mine, its = look(ours), look(theirs)
    padding = ~np.array(theirs.make_mask(1))[:, 0, 0, :-1] if theirs.size() else None
    for place, pair in enumerate(zip(mine, its, strict=True)):
        if padding is not None and place < 2:  # whatever stands there, nobody looks at it
            hidden = padding[:, None, :, None]
            np.testing.assert_array_equal(np.where(hidden, 0, pair[0]), np.where(hidden, 0, pair[1]))
        else:
            np.testing.assert_array_equal(*pair)


class Both:
    """The two caches, told the same."""

    def __init__(self, lengths: list[int]) -> None:
        rows = [lone(tokens) for tokens in lengths]
        self.ours, self.theirs = PaddedKVCache.merge(rows), BatchKVCache.merge(rows)
        self.rows = len(lengths)

    def each(self, act: Callable[..., Any]) -> None:
        act(self.ours)
        act(self.theirs)

    def append(self, tokens: int, padding: list[int] | None = None) -> None:
        keys, values = fresh_values(self.rows, tokens), fresh_values(self.rows, tokens)
        if padding:
            lengths = [tokens - pad for pad in padding]
            self.each(lambda cache: cache.prepare(lengths=lengths, right_padding=padding))
        self.each(lambda cache: cache.update_and_fetch(keys, values))
        self.each(lambda cache: cache.finalize())

    def filter(self, kept: list[int]) -> None:
        self.each(lambda cache: cache.filter(mx.array(kept)))
        self.rows = len(kept)

    def extend(self, other: Self) -> None:
        self.ours.extend(other.ours)
        self.theirs.extend(other.theirs)
        self.rows += other.rows


lengths = st.lists(st.sampled_from([0, 1, 2, 5, 255, 256, 257, 300]), min_size=1, max_size=4)
deeds = st.lists(st.sampled_from(["append", "append", "pad", "filter", "extend", "trim"]), max_size=8)


@settings(max_examples=60, deadline=None)
@given(lengths, deeds, st.data())
def test_it_holds_what_mlx_lms_own_cache_holds(begun: list[int], todo: list[str], data: st.DataObject) -> None:
    both = Both(begun)
    for deed in todo:
        if deed == "append":
            both.append(data.draw(st.sampled_from([1, 3, 256])))
        elif deed == "pad":
            both.append(7, data.draw(st.lists(st.integers(0, 6), min_size=both.rows, max_size=both.rows)))
        elif deed == "filter":
            both.filter(data.draw(st.lists(st.integers(0, both.rows - 1), min_size=1, max_size=5)))
        elif deed == "extend":
            both.extend(Both(data.draw(lengths)))
        elif min(both.ours.offset.tolist()) >= 2:
            both.each(lambda cache: cache.trim(2))
        same(both.ours, both.theirs)
    both.append(1)
    for row in range(both.rows):
        mine, its = both.ours.extract(row), both.theirs.extract(row)
        assert mine.offset == its.offset
        for a, b in zip(mine.keys_and_values(), its.keys_and_values(), strict=True):
            np.testing.assert_array_equal(np.array(a), np.array(b))


def test_all_layers_of_a_batch_share_what_is_known_of_it() -> None:
    layers = [PaddedKVCache.merge([lone(3), lone(300)]) for _ in range(3)]
    for layer in layers:
        layer.filter(mx.array([1, 0, 0]))
        layer.update_and_fetch(fresh_values(3, 1), fresh_values(3, 1))
    assert all(layer.offset is layers[0].offset for layer in layers)
    assert all(layer.left_padding is layers[0].left_padding for layer in layers)
    assert layers[0].offset.tolist() == [301, 4, 4]


def test_an_empty_row_is_a_row() -> None:
    merged = PaddedKVCache.merge([lone(0), lone(0)])
    assert merged.extract(1).empty()
    merged.update_and_fetch(fresh_values(2, 4), fresh_values(2, 4))
    assert merged.offset.tolist() == [4, 4]


@pytest.mark.parametrize("rows", [1, 3])
def test_padding_given_beforehand_counts(rows: int) -> None:
    merged = PaddedKVCache([0] * rows)
    merged.prepare(left_padding=[2] * rows)
    merged.update_and_fetch(fresh_values(rows, 5), fresh_values(rows, 5))
    assert merged.offset.tolist() == [3] * rows


def test_padding_that_no_row_needs_any_more_is_let_go() -> None:
    both = Both([3, 300, 9])
    both.filter([0, 2])
    same(both.ours, both.theirs)
    assert both.ours.size() == 9
