"""What is kept of prompts and found again; the arrays do not matter here."""

import mlx.core as mx
import pytest
from mlx_lm.models.cache import KVCache, RotatingKVCache

from app.engine.mlx.cache.kv import KV
from app.engine.mlx.cache.prefix import SHORTEST, SHORTEST_ON_CUDA, PrefixCache, PrefixPool


def held(tokens):
    layer = KVCache()
    layer.update_and_fetch(mx.ones((1, 1, tokens, 4)), mx.ones((1, 1, tokens, 4)))
    return KV([layer], 1, merged=False)


@pytest.mark.parametrize("shortest", [SHORTEST, SHORTEST_ON_CUDA])
def test_what_is_shorter_than_the_least_worth_sharing_is_neither_kept_nor_found(shortest):
    cache = PrefixCache(PrefixPool(1 << 20), shortest)
    cache.put(range(shortest - 1), held(shortest - 1))
    assert cache.find(range(2 * shortest)) is None
    cache.put(range(shortest), held(shortest))
    kv, known = cache.find(range(2 * shortest))
    assert (known, kv.positions) == (shortest, shortest)
    assert cache.known([*range(shortest - 1), 9_999, 9_999]) == 0


def test_a_longer_prompt_takes_the_place_of_its_own_beginnings_and_of_no_other():
    pool = PrefixPool(1 << 20)
    cache, other = PrefixCache(pool), PrefixCache(pool)
    for tokens in (range(40), [*range(39), 500], range(60)):
        cache.put(tokens, held(len(tokens)))
    other.put(range(40), held(40))
    kept = [list(ids) for each in (cache, other) for _, ids, _ in pool.of(each._owner)]
    assert kept == [[*range(39), 500], [*range(60)], [*range(40)]]


def test_what_was_allocated_ahead_is_not_kept():
    pool = PrefixPool(1 << 20)
    PrefixCache(pool).put(range(40), held(40))
    assert pool.nbytes == 2 * 40 * 4 * 4


def slid(tokens, window):
    layer = RotatingKVCache(window)
    for start in range(0, tokens, 8):
        values = mx.ones((1, 1, min(8, tokens - start), 4))
        layer.update_and_fetch(values, values)
    return KV([layer], 1, merged=False)


def test_a_prompt_that_cannot_be_trimmed_to_it_takes_no_beginnings_place():
    """A system prompt within the window serves whoever begins with it; what has slid past it serves its own alone."""
    cache = PrefixCache(PrefixPool(1 << 20))
    cache.put(range(20), slid(20, 32))
    cache.put(range(60), slid(60, 32))
    assert cache.known([*range(20), *range(500, 520)]) == 20
    assert cache.known([*range(60), 1, 2]) == 60
    cache.put(range(30), slid(30, 32))
    assert cache.known([*range(20), *range(500, 520)]) == 20, "the longer one can be trimmed to it"
