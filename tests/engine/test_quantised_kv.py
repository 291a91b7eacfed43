"""The batched quantised cache by itself: what its values are, and that every row keeps its own in any company."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.base import scaled_dot_product_attention
from mlx_lm.models.cache import KVCache, RotatingKVCache
from numpy.typing import NDArray

from app.engine.mlx.cache.quantised import PackedKVCache, QuantisedKVCache, quantise_layers

KINDS = [QuantisedKVCache, PackedKVCache]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[QuantisedKVCache | PackedKVCache]:
    if request.param is PackedKVCache and mx.cuda.is_available():
        pytest.skip("MLX has no kernel for it on CUDA")
    return request.param


@pytest.mark.parametrize(("cuda", "kind"), [(True, QuantisedKVCache), (False, PackedKVCache)])
def test_attention_multiplies_packed_values_where_there_is_a_kernel_for_it(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, kind: type[QuantisedKVCache | PackedKVCache]
) -> None:
    monkeypatch.setattr(mx.cuda, "is_available", lambda: cuda)
    window = RotatingKVCache(max_size=8)
    made = quantise_layers([KVCache(), window], 8)
    assert type(made[0]) is kind
    assert hasattr(made[0], "bits") is (not cuda)
    assert made[1] is window


def test_heads_of_64_share_a_scale_among_64() -> None:
    cache = QuantisedKVCache(8)
    cache.update_and_fetch(*(mx.random.normal((1, 3, 5, 64)) for _ in range(2)))
    assert [part.keys.shape[-1] for part in cache.caches] == [16, 1, 1]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("head", [32, 64, 96, 128])
def test_every_number_of_bits_holds_every_size_of_head(
    kind: type[QuantisedKVCache | PackedKVCache], bits: int, head: int
) -> None:
    cache = kind(bits)
    queries, keys, values = (mx.random.normal((1, heads, 9, head)) for heads in (4, 2, 2))
    fetched = cache.update_and_fetch(keys, values)
    assert cache.caches[0].keys.shape[-1] == head * bits // 32
    near = QuantisedKVCache.keys_and_values(cache)
    plain = mx.fast.scaled_dot_product_attention(queries, *near, scale=0.1, mask="causal")
    made = scaled_dot_product_attention(queries, *fetched, cache=cache, scale=0.1, mask="causal")
    assert mx.allclose(made, plain, atol=1e-5).item()
    assert near[0].shape == keys.shape
    assert mx.abs(near[0] - keys).max().item() < 8 / 2**bits


def cache_of(
    kind: type[QuantisedKVCache | PackedKVCache], tokens: int, seed: int
) -> tuple[QuantisedKVCache, tuple[mx.array, mx.array]]:
    """A lone row's cache with so many tokens, and the key and value that come next."""
    keys, values = (mx.random.normal((1, 2, tokens + 1, 64), key=mx.random.key(2 * seed + i)) for i in (0, 1))
    cache = kind(4)
    if tokens:
        cache.update_and_fetch(keys[:, :, :-1], values[:, :, :-1])
    return cache, (keys[:, :, -1:], values[:, :, -1:])


def held(cache: QuantisedKVCache) -> list[NDArray[Any]]:
    return [np.array(array) for array in QuantisedKVCache.keys_and_values(cache)]


def same(left: QuantisedKVCache, right: QuantisedKVCache) -> bool:
    return all(np.array_equal(mine, its) for mine, its in zip(held(left), held(right), strict=True))


def test_merging_extending_filtering_and_extracting_keep_every_row(kind: type[QuantisedKVCache]) -> None:
    lengths = (5, 300, 17, 1, 260)
    rows, coming = zip(*(cache_of(kind, tokens, seed) for seed, tokens in enumerate(lengths)), strict=True)
    merged = kind.merge(rows[:3])
    assert [same(merged.extract(i), rows[i]) for i in range(3)] == [True] * 3
    merged.extend(kind.merge(rows[3:]))
    assert [same(merged.extract(i), rows[i]) for i in range(5)] == [True] * 5
    kept = [4, 0, 2, 2]
    merged.filter(mx.array(kept))
    keys, values = (mx.concatenate([coming[i][side] for i in kept]) for side in (0, 1))
    mask = merged.make_mask(1)
    together = merged.update_and_fetch(keys, values)
    queries = mx.random.normal((4, 6, 1, 64))
    made = scaled_dot_product_attention(queries, *together, cache=merged, scale=1.0, mask=mask)
    assert merged.offset.tolist() == [lengths[i] + 1 for i in kept]
    assert all(part.offset is merged.offset for part in merged.caches), "nothing waits to be counted for ever"
    for i in (4, 0, 2):
        rows[i].update_and_fetch(*coming[i])
    for place, i in enumerate(kept):
        assert same(merged.extract(place), rows[i])
        alone = scaled_dot_product_attention(
            queries[place : place + 1], *rows[i].keys_and_values(), cache=rows[i], scale=1.0, mask=None
        )
        assert mx.allclose(made[place : place + 1], alone, atol=1e-5).item()


def test_rows_computed_side_by_side_are_those_computed_alone(kind: type[QuantisedKVCache | PackedKVCache]) -> None:
    lengths = (4, 9)
    begun = [cache_of(kind, tokens, seed)[0] for seed, tokens in enumerate((0, 6))]
    added = [mx.random.normal((1, 2, tokens, 64)) for tokens in lengths]
    merged = kind.merge(begun)
    merged.prepare(lengths=list(lengths), right_padding=[5, 0])
    padded = mx.concatenate([mx.pad(added[0], [(0, 0), (0, 0), (0, 5), (0, 0)]), added[1]])
    merged.update_and_fetch(padded, padded)
    merged.finalize()
    merged.trim(2)
    for i, cache in enumerate(begun):
        cache.update_and_fetch(added[i], added[i])
        cache.trim(2)
        assert same(merged.extract(i), cache)
