"""Attention of one token a row on a CPU is mlx-lm's, but for rounding."""

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models import base

from app.engine.mlx.cache import cpu_attention
from app.engine.mlx.cache.classes import Parts, scaled_dot_product_attention
from app.engine.mlx.cache.padded import PaddedKVCache

pytestmark = pytest.mark.skipif(not cpu_attention.on_cpu(), reason="other devices have an attention of their own")

SCALE = 0.3
RTOL, ATOL = 2e-5, 2e-6

lengths = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=4)
heads = st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 2), (9, 3)])


@pytest.fixture(
    scope="module", params=[0, cpu_attention.FEWEST], ids=["however few scores", "many scores alone"], autouse=True
)
def _fewest(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_attention, "FEWEST", request.param)
        yield


def drawn(numbers: np.random.Generator, *shape: int, spread: float = 3.0) -> mx.array:
    return mx.array(numbers.normal(scale=spread, size=shape).astype(np.float32))


def padded(numbers: np.random.Generator, filled: list[int], keys: int) -> tuple[PaddedKVCache, Any, Any]:
    """A class whose rows hold so many tokens each."""
    end = max(filled)
    cache = PaddedKVCache([end - it for it in filled])
    held = cache.update_and_fetch(*(drawn(numbers, len(filled), keys, end, 8) for _ in range(2)))
    cache._idx = end - 1  # the mask is asked for before the token that looks
    mask = cache.make_mask(1)
    cache._idx = end
    return cache, held, mask


@settings(max_examples=40, deadline=None)
@given(lengths, heads, st.integers(0, 1 << 30))
def test_rows_of_any_lengths_attend_as_they_do_one_by_one(
    filled: list[list[int]], counts: tuple[int, int], seed: int
) -> None:
    numbers = np.random.default_rng(seed)
    queries, keys = counts
    made = [padded(numbers, each, keys) for each in filled]
    asked = drawn(numbers, sum(map(len, filled)), queries, 1, 8)
    ends = np.cumsum([len(each) for each in filled]).tolist()[:-1]
    caches = [cache for cache, _, _ in made]
    k, v = (Parts([held[i] for _, held, _ in made], caches, ends) for i in range(2))
    masks = [mask for _, _, mask in made]
    mask = None if all(it is None for it in masks) else Parts(masks, caches, ends)
    got = np.array(scaled_dot_product_attention(asked, k, v, None, SCALE, mask))
    row = 0
    for each, (_, held, _) in zip(filled, made, strict=True):
        for place, tokens in enumerate(each):
            alone = [it[place : place + 1, :, max(each) - tokens :] for it in held]
            wanted = base.scaled_dot_product_attention(asked[row : row + 1], *alone, None, SCALE, None)
            np.testing.assert_allclose(got[row : row + 1], np.array(wanted), rtol=RTOL, atol=ATOL)
            row += 1


@given(st.lists(st.floats(-(2.0**127), 0, width=32), min_size=1, max_size=50))
def test_exponentials_are_those_of_numpy_and_never_more_than_one(values: list[float]) -> None:
    given_ = np.array(values, dtype=np.float32)
    got = np.array(cpu_attention.exponentials(mx.array(given_)))
    np.testing.assert_allclose(got, np.exp(given_.astype(np.float64)), rtol=5e-6, atol=1e-37)
    assert got.max() <= 1.0
    assert not got[given_ < -88].any()


def test_what_is_no_number_stays_none_and_is_its_own_rows_alone() -> None:
    numbers = np.random.default_rng(0)
    _, (k, v), mask = padded(numbers, [9, 5, 7], 2)
    asked = np.array(drawn(numbers, 3, 4, 1, 8))
    asked[1] = np.nan
    got = np.array(scaled_dot_product_attention(mx.array(asked), k, v, None, SCALE, mask))
    assert np.isnan(got[1]).all()
    assert np.isfinite(got[[0, 2]]).all()


@pytest.mark.parametrize("tokens", [2, 5])
def test_several_tokens_a_row_are_mlx_lms_own_business(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_attention, "attend", None)
    numbers = np.random.default_rng(0)
    asked, k, v = (drawn(numbers, 1, 2, tokens, 8) for _ in range(3))
    got = scaled_dot_product_attention(asked, k, v, None, SCALE, "causal")
    wanted = base.scaled_dot_product_attention(asked, k, v, None, SCALE, "causal")
    assert mx.array_equal(got, wanted)
